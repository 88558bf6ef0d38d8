import copy

import numpy as np
import pytest
import torch
from conftest import ROOT

import segutils
import train
from onelabel import changes, evaluation, light, model_file
from onelabel.image import UNLABELLED, InMemory
from onelabel.reading import open_image
from onelabel.sampling import NOWHERE, scene_of


def estimate(looks, rgb):
    return light.estimate(looks, InMemory(rgb).sample())


def segment(model, looks, rgb):
    its_light = estimate(looks, rgb)
    return segutils.segment(light.in_light(model, looks, its_light), rgb)


def warning(looks, its_light, rgb):
    return light.warning(looks, its_light, InMemory(rgb).sample())


def probabilities(model, rgb):
    return segutils.sigmoid(segutils.logits(model, rgb))


def brightness_model():
    """A network that calls a pixel class 1 where its surroundings are bright."""
    model = segutils.FCNN().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.zero_()
        model.normalise.mean += 128
        model.normalise.std.fill_(32)
        for conv in (model.conv1, model.conv2, model.conv3, model.conv4):
            conv.bias.zero_()
            conv.weight[-1, :, conv.padding[0], conv.padding[0]] = 1 / 3
    return model


@pytest.fixture
def two_tone():
    """Soil of about 90 with bright plants on an eighth of it, and the truth."""
    rng = np.random.default_rng(0)
    truth = np.zeros((300, 400), np.uint8)
    truth[50:200, 100:200] = 1
    rgb = np.where(truth[..., None] == 1, 200, [80, 90, 100]) + rng.normal(
        0, 3, (300, 400, 3)
    )
    return rgb.clip(0, 255).astype(np.uint8), truth


def test_description_is_of_the_larger_class_and_in_plain_values(model, two_tone):
    rgb, truth = two_tone
    looks = light.describe(model, [rgb], [truth])
    assert looks["larger"] == 0
    np.testing.assert_allclose(looks["colour"], [79.5, 89.5, 99.5], atol=0.2)
    assert all(type(v) is float for v in looks["colour"] + looks["highest"])
    other = light.describe(model, [rgb], [1 - truth])
    assert other["larger"] == 1
    assert other["colour"] == looks["colour"]


def test_strokes_do_not_say_which_class_is_larger(two_tone):
    """Where nothing is labelled, the network's mask stands for it."""
    rgb, truth = two_tone
    strokes = np.full_like(truth, UNLABELLED)
    strokes[20:24, 20:40] = 0
    strokes[100:150, 120:180] = 1
    model = brightness_model()
    looks = [
        evaluation.describe_images(model, [scene_of(rgb, labels, NOWHERE, 32)])
        for labels in (strokes, truth)
    ]
    assert looks[0]["larger"] == looks[1]["larger"] == 0
    np.testing.assert_allclose(looks[0]["colour"], looks[1]["colour"], atol=1)


def test_pixels_without_data_change_nothing(two_tone):
    rgb, truth = two_tone
    wide = np.pad(rgb, [(0, 0), (0, 40), (0, 0)])
    hidden = np.zeros(wide.shape, bool)
    hidden[:, rgb.shape[1] :] = True
    classes = np.pad(truth, [(0, 0), (0, 40)], constant_values=UNLABELLED)
    model = brightness_model()
    looks = light.describe(model, [rgb], [truth])
    assert light.describe(model, [np.ma.MaskedArray(wide, hidden)], [classes]) == looks
    masked = np.ma.MaskedArray(np.concatenate([rgb, 0 * rgb]), False)
    masked[rgb.shape[0] :] = np.ma.masked
    known, plain = (light.measure_error(looks, [p]) for p in (masked, rgb))
    assert known[0] < 2 * plain[0] + 1


def test_unlabelled_black_and_white_pixels_tell_no_colour(model, two_tone):
    rgb, truth = two_tone
    rgb, truth = rgb.copy(), truth.copy()
    looks = light.describe(model, [rgb], [truth])
    rgb[200:] = 0
    rgb[:20] = 255
    truth[:, 350:] = UNLABELLED
    rgb[:, 350:] = 30
    np.testing.assert_allclose(
        light.describe(model, [rgb], [truth])["colour"], looks["colour"], atol=0.2
    )
    assert light.describe(model, [np.zeros_like(rgb)], [truth])["colour"] == [1, 1, 1]


