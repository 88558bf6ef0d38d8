"""Which pixels train and which are held out, and how training patches are drawn.

Truths are (H, W) uint8: 0, 1 or `UNLABELLED`. Patches of several images are cut from a
*sheet*, on which the images lie one below the other: one image to the code that draws
and cuts, with no patch across two of them.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from onelabel.files import InputError
from onelabel.image import UNLABELLED, without_data
from segutils import RECEPTIVE_RADIUS, Block, without_gaps


# ------------------------------------------------------------------ the split


GUARD = RECEPTIVE_RADIUS + 1  # pixels around the held-out block; even, as tiles start
SMALLEST_PATCH = 8  # pixels a side
NOWHERE = Block(0, 0, 0, 0)  # the block of a scene of which nothing is held out
SPARSE = 0.1  # an image of which less is labelled is labelled by strokes


def hold_out(truth: np.ndarray) -> Block:
    """Choose the block of the image that is kept from training, for validation.

    Of a grid of places it takes the one whose share of class 1 is nearest to the whole
    image's, among those with both classes inside and outside. Where only strokes are
    labelled, it takes a block whose border crosses none, if there is one: what is held
    out are whole strokes, and no neighbour of theirs trains.

    Parameters
    ----------
    truth : ndarray, (H, W) uint8
        The classes.

    Returns
    -------
    Block
        The block; training keeps `GUARD` pixels away from it.

    Raises
    ------
    InputError
        No block has both classes inside and outside, and room for patches beside it.
    """
    if is_sparse(truth):
        for share in (0.2, 0.15, 0.3, 0.1):
            best = _best_block(truth, share, places=15, cuts_strokes=False)
            if best:
                return best
    best = _best_block(truth, share=0.2, places=5, cuts_strokes=True)
    if best is None:
        least = min((truth == k).sum() for k in (0, 1))
        raise InputError(
            f"the smaller class ({least} pixels) lies in one place: no block can "
            "be held out with both classes inside and outside (label more of it, "
            "elsewhere)"
        )
    return best


def is_sparse(truth: np.ndarray) -> bool:
    """Tell whether so little is labelled that it will be strokes."""
    return bool(np.count_nonzero(truth != UNLABELLED) < SPARSE * truth.size)


def _best_block(
    truth: np.ndarray, share: float, places: int, cuts_strokes: bool
) -> Block | None:
    """Choose a block of a share of the image, of so many places along each side."""
    shape = np.array(truth.shape)
    size = (shape * math.sqrt(share)).astype(int) // 2 * 2
    classes = (truth == 1, truth == 0)
    totals = [where.sum() for where in classes]
    overall = totals[0] / sum(totals)
    best, least = None, math.inf
    for place in product(np.linspace(0, 1, places), repeat=2):
        top, left = ((shape - size) * place).astype(int) // 2 * 2
        block = Block(*map(int, (top, left, top + size[0], left + size[1])))
        guarded = block.grown(GUARD, truth.shape)
        beside = (guarded.top, guarded.left, *(shape - guarded[2:]))
        inside = [where[block.slices].sum() for where in classes]
        seen = [where[guarded.slices].sum() for where in classes]
        usable = min(inside) > 0 and np.less(seen, totals).all()
        is_whole = cuts_strokes or inside == seen
        if not (usable and is_whole) or max(beside) < SMALLEST_PATCH:
            continue
        difference = abs(inside[0] / sum(inside) - overall)
        if difference < least:
            best, least = block, difference
    return best


def guarded(block: Block, shape: Sequence[int]) -> Block:
    """Add the guard band to a held-out block; to an empty one, nothing."""
    return block.grown(GUARD, shape) if block.bottom > block.top else block


class Scene(NamedTuple):
    """A labelled image, and how it is split."""

    rgb: np.ndarray  # (H, W, 3) uint8
    truth: np.ndarray  # (H, W) uint8: 0, 1 or `UNLABELLED`
    block: Block  # held out
    patch: int  # pixels a side: the largest training patch that fits
    hidden: np.ndarray  # (H, W) bool: where the image has no data

    @property
    def known_pixels(self) -> np.ndarray:
        """The pixels that have data: (N, 3) uint8."""
        return self.rgb[~self.hidden]

    @property
    def picture(self) -> np.ndarray:
        """The image, masked where it has no data: (H, W, 3) uint8."""
        hidden = np.broadcast_to(self.hidden[..., None], self.rgb.shape)
        return np.ma.MaskedArray(self.rgb, hidden)


def scene_of(pixels: np.ndarray, truth: np.ndarray, block: Block, patch: int) -> Scene:
    """Make a scene of pixels (H, W, 3); where they are masked, nothing is labelled.

    Patches show masked pixels, too: they get the mean colour of the others, as
    `segutils.Predictor` gives them the network's.
    """
    hidden = without_data(pixels)
    truth = np.where(hidden, UNLABELLED, truth)
    if np.ma.isMaskedArray(pixels):
        mean = np.ma.filled(pixels.mean((0, 1)), 0)  # 0 where all are masked
        pixels = without_gaps(pixels, mean)
    return Scene(pixels, truth, block, patch, hidden)


def split_scene(pixels: np.ndarray, truth: np.ndarray, largest: int) -> Scene:
    """Hold out a block of a labelled image; its patches are at most `largest`."""
    block = hold_out(truth)
    return scene_of(pixels, truth, block, patch_size(truth, block, largest))


# ------------------------------------------------------------------ patches


def training_pixels(truth: np.ndarray, block: Block) -> int:
    """Count the pixels outside the held-out block and its guard band."""
    return truth.size - truth[guarded(block, truth.shape).slices].size


def patch_size(truth: np.ndarray, block: Block, largest: int) -> int:
    """Choose the patches' side: `largest`, halved until one shows the rarer class."""
    size = largest
    while size >= SMALLEST_PATCH:
        if size <= min(truth.shape) and _patch_counts(truth, block, size)[1].any():
            return size
        size //= 2
    raise InputError(
        f"no patch of {SMALLEST_PATCH}x{SMALLEST_PATCH} pixels outside the held-out "
        "block shows the rarer class (label more of it)"
    )


