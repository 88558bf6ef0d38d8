"""Measure how well images never seen are segmented, beside what people use now.

    pip install -r benchmarks/requirements.txt
    python benchmarks/accuracy.py [FOLDER] [--models FOLDER]

FOLDER holds a folder for each family of scenes: ``train/rgb.png`` and ``train/gt.png``,
and in each ``new-*`` an image never seen, with its truth; the project's own scenes are
one more family. Every family is learned by train.py's default command and predicted by
predict.py's, with three seeds; and each 256x256 part of the new images alone. The
tables are written to benchmarks/results.md. On two cores it takes five minutes for a
family. The models are kept in the folder of ``--models``, and those that are there are
not trained again.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
SCENES = ROOT.parent / "shared/scenes"  # unless another folder is named
sys.path.insert(0, str(ROOT))

import peers  # noqa: E402
import report  # noqa: E402

import segutils  # noqa: E402 - from the folder above
from onelabel import (  # noqa: E402
    console,
    files,
    labelled,
    light,
    model_file,
    sampling,
    scores,
)
from onelabel.evaluation import expected_iou  # noqa: E402
from onelabel.image import InMemory  # noqa: E402
from onelabel.reading import open_image  # noqa: E402


SEEDS = (0, 1, 2)
COLUMNS = ("IoU", "Dice", "precision", "recall")
CROP = 256  # pixels a side, of the parts that are segmented alone


class Family(NamedTuple):
    """Images of one kind: the labelled one, and those never seen."""

    name: str
    folder: Path
    rgb: np.ndarray  # (H, W, 3) uint8
    truth: np.ndarray  # (H, W) uint8
    new: list  # of (name of the image file, its rgb, its truth)


def read_pair(path):
    """Read an image, and the truth that lies beside it."""
    return labelled.read_labelled([(path, path.with_name("gt.png"))]).pairs[0]


def read_family(name, folder, new):
    """Read a labelled image, and images never seen with their truths beside them."""
    seen = [(path, *read_pair(path)) for path in new]
    return Family(name, folder, *read_pair(folder / "rgb.png"), seen)


def families(folder):
    """Read all families in a folder."""
    found = [
        read_family(path.parent.name, path, sorted(path.parent.glob("new-*/rgb.png")))
        for path in sorted(folder.glob("*/train"))
    ]
    if not found:
        raise files.InputError(f"{folder}: no families (NAME/train/rgb.png and gt.png)")
    return found


def own_family():
    """Read the project's own scenes."""
    return read_family("data/new", ROOT / "data", [ROOT / "data/new/rgb.png"])


def pooled_scores(masks, truths):
    """Score masks, all pixels taken together."""
    pooled = (
        np.concatenate([p.ravel() for p in pictures]) for pictures in (masks, truths)
    )
    return scores.scores(*pooled)


def truths(family):
    """Give the truths of a family's new images."""
    return [truth for _, _, truth in family.new]


