"""Strokes: which pixels they label, and how they are kept."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelabel import strokes
from onelabel.files import InputError
from onelabel.image import UNLABELLED
from onelabel.strokes import Labels, Stroke


SHAPE = 30, 40
POINTS = st.lists(
    st.tuples(st.integers(-15, 55), st.integers(-15, 45)), min_size=1, max_size=5
)
STROKES = st.builds(
    Stroke,
    st.uuids().map(str),
    st.sampled_from([0, 1, UNLABELLED]),
    st.integers(0, 6),
    POINTS.map(tuple),
)


def nothing():
    return np.full(SHAPE, UNLABELLED, np.uint8)


def covered_one_by_one(stroke):
    """Cover the pixels of each place of the brush alone, as the definition says."""
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    covered = np.zeros(SHAPE, bool)
    points = stroke.points[:1] + stroke.points
    for (x, y), (to_x, to_y) in pairwise(points):
        count = max(abs(to_x - x), abs(to_y - y), 1)
        for step in range(count + 1):
            at_x = x + (2 * step * (to_x - x) + count) // (2 * count)
            at_y = y + (2 * step * (to_y - y) + count) // (2 * count)
            near = (cols - at_x) ** 2 + (rows - at_y) ** 2
            covered |= near <= stroke.radius**2 + stroke.radius
    return covered


@given(STROKES)
def test_a_stroke_covers_the_brush_along_its_line(stroke):
    labels = strokes.draw(nothing(), [stroke._replace(label=1)])
    assert ((labels == 1) == covered_one_by_one(stroke)).all()
    assert strokes.is_inside(stroke, SHAPE) or not (labels == 1).any()


def test_a_long_stroke_is_drawn_in_runs(monkeypatch):
    stroke = Stroke("a", 1, 3, ((0, 0), (39, 29), (0, 29)))
    whole = strokes.draw(nothing(), [stroke])
    monkeypatch.setattr(strokes, "RUN", 7)
    assert (strokes.draw(nothing(), [stroke]) == whole).all()


def test_the_thinnest_brush_is_one_pixel_wide():
    labels = strokes.draw(nothing(), [Stroke("a", 1, 0, ((3, 5), (9, 5)))])
    assert np.argwhere(labels == 1).tolist() == [[5, x] for x in range(3, 10)]


@given(st.lists(STROKES, max_size=5))
def test_a_later_stroke_covers_the_earlier_ones(several):
    labels = strokes.draw(nothing(), several)
    expected = nothing()
    for stroke in several:
        expected[covered_one_by_one(stroke)] = stroke.label
    assert (labels == expected).all()


@given(several=st.lists(STROKES, max_size=5), start=st.none() | st.just("old.png"))
def test_labels_are_kept(tmp_path_factory, several, start):
    path = tmp_path_factory.mktemp("kept") / "labels.json"
    labels = {"a.png": Labels(several, SHAPE, start), "b.jpg": Labels([], (7, 9))}
    strokes.write_labels(path, labels)
    assert strokes.read_labels(path) == labels


def test_without_a_file_there_are_no_labels(tmp_path):
    assert strokes.read_labels(tmp_path / "labels.json") == {}


def kept(*several, **more):
    images = {"a.png": {"start": None, "strokes": several, "shape": [7, 9]}}
    return json.dumps({"format": 1, "images": images, **more})


GOOD = {"id": "a", "label": 1, "radius": 2, "points": [[1, 2]]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dear diary",
        "[]",
        '{"format": 1}',
        kept(images=[1]),
        kept({**GOOD, "label": 7}),
        kept({**GOOD, "radius": -1}),
        kept({**GOOD, "radius": 10**6}),
        kept({**GOOD, "points": [[1, 2], [1, 10**9]]}),
        kept({**GOOD, "points": []}),
        kept({**GOOD, "points": [[1]]}),
        kept("a"),
    ],
)
def test_a_file_of_anything_else_is_refused(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{path}: cannot be read"):
        strokes.read_labels(path)


def test_labels_of_another_version_are_refused(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(kept(format=2))
    with pytest.raises(InputError, match="format 2, not 1"):
        strokes.read_labels(path)
