import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import images
from cli import InputError


BLACK_WHITE = ((0, 0, 0), (255, 255, 255))


def picture(height=20, width=31):
    """An image that is neither square nor the same when turned."""
    rows, cols = np.indices((height, width))
    rgb = np.stack([8 * rows, 8 * cols, 4 * (rows + cols)], 2)
    return rgb.astype(np.uint8)


def blobs(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 8 + 1, width // 8 + 1)) < 0.4
    return np.kron(coarse, np.ones((8, 8), np.uint8))[:height, :width].astype(np.uint8)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


# ------------------------------------------------------------------ in


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
    path = save(tmp_path / name, picture(), **options)
    rgb = images.read_rgb(path)
    np.testing.assert_array_equal(rgb, picture())
    assert rgb.dtype == np.uint8
    rgb[0, 0] = 7  # the array is the caller's own


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_formats_come_back_nearly(tmp_path, name):
    rgb = images.read_rgb(save(tmp_path / name, picture(), quality=95))
    assert abs(rgb.astype(int) - picture()).mean() < 4


def test_grey_palette_and_one_bit_become_rgb(tmp_path):
    grey = picture()[..., 2]
    three = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(
        images.read_rgb(save(tmp_path / "grey.png", grey)), three
    )
    np.testing.assert_array_equal(
        images.read_rgb(save(tmp_path / "palette.png", grey, "P")), three
    )
    bits = images.read_rgb(save(tmp_path / "bits.png", grey > 60))
    np.testing.assert_array_equal(bits[..., 0], np.where(grey > 60, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped(tmp_path, mode):
    image = Image.fromarray(picture()).convert(mode)
    image.putalpha(Image.fromarray(picture()[..., 0]))
    image.save(tmp_path / "a.png")
    opaque = Image.fromarray(picture()).convert("L" if mode == "LA" else "RGB")
    np.testing.assert_array_equal(
        images.read_rgb(tmp_path / "a.png"), np.array(opaque.convert("RGB"))
    )


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb(tmp_path, name):
    rgb = images.read_rgb(save(tmp_path / name, picture(), "CMYK"))
    assert abs(rgb.astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path, name):
    deep = np.arange(0, 65_536, 97, np.uint16)[:600].reshape(20, 30)
    rgb = images.read_rgb(save(tmp_path / name, deep))
    np.testing.assert_array_equal(rgb[..., 0], deep >> 8)
    assert (rgb == rgb[..., :1]).all()


def test_sixteen_bit_rgb_is_scaled_alike(tmp_path):
    path = tmp_path / "a.tif"
    deep = np.stack([np.arange(600, dtype=np.uint16).reshape(20, 30) * 100] * 3, 2)
    write_deep_tiff(path, deep)
    np.testing.assert_array_equal(images.read_rgb(path), deep >> 8)


def write_deep_tiff(path, deep):
    """Write a 16-bit RGB TIFF by hand, as Pillow cannot."""
    height, width, _ = deep.shape
    data = deep.astype("<u2").tobytes()
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, 8 + len(data)),  # bits per sample, behind the pixels
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 3, 1, height),
        (279, 4, 1, len(data)),
    ]
    bits = np.array([16, 16, 16], "<u2").tobytes()
    head = b"II*\0" + np.uint32(8 + len(data) + 6).tobytes()
    directory = np.uint16(len(tags)).tobytes()
    for tag, kind, count, value in tags:
        directory += np.array([tag, kind], "<u2").tobytes()
        directory += np.array([count, value], "<u4").tobytes()
    path.write_bytes(head + data + bits + directory + bytes(4))


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
    rgb = images.read_rgb(tmp_path / name)
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
    elif how == "float":
        save(path.with_suffix(".tif"), picture()[..., 0].astype(np.float32))
        return path.with_suffix(".tif")
    elif how == "gif":
        buffer = io.BytesIO()
        Image.fromarray(picture()).save(buffer, "GIF")
        path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "no such file"),
        ("empty", "no image that can be read"),
        ("text", "no image that can be read"),
        ("gif", "no image that can be read"),
        ("truncated", "damaged image"),
        ("folder", "is a folder"),
        ("float", "range is not known"),
    ],
)
def test_what_is_no_image_is_told_in_one_line(tmp_path, how, words):
    path = broken(tmp_path / "a.png", how)
    with pytest.raises(InputError, match=words) as caught:
        images.read_rgb(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if how != "float":  # 0.0 and 1.0 may well be a truth
        with pytest.raises(InputError, match=words):
            images.read_truth(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_every_refusal_of_a_truth_names_its_file(tmp_path, name):
    """Whichever function finds out: of 8 bits, of 16, of modes that are not read."""
    deep = np.arange(60, dtype=np.uint16).reshape(6, 10)
    for index, (array, mode) in enumerate(
        [(deep.astype(np.uint8), None), (deep, None), (deep.astype(np.uint8), "LAB")]
    ):
        path = tmp_path / f"{index}{name}"
        if mode == "LAB" and path.suffix == ".png":
            continue  # there are none
        save(path, np.stack([array] * 3, 2) if mode else array, mode)
        with pytest.raises(InputError) as caught:
            images.read_truth(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_what_is_found_instead_of_two_classes_is_listed(tmp_path):
    for count, more in ((6, ""), (7, ", ...")):
        grey = np.arange(count, dtype=np.uint8)[None].repeat(4, 0)
        path = save(tmp_path / "a.png", np.uint16(grey) * 300)
        with pytest.raises(InputError) as caught:
            images.read_truth(path)
        assert str(caught.value) == (
            f"{path}: {count} values found, expected 2 (0, 300, 600, 900, 1200, 1500"
            f"{more}; draw each class in one colour, and save as PNG)"
        )


def test_odd_but_readable_files_are_read_without_a_word(tmp_path):
    """A palette with transparency, as Pillow would warn of."""
    image = Image.fromarray(picture()[..., 0]).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rgb = images.read_rgb(tmp_path / "a.png")
    np.testing.assert_array_equal(rgb[..., 0], picture()[..., 0])


def test_more_pixels_than_the_limit_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", picture())  # 620 pixels
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 600)
    with pytest.raises(InputError, match="more than 600 pixels"):
        images.read_rgb(path)


@pytest.mark.parametrize("reader", [images.read_rgb, images.read_truth])
def test_the_limit_may_be_far_above_pillows(tmp_path, monkeypatch, reader):
    path = save(tmp_path / "a.png", picture())
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)

    def load(_):
        raise ValueError("loaded")

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(InputError, match=r"damaged image \(loaded\)"):
        reader(path, 4 * 10**9)
    with pytest.raises(InputError, match="60000x60000: more than 1,000,000,000 pixels"):
        reader(path)


def test_a_limit_may_be_given_and_reached(tmp_path):
    path = save(tmp_path / "a.png", picture())
    assert images.read_rgb(path, 620).shape == (20, 31, 3)
    with pytest.raises(InputError, match=r"^/.*a\.png: 31x20: more than 619 pixels"):
        images.read_rgb(path, 619)


@pytest.mark.parametrize("height", [1, 256, 257, 700])
def test_any_number_of_rows_is_converted(tmp_path, height):
    grey = np.random.default_rng(0).integers(0, 256, (height, 5), np.uint8)
    path = save(tmp_path / "a.png", grey)
    np.testing.assert_array_equal(images.read_rgb(path), grey[..., None].repeat(3, 2))


def test_modes_without_red_green_and_blue_are_refused():
    with pytest.raises(InputError) as caught:
        images._pixels("a.tif", Image.new("La", (2, 2)))
    message = "a.tif: colours of mode La are not read (save as RGB)"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (MemoryError(), MemoryError, ""),
        (OSError("decoder: out of memory"), MemoryError, ""),
        (OSError(5, "Input/output error"), InputError, "cannot be read"),
        (OSError("broken data stream"), InputError, "damaged image"),
        (ValueError("odd"), InputError, r"damaged image \(odd\)"),
    ],
)
def test_what_decoding_ends_with_is_told(tmp_path, monkeypatch, error, raised, words):
    path = save(tmp_path / "a.png", picture())

    def fails(_):
        raise error

    monkeypatch.setattr(Image.Image, "load", fails)
    with pytest.raises(raised, match=words) as caught:
        images.read_rgb(path)
    if raised is InputError:
        assert str(caught.value).startswith(f"{path}: ")


