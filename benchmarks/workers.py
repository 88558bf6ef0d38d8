"""Measure what it costs to share an image among worker processes.

    pip install -r benchmarks/requirements.txt
    python benchmarks/workers.py [MEGAPIXELS]

A GeoTIFF of 400 megapixels, made on the fly, is predicted by the command itself, in
turns by one process with a thread for each core and by as many worker processes as the
machine has cores, after a training. The table, with what a gigapixel takes, is written
to benchmarks/results.md. Needs 4 GB of disk; on two cores it takes ten minutes.
"""

import hashlib
import os
import statistics
import sys
import tempfile
from pathlib import Path

import memory
import report
from tqdm.auto import tqdm

from onelabel import console, files


MEGAPIXELS = 400
ROUNDS = 3


def main():
    """Measure both ways in turns, and put the table into results.md."""
    files.check_input(memory.ROOT / "model.pt")
    size = int(sys.argv[1]) if len(sys.argv) > 1 else MEGAPIXELS
    cores = len(os.sched_getaffinity(0))
    ways = {"one process": [], f"--workers {cores}": ["--workers", str(cores)]}
    seconds, masks = {way: [] for way in ways}, set()
    with tempfile.TemporaryDirectory(dir=memory.ROOT) as folder:
        path = Path(folder, "image.map.tif")  # in tiles, of which any can be read
        side = int((size * 1e6) ** 0.5)
        memory.make_image(path, side, side)
        for way, options in tqdm(list(ways.items()) * ROUNDS, disable=None):
            seconds[way].append(memory.measure(path, options)[0])
            masks.add(hashlib.sha256(path.with_name("mask.tif").read_bytes()).digest())
    median = {way: statistics.median(times) for way, times in seconds.items()}
    lines = [
        f"`python benchmarks/workers.py`; a GeoTIFF of {size} megapixels, {cores} "
        f"cores, the whole command from start to exit, medians of {ROUNDS} in turns. "
        f"The masks are {'the same' if len(masks) == 1 else 'NOT the same'}.",
        "",
        "| | seconds | speed, of one process's | core-hours a gigapixel |",
        "|---|---|---|---|",
    ]
    for way, taken in median.items():
        speed = median["one process"] / taken
        hours = taken * cores / 3600 / (size / 1000)
        lines.append(f"| {way} | {taken:.0f} | {speed:.2f} | {hours:.3f} |")
    report.write_part("What sharing costs", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
