"""The objects of a mask, its connected parts of class 1: measured, listed, numbered."""

import csv
from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np

from onelabel import ground, lines, ome_labels
from onelabel.components import TOUCHING, Components, Strip, is_object
from onelabel.files import InputError, PathLike, whole_file
from onelabel.image import NODATA, STRIP, Place, strips
from onelabel.reading import IN_MEMORY
from onelabel.store import Store
from onelabel.writing import is_png, write_rows
from segutils import Block, sigmoid


THIN = 25  # the square of the perimeter in units of the area: of a disc it is 12.6
MAX_PNG_OBJECTS = 65_535  # that 16 bits can number
Table = dict[str, np.ndarray]  # each column: (N,), of the N objects


class Objects(NamedTuple):
    """The objects of a mask."""

    components: Components  # where they are, strip by strip
    numbers: np.ndarray  # (labels,) the object of each label, from 0
    table: Table


def find(store: Store, place: Place | None = None) -> Objects:
    """Find and measure the objects of a mask.

    Pixels that share a side or a corner belong to one object. The objects are in the
    order of their first pixels, from the top and from the left.

    Parameters
    ----------
    store : Store
        The mask; with its logits, the mean probability is measured, too.
    place : Place, optional
        Where the image is on the earth: then there are columns in metres.

    Returns
    -------
    Objects
        Its table has the columns that docs/objects.md lists. ``length_px`` and
        ``width_px`` are NaN of objects that are not thin, and of those whose box has
        more pixels than `IN_MEMORY`.
    """
    components = Components(store, is_object, TOUCHING)
    measured = [_measure(store, strip) for strip in components.strips()]
    numbers = components.numbers()
    parts = {name: np.concatenate([m[name] for m in measured]) for name in measured[0]}
    table = _table(store, _join(parts, numbers), place)
    return Objects(components, numbers, table)


# ------------------------------------------------------------------ measuring

LEAST, MOST = ("top", "left"), ("bottom", "right")