def test_how_much_memory_would_do_is_told(tmp_path):
    path = save(tmp_path / "a.png", picture())
    line = f"{path}: out of memory: 31x20 pixels take about 1.0 GB"
    with pytest.raises(InputError, match=f"^{line}"), images.memory_told([path], 10**6):
        raise MemoryError
    with pytest.raises(RuntimeError, match="other"), images.memory_told([path], 1):
        raise RuntimeError("other")


def test_the_memory_of_several_images_is_that_of_all(tmp_path):
    paths = [save(tmp_path / f"{name}.png", picture()) for name in "abc"]
    line = f"{paths[0]} and 2 more: out of memory: 1,860 pixels take about 2.3 GB"
    with pytest.raises(InputError, match=f"^{line}"), images.memory_told(paths, 10**6):
        raise MemoryError


@pytest.mark.parametrize("kind", ["folder", "no file"])
def test_out_of_memory_is_told_where_the_size_is_not_known(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "folder":
        path.mkdir()
    line = rf"{path}: out of memory \(use a smaller image"
    with pytest.raises(InputError, match=f"^{line}"), images.memory_told([path], 1):
        raise MemoryError


def test_large_images_are_opened_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.new("1", (20_000, 20_000)).close()


def test_blur_keeps_the_light_and_loses_the_texture():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    soft = images.blurred(rgb, 0.8)
    assert soft.shape == rgb.shape and soft.dtype == np.uint8
    np.testing.assert_allclose(soft.mean((0, 1)), rgb.mean((0, 1)), atol=1)
    assert soft.astype(float).var() < 0.8 * rgb.astype(float).var()


def test_noise_is_as_strong_as_asked_and_the_same_each_time():
    grey = np.full((100, 100, 3), 128, np.uint8)
    found = images.noisy(grey, 6)
    assert found.dtype == np.uint8
    assert abs((found.astype(float) - 128).std() - 6) < 0.1
    assert abs(found.astype(float).mean() - 128) < 0.1
    np.testing.assert_array_equal(found, images.noisy(grey, 6))
    assert images.noisy(np.zeros((9, 9, 3), np.uint8), 6).min() == 0
    assert images.noisy(np.full((9, 9, 3), 255, np.uint8), 6).min() > 200  # no wrap


def test_compressed_is_what_a_jpeg_file_holds(tmp_path):
    for quality in (50, 90):
        path = save(tmp_path / "a.jpg", picture(), quality=quality)
        found = images.compressed(picture(), quality)
        np.testing.assert_array_equal(found, images.read_rgb(path))


# ------------------------------------------------------------------ ground truth

PAIRS = [
    BLACK_WHITE,
    ((0, 0, 0), (1, 1, 1)),
    ((200, 0, 0), (0, 200, 0)),
    ((68, 1, 84), (253, 231, 37)),
]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
@pytest.mark.parametrize("pair", PAIRS)
def test_any_two_colours_are_a_truth(tmp_path, name, pair):
    truth = blobs(40, 60)
    colours = np.array(pair, np.uint8)
    found, drawn = images.read_truth(save(tmp_path / name, colours[truth]))
    np.testing.assert_array_equal(found, truth)
    assert drawn == pair
    assert found.dtype == np.uint8


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "I"])
@pytest.mark.parametrize("top", [1, 255, 65_535])
def test_any_mode_is_a_truth(tmp_path, mode, top):
    truth = blobs(40, 60)
    values = truth.astype(np.int64) * top
    if mode in ("1", "L", "P"):
        array = truth > 0 if mode == "1" else np.minimum(values, 255).astype(np.uint8)
    else:
        array = values.astype(np.uint16 if mode == "I;16" else np.int32)
    image = Image.fromarray(array)
    image = image.convert("P") if mode == "P" else image
    image.save(tmp_path / "a.tif")
    assert Image.open(tmp_path / "a.tif").mode == mode
    found, colours = images.read_truth(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, truth)
    assert colours[0] == (0, 0, 0)
    assert colours[1] != (0, 0, 0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (range(400), "400 values found, expected 2 .0, 1, 2, 3, 4, 5, ..."),
        ((7, 7), "1 value found"),
        ((0, 70_000), "outside 0 to 65535"),
    ],
)
def test_deep_truth_of_other_values_is_refused(tmp_path, values, words):
    array = np.resize(np.array(values, np.int32), (40, 60))
    with pytest.raises(InputError, match=words):
        images.read_truth(save(tmp_path / "a.tif", array))