def test_the_error_is_what_crops_of_the_training_image_show():
    truth = np.zeros((300, 400), np.uint8)
    truth[10:20, 10:20] = 1
    model = brightness_model()

    def error(shade):
        """Of soil that is darker to the left and brighter to the right."""
        soil = np.random.default_rng(0).normal([80, 90, 100], 3, (300, 400, 3))
        shades = np.linspace(1 - shade, 1 + shade, 400)[:, None]
        rgb = (soil * shades).round().astype(np.uint8)
        looks = light.describe(model, [rgb], [truth])
        assert looks["error"] == [0, 0]  # not yet measured
        one = light.measure_error(looks, [rgb])
        assert light.measure_error(looks, [rgb, rgb]) == pytest.approx(one)
        return one[0] / 150  # of the light of a crop, of 150x150 pixels

    assert 0 < error(0) < 0.03 < error(0.1) < error(0.2) < 0.25


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The model that a short training on the shipped scene writes."""
    folder = tmp_path_factory.mktemp("trained")
    pair = [str(ROOT / "data" / name) for name in ("rgb.png", "gt.png")]
    files = [str(folder / name) for name in ("model.pt", "curves.png")]
    arguments = ["--rgb", pair[0], "--gt", pair[1], "--epochs", "20"]
    train.main([*arguments, "--model", files[0], "--plot", files[1]])
    learned = model_file.load(files[0])
    return learned.model, learned.looks


@pytest.fixture(scope="module")
def new():
    """A part of the shipped scene's new image."""
    return open_image(ROOT / "data/new/rgb.png").whole()[:600, :700]


def as_bytes(values):
    return values.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("gain", [(0.5, 0.5, 0.5), (1.15, 1, 0.75), (0.6, 0.7, 0.8)])
def test_a_gain_changes_nothing(trained, new, gain):
    model, looks = trained
    changed = as_bytes(new * gain)
    told = estimate(looks, changed)
    np.testing.assert_allclose(told.level, gain, rtol=0.12)
    same = segment(model, looks, new) == segment(model, looks, changed)
    assert same.mean() > 0.97
    left_alone = segutils.segment(model, new) == segutils.segment(model, changed)
    assert left_alone.mean() < same.mean() - 0.02


@pytest.mark.parametrize(("gain", "offset"), [(1, 40), (0.5, 20), (0.5, 60)])
def test_a_constant_that_is_added_changes_little(trained, new, gain, offset):
    model, looks = trained
    changed = as_bytes(new * gain + offset)
    same = segment(model, looks, new) == segment(model, looks, changed)
    assert same.mean() > 0.96
    left_alone = segutils.segment(model, new) == segutils.segment(model, changed)
    assert left_alone.mean() < same.mean() - 0.02


def test_what_an_error_could_explain_is_no_change(trained, new):
    _, looks = trained
    dark = new // 2
    assert estimate(looks, dark) != light.SAME
    for error, believed in (([0, 1e6], True), ([1e6, 0], True), ([1e6, 1e6], False)):
        told = estimate({**looks, "error": error}, dark)
        assert (told != light.SAME) == believed
    # More pixels are more certain: the error of a whole image is that of a part, less.
    unsure = {**looks, "error": [200.0, 200.0]}
    assert estimate(unsure, dark) != light.SAME
    assert estimate(unsure, dark[:256, :256]) == light.SAME


