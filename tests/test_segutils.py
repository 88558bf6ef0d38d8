import pickle
import platform
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import segutils
from cli import InputError


shared_fixtures = [HealthCheck.function_scoped_fixture]
CONVOLUTIONS = {
    "conv1.weight": (16, 3, 3, 3),
    "conv1.bias": (16,),
    "conv2.weight": (32, 16, 3, 3),
    "conv2.bias": (32,),
    "conv3.weight": (16, 32, 3, 3),
    "conv3.bias": (16,),
    "conv4.weight": (2, 16, 5, 5),
    "conv4.bias": (2,),
}


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def literal(model, x):
    """The network as the exercise words it, by hand."""
    norm = model.normalise
    x = (x - norm.mean[:, None, None]) / norm.std[:, None, None]

    def convolve(x, name, padding):
        layer = getattr(model, f"conv{name}")
        return F.conv2d(x, layer.weight, layer.bias, padding=padding)

    def normalise(x, name):
        n = getattr(model, f"norm{name}")
        if model.training:  # by the batch's own mean and spread
            return F.batch_norm(x, None, None, n.weight, n.bias, training=True)
        moments = (n.running_mean, n.running_var)
        return F.batch_norm(x, *moments, n.weight, n.bias)

    x = F.relu(normalise(convolve(x, 1, 1), 1))
    x = F.max_pool2d(F.relu(normalise(convolve(x, 2, 1), 2)), 2)
    x = F.relu(normalise(convolve(x, 3, 1), 3))
    return convolve(F.interpolate(x, scale_factor=2, mode="nearest"), 4, 2)


# ------------------------------------------------------------------ the network


def test_convolutions_are_the_fixed_ones(model):
    state = model.state_dict()
    shapes = {n: tuple(v.shape) for n, v in state.items() if n.startswith("conv")}
    assert shapes == CONVOLUTIONS
    assert sum(state[name].numel() for name in CONVOLUTIONS) == 10_514
    assert not any(v.ndim == 4 for n, v in state.items() if n not in CONVOLUTIONS)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(2, 2), (40, 60), (256, 128)])
def test_forward_is_the_literal_graph(model, training, size):
    model.train(training)
    x = torch.rand(2, 3, *size) * 255
    logits = literal(model, x)
    torch.testing.assert_close(model(x), logits, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(model.literal(x), logits, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_those_of_the_literal_graph(model, training):
    model.train(training)
    x = torch.rand(2, 3, 40, 60) * 255
    weights = list(model.parameters())
    mine = torch.autograd.grad(model(x).square().mean(), weights)
    theirs = torch.autograd.grad(literal(model, x).square().mean(), weights)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_folding_leaves_the_weights_alone(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.rand(1, 3, 64, 64))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (16, 3, 64, 64), (3, 3, 2, 4)])
def test_forward_gives_two_logits_a_pixel(model, shape):
    assert model(torch.zeros(shape)).shape == (shape[0], 2, *shape[2:])


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 258, 256), "258x256 pixels.*256x256"),
        ((1, 3, 2, 258), "2x258 pixels"),
        ((2, 3, 256, 256), "batch of 2.*65536"),
        ((17, 3, 64, 64), "batch of 17"),
        ((1, 3, 63, 64), "63x64 pixels.*even"),
        ((1, 1, 64, 64), r"\(1, 1, 64, 64\).*expected \(B, 3, H, W\)"),
        ((3, 64, 64), r"\(3, 64, 64\)"),
        ((0, 3, 64, 64), r"\(0, 3, 64, 64\)"),
    ],
)
def test_forward_refuses_what_breaks_the_rule(model, shape, words):
    with pytest.raises(ValueError, match=words):
        model(torch.zeros(shape))


def test_receptive_field_is_as_measured(model):
    """Nudge one input pixel of each parity: which outputs move?"""
    reach = 0
    for y, x in product((30, 31), repeat=2):
        rgb = image(64, 64)
        before = segutils.margins(model, rgb)
        rgb[y, x] ^= 255
        rows, cols = np.nonzero(segutils.margins(model, rgb) != before)
        reach = max(reach, abs(rows - y).max(), abs(cols - x).max())
    assert reach == segutils.RECEPTIVE_RADIUS == 7
    assert segutils.HALO == 6


