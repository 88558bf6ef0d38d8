"""An image that is being labelled: its strokes, and what the network says of it."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onelabel.files import InputError, PathLike
from onelabel.image import STRIP, UNLABELLED, Colour, Image, InMemory, grid, hold
from onelabel.labelled import check_side, common_scale
from onelabel.lesson import PATCH, Pixels, labelled_parts, spread_parts
from onelabel.pipeline import read_with_halo
from onelabel.reading import open_image
from onelabel.sampling import NOWHERE, Scene, scene_of
from onelabel.strokes import Labels, Stroke, box, draw, read_labels, write_labels
from onelabel.truth import read_truth_of
from segutils import Block, Predictor, sigmoid


KEPT = "labels.json"  # beside the images
OVERVIEW = 2_000_000  # pixels of the picture that views of a whole large image show
PART = 488  # pixels a side, of the parts that are segmented one by one: two tiles
COARSE = 32  # pixels a side, of the places that are compared for where to paint next
FEW = 8  # tiles that describe a large image
YELLOW = (240, 228, 66)  # where the network is unsure
# How near each probability, times 255, is to a draw: 0 to 255.
DOUBTS = (255 - abs(2 * np.arange(256) - 255)).astype(np.uint8)


def in_bytes(logit: np.ndarray) -> np.ndarray:
    """Turn logits into probabilities of class 1, times 255: uint8."""
    return (255 * sigmoid(logit)).round().astype(np.uint8)


class Photo:
    """An image to label.

    Parameters
    ----------
    path : str or Path
        Its file. The strokes are kept in `KEPT` beside it.
    like : Photo, optional
        Another one, whose kind of pixels and scale it must have.

    Raises
    ------
    InputError
        The image or its strokes cannot be read, or do not match.
    """

    def __init__(self, path: PathLike, like: "Photo | None" = None) -> None:
        self.path = Path(path)
        image = open_image(path)
        check_side(path, image.shape)
        if not image.in_any_order:  # any part may be looked at, in any order
            image = hold(image)
            image.path = path
        if like is None:
            image.use_scale(common_scale([image]))
        else:
            image.use_scale(like.image.scale)
        self.image: Image = image
        self.shape = image.shape
        self.lock = threading.Lock()  # the page paints while the network learns
        self.parts: Pixels = {}
        self.probability = np.zeros(image.shape, np.uint8)  # of class 1, times 255
        self.step = max(1, round((image.shape[0] * image.shape[1] / OVERVIEW) ** 0.5))
        self.overview = self._every(self.step, Block(0, 0, *self.shape))
        self.strokes: list[Stroke] = []
        self.start: np.ndarray | None = None
        self.start_path: str | None = None
        self.read()

    def _every(self, step: int, block: Block) -> np.ndarray:
        """Read every few rows and columns of a block, a strip at a time."""
        rows, high = [], step * max(1, STRIP // step)
        for top in range(block.top, block.bottom, high):
            bottom = min(top + high, block.bottom)
            strip = Block(top, block.left, bottom, block.right)
            pixels = np.ma.getdata(self.image.read(strip))
            rows.append(pixels[::step, ::step].copy())  # or all of it would stay
        return np.concatenate(rows)

    # -------------------------------------------------------------- labels

    @property
    def kept_in(self) -> Path:
        """The file that has the strokes of the images of this folder."""
        return self.path.with_name(KEPT)

    def read(self) -> None:
        """Take up what was kept of the image."""
        labels = read_labels(self.kept_in).get(self.path.name, Labels([], self.shape))
        if labels.shape != self.shape:
            there, here = (f"{w}x{h}" for h, w in (labels.shape, self.shape))
            raise InputError(
                f"{self.kept_in}: has strokes of {self.path.name} with {there} pixels, "
                f"but it has {here} (put the image back, or move the file away)"
            )
        self.seen = {stroke.id for stroke in labels.strokes}
        folder = self.path.parent
        start = labels.start and os.path.normpath(folder / labels.start)
        self.problem = ""
        try:
            self.start_from(start)
        except InputError as error:  # the strokes are worth having without it
            self.problem = (
                f"The truth that these strokes correct cannot be used: {error}."
            )
            self.start_from(None)
            self.start_path = start
        self.set_strokes(labels.strokes)

    def keep(self) -> None:
        """Write the strokes to the file; those of another kernel there stay."""
        labels = read_labels(self.kept_in)
        self.seen |= {stroke.id for stroke in self.strokes}
        there = labels.get(self.path.name, Labels([], self.shape)).strokes
        others = [stroke for stroke in there if stroke.id not in self.seen]
        start = self.start_path and os.path.relpath(self.start_path, self.path.parent)
        labels[self.path.name] = Labels(others + self.strokes, self.shape, start)
        write_labels(self.kept_in, labels)

    def start_from(self, path: PathLike | None) -> None:
        """Take an older ground truth or mask as what the strokes correct; or none."""
        self.start = read_truth_of(self.image, path)[0] if path else None
        self.start_path = str(path) if path else None
        with self.lock:
            self.labels = draw(self._unpainted(), self.strokes)

    def set_strokes(self, strokes: Sequence[Stroke]) -> None:
        """Draw the strokes; where some were only added, those alone."""
        with self.lock:
            before = len(self.strokes)
            if list(strokes[:before]) == self.strokes:
                draw(self.labels, strokes[before:])
            else:
                self.labels = draw(self._unpainted(), strokes)
            self.strokes = list(strokes)

    def _unpainted(self) -> np.ndarray:
        if self.start is None:
            return np.full(self.shape, UNLABELLED, np.uint8)
        return self.start.copy()

    def labels_now(self) -> np.ndarray:
        """Copy the labels, which may change while they are used: (H, W) uint8."""
        with self.lock:
            return self.labels.copy()

    def scenes(self) -> list[Scene]:
        """Give the parts that are labelled, to train on."""
        with self.lock:
            boxes = [box(stroke) for stroke in self.strokes]
            return labelled_parts(self.image, self.labels, boxes, self.parts)

    def others(self) -> list[Scene]:
        """Give parts all over the image, for the network to label itself."""
        with self.lock:
            return spread_parts(self.image, self.labels, self.parts)

    def overall(self) -> list[Scene]:
        """Give the image with its labels; of a large one, some tiles."""
        labels = self.labels_now()
        if isinstance(self.image, InMemory):
            parts = [(labels, self.image.read(Block(0, 0, *self.shape)))]
        else:
            sample = self.image.sample(FEW)
            parts = [(labels[tile.seen.slices], pixels) for tile, pixels in sample]
        return [scene_of(pixels, truth, NOWHERE, PATCH) for truth, pixels in parts]

    def shares(self) -> list[float]:
        """Say how much of the image each class labels."""
        with self.lock:
            return [
                np.count_nonzero(self.labels == k) / self.labels.size for k in (0, 1)
            ]

    # -------------------------------------------------------------- the network's say

    def parts_from(self, view: Block) -> list[Block]:
        """List the parts to segment, those nearest to a view first."""
        row, col = (view.top + view.bottom) / 2, (view.left + view.right) / 2

        def distance(part: Block) -> float:
            away = (
                (part.top + part.bottom) / 2 - row,
                (part.left + part.right) / 2 - col,
            )
            return max(map(abs, away))

        return sorted(grid(self.shape, PART, PART), key=distance)

    def segment(self, predictor: Predictor, part: Block) -> None:
        """Segment a part, and keep the probabilities."""
        pixels, inside = read_with_halo(self.image, part)
        logit = predictor.logits(pixels)[inside]
        self.probability[part.slices] = in_bytes(logit)

    def unsure_places(self, most: int = 20) -> list[Block]:
        """List places where nothing is painted, the most doubtful first.

        Places are ordered by the sum of their doubt, so narrow ones at the edges come
        later.
        """
        painted = draw(np.full(self.shape, UNLABELLED, np.uint8), self.strokes)
        doubt = sums(DOUBTS[self.probability])
        doubt[sums(painted != UNLABELLED) > 0] = 0
        order = np.argsort(-doubt, axis=None, kind="stable")[:most]
        corners = COARSE * np.stack(np.unravel_index(order, doubt.shape), 1)
        return [
            Block(top, left, top + COARSE, left + COARSE).grown(0, self.shape)
            for top, left in corners[doubt.ravel()[order] > 0].tolist()
        ]

    # -------------------------------------------------------------- layers of the page

    def picture(self, block: Block, step: int) -> np.ndarray:
        """Give every `step`-th pixel of a block: (h, w, 3) uint8."""
        if step < self.step:
            return self._every(step, block)
        rows = np.arange(block.top, block.bottom, step) // self.step
        cols = np.arange(block.left, block.right, step) // self.step
        last_row, last_col = np.subtract(self.overview.shape[:2], 1)
        return self.overview[np.ix_(rows.clip(0, last_row), cols.clip(0, last_col))]

    def start_layer(self, block: Block, step: int) -> np.ndarray:
        """Give the labels of a block before any stroke: (h, w) uint8."""
        assert self.start is not None
        return self.start[block.slices][::step, ::step]

    def mask_layer(self, colour: Colour, block: Block, step: int) -> np.ndarray:
        """Give the mask of a block, class 1 coloured: (h, w, 4) uint8."""
        is_one = self.probability[block.slices][::step, ::step] > 127
        return coloured(colour, np.where(is_one, 255, 0))

    def doubt_layer(self, block: Block, step: int) -> np.ndarray:
        """Give where the network is unsure, in yellow: (h, w, 4) uint8."""
        return coloured(YELLOW, DOUBTS[self.probability[block.slices][::step, ::step]])


def sums(values: np.ndarray) -> np.ndarray:
    """Sum up (H, W) values in each place of `COARSE` pixels a side."""
    tops, lefts = (np.arange(0, side, COARSE) for side in values.shape)
    return np.add.reduceat(np.add.reduceat(values, tops, 0, dtype=int), lefts, 1)


def coloured(colour: Colour, opacity: np.ndarray) -> np.ndarray:
    """Give one colour of (h, w) opacities, 0 to 255: (h, w, 4) uint8."""
    drawn = np.empty((*opacity.shape, 4), np.uint8)
    drawn[..., :3], drawn[..., 3] = colour, opacity
    return drawn
