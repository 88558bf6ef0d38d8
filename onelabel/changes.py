"""What another day, camera, lens or file format does to an image."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from onelabel.depth import as_bytes


Change = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 to the same


def compressed(rgb: np.ndarray, quality: int) -> np.ndarray:
    """Give an image as a JPEG of a quality leaves it; 75 is what many programs use."""
    with io.BytesIO() as file:
        Image.fromarray(rgb).save(file, "JPEG", quality=quality)
        return np.array(Image.open(file))


def blurred(rgb: np.ndarray, radius: float) -> np.ndarray:
    """Give an image as a softer lens takes it: blurred by a Gaussian of this radius."""
    return np.array(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(radius)))


def noisy(rgb: np.ndarray, deviation: float) -> np.ndarray:
    """Give an image as a poorer sensor takes it, with the same noise each time."""
    return as_bytes(rgb + np.random.default_rng(0).normal(0, deviation, rgb.shape))


def _with_contrast(rgb: np.ndarray, factor: float) -> np.ndarray:
    grey = rgb.mean()
    return as_bytes((rgb - grey) * factor + grey)


# Training sees half of its patches like this.
VERSIONS: list[Change] = [
    *(partial(compressed, quality=quality) for quality in (90, 75, 50)),
    *(partial(blurred, radius=radius) for radius in (0.5, 0.8)),
    *(partial(noisy, deviation=deviation) for deviation in (3, 6)),
]
# The report scores the held-out block like this.
CHANGES: dict[str, Change] = {
    "darker": lambda rgb: as_bytes(rgb * 0.7),
    "warmer": lambda rgb: as_bytes(rgb * [1.2, 1, 0.8]),
    "less contrast": partial(_with_contrast, factor=0.8),
    "more contrast": partial(_with_contrast, factor=1.25),
    "noise": partial(noisy, deviation=4),
    "blur": partial(blurred, radius=0.7),
    "JPEG": partial(compressed, quality=75),
}
