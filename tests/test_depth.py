"""Images of more than 8 bits: read by the scale of the training image."""

from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, hide_libraries
from conftest import predict_here as run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import BLACK_WHITE, blobs, place, save, write_deep_png, write_tiff

from onelabel import depth, labelled, light, model_file, reading
from onelabel.depth import BYTES, FLOATS, INTEGERS, Scale
from onelabel.files import InputError
from onelabel.image import UNLABELLED, InMemory
from onelabel.reading import open_image
from onelabel.truth import read_truth


@pytest.fixture(scope="module")
def shipped():
    """The shipped image: (H, W, 3) uint8."""
    return np.array(Image.open(ROOT / "data/rgb.png"))


def reflectance(rgb):
    """Values of 0 to 10,000, of which the image fills the lower part."""
    return (rgb * np.float64(10_000 / 255)).round().astype(np.uint16)


def unit_floats(rgb):
    """Values of 0 to 1; of some pixels nothing is known."""
    values = (rgb / 255).astype(np.float32)
    values[5:60, 7:90] = np.nan
    return values


DEEP = {
    "12 bits": lambda rgb: rgb.astype(np.uint16) * 16,
    "16 bits": lambda rgb: rgb.astype(np.uint16) * 257,
    "reflectance": reflectance,
    "floats": unit_floats,
    "signed": lambda rgb: rgb.astype(np.int16) * 40 - 3000,
    "large integers": lambda rgb: rgb.astype(np.int32) * 100_000,
}


def opened(path, values, **more):
    """Write values to a TIFF, and open it with the scale that it gives itself."""
    image = open_image(write_tiff(path, values, **more))
    kind = depth.kind_of(image.dtype)
    image.use_scale(depth.fit_scale(kind, image.raw_sample()))
    return image


def affine_error(found, rgb):
    """Say how far grey levels are from the best affine map of 8 bits, at most.

    For each channel; levels of 0 and 255 may have been cut off.
    """
    worst = 0.0
    for channel in range(3):
        one, other = found[..., channel].ravel(), rgb[..., channel].ravel()
        inner = (one > 0) & (one < 255)
        line = np.polyfit(other[inner], one[inner], 1)
        worst = max(worst, abs(np.polyval(line, other[inner]) - one[inner]).max())
    return worst


@pytest.mark.parametrize("name", list(DEEP))
def test_the_same_picture_is_read_whatever_its_values(tmp_path, shipped, name):
    image = opened(tmp_path / "a.tif", DEEP[name](shipped))
    found = image.read(image.blocks()[0].grown(10**6, image.shape))
    known = ~np.ma.getmaskarray(found).any(-1)
    assert found.dtype == np.uint8
    assert known.mean() > (0.99 if name == "floats" else 0.9999)
    pixels = np.ma.getdata(found)[known]
    assert affine_error(pixels, shipped[known]) < 0.75  # half a level, of rounding
    assert len(np.unique(pixels[:, 1])) > 100  # little depth is lost
    assert (pixels == 255).mean() < 0.01
    assert (pixels == 0).mean() < 0.01


def test_twice_the_light_is_twice_the_grey_level(tmp_path, shipped):
    """So that an image's light can be allowed for; of values from zero up."""
    image = opened(tmp_path / "a.tif", reflectance(shipped))
    assert image.scale.zero == (0.0, 0.0, 0.0)
    low = np.full((1, 1, 3), 1200, np.uint16)
    one, other = (depth.to_bytes(factor * low, image.scale) for factor in (1, 2))
    assert abs(other - 2.0 * one).max() <= 1.5  # of rounding


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_have_no_data(tmp_path, shipped, hidden):
    values = shipped[:300, :300].astype(np.float32) / 255
    plain = opened(tmp_path / "plain.tif", values)
    values[:40] = hidden
    values[40:50, :, 1] = hidden  # in one channel only
    image = opened(tmp_path / "a.tif", values)
    found = image.read(image.blocks()[0])
    is_hidden = np.ma.getmaskarray(found).any(-1)
    assert is_hidden[:50].all()
    assert not is_hidden[50:].any()
    rest = opened(tmp_path / "rest.tif", values[50:])
    assert image.scale.kind == plain.scale.kind == FLOATS
    np.testing.assert_allclose(image.scale.unit, rest.scale.unit, rtol=0.02)
    np.testing.assert_allclose(image.scale.zero, rest.scale.zero, atol=0.01)


