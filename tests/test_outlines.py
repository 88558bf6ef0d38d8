"""The outlines of objects, and the files that hold them."""

import json
import os
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyogrio import raw
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform
from samples import MASKS, on_earth, rough
from skimage.measure import label

from onelabel import objects, outlines, vectors
from onelabel.files import InputError
from onelabel.store import Store


FORMATS = [".gpkg", ".geojson", ".shp"]


pytestmark = pytest.mark.usefixtures("low_strips")


def outlined(mask, place=None, logits=None):
    """Give the outlines of a mask's objects, and their table."""
    found = objects.find(Store(mask, logits), place)
    return outlines.outline(found), found.table


def drawn_again(polygons, shape):
    """Draw polygons, in pixels, with the numbers 1, 2, 3: (H, W) int."""
    drawn = np.zeros(shape, np.int32)
    if len(polygons):
        rasterize(zip(polygons, range(1, 1 + len(polygons)), strict=True), out=drawn)
    return drawn


def numbered(mask):
    """Number the objects of a mask: (H, W) int."""
    return label(mask == 1, connectivity=2)


def write(path, mask, place=None, logits=None):
    """Write the polygons of a mask as predict.py does; gives them and their table."""
    drawn, table = outlined(mask, place, logits)
    columns = {"class": np.ones_like(table["id"]), **table}
    vectors.write_polygons(path, drawn, columns, place)
    return drawn, columns


def read(path):
    """Read a file of polygons: what it says of them, the polygons, their columns."""
    meta, _, geometry, columns = raw.read(path, layer=0)
    fields = dict(zip(meta["fields"], columns, strict=True))
    return meta, shapely.from_wkb(geometry), fields


def in_pixels(polygons, crs, place):
    """Move polygons to the pixels of a map."""

    def move(points):
        x, y = transform(crs, place["crs"], *points.T)
        col, row = ~place["transform"] @ (np.array(x), np.array(y))
        return np.stack([col, row], 1)

    return shapely.transform(polygons, move)


# ------------------------------------------------------------------ outlines


@given(MASKS)
def test_outlines_are_valid_and_cover_exactly_the_objects(mask):
    drawn, table = outlined(mask)
    assert shapely.is_valid(drawn).all()
    np.testing.assert_array_equal(shapely.area(drawn), table["area_px"])
    np.testing.assert_array_equal(drawn_again(drawn, mask.shape), numbered(mask))


def test_an_outline_has_a_corner_only_where_it_turns():
    mask = np.zeros((23, 12), np.uint8)
    mask[3:20, 2:9] = 1  # in five strips
    mask[7:13, 4:7] = 0
    (outline,), _ = outlined(mask)
    assert shapely.get_num_coordinates(outline) == 2 * 5
    assert outline.bounds == (2, 3, 9, 20)


def test_parts_that_touch_at_a_corner_are_polygons_of_their_own():
    mask = np.kron(np.eye(2), np.ones((4, 4))).astype(np.uint8)
    (outline,), table = outlined(mask)
    assert table["area_px"].tolist() == [32]
    boxes = [shapely.box(0, 0, 4, 4), shapely.box(4, 4, 8, 8)]
    assert outline.equals(shapely.MultiPolygon(boxes))
    assert len(outline.geoms) == 2


@given(MASKS, st.sampled_from([0.1, 0.5, 1, 2.5, 20]))
@example(rough(11, 33, 1034, 0.6, 0), 5)  # two of its parts would overlap
def test_simpler_outlines_are_valid_and_near(mask, distance):
    drawn, _ = outlined(mask)
    simple = outlines.simplified(drawn, distance)
    assert shapely.is_valid(simple).all()
    corners = shapely.get_num_coordinates
    assert (corners(simple) <= corners(drawn)).all()
    lines, their = shapely.boundary(drawn), shapely.boundary(simple)
    # Twice: of each ring the first corner is looked at last, when others are gone.
    assert (shapely.hausdorff_distance(lines, their) <= 2 * distance + 1e-9).all()


