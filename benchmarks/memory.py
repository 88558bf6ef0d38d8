"""Measure how much memory predict.py takes for images of 10, 100 and 1,000 megapixels.

    pip install -r benchmarks/requirements.txt
    python benchmarks/memory.py [MEGAPIXELS ...]

The images are made on the fly, of the project's own scene over and over, as PNG, JPEG,
TIFF and GeoTIFF; each is predicted by the command itself, after a training. The table
and its picture are written to benchmarks/results.md. Needs 8 GB of disk; on two cores
it takes ten minutes.
"""

import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from matplotlib.figure import Figure
from rasterio.transform import from_origin
from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import report  # noqa: E402

import bigimages  # noqa: E402 - from the folder above
import cli  # noqa: E402
import figures  # noqa: E402
import images  # noqa: E402


MEGAPIXELS = (10, 100, 1000)
FORMATS = ("png", "jpg", "tif", "map.tif")
PLACE = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 0.5, 0.5)}

# Runs a command, and prints its seconds and its peak memory in MiB.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def make_image(path, side):
    """Write the project's scene over and over, `side` pixels a side."""
    rgb = images.read_rgb(ROOT / "data/rgb.png")
    row = np.concatenate([rgb] * (side // rgb.shape[1] + 1), 1)[:, :side]
    blocks = bigimages.bands((side, side))
    rows = (row[np.arange(b.top, b.bottom) % len(row)] for b in blocks)
    store = SimpleNamespace(array=np.empty((side, side), bool), folder=path.parent)
    more = {"place": PLACE} if path.name.endswith("map.tif") else {}
    bigimages._write(path, rows, store, **more)


def measure(path, options=()):
    """Predict an image by the command; give its seconds and its peak memory in MiB."""
    mask = path.with_name("mask.tif" if path.suffix == ".tif" else "mask.png")
    command = [sys.executable, ROOT / "predict.py", path, "--output", mask]
    command += ["--model", ROOT / "model.pt", *options]
    line = [sys.executable, "-c", MEASURE, *command]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    return tuple(map(float, done.stdout.split()))


def draw(found, sizes):
    """Draw peak memory against megapixels."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    for kind in FORMATS:
        axis.plot(sizes, [found[kind, size][1] for size in sizes], "o-", label=kind)
    top = 1.1 * max(peak for _, peak in found.values())
    axis.set(xscale="log", xlabel="megapixels", ylabel="peak memory, MiB")
    axis.set(ylim=(0, top))
    axis.set_xticks(sizes, sizes)
    axis.legend(frameon=False)
    return figure


def main():
    """Measure all formats and sizes, and put the table into results.md."""
    cli.check_input(ROOT / "model.pt")
    sizes = tuple(map(int, sys.argv[1:])) or MEGAPIXELS
    found = {}
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        for kind, size in tqdm(list(product(FORMATS, sizes)), disable=None):
            path = Path(folder, f"image.{kind}")
            make_image(path, int((size * 1e6) ** 0.5))
            found[kind, size] = measure(path)
            path.unlink()
    lines = [
        "`python benchmarks/memory.py`; peak resident memory of the whole command, and "
        "its seconds a megapixel in units of the smallest image's. `import torch` "
        "alone takes about 220 MiB.",
        "",
        "![Peak memory against megapixels](memory.png)",
        "",
        f"| | {' | '.join(f'{size} MP, MiB | time a MP' for size in sizes)} |",
        "|---" * (2 * len(sizes) + 1) + "|",
    ]
    for kind in FORMATS:
        first = found[kind, sizes[0]][0] / sizes[0]
        cells = [
            f"{found[kind, size][1]:.0f} | {found[kind, size][0] / size / first:.2f}"
            for size in sizes
        ]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    least, most = sizes[0], sizes[-1]
    growth = [found[kind, most][1] - found[kind, least][1] for kind in FORMATS]
    lines += [
        "",
        f"From {least} to {most} megapixels the peak grows by {min(growth):.0f} to "
        f"{max(growth):.0f} MiB. It is the width that takes it, not the height.",
    ]
    report.write_part("How much memory", "\n".join(lines))
    figures.save(draw(found, sizes), ROOT / "benchmarks/memory.png")


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
