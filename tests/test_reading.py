import io
import os
import pickle
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from conftest import hide_libraries
from conftest import predict_here as run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from samples import (
    LOSSLESS,
    SIZE,
    gradient,
    in_format,
    picture,
    place,
    save,
    write_deep_png,
    write_tiff,
)

from onelabel import formats, libraries, reading
from onelabel.depth import INTEGERS, Scale
from onelabel.files import InputError
from onelabel.formats import read_by_pillow
from onelabel.image import Block, grid
from onelabel.reading import open_image
from onelabel.truth import read_truth


def read(path, **options):
    return open_image(path, **options).whole()


def by_pillow(path):
    return np.ma.getdata(read_by_pillow(path, None, False).pixels)


# ------------------------------------------------------------------ formats


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.tif", {}),
        ("a.tiff", {"compression": "tiff_lzw"}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_lossless_formats_come_back_exactly(tmp_path, name, options):
    path = save(tmp_path / name, gradient(), **options)
    rgb = read(path)
    np.testing.assert_array_equal(rgb, gradient())
    assert rgb.dtype == np.uint8
    rgb[0, 0] = 7  # the array is the caller's own


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_formats_come_back_nearly(tmp_path, name):
    rgb = read(save(tmp_path / name, gradient(), quality=95))
    assert abs(rgb.astype(int) - gradient()).mean() < 4


def test_grey_palette_and_one_bit_become_rgb(tmp_path):
    grey = gradient()[..., 2]
    three = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(read(save(tmp_path / "grey.png", grey)), three)
    np.testing.assert_array_equal(
        read(save(tmp_path / "palette.png", grey, "P")), three
    )
    bits = read(save(tmp_path / "bits.png", grey > 60))
    np.testing.assert_array_equal(bits[..., 0], np.where(grey > 60, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped(tmp_path, mode):
    image = Image.fromarray(gradient()).convert(mode)
    image.putalpha(Image.fromarray(gradient()[..., 0]))
    image.save(tmp_path / "a.png")
    opaque = Image.fromarray(gradient()).convert("L" if mode == "LA" else "RGB")
    np.testing.assert_array_equal(
        read(tmp_path / "a.png"), np.array(opaque.convert("RGB"))
    )


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb(tmp_path, name):
    rgb = read(save(tmp_path / name, gradient(), "CMYK"))
    assert abs(rgb.astype(int) - gradient()).mean() < 4


@pytest.mark.parametrize("library", ["rasterio and pyvips", "Pillow"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_of_grey_keep_their_depth(tmp_path, monkeypatch, name, library):
    deep = np.arange(0, 65_536, 97, np.uint16)[:600].reshape(20, 30)
    if library == "Pillow":
        hide_libraries(monkeypatch)
    image = open_image(save(tmp_path / name, deep))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.whole(), deep[..., None].repeat(3, 2))


@pytest.fixture
def deep():
    """Values of 16 bits whose low bytes tell something: (20, 31, 3)."""
    return gradient().astype(np.uint16) * 249 + np.arange(31, dtype=np.uint16)[:, None]


@pytest.mark.parametrize("write", [write_deep_png, write_tiff])
def test_sixteen_bits_of_colours_keep_their_depth(tmp_path, deep, write):
    image = open_image(write(tmp_path / "a", deep))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.whole(), deep)


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (write_deep_png, "a PNG of 16 bits and colours needs pyvips"),
        (write_tiff, "a TIFF of 16 bits and colours needs rasterio"),
    ],
)
def test_sixteen_bits_of_colours_are_never_cut_to_eight(
    tmp_path, monkeypatch, deep, write, line
):
    more = {"photometric": "RGB"} if write == write_tiff else {}
    path = write(tmp_path / "a", deep, **more)
    hide_libraries(monkeypatch)
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value) == f"{path}: {line} ({libraries.LARGE})"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_exif_turns_the_picture_upright(tmp_path, name, orientation):
    rows = np.linspace(0, 250, 24).astype(np.uint8)
    upright = np.repeat(np.repeat(rows[:, None], 40, 1)[..., None], 3, 2)
    upright[:8, :8] = 255  # one corner apart, so that every orientation differs
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = Image.fromarray(upright)
    stored = stored.transpose(method) if method is not None else stored
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / name, exif=exif)
    rgb = read(tmp_path / name)
    assert rgb.shape == upright.shape
    assert abs(rgb.astype(int) - upright).mean() < 3


