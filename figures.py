"""The project's pictures: loss curves, overlays, rows of images, boxes on an image.

matplotlib is imported only where a picture is drawn; no display is needed.

Contents
--------
Arrays    tint, overlay, errors, as_grey
Parts     window, thinned
Figures   loss_curve, precision_recall, gallery, with_detail, first_layer,
          contact_sheet, boxes, heat_map, influence, seams, histograms, bars
Files     save, png
"""

import io
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cli import PathLike, whole_file


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.typing import RcKeyType

Colour = tuple[int, int, int]  # red, green, blue
Groups = Mapping[str, tuple[str, Sequence[Sequence[float]]]]  # as for `boxes`

SUFFIXES = (".png", ".jpg", ".pdf", ".svg")  # of files that a figure may be saved to
# Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
TINTS = (213, 94, 0), (0, 114, 178)  # vermillion, and blue for images like it
LIKE = 100  # how far from a tint, in RGB, an image that would hide it may be
GAP = 190  # the grey between small pictures, so that white ones can be told from it
HEAT = "cividis"  # amounts: from dark blue to yellow, to colour-blind readers alike
MISSED, FALSE = (0, 114, 178), (230, 159, 0)  # blue and orange, of errors
STYLE: "dict[RcKeyType, Any]" = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}

# Where it cannot keep a cache, matplotlib would tell so in lines of its own.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


def tint(rgb: np.ndarray) -> Colour:
    """Choose the colour to draw a mask in, so that it can be seen.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image, or some of its pixels.

    Returns
    -------
    tuple of int
        Vermillion, which is rare in photographs; blue where the image is like it.
    """
    if rgb.size == 0:
        return TINTS[0]
    step = max(1, max(rgb.shape) // 200)  # some pixels tell as much as all
    typical = np.median(rgb[::step, ::step], axis=(0, 1))
    return TINTS[int(np.linalg.norm(typical - TINTS[0]) < LIKE)]


def overlay(
    rgb: np.ndarray,
    mask: np.ndarray,
    opacity: float = 0.4,
    colour: Colour | None = None,
) -> np.ndarray:
    """Draw a mask on its image: class 1 tinted, with a solid edge.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image.
    mask : ndarray, (H, W) uint8
        The classes, 0 or 1.
    opacity : float
        The tint's strength, 0 to 1.
    colour : tuple of int, optional
        The tint; the image's own, from `tint`, unless given. A part of an image is
        drawn like the whole with the whole image's.

    Returns
    -------
    ndarray, (H, W, 3) uint8
        The drawn image.
    """
    inside = mask == 1
    edge = np.zeros_like(inside)  # class 1 pixels beside one of class 0
    edge[1:] |= inside[1:] & ~inside[:-1]
    edge[:-1] |= inside[:-1] & ~inside[1:]
    edge[:, 1:] |= inside[:, 1:] & ~inside[:, :-1]
    edge[:, :-1] |= inside[:, :-1] & ~inside[:, 1:]
    # What each value of each channel becomes under the tint: (256, 3).
    colour = tint(rgb) if colour is None else colour
    tinted = (1 - opacity) * np.arange(256)[:, None] + opacity * np.array(colour)
    tinted = tinted.round().astype(np.uint8)
    drawn = rgb.copy()
    drawn[inside] = tinted[drawn[inside], [0, 1, 2]]
    drawn[edge] = colour
    return drawn


def errors(rgb: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Draw where a mask is wrong: class 1 missed in blue, falsely marked in orange.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image; it is shown in pale grey, so that no colour of its own misleads.
    mask : ndarray, (H, W) uint8
        The predicted classes, 0 or 1.
    truth : ndarray, (H, W) uint8
        0, 1, or another value where unlabelled: there nothing is wrong.

    Returns
    -------
    ndarray, (H, W, 3) uint8
        The drawn image.
    """
    pale = (128 + rgb.mean(2) / 2).astype(np.uint8)
    drawn = np.repeat(pale[..., None], 3, axis=2)
    drawn[(mask == 0) & (truth == 1)] = MISSED
    drawn[(mask == 1) & (truth == 0)] = FALSE
    return drawn


def as_grey(truth: np.ndarray) -> np.ndarray:
    """Make a truth or mask fit to be shown: black, white, and grey where unlabelled.

    Parameters
    ----------
    truth : ndarray, (..., H, W) uint8
        0, 1, or another value where unlabelled.

    Returns
    -------
    ndarray, (..., H, W) float64
        0, 1 or 0.5.
    """
    return np.where(truth > 1, 0.5, truth)


def window(
    shape: Sequence[int], zoom: float, down: float, across: float
) -> tuple[int, int, int, int]:
    """Place a window in an image, to be enlarged.

    Parameters
    ----------
    shape : tuple of int
        The image's (H, W).
    zoom : float
        How many times smaller than the image's the window's sides are.
    down, across : float
        Its place: 0 at the top or left edge, 1 at the other.

    Returns
    -------
    tuple of int
        Top, left, bottom and right, in pixels; at least one pixel.
    """
    sides = [max(int(side / zoom), 1) for side in shape]
    places = zip(shape, sides, (down, across), strict=True)
    top, left = (round(place * (whole - side)) for whole, side, place in places)
    return top, left, top + sides[0], left + sides[1]


def thinned(box: Sequence[int], most: int = 600) -> tuple[slice, slice]:
    """Give the slices of a part of an image, with no more pixels than a page shows.

    Parameters
    ----------
    box : tuple of int
        Top, left, bottom and right of the part.
    most : int
        How many rows and columns there may be.

    Returns
    -------
    tuple of slice
        Rows and columns; every second, third and so on of a large part.
    """
    top, left, bottom, right = box
    step = -(-max(bottom - top, right - left) // most)
    return slice(top, bottom, step), slice(left, right, step)


def loss_curve(
    training_loss: Sequence[float],
    held_out_loss: Sequence[float],
    iou: Sequence[float],
    planned: int | None = None,
) -> "Figure":
    """Plot losses and held-out IoU against epochs.

    Parameters
    ----------
    training_loss, held_out_loss, iou : sequence of float
        One value an epoch, the first for epoch 1; the last two are those of the
        running average of the weights.
    planned : int, optional
        How many epochs there is room for while the training goes on.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels over one axis of epochs.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

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
) -> "Figure":
    """Plot precision against recall, and one point of the curve.

    Parameters
    ----------
    precision, recall : ndarray, (thresholds,) float64
        The curve, from `metrics.precision_recall`.
    point : tuple of two float
        The precision and the recall to mark.
    label : str
        What the point is.

    Returns
    -------
    matplotlib.figure.Figure
        One panel, both axes from 0 to 1.
    """
    import matplotlib
    from matplotlib.figure import Figure

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
) -> "Figure":
    """Show images beside each other.

    Parameters
    ----------
    pictures : sequence of ndarray, (H, W, 3) uint8 or (H, W)
        The images.
    titles : sequence of str
        A title for each, or none.
    columns : int, optional
        How many stand in a row; all of them unless given.
    width : float
        The figure's width in inches.
    white : float, optional
        The value that is white in grey images, 0 being black; the largest value of
        each unless given.

    Returns
    -------
    matplotlib.figure.Figure
        The images in rows.
    """
    import matplotlib
    from matplotlib.figure import Figure

    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    cell = _height(width / columns, pictures[0]) + (0.3 if titles else 0.05)
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


