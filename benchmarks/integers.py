"""Measure what 8-bit integers cost in accuracy, family by family.

    pip install -r benchmarks/requirements.txt
    python benchmarks/integers.py [FOLDER] --models FOLDER

FOLDER is laid out as benchmarks/accuracy.py says, and the models are those that it
keeps (seed 0); a model that is missing is trained first. Each new image is segmented by
predict.py's steps, in float32 and in int8. The table is written to
benchmarks/results.md.
"""

import sys
from pathlib import Path

import accuracy
import numpy as np
import report
import torch


sys.path.insert(0, str(accuracy.ROOT))

import segutils
from onelabel import console, light, model_file
from onelabel.image import InMemory


def masks(trained, rgb):
    """Segment an image in its own light, in float32 and in int8."""
    its_light = light.estimate(trained.model, trained.looks, InMemory(rgb).sample())
    network = light.in_light(trained.model, trained.looks, its_light)
    kinds = torch.float32, torch.int8
    return [segutils.Predictor(network, kind).segment(rgb) for kind in kinds]


def trained_on(family, folder):
    """Read a family's model, or train it first by the default command."""
    path = folder / f"{family.name.replace('/', '-')}-0.pt"
    if not path.exists():
        pair = ["--rgb", family.folder / "rgb.png", "--gt", family.folder / "gt.png"]
        plot = path.with_suffix(".png")
        accuracy.as_command("train.py", *pair, "--model", path, "--plot", plot)
    return model_file.load(path)


def row(family, folder):
    """Compare the two on a family's new images: a line of Markdown."""
    trained = trained_on(family, folder)
    truths = accuracy.truths(family)
    pairs = [masks(trained, rgb) for _, rgb, _ in family.new]
    plain, integers = (list(kind) for kind in zip(*pairs, strict=True))
    one, other = (accuracy.pooled_scores(m, truths)["IoU"] for m in (plain, integers))
    same = np.concatenate([(a == b).ravel() for a, b in pairs]).mean()
    name, change = family.name, other - one
    return f"| {name} | {one:.4f} | {other:.4f} | {change:+.4f} | {same:.2%} |"


def main():
    """Measure, and put the table into results.md."""
    parser = console.Parser(description="Measure what 8-bit integers cost.")
    parser.add_argument("folder", type=Path, nargs="?", default=accuracy.SCENES)
    parser.add_argument("--models", type=Path, required=True, help="folder of models")
    args = parser.parse_args()
    found = [*accuracy.families(args.folder), accuracy.own_family()]
    lines = [
        "`python benchmarks/integers.py`; seed 0; all new images of a family pooled.",
        "",
        "| | IoU, fp32 | IoU, int8 | difference | equal pixels |",
        "|---|---|---|---|---|",
        *(row(family, args.models) for family in found),
    ]
    report.write_part("In 8-bit integers", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