def test_slanted_edges_are_simplified_to_few_corners():
    rows, cols = np.indices((40, 40))
    drawn, _ = outlined((abs(rows - cols / 2 - 10) < 7).astype(np.uint8))
    assert shapely.get_num_coordinates(drawn)[0] > 50
    simple = outlines.simplified(drawn, 1)
    assert shapely.get_num_coordinates(simple)[0] <= 10


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("suffix", FORMATS)
@given(MASKS)
@settings(max_examples=15)
def test_a_mask_without_a_map_comes_back_from_its_file(tmp_path_factory, suffix, mask):
    path = tmp_path_factory.mktemp("files") / f"objects{suffix}"
    write(path, mask)
    _, polygons, columns = read(path)
    np.testing.assert_array_equal(drawn_again(polygons, mask.shape), numbered(mask))
    assert len(polygons) == 0 or set(columns["class"]) == {1}


TURNED = {  # a map that was scanned askew
    **on_earth(),
    "transform": Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(2),
}
MAPS = {
    "metres": on_earth(),
    "turned": TURNED,
    "feet": on_earth("EPSG:2264", 3, corner=(1.5e6, 6e5)),
    "degrees": on_earth("EPSG:4326", 1e-5, corner=(15, 45)),
    "web": on_earth("EPSG:3857", 0.3, corner=(1.6e6, 5.6e6)),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", MAPS)
def test_a_map_comes_back_from_its_file(tmp_path, suffix, kind):
    mask, place = rough(40, 50, 3, 0.4, 0.02), MAPS[kind]
    write(tmp_path / f"objects{suffix}", mask, place)
    meta, polygons, _ = read(tmp_path / f"objects{suffix}")
    expected = "EPSG:4326" if suffix == ".geojson" else place["crs"].to_string()
    assert meta["crs"] == expected
    found = drawn_again(in_pixels(polygons, meta["crs"], place), mask.shape)
    np.testing.assert_array_equal(found, numbered(mask))


@pytest.mark.parametrize(
    "crs", ['LOCAL_CS["local",UNIT["metre",1]]', "+proj=eqc +R=1737400"]
)
def test_geojson_of_a_map_that_is_not_of_the_earth_is_refused(tmp_path, crs):
    mask, elsewhere = np.eye(9, dtype=np.uint8), on_earth(crs)
    with pytest.raises(InputError, match=r"o\.geojson: .* which are unknown"):
        write(tmp_path / "o.geojson", mask, elsewhere)
    for suffix in (".gpkg", ".shp"):
        write(tmp_path / f"o{suffix}", mask, elsewhere)
        _, polygons, _ = read(tmp_path / f"o{suffix}")
        assert polygons[0].bounds == (5e5, 5e6 - 4.5, 5e5 + 4.5, 5e6)


@pytest.mark.parametrize("suffix", FORMATS)
def test_features_have_the_columns_of_the_table(tmp_path, suffix):
    mask = rough(40, 50, 3, 0.4, 0)
    logits = np.random.default_rng(0).normal(0, 3, mask.shape).astype(np.float32)
    _, columns = write(tmp_path / f"objects{suffix}", mask, on_earth(), logits)
    assert {"class", "id", "mean_prob", "area_m2", "map_x"} < set(columns)
    assert np.isnan(columns["length_px"]).any()
    _, polygons, found = read(tmp_path / f"objects{suffix}")
    if suffix != ".shp":  # which does not tell the two kinds apart
        assert {polygon.geom_type for polygon in polygons} == {"MultiPolygon"}
    assert list(found) == list(columns)
    for name, values in columns.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9, err_msg=name)


def test_geojson_of_a_map_is_in_longitude_and_latitude_without_nan(tmp_path):
    mask = rough(40, 50, 3, 0.4, 0)
    _, columns = write(tmp_path / "objects.geojson", mask, on_earth())

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    text = (tmp_path / "objects.geojson").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert "crs" not in found
    assert len(found["features"]) == len(columns["id"])
    lengths = [one["properties"]["length_px"] for one in found["features"]]
    missing = np.isnan(columns["length_px"]).tolist()
    assert [length is None for length in lengths] == missing
    polygons = shapely.from_geojson(text).geoms
    assert all(abs(p.centroid.x - 15) < 1e-3 for p in polygons)
    assert all(abs(p.centroid.y - 45.153) < 1e-3 for p in polygons)


@pytest.mark.parametrize("suffix", FORMATS)
def test_without_a_map_coordinates_are_in_pixels_and_y_is_down(tmp_path, suffix):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:5, 10:18] = 1
    write(tmp_path / f"objects{suffix}", mask)
    meta, (outline,), _ = read(tmp_path / f"objects{suffix}")
    assert outline.bounds == (10, 3, 18, 5)
    if suffix != ".geojson":  # which has no other coordinate system
        assert meta["crs"] is None


