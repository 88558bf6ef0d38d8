import runpy

import numpy as np
import pytest
from conftest import ROOT

from onelabel.reading import open_image
from onelabel.truth import read_truth


make_scenes = runpy.run_path(str(ROOT / "benchmarks/make_scenes.py"))


@pytest.mark.parametrize("folder", ["data", "data/new"])
def test_colour_alone_does_not_part_the_classes(folder):
    rgb = open_image(ROOT / folder / "rgb.png").whole()
    truth, colours = read_truth(ROOT / folder / "gt.png")
    assert rgb.shape[:2] == truth.shape
    assert list(map(tuple, colours)) == [(0, 0, 0), (255, 255, 255)]
    assert rgb.shape[0] % 2 == rgb.shape[1] % 2 == 1
    assert 0.2 < (truth == 1).mean() < 0.4
    best = make_scenes["best_threshold_iou"](rgb, truth * 255)
    assert max(best.values()) < 0.6


def test_the_committed_scene_is_what_its_script_makes():
    scene = make_scenes["SCENES"][1]
    rgb, gt = make_scenes["make_scene"](scene)
    drawn = open_image(ROOT / "data/new/rgb.png").whole()
    truth, _ = read_truth(ROOT / "data/new/gt.png")
    # Another processor or NumPy may round a few pixels otherwise.
    assert ((gt > 0) == truth).mean() > 0.999
    assert abs(rgb.astype(int) - drawn).mean() < 0.1
    assert not np.array_equal(rgb, rgb[::-1])