def test_what_brings_the_statistics_no_nearer_is_no_change(trained, new, monkeypatch):
    _, looks = trained
    monkeypatch.setattr(light, "_distance", lambda *_, **__: 1.0)
    assert estimate(looks, new // 2) == light.SAME


def test_the_statistics_of_the_training_image_are_the_nearest(trained):
    _, looks = trained
    rgb = open_image(ROOT / "data/rgb.png").whole()

    def distance(picture):
        sample = InMemory(picture).sample()
        return light._distance(looks, sample, np.zeros(3), light.SAME)

    least = distance(rgb)
    assert 0 <= least < 0.3
    for changed in (rgb // 2, as_bytes(rgb + 30.0), as_bytes(rgb * [1.3, 1, 0.7])):
        assert distance(changed) > 3 * least
    network = looks["network"]
    assert not any(layer._forward_pre_hooks for layer in network)  # none is left behind


def test_a_network_that_is_training_is_left_alone(trained, new):
    model, looks = trained
    training = copy.deepcopy(model).train()
    its = {**looks, "network": training}
    assert estimate(its, new // 2) == estimate(looks, new // 2)
    for name, value in model.state_dict().items():
        assert torch.equal(training.state_dict()[name], value)


def test_an_image_in_the_training_light_is_left_alone(trained):
    _, looks = trained
    rgb = open_image(ROOT / "data/rgb.png").whole()
    assert estimate(looks, rgb) == light.SAME


def test_a_crop_gets_the_mask_that_it_has_in_the_whole_image(trained, new):
    model, looks = trained
    height, width = new.shape[:2]
    whole, agreement = segment(model, looks, new), []
    for side in (256, 400):
        for top in np.linspace(0, height - side, 4).astype(int):
            for left in np.linspace(0, width - side, 4).astype(int):
                crop = np.s_[top : top + side, left : left + side]
                part = segment(model, looks, new[crop])
                agreement.append((part == whole[crop]).mean())
    assert np.mean(agreement) >= 0.98


def test_only_the_constants_differ_and_the_model_is_left_alone(model, scene):
    rgb, truth = scene
    before = {name: value.clone() for name, value in model.state_dict().items()}
    looks = light.describe(model, [rgb], [truth])
    adapted = light.in_light(model, looks, light.Light((0.5, 0.6, 0.7), (0.8,) * 3))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        same = torch.equal(adapted.state_dict()[name], value)
        assert same == (not name.startswith("normalise"))


def test_in_a_light_the_larger_class_looks_as_in_training(model, scene):
    rgb, truth = scene
    looks = light.describe(model, [rgb], [truth])
    its = light.Light((0.5, 0.6, 0.7), (0.8, 0.9, 1.1))
    adapted = light.in_light(model, looks, its).normalise
    pixel = torch.tensor(looks["colour"])[None, :, None, None]
    level, spread = (torch.tensor(v)[None, :, None, None] for v in its)
    for apart in (0.0, 20.0):  # grey levels from the class's colour
        seen = adapted(pixel * level + apart * spread)
        torch.testing.assert_close(seen, model.normalise(pixel + apart))


def test_pixels_are_taken_to_the_training_light(model, scene):
    rgb, truth = scene
    looks = light.describe(model, [rgb], [truth])
    level, spread = np.array([0.8, 0.9, 1.1]), np.array([0.7, 0.9, 1.0])
    colour = np.array(looks["colour"])
    seen = colour * level + (rgb - colour) * spread
    assert seen.min() > 0 and seen.max() < 255
    its = light.Light(tuple(level), tuple(spread))
    back = light.as_in_training(as_bytes(seen), looks, its)
    assert back.dtype == np.uint8
    assert abs(back.astype(int) - rgb).max() <= 1
    np.testing.assert_array_equal(light.as_in_training(rgb, looks, light.SAME), rgb)


def test_a_light_is_told_in_words():
    its = light.Light((0.5, 1, 1.204), (1.0, 1.0, 1.0))
    assert light.in_words(its) == "0.50 red, 1.00 green, 1.20 blue"


@pytest.mark.parametrize("rgb", [np.zeros((1, 1, 3)), np.full((300, 5, 3), 255)])
def test_an_image_without_colour_is_no_fault(model, two_tone, rgb):
    rgb = rgb.astype(np.uint8)
    looks = light.describe(model, *([part] for part in two_tone))
    told = estimate(looks, rgb)
    assert (np.abs(np.log(told)) <= np.log(light.STRONGEST)).all()
    adapted = light.in_light(model, looks, told)
    assert np.isfinite(segutils.logits(adapted, rgb)).all()


def test_warning_where_an_image_is_unlike(model, two_tone):
    rgb, truth = two_tone
    looks = light.describe(model, [rgb], [truth])
    assert warning(looks, light.SAME, rgb) is None
    dark = warning(looks, light.Light((0.5, 1, 1), (1, 1, 1)), rgb // [2, 1, 1])
    assert dark.startswith("its light is 0.5 (red), 1.0 (green), 1.0 (blue) times")
    strange = rgb.copy()
    strange[:100] = [250, 0, 250]
    said = warning(looks, light.SAME, strange)
    assert said.startswith("35% of it has colours that the training image lacks")
    assert "\n" not in dark + said


@pytest.mark.parametrize("name", changes.CHANGES)
def test_changes_give_another_image_of_the_same_kind(scene, name):
    rgb, _ = scene
    changed = changes.CHANGES[name](rgb)
    assert changed.shape == rgb.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, rgb)
    np.testing.assert_array_equal(changed, changes.CHANGES[name](rgb))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_image_has_one_answer(model, two_tone, value):
    looks = light.describe(model, *([part] for part in two_tone))
    rgb = np.full((300, 280, 3), value, np.uint8)
    its_light = estimate(looks, rgb)
    adapted = light.in_light(model, looks, its_light)
    found = probabilities(adapted, rgb)
    assert np.isfinite(its_light).all() and np.isfinite(found).all()
    assert np.ptp(found[8:-8, 8:-8]) < 1e-5  # away from its edge
    assert warning(looks, its_light, rgb) or value == 128  # it is like no plants


def test_pure_noise_has_an_answer_and_a_warning(model, two_tone):
    looks = light.describe(model, *([part] for part in two_tone))
    rgb = np.random.default_rng(0).integers(0, 256, (300, 280, 3), np.uint8)
    its_light = estimate(looks, rgb)
    adapted = light.in_light(model, looks, its_light)
    found = probabilities(adapted, rgb)
    assert ((found >= 0) & (found <= 1)).all()  # not so with NaN
    np.testing.assert_array_equal(found, probabilities(adapted, rgb))
    assert "colours that the training image lacks" in warning(looks, its_light, rgb)
