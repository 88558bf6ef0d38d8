import numpy as np
import pytest
import torch
from conftest import ROOT

import segutils
import train
from onelabel import changes, light, model_file
from onelabel.image import InMemory
from onelabel.reading import open_image
from onelabel.truth import UNLABELLED


def adapt(model, looks, rgb):
    return light.adapt(model, looks, InMemory(rgb).sample())


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


def test_description_is_of_the_larger_class_and_in_plain_values(two_tone):
    rgb, truth = two_tone
    looks = light.describe([rgb], [truth])
    assert looks["larger"] == 0
    np.testing.assert_allclose(looks["colour"], [79.5, 89.5, 99.5], atol=0.2)
    assert all(type(v) is float for v in looks["colour"] + looks["highest"])
    other = light.describe([rgb], [1 - truth])
    assert other["larger"] == 1
    assert other["colour"] == looks["colour"]


def test_unlabelled_black_and_white_pixels_tell_no_colour(two_tone):
    rgb, truth = two_tone
    rgb, truth = rgb.copy(), truth.copy()
    looks = light.describe([rgb], [truth])
    rgb[200:] = 0
    rgb[:20] = 255
    truth[:, 350:] = UNLABELLED
    rgb[:, 350:] = 30
    np.testing.assert_allclose(
        light.describe([rgb], [truth])["colour"], looks["colour"], atol=0.2
    )
    assert light.describe([np.zeros_like(rgb)], [truth])["colour"] == [1, 1, 1]


@pytest.mark.parametrize("gain", [(1, 1, 1), (0.6, 0.6, 0.6), (1.2, 1, 0.8)])
@pytest.mark.parametrize("plants", [50, 250])
def test_light_is_told_whatever_the_share_of_the_classes(two_tone, gain, plants):
    rgb, truth = two_tone
    looks = light.describe([rgb], [truth])
    other = np.zeros_like(truth)
    other[30:130, 20 : 20 + plants] = 1  # another share of class 1
    scene = np.where(other[..., None] == 1, [200, 200, 200], [80, 90, 100]) * gain
    scene = scene.round().clip(0, 255).astype(np.uint8)
    model = brightness_model()
    adapted, told = adapt(model, looks, scene)
    np.testing.assert_allclose(told, gain, rtol=0.03)
    mask = segutils.segment(adapted, scene)
    inside = np.s_[10:120, 10:390]  # away from the padding's edge
    assert (mask[inside] == other[inside]).mean() > 0.98


def test_contrast_is_half_allowed_for(two_tone):
    rgb, truth = two_tone
    looks = light.describe([rgb], [truth])
    soil = np.array([80, 90, 100])
    wild = ((rgb.astype(float) - soil) * 2 + soil).round().clip(0, 255).astype(np.uint8)
    model = brightness_model()
    adapted, told = adapt(model, looks, wild)
    np.testing.assert_allclose(told, 1, rtol=0.03)
    half = adapted.normalise.std.numpy() / model.normalise.std.numpy()
    np.testing.assert_allclose(half, np.sqrt(2), rtol=0.05)


def test_contrast_that_cannot_be_told_is_left_alone(two_tone):
    rgb, truth = two_tone
    strokes = np.full_like(truth, UNLABELLED)
    strokes[:, ::9] = truth[:, ::9]  # no two labelled pixels of a row are near
    looks = light.describe([rgb], [strokes])
    assert min(looks["contrast"]) > 1
    model = brightness_model()
    narrow = np.ascontiguousarray(rgb[:, :4])
    adapted, told = adapt(model, looks, narrow)
    np.testing.assert_allclose(
        adapted.normalise.std.numpy(), model.normalise.std.numpy() * told, rtol=1e-5
    )


def test_the_error_is_what_crops_of_the_training_image_show():
    truth = np.zeros((300, 400), np.uint8)
    truth[10:20, 10:20] = 1
    model = brightness_model()

    def error(shade):
        """Of soil that is darker to the left and brighter to the right."""
        soil = np.random.default_rng(0).normal([80, 90, 100], 3, (300, 400, 3))
        shades = np.linspace(1 - shade, 1 + shade, 400)[:, None]
        rgb = (soil * shades).round().astype(np.uint8)
        looks = light.describe([rgb], [truth])
        assert looks["error"] == [0, 0]  # not yet measured
        one = light.measure_error(model, looks, [rgb])
        assert light.measure_error(model, looks, [rgb, rgb]) == pytest.approx(one)
        return one[0] / 150  # of the light of a crop, of 150x150 pixels

    assert 0 < error(0) < 0.03 < error(0.1) < error(0.2) < 0.25


def test_no_more_light_is_allowed_for_than_an_error_leaves(two_tone):
    rgb, truth = two_tone
    model, dark = brightness_model(), rgb // 2
    looks = light.describe([rgb], [truth])
    told = [
        adapt(model, {**looks, "error": [error, 0]}, dark)[1].max()
        for error in (0, 100, 120, 135, 1e6)
    ]
    assert told[0] == pytest.approx(0.5, rel=0.03)
    assert told == sorted(told) and told[3] < told[4] == 1
    # More pixels are more certain: of the whole, and of a quarter of it.
    unsure = {**looks, "error": [100.0, 0.0]}
    quarter = adapt(model, unsure, dark[:150, 100:300])[1]
    assert (told[1] < quarter).all()


