"""The light of an image: estimated, and allowed for in the network's constants.

A new image may be darker, brighter, flatter or of another tint than the training image,
or have a constant added. Its mean does not tell how much, since that depends on how
much of each class it shows, too. So a network looks at parts of the image. Its masks
show the class that the training image has more of, and the typical colour and contrast
of that class give an estimate of the light.

Two things tell whether an estimate is believed. Its error is known: crops of the
training image all have the training image's light, so any other light estimated there
is an error. And the statistics inside the network must come nearer to those of
training.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from onelabel.depth import as_bytes
from onelabel.image import InMemory, without_data
from segutils import FCNN, MAX_SIDE, Piece, Predictor, made_even, without_gaps


FAINT, GLARING = 8, 247  # pixels darker or brighter in every channel tell no colour
REACH = 4  # pixels: contrast is measured over so many, nearer ones are mostly noise
STRONGEST = 16  # the largest factor of light or contrast that is allowed for
CROPS = 6, 4  # columns and rows of the crops of the training image
DOUBT = 2  # times the expected error: a smaller change counts as none
NEARER = 0.85  # a gain counts if the statistics' distance falls to this part of it
MUCH_NEARER = 0.5  # with an offset it fits anything better, so it must be nearer still
MUCH_LIGHT = 1.6  # warn where the light is so many times as strong, or as weak
MOST_OUTSIDE = 0.2  # warn where so many pixels have colours that training lacked
RANGE = (0.5, 99.5)  # percentiles of the training image that its colours lie between


class Light(NamedTuple):
    """The light of an image in units of the training image's: (3,) factors."""

    level: tuple[float, ...]  # of the larger class's typical colour
    spread: tuple[float, ...]  # of the standard deviation about it


SAME = Light((1.0,) * 3, (1.0,) * 3)  # as the training image's

Part = tuple[np.ndarray, np.ndarray]  # (h, w, 3) uint8, and which pixels count


class Looks(TypedDict):
    """What labelled images look like; `describe` says what the values are."""

    network: FCNN
    larger: int
    colour: list[float]
    contrast: list[float]
    lowest: list[float]
    highest: list[float]
    error: list[float]


def describe(
    model: FCNN, pictures: Sequence[np.ndarray], truths: Sequence[np.ndarray]
) -> Looks:
    """Say what the labelled images look like.

    Parameters
    ----------
    model : FCNN
        A network that learned these images and no others.
    pictures : sequence of ndarray, (H, W, 3) uint8
        The training images, taken together; masked where they have no data.
    truths : sequence of ndarray, (H, W) uint8
        Their classes: 0, 1, or another value where unlabelled.

    Returns
    -------
    dict
        ``network``, the network that the light is estimated with; one that learned
        other images, too, would take their lights for the light of these.
        ``larger``, the class with more pixels; its typical ``colour`` and ``contrast``;
        ``lowest`` and ``highest``, between which nearly all colours of the images lie:
        three values of 0 to 255 each; ``error``, two zeros until `measure_error`.
    """
    counts = [sum(int((truth == c).sum()) for truth in truths) for c in (0, 1)]
    larger = int(counts[1] > counts[0])
    known = [_known(rgb) for rgb in pictures]
    of_larger = [
        (rgb, truth == larger) for (rgb, _), truth in zip(known, truths, strict=True)
    ]
    contrast = _contrast(of_larger)
    if contrast is None:  # labelled in thin strokes only
        contrast = _contrast(known)
    assert contrast is not None  # images as narrow as that are refused
    lowest, highest = np.percentile(_chosen(known), RANGE, axis=0)
    return {
        "network": model,
        "larger": larger,
        "colour": _typical_colour(_chosen(of_larger)).tolist(),
        "contrast": contrast.tolist(),
        "lowest": lowest.tolist(),
        "highest": highest.tolist(),
        "error": [0.0, 0.0],
    }


def measure_error(looks: Looks, pictures: Sequence[np.ndarray]) -> list[float]:
    """Measure the error of light and of spread on crops of the training images.

    Of a crop's three factors the logarithm farthest from 0 counts; of all crops, the
    root mean square, times the square root of a crop's pixels. For an image of N pixels
    the expected error is this over the square root of N.
    """
    errors = [np.zeros(2)]
    for crop in (crop for rgb in pictures for crop in _crops(rgb)):
        sample = InMemory(crop).sample()
        count = len(known_pixels(sample))
        found = count and _look_twice(looks, sample, SAME, trust=0.5)
        if found:
            errors.append(_largest(found) ** 2 * count)
    return np.sqrt(np.sum(errors, 0) / max(len(errors) - 1, 1)).tolist()


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
    red, green, blue = pixels.T
    lit = np.maximum(np.maximum(red, green), blue) >= FAINT
    lit &= np.minimum(np.minimum(red, green), blue) <= GLARING
    counted = pixels.compress(lit, 0) if lit.any() else pixels
    ordered = np.sort(counted, axis=0, kind="stable")  # by radix: faster for bytes
    quarter = len(ordered) // 4
    return ordered[quarter : len(ordered) - quarter].mean(0).clip(1)