def _patch_counts(truth: np.ndarray, block: Block, size: int) -> list[np.ndarray]:
    """Count each place's labelled pixels and those of the rarer class.

    Both are (H - size + 1, W - size + 1), and 0 where a patch would reach into the
    held-out block or its guard band.
    """
    top, left, bottom, right = guarded(block, truth.shape)
    rows = slice(max(top - size + 1, 0), bottom)
    cols = slice(max(left - size + 1, 0), right)
    rare = min((truth == 0, truth == 1), key=np.sum)
    counts = []
    for where in (truth != UNLABELLED, rare):
        # An integral image: the sum of a window from its four corners.
        table = np.pad(where.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        lower, upper = table[size:], table[:-size]
        count = (lower[:, size:] - lower[:, :-size]) - (
            upper[:, size:] - upper[:, :-size]
        )
        count[rows, cols] = 0
        counts.append(count)
    return counts


def origin_weights(
    truth: np.ndarray, block: Block, size: int, rare_share: float = 0.5
) -> np.ndarray:
    """Say how likely each place is to be the top left corner of a training patch.

    A part of the patches is drawn evenly; the others lie around a pixel of the rarer
    class, of which each is as likely to be picked as any other.

    Parameters
    ----------
    truth : ndarray, (H, W) uint8
        The classes.
    block : Block
        The held-out block: no patch reaches into it or its guard band.
    size : int
        A patch's side in pixels, from `patch_size`.
    rare_share : float
        The share of the patches that is drawn around the rarer class.

    Returns
    -------
    ndarray, (H - size + 1, W - size + 1) float64
        Probabilities that sum to 1.
    """
    labelled, rare = _patch_counts(truth, block, size)
    even = labelled > 0
    if not rare.any():  # all that is labelled is of one class
        return even / even.sum()
    return (1 - rare_share) * even / even.sum() + rare_share * rare / rare.sum()


def draw_origins(weights: np.ndarray, count: int, generator: torch.Generator) -> Tensor:
    """Draw top left corners of patches, with replacement: (count, 2) int64."""
    cumulative = torch.from_numpy(weights.cumsum())
    drawn = torch.rand(count, dtype=torch.float64, generator=generator)
    # Right of equal values, so that a place of no weight is never drawn.
    places = torch.searchsorted(cumulative, drawn * cumulative[-1], right=True)
    width = weights.shape[1]
    return torch.stack([places // width, places % width], 1)


def coverage(weights: np.ndarray, size: int) -> np.ndarray:
    """Say how likely a patch is to contain each pixel: (H, W) float64, 0 to 1.

    `weights` are those of the places, from `origin_weights`.
    """
    # An integral image once more; a pixel is in the patches of `size` x `size` places.
    table = np.pad(weights, size).cumsum(0).cumsum(1)
    lower, upper = table[size:-1], table[: -size - 1]
    sums = lower[:, size:-1] - lower[:, : -size - 1]
    sums -= upper[:, size:-1] - upper[:, : -size - 1]
    return sums.clip(0)  # not a little under it, by rounding


def cut_patches(
    versions: Tensor,
    truth: Tensor,
    which: Tensor,
    origins: Tensor,
    size: int,
    symmetries: Tensor,
) -> tuple[Tensor, Tensor]:
    """Cut patches out of an image, each turned by one of the square's 8 symmetries.

    Parameters
    ----------
    versions : Tensor, (V, H, W, 3) uint8
        The image, in one or more versions.
    truth : Tensor, (H, W) uint8
        Its classes.
    which : Tensor, (B,) int64
        The version that each patch is cut from.
    origins : Tensor, (B, 2) int64
        Top and left of each patch.
    size : int
        A patch's side in pixels.
    symmetries : Tensor, (B,) int64
        0 to 7: bit 0 flips the rows, bit 1 the columns, bit 2 swaps the two.

    Returns
    -------
    patches : Tensor, (B, 3, size, size) float32
        Values of 0 to 255.
    classes : Tensor, (B, size, size) uint8
        Their classes.
    """
    along = torch.arange(size, device=versions.device)
    flip_rows, flip_cols, swap = ((symmetries[:, None] >> bit) & 1 for bit in range(3))
    # One gather cuts and turns: pixel (i, j) of a patch is image[row[i, j], col[i, j]].
    rows = torch.where(flip_rows.bool(), size - 1 - along, along)[:, :, None]
    cols = torch.where(flip_cols.bool(), size - 1 - along, along)[:, None, :]
    rows, cols = torch.broadcast_tensors(rows, cols)  # (B, size, size) both
    swap = swap[:, :, None].bool()
    rows, cols = torch.where(swap, rows.mT, rows), torch.where(swap, cols.mT, cols)
    rows = rows + origins[:, 0, None, None]
    cols = cols + origins[:, 1, None, None]
    patches = versions[which[:, None, None], rows, cols]  # (B, size, size, 3)
    return patches.permute(0, 3, 1, 2).float(), truth[rows, cols]


def jitter(
    patches: Tensor, strengths: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Change the light of (B, 3, h, w) patches: brightness, contrast, colour, mixing.

    Of each of the first three strengths s a factor is drawn between ``exp(-s)`` and
    ``exp(s)``, the colour's for each channel alone. Then a part of each channel, drawn
    between ``-s`` and ``s`` of the fourth, is added to each, as another camera, lamp or
    stain mixes them; grey stays grey. Values may leave 0 to 255.
    """

    def draw(*shape: int) -> Tensor:
        drawn = torch.rand(len(patches), *shape, generator=generator)
        return (2 * drawn - 1).to(patches.device)

    brightness, contrast, colour, mixing = strengths
    grey = patches.mean((1, 2, 3), keepdim=True)
    changed = (patches - grey) * torch.exp(contrast * draw(1, 1, 1)) + grey
    changed *= torch.exp(brightness * draw(1, 1, 1)) * torch.exp(colour * draw(3, 1, 1))
    shares = torch.eye(3, device=patches.device) + mixing * draw(3, 3)
    shares /= shares.sum(2, keepdim=True)
    # The channels stay last in memory, where convolutions are faster.
    pixels = changed.permute(0, 2, 3, 1)  # (B, h, w, 3)
    mixed = pixels.flatten(1, 2) @ shares.mT  # (B, h * w, 3)
    return mixed.view(pixels.shape).permute(0, 3, 1, 2)


# ------------------------------------------------------------------ several images


def sheet(pictures: Sequence[np.ndarray], rows: int = 0) -> np.ndarray:
    """Lay pictures one below the other on a sheet as wide as the widest; 0 beside them.

    `rows` is the axis of the rows; that of the columns follows it.
    """
    heights, widths = zip(*(p.shape[rows : rows + 2] for p in pictures), strict=True)
    shape = list(pictures[0].shape)
    shape[rows : rows + 2] = sum(heights), max(widths)
    whole = np.zeros(shape, pictures[0].dtype)
    bottoms = np.cumsum(heights)
    for picture, height, width, bottom in zip(
        pictures, heights, widths, bottoms, strict=True
    ):
        place = (slice(bottom - height, bottom), slice(width))
        whole[(slice(None),) * rows + place] = picture
    return whole


def sheet_weights(
    scenes: Sequence[Scene],
    size: int,
    taught: Sequence[Scene] = (),
    rare_share: float = 0.5,
) -> np.ndarray:
    """Say how likely each place of the sheet is to be a patch's top left corner.

    Scenes that another network labelled lie below the others, and get half of the
    patches.

    An image has as large a share of the patches as of the labelled pixels that are left
    for training; within it, `origin_weights` says where they lie. No patch leaves its
    image.
    """
    if taught:
        halves = (sheet_weights(s, size, (), rare_share) for s in (scenes, taught))
        return sheet(list(halves)) / 2
    areas = []
    for scene in scenes:
        labelled = scene.truth != UNLABELLED
        labelled[guarded(scene.block, labelled.shape).slices] = False
        areas.append(labelled.sum())
    weights = []
    for scene, area in zip(scenes, areas, strict=True):
        share = area / sum(areas)
        own = share * origin_weights(scene.truth, scene.block, size, rare_share)
        weights.append(np.pad(own, (0, size - 1)))  # as large as the image
    return sheet(weights)
