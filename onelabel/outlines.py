"""The outlines of objects as polygons; as ROIs of ImageJ and QuPath."""

import json
import zipfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from onelabel.files import PathLike, whole_file
from onelabel.objects import Objects, Table


if TYPE_CHECKING:
    from shapely import Geometry, Polygon

LEAST = 0.25  # pixels: within less, no corner of an outline can be left out
MOVE, LINE, CLOSE = 0.0, 1.0, 4.0  # a path's steps, as ImageJ numbers them


def outline(found: Objects) -> np.ndarray:
    """Draw the outline of each object along the edges of its pixels.

    Parts of an object that touch at a corner only are polygons of their own, so that
    every geometry is valid.

    Returns
    -------
    ndarray of shapely.Geometry, (N,)
        A Polygon or a MultiPolygon for each object, with holes, in pixels from the
        image's top left corner, x to the right and y down.
    """
    import shapely

    pieces: list[list[Geometry]] = [[] for _ in found.table["id"]]
    for owner, polygon in _pieces(found):
        pieces[owner].append(polygon)
    drawn = np.empty(len(pieces), object)
    for index, parts in enumerate(pieces):
        # A union keeps corners where strips meet; to simplify by nothing removes them.
        is_one = len(parts) == 1
        drawn[index] = parts[0] if is_one else shapely.union_all(parts).simplify(0)
    return drawn


def simplified(outlines: np.ndarray, distance: float) -> np.ndarray:
    """Leave out corners of outlines that lie within so many pixels of the rest.

    Where parts of an object would then overlap, its corners are left out within half
    the distance, or a quarter; all geometries are valid.
    """
    import shapely

    simple, left = outlines.copy(), np.arange(len(outlines))
    while distance > LEAST and len(left):
        found = shapely.simplify(outlines[left], distance)
        is_valid = shapely.is_valid(found)
        simple[left[is_valid]] = found[is_valid]
        left, distance = left[~is_valid], distance / 2
    return simple


def _pieces(found: Objects) -> "Iterator[tuple[int, Polygon]]":
    """Give the polygons of each strip, each with the index of its object."""
    import shapely
    from rasterio.features import shapes
    from rasterio.transform import Affine

    for strip in found.components.strips():
        down = Affine.translation(0, strip.block.top)
        is_object = strip.labels > 0
        for shape, label in shapes(strip.labels, is_object, transform=down):
            owner = found.numbers[strip.above + int(label) - 1]
            shell, *holes = map(np.array, shape["coordinates"])
            yield owner, shapely.Polygon(shell, holes)


# ------------------------------------------------------------------ regions of interest


def write_rois(path: PathLike, outlines: np.ndarray, table: Table) -> None:
    """Write objects for ImageJ (.zip) or for QuPath (.geojson), in pixels.

    Both count from the top left corner of the first pixel, as the outlines do.
    """
    if str(path).lower().endswith(".zip"):
        _write_imagej(path, zip(table["id"].tolist(), outlines, strict=True))
    else:
        _write_qupath(path, outlines, table)


def _write_imagej(path: PathLike, objects: "Iterable[tuple[int, Geometry]]") -> None:
    """Write a zip archive of ROIs, which ImageJ's ROI manager opens."""
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number, outline in objects:
            archive.writestr(f"{number}.roi", _roi(str(number), outline).tobytes())


def _roi(name: str, outline: "Geometry") -> Any:
    """Make an ImageJ ROI: a polygon, or a path where there are holes or parts."""
    import shapely
    from roifile import ROI_TYPE, ImagejRoi

    polygons = shapely.get_parts(outline)
    rings = [ring for p in polygons for ring in (p.exterior, *p.interiors)]
    corners = [shapely.get_coordinates(ring)[:-1] for ring in rings]  # (N, 2) each
    if len(corners) == 1:
        return ImagejRoi.frompoints(corners[0].astype(int), name=name)
    left, top, right, bottom = (int(side) for side in outline.bounds)
    steps = [
        (*((LINE if i else MOVE, *point) for i, point in enumerate(ring)), (CLOSE,))
        for ring in corners
    ]
    path = np.concatenate([step for ring in steps for step in ring])
    return ImagejRoi(
        roitype=ROI_TYPE.RECT,
        name=name,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        shape_roi_size=len(path),
        multi_coordinates=path.astype(np.float32),
    )


def _write_qupath(path: PathLike, outlines: np.ndarray, table: Table) -> None:
    """Write GeoJSON as QuPath reads it."""
    import shapely

    with whole_file(path) as temporary, open(temporary, "w") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        for index, geometry in enumerate(shapely.to_geojson(outlines)):
            properties = {
                "objectType": "annotation",
                "name": str(table["id"][index]),
                "classification": {"name": "class 1", "color": [255, 0, 0]},
                "measurements": _measurements(table, index),
            }
            feature = {"type": "Feature", "properties": properties}
            text = json.dumps(feature)[:-1] + f', "geometry": {geometry}}}'
            file.write((",\n" if index else "") + text)
        file.write("\n]}\n")


def _measurements(table: Table, index: int) -> dict[str, float]:
    """Give what was measured of an object; NaN, which JSON lacks, is left out."""
    values = {name: column[index].item() for name, column in table.items()}
    return {name: value for name, value in values.items() if value == value}
