"""The model file, of tensors and plain values only; the device that a model runs on."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from onelabel import torch_file
from onelabel.depth import FLOATS, INTEGERS, Scale
from onelabel.files import InputError, PathLike, check_input, one_line
from onelabel.image import Colours
from onelabel.light import Looks
from segutils import FCNN, Folded, has_integers


MODEL_FORMAT = "one-image segmentation model, 5"


class Trained(NamedTuple):
    """What a training learned, and what later images must be read by."""

    model: FCNN
    looks: Looks  # what the training image looks like, from light.describe
    colours: Colours  # of class 0 and class 1, 0 to 255
    scale: Scale | None  # how values of more than 8 bits become grey levels
    channels: Sequence[int] | None  # the bands that were red, green and blue
    facts: Mapping[str, Any]  # its seed, its scores, the versions it was made with
    digest: str  # of the file

    def key(self) -> dict[str, object]:
        """Say in plain values what computes a mask: all but its image and options."""
        device = str(self.model.conv1.weight.device)
        version = str(torch.__version__)
        return {"model": self.digest, "device": device, "PyTorch": version}


def save(
    path: PathLike,
    weights: Mapping[str, Tensor],
    looks: Looks,
    colours: Colours,
    scale: Scale | None = None,
    channels: Sequence[int] | None = None,
    facts: Mapping[str, object] | None = None,
) -> None:
    """Write a model file, of what `Trained` holds."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    content = {
        "format": MODEL_FORMAT,
        "weights": _on_cpu(weights),
        "looks": {**looks, "network": _on_cpu(looks["network"].state_dict())},
        "colours": [list(map(int, colour)) for colour in colours],
        "scale": scale._asdict() if scale else None,
        "channels": list(channels) if channels else None,
        "facts": {"versions": versions, **(facts or {})},
    }
    torch_file.write(path, content)


def load(path: PathLike, device: str | torch.device = "cpu") -> Trained:
    """Read a model file, without running any code it may hold.

    Parameters
    ----------
    path : str or Path
        The file, written by `save`.
    device : str or torch.device
        Where the network is to run.

    Returns
    -------
    Trained
        The network, in evaluation mode, and what belongs to it.

    Raises
    ------
    InputError
        The file is missing, is no model file, or is that of another network.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file (python train.py makes one)")
    check_input(path)
    data = Path(path).read_bytes()
    try:
        content = torch_file.content_of(data)
    except ValueError as error:
        raise InputError(
            f"{path}: is not a model file, or is damaged (python train.py makes one)"
        ) from error
    if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT:
        raise InputError(f"{path}: is not a model file of this version (train again)")
    try:
        trained = _checked(content, hashlib.sha256(data).hexdigest())
    except MemoryError:
        raise
    except Exception as error:  # a forged file raises anything
        raise InputError(
            f"{path}: does not hold this network, or not what belongs to it: "
            f"{one_line(error)} (train again)"
        ) from error
    trained.looks["network"].to(device)
    return trained._replace(model=trained.model.to(device))


def _checked(content: Mapping[str, Any], digest: str) -> Trained:
    """Take a model file's content for what it must be, or raise any error."""
    looks, scale, channels = (content[key] for key in ("looks", "scale", "channels"))
    model, first = map(_network, (content["weights"], looks["network"]))
    dark, bright = (tuple(bytes(list(colour))) for colour in content["colours"])
    _require(len(dark) == len(bright) == 3 and dark != bright, "two colours")
    names = ("colour", "contrast", "lowest", "highest")
    values = np.array([looks[name] for name in names], float)
    is_possible = ((values >= 0) & (values <= 255)).all() and values[:2].all()
    error = np.array(looks["error"], float)
    _require(values.shape == (4, 3) and is_possible, "colours of the training image")
    _require(error.shape == (2,) and (error >= 0).all(), "errors of its light")
    _require(looks["larger"] in (0, 1), "its larger class")
    if scale is not None:
        scale = Scale(scale["kind"], tuple(scale["zero"]), tuple(scale["unit"]))
        zero, unit = np.array(scale[1:], float)
        is_possible = np.isfinite([zero, unit]).all() and (unit > 0).all()
        _require(zero.shape == (3,) and is_possible, "scale of values")
        _require(scale.kind in (INTEGERS, FLOATS), "kind of values")
    if channels is not None:
        counts = [type(band) is int and band > 0 for band in channels]
        _require(isinstance(channels, list) and counts == [True] * 3, "bands")
    looks, facts = looks | {"network": first}, content["facts"]
    return Trained(model, looks, (dark, bright), scale, channels, facts, digest)


def _network(weights: Mapping[str, Tensor]) -> FCNN:
    """Make a network that works, of weights; or raise any error."""
    model = FCNN()
    for name, value in model.state_dict().items():
        if (weights[name].dtype, weights[name].layout) != (value.dtype, value.layout):
            raise TypeError(f"{name} of another type")  # PyTorch would convert it
    model.load_state_dict(weights)
    _require(_outputs_are_finite(model.eval()), "finite outputs")
    return model


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in weights.items()}


def _require(is_so: Any, what: str) -> None:
    if not is_so:
        raise ValueError(f"no {what}")


@torch.no_grad()
def _outputs_are_finite(model: FCNN) -> bool:
    """Tell whether the network works: no NaN, overflow, or standard deviation of 0."""
    black_and_white = torch.zeros((1, 16, 16, 3), dtype=torch.uint8)
    black_and_white[:, 8:] = 255
    weights_are_finite = all(w.isfinite().all() for w in model.state_dict().values())
    return weights_are_finite and bool(Folded(model)(black_and_white).isfinite().all())


def choose_device(name: str, precision: str = "fp32") -> torch.device:
    """Find a device by its name, and make its arithmetic plain and repeatable.

    ``auto`` is a GPU where there is one, otherwise the CPU; for integers it is the CPU.
    """
    if precision == "int8":
        if name not in ("auto", "cpu") or not has_integers():
            raise InputError(
                "--precision int8: needs a CPU with AVX-512 VNNI or AVX-VNNI (use fp32)"
            )
        name = "cpu"
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device in there if there[device])
    if not there[name]:
        raise InputError(f"{name}: this machine has no such device (use cpu)")
    # TF32 rounds the inputs of convolutions to 10 bits; cuDNN may else pick an
    # algorithm that sums in another order on each run. (torch's hints lack `conv`.)
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    return torch.device(name)