def crops(picture):
    """Cut a picture into parts, none beside its edge smaller than the others."""
    height, width = (side // CROP * CROP for side in picture.shape[:2])
    return [
        picture[top : top + CROP, left : left + CROP]
        for top in range(0, height, CROP)
        for left in range(0, width, CROP)
    ]


def scores_of_crops(family, segment):
    """Score each part of the new images alone, all pixels taken together."""
    masks = [segment(part) for _, rgb, _ in family.new for part in crops(rgb)]
    return pooled_scores(masks, [p for truth in truths(family) for p in crops(truth)])


class Result(NamedTuple):
    """What one way achieves on one family with one seed."""

    scores: dict  # of the new images, pooled
    crops: dict  # of each part of them alone, pooled
    held_out: float  # IoU of the held-out block


# ------------------------------------------------------------------ the ways


def learn(family, seed, run, models):
    """Learn a family by train.py; give the model file, in the folder `models`.

    `run` runs a command: it is given "train.py" or "predict.py" and its arguments.
    A model that is there is not trained again.
    """
    model = Path(models, f"{family.name.replace('/', '-')}-{seed}.pt")
    pair = ["--rgb", family.folder / "rgb.png", "--gt", family.folder / "gt.png"]
    if not model.exists():
        plot = model.with_suffix(".png")
        run("train.py", *pair, "--model", model, "--plot", plot, "--seed", seed)
    return model


def in_own_light(model, looks, rgb):
    """Adapt a network to the light of an image in memory, as predict.py does."""
    its_light = light.estimate(looks, InMemory(rgb).sample())
    return light.in_light(model, looks, its_light)


def own_light_mask(model, looks, rgb):
    """Segment an image in memory as predict.py does: in its own light."""
    return segutils.segment(in_own_light(model, looks, rgb), rgb)


def own_light_iou(model, looks, images):
    """Score images (path, rgb, truth), each in its own light, all pixels together."""
    masks = [own_light_mask(model, looks, rgb) for _, rgb, _ in images]
    return pooled_scores(masks, [truth for *_, truth in images])["IoU"]


def ours(family, seed, run, models=None):
    """Learn and predict a family by the project's own commands; see `learn`."""
    with tempfile.TemporaryDirectory() as folder:
        model, mask = learn(family, seed, run, models or folder), Path(folder, "a.png")
        trained = model_file.load(model)
        masks = []
        for path, _, _ in family.new:
            run("predict.py", path, "--model", model, "--output", mask)
            is_one = (open_image(mask).whole() == trained.colours[1]).all(-1)
            masks.append(is_one.astype(np.uint8))
    new = pooled_scores(masks, truths(family))
    segment = partial(own_light_mask, trained.model, trained.looks)
    in_parts = scores_of_crops(family, segment)
    return Result(new, in_parts, trained.facts["held_out"]["IoU"])


def as_command(script, *arguments, more=()):
    """Run a script as a user does, with some options more; give what it prints."""
    line = [sys.executable, ROOT / script, *map(str, [*arguments, *more])]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


def peer(family, seed, learn, segment):
    """Learn and predict a family by a peer: a function that learns, one that masks."""
    block = sampling.hold_out(family.truth)
    learned = learn(family.rgb, family.truth, block, seed)
    masks = [segment(learned, rgb) for _, rgb, _ in family.new]
    mask = segment(learned, family.rgb)[block.slices]
    held_out = scores.scores(mask, family.truth[block.slices])["IoU"]
    new = pooled_scores(masks, truths(family))
    in_parts = scores_of_crops(family, partial(segment, learned))
    return Result(new, in_parts, held_out)


OURS = "train.py, predict.py"
WAYS = {
    OURS: partial(ours, run=as_command),
    "naive recipe": partial(peer, learn=peers.train_naive, segment=segutils.segment),
    "scikit-image's forest": partial(
        peer, learn=peers.train_forest, segment=peers.forest_mask
    ),
}


def mean_and_spread(values):
    """Write the mean of some numbers and their standard deviation."""
    if np.isnan(values).any():
        return "-"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def measure(way, family, seed, models):
    """Learn and predict a family in one of the ways."""
    kept = {"models": models} if way == OURS else {}
    return WAYS[way](family, seed, **kept)


def comparison(found, models):
    """Compare the ways on all families: lines of Markdown."""
    jobs = [(w, f, seed, models) for f in found for seed in SEEDS for w in WAYS]
    results = {(family.name, way): [] for family in found for way in WAYS}
    for (way, family, *_), result in peers.one_thread_each(measure, jobs):
        results[family.name, way].append(result)
    lines = []
    for family in found:
        lines += [
            f"## {family.name}",
            "",
            *report.heads(*COLUMNS, "IoU of parts alone", "held-out IoU"),
        ]
        for way in WAYS:
            runs = results[family.name, way]
            cells = [mean_and_spread([r.scores[c] for r in runs]) for c in COLUMNS]
            cells.append(mean_and_spread([r.crops["IoU"] for r in runs]))
            cells.append(mean_and_spread([r.held_out for r in runs]))
            lines.append(f"| {way} | {' | '.join(cells)} |")
        lines.append("")
    return lines + promises(found, results)


def promises(found, results):
    """Compare what the held-out block lets one expect with what new images give."""
    lines = [
        "## What the held-out block promises",
        "",
        "| | held-out IoU | expected | new images |",
        "|---|---|---|---|",
    ]
    errors = []
    for family in found:
        runs = results[family.name, OURS]
        held_out = np.mean([run.held_out for run in runs])
        expected, low, high = expected_iou(held_out)
        new = np.mean([run.scores["IoU"] for run in runs])
        errors.append(expected - new)
        told = f"{expected:.3f} ({low:.2f} to {high:.2f})"
        lines.append(f"| {family.name} | {held_out:.3f} | {told} | {new:.3f} |")
    mean, size = np.mean(errors), np.mean(np.abs(errors))
    return [
        *lines,
        "",
        f"Expected less new: {mean:+.3f} on average, {size:.3f} in size.",
    ]


# ------------------------------------------------------------------ all


def parse_args(description):
    """Read the command line: the families, and where models are kept."""
    parser = console.Parser(description=description)
    parser.add_argument("folder", type=Path, nargs="?", default=SCENES)
    parser.add_argument("--models", type=Path, help="folder to keep the models in")
    return parser.parse_args()


def learned_families(args):
    """Read each family, and learn it with seed 0 unless its model is there."""
    found = [*families(args.folder), own_family()]
    with tempfile.TemporaryDirectory() as folder:
        for family in tqdm(found, disable=None):
            model = learn(family, 0, as_command, args.models or folder)
            yield family, model_file.load(model)


def main():
    """Measure, and put the tables into results.md."""
    args = parse_args("Measure how well new images are segmented.")
    found = [*families(args.folder), own_family()]
    text = [
        f"`python benchmarks/accuracy.py`; {len(SEEDS)} seeds, mean ± standard "
        "deviation; all new images of a family pooled. Only the train image is "
        f"learned from. The parts are of {CROP}x{CROP} pixels, each segmented as an "
        "image of its own.",
        "",
        *comparison(found, args.models),
    ]
    report.write_part("How accurate", "\n".join(text))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
