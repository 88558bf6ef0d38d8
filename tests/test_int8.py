"""The network in 8-bit integers: exact between tiles, near to float32."""

import pickle

import numpy as np
import pytest
import torch
from conftest import predict_here, train_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import segutils
from onelabel import model_file


needs_integers = pytest.mark.skipif(
    not segutils.has_integers(), reason="no 8-bit multiplication on this processor"
)


@pytest.fixture
def learned(folder, short_epochs):
    """A network that learned the small scene."""
    assert train_here("--epochs", "20") == 0
    return model_file.load("model.pt")


@needs_integers
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    size=st.tuples(st.integers(1, 256), st.integers(1, 256)),
    side=st.integers(7, 128).map(lambda half: 2 * half),
    seed=st.integers(0, 9),
)
def test_tiles_give_the_bits_of_one_pass(model, size, side, seed):
    rgb = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    predictor = segutils.Predictor(model, torch.int8)
    once, tiled = predictor.logits(rgb), np.full(size, np.nan, np.float32)
    cut = segutils.tiles(*size, side)
    pieces = [(tile, rgb[tile.seen.slices]) for tile in cut]
    for tile, logit in predictor.tile_logits(pieces):
        tiled[tile.core.slices] = logit
    np.testing.assert_array_equal(tiled, once)


@needs_integers
def test_the_mask_is_nearly_that_of_float32_at_the_edge_too(learned, scene):
    rgb, _ = scene
    plain = segutils.Predictor(learned.model).logits(rgb)
    coarse = segutils.Predictor(learned.model, torch.int8).logits(rgb)
    assert ((plain > 0) == (coarse > 0)).mean() > 0.99
    error = abs(plain - coarse) / plain.std()
    edge = np.ones(error.shape, bool)
    edge[8:-8, 8:-8] = False
    assert error[edge].mean() < 0.05
    assert error[~edge].mean() < 0.05


@needs_integers
def test_a_worker_computes_the_same_with_a_network_that_was_sent(model):
    rgb = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    predictor = segutils.Predictor(model, torch.int8)
    sent = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(sent.logits(rgb), predictor.logits(rgb))


@needs_integers
def test_predict_takes_the_option(learned, scene):
    assert predict_here("--precision", "int8", "--output", "int8.png") == 0
    assert predict_here("--output", "fp32.png") == 0
    one, other = (np.array(Image.open(name)) for name in ("int8.png", "fp32.png"))
    assert (one == other).mean() > 0.99
    assert predict_here("--precision", "int8", "--verify", "data/rgb.png") == 0


def test_a_processor_without_it_is_told(trained_file, monkeypatch, capsys):
    monkeypatch.setattr(model_file, "has_integers", lambda: False)
    assert predict_here("--precision", "int8") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --precision int8: needs a CPU with AVX-512")
    assert error.count("\n") == 1


def test_the_256_rule_holds_for_integers_too(model):
    network = segutils.Predictor(model, torch.int8).network
    with pytest.raises(ValueError, match="at most"):
        network(torch.zeros(1, 258, 256, 3, dtype=torch.uint8))
