"""Ground truth: images of two colours, read as classes; pairs of images and truths."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from onelabel.files import InputError, PathLike, counted, is_zarr
from onelabel.image import BLACK_AND_WHITE, UNLABELLED, Colours, Image, without_data
from onelabel.reading import MAX_IMAGE_PIXELS, SUFFIXES, is_image_name, open_image
from onelabel.vectors import is_vector_name, read_classes
from segutils import Block


CODED = (np.uint8, np.uint16)  # pixels that are colours; others are grey


class Classes:
    """A mask or a ground truth: an image whose two colours are classes.

    Attributes
    ----------
    image : Image
        The image.
    colours : tuple of two (red, green, blue)
        The colours of class 0 and class 1, 0 to 255.
    """

    colours: Colours

    def __init__(self, image: Image, one_is_enough: bool = False) -> None:
        self.image = image
        counts: Counter[int] = Counter()
        for block in image.blocks():
            codes, has_data = _coded(image, block)
            counts.update(_count(codes[has_data]))
        if not counts:
            raise InputError(
                f"{image.path}: every pixel is transparent or has no data, so none has "
                "a class (label some pixels)"
            )
        codes = np.array(sorted(counts))
        found: Colours = BLACK_AND_WHITE
        if one_is_enough and len(codes) == 1:
            is_bright = np.array([_is_bright(image, int(codes[0]))])
        else:
            found, is_bright = _two_classes(image, codes, counts)
        self.colours, self.bright = image.colours or found, codes[is_bright]

    def of(self, block: Block) -> np.ndarray:
        """Give the classes of a block: (h, w) uint8, 0, 1 or `UNLABELLED`."""
        codes, has_data = _coded(self.image, block)
        classes = np.full(codes.shape, UNLABELLED, np.uint8)
        classes[has_data] = np.isin(codes[has_data], self.bright)
        return classes


def _is_bright(image: Image, code: int) -> bool:
    """Guess the class of a mask's only colour: 1 if it is bright, or the value 1."""
    bits = 8 * image.dtype.itemsize if image.dtype in CODED else 0
    most = 2**bits - 1
    value = max(code >> 2 * bits, code >> bits & most, code & most) if bits else code
    return value == 1 or value >= 128


def open_classes(
    path: PathLike, max_pixels: int = MAX_IMAGE_PIXELS, one_is_enough: bool = False
) -> Classes:
    """Open a mask or a ground truth: an image of exactly two colours, of any format.

    The darker colour is class 0, the brighter one class 1. Pixels that are not opaque,
    or have the nodata value of a map, are unlabelled. In a lossy file, whose edges hold
    many values, the two strongest colours count, provided that nearly every pixel is
    near to one of them.

    Parameters
    ----------
    path : str or Path
        The file.
    max_pixels : int
        A file whose header says more is refused.
    one_is_enough : bool
        Whether a mask of one colour is taken, too: black or bright.

    Raises
    ------
    InputError
        The file cannot be read, or does not hold two colours.
    """
    image = open_image(path, max_pixels=max_pixels, transparent=True)
    return Classes(image, one_is_enough)


def read_truth(
    path: PathLike, max_pixels: int = MAX_IMAGE_PIXELS
) -> tuple[np.ndarray, Colours]:
    """Read a ground truth whole; see `open_classes`.

    Returns
    -------
    truth : ndarray, (H, W) uint8
        0, 1, or `UNLABELLED`.
    colours : tuple of two (red, green, blue)
        The colours of class 0 and class 1, 0 to 255.
    """
    classes = open_classes(path, max_pixels)
    truth = np.empty(classes.image.shape, np.uint8)
    for block in classes.image.blocks():
        truth[block.slices] = classes.of(block)
    return truth, classes.colours


def _count(codes: np.ndarray) -> dict[int, int]:
    """Count the times of each of (N,) codes; fast where there are few."""
    counts = {}
    for _ in range(3):
        if len(codes):
            is_first = codes == codes[0]
            counts[codes[0].item()] = int(np.count_nonzero(is_first))
            codes = codes[~is_first]
    others, times = np.unique(codes, return_counts=True)
    return counts | dict(zip(others.tolist(), times.tolist(), strict=True))


