import os
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import zarr
from conftest import ROOT, hide_libraries
from conftest import predict_here as run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import BLACK_WHITE, COLOUR, gradient, place, write_tiff

import segutils
from onelabel import drawing, light, model_file, truth, writing
from onelabel.files import InputError
from onelabel.image import NODATA, UNLABELLED, InMemory
from onelabel.reading import open_image
from onelabel.store import Store
from onelabel.truth import read_truth


def write_mask(path, mask, colours):
    writing.write_mask(path, Store(mask), colours)


@settings(max_examples=150)
@given(
    suffix=st.sampled_from(writing.SUFFIXES),
    pair=st.tuples(COLOUR, COLOUR).filter(lambda p: p[0] != p[1]),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 99),
    grain=st.sampled_from((1, 2, 5)),
)
def test_mask_comes_back_exactly(tmp_path_factory, suffix, pair, size, seed, grain):
    """In a JPEG too, whatever the mask: noise of one pixel is the hardest."""
    height, width = size
    coarse = np.random.default_rng(seed).random((height, width)) < 0.5
    mask = np.kron(coarse, np.ones((grain, grain)))[:height, :width].astype(np.uint8)
    path = tmp_path_factory.mktemp("mask") / f"mask{suffix}"
    write_mask(path, mask, pair)
    rgb = np.array(Image.open(path).convert("RGB")).astype(int)
    jpeg = suffix in (".jpg", ".jpeg")
    gap = max(abs(a - b) for a, b in zip(*pair, strict=True))
    too_near = gap < writing.MIN_JPEG_GAP
    drawn = BLACK_WHITE if jpeg and too_near else pair
    away = [((rgb - np.array(c)) ** 2).sum(2) for c in drawn]
    np.testing.assert_array_equal(away[1] < away[0], mask)
    if not jpeg:
        assert (np.minimum(*away) == 0).all()


def test_near_colours_are_drawn_black_and_white_in_a_jpeg_alone():
    near, apart = ((9, 8, 0), (104, 8, 95)), ((9, 8, 0), (105, 8, 0))
    assert writing.drawn_colours("a.jpg", near).tolist() == [0, 255]
    assert writing.drawn_colours("a.png", near).tolist() == list(map(list, near))
    assert writing.drawn_colours("a.jpg", apart).tolist() == list(map(list, apart))
    assert writing.drawn_colours("a.png", ((7,) * 3, (9,) * 3)).tolist() == [7, 9]


def test_black_and_white_jpeg_by_a_plain_threshold(tmp_path):
    mask = (np.random.default_rng(0).random((101, 203)) < 0.5).astype(np.uint8)
    write_mask(tmp_path / "m.jpg", mask, BLACK_WHITE)
    image = Image.open(tmp_path / "m.jpg")
    assert image.mode == "L"
    np.testing.assert_array_equal(np.array(image) > 127, mask)


def test_jpeg_that_the_format_cannot_hold_is_refused(tmp_path):
    mask = np.zeros((1, 65_501), np.uint8)
    for name in ("m.jpg", "m.JPEG"):
        with pytest.raises(InputError, match=r"65501x1 pixels.*use \.png or \.tif"):
            write_mask(tmp_path / name, mask, BLACK_WHITE)
        assert not list(tmp_path.iterdir())
    write_mask(tmp_path / "m.png", mask, BLACK_WHITE)
    write_mask(tmp_path / "m.jpg", mask[:, 1:], BLACK_WHITE)


def test_probabilities_in_eight_bits_and_as_they_are(tmp_path):
    logits = np.linspace(-9, 9, 600, dtype=np.float32).reshape(20, 30)
    probability = segutils.sigmoid(logits)
    store = Store(np.zeros(logits.shape, np.uint8), logits)
    for suffix in writing.PROBABILITY_SUFFIXES:
        writing.write_probabilities(tmp_path / f"p{suffix}", store)
    png = np.array(Image.open(tmp_path / "p.png"))
    assert png.dtype == np.uint8
    assert abs(png / 255 - probability).max() < 0.5 / 255 + 1e-6
    for suffix in (".tif", ".tiff"):
        tiff = np.array(Image.open(tmp_path / f"p{suffix}"))
        np.testing.assert_array_equal(tiff, probability)