# ------------------------------------------------------------------ the tiler


@given(st.integers(1, 3000))
@example(256)
@example(257)
def test_spans_cover_a_length_with_enough_halo(length):
    spans = segutils.spans(length)
    even = length + length % 2
    assert [s.core_start for s in spans] == [0, *(s.core_stop for s in spans[:-1])]
    assert spans[-1].core_stop == length
    for s in spans:
        assert s.start % 2 == s.stop % 2 == s.core_start % 2 == 0
        assert 0 <= s.start < s.stop <= even
        assert s.stop - s.start == min(256, even)
        assert s.core_start - s.start >= segutils.HALO or s.start == 0
        assert s.stop - s.core_stop >= segutils.HALO or s.stop == even


def test_tiles_are_a_partition():
    covered = np.zeros((301, 517), int)
    for tile in segutils.tiles(301, 517):
        covered[tile.core] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_no_tiles_of_an_empty_image(size):
    with pytest.raises(ValueError, match="no tiles"):
        segutils.tiles(*size)


def whole_margins(model, rgb, monkeypatch, precision=torch.float32):
    """One pass over the whole image, with the guard lifted."""
    height, width = rgb.shape[:2]
    even = np.pad(rgb, [(0, height % 2), (0, width % 2), (0, 0)], "edge")
    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(segutils, "check_budget", lambda shape: None)
        margin = segutils.Folded(model, precision)(torch.from_numpy(even)[None])[0]
        if precision == torch.float32:
            logits = model.literal(
                torch.from_numpy(even).permute(2, 0, 1)[None].float()
            )
            literal = logits[0, 1] - logits[0, 0]
            torch.testing.assert_close(margin, literal, rtol=0, atol=1e-4)
    return margin[:height, :width].numpy()


sizes = st.one_of(
    st.tuples(st.integers(1, 90), st.integers(1, 900)),  # thin
    st.tuples(st.integers(1, 900), st.integers(1, 90)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(200, 620), st.integers(200, 620)),  # several tiles
)


@settings(max_examples=60, deadline=None, suppress_health_check=shared_fixtures)
@given(size=sizes, seed=st.integers(0, 9), threads=st.sampled_from((1, 2)))
@example(size=(1, 1), seed=0, threads=1)
@example(size=(1, 257), seed=0, threads=1)
@example(size=(22, 714), seed=0, threads=1)  # other kernels on small input
@example(size=(513, 511), seed=0, threads=2)
def test_tiled_equals_whole_bit_for_bit(model, monkeypatch, size, seed, threads):
    monkeypatch.undo()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rgb = image(*size, seed)
        whole = whole_margins(model, rgb, monkeypatch)
        margin = segutils.margins(model, rgb)
        assert_same_logits(margin, whole)
        np.testing.assert_array_equal(segutils.segment(model, rgb), margin > 0)
        np.testing.assert_array_equal(
            segutils.probabilities(model, rgb), segutils.sigmoid(margin)
        )
    finally:
        torch.set_num_threads(before)


def assert_same_logits(margin, whole):
    """Assert the same bits where oneDNN computes, elsewhere the same but for rounding.

    Within 1e-4 of the largest logit; then masks differ only where it is that near 0.
    """
    if segutils.is_exact(torch.device("cpu")):
        np.testing.assert_array_equal(margin, whole)
    else:
        np.testing.assert_allclose(margin, whole, rtol=0, atol=1e-4 * abs(whole).max())


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("size", [(1, 1), (22, 714), (300, 270)])
def test_without_onednn_tiles_give_the_same_but_for_rounding(model, monkeypatch, size):
    with torch.backends.mkldnn.flags(enabled=False):
        monkeypatch.setattr(segutils, "is_exact", lambda *_: False)
        rgb = image(*size)
        whole = whole_margins(model, rgb, monkeypatch)
        assert_same_logits(segutils.margins(model, rgb), whole)