def test_pixels_without_data_do_not_influence_the_scale(tmp_path, shipped):
    part = reflectance(shipped[:300, :300]) + 1
    scales = []
    for value in (0, 60_000):
        values = part.copy()
        values[:, :150] = value
        image = opened(tmp_path / f"{value}.tif", values, **place(), nodata=value)
        found = image.read(image.blocks()[0])
        is_hidden = np.ma.getmaskarray(found).any(-1)
        assert is_hidden[:, :150].all()
        assert not is_hidden[:, 150:].any()
        scales.append(image.scale)
    assert scales[0] == scales[1]


@given(
    kind=st.sampled_from(["uint16", "int16", "int32", "float32", "float64"]),
    offset=st.floats(-1e4, 1e4),
    spread=st.floats(1, 1e4),
    seed=st.integers(0, 99),
)
def test_any_scale_is_finite_and_keeps_the_order(kind, offset, spread, seed):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(kind) if kind[0] != "f" else np.finfo(kind)
    drawn = rng.normal(offset, spread, (30, 40, 3))
    values = drawn.clip(limits.min, limits.max).astype(kind)
    scale = depth.fit_scale(depth.kind_of(kind), [values[:20], values[20:]])
    assert np.isfinite([scale.zero, scale.unit]).all()
    assert min(scale.unit) > 0
    found = depth.to_bytes(values, scale)
    assert found.dtype == np.uint8
    for channel in range(3):
        order = np.argsort(values[..., channel], axis=None, kind="stable")
        levels = found[..., channel].ravel()[order].astype(int)
        assert (np.diff(levels) >= 0).all()


@pytest.mark.parametrize("value", [0, 7, 60_000])
def test_an_image_of_one_value_has_a_scale(value):
    values = np.full((9, 9, 3), value, np.uint16)
    scale = depth.fit_scale(INTEGERS, [values])
    assert min(scale.unit) > 0
    assert len(np.unique(depth.to_bytes(values, scale))) == 1


def test_an_image_without_data_has_a_scale():
    values = np.full((9, 9, 3), np.nan, np.float32)
    scale = depth.fit_scale(FLOATS, [values, np.ma.MaskedArray(values, True)])
    assert np.isfinite([scale.zero, scale.unit]).all()
    assert np.ma.getmaskarray(depth.to_bytes(values, scale)).all()


def test_eight_bits_are_taken_as_they_are(scene):
    assert depth.kind_of(np.uint8) == BYTES
    assert depth.fit_scale(BYTES, [scene[0]]) is None
    image = InMemory(scene[0])
    image.use_scale(None)
    np.testing.assert_array_equal(image.whole(), scene[0])


def test_a_deep_image_is_read_alike_by_blocks_and_by_any_library(
    tmp_path, monkeypatch, shipped, request
):
    deep = shipped[:600].astype(np.uint16) * 250 + 17
    grey = np.ascontiguousarray(deep[..., 1])
    paths = [
        write_tiff(tmp_path / "a.tif", deep, tiled=True),
        write_deep_png(tmp_path / "a.png", deep),
        save(tmp_path / "grey.tif", grey),
        save(tmp_path / "grey.png", grey),
    ]
    scale = depth.fit_scale(INTEGERS, [deep])
    expected = [depth.to_bytes(deep, scale)] * 2
    expected += [depth.to_bytes(np.repeat(grey[..., None], 3, 2), scale)] * 2

    def check(those):
        for path, pixels in those:
            image = open_image(path)
            image.use_scale(scale)
            np.testing.assert_array_equal(image.whole(), pixels)
            for block in image.blocks():
                np.testing.assert_array_equal(image.read(block), pixels[block.slices])

    pairs = list(zip(paths, expected, strict=True))
    check(pairs)
    request.getfixturevalue("none_held")
    check(pairs)
    hide_libraries(monkeypatch)
    check(pairs[2:])


