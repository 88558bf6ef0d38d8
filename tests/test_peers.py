"""What users of other tools complain of, one test for each: so never here."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from torch import nn

import predict
import segutils
import train
from onelabel import console, model_file
from onelabel.reading import open_image


def run(main, *arguments):
    return console.run(main, list(map(str, arguments)))


@pytest.fixture
def trained(folder, monkeypatch):
    """The folder with a model that was trained for a moment."""
    monkeypatch.setattr(train, "EPOCH", 2)
    assert run(train.main, "--epochs", 1) == 0
    return folder


@pytest.fixture
def large(scene):
    """An image of several tiles a side: (528, 461, 3)."""
    return np.tile(scene[0], (3, 3, 1))[:528, :461]


def in_one_pass(model, rgb):
    """Give the logits of the whole image in one pass, whatever its size."""
    even = np.pad(rgb, [(0, side % 2) for side in rgb.shape[:2]] + [(0, 0)], "edge")
    x = torch.tensor(even).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        logits = nn.Sequential.forward(model, x)[0].numpy()
    return (logits[1] - logits[0])[: rgb.shape[0], : rgb.shape[1]]


def test_seams_and_tiles_off_the_pooling_grid(model, large):
    """napari-convpaint #67."""
    found = segutils.logits(model, large)
    np.testing.assert_allclose(found, in_one_pass(model, large), atol=1e-3)


def test_the_image_s_own_edge(model, large):
    """qgis-plugin-deepness #122: it is decided, too, and as in one pass."""
    found, whole = segutils.logits(model, large), in_one_pass(model, large)
    for edge in (np.s_[:3], np.s_[-3:], np.s_[:, :3], np.s_[:, -3:]):
        np.testing.assert_allclose(found[edge], whole[edge], atol=1e-3)


def test_logits_of_the_whole_image_fill_the_memory(model):
    """MONAI #6427, nnUNet #2912: one byte a pixel is held, not eight."""
    rgb = np.zeros((2000, 2000, 3), np.uint8)
    tracemalloc.start()
    segutils.segment(model, rgb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2000 * 2000


def test_huge_input_runs_out_of_memory(trained):
    """terratorch #1199: what is beyond any JPEG or layer is a row of tiles here."""
    rgb = np.tile(open_image("data/rgb.png").whole(), (1, 300, 1))[:40]
    Image.fromarray(rgb).save("wide.png")
    assert run(predict.main, "wide.png", "--output", "mask.png") == 0
    assert Image.open("mask.png").size == (69_000, 40)


def test_silent_skipping(trained, capsys):
    """ilastik #2071: the one that cannot be read is named, and the code says so."""
    Path("masks").mkdir()
    Path("damaged.png").write_bytes(Path("data/rgb.png").read_bytes()[:5000])
    Path("other.png").write_bytes(Path("data/rgb.png").read_bytes())
    names = ["other.png", "damaged.png", "data/rgb.png"]
    assert run(predict.main, *names, "--output", "masks") == 1
    assert capsys.readouterr().err.startswith("error: damaged.png: damaged image")
    assert sorted(p.name for p in Path("masks").glob("*.png")) == [
        "other.png",
        "rgb.png",
    ]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (33, 47), (257, 511)])
def test_odd_sizes(trained, size):
    """segmentation_models.pytorch #93."""
    rgb = np.tile(open_image("data/rgb.png").whole(), (3, 3, 1))[: size[0], : size[1]]
    Image.fromarray(rgb).save("odd.png")
    assert run(predict.main, "odd.png", "--output", "mask.png") == 0
    assert np.array(Image.open("mask.png")).shape == size


def test_masks_of_0_and_255_against_0_and_1(trained, scene):
    """nnUNet #1777: they are the same truth, and teach the same weights."""
    Image.fromarray(scene[1]).save("ones.png")
    options = ["--gt", "ones.png", "--model", "ones.pt", "--epochs", 1]
    assert run(train.main, *options) == 0
    first, second = (
        model_file.load(f).model.state_dict() for f in ("model.pt", "ones.pt")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_masks_with_dozens_of_values(folder, scene, capsys):
    """nnUNet #2404: refused, and the values are listed."""
    values = scene[1] * 200 + np.arange(230, dtype=np.uint8) % 40
    Image.fromarray(values).save("data/gt.png")
    assert run(train.main) == 2
    said = capsys.readouterr().err
    assert "80 colours found, expected 2 ((26, 26, 26), " in said
    assert not Path("model.pt").exists()


@pytest.mark.parametrize("value", [0, 1])
def test_all_black_output(trained, capsys, value):
    """Pytorch-UNet #370: a mask of one class only is warned of."""
    content = torch.load("model.pt", weights_only=True)
    content["weights"]["conv4.bias"][value] += 1e6
    torch.save(content, "model.pt")
    assert run(predict.main) == 0
    assert f"warning: data/rgb.png: every pixel is class {value}" in (
        capsys.readouterr().err
    )


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_pickled_models(folder, capsys):
    """nnUNet #2681: a model file holds numbers; code in it is not run."""
    torch.save({"format": model_file.MODEL_FORMAT, "weights": Payload()}, "model.pt")
    assert run(predict.main) == 2
    assert "model.pt: is not a model file, or is damaged" in capsys.readouterr().err
    assert not Path("ran").exists()
    torch.load("model.pt", weights_only=False)
    assert Path("ran").exists()  # it would have


def test_rgba_and_transposed_images(trained, scene):
    """MONAI #3243: a fourth channel changes nothing, nor do rows become columns."""
    rgba = np.dstack([scene[0], np.full(scene[1].shape, 9, np.uint8)])
    Image.fromarray(rgba).save("rgba.png")
    for name in ("data/rgb.png", "rgba.png"):
        assert run(predict.main, name, "--output", f"mask-{Path(name).stem}.png") == 0
    first, second = (np.array(Image.open(f"mask-{n}.png")) for n in ("rgb", "rgba"))
    assert first.shape == scene[1].shape
    np.testing.assert_array_equal(first, second)


def test_other_scaling_at_prediction_than_at_training(trained, scene):
    """raster-vision #1876: the model file has the training image's own constants."""
    model = model_file.load("model.pt").model
    values = scene[0].reshape(-1, 3)
    np.testing.assert_allclose(model.normalise.mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.normalise.std, values.std(0), rtol=1e-5)


def test_gui_imports_on_a_headless_machine(trained):
    """ilastik #2491: no display is asked for, even where matplotlib would have one."""
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['tkinter', 'PyQt5', 'PyQt6', 'gi', 'wx'])\n"
        "import train, predict\n"
        "from onelabel import console\n"
        "train.EPOCH = 2\n"
        "ends = [console.run(train.main, ['--epochs', '1'])]\n"
        "ends.append(console.run(predict.main, ['--overlay', 'o.png']))\n"
        "sys.exit(max(ends))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "tkagg"}
    environment.pop("DISPLAY", None)
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_forced_tracking(trained, monkeypatch):
    """milesial/Pytorch-UNet, whose training reports to a service: no socket is made."""

    def refused(*args, **kwargs):
        raise AssertionError("a socket was made")

    monkeypatch.setattr("socket.socket", refused)
    assert run(train.main, "--epochs", 1) == 0
    assert run(predict.main) == 0
