"""PNG, JPEG, WebP, BMP, plain TIFF: read whole by Pillow, or by pyvips row by row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import BinaryIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from onelabel.files import InputError, PathLike, is_out_of_memory, one_line
from onelabel.image import Image, InMemory
from onelabel.libraries import LARGE, has, require
from segutils import Block


PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
LOSSY = ("JPEG", "MPO", "WEBP")  # a WebP file does not say whether it is
GDAL_NODATA = 42113  # the TIFF tag with the value of pixels without data, as text
BITS_PER_SAMPLE = 258  # a TIFF tag
INTERLACED_BYTES = 8  # a pixel: the decoder holds the whole image, of up to 4x16 bits

# ------------------------------------------------------------------ Pillow


def read_by_pillow(
    path: PathLike, channels: Sequence[int] | None, transparent: bool
) -> InMemory:
    """Read a PNG, JPEG, TIFF, WebP or BMP file whole, upright."""
    with explained(path), pillow_open(path) as file:
        if _loses_depth(file):
            library = "rasterio" if file.format == "TIFF" else "pyvips"
            require(path, library, f"a {file.format} of 16 bits and colours")
        file.load()
        lossy = file.format in LOSSY or file.info.get("compression") == "jpeg"
        hidden = _without_data(file)
        ImageOps.exif_transpose(file, in_place=True)
        pixels = _pillow_pixels(path, file)
    if transparent and pixels.shape[2] == 4:
        hidden = pixels[..., 3] != 255
    pixels = np.ascontiguousarray(pixels[..., band_indices(path, channels, 3)])
    if hidden is not None and hidden.any():
        pixels = np.ma.MaskedArray(pixels, np.repeat(hidden[..., None], 3, 2))
    image = InMemory(pixels)
    image.lossy = lossy
    return image


@contextmanager
def pillow_open(path: PathLike) -> Iterator[Pillow.Image]:
    """Open a file by Pillow, without its own limit of pixels: callers check theirs."""
    limit, Pillow.MAX_IMAGE_PIXELS = Pillow.MAX_IMAGE_PIXELS, None
    try:
        with Pillow.open(path, formats=PILLOW_FORMATS) as file:
            yield file
    finally:
        Pillow.MAX_IMAGE_PIXELS = limit


def _loses_depth(file: Pillow.Image) -> bool:
    """Tell whether Pillow would cut colours of 16 bits to 8."""
    if file.format == "PNG":
        tiles = getattr(file, "tile", None)  # how it is decoded
        raw_mode = str(tiles[0][3]) if tiles else ""
        return "16" in raw_mode and not file.mode.startswith("I")
    bits = getattr(file, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    return len(bits) > 1 and max(bits) > 8


def _without_data(file: Pillow.Image) -> np.ndarray | None:
    """Tell where a TIFF's pixels have its nodata value: (H, W) bool."""
    nodata = getattr(file, "tag_v2", {}).get(GDAL_NODATA)
    try:
        value = np.float64(str(nodata).strip("\0 "))
    except ValueError:
        return None
    pixels = np.asarray(file)  # of a palette, the indices
    equal = np.isnan(pixels) if np.isnan(value) else pixels == value
    return equal if equal.ndim == 2 else equal.all(-1)


def _pillow_pixels(path: PathLike, file: Pillow.Image) -> np.ndarray:
    """Give an image's values, (H, W, 3), or (H, W, 4) where it has transparency."""
    if file.mode == "F" or file.mode.startswith("I"):
        return np.repeat(np.asarray(file)[..., None], 3, 2)
    mode = "RGBA" if file.has_transparency_data else "RGB"
    width, height = file.size
    pixels = np.empty((height, width, len(mode)), np.uint8)
    try:
        # Some rows at a time: Pillow would copy the whole image two or three times.
        for top in range(0, height, 256):
            rows = file.crop((0, top, width, min(top + 256, height)))
            pixels[top : top + 256] = np.asarray(rows.convert(mode))
        return pixels
    except ValueError as error:
        raise InputError(
            f"{path}: colours of mode {file.mode} are not read (save as RGB)"
        ) from error


# ------------------------------------------------------------------ pyvips


