"""Small pictures and files that several tests make."""

import io

import numpy as np
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from onelabel.image import NODATA


BLACK_WHITE = ((0, 0, 0), (255, 255, 255))
SIZE = st.tuples(st.integers(1, 40), st.integers(1, 40))
COLOUR = st.tuples(*[st.integers(0, 255)] * 3)
LOSSLESS = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("TIFF", m) for m in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
]  # formats and modes of Pillow


def gradient(height=20, width=31):
    """An image that is neither square nor the same when turned."""
    rows, cols = np.indices((height, width))
    rgb = np.stack([8 * rows, 8 * cols, 4 * (rows + cols)], 2)
    return rgb.astype(np.uint8)


def blobs(height, width, seed=0):
    """A mask of classes 0 and 1 in squares of 8 pixels: (height, width) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 8 + 1, width // 8 + 1)) < 0.4
    return np.kron(coarse, np.ones((8, 8), np.uint8))[:height, :width].astype(np.uint8)


def picture(mode):
    """A picture of 301x190 pixels in one of Pillow's modes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (19, 43, 4)).repeat(10, 0).repeat(7, 1)
    values = (coarse + rng.integers(0, 9, coarse.shape)).clip(0, 255).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 250 + 17)
    return Image.fromarray(values, "RGBA").convert(mode)


def save(path, array, mode=None, **options):
    """Save an array by Pillow; gives the path."""
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def in_format(image, name):
    """Give a file of some format, as a reader finds it; nothing is lost in it."""
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def write_tiff(path, rgb, **more):
    """Write a TIFF by rasterio: (H, W, C) or (H, W); gives the path."""
    import rasterio

    planes = np.moveaxis(np.atleast_3d(rgb), -1, 0)
    count, height, width = planes.shape
    size = {"count": count, "height": height, "width": width}
    with rasterio.open(path, "w", "GTiff", dtype=rgb.dtype, **size, **more) as file:
        file.write(planes)
    return path


def place():
    """Where on the earth a map is, for `write_tiff`."""
    from rasterio.transform import from_origin

    return {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 0.5, 0.5)}


def write_deep_png(path, deep):
    """Write a 16-bit RGB PNG by pyvips, as Pillow cannot; gives the path."""
    import pyvips

    pyvips.Image.new_from_array(deep).copy(interpretation="rgb16").pngsave(str(path))
    return path


def rough(height, width, seed, share, hidden):
    """A mask of rough shapes, with pixels without data: (height, width) uint8."""
    rng = np.random.default_rng(seed)
    values = rng.random((height, width))
    values = ndimage.gaussian_filter(values, rng.choice([0, 0.7, 2]))
    mask = (values > np.quantile(values, 1 - share)).astype(np.uint8)
    mask[rng.random(mask.shape) < hidden] = NODATA
    return mask


MASKS = st.builds(
    rough,
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 9999),
    st.sampled_from([0.05, 0.4, 0.6, 0.9]),
    st.sampled_from([0, 0.02]),
)


def on_earth(crs="EPSG:32633", side=0.5, corner=(5e5, 5e6)):
    """Where a map of square pixels is, as images know it."""
    from rasterio.crs import CRS
    from rasterio.transform import from_origin

    transform = from_origin(*corner, side, side)
    return {"crs": CRS.from_string(crs), "transform": transform}
