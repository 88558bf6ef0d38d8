import numpy as np
import torch
import torch.nn.functional as F

import images
import metrics


def test_loss_is_cross_entropy_and_dice():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 8, 8)
    truth = torch.randint(2, (2, 8, 8))
    entropy = F.cross_entropy(logits, truth)
    p = logits.softmax(1)[:, 1]
    dice = (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    loss = metrics.segmentation_loss(logits[:, 1] - logits[:, 0], truth.byte())
    torch.testing.assert_close(loss, entropy + 1 - dice)


def test_unlabelled_pixels_cost_nothing_and_teach_nothing():
    truth = torch.randint(2, (4, 4), dtype=torch.uint8)
    truth[1] = images.UNLABELLED
    margin = torch.randn(4, 4, requires_grad=True)
    loss = metrics.segmentation_loss(margin, truth)
    loss.backward()
    assert (margin.grad[1] == 0).all()
    assert (margin.grad[0] != 0).all()
    others = torch.cat([margin[:1], margin[2:]]), torch.cat([truth[:1], truth[2:]])
    torch.testing.assert_close(loss, metrics.segmentation_loss(*others))


def test_loss_of_no_labels_is_finite():
    truth = torch.full((4, 4), images.UNLABELLED, dtype=torch.uint8)
    assert metrics.segmentation_loss(torch.randn(4, 4), truth).isfinite()


def test_scores_by_hand():
    truth = np.array([[1, 1, 1, 0, 0, 255, 255]], np.uint8)
    mask = np.array([[1, 1, 0, 1, 0, 1, 0]], np.uint8)
    assert metrics.scores(mask, truth) == {
        "IoU": 2 / 4,
        "Dice": 4 / 6,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "accuracy": 3 / 5,
    }


def test_a_pixel_without_a_class_in_the_mask_is_never_right():
    mask = np.array([[255, 255, 255, 1]], np.uint8)
    truth = np.array([[1, 1, 0, 1]], np.uint8)
    assert metrics.scores(mask, truth) == {
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
    assert metrics.total_scores(parts) == metrics.scores(mask, truth)


def test_scores_that_are_not_defined_are_nan():
    empty = np.zeros((2, 2), np.uint8)
    found = metrics.scores(empty, empty)
    assert np.isnan([found["IoU"], found["precision"], found["recall"]]).all()
    assert found["accuracy"] == 1
    assert metrics.score_table("t", {"a": found}).splitlines()[1].split()[1] == "-"


def test_precision_recall_are_the_scores_at_each_threshold():
    draw = np.random.default_rng(0)
    probability = draw.integers(0, 11, (20, 30)).astype(np.float32) / 10
    truth = draw.choice(np.array([0, 1, 255], np.uint8), (20, 30))
    thresholds = np.linspace(0, 1, 11)  # each is some pixel's own value
    precision, recall = metrics.precision_recall(probability, truth, thresholds)
    for at, threshold in enumerate(thresholds.tolist()):
        mask = (probability > threshold).astype(np.uint8)
        found = metrics.scores(mask, truth)
        np.testing.assert_equal(
            (precision[at], recall[at]), (found["precision"], found["recall"])
        )
    assert np.isnan(precision[-1])  # nothing is above 1
    _, none = metrics.precision_recall(probability, 0 * truth, thresholds)
    assert np.isnan(none).all()