def test_deep_truth_of_two_near_values(tmp_path):
    truth = blobs(40, 60)
    path = save(tmp_path / "a.tif", truth.astype(np.uint16) + 300)
    found, colours = images.read_truth(path)
    np.testing.assert_array_equal(found, truth)
    assert colours == BLACK_WHITE


def test_transparent_pixels_are_unlabelled(tmp_path):
    truth = blobs(40, 60)
    rgba = np.full((40, 60, 4), 255, np.uint8)
    rgba[..., :3] = truth[..., None] * 255
    rgba[:10, :, 3] = 0
    rgba[:10, :, 0] = 77  # what colour is hidden there does not matter
    rgba[10, :, 3] = 128
    found, _ = images.read_truth(save(tmp_path / "a.png", rgba))
    assert (found[:11] == images.UNLABELLED).all()
    np.testing.assert_array_equal(found[11:], truth[11:])


NODATA = [
    (np.uint8, 1, "255", 255),
    (np.uint8, 255, "7.0", 7),
    (np.uint16, 1, "65535", 65_535),
    (np.int32, 255, "-9999", -9999),
    (np.float32, 1, "nan", np.nan),
    (np.float32, 1, "1.79e+308", np.inf),  # too large for the type: no pixel has it
]


@pytest.mark.parametrize(("dtype", "top", "tag", "value"), NODATA)
def test_pixels_without_data_are_unlabelled(tmp_path, dtype, top, tag, value):
    truth = blobs(40, 60)
    values = truth.astype(dtype) * dtype(top)
    is_hidden = np.zeros(truth.shape, bool)
    is_hidden[:10] = not np.isinf(value)
    values[is_hidden] = value
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={42113: tag})
    found, _ = images.read_truth(tmp_path / "a.tif")
    assert (found[is_hidden] == images.UNLABELLED).all()
    np.testing.assert_array_equal(found[~is_hidden], truth[~is_hidden])


