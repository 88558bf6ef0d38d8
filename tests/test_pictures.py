import io

import numpy as np
import pytest
from PIL import Image

from onelabel import pictures


def test_precision_recall_shows_its_curve_and_its_point():
    figure = pictures.precision_recall([0.5, 1], [1, 0.2], (0.8, 0.6), "threshold 0.5")
    curve, point = figure.axes[0].lines
    assert curve.get_xydata().tolist() == [[1, 0.5], [0.2, 1]]
    assert point.get_xydata().tolist() == [[0.6, 0.8]]
    assert point.get_label() == "threshold 0.5"


def test_loss_curve_shows_what_it_is_given():
    figure = pictures.loss_curve([3, 2, 1], [4, 3, 3.5], [0.1, 0.5, 0.4])
    top, bottom = figure.axes
    lines = {line.get_label(): line for line in top.lines}
    assert list(lines["training patches"].get_ydata()) == [3, 2, 1]
    assert list(lines["held-out block (averaged weights)"].get_ydata()) == [4, 3, 3.5]
    assert list(bottom.lines[0].get_ydata()) == [0.1, 0.5, 0.4]
    assert [text.get_text() for text in bottom.texts] == ["0.400"]  # the last
    assert top.get_ylabel().startswith("loss")
    assert (bottom.get_xlabel(), bottom.get_ylabel()) == ("epoch", "held-out IoU")
    assert bottom.get_xlim() == (0, 4)
    under_way = pictures.loss_curve([3], [4], [0.1], planned=40)
    assert under_way.axes[1].get_xlim() == (0, 41)


def test_gallery_shows_ones_white_and_shares_a_scale():
    ones, zeros = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    for axis in pictures.gallery([ones, zeros]).axes:
        assert axis.images[0].get_clim() == (0, 1)
    for axis in pictures.gallery([ones, 0.1 * ones], white=0.5).axes:
        assert axis.images[0].get_clim() == (0, 0.5)


def test_saved_figure_is_a_picture(tmp_path):
    pictures.save(pictures.loss_curve([1], [1], [0.5], 1), tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").width > 600


def test_png_is_a_picture_of_the_wanted_size():
    figure = pictures.gallery([np.zeros((4, 4))], width=3)
    picture = Image.open(io.BytesIO(pictures.png(figure, dpi=50)))
    assert (picture.format, picture.width) == ("PNG", 150)


def test_gallery_and_boxes_draw():
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    truth = rgb[..., 0] // 128
    figure = pictures.gallery([rgb, truth, rgb], ["a", "b"], columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", ""]
    figure = pictures.boxes(rgb, {"block": (pictures.BLUE, [(2, 3, 12, 23)])})
    (box,) = figure.axes[0].collections[0].get_paths()
    assert box.get_extents().bounds == (2.5, 1.5, 20, 10)


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1)])
def test_picture_of_a_narrow_image_is_neither_thread_nor_tower(shape):
    rgb = np.zeros((*shape, 3), np.uint8)
    for figure in (
        pictures.gallery([rgb, rgb], ["a", "b"]),
        pictures.boxes(rgb, {"all": (pictures.BLUE, [(0, 0, *shape)])}),
    ):
        assert 0.4 < figure.get_figheight() < 16
        assert pictures.png(figure)


def test_boxes_take_a_group_without_any():
    rgb = np.zeros((30, 40, 3), np.uint8)
    groups = {"none": (pictures.BLUE, []), "one": (pictures.GREEN, [(0, 0, 8, 8)])}
    none, one = pictures.boxes(rgb, groups).axes[0].collections
    assert (len(none.get_paths()), len(one.get_paths())) == (0, 1)


def test_a_large_image_is_drawn_with_few_pixels_in_its_own_coordinates():
    groups = {"box": (pictures.BLUE, [(0, 0, 8, 8)])}
    rgb = np.zeros((2000, 4000, 3), np.uint8)
    axis = pictures.boxes(rgb, groups, width=5).axes[0]
    assert axis.images[0].get_array().shape == (250, 500, 3)
    assert axis.images[0].get_extent() == [-0.5, 3999.5, 1999.5, -0.5]
