"""What train.py reads: any format that predict.py reads, and of large maps a part."""

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from samples import place, write_tiff

import predict
import train
from onelabel import console, labelled, model_file, rasters, reading
from onelabel.image import UNLABELLED
from onelabel.reading import open_image
from onelabel.truth import read_truth


def run(main, *arguments):
    return console.run(lambda: main(list(map(str, arguments))))


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    monkeypatch.setattr(train, "EPOCH", 2)


def write_map(path, pixels, **options):
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, **options}
    write_tiff(path, pixels, **place(), **options)


def weights_from(*options):
    """Train on what the options name; give the model file and the weights."""
    assert run(train.main, "--epochs", 1, *options) == 0
    trained = model_file.load("model.pt")
    return trained, trained.model.state_dict()


def same(weights, others):
    return all(torch.equal(weights[name], others[name]) for name in weights)


# ------------------------------------------------------------------ formats and bands


def four_bands(rgb):
    """Blue, green, red and near infrared in 16 bits, as satellites have them."""
    infrared = 255 - rgb[..., :1]
    return np.dstack([rgb[..., ::-1], infrared]).astype(np.uint16) * 40


def test_chosen_bands_are_learned_from_and_kept_for_later_images(folder, scene):
    write_map("rgb.tif", scene[0].astype(np.uint16) * 40)
    write_map("bgrn.tif", four_bands(scene[0]))
    plain, expected = weights_from("--rgb", "rgb.tif")
    assert plain.channels is None
    trained, weights = weights_from("--rgb", "bgrn.tif", "--bands", "3,2,1")
    assert trained.channels == [3, 2, 1]
    assert trained.scale == plain.scale
    assert same(weights, expected)
    masks = []
    for options in ([], ["--bands", "3,2,1"], ["--bands", "4,2,1"]):
        assert run(predict.main, "bgrn.tif", "--output", "m.png", *options) == 0
        masks.append(np.array(Image.open("m.png")))
    np.testing.assert_array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_an_image_without_the_bands_of_the_model_is_refused(folder, scene, capsys):
    write_map("bgrn.tif", four_bands(scene[0]))
    weights_from("--rgb", "bgrn.tif", "--bands", "4,3,2")
    write_map("rgb.tif", scene[0].astype(np.uint16) * 40)
    capsys.readouterr()
    assert run(predict.main, "rgb.tif", "--output", "m.png") == 2
    said = capsys.readouterr().err
    assert said == (
        "error: rgb.tif: has 3 bands, too few for 4,3,2 (choose others, or train on "
        "the bands that it has)\n"
    )


def write_zarr(path, rgb):
    zarr.create_array(path, data=rgb, chunks=(64, 64, 3))


def write_big_tiff(path, rgb):
    write_tiff(path, rgb, BIGTIFF="YES")


def write_planes(path, rgb):
    zarr.create_array(path, data=rgb.transpose(2, 0, 1), chunks=(1, 64, 64))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.zarr", write_zarr),
        ("b.zarr", write_planes),
        ("big.tif", write_big_tiff),
        ("map.tif", write_map),
    ],
)
def test_every_format_teaches_what_a_png_does(folder, scene, name, write):
    _, expected = weights_from()
    write(name, scene[0])
    trained, weights = weights_from("--rgb", name)
    assert trained.scale is None
    assert same(weights, expected)
    assert run(predict.main, name, "--output", "m.png") == 0
    assert run(predict.main, "data/rgb.png", "--output", "n.png") == 0
    masks = [np.array(Image.open(p).convert("L")) for p in ("m.png", "n.png")]
    np.testing.assert_array_equal(*masks)


def test_pixels_without_data_are_not_learned(folder, scene):
    """What value a map's hidden pixels have changes nothing: they are unlabelled."""
    rgb, truth = scene
    for hidden in (0, 255):
        pixels = np.where(rgb == hidden, 77, rgb).astype(np.uint8)
        pixels[:, :30] = hidden
        write_map("map.tif", pixels, nodata=hidden)
        _, answer = read_and_split("map.tif", "data/gt.png")
        np.testing.assert_array_equal(answer[:, :30], UNLABELLED)
        np.testing.assert_array_equal(answer[:, 30:], truth[:, 30:])


def test_pixels_without_data_are_not_described(folder, scene):
    found = []
    for hidden in (0, 255):
        pixels = scene[0].clip(1, 254)
        pixels[:, :80] = hidden
        write_map("map.tif", pixels, nodata=hidden)
        trained, _ = weights_from("--rgb", "map.tif")
        learned = "error", "network"
        looks = {k: v for k, v in trained.looks.items() if k not in learned}
        found.append((trained.model.normalise.mean.tolist(), looks))
    assert found[0] == found[1]


def read_and_split(image, gt):
    """Read one labelled image as train.py does."""
    ((rgb, truth),) = labelled.read_labelled([(image, gt)]).pairs
    return rgb, truth


# ------------------------------------------------------------------ large maps


@pytest.fixture
def small_memory(monkeypatch):
    """Take an image to be large from 10,000 pixels on."""
    for module in (reading, labelled):
        monkeypatch.setattr(module, "IN_MEMORY", 10_000)


