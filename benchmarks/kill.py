"""Kill train.py and predict.py at random moments, and look at what they leave.

python benchmarks/kill.py
    50 runs; puts what it finds into results.md

Each output had an older content. What a killed run leaves of it is that, whole, or
what an undisturbed run writes, whole: runs are repeatable, so the bytes are known.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image


ROOT = Path(__file__).resolve().parent.parent
OLD = b"what an older run wrote"
TRAIN = "train.py --rgb rgb.png --gt gt.png --model model.pt --plot plot.png --epochs 1"
PREDICT = (
    "predict.py large.png --model known.pt --output mask.png --overlay overlay.jpg "
    "--probabilities probabilities.tif"
)
OUTPUTS = {
    TRAIN: ["model.pt", "plot.png"],
    PREDICT: ["mask.png", "overlay.jpg", "probabilities.tif"],
}


def start(line, folder):
    """Start a command in a folder.

    Parameters
    ----------
    line : str
        The script and its options.
    folder : Path
        Where it runs.

    Returns
    -------
    subprocess.Popen
        The process.
    """
    script, *options = line.split()
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def prepare(folder):
    """Make a small scene, and run both commands undisturbed.

    Parameters
    ----------
    folder : Path
        Where to.

    Returns
    -------
    new : dict of str to bytes
        What each output is when it is whole.
    seconds : dict of str to float
        How long each command takes.
    """
    rng = np.random.default_rng(0)
    coarse = rng.random((25, 30)) < 0.4
    truth = np.kron(coarse, np.ones((8, 8), np.uint8)).astype(np.uint8)
    rgb = 60 + 90 * truth[..., None] + rng.integers(0, 40, (*truth.shape, 3), np.uint8)
    Image.fromarray(rgb).save(folder / "rgb.png")
    Image.fromarray(truth * 255).save(folder / "gt.png")
    large = np.tile(rgb, (6, 6, 1))  # takes longer to be written
    Image.fromarray(large).save(folder / "large.png")
    new, seconds = {}, {}
    for line, outputs in OUTPUTS.items():
        began = time.perf_counter()
        if start(line, folder).wait():
            raise RuntimeError(f"{line}: failed undisturbed")
        seconds[line] = time.perf_counter() - began
        new |= {name: (folder / name).read_bytes() for name in outputs}
        if line == TRAIN:
            (folder / "known.pt").write_bytes(new["model.pt"])
    return new, seconds


def listing(folder):
    """Give the files of a folder and their sizes.

    Parameters
    ----------
    folder : Path
        Where to look.

    Returns
    -------
    set of tuple, or None
        Name and size of each; nothing where a file was renamed meanwhile.
    """
    try:
        return {(entry.name, entry.stat().st_size) for entry in os.scandir(folder)}
    except FileNotFoundError:
        return None


def kill(line, folder, delay, changes):
    """Run a command and kill it.

    Parameters
    ----------
    line : str
        The command.
    folder : Path
        Where it runs; its outputs get an older content before.
    delay : float
        After how many seconds.
    changes : int
        How often the folder shall have changed before those seconds begin.

    Returns
    -------
    contents : dict of str to bytes
        What each output holds.
    killed : bool
        Whether it was killed before it ended.
    left : int
        How many temporary files it left; they are removed.
    """
    for name in OUTPUTS[line]:
        (folder / name).write_bytes(OLD)
    process, last = start(line, folder), listing(folder)
    while changes > 0 and process.poll() is None:
        if (now := listing(folder)) != last:
            last, changes = now, changes - 1
        time.sleep(0.0002)
    time.sleep(delay)
    process.kill()
    killed = process.wait() < 0
    left = list(folder.glob(".*"))
    for path in left:
        path.unlink()
    return {n: (folder / n).read_bytes() for n in OUTPUTS[line]}, killed, len(left)


def kill_many(runs, seed=0):
    """Kill both commands in turn, at random moments.

    Every second time of each it is while files are written: those moments are short,
    and seldom met by chance.

    Parameters
    ----------
    runs : int
        How many times.
    seed : int
        Of the moments.

    Returns
    -------
    dict of str to Counter
        For each command how often it was ``killed``, how many outputs were ``old``,
        ``new`` or ``damaged``, and how many temporary files were ``left``.
    """
    draw = random.Random(seed)
    found = {line: Counter() for line in OUTPUTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new, seconds = prepare(folder)
        for number in range(runs):
            line = [TRAIN, PREDICT][number % 2]
            changes = number // 2 % 2 * draw.randint(1, 5 * len(OUTPUTS[line]))
            delay = draw.uniform(0, 0.002 if changes else seconds[line])
            contents, killed, left = kill(line, folder, delay, changes)
            found[line].update(killed=killed, left=left)
            for output, content in contents.items():
                whole = {OLD: "old", new[output]: "new"}
                found[line][whole.get(content, "damaged")] += 1
    return found


def main():
    """Kill 50 runs, and write what was found."""
    sys.path.insert(0, str(ROOT))
    from report import write_part

    rows = [
        "`python benchmarks/kill.py`: each command is killed (SIGKILL) at random "
        "moments, half of the times while files are written. Its outputs had an older "
        "content.\n",
        "| | killed | outputs as they were | new and whole | damaged | hidden "
        "temporary files left |",
        "|---|---|---|---|---|---|",
    ]
    for line, found in kill_many(50).items():
        cells = (found[key] for key in ("killed", "old", "new", "damaged", "left"))
        rows.append(f"| {line.split()[0]} | {' | '.join(map(str, cells))} |")
    write_part("Killed at random moments", "\n".join(rows))
    print("\n".join(rows))


if __name__ == "__main__":
    main()
