"""Measure what images without labels are worth, family by family.

    pip install -r benchmarks/requirements.txt
    python benchmarks/unlabelled.py [FOLDER] [--models FOLDER]

FOLDER and that of ``--models`` are laid out as benchmarks/accuracy.py says. Half of a
family's new images are learned from without their labels, the other half is judged;
then the other way round. So a family of one new image is left out. On two cores it
takes ten minutes for a family.
"""

import sys
import tempfile
from functools import partial

import accuracy


sys.path.insert(0, str(accuracy.ROOT))

import report

from onelabel import console, model_file


def with_unlabelled(family, images):
    """Learn a family by train.py, and these images without their truths."""
    more = ["--unlabelled", *(path for path, *_ in images)]
    run = partial(accuracy.as_command, more=more)
    with tempfile.TemporaryDirectory() as folder:
        return model_file.load(accuracy.learn(family, 0, run, folder))


def iou_of(trained, images):
    """Score images, each in its own light."""
    return accuracy.own_light_iou(trained.model, trained.looks, images)


def names(images):
    """Name the folders of images."""
    return ", ".join(path.parent.name for path, *_ in images)


def rows(family, trained):
    """Compare the training with each half to that without: lines of Markdown."""
    middle = len(family.new) // 2
    halves = family.new[:middle], family.new[middle:]
    for learned, judged in (halves, halves[::-1]) if middle else ():
        before = iou_of(trained, judged)
        after = iou_of(with_unlabelled(family, learned), judged)
        ious = f"{before:.3f} | {after:.3f} | {after - before:+.3f}"
        yield f"| {family.name} | {names(learned)} | {names(judged)} | {ious} |"


def main():
    """Measure, and put the table into results.md."""
    args = accuracy.parse_args("Measure what images without labels are worth.")
    lines = [
        "`python benchmarks/unlabelled.py`; seed 0; IoU of the images that are judged, "
        "pooled, each in its own light.",
        "",
        "| | learned from, without labels | judged | IoU without | IoU with | gain |",
        "|---|---|---|---|---|---|",
    ]
    for learned in accuracy.learned_families(args):
        lines += rows(*learned)
    report.write_part("Images without labels, by command", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