def test_one_predictor_serves_many_images_and_folds_once(model, monkeypatch):
    predictor, images = segutils.Predictor(model), [image(9, 300), image(60, 40)]
    again = pickle.loads(pickle.dumps(predictor))  # as workers get it
    monkeypatch.setattr(segutils, "Folded", None)  # not to be asked for again
    first = [predictor.margins(rgb) for rgb in images]
    with torch.no_grad():
        model.conv4.bias[1] += 100  # not seen
    for rgb, margin in zip(images, first, strict=True):
        np.testing.assert_array_equal(predictor.margins(rgb), margin)
        np.testing.assert_array_equal(predictor.segment(rgb), margin > 0)
    np.testing.assert_array_equal(again.margins(images[0]), first[0])


def test_predictions_leave_the_number_of_threads_as_it_was(model):
    """Also where two of them are interleaved, and where one is given up."""
    pieces = segutils.cut(image(600, 600), segutils.tiles(600, 600))
    predictor, before = segutils.Predictor(model), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        one, other = predictor.tile_margins(pieces), predictor.tile_margins(pieces)
        for _ in range(3):
            next(one), next(other)
            assert torch.get_num_threads() == 3
        one.close()
        list(other)
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 3
        with segutils._single_threads(3) as pool:
            counts = [pool.submit(torch.get_num_threads) for _ in range(9)]
            assert {count.result() for count in counts} == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_bf16_is_near(model, monkeypatch):
    rgb = image(300, 270)
    predictor = segutils.Predictor(model, torch.bfloat16)
    margin, exact = predictor.margins(rgb), segutils.margins(model, rgb)
    for other in (exact, whole_margins(model, rgb, monkeypatch, torch.bfloat16)):
        assert abs(margin - other).max() < 0.05 * abs(exact).max()
    assert abs(margin - exact).max() > 0
    np.testing.assert_array_equal(predictor.segment(rgb), margin > 0)


def test_folded_gives_a_batch_its_margins(model):
    rgb = torch.from_numpy(np.stack([image(40, 60, seed) for seed in range(3)]))
    with torch.no_grad():
        margin = segutils.Folded(model)(rgb)
        logits = model.literal(rgb.permute(0, 3, 1, 2).float())
    torch.testing.assert_close(margin, logits[:, 1] - logits[:, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 258, 256, 3), (2, 256, 256, 3), (1, 64, 64, 4)])
def test_folded_refuses_what_breaks_the_rule(model, shape):
    with torch.no_grad():
        network = segutils.Folded(model)
    with pytest.raises(ValueError, match=r"at most|expected"):
        network(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_gives_what_the_cpu_gives(model):
    rgb = image(700, 500)
    here = segutils.margins(model, rgb)
    device = segutils.choose_device("cuda")
    there = segutils.margins(model.to(device), rgb)
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-4)


def test_a_smaller_halo_would_not_do(model, monkeypatch):
    rgb = image(400, 400)
    whole = whole_margins(model, rgb, monkeypatch)
    monkeypatch.setattr(segutils, "HALO", 4)
    assert abs(segutils.margins(model, rgb) - whole).max() > 1e-3


def test_segment_gives_uint8_classes_and_never_trains(model):
    model.train()
    before = model.norm1.running_mean.clone()
    mask = segutils.segment(model, image(33, 300))
    assert mask.dtype == np.uint8
    assert mask.shape == (33, 300)
    assert set(np.unique(mask)) <= {0, 1}
    assert torch.equal(model.norm1.running_mean, before)


@pytest.mark.parametrize(
    "rgb",
    [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))],
)
def test_segment_refuses_other_arrays(model, rgb):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        segutils.segment(model, rgb)


def test_sigmoid_is_right_and_the_same_everywhere():
    margin = np.random.default_rng(0).normal(0, 30, 1001).astype(np.float32)
    margin[:3] = -1000, 0, 1000
    probability = segutils.sigmoid(margin)
    exact = 1 / (1 + np.exp(-margin.astype(np.float64).clip(-700)))
    np.testing.assert_allclose(probability, exact, atol=1e-6)
    assert probability[:3].tolist() == [0, 0.5, 1]
    alone = [segutils.sigmoid(margin[i : i + 1])[0] for i in range(len(margin))]
    np.testing.assert_array_equal(probability, alone)


