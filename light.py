"""The light of an image: measured, and allowed for in the network's constants.

A new image may be darker, brighter, flatter or of another tint than the training image.
Its own mean or median does not tell how much, since that depends on how much of each
class it shows as well. So the network looks twice: its first masks, made in the light
that the image's typical colour suggests, find the class that the training image has
more of, and the typical colour and contrast of that class alone tell the light.

That is an estimate, and it is wrong by more in a small image, which shows less. By how
much, is measured in training: crops of the training image all have its light, so any
other light that is found in them is an error. An image's light is pulled towards no
change by as much as such an error could explain, and so is its spread by its own.

Contents
--------
The training image   Looks, describe, measure_error
A new image          glimpse, adapt, adapt_to, known_pixels, warning
Another day          CHANGES
"""

import copy
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

import images
import segutils


TILES = 16  # of an image are looked at, evenly spread
FAINT, GLARING = 8, 247  # pixels darker or brighter in every channel tell no colour
REACH = 4  # pixels: contrast is measured over so many, nearer ones are mostly noise
STRONGEST = 4  # the largest factor of light or contrast that is allowed for
CROPS = 6, 4  # columns and rows of the crops of the training image
DOUBT = 1.75  # times the expected error: a smaller change counts as none
STEEPNESS = 8  # of the way from there to a change that is allowed for whole
MUCH_LIGHT = 1.6  # times the training image's: worth a warning, and so is a
MOST_OUTSIDE = 0.2  # share of pixels of colours that the training image lacks
RANGE = (0.5, 99.5)  # percentiles of the training image that its colours lie between


class Looks(TypedDict):
    """What labelled images look like; `describe` says what the values are."""

    larger: int
    colour: list[float]
    contrast: list[float]
    lowest: list[float]
    highest: list[float]
    error: list[float]


