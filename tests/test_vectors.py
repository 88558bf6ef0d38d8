"""A ground truth that is drawn as polygons."""

import json
import shutil
import sqlite3
import warnings
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from conftest import predict_here, train_here
from hypothesis import given, settings
from hypothesis import strategies as st
from pyogrio import raw
from samples import gradient, place, save, write_tiff
from shapely import box

from onelabel import model_file
from onelabel.files import InputError
from onelabel.image import BLACK_AND_WHITE, UNLABELLED
from onelabel.reading import open_image
from onelabel.truth import find_pairs, read_truth_of
from onelabel.vectors import DRIVERS, write_polygons


SHAPE = (40, 50)
SOIL, TREE = box(2, 2, 10, 10), box(20, 5, 30, 35)  # in pixels
LEFT, TOP, SIDE = 5e5, 5e6, 0.5  # of the map that `place` is


@pytest.fixture
def image(tmp_path):
    """An image that is no map."""
    return open_image(save(tmp_path / "image.png", gradient(*SHAPE)))


@pytest.fixture
def map_image(tmp_path):
    """The same as a map."""
    return open_image(write_tiff(tmp_path / "map.tif", gradient(*SHAPE), **place()))


def draw(path, polygons, crs=None, **columns):
    """Write polygons and their attributes; gives the path."""
    kinds = [object if None in values else None for values in columns.values()]
    pairs = zip(columns.values(), kinds, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there may be no coordinate system
        raw.write(
            path,
            shapely.to_wkb(np.array(polygons, object)),
            [np.array(values, kind) for values, kind in pairs],
            list(columns),
            driver=DRIVERS[path.suffix],
            geometry_type="Unknown",
            crs=crs,
        )
    return path


def classes(*drawn):
    """Give the truth in which boxes have classes, one after the other: (40, 50)."""
    truth = np.full(SHAPE, UNLABELLED, np.uint8)
    for polygon, number in drawn:
        left, top, right, bottom = map(int, polygon.bounds)
        truth[top:bottom, left:right] = number
    return truth


def on_map(polygon):
    """Move a polygon from pixels to the map."""
    return shapely.transform(
        polygon, lambda xy: np.array([LEFT, TOP]) + xy * np.array([SIDE, -SIDE])
    )


def assert_read(path, image, *drawn):
    truth, colours = read_truth_of(image, path)
    np.testing.assert_array_equal(truth, classes(*drawn))
    assert colours == BLACK_AND_WHITE


def refuse(path, image, words):
    """Assert that a truth is refused, in one line that names the file."""
    with pytest.raises(InputError, match=words) as caught:
        read_truth_of(image, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ which class


@pytest.mark.parametrize("suffix", DRIVERS)
@pytest.mark.parametrize(
    "values", [(1, 2), (0, 1), (-1.5, 3.0), ("soil", "tree"), ("1", "2")]
)
def test_the_second_of_two_values_is_class_1(tmp_path, image, suffix, values):
    path = tmp_path / f"truth{suffix}"
    attributes = {"class": values, "id": (7, 8), "note": ("a", "b")}
    assert_read(draw(path, [SOIL, TREE], **attributes), image, (SOIL, 0), (TREE, 1))
    attributes["class"] = values[::-1]
    assert_read(draw(path, [SOIL, TREE], **attributes), image, (SOIL, 1), (TREE, 0))


def test_the_attribute_may_be_written_class_in_any_case(tmp_path, image):
    path = draw(tmp_path / "t.gpkg", [SOIL, TREE], CLASS=("a", "b"), id=(2, 1))
    assert_read(path, image, (SOIL, 0), (TREE, 1))


def test_the_only_attribute_of_two_values_says_the_class(tmp_path, image):
    third = box(40, 1, 45, 5)
    attributes = {"id": (1, 2, 3), "what": ("b", "a", "b"), "by": ("me", "me", "me")}
    path = draw(tmp_path / "t.gpkg", [SOIL, TREE, third], **attributes)
    assert_read(path, image, (SOIL, 1), (TREE, 0), (third, 1))


def test_polygons_without_a_class_are_left_out(tmp_path, image):
    third = box(40, 1, 45, 5)
    for values in ([0, 1, np.nan], ["soil", "tree", None]):
        path = draw(tmp_path / "t.gpkg", [SOIL, TREE, third], **{"class": values})
        assert_read(path, image, (SOIL, 0), (TREE, 1))


def test_where_polygons_overlap_the_last_one_counts(tmp_path, image):
    over = box(5, 5, 25, 20)
    for first, last in ((0, 1), (1, 0)):
        polygons, values = [SOIL, TREE, over], (first, first, last)
        path = draw(tmp_path / "t.gpkg", polygons, **{"class": values})
        assert_read(path, image, (SOIL, first), (TREE, first), (over, last))


BOX = st.tuples(st.integers(0, 49), st.integers(0, 39), st.sampled_from([0, 1]))


@given(st.lists(BOX, min_size=2, max_size=9))
@settings(max_examples=25)
def test_polygons_are_drawn_in_their_order(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("truth")
    image = open_image(save(folder / "image.png", gradient(*SHAPE)))
    polygons = [SOIL, TREE, *(box(x, y, x + 7, y + 5) for x, y, _ in drawn)]
    values = [0, 1, *(value for *_, value in drawn)]
    path = draw(folder / "t.gpkg", polygons, **{"class": values})
    assert_read(path, image, *zip(polygons, values, strict=True))


def test_holes_parts_and_other_shapes_are_read(tmp_path, image, recwarn):
    parts = shapely.MultiPolygon([box(1, 1, 4, 4), box(6, 6, 9, 9)])
    holed = TREE - box(22, 10, 26, 20)
    other = [shapely.Point(3, 30), shapely.LineString([(0, 0), (9, 30)])]
    other += [None, shapely.Polygon(), shapely.force_3d(box(40, 1, 45, 5), 7)]
    values = (0, 1, 0, 1, 0, 1, 1)
    path = draw(tmp_path / "t.gpkg", [parts, holed, *other], **{"class": values})
    boxes = [(box(1, 1, 4, 4), 0), (box(6, 6, 9, 9), 0), (TREE, 1)]
    hole, last = (box(22, 10, 26, 20), UNLABELLED), (box(40, 1, 45, 5), 1)
    assert_read(path, image, *boxes, hole, last)
    assert not recwarn.list


def test_attributes_that_are_lists_or_dates_are_no_classes(tmp_path, image):
    features = [
        {
            "type": "Feature",
            "properties": {"class": c, "tags": ["a", "b"], "day": f"2026-01-0{c + 1}"},
            "geometry": shapely.geometry.mapping(polygon),
        }
        for c, polygon in enumerate([SOIL, TREE])
    ]
    collection = {"type": "FeatureCollection", "features": features}
    (tmp_path / "t.geojson").write_text(json.dumps(collection))
    assert_read(tmp_path / "t.geojson", image, (SOIL, 0), (TREE, 1))


def test_the_first_of_many_layers_is_read_without_a_warning(tmp_path, image, recwarn):
    path = draw(tmp_path / "t.gpkg", [SOIL, TREE], **{"class": (0, 1)})
    more = {"layer": "more", "append": True, "driver": "GPKG", "crs": "EPSG:4326"}
    point = shapely.to_wkb(np.array([shapely.Point(1, 1)]))
    raw.write(path, point, [], [], geometry_type="Point", **more)
    recwarn.clear()
    assert_read(path, image, (SOIL, 0), (TREE, 1))
    assert not recwarn.list


# ------------------------------------------------------------------ where


@pytest.mark.parametrize("suffix", DRIVERS)
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:32632"])
def test_polygons_of_a_map_may_be_in_any_coordinate_system(
    tmp_path, map_image, suffix, crs
):
    from rasterio.warp import transform

    def move(points):
        return np.stack(transform("EPSG:32633", crs, *points.T), 1)

    polygons = [shapely.transform(on_map(p), move) for p in (SOIL, TREE)]
    path = draw(tmp_path / f"t{suffix}", polygons, crs, **{"class": ("soil", "tree")})
    assert_read(path, map_image, (SOIL, 0), (TREE, 1))


def test_polygons_that_do_not_say_their_system_are_in_that_of_the_map(
    tmp_path, map_image
):
    path = draw(tmp_path / "t.gpkg", [on_map(SOIL), on_map(TREE)], **{"class": (0, 1)})
    assert_read(path, map_image, (SOIL, 0), (TREE, 1))


def test_a_geopackage_may_call_its_system_undefined(tmp_path, image):
    path = draw(tmp_path / "t.gpkg", [SOIL, TREE], **{"class": (0, 1)})
    for number in (-1, 0):  # both mean undefined, by the standard
        with sqlite3.connect(path) as file:
            for table in ("gpkg_geometry_columns", "gpkg_contents"):
                file.execute(f"UPDATE {table} SET srs_id = {number}")
        file.close()
        assert_read(path, image, (SOIL, 0), (TREE, 1))


@pytest.mark.parametrize("suffix", DRIVERS)
def test_qgis_draws_on_an_image_with_y_upwards(tmp_path, image, suffix):
    assert_read_upwards(tmp_path, image, suffix)
    nowhere = {"crs": None, "transform": Affine.identity()}  # a TIFF with no data
    image.place = nowhere
    assert_read_upwards(tmp_path, image, suffix)


def assert_read_upwards(tmp_path, image, suffix):
    polygons = [shapely.transform(p, lambda xy: xy * [1, -1]) for p in (SOIL, TREE)]
    path = draw(tmp_path / f"t{suffix}", polygons, **{"class": (0, 1)})
    assert_read(path, image, (SOIL, 0), (TREE, 1))


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"class": (1, 1)}, r"no attribute .class. with 2 values.* now is class: 1"),
        ({"class": (1, 2, 3)}, r"now is class: 3"),
        ({"class": (None, None)}, r"now is class: 0"),
        ({"id": (1, 2), "name": ("a", "b")}, r"now is id: 2, name: 2"),
        ({"id": (1, 2, 3), "name": ("a", "a", "a")}, r"now is id: 3, name: 1"),
        ({}, r"now is none"),
    ],
)
def test_what_does_not_tell_two_classes_is_refused(tmp_path, image, attributes, words):
    polygons = [SOIL, TREE, box(40, 1, 45, 5)]
    polygons = polygons[: max(map(len, attributes.values()), default=3)]
    refuse(draw(tmp_path / "t.gpkg", polygons, **attributes), image, words)


