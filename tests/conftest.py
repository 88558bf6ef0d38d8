"""Small pictures, a small trained model, and a copy of the project to run in."""

import os
import shutil
from pathlib import Path


# As the scripts do, before torch is loaded: OpenMP's threads sleep while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from PIL import Image

import segutils


ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def scene():
    """A small part of the shipped scene: (176, 230, 3) uint8 and (176, 230) uint8."""
    part = np.s_[500:676, 400:630]
    rgb = np.array(Image.open(ROOT / "data/rgb.png"))[part]
    truth = (np.array(Image.open(ROOT / "data/gt.png"))[part] > 0).astype(np.uint8)
    return rgb, truth


@pytest.fixture
def model():
    """A network whose every layer does something, as after training."""
    torch.manual_seed(0)
    model = segutils.FCNN()
    model.normalise.mean += torch.tensor([120.3, 99.1, 80.7])
    model.normalise.std += torch.tensor([40.9, 50.2, 61.4])
    for layer in (model.norm1, model.norm2, model.norm3):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
        torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
        torch.nn.init.normal_(layer.bias)
    return model.eval()


@pytest.fixture
def folder(tmp_path, monkeypatch, scene):
    """A folder to work in, with the small scene at data/rgb.png and data/gt.png."""
    rgb, truth = scene
    (tmp_path / "data").mkdir()
    Image.fromarray(rgb).save(tmp_path / "data/rgb.png")
    Image.fromarray(truth * 255).save(tmp_path / "data/gt.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project(folder):
    """A copy of the project's code beside the small scene."""
    for source in ROOT.glob("*.py"):
        shutil.copy(source, folder)
    ignored = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=ignored)
    return folder
