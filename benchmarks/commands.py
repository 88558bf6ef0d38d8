"""Measure whole commands, from an image's file to that of its mask.

    pip install -r benchmarks/requirements.txt
    python train.py
    python benchmarks/commands.py [MEGAPIXELS ...]

predict.py segments GeoTIFFs, PNGs and JPEGs of 1 to 1,000 megapixels, or of the sizes
that are given: the chart. On two of the sizes the programs of benchmarks/plain.py do
the same with GeoTIFFs: the table. Both are put into benchmarks/results.md. Needs 10 GB
of disk and 20 GB of memory; on two cores it takes half an hour.
"""

import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import matplotlib
import memory
import plain
import report
from matplotlib.figure import Figure
from tqdm.auto import tqdm

import segutils
from onelabel import console, files, pictures


MEGAPIXELS = (1, 4, 16, 64, 400, 1000)
COMPARED = (16, 400)  # megapixels
OURS = "predict.py"  # on a GeoTIFF
OTHER_FILES = {f"{OURS}, PNG": "png", f"{OURS}, JPEG": "jpg"}
INTEGERS = f"{OURS} --precision int8"
PEERS = {
    "window after window, as OTBTF": "windows",
    "the whole image by MONAI, its default overlap": "monai",
}


def command(way, image):
    """Give the command line that segments an image."""
    mask = image.with_name("mask.png" if way in OTHER_FILES else "mask.tif")
    if way in PEERS:
        return [plain.ROOT / "benchmarks/plain.py", PEERS[way], image, mask]
    options = ["--output", mask, "--model", plain.ROOT / "model.pt"]
    options += ["--precision", "int8"] if way == INTEGERS else []
    return [plain.ROOT / "predict.py", image, *options]


def measure(way, folder):
    """Give the seconds and the peak memory in MiB of a command, or None if it fails."""
    image = Path(folder, f"image.{OTHER_FILES.get(way, 'map.tif')}")
    try:
        (seconds, _, peak), _ = memory.run([sys.executable, *command(way, image)])
    except subprocess.CalledProcessError:
        return None
    return seconds, peak


def table(found, sizes):
    """Lay out seconds and memory, beside predict.py's."""
    columns = product(sizes, ("s", "of predict.py's", "MiB"))
    lines = report.heads(*(f"{size} MP, {what}" for size, what in columns))
    for way in dict.fromkeys(way for way, size in found if size in sizes):
        cells = []
        for size in sizes:
            if found[way, size] is None:
                cells += ["failed", "-", "-"]
                continue
            seconds, peak = found[way, size]
            ratio = seconds / found[OURS, size][0]
            cells += [f"{seconds:.1f}", f"{ratio:.1f}", f"{peak:.0f}"]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


@matplotlib.rc_context(pictures.STYLE)
def chart(found, ways, sizes):
    """Draw seconds against megapixels."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    for way in ways:
        seconds = [found[way, size][0] for size in sizes]
        axis.plot(sizes, seconds, "o-", label=way)
    axis.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="seconds")
    axis.set_xticks(sizes, sizes)
    axis.legend(frameon=False)
    return figure


def main():
    """Measure all, and put it into results.md."""
    files.check_input(plain.ROOT / "model.pt")
    sizes = tuple(map(int, sys.argv[1:])) or MEGAPIXELS
    compared = [size for size in COMPARED if size in sizes]
    ways = [OURS, *OTHER_FILES, *([INTEGERS] if segutils.has_integers() else [])]
    found = {}
    with tempfile.TemporaryDirectory(dir=plain.ROOT) as folder:
        for size in tqdm(sizes, disable=None):
            side = int((size * 1e6) ** 0.5)
            for kind in ("map.tif", *OTHER_FILES.values()):
                memory.make_image(Path(folder, f"image.{kind}"), side, side)
            for way in [*ways, *(PEERS if size in compared else ())]:
                found[way, size] = measure(way, folder)
    lines = [
        "`python benchmarks/commands.py`; GeoTIFFs but where another file is named, 2 "
        "cores, one run each, the same weights. The other programs stand in "
        "benchmarks/plain.py; they have the network without norms, and allow for no "
        "light.",
        "",
        "![Seconds against megapixels](commands.png)",
        "",
        *report.heads(*(f"{size} MP, s" for size in sizes)),
        *(
            f"| {way} | {' | '.join(f'{found[way, size][0]:.1f}' for size in sizes)} |"
            for way in ways
        ),
        "",
        *table(found, compared),
    ]
    report.write_part("Whole commands", "\n".join(lines))
    pictures.save(chart(found, ways, sizes), plain.ROOT / "benchmarks/commands.png")


if __name__ == "__main__":
    raise SystemExit(console.run(main))
