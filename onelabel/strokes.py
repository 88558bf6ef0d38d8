"""Strokes of a brush: how they are kept in a file, and which pixels they label.

The list of strokes is the labels' history: the later stroke covers the earlier one. The
painter in the page draws the same pixels by the same integers.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onelabel.files import InputError, PathLike, whole_file
from onelabel.image import UNLABELLED
from segutils import Block


FORMAT = 1  # of the file
LARGEST, FARTHEST = 10_000, 10_000_000  # pixels: a radius, and a point's x or y
RUN = 256  # steps of the brush that are drawn at once
Point = tuple[int, int]  # x and y of a pixel; it may lie outside the image


class Stroke(NamedTuple):
    """One stroke of the brush, in pixels of the image."""

    id: str
    label: int  # 0 or 1; `UNLABELLED` is the eraser's
    radius: int  # the brush is 2 * radius + 1 pixels across
    points: tuple[Point, ...]


def as_stroke(plain: dict) -> Stroke:
    """Make a stroke of plain values, as they come from a file or a page."""
    label, radius = int(plain["label"]), int(plain["radius"])
    points = tuple((int(x), int(y)) for x, y in plain["points"])
    is_far = any(max(map(abs, point)) > FARTHEST for point in points)
    is_label = label in (0, 1, UNLABELLED)
    if not (is_label and 0 <= radius <= LARGEST and points) or is_far:
        raise ValueError(f"no stroke: label {label}, radius {radius}, {points[:1]}")
    return Stroke(str(plain["id"]), label, radius, points)


class Labels(NamedTuple):
    """What is known of an image: strokes, over an older truth if there is one."""

    strokes: list[Stroke]
    shape: tuple[int, int]  # the image's height and width
    start: str | None = None  # the file of that truth, as seen from the image's folder


def read_labels(path: PathLike) -> dict[str, Labels]:
    """Read the labels of a folder's images from a file; if there is none, of none.

    Parameters
    ----------
    path : str or Path
        The file, written by `write_labels`.

    Returns
    -------
    dict of str to Labels
        What is known of each image, by the name of its file.

    Raises
    ------
    InputError
        The file is damaged, or holds something else.
    """
    if not Path(path).exists():
        return {}
    try:
        kept = json.loads(Path(path).read_text())
        if kept["format"] != FORMAT:
            raise InputError(f"{path}: labels of format {kept['format']}, not {FORMAT}")
        return {str(name): _as_labels(plain) for name, plain in kept["images"].items()}
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read, and has the strokes of this folder's images "
            "(mend it, or move it away to begin without them)"
        ) from error


def _as_labels(plain: dict) -> Labels:
    height, width = map(int, plain["shape"])
    strokes = list(map(as_stroke, plain["strokes"]))
    return Labels(strokes, (height, width), plain["start"])


def write_labels(path: PathLike, labels: Mapping[str, Labels]) -> None:
    """Write the labels of a folder's images to a JSON file, whole or not at all."""
    images = {
        name: {**kept._asdict(), "strokes": [s._asdict() for s in kept.strokes]}
        for name, kept in labels.items()
    }
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, "images": images}))


def draw(labels: np.ndarray, strokes: Iterable[Stroke]) -> np.ndarray:
    """Draw strokes on (H, W) uint8 labels, which are changed; returns them.

    From each point to the next, the brush stands on every pixel of a line, and covers
    those at most its radius away, rounded: ``dx**2 + dy**2 <= radius**2 + radius``.
    """
    whole = Block(0, 0, *labels.shape)
    for stroke in strokes:
        x, y = _steps(stroke.points)
        for first in range(0, len(x), RUN):
            run = slice(first, first + RUN)
            seen, covered = _cover(x[run], y[run], stroke.radius, whole)
            labels[seen.slices][covered] = stroke.label
    return labels


def _steps(points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    """Give x and y of all pixels that the brush stands on: (N,) each."""
    lines = [_line(*pair) for pair in pairwise([points[0], *points])]
    x, y = zip(*lines, strict=True)
    return np.concatenate(x), np.concatenate(y)


def _line(first: Point, last: Point) -> tuple[np.ndarray, np.ndarray]:
    """Give x and y of the pixels from one point to another, both included."""
    across, down = last[0] - first[0], last[1] - first[1]
    count = max(abs(across), abs(down), 1)
    steps = np.arange(count + 1)
    along_x = (2 * steps * across + count) // (2 * count)  # rounded, halves up
    along_y = (2 * steps * down + count) // (2 * count)
    return first[0] + along_x, first[1] + along_y


def _cover(
    x: np.ndarray, y: np.ndarray, radius: int, whole: Block
) -> tuple[Block, np.ndarray]:
    """Say which pixels of an image a brush covers that stands on some.

    Gives the part of the image where these are, and which they are, (h, w) bool.
    """
    left, right = int(x.min()) - radius, int(x.max()) + radius + 1
    top, bottom = int(y.min()) - radius, int(y.max()) + radius + 1
    seen = Block(top, left, bottom, right).common(whole)
    height, width = seen.bottom - seen.top, seen.right - seen.left
    rise = np.arange(-radius, radius + 1)
    reach = np.sqrt(radius**2 + radius - rise**2).astype(np.int64)  # of each brush row
    # Each of the brush's rows is a span, which begins and ends somewhere: (N, rows).
    rows = y[:, None] + rise - seen.top
    inside = (rows >= 0) & (rows < height)
    ends = (x[:, None] + side - seen.left for side in (-reach, reach + 1))
    cells = height * (width + 1)  # a column more, where spans end
    begun, ended = (
        np.bincount((rows * (width + 1) + at.clip(0, width))[inside], minlength=cells)
        for at in ends
    )
    begun -= ended
    return seen, begun.reshape(height, width + 1).cumsum(1)[:, :-1] > 0


def box(stroke: Stroke) -> Block:
    """Give the box around all that a stroke covers; it may reach outside the image."""
    x, y = zip(*stroke.points, strict=True)
    near = stroke.radius
    return Block(min(y) - near, min(x) - near, max(y) + near + 1, max(x) + near + 1)


def is_inside(stroke: Stroke, shape: Sequence[int]) -> bool:
    """Tell whether a stroke's box reaches into an image of (H, W)."""
    return box(stroke).meets(Block(0, 0, *shape))