# ------------------------------------------------------------------ in a training


def test_training_images_share_one_scale(tmp_path, scene):
    rgb, truth = scene
    gt = save(tmp_path / "gt.png", truth * 255)
    paths = [
        (write_tiff(tmp_path / f"{factor}.tif", rgb.astype(np.uint16) * factor), gt)
        for factor in (20, 40)
    ]
    pairs, _, scale, _ = labelled.read_labelled(paths)
    assert scale.kind == INTEGERS
    (dark, _), (bright, _) = pairs
    inner = bright < 255
    assert abs(bright[inner] - 2.0 * dark[inner]).max() <= 1.5
    alone = labelled.read_labelled(paths[:1])
    assert alone.scale.unit < scale.unit


def test_pixels_without_data_are_not_learned(tmp_path, scene):
    values = unit_floats(scene[0])
    gt = save(tmp_path / "gt.png", scene[1] * 255)
    path = write_tiff(tmp_path / "a.tif", values)
    ((rgb, truth),), _, scale, _ = labelled.read_labelled([(path, gt)])
    assert scale.kind == FLOATS
    assert rgb.dtype == np.uint8
    hidden = np.isnan(values).any(-1)
    np.testing.assert_array_equal(np.ma.getmaskarray(rgb).any(-1), hidden)
    assert (truth[hidden] == UNLABELLED).all()
    np.testing.assert_array_equal(truth[~hidden], scene[1][~hidden])


def test_training_images_of_two_kinds_are_refused(tmp_path, scene):
    gt = save(tmp_path / "gt.png", scene[1] * 255)
    one = save(tmp_path / "one.png", scene[0])
    other = write_tiff(tmp_path / "other.tif", reflectance(scene[0]))
    with pytest.raises(InputError) as caught:
        labelled.read_labelled([(one, gt), (other, gt)])
    assert str(caught.value) == (
        f"{other}: has integers of over 8 bits, but {one} has 8 bits "
        "(save all images alike)"
    )


def test_only_the_labelled_rows_and_columns_of_a_large_image_are_read(
    tmp_path, monkeypatch, scene
):
    rgb, truth = (np.tile(array, (4, 3, 1)[: array.ndim]) for array in scene)
    rgba = np.zeros((*truth.shape, 4), np.uint8)
    rgba[..., :3] = truth[..., None] * 255
    rgba[90:200, 70:190, 3] = 255
    rgba[480:530, 300:370, 3] = 255
    gt, path = save(tmp_path / "gt.png", rgba), write_tiff(tmp_path / "a.tif", rgb)
    monkeypatch.setattr(labelled, "IN_MEMORY", 0)
    ((found, classes),), *_ = labelled.read_labelled([(path, gt)])
    near = labelled.CONTEXT
    rows = [*range(90 - near, 200 + near), *range(480 - near, 530 + near)]
    cols = [*range(70 - near, 190 + near), *range(300 - near, 370 + near)]
    np.testing.assert_array_equal(found, rgb[np.ix_(rows, cols)])
    expected = np.where(rgba[..., 3] > 0, truth, UNLABELLED)[np.ix_(rows, cols)]
    np.testing.assert_array_equal(classes, expected)


# ------------------------------------------------------------------ in a prediction


def save_model(model, scene, scale):
    rgb, truth = scene
    looks = light.describe(model, [rgb], [truth])
    colours = ((0, 0, 0), (255, 255, 255))
    model_file.save("model.pt", model.state_dict(), looks, colours, scale)


FACTORS = {INTEGERS: 20.0, FLOATS: 1 / 255}


@pytest.mark.parametrize("kind", [INTEGERS, FLOATS])
def test_a_deep_image_gives_the_mask_of_its_picture(folder, model, scene, kind):
    """One that was trained on such values, by whichever of the two scales."""
    factor = FACTORS[kind]
    dtype = np.uint16 if kind == INTEGERS else np.float32
    write_tiff("deep.tif", (scene[0] * factor).astype(dtype))
    save_model(model, scene, Scale(kind, (0.0,) * 3, (factor,) * 3))
    assert run("deep.tif", "--output", "deep.png", "--overlay", "drawn.png") == 0
    save_model(model, scene, None)
    assert run("data/rgb.png", "--output", "plain.png", "--overlay", "bytes.png") == 0
    for one, other in (("deep", "plain"), ("drawn", "bytes")):
        assert Path(f"{one}.png").read_bytes() == Path(f"{other}.png").read_bytes()


