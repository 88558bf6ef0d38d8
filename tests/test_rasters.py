"""GeoTIFF and Zarr of unusual kinds: what they show, and where on the earth."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from conftest import hide_libraries, predict_here
from PIL import Image
from rasterio.control import GroundControlPoint
from samples import blobs, place, write_tiff

from onelabel import depth
from onelabel.files import InputError
from onelabel.reading import open_image


def by_pillow(path):
    return np.asarray(Image.open(path).convert("L"))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE"])
def test_few_bits_and_a_white_zero_are_read_as_pillow_reads_them(
    tmp_path, bits, photometric, monkeypatch
):
    mask = blobs(40, 50) * np.uint8(2**bits - 1)
    kind = {"nbits": bits, "photometric": photometric}
    path = write_tiff(tmp_path / "a.tif", mask, **kind)
    grey = by_pillow(path)
    assert len(np.unique(grey)) == 2
    assert (open_image(path).whole() == grey[..., None]).all()
    hide_libraries(monkeypatch, "rasterio")
    assert (open_image(path).whole() == grey[..., None]).all()


def test_a_mask_of_one_bit_keeps_its_place(tmp_path):
    path = write_tiff(tmp_path / "a.tif", blobs(40, 50), nbits=1, **place())
    image = open_image(path)
    assert image.place["transform"] == place()["transform"]
    assert set(np.unique(image.whole())) == {0, 255}


def test_twelve_bits_are_read_as_they_are(tmp_path):
    values = blobs(40, 50).astype(np.uint16) * 4000
    path = write_tiff(tmp_path / "a.tif", values, nbits=12)
    image = open_image(path)
    assert image.dtype == np.uint16
    assert (image.pixels == values[..., None]).all()


def test_a_map_whose_place_would_be_lost_is_refused(tmp_path):
    inks = np.repeat(blobs(40, 50)[..., None] * 255, 4, 2)
    path = write_tiff(tmp_path / "a.tif", inks, photometric="CMYK", **place())
    with pytest.raises(InputError, match=r"a\.tif: a GeoTIFF of CMYK or turned pixels"):
        open_image(path)


def test_a_palette_of_many_colours_is_read(tmp_path):
    indices = blobs(40, 50).astype(np.uint16) * 300
    path = tmp_path / "a.tif"
    size = {"count": 1, "height": 40, "width": 50, "photometric": "palette"}
    with rasterio.open(path, "w", "GTiff", dtype="uint16", **size) as file:
        file.write(indices, 1)
        file.write_colormap(1, {0: (10, 20, 30, 255), 300: (200, 100, 50, 255)})
    image = open_image(path)
    assert image.dtype == np.uint8
    expected = np.where(indices[..., None] == 300, (200, 100, 50), (10, 20, 30))
    assert (image.whole() == expected).all()


def test_points_without_a_system_are_no_map(trained_file, scene, capsys):
    points = [GroundControlPoint(r, c, c, -r) for r, c in [(0, 0), (9, 0), (0, 9)]]
    write_tiff("a.tif", scene[0], gcps=points, crs=rasterio.crs.CRS())
    assert predict_here("a.tif", "--output", "m.tif") == 0
    with rasterio.open("m.tif") as file:
        assert len(file.gcps[0]) == 3


@pytest.mark.parametrize("shape", [(1, 50, 3), (2, 50, 3), (3, 1, 50)])
def test_a_zarr_array_of_few_rows_is_read(tmp_path, shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    zarr.create_array(tmp_path / "a.zarr", data=values)
    expected = values if shape[-1] == 3 else np.moveaxis(values, 0, -1)
    assert (open_image(tmp_path / "a.zarr").whole() == expected).all()


def test_a_pixel_has_no_data_where_all_its_channels_say_so(tmp_path):
    rgb = np.zeros((4, 5, 3), np.uint8)
    rgb[0, 0, 0] = 255  # red: two of its channels have the value of no data
    array = zarr.create_array(tmp_path / "a.zarr", data=rgb)
    array.attrs["nodata"] = 0
    hidden = np.ma.getmaskarray(open_image(tmp_path / "a.zarr").pixels)
    assert not hidden[0, 0].any()
    assert hidden.reshape(-1, 3)[1:].all()


@pytest.mark.parametrize("points", [False, True])
def test_a_mask_in_zarr_keeps_the_place_of_its_map(trained_file, scene, points):
    where = place()
    if points:
        corners = [(0, 0), (176, 0), (0, 230)]
        gcps = [GroundControlPoint(r, c, 5e5 + c, 5e6 - r) for r, c in corners]
        where = {"crs": where["crs"], "gcps": gcps}
    write_tiff("map.tif", scene[0], **where)
    line = ["map.tif", "--output", "m.zarr", "--polygons", "one.geojson"]
    assert predict_here(*line) == 0
    again = ["--from-mask", "m.zarr", "--polygons", "two.geojson"]
    assert predict_here(*again) == 0
    one, two = (json.loads(Path(f"{n}.geojson").read_text()) for n in ("one", "two"))
    for old, new in zip(one["features"], two["features"], strict=True):
        assert old["geometry"] == new["geometry"]
        assert old["properties"]["area_m2"] == new["properties"]["area_m2"]


@pytest.mark.parametrize("dtype", ["uint32", "float64"])
def test_large_values_keep_their_differences(tmp_path, dtype):
    ramp = np.arange(200)[:, None].repeat(50, 1)
    values = (ramp + 4_000_000_000).astype(dtype)
    image = open_image(write_tiff(tmp_path / "a.tif", values))
    image.use_scale(depth.fit_scale(depth.kind_of(image.dtype), image.raw_sample()))
    assert len(np.unique(image.whole())) > 150


def test_a_mask_in_zarr_keeps_its_colours(trained_file):
    assert predict_here("--output", "m.zarr") == 0
    assert predict_here("--from-mask", "m.zarr", "--output", "n.png") == 0
    assert predict_here("--output", "m.png") == 0
    assert (open_image("n.png").whole() == open_image("m.png").whole()).all()


def test_a_transform_alone_is_kept_in_zarr(trained_file, scene):
    write_tiff("a.tif", scene[0], transform=place()["transform"])
    assert predict_here("a.tif", "--output", "m.zarr") == 0
    found = open_image("m.zarr").place
    assert found == {"crs": None, "transform": place()["transform"]}
