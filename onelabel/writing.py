"""Write masks, probabilities and pictures from rows: PNG, JPEG, TIFF, GeoTIFF.

Every writer takes an iterator of arrays, some rows each, from the top: (h, W) or
(h, W, channels). So a thumbnail and an image larger than memory are written alike.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from onelabel.files import (
    ZARR,
    InputError,
    PathLike,
    check_files,
    is_zarr_name,
    whole_file,
)
from onelabel.image import BLACK_AND_WHITE, NODATA, Colours, Place
from onelabel.libraries import has, require
from onelabel.rasters import CACHE
from onelabel.store import DiskStore, Store
from segutils import sigmoid


SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")  # of pictures and masks
PROBABILITY_SUFFIXES = (".png", ".tif", ".tiff")
MAX_JPEG_SIDE = 65_500  # pixels: libjpeg's limit; the format's own is 65,535
JPEG_QUALITY = 95
MIN_JPEG_GAP = 96  # between two colours, in their most different channel; 48 sufficed
PNG_LEVEL = 3  # twice as fast to write as 6; a mask grows by half
PNG_KINDS = {1: 0, 3: 2, 4: 6}  # channels: the format's number for grey, RGB, RGBA
TIFF_BLOCK = 256  # pixels a side, of the tiles of a TIFF

Rows = Iterable[np.ndarray]

# ------------------------------------------------------------------ what is written


def write_mask(
    path: PathLike, store: Store, colours: Colours, place: Place | None = None
) -> None:
    """Draw a mask in its two colours, so that it can be read back exactly.

    In a JPEG, too, each pixel stays nearer to its own colour than to the other; two
    colours too near for that are drawn black and white there. Where the image has no
    data a PNG is transparent, and a JPEG between the two colours. A TIFF of such an
    image, or of a map, holds the classes 0 and 1, `NODATA` and the colours. A Zarr
    array is the store's own.
    """
    if is_zarr_name(path):
        assert isinstance(store, DiskStore)
        store.keep_mask(path, _zarr_attributes(colours, place))
        return
    rows = store.mask_rows()
    has_gaps = store.counts.sum() < store.shape[0] * store.shape[1]
    if (place or has_gaps) and is_tiff(path) and has("rasterio"):
        table = {0: (*colours[0], 255), 1: (*colours[1], 255), NODATA: (0, 0, 0, 0)}
        write_rows(path, rows, store.shape, place=place, nodata=NODATA, table=table)
        return
    palette = _palette(path, colours, transparent=has_gaps and is_png(path))
    # A few rows at a time: an index takes eight bytes a pixel.
    parts = (part for mask in rows for part in np.array_split(mask, 16))
    drawn = (palette[part] for part in parts if len(part))
    write_rows(path, drawn, store.shape, place=place)


def _palette(path: PathLike, colours: Colours, transparent: bool) -> np.ndarray:
    """Give the colour of each class and of pixels without data: (256,) or (256, C)."""
    drawn = drawn_colours(path, colours)
    if transparent:
        palette = np.zeros((256, 4), np.uint8)
        palette[:2, :3], palette[:2, 3] = colours, 255
        return palette
    palette = np.repeat(drawn.mean(0, keepdims=True).astype(np.uint8), 256, axis=0)
    palette[:2] = drawn
    return palette


def drawn_colours(path: PathLike, colours: Colours) -> np.ndarray:
    """Choose how the classes are drawn in a file: (2, 3) uint8, or (2,) where grey."""
    drawn = np.array(colours, np.uint8)
    if is_jpeg(path) and np.ptp(drawn.astype(int), axis=0).max() < MIN_JPEG_GAP:
        drawn = np.array(BLACK_AND_WHITE, np.uint8)
    is_grey = (drawn == drawn[:, :1]).all()
    return drawn[:, 0] if is_grey else drawn


def write_probabilities(
    path: PathLike, store: Store, place: Place | None = None
) -> None:
    """Write the probabilities of class 1: times 255 in a PNG, as floats in a TIFF."""
    rows: Iterator[np.ndarray] = map(sigmoid, store.logit_rows())
    if is_tiff(path):
        nodata = np.nan if place else None
        write_rows(path, rows, store.shape, place=place, nodata=nodata)
    else:
        grey = (np.nan_to_num(p * 255).round().astype(np.uint8) for p in rows)
        write_rows(path, grey, store.shape)


def write_picture(path: PathLike, picture: np.ndarray) -> None:
    """Write an array, RGB (H, W, 3) or grey (H, W), as an image of any format."""
    write_rows(path, [picture], picture.shape[:2])


def _zarr_attributes(colours: Colours, place: Place | None) -> dict[str, object]:
    """Say in plain values what a mask's Zarr array shows, and where on the earth."""
    facts: dict[str, object] = {
        "colours": [list(map(int, colour)) for colour in colours],
        "nodata": NODATA,
    }
    if place:
        facts["crs"] = place["crs"].to_wkt() if place["crs"] else None
        if "gcps" in place:
            facts["gcps"] = [point.asdict() for point in place["gcps"]]
        else:
            facts["transform"] = list(place["transform"])[:6]
    return facts