@pytest.mark.parametrize(
    ("suffix", "name"),
    [(".jpg", "JPEG"), (".JPG", "JPEG"), (".jpeg", "JPEG"), (".png", "PNG")]
    + [(".tif", "TIFF"), (".TIFF", "TIFF")],
)
def test_suffix_says_the_format(tmp_path, suffix, name):
    writing.write_picture(tmp_path / f"a{suffix}", gradient())
    image = Image.open(tmp_path / f"a{suffix}")
    assert image.format == name
    if name == "TIFF":
        assert "deflate" in image.info["compression"]
    if name == "JPEG":
        assert abs(np.asarray(image).astype(int) - gradient()).mean() < 4
    else:
        np.testing.assert_array_equal(np.asarray(image), gradient())


KINDS = {1: "L", 3: "RGB", 4: "RGBA"}  # channels: Pillow's mode


def random_picture(size, channels, seed, coarse):
    """A picture (H, W) or (H, W, channels): noise, or few values and equal rows."""
    rng = np.random.default_rng(seed)
    shape = size if channels == 1 else (*size, channels)
    values = rng.integers(0, 256, shape, np.uint8)
    return np.sort(values, 0) // 100 * 100 if coarse else values


def cut_at(picture, places):
    """Cut a picture into parts of some rows each; gives them one by one."""
    edges = sorted({0, len(picture), *(place % len(picture) for place in places)})
    return (picture[a:b] for a, b in pairwise(edges))


@settings(max_examples=200)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    channels=st.sampled_from(list(KINDS)),
    places=st.lists(st.integers(0, 89), max_size=6),
    seed=st.integers(0, 99),
    coarse=st.booleans(),
)
def test_a_png_written_by_rows_is_read_back_exactly(
    tmp_path_factory, size, channels, places, seed, coarse
):
    picture = random_picture(size, channels, seed, coarse)
    path = tmp_path_factory.mktemp("png") / "a.png"
    writing.write_rows(path, cut_at(picture, places), size)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.mode == KINDS[channels]
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert open_image(path).shape == size


