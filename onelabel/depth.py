"""Pixels of more than 8 bits, scaled to 8 by the training image's own percentiles.

Inside, every image is 8-bit RGB. An image of 16 bits or floats has no known range: 12
bits of a camera, reflectance of 0 to 10,000, values of 0 to 1. So the training image's
percentiles set the range, once; the model file keeps it for every later image.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike


BYTES, INTEGERS, FLOATS = "8 bits", "integers of over 8 bits", "floats"
PERCENTILES = (0.1, 99.9)  # what lies outside is mostly hot pixels and glare
TOP = 170  # the grey level of the upper one: a new image may be half as bright again


class Scale(NamedTuple):
    """How values become grey levels, for red, green and blue each."""

    kind: str
    zero: tuple[float, ...]  # the value that becomes 0
    unit: tuple[float, ...]  # values to a grey level


def kind_of(dtype: DTypeLike) -> str:
    """Name the kind of pixels that an image has."""
    dtype = np.dtype(dtype)
    return BYTES if dtype == np.uint8 else FLOATS if dtype.kind == "f" else INTEGERS


def fit_scale(kind: str, samples: Iterable[np.ndarray]) -> Scale | None:
    """Choose the scale of training images from some of their pixels.

    Of 8 bits, which are taken as they are, there is none. Zero stays black unless the
    values lie far from it, so that twice the light is twice the grey level. Masked
    pixels and NaN do not count.
    """
    if kind == BYTES:
        return None
    pixels = np.concatenate([known_values(values) for values in samples])  # (N, 3)
    if len(pixels) == 0:
        pixels = np.ones((1, 3))
    low, high = np.percentile(pixels, PERCENTILES, axis=0)
    zero = np.where((low >= 0) & (low < high / 2), 0, low)
    unit = np.where(high > zero, (high - zero) / TOP, 1)
    return Scale(kind, tuple(zero.tolist()), tuple(unit.tolist()))


def known_values(values: np.ndarray) -> np.ndarray:
    """Gather the pixels that have a value in every channel: (N, 3) float64."""
    hidden = np.ma.getmaskarray(values) | ~np.isfinite(np.ma.getdata(values))
    return np.ma.getdata(values)[~hidden.any(-1)].astype(np.float64)


def to_bytes(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Scale (h, w, 3) values to 8 bits; NaN is masked, as pixels without data are."""
    data = np.ma.getdata(values)
    pixels = data.astype(np.promote_types(data.dtype, np.float32))
    finite = np.isfinite(pixels)
    zero, unit = np.array([scale.zero, scale.unit], pixels.dtype)
    levels = (np.where(finite, pixels, 0) - zero) / unit
    grey = as_bytes(levels)
    hidden = np.ma.getmaskarray(values) | ~finite.all(-1, keepdims=True)
    return np.ma.MaskedArray(grey, hidden) if hidden.any() else grey


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Round to uint8, and cut off what is out of range."""
    return values.round().clip(0, 255).astype(np.uint8)
