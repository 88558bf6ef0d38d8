import numpy as np
import pytest
import torch
import torch.nn.functional as F

from onelabel import scores
from onelabel.evaluation import expected_iou
from onelabel.image import UNLABELLED


def test_loss_is_cross_entropy_and_dice():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 8, 8)
    truth = torch.randint(2, (2, 8, 8))
    entropy = F.cross_entropy(logits, truth)
    p = logits.softmax(1)[:, 1]
    dice = (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    loss = scores.segmentation_loss(logits[:, 1] - logits[:, 0], truth.byte())
    torch.testing.assert_close(loss, entropy + 1 - dice)


def test_unlabelled_pixels_cost_nothing_and_teach_nothing():
    truth = torch.randint(2, (4, 4), dtype=torch.uint8)
    truth[1] = UNLABELLED
    logit = torch.randn(4, 4, requires_grad=True)
    loss = scores.segmentation_loss(logit, truth)
    loss.backward()
    assert (logit.grad[1] == 0).all()
    assert (logit.grad[0] != 0).all()
    others = torch.cat([logit[:1], logit[2:]]), torch.cat([truth[:1], truth[2:]])
    torch.testing.assert_close(loss, scores.segmentation_loss(*others))


def test_loss_of_no_labels_is_finite():
    truth = torch.full((4, 4), UNLABELLED, dtype=torch.uint8)
    assert scores.segmentation_loss(torch.randn(4, 4), truth).isfinite()


def test_scores_by_hand():
    truth = np.array([[1, 1, 1, 0, 0, 255, 255]], np.uint8)
    mask = np.array([[1, 1, 0, 1, 0, 1, 0]], np.uint8)
    assert scores.scores(mask, truth) == {
        "IoU": 2 / 4,
        "Dice": 4 / 6,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "accuracy": 3 / 5,
    }


def test_a_pixel_without_a_class_in_the_mask_is_never_right():
    mask = np.array([[255, 255, 255, 1]], np.uint8)
    truth = np.array([[1, 1, 0, 1]], np.uint8)
    assert scores.scores(mask, truth) == {
        "IoU": 1 / 3,
        "Dice": 2 / 4,
        "precision": 1,
        "recall": 1 / 3,
        "accuracy": 1 / 4,
    }


def test_scores_of_parts_are_those_of_the_whole():
    draw = np.random.default_rng(0)
    mask, truth = draw.choice(np.array([0, 1, 255], np.uint8), (2, 20, 30))
    parts = [(mask[:7], truth[:7]), (mask[7:], truth[7:])]
    assert scores.total_scores(parts) == scores.scores(mask, truth)


def test_scores_that_are_not_defined_are_nan():
    empty = np.zeros((2, 2), np.uint8)
    found = scores.scores(empty, empty)
    assert np.isnan([found["IoU"], found["precision"], found["recall"]]).all()
    assert found["accuracy"] == 1
    assert scores.score_table("t", {"a": found}).splitlines()[1].split()[1] == "-"


def test_precision_recall_are_the_scores_at_each_threshold():
    draw = np.random.default_rng(0)
    probability = draw.integers(0, 11, (20, 30)).astype(np.float32) / 10
    truth = draw.choice(np.array([0, 1, 255], np.uint8), (20, 30))
    thresholds = np.linspace(0, 1, 11)  # each is some pixel's own value
    precision, recall = scores.precision_recall(probability, truth, thresholds)
    for at, threshold in enumerate(thresholds.tolist()):
        mask = (probability > threshold).astype(np.uint8)
        found = scores.scores(mask, truth)
        np.testing.assert_equal(
            (precision[at], recall[at]), (found["precision"], found["recall"])
        )
    assert np.isnan(precision[-1])  # nothing is above 1
    _, none = scores.precision_recall(probability, 0 * truth, thresholds)
    assert np.isnan(none).all()


def test_less_is_expected_of_new_images_than_of_the_held_out_block():
    for iou in (0.05, 0.4, 0.9, 0.99):
        middle, low, high = expected_iou(iou)
        assert 0 < low < middle < min(iou, high)
        assert high < 1
    middles = [expected_iou(iou)[0] for iou in (0.1, 0.5, 0.9)]
    assert middles == sorted(middles)
    assert expected_iou(0.5)[0] == pytest.approx(0.438, abs=0.001)