def broken(path, how):
    if how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not an image")
    elif how == "truncated":
        save(path, np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8))
        path.write_bytes(path.read_bytes()[:6000])
    elif how == "folder":
        path.mkdir()
    elif how == "gif":
        buffer = io.BytesIO()
        Image.fromarray(gradient()).save(buffer, "GIF")
        path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "no such file"),
        ("empty", "is not an image that can be read"),
        ("text", "is not an image that can be read"),
        ("gif", "is not an image that can be read"),
        ("truncated", "damaged image"),
        ("folder", "is a folder"),
    ],
)
def test_what_is_no_image_is_told_in_one_line(tmp_path, how, words):
    path = broken(tmp_path / "a.png", how)
    with pytest.raises(InputError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=words):
        read_truth(path)


def test_odd_but_readable_files_are_read_without_a_word(tmp_path):
    """A palette with transparency, as Pillow would warn of."""
    image = Image.fromarray(gradient()[..., 0]).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rgb = read(tmp_path / "a.png")
    np.testing.assert_array_equal(rgb[..., 0], gradient()[..., 0])


@pytest.mark.parametrize("reader", [read, read_truth])
def test_the_limit_may_be_far_above_pillows(tmp_path, monkeypatch, reader):
    path = save(tmp_path / "a.png", gradient())
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    hide_libraries(monkeypatch)

    def load(_):
        raise ValueError("loaded")

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(InputError, match=r"damaged image \(loaded\)"):
        reader(path, max_pixels=4 * 10**9)
    with pytest.raises(InputError, match="60000x60000: more than 1,000,000,000 pixels"):
        reader(path)


@pytest.mark.parametrize("library", ["any", "Pillow"])
@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "RGB"), ("a.tif", "1"), ("a.bmp", "RGB"), ("a.jpg", "CMYK")],
)
def test_pillows_own_limit_counts_for_nothing(
    tmp_path, monkeypatch, name, mode, library
):
    if library == "Pillow":
        hide_libraries(monkeypatch)
    path = save(tmp_path / name, gradient(), mode)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        assert open_image(path).shape == (20, 31)
    assert Image.MAX_IMAGE_PIXELS == 100  # other users of Pillow keep it


def test_a_limit_may_be_given_and_reached(tmp_path):
    path = save(tmp_path / "a.png", gradient())
    assert read(path, max_pixels=620).shape == (20, 31, 3)
    with pytest.raises(InputError, match=r"^/.*a\.png: 31x20: more than 619 pixels"):
        read(path, max_pixels=619)


@pytest.mark.parametrize("height", [1, 256, 257, 700])
def test_any_number_of_rows_is_converted(tmp_path, height):
    grey = np.random.default_rng(0).integers(0, 256, (height, 5), np.uint8)
    path = save(tmp_path / "a.png", grey)
    np.testing.assert_array_equal(read(path), grey[..., None].repeat(3, 2))


def test_modes_without_red_green_and_blue_are_refused():
    with pytest.raises(InputError) as caught:
        formats._pillow_pixels("a.tif", Image.new("La", (2, 2)))
    message = "a.tif: colours of mode La are not read (save as RGB)"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (MemoryError(), MemoryError, None),
        (OSError("decoder: out of memory"), MemoryError, None),
        (OSError(5, "Input/output error"), InputError, "cannot be read"),
        (OSError("broken data stream"), InputError, "damaged image"),
        (ValueError("odd"), InputError, r"damaged image \(odd\)"),
    ],
)
def test_what_decoding_ends_with_is_told(tmp_path, monkeypatch, error, raised, words):
    path = save(tmp_path / "a.png", gradient())

    def fails(_):
        raise error

    hide_libraries(monkeypatch)
    monkeypatch.setattr(Image.Image, "load", fails)
    with pytest.raises(raised, match=words) as caught:
        read(path)
    if raised is InputError:
        assert str(caught.value).startswith(f"{path}: ")


@settings(max_examples=150)
@given(
    kind=st.sampled_from(LOSSLESS),
    size=SIZE,
    seed=st.integers(0, 99),
)
def test_any_size_mode_and_format_is_read_as_it_is(tmp_path_factory, kind, size, seed):
    name, mode = kind
    values = np.random.default_rng(seed).integers(0, 256, (*size, 4), np.uint8)
    if mode == "I;16":
        deep = values[..., 0].astype(np.uint16) << 8 | values[..., 1]
        image, expected = Image.fromarray(deep), deep[..., None].repeat(3, 2)
    else:
        image = Image.fromarray(values).convert("RGBA" if mode == "RGBA" else "RGB")
        image = image.convert(mode)
        expected = np.array(image.convert("RGB"))
    path = tmp_path_factory.mktemp("any") / "image"
    path.write_bytes(in_format(image, name))
    np.testing.assert_array_equal(read(path), expected)


