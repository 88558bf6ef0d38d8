"""The self-check tells a machine that computes well from one that does not."""

import numpy as np
import pytest
import torch
from PIL import Image

import predict
import segutils
from onelabel import console, light, model_file, verify


@pytest.fixture
def saved(folder, model, scene):
    looks = light.describe(model, [scene[0]], [scene[1]])
    colours = ((0, 0, 0), (255, 255, 255))
    model_file.save("model.pt", model.state_dict(), looks, colours)


def run(*arguments):
    return console.run(lambda: predict.main(["--verify", *arguments]))


def test_this_machine_is_well(saved, folder, capsys):
    before = sorted(folder.rglob("*"))
    assert run("data/rgb.png") == 0
    machine, tiled, literal, *exact = capsys.readouterr().out.splitlines()
    assert machine.startswith("data/rgb.png: 230x176 pixels of its middle, float32 on")
    assert "25 tiles" not in tiled and "tiles against one pass" in tiled
    assert "against the layers as written" in literal
    if segutils.is_exact(torch.device("cpu")):
        assert tiled.endswith("differ by at most 0 (0 of the largest), masks equal")
        assert exact == ["here tiles give the bits of one pass over the whole image"]
    else:
        assert exact == []
    assert sorted(folder.rglob("*")) == before


def test_without_onednn_the_machine_is_held_to_rounding(saved, monkeypatch, capsys):
    monkeypatch.setattr(verify, "is_exact", lambda *_: False)
    assert run("data/rgb.png") == 0
    assert "the bits of one pass" not in capsys.readouterr().out


def test_the_network_never_gets_more_than_256_pixels(saved, scene):
    Image.fromarray(np.tile(scene[0], (3, 2, 1))).save("large.png")
    assert run("large.png") == 0
    assert verify.middle((528, 460)) == (136, 102, 392, 358)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (41, 63)])
def test_any_size_can_be_checked(saved, scene, size):
    rgb = np.tile(scene[0], (2, 2, 1))[: size[0], : size[1]]
    Image.fromarray(rgb).save("small.png")
    assert run("small.png") == 0


def test_a_halo_too_small_is_found(saved, monkeypatch, capsys):
    monkeypatch.setattr(segutils, "HALO", 2)
    assert run("data/rgb.png") == 1
    assert "tiles against one pass: logits differ by at most 0.2" in (
        capsys.readouterr().out
    )


def test_a_network_computed_wrongly_is_found(saved, monkeypatch, capsys):
    right = segutils.Folded.__call__

    def wrong(network, rgb):
        return right(network, rgb) + 0.01

    monkeypatch.setattr(segutils.Folded, "__call__", wrong)
    assert run("data/rgb.png") == 1
    assert "as written: logits differ by at most 0.01" in capsys.readouterr().out


def test_bf16_is_not_held_to_float32s_rounding(model, scene):
    found = verify.compare(model, scene[0], torch.bfloat16)
    device = torch.device("cpu")
    text, is_well = verify.describe_findings("a", (1, 1), device, torch.bfloat16, found)
    assert found[1].share > verify.TOLERANCE[torch.float32]
    assert is_well and "bfloat16" in text


@pytest.mark.parametrize("name", ["missing.png", "model.pt"])
def test_what_is_no_image_is_refused(saved, name, capsys):
    assert run(name) == 2
    assert capsys.readouterr().err.startswith(f"error: {name}: ")
