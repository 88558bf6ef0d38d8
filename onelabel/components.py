"""Connected components of a mask that is read strip by strip, and what is too small."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from onelabel.image import NODATA, strips
from onelabel.store import Store
from segutils import Block


TOUCHING = np.ones((3, 3), bool)  # pixels of one object share a side or a corner
BESIDE = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)  # of one hole: a side


class Strip(NamedTuple):
    """Some rows of a mask, and the parts of components that lie in them."""

    block: Block
    mask: np.ndarray  # (h, W) uint8
    labels: np.ndarray  # (h, W) int32: 1 to `own`, or 0
    above: int  # number of labels in the strips above
    own: int  # number of labels in this one

    def of_labels(self, values: np.ndarray) -> np.ndarray:
        """Give each pixel the value of its label, of all labels; 0 where it has none.

        (N,) -> (h, W)
        """
        here = values[self.above : self.above + self.own]
        return np.concatenate([np.zeros(1, values.dtype), here])[self.labels]


class Components:
    """The connected components of the pixels that `chosen` picks from a mask.

    A component that crosses strips has a label in each; `numbers` joins them, once
    `strips` has gone through all. Components are numbered from 0, by their first
    pixels: from the top, and from the left.
    """

    def __init__(
        self,
        store: Store,
        chosen: Callable[[np.ndarray], np.ndarray],
        structure: np.ndarray,
    ) -> None:
        self.store, self.chosen, self.structure = store, chosen, structure
        self.count = 0  # labels so far
        self.links: list[np.ndarray] = []  # (n, 2) labels that touch across strips

    def strips(self) -> Iterator[Strip]:
        """Go through the mask from the top."""
        from scipy import ndimage

        self.count, self.links = 0, []
        last = np.zeros(self.store.shape[1], np.int64)  # labels in the row above
        for block in strips(self.store.shape):
            mask = self.store.mask_of(block)
            labels, count = ndimage.label(self.chosen(mask), self.structure)
            self._link(last, np.where(labels[0], labels[0] + self.count, 0))
            last = np.where(labels[-1], labels[-1] + self.count, 0)
            strip = Strip(block, mask, labels, self.count, count)
            self.count += count
            yield strip

    def _link(self, upper: np.ndarray, lower: np.ndarray) -> None:
        """Note which labels of two rows, from 1, touch."""
        width = len(upper)
        for shift in (-1, 0, 1) if self.structure.all() else (0,):
            upper_cols = slice(max(0, shift), width + min(0, shift))
            lower_cols = slice(max(0, -shift), width + min(0, -shift))
            pairs = np.stack([upper[upper_cols], lower[lower_cols]], 1)
            self.links.append(np.unique(pairs[pairs.all(1)], axis=0) - 1)

    def numbers(self) -> np.ndarray:
        """Give the number of each label's component: (labels,) int."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        links = np.concatenate(self.links)
        graph = coo_array(
            (np.ones(len(links), bool), (links[:, 0], links[:, 1])),
            shape=(self.count, self.count),
        )
        _, groups = connected_components(graph, directed=False)
        _, first, groups = np.unique(groups, return_index=True, return_inverse=True)
        return first.argsort().argsort()[groups]


def is_object(mask: np.ndarray) -> np.ndarray:
    """Tell which pixels are class 1."""
    return mask == 1


def is_background(mask: np.ndarray) -> np.ndarray:
    """Tell which pixels are not class 1."""
    return mask != 1


def count(store: Store) -> int:
    """Count the objects of a mask."""
    components = Components(store, is_object, TOUCHING)
    for _ in components.strips():
        pass
    return int(components.numbers().max(initial=-1)) + 1


def remove_small(store: Store, area: float) -> None:
    """Give the objects of under `area` pixels to class 0."""
    _replace(store, Components(store, is_object, TOUCHING), area, 0)


def fill_small(store: Store, area: float) -> None:
    """Give the holes of under `area` pixels to class 1.

    What reaches the image's edge, or pixels without data, is no hole.
    """
    _replace(store, Components(store, is_background, BESIDE), area, 1, _open_labels)


def _open_labels(strip: Strip, shape: tuple[int, int]) -> np.ndarray:
    """List the labels that reach the image's edge or pixels without data."""
    _, mask, labels, _, _ = strip
    ends = [labels[:, 0], labels[:, -1], labels[mask == NODATA]]
    ends += [labels[0]] if strip.block.top == 0 else []
    ends += [labels[-1]] if strip.block.bottom == shape[0] else []
    return np.unique(np.concatenate(ends))


def _replace(
    store: Store,
    components: Components,
    area: float,
    by: int,
    kept: Callable[[Strip, tuple[int, int]], np.ndarray] | None = None,
) -> None:
    """Give the components of under `area` pixels, but for those kept, to a class."""
    sizes = []
    for strip in components.strips():
        size = np.bincount(strip.labels.ravel(), minlength=strip.own + 1)
        size = size.astype(float)
        if kept:
            size[kept(strip, store.shape)] = np.inf
        sizes.append(size[1:])
    numbers = components.numbers()
    least = area * (1 - 1e-9)  # square metres may be rounded
    is_small = (np.bincount(numbers, np.concatenate(sizes)) < least)[numbers]
    for strip in components.strips():
        small = strip.of_labels(is_small)
        if small.any():
            store.put_mask(strip.block, np.where(small, by, strip.mask))