# ------------------------------------------------------------------ any block


FILES = [
    *(("png", mode) for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "I;16")),
    *(("jpg", mode) for mode in ("RGB", "L", "CMYK")),
    *(("tif", mode) for mode in ("RGB", "L", "1", "P", "RGBA", "I;16", "CMYK")),
    *(("webp", mode) for mode in ("RGB", "RGBA")),
]


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("suffix", "mode"), FILES)
def test_every_kind_is_read_as_pillow_reads_it(
    tmp_path, monkeypatch, suffix, mode, held
):
    monkeypatch.setattr(reading, "IN_MEMORY", 10**9 if held else 0)
    path = tmp_path / f"a.{suffix}"
    picture(mode).save(path)
    expected = by_pillow(path)
    image = open_image(path)
    assert image.shape == expected.shape[:2]
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image.whole(), expected)
    for top, bottom, left, right in [(0, 50, 0, 301), (44, 90, 3, 40), (10, 190, 0, 9)]:
        part = image.read(Block(top, left, bottom, right))
        np.testing.assert_array_equal(part, expected[top:bottom, left:right])


def test_a_colour_space_that_rasterio_leaves_as_it_is_becomes_rgb(tmp_path):
    for mode in ("LAB", "YCbCr"):
        picture("RGB").convert(mode).save(tmp_path / "a.tif")
        found = read(tmp_path / "a.tif").astype(int)
        assert abs(found - by_pillow(tmp_path / "a.tif")).max() <= 1  # of rounding


def test_an_image_that_was_pickled_is_opened_where_it_arrives(tmp_path, none_held):
    scale = Scale(INTEGERS, (0.0,) * 3, (7.0,) * 3)
    for suffix in ("png", "tif"):
        picture("I;16").save(tmp_path / f"a.{suffix}")
        image = open_image(tmp_path / f"a.{suffix}")
        image.use_scale(scale)
        again = pickle.loads(pickle.dumps(image))
        assert again.scale == scale
        np.testing.assert_array_equal(again.whole(), image.whole())


def test_a_turned_photograph_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture("RGB").save(tmp_path / "a.jpg", exif=exif)
    image = open_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(image.whole(), by_pillow(tmp_path / "a.jpg"))
    assert image.shape == (301, 190)


def add_chunk(path, name, data):
    """Add a chunk to a PNG, behind its pixels."""
    content = path.read_bytes()
    chunk = name + data
    chunk = struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:-12] + chunk + content[-12:])  # IEND takes 12 bytes


def test_a_png_turned_by_what_follows_its_pixels_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture("RGB").save(tmp_path / "a.png")
    add_chunk(tmp_path / "a.png", b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    image = open_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.whole(), by_pillow(tmp_path / "a.png"))
    assert image.shape == (301, 190)


def test_a_png_is_opened_without_decoding_it(tmp_path, monkeypatch):
    picture("RGB").save(tmp_path / "a.png")
    add_chunk(tmp_path / "a.png", b"tEXt", b"Comment\0nothing of its orientation")

    decoded = []
    monkeypatch.setattr(PngImageFile, "load", lambda self: decoded.append(self))
    image = open_image(tmp_path / "a.png")
    assert image.read(Block(0, 0, 10, 10)).shape == (10, 10, 3)
    assert not decoded


def test_sixteen_bit_bands_are_chosen(tmp_path):
    values = np.random.default_rng(0).integers(0, 2**16, (40, 50, 5), np.uint16)
    write_tiff(tmp_path / "a.tif", values)
    image = open_image(tmp_path / "a.tif", [5, 1, 3])
    np.testing.assert_array_equal(image.whole(), values[..., [4, 0, 2]])
    with pytest.raises(InputError, match=r"a\.tif: has 5 bands, too few for 6,1,3 "):
        open_image(tmp_path / "a.tif", [6, 1, 3])


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("library", ["any", "Pillow"])
@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "zarr"])
def test_bands_of_any_format_are_chosen(tmp_path, monkeypatch, suffix, library):
    path, rgb = tmp_path / f"a.{suffix}", np.asarray(picture("RGB"))
    if suffix == "zarr":
        zarr.create_array(path, data=rgb)
    else:
        save(path, rgb, lossless=True)
        if library == "Pillow":
            hide_libraries(monkeypatch)
    np.testing.assert_array_equal(read(path, channels=[3, 1, 1]), rgb[..., [2, 0, 0]])
    with pytest.raises(
        InputError, match=f"a.{suffix}: has 3 bands, too few for 1,2,4 "
    ):
        open_image(path, [1, 2, 4])


