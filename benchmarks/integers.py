"""Measure what 8-bit integers cost in accuracy, family by family.

    pip install -r benchmarks/requirements.txt
    python benchmarks/integers.py [FOLDER] [--models FOLDER]

FOLDER and that of ``--models`` are laid out as benchmarks/accuracy.py says. One network
for each family. Each new image is segmented by predict.py's steps, in float32 and in
int8. The table is written to benchmarks/results.md.
"""

import sys

import accuracy
import numpy as np
import report
import torch


sys.path.insert(0, str(accuracy.ROOT))

import segutils
from onelabel import console


def masks(trained, rgb):
    """Segment an image in its own light, in float32 and in int8."""
    network = accuracy.in_own_light(trained.model, trained.looks, rgb)
    kinds = torch.float32, torch.int8
    return [segutils.Predictor(network, kind).segment(rgb) for kind in kinds]


def row(family, trained):
    """Compare the two on a family's new images: a line of Markdown."""
    truths = accuracy.truths(family)
    pairs = [masks(trained, rgb) for _, rgb, _ in family.new]
    plain, integers = (list(kind) for kind in zip(*pairs, strict=True))
    one, other = (accuracy.pooled_scores(m, truths)["IoU"] for m in (plain, integers))
    same = np.concatenate([(a == b).ravel() for a, b in pairs]).mean()
    name, change = family.name, other - one
    return f"| {name} | {one:.4f} | {other:.4f} | {change:+.4f} | {same:.2%} |"


def main():
    """Measure, and put the table into results.md."""
    args = accuracy.parse_args("Measure what 8-bit integers cost.")
    lines = [
        "`python benchmarks/integers.py`; seed 0; all new images of a family pooled.",
        "",
        "| | IoU, fp32 | IoU, int8 | difference | equal pixels |",
        "|---|---|---|---|---|",
        *(row(*learned) for learned in accuracy.learned_families(args)),
    ]
    report.write_part("In 8-bit integers", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
