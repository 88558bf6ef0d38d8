"""Measure how well images never seen are segmented, beside what people use now.

    pip install -r benchmarks/requirements.txt
    python benchmarks/accuracy.py [FOLDER]
    python benchmarks/accuracy.py [FOLDER] --ablation

FOLDER holds a folder for each family of scenes: ``train/rgb.png`` and ``train/gt.png``,
and in each ``new-*`` an image never seen, with its truth. Every family is learned by
train.py's default command and predicted by predict.py's, with three seeds. With
``--ablation``, each part of the recipe is taken away alone instead, in a shorter
training with one seed. The tables are written to benchmarks/results.md. On two cores
the first takes about ten minutes for a family, the second five.
"""

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import peers  # noqa: E402

import cli  # noqa: E402 - from the folder above
import images  # noqa: E402
import light  # noqa: E402
import predict  # noqa: E402
import sampling  # noqa: E402
import segutils  # noqa: E402
import train  # noqa: E402


SEEDS = (0, 1, 2)
COLUMNS = ("IoU", "Dice", "precision", "recall")
ABLATION_STEPS = 300


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
    return segutils.scores(np.concatenate([mask.ravel() for mask in masks]), truths)


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


def in_process(script, *arguments):
    """Run a script's main function here, where a part may have been taken away."""
    main = {"train.py": train.main, "predict.py": predict.main}[script]
    with redirect_stdout(StringIO()):
        main(list(map(str, arguments)))


def naive(family, seed):
    """Learn and predict a family by the naive recipe."""
    block = sampling.hold_out(family.truth)
    start = time.perf_counter()
    model = peers.train_naive(family.rgb, family.truth, block, seed)
    seconds = time.perf_counter() - start
    masks = [segutils.segment(model, rgb) for _, rgb, _ in family.new]
    held_out = train.evaluate(model, family.rgb, family.truth, block)[1]["IoU"]
    return Result(pooled_scores(family, masks), held_out, seconds)


def forest(family, seed):
    """Learn and predict a family by scikit-image's forest."""
    block = sampling.hold_out(family.truth)
    start = time.perf_counter()
    trained = peers.train_forest(family.rgb, family.truth, block, seed)
    seconds = time.perf_counter() - start
    masks = [peers.forest_mask(trained, rgb) for _, rgb, _ in family.new]
    mask = peers.forest_mask(trained, family.rgb)[block.slices]
    held_out = segutils.scores(mask, family.truth[block.slices])["IoU"]
    return Result(pooled_scores(family, masks), held_out, seconds)


def larger_class(family, seed):
    """Answer the larger class everywhere."""
    larger = int((family.truth == 1).sum() > (family.truth == 0).sum())
    masks = [np.full_like(truth, larger) for _, _, truth in family.new]
    scores = pooled_scores(family, masks)
    return Result(scores, float(scores["IoU"]), 0.0)


WAYS = {
    "train.py, predict.py": partial(ours, run=as_command),
    "naive recipe": naive,
    "scikit-image's forest": forest,
    "larger class": larger_class,
}


def mean_and_spread(values):
    """Write the mean of some numbers and their standard deviation."""
    if np.isnan(values).any():
        return "-"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def comparison(found):
    """Compare the ways on all families: lines of Markdown."""
    lines = []
    bar = tqdm(total=len(found) * len(WAYS) * len(SEEDS), disable=None)
    for family in found:
        lines += [
            f"## {family.name}",
            "",
            f"| | {' | '.join(COLUMNS)} | held-out IoU | training, s |",
            "|---" * (len(COLUMNS) + 3) + "|",
        ]
        results = {name: [] for name in WAYS}
        for seed in SEEDS:
            for name, way in WAYS.items():
                bar.set_description(f"{family.name}, {name}")
                results[name].append(way(family, seed))
                bar.update()
        for name, runs in results.items():
            cells = [mean_and_spread([r.scores[c] for r in runs]) for c in COLUMNS]
            cells.append(mean_and_spread([r.held_out for r in runs]))
            cells.append(f"{np.mean([r.seconds for r in runs]):.0f}")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    bar.close()
    return lines