# ------------------------------------------------------------------ the model file


LOOKS = {
    "larger": 0,
    "colour": [90.0, 80.0, 70.0],
    "contrast": [9.0, 8.0, 7.0],
    "lowest": [1.0, 2.0, 3.0],
    "highest": [200.0, 210.0, 220.0],
    "error": [40.0, 30.0],
}


@pytest.fixture
def model_file(model, tmp_path):
    path = tmp_path / "model.pt"
    colours = ((0, 0, 0), (255, 0, 255))
    segutils.save_model(path, model.state_dict(), colours, LOOKS, {"seed": 3})
    return path


def test_model_file_gives_the_model_back(model, model_file):
    again, content = segutils.load_model(model_file)
    rgb = image(70, 90)
    np.testing.assert_array_equal(
        segutils.margins(again, rgb), segutils.margins(model, rgb)
    )
    assert content["colours"] == [[0, 0, 0], [255, 0, 255]]
    assert content["looks"] == LOOKS
    assert content["seed"] == 3


def test_model_file_holds_plain_values_only(model_file):
    content = torch.load(model_file, weights_only=True)
    assert {type(v) for v in content["weights"].values()} == {torch.Tensor}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    assert content["versions"] == versions
    assert {type(v) for v in content["versions"].values()} == {str}