# ------------------------------------------------------------------ Zarr


@pytest.mark.parametrize("shape", [(3, 60, 70), (60, 70, 3), (1, 3, 1, 60, 70)])
def test_zarr_is_read_with_its_channels_first_or_last(tmp_path, shape):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    array = zarr.create_array(tmp_path / "a.zarr", data=values, chunks="auto")
    assert array.shape == shape
    flat = values.squeeze()
    expected = flat if flat.shape[2] == 3 else np.moveaxis(flat, 0, -1)
    image = open_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(image.whole(), expected)


def of_axes(rgb, axes):
    """An array of such axes that shows an image (H, W, 3), first in time and depth."""
    shape = {"t": 2, "c": 3, "z": 2, "y": rgb.shape[0], "x": rgb.shape[1]}
    array = np.full([shape[axis] for axis in axes], 99, np.uint8)
    order = np.transpose(rgb, ["yxc".index(axis) for axis in axes if axis in "yxc"])
    array[tuple(0 if axis in "tz" else slice(None) for axis in axes)] = order
    return array


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "yxc", "zyxc", "czyx", "tcyx", "tczyx", "xyc"])
def test_the_axes_of_ome_zarr_are_those_of_its_metadata(tmp_path, axes, version):
    rgb = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    scales = [{"axes": [{"name": axis} for axis in axes], "version": version}]
    facts = {"multiscales": scales}
    group = zarr.create_group(
        tmp_path / "a.zarr",
        attributes={"ome": facts} if version == "0.5" else facts,
        zarr_format=2 if version == "0.4" else 3,
    )
    group.create_array("0", data=of_axes(rgb, axes))
    image = open_image(tmp_path / "a.zarr")
    assert image.shape == (60, 70)
    np.testing.assert_array_equal(image.whole(), rgb)
    np.testing.assert_array_equal(image.read(Block(4, 5, 30, 9)), rgb[4:30, 5:9])


@pytest.mark.parametrize("axes", ["cyx", "yxc", "czyx", "tczyx"])
def test_the_axes_of_another_zarr_array_are_known_by_their_number(tmp_path, axes):
    rgb = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    group = zarr.create_group(tmp_path / "a.zarr", attributes={"multiscales": "odd"})
    group.create_array("0", data=of_axes(rgb, axes))
    image = open_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(image.whole(), rgb)


def test_of_a_pyramid_the_largest_array_is_read(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    for name, side in [("10", 20), ("2", 80), ("3", 40)]:
        group.create_array(name, data=np.zeros((side, side), np.uint8))
    group.create_group("labels").create_array("0", data=np.zeros((99, 99), np.uint8))
    assert open_image(tmp_path / "a.zarr").shape == (80, 80)


def test_the_first_image_of_a_collection_is_read(tmp_path):
    first = zarr.create_group(tmp_path / "a.zarr").create_group("0")
    first.create_array("0", data=np.zeros((80, 80), np.uint8))
    assert open_image(tmp_path / "a.zarr").shape == (80, 80)


@pytest.mark.parametrize("shape", [(), (9,), (2, 2, 2, 2, 9, 9)])
def test_other_zarr_arrays_are_refused(tmp_path, shape):
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=r"an array of shape \("):
        open_image(tmp_path / "a.zarr")


def test_a_zarr_group_without_arrays_is_refused(tmp_path):
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(InputError, match=r"a.zarr: is no Zarr array \("):
        open_image(tmp_path / "a.zarr")