# ------------------------------------------------------------------ the ablation


class Idle(nn.BatchNorm2d):
    """A batch normalisation that does nothing."""

    def __init__(self, channels):
        super().__init__(channels, eps=0)

    def forward(self, x):
        """Give `x` as it is."""
        return x


def cross_entropy(margin, truth):
    """Give the loss without its Dice part."""
    labelled = truth != segutils.UNLABELLED
    entropy = nn.functional.binary_cross_entropy_with_logits
    target = torch.where(labelled, truth, 0).float()
    total = entropy(margin, target, labelled.float(), reduction="sum")
    return total / labelled.sum().clamp(min=1)


def unturned(*arguments):
    """Cut patches without turning them."""
    *others, symmetries = arguments
    return CUT_PATCHES(*others, torch.zeros_like(symmetries))


CUT_PATCHES = sampling.cut_patches
EVENLY = partial(sampling.origin_weights, rare_share=0)

# For each part: the module, what it is called there, and what takes its place.
PARTS = {
    "all of the recipe": [],
    "without its own light": [(light, "adapt", lambda m, _, rgb: (m, np.ones(3)))],
    "without changed versions": [
        (train, "image_versions", lambda rgb: rgb[None]),
        (train, "draw_versions", lambda n, _: torch.zeros(n, dtype=torch.long)),
    ],
    "without jitter": [(train, "JITTER", (0, 0, 0))],
    "without the 8 symmetries": [(sampling, "cut_patches", unturned)],
    "patches drawn evenly": [(sampling, "origin_weights", EVENLY)],
    "without batch norm": [(nn, "BatchNorm2d", Idle)],
    "without Dice in the loss": [(segutils, "segmentation_loss", cross_entropy)],
    "patches of 32": [(train, "PATCH", 32)],
    "patches of 128": [(train, "PATCH", 128)],
    "3,000 steps": [(train, "STEPS", 3000)],
}


def ablation(found):
    """Take each part away alone, on all families: lines of Markdown."""
    lines = [
        f"| | {' | '.join(family.name for family in found)} |",
        "|---" * (len(found) + 1) + "|",
    ]
    bar = tqdm(total=len(PARTS) * len(found), disable=None)
    for name, patches in PARTS.items():
        cells = []
        for family in found:
            bar.set_description(f"{name}, {family.name}")
            with ExitStack() as stack:
                stack.enter_context(mock.patch.object(train, "STEPS", ABLATION_STEPS))
                for patch in patches:
                    stack.enter_context(mock.patch.object(*patch))
                result = ours(family, 0, in_process)
            cells.append(f"{result.scores['IoU']:.3f} ({result.held_out:.3f})")
            bar.update()
        lines.append(f"| {name} | {' | '.join(cells)} |")
    bar.close()
    return lines


# ------------------------------------------------------------------ all


def main():
    """Measure, and put the tables into results.md."""
    parser = cli.Parser(description="Measure how well new images are segmented.")
    scenes = ROOT.parent / "shared/scenes"
    parser.add_argument("folder", type=Path, nargs="?", default=scenes)
    parser.add_argument("--ablation", action="store_true")
    args = parser.parse_args()
    found = families(args.folder)
    if args.ablation:
        text = [
            f"`python benchmarks/accuracy.py --ablation`; {ABLATION_STEPS} steps, seed "
            "0: IoU on the new images of each family, pooled (and on the held-out "
            "block).",
            "",
            *ablation(found),
        ]
        peers.write_part("What each part is worth", "\n".join(text))
    else:
        text = [
            f"`python benchmarks/accuracy.py`; {len(SEEDS)} seeds, mean ± standard "
            "deviation; all new images of a family pooled. Only the train image is "
            "learned from.",
            "",
            *comparison(found),
        ]
        peers.write_part("How accurate", "\n".join(text))


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