def test_colours_without_data_are_unlabelled(tmp_path):
    truth = blobs(40, 60)
    rgb = np.array([[0, 0, 90], [250, 240, 0]], np.uint8)[truth]
    rgb[:10] = 0
    path = tmp_path / "a.tif"
    Image.fromarray(rgb).save(path, tiffinfo={42113: "0"})
    found, colours = images.read_truth(path)
    assert colours == ((0, 0, 90), (250, 240, 0))
    assert (found[:10] == images.UNLABELLED).all()
    np.testing.assert_array_equal(found[10:], truth[10:])


def test_what_is_no_number_hides_nothing(tmp_path):
    truth = blobs(40, 60)
    Image.fromarray(truth).save(tmp_path / "a.tif", tiffinfo={42113: "none"})
    np.testing.assert_array_equal(images.read_truth(tmp_path / "a.tif")[0], truth)


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {}),
        ("a.jpg", {"format": "MPO"}),
        ("a.webp", {}),
        ("a.tif", {"compression": "jpeg"}),
    ],
)
def test_lossy_truth_is_told_by_its_two_strongest_colours(
    tmp_path, name, options, quality
):
    # Its edges lie within the blocks of 8x8 pixels that are compressed as one.
    truth = blobs(40, 50).repeat(4, 0).repeat(4, 1)[3:, 5:]
    path = save(tmp_path / name, truth * 255, "RGB", quality=quality, **options)
    found, colours = images.read_truth(path)
    np.testing.assert_array_equal(found, truth)
    assert colours == BLACK_WHITE
    assert len(np.unique(images.read_rgb(path))) > 2  # it is lossy


def strongest(*found):
    """Pick from colours (grey, count), the strongest first; gives the greys picked."""
    greys, counts = np.transpose(found)
    colours = np.repeat(greys[:, None], 3, 1)
    return images._two_strongest(colours, counts)[:, 0].tolist()


def test_the_second_colour_is_far_from_the_first():
    """Farther than 64, that is 37 in each channel."""
    assert strongest((0, 100), (36, 90), (200, 80)) == [0, 200]
    assert strongest((0, 1000), (37, 90), (38, 80)) == [0, 37]
    assert strongest((0, 100), (36, 90)) == [0]
    apart = np.array([[0, 0, 0], [64, 0, 0], [65, 0, 0], [0, 0, 255]])
    found = images._two_strongest(apart, np.array([1000, 9, 9, 9]))
    assert found.tolist() == [[0, 0, 0], [65, 0, 0]]