def _contrast(parts: Sequence[Part]) -> np.ndarray | None:
    """Give how far pixels `REACH` apart in a row differ: (3,) float64, or None.

    A pair of pixels counts where both do.
    """
    total, count = np.zeros(3), 0
    for rgb, counts in parts:
        values = rgb.astype(np.int16)  # differences may be negative
        apart = abs(values[:, REACH:] - values[:, :-REACH])
        pairs = apart[counts[:, REACH:] & counts[:, :-REACH]]  # (N, 3)
        total += pairs.sum(0)
        count += len(pairs)
    return np.maximum(total / count, 0.1) if count else None


def estimate(looks: Looks, sample: Sequence[Piece]) -> Light:
    """Estimate the light of an image.

    It is the best of no change, two gains, and a gain with an offset: the one under
    which the statistics inside the network lie nearest to those of training. An image
    that is unlike the training image leaves them (Schneider et al. 2020,
    https://arxiv.org/abs/2006.16971).

    Parameters
    ----------
    looks : dict
        What the training image looks like, from `describe`.
    sample : list of (segutils.Tile, ndarray)
        Tiles of the image, from `Image.sample`, or of several images in one light;
        masked pixels do not count.

    Returns
    -------
    Light
        `SAME` if the light is the training image's, as far as can be told.
    """
    parts = [_core(piece) for piece in sample]
    pixels = _chosen(parts)
    if len(pixels) == 0:
        return SAME
    look = partial(_look_twice, looks, sample)
    typical = _ratio(_typical_colour(pixels), looks["colour"])
    contrast = _contrast_ratio(parts, looks, typical)
    gains = look(SAME, trust=0.5), look(_light(typical, typical), trust=0.5)
    offset = look(_light(typical, contrast), trust=1)
    least = np.divide(looks["error"], len(pixels) ** 0.5) * DOUBT
    believed = [
        [found for found in ways if found and (_largest(found) > least).any()]
        for ways in (gains, [offset])
    ]
    if not any(believed):
        return SAME
    distance_in = partial(_distance, looks, sample, pixels.mean(0))
    best, distance = SAME, distance_in(SAME)
    for ways, share in zip(believed, (NEARER, MUCH_NEARER), strict=True):
        enough = share * distance
        for found in ways:
            its = distance_in(found)
            if its < min(enough, distance):
                best, distance = found, its
    return best


def in_light(model: FCNN, looks: Looks, light: Light) -> FCNN:
    """Copy a network for images in a light: as exact, and as fast.

    Only the constants of the normalisation differ.
    """
    adapted = copy.deepcopy(model).eval()
    mean, std = adapted.normalise.mean, adapted.normalise.std
    colour, level, spread = (
        mean.new_tensor(values) for values in (looks["colour"], *light)
    )
    # The same as colour * level + (mean - colour) * spread; exact without a change.
    mean.copy_(mean * spread + colour * (level - spread))
    std *= spread
    return adapted


def as_in_training(rgb: np.ndarray, looks: Looks, light: Light) -> np.ndarray:
    """Give pixels in a light as they would be in the training image's: uint8."""
    level, spread = map(np.array, light)
    values = (rgb - looks["colour"] * (level - spread)) / spread
    return as_bytes(values)


def in_words(light: Light) -> str:
    """Say how bright a light is, of the training image's."""
    return ", ".join(
        f"{level:.2f} {name}"
        for level, name in zip(light.level, ("red", "green", "blue"), strict=True)
    )


def _light(level: np.ndarray, spread: np.ndarray) -> Light:
    return Light(tuple(level.tolist()), tuple(spread.tolist()))


def _largest(light: Light) -> np.ndarray:
    """Give the largest change of level and of spread, as a logarithm: (2,)."""
    return abs(np.log(light)).max(1)