def _coded(image: Image, block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Give a number for the colour of each pixel of a block, and where it has data."""
    values = image.values(block)
    pixels, codes = np.ma.getdata(values), np.ma.getdata(values)[..., 0]
    has_data = ~without_data(values) & np.isfinite(codes)  # (h, w)
    if image.dtype in CODED:
        codes = codes.astype(np.int64)
        for channel in (1, 2):
            codes = (codes << 8 * image.dtype.itemsize) | pixels[..., channel]
    elif (pixels[has_data] != codes[has_data][:, None]).any():
        raise InputError(f"{image.path}: colours of {image.dtype} (save as PNG)")
    return codes, has_data


def _two_classes(
    image: Image, codes: np.ndarray, counts: Counter[int]
) -> tuple[Colours, np.ndarray]:
    """Give the two colours, and which of the (N,) codes are the bright one."""
    path = image.path
    if image.dtype not in CODED:
        return _two_values(path, codes), np.array([False, True])
    bits = 8 * image.dtype.itemsize
    channels = [codes >> 2 * bits, codes >> bits & 2**bits - 1, codes & 2**bits - 1]
    colours = np.stack(channels, 1)  # (N, 3)
    if bits == 16 and (colours == colours[:, :1]).all():
        return _two_values(path, colours[:, 0]), np.array([False, True])
    times = np.array([counts[code] for code in codes.tolist()])
    strongest = np.argsort(-times, kind="stable")
    if len(codes) > 2 and image.lossy:
        pair = _two_strongest(colours[strongest], times[strongest])
    else:
        pair = colours[strongest]
    if len(pair) != 2:
        raise _not_two(path, "colour", [tuple(colour) for colour in pair.tolist()])
    dark, bright = sorted(pair.tolist(), key=lambda c: (_brightness(c), c))
    is_bright = _distance(colours, bright) < _distance(colours, dark)  # (N,)
    shift = 8 if colours.max() > 255 else 0
    dark, bright = (tuple(v >> shift for v in colour) for colour in (dark, bright))
    return (dark, bright) if dark != bright else BLACK_AND_WHITE, is_bright


def _two_values(path: PathLike, values: np.ndarray) -> Colours:
    """Draw two values of more than 8 bits in grey: as they are, or by the high byte."""
    if len(values) != 2:
        raise _not_two(path, "value", values.tolist())
    if not np.isin(values, np.arange(65_536)).all():
        raise InputError(f"{path}: values outside 0 to 65535 in a ground truth")
    # Classes are often written as 0 and 1, in 16 bits too: only where the upper range
    # is used are they scaled, and drawn black and white where that would join them.
    low, high = (values.astype(int) >> (8 if values[1] > 255 else 0)).tolist()
    return ((low,) * 3, (high,) * 3) if low < high else BLACK_AND_WHITE


def _not_two(path: PathLike, noun: str, values: list) -> InputError:
    """Make the error that lists what a truth holds instead of two classes."""
    listed = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
    return InputError(
        f"{path}: {counted(len(values), noun)} found, expected 2 ({listed}; draw each "
        "class in one colour, and save as PNG)"
    )


def _two_strongest(colours: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pick a lossy truth's two colours, or all where pixels are near to neither.

    `colours` is (N, 3), the strongest first; `counts` says how many pixels each has.
    """
    apart = colours[_distance(colours, colours[0]) > 64]
    if len(apart) == 0:
        return colours[:1]
    pair = np.stack([colours[0], apart[0]])
    away = np.minimum(_distance(colours, pair[0]), _distance(colours, pair[1]))
    off = away > _distance(pair[0], pair[1]) / 4
    # Measured: a grey JPEG of quality 50 leaves under 0.1% of the pixels so far off. A
    # third class leaves more, and so do colours that the format smeared at the edges.
    return pair if counts[off].sum() <= 0.01 * counts.sum() else colours


def _distance(pixels: ArrayLike, colour: ArrayLike) -> np.ndarray:
    """Give the distance of (..., 3) pixels to a colour, in RGB: (...) float32."""
    difference = np.asarray(pixels, np.float32) - np.asarray(colour, np.float32)
    return np.linalg.norm(difference, axis=-1)


def _brightness(colour: Sequence[int]) -> float:
    return np.dot(colour, (0.299, 0.587, 0.114))


# ------------------------------------------------------------------ pairs


def check_same_size(
    rgb_path: PathLike,
    rgb_shape: Sequence[int],
    gt_path: PathLike,
    truth_shape: Sequence[int],
) -> None:
    """Refuse a ground truth of another size than its image's."""
    if truth_shape[:2] != rgb_shape[:2]:
        raise InputError(
            f"{gt_path}: {truth_shape[1]}x{truth_shape[0]} pixels, but {rgb_path} has "
            f"{rgb_shape[1]}x{rgb_shape[0]} (they must be of one size)"
        )


def read_truth_of(
    image: Image, path: PathLike, max_pixels: int = MAX_IMAGE_PIXELS
) -> tuple[np.ndarray, Colours]:
    """Read the ground truth of an image: a picture of its size, or polygons.

    See `read_truth` and `vectors.read_classes`.
    """
    if is_vector_name(path):
        return read_classes(path, image), BLACK_AND_WHITE
    truth, colours = read_truth(path, max_pixels)
    check_same_size(image.path, image.shape, path, truth.shape)
    return truth, colours


def find_pairs(
    rgb: Sequence[PathLike], gt: Sequence[PathLike]
) -> list[tuple[PathLike, PathLike]]:
    """Pair images with their ground truths: by their order, or by name in two folders.

    In folders ``a.jpg`` belongs to ``a.png``. Each image needs one truth, and each
    truth an image.
    """
    if len(rgb) == len(gt) == 1 and _is_folder(rgb[0]) and _is_folder(gt[0]):
        pictures, truths = map(_by_stem, (rgb[0], gt[0]))
        for stem, path in {**truths, **pictures}.items():
            other, noun = (gt, "truth") if stem in pictures else (rgb, "image")
            if stem not in pictures or stem not in truths:
                raise InputError(
                    f"{path}: {other[0]} holds no {noun} of that name (each image "
                    "needs one truth)"
                )
        return [(path, truths[stem]) for stem, path in pictures.items()]
    if len(rgb) != len(gt):
        raise InputError(
            f"{rgb[0]}: number of images {len(rgb)}, of truths {len(gt)} (name a truth "
            "for each image, in the same order)"
        )
    return list(zip(rgb, gt, strict=True))


def _is_folder(path: PathLike) -> bool:
    return Path(path).is_dir() and not is_zarr(path)


def _by_stem(folder: PathLike) -> dict[str, Path]:
    """Give a folder's images, or polygons, by their names without suffix, in order."""
    images: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        is_known = is_image_name(path) or is_vector_name(path)
        if is_known and not path.name.startswith("."):
            if path.stem in images:
                raise InputError(f"{path}: {images[path.stem]} has the same name")
            images[path.stem] = path
    if not images:
        raise InputError(f"{folder}: holds no images ({', '.join(SUFFIXES)})")
    return images