def check_outputs(
    inputs: Sequence[PathLike],
    masks: Sequence[PathLike],
    others: Iterable[tuple[PathLike, Sequence[str]]],
    tree: PathLike | None = None,
) -> None:
    """Refuse files that could not be read or written; see `files.check_files`."""
    outputs = [(mask, (*SUFFIXES, ZARR)) for mask in masks]
    check_files(inputs, [*outputs, *others], tree)
    for mask in filter(is_zarr_name, masks):
        require(mask, "zarr", "a Zarr array")
        if os.path.lexists(mask) and not _is_written_mask(Path(mask)):
            raise InputError(
                f"{mask}: exists, and is not a mask that this program wrote (use "
                "another name)"
            )


def _is_written_mask(path: Path) -> bool:
    """Tell whether a folder is a Zarr array that holds a mask, and no more."""
    import zarr

    with suppress(Exception):  # what is no array raises anything
        attributes = zarr.open_array(path, mode="r").attrs
        return "colours" in attributes and set(os.listdir(path)) <= {"zarr.json", "c"}
    return False


# ------------------------------------------------------------------ rows to files


def write_rows(
    path: PathLike,
    rows: Rows,
    shape: Sequence[int],
    place: Place | None = None,
    nodata: float | None = None,
    table: Mapping[int, tuple[int, ...]] | None = None,
) -> None:
    """Write rows to a file, whole or not at all; its suffix says the format.

    Of a map, a TIFF gets its `place`, the value `nodata` of pixels without data, and a
    `table` of each value's colour.
    """
    check_jpeg(path, shape)
    with whole_file(path) as temporary:
        if is_png(path):
            _write_png(temporary, rows, shape)
        elif is_tiff(path) and has("rasterio"):
            _write_tiff(temporary, rows, shape, place, nodata, table)
        else:
            picture = Pillow.fromarray(np.concatenate(list(rows)))
            if is_jpeg(path):
                # Colours at full resolution: JPEG would else smear a mask's edges.
                picture.save(temporary, quality=JPEG_QUALITY, subsampling=0)
            else:
                picture.save(temporary, compression="tiff_deflate")


