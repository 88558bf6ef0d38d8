"""The network as an ONNX file, as QGIS's plugin Deepness and other programs run it."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from onelabel.files import InputError, PathLike, whole_file
from onelabel.libraries import OBJECTS, require
from onelabel.model_file import Trained
from segutils import FCNN, MAX_SIDE


if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET, IR_VERSION = 15, 8  # the newest that Deepness's ONNX Runtime reads
OVERLAP = 5  # per cent of a tile: 12 pixels, our halo on either side


def export(path: PathLike, trained: Trained) -> None:
    """Write the network as an ONNX file.

    Its input is (1, 3, 256, 256) float32, RGB of 0 to 1; its output (1, 1, 256, 256),
    the probability of class 1. Only the middle of a tile is right: within 6 pixels
    of its border a pixel does not see all that it should. The light of a new image is
    not allowed for.

    Parameters
    ----------
    path : str or Path
        A .onnx file.
    trained : Trained
        What the model file holds.

    Raises
    ------
    InputError
        onnx is not installed, or the network reads values of more than 8 bits.
    """
    require(path, "onnx", "an ONNX file", OBJECTS)
    if trained.scale:
        raise InputError(
            f"{path}: the model was trained on {trained.scale.kind}, and an ONNX file "
            "is for 8 bits (train on an 8-bit image)"
        )
    content = _model(trained).SerializeToString()
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def _model(trained: Trained) -> "ModelProto":
    """Write the network layer by layer, and what Deepness must know of it."""
    from onnx import TensorProto, checker, helper

    layers = _layers(trained.model)
    side, number = MAX_SIDE, TensorProto.FLOAT
    image = helper.make_tensor_value_info("image", number, [1, 3, side, side])
    output = helper.make_tensor_value_info(layers.last, number, [1, 1, side, side])
    graph = helper.make_graph(
        layers.nodes, "onelabel", [image], [output], layers.constants
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    facts = {name: json.dumps(value) for name, value in _facts(trained).items()}
    helper.set_model_props(model, facts)
    checker.check_model(model, full_check=True)
    return model


def _facts(trained: Trained) -> dict[str, object]:
    """Say what Deepness must know."""
    facts: dict[str, object] = {
        "model_type": "Segmentor",
        "class_names": {"0": "background", "1": "class 1"},
        "tile_size": MAX_SIDE,  # as its code spells it
        "tiles_size": MAX_SIDE,  # and its documentation
        "tiles_overlap": OVERLAP,
        "seg_thresh": 0.5,
        "seg_small_segment": 0,
    }
    if side := trained.facts.get("pixel_side"):
        facts["resolution"] = 100 * side  # centimetres
    return facts


class _Layers:
    """Layers in the order in which they run, each from the output of the one before."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.last = "image"

    def add(self, kind: str, *constants: Any, **settings: Any) -> None:
        """Add a layer, with its weights and other constants."""
        from onnx import helper, numpy_helper

        output = f"{kind.lower()}_{len(self.nodes)}"
        names = [f"{output}_{n}" if len(c) else "" for n, c in enumerate(constants)]
        inputs, self.last = [self.last, *names], output
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **settings))
        self.constants += [
            numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)
            for name, values in zip(names, constants, strict=True)
            if name
        ]


def _layers(model: FCNN) -> _Layers:
    """Write the network; of its two logits the difference, as a probability."""
    weights = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    layers = _Layers()

    def convolve(name: str, norm: str) -> None:
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        layers.add("Conv", kernel, bias, pads=[kernel.shape[-1] // 2] * 4)
        parts = ("weight", "bias", "running_mean", "running_var")
        constants = [weights[f"{norm}.{part}"] for part in parts]
        layers.add("BatchNormalization", *constants, epsilon=model.norm1.eps)
        layers.add("Relu")

    layers.add("Mul", [255.0])  # from 0 to 1
    layers.add("Sub", weights["normalise.mean"][:, None, None])
    layers.add("Div", weights["normalise.std"][:, None, None])
    convolve("conv1", "norm1")
    convolve("conv2", "norm2")
    layers.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    convolve("conv3", "norm3")
    nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    layers.add("Resize", [], [1, 1, 2, 2], mode="nearest", **nearest)
    kernel, bias = weights["conv4.weight"], weights["conv4.bias"]
    layers.add("Conv", kernel[1:] - kernel[:1], bias[1:] - bias[:1], pads=[2] * 4)
    layers.add("Sigmoid")
    return layers