def test_a_hundredth_of_the_pixels_may_be_far_from_both_colours():
    """Farther than a quarter of the way from one to the other."""
    assert strongest((0, 600), (200, 390), (100, 10)) == [0, 200]
    assert strongest((0, 600), (200, 389), (100, 11)) == [0, 200, 100]
    assert strongest((0, 600), (200, 389), (50, 11)) == [0, 200]
    assert strongest((0, 600), (200, 389), (51, 11)) == [0, 200, 51]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 1), (0, 1)),
        ((0, 255), (0, 255)),
        ((10, 255), (10, 255)),
        ((0, 256), (0, 1)),
        ((0, 65_535), (0, 255)),
        ((255, 300), (0, 1)),
        ((256, 511), (0, 255)),  # one in the high byte
    ],
)
def test_the_colours_of_a_deep_truth(tmp_path, values, expected):
    truth = blobs(40, 60)
    path = save(tmp_path / "a.png", np.array(values, np.uint16)[truth])
    found, colours = images.read_truth(path)
    np.testing.assert_array_equal(found, truth)
    assert colours == tuple((value,) * 3 for value in expected)


def test_a_truth_of_32_bits(tmp_path):
    truth = blobs(40, 60)
    for dtype in (np.float32, np.int32):
        path = save(tmp_path / "a.tif", truth.astype(dtype))
        np.testing.assert_array_equal(images.read_truth(path)[0], truth)
        with pytest.raises(InputError) as caught:
            images.read_rgb(path)
        assert str(caught.value) == (
            f"{path}: pixels of 32 bits, not of 8 bits or 16: their range is not known "
            "(save the image with 8 or 16 bits)"
        )
        path = save(path, truth.astype(dtype) * 65_536)
        with pytest.raises(InputError, match="outside 0 to 65535"):
            images.read_truth(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_three_classes_are_refused_and_listed(tmp_path, name):
    grey = blobs(120, 160) * 255
    grey[:30, :30] = 128
    with pytest.raises(InputError, match=r"colours found, expected 2 \(\(0, 0, 0\)"):
        images.read_truth(save(tmp_path / name, grey, "RGB"))


def test_three_colours_are_named(tmp_path):
    grey = blobs(40, 60) * 255
    grey[:5, :5] = 128
    with pytest.raises(InputError, match=r"3 colours.*128, 128, 128"):
        images.read_truth(save(tmp_path / "a.png", grey))


@pytest.mark.parametrize(
    ("name", "words"), [("a.png", "1 colour found"), ("a.jpg", "1 colour found")]
)
def test_one_colour_is_refused(tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        images.read_truth(save(tmp_path / name, np.full((40, 60), 90, np.uint8)))


def test_photo_is_no_truth(tmp_path, scene):
    for name in ("a.png", "a.jpg"):
        with pytest.raises(InputError, match="colours found, expected 2"):
            images.read_truth(save(tmp_path / name, scene[0]))


def test_fully_transparent_truth_is_refused(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((40, 60, 4), np.uint8))
    with pytest.raises(InputError, match="every pixel is transparent or has no data"):
        images.read_truth(path)


def test_height_and_width_alone_are_compared():
    images.check_same_size("a", (4, 5, 3), "b", (4, 5))
    images.check_same_size("a", (4, 5), "b", (4, 5, 1))
    with pytest.raises(InputError, match=r"^b: 4x5 pixels, but a has 5x4"):
        images.check_same_size("a", (4, 5, 3), "b", (5, 4))


def test_a_pair_is_an_image_and_its_truth(tmp_path):
    truth = blobs(20, 31)
    paths = save(tmp_path / "a.png", picture()), save(tmp_path / "b.png", truth * 255)
    rgb, found, colours = images.read_pair(*paths)
    np.testing.assert_array_equal(rgb, picture())
    np.testing.assert_array_equal(found, truth)
    assert colours == BLACK_WHITE


def test_pair_of_two_sizes_is_refused(tmp_path):
    rgb = save(tmp_path / "rgb.png", picture(20, 31))
    gt = save(tmp_path / "gt.png", blobs(20, 30) * 255)
    with pytest.raises(InputError, match=r"gt\.png: 30x20.*rgb\.png has 31x20"):
        images.read_pair(rgb, gt)


# ------------------------------------------------------------------ any of them

bytes_ = st.integers(0, 255)
colour = st.tuples(bytes_, bytes_, bytes_)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
LOSSLESS = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("TIFF", m) for m in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
]


def in_format(image, name):
    """Give a file of some format, as a reader finds it; nothing is lost in it."""
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(LOSSLESS), size=sizes, seed=st.integers(0, 99))
def test_any_size_mode_and_format_is_read_as_it_is(tmp_path_factory, kind, size, seed):
    name, mode = kind
    values = np.random.default_rng(seed).integers(0, 256, (*size, 4), np.uint8)
    if mode == "I;16":
        deep = values[..., 0].astype(np.uint16) << 8 | values[..., 1]
        image, expected = Image.fromarray(deep), values[..., :1].repeat(3, 2)
    else:
        image = Image.fromarray(values).convert("RGBA" if mode == "RGBA" else "RGB")
        image = image.convert(mode)
        expected = np.array(image.convert("RGB"))
    path = tmp_path_factory.mktemp("any") / "image"
    path.write_bytes(in_format(image, name))
    np.testing.assert_array_equal(images.read_rgb(path), expected)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(LOSSLESS),
    size=sizes.filter(lambda size: size[0] * size[1] > 2),
    pair=st.tuples(colour, colour).filter(
        lambda pair: abs(np.dot(np.subtract(*pair), (0.299, 0.587, 0.114))) > 1
    ),
    seed=st.integers(0, 99),
)
def test_any_truth_in_any_mode_is_read_as_it_is(
    tmp_path_factory, kind, size, pair, seed
):
    name, mode = kind
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, size, np.uint8)
    truth.flat[:2] = 0, 1
    dark, bright = sorted(pair, key=lambda c: np.dot(c, (0.299, 0.587, 0.114)))
    if mode == "I;16":
        image = Image.fromarray(truth.astype(np.uint16) * 257)
    elif mode == "1":
        image = Image.fromarray(truth > 0)
    elif mode in ("L", "LA"):
        image = Image.fromarray(truth * 7 + 31).convert(mode)
    elif mode == "P":
        image = Image.fromarray(truth)
        image.putpalette([*dark, *bright])
    else:
        image = Image.fromarray(np.array([dark, bright], np.uint8)[truth]).convert(mode)
    if mode in ("LA", "RGBA"):
        unlabelled = rng.random(size) < 0.2
        unlabelled.flat[:2] = False
        truth[unlabelled] = images.UNLABELLED
        image.putalpha(Image.fromarray(np.where(unlabelled, 0, 255).astype(np.uint8)))
    path = tmp_path_factory.mktemp("any") / "truth"
    path.write_bytes(in_format(image, name))
    found, colours = images.read_truth(path)
    np.testing.assert_array_equal(found, truth)
    if mode in ("RGB", "P", "RGBA"):
        assert colours == (dark, bright)


