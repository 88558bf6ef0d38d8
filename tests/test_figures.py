import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import figures


def test_overlay_tints_class_1_and_draws_its_edge():
    rgb = np.full((9, 9, 3), 100, np.uint8)
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    drawn = figures.overlay(rgb, mask, opacity=0.5)
    np.testing.assert_array_equal(drawn[mask == 0], rgb[mask == 0])
    assert tuple(drawn[2, 4]) == figures.TINTS[0]  # the edge
    halfway = (np.array(figures.TINTS[0]) + 100) / 2
    assert abs(drawn[4, 4] - halfway).max() <= 0.5
    assert (rgb == 100).all()  # the image itself is left alone


def test_mask_on_an_orange_image_is_blue():
    rgb = np.full((400, 300, 3), (200, 115, 75), np.uint8)
    mask = np.ones((400, 300), np.uint8)
    assert (figures.overlay(rgb, mask, 1) == figures.TINTS[1]).all()
    assert (figures.overlay(rgb, mask, 1, figures.TINTS[0]) == figures.TINTS[0]).all()
    for grey in (0, 100, 255):
        assert figures.tint(np.full_like(rgb, grey)) == figures.TINTS[0]


def test_window_lies_within_the_image():
    assert figures.window((100, 200), 4, 0, 1) == (0, 150, 25, 200)
    assert figures.window((100, 200), 4, 0.5, 0.5) == (38, 75, 63, 125)
    assert figures.window((1, 3), 16, 1, 1) == (0, 2, 1, 3)


def test_part_of_an_image_is_thinned_to_what_a_page_shows():
    image = np.zeros((2000, 3000))
    assert image[figures.thinned((0, 0, 2000, 3000))].shape == (400, 600)
    assert image[figures.thinned((100, 200, 700, 800))].shape == (600, 600)
    assert image[figures.thinned((5, 5, 6, 6))].shape == (1, 1)


def test_errors_are_blue_where_missed_and_orange_where_false():
    rgb = np.full((1, 5, 3), (200, 40, 0), np.uint8)
    mask = np.array([[0, 1, 0, 1, 1]], np.uint8)
    truth = np.array([[0, 1, 1, 0, 255]], np.uint8)
    drawn = figures.errors(rgb, mask, truth)
    right = [168] * 3  # pale grey, where unlabelled too
    assert drawn[0].tolist() == [
        right,
        right,
        list(figures.MISSED),
        list(figures.FALSE),
        right,
    ]


def test_precision_recall_shows_its_curve_and_its_point():
    figure = figures.precision_recall([0.5, 1], [1, 0.2], (0.8, 0.6), "threshold 0.5")
    curve, point = figure.axes[0].lines
    assert curve.get_xydata().tolist() == [[1, 0.5], [0.2, 1]]
    assert point.get_xydata().tolist() == [[0.6, 0.8]]
    assert point.get_label() == "threshold 0.5"


def test_detail_is_outlined_in_the_whole():
    whole, detail = np.zeros((20, 30, 3), np.uint8), np.ones((10, 15))
    figure = figures.with_detail(whole, detail, (2, 4, 12, 19), ["whole", "part"])
    box = figure.axes[0].patches[0]
    assert (box.get_x(), box.get_y()) == (3.5, 1.5)
    assert (box.get_width(), box.get_height()) == (15, 10)
    assert [axis.get_title() for axis in figure.axes] == ["whole", "part"]


def test_first_layer_puts_each_filter_above_its_map():
    filters = np.zeros((4, 3, 3, 3), np.float32)
    filters[1] = -2
    filters[2] = 1
    maps = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 6, 6))
    axes = figures.first_layer(filters, maps, columns=2).axes
    shown = [float(np.max(axis.images[0].get_array())) for axis in axes]
    assert shown == [0.5, 0, 0, 1, 0.75, 0.5, 2, 3]


def test_loss_curve_shows_what_it_is_given():
    figure = figures.loss_curve([3, 2, 1], [4, 3, 3.5], [0.1, 0.5, 0.4])
    top, bottom = figure.axes
    lines = {line.get_label(): line for line in top.lines}
    assert list(lines["training patches"].get_ydata()) == [3, 2, 1]
    assert list(lines["held-out block (averaged weights)"].get_ydata()) == [4, 3, 3.5]
    assert list(bottom.lines[0].get_ydata()) == [0.1, 0.5, 0.4]
    assert [text.get_text() for text in bottom.texts] == ["0.400"]  # the last
    assert top.get_ylabel().startswith("loss")
    assert (bottom.get_xlabel(), bottom.get_ylabel()) == ("epoch", "held-out IoU")
    assert bottom.get_xlim() == (0, 4)
    under_way = figures.loss_curve([3], [4], [0.1], planned=40)
    assert under_way.axes[1].get_xlim() == (0, 41)