def test_a_damaged_chunk_is_told(trained_file, scene, capsys):
    zarr.create_array("a.zarr", data=scene[0])
    (chunk,) = [p for p in Path("a.zarr/c").rglob("*") if p.is_file()]
    chunk.write_bytes(b"garbage")
    assert run("a.zarr", "--output", "m.png") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a.zarr: damaged image (")


# ------------------------------------------------------------------ by the command


@pytest.mark.parametrize("text", ["1,2", "0,1,2", "a,b,c", "1,2,3,4"])
def test_other_bands_are_refused(folder, capsys, text):
    assert run("data/rgb.png", "--bands", text) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{text}: expected three numbers from 1, as 3,2,1" in line


@pytest.mark.parametrize(
    ("what", "missing"), [("zarr", "zarr"), ("big", "rasterio"), ("map", "rasterio")]
)
def test_a_library_that_is_missing_is_asked_for(
    trained_file, monkeypatch, capsys, what, missing
):
    if what == "zarr":
        zarr.create_array("a.zarr", data=np.zeros((9, 9, 3), np.uint8))
        name = "a.zarr"
    else:
        name = "a.tif"
        more = {"BIGTIFF": "YES"} if what == "big" else place()
        write_tiff(name, np.zeros((9, 9, 3), np.uint8), **more)
    hide_libraries(monkeypatch, missing)
    assert run(name, "--output", "mask.png") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"needs {missing} ({libraries.LARGE})" in said


@pytest.mark.parametrize(
    ("missing", "outputs", "named"),
    [
        ("zarr", {"output": "m.tif"}, "map.tif"),
        ("zarr", {"output": "m.png"}, "map.tif"),
        ("rasterio", {"output": "m.tif"}, "m.tif"),
        ("rasterio", {"output": "m.png", "overlay": "o.tif"}, "o.tif"),
        ("rasterio", {"output": "m.zarr", "probabilities": "p.tif"}, "p.tif"),
    ],
)
def test_what_a_large_image_needs_is_told_before_any_work(
    trained_file, scene, none_held, monkeypatch, capsys, missing, outputs, named
):
    name = "data/rgb.png" if missing == "rasterio" else "map.tif"
    write_tiff("map.tif", scene[0], **place())
    before = sorted(os.listdir())
    hide_libraries(monkeypatch, missing)
    options = [part for key in outputs for part in (f"--{key}", outputs[key])]
    assert run(name, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: (data/rgb.png|{named}): ", line)
    assert line.endswith(f" needs {missing} ({libraries.LARGE})")
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("missing", ["pyvips", "rasterio"])
def test_a_large_png_gives_the_same_mask_without_the_library(
    trained_file, none_held, monkeypatch, missing
):
    for name in ("with", "without"):
        outputs = ["--output", f"{name}.png", "--overlay", f"{name}.jpg"]
        assert run("data/rgb.png", *outputs) == 0
        hide_libraries(monkeypatch, missing)
    for suffix in (".png", ".jpg"):
        one, other = (Path(n + suffix).read_bytes() for n in ("with", "without"))
        assert one == other


def test_ordinary_images_need_no_library(trained_file, monkeypatch):
    assert run("--output", "with.png") == 0
    hide_libraries(monkeypatch)
    assert run("--output", "alone.png") == 0
    assert Path("alone.png").read_bytes() == Path("with.png").read_bytes()


def test_too_many_pixels_are_refused_by_the_header(trained_file, capsys):
    assert run("--max-pixels", 1000) == 2
    assert (
        "230x176: more than 1,000 pixels (a decompression bomb"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_file_that_ends_early_is_told(trained_file, none_held, capsys, scene, suffix):
    with io.BytesIO() as file:
        Image.fromarray(scene[0]).save(
            file, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, "PNG")
        )
        Path(f"cut.{suffix}").write_bytes(file.getvalue()[:5000])
    before = sorted(os.listdir())
    assert run(f"cut.{suffix}", "--output", "mask.png") == 2
    said = capsys.readouterr().err
    assert f"error: cut.{suffix}: damaged image" in said.splitlines()[-1]
    assert sorted(os.listdir()) == before


def test_a_truth_of_too_many_pixels_is_refused_by_its_header(trained_file, capsys):
    Image.new("1", (1000, 1000)).save("large.png")
    options = ["--gt", "large.png", "--max-pixels", 100_000, "--output", "mask.png"]
    assert run("data/rgb.png", *options) == 2
    assert "large.png: 1000x1000: more than 100,000 pixels" in capsys.readouterr().err


def test_many_threads_read_a_tiff(tmp_path, none_held):
    pixels = np.random.default_rng(0).integers(0, 255, (1500, 1600, 3)).astype(np.uint8)
    path = tmp_path / "a.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=1600,
        height=1500,
        count=3,
        dtype="uint8",
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="deflate",
    ) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    image = reading.open_image(path)
    parts = 5 * grid(image.shape, 500, 500)
    with ThreadPoolExecutor(8) as pool:
        for part, read in zip(parts, pool.map(image.read, parts), strict=True):
            assert (read == pixels[part.slices]).all()