def test_pixels_that_are_nan_get_no_class(folder, model, scene):
    values = unit_floats(scene[0])
    write_tiff("deep.tif", values, **place())
    save_model(model, scene, Scale(FLOATS, (0.0,) * 3, (1 / 255,) * 3))
    assert run("deep.tif", "--output", "mask.tif") == 0
    mask = np.asarray(Image.open("mask.tif"))
    np.testing.assert_array_equal(mask == 255, np.isnan(values).any(-1))


@pytest.mark.parametrize("name", ["rgb.tif", "grey.png", "floats.tif", "a.zarr"])
@pytest.mark.parametrize("trained", [BYTES, INTEGERS, FLOATS])
def test_an_image_of_another_kind_is_refused_in_one_line(
    folder, model, scene, capsys, name, trained
):
    import zarr

    deep = scene[0].astype(np.uint16) * 20
    write_tiff("rgb.tif", deep)
    save("grey.png", np.ascontiguousarray(deep[..., 0]))
    write_tiff("floats.tif", unit_floats(scene[0]))
    zarr.create_array("a.zarr", data=scene[0])
    kinds = {"floats.tif": (FLOATS, "float32"), "a.zarr": (BYTES, "uint8")}
    kind, dtype = kinds.get(name, (INTEGERS, "uint16"))
    scale = Scale(trained, (0.0,) * 3, (1.0,) * 3) if trained != BYTES else None
    save_model(model, scene, scale)
    if kind == trained:
        assert run(name, "--output", "mask.png") == 0
        return
    assert run(name, "--output", "mask.png") == 2
    assert capsys.readouterr().err == (
        f"error: {name}: {dtype} pixels ({kind}), but the training image has "
        f"{trained} (convert the image, or train on one like it)\n"
    )
    assert not Path("mask.png").exists()


def test_of_many_images_the_one_of_another_kind_fails_alone(
    folder, model, scene, capsys
):
    save_model(model, scene, None)
    Path("photos").mkdir()
    Path("masks").mkdir()
    save("photos/a.png", scene[0])
    write_tiff("photos/b.tif", scene[0].astype(np.uint16) * 20)
    save("photos/c.png", blobs(90, 80) * 200, "RGB")
    assert run("photos", "--output", "masks") == 1
    assert {path.name for path in Path("masks").glob("*.png")} == {"a.png", "c.png"}
    lines = capsys.readouterr().err.splitlines()
    said = [line.startswith("error: photos/b.tif: uint16 pixels") for line in lines]
    assert sum(said) == 1
    assert lines[-1] == "1 of 3 images failed"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_of_floats_that_are_no_map_can_be_read_back(
    folder, model, scene, suffix
):
    values = unit_floats(scene[0])
    write_tiff("deep.tif", values)
    save_model(model, scene, Scale(FLOATS, (0.0,) * 3, (1 / 255,) * 3))
    assert run("deep.tif", "--output", f"mask.{suffix}") == 0
    found, colours = read_truth(f"mask.{suffix}")
    assert colours == BLACK_WHITE
    np.testing.assert_array_equal(found == UNLABELLED, np.isnan(values).any(-1))


@pytest.mark.parametrize("transparent", [False, True])
def test_a_sample_keeps_no_more_in_memory_than_its_tiles(
    tmp_path, monkeypatch, transparent
):
    rgba = np.random.default_rng(0).integers(0, 256, (300, 900, 4), np.uint8)
    save(tmp_path / "a.png", rgba)
    monkeypatch.setattr(reading, "IN_MEMORY", 0)
    image = reading.open_image(tmp_path / "a.png", transparent=transparent)
    tiles = [*image.raw_sample(), *(pixels for _, pixels in image.sample())]
    for pixels in map(np.ma.getdata, tiles):
        kept = pixels if pixels.base is None else pixels.base
        assert kept.size == pixels.size
