"""Files of polygons: GeoPackage, GeoJSON and shapefile, written and read."""

import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onelabel import ground, qgis_style
from onelabel.files import InputError, PathLike, one_line, whole_file
from onelabel.image import UNLABELLED, Image, Place
from onelabel.libraries import OBJECTS, require


if TYPE_CHECKING:
    from affine import Affine

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile"}
BESIDE = {  # the suffixes of what others may have written beside a file
    ".gpkg": (".gpkg-journal", ".gpkg-shm", ".gpkg-wal"),
    ".geojson": (),
    ".shp": (".cpg", ".prj", ".qix", ".qpj", ".sbn", ".sbx"),
}
LAYER = "objects"  # a file's name may not be a layer's
CLASS = "class"  # the attribute that says which class a polygon is of
UNDEFINED = '"Undefined '  # in the name of what a GeoPackage has instead of none
DIGITS = {"RFC7946": "YES", "COORDINATE_PRECISION": "9"}  # of degrees: a tenth of a mm


def is_vector_name(path: PathLike) -> bool:
    """Tell whether a file's suffix is that of polygons."""
    return Path(path).suffix.lower() in DRIVERS


def write_polygons(
    path: PathLike,
    polygons: np.ndarray,
    columns: Mapping[str, np.ndarray],
    place: Place | None = None,
) -> None:
    """Write polygons with their attributes; the suffix says the format.

    In a map's coordinate system, GeoJSON in longitude and latitude. Where there is no
    map: in pixels from the image's top left corner, x to the right and y down.

    Parameters
    ----------
    path : str or Path
        A .gpkg, .geojson or .shp file, which is replaced.
    polygons : ndarray of shapely.Geometry, (N,)
        In pixels.
    columns : mapping of str to ndarray, (N,)
        The attributes; NaN is written as null.
    place : Place, optional
        Where the image is on the earth.
    """
    import shapely
    from pyogrio import raw

    check_place(path, place)
    driver = DRIVERS[Path(path).suffix.lower()]
    crs = place["crs"] if place else None
    with _all_files(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there may be no coordinate system
        temporary.unlink(missing_ok=True)
        raw.write(
            temporary,
            shapely.to_wkb(_moved(polygons, ground.to_map(place))),
            list(columns.values()),
            list(columns),
            layer=LAYER,
            driver=driver,
            geometry_type="MultiPolygon",
            promote_to_multi=True,
            crs=crs.to_wkt() if crs else None,
            layer_options=DIGITS if crs and driver == "GeoJSON" else {},
        )
        _check_whole(temporary, len(polygons))
        if driver == "GPKG":
            qgis_style.add_style(temporary, LAYER)


def check_name(path: PathLike) -> None:
    """Refuse a path that pyogrio would take for another one."""
    from pyogrio.util import vsi_path

    real = os.path.realpath(path)
    if vsi_path(real) != real:
        raise InputError(
            f"{path}: polygons cannot be in {real} (rename what has a ! or a line end)"
        )


def check_place(path: PathLike, place: Place | None) -> None:
    """Refuse a map that polygons cannot be laid on, or not in GeoJSON."""
    ground.check_points(path, place)
    is_geojson = DRIVERS[Path(path).suffix.lower()] == "GeoJSON"
    if place and ground.is_map(place) and is_geojson and not ground.has_degrees(place):
        raise InputError(
            f"{path}: GeoJSON is in longitude and latitude, which are unknown of this "
            "map (use .gpkg)"
        )


@contextmanager
def _all_files(path: PathLike) -> Iterator[Path]:
    """Write a file, and those that GDAL writes beside it; see `whole_file`.

    What an old file of the name has beside it is deleted: it would be read with the
    new one.
    """
    target = Path(os.path.realpath(path))
    with whole_file(path) as temporary:
        lower = temporary.with_suffix(temporary.suffix.lower())  # as GDAL writes it
        try:
            yield lower
            os.replace(lower, temporary)
            for suffix in BESIDE[Path(path).suffix.lower()]:
                target.with_suffix(suffix).unlink(missing_ok=True)
            for part in _parts(temporary):
                os.replace(part, target.with_suffix(part.suffix))
        except (RuntimeError, sqlite3.Error) as error:  # what pyogrio raises
            raise OSError(one_line(error)) from error
        finally:
            for part in _parts(temporary):
                part.unlink()


def _check_whole(path: Path, count: int) -> None:
    """Read the last of some features: GDAL does not report every full disk."""
    from pyogrio import raw

    _, _, geometry, _ = raw.read(path, skip_features=max(count - 1, 0))
    if len(geometry) != min(count, 1) or None in geometry:
        raise OSError("is the disk full?")


def _parts(path: Path) -> list[Path]:
    """List the files beside one that have its name and another suffix."""
    return [part for part in path.parent.glob(f"{path.stem}.*") if part != path]


def _moved(polygons: np.ndarray, transform: "Affine") -> np.ndarray:
    """Move polygons by an affine transform."""
    import shapely

    def move(points: np.ndarray) -> np.ndarray:  # (N, 2)
        return np.stack(ground.moved(transform, *points.T), 1)

    return shapely.transform(polygons, move)


# ------------------------------------------------------------------ labels


def read_classes(path: PathLike, image: Image) -> np.ndarray:
    """Draw polygons of two classes onto an image's pixels.

    The attribute ``class`` says the class, or else the only attribute of two values; of
    these the second, by number or alphabet, is class 1. A pixel belongs to the polygon
    in which its centre lies; of several, to the last. Of an image that is no map the
    polygons are in pixels, as `write_polygons` has them; or with y upwards, so below 0,
    as QGIS draws on such an image.

    Parameters
    ----------
    path : str or Path
        A .gpkg, .geojson or .shp file; its first layer is read.
    image : Image
        The image.

    Returns
    -------
    ndarray, (H, W) uint8
        0, 1, or `UNLABELLED`.

    Raises
    ------
    InputError
        The file cannot be read, does not tell two classes, or lies elsewhere.
    """
    for library in ("shapely", "pyogrio", "rasterio"):
        require(path, library, "a file of polygons", OBJECTS)
    import shapely
    from pyogrio import raw
    from rasterio.features import rasterize

    try:
        meta, _, geometry, columns = raw.read(path, layer=0)
        polygons = np.array(shapely.from_wkb(geometry), ndmin=1)
    except Exception as error:  # damaged bytes raise anything
        raise InputError(
            f"{path}: cannot be read as polygons ({one_line(error)})"
        ) from error
    has_area = (shapely.get_dimensions(polygons) == 2) & ~shapely.is_empty(polygons)
    if not has_area.any():
        raise InputError(f"{path}: holds no polygons (draw areas, not lines or points)")
    column, values = _two_classes(path, meta["fields"], columns)
    polygons = _in_pixels(path, polygons[has_area], meta["crs"], image)
    drawn = [
        (polygon, values.index(value))
        for polygon, value in zip(polygons, column[has_area], strict=True)
        if value in values
    ]
    truth = np.full(image.shape, UNLABELLED, np.uint8)
    if drawn:
        rasterize(drawn, out=truth)
    if (truth == UNLABELLED).all():
        raise InputError(
            f"{path}: no polygon lies on {image.path} (are both of one place?)"
        )
    return truth


def _two_classes(
    path: PathLike, names: np.ndarray, columns: list[np.ndarray]
) -> tuple[np.ndarray, list]:
    """Find the attribute of the classes: its (N,) values, and the two there are."""
    values = {
        name: sorted({v for v in column.tolist() if _is_value(v)})
        for name, column in zip(names, columns, strict=True)
    }
    named = [name for name in values if name.lower() == CLASS]
    chosen = named or [name for name in values if len(values[name]) == 2]
    if len(chosen) != 1 or len(values[chosen[0]]) != 2:
        listed = ", ".join(f"{name}: {len(values[name])}" for name in chosen or values)
        raise InputError(
            f"{path}: no attribute {CLASS!r} with 2 values, one for each class (the "
            f"number of values now is {listed or 'none'}; draw polygons of both)"
        )
    return columns[list(names).index(chosen[0])], values[chosen[0]]


def _is_value(value: object) -> bool:
    """Tell whether a polygon's attribute is a number or a text: not null, no list."""
    return isinstance(value, str | int | float) and value == value


def _in_pixels(
    path: PathLike, polygons: np.ndarray, crs: str | None, image: Image
) -> np.ndarray:
    """Move polygons from their coordinate system to an image's pixels."""
    import shapely
    from rasterio.transform import Affine
    from rasterio.warp import transform

    crs = None if crs and UNDEFINED in crs else crs
    is_map = ground.is_map(image.place)
    is_geojson = DRIVERS[Path(path).suffix.lower()] == "GeoJSON"  # it says degrees
    if crs and not is_map and not is_geojson:
        raise InputError(
            f"{path}: is in {crs}, but {image.path} has no coordinate system (save it "
            "without one, in the image's pixels)"
        )
    try:
        move = ground.to_map(image.place)
        if image.place is not None and is_map and crs:
            points = shapely.get_coordinates(polygons)  # (N, 2)
            x, y = map(np.array, transform(crs, image.place["crs"], *points.T))
            if image.place["crs"].is_geographic:  # it may reach over the 180th meridian
                height, width = image.shape
                middle, _ = ground.moved(move, width / 2, height / 2)
                x += 360 * ((middle - x) / 360).round()
            polygons = shapely.set_coordinates(polygons, np.stack([x, y], 1))
        bounds = shapely.total_bounds(polygons)
        is_below = bounds[1] + bounds[3] < 0  # most of it
        if not is_map and move.is_identity and is_below:
            polygons = _moved(polygons, Affine.scale(1, -1))  # QGIS draws y upwards
        return _moved(polygons, ~move)
    except Exception as error:  # PROJ raises anything
        raise InputError(
            f"{path}: cannot be laid on {image.path} (are both of one place?)"
        ) from error
