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


def pixel_area(place: Place | None, shape: tuple[int, int]) -> float | None:
    """Give the area of a pixel in the image's middle, in square metres.

    By the map's own metres or feet where they are right within `NEAR`, or where it is
    not known where on the earth it lies; else, as in degrees or Web Mercator, by those
    on the ground. None where there is no map.
    """
    if not place or not place["crs"]:
        return None
    crs, move = place["crs"], to_map(place)
    row, col = shape[0] / 2, shape[1] / 2
    corners = [moved(move, *at) for at in ((col, row), (col + 1, row), (col, row + 1))]
    area = _area_on_ground(crs, corners)
    if crs.is_projected:
        drawn = _area(np.array(corners)) * crs.linear_units_factor[1] ** 2
        if math.isnan(area) or math.isclose(drawn, area, rel_tol=NEAR):
            area = drawn
    return float(area) if 0 < area < math.inf else None


def _area_on_ground(crs: "CRS", corners: Sequence[tuple[float, float]]) -> float:
    """Give the area of a pixel on the ground; NaN where PROJ does not know it."""
    from rasterio.warp import transform

    try:
        (lon,), (lat,) = transform(crs, "EPSG:4326", *zip(corners[0], strict=True))
        plane = f"+proj=laea +lat_0={lat} +lon_0={lon} +datum=WGS84 +units=m"
        return _area(np.stack(transform(crs, plane, *zip(*corners, strict=True)), 1))
    except Exception:  # PROJ raises anything
        return math.nan


def _area(corners: np.ndarray) -> float:
    """Give the area of a pixel from its corner and those beside it: (3, 2)."""
    (a, b), (c, d) = corners[1:] - corners[0]
    return abs(a * d - b * c)


def in_words(pixels: int, pixel: float | None) -> str:
    """Say how large an area is, from the area of one pixel in square metres."""
    if pixel is None:
        return f"{pixels:,} pixels"
    area = pixels * pixel
    return f"{area:,.1f} m2" if area < HECTARE else f"{area / HECTARE:,.2f} ha"


def in_metres(
    table: Mapping[str, np.ndarray], place: Place | None, shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Give a table's areas and lengths in metres, and its centroids on the map."""
    area = pixel_area(place, shape)
    if not place or not area:
        return {}
    side = area**0.5
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