def test_gallery_and_boxes_and_histograms_draw():
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    truth = rgb[..., 0] // 128
    figure = figures.gallery([rgb, truth, rgb], ["a", "b"], columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", ""]
    figure = figures.boxes(rgb, {"block": (figures.BLUE, [(2, 3, 12, 23)])})
    (box,) = figure.axes[0].collections[0].get_paths()
    assert box.get_extents().bounds == (2.5, 1.5, 20, 10)
    assert len(figures.histograms(rgb, truth).axes) == 3


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1)])
def test_picture_of_a_narrow_image_is_neither_thread_nor_tower(shape):
    rgb = np.zeros((*shape, 3), np.uint8)
    for figure in (
        figures.gallery([rgb, rgb], ["a", "b"]),
        figures.boxes(rgb, {"all": (figures.BLUE, [(0, 0, *shape)])}),
        figures.heat_map(rgb[..., 0], "visits"),
    ):
        assert 0.4 < figure.get_figheight() < 16
        assert figures.png(figure)


def test_gallery_shows_ones_white_and_shares_a_scale():
    ones, zeros = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    for axis in figures.gallery([ones, zeros]).axes:
        assert axis.images[0].get_clim() == (0, 1)
    for axis in figures.gallery([ones, 0.1 * ones], white=0.5).axes:
        assert axis.images[0].get_clim() == (0, 0.5)


def test_unlabelled_pixels_are_grey():
    shown = figures.as_grey(np.array([[0, 1, 255]], np.uint8))
    assert shown.tolist() == [[0, 1, 0.5]]


def test_boxes_take_a_group_without_any():
    rgb = np.zeros((30, 40, 3), np.uint8)
    groups = {"none": (figures.BLUE, []), "one": (figures.GREEN, [(0, 0, 8, 8)])}
    none, one = figures.boxes(rgb, groups).axes[0].collections
    assert (len(none.get_paths()), len(one.get_paths())) == (0, 1)


def test_a_large_image_is_drawn_with_few_pixels_in_its_own_coordinates():
    groups = {"box": (figures.BLUE, [(0, 0, 8, 8)])}
    rgb = np.zeros((2000, 4000, 3), np.uint8)
    axis = figures.boxes(rgb, groups, width=5).axes[0]
    assert axis.images[0].get_array().shape == (250, 500, 3)
    assert axis.images[0].get_extent() == [-0.5, 3999.5, 1999.5, -0.5]


def test_contact_sheet_has_each_picture_in_its_place():
    rgb = np.full((8, 8, 3), 100, np.uint8)
    rows = {"patch": [rgb, rgb + 1], "truth": [np.zeros((8, 8)), np.ones((8, 8))]}
    (axis,) = figures.contact_sheet(rows, ["a", "b"]).axes
    sheet = np.asarray(axis.images[0].get_array())
    assert sheet.shape == (19, 19, 3)
    corners = sheet[[1, 1, 17, 17], [1, 17, 1, 17], 0]
    assert corners.tolist() == [100, 101, 0, 255]
    assert (sheet[[0, 9, 18]] == figures.GAP).all()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["patch", "truth"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b"]


def test_heat_map_starts_at_zero():
    axis, scale = figures.heat_map(np.full((30, 40), 5.0), "visits").axes
    assert axis.images[0].get_clim()[0] == 0
    assert scale.get_xlabel() == "visits"


def test_influence_and_seams_leave_white_what_is_equal():
    change = np.zeros((8, 8))
    change[2, 3] = 0.1
    groups = {"pixel": (figures.BLUE, [(2, 3, 3, 4)])}
    drawn = figures.influence(np.zeros((8, 8, 3), np.uint8), change, groups)
    seen = drawn.axes[1].images[0]
    assert seen.to_rgba(change)[0, 0, 3] == 0  # transparent: the white shines through
    assert seen.to_rgba(change)[2, 3, 3] == 1
    assert all(len(axis.collections) == 1 for axis in drawn.axes[:2])
    whole = np.float32(change)
    off = figures.seams(whole, whole).axes[2]
    assert off.get_title().endswith("at most 0")
    assert figures.png(figures.seams(whole, whole))  # equal everywhere is no error


def test_png_is_a_picture_that_is_the_same_each_time():
    first, second = (figures.png(figures.bars({"a": 1}, "b")) for _ in range(2))
    assert first == second
    small = figures.png(figures.bars({"a": 1}, "b"), dpi=40)
    widths = [Image.open(io.BytesIO(png)).width for png in (first, small)]
    assert widths == [560, 280]  # 7 inches


def test_saved_figure_is_a_picture(tmp_path):
    figures.save(figures.loss_curve([1], [1], [0.5], 1), tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").width > 600


def test_png_is_a_picture_of_the_wanted_size():
    figure = figures.gallery([np.zeros((4, 4))], width=3)
    picture = Image.open(io.BytesIO(figures.png(figure, dpi=50)))
    assert (picture.format, picture.width) == ("PNG", 150)


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