@pytest.mark.parametrize("suffix", DRIVERS)
def test_what_holds_no_polygons_is_refused(tmp_path, image, suffix):
    line = shapely.LineString([(0, 0), (9, 9)])
    path = draw(tmp_path / f"t{suffix}", [line, line], **{"class": (0, 1)})
    refuse(path, image, "holds no polygons")
    path = draw(tmp_path / f"e{suffix}", [], **{"class": ()})
    refuse(path, image, "holds no polygons")


@pytest.mark.parametrize("suffix", DRIVERS)
def test_a_damaged_file_is_refused(tmp_path, image, suffix):
    path = draw(tmp_path / f"t{suffix}", [SOIL, TREE], **{"class": (0, 1)})
    whole = path.read_bytes()
    for content in (b"", b"no polygons", whole[:70], whole[: len(whole) // 2]):
        path.write_bytes(content)
        refuse(path, image, r"cannot be read as polygons|holds no polygons|which attri")


ELSEWHERE = {
    "in another country": (box(-100, 40, -99, 41), "EPSG:4326"),
    "beyond the pole": (box(-100, 89, -99, 100), "EPSG:4326"),
    "nowhere": (box(1e12, 1e12, 2e12, 2e12), "EPSG:3035"),
    "in a system of its own": (SOIL, 'LOCAL_CS["local",UNIT["metre",1]]'),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_polygons_elsewhere_are_refused(tmp_path, map_image, where):
    polygon, crs = ELSEWHERE[where]
    path = draw(tmp_path / "t.gpkg", [polygon, polygon], crs, **{"class": (0, 1)})
    refuse(path, map_image, r"map\.tif \(are both of one place\?\)")


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
def test_polygons_of_a_map_do_not_go_with_an_image_that_is_none(
    tmp_path, image, suffix
):
    path = draw(
        tmp_path / f"t{suffix}", [SOIL, TREE], "EPSG:32633", **{"class": (0, 1)}
    )
    refuse(path, image, r"is in EPSG:32633, but .*image\.png has no coord")


# ------------------------------------------------------------------ commands


def squares(truth, side=8):
    """Cut a truth into squares of one class, in pixels: polygons and classes."""
    height, width = truth.shape
    polygons, values = [], []
    for top in range(0, height - side, side):
        for left in range(0, width - side, side):
            part = truth[top : top + side, left : left + side]
            if part.min() == part.max():
                polygons.append(box(left, top, left + side, top + side))
                values.append("tree" if part.max() else "other")
    return polygons, values


def test_a_training_by_polygons_is_one_by_their_picture(
    folder, scene, short_epochs, capsys
):
    polygons, values = squares(scene[1])
    draw(folder / "truth.gpkg", polygons, **{"class": values})
    assert train_here("--gt", "truth.gpkg", "--epochs", 1, "--model", "a.pt") == 0
    truth, _ = read_truth_of(open_image("data/rgb.png"), "truth.gpkg")
    alpha = np.where(truth == UNLABELLED, 0, 255).astype(np.uint8)
    save(
        "truth.png",
        np.dstack([np.where(truth == 1, 255, 0)] * 3 + [alpha]).astype("u1"),
    )
    assert train_here("--gt", "truth.png", "--epochs", 1, "--model", "b.pt") == 0
    first, second = (model_file.load(f).model.state_dict() for f in ("a.pt", "b.pt"))
    assert all((first[name] == second[name]).all() for name in first)
    assert capsys.readouterr().err == ""


def test_a_folder_of_polygons_belongs_to_a_folder_of_images(folder):
    for name in ("photos/a.png", "photos/b.png", "labels/a.gpkg", "labels/b.geojson"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    pairs = [tuple(map(str, pair)) for pair in find_pairs(["photos"], ["labels"])]
    assert pairs == [
        ("photos/a.png", "labels/a.gpkg"),
        ("photos/b.png", "labels/b.geojson"),
    ]


def test_a_map_is_trained_by_polygons_and_scored_by_them(
    folder, scene, short_epochs, capsys
):
    write_tiff("map.tif", scene[0], **place())
    polygons, values = squares(scene[1])
    path = folder / "truth.geojson"
    draw(path, list(map(on_map, polygons)), "EPSG:32633", **{"class": values})
    options = ["--rgb", "map.tif", "--gt", path]
    assert train_here(*options, "--epochs", 1) == 0
    assert model_file.load("model.pt").facts["pixel_side"] == pytest.approx(0.5)
    capsys.readouterr()
    assert predict_here("map.tif", "--output", "mask.tif", "--gt", path) == 0
    assert "accuracy" in capsys.readouterr().out


def test_a_truth_that_cannot_be_used_is_told_in_one_line(folder, capsys):
    draw(folder / "truth.shp", [SOIL, TREE], "EPSG:4326", **{"class": (0, 1)})
    shutil.copy("truth.shp", "alone.shp")  # without its other files
    for name in ("truth.shp", "alone.shp", "missing.gpkg"):
        assert train_here("--gt", name, "--epochs", 1) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {name}: ") and said.count("\n") == 1
    assert not (folder / "model.pt").exists()


def test_missing_libraries_are_named(folder, monkeypatch, capsys):
    draw(folder / "truth.gpkg", [SOIL, TREE], **{"class": (0, 1)})
    for library in ("shapely", "pyogrio"):
        monkeypatch.setattr(
            "onelabel.libraries.has", lambda name, gone=library: name != gone
        )
        assert train_here("--gt", "truth.gpkg", "--epochs", 1) == 2
        line = f"error: truth.gpkg: a file of polygons needs {library} (pip install -r "
        assert capsys.readouterr().err == f"{line}requirements/objects.txt)\n"


def test_polygons_may_reach_a_little_over_the_edge(tmp_path, image):
    above = [shapely.transform(p, lambda xy: xy * [1, -1]) for p in (SOIL, TREE)]
    above[0] = above[0].union(box(2, -10, 10, 3))  # three pixels above the image
    path = draw(tmp_path / "t.geojson", above, **{"class": (0, 1)})
    assert_read(path, image, (box(2, 0, 10, 10), 0), (TREE, 1))


def test_polygons_over_the_180th_meridian_come_back(tmp_path):
    where = {"crs": "EPSG:4326", "transform": Affine(1e-3, 0, 179.975, 0, -1e-3, 10)}
    image = open_image(write_tiff(tmp_path / "map.tif", gradient(*SHAPE), **where))
    path, drawn = (
        tmp_path / "t.geojson",
        np.array([box(1, 2, 49, 12), box(1, 20, 49, 30)]),
    )
    write_polygons(path, drawn, {"class": np.array([0, 1])}, image.place)
    assert_read(path, image, (drawn[0], 0), (drawn[1], 1))
