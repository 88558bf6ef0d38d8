"""How large the pixels of a map are on the ground."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from onelabel.files import InputError, PathLike
from onelabel.image import Place


if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

HECTARE = 10_000  # square metres
NEAR = 0.01  # how far a map's metres may be from those on the ground


def to_map(place: Place | None) -> "Affine":
    """Give the transform from pixel coordinates to the map's, if there is one."""
    from rasterio.transform import Affine, from_gcps

    if not place:
        return Affine.identity()
    return from_gcps(place["gcps"]) if "gcps" in place else place["transform"]


def has_degrees(place: Place) -> bool:
    """Tell whether a map's longitude and latitude are known: on Mars they are not."""
    from rasterio.warp import transform

    x, y = moved(to_map(place), 0, 0)
    try:
        transform(place["crs"], "EPSG:4326", [x], [y])
    except Exception:  # PROJ raises anything
        return False
    return True


def moved(transform: "Affine", x: Any, y: Any) -> tuple[Any, Any]:
    """Move points, (N,) each or numbers, by an affine transform."""
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f


def is_map(place: Place | None) -> bool:
    """Tell whether it is known in which coordinate system an image lies."""
    return place is not None and bool(place["crs"])


def check_points(path: PathLike, place: Place | None) -> None:
    """Refuse ground control points that no affine transform fits within a pixel."""
    if not place or "gcps" not in place:
        return
    move, points = to_map(place), place["gcps"]
    corners = np.array([(point.col, point.row) for point in points])
    found = np.array([(point.x, point.y) for point in points])
    if np.isfinite(move.determinant) and move.determinant:
        again = np.stack(moved(~move, *found.T), 1)
        if np.abs(again - corners).max() <= 1:
            return
    raise InputError(
        f"{path}: no affine transform fits the image's ground control points within a "
        "pixel (warp the image first, as gdalwarp does)"
    )


def pixel_sides(place: Place | None, shape: tuple[int, int]) -> np.ndarray | None:
    """Give the sides of a pixel in the image's middle, in metres.

    By the map's own metres or feet where areas by them are right within `NEAR`, or
    where it is not known where on the earth it lies; else, as in degrees or Web
    Mercator, by those on the ground. None where there is no map.

    Returns
    -------
    ndarray, (2, 2) float64, or None
        How far it is along a row and along a column, to the right and upwards.
    """
    if place is None or not is_map(place):
        return None
    crs, move = place["crs"], to_map(place)
    row, col = shape[0] / 2, shape[1] / 2
    corners = [moved(move, *at) for at in ((col, row), (col + 1, row), (col, row + 1))]
    sides = _sides_on_ground(crs, corners)
    if crs.is_projected and np.isfinite(corners).all():
        drawn = np.array([[move.a, move.d], [move.b, move.e]])
        drawn *= crs.linear_units_factor[1]
        area = _area(sides)
        if math.isnan(area) or math.isclose(_area(drawn), area, rel_tol=NEAR):
            sides = drawn
    return sides if 0 < _area(sides) < math.inf else None


def pixel_area(place: Place | None, shape: tuple[int, int]) -> float | None:
    """Give the area of a pixel in square metres; see `pixel_sides`."""
    sides = pixel_sides(place, shape)
    return None if sides is None else _area(sides)


def pixel_side(place: Place | None, shape: tuple[int, int]) -> float | None:
    """Give the side of a square as large as a pixel, in metres; see `pixel_sides`."""
    area = pixel_area(place, shape)
    return None if area is None else area**0.5


def _sides_on_ground(crs: "CRS", corners: Sequence[tuple[float, float]]) -> np.ndarray:
    """Give a pixel's sides from its corner and those beside it; NaN where not known."""
    from rasterio.warp import transform

    try:
        (lon,), (lat,) = transform(crs, "EPSG:4326", *zip(corners[0], strict=True))
        plane = f"+proj=laea +lat_0={lat} +lon_0={lon} +datum=WGS84 +units=m"
        here = np.stack(transform(crs, plane, *zip(*corners, strict=True)), 1)
    except Exception:  # PROJ raises anything
        return np.full((2, 2), math.nan)
    return here[1:] - here[0]


def _area(sides: np.ndarray) -> float:
    (a, b), (c, d) = sides.tolist()
    return abs(a * d - b * c)


def _length(sides: np.ndarray) -> float:
    """Give the length of a pixel's side; NaN where it is no square within `NEAR`."""
    across, along = np.linalg.norm(sides, axis=1)
    is_square = math.isclose(across, along, rel_tol=NEAR)
    is_right = abs(sides[0] @ sides[1]) < NEAR * across * along
    return _area(sides) ** 0.5 if is_square and is_right else math.nan


def in_words(pixels: int, pixel: float) -> str:
    """Say how large an area is, from the area of one pixel in square metres."""
    area = pixels * pixel
    return f"{area:,.1f} m2" if area < HECTARE else f"{area / HECTARE:,.2f} ha"


def in_metres(
    table: Mapping[str, np.ndarray], place: Place | None, shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Give a table's areas and lengths in metres, and its centroids on the map.

    Lengths are NaN where the pixels are no squares.
    """
    sides = pixel_sides(place, shape)
    if sides is None:
        return {}
    area, side = _area(sides), _length(sides)
    east, north = moved(to_map(place), table["x"], table["y"])
    return {
        "area_m2": table["area_px"] * area,
        "perim_m": table["perim_px"] * side,
        "length_m": table["length_px"] * side,
        "width_m": table["width_px"] * side,
        "map_x": east,
        "map_y": north,
    }


class Area(NamedTuple):
    """An area from the command line."""

    number: float
    unit: str  # "px" or "m2"


def in_pixels(
    area: Area, path: PathLike, place: Place | None, shape: tuple[int, int]
) -> float:
    """Give an area in pixels of an image; of one that is no map, metres are refused."""
    if area.unit == "px":
        return area.number
    pixel = pixel_area(place, shape)
    if pixel is None:
        raise InputError(
            f"{path}: {area.number:g}m2 asked for, but the image does not say how "
            "large its pixels are (give a number of pixels)"
        )
    return area.number / pixel