def _look_twice(
    looks: Looks, sample: Sequence[Piece], light: Light, trust: float
) -> Light | None:
    """Estimate the light from the larger class as the masks show it.

    The first mask is made in the light that is given. `trust` says how far the contrast
    tells the spread; for the rest the level does. For a gain it is half of each: a dark
    image has less contrast, but so has one with haze, or with smoother soil.
    """
    parts = [_core(piece) for piece in sample]
    known = sum(np.count_nonzero(counts) for _, counts in parts)
    for _ in range(2):
        network = in_light(looks["network"], looks, light)
        logits = Predictor(network).tile_logits(sample)
        larger = [
            (rgb, counts & ((logit > 0) == looks["larger"]))
            for (rgb, counts), (_, logit) in zip(parts, logits, strict=True)
        ]
        pixels = _chosen(larger)
        if len(pixels) < known / 4:  # too few: they may be strays
            return None
        level = _ratio(_typical_colour(pixels), looks["colour"])
        contrast = _contrast_ratio(larger, looks, level)
        light = _light(level, level ** (1 - trust) * contrast**trust)
    return light


def _contrast_ratio(
    parts: Sequence[Part], looks: Looks, unknown: np.ndarray
) -> np.ndarray:
    """Compare contrasts; give `unknown` where there are no pixels to tell: (3,)."""
    contrast = _contrast(parts)
    return unknown if contrast is None else _ratio(contrast, looks["contrast"])


@torch.inference_mode()
def _distance(
    looks: Looks, sample: Sequence[Piece], filling: np.ndarray, light: Light
) -> float:
    """Say how far the statistics of what enters the norms lie from those of training.

    The image is seen in a light. A pixel without data gets the colour `filling`, (3,).
    For each norm the mean over its channels: of the squared difference of the means, in
    standard deviations, and of that of the standard deviations' logarithms.
    """
    model = in_light(looks["network"], looks, light)
    norms = [layer for layer in model if isinstance(layer, nn.BatchNorm2d)]
    moments: dict[nn.Module, list[torch.Tensor]] = {norm: [] for norm in norms}

    def keep(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        x = inputs[0]  # (1, C, h, w)
        both = torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
        moments[norm].append(both)

    for norm in norms:  # of a copy, which is thrown away
        norm.register_forward_pre_hook(keep)
    for tile, pixels in sample:
        known = without_gaps(pixels, filling)
        rgb = torch.from_numpy(made_even(tile, known)).float()  # MPS takes no float64
        model(rgb.to(model.normalise.mean.device)[None].permute(0, 3, 1, 2))
    total = 0.0
    for norm in norms:
        mean, square = torch.stack(moments[norm]).mean(0)  # (C,) each
        variance = (square - mean**2).clamp(min=1e-6)
        shift = (mean - norm.running_mean) ** 2 / norm.running_var
        spread = (variance / norm.running_var).log() / 2
        total += (shift + spread**2).mean().item()
    return total


def known_pixels(sample: Sequence[Piece]) -> np.ndarray:
    """Gather the pixels of a sample that are not masked: (N, 1, 3) uint8."""
    return _chosen([_core(piece) for piece in sample])[:, None]


def _core(piece: Piece) -> Part:
    """Give the core of a tile, (h, w, 3), and where it has data, (h, w) bool."""
    tile, pixels = piece
    return _known(pixels[tile.core.within(tile.seen)])


def _known(rgb: np.ndarray) -> Part:
    """Give the pixels of an image (h, w, 3), and where it has data, (h, w) bool."""
    return np.ma.getdata(rgb), ~without_data(rgb)


def _chosen(parts: Sequence[Part]) -> np.ndarray:
    """Gather the pixels that count: (N, 3) uint8."""
    # The same as rgb[counts], in a quarter of the time.
    chosen = [rgb.reshape(-1, 3).compress(c.ravel(), 0) for rgb, c in parts]
    return np.concatenate([np.empty((0, 3), np.uint8), *chosen])


def _ratio(new: ArrayLike, trained: ArrayLike) -> np.ndarray:
    """Compare two triples, within what is allowed for: (3,) float64."""
    return np.divide(new, trained).clip(1 / STRONGEST, STRONGEST)


def warning(looks: Looks, light: Light, sample: Sequence[Piece]) -> str | None:
    """Say in one line how an image lies far outside what was trained on, or nothing."""
    pixels = known_pixels(sample)
    # As it is, or in its light: one of the two should be like the training image.
    level = np.array(light.level)
    outside = min(_share_outside(looks, factor, pixels) for factor in (1, level))
    if outside > MOST_OUTSIDE:
        unlike = f"{outside:.0%} of it has colours that the training image lacks"
    elif max(*level, *(1 / level)) > MUCH_LIGHT:
        red, green, blue = level
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
