"""Train and predict the sample scene in 8 bits, 12 bits, reflectance and floats.

    python benchmarks/depths.py

Four trainings of full length. The table in results.md has the IoU on the training image
and on the new image, each kind by a network that was trained on its own kind.
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import report  # noqa: E402
from accuracy import as_command  # noqa: E402

from onelabel import console  # noqa: E402 - from the folder above
from onelabel.reading import open_image  # noqa: E402


KINDS = {
    "8 bits": lambda rgb: rgb,
    "12 bits, in uint16": lambda rgb: rgb * np.uint16(16),
    "reflectance of 0 to 10,000, in uint16": lambda rgb: np.uint16(rgb / 255 * 10_000),
    "0 to 1, in float32": lambda rgb: np.float32(rgb / 255),
}
SCENES = {"the training image": ROOT / "data", "the new image": ROOT / "data/new"}


def write(path, rgb):
    """Write (H, W, 3) values as a TIFF."""
    size = {"count": 3, "height": rgb.shape[0], "width": rgb.shape[1]}
    with rasterio.open(path, "w", "GTiff", dtype=rgb.dtype, **size) as file:
        file.write(np.moveaxis(rgb, -1, 0))


def measure(folder, change):
    """Train on the scene as it is after a change; give the IoU of each image."""
    images = {name: folder / f"{scene.name}.tif" for name, scene in SCENES.items()}
    for name, scene in SCENES.items():
        write(images[name], change(open_image(scene / "rgb.png").whole()))
    model, (train, _) = folder / "model.pt", images.values()
    made = ("--model", model, "--plot", folder / "curves.png")
    as_command("train.py", "--rgb", train, "--gt", ROOT / "data/gt.png", *made)
    ious = []
    for name, scene in SCENES.items():
        mask = ("--model", model, "--output", folder / "mask.png")
        said = as_command("predict.py", images[name], *mask, "--gt", scene / "gt.png")
        ious.append(re.search(r"^network +(\S+)", said, re.MULTILINE)[1])
    return ious


def main():
    """Measure all kinds, and put the table into results.md."""
    lines = [
        "`python benchmarks/depths.py`; IoU, seed 0, a full training for each kind of "
        "pixels. More than 8 bits are scaled by the training image's own percentiles.",
        "",
        *report.heads(*SCENES),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for kind, change in tqdm(KINDS.items(), disable=None):
            lines.append(f"| {kind} | {' | '.join(measure(Path(folder), change))} |")
    report.write_part("Pixels of more than 8 bits", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
