"""Measure what the commands lose, and cost, where another program keeps a core busy.

    pip install -r benchmarks/requirements.txt
    python benchmarks/neighbours.py

OpenMP's threads wait for each other after each piece of work: the commands let them
sleep (OMP_WAIT_POLICY=PASSIVE), where by default they spin. Each command runs alone,
beside a program that keeps one core busy, and twice at once, waiting either way. (Under
torchrun each process has one thread, which waits for nobody.) The table is written to
benchmarks/results.md. On two cores it takes six minutes.
"""

import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import report  # noqa: E402

from onelabel import console, files  # noqa: E402 - from the folder above


WAITS = {
    "asleep": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spinning": {"GOMP_SPINCOUNT": "300000"},  # what OpenMP does by default
}
BUSY = [sys.executable, "-c", "while True: pass"]


def commands(folder):
    """Name the commands that are measured, each for the n-th of several at once."""
    image = folder / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (4000, 4000, 3), np.uint8)
    Image.fromarray(pixels).save(image)
    train = ["--epochs", "12", "--plot", folder / "curves.png"]
    return {
        "train.py --epochs 12": lambda n: [
            *("train.py", *train, "--model", folder / f"{n}.pt"),
        ],
        "predict.py, 16 MP": lambda n: [
            *("predict.py", image, "--output", folder / f"{n}.png"),
        ],
    }


def seconds(command, wait, at_once, is_busy):
    """Time so many of a command at once, beside a busy core or alone."""
    environment = {**os.environ, **WAITS[wait]}
    neighbour = subprocess.Popen(BUSY) if is_busy else None
    start = time.perf_counter()
    try:
        running = [
            subprocess.Popen(
                [sys.executable, *map(str, command(n))],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            for n in range(at_once)
        ]
        if any([process.wait() for process in running]):
            raise files.InputError("a command failed (python train.py makes model.pt)")
        return time.perf_counter() - start
    finally:
        if neighbour:
            neighbour.kill()
            neighbour.wait()


def main():
    """Measure all in turns, and put the table into results.md."""
    files.check_input(ROOT / "model.pt")
    ways = {
        "alone": (1, False),
        "beside a busy core": (1, True),
        "two at once": (2, False),
    }
    with tempfile.TemporaryDirectory() as folder:
        measured = commands(Path(folder))
        cases = list(product(measured, ways, WAITS))
        times = {}
        for name, way, wait in tqdm(cases, disable=None):
            times[name, way, wait] = seconds(measured[name], wait, *ways[way])
    lines = [
        f"`python benchmarks/neighbours.py`; {len(os.sched_getaffinity(0))} cores, "
        "seconds from start to exit, one run each: how long a command takes where "
        "OpenMP's threads sleep while they wait, as the scripts have it, and where "
        "they spin, as is OpenMP's default.",
        "",
        "| | asleep | spinning | spinning / asleep |",
        "|---|---|---|---|",
    ]
    for name, way in product(measured, ways):
        asleep, spinning = (times[name, way, wait] for wait in WAITS)
        label = f"{name}, {way}"
        ratio = spinning / asleep
        lines.append(f"| {label} | {asleep:.1f} | {spinning:.1f} | {ratio:.1f} |")
    report.write_part("Beside other programs", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
