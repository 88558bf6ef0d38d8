import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import segutils
from onelabel.model_file import choose_device


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


def cut(rgb):
    """Cut an image into tiles and their pixels, as a predictor takes them."""
    return [(tile, rgb[tile.seen.slices]) for tile in segutils.tiles(*rgb.shape[:2])]


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
        before = segutils.logits(model, rgb)
        rgb[y, x] ^= 255
        rows, cols = np.nonzero(segutils.logits(model, rgb) != before)
        reach = max(reach, abs(rows - y).max(), abs(cols - x).max())
    assert reach == segutils.RECEPTIVE_RADIUS == 7
    assert segutils.HALO == 6


# ------------------------------------------------------------------ the tiler


def test_a_block_knows_its_place():
    block = segutils.Block(10, 20, 30, 50)
    assert block.slices == (slice(10, 30), slice(20, 50))
    assert block.within(segutils.Block(4, 17, 90, 90)) == (slice(6, 26), slice(3, 33))


def test_a_block_grows_up_to_the_images_edges():
    block = segutils.Block(10, 20, 30, 50)
    assert block.grown(5, (100, 100)) == (5, 15, 35, 55)
    assert block.grown(15, (100, 100)) == (0, 5, 45, 65)
    assert block.grown(25, (40, 60, 3)) == (0, 0, 40, 60)
    assert block.grown(0, (30, 50)) == block


@given(st.integers(1, 3000))
@example(256)
@example(257)
def test_tiles_cover_a_length_with_enough_halo(length):
    even = length + length % 2
    for tiles, sides in (
        (segutils.tiles(length, 1), ("top", "bottom")),
        (segutils.tiles(1, length), ("left", "right")),
    ):
        spans = [[getattr(b, side) for b in tile for side in sides] for tile in tiles]
        assert [core for _, _, core, _ in spans] == [0, *(s[3] for s in spans[:-1])]
        assert spans[-1][3] == length
        for start, stop, core_start, core_stop in spans:
            assert start % 2 == stop % 2 == core_start % 2 == 0
            assert 0 <= start < stop <= even
            assert stop - start == min(256, even)
            assert core_start - start >= segutils.HALO or start == 0
            assert stop - core_stop >= segutils.HALO or stop == even


@given(
    size=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    side=st.integers(7, 140).map(lambda half: 2 * half),
)
def test_tiles_of_any_side_are_a_partition_with_halos(size, side):
    covered = np.zeros(size, int)
    height, width = (length + length % 2 for length in size)
    for seen, core in segutils.tiles(*size, side):
        covered[core.slices] += 1
        assert max(seen.bottom - seen.top, seen.right - seen.left) <= min(side, 256)
        assert core.top - seen.top >= segutils.HALO or seen.top == 0
        assert core.left - seen.left >= segutils.HALO or seen.left == 0
        assert seen.bottom - core.bottom >= segutils.HALO or seen.bottom == height
        assert seen.right - core.right >= segutils.HALO or seen.right == width
    assert (covered == 1).all()


def test_tiles_are_a_partition():
    covered = np.zeros((301, 517), int)
    for tile in segutils.tiles(301, 517):
        covered[tile.core.slices] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_no_tiles_of_an_empty_image(size):
    with pytest.raises(ValueError, match="no tiles"):
        segutils.tiles(*size)


def whole_logits(model, rgb, monkeypatch, precision=torch.float32):
    """One pass over the whole image, with the guard lifted."""
    height, width = rgb.shape[:2]
    even = np.pad(rgb, [(0, height % 2), (0, width % 2), (0, 0)], "edge")
    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(segutils, "check_budget", lambda shape: None)
        logit = segutils.Folded(model, precision)(torch.from_numpy(even)[None])[0]
        if precision == torch.float32:
            logits = model.literal(
                torch.from_numpy(even).permute(2, 0, 1)[None].float()
            )
            literal = logits[0, 1] - logits[0, 0]
            torch.testing.assert_close(logit, literal, rtol=0, atol=1e-4)
    return logit[:height, :width].numpy()


sizes = st.one_of(
    st.tuples(st.integers(1, 90), st.integers(1, 900)),  # thin
    st.tuples(st.integers(1, 900), st.integers(1, 90)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(200, 620), st.integers(200, 620)),  # several tiles
)


@settings(max_examples=60, suppress_health_check=shared_fixtures)
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
        whole = whole_logits(model, rgb, monkeypatch)
        logit = segutils.logits(model, rgb)
        assert_same_logits(logit, whole)
        np.testing.assert_array_equal(segutils.segment(model, rgb), logit > 0)
    finally:
        torch.set_num_threads(before)


def assert_same_logits(logit, whole):
    """Assert the same bits where oneDNN computes, elsewhere the same but for rounding.

    Within 1e-4 of the largest logit; then masks differ only where it is that near 0.
    """
    if segutils.is_exact(torch.device("cpu")):
        np.testing.assert_array_equal(logit, whole)
    else:
        np.testing.assert_allclose(logit, whole, rtol=0, atol=1e-4 * abs(whole).max())


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("size", [(1, 1), (22, 714), (300, 270)])
def test_without_onednn_tiles_give_the_same_but_for_rounding(model, monkeypatch, size):
    with torch.backends.mkldnn.flags(enabled=False):
        monkeypatch.setattr(segutils, "is_exact", lambda *_: False)
        rgb = image(*size)
        whole = whole_logits(model, rgb, monkeypatch)
        assert_same_logits(segutils.logits(model, rgb), whole)


