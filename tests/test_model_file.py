import hashlib
import json
import pickle
import platform

import numpy as np
import pytest
import torch

import segutils
from onelabel import model_file
from onelabel.depth import FLOATS, INTEGERS, Scale
from onelabel.files import InputError


COLOURS = ((0, 0, 0), (255, 0, 255))
NOT_THIS = "does not hold this network, or not what belongs to it"
PLAIN = {
    "larger": 0,
    "colour": [90.0, 80.0, 70.0],
    "contrast": [9.0, 8.0, 7.0],
    "lowest": [1.0, 2.0, 3.0],
    "highest": [200.0, 210.0, 220.0],
    "error": [40.0, 30.0],
}


@pytest.fixture
def looks(model):
    return {**PLAIN, "network": model}


@pytest.fixture
def path(model, looks, tmp_path):
    path = tmp_path / "model.pt"
    model_file.save(path, model.state_dict(), looks, COLOURS, facts={"seed": 3})
    return path


def test_a_model_file_gives_the_model_back(model, path):
    trained = model_file.load(path)
    rgb = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    np.testing.assert_array_equal(
        segutils.logits(trained.model, rgb), segutils.logits(model, rgb)
    )
    assert not trained.model.training
    assert trained.colours == COLOURS
    first = trained.looks["network"]
    assert trained.looks == {**PLAIN, "network": first}
    assert not first.training
    np.testing.assert_array_equal(
        segutils.logits(first, rgb), segutils.logits(model, rgb)
    )
    assert trained.scale is trained.channels is None
    assert trained.facts["seed"] == 3
    assert trained.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", [INTEGERS, FLOATS])
def test_a_model_file_keeps_how_values_are_read(model, looks, path, kind):
    scale = Scale(kind, (0.0, 10.5, -3.0), (0.25, 23.5, 1e-3))
    model_file.save(path, model.state_dict(), looks, COLOURS, scale, (4, 3, 2))
    trained = model_file.load(path)
    assert trained.scale == scale
    assert isinstance(trained.scale, Scale)
    assert trained.channels == [4, 3, 2]


def test_a_model_file_holds_plain_values_only(path):
    content = torch.load(path, weights_only=True)
    assert {type(v) for v in content["weights"].values()} == {torch.Tensor}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    assert content["facts"]["versions"] == versions
    assert {type(v) for v in content["facts"]["versions"].values()} == {str}


def test_a_mask_is_of_one_model_device_and_version(path, monkeypatch):
    keys = [model_file.load(path).key()]
    path.write_bytes(path.read_bytes() + b"\0")
    keys.append(model_file.load(path).key())
    monkeypatch.setattr(torch, "__version__", "0.0")
    keys.append(model_file.load(path).key())
    keys.append(model_file.load(path, "meta").key())
    assert json.loads(json.dumps(keys)) == keys
    assert len({json.dumps(key) for key in keys}) == 4


