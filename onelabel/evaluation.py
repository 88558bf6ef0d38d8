"""How good a training is: on the held-out block, as it is and as it may change."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch

import segutils
from onelabel import light, scores
from onelabel.changes import CHANGES, Change
from onelabel.image import UNLABELLED, InMemory
from onelabel.sampling import GUARD, Scene, is_sparse
from segutils import FCNN, Block


Scores = dict[str, float]

# New images differ from the labelled one more than its own held-out block does. As
# measured over eight families (benchmarks/results.md): how far the log-odds of their
# IoU lie below those of the held-out IoU, and the standard deviation of that.
SHORTFALL, SPREAD = 0.25, 0.55


def logits_inside(model: FCNN, rgb: np.ndarray, block: Block) -> np.ndarray:
    """Give a block's logits as they are in the whole image."""
    around = block.grown(GUARD, rgb.shape[:2])
    return segutils.logits(model, rgb[around.slices])[block.within(around)]


def evaluate(model: FCNN, scenes: Sequence[Scene]) -> tuple[float, Scores]:
    """Give the loss and the scores of the held-out blocks."""
    logit = pooled(logits_inside(model, s.rgb, s.block) for s in scenes)  # (N,)
    truth = held_out_truth(scenes)
    loss = scores.segmentation_loss(torch.tensor(logit), torch.tensor(truth))
    return loss.item(), scores.scores(logit > 0, truth)


def pooled(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Put the pixels of several pictures (h, w) together: (N,)."""
    return np.concatenate([picture.ravel() for picture in pictures])


def held_out_truth(scenes: Sequence[Scene]) -> np.ndarray:
    """Give the classes of the held-out blocks' pixels: (N,)."""
    return pooled(scene.truth[scene.block.slices] for scene in scenes)


def describe_images(model: FCNN, scenes: Sequence[Scene]) -> light.Looks:
    """Say what the labelled images look like, and how well their light is estimated.

    Strokes do not tell which class an image has more of. So where a pixel has no
    label, the network's class stands for it.
    """
    pictures = [scene.picture for scene in scenes]
    looks = light.describe(model, pictures, [_completed(model, s) for s in scenes])
    return {**looks, "error": light.measure_error(looks, pictures)}


def _completed(model: FCNN, scene: Scene) -> np.ndarray:
    """Give the truth, and the network's mask where nothing is labelled: (H, W)."""
    without = (scene.truth == UNLABELLED) & ~scene.hidden
    if not without.any():
        return scene.truth
    return np.where(without, segutils.segment(model, scene.rgb), scene.truth)


def scores_when_changed(
    model: FCNN, looks: light.Looks, scenes: Sequence[Scene]
) -> dict[str, Scores]:
    """Give the held-out scores under each change that an image may undergo."""
    truth = held_out_truth(scenes)
    table = {}
    for name, change in CHANGES.items():
        masks = (_segment_changed(model, looks, scene, change) for scene in scenes)
        table[name] = scores.scores(pooled(masks), truth)
    return table


def _segment_changed(
    model: FCNN, looks: light.Looks, scene: Scene, change: Change
) -> np.ndarray:
    """Segment a scene's held-out block as it is after a change."""
    around = scene.block.grown(GUARD, scene.truth.shape)
    changed = change(scene.rgb[around.slices])
    its_light = light.estimate(looks, InMemory(changed).sample())
    adapted = light.in_light(model, looks, its_light)
    return segutils.segment(adapted, changed)[scene.block.within(around)]


def scores_of_constant(scenes: Sequence[Scene]) -> tuple[int, Scores]:
    """Score always answering the images' larger class; give the class, too.

    Its loss is that of a constant logit, the log-odds of the classes in the images.
    """
    whole, held_out = pooled(scene.truth for scene in scenes), held_out_truth(scenes)
    odds = (whole == 1).sum() / (whole == 0).sum()
    logit = torch.full(held_out.shape, float(odds)).log()
    loss = scores.segmentation_loss(logit, torch.tensor(held_out)).item()
    larger = int(odds > 1)
    always = scores.scores(np.full_like(held_out, larger), held_out)
    return larger, {"loss": loss, **always}


def expected_iou(held_out: float) -> list[float]:
    """Say what IoU to expect on new images, from the held-out block's.

    Gives the middle, and what two families of three lie between.
    """
    odds = np.log(held_out) - np.log1p(-held_out)
    shifts = SHORTFALL + np.multiply(SPREAD, [0, 1, -1])
    return segutils.sigmoid(odds - shifts).tolist()


def describe_scores(
    model: FCNN, looks: light.Looks, scenes: Sequence[Scene], name: str
) -> str:
    """Lay out the held-out scores of a network, at worst, and of a constant.

    Below them is what to expect of new images.
    """
    loss, row = evaluate(model, scenes)
    changed = scores_when_changed(model, looks, scenes)
    worst = min(changed, key=lambda change: changed[change]["IoU"])
    larger, constant = scores_of_constant(scenes)
    rows = {
        name: {"loss": loss, **row},
        f"at worst: {worst}": {"loss": math.nan, **changed[worst]},
        f"always class {larger}": constant,
    }
    title = "held-out block" if len(scenes) == 1 else f"{len(scenes)} held-out blocks"
    table = scores.score_table(title, rows)
    if all(is_sparse(scene.truth) for scene in scenes):
        count = np.count_nonzero(held_out_truth(scenes) != UNLABELLED)
        return (
            f"{table}\nonly strokes are labelled: the scores are of {count:,} painted "
            "pixels, and tell little of a whole mask"
        )
    if not 0 < row["IoU"] < 1:
        return table
    middle, low, high = expected_iou(row["IoU"])
    return (
        f"{table}\nexpected IoU on new images: {middle:.2f} ({low:.2f} to {high:.2f})"
    )