def _write_png(path: Path, rows: Rows, shape: Sequence[int]) -> None:
    """Write a PNG row by row; Pillow and pyvips would hold the whole picture.

    Each row is stored as its difference from the one above, filter 2 of the standard
    (https://www.w3.org/TR/png-3/).
    """
    packer = zlib.compressobj(PNG_LEVEL)
    with open(path, "wb") as file:

        def chunk(name: bytes, data: bytes) -> None:
            checksum = zlib.crc32(name + data)
            file.write(struct.pack(">I", len(data)) + name + data)
            file.write(struct.pack(">I", checksum))

        file.write(b"\x89PNG\r\n\x1a\n")
        above: np.ndarray | None = None
        for part in rows:
            size = part.dtype.itemsize  # 2 of 16 bits, whose high byte comes first
            values = part.astype(f">u{size}").view(np.uint8)
            values = values.reshape(len(part), -1)  # (h, W * channels * size)
            if above is None:
                above = np.zeros_like(values[:1])
                kind = PNG_KINDS[values.shape[1] // size // shape[1]]
                facts = shape[1], shape[0], 8 * size, kind, 0, 0, 0
                header = struct.pack(">IIBBBBB", *facts)
                chunk(b"IHDR", header)
            filtered = np.full((len(part), values.shape[1] + 1), 2, np.uint8)
            filtered[:, 1:] = values - np.concatenate([above, values[:-1]])
            above = values[-1:].copy()
            if packed := packer.compress(filtered.tobytes()):
                chunk(b"IDAT", packed)
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")


def _write_tiff(
    path: Path,
    rows: Rows,
    shape: Sequence[int],
    place: Place | None,
    nodata: float | None,
    table: Mapping[int, tuple[int, ...]] | None,
) -> None:
    """Write a tiled TIFF; of a map with its place, its colours and overviews."""
    import rasterio

    rows = iter(rows)
    first = next(rows)
    channels = 1 if first.ndim == 2 else first.shape[2]
    options: dict[str, Any] = {
        "driver": "GTiff",
        "width": shape[1],
        "height": shape[0],
        "count": channels,
        "dtype": first.dtype,
        "tiled": True,
        "blockxsize": TIFF_BLOCK,
        "blockysize": TIFF_BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
        "photometric": "MINISBLACK" if channels == 1 else "RGB",
        "interleave": "pixel",
        "num_threads": "all_cpus",  # that compress
        "nodata": nodata,
        **(place or {}),
    }
    # The tiles that a strip of rows has not filled yet.
    held = 2 * TIFF_BLOCK * shape[1] * channels * first.itemsize
    with rasterio.Env(GDAL_CACHEMAX=CACHE + held):
        with rasterio.open(path, "w", **options) as file:
            if table:
                file.write_colormap(1, table)
            top = 0
            for part in chain([first], rows):
                window = rasterio.windows.Window(0, top, shape[1], len(part))
                planes = part[None] if channels == 1 else np.moveaxis(part, -1, 0)
                file.write(planes, window=window)
                top += len(part)
        factors = [2**n for n in range(1, 16) if max(shape) >> n >= TIFF_BLOCK]
        if place and factors:
            with rasterio.open(path, "r+") as file:
                file.build_overviews(factors, rasterio.enums.Resampling.nearest)
        try:  # GDAL does not report a full disk: read what it wrote
            with rasterio.open(path) as file:
                for top in range(0, shape[0], TIFF_BLOCK):
                    rows_left = min(TIFF_BLOCK, shape[0] - top)
                    window = rasterio.windows.Window(0, top, shape[1], rows_left)
                    file.read(window=window)
        except rasterio.errors.RasterioError as error:
            raise OSError("is the disk full?") from error


def check_jpeg(path: PathLike, shape: Sequence[int]) -> None:
    """Refuse a JPEG that the format cannot hold, of an image of (H, W)."""
    if is_jpeg(path) and max(shape[:2]) > MAX_JPEG_SIDE:
        raise InputError(
            f"{path}: {shape[1]}x{shape[0]} pixels, and a JPEG holds at most "
            f"{MAX_JPEG_SIDE} a side (use .png or .tif)"
        )


def is_jpeg(path: PathLike) -> bool:
    """Tell whether a file is to be a JPEG."""
    return Path(path).suffix.lower() in (".jpg", ".jpeg")


def is_tiff(path: PathLike) -> bool:
    """Tell whether a file is to be a TIFF."""
    return Path(path).suffix.lower() in (".tif", ".tiff")


def is_png(path: PathLike) -> bool:
    """Tell whether a file is to be a PNG."""
    return Path(path).suffix.lower() == ".png"
