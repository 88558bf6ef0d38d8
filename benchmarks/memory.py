"""Measure how much memory predict.py takes for images of 12, 300 and 1,000 megapixels.

    pip install -r benchmarks/requirements.txt
    python benchmarks/memory.py [MEGAPIXELS ...]

The images are the project's own scene over and over: PNG, JPEG and TIFF as Pillow
writes them, and a GeoTIFF. Each is predicted by the command itself, after a training.
The peak is that of the whole process, beside what the command said that it would take
at most. The table and its picture are written to benchmarks/results.md. Needs 8 GB of
disk and 5 GB of memory; on two cores it takes a quarter of an hour.
"""

import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rasterio.transform import from_origin
from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import report  # noqa: E402

from onelabel import console, files, pictures, writing  # noqa: E402
from onelabel.image import strips  # noqa: E402
from onelabel.reading import open_image  # noqa: E402


MEGAPIXELS = (12, 300, 1000)  # 4000x3000 pixels, 20000x15000, ...
FORMATS = ("png", "jpg", "tif", "map.tif")
PLACE = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 0.5, 0.5)}

# Runs a command, and prints its seconds, those of the processor, and its peak memory in
# MiB. A process of its own, since a child's peak counts from what its parent holds.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def run(command, folder=None):
    """Run a command; give what `MEASURE` prints, and what went to standard error."""
    line = [sys.executable, "-c", MEASURE, *map(str, command)]
    done = subprocess.run(line, cwd=folder, check=True, capture_output=True, text=True)
    return [float(number) for number in done.stdout.split()], done.stderr


def make_image(path, height, width):
    """Write the project's scene over and over."""
    rgb = open_image(ROOT / "data/rgb.png").whole()
    row = np.concatenate([rgb] * (width // rgb.shape[1] + 1), 1)[:, :width]
    blocks = strips((height, width))
    rows = (row[np.arange(b.top, b.bottom) % len(row)] for b in blocks)
    if path.name.endswith("map.tif"):
        writing.write_rows(path, rows, (height, width), PLACE)
        return
    image = Image.new("RGB", (width, height))
    for block, part in zip(blocks, rows, strict=True):
        image.paste(Image.fromarray(part), (0, block.top))
    image.save(path, **{"compress_level": 1} if path.suffix == ".png" else {})


def measure(path, options=()):
    """Predict an image by the command; give its seconds and its peak memory in MiB.

    `options` are more of the command's. The third number is what the command said that
    it would take, in MiB, or None.
    """
    mask = path.with_name("mask.tif" if path.suffix == ".tif" else "mask.png")
    command = [sys.executable, ROOT / "predict.py", path, "--output", mask]
    command += ["--model", ROOT / "model.pt", *options]
    (seconds, _, peak), complaints = run(command)
    said = re.search(r"at most ([\d.]+) GB of memory", complaints)
    return seconds, peak, float(said[1]) * 1e9 / 2**20 if said else None


def draw(found, sizes):
    """Draw peak memory against megapixels."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    for kind in FORMATS:
        axis.plot(sizes, [found[kind, size][1] for size in sizes], "o-", label=kind)
    top = 1.1 * max(peak for _, peak, _ in found.values())
    axis.set(xscale="log", xlabel="megapixels", ylabel="peak memory, MiB")
    axis.set(ylim=(0, top))
    axis.set_xticks(sizes, sizes)
    axis.legend(frameon=False)
    return figure


def main():
    """Measure all formats and sizes, and put the table into results.md."""
    files.check_input(ROOT / "model.pt")
    sizes = tuple(map(int, sys.argv[1:])) or MEGAPIXELS
    found = {}
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        for kind, size in tqdm(list(product(FORMATS, sizes)), disable=None):
            path = Path(folder, f"image.{kind}")
            make_image(path, int((size * 750_000) ** 0.5), int((size / 0.75e-6) ** 0.5))
            found[kind, size] = measure(path)
            path.unlink()
    lines = [
        "`python benchmarks/memory.py`; peak resident memory of the whole command, "
        "what it said before the work that it would take at most, and its seconds a "
        "megapixel in units of the smallest image's. An image of 12 megapixels is held "
        "in memory. `import torch` alone takes about 220 MiB.",
        "",
        "![Peak memory against megapixels](memory.png)",
        "",
        f"| | {' | '.join(f'{size} MP, MiB | said | time a MP' for size in sizes)} |",
        "|---" * (3 * len(sizes) + 1) + "|",
    ]
    for kind in FORMATS:
        cells = []
        for size in sizes:
            seconds, peak, said = found[kind, size]
            times = seconds / size / (found[kind, sizes[0]][0] / sizes[0])
            cells.append(f"{peak:.0f} | {f'{said:.0f}' if said else '-'} | {times:.2f}")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    least, most = sizes[0], sizes[-1]
    growth = [found[kind, most][1] - found[kind, least][1] for kind in FORMATS]
    lines += [
        "",
        f"From {least} to {most} megapixels the peak changes by {min(growth):+.0f} to "
        f"{max(growth):+.0f} MiB. It grows with the width, not with the height.",
    ]
    report.write_part("How much memory", "\n".join(lines))
    pictures.save(draw(found, sizes), ROOT / "benchmarks/memory.png")


if __name__ == "__main__":
    raise SystemExit(console.run(main))