def _measure(store: Store, strip: Strip) -> Table:
    """Measure the part of each label that lies in a strip: sums and boxes."""
    from scipy import ndimage

    block, _, labels, _, count = strip
    rows, cols = np.nonzero(labels)
    label = labels[rows, cols] - 1

    def total(values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(label, values, count)

    border, lengths, gaps = _border(store, block)
    boxes = ndimage.find_objects(labels, count)
    found = {
        "area": total(),
        "x": total(cols + 0.5),
        "y": total(rows + block.top + 0.5),
        "border": total(border[rows, cols]),
        "gaps": total(gaps[rows, cols]),
        "perimeter": total(lengths[rows, cols]),
        "top": np.array([box[0].start for box in boxes], int) + block.top,
        "left": np.array([box[1].start for box in boxes], int),
        "bottom": np.array([box[0].stop for box in boxes], int) + block.top,
        "right": np.array([box[1].stop for box in boxes], int),
    }
    if store.logits is not None:
        found["probability"] = total(sigmoid(store.logits_of(block))[rows, cols])
    return found


def _border(store: Store, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tell which pixels are on a border, and what each adds to the perimeter: (h, w).

    The third array tells which lie beside pixels without data.
    As scikit-image's `perimeter` has it (Benkrid and Crookes 2000, "Design and FPGA
    implementation of a perimeter estimator"): a border pixel counts by how many border
    pixels are beside it and how many at its corners.
    """
    from scipy import ndimage

    around = block.grown(2, store.shape)
    classes = store.mask_of(around)
    mask, hidden = is_object(classes), classes == NODATA
    gaps = ndimage.binary_dilation(hidden, TOUCHING) if hidden.any() else hidden
    border = (mask & ~ndimage.binary_erosion(mask)).astype(np.uint8)
    kernel = np.array([[10, 2, 10], [2, 1, 2], [10, 2, 10]], np.uint8)
    lengths = np.zeros(50)
    lengths[[5, 7, 15, 17, 25, 27]] = 1
    lengths[[21, 33]] = 2**0.5
    lengths[[13, 23]] = (1 + 2**0.5) / 2
    kinds = ndimage.convolve(border, kernel, mode="constant")
    inside = block.within(around)
    return border[inside], lengths[kinds[inside]], gaps[inside]


def _join(parts: Table, numbers: np.ndarray) -> Table:
    """Put together what was measured of each object's labels."""
    count = numbers.max(initial=-1) + 1
    joined = {}
    for name, values in parts.items():
        if name in LEAST:
            joined[name] = np.full(count, np.iinfo(int).max)
            np.minimum.at(joined[name], numbers, values)
        elif name in MOST:
            joined[name] = np.zeros(count, int)
            np.maximum.at(joined[name], numbers, values)
        else:
            joined[name] = np.bincount(numbers, values, count)
    return joined


def _table(store: Store, joined: Table, place: Place | None) -> Table:
    """Lay out the table of the objects."""
    area, (height, width) = joined["area"], store.shape
    box = {name: joined[name] for name in ("left", "top", "right", "bottom")}
    at_edge = (box["left"] == 0) | (box["top"] == 0)
    at_edge |= (box["right"] == width) | (box["bottom"] == height)
    at_edge |= joined["gaps"] > 0
    table = {
        "id": np.arange(1, len(area) + 1),
        "area_px": area.astype(int),
        "perim_px": joined["perimeter"],
        "x": joined["x"] / area,
        "y": joined["y"] / area,
        **box,
        "at_edge": at_edge.astype(int),
    }
    if "probability" in joined:
        table["mean_prob"] = joined["probability"] / area
    # The estimate of the perimeter fails on lines of two pixels, the number of border
    # pixels is too low on slanted ones.
    around = np.maximum(joined["border"], joined["perimeter"])
    is_thin = (around + 4) ** 2 > THIN * area  # it is counted through pixels' middles
    table["length_px"], table["width_px"] = _lengths(store, table, is_thin)
    return {**table, **ground.in_metres(table, place, store.shape)}


# ------------------------------------------------------------------ thin objects


def _lengths(
    store: Store, table: Table, is_thin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the length and the mean width of the thin objects; NaN of others."""
    length = np.full(len(table["id"]), np.nan)
    for index, shape in _cut_out(store, table, is_thin):
        length[index] = lines.length(shape)
    return length, table["area_px"] / length


def _cut_out(
    store: Store, table: Table, chosen: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Cut out the chosen objects: the index and the (h, w) bool pixels of each.

    The rows of two strips are read once for all objects that begin in the first of them
    and end in the second.
    """
    boxes = np.stack([table[side] for side in ("top", "left", "bottom", "right")], 1)
    sizes = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    chosen = chosen & (sizes <= IN_MEMORY)
    for strip in strips(store.shape):
        begins = chosen & (strip.top <= boxes[:, 0]) & (boxes[:, 0] < strip.bottom)
        if not begins.any():
            continue
        two = strip._replace(bottom=min(strip.bottom + STRIP, store.shape[0]))
        rows = store.mask_of(two)
        for index in np.nonzero(begins)[0].tolist():
            box = Block(*boxes[index].tolist())
            is_within = box.bottom <= two.bottom
            mask = rows[box.within(two)] if is_within else store.mask_of(box)
            yield index, _spanning(is_object(mask))


def _spanning(mask: np.ndarray) -> np.ndarray:
    """Pick the object that reaches all four sides of its box: (h, w) bool.

    Two that do would cross, and so be one.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask, TOUCHING)
    sides = labels[0], labels[-1], labels[:, 0], labels[:, -1]
    spanning = reduce(np.intersect1d, sides)
    return labels == spanning[spanning > 0][0]


# ------------------------------------------------------------------ files


def write_table(path: PathLike, table: Table) -> None:
    """Write a row for each object as CSV; what was not measured is empty."""
    columns = [_plain(values) for values in table.values()]
    with whole_file(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*columns, strict=True))


def _plain(values: np.ndarray) -> list:
    """Give a column as plain values; of floats ten digits count."""
    if values.dtype.kind != "f":
        return values.tolist()
    return ["" if np.isnan(v) else f"{v:.10g}" for v in values.tolist()]


def write_label_image(
    path: PathLike, found: Objects, place: Place | None = None
) -> None:
    """Write each pixel's object by its id, 0 where there is none.

    A PNG has 16 bits, a TIFF 32, and so have the labels of an OME-Zarr image.
    """
    count = len(found.table["id"])
    if is_png(path) and count > MAX_PNG_OBJECTS:
        raise InputError(
            f"{path}: {count:,} objects, but a PNG numbers {MAX_PNG_OBJECTS:,} (use "
            ".tif)"
        )
    dtype = np.uint16 if is_png(path) else np.uint32
    ids = (found.numbers + 1).astype(dtype)
    rows = (strip.of_labels(ids) for strip in found.components.strips())
    shape = found.components.store.shape
    if ome_labels.is_labels_name(path):
        ome_labels.write_labels(path, rows, shape)
    else:
        write_rows(path, rows, shape, place)