def _height(width: float, picture: np.ndarray) -> float:
    """Give the height of a picture `width` inches wide; no thread's, no tower's."""
    height, breadth = np.shape(picture)[:2]
    return width * np.clip(height / breadth, 0.05, 2)


def with_detail(
    whole: np.ndarray,
    detail: np.ndarray,
    box: Sequence[float],
    titles: Sequence[str],
    width: float = 10,
) -> "Figure":
    """Show a picture, a part of it outlined, and that part enlarged beside it.

    Parameters
    ----------
    whole, detail : ndarray, (H, W, 3) uint8 or (H, W) of values 0 to 1
        The picture and its part, of the same shape or nearly so.
    box : tuple of float
        Top, left, bottom and right of the part within `whole`, in pixels of `whole`.
    titles : sequence of two str
        A title for each.
    width : float
        The figure's width in inches.

    Returns
    -------
    matplotlib.figure.Figure
        The two side by side.
    """
    from matplotlib.patches import Rectangle

    figure = gallery([whole, detail], titles, width=width, white=1)
    top, left, bottom, right = box
    place = (left - 0.5, top - 0.5)  # pixel (0, 0) is drawn from -0.5 to 0.5
    for colour, linewidth in (("black", 3), ("white", 1.5)):  # seen on any ground
        outline = Rectangle(place, right - left, bottom - top, fill=False)
        outline.set(edgecolor=colour, linewidth=linewidth)
        figure.axes[0].add_patch(outline)
    return figure