@pytest.fixture
def large_map(folder, scene, small_memory):
    """A map of which the small scene alone is labelled, from row 300 and column 400."""
    rgb, truth = scene
    pixels = np.random.default_rng(0).integers(1, 255, (700, 900, 3), np.uint8)
    classes = np.full((700, 900), UNLABELLED, np.uint8)
    pixels[300:476, 400:630], classes[300:476, 400:630] = rgb, truth
    write_map("map.tif", pixels)
    write_map("labels.tif", classes, nodata=UNLABELLED)
    return pixels, classes


@pytest.fixture
def seen(monkeypatch):
    """Note which blocks of which file are read."""
    blocks, plain = [], rasters.Raster.values

    def values(image, block):
        blocks.append((str(image.path), block))
        return plain(image, block)

    monkeypatch.setattr(rasters.Raster, "values", values)
    return blocks


NEAR = np.s_[300 - labelled.CONTEXT : 476 + labelled.CONTEXT]
NEAR = NEAR, np.s_[400 - labelled.CONTEXT : 630 + labelled.CONTEXT]


def test_of_a_large_map_only_what_is_labelled_is_read(large_map, seen):
    pixels, classes = large_map
    rgb, truth = read_and_split("map.tif", "labels.tif")
    np.testing.assert_array_equal(rgb, pixels[NEAR])
    np.testing.assert_array_equal(truth, classes[NEAR])
    rows, cols = NEAR
    blocks = [block for path, block in seen if path.endswith("map.tif")]
    assert blocks
    for block in blocks:
        assert rows.start <= block.top < block.bottom <= rows.stop
        assert cols.start <= block.left < block.right <= cols.stop


def test_a_training_on_a_large_map_is_that_on_its_labelled_part(large_map):
    pixels, classes = large_map
    _, weights = weights_from("--rgb", "map.tif", "--gt", "labels.tif")
    write_map("part.tif", pixels[NEAR])
    write_map("part_labels.tif", classes[NEAR], nodata=UNLABELLED)
    _, expected = weights_from("--rgb", "part.tif", "--gt", "part_labels.tif")
    assert same(weights, expected)


def test_labelled_places_of_a_large_map_lie_beside_each_other(large_map, scene):
    """With the pixels around each; what lies between their rows is not read."""
    pixels, classes = large_map
    rgb, truth = scene
    pixels[:50, 100:200], classes[:50, 100:200] = rgb[:50, :100], truth[:50, :100]
    write_map("map.tif", pixels)
    write_map("labels.tif", classes, nodata=UNLABELLED)
    read, answer = read_and_split("map.tif", "labels.tif")
    near = labelled.CONTEXT
    rows = np.r_[0 : 50 + near, NEAR[0]]
    cols = np.r_[100 - near : 200 + near, NEAR[1]]
    np.testing.assert_array_equal(read, pixels[np.ix_(rows, cols)])
    np.testing.assert_array_equal(answer, classes[np.ix_(rows, cols)])


def test_a_small_image_is_read_whole(large_map, monkeypatch):
    for module in (reading, labelled):
        monkeypatch.setattr(module, "IN_MEMORY", 700 * 900)
    rgb, truth = read_and_split("map.tif", "labels.tif")
    np.testing.assert_array_equal(rgb, large_map[0])
    np.testing.assert_array_equal(truth, large_map[1])


def test_a_large_map_of_16_bits_is_scaled_by_all_of_it(large_map):
    """Later images are whole maps, too."""
    pixels, _ = large_map
    deep = pixels.astype(np.uint16) * 16
    write_map("deep.tif", deep)
    labels = labelled.read_labelled([("deep.tif", "labels.tif")])
    ((rgb, _),) = labels.pairs
    image = open_image("deep.tif")
    image.use_scale(labels.scale)
    np.testing.assert_array_equal(rgb, image.whole()[NEAR])
    assert rgb.shape == (*pixels[NEAR].shape[:2], 3)


# ------------------------------------------------------------------ masks as truths


@pytest.mark.parametrize("name", ["mask.tif", "mask.png"])
def test_a_mask_is_a_truth_to_learn_from(trained_file, scene, name):
    """As predict.py wrote it, with its colours, and no class where the map has none."""
    rgb = np.maximum(scene[0], 1)
    rgb[:, :30] = 0
    write_map("map.tif", rgb, nodata=0)
    assert run(predict.main, "map.tif", "--output", name) == 0
    mask = np.array(Image.open(name).convert("RGBA"))
    truth, colours = read_truth(name)
    assert list(map(tuple, colours)) == [(10, 20, 30), (250, 240, 0)]
    np.testing.assert_array_equal(truth[:, :30], UNLABELLED)
    for label, colour in enumerate(colours):
        is_drawn = (mask[..., :3] == colour).all(-1)
        np.testing.assert_array_equal((truth == label)[:, 30:], is_drawn[:, 30:])
    assert set(np.unique(truth[:, 30:])) == {0, 1}
    trained, _ = weights_from("--rgb", "map.tif", "--gt", name, "--model", "model.pt")
    assert list(map(tuple, trained.colours)) == list(map(tuple, colours))


def test_masks_of_both_formats_teach_the_same(trained_file):
    trained = []
    for name in ("mask.tif", "mask.png"):
        assert run(predict.main, "data/rgb.png", "--output", name) == 0
    for name in ("mask.tif", "mask.png"):
        trained.append(weights_from("--gt", name)[1])
    assert same(*trained)
