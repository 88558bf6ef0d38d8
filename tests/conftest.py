"""Small pictures, a small trained model, and a copy of the project to run in."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path


# As the scripts do, before torch is loaded: OpenMP's threads sleep while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

import segutils
from onelabel import (
    console,
    formats,
    image,
    libraries,
    light,
    model_file,
    objects,
    reading,
    resources,
    store,
    writing,
)
from onelabel.image import InMemory


ROOT = Path(__file__).resolve().parent.parent
settings.register_profile("untimed", deadline=None)  # other processors are slower
settings.load_profile("untimed")


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
    for name in ("notebooks", "onelabel"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


@pytest.fixture
def environment(monkeypatch):
    """Dask sets variables such as OMP_NUM_THREADS, which later tests are not to see."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.fixture
def trained_file(folder, model, scene):
    """A model file in the folder, whose masks of the small scene have both classes."""
    rgb, truth = scene
    looks = light.describe(model, [rgb], [truth])
    its_light = light.estimate(looks, InMemory(rgb).sample())
    adapted = light.in_light(model, looks, its_light)
    model.conv4.bias.data[1] -= float(np.median(segutils.logits(adapted, rgb)))
    colours = ((10, 20, 30), (250, 240, 0))
    model_file.save("model.pt", model.state_dict(), looks, colours)
    return folder / "model.pt"


@pytest.fixture(scope="module")
def low_strips():
    """Cut every mask into strips of five rows."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (image, objects):
            patch.setattr(module, "STRIP", 5)
        yield


@pytest.fixture
def none_held(monkeypatch):
    """Take every image to be too large to be held in memory, and cut it into blocks."""
    for module in (reading, resources):
        monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr(image, "SIDE", 2 * image.STRIP)
    monkeypatch.setattr(store, "CHUNK", (image.STRIP, 2 * image.STRIP))


# The same, for a script that is started.
NONE_HELD = """
from onelabel import image, reading, resources, store
reading.IN_MEMORY = resources.IN_MEMORY = 0
image.SIDE = 2 * image.STRIP
store.CHUNK = image.STRIP, image.SIDE
"""


def predict_here(*arguments):
    """Run predict.py's main in this process; give its exit code."""
    import predict

    return console.run(predict.main, list(map(str, arguments)))


def train_here(*arguments):
    """Run train.py's main in this process; give its exit code."""
    import train

    return console.run(train.main, list(map(str, arguments)))


@pytest.fixture
def short_epochs(monkeypatch):
    """Epochs of three steps."""
    import train

    monkeypatch.setattr(train, "EPOCH", 3)


class Killed(BaseException):
    """What ends a training in this process as suddenly as a signal would."""


@contextmanager
def raised_after(epoch, error):
    """Let train.py raise an error after so many epochs, before the next is scored."""
    import train

    plain, calls = train.evaluate, []

    def evaluate(*given):
        calls.append(given)
        if len(calls) > epoch:
            raise error
        return plain(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "evaluate", evaluate)
        yield


def train_until(epoch, *arguments):
    """Train, and be killed after so many epochs, before the next is scored."""
    with raised_after(epoch, Killed), pytest.raises(Killed):
        train_here(*arguments)


def hide_libraries(monkeypatch, *missing):
    """Let optional libraries be missing: all of them unless told which."""
    missing = missing or ("pyvips", "rasterio", "zarr")
    for module in (formats, libraries, reading, resources, writing):
        monkeypatch.setattr(module, "has", lambda library: library not in missing)