def first_layer(filters: np.ndarray, maps: np.ndarray, columns: int = 8) -> "Figure":
    """Show the first layer's filters, each above what it finds in an image.

    Parameters
    ----------
    filters : ndarray, (N, 3, 3, 3) float32
        The weights, the colour channels last. Mid-grey is 0; all share one scale.
    maps : ndarray, (N, H, W) float32
        Each filter's map of one image, black where it is 0.
    columns : int
        How many filters stand in a row.

    Returns
    -------
    matplotlib.figure.Figure
        Rows of filters and rows of maps, in turn.
    """
    colours = 0.5 + filters / (2 * abs(filters).max())
    rows = []
    for start in range(0, len(filters), columns):
        rows += [*colours[start : start + columns], *maps[start : start + columns]]
    return gallery(rows, columns=columns)


def contact_sheet(
    rows: Mapping[str, Sequence[np.ndarray]],
    titles: Sequence[str] = (),
    width: float = 12,
) -> "Figure":
    """Show rows of small square pictures, each row with its name.

    Parameters
    ----------
    rows : dict of str to sequence of ndarray, (s, s, 3) uint8 or (s, s) of 0 to 1
        Each row's name and pictures, all of one side.
    titles : sequence of str
        A title for each column, or none.
    width : float
        The figure's width in inches; its height is the same for few and many pictures.

    Returns
    -------
    matplotlib.figure.Figure
        All pictures on one sheet.
    """
    import matplotlib
    from matplotlib.figure import Figure

    columns = max(map(len, rows.values()))
    side = len(next(iter(rows.values()))[0])
    gap = max(side // 16, 1)
    pitch = side + gap  # pixels from one picture to the next
    # One array is drawn many times faster than a panel for each picture.
    shape = (len(rows) * pitch + gap, columns * pitch + gap, 3)
    sheet = np.full(shape, GAP, np.uint8)
    for row, pictures in enumerate(rows.values()):
        for column, picture in enumerate(pictures):
            rgb = picture if picture.ndim == 3 else 255 * picture[..., None]
            top, left = row * pitch + gap, column * pitch + gap
            sheet[top : top + side, left : left + side] = rgb
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        size = (width, 0.4 + 0.075 * width * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        axis.imshow(sheet)
        middles = gap + side / 2 + pitch * np.arange(max(columns, len(rows)))
        axis.set_yticks(middles[: len(rows)], rows)
        axis.set_xticks(middles[: len(titles)], titles)
        axis.tick_params(length=0, labeltop=True, labelbottom=False)
        axis.spines[:].set_visible(False)
    return figure


def boxes(rgb: np.ndarray, groups: Groups, width: float = 7) -> "Figure":
    """Draw rectangles on an image.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image.
    groups : dict of str to (colour, list of (top, left, bottom, right))
        For each label of the legend the rectangles' colour and corners, in pixels.
    width : float
        The figure's width in inches.

    Returns
    -------
    matplotlib.figure.Figure
        The image with its rectangles.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        size = (width, _height(width, rgb) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        axis.axis("off")
        _show_thinned(axis, rgb, width)
        _add_boxes(axis, groups)
        figure.legend(loc="outside upper center", ncols=len(groups))
    return figure


def _show_thinned(
    axis: "Axes", picture: np.ndarray, width: float, **more: Any
) -> "AxesImage":
    """Show a picture `width` inches wide, with no more pixels than can be seen.

    A large photograph would else take long to draw; the axis counts its own pixels.
    """
    height, breadth = picture.shape[:2]
    step = max(round(breadth / (100 * width)), 1)
    # Pixel (0, 0) is drawn from -0.5 to 0.5.
    extent = (-0.5, breadth - 0.5, height - 0.5, -0.5)
    return axis.imshow(picture[::step, ::step], extent=extent, **more)


def _add_boxes(axis: "Axes", groups: Groups) -> None:
    """Draw rectangles on a picture; `groups` as for `boxes`."""
    from matplotlib.collections import PolyCollection

    for label, (colour, corners) in groups.items():
        top, left, bottom, right = np.reshape(corners, (-1, 4)).T - 0.5
        x = np.stack([left, right, right, left], 1)
        y = np.stack([top, top, bottom, bottom], 1)
        drawn = PolyCollection([], facecolors="none", linewidths=1.5)
        drawn.set(verts=np.stack([x, y], 2), edgecolor=colour, label=label)
        axis.add_collection(drawn, autolim=False)


def heat_map(values: np.ndarray, label: str, width: float = 7) -> "Figure":
    """Show an amount for each pixel of an image, with the scale beside it.

    Parameters
    ----------
    values : ndarray, (H, W)
        The amounts, 0 or more.
    label : str
        What they are.
    width : float
        The figure's width in inches.

    Returns
    -------
    matplotlib.figure.Figure
        The map, with its scale below.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        size = (width, _height(width, values) + 0.7)
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        axis.axis("off")
        shown = _show_thinned(axis, values, width, cmap=HEAT, vmin=0)
        figure.colorbar(shown, label=label, location="bottom", aspect=40, pad=0.02)
    return figure


def influence(rgb: np.ndarray, change: np.ndarray, groups: Groups) -> "Figure":
    """Show which outputs a change of the input moved, and how far.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The input.
    change : ndarray, (H, W)
        How far each output moved, 0 or more.
    groups : dict of str to (colour, list of (top, left, bottom, right))
        Rectangles to draw on both, as for `boxes`.

    Returns
    -------
    matplotlib.figure.Figure
        The input and the change beside each other; white where nothing moved at all.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(rgb)
        left.set_title("input", fontsize=10)
        _show_change(figure, right, change, "how far the outputs moved")
        for axis in (left, right):
            _add_boxes(axis, groups)
        handles = left.get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=len(groups))
    return figure


def _show_change(
    figure: "Figure", axis: "Axes", change: np.ndarray, title: str
) -> None:
    """Show amounts of every order of magnitude; white where there is none at all."""
    shown = axis.imshow(change, cmap=HEAT, norm="log", clim=(1e-6, 1))
    axis.set_title(f"{title}: at most {change.max():.1g}", fontsize=10)
    bar = figure.colorbar(shown, ax=axis, shrink=0.9, ticks=[1e-6, 1e-4, 1e-2, 1])
    bar.minorticks_off()  # they would take a third of the time


def seams(whole: np.ndarray, tiled: np.ndarray) -> "Figure":
    """Compare what a network says of an image in one pass and in tiles.

    Parameters
    ----------
    whole, tiled : ndarray, (H, W) float32
        The margins in one pass and in tiles.

    Returns
    -------
    matplotlib.figure.Figure
        Both and how far they differ; white where they are equal bit for bit.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 3.9), layout="constrained")
        panels = figure.subplots(1, 3)
        low, high = np.percentile(whole, (1, 99))  # a few extremes would dim the rest
        grey = {"cmap": "gray", "vmin": low, "vmax": high}
        named = {"in one pass": whole, "in tiles": tiled}
        for axis, (name, margin) in zip(panels, named.items(), strict=False):
            axis.imshow(margin, **grey)
            axis.set_title(name, fontsize=10)
        _show_change(figure, panels[2], abs(tiled - whole), "difference")
        for axis in panels:
            axis.grid(False)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    return figure


