"""The project's pictures: loss curves, overlays, rows of images, boxes on an image.

matplotlib is imported only where a picture is drawn; no display is needed.

Contents
--------
Arrays    overlay, as_grey
Figures   loss_curve, gallery, boxes, histograms, bars
Files     save
"""

import numpy as np

from cli import whole_file


SUFFIXES = (".png", ".jpg", ".pdf", ".svg")  # of files that a figure may be saved to
# Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
TINT = (213, 94, 0)  # vermillion, which is rare in photographs
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def overlay(rgb, mask, opacity=0.4):
    """Draw a mask on its image: class 1 tinted, with a solid edge.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image.
    mask : ndarray, (H, W) uint8
        The classes, 0 or 1.
    opacity : float
        The tint's strength, 0 to 1.

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
    tinted = (1 - opacity) * np.arange(256)[:, None] + opacity * np.array(TINT)
    tinted = tinted.round().astype(np.uint8)
    drawn = rgb.copy()
    drawn[inside] = tinted[drawn[inside], [0, 1, 2]]
    drawn[edge] = TINT
    return drawn


def as_grey(truth):
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


def loss_curve(training_loss, held_out_loss, iou, kept):
    """Plot losses and held-out IoU against epochs.

    Parameters
    ----------
    training_loss, held_out_loss, iou : sequence of float
        One value an epoch, the first for epoch 1.
    kept : int
        The number of the epoch whose weights are kept, from 1.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels over one axis of epochs.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = range(1, len(training_loss) + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 5.5), layout="constrained")
        top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 2))
        marker = "." if len(epochs) < 3 else None  # one epoch alone makes no line
        training = {"color": BLUE, "marker": marker}
        held_out = {"color": ORANGE, "marker": marker}
        top.plot(epochs, training_loss, label="training patches", **training)
        top.plot(epochs, held_out_loss, label="held-out block", **held_out)
        top.plot(kept, held_out_loss[kept - 1], "o", color=VERMILLION, label="kept")
        top.set(ylabel="loss (cross-entropy + Dice)", ylim=(0, None))
        top.legend()
        bottom.plot(epochs, iou, **held_out)
        bottom.plot(kept, iou[kept - 1], "o", color=VERMILLION)
        bottom.annotate(
            f"{iou[kept - 1]:.3f} at epoch {kept}",
            (kept, iou[kept - 1]),
            # Inside the panel, wherever the point lies.
            xytext=(0, -16 if iou[kept - 1] > 0.3 else 10),
            textcoords="offset points",
            ha="right" if kept > len(epochs) / 2 else "left",
        )
        limits = {"xlim": (0, len(epochs) + 1), "ylim": (0, 1)}
        bottom.set(xlabel="epoch", ylabel="held-out IoU", **limits)
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def gallery(pictures, titles=(), columns=None, width=10, white=None):
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
    height, breadth = np.shape(pictures[0])[:2]
    cell = width / columns
    size = (width, rows * (cell * height / breadth + (0.3 if titles else 0.05)))
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


def boxes(rgb, groups, width=7):
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
    from matplotlib.patches import Rectangle

    with matplotlib.rc_context(STYLE):
        size = (width, width * rgb.shape[0] / rgb.shape[1] + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        axis.axis("off")
        axis.imshow(rgb)
        for label, (colour, corners) in groups.items():
            for top, left, bottom, right in corners:
                # Pixel (0, 0) is drawn from -0.5 to 0.5.
                place = (left - 0.5, top - 0.5)
                box = Rectangle(place, right - left, bottom - top, fill=False)
                box.set(edgecolor=colour, linewidth=1.5, label=label)
                axis.add_patch(box)
                label = None  # one entry in the legend for all boxes of a group
        figure.legend(loc="outside upper center", ncols=len(groups))
    return figure


def histograms(rgb, truth):
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


def bars(values, label, first=BLUE):
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


def save(figure, path):
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
