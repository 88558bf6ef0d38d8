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

import atheris
import numpy as np


ROOT = Path(__file__).resolve().parent.parent
FOUND = ROOT / "fuzz"
LARGEST = 100_000  # pixels: larger ones are slow to try, and teach nothing

sys.path.insert(0, str(ROOT))
# Libraries written in C are not instrumented, only called.
with atheris.instrument_imports(
    include=["PIL", "torch.serialization", "torch._weights_only_unpickler"]
    + ["bigimages", "cli", "images", "segutils"]
):
    from PIL import Image

    import bigimages
    import images
    import segutils
    from cli import InputError
    from images import Block

    Image.init()  # imports the readers of all formats


def read_rgb(path):
    """Read an image, and hold it against what its reader promises."""
    rgb = images.read_rgb(path)
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3


def read_truth(path):
    """Read a truth, and hold it against what its reader promises."""
    truth, (dark, bright) = images.read_truth(path)
    assert set(np.unique(truth)) <= {0, 1, images.UNLABELLED}
    assert dark != bright and len(dark) == len(bright) == 3


def load_model(path):
    """Load a model, and let it say something."""
    model, _ = segutils.load_model(path)
    segutils.segment(model, np.zeros((2, 2, 3), np.uint8))


def read_by_parts(path):
    """Read an image by the libraries for large ones: pyvips, rasterio."""
    source = bigimages.open_source(path, max_pixels=LARGEST)
    rgb = np.ma.getdata(source.read(Block(0, 0, *source.shape)))
    assert rgb.dtype == np.uint8 and rgb.shape == (*source.shape, 3)


READERS = [read_rgb, read_truth, load_model, read_by_parts]


def samples():
    """Give small files of every format, and a model file, each with its reader."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    truth = Image.fromarray(rng.integers(0, 2, (9, 7), np.uint8) * 255)
    for name in images.READ_FORMATS:
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
        segutils.save_model(
            path,
            segutils.FCNN().state_dict(),
            [[0] * 3, [255] * 3],
            {**looks, "larger": 0},
            {},
        )
        yield bytes([2]) + path.read_bytes()


def try_one(content):
    """Give a file to the reader that its first byte says."""
    reader = READERS[content[0] % len(READERS)] if content else read_rgb
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
    images.MAX_IMAGE_PIXELS = LARGEST
    options = [f"-max_total_time={seconds}", "-max_len=65536", "-timeout=20"]
    options += [f"-artifact_prefix={FOUND}/", str(FOUND)]
    atheris.Setup([sys.argv[0], *options], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]))
