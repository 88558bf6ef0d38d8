import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import (
    BLACK_WHITE,
    COLOUR,
    LOSSLESS,
    SIZE,
    blobs,
    gradient,
    in_format,
    save,
    write_deep_png,
    write_tiff,
)

from onelabel import labelled
from onelabel import truth as truth_of
from onelabel.files import InputError
from onelabel.image import UNLABELLED
from onelabel.reading import open_image
from onelabel.truth import read_truth


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
            read_truth(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_what_is_found_instead_of_two_classes_is_listed(tmp_path):
    for count, more in ((6, ""), (7, ", ...")):
        grey = np.arange(count, dtype=np.uint8)[None].repeat(4, 0)
        path = save(tmp_path / "a.png", np.uint16(grey) * 300)
        with pytest.raises(InputError) as caught:
            read_truth(path)
        assert str(caught.value) == (
            f"{path}: {count} values found, expected 2 (0, 300, 600, 900, 1200, 1500"
            f"{more}; draw each class in one colour, and save as PNG)"
        )


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
    found, drawn = read_truth(save(tmp_path / name, colours[truth]))
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
    found, colours = read_truth(tmp_path / "a.tif")
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
        read_truth(save(tmp_path / "a.tif", array))


def test_deep_truth_of_two_near_values(tmp_path):
    truth = blobs(40, 60)
    path = save(tmp_path / "a.tif", truth.astype(np.uint16) + 300)
    found, colours = read_truth(path)
    np.testing.assert_array_equal(found, truth)
    assert colours == BLACK_WHITE


def test_transparent_pixels_are_unlabelled(tmp_path):
    truth = blobs(40, 60)
    rgba = np.full((40, 60, 4), 255, np.uint8)
    rgba[..., :3] = truth[..., None] * 255
    rgba[:10, :, 3] = 0
    rgba[:10, :, 0] = 77  # what colour is hidden there does not matter
    rgba[10, :, 3] = 128
    found, _ = read_truth(save(tmp_path / "a.png", rgba))
    assert (found[:11] == UNLABELLED).all()
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
    found, _ = read_truth(tmp_path / "a.tif")
    assert (found[is_hidden] == UNLABELLED).all()
    np.testing.assert_array_equal(found[~is_hidden], truth[~is_hidden])


def test_colours_without_data_are_unlabelled(tmp_path):
    truth = blobs(40, 60)
    rgb = np.array([[0, 0, 90], [250, 240, 0]], np.uint8)[truth]
    rgb[:10] = 0
    path = tmp_path / "a.tif"
    Image.fromarray(rgb).save(path, tiffinfo={42113: "0"})
    found, colours = read_truth(path)
    assert colours == ((0, 0, 90), (250, 240, 0))
    assert (found[:10] == UNLABELLED).all()
    np.testing.assert_array_equal(found[10:], truth[10:])


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
    found, colours = read_truth(path)
    np.testing.assert_array_equal(found, truth)
    assert colours == BLACK_WHITE
    assert len(np.unique(open_image(path).whole())) > 2  # it is lossy


def strongest(*found):
    """Pick from colours (grey, count), the strongest first; gives the greys picked."""
    greys, counts = np.transpose(found)
    colours = np.repeat(greys[:, None], 3, 1)
    return truth_of._two_strongest(colours, counts)[:, 0].tolist()


def test_the_second_colour_is_far_from_the_first():
    """Farther than 64, that is 37 in each channel."""
    assert strongest((0, 100), (36, 90), (200, 80)) == [0, 200]
    assert strongest((0, 1000), (37, 90), (38, 80)) == [0, 37]
    assert strongest((0, 100), (36, 90)) == [0]
    apart = np.array([[0, 0, 0], [64, 0, 0], [65, 0, 0], [0, 0, 255]])
    found = truth_of._two_strongest(apart, np.array([1000, 9, 9, 9]))
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
    found, colours = read_truth(path)
    np.testing.assert_array_equal(found, truth)
    assert colours == tuple((value,) * 3 for value in expected)


def test_a_truth_of_32_bits(tmp_path):
    truth = blobs(40, 60)
    for dtype in (np.float32, np.int32):
        path = save(tmp_path / "a.tif", truth.astype(dtype))
        np.testing.assert_array_equal(read_truth(path)[0], truth)
        path = save(path, truth.astype(dtype) * 65_536)
        with pytest.raises(InputError, match="outside 0 to 65535"):
            read_truth(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_three_classes_are_refused_and_listed(tmp_path, name):
    grey = blobs(120, 160) * 255
    grey[:30, :30] = 128
    with pytest.raises(InputError, match=r"colours found, expected 2 \(\(0, 0, 0\)"):
        read_truth(save(tmp_path / name, grey, "RGB"))


def test_three_colours_are_named(tmp_path):
    grey = blobs(40, 60) * 255
    grey[:5, :5] = 128
    with pytest.raises(InputError, match=r"3 colours.*128, 128, 128"):
        read_truth(save(tmp_path / "a.png", grey))


@pytest.mark.parametrize(
    ("name", "words"), [("a.png", "1 colour found"), ("a.jpg", "1 colour found")]
)
def test_one_colour_is_refused(tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        read_truth(save(tmp_path / name, np.full((40, 60), 90, np.uint8)))


def test_photo_is_no_truth(tmp_path, scene):
    for name in ("a.png", "a.jpg"):
        with pytest.raises(InputError, match="colours found, expected 2"):
            read_truth(save(tmp_path / name, scene[0]))


def test_fully_transparent_truth_is_refused(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((40, 60, 4), np.uint8))
    with pytest.raises(InputError, match="every pixel is transparent or has no data"):
        read_truth(path)


@settings(max_examples=150)
@given(
    kind=st.sampled_from(LOSSLESS),
    size=SIZE.filter(lambda size: size[0] * size[1] > 2),
    pair=st.tuples(COLOUR, COLOUR).filter(
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
        truth[unlabelled] = UNLABELLED
        image.putalpha(Image.fromarray(np.where(unlabelled, 0, 255).astype(np.uint8)))
    path = tmp_path_factory.mktemp("any") / "truth"
    path.write_bytes(in_format(image, name))
    found, colours = read_truth(path)
    np.testing.assert_array_equal(found, truth)
    if mode in ("RGB", "P", "RGBA"):
        assert colours == (dark, bright)


# ------------------------------------------------------------------ pairs


def test_height_and_width_alone_are_compared():
    truth_of.check_same_size("a", (4, 5, 3), "b", (4, 5))
    truth_of.check_same_size("a", (4, 5), "b", (4, 5, 1))
    with pytest.raises(InputError, match=r"^b: 4x5 pixels, but a has 5x4"):
        truth_of.check_same_size("a", (4, 5, 3), "b", (5, 4))


def test_a_pair_is_an_image_and_its_truth(tmp_path):
    truth = blobs(40, 62)
    paths = (
        save(tmp_path / "a.png", gradient(40, 62)),
        save(tmp_path / "b.png", truth * 255),
    )
    pairs, colours, scale, _ = labelled.read_labelled([paths])
    ((rgb, found),) = pairs
    np.testing.assert_array_equal(rgb, gradient(40, 62))
    np.testing.assert_array_equal(found, truth)
    assert colours == BLACK_WHITE
    assert scale is None


def test_pair_of_two_sizes_is_refused(tmp_path):
    rgb = save(tmp_path / "rgb.png", gradient(20, 31))
    gt = save(tmp_path / "gt.png", blobs(20, 30) * 255)
    with pytest.raises(InputError, match=r"gt\.png: 30x20.*rgb\.png has 31x20"):
        labelled.read_labelled([(rgb, gt)])


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
    assert truth_of.find_pairs(["b", "a"], ["1", "2"]) == [("b", "1"), ("a", "2")]


def test_folders_are_paired_by_their_files_names(two_folders):
    folders = two_folders("b.jpg a.PNG notes.txt .c.png", "a.png b.tif more.md")
    (photos,), (labels,) = folders
    assert truth_of.find_pairs(*folders) == [
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
        truth_of.find_pairs(*folders)
    (photos,), (labels,) = folders
    assert str(caught.value).startswith(words.format(photos=photos, labels=labels))


def test_fewer_truths_than_images_are_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        truth_of.find_pairs(["a", "b"], ["c"])
    assert str(caught.value) == (
        "a: number of images 2, of truths 1 (name a truth for each image, in the same "
        "order)"
    )
    with pytest.raises(InputError, match=f"^{tmp_path}: number of images 2, of"):
        truth_of.find_pairs([tmp_path, tmp_path], [tmp_path])
    assert truth_of.find_pairs([tmp_path], ["c"]) == [(tmp_path, "c")]


@pytest.mark.parametrize("write", [write_deep_png, write_tiff])
@pytest.mark.parametrize("pair", PAIRS)
def test_two_colours_of_16_bits_are_a_truth(tmp_path, write, pair):
    truth = blobs(40, 60)
    colours = np.array(pair, np.uint16)[truth] * np.uint16(257)
    found, drawn = read_truth(write(tmp_path / "a", colours))
    np.testing.assert_array_equal(found, truth)
    assert drawn == pair


@pytest.mark.parametrize("write", [write_deep_png, write_tiff])
def test_three_colours_of_16_bits_are_refused(tmp_path, write):
    """Two of them are alike in red."""
    colours = np.zeros((40, 60, 3), np.uint16)
    colours[10:20, :, 1] = 65_535
    colours[20:30, :, 0] = 65_535
    with pytest.raises(InputError, match=r"3 (colours|values) found, expected 2"):
        read_truth(write(tmp_path / "a", colours))


def test_two_near_colours_of_16_bits_are_told_apart(tmp_path):
    """Though their high bytes are the same."""
    truth = blobs(40, 60)
    colours = np.array([[1000, 0, 9], [1001, 0, 9]], np.uint16)[truth]
    found, drawn = read_truth(write_tiff(tmp_path / "a.tif", colours))
    np.testing.assert_array_equal(found, truth)
    assert drawn[0] != drawn[1]


def test_colours_of_other_types_are_no_truth(tmp_path):
    """Their range is not known; told by red alone, classes could be merged."""
    colours = np.zeros((40, 60, 3), np.float32)
    colours[10:20, :, 1] = 1
    colours[20:30, :, 0] = 1
    with pytest.raises(InputError) as caught:
        read_truth(write_tiff(tmp_path / "a.tif", colours))
    assert "\n" not in str(caught.value)


def test_truths_of_8_and_of_16_bits_may_have_the_same_colours(tmp_path):
    truth = blobs(40, 62)
    rgb = save(tmp_path / "rgb.png", gradient(40, 62))
    gts = [
        save(tmp_path / "8.png", truth * 255),
        save(tmp_path / "16.png", truth.astype(np.uint16) * 65_535),
    ]
    pairs, colours, *_ = labelled.read_labelled([(rgb, gt) for gt in gts])
    assert colours == BLACK_WHITE
    for _, found in pairs:
        np.testing.assert_array_equal(found, truth)
