import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import segutils
from onelabel import sampling, strokes
from onelabel.files import InputError
from onelabel.image import UNLABELLED
from onelabel.strokes import Stroke
from segutils import Block


def blobs(height, width, seed=0, share=0.1):
    """A truth of square blobs of class 1."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((-(-height // 6), -(-width // 6))) < share
    return np.kron(coarse, np.ones((6, 6), np.uint8))[:height, :width].astype(np.uint8)


# ------------------------------------------------------------------ the split


@settings(max_examples=50)
@given(st.integers(32, 300), st.integers(32, 300), st.integers(0, 99))
def test_no_training_pixel_is_seen_from_the_held_out_block(height, width, seed):
    truth = blobs(height, width, seed)
    try:
        block = sampling.hold_out(truth)
        size = sampling.patch_size(truth, block, 64)
    except InputError:
        return  # too little of a class in too small an image
    weights = sampling.origin_weights(truth, block, size)
    trained = np.zeros(truth.shape, bool)
    for top, left in np.argwhere(weights):
        trained[top : top + size, left : left + size] = True
    seen = block.grown(segutils.RECEPTIVE_RADIUS, truth.shape)
    assert not trained[seen.slices].any()
    assert np.isclose(weights.sum(), 1)
    for region in (truth[block.slices], truth[trained]):
        assert {0, 1} <= set(np.unique(region))


def test_block_is_about_a_fifth_and_like_the_whole():
    truth = blobs(400, 500)
    block = sampling.hold_out(truth)
    inside = truth[block.slices]
    assert 0.18 < inside.size / truth.size < 0.22
    assert abs(inside.mean() - truth.mean()) < 0.02
    assert block.top % 2 == block.left % 2 == 0


def test_a_class_in_one_place_is_told():
    truth = np.zeros((200, 200), np.uint8)
    truth[90:94, 90:94] = 1
    with pytest.raises(InputError, match=r"\(16 pixels\) lies in one place"):
        sampling.hold_out(truth)


def painted(seed):
    """Strokes of both classes, anywhere: (300, 400) uint8."""
    draws = np.random.default_rng(seed)
    truth = np.full((300, 400), UNLABELLED, np.uint8)
    for number in range(24):
        x, y = draws.integers(0, (400, 300))
        end = (int(x + draws.integers(-20, 20)), int(y + draws.integers(-20, 20)))
        stroke = Stroke(str(number), number % 2, 2, ((int(x), int(y)), end))
        strokes.draw(truth, [stroke])
    return truth


@pytest.mark.parametrize("seed", range(10))
def test_whole_strokes_are_held_out(seed):
    truth = painted(seed)
    block = sampling.hold_out(truth)
    guarded = block.grown(sampling.GUARD, truth.shape)
    for label in (0, 1):
        inside = np.count_nonzero(truth[block.slices] == label)
        assert 0 < inside == np.count_nonzero(truth[guarded.slices] == label)
        assert inside < np.count_nonzero(truth == label)


def test_strokes_that_no_block_leaves_whole_are_cut():
    truth = np.full((300, 400), UNLABELLED, np.uint8)
    truth[::30], truth[15::30] = 0, 1  # from edge to edge
    block = sampling.hold_out(truth)
    assert {0, 1} <= set(np.unique(truth[block.slices]))


def test_unlabelled_pixels_do_not_count_as_a_class():
    truth = blobs(200, 200)
    truth[truth == 0] = UNLABELLED
    truth[::50, ::50] = 0
    block = sampling.hold_out(truth)
    assert {0, 1} <= set(np.unique(truth[block.slices]))


def test_block_within_another():
    inner, outer = Block(10, 20, 30, 50), Block(4, 16, 40, 60)
    grid = np.arange(100 * 100).reshape(100, 100)
    np.testing.assert_array_equal(
        grid[outer.slices][inner.within(outer)], grid[inner.slices]
    )


# ------------------------------------------------------------------ patches


@pytest.mark.parametrize(("side", "size"), [(400, 64), (110, 32), (60, 16), (32, 8)])
def test_patches_shrink_with_the_image(side, size):
    truth = blobs(side, side, seed=3, share=0.4)
    assert sampling.patch_size(truth, sampling.hold_out(truth), 64) == size


@pytest.mark.parametrize("side", [32, 36, 48])
def test_the_smallest_images_have_room_for_patches(side):
    for seed in range(50):
        truth = np.random.default_rng(seed).integers(0, 2, (side, side), np.uint8)
        assert sampling.patch_size(truth, sampling.hold_out(truth), 64) >= 8


def test_rare_class_is_drawn_often():
    truth = np.zeros((500, 500), np.uint8)
    truth[10:14, 10:490] = truth[460:464, 10:490] = 1
    block = Block(200, 200, 300, 300)
    weights = sampling.origin_weights(truth, block, 32)
    generator = torch.Generator().manual_seed(0)
    origins = sampling.draw_origins(weights, 4000, generator).numpy()
    holds = [truth[y : y + 32, x : x + 32].any() for y, x in origins]
    assert np.mean(holds) > 0.5
    assert (
        np.mean([truth[y : y + 32, x : x + 32].any() for y, x in np.argwhere(weights)])
        < 0.2
    )


def test_draws_follow_the_weights_and_the_seed():
    weights = np.array([[0, 0.2, 0], [0.5, 0, 0.3]])

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return sampling.draw_origins(weights, 10_000, generator)

    found = np.zeros((2, 3))
    np.add.at(found, tuple(draw(0).numpy().T), 1)
    assert (found[weights == 0] == 0).all()
    np.testing.assert_allclose(found / 10_000, weights, atol=0.02)
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_a_place_of_no_weight_is_never_drawn(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.zeros(count).double())
    origin = sampling.draw_origins(np.array([[0.0, 0.0, 1.0]]), 1, None)
    assert origin.tolist() == [[0, 2]]


def test_patches_are_cut_and_turned_with_their_truth():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (2, 40, 50, 3), np.uint8)
    truth = rng.integers(0, 2, (40, 50), np.uint8)
    origins = torch.tensor([(i, 2 * i) for i in range(8)])
    patches, classes = sampling.cut_patches(
        torch.tensor(rgb),
        torch.tensor(truth),
        torch.arange(8) % 2,
        origins,
        16,
        torch.arange(8),
    )
    assert patches.shape == (8, 3, 16, 16)
    assert patches.dtype == torch.float32
    seen = set()
    for i, (top, left) in enumerate(origins.tolist()):
        plain = rgb[i % 2, top : top + 16, left : left + 16]
        answer = truth[top : top + 16, left : left + 16]
        turns = {}  # the 8 symmetries, by NumPy's own turns and flips
        for quarter in range(4):
            for flip in (False, True):
                turn = [
                    np.rot90(a[::-1] if flip else a, quarter) for a in (plain, answer)
                ]
                turns[quarter, flip] = turn
        mine = patches[i].permute(1, 2, 0).numpy()
        same = [k for k, (p, _) in turns.items() if np.array_equal(p, mine)]
        assert len(same) == 1
        np.testing.assert_array_equal(classes[i], turns[same[0]][1])
        seen.add(same[0])
    assert len(seen) == 8


def test_jitter_stays_within_its_strengths():
    patches = torch.rand(500, 3, 4, 4) * 200 + 50
    generator = torch.Generator().manual_seed(0)
    same = sampling.jitter(patches, (0, 0, 0, 0), generator)
    torch.testing.assert_close(same, patches)
    bright = sampling.jitter(patches, (0.1, 0, 0, 0), generator) / patches
    assert bright.min() >= np.exp(-0.1001)
    assert bright.max() <= np.exp(0.1001)
    assert bright.std() > 0.04
    # One factor a patch, and with colour one a channel.
    assert bright.flatten(1).std(1).max() < 1e-4
    coloured = sampling.jitter(patches, (0, 0, 0.1, 0), generator) / patches
    assert coloured.flatten(2).std(2).max() < 1e-4
    assert coloured.mean((2, 3)).std(1).min() > 0


def test_mixed_channels_leave_grey_as_it_is():
    generator = torch.Generator().manual_seed(0)
    grey = (torch.rand(300, 1, 4, 4) * 255).expand(-1, 3, -1, -1)
    mixed = sampling.jitter(grey, (0, 0, 0, 0.1), generator)
    torch.testing.assert_close(mixed, grey)
    red = torch.tensor([200.0, 0, 0])[:, None, None].expand(300, 3, 4, 4)
    mixed = sampling.jitter(red, (0, 0, 0, 0.1), generator)
    assert mixed.flatten(2).std(2).max() < 1e-4  # one mixture a patch
    assert (mixed[:, 0] > 150).all() and (mixed[:, 1:].abs() < 30).all()
    assert mixed[:, 1:, 0, 0].std(0).min() > 5


def test_training_area():
    truth = np.zeros((100, 100), np.uint8)
    area = sampling.training_pixels(truth, Block(0, 0, 40, 50))
    assert area == 100 * 100 - (40 + sampling.GUARD) * (50 + sampling.GUARD)


def test_coverage_counts_the_patches_over_each_pixel():
    weights = np.random.default_rng(0).random((30, 41))
    weights[5:20, 7:30] = 0
    counted = np.zeros((37, 48))
    for (top, left), weight in np.ndenumerate(weights):
        counted[top : top + 8, left : left + 8] += weight
    np.testing.assert_allclose(sampling.coverage(weights, 8), counted, atol=1e-9)
