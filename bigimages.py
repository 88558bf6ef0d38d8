"""Images larger than memory: read, segmented and written by bands of rows.

PNG and JPEG are read by pyvips, TIFF by rasterio and Zarr by zarr, where those are
installed (requirements-big.txt). Pillow reads everything else whole. Which library
reads a format depends on what is installed, never on the image's size.

What is known of a mask is kept in a store beside the file that is to be written, so
that a run that was killed goes on where it stopped.

Contents
--------
In        Source, Held, Vips, Raster, Chunks, open_source, band_numbers, is_large,
          is_zarr, is_zarr_name, check_zarr, check_apart
Between   bands, Store, open_array, read_with_halo, block_values, digest, identity
Out       write_mask, write_probabilities, write_overlay
Before    return_memory, forecast
"""

import ctypes
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import stat
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, product
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

import figures
import images
from cli import (
    ZARR,
    InputError,
    PathLike,
    ahead,
    check_input,
    printable,
    whole_file,
    whole_folder,
)
from images import Block, Colours


if TYPE_CHECKING:
    import zarr

    from segutils import Piece, Tile


HELD = 32_000_000  # pixels: a smaller image is held in memory, whole
MAX_PIXELS = images.MAX_IMAGE_PIXELS  # of an image, unless --max-pixels says more
BAND = 244  # rows: what one row of tiles decides, so that no tile is computed twice
SIDE = 16 * BAND  # pixels a side of a worker's block; columns of a store's chunk
NODATA = 255  # in a mask: the image shows nothing there
GEO_KEYS = 34735  # the tag that makes a TIFF a GeoTIFF
BLOCK = 256  # pixels a side, of the blocks of a TIFF that is written
TILED = {
    "tiled": True,
    "blockxsize": BLOCK,
    "blockysize": BLOCK,
    "compress": "deflate",
}
STRIPS = {"blockysize": BAND // 4}  # of a TIFF that is only read once more, by rows
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # as glibc numbers them
KEPT = 12 * 2**20  # bytes: more than any of the network's maps, which are used again
CACHE = 16 * 2**20  # bytes: GDAL's cache, beside the blocks that it must hold
PROGRAM_BYTES = 500_000_000  # what Python, torch and the libraries take
INTERLACED_BYTES = 8  # a pixel: the decoder holds the whole image, of up to 4x16 bits
TRUTH_BYTES = 27  # a pixel, while a ground truth is read
CHUNK = BAND, 4 * BAND  # rows and columns of the chunks of a Zarr array that is written
HINT = "pip install -r requirements-big.txt"

Place = dict[str, Any]  # rasterio's options, from `Source`
Network = Callable[[np.ndarray], np.ndarray]  # from (h, w, 3) uint8 to (h, w)

# ------------------------------------------------------------------ in


class Source:
    """An image that is read part by part.

    Attributes
    ----------
    shape : tuple of int
        Height and width.
    place : dict or None
        Where on the earth it is: rasterio's ``crs`` with its ``transform`` or ``gcps``.
    by_parts : bool
        Whether a part can be read without holding the whole.
    in_any_order : bool
        Whether the parts can be read in any order, by many at once.
    held_bytes : int
        The memory that reading takes, beside the parts that are asked for.
    """

    shape: tuple[int, int]
    place: Place | None = None
    by_parts = True
    in_any_order = False
    held_bytes = 0

    def whole(self) -> np.ndarray:
        """Read all of the image: (H, W, 3) uint8."""
        return np.ma.getdata(self.read(Block(0, 0, *self.shape)))

    def cut(self, tiles: Iterable["Tile"]) -> list["Piece"]:
        """Read tiles of the image, from its top to its bottom.

        Parameters
        ----------
        tiles : list of segutils.Tile
            Which.

        Returns
        -------
        list of (segutils.Tile, ndarray)
            Each tile and its pixels; copies, so that no more is held than is asked for.
        """
        found = []
        for tile in tiles:
            (top, bottom, *_), (left, right, *_) = tile
            block = Block(top, left, bottom, right).grown(0, self.shape)
            found.append((tile, self.read(block).copy()))
        return found

    def read(self, block: Block) -> np.ndarray:
        """Read a part of the image.

        Parameters
        ----------
        block : Block
            Which part.

        Returns
        -------
        ndarray, (h, w, 3) uint8
            Its pixels; a masked array where the image may show nothing in places.

        Raises
        ------
        InputError
            The file is damaged.
        """
        raise NotImplementedError


class Held(Source):
    """An image that is held in memory."""

    by_parts = False

    def __init__(self, rgb: np.ndarray) -> None:
        self.rgb = rgb
        self.shape = rgb.shape[:2]
        self.held_bytes = 3 * rgb.nbytes  # at the peak of its decoding

    def read(self, block: Block) -> np.ndarray:
        """Read a part of the image; see `Source`."""
        return self.rgb[block.slices]


class Vips(Source):
    """A PNG or JPEG, which can be decoded from its top to its bottom only."""

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self._begin()
        self.shape = self.image.height, self.image.width

    def _begin(self) -> None:
        pyvips = _pyvips()
        pyvips.vips_lib.vips_error_clear()  # of what was said of another file
        # By read alone: pyvips would map all of the file into memory.
        self.file = open(self.path, "rb")  # noqa: SIM115
        self.stream = pyvips.SourceCustom()
        self.stream.on_read(self.file.read)
        with _told(self.path, pyvips.Error):
            image = pyvips.Image.new_from_source(
                self.stream, "", access="sequential", fail_on="error"
            )
            if image.format == "ushort":
                image = (image >> 8).cast("uchar")
            if image.hasalpha():
                image = image.extract_band(0, n=image.bands - 1)
            if image.bands == 1:
                image = image.bandjoin([image, image])
        if image.bands != 3:  # a header so damaged that Pillow did not know it
            raise InputError(f"{self.path}: damaged image ({image.bands} channels)")
        if image.get_typeof("interlaced"):  # so is a progressive JPEG
            self.held_bytes = INTERLACED_BYTES * image.width * image.height
        self.image, self.region = image, pyvips.Region.new(image)
        self.top, self.rows = 0, np.empty((0, image.width, 3), np.uint8)

    def read(self, block: Block) -> np.ndarray:
        """Read a part of the image; see `Source`."""
        pyvips = _pyvips()

        if block.top < self.top:
            self._begin()
        known = self.rows[block.top - self.top :]  # of those that were read last
        width = self.shape[1]
        rows = np.empty((max(len(known), block.bottom - block.top), width, 3), np.uint8)
        rows[: len(known)] = known
        with _told(self.path, pyvips.Error):
            for row in range(len(known), len(rows)):
                # One at a time: of what is asked for, pyvips holds many times as much.
                data = self.region.fetch(0, block.top + row, width, 1)
                rows[row] = np.frombuffer(data, np.uint8).reshape(width, 3)
        self.top, self.rows = block.top, rows
        return rows[: block.bottom - block.top, block.slices[1]]


class Raster(Source):
    """A TIFF of any kind: GeoTIFF, cloud-optimised, BigTIFF."""

    in_any_order = True

    def __init__(self, path: PathLike, channels: Sequence[int] | None = None) -> None:
        rasterio = _rasterio()

        # Outside of an Env, GDAL would print lines of its own.
        with _told(path, rasterio.errors.RasterioError), rasterio.Env():
            self._open(path, channels)

    def _open(self, path: PathLike, channels: Sequence[int] | None) -> None:
        rasterio = _rasterio()

        self.path, self.file = path, rasterio.open(path)
        self.shape = self.file.shape
        kinds = set(self.file.dtypes)
        if not kinds <= {"uint8", "uint16"}:
            raise InputError(
                f"{path}: pixels of {', '.join(sorted(kinds))}, not of 8 bits or 16: "
                "their range is not known (save the image with 8 or 16 bits)"
            )
        usual = (1, 2, 3) if self.file.count >= 3 else (1, 1, 1)
        self.channels = tuple(channels or usual)
        _check_channels(path, self.channels, self.file.count)
        self.palette = self._palette()
        self.place = self._place()
        flags = self.file.mask_flag_enums  # of each band
        is_whole = all(rasterio.enums.MaskFlags.all_valid in band for band in flags)
        self.may_hide = self.place is not None and not is_whole
        self.held_bytes = self._cache()

    def _palette(self) -> np.ndarray | None:
        if self.channels != (1, 1, 1) or self.file.colorinterp[0].name != "palette":
            return None
        found = self.file.colormap(1)
        return np.array([found[i][:3] for i in range(256)], np.uint8)

    def _place(self) -> Place | None:
        file, (gcps, gcps_crs) = self.file, self.file.gcps
        if not (file.crs or gcps or file.nodata is not None) and (
            file.transform.is_identity
        ):
            return None
        if gcps:
            return {"gcps": gcps, "crs": gcps_crs}
        return {"crs": file.crs, "transform": file.transform}

    def read(self, block: Block) -> np.ndarray:
        """Read a part of the image; see `Source`."""
        rasterio = _rasterio()

        window = rasterio.windows.Window.from_slices(*block.slices)
        needed = sorted(set(self.channels))
        with (
            _told(self.path, rasterio.errors.RasterioError),
            rasterio.Env(GDAL_CACHEMAX=self._cache()),
        ):
            shape = window.height, window.width, len(needed)
            values = np.empty(shape, np.result_type(*self.file.dtypes))
            self.file.read(needed, window=window, out=np.moveaxis(values, -1, 0))
            known = self.file.dataset_mask(window=window) if self.may_hide else None
        order = [needed.index(channel) for channel in self.channels]
        rgb = _as_rgb(values, order)
        if self.palette is not None:
            rgb = self.palette[rgb[..., 0]]
        if known is None or known.all():
            return rgb
        hidden = np.broadcast_to(known[..., None] == 0, rgb.shape)  # takes no memory
        return np.ma.MaskedArray(rgb, hidden)

    def _cache(self) -> int:
        # GDAL's default is a part of the machine's memory.
        rows = self.file.block_shapes[0][0]
        size = np.dtype(self.file.dtypes[0]).itemsize * self.file.count
        # A row of blocks, which the next band needs, too.
        return CACHE + self.file.width * rows * size  # bytes


class Chunks(Source):
    """A Zarr array or OME-Zarr image; the first of each time and depth."""

    in_any_order = True

    def __init__(self, path: PathLike, channels: Sequence[int] | None = None) -> None:
        import zarr

        facts: dict[str, Any] = {}
        try:
            array = zarr.open(path, mode="r")
            while isinstance(array, zarr.Group):
                facts = {**facts, **array.attrs}
                array = _largest(array)
        except Exception as error:  # what damaged metadata raises is not bounded
            raise InputError(f"{path}: is no Zarr array ({error})") from error
        shape = array.shape
        self.axes = _axes(facts, shape)
        if array.dtype not in (np.uint8, np.uint16) or not self.axes:
            raise InputError(
                f"{path}: an array of shape {shape} and type {array.dtype} (8 or 16 "
                "bits are read, of height, width and channels, or as OME-Zarr has them)"
            )
        self.path, self.array = path, array
        count = shape[self.axes.index("c")] if "c" in self.axes else 1
        self.shape = shape[self.axes.index("y")], shape[self.axes.index("x")]
        self.channels = channels or ((1, 2, 3) if count >= 3 else (1, 1, 1))
        _check_channels(path, self.channels, count)

    def read(self, block: Block) -> np.ndarray:
        """Read a part of the image; see `Source`."""
        rows, cols = block.slices
        chosen = dict[str, int | slice](t=0, c=slice(None), z=0, y=rows, x=cols)
        with _told(self.path, Exception):  # what damaged chunks raise is not bounded
            values = np.asarray(self.array[tuple(chosen[axis] for axis in self.axes)])
        left = [axis for axis in self.axes if axis in "yxc"]
        if "c" not in left:
            left, values = [*left, "c"], values[..., None]
        values = values.transpose([left.index(axis) for axis in "yxc"])
        return _as_rgb(values, [channel - 1 for channel in self.channels])


def _largest(group: "zarr.Group") -> "zarr.Array | zarr.Group":
    """Give the largest array of a group: of a pyramid, the whole image."""
    arrays = [array for _, array in group.arrays()]
    if arrays:
        return max(arrays, key=lambda array: array.size)
    groups = sorted(group.groups(), key=lambda pair: (len(pair[0]), pair[0]))
    if not groups:
        raise ValueError("a group without arrays")
    return groups[0][1]  # of many images, the first


def _axes(facts: Mapping[str, Any], shape: tuple[int, ...]) -> str:
    """Name an array's axes as OME-Zarr's metadata does, or else by their number."""
    with suppress(Exception):  # metadata may hold anything
        (first, *_) = facts.get("ome", facts)["multiscales"]
        listed = [
            axis if isinstance(axis, str) else axis["name"] for axis in first["axes"]
        ]
        names = "".join(listed)
        is_known = set("yx") <= set(names) <= set("tczyx")
        if is_known and len(set(names)) == len(names) == len(shape):
            return names
    three = "cyx" if shape[:1] < shape[-1:] else "yxc"
    return {2: "yx", 3: three, 4: "czyx", 5: "tczyx"}.get(len(shape), "")


def _check_channels(path: PathLike, channels: Sequence[int], count: int) -> None:
    if max(channels) > count:
        listed = ",".join(map(str, channels))
        raise InputError(f"{path}: has {count} bands (--bands {listed})")


def _as_rgb(values: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """Choose channels of (h, w, C), 8 or 16 bits, and give them in 8: (h, w, 3)."""
    if values.dtype == np.uint16:
        values = (values >> 8).astype(np.uint8)
    if list(channels) == list(range(values.shape[-1])):
        return np.ascontiguousarray(values)
    return np.ascontiguousarray(values[..., channels])


def open_source(
    path: PathLike, channels: Sequence[int] | None = None, max_pixels: int = MAX_PIXELS
) -> Source:
    """Open an image by the library that reads its format.

    Parameters
    ----------
    path : str or Path
        A PNG, JPEG, TIFF, WebP or BMP file, or a folder that is a Zarr array.
    channels : tuple of three int, optional
        Which bands of a TIFF or Zarr array are red, green and blue, counted from 1.
    max_pixels : int
        An image whose header says more is refused.

    Returns
    -------
    Source
        The image.

    Raises
    ------
    InputError
        It cannot be read, or only by a library that is not installed.
    """
    source = _by_parts(path, channels, max_pixels)
    if source is None:
        return Held(images.read_rgb(path, max_pixels))
    images.check_pixels(path, *source.shape, max_pixels)
    return source


def _by_parts(
    path: PathLike, channels: Sequence[int] | None, max_pixels: int
) -> Source | None:
    """Open an image whose format can be read by parts here, or give None."""
    if is_zarr(path):
        _require(path, "zarr", "a Zarr array")
        return Chunks(path, channels)
    check_input(path)
    start = _first_bytes(path)
    is_plain = _is_plain(path, max_pixels)
    if start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        if _has("rasterio") and is_plain and (channels or _is_usual(path)):
            return Raster(path, channels)
        if start in (b"II+\0", b"MM\0+") or channels:
            _require(path, "rasterio", "a BigTIFF or a choice of bands")
        if _is_map(path):
            _require(path, "rasterio", "a GeoTIFF, whose place would be lost,")
    elif channels:
        raise InputError(f"{path}: --bands goes with TIFF and Zarr only")
    is_stream = start == b"\x89PNG" or start[:3] == b"\xff\xd8\xff"
    if is_stream and _has("pyvips") and is_plain:
        return Vips(path)
    return None


def band_numbers(text: str) -> list[int]:
    """Read three band numbers, such as ``3,2,1``.

    Parameters
    ----------
    text : str
        The numbers, counted from 1.

    Returns
    -------
    list of int
        Three numbers.

    Raises
    ------
    ValueError
        They are not three, or not numbers from 1 up.
    """
    numbers = [int(number) for number in text.split(",")]
    if len(numbers) != 3 or min(numbers) < 1:
        raise ValueError(text)
    return numbers


def is_large(source: Source) -> bool:
    """Tell whether an image is to be read by bands, not held in memory.

    Parameters
    ----------
    source : Source
        The image.

    Returns
    -------
    bool
        It is of more than `HELD` pixels, or has a place on the earth to keep.
    """
    height, width = source.shape
    return source.by_parts and (height * width > HELD or source.place is not None)


def _is_usual(path: PathLike) -> bool:
    """Tell whether a TIFF is of a kind that rasterio understands as Pillow does."""
    rasterio = _rasterio()

    with suppress(rasterio.errors.RasterioError), rasterio.open(path) as file:
        bits = file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")
        names = [colour.name for colour in file.colorinterp]
        return bits in ("8", "16") and "cyan" not in names
    return False


def _first_bytes(path: PathLike) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _is_plain(path: PathLike, max_pixels: int) -> bool:
    """Tell whether an image is stored upright, and not as CMYK.

    Pillow reads the header: it is the hardest to break.
    """
    try:
        with Image.open(path, formats=images.READ_FORMATS) as image:
            images.check_pixels(path, image.height, image.width, max_pixels)
            # PngImageFile.getexif would decode the whole image.
            orientation = Image.Image.getexif(image).get(274, 1)
            may_turn = image.format == "PNG" and _has_late_exif(path)
            return orientation == 1 and image.mode != "CMYK" and not may_turn
    except InputError:
        raise
    except Exception:  # what damaged bytes raise is not bounded; told when it is read
        return True


def _has_late_exif(path: PathLike) -> bool:
    """Tell whether Exif or XMP data follows a PNG's pixels, as ExifTool puts it."""
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
    from PIL.TiffImagePlugin import TiffImageFile

    with suppress(Exception), Image.open(path, formats=["TIFF"]) as image:
        return isinstance(image, TiffImageFile) and GEO_KEYS in image.tag_v2
    return False


def is_zarr(path: PathLike) -> bool:
    """Tell whether a folder is a Zarr array or group.

    Parameters
    ----------
    path : str or Path
        The folder.

    Returns
    -------
    bool
        It is.
    """
    names = ("zarr.json", ".zarray", ".zgroup")
    return any(os.path.isfile(os.path.join(path, name)) for name in names)


def is_zarr_name(path: PathLike) -> bool:
    """Tell whether a file that is to be written is to be a Zarr array.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    bool
        Its suffix is `cli.ZARR`.
    """
    return Path(path).suffix.lower() == ZARR


def check_zarr(path: PathLike) -> None:
    """Refuse a Zarr array that could not be written.

    Parameters
    ----------
    path : str or Path
        The array.

    Raises
    ------
    InputError
        There is something of that name that `write_mask` did not write, or zarr is not
        installed.
    """
    _require(path, "zarr", "a Zarr array")
    if os.path.lexists(path) and not _is_written_mask(path):
        raise InputError(
            f"{path}: is no mask of predict.py's, and is kept (give another name)"
        )


def _is_written_mask(path: PathLike) -> bool:
    """Tell whether a folder is a mask that `write_mask` wrote, and holds no more."""
    import zarr

    with suppress(Exception):  # what is no array raises is not bounded
        attributes = zarr.open_array(path, mode="r").attrs
        return "colours" in attributes and set(os.listdir(path)) <= {"zarr.json", "c"}
    return False


def check_apart(path: PathLike, inputs: Iterable[str]) -> None:
    """Refuse a file that would be written into an image that is a folder, or around it.

    Parameters
    ----------
    path : str or Path
        The file or Zarr array that is to be written.
    inputs : sequence of str
        The Zarr arrays that are to be read.

    Raises
    ------
    InputError
        One holds the other.
    """
    output = Path(os.path.realpath(path))
    for image in map(Path, map(os.path.realpath, inputs)):
        if output.is_relative_to(image) or image.is_relative_to(output):
            raise InputError(
                f"{path}: would overwrite an input or another output (it is, is in or "
                f"holds {image})"
            )


def _rasterio() -> ModuleType:
    """Import rasterio; not to warn of odd tags, nor of images that are no maps."""
    import rasterio

    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def _pyvips() -> ModuleType:
    """Import pyvips, which is not to keep what it has read."""
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips


def _has(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _require(path: PathLike, library: str, what: str) -> None:
    if not _has(library):
        raise InputError(f"{path}: {what} needs {library} ({HINT})")


@contextmanager
def _told(path: PathLike, error_type: type[Exception]) -> Iterator[None]:
    """Turn a library's error into one line."""
    try:
        yield
    except error_type as error:
        words = " ".join(str(error).split())
        raise InputError(f"{path}: damaged image ({words})") from error


# ------------------------------------------------------------------ between


def bands(shape: Sequence[int]) -> list[Block]:
    """Cut an image into bands of rows, each decided by one row of tiles.

    Parameters
    ----------
    shape : tuple of int
        Height and width.

    Returns
    -------
    list of Block
        The bands, from the top.
    """
    height, width = shape
    return [
        Block(top, 0, min(top + BAND, height), width) for top in range(0, height, BAND)
    ]


class Store:
    """What is known so far of an image: its mask, or its margins, in a Zarr array.

    It stands in a hidden folder beside the file that is to be written. Every chunk is
    written whole or not at all, so that a run that was killed can go on.

    Parameters
    ----------
    output : str or Path
        The file that is to be written.
    key : dict
        What it depends on, in plain values; a store of anything else is begun afresh.
    shape : tuple of int
        The image's height and width.
    margins : bool
        Whether it holds margins, as float32, or classes.
    overwrite : bool
        Whether it is begun afresh in any case.

    Raises
    ------
    InputError
        Another run is writing the file.
    """

    def __init__(
        self,
        output: PathLike,
        key: Mapping[str, object],
        shape: tuple[int, int],
        margins: bool,
        overwrite: bool = False,
    ) -> None:
        import zarr

        output = Path(os.path.realpath(output))
        self.folder = _part_folder(output)
        self.blocks = bands(shape)
        self.lock = self._make_and_lock(output)
        # Of a wide band in one chunk, several copies would be held while it is written.
        chunk = min(BAND, shape[0]), min(SIDE, shape[1])
        facts = {**key, "shape": shape, "chunk": chunk, "margins": margins}
        attributes: dict[str, Any] = {"key": digest(facts)}
        with suppress(Exception):  # what a damaged one raises is not bounded
            self.array = open_array(self.folder)
            if dict(self.array.attrs) == attributes and not overwrite:
                return
        self._empty()
        zarr.create_array(
            self.folder,
            shape=shape,
            chunks=chunk,
            dtype="float32" if margins else "uint8",
            fill_value=np.nan if margins else NODATA,
            attributes=attributes,
        )
        self.array = open_array(self.folder)

    def _make_and_lock(self, output: Path) -> TextIO:
        """Make the folder, or take one that an earlier run left, and lock it."""
        while True:
            with suppress(FileExistsError):
                self.folder.mkdir()
            with suppress(FileNotFoundError):  # another run has just removed it
                self._check_folder()
                file = _lock(self.folder / "lock", output)
                if os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)):
                    return file
                file.close()

    def _check_folder(self) -> None:
        """Refuse a folder that no run of predict.py left."""
        is_folder = stat.S_ISDIR(os.lstat(self.folder).st_mode)
        known = {"lock", "zarr.json", "c", "drawn.tif"}
        if not is_folder or not set(os.listdir(self.folder)) <= known:
            raise InputError(
                f"{self.folder}: is in the way, and is none of predict.py's (move it, "
                "or give another --output)"
            )

    def _empty(self) -> None:
        """Delete all but the lock."""
        for old in self.folder.iterdir():
            if old.name != "lock":
                shutil.rmtree(old) if old.is_dir() else old.unlink()

    def __getitem__(self, block: Block) -> np.ndarray:
        """Give a block, as it was written; none of its chunks may be missing."""
        if not self._knows(block):
            raise _lost(self.folder)
        try:
            return np.asarray(self.array[block.slices])
        except Exception as error:  # what a damaged chunk raises is not bounded
            raise _lost(self.folder) from error

    def mask(self, block: Block) -> np.ndarray:
        """Give a block's classes: 0, 1 or `NODATA`, (h, w) uint8."""
        values = self[block]
        if values.dtype == np.float32:
            return np.where(np.isnan(values), NODATA, values > 0).astype(np.uint8)
        return values

    def missing(self, blocks: Iterable[Block]) -> list[Block]:
        """List the blocks of which a chunk is not known yet."""
        return [block for block in blocks if not self._knows(block)]

    def _knows(self, block: Block) -> bool:
        places = [
            range(part.start // size, -(-part.stop // size))
            for part, size in zip(block.slices, self.array.chunks, strict=True)
        ]
        chunks = (Path(self.folder, "c", *map(str, at)) for at in product(*places))
        return all(chunk.exists() for chunk in chunks)

    def progress(self, count: int, unit: str) -> tqdm:
        """Show how many of the parts that are missing are done."""
        return tqdm(total=count, unit=unit, leave=False, disable=None)

    def fill(self, source: Source, network: Network, halo: int) -> None:
        """Segment the bands that are missing; the next one is read meanwhile.

        Parameters
        ----------
        source : Source
            The image.
        network : callable
            Gives the values of pixels, (h, w, 3) uint8: ``segutils.segment``, say.
        halo : int
            Pixels that the network must see around a band.
        """
        missing = self.missing(self.blocks)
        found = ahead(partial(read_with_halo, source, halo), missing)
        with self.progress(len(missing), "band") as bar:
            for block in missing:
                # The pixels have no name, so that they are gone before the next come.
                self.array[block.slices] = block_values(
                    network, self.array.fill_value, *next(found)
                )
                bar.update()

    def counts(self) -> np.ndarray:
        """Count the pixels of class 0 and class 1: (2,) int64."""
        masks = map(self.mask, self.blocks)
        found = [[np.count_nonzero(mask == k) for k in (0, 1)] for mask in masks]
        return np.sum(found, axis=0)

    def remove(self) -> None:
        """Delete the store; the lock last, so that no other run begins meanwhile."""
        with suppress(OSError):
            self._empty()
            os.unlink(self.lock.name)
            self.folder.rmdir()
        self.lock.close()


def _part_folder(output: PathLike) -> Path:
    """Name the folder of a file's store."""
    output = Path(os.path.realpath(output))
    return output.with_name(f".{output.name}.part")


def open_array(folder: PathLike) -> "zarr.Array":
    """Open the array of a store, in which each chunk that is known is a file.

    Parameters
    ----------
    folder : str or Path
        The store's folder.

    Returns
    -------
    zarr.Array
        The array, to be read and written.

    Raises
    ------
    InputError
        It is not there, or is damaged.
    """
    import zarr

    # By default a chunk that shows nothing would not be written.
    with zarr.config.set({"array.write_empty_chunks": True}):
        try:
            return zarr.open_array(folder, mode="r+")
        except Exception as error:  # what damaged metadata raises is not bounded
            raise _lost(folder) from error


def _lost(folder: PathLike) -> InputError:
    return InputError(
        f"{folder}: a part of the mask is missing or damaged (delete this folder, and "
        "start again)"
    )


def read_with_halo(
    source: Source, halo: int, block: Block
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Read a block of an image and the pixels around it.

    Parameters
    ----------
    source : Source
        The image.
    halo : int
        Pixels around the block, where the image has them.
    block : Block
        Which part; it begins at even pixels.

    Returns
    -------
    pixels : ndarray, (h, w, 3) uint8
        What is read; a masked array where the image may show nothing in places.
    inside : tuple of slice
        Where the block is among them.
    """
    around = block.grown(halo, source.shape)
    return source.read(around), block.within(around)


def block_values(
    network: Network, fill_value: float, pixels: np.ndarray, inside: tuple[slice, slice]
) -> np.ndarray:
    """Segment a block.

    Parameters
    ----------
    network : callable
        Gives the values of pixels, (h, w, 3) uint8: ``segutils.segment``, say.
    fill_value : number
        What stands where the image shows nothing.
    pixels, inside
        The block, as `read_with_halo` gives it.

    Returns
    -------
    ndarray, of the block's height and width
        Its values.
    """
    values = network(np.ma.getdata(pixels))[inside]
    if np.ma.isMaskedArray(pixels):
        values[np.ma.getmaskarray(pixels)[inside].any(-1)] = fill_value
    return values


def _lock(path: Path, output: Path) -> TextIO:
    """Hold a file for this run, until it is closed or the process ends."""
    file = open(path, "w")  # noqa: SIM115
    with suppress(ImportError):  # there is none on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{output}: another run is writing it") from error
    return file


def digest(values: object) -> str:
    """Give a short name to plain values: equal where they are equal.

    Parameters
    ----------
    values : dict or list
        What json can write.

    Returns
    -------
    str
        64 characters.
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def identity(path: PathLike) -> list[object]:
    """Tell a file from others, and from what it was before it was changed.

    Parameters
    ----------
    path : str or Path
        The file, or the folder of a Zarr array.

    Returns
    -------
    list
        Its name, size and time of change; of a folder, those of all files in it.
    """
    path = os.path.realpath(path)
    if os.path.isdir(path):
        files = sorted(p for p in Path(path).rglob("*") if p.is_file())
        return [path, digest([identity(file) for file in files])]
    facts = os.stat(path)
    return [path, facts.st_size, facts.st_mtime_ns]


# ------------------------------------------------------------------ out


def write_mask(
    path: PathLike, store: Store, colours: Colours, place: Place | None
) -> None:
    """Draw a mask, by bands of rows.

    Of a map, as a GeoTIFF, it holds the classes 0 and 1, `NODATA` and the colours, and
    so does a Zarr array; in any other file it is drawn in the two colours, as
    `images.write_mask` does. Where a map shows nothing, a PNG is transparent and a JPEG
    between the two colours.

    Parameters
    ----------
    path : str or Path
        A file ending in one of `images.WRITE_SUFFIXES`, or in `cli.ZARR`.
    store : Store
        What is known of the image.
    colours : sequence of two (red, green, blue)
        The colours of class 0 and class 1.
    place : dict or None
        Where the image is, from `Source`.
    """
    masks = (store.mask(block) for block in store.blocks)
    if is_zarr_name(path):
        facts = {"colours": colours, "nodata": NODATA, **_plain(place)}
        _write_zarr(path, masks, store.array.shape, facts)
        return
    if place and _is_tiff(path):
        table = {0: (*colours[0], 255), 1: (*colours[1], 255), NODATA: (0, 0, 0, 0)}
        _write(path, masks, store, place=place, nodata=NODATA, table=table)
        return
    if place and str(path).lower().endswith(".png"):
        palette = np.zeros((256, 4), np.uint8)
        palette[:2] = [(*colour, 255) for colour in colours]
    else:
        drawn = images.drawn_colours(path, colours)
        palette = np.repeat(drawn.mean(0, keepdims=True).astype(np.uint8), 256, axis=0)
        palette[:2] = drawn
    # A few rows at a time: an index takes eight bytes a pixel.
    parts = (part for mask in masks for part in np.array_split(mask, BAND // 16))
    _write(path, (palette[part] for part in parts if len(part)), store, place=place)


def write_probabilities(
    path: PathLike,
    store: Store,
    sigmoid: Callable[[np.ndarray], np.ndarray],
    place: Place | None,
) -> None:
    """Write probabilities, by bands of rows: 8 bits in a PNG, float32 in a TIFF.

    Parameters
    ----------
    path : str or Path
        A file ending in one of `images.PROBABILITY_SUFFIXES`.
    store : Store
        The image's margins.
    sigmoid : callable
        Turns margins into probabilities.
    place : dict or None
        Where the image is, from `Source`.
    """
    values = (sigmoid(store[block]) for block in store.blocks)
    if _is_tiff(path):
        _write(path, values, store, dtype="float32", place=place, nodata=np.nan)
    else:
        values = (np.nan_to_num(v * 255).round().astype(np.uint8) for v in values)
        _write(path, values, store)


def write_overlay(
    path: PathLike, source: Source, store: Store, colour: figures.Colour
) -> None:
    """Draw a mask on its image, by bands of rows.

    Parameters
    ----------
    path : str or Path
        A file ending in one of `images.WRITE_SUFFIXES`.
    source : Source
        The image.
    store : Store
        Its mask.
    colour : tuple of int
        The tint, from `figures.tint`: one for all bands.
    """

    def drawn(block: Block) -> np.ndarray:
        around = block.grown(1, source.shape)  # an edge is seen from its neighbours
        rgb = np.ma.getdata(source.read(around))
        whole = figures.overlay(rgb, store.mask(around), colour=colour)
        return whole[block.within(around)]

    rows = (drawn(block) for block in store.blocks)
    _write(path, rows, store, place=source.place)


def _plain(place: Place | None) -> dict[str, object]:
    """Say in plain values where an image is, for the attributes of a Zarr array."""
    if not place or not place["crs"]:
        return {}
    crs = place["crs"].to_wkt()
    if "gcps" in place:
        return {"crs": crs, "gcps": [point.asdict() for point in place["gcps"]]}
    return {"crs": crs, "transform": list(place["transform"])[:6]}


def _write_zarr(
    path: PathLike,
    rows: Iterator[np.ndarray],
    shape: tuple[int, ...],
    attributes: dict[str, Any],
) -> None:
    """Write bands of rows, (h, W) uint8, one after the other."""
    import zarr

    chunks = tuple(min(pair) for pair in zip(CHUNK, shape, strict=True))
    with whole_folder(path) as temporary:
        array = zarr.create_array(
            temporary,
            shape=shape,
            chunks=chunks,
            dtype="uint8",
            fill_value=NODATA,
            attributes=attributes,
        )
        top = 0
        for values in rows:
            array[top : top + len(values)] = values
            top += len(values)


def _is_encoded(path: PathLike) -> bool:
    """Tell whether a file is made from a temporary TIFF."""
    return not (_is_tiff(path) or is_zarr_name(path))


def _is_tiff(path: PathLike) -> bool:
    return str(path).lower().endswith((".tif", ".tiff"))


def _write(
    path: PathLike,
    rows: Iterator[np.ndarray],
    store: Store,
    dtype: str = "uint8",
    **tiff: Any,
) -> None:
    """Write bands of rows, (h, W) or (h, W, channels), one after the other."""
    shape = store.array.shape
    first = next(rows)
    channels = 1 if first.ndim == 2 else first.shape[2]
    rows = chain([first], rows)
    del first  # as large as a band
    with whole_file(path) as temporary:
        if _is_tiff(path):
            _write_tiff(temporary, rows, shape, channels, dtype, **tiff)
        else:
            # Its encoder reads the pixels from a file, here one that is not mapped into
            # memory, and small.
            drawn = store.folder / "drawn.tif"
            _write_tiff(drawn, rows, shape, channels, dtype, layout=STRIPS)
            _encode(drawn, temporary)
            drawn.unlink()


def _write_tiff(
    path: Path,
    rows: Iterable[np.ndarray],
    shape: Sequence[int],
    channels: int,
    dtype: str,
    place: Place | None = None,
    nodata: float | None = None,
    table: Mapping[int, tuple[int, ...]] | None = None,
    layout: Mapping[str, object] = TILED,
) -> None:
    """Write a TIFF; of a map with its place, its colours and overviews."""
    rasterio = _rasterio()

    options = {
        "driver": "GTiff",
        "width": shape[1],
        "height": shape[0],
        "count": channels,
        "dtype": dtype,
        **layout,
        "BIGTIFF": "IF_SAFER",
        "photometric": "MINISBLACK" if channels == 1 else "RGB",
        "interleave": "pixel",
        "nodata": nodata if place else None,
    }
    rows_held = 0 if layout == STRIPS else 2 * BLOCK  # those that a band has not filled
    size = channels * np.dtype(dtype).itemsize
    with rasterio.Env(GDAL_CACHEMAX=CACHE + rows_held * shape[1] * size):
        with rasterio.open(path, "w", **options, **(place or {})) as file:
            if table:
                file.write_colormap(1, table)
            top = 0
            for values in rows:
                window = rasterio.windows.Window(0, top, shape[1], len(values))
                planes = values[None] if channels == 1 else np.moveaxis(values, -1, 0)
                file.write(planes, window=window)
                top += len(values)
        factors = [2**level for level in range(1, 16) if max(shape) >> level >= BLOCK]
        if place and factors:
            with rasterio.open(path, "r+") as file:
                file.build_overviews(factors, rasterio.enums.Resampling.nearest)


def _encode(tiff: Path, path: Path) -> None:
    """Encode a TIFF as a PNG or JPEG, row by row."""
    pyvips = _pyvips()

    image = pyvips.Image.new_from_file(str(tiff), access="sequential")
    if path.suffix.lower() == ".png":
        image.write_to_file(str(path), compression=images.PNG_LEVEL)
    else:
        image.write_to_file(str(path), Q=images.JPEG_QUALITY, subsample_mode="off")


# ------------------------------------------------------------------ before


def return_memory() -> None:
    """Let large arrays go back to the system when they are freed.

    By default glibc keeps freed memory of up to 32 MiB apiece, in a part of its own for
    each thread: hundreds of megabytes, when bands of rows are passed between threads.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, 2 * KEPT)  # else it would be 128 KiB, and slow


def forecast(
    name: PathLike,
    source: Source,
    output: PathLike,
    overlay: PathLike | None,
    probabilities: PathLike | None,
    with_truth: bool,
) -> str:
    """Say what segmenting an image takes, and refuse it where that is not there.

    Parameters
    ----------
    name : str or Path
        The image's file.
    source : Source
        The image.
    output : str or Path
        The mask's file.
    overlay, probabilities : str, Path or None
        The other files that are to be written.
    with_truth : bool
        Whether the mask is compared with a ground truth, which is held in memory.

    Returns
    -------
    str
        One line: size, tiles, memory and disk.

    Raises
    ------
    InputError
        There is too little memory or disk, or a library is missing.
    """
    _require(name, "zarr", "an image segmented by bands of rows")
    for path in [path for path in (output, overlay, probabilities) if path]:
        if not is_zarr_name(path):
            _require(path, "rasterio", "a file written by bands of rows")
        if _is_encoded(path):
            _require(path, "pyvips", "a PNG or JPEG written by bands of rows")
    height, width = source.shape
    tiles = -(-height // BAND) * -(-width // BAND)
    # Two bands of pixels, one of results; the blocks of two TIFFs.
    row = 2 * 3 * (BAND + 12) + 9 * BAND + 4 * 2 * BLOCK
    memory = PROGRAM_BYTES + width * row + source.held_bytes
    if with_truth:
        memory += TRUTH_BYTES * height * width
    disks = _disk_bytes(source, output, overlay, probabilities)
    rooms: list[tuple[str, float, float]] = [("memory", memory, _free_memory())]
    for folder, size in disks.items():
        rooms.append((f"disk in {folder}", size, shutil.disk_usage(folder).free))
    for what, need, free in rooms:
        if need > free:
            raise InputError(
                f"{name}: {width}x{height} pixels need {need / 1e9:.1f} GB of {what}, "
                f"and {free / 1e9:.1f} are free (free more, or cut the image)"
            )
    disk = sum(disks.values())
    return (
        f"{printable(name)}: {width}x{height} pixels, {tiles:,} tiles, at most "
        f"{memory / 1e9:.1f} GB of memory and {disk / 1e9:.1f} GB of disk"
    )


def _disk_bytes(
    source: Source,
    output: PathLike,
    overlay: PathLike | None,
    probabilities: PathLike | None,
) -> dict[Path, float]:
    """Give the most bytes that each disk must still take, by one folder on it."""
    mask = 1 if is_zarr_name(output) else 3  # bytes a pixel
    outputs = (output, mask), (overlay, 3), (probabilities, 4)
    files = [(Path(os.path.realpath(path)), size) for path, size in outputs if path]
    is_encoded = any(_is_encoded(path) for path, _ in outputs if path)
    part = _part_folder(output)
    files.append((part, 4 if probabilities else 1))
    if is_encoded:
        files.append((part, 3))  # a TIFF, from which a PNG or JPEG is made
    pixels = float(source.shape[0] * source.shape[1])
    if source.place:
        pixels *= 4 / 3  # with overviews
    folders: dict[object, Path] = {}
    needs: dict[Path, float] = {}
    for path, size in files:
        folder = folders.setdefault(_disk(path.parent), path.parent)
        needs[folder] = needs.get(folder, 0) + size * pixels
    folder = folders[_disk(part.parent)]
    with suppress(FileNotFoundError):  # another run has just removed it
        left = sum(p.stat().st_size for p in part.rglob("*") if p.is_file())
        needs[folder] = max(needs[folder] - left, 0)  # an earlier run's part is there
    return needs


def _disk(folder: Path) -> object:
    """Say which disk a folder is on."""
    return os.stat(folder).st_dev


def _free_memory() -> float:
    """Give the bytes of memory that are free; without a limit where it is not told."""
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(x.split()[1]) for x in lines if "MemAvailable" in x)
    return float("inf")
