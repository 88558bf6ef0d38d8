"""Masks and errors drawn on images, as arrays."""

from collections.abc import Iterator

import numpy as np

from onelabel.image import Colour, Image, strips
from onelabel.store import Store


TINTS: tuple[Colour, Colour] = (213, 94, 0), (0, 114, 178)  # vermillion, and blue
LIKE = 100  # how far from a tint, in RGB, an image that would hide it may be
MISSED, FALSE = (0, 114, 178), (230, 159, 0)  # blue and orange, of errors


def tint(rgb: np.ndarray) -> Colour:
    """Choose the colour to draw a mask in: blue where vermillion would hide."""
    if rgb.size == 0:
        return TINTS[0]
    step = max(1, max(rgb.shape) // 200)  # some pixels tell as much as all
    typical = np.median(rgb[::step, ::step], axis=(0, 1))
    return TINTS[int(np.linalg.norm(typical - TINTS[0]) < LIKE)]


def overlay(
    rgb: np.ndarray,
    mask: np.ndarray,
    opacity: float = 0.4,
    colour: Colour | None = None,
) -> np.ndarray:
    """Draw a mask on its image: class 1 tinted, with a solid edge.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image.
    mask : ndarray, (H, W) uint8
        The classes.
    opacity : float
        The tint's strength, 0 to 1.
    colour : tuple of int, optional
        The tint; that of these pixels, from `tint`, unless given.

    Returns
    -------
    ndarray, (H, W, 3) uint8
        The drawn image.
    """
    inside = mask == 1
    edge = np.zeros_like(inside)  # class 1 pixels beside one of class 0
    edge[1:] |= inside[1:] & ~inside[:-1]
    edge[:-1] |= inside[:-1] & ~inside[1:]
    edge[:, 1:] |= inside[:, 1:] & ~inside[:, :-1]
    edge[:, :-1] |= inside[:, :-1] & ~inside[:, 1:]
    # What each value of each channel becomes under the tint: (256, 3).
    colour = tint(rgb) if colour is None else colour
    tinted = (1 - opacity) * np.arange(256)[:, None] + opacity * np.array(colour)
    tinted = tinted.round().astype(np.uint8)
    drawn = rgb.copy()
    drawn[inside] = tinted[drawn[inside], [0, 1, 2]]
    drawn[edge] = colour
    return drawn


def overlay_rows(image: Image, store: Store, colour: Colour) -> Iterator[np.ndarray]:
    """Draw a mask on its image from top to bottom, some rows (h, W, 3) at a time."""
    for block in strips(image.shape):
        around = block.grown(1, image.shape)  # an edge is seen from its neighbours
        rgb = np.ma.getdata(image.read(around))
        drawn = overlay(rgb, store.mask_of(around), colour=colour)
        yield drawn[block.within(around)]


def errors(rgb: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Draw where a mask is wrong: class 1 missed in blue, falsely marked in orange.

    The image is pale grey, so that no colour of its own misleads: (H, W, 3) uint8.
    """
    pale = (128 + rgb.mean(2) / 2).astype(np.uint8)
    drawn = np.repeat(pale[..., None], 3, axis=2)
    drawn[(mask == 0) & (truth == 1)] = MISSED
    drawn[(mask == 1) & (truth == 0)] = FALSE
    return drawn


def as_grey(truth: np.ndarray) -> np.ndarray:
    """Make a truth or mask fit to be shown: black, white, and grey where unlabelled."""
    return np.where(truth > 1, 0.5, truth)