@pytest.mark.parametrize("library", ["rasterio", "Pillow"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_picture_that_fails_half_way_leaves_the_old_file(
    tmp_path, monkeypatch, suffix, library
):
    if library == "Pillow":
        hide_libraries(monkeypatch)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")

    def rows():
        yield gradient()
        raise InputError("damaged")

    with pytest.raises(InputError, match="damaged"):
        writing.write_rows(path, rows(), (40, 31))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("library", ["rasterio", "Pillow"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_written_by_rows_is_read_back_exactly(
    tmp_path, monkeypatch, library, channels
):
    if library == "Pillow":
        hide_libraries(monkeypatch)
    picture = random_picture((600, 300), channels, 0, coarse=True)
    rows = cut_at(picture, [100, 244, 488])
    writing.write_rows(tmp_path / "a.tif", rows, (600, 300))
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == KINDS[channels]
        np.testing.assert_array_equal(np.asarray(image), picture)


# ------------------------------------------------------------------ maps


def test_a_map_keeps_its_place(trained_file):
    rgb = np.asarray(Image.open(ROOT / "data/rgb.png"))
    write_tiff("map.tif", rgb, **place(), tiled=True)
    assert run("map.tif", "--output", "mask.tif", "--probabilities", "p.tif") == 0
    Image.fromarray(rgb).save("plain.png")
    assert run("plain.png", "--output", "plain-mask.png") == 0
    with rasterio.open("mask.tif") as mask, rasterio.open("map.tif") as image:
        assert mask.crs == image.crs == rasterio.crs.CRS.from_epsg(32633)
        assert mask.transform == image.transform
        assert mask.bounds == image.bounds
        assert mask.dtypes == ("uint8",)
        assert mask.nodata == NODATA
        assert mask.overviews(1) == [2, 4]
        assert mask.block_shapes == [(256, 256)]
        assert mask.colormap(1)[1] == (250, 240, 0, 255)
        assert mask.compression.value == "DEFLATE"
        found = mask.read(1)
    np.testing.assert_array_equal(found, read_truth("plain-mask.png")[0])
    with rasterio.open("p.tif") as file:
        assert file.crs == rasterio.crs.CRS.from_epsg(32633)
        assert file.dtypes == ("float32",)
        probability = file.read(1)
    is_clear = probability != 0.5  # to which a tiny logit difference is rounded
    is_one = found == 1
    np.testing.assert_array_equal((probability > 0.5)[is_clear], is_one[is_clear])


@pytest.mark.parametrize("how", ["value", "alpha"])
def test_where_a_map_shows_nothing_there_is_no_class(trained_file, scene, how):
    rgb = scene[0].clip(1)
    rgb[:, 200:] = 0
    if how == "alpha":
        alpha = np.where(np.arange(230) < 200, 255, 0).astype(np.uint8)
        rgb = np.dstack([rgb, np.broadcast_to(alpha, (176, 230))])
        write_tiff("map.tif", rgb, **place(), photometric="RGB", alpha="YES")
    else:
        write_tiff("map.tif", rgb, **place(), nodata=0)
    assert run("map.tif", "--output", "mask.tif") == 0
    with rasterio.open("mask.tif") as file:
        mask = file.read(1)
    assert (mask[:, 200:] == NODATA).all()
    assert set(np.unique(mask[:, :200])) == {0, 1}
    assert run("map.tif", "--output", "mask.jpg") == 0
    drawn = open_image("mask.jpg").whole()
    assert (abs(drawn[:, 200:].astype(int) - [130, 130, 15]) < 8).all()


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("colours", [((0,) * 3, (255,) * 3), ((10, 20, 30), (0, 9, 0))])
def test_a_mask_of_a_map_can_be_read_back(
    trained_file, scene, monkeypatch, colours, suffix
):
    rgb = scene[0].clip(1)
    rgb[:, 200:] = 0
    write_tiff("map.tif", rgb, **place(), nodata=0)
    assert run("map.tif", "--output", "mask.zarr") == 0
    load = model_file.load
    monkeypatch.setattr(
        model_file, "load", lambda *args: load(*args)._replace(colours=colours)
    )
    assert run("map.tif", "--output", f"mask.{suffix}") == 0
    classes_found, found = read_truth(f"mask.{suffix}")
    by_brightness = sorted(range(2), key=lambda k: truth._brightness(colours[k]))
    assert found == tuple(colours[k] for k in by_brightness)
    classes = zarr.open_array("mask.zarr", mode="r")[:]
    assert (classes_found[:, 200:] == UNLABELLED).all()
    order = np.array(by_brightness)
    np.testing.assert_array_equal(order[classes_found[:, :200]], classes[:, :200])


def test_where_a_map_shows_nothing_the_mask_is_not_right(trained_file, scene, capsys):
    rgb = scene[0].clip(1)
    rgb[:, 200:] = 0
    write_tiff("map.tif", rgb, **place(), nodata=0)
    assert run("map.tif", "--output", "mask.tif", "--gt", "data/gt.png") == 0
    *_, line = capsys.readouterr().out.splitlines()
    with rasterio.open("mask.tif") as file:
        is_right = file.read(1) == scene[1]
    *_, recall, accuracy = line.split()
    assert recall == f"{is_right[scene[1] == 1].mean():.3f}"
    assert accuracy == f"{is_right.mean():.3f}"


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_map_without_data_gives_a_mask_without_classes(trained_file, scene):
    write_tiff("map.tif", np.zeros_like(scene[0]), **place(), nodata=0)
    assert run("map.tif", "--output", "mask.tif", "--overlay", "drawn.png") == 0
    with rasterio.open("mask.tif") as file:
        assert (file.read(1) == NODATA).all()
    assert not open_image("drawn.png").whole().any()


def test_what_shows_nothing_tells_nothing_of_the_light(model, scene):
    rgb, truth = scene
    looks = light.describe(model, [rgb], [truth])
    hidden = np.zeros(rgb.shape, bool)
    hidden[:, 150:] = True
    black, white = (
        np.ma.MaskedArray(np.where(hidden, v, rgb), hidden) for v in (0, 255)
    )
    black, white = black.astype(np.uint8), white.astype(np.uint8)
    one, other = (light.known_pixels(InMemory(v).sample()) for v in (black, white))
    np.testing.assert_array_equal(one, other)
    looking = partial(light.estimate, looks)
    assert looking(InMemory(black).sample()) == looking(InMemory(white).sample())
    nothing = np.ma.MaskedArray(rgb, True)
    assert looking(InMemory(nothing).sample()) == light.SAME
    same = light.in_light(model, looks, light.SAME)
    for name, value in model.normalise.state_dict().items():
        assert torch.equal(same.normalise.state_dict()[name], value)


def test_an_overlay_has_one_tint(trained_file, none_held, monkeypatch):
    rgb = np.full((1000, 300, 3), [60, 120, 60], np.uint8)
    rgb[:250] = drawing.TINTS[0]
    Image.fromarray(rgb).save("a.png")

    def stripes(_, rgb):
        return np.broadcast_to(np.arange(rgb.shape[1]) // 20 % 2, rgb.shape[:2])

    monkeypatch.setattr(segutils.Predictor, "segment", stripes)
    assert run("a.png", "--output", "mask.png", "--overlay", "drawn.png") == 0
    edge = open_image("drawn.png").whole()[:, 20]
    np.testing.assert_array_equal(edge, np.broadcast_to(drawing.TINTS[0], edge.shape))


# ------------------------------------------------------------------ Zarr


def test_a_mask_can_be_a_zarr_array(trained_file, scene):
    Image.fromarray(scene[0]).save("a.png")
    assert run("a.png", "--output", "mask.png") == 0
    for _ in range(2):  # once more, over the first
        assert run("a.png", "--output", "mask.zarr") == 0
        array = zarr.open_array("mask.zarr", mode="r")
        np.testing.assert_array_equal(array[:], read_truth("mask.png")[0])
    assert array.attrs["colours"] == [[10, 20, 30], [250, 240, 0]]
    names = {path.name for path in Path().iterdir()}
    assert names == {"a.png", "data", "mask.png", "mask.zarr", "model.pt"}


def test_the_suffix_of_a_zarr_array_may_be_large(trained_file, scene):
    Image.fromarray(scene[0]).save("a.png")
    for _ in range(2):
        assert run("a.png", "--output", "mask.ZARR") == 0
    assert zarr.open_array("mask.ZARR", mode="r").shape == (176, 230)


def test_a_maps_zarr_array_knows_its_place(trained_file, scene):
    write_tiff("map.tif", scene[0], **place(), nodata=0)
    assert run("map.tif", "--output", "mask.zarr", "--probabilities", "p.tif") == 0
    facts = zarr.open_array("mask.zarr", mode="r").attrs
    assert rasterio.crs.CRS.from_wkt(facts["crs"]).to_epsg() == 32633
    assert facts["transform"] == [0.5, 0, 5e5, 0, -0.5, 5e6]
    assert facts["nodata"] == NODATA


def test_what_is_no_zarr_array_is_not_overwritten(trained_file, scene, capsys):
    Path("notes.zarr").mkdir()
    Path("notes.zarr/mine.txt").write_text("mine")
    zarr.create_array("a.zarr", data=scene[0])
    assert run("a.zarr", "--output", "notes.zarr") == 2
    assert (
        "notes.zarr: exists, and is not a mask that this program wrote"
        in capsys.readouterr().err
    )
    assert run("a.zarr", "--output", "a.zarr") == 2
    assert "a.zarr: would overwrite the input a.zarr" in capsys.readouterr().err
    assert Path("notes.zarr/mine.txt").read_text() == "mine"
    np.testing.assert_array_equal(zarr.open_array("a.zarr", mode="r")[:], scene[0])


def tree():
    return {str(p): p.stat().st_mtime_ns for p in Path().rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("image", "output"),
    [
        ("group.zarr/0", "group.zarr"),
        ("group.zarr", "group.zarr/0"),
        ("a.zarr", "a.zarr/mask.zarr"),
        ("a.zarr", "a.zarr/c/mask.png"),
        ("a.zarr", "group.zarr"),
        ("a.zarr", "link.zarr"),
        ("a.zarr", "mask.zarr"),
    ],
)
def test_nothing_but_a_mask_is_replaced(trained_file, scene, capsys, image, output):
    group = zarr.create_group("group.zarr")
    for level in "01":
        group.create_array(level, data=scene[0])
    zarr.create_array("a.zarr", data=scene[0])
    assert run("a.zarr", "--output", "mask.zarr") == 0
    Path("mask.zarr/notes.txt").write_text("mine")
    Path("link.zarr").symlink_to("group.zarr")
    before = tree()
    capsys.readouterr()
    assert run(image, "--output", output) == 2
    assert capsys.readouterr().err.startswith(f"error: {output}")
    assert tree() == before