@pytest.mark.parametrize("place", [None, on_earth()])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_mask_without_objects_gives_an_empty_file(tmp_path, suffix, place):
    write(tmp_path / f"objects{suffix}", np.zeros((12, 7), np.uint8), place)
    _, polygons, columns = read(tmp_path / f"objects{suffix}")
    assert len(polygons) == 0
    if suffix != ".geojson":  # whose columns are those of its features
        assert list(columns)[:3] == ["class", "id", "area_px"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_is_replaced(tmp_path, suffix):
    path = tmp_path / f"objects{suffix}"
    write(path, rough(40, 50, 3, 0.4, 0))
    write(path, np.eye(9, dtype=np.uint8))
    assert len(read(path)[1]) == 1


def test_nothing_of_an_old_shapefile_stays(tmp_path):
    """Its coordinate system and its index would be those of other polygons."""
    path = tmp_path / "objects.shp"
    write(path, rough(40, 50, 3, 0.4, 0), on_earth())
    assert path.with_suffix(".prj").exists()
    for suffix in (".sbn", ".sbx", ".qix"):
        path.with_suffix(suffix).write_text("an index")
    (tmp_path / "objects.txt").write_text("not of the shapefile")
    write(path, np.eye(9, dtype=np.uint8))
    suffixes = {".shp", ".shx", ".dbf", ".cpg", ".txt"}
    assert {p.suffix for p in tmp_path.iterdir()} == suffixes
    assert read(path)[0]["crs"] is None


def test_nothing_of_an_old_geopackage_that_is_open_stays(tmp_path):
    """SQLite would take it for changes of the new one."""
    path = tmp_path / "objects.gpkg"
    write(path, rough(40, 50, 3, 0.4, 0))
    with closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.execute("DELETE FROM objects WHERE id > 3")
        old.commit()
        assert (tmp_path / "objects.gpkg-wal").stat().st_size > 0
        write(path, np.kron(np.eye(9), [[1, 0], [0, 0]]).astype(np.uint8))
        assert os.listdir(tmp_path) == ["objects.gpkg"]
        assert len(read(path)[1]) == 9


@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("full")])
@pytest.mark.parametrize("suffix", FORMATS)
def test_nothing_is_half_written(tmp_path, monkeypatch, suffix, error):
    path = tmp_path / f"objects{suffix}"
    write(path, rough(40, 50, 3, 0.4, 0))
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    whole = raw.write

    def fails(*arguments, **options):
        whole(*arguments, **options)
        raise error

    monkeypatch.setattr(raw, "write", fails)
    with pytest.raises(InputError, match=rf"objects{suffix}: cannot be written \(full"):
        write(path, np.eye(9, dtype=np.uint8))
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("missing", [2, 700, 9000])
@pytest.mark.parametrize("suffix", [".geojson", ".shp"])
def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path, suffix, missing):
    path = tmp_path / f"objects{suffix}"
    mask = rough(90, 100, 3, 0.4, 0)
    write(path, mask)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[path]) - missing, limits[1]))
    try:
        with pytest.raises(InputError, match=rf"objects{suffix}: cannot be written \("):
            write(path, mask)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_file_that_a_link_points_to_is_replaced(tmp_path, suffix):
    path, link = tmp_path / f"objects{suffix}", tmp_path / f"elsewhere/link{suffix}"
    write(path, rough(40, 50, 3, 0.4, 0))
    link.parent.mkdir()
    link.symlink_to(path)
    write(link, np.eye(9, dtype=np.uint8))
    assert link.is_symlink()
    assert len(read(path)[1]) == 1
    assert os.listdir(link.parent) == [link.name]
    assert len({Path(p).stem for p in os.listdir(tmp_path)} - {"elsewhere"}) == 1


@pytest.mark.parametrize("name", ["A.GPKG", "A.GEOJSON", "A.SHP", "-gpkg_ä x.gpkg"])
def test_any_name_of_a_file_will_do(tmp_path, name):
    mask = np.ones((3, 4), np.uint8)
    found = objects.find(Store(mask))
    outline = outlines.outline(found)
    vectors.write_polygons(tmp_path / name, outline, found.table)
    _, _, geometry, _ = raw.read(tmp_path / name, layer=0)
    assert shapely.from_wkb(geometry[0]).area == 12
