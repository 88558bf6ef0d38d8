"""The objects as regions of interest, for ImageJ and for QuPath."""

import json
import zipfile

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from roifile import ImagejRoi
from samples import MASKS, rough
from skimage.draw import polygon2mask
from skimage.measure import label

from onelabel import objects, outlines
from onelabel.files import InputError
from onelabel.store import Store


pytestmark = pytest.mark.usefixtures("low_strips")


def write(path, mask, right=0, down=0):
    """Write the objects of a mask, moved by some pixels; gives their table."""
    found = objects.find(Store(mask))
    moved = [
        shapely.affinity.translate(o, right, down) for o in outlines.outline(found)
    ]
    outlines.write_rois(path, np.array(moved, object), found.table)
    return found.table


def pixels_of(roi, shape, right, down):
    """Give the pixels whose centres lie in an ImageJ ROI, by the even-odd rule."""
    inside = np.zeros(shape, bool)
    for ring in roi.coordinates(multi=True):
        x, y = ring.T.astype(float)
        inside ^= polygon2mask(shape, np.stack([y - down - 0.5, x - right - 0.5], 1))
    return inside


@given(MASKS, st.sampled_from([(0, 0), (32_760, 20), (60_530, 65_530), (700_000, 0)]))
@settings(max_examples=50)
def test_each_roi_of_imagej_covers_exactly_its_object(tmp_path_factory, mask, corner):
    path = tmp_path_factory.mktemp("rois") / "objects.zip"
    table = write(path, mask, *corner)
    names, rois = [], []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            names.append(name)
            rois.append(ImagejRoi.frombytes(archive.read(name)))
    ids = label(mask == 1, connectivity=2)
    assert names == [f"{number}.roi" for number in table["id"]]
    for number, roi in enumerate(rois, 1):
        assert roi.name == str(number)
        found = pixels_of(roi, mask.shape, *corner)
        np.testing.assert_array_equal(found, ids == number)


def test_an_object_with_holes_or_parts_is_one_composite_roi(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[2:9, 2:9] = mask[9:12, 9:12] = mask[15:18, 20:25] = 1
    mask[4:6, 4:6] = 0
    write(tmp_path / "objects.zip", mask)
    composite, plain = ImagejRoi.fromfile(tmp_path / "objects.zip")
    assert composite.composite and len(composite.coordinates(multi=True)) == 3
    assert (composite.left, composite.top) == (2, 2)
    assert (composite.right, composite.bottom) == (12, 12)
    assert not plain.composite
    assert (plain.left, plain.top) == (20, 15)


@given(MASKS)
@settings(max_examples=30)
def test_qupath_gets_exactly_the_objects(tmp_path_factory, mask):
    path = tmp_path_factory.mktemp("rois") / "objects.geojson"
    write(path, mask)
    features = json.loads(path.read_text())["features"]
    drawn = np.zeros(mask.shape, np.int32)
    for feature in features:
        assert shapely.is_valid(shapely.from_geojson(json.dumps(feature["geometry"])))
        number = int(feature["properties"]["name"])
        rasterize([(feature["geometry"], number)], out=drawn)
    np.testing.assert_array_equal(drawn, label(mask == 1, connectivity=2))


def test_qupath_gets_what_was_measured_and_no_nan(tmp_path):
    table = write(tmp_path / "objects.geojson", rough(40, 50, 3, 0.4, 0))

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    text = (tmp_path / "objects.geojson").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert found["type"] == "FeatureCollection"
    assert len(found["features"]) == len(table["id"])
    for index, feature in enumerate(found["features"]):
        assert feature["type"] == "Feature"
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert properties["classification"]["name"] == "class 1"
        measured = {name: column[index] for name, column in table.items()}
        expected = {name: v for name, v in measured.items() if not np.isnan(v)}
        assert properties["measurements"] == expected
    assert 0 < np.isnan(table["length_px"]).sum() < len(table["id"])  # of both kinds


def test_a_mask_without_objects_gives_empty_files(tmp_path):
    for name in ("objects.zip", "objects.geojson"):
        write(tmp_path / name, np.zeros((9, 9), np.uint8))
    with zipfile.ZipFile(tmp_path / "objects.zip") as archive:
        assert archive.namelist() == []
    found = json.loads((tmp_path / "objects.geojson").read_text())
    assert found == {"type": "FeatureCollection", "features": []}


@pytest.mark.parametrize("name", ["objects.zip", "objects.geojson"])
def test_nothing_is_half_written(tmp_path, monkeypatch, name):
    path = tmp_path / name
    write(path, rough(40, 50, 3, 0.4, 0))
    before = path.read_bytes()
    plain, done = (outlines._roi, outlines._measurements), []

    def fails(*given):
        done.append(given)
        if len(done) == 9:
            raise OSError("full")
        return plain[name.endswith("json")](*given)

    monkeypatch.setattr(outlines, "_roi", fails)
    monkeypatch.setattr(outlines, "_measurements", fails)
    with pytest.raises(InputError, match=rf"{name}: cannot be written \(full\)"):
        write(path, rough(40, 50, 4, 0.4, 0))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]