def histograms(rgb: np.ndarray, truth: np.ndarray) -> "Figure":
    """Plot how the values of each colour channel are spread in the two classes.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image.
    truth : ndarray, (H, W) uint8
        0, 1, or another value where unlabelled.

    Returns
    -------
    matplotlib.figure.Figure
        A panel a channel.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 2.6), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for channel, (axis, name) in enumerate(
            zip(panels, ("red", "green", "blue"), strict=True)
        ):
            for label, colour in ((0, BLUE), (1, VERMILLION)):
                values = rgb[truth == label, channel]
                style = {"color": colour, "alpha": 0.5, "label": f"class {label}"}
                axis.hist(values, bins=64, range=(0, 256), density=True, **style)
            axis.set(xlabel=name, yticks=[])
        panels[0].set_ylabel("share of pixels")
        panels[-1].legend()
    return figure


def bars(values: Mapping[str, float], label: str, first: str = BLUE) -> "Figure":
    """Compare numbers by horizontal bars, the first one's in its own colour.

    Parameters
    ----------
    values : dict of str to float
        The numbers, from the top down.
    label : str
        What they are.
    first : str
        The colour of the first bar.

    Returns
    -------
    matplotlib.figure.Figure
        One bar for each number, with the number beside it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(7, 0.8 + 0.32 * len(values)), layout="constrained")
        axis = figure.subplots()
        colours = [first] + [ORANGE] * (len(values) - 1)
        drawn = axis.barh(list(values), list(values.values()), color=colours)
        axis.bar_label(drawn, fmt="%.2f", padding=3)
        axis.invert_yaxis()
        axis.set(xlabel=label, axisbelow=True)
        axis.margins(x=0.1)
    return figure


def save(figure: "Figure", path: PathLike) -> None:
    """Write a figure to a file, whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    path : str or Path
        The file; its suffix says the format.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def png(figure: "Figure", dpi: float = 80) -> bytes:
    """Give a figure as a PNG, for a picture in the page that changes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    dpi : float
        Pixels to an inch.

    Returns
    -------
    bytes
        The PNG file's content.
    """
    with io.BytesIO() as file:
        # Little compression: it takes half of the time otherwise.
        options = {"compress_level": 1}
        figure.savefig(file, format="png", dpi=dpi, pil_kwargs=options)
        return file.getvalue()