def test_one_predictor_serves_many_images_and_folds_once(model, monkeypatch):
    predictor, images = segutils.Predictor(model), [image(9, 300), image(60, 40)]
    again = pickle.loads(pickle.dumps(predictor))  # as workers get it
    monkeypatch.setattr(segutils, "Folded", None)  # not to be asked for again
    first = [predictor.logits(rgb) for rgb in images]
    with torch.no_grad():
        model.conv4.bias[1] += 100  # not seen
    for rgb, logit in zip(images, first, strict=True):
        np.testing.assert_array_equal(predictor.logits(rgb), logit)
        np.testing.assert_array_equal(predictor.segment(rgb), logit > 0)
    np.testing.assert_array_equal(again.logits(images[0]), first[0])


def test_predictions_leave_the_number_of_threads_as_it_was(model):
    """Also where two of them are interleaved, and where one is given up."""
    pieces = cut(image(600, 600))
    predictor, before = segutils.Predictor(model), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        one, other = predictor.tile_logits(pieces), predictor.tile_logits(pieces)
        for _ in range(3):
            next(one), next(other)
            assert torch.get_num_threads() == 3
        one.close()
        list(other)
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 3
        with segutils.single_threads(3) as pool:
            counts = [pool.submit(torch.get_num_threads) for _ in range(9)]
            assert {count.result() for count in counts} == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_bf16_is_near(model, monkeypatch):
    rgb = image(300, 270)
    predictor = segutils.Predictor(model, torch.bfloat16)
    logit, exact = predictor.logits(rgb), segutils.logits(model, rgb)
    for other in (exact, whole_logits(model, rgb, monkeypatch, torch.bfloat16)):
        assert abs(logit - other).max() < 0.05 * abs(exact).max()
    assert abs(logit - exact).max() > 0
    np.testing.assert_array_equal(predictor.segment(rgb), logit > 0)


def test_folded_gives_a_batch_its_logits(model):
    rgb = torch.from_numpy(np.stack([image(40, 60, seed) for seed in range(3)]))
    with torch.no_grad():
        logit = segutils.Folded(model)(rgb)
        logits = model.literal(rgb.permute(0, 3, 1, 2).float())
    torch.testing.assert_close(logit, logits[:, 1] - logits[:, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 258, 256, 3), (2, 256, 256, 3), (1, 64, 64, 4)])
def test_folded_refuses_what_breaks_the_rule(model, shape):
    with torch.no_grad():
        network = segutils.Folded(model)
    with pytest.raises(ValueError, match=r"at most|expected"):
        network(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_gives_what_the_cpu_gives(model):
    rgb = image(700, 500)
    here = segutils.logits(model, rgb)
    device = choose_device("cuda")
    there = segutils.logits(model.to(device), rgb)
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-4)


def test_a_smaller_halo_would_not_do(model, monkeypatch):
    rgb = image(400, 400)
    whole = whole_logits(model, rgb, monkeypatch)
    monkeypatch.setattr(segutils, "HALO", 4)
    assert abs(segutils.logits(model, rgb) - whole).max() > 1e-3


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
    logit = np.random.default_rng(0).normal(0, 30, 1001).astype(np.float32)
    logit[:3] = -1000, 0, 1000
    probability = segutils.sigmoid(logit)
    exact = 1 / (1 + np.exp(-logit.astype(np.float64).clip(-700)))
    np.testing.assert_allclose(probability, exact, atol=1e-6)
    assert probability[:3].tolist() == [0, 0.5, 1]
    alone = [segutils.sigmoid(logit[i : i + 1])[0] for i in range(len(logit))]
    np.testing.assert_array_equal(probability, alone)


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


def test_tiles_are_shared_by_the_threads_and_never_all_waiting(model):
    pieces = cut(image(20, 5000))
    taken, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lazily = (taken.append(piece) or piece for piece in pieces)
        found = segutils.Predictor(model).tile_logits(lazily)
        assert [next(found)[0] for _ in range(3)] == [tile for tile, _ in pieces[:3]]
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


def test_an_interrupt_while_threads_start_ends_them(model, monkeypatch):
    """Otherwise they would wait for each other for ever, and so would the exit."""
    before = set(threading.enumerate())

    class Interrupted(threading.Barrier):
        def wait(self, timeout=None):
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(segutils.threading, "Barrier", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        segutils.segment(model, np.zeros((20, 20, 3), np.uint8))
    gc.collect()  # the pool, whose threads end with it
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_pixels_without_data_count_as_the_mean_colour(model):
    """Whatever value stands there; so no edge of a map looks black or white."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (300, 270, 3), np.uint8)
    hidden = np.zeros(rgb.shape, bool)
    hidden[:, 250:] = hidden[40:60, 30:90] = True
    mean = model.normalise.mean.numpy().round()
    expected = segutils.logits(model, np.where(hidden, mean, rgb).astype(np.uint8))
    for value in (0, 255):
        picture = np.ma.MaskedArray(
            np.where(hidden, value, rgb).astype(np.uint8), hidden
        )
        np.testing.assert_array_equal(segutils.logits(model, picture), expected)
        mask = segutils.segment(model, picture)
        np.testing.assert_array_equal(mask, expected > 0)
