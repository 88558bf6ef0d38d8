"""Measure what each part of the recipe is worth.

    pip install -r benchmarks/requirements.txt
    python benchmarks/ablation.py [FOLDER]

FOLDER is laid out as benchmarks/accuracy.py says; the project's own scenes are taken as
one more family, whose new image counts twice: as it is, and blurred. In each variant
one part of the recipe is taken away, and train.py and predict.py run with no option.
One process for each core, one thread each; the table in benchmarks/results.md fills as
the results come. On two cores it takes a quarter of an hour for a family and a part.
"""

import sys
import tempfile
from contextlib import ExitStack, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from unittest import mock

import accuracy
import torch
import torch.nn.functional as F
from torch import nn


sys.path.insert(0, str(accuracy.ROOT))

import peers
import report

import predict
import train
from onelabel import changes, console, light, sampling, scores
from onelabel.image import UNLABELLED
from onelabel.writing import write_picture


SEED = 0
BLUR = 0.7  # pixels
DATA = accuracy.ROOT / "data"
CUT = sampling.cut_patches

# ------------------------------------------------------------------ replacements


def unadapted(looks, sample):
    """Take every light for the training image's."""
    return light.SAME


def unturned(*arguments):
    """Cut patches without turning them."""
    *others, symmetries = arguments
    return CUT(*others, torch.zeros_like(symmetries))


def _known(logit, truth):
    """Give the labelled pixels' logits and classes, flat."""
    labelled = truth != UNLABELLED
    return logit[labelled], truth[labelled].float()


def cross_entropy(logit, truth):
    """Cross-entropy alone."""
    return F.binary_cross_entropy_with_logits(*_known(logit, truth))


def dice(logit, truth):
    """Dice alone."""
    logit, target = _known(logit, truth)
    probability = logit.sigmoid()
    overlap = (probability * target).sum()
    return 1 - (2 * overlap + 1) / (probability.sum() + target.sum() + 1)


class Idle(nn.BatchNorm2d):
    """A batch normalisation that does nothing."""

    def __init__(self, channels):
        super().__init__(channels, eps=0)

    def forward(self, x):
        """Give `x` as it is."""
        return x


def not_averaged(average, model, step):
    """Keep the weights as they are after the last step."""
    average.load_state_dict(model.state_dict())


# ------------------------------------------------------------------ all variants

EVENLY = partial(sampling.sheet_weights, rare_share=0)
# What is taken away: the module, what it is called there, and what takes its place.
PARTS = {
    "its own light": [(light, "estimate", unadapted)],
    "changed versions": [
        (train, "image_versions", lambda rgb: rgb[None]),
        (train, "draw_versions", lambda n, _: torch.zeros(n, dtype=torch.long)),
    ],
    "jitter and mixed channels": [(train, "JITTER", (0, 0, 0, 0))],
    "the 8 symmetries": [(sampling, "cut_patches", unturned)],
    "patches around the rarer class": [(sampling, "sheet_weights", EVENLY)],
    "batch norm": [(nn, "BatchNorm2d", Idle)],
    "the average of the weights": [(train, "move_average", not_averaged)],
    "Dice in the loss": [(scores, "segmentation_loss", cross_entropy)],
}
VARIANTS = {
    "nothing: the recipe": [],
    **PARTS,
    "all of these": [patch for patches in PARTS.values() for patch in patches],
    "cross-entropy in the loss": [(scores, "segmentation_loss", dice)],
}

# ------------------------------------------------------------------ measuring


def in_process(script, *arguments):
    """Run a script's main function here, where a part may have been replaced."""
    main = {"train.py": train.main, "predict.py": predict.main}[script]
    with redirect_stdout(StringIO()):
        main(list(map(str, arguments)))


def own_scenes(folder):
    """Take the project's own scenes as a family; a blurred copy goes into `folder`."""
    rgb, truth = accuracy.read_pair(DATA / "rgb.png")
    path = DATA / "new/rgb.png"
    new, its_truth = accuracy.read_pair(path)
    blurred = changes.blurred(new, BLUR)
    copy_path = Path(folder, "blurred.png")
    write_picture(copy_path, blurred)
    seen = [(path, new, its_truth), (copy_path, blurred, its_truth)]
    return accuracy.Family("data/new", DATA, rgb, truth, seen)


def measure(name, family):
    """Give the IoU of a variant on a family: of the new images, of the held-out."""
    with ExitStack() as stack:
        for patch in VARIANTS[name]:
            stack.enter_context(mock.patch.object(*patch))
        result = accuracy.ours(family, SEED, in_process)
    return result.scores["IoU"], result.held_out


def table(names, known):
    """Lay out what is known so far: lines of Markdown."""
    lines = report.heads(*names)
    for variant in VARIANTS:
        results = (known.get((variant, name)) for name in names)
        cells = ["{:.3f} ({:.3f})".format(*r) if r else "-" for r in results]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return lines


def main():
    """Measure all variants, and put the table into results.md."""
    parser = console.Parser(description="Measure what each part is worth.")
    parser.add_argument("folder", type=Path, nargs="?", default=accuracy.SCENES)
    args = parser.parse_args()
    text = (
        f"`python benchmarks/ablation.py`; trainings of full length, seed {SEED}: IoU "
        "of each family's new images, pooled (and of the held-out block), without a "
        "part of the recipe. data/new is taken twice, as it is and blurred by "
        f"{BLUR} pixels.\n\n"
    )
    known = {}
    with tempfile.TemporaryDirectory() as folder:
        found = [own_scenes(folder), *accuracy.families(args.folder)]
        jobs = [(name, family) for name in VARIANTS for family in found]
        for (name, family), result in peers.one_thread_each(measure, jobs):
            known[name, family.name] = result
            lines = table([family.name for family in found], known)
            report.write_part("What each part is worth", text + "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