def describe(pictures: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> Looks:
    """Say what the labelled images look like, in plain values for the model file.

    Parameters
    ----------
    pictures : sequence of ndarray, (H, W, 3) uint8
        The training images, taken together.
    truths : sequence of ndarray, (H, W) uint8
        Their classes: 0, 1 or `images.UNLABELLED`.

    Returns
    -------
    dict
        ``larger``, the class with more pixels; ``colour`` and ``contrast``, that
        class's typical colour and contrast; ``lowest`` and ``highest``, between which
        nearly all of the images' colours lie: three values of 0 to 255 each; ``error``,
        two zeros until `measure_error` tells it.
    """
    counts = [sum(int((truth == c).sum()) for truth in truths) for c in (0, 1)]
    larger = int(counts[1] > counts[0])
    is_larger = [truth == larger for truth in truths]
    contrast = _contrast(pictures, is_larger)
    if contrast is None:  # labelled in thin strokes only
        contrast = _contrast(pictures, [np.ones(t.shape, bool) for t in truths])
    assert contrast is not None  # train.py refuses images as narrow as that
    pixels = np.concatenate([rgb.reshape(-1, 3) for rgb in pictures])
    lowest, highest = np.percentile(pixels, RANGE, axis=0)
    of_larger = pixels[np.concatenate([where.ravel() for where in is_larger])]
    return {
        "larger": larger,
        "colour": _typical_colour(of_larger).tolist(),
        "contrast": contrast.tolist(),
        "lowest": lowest.tolist(),
        "highest": highest.tolist(),
        "error": [0.0, 0.0],
    }


def measure_error(
    model: segutils.FCNN, looks: Looks, pictures: Sequence[np.ndarray]
) -> list[float]:
    """Measure how far light and spread are misjudged, on crops of the training images.

    Parameters
    ----------
    model : segutils.FCNN
        The trained network.
    looks : dict
        What the training images look like, from `describe`.
    pictures : sequence of ndarray, (H, W, 3) uint8
        The training images, whose light and spread are known to be 1.

    Returns
    -------
    list of two float
        For light and for spread: of the logarithms of a crop's three factors the one
        farthest from 0, of these the root mean square, times the square root of a
        crop's pixels. An image of N pixels is expected to be misjudged by this over
        the square root of N.
    """
    errors = []
    for crop in (crop for rgb in pictures for crop in _crops(rgb)):
        pieces = segutils.cut(crop, glimpse(*crop.shape[:2]))
        changes = np.log(_factors(model, looks, pieces)[0])  # (2, 3)
        errors.append((changes**2).max(1) * crop.shape[0] * crop.shape[1])
    return np.sqrt(np.mean(errors, 0)).tolist()


def _crops(rgb: np.ndarray) -> list[np.ndarray]:
    """Cut evenly spread crops, as large as one tile if the image is twice as large."""
    shape = np.array(rgb.shape[:2])
    side = min(segutils.MAX_SIDE, shape.min() // 2)
    rows, cols = (
        np.linspace(0, length - side, count).astype(int)
        for length, count in zip(shape, reversed(CROPS), strict=True)
    )
    return [rgb[y : y + side, x : x + side] for y in rows for x in cols]


def _typical_colour(pixels: np.ndarray) -> np.ndarray:
    """Give the mean of each channel's middle half, of (N, 3) pixels: (3,) float64.

    As sturdy as the median, and finer where the values are few.
    """
    lit = (pixels.max(1) >= FAINT) & (pixels.min(1) <= GLARING)
    ordered = np.sort(pixels[lit] if lit.any() else pixels, axis=0)
    quarter = len(ordered) // 4
    return ordered[quarter : len(ordered) - quarter].mean(0).clip(1)


def _contrast(
    pictures: Sequence[np.ndarray], where: Sequence[np.ndarray]
) -> np.ndarray | None:
    """Give how far pixels `REACH` apart in a row differ: (3,) float64, or None.

    `pictures` are (h, w, 3) uint8; `where` says for each which pixels count, (h, w)
    bool: a pair counts where both of its pixels do. Without any pair it is not known.
    """
    total, count = np.zeros(3), 0
    for rgb, counts in zip(pictures, where, strict=True):
        values = rgb.astype(np.int16)  # differences may be negative
        apart = abs(values[:, REACH:] - values[:, :-REACH])
        pairs = apart[counts[:, REACH:] & counts[:, :-REACH]]  # (N, 3)
        total += pairs.sum(0)
        count += len(pairs)
    return np.maximum(total / count, 0.1) if count else None


def glimpse(height: int, width: int) -> list[segutils.Tile]:
    """Choose the tiles of an image that are looked at: a few, evenly spread.

    Parameters
    ----------
    height, width : int
        The image's size in pixels.

    Returns
    -------
    list of segutils.Tile
        At most `TILES`, from the top of the image to its bottom.
    """
    tiles = segutils.tiles(height, width)
    chosen = np.linspace(0, len(tiles) - 1, min(TILES, len(tiles))).round().astype(int)
    return [tiles[index] for index in chosen]


def adapt(
    model: segutils.FCNN, looks: Looks, rgb: np.ndarray
) -> tuple[segutils.FCNN, np.ndarray]:
    """Adapt a network to the light of an image; `adapt_to` says how.

    Parameters
    ----------
    model : segutils.FCNN
        The network.
    looks : dict
        What its training image looks like, from `describe`.
    rgb : ndarray, (H, W, 3) uint8
        The image, of any size.

    Returns
    -------
    adapted : segutils.FCNN
        A copy whose colour constants are the image's.
    light : ndarray, (3,) float64
        The image's light in units of the training image's.
    """
    return adapt_to(model, looks, segutils.cut(rgb, glimpse(*rgb.shape[:2])))


def adapt_to(
    model: segutils.FCNN, looks: Looks, pieces: Sequence[segutils.Piece]
) -> tuple[segutils.FCNN, np.ndarray]:
    """Adapt a network to the light of an image, of which some tiles are known.

    The colour of the larger class is taken to what it was in training. The image's
    spread about it is scaled half by the light and half by the contrast: a dark image
    has less contrast, but so has one with much haze, or with smoother soil. (Chosen on
    three families of scenes; a gain of all values, whatever it is, changes nothing.)

    Parameters
    ----------
    model : segutils.FCNN
        The network.
    looks : dict
        What its training image looks like, from `describe`.
    pieces : list of (segutils.Tile, ndarray)
        The tiles from `glimpse` and their pixels, (h, w, 3) uint8; pixels that are
        masked (`numpy.ma`) show nothing, and tell nothing.

    Returns
    -------
    adapted : segutils.FCNN
        A copy whose colour constants are the image's. That is all that differs, so it
        is as exact, and as fast, as the network it is made of.
    light : ndarray, (3,) float64
        The image's light in units of the training image's: above 1 where it is
        brighter in red, green, blue.
    """
    factors, seen = _factors(model, looks, pieces)
    errors = np.divide(looks["error"], max(seen, 1) ** 0.5)
    light, spread = map(_shrunk, factors, errors)
    return _in_light(model, looks, light, spread), light


def _factors(
    model: segutils.FCNN, looks: Looks, pieces: Sequence[segutils.Piece]
) -> tuple[np.ndarray, int]:
    """Estimate light and spread, (2, 3), in units of the training image's.

    Also gives the number of pixels that the estimate rests on.
    """
    pictures, known = _cores(pieces)
    pixels = _chosen(pictures, known)
    if len(pixels) == 0:
        return np.ones((2, 3)), 0
    light = _ratio(_typical_colour(pixels), looks["colour"])
    first = segutils.Predictor(_in_light(model, looks, light, light))
    where = [
        ((margin > 0) == looks["larger"]) & counts
        for (_, margin), counts in zip(first.tile_margins(pieces), known, strict=True)
    ]
    larger = _chosen(pictures, where)
    if len(larger) < len(pixels) / 4:  # some strays would tell a wrong light
        return np.stack([light, light]), len(pixels)
    light = _ratio(_typical_colour(larger), looks["colour"])
    contrast = _contrast(pictures, where)
    if contrast is None:
        return np.stack([light, light]), len(pixels)
    spread = np.sqrt(light * _ratio(contrast, looks["contrast"]))
    return np.stack([light, spread]), len(pixels)


def _shrunk(factors: np.ndarray, error: float) -> np.ndarray:
    """Pull factors towards 1 as far as an error of their logarithms explains them.

    All alike, by how far the largest change is over the error: between the soft and the
    hard thresholds of Donoho and Johnstone (1994), as the firm one of Gao and Bruce
    (1997) is.
    """
    changes = np.log(factors)
    largest, least = abs(changes).max(), DOUBT * error
    if largest <= least:
        return np.ones_like(factors)
    return np.exp(changes * (1 - (least / largest) ** STEEPNESS))


def known_pixels(pieces: Sequence[segutils.Piece]) -> np.ndarray:
    """Gather the pixels of tiles that are known.

    Parameters
    ----------
    pieces : list of (segutils.Tile, ndarray)
        As for `adapt_to`.

    Returns
    -------
    ndarray, (N, 1, 3) uint8
        The pixels of the tiles' cores that are not masked.
    """
    return _chosen(*_cores(pieces))[:, None]


def _cores(
    pieces: Sequence[segutils.Piece],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Give the cores of tiles, (h, w, 3) each, and what is known of each, (h, w)."""
    cores = [pixels[tile.rows.core, tile.cols.core] for tile, pixels in pieces]
    pictures = [np.ma.getdata(core) for core in cores]
    return pictures, [~np.any(np.ma.getmaskarray(core), -1) for core in cores]


def _chosen(pictures: Sequence[np.ndarray], where: Sequence[np.ndarray]) -> np.ndarray:
    """Gather the pixels (N, 3) of some pictures that count."""
    pairs = zip(pictures, where, strict=True)
    return np.concatenate([rgb[counts] for rgb, counts in pairs])


def _ratio(found: ArrayLike, known: ArrayLike) -> np.ndarray:
    """Compare two triples, within what is allowed for: (3,) float64."""
    return np.divide(found, known).clip(1 / STRONGEST, STRONGEST)


def _in_light(
    model: segutils.FCNN, looks: Looks, light: np.ndarray, spread: np.ndarray
) -> segutils.FCNN:
    """Copy a network for an image `light` times as bright and `spread` as spread."""
    adapted = copy.deepcopy(model)
    mean, std = adapted.normalise.mean, adapted.normalise.std
    colour, gain, stretch = (
        mean.new_tensor(values) for values in (looks["colour"], light, spread)
    )
    # The same as colour * gain + (mean - colour) * stretch, and exact without a change.
    mean.copy_(mean * stretch + colour * (gain - stretch))
    std *= stretch
    return adapted


def warning(looks: Looks, light: np.ndarray, rgb: np.ndarray) -> str | None:
    """Say in what an image lies far outside what the training image shows.

    Parameters
    ----------
    looks : dict
        What the training image looks like, from `describe`.
    light : ndarray, (3,) float64
        The image's light, from `adapt`; it is allowed for.
    rgb : ndarray, (H, W, 3) uint8
        The image.

    Returns
    -------
    str or None
        One line that says what is unlike and what that means, or nothing.
    """
    step = max(1, round((rgb.shape[0] * rgb.shape[1] / 1e6) ** 0.5))
    pixels = rgb[::step, ::step]  # a million tell as much as all
    # As it is, or in its light: one of the two should be like the training image.
    outside = min(_share_outside(looks, factor, pixels) for factor in (1, light))
    if outside > MOST_OUTSIDE:
        found = f"{outside:.0%} of it has colours that the training image lacks"
    elif max(*light, *(1 / light)) > MUCH_LIGHT:
        found = "its light is {:.1f} (red), {:.1f} (green), {:.1f} (blue) times".format(
            *light
        )
        found += " the training image's"
    else:
        return None
    return f"{found}: the mask may be wrong (label an image like it, and train on that)"


def _share_outside(looks: Looks, light: ArrayLike, pixels: np.ndarray) -> float:
    """Say how many of (..., 3) pixels have colours that the training image lacks."""
    low, high = (np.multiply(c, light) for c in (looks["lowest"], looks["highest"]))
    outside = ((pixels < low) | (pixels > high)).any(-1)
    return outside.mean() if outside.size else 0.0  # a map may have no known pixel


# ------------------------------------------------------------------ another day


def _stretched(rgb: np.ndarray, factor: float) -> np.ndarray:
    grey = rgb.mean()
    return _as_bytes((rgb - grey) * factor + grey)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).round().astype(np.uint8)


# What another day, lens or file format does to an image, (H, W, 3) uint8 to the same.
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "darker": lambda rgb: _as_bytes(rgb * 0.7),
    "warmer": lambda rgb: _as_bytes(rgb * [1.2, 1, 0.8]),
    "less contrast": lambda rgb: _stretched(rgb, 0.8),
    "more contrast": lambda rgb: _stretched(rgb, 1.25),
    "noise": lambda rgb: images.noisy(rgb, 4),
    "blur": lambda rgb: images.blurred(rgb, 0.7),
    "JPEG": lambda rgb: images.compressed(rgb, 75),
}
