"""Measure how new images are segmented that are changed on purpose.

    pip install -r benchmarks/requirements.txt
    python benchmarks/robustness.py [FOLDER] [--models FOLDER]

FOLDER and that of ``--models`` are laid out as benchmarks/accuracy.py says. One network
for each family, trained by train.py's default command on the labelled image as it is.
Each change stands for what another exposure, camera, stain or microscope does to an
image. On two cores it takes three minutes for a family, most of it training.
"""

import sys
from functools import partial

import accuracy
import numpy as np


sys.path.insert(0, str(accuracy.ROOT))

import report

from onelabel import changes, console
from onelabel.depth import as_bytes


def moved(rgb, gain, added):
    """Multiply an image by a gain, and add grey levels."""
    return as_bytes(rgb * float(gain) + added)


def bent(rgb, gamma):
    """Bend the tone curve of an image."""
    return as_bytes(255 * (rgb / 255) ** gamma)


def mixed(rgb, share):
    """Give each channel a share of the two others, as another stain or sensor does."""
    return as_bytes(rgb * (1 - share) + np.roll(rgb, 1, -1) * share)


CHANGES = {
    "as they are": lambda rgb: rgb,
    **{f"{added} added": partial(moved, gain=1, added=added) for added in (20, 40, 60)},
    **{
        f"gain {gain}, {added} added": partial(moved, gain=gain, added=added)
        for gain in (0.5, 2)
        for added in (0, 20, 60)
    },
    "gamma 0.7": partial(bent, gamma=0.7),
    "gamma 1.4": partial(bent, gamma=1.4),
    "warmer: 1.3, 1, 0.7": lambda rgb: as_bytes(rgb * [1.3, 1, 0.7]),
    "channels mixed by 0.2": partial(mixed, share=0.2),
    "blurred by 1 pixel": partial(changes.blurred, radius=1),
    "noise of 8 levels": partial(changes.noisy, deviation=8),
    "JPEG of quality 30": partial(changes.compressed, quality=30),
}


def changed(images, change):
    """Change images (path, rgb, truth) alike."""
    return [(path, change(rgb), truth) for path, rgb, truth in images]


def main():
    """Measure all changes, and put the table into results.md."""
    args = accuracy.parse_args("Measure how changed images are segmented.")
    names, table = [], {name: [] for name in CHANGES}
    for family, trained in accuracy.learned_families(args):
        names.append(family.name)
        for name, change in CHANGES.items():
            images = changed(family.new, change)
            known = trained.model, trained.looks
            table[name].append(accuracy.own_light_iou(*known, images))
    lines = [
        "`python benchmarks/robustness.py`; seed 0: IoU of each family's new images, "
        "pooled, changed before they are segmented, each image in its own light.",
        "",
        *report.heads(*names, "mean"),
    ]
    for name, row in table.items():
        cells = [f"{iou:.3f}" for iou in [*row, np.mean(row)]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    report.write_part("New images, changed on purpose", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
