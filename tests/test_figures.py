import subprocess
import sys

import numpy as np
from PIL import Image

import figures


def test_overlay_tints_class_1_and_draws_its_edge():
    rgb = np.full((9, 9, 3), 100, np.uint8)
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    drawn = figures.overlay(rgb, mask, opacity=0.5)
    np.testing.assert_array_equal(drawn[mask == 0], rgb[mask == 0])
    assert tuple(drawn[2, 4]) == figures.TINT  # the edge
    halfway = (np.array(figures.TINT) + 100) / 2
    assert abs(drawn[4, 4] - halfway).max() <= 0.5
    assert (rgb == 100).all()  # the image itself is left alone


def test_loss_curve_shows_what_it_is_given():
    figure = figures.loss_curve([3, 2, 1], [4, 3, 3.5], [0.1, 0.5, 0.4], kept=2)
    top, bottom = figure.axes
    lines = {line.get_label(): line for line in top.lines}
    assert list(lines["training patches"].get_ydata()) == [3, 2, 1]
    assert list(lines["held-out block"].get_ydata()) == [4, 3, 3.5]
    assert list(lines["kept"].get_xydata()[0]) == [2, 3]
    assert list(bottom.lines[0].get_ydata()) == [0.1, 0.5, 0.4]
    assert top.get_ylabel().startswith("loss")
    assert (bottom.get_xlabel(), bottom.get_ylabel()) == ("epoch", "held-out IoU")


def test_gallery_and_boxes_and_histograms_draw():
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    truth = rgb[..., 0] // 128
    figure = figures.gallery([rgb, truth, rgb], ["a", "b"], columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", ""]
    figure = figures.boxes(rgb, {"block": (figures.BLUE, [(2, 3, 12, 23)])})
    box = figure.axes[0].patches[0]
    assert (box.get_x(), box.get_y()) == (2.5, 1.5)
    assert (box.get_width(), box.get_height()) == (20, 10)
    assert len(figures.histograms(rgb, truth).axes) == 3


def test_gallery_shows_ones_white_and_shares_a_scale():
    ones, zeros = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    for axis in figures.gallery([ones, zeros]).axes:
        assert axis.images[0].get_clim() == (0, 1)
    for axis in figures.gallery([ones, 0.1 * ones], white=0.5).axes:
        assert axis.images[0].get_clim() == (0, 0.5)


def test_unlabelled_pixels_are_grey():
    shown = figures.as_grey(np.array([[0, 1, 255]], np.uint8))
    assert shown.tolist() == [[0, 1, 0.5]]


def test_saved_figure_is_a_picture(tmp_path):
    figures.save(figures.loss_curve([1], [1], [0.5], 1), tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").width > 600


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
