"""An image: what it knows of itself, and how to read any block of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from onelabel import depth
from onelabel.files import InputError, PathLike
from segutils import HALO, MAX_SIDE, Block, Piece, tiles


Item = TypeVar("Item")

STRIP = MAX_SIDE - 2 * HALO  # rows that one row of tiles decides
SIDE = 8 * STRIP  # pixels a side of a square block
SAMPLED = 16  # tiles of an image that are looked at first, evenly spread

Colour = tuple[int, int, int]  # red, green and blue
Colours = Sequence[Sequence[int]]  # of class 0 and class 1
BLACK_AND_WHITE: Colours = (0, 0, 0), (255, 255, 255)
UNLABELLED = 255  # in a truth: a pixel without a class, neither learned nor scored
NODATA = UNLABELLED  # in a mask: the image shows nothing there

Place = dict[str, Any]  # rasterio's "crs", and "transform" or "gcps"


def without_data(pixels: np.ndarray) -> np.ndarray:
    """Tell which pixels (h, w, 3) have no data, as a mask says: (h, w) bool."""
    mask = np.ma.getmask(pixels)
    return (
        np.zeros(pixels.shape[:2], bool) if mask is np.ma.nomask else np.any(mask, -1)
    )


class Image:
    """An image that is read block by block, as 8-bit RGB.

    It can be pickled: it opens its file again where it arrives.
    """

    path: PathLike = "image"
    shape: tuple[int, int]  # height and width in pixels
    dtype: np.dtype = np.dtype(np.uint8)  # of the values in the file
    scale: depth.Scale | None = None  # how values of over 8 bits become grey levels
    place: Place | None = None  # where on the earth it is
    colours: Colours | None = None  # of the classes, if it is a mask that says them
    in_any_order = False  # whether many processes can read blocks at once
    in_squares = False  # whether a square is read faster than rows of the full width
    lossy = False  # whether the file may have changed the pixels that were drawn
    memory = 0  # bytes that reading takes beside the block that is read
    reopen: Callable[[], "Image"]  # set by reading.open_image

    def values(self, block: Block) -> np.ndarray:
        """Read a block as the file has it: (h, w, 3) of `dtype`.

        A masked array where pixels have no data.
        """
        raise NotImplementedError

    def blocks(self) -> list[Block]:
        """Cut the image into blocks as it is best read, each of whole tiles."""
        if self.in_squares:
            return grid(self.shape, SIDE, SIDE)
        width = self.shape[1]
        return grid(self.shape, STRIP * max(1, SIDE**2 // (STRIP * width)), width)

    def read(self, block: Block) -> np.ndarray:
        """Read a block.

        Parameters
        ----------
        block : Block
            Which part of the image.

        Returns
        -------
        ndarray, (h, w, 3) uint8
            Its pixels; a masked array where some have no data.

        Raises
        ------
        InputError
            The file is damaged.
        """
        values = self.values(block)
        return depth.to_bytes(values, self.scale) if self.scale else values

    def whole(self) -> np.ndarray:
        """Read all of the image: (H, W, 3) uint8."""
        return np.ma.getdata(self.read(Block(0, 0, *self.shape)))

    def sample(self, most: int = SAMPLED) -> list[Piece]:
        """Read some tiles, evenly spread, from the image's top to its bottom."""
        return [(tile, part.copy()) for tile, part in self._parts(self.read, most)]

    def use_scale(self, scale: depth.Scale | None) -> None:
        """Read by the training image's scale; None where that had 8 bits.

        Pixels of another kind than the training image's are an InputError.
        """
        kind, trained = depth.kind_of(self.dtype), scale.kind if scale else depth.BYTES
        if kind != trained:
            raise InputError(
                f"{self.path}: {self.dtype} pixels ({kind}), but the training image "
                f"has {trained} (convert the image, or train on one like it)"
            )
        self.scale = scale

    def raw_sample(self) -> list[np.ndarray]:
        """Read the same tiles as the file has them."""
        return [part.copy() for _, part in self._parts(self.values, SAMPLED)]

    def _parts(self, read: Callable[[Block], np.ndarray], most: int) -> Iterator[Piece]:
        """Read the tiles one by one; as views, which keep larger arrays in memory."""
        for tile in spread(tiles(*self.shape), most):
            yield tile, read(tile.seen.grown(0, self.shape))

    def opened_anew(self) -> "Image":
        """Open the file again, as it is now."""
        return _open_anew(self.reopen, self.scale)

    def __reduce__(self) -> tuple:
        return _open_anew, (self.reopen, self.scale)


def _open_anew(reopen: Callable[[], Image], scale: depth.Scale | None) -> Image:
    image = reopen()
    image.scale = scale
    return image


class InMemory(Image):
    """An image in memory: (H, W, 3), masked where it has no data."""

    in_any_order = in_squares = True

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.shape = pixels.shape[:2]
        self.dtype = pixels.dtype
        self.memory = 3 * pixels.nbytes  # at the peak of its decoding

    def values(self, block: Block) -> np.ndarray:
        """Read a block as the file has it; see `Image.values`."""
        return self.pixels[block.slices]


def hold(image: Image) -> InMemory:
    """Read an image whole."""
    whole = InMemory(image.values(Block(0, 0, *image.shape)))
    whole.place, whole.lossy = image.place, image.lossy
    whole.colours = image.colours
    return whole


def grid(shape: tuple[int, int], rows: int, cols: int) -> list[Block]:
    """Cut an image of (H, W) into blocks of so many rows and columns, row by row."""
    height, width = shape
    return [
        Block(top, left, min(top + rows, height), min(left + cols, width))
        for top in range(0, height, rows)
        for left in range(0, width, cols)
    ]


def strips(shape: tuple[int, int]) -> list[Block]:
    """Cut an image of (H, W) into strips of the rows that one row of tiles decides."""
    return grid(shape, STRIP, shape[1])


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Choose at most so many of some items, evenly spread."""
    chosen = np.linspace(0, len(items) - 1, min(most, len(items)))
    return [items[index] for index in chosen.round().astype(int)]