class Stream(Image):
    """A PNG or JPEG, which can be decoded from its top to its bottom only."""

    file: BinaryIO | None = None

    def __init__(
        self, path: PathLike, channels: Sequence[int] | None, transparent: bool
    ) -> None:
        self.path, self.transparent = path, transparent
        self.channels = band_indices(path, channels, 3)
        self._begin()
        self.shape = self.image.height, self.image.width
        self.dtype = self.rows.dtype

    def _close(self) -> None:
        if self.file:
            self.file.close()

    __del__ = _close

    def _begin(self) -> None:
        """Open the file, or open it again to read rows that have passed."""
        self._close()
        vips = pyvips()
        vips.vips_lib.vips_error_clear()  # of what was said of another file
        # By read alone: pyvips would map all of the file into memory.
        self.file = open(self.path, "rb")  # noqa: SIM115
        self.stream = vips.SourceCustom()
        self.stream.on_read(self.file.read)
        with explained(self.path):
            image = vips.Image.new_from_source(
                self.stream, "", access="sequential", fail_on="error"
            )
            alpha = image[image.bands - 1] if image.hasalpha() else None
            if alpha is not None:
                image = image.extract_band(0, n=image.bands - 1)
            if image.bands == 1:
                image = image.bandjoin([image, image])
            if image.bands != 3:  # a header so damaged that Pillow did not know it
                raise InputError(
                    f"{self.path}: damaged image ({image.bands} channels): copy or "
                    "save it again"
                )
            dtype = np.uint16 if image.format == "ushort" else np.uint8
            self.opaque = np.iinfo(dtype).max
            if self.transparent and alpha is not None:
                image = image.bandjoin(alpha)
        self.lossy = image.get("vips-loader").startswith("jpeg")
        if image.get_typeof("interlaced"):  # so is a progressive JPEG
            self.memory = INTERLACED_BYTES * image.width * image.height
        self.image, self.region = image, vips.Region.new(image)
        self.top, self.rows = 0, np.empty((0, image.width, image.bands), dtype)

    def values(self, block: Block) -> np.ndarray:
        """Read a block as the file has it; see `Image.values`."""
        if block.top < self.top:
            self._begin()
        last = self.rows[block.top - self.top :]  # of those that were read before
        height, shape = block.bottom - block.top, self.rows.shape[1:]
        rows = np.empty((max(len(last), height), *shape), self.dtype)
        rows[: len(last)] = last
        with explained(self.path):
            for row in range(len(last), len(rows)):
                # Row by row: pyvips allocates many times the size of a request.
                data = self.region.fetch(0, block.top + row, shape[0], 1)
                rows[row] = np.frombuffer(data, self.dtype).reshape(shape)
        self.top, self.rows = block.top, rows
        part = rows[:height, block.slices[1]]
        pixels = choose(part, self.channels)
        if part.shape[2] == 3:
            return pixels
        hidden = part[..., 3:] != self.opaque
        return np.ma.MaskedArray(pixels, np.broadcast_to(hidden, pixels.shape))


def pyvips() -> ModuleType:
    """Import pyvips, which is not to keep what it has read."""
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips


# ------------------------------------------------------------------ for all


def band_indices(
    path: PathLike, channels: Sequence[int] | None, count: int
) -> list[int]:
    """Turn band numbers, counted from 1, into indices."""
    if channels and max(channels) > count:
        listed = ",".join(map(str, channels))
        raise InputError(
            f"{path}: has {count} bands, too few for {listed} (choose others, or train "
            "on the bands that it has)"
        )
    return [channel - 1 for channel in channels] if channels else [0, 1, 2]


def choose(values: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Choose channels of (h, w, C): (h, w, 3), without a copy of all of them."""
    if list(indices) == list(range(values.shape[-1])):
        return values
    return np.ascontiguousarray(values[..., indices])


@contextmanager
def explained(path: PathLike) -> Iterator[None]:
    """Turn what a library raises into one line; damaged bytes raise anything."""
    try:
        yield
    except UnidentifiedImageError as error:
        more = "" if has("rasterio") else f"; more kinds of TIFF: {LARGE}"
        raise InputError(
            f"{path}: is not an image that can be read (PNG, JPEG, TIFF, WebP or BMP"
            f"{more})"
        ) from error
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        raise InputError(
            f"{path}: damaged image ({one_line(error)}): copy or save it again"
        ) from error
