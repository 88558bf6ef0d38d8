"""Feed damaged files to the readers, guided by the code that they reach.

python benchmarks/fuzz.py 900
    for 900 seconds; fuzz/ keeps what was found for the next time

atheris (https://github.com/google/atheris) changes sample files and keeps each change
that reaches new code. A reader may take a file, or refuse it in an `InputError`.
Anything else is a finding: it ends the run in a traceback, and fuzz/crash-... is the
file, after a first byte that says which reader it was for.
"""

import io
import sys
import tempfile
from pathlib import Path
from unittest import mock

import atheris
import numpy as np


ROOT = Path(__file__).resolve().parent.parent
FOUND = ROOT / "fuzz"
LARGEST = 100_000  # pixels: larger ones are slow to try, and teach nothing

sys.path.insert(0, str(ROOT))
# Libraries written in C are not instrumented, only called.
with atheris.instrument_imports(
    include=["PIL", "torch.serialization", "torch._weights_only_unpickler"]
    + ["onelabel", "segutils"]
):
    from PIL import Image

    import segutils
    from onelabel import depth, formats, model_file, reading
    from onelabel.files import InputError
    from onelabel.image import UNLABELLED
    from onelabel.truth import read_truth

    Image.init()  # imports the readers of all formats


def read_image(path):
    """Read an image by its own library, and hold it against what is promised."""
    image = reading.open_image(path, max_pixels=LARGEST)
    image.use_scale(depth.fit_scale(depth.kind_of(image.dtype), image.raw_sample()))
    rgb = image.whole()
    assert rgb.dtype == np.uint8 and rgb.shape == (*image.shape, 3)


def read_alone(path):
    """Read an image as where Pillow is the only library."""
    with mock.patch.object(reading, "has", lambda library: False):
        read_image(path)


def read_classes(path):
    """Read a truth, and hold it against what its reader promises."""
    truth, (dark, bright) = read_truth(path, LARGEST)
    assert set(np.unique(truth)) <= {0, 1, UNLABELLED}
    assert dark != bright and len(dark) == len(bright) == 3


def load_model(path):
    """Load a model, and let it say something."""
    trained = model_file.load(path)
    segutils.segment(trained.model, np.zeros((2, 2, 3), np.uint8))


READERS = [read_alone, read_classes, load_model, read_image]


def samples():
    """Give small files of every format, and a model file, each with its reader."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    truth = Image.fromarray(rng.integers(0, 2, (9, 7), np.uint8) * 255)
    for name in formats.PILLOW_FORMATS:
        for mode in ("RGB", "L", "1", "P", "CMYK", "I;16", "LA", "RGBA"):
            for reader, image in ((0, rgb), (1, truth), (3, rgb)):
                content = io.BytesIO()
                try:
                    image.convert("L").convert(mode).save(content, name)
                except (OSError, ValueError):
                    continue  # no such mode in this format
                yield bytes([reader]) + content.getvalue()
    looks = dict.fromkeys(("colour", "contrast", "lowest", "highest"), [99.0] * 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pt")
        model = segutils.FCNN()
        looks |= {"network": model, "larger": 0, "error": [0.0, 0.0]}
        colours = (0, 0, 0), (255, 255, 255)
        model_file.save(path, model.state_dict(), looks, colours)
        yield bytes([2]) + path.read_bytes()


def try_one(content):
    """Give a file to the reader that its first byte says."""
    reader = READERS[content[0] % len(READERS)] if content else read_alone
    with tempfile.NamedTemporaryFile() as file:
        file.write(content[1:])
        file.flush()
        try:
            reader(file.name)
        except InputError as error:
            assert file.name in str(error)


def main(seconds):
    """Try files for so many seconds."""
    FOUND.mkdir(exist_ok=True)
    for number, content in enumerate(samples()):
        (FOUND / f"sample-{number}").write_bytes(content)
    options = [f"-max_total_time={seconds}", "-max_len=65536", "-timeout=20"]
    options += [f"-artifact_prefix={FOUND}/", str(FOUND)]
    atheris.Setup([sys.argv[0], *options], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]))
