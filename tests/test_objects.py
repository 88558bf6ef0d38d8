"""The objects of a mask: what is measured of them, against scikit-image."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import MASKS, place, rough
from skimage.measure import label, regionprops

from onelabel import lines, objects
from onelabel.files import InputError
from onelabel.image import NODATA
from onelabel.store import Store


pytestmark = pytest.mark.usefixtures("low_strips")


def found_in(mask, logits=None):
    """Give the table of a mask's objects."""
    return objects.find(Store(mask, logits)).table


@given(MASKS, st.integers(0, 99))
def test_what_is_measured_is_what_scikit_image_measures(mask, seed):
    logits = np.random.default_rng(seed).normal(0, 3, mask.shape).astype(np.float32)
    table = found_in(mask, logits)
    expected = regionprops(label(mask == 1, connectivity=2), 1 / (1 + np.exp(-logits)))
    assert table["id"].tolist() == [one.label for one in expected]
    assert table["area_px"].tolist() == [one.area for one in expected]
    sides = [table[side] for side in ("top", "left", "bottom", "right")]
    boxes = np.stack(sides, 1).tolist()
    assert boxes == [list(one.bbox) for one in expected]

    def equal(name, values):
        np.testing.assert_allclose(table[name], values, rtol=1e-5)

    equal("perim_px", [one.perimeter for one in expected])
    equal("y", [one.centroid[0] + 0.5 for one in expected])
    equal("x", [one.centroid[1] + 0.5 for one in expected])
    equal("mean_prob", [one.intensity_mean for one in expected])


def line(length, width, angle, shift=(0, 0)):
    """Draw a straight line: (n, n) bool."""
    half = int(length / 2 + width + 3)
    down, right = np.mgrid[-half:half, -half:half] - np.reshape(shift, (2, 1, 1))
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    return (abs(along) <= length / 2) & (abs(across) <= width / 2)


@pytest.mark.parametrize("width", [2, 3, 5, 8, 15])
@pytest.mark.parametrize("angle", [0, 10, 22.5, 30, 45, 60, 90, 135, 160])
def test_a_line_is_as_long_and_as_wide_as_it_was_drawn(width, angle):
    mask = line(150, width, np.radians(angle), (0.3, 0.2)).astype(np.uint8)
    table = found_in(mask)
    assert table["length_px"] == pytest.approx([150], rel=0.05)
    drawn = mask.sum() / 150  # pixels make it a little wider or narrower
    assert table["width_px"] == pytest.approx([drawn], rel=0.05)


def test_lines_of_one_pixel_and_rings_and_crosses():
    row = np.zeros((9, 60), np.uint8)
    row[4, 5:55] = 1
    assert found_in(row)["length_px"] == pytest.approx([50], rel=0.05)
    assert found_in(row)["width_px"] == pytest.approx([1], rel=0.05)
    down, right = np.mgrid[-60:60, -60:60]
    ring = (abs(np.hypot(down, right) - 50) <= 2).astype(np.uint8)
    assert found_in(ring)["length_px"] == pytest.approx([2 * np.pi * 50], rel=0.05)
    cross = line(100, 3, 0.2) | line(100, 3, 0.2 + np.pi / 2)
    assert lines.length(cross) == pytest.approx(200, rel=0.05)


def test_only_thin_objects_have_a_length():
    down, right = np.mgrid[-30:30, -30:30]
    disc = (np.hypot(down, right) < 25).astype(np.uint8)
    assert np.isnan(found_in(disc)["length_px"]).all()
    assert np.isnan(found_in(disc)["width_px"]).all()


def test_an_object_too_large_to_be_held_has_no_length(monkeypatch):
    monkeypatch.setattr(objects, "IN_MEMORY", 32)
    mask = np.zeros((30, 40), np.uint8)
    mask[3, 2:38] = mask[9, 0:30] = 1
    lengths = found_in(mask)["length_px"]
    assert np.isnan(lengths[0])
    assert lengths[1] == pytest.approx(30, rel=0.05)


def test_objects_that_are_as_tall_as_the_mask_are_measured_too():
    mask = np.zeros((90, 12), np.uint8)
    mask[2:88, 5] = mask[40, 7:9] = 1
    assert found_in(mask)["length_px"][0] == pytest.approx(86, rel=0.05)


def test_an_object_at_the_edge_is_marked():
    mask = np.zeros((20, 20), np.uint8)
    mask[0, 3] = mask[5, 5] = mask[9, 19] = mask[19, 9] = mask[14, 0] = 1
    assert found_in(mask)["at_edge"].tolist() == [1, 0, 1, 1, 1]


def test_a_mask_without_objects_has_an_empty_table(tmp_path):
    table = found_in(np.zeros((12, 7), np.uint8))
    assert all(len(column) == 0 for column in table.values())
    objects.write_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_text().startswith("id,area_px,perim_px,x,y")


def test_a_map_has_columns_in_metres():
    mask = np.zeros((20, 20), np.uint8)
    mask[4:6, 8:12] = 1
    table = objects.find(Store(mask), map_place()).table
    assert table["area_m2"] == pytest.approx([2])  # 8 pixels of half a metre
    assert table["perim_m"] == pytest.approx(table["perim_px"] / 2)
    assert table["map_x"] == pytest.approx([5e5 + 5])
    assert table["map_y"] == pytest.approx([5e6 - 2.5])


def map_place():
    """Where a map is, as images know it."""
    from rasterio.crs import CRS

    return {**place(), "crs": CRS.from_string(place()["crs"])}


def test_the_table_is_written_as_it_is(tmp_path):
    table = found_in(rough(40, 50, 3, 0.4, 0))
    objects.write_table(tmp_path / "t.csv", table)
    with open(tmp_path / "t.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["area_px"]) for row in rows] == table["area_px"].tolist()
    lengths = [float(row["length_px"] or "nan") for row in rows]
    np.testing.assert_allclose(lengths, table["length_px"], atol=1e-3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_label_image_holds_the_ids(tmp_path, suffix):
    mask = rough(40, 50, 3, 0.4, 0)
    path = Path(tmp_path, f"ids.{suffix}")
    objects.write_label_image(path, objects.find(Store(mask)))
    with Image.open(path) as file:
        np.testing.assert_array_equal(np.array(file), label(mask, connectivity=2))


def test_more_objects_than_a_png_numbers_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "MAX_PNG_OBJECTS", 2)
    found = objects.find(Store(rough(40, 50, 3, 0.1, 0)))
    with pytest.raises(InputError, match=r"ids.png: \d+ objects, but a PNG"):
        objects.write_label_image(tmp_path / "ids.png", found)
    objects.write_label_image(tmp_path / "ids.tif", found)


def test_lines_of_any_width_are_thin_from_four_times_their_width():
    for width, length in ((1, 17), (2, 9), (3, 13), (4, 17), (10, 41)):
        mask = np.zeros((width + 4, length + 4), np.uint8)
        mask[2 : 2 + width, 2 : 2 + length] = 1
        assert found_in(mask)["length_px"][0] > 0
    rows, cols = np.mgrid[-20:21, -20:21]
    for radius in range(20):
        disc = (rows**2 + cols**2 <= (radius + 0.5) ** 2).astype(np.uint8)
        assert np.isnan(found_in(disc)["length_px"][0])


def test_an_object_beside_pixels_without_data_may_be_larger():
    mask = np.zeros((30, 40), np.uint8)
    mask[:, :10] = NODATA
    mask[3:8, 10:15] = mask[12:18, 20:30] = 1
    assert found_in(mask)["at_edge"].tolist() == [1, 0]