# ------------------------------------------------------------------ out


@settings(max_examples=150, deadline=None)
@given(
    suffix=st.sampled_from(images.WRITE_SUFFIXES),
    pair=st.tuples(colour, colour).filter(lambda p: p[0] != p[1]),
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
    images.write_mask(path, mask, pair)
    rgb = np.array(Image.open(path).convert("RGB")).astype(int)
    jpeg = suffix in (".jpg", ".jpeg")
    too_near = max(abs(a - b) for a, b in zip(*pair, strict=True)) < images.MIN_JPEG_GAP
    drawn = BLACK_WHITE if jpeg and too_near else pair
    away = [((rgb - np.array(c)) ** 2).sum(2) for c in drawn]
    np.testing.assert_array_equal(away[1] < away[0], mask)
    if not jpeg:
        assert (np.minimum(*away) == 0).all()


def test_near_colours_are_drawn_black_and_white_in_a_jpeg_alone():
    near, apart = ((9, 8, 0), (104, 8, 95)), ((9, 8, 0), (105, 8, 0))
    assert images.drawn_colours("a.jpg", near).tolist() == [0, 255]
    assert images.drawn_colours("a.png", near).tolist() == list(map(list, near))
    assert images.drawn_colours("a.jpg", apart).tolist() == list(map(list, apart))
    assert images.drawn_colours("a.png", ((7,) * 3, (9,) * 3)).tolist() == [7, 9]


def test_black_and_white_jpeg_by_a_plain_threshold(tmp_path):
    mask = (np.random.default_rng(0).random((101, 203)) < 0.5).astype(np.uint8)
    images.write_mask(tmp_path / "m.jpg", mask, BLACK_WHITE)
    image = Image.open(tmp_path / "m.jpg")
    assert image.mode == "L"
    np.testing.assert_array_equal(np.array(image) > 127, mask)


def test_jpeg_that_the_format_cannot_hold_is_refused(tmp_path):
    mask = np.zeros((1, 65_501), np.uint8)
    for name in ("m.jpg", "m.JPEG"):
        with pytest.raises(InputError, match=r"65501x1 pixels.*use \.png or \.tif"):
            images.write_mask(tmp_path / name, mask, BLACK_WHITE)
        assert not list(tmp_path.iterdir())
    images.write_mask(tmp_path / "m.png", mask, BLACK_WHITE)
    images.write_mask(tmp_path / "m.jpg", mask[:, 1:], BLACK_WHITE)


def test_probabilities_in_eight_bits_and_as_they_are(tmp_path):
    probability = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    for suffix in images.PROBABILITY_SUFFIXES:
        images.write_probabilities(tmp_path / f"p{suffix}", probability)
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
    images.write_rgb(tmp_path / f"a{suffix}", picture())
    image = Image.open(tmp_path / f"a{suffix}")
    assert image.format == name
    if name == "TIFF":
        assert "deflate" in image.info["compression"]
    if name == "PNG":
        Image.fromarray(picture()).save(
            tmp_path / "b.png", compress_level=images.PNG_LEVEL
        )
        b = (tmp_path / "b.png").read_bytes()
        assert (tmp_path / "a.png").read_bytes() == b
    assert image.size == (31, 20)


# ------------------------------------------------------------------ blocks and pairs


def test_a_block_knows_its_place():
    block = images.Block(10, 20, 30, 50)
    assert block.slices == (slice(10, 30), slice(20, 50))
    assert block.within(images.Block(4, 17, 90, 90)) == (slice(6, 26), slice(3, 33))


def test_a_block_grows_up_to_the_images_edges():
    block = images.Block(10, 20, 30, 50)
    assert block.grown(5, (100, 100)) == (5, 15, 35, 55)
    assert block.grown(15, (100, 100)) == (0, 5, 45, 65)
    assert block.grown(25, (40, 60, 3)) == (0, 0, 40, 60)
    assert block.grown(0, (30, 50)) == block


@pytest.fixture
def two_folders(tmp_path):
    """Two folders with files of these names; gives a function that makes them."""

    def make(pictures, truths):
        for folder, names in (("photos", pictures), ("labels", truths)):
            (tmp_path / folder).mkdir()
            for name in names.split():
                (tmp_path / folder / name).touch()
        return [tmp_path / "photos"], [tmp_path / "labels"]

    return make


def test_files_are_paired_by_their_order():
    assert images.find_pairs(["b", "a"], ["1", "2"]) == [("b", "1"), ("a", "2")]


def test_folders_are_paired_by_their_files_names(two_folders):
    folders = two_folders("b.jpg a.PNG notes.txt .c.png", "a.png b.tif more.md")
    (photos,), (labels,) = folders
    assert images.find_pairs(*folders) == [
        (photos / "a.PNG", labels / "a.png"),
        (photos / "b.jpg", labels / "b.tif"),
    ]


@pytest.mark.parametrize(
    ("pictures", "truths", "words"),
    [
        ("a.png b.png", "a.png", "{photos}/b.png: {labels} holds no truth of that"),
        ("a.png", "a.png b.png", "{labels}/b.png: {photos} holds no image of that"),
        ("a.png a.jpg", "a.png", "{photos}/a.png: {photos}/a.jpg has the same name"),
        ("a.txt", "a.png", "{photos}: holds no images (.png, .jpg, .jpeg, .tif"),
        ("a.png", "", "{labels}: holds no images"),
    ],
)
def test_folders_that_are_no_pairs_are_refused(two_folders, pictures, truths, words):
    folders = two_folders(pictures, truths)
    with pytest.raises(InputError) as caught:
        images.find_pairs(*folders)
    (photos,), (labels,) = folders
    assert str(caught.value).startswith(words.format(photos=photos, labels=labels))


def test_fewer_truths_than_images_are_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        images.find_pairs(["a", "b"], ["c"])
    assert str(caught.value) == (
        "--rgb: number of images 2, of truths 1 (name a truth for each image with "
        "--gt, in the same order)"
    )
    with pytest.raises(InputError, match=r"^--rgb: number of images 2, of truths 1"):
        images.find_pairs([tmp_path, tmp_path], [tmp_path])
    assert images.find_pairs([tmp_path], ["c"]) == [(tmp_path, "c")]
