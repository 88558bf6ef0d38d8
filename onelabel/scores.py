"""How far a prediction is from the truth: the loss of training, and the scores.

Truths are (H, W) uint8: 0, 1 or `UNLABELLED`, whose pixels are neither learned nor
scored. The *logit* of a pixel is its log-odds of class 1.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from onelabel.image import UNLABELLED


def segmentation_loss(logit: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the labelled pixels: () float32, 0 at best.

    Cross-entropy judges each pixel alone, and a rare class weighs little in it; Dice
    (Milletari et al. 2016, https://arxiv.org/abs/1606.04797) judges the overlap.
    """
    labelled = truth != UNLABELLED
    target = torch.where(labelled, truth, 0).float()
    weight = labelled.float()
    # On the difference of two outputs, this is the two-class cross-entropy.
    entropy = F.binary_cross_entropy_with_logits(logit, target, weight, reduction="sum")
    probability = logit.sigmoid() * weight
    overlap = 2 * (probability * target).sum() + 1
    dice = overlap / (probability.sum() + target.sum() + 1)
    return entropy / weight.sum().clamp(min=1) + 1 - dice


def scores(mask: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compare a mask with the truth, over the labelled pixels.

    Parameters
    ----------
    mask : ndarray, (H, W) uint8
        The predicted classes; any value but 0 and 1 is right nowhere, and missed where
        the truth is class 1.
    truth : ndarray, (H, W) uint8
        0, 1 or `UNLABELLED`.

    Returns
    -------
    dict of str to float
        ``IoU``, ``Dice``, ``precision`` and ``recall`` of class 1, and ``accuracy``
        over both classes; NaN where it is 0 / 0.
    """
    return total_scores([(mask, truth)])


def total_scores(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Compare masks with truths, pair by pair, and score all their pixels together."""
    counts = [
        [
            np.count_nonzero((mask == 1) & (truth == 1)),
            np.count_nonzero((mask == 1) & (truth == 0)),
            np.count_nonzero((mask != 1) & (truth == 1)),
            np.count_nonzero((mask == truth) & (truth != UNLABELLED)),
            np.count_nonzero(truth != UNLABELLED),
        ]
        for mask, truth in pairs
    ]
    hit, false, missed, right, total = np.sum(counts, 0).tolist()

    def ratio(part: int, whole: int) -> float:
        return part / whole if whole else math.nan

    return {
        "IoU": ratio(hit, hit + false + missed),
        "Dice": ratio(2 * hit, 2 * hit + false + missed),
        "precision": ratio(hit, hit + false),
        "recall": ratio(hit, hit + missed),
        "accuracy": ratio(right, total),
    }


def precision_recall(
    probability: np.ndarray, truth: np.ndarray, thresholds: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Give precision and recall of class 1 for many thresholds: (T,) float64 each.

    A pixel is marked where its probability is above the threshold.
    """
    thresholds = np.asarray(thresholds, probability.dtype)  # compared as `>` compares
    classes = [np.sort(probability[truth == label]) for label in (1, 0)]
    hit, false = (
        len(values) - np.searchsorted(values, thresholds, side="right")
        for values in classes
    )
    with np.errstate(invalid="ignore"):
        return hit / (hit + false), hit / np.float64(len(classes[0]))


def one_class(counts: np.ndarray) -> str | None:
    """Say what may be wrong with a mask of so many pixels of class 0 and class 1."""
    if np.all(counts):
        return None
    if not np.any(counts):
        return "no pixel has data (is it the right image?)"
    return f"every pixel is class {counts.argmax()} (is it like the training image?)"


def score_table(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out rows of scores, by their names, as a table of plain text."""

    def line(name: str, cells: Iterable[str]) -> str:
        return name.ljust(width) + "".join(cell.rjust(10) for cell in cells)

    width = max(map(len, (title, *rows)))
    lines = [line(title, next(iter(rows.values())))]
    for name, values in rows.items():
        cells = ("-" if math.isnan(v) else f"{v:.3f}" for v in values.values())
        lines.append(line(name, cells))
    return "\n".join(lines)
