"""Figures: loss curves, precision and recall, rows of images."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from onelabel.files import PathLike, whole_file


if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType


Groups = Mapping[str, tuple[str, Sequence[Sequence[float]]]]  # as for `boxes`

SUFFIXES = (".png", ".jpg", ".pdf", ".svg")  # of files that a figure may be saved to
# Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
STYLE: "dict[RcKeyType, Any]" = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def loss_curve(
    training_loss: Sequence[float],
    held_out_loss: Sequence[float],
    iou: Sequence[float],
    planned: int | None = None,
) -> Figure:
    """Plot losses and held-out IoU against epochs; `planned` of them have room."""
    epochs = range(1, len(training_loss) + 1)
    last = planned or len(epochs)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 5.5), layout="constrained")
        top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 2))
        marker = "." if len(epochs) < 3 else None  # one epoch alone makes no line
        training = {"color": BLUE, "marker": marker}
        held_out = {"color": ORANGE, "marker": marker}
        top.plot(epochs, training_loss, label="training patches", **training)
        top.plot(
            epochs, held_out_loss, label="held-out block (averaged weights)", **held_out
        )
        top.set(ylabel="loss (cross-entropy + Dice)", ylim=(0, None))
        top.legend()
        bottom.plot(epochs, iou, **held_out)
        bottom.annotate(
            f"{iou[-1]:.3f}",
            (epochs[-1], iou[-1]),
            xytext=(0, -16 if iou[-1] > 0.3 else 10),  # inside the panel
            textcoords="offset points",
            ha="right" if epochs[-1] > last / 2 else "left",
        )
        limits = {"xlim": (0, last + 1), "ylim": (0, 1)}
        bottom.set(xlabel="epoch", ylabel="held-out IoU", **limits)
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def precision_recall(
    precision: np.ndarray, recall: np.ndarray, point: tuple[float, float], label: str
) -> Figure:
    """Plot precision against recall, and mark one point (precision, recall) of it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4, 3.4), layout="constrained")
        axis = figure.subplots()
        axis.plot(recall, precision, color=BLUE)
        axis.plot(point[1], point[0], "o", color=VERMILLION, label=label)
        axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        axis.legend(loc="lower left")
    return figure


def gallery(
    pictures: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    columns: int | None = None,
    width: float = 10,
    white: float | None = None,
) -> Figure:
    """Show images, (H, W, 3) uint8 or grey (H, W), beside each other.

    Parameters
    ----------
    pictures : sequence of ndarray
        The images.
    titles : sequence of str
        A title for each, or none.
    columns : int, optional
        How many stand in a row; all of them unless given.
    width : float
        The figure's width in inches.
    white : float, optional
        The value that is white in grey images; the largest of each unless given.
    """
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    cell = height_of(width / columns, pictures[0]) + (0.3 if titles else 0.05)
    size = (width, rows * cell)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, picture in zip(axes, pictures, strict=False):
            # Never an empty range: a picture of one value would always be black.
            axis.imshow(picture, cmap="gray", vmin=0, vmax=white or picture.max() or 1)
        for axis, title in zip(axes, titles, strict=False):
            axis.set_title(title, fontsize=10)
    return figure


def height_of(width: float, picture: np.ndarray) -> float:
    """Give the height of a picture `width` inches wide: 0.05 to 2 times as high."""
    height, breadth = np.shape(picture)[:2]
    return width * np.clip(height / breadth, 0.05, 2)


def boxes(rgb: np.ndarray, groups: Groups, width: float = 7) -> Figure:
    """Draw rectangles on an image: for each label a colour and corners in pixels."""
    with matplotlib.rc_context(STYLE):
        size = (width, height_of(width, rgb) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        axis.axis("off")
        show_thinned(axis, rgb, width)
        add_boxes(axis, groups)
        figure.legend(loc="outside upper center", ncols=len(groups))
    return figure


def show_thinned(
    axis: Axes, picture: np.ndarray, width: float, **more: Any
) -> AxesImage:
    """Show a picture `width` inches wide, with no more pixels than can be seen.

    A large photograph would else take long to draw; the axis counts its own pixels.
    """
    height, breadth = picture.shape[:2]
    step = max(round(breadth / (100 * width)), 1)
    # Pixel (0, 0) is drawn from -0.5 to 0.5.
    extent = (-0.5, breadth - 0.5, height - 0.5, -0.5)
    return axis.imshow(picture[::step, ::step], extent=extent, **more)


def add_boxes(axis: Axes, groups: Groups) -> None:
    """Draw rectangles on a picture; `groups` as for `boxes`."""
    for label, (colour, corners) in groups.items():
        top, left, bottom, right = np.reshape(corners, (-1, 4)).T - 0.5
        x = np.stack([left, right, right, left], 1)
        y = np.stack([top, top, bottom, bottom], 1)
        drawn = PolyCollection([], facecolors="none", linewidths=1.5)
        drawn.set(verts=np.stack([x, y], 2), edgecolor=colour, label=label)
        axis.add_collection(drawn, autolim=False)


def objects(
    rgb: np.ndarray, mask: np.ndarray, table: Mapping[str, np.ndarray], most: int = 40
) -> Figure:
    """Draw a mask's outlines, the numbers of its largest objects, and all areas.

    `mask` is (H, W), 1 where an object is; `table` is that of `objects.find`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, height_of(7.5, rgb)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(7.5, 4.5))
        left.axis("off")
        show_thinned(left, rgb, 7.5)
        left.contour(mask == 1, [0.5], colors=ORANGE, linewidths=1)
        bold = {"color": "white", "fontsize": 8, "fontweight": "bold"}
        for index in table["area_px"].argsort()[::-1][:most]:
            middle = table["x"][index] - 0.5, table["y"][index] - 0.5
            left.text(*middle, table["id"][index], ha="center", va="center", **bold)
        areas = table["area_px"]
        bins = np.geomspace(1, max(areas.max(initial=1), 10), 25)
        right.hist(areas, bins, color=BLUE)
        right.set(xscale="log", xlabel="area in pixels", ylabel="number of objects")
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def save(figure: Figure, path: PathLike) -> None:
    """Write a figure to a file, whole or not at all; its suffix says the format."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def png(figure: Figure, dpi: float = 80) -> bytes:
    """Give a figure as the bytes of a PNG, for a picture in a page that changes."""
    with io.BytesIO() as file:
        # Little compression: it takes half of the time otherwise.
        options = {"compress_level": 1}
        figure.savefig(file, format="png", dpi=dpi, pil_kwargs=options)
        return file.getvalue()