class Payload:
    """An object whose unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_model_file_is_the_same_bytes_each_time(model, looks, tmp_path):
    for name in ("a.pt", "b.pt"):
        model_file.save(tmp_path / name, model.state_dict(), looks, COLOURS)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_a_model_file_runs_no_code(tmp_path):
    for write in (torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))):
        write(Payload(tmp_path / "trap"), tmp_path / "model.pt")
        with pytest.raises(InputError, match=r"model\.pt: is not a model file"):
            model_file.load(tmp_path / "model.pt")
        assert not (tmp_path / "trap").exists()


def damaged(path, how):
    content = torch.load(path, weights_only=True)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not a model")
    elif how == "other":
        torch.save({"weights": content["weights"]}, path)
    elif how == "network":
        content["weights"]["conv1.weight"] = torch.zeros(8, 3, 3, 3)
        torch.save(content, path)
    elif how == "no weights":
        torch.save({"format": content["format"]}, path)
    elif how == "nan":
        content["weights"]["conv2.bias"][3] = torch.nan
        torch.save(content, path)
    elif how.startswith("colours"):
        colours = {
            "alike": [[9] * 3, [9] * 3],
            "one": [1],
            "large": [[0] * 3, [300] * 3],
            "words": ["a", "b"],
        }
        torch.save({**content, "colours": colours[how.split()[1]]}, path)
    elif how.startswith("looks"):
        good = content["looks"]
        nameless = {name: good[name] for name in PLAIN}
        looks = {
            "none": None,
            "alone": nameless,
            "short": {**good, "colour": [1.0]},
            "flat": {**good, "contrast": [0.0, 9.0, 9.0]},
            "dark": {**good, "colour": [0.0, 9.0, 9.0]},
            "error": {**good, "error": [float("nan"), 1.0]},
            "nan": {**good, "lowest": [torch.nan, 0.0, 0.0]},
            "class": {**good, "larger": 2},
            "negative": {**good, "lowest": [-0.1, 0.0, 0.0]},
            "bright": {**good, "highest": [0.0, 255.1, 0.0]},
        }
        torch.save({**content, "looks": looks[how.split()[1]]}, path)
    elif how.startswith("scale"):
        good = {"kind": INTEGERS, "zero": [0.0] * 3, "unit": [1.0] * 3}
        scale = {
            "kind": {**good, "kind": "8 bits"},
            "short": {**good, "zero": [0.0]},
            "flat": {**good, "unit": [0.0, 1.0, 1.0]},
            "nan": {**good, "zero": [torch.nan, 0.0, 0.0]},
            "words": "as it is",
        }
        torch.save({**content, "scale": scale[how.split()[1]]}, path)
    elif how.startswith("bands"):
        bands = {"two": [1, 2], "zero": [0, 1, 2], "words": "123"}
        torch.save({**content, "channels": bands[how.split()[1]]}, path)
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "is not a model file, or is damaged"),
        ("empty", "is not a model file, or is damaged"),
        ("text", "is not a model file, or is damaged"),
        ("other", "is not a model file of this version"),
        ("network", NOT_THIS),
        ("no weights", NOT_THIS),
        ("nan", "no finite outputs"),
        ("colours one", NOT_THIS),
        ("colours alike", NOT_THIS),
        ("colours large", NOT_THIS),
        ("colours words", NOT_THIS),
        ("looks none", NOT_THIS),
        ("looks alone", NOT_THIS),
        ("looks short", NOT_THIS),
        ("looks flat", NOT_THIS),
        ("looks dark", NOT_THIS),
        ("looks error", NOT_THIS),
        ("looks nan", NOT_THIS),
        ("looks class", NOT_THIS),
        ("looks negative", NOT_THIS),
        ("looks bright", NOT_THIS),
        ("scale kind", NOT_THIS),
        ("scale short", NOT_THIS),
        ("scale flat", NOT_THIS),
        ("scale nan", NOT_THIS),
        ("scale words", NOT_THIS),
        ("bands two", NOT_THIS),
        ("bands zero", NOT_THIS),
        ("bands words", NOT_THIS),
        ("missing", "no such file"),
    ],
)
def test_what_is_no_model_file_is_refused(path, how, words):
    damaged(path, how)
    with pytest.raises(InputError, match=words) as caught:
        model_file.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_memory_that_runs_out_is_no_damage(path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(MemoryError):
        model_file.load(path)


def test_weights_of_another_type_are_refused(path):
    """PyTorch would convert them, even complex numbers."""
    content = torch.load(path, weights_only=True)
    content["weights"]["conv2.bias"] = content["weights"]["conv2.bias"].double()
    torch.save(content, path)
    with pytest.raises(InputError, match=f"{NOT_THIS}: conv2.bias of another type"):
        model_file.load(path)


def test_looks_of_any_image_are_taken(path):
    """Of one that has black and white, and whose lowest is as its highest."""
    content = torch.load(path, weights_only=True)
    black, white = [0.0] * 3, [255.0] * 3
    for lowest, highest in ((black, white), (black, black), (white, white)):
        changed = {"larger": 1, "lowest": lowest, "highest": highest}
        torch.save({**content, "looks": {**content["looks"], **changed}}, path)
        assert model_file.load(path).looks.items() >= {**PLAIN, **changed}.items()


def test_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "mps"):
        with pytest.raises(
            InputError, match=f"^{name}: this machine has no such device"
        ):
            model_file.choose_device(name)
    assert model_file.choose_device("cpu").type == "cpu"
    assert model_file.choose_device("auto").type == "cpu"
    assert torch.backends.cudnn.deterministic
