"""The light of an image: estimated, and allowed for in the network's constants.

A new image may be darker, brighter, flatter or of another tint than the training image.
Its mean or median does not tell how much, since that depends on how much of each class
it shows, too. So the network looks twice at a few tiles: (1) normalise by the image's
typical colour, and segment; (2) normalise by the typical colour and contrast of the
class that the training image has more of, as the masks of (1) show it.

The estimate has an error, which is larger for a small image. Training measures it:
crops of the training image all have its light, so any other light estimated there is an
error. A change that such an error could explain counts as none.
"""

import copy
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from onelabel.image import InMemory
from segutils import FCNN, MAX_SIDE, Piece, Predictor


FAINT, GLARING = 8, 247  # pixels darker or brighter in every channel tell no colour
REACH = 4  # pixels: contrast is measured over so many, nearer ones are mostly noise
STRONGEST = 4  # the largest factor of light or contrast that is allowed for
CROPS = 6, 4  # columns and rows of the crops of the training image
DOUBT = 1.75  # times the expected error: a smaller change counts as none
STEEPNESS = 8  # how fast the correction rises from nothing there to full
MUCH_LIGHT = 1.6  # warn where the light is so many times as strong, or as weak
MOST_OUTSIDE = 0.2  # warn where so many pixels have colours that training lacked
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
        Their classes: 0, 1, or another value where unlabelled.

    Returns
    -------
    dict
        ``larger``, the class with more pixels; its typical ``colour`` and ``contrast``;
        ``lowest`` and ``highest``, between which nearly all colours of the images lie:
        three values of 0 to 255 each; ``error``, two zeros until `measure_error`.
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
    model: FCNN, looks: Looks, pictures: Sequence[np.ndarray]
) -> list[float]:
    """Measure the error of light and of contrast on crops of the training images.

    Of a crop's three factors the logarithm farthest from 0 counts; of all crops, the
    root mean square, times the square root of a crop's pixels. For an image of N pixels
    the expected error is this over the square root of N.
    """
    errors = []
    for crop in (crop for rgb in pictures for crop in _crops(rgb)):
        changes = np.log(_factors(model, looks, InMemory(crop).sample())[0])  # (2, 3)
        errors.append((changes**2).max(1) * crop.shape[0] * crop.shape[1])
    return np.sqrt(np.mean(errors, 0)).tolist()