class Payload:
    """An object whose unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_model_file_is_the_same_bytes_each_time(model, tmp_path):
    for name in ("a.pt", "b.pt"):
        segutils.save_model(
            tmp_path / name, model.state_dict(), ((0,) * 3, (9,) * 3), LOOKS, {}
        )
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_model_file_runs_no_code(tmp_path):
    for write in (torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))):
        write(Payload(tmp_path / "trap"), tmp_path / "model.pt")
        with pytest.raises(InputError, match=r"model\.pt: is no model file"):
            segutils.load_model(tmp_path / "model.pt")
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
        looks = {
            "none": None,
            "short": {**LOOKS, "colour": [1.0]},
            "flat": {**LOOKS, "contrast": [0.0, 9.0, 9.0]},
            "dark": {**LOOKS, "colour": [0.0, 9.0, 9.0]},
            "error": {**LOOKS, "error": [float("nan"), 1.0]},
            "nan": {**LOOKS, "lowest": [torch.nan, 0.0, 0.0]},
            "class": {**LOOKS, "larger": 2},
            "negative": {**LOOKS, "lowest": [-0.1, 0.0, 0.0]},
            "bright": {**LOOKS, "highest": [0.0, 255.1, 0.0]},
        }
        torch.save({**content, "looks": looks[how.split()[1]]}, path)
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "no model file, or is damaged"),
        ("empty", "no model file, or is damaged"),
        ("text", "no model file, or is damaged"),
        ("other", "no model file of this version"),
        ("network", "another network"),
        ("no weights", "another network"),
        ("nan", "no finite answer"),
        ("colours one", "two colours"),
        ("colours alike", "two colours"),
        ("colours large", "two colours"),
        ("colours words", "two colours"),
        ("looks none", "training image looks like"),
        ("looks short", "training image looks like"),
        ("looks flat", "training image looks like"),
        ("looks dark", "training image looks like"),
        ("looks error", "training image looks like"),
        ("looks nan", "training image looks like"),
        ("looks class", "training image looks like"),
        ("looks negative", "training image looks like"),
        ("looks bright", "training image looks like"),
        ("missing", "no such file"),
    ],
)
def test_model_file_that_is_none_is_refused(model_file, how, words):
    damaged(model_file, how)
    with pytest.raises(InputError, match=words) as caught:
        segutils.load_model(model_file)
    assert "\n" not in str(caught.value)
    assert str(model_file) in str(caught.value)


def test_memory_that_runs_out_is_no_damage(model_file, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(MemoryError):
        segutils.load_model(model_file)


def test_weights_of_another_type_are_refused(model_file):
    """PyTorch would convert them, even complex numbers."""
    content = torch.load(model_file, weights_only=True)
    content["weights"]["conv2.bias"] = content["weights"]["conv2.bias"].double()
    torch.save(content, model_file)
    with pytest.raises(InputError, match="another network"):
        segutils.load_model(model_file)


def test_looks_of_any_image_are_taken(model_file):
    """Of one that has black and white, and whose lowest is as its highest."""
    content = torch.load(model_file, weights_only=True)
    black, white = [0.0] * 3, [255.0] * 3
    for lowest, highest in ((black, white), (black, black), (white, white)):
        looks = {**LOOKS, "larger": 1, "lowest": lowest, "highest": highest}
        torch.save({**content, "looks": looks}, model_file)
        assert segutils.load_model(model_file)[1]["looks"] == looks


def test_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "mps"):
        with pytest.raises(InputError, match=f"^--device {name}: there is none here"):
            segutils.choose_device(name)
    assert segutils.choose_device("cpu").type == "cpu"
    assert segutils.choose_device("auto").type == "cpu"
    assert torch.backends.cudnn.deterministic


# ------------------------------------------------------------------ its parts alone


@pytest.mark.parametrize(
    ("layer", "output", "expected"),
    [
        (torch.nn.Conv2d(1, 1, 3, padding=1), (4, 6), (3, 7)),
        (torch.nn.Conv2d(1, 1, 5, padding=2), (4, 6), (2, 8)),
        (torch.nn.Conv2d(1, 1, 3), (4, 6), (4, 8)),
        (torch.nn.Conv2d(1, 1, (3, 5), padding=(1, 2)), (4, 6), (3, 7)),  # of rows
        (torch.nn.MaxPool2d(2), (4, 6), (8, 12)),
        (torch.nn.MaxPool2d(3), (1, 2), (3, 6)),
        (torch.nn.Upsample(scale_factor=2), (4, 6), (2, 3)),
        (torch.nn.Upsample(scale_factor=2), (3, 6), (1, 3)),
        (torch.nn.Upsample(scale_factor=2), (4, 5), (2, 3)),
        (torch.nn.ReLU(), (4, 6), (4, 6)),
    ],
)
def test_the_input_of_each_layer_is_known(layer, output, expected):
    assert segutils.input_span(torch.nn.Sequential(layer), *output) == expected


def test_layers_are_walked_from_the_last_to_the_first(model):
    layers = torch.nn.Sequential(
        torch.nn.MaxPool2d(2), torch.nn.Conv2d(1, 1, 3, padding=1)
    )
    assert segutils.input_span(layers, 4, 6) == (6, 14)
    assert segutils.input_span(model, 0, 1) == (-6, 8)
    assert segutils.input_span(model, 1, 2) == (-6, 8)


@pytest.mark.parametrize("name", ["margins", "segment"])
def test_progress_is_handed_on(model, monkeypatch, name):
    seen = []
    run = segutils.Predictor.tile_margins
    monkeypatch.setattr(
        segutils.Predictor,
        "tile_margins",
        lambda self, *args: seen.append(args[1]) or run(self, *args),
    )
    for progress in (False, True):
        getattr(segutils.Predictor(model), name)(image(20, 30), progress)
    assert seen == [False, True]


def test_tiles_are_shared_by_the_threads_and_never_all_waiting(model):
    pieces = segutils.cut(image(20, 5000), segutils.tiles(20, 5000))
    taken, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lazily = (taken.append(piece) or piece for piece in pieces)
        found = segutils.Predictor(model).tile_margins(lazily)
        assert [next(found)[0] for _ in range(3)] == [t.core for t, _ in pieces[:3]]
        assert len(taken) == 3 + 4
        assert len(list(found)) == len(pieces) - 3
    finally:
        torch.set_num_threads(before)


def test_constants_are_the_pixels_means_and_spreads():
    normalise = segutils.Normalise()
    normalise.fit(np.array([[[0, 10, 7], [4, 30, 7]]], np.uint8))
    assert normalise.mean.tolist() == [2, 20, 7]
    assert normalise.std.tolist() == [2, 10, 1]  # never less: it divides
    found = normalise(torch.tensor([6.0, 0.0, 8.0])[None, :, None, None])
    assert found.flatten().tolist() == [2, -2, 1]
