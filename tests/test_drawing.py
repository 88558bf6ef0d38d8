import numpy as np

from onelabel import drawing


def test_overlay_tints_class_1_and_draws_its_edge():
    rgb = np.full((9, 9, 3), 100, np.uint8)
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    drawn = drawing.overlay(rgb, mask, opacity=0.5)
    np.testing.assert_array_equal(drawn[mask == 0], rgb[mask == 0])
    assert tuple(drawn[2, 4]) == drawing.TINTS[0]  # the edge
    halfway = (np.array(drawing.TINTS[0]) + 100) / 2
    assert abs(drawn[4, 4] - halfway).max() <= 0.5
    assert (rgb == 100).all()  # the image itself is left alone


def test_mask_on_an_orange_image_is_blue():
    rgb = np.full((400, 300, 3), (200, 115, 75), np.uint8)
    mask = np.ones((400, 300), np.uint8)
    assert (drawing.overlay(rgb, mask, 1) == drawing.TINTS[1]).all()
    assert (drawing.overlay(rgb, mask, 1, drawing.TINTS[0]) == drawing.TINTS[0]).all()
    for grey in (0, 100, 255):
        assert drawing.tint(np.full_like(rgb, grey)) == drawing.TINTS[0]


def test_errors_are_blue_where_missed_and_orange_where_false():
    rgb = np.full((1, 5, 3), (200, 40, 0), np.uint8)
    mask = np.array([[0, 1, 0, 1, 1]], np.uint8)
    truth = np.array([[0, 1, 1, 0, 255]], np.uint8)
    drawn = drawing.errors(rgb, mask, truth)
    right = [168] * 3  # pale grey, where unlabelled too
    assert drawn[0].tolist() == [
        right,
        right,
        list(drawing.MISSED),
        list(drawing.FALSE),
        right,
    ]


def test_unlabelled_pixels_are_grey():
    shown = drawing.as_grey(np.array([[0, 1, 255]], np.uint8))
    assert shown.tolist() == [[0, 1, 0.5]]