def _crops(rgb: np.ndarray) -> list[np.ndarray]:
    """Cut evenly spread crops, as large as one tile if the image is twice as large."""
    shape = np.array(rgb.shape[:2])
    side = min(MAX_SIDE, shape.min() // 2)
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

    `where` says for each picture which pixels count, (h, w) bool: a pair counts where
    both of its pixels do.
    """
    total, count = np.zeros(3), 0
    for rgb, counts in zip(pictures, where, strict=True):
        values = rgb.astype(np.int16)  # differences may be negative
        apart = abs(values[:, REACH:] - values[:, :-REACH])
        pairs = apart[counts[:, REACH:] & counts[:, :-REACH]]  # (N, 3)
        total += pairs.sum(0)
        count += len(pairs)
    return np.maximum(total / count, 0.1) if count else None


def adapt(
    model: FCNN, looks: Looks, sample: Sequence[Piece]
) -> tuple[FCNN, np.ndarray]:
    """Adapt a network to the light of an image.

    The colour of the larger class is taken to what it was in training. The standard
    deviation about it is scaled half by the light and half by the contrast: a dark
    image has less contrast, but so has one with haze, or with smoother soil. (Chosen on
    three families of scenes; a gain of all values, whatever it is, changes nothing.)

    Parameters
    ----------
    model : FCNN
        The network.
    looks : dict
        What its training image looks like, from `describe`.
    sample : list of (segutils.Tile, ndarray)
        Tiles of the image, from `Image.sample`; masked pixels do not count.

    Returns
    -------
    adapted : FCNN
        A copy with the image's colour constants: as exact, and as fast.
    light : ndarray, (3,) float64
        The image's light in units of the training image's, for red, green and blue.
    """
    factors, count = _factors(model, looks, sample)
    errors = np.divide(looks["error"], max(count, 1) ** 0.5)
    light, stretch = map(_shrunk, factors, errors)
    return _in_light(model, looks, light, stretch), light


def _factors(
    model: FCNN, looks: Looks, sample: Sequence[Piece]
) -> tuple[np.ndarray, int]:
    """Estimate light and standard deviation, (2, 3), and from how many pixels."""
    pictures, has_data = _cores(sample)
    pixels = _chosen(pictures, has_data)
    if len(pixels) == 0:
        return np.ones((2, 3)), 0
    light = _ratio(_typical_colour(pixels), looks["colour"])
    first = Predictor(_in_light(model, looks, light, light))
    where = [
        ((logit > 0) == looks["larger"]) & counts
        for (_, logit), counts in zip(first.tile_logits(sample), has_data, strict=True)
    ]
    larger = _chosen(pictures, where)
    if len(larger) < len(pixels) / 4:  # too few: they may be strays
        return np.stack([light, light]), len(pixels)
    light = _ratio(_typical_colour(larger), looks["colour"])
    contrast = _contrast(pictures, where)
    if contrast is None:
        return np.stack([light, light]), len(pixels)
    stretch = np.sqrt(light * _ratio(contrast, looks["contrast"]))
    return np.stack([light, stretch]), len(pixels)


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


def known_pixels(sample: Sequence[Piece]) -> np.ndarray:
    """Gather the pixels of a sample that are not masked: (N, 1, 3) uint8."""
    return _chosen(*_cores(sample))[:, None]


def _cores(
    sample: Sequence[Piece],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Give the cores of tiles, (h, w, 3) each, and where each has data, (h, w)."""
    cores = [pixels[tile.core.within(tile.seen)] for tile, pixels in sample]
    pictures = [np.ma.getdata(core) for core in cores]
    return pictures, [~np.any(np.ma.getmaskarray(core), -1) for core in cores]


def _chosen(pictures: Sequence[np.ndarray], where: Sequence[np.ndarray]) -> np.ndarray:
    """Gather the pixels (N, 3) of some pictures that count."""
    pairs = zip(pictures, where, strict=True)
    return np.concatenate([rgb[counts] for rgb, counts in pairs])


def _ratio(new: ArrayLike, trained: ArrayLike) -> np.ndarray:
    """Compare two triples, within what is allowed for: (3,) float64."""
    return np.divide(new, trained).clip(1 / STRONGEST, STRONGEST)


def _in_light(
    model: FCNN, looks: Looks, light: np.ndarray, stretch: np.ndarray
) -> FCNN:
    """Copy a network for an image `light` times as bright, `stretch` as contrasty."""
    adapted = copy.deepcopy(model)
    mean, std = adapted.normalise.mean, adapted.normalise.std
    colour, gain, factor = (
        mean.new_tensor(values) for values in (looks["colour"], light, stretch)
    )
    # The same as colour * gain + (mean - colour) * factor, and exact without a change.
    mean.copy_(mean * factor + colour * (gain - factor))
    std *= factor
    return adapted


def warning(looks: Looks, light: np.ndarray, sample: Sequence[Piece]) -> str | None:
    """Say in one line how an image lies far outside what was trained on, or nothing."""
    pixels = known_pixels(sample)
    # As it is, or in its light: one of the two should be like the training image.
    outside = min(_share_outside(looks, factor, pixels) for factor in (1, light))
    if outside > MOST_OUTSIDE:
        unlike = f"{outside:.0%} of it has colours that the training image lacks"
    elif max(*light, *(1 / light)) > MUCH_LIGHT:
        red, green, blue = light
        unlike = (
            f"its light is {red:.1f} (red), {green:.1f} (green), {blue:.1f} (blue) "
            "times the training image's"
        )
    else:
        return None
    return f"{unlike}: the mask may be wrong (train on an image like it)"


def _share_outside(looks: Looks, light: ArrayLike, pixels: np.ndarray) -> float:
    """Say how many of (..., 3) pixels have colours that the training image lacks."""
    low, high = (np.multiply(c, light) for c in (looks["lowest"], looks["highest"]))
    outside = ((pixels < low) | (pixels > high)).any(-1)
    return outside.mean() if outside.size else 0.0  # a map may have no data at all