def test_light_and_spread_are_each_judged_by_their_own_error(two_tone):
    rgb, truth = two_tone
    model, dark = brightness_model(), rgb // 2
    looks = light.describe([rgb], [truth])

    def constants(*errors):
        adapted, told = adapt(model, {**looks, "error": list(errors)}, dark)
        return told, adapted.normalise.std / model.normalise.std

    certain, unsure = constants(0, 0), constants(1e6, 0)
    assert (unsure[0] == 1).all() and torch.equal(unsure[1], certain[1])
    unsure = constants(0, 1e6)
    assert (unsure[0] == certain[0]).all() and (unsure[1] == 1).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The model that a short training on the shipped scene writes."""
    folder = tmp_path_factory.mktemp("trained")
    pair = [str(ROOT / "data" / name) for name in ("rgb.png", "gt.png")]
    files = [str(folder / name) for name in ("model.pt", "curves.png")]
    arguments = ["--rgb", pair[0], "--gt", pair[1], "--epochs", "40"]
    train.main([*arguments, "--model", files[0], "--plot", files[1]])
    learned = model_file.load(files[0])
    return learned.model, learned.looks


def test_a_crop_gets_the_mask_that_it_has_in_the_whole_image(trained):
    model, looks = trained
    rgb = open_image(ROOT / "data/new/rgb.png").whole()
    height, width = rgb.shape[:2]

    def segment(picture):
        return segutils.segment(adapt(model, looks, picture)[0], picture)

    whole, agreement = segment(rgb), []
    for side in (256, 400):
        for top in np.linspace(0, height - side, 4).astype(int):
            for left in np.linspace(0, width - side, 4).astype(int):
                crop = np.s_[top : top + side, left : left + side]
                agreement.append((segment(rgb[crop]) == whole[crop]).mean())
    assert np.mean(agreement) >= 0.98


def test_a_gain_changes_nothing(model, scene):
    rgb, truth = scene
    rgb = rgb // 2 * 2  # even values, so that halving loses nothing
    looks = light.describe([rgb], [truth])
    ours, bright = adapt(model, looks, rgb)
    darker, dark = adapt(model, looks, rgb // 2)
    # Not exactly: the darker of the two has more pixels too faint to tell a colour.
    np.testing.assert_allclose(dark / bright, 0.5, rtol=0.04)
    masks = segutils.segment(ours, rgb), segutils.segment(darker, rgb // 2)
    assert (masks[0] == masks[1]).mean() > 0.97


def test_only_the_constants_differ_and_the_model_is_left_alone(model, scene):
    rgb, truth = scene
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted, _ = adapt(model, light.describe([rgb], [truth]), rgb // 2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        same = torch.equal(adapted.state_dict()[name], value)
        assert same == (not name.startswith("normalise"))


@pytest.mark.parametrize("rgb", [np.zeros((1, 1, 3)), np.full((300, 5, 3), 255)])
def test_an_image_without_colour_is_no_fault(model, two_tone, rgb):
    rgb = rgb.astype(np.uint8)
    adapted, told = adapt(model, light.describe(*([a] for a in two_tone)), rgb)
    assert ((told >= 1 / light.STRONGEST) & (told <= light.STRONGEST)).all()
    assert np.isfinite(segutils.logits(adapted, rgb)).all()


def test_warning_where_an_image_is_unlike(two_tone):
    rgb, truth = two_tone
    looks = light.describe([rgb], [truth])
    same = np.ones(3)
    assert warning(looks, same, rgb) is None
    dark = warning(looks, np.array([0.5, 1, 1]), rgb // [2, 1, 1])
    assert dark.startswith("its light is 0.5 (red), 1.0 (green), 1.0 (blue) times")
    strange = rgb.copy()
    strange[:100] = [250, 0, 250]
    said = warning(looks, same, strange)
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
def test_a_constant_image_has_one_answer_away_from_its_edge(model, two_tone, value):
    looks = light.describe(*([part] for part in two_tone))
    rgb = np.full((300, 280, 3), value, np.uint8)
    adapted, its_light = adapt(model, looks, rgb)
    found = probabilities(adapted, rgb)
    assert np.isfinite(its_light).all() and np.isfinite(found).all()
    assert np.ptp(found[8:-8, 8:-8]) < 1e-5
    assert warning(looks, its_light, rgb)  # it is like no plants on soil


def test_pure_noise_has_an_answer_and_a_warning(model, two_tone):
    looks = light.describe(*([part] for part in two_tone))
    rgb = np.random.default_rng(0).integers(0, 256, (300, 280, 3), np.uint8)
    adapted, its_light = adapt(model, looks, rgb)
    found = probabilities(adapted, rgb)
    assert ((found >= 0) & (found <= 1)).all()  # not so with NaN
    np.testing.assert_array_equal(found, probabilities(adapted, rgb))
    assert "colours that the training image lacks" in warning(looks, its_light, rgb)
