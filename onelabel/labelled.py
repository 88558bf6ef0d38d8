"""The labelled images that a training reads: their pixels, classes, colours, scale."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from onelabel import depth, ground
from onelabel.files import InputError, PathLike
from onelabel.image import UNLABELLED, Colours, Image, without_data
from onelabel.reading import IN_MEMORY, open_image
from onelabel.resources import PROGRAM_BYTES, check_room, free_memory
from onelabel.truth import read_truth_of
from onelabel.writing import MAX_JPEG_SIDE
from segutils import Block


PIXEL_BYTES = 100  # of memory for each pixel of the images, at the peak of a training
MIN_SIDE = 32  # pixels: a smaller image has no room for patches and a held-out block
CONTEXT = 16  # pixels around what is labelled: more than the network sees


class Labelled(NamedTuple):
    """Labelled images, as a training reads them."""

    # Pixels, (H, W, 3) uint8 and masked where there is no data; classes, (H, W) uint8.
    pairs: list[tuple[np.ndarray, np.ndarray]]
    colours: Colours  # of class 0 and class 1, in the truths
    scale: depth.Scale | None  # how values of more than 8 bits become grey levels
    pixel_side: float | None = None  # metres, of a map


def read_labelled(
    paths: Sequence[tuple[PathLike, PathLike]], channels: Sequence[int] | None = None
) -> Labelled:
    """Read labelled images.

    Of an image larger than `IN_MEMORY`, only the rows and columns that are labelled are
    read, with some pixels around them. All images have one scale, and all truths the
    same two colours.

    Parameters
    ----------
    paths : sequence of (str or Path, str or Path)
        Each image's file and that of its ground truth.
    channels : sequence of three int, optional
        Which bands are red, green and blue, counted from 1.

    Raises
    ------
    InputError
        A file cannot be read or is too small or too large, or two of them do not match.
    """
    images = [open_image(path, channels) for path, _ in paths]
    scale = common_scale(images)
    pairs = []
    colours: Colours = []  # those of the first truth
    for image, (path, gt) in zip(images, paths, strict=True):
        image.use_scale(scale)
        truth, drawn_in = read_truth_of(image, gt)
        colours = colours or drawn_in
        if drawn_in != colours:
            raise InputError(
                f"{gt}: drawn in {drawn_in[0]} and {drawn_in[1]}, but {paths[0][1]} in "
                f"{colours[0]} and {colours[1]} (draw all truths in the same colours)"
            )
        lines = _labelled_lines(image, truth)
        truth = truth[np.ix_(*lines)]
        _check_size(path, truth)
        rgb = _read_lines(image, *lines)
        truth[without_data(rgb)] = UNLABELLED
        if (truth == UNLABELLED).all():
            raise InputError(f"{path}: no pixel has both a value and a class in {gt}")
        pairs.append((rgb, truth))
    side = ground.pixel_side(images[0].place, images[0].shape)
    return Labelled(pairs, colours, scale, side)


def common_scale(images: Sequence[Image]) -> depth.Scale | None:
    """Choose one scale for all images, from some tiles of each."""
    kinds = [depth.kind_of(image.dtype) for image in images]
    for image, kind in zip(images, kinds, strict=True):
        if kind != kinds[0]:
            raise InputError(
                f"{image.path}: has {kind}, but {images[0].path} has {kinds[0]} "
                "(save all images alike)"
            )
    # A generator: of 8 bits, nothing is read.
    samples = (values for image in images for values in image.raw_sample())
    return depth.fit_scale(kinds[0], samples)


def _labelled_lines(image: Image, truth: np.ndarray) -> list[np.ndarray]:
    """Choose the rows and the columns that are read: all of them of a small image."""
    if truth.size <= IN_MEMORY:
        return [np.arange(side) for side in truth.shape]
    labelled = truth != UNLABELLED
    near = np.ones(2 * CONTEXT + 1)
    return [
        np.nonzero(np.convolve(labelled.any(axis), near)[CONTEXT:-CONTEXT] > 0.5)[0]
        for axis in (1, 0)
    ]


def check_side(path: PathLike, shape: tuple[int, int]) -> None:
    """Refuse an image that is too small to learn from."""
    height, width = shape
    if min(shape) < MIN_SIDE:
        raise InputError(
            f"{path}: {width}x{height} pixels (training needs {MIN_SIDE} a side)"
        )


def _check_size(path: PathLike, truth: np.ndarray) -> None:
    """Refuse an image that is too small or too large to train on."""
    height, width = truth.shape
    size = f"{width}x{height} pixels"
    check_side(path, truth.shape)
    if max(height, width) > MAX_JPEG_SIDE:  # training sees it as a JPEG, too
        raise InputError(
            f"{path}: {size} (training takes at most {MAX_JPEG_SIDE} a side; cut it)"
        )
    need = PROGRAM_BYTES + PIXEL_BYTES * truth.size
    check_room(path, f"{size} to train on", "memory", need, free_memory())


def _read_lines(image: Image, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Read some rows and columns of an image: (rows, columns, 3) uint8."""
    runs = np.split(rows, np.nonzero(np.diff(rows) > 1)[0] + 1)
    left, right = int(cols[0]), int(cols[-1]) + 1
    parts = [
        image.read(Block(int(run[0]), left, int(run[-1]) + 1, right))[:, cols - left]
        for run in runs
    ]
    return parts[0] if len(parts) == 1 else np.ma.concatenate(parts)
