"""Open an image of any format and size, by the one library that reads it."""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from PIL import Image as Pillow
from PIL.TiffImagePlugin import TiffImageFile

from onelabel.files import InputError, PathLike, check_input, is_zarr
from onelabel.formats import Stream, explained, pillow_open, read_by_pillow
from onelabel.image import Image, InMemory, hold
from onelabel.libraries import has, require
from onelabel.rasters import Chunks, Raster


SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")  # of images
MAX_IMAGE_PIXELS = (
    1_000_000_000  # of an image, unless more are allowed: it may be a bomb
)
IN_MEMORY = 32_000_000  # pixels: a smaller image is held in memory, and so is its mask
TIFF, BIGTIFF = (b"II*\0", b"MM\0*"), (b"II+\0", b"MM\0+")  # the first bytes
GEO_KEYS = 34735  # the tag that makes a TIFF a GeoTIFF
ORIENTATION = 274  # the EXIF tag that turns a picture


def open_image(
    path: PathLike,
    channels: Sequence[int] | None = None,
    max_pixels: int = MAX_IMAGE_PIXELS,
    transparent: bool = False,
) -> Image:
    """Open an image of any format and size.

    Grey becomes three equal channels, a palette its colours, CMYK its RGB. The picture
    is turned upright as its EXIF orientation says. Which library reads a format depends
    on what is installed, never on the image's size.

    Parameters
    ----------
    path : str or Path
        A PNG, JPEG, TIFF, WebP or BMP file, or a folder that is a Zarr array.
    channels : sequence of three int, optional
        Which bands are red, green and blue, counted from 1.
    max_pixels : int
        An image whose header says more is refused.
    transparent : bool
        Whether transparent pixels have no data. In a map they never have; in other
        images transparency is dropped unless asked for.

    Returns
    -------
    Image
        In memory where it has at most `IN_MEMORY` pixels.

    Raises
    ------
    InputError
        It cannot be read, or only by a library that is not installed.
    """
    image = _by_format(path, channels, max_pixels, transparent)
    _check_pixels(path, image.shape, max_pixels)
    if image.shape[0] * image.shape[1] <= IN_MEMORY:
        image = hold(image)
    elif isinstance(image, InMemory):  # each worker would decode all of it
        image.in_any_order = False
    # By its whole name: workers may run in another folder.
    arguments = (os.path.abspath(path), channels, max_pixels, transparent)
    image.path, image.reopen = path, partial(open_image, *arguments)
    return image


def _by_format(
    path: PathLike, channels: Sequence[int] | None, max_pixels: int, transparent: bool
) -> Image:
    """Open an image by the library that reads its format."""
    if is_zarr(path):
        require(path, "zarr", "a Zarr array")
        return Chunks(path, channels)
    check_input(path)
    start = _first_bytes(path)
    is_plain = _is_plain(path, max_pixels)
    if start in TIFF + BIGTIFF:
        if has("rasterio") and is_plain:
            raster = Raster(path, channels, transparent)
            if raster.is_usual or start in BIGTIFF:
                return raster
        if start in BIGTIFF or channels:
            require(path, "rasterio", "a BigTIFF or a choice of bands")
        if _is_map(path):
            require(path, "rasterio", "a GeoTIFF, whose coordinates would be lost,")
            raise InputError(
                f"{path}: a GeoTIFF of CMYK or turned pixels, whose coordinates would "
                "be lost (save it as upright RGB)"
            )
    is_stream = start == b"\x89PNG" or start[:3] == b"\xff\xd8\xff"
    if is_stream and has("pyvips") and is_plain:
        return Stream(path, channels, transparent)
    return read_by_pillow(path, channels, transparent)


def _first_bytes(path: PathLike) -> bytes:
    with explained(path), open(path, "rb") as file:
        return file.read(4)


def _check_pixels(path: PathLike, shape: Sequence[int], most: int) -> None:
    if shape[0] * shape[1] > most:
        raise InputError(
            f"{path}: {shape[1]}x{shape[0]}: more than {most:,} pixels (a "
            "decompression bomb? if not, cut it, or give predict.py --max-pixels)"
        )


def _is_plain(path: PathLike, max_pixels: int) -> bool:
    """Tell whether an image is stored upright, and not as CMYK.

    Checked with Pillow, whose header parser is the hardest to break.
    """
    try:
        with pillow_open(path) as image:
            _check_pixels(path, image.size[::-1], max_pixels)
            # PngImageFile.getexif would decode the whole image.
            orientation = Pillow.Image.getexif(image).get(ORIENTATION, 1)
            may_turn = image.format == "PNG" and _has_late_exif(path)
            return orientation == 1 and image.mode != "CMYK" and not may_turn
    except InputError:
        raise
    except Exception:  # damaged bytes raise anything; reported when they are read
        return True


def _has_late_exif(path: PathLike) -> bool:
    """Tell whether EXIF or XMP data follows a PNG's pixels, as ExifTool puts it."""
    after_pixels = False
    with open(path, "rb") as file:
        file.seek(8)
        while len(start := file.read(8)) == 8:
            size, name = struct.unpack(">I4s", start)
            after_pixels |= name == b"IDAT"
            if after_pixels and name in (b"eXIf", b"iTXt"):
                return True
            file.seek(size + 4, os.SEEK_CUR)  # its data and checksum
    return False


def _is_map(path: PathLike) -> bool:
    """Tell whether a TIFF says where on the earth it is."""
    with suppress(Exception), pillow_open(path) as image:
        return isinstance(image, TiffImageFile) and GEO_KEYS in image.tag_v2
    return False


def is_image_name(path: Path) -> bool:
    """Tell whether a file's suffix is that of an image."""
    return path.suffix.lower() in SUFFIXES
