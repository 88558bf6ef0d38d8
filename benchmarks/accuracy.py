"""Measure how well images never seen are segmented, beside what people use now.

    pip install -r benchmarks/requirements.txt
    python benchmarks/accuracy.py [FOLDER]

FOLDER holds a folder for each family of scenes: ``train/rgb.png`` and ``train/gt.png``,
and in each ``new-*`` an image never seen, with its truth. Every family is learned by
train.py's default command and predicted by predict.py's, with three seeds. The tables
are written to benchmarks/results.md. On two cores it takes five minutes for a family.
"""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np


ROOT = Path(__file__).resolve().parent.parent
SCENES = ROOT.parent / "shared/scenes"  # unless another folder is named
sys.path.insert(0, str(ROOT))

import peers  # noqa: E402
import report  # noqa: E402

import cli  # noqa: E402 - from the folder above
import images  # noqa: E402
import metrics  # noqa: E402
import sampling  # noqa: E402
import segutils  # noqa: E402


SEEDS = (0, 1, 2)
COLUMNS = ("IoU", "Dice", "precision", "recall")


class Family(NamedTuple):
    """Images of one kind: the labelled one, and those never seen."""

    name: str
    folder: Path
    rgb: np.ndarray  # (H, W, 3) uint8
    truth: np.ndarray  # (H, W) uint8
    new: list  # of (name of the image file, its rgb, its truth)


def families(folder):
    """Read all families in a folder."""
    found = []
    for train_folder in sorted(folder.glob("*/train")):
        pair = (train_folder / "rgb.png", train_folder / "gt.png")
        new = [
            (path, *images.read_pair(path, path.with_name("gt.png"))[:2])
            for path in sorted(train_folder.parent.glob("new-*/rgb.png"))
        ]
        name = train_folder.parent.name
        found.append(Family(name, train_folder, *images.read_pair(*pair)[:2], new))
    if not found:
        raise cli.InputError(f"{folder}: no families (NAME/train/rgb.png and gt.png)")
    return found


def pooled_scores(family, masks):
    """Score masks of a family's new images, all pixels taken together."""
    truths = np.concatenate([truth.ravel() for _, _, truth in family.new])
    return metrics.scores(np.concatenate([mask.ravel() for mask in masks]), truths)


class Result(NamedTuple):
    """What one way achieves on one family with one seed."""

    scores: dict  # of the new images, pooled
    held_out: float  # IoU of the held-out block
    seconds: float  # of training


# ------------------------------------------------------------------ the ways


def ours(family, seed, run):
    """Learn and predict a family by the project's own commands.

    `run` runs one of them: it is given "train.py" or "predict.py" and its arguments.
    """
    with tempfile.TemporaryDirectory() as folder:
        model, plot, mask = (Path(folder, n) for n in ("m.pt", "m.png", "mask.png"))
        pair = ["--rgb", family.folder / "rgb.png", "--gt", family.folder / "gt.png"]
        start = time.perf_counter()
        run("train.py", *pair, "--model", model, "--plot", plot, "--seed", seed)
        seconds = time.perf_counter() - start
        _, content = segutils.load_model(model)
        masks = []
        for path, _, _ in family.new:
            run("predict.py", path, "--model", model, "--output", mask)
            is_one = (images.read_rgb(mask) == content["colours"][1]).all(-1)
            masks.append(is_one.astype(np.uint8))
    return Result(pooled_scores(family, masks), content["held_out"]["IoU"], seconds)


def as_command(script, *arguments):
    """Run a script as a user does."""
    line = [sys.executable, ROOT / script, *map(str, arguments)]
    subprocess.run(line, check=True, capture_output=True)


def peer(family, seed, learn, segment):
    """Learn and predict a family by a peer: a function that learns, one that masks."""
    block = sampling.hold_out(family.truth)
    start = time.perf_counter()
    learned = learn(family.rgb, family.truth, block, seed)
    seconds = time.perf_counter() - start
    masks = [segment(learned, rgb) for _, rgb, _ in family.new]
    mask = segment(learned, family.rgb)[block.slices]
    held_out = metrics.scores(mask, family.truth[block.slices])["IoU"]
    return Result(pooled_scores(family, masks), held_out, seconds)


def larger_class(family, seed):
    """Answer the larger class everywhere."""
    larger = int((family.truth == 1).sum() > (family.truth == 0).sum())
    masks = [np.full_like(truth, larger) for _, _, truth in family.new]
    scores = pooled_scores(family, masks)
    return Result(scores, float(scores["IoU"]), 0.0)


WAYS = {
    "train.py, predict.py": partial(ours, run=as_command),
    "naive recipe": partial(peer, learn=peers.train_naive, segment=segutils.segment),
    "scikit-image's forest": partial(
        peer, learn=peers.train_forest, segment=peers.forest_mask
    ),
    "larger class": larger_class,
}


def mean_and_spread(values):
    """Write the mean of some numbers and their standard deviation."""
    if np.isnan(values).any():
        return "-"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def measure(way, family, seed):
    """Learn and predict a family in one of the ways."""
    return WAYS[way](family, seed)


def comparison(found):
    """Compare the ways on all families: lines of Markdown."""
    jobs = [(w, family, seed) for family in found for seed in SEEDS for w in WAYS]
    results = {(family.name, way): [] for family in found for way in WAYS}
    for (way, family, _), result in peers.one_thread_each(measure, jobs):
        results[family.name, way].append(result)
    lines = []
    for family in found:
        lines += [
            f"## {family.name}",
            "",
            f"| | {' | '.join(COLUMNS)} | held-out IoU | training, s |",
            "|---" * (len(COLUMNS) + 3) + "|",
        ]
        for way in WAYS:
            runs = results[family.name, way]
            cells = [mean_and_spread([r.scores[c] for r in runs]) for c in COLUMNS]
            cells.append(mean_and_spread([r.held_out for r in runs]))
            cells.append(f"{np.mean([r.seconds for r in runs]):.0f}")
            lines.append(f"| {way} | {' | '.join(cells)} |")
        lines.append("")
    return lines


# ------------------------------------------------------------------ all


def main():
    """Measure, and put the tables into results.md."""
    parser = cli.Parser(description="Measure how well new images are segmented.")
    parser.add_argument("folder", type=Path, nargs="?", default=SCENES)
    found = families(parser.parse_args().folder)
    text = [
        f"`python benchmarks/accuracy.py`; {len(SEEDS)} seeds, mean ± standard "
        "deviation; all new images of a family pooled. Only the train image is "
        "learned from. Every row is computed by one thread, as many at once as the "
        "machine has cores: compare the seconds with each other.",
        "",
        *comparison(found),
    ]
    report.write_part("How accurate", "\n".join(text))


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
