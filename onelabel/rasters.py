"""TIFF and Zarr: images of any kind of numbers, read in squares and in any order."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from onelabel.files import InputError, PathLike, one_line
from onelabel.formats import band_indices, choose, explained
from onelabel.image import Colours, Image, Place
from segutils import Block


if TYPE_CHECKING:
    import zarr

CACHE = 16 * 2**20  # bytes: GDAL's cache, beside the blocks that it must hold


class Raster(Image):
    """A TIFF: GeoTIFF, cloud-optimised, BigTIFF."""

    in_any_order = True

    def __init__(
        self, path: PathLike, channels: Sequence[int] | None, transparent: bool
    ) -> None:
        import rasterio

        # Outside of an Env, GDAL would print lines of its own.
        with explained(path), rasterio.Env():
            self.path, self.file = path, rasterio.open(path)
            count, flags = self.file.count, self.file.mask_flag_enums  # of each band
            self.shape, self.place = self.file.shape, self._place()
            self.palette, self.is_usual = self._palette(), self._is_usual()
            self.bits, self.white_is_zero = self._numbers()
            self.in_squares = self.file.block_shapes[0][1] < self.file.width
            self.lossy = "jpeg" in str(self.file.compression).lower()
            self.memory = self._cache()
        usual = (1, 2, 3) if count >= 3 else (1, 1, 1)
        self.one_reader = Lock()  # GDAL reads a file for one thread at a time
        self.channels = [i + 1 for i in band_indices(path, channels or usual, count)]
        kinds = [self.file.dtypes[channel - 1] for channel in self.channels]
        self.stored = np.result_type(*kinds)
        _check_numbers(path, self.stored)
        self.dtype = self.stored if self.palette is None else np.dtype(np.uint8)
        is_whole = all(rasterio.enums.MaskFlags.all_valid in band for band in flags)
        self.may_hide = not is_whole and (transparent or self.place is not None)

    def _place(self) -> Place | None:
        import rasterio

        file, (gcps, gcps_crs) = self.file, self.file.gcps
        if gcps:
            return {"gcps": gcps, "crs": gcps_crs or rasterio.crs.CRS()}
        if file.crs or file.nodata is not None or not file.transform.is_identity:
            return {"crs": file.crs, "transform": file.transform}
        return None

    def _palette(self) -> np.ndarray | None:
        if self.file.count > 2 or self.file.colorinterp[0].name != "palette":
            return None
        colours = self.file.colormap(1)
        count = np.iinfo(self.file.dtypes[0]).max + 1
        table = [colours.get(index, (0, 0, 0))[:3] for index in range(count)]
        return np.array(table, np.uint8)

    def _numbers(self) -> tuple[int, bool]:
        """Give the bits of a value, and whether 0 stands for white."""
        bits, kind = (self.file.tags(i, ns="IMAGE_STRUCTURE") for i in (1, 0))
        return int(bits.get("NBITS", 8)), kind.get("MINISWHITE") == "YES"

    def _is_usual(self) -> bool:
        """Tell whether rasterio understands the file's colours as Pillow does."""
        kinds = {colour.name for colour in self.file.colorinterp}
        photometric = getattr(self.file.photometric, "name", "")
        return "cyan" not in kinds and photometric not in ("cielab", "icclab", "itulab")

    def _as_grey(self, values: np.ndarray) -> np.ndarray:
        """Spread values of under 8 bits over 0 to 255, and let white be the most."""
        if values.dtype != np.uint8:
            return values
        if self.bits < 8:
            values = values * np.uint8(255 // (2**self.bits - 1))
        return ~values if self.white_is_zero else values

    def values(self, block: Block) -> np.ndarray:
        """Read a block as the file has it; see `Image.values`."""
        import rasterio

        window = rasterio.windows.Window.from_slices(*block.slices)
        needed = sorted(set(self.channels))
        with (
            self.one_reader,
            explained(self.path),
            rasterio.Env(GDAL_CACHEMAX=self._cache()),
        ):
            shape = window.height, window.width, len(needed)
            values = np.empty(shape, self.stored)
            self.file.read(needed, window=window, out=np.moveaxis(values, -1, 0))
            has_data = self.file.dataset_mask(window=window) if self.may_hide else None
        if self.palette is not None:
            pixels = self.palette[values[..., 0]]
        else:
            chosen = [needed.index(channel) for channel in self.channels]
            pixels = choose(self._as_grey(values), chosen)
        if has_data is None or has_data.all():
            return pixels
        hidden = np.broadcast_to(has_data[..., None] == 0, pixels.shape)  # no memory
        return np.ma.MaskedArray(pixels, hidden)

    def _cache(self) -> int:
        """Give the bytes that GDAL's cache needs; its default is far more."""
        rows = self.file.block_shapes[0][0]
        size = np.dtype(self.file.dtypes[0]).itemsize * self.file.count
        # A row of the file's blocks, which the next strip needs, too.
        return CACHE + self.file.width * rows * size


class Chunks(Image):
    """A Zarr array or OME-Zarr image, at its first time and depth."""

    in_any_order = in_squares = True

    def __init__(self, path: PathLike, channels: Sequence[int] | None) -> None:
        import zarr

        facts: dict[str, Any] = {}
        try:
            array = zarr.open(path, mode="r")
            while isinstance(array, zarr.Group):
                facts = {**facts, **array.attrs}
                array = _largest(array)
        except Exception as error:  # damaged metadata raises anything
            raise InputError(f"{path}: is no Zarr array ({one_line(error)})") from error
        self.path, self.array, self.dtype = path, array, array.dtype
        self.nodata, self.place = array.attrs.get("nodata"), _place_in(array.attrs)
        self.colours = _colours_in(array.attrs)
        self.axes = _axes(facts, array.shape)
        _check_numbers(path, self.dtype)
        if not self.axes:
            raise InputError(
                f"{path}: an array of shape {array.shape} (height, width and channels "
                "are read, or axes as OME-Zarr names them)"
            )
        sizes = dict(zip(self.axes, array.shape, strict=True))
        self.shape = sizes["y"], sizes["x"]
        count = sizes.get("c", 1)
        usual = (1, 2, 3) if count >= 3 else (1, 1, 1)
        self.channels = band_indices(path, channels or usual, count)

    def values(self, block: Block) -> np.ndarray:
        """Read a block as the file has it; see `Image.values`."""
        rows, cols = block.slices
        chosen = dict[str, int | slice](t=0, c=slice(None), z=0, y=rows, x=cols)
        with explained(self.path):
            values = np.asarray(self.array[tuple(chosen[axis] for axis in self.axes)])
        left = [axis for axis in self.axes if axis in "yxc"]
        if "c" not in left:
            left, values = [*left, "c"], values[..., None]
        values = values.transpose([left.index(axis) for axis in "yxc"])
        pixels = choose(values, self.channels)
        if self.nodata is None:
            return pixels
        hidden = (pixels == self.nodata).all(-1, keepdims=True)
        return np.ma.MaskedArray(pixels, np.broadcast_to(hidden, pixels.shape))


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
    three = "cyx" if shape[:1] < shape[-1:] and shape[-1] > 4 else "yxc"
    return {2: "yx", 3: three, 4: "czyx", 5: "tczyx"}.get(len(shape), "")


def _colours_in(facts: Mapping[str, Any]) -> Colours | None:
    """Read the colours of a mask's classes, as writing.py notes them."""
    with suppress(Exception):  # there are none, or metadata may hold anything
        dark, bright = np.array(facts["colours"], np.uint8).reshape(2, 3).tolist()
        return tuple(dark), tuple(bright)
    return None


def _place_in(facts: Mapping[str, Any]) -> Place | None:
    """Read where on the earth a mask is, as writing.py notes it beside a Zarr array."""
    with suppress(Exception):  # there is none, or metadata may hold anything
        from rasterio.control import GroundControlPoint
        from rasterio.crs import CRS
        from rasterio.transform import Affine

        crs = CRS.from_wkt(facts["crs"]) if facts["crs"] else None
        if "gcps" in facts:
            gcps = [GroundControlPoint(**point) for point in facts["gcps"]]
            return {"gcps": gcps, "crs": crs}
        return {"crs": crs, "transform": Affine(*facts["transform"])}
    return None


def _check_numbers(path: PathLike, dtype: np.dtype) -> None:
    """Refuse pixels that are no plain numbers, such as complex ones."""
    if dtype.kind not in "uif" or dtype == np.int8:
        raise InputError(f"{path}: {dtype} pixels cannot be read (save as uint16)")
