"""A training on 16 bits or floats is as good as one on 8 bits.

From one training to another the IoU moves by more than 0.005, if a single pixel is
rounded otherwise and the training is short. So the scene is exposed so that its values
of more than 8 bits become the same grey levels again.
"""

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from samples import write_tiff

import predict
import train
from onelabel import console, depth, labelled, model_file, scores
from onelabel.truth import read_truth


SIDE = 256  # pixels of the part that is used: one tile, all of which sets the scale
STEPS = 40
TOLERANCE = 0.005  # of the IoU

KINDS = {
    "8 bits": lambda rgb: rgb,
    "12 bits": lambda rgb: rgb.astype(np.uint16) * 16,
    "reflectance": lambda rgb: (rgb / 255 * 10_000).round().astype(np.uint16),
    "floats": lambda rgb: (rgb / 255).astype(np.float32),
}


def part_of(folder):
    """A part of a shipped scene: (SIDE, SIDE, 3) uint8 and (SIDE, SIDE) uint8."""
    part = np.s_[300 : 300 + SIDE, 300 : 300 + SIDE]
    names = ("rgb.png", "gt.png")
    rgb, gt = (np.array(Image.open(ROOT / folder / name)) for name in names)
    return rgb[part], gt[part]


def exposures(rgb):
    """Say how to expose a scene so that its brightest pixels have the level `TOP`."""
    return depth.TOP / np.percentile(rgb, depth.PERCENTILES[1], axis=(0, 1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Give each kind's labelled image, and the IoU on the new image and on itself."""
    folder = tmp_path_factory.mktemp("depth")
    (rgb, gt), (new, new_gt) = part_of("data"), part_of("data/new")
    exposure = exposures(rgb)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(train, "EPOCH", STEPS // 2)
        Image.fromarray(gt).save("gt.png")
        Image.fromarray(new_gt).save("new_gt.png")
        results = {}
        for kind, convert in KINDS.items():
            for name, picture in (("rgb.tif", rgb), ("new.tif", new)):
                exposed = (picture * exposure).round().clip(0, 255).astype(np.uint8)
                write_tiff(name, convert(exposed))
            run(train.main, "--rgb", "rgb.tif", "--gt", "gt.png", "--epochs", 2)
            ((pixels, _),) = labelled.read_labelled([("rgb.tif", "gt.png")]).pairs
            found = [iou("new.tif", "new_gt.png"), iou("rgb.tif", "gt.png")]
            results[kind] = pixels, found, model_file.load("model.pt").scale
    return results


def run(main, *arguments):
    assert console.run(lambda: main(list(map(str, arguments)))) == 0


def iou(image, gt):
    """Give the IoU that predict.py's mask of an image has."""
    run(predict.main, image, "--output", "mask.png")
    (mask, _), (truth, _) = read_truth("mask.png"), read_truth(gt)
    return scores.scores(mask, truth)["IoU"]


@pytest.mark.parametrize("kind", list(KINDS)[1:])
def test_a_training_on_deep_pixels_is_as_good_as_on_bytes(trained, kind):
    pixels, found, scale = trained[kind]
    plain, expected, none = trained["8 bits"]
    assert none is None
    assert scale.kind == (depth.FLOATS if kind == "floats" else depth.INTEGERS)
    np.testing.assert_array_equal(pixels, plain)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_the_training_learned_something(trained):
    _, (new, own), _ = trained["8 bits"]
    assert own > 0.5 and new > 0.2
