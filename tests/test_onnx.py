"""The network as an ONNX file, run as QGIS's plugin Deepness runs it."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT, hide_libraries, predict_here
from PIL import Image

import segutils
from onelabel import model_file, onnx_file
from onelabel.depth import FLOATS, INTEGERS, Scale
from onelabel.files import InputError


SIDE = 256
LEFT_OUT = 7  # pixels at the right and lower border, which Deepness fills up with black


@pytest.fixture
def trained(trained_file):
    return model_file.load(trained_file)


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def answer(network, tile):
    """Run the file on a tile, as Deepness does: (256, 256, 3) uint8 to (256, 256)."""
    values = np.float32(tile[None] * 1.0 / 255.0).transpose(0, 3, 1, 2)
    (found,) = network.run(None, {network.get_inputs()[0].name: values})
    return found[0, 0]


def facts(path):
    """Read what the file tells of itself."""
    return {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}


def by_deepness(network, rgb):
    """Segment an image in tiles that overlap, and keep the middle of each.

    At the image's edges a tile is kept to its border. Right of the image and below it
    the tiles are black.
    """
    told = network.get_modelmeta().custom_metadata_map
    side, percent = json.loads(told["tile_size"]), json.loads(told["tiles_overlap"])
    half = int(side * percent / 100) // 2
    step = side - 2 * half
    counts = [max(1, math.ceil((length - 2 * half) / step)) for length in rgb.shape[:2]]
    black = np.zeros([count * step + 2 * half for count in counts] + [3], np.uint8)
    black[: rgb.shape[0], : rgb.shape[1]] = rgb
    mask = np.full(black.shape[:2], 9, np.uint8)
    for at in np.ndindex(*counts):
        seen, kept = [], []
        for index, count in zip(at, counts, strict=True):
            seen.append(slice(index * step, index * step + side))
            last = side if index == count - 1 else side - half
            kept.append(slice(half if index else 0, last))
        found = answer(network, black[*seen]) >= json.loads(told["seg_thresh"])
        mask[*seen][*kept] = found[*kept]
    return mask[: rgb.shape[0], : rgb.shape[1]]


def test_the_file_is_valid_and_as_old_as_deepness_needs_it(trained):
    onnx_file.export("model.onnx", trained)
    model = onnx.load("model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(part.domain, part.version) for part in model.opset_import] == [("", 15)]
    assert model.ir_version == 8
    network = session("model.onnx")
    ((name, shape),) = [(one.name, one.shape) for one in network.get_inputs()]
    assert (name, shape) == ("image", [1, 3, SIDE, SIDE])
    assert [one.shape for one in network.get_outputs()] == [[1, 1, SIDE, SIDE]]


def test_deepness_is_told_what_it_asks_for(trained):
    onnx_file.export("model.onnx", trained)
    assert facts("model.onnx") == {
        "model_type": "Segmentor",
        "class_names": {"0": "background", "1": "class 1"},  # older ones know no list
        "tile_size": SIDE,
        "tiles_size": SIDE,
        "tiles_overlap": 5,
        "seg_thresh": 0.5,
        "seg_small_segment": 0,
    }


def test_of_a_map_it_is_told_the_size_of_a_pixel_in_centimetres(trained):
    onnx_file.export("model.onnx", trained._replace(facts={"pixel_side": 0.125}))
    assert facts("model.onnx")["resolution"] == 12.5
    onnx_file.export("model.onnx", trained._replace(facts={"pixel_side": None}))
    assert "resolution" not in facts("model.onnx")


def test_another_program_computes_the_same_probabilities(trained):
    onnx_file.export("model.onnx", trained)
    network, rng = session("model.onnx"), np.random.default_rng(0)
    whole = np.array(Image.open(ROOT / "data/new/rgb.png"))
    noise = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for tile in (noise, whole[:SIDE, :SIDE], whole[-SIDE:, -SIDE:], 0 * noise):
        expected = segutils.sigmoid(segutils.logits(trained.model, tile))
        np.testing.assert_allclose(answer(network, tile), expected, atol=1e-4)
    assert expected.std() < answer(network, noise).std()


@pytest.mark.parametrize("size", [(300, 520), (256, 256), (500, 257), (90, 100)])
def test_deepness_draws_our_mask_but_at_the_right_and_lower_border(trained, size):
    onnx_file.export("model.onnx", trained)
    rgb = np.array(Image.open(ROOT / "data/rgb.png"))[: size[0], : size[1]]
    found = by_deepness(session("model.onnx"), rgb)
    logits = segutils.logits(trained.model, rgb)
    inner = np.s_[: size[0] - LEFT_OUT, : size[1] - LEFT_OUT]
    is_clear = abs(logits[inner]) > 1e-3
    expected = segutils.segment(trained.model, rgb)[inner]
    np.testing.assert_array_equal(found[inner][is_clear], expected[is_clear])
    assert is_clear.mean() > 0.95 and 0.05 < expected.mean() < 0.95


@pytest.mark.parametrize("kind", [INTEGERS, FLOATS])
def test_a_network_of_more_than_8_bits_is_refused(trained, kind):
    deep = trained._replace(scale=Scale(kind, (0.0,) * 3, (1.0,) * 3))
    with pytest.raises(InputError, match=r"m\.onnx: the model was trained on .*8 bits"):
        onnx_file.export("m.onnx", deep)
    assert not Path("m.onnx").exists()


def test_the_command_writes_it_and_segments_nothing(trained, capsys):
    Path("data/rgb.png").unlink()  # no image is needed
    assert predict_here("--export", "field.onnx") == 0
    assert capsys.readouterr() == ("wrote field.onnx\n", "")
    onnx_file.export("same.onnx", trained)
    assert Path("field.onnx").read_bytes() == Path("same.onnx").read_bytes()
    assert not Path("predictions.jpg").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--export", "model.pb"], "model.pb: unknown suffix '.pb' (use .onnx)"),
        (["--export", "no/model.onnx"], "no/model.onnx: the folder no is missing"),
        (["--export", "a.onnx", "--model", "b.pt"], "b.pt: no such file"),
        (["--export", "a.onnx", "--model", "data/rgb.png"], "data/rgb.png: is not a"),
        (["--export", ""], "--export: a file name is empty"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(trained, capsys, options, told):
    before = sorted(Path().rglob("*"))
    assert predict_here(*options) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}") and said.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_a_missing_library_is_named(trained, monkeypatch, capsys):
    hide_libraries(monkeypatch, "onnx")
    assert predict_here("--export", "model.onnx") == 2
    line = "error: model.onnx: an ONNX file needs onnx (pip install -r requirements/"
    assert capsys.readouterr().err == f"{line}objects.txt)\n"
