"""Images in and out: any format to RGB, ground truth to classes, masks to files.

Contents
--------
Place    Block
In       find_pairs, read_rgb, read_truth, read_pair, check_same_size,
         check_pixels, memory_told
Changed  compressed, blurred, noisy
Out      write_rgb, write_mask, drawn_colours, write_probabilities, check_jpeg_size
"""

import ctypes
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from cli import (
    MORE_MEMORY,
    InputError,
    PathLike,
    check_input,
    is_out_of_memory,
    whole_file,
)


Colours = Sequence[Sequence[int]]  # of class 0 and class 1: red, green and blue each

READ_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
READ_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
WRITE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
PROBABILITY_SUFFIXES = (".png", ".tif", ".tiff")
MAX_IMAGE_PIXELS = 1_000_000_000  # a file whose header says more is refused
PROGRAM_BYTES = 400_000_000  # what Python and torch take beside the image
MAX_JPEG_SIDE = 65_500  # pixels: libjpeg's limit; the format's own is 65,535
JPEG_QUALITY = 95
PNG_LEVEL = 3  # twice as fast to write as 6; a mask grows by half
MIN_JPEG_GAP = 96  # between two colours, in their most different channel; 48 sufficed
GDAL_NODATA = 42113  # the tag of a GeoTIFF whose text is its nodata value
UNLABELLED = 255  # in a truth: a pixel without a class, neither learned nor scored

# `check_pixels` guards against decompression bombs, with a limit that users can raise.
Image.MAX_IMAGE_PIXELS = None

# Of a damaged file or a full disk, Pillow and libtiff would print lines of their own.
# Pillow raises an error as well, so they are not needed, and neither are warnings of
# odd tags in a file that can be read.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
with suppress(AttributeError):  # where Pillow was linked so that it cannot be reached
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)

# ------------------------------------------------------------------ place


class Block(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns, a pair of slices."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, other: "Block") -> tuple[slice, slice]:
        """Give the block's place within a block around it.

        Parameters
        ----------
        other : Block
            The block around it.

        Returns
        -------
        tuple of slice
            Rows and columns.
        """
        rows = slice(self.top - other.top, self.bottom - other.top)
        cols = slice(self.left - other.left, self.right - other.left)
        return rows, cols

    def grown(self, margin: int, shape: Sequence[int]) -> "Block":
        """Give the block with a margin around it, cut off at the image's edges.

        Parameters
        ----------
        margin : int
            Pixels to add on each side.
        shape : tuple of int
            The image's (H, W).

        Returns
        -------
        Block
            The larger block.
        """
        return Block(
            max(self.top - margin, 0),
            max(self.left - margin, 0),
            min(self.bottom + margin, shape[0]),
            min(self.right + margin, shape[1]),
        )


# ------------------------------------------------------------------ in


def find_pairs(
    rgb: Sequence[PathLike], gt: Sequence[PathLike]
) -> list[tuple[PathLike, PathLike]]:
    """Pair images with their ground truths: by their order, or by name in two folders.

    Parameters
    ----------
    rgb, gt : sequence of str or Path
        As many images as truths; or one folder each, in which ``a.jpg`` belongs to
        ``a.png``. Of a folder, the files whose suffix is one of `READ_SUFFIXES` count.

    Returns
    -------
    list of (str or Path, str or Path)
        Each image's file and that of its truth.

    Raises
    ------
    InputError
        An image has no truth, a truth has no image, or a folder has no image or two
        of one name.
    """
    if len(rgb) == len(gt) == 1 and Path(rgb[0]).is_dir() and Path(gt[0]).is_dir():
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
            f"--rgb: number of images {len(rgb)}, of truths {len(gt)} (name a truth "
            "for each image with --gt, in the same order)"
        )
    return list(zip(rgb, gt, strict=True))


def _by_stem(folder: PathLike) -> dict[str, Path]:
    """Give a folder's images by their names without suffix, in order."""
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() in READ_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise InputError(f"{path}: {found[path.stem]} has the same name")
            found[path.stem] = path
    if not found:
        raise InputError(f"{folder}: holds no images ({', '.join(READ_SUFFIXES)})")
    return found


def read_rgb(path: PathLike, max_pixels: int | None = None) -> np.ndarray:
    """Read an image of any of the known formats as 8-bit RGB.

    Grey becomes three equal channels, a palette its colours, CMYK its RGB; 16 bits are
    scaled by their full range; transparency is dropped; the picture is turned upright
    as its EXIF orientation says.

    Parameters
    ----------
    path : str or Path
        A PNG, JPEG, TIFF, WebP or BMP file.
    max_pixels : int, optional
        An image whose header says more is refused; `MAX_IMAGE_PIXELS` unless given.

    Returns
    -------
    ndarray, (H, W, 3) uint8
        The image.

    Raises
    ------
    InputError
        The file is missing, is no such image, is damaged or too large, or its pixels
        are of a kind that has no known range.
    """
    image = _open(path, max_pixels)
    if image.mode.startswith("I;16"):
        # Pillow would clip these at 255; the high byte is their full range in 8 bits.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(
            f"{path}: pixels of 32 bits, not of 8 bits or 16: their range is not known "
            "(save the image with 8 or 16 bits)"
        )
    return np.ascontiguousarray(_pixels(path, image)[..., :3])


def read_truth(
    path: PathLike, max_pixels: int | None = None
) -> tuple[np.ndarray, Colours]:
    """Read a ground truth: an image of exactly two colours.

    The darker colour is class 0, the brighter one class 1. Pixels that are not opaque,
    or have the nodata value of a GeoTIFF, are unlabelled. In a lossy file, whose edges
    hold many values, the two strongest colours count, provided that nearly every pixel
    is near to one of them.

    Parameters
    ----------
    path : str or Path
        A file of any format that `read_rgb` reads.
    max_pixels : int, optional
        As for `read_rgb`.

    Returns
    -------
    truth : ndarray, (H, W) uint8
        0, 1, or 255 where unlabelled.
    colours : tuple of two (red, green, blue)
        The colours of class 0 and class 1, 0 to 255.

    Raises
    ------
    InputError
        The file cannot be read, or does not hold two colours.
    """
    image = _open(path, max_pixels)
    rgb, known = _colours_and_known(path, image)
    # One number per colour, so that colours can be counted: (H, W) int32.
    codes = rgb[..., 0].astype(np.int32)
    for channel in (1, 2):
        codes = (codes << 8) | rgb[..., channel]
    if not known.any():
        raise InputError(
            f"{path}: every pixel is transparent or has no data, so none has a class"
        )
    found, counts = np.unique(codes[known], return_counts=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], 1)  # (colours, 3)
    strongest = np.argsort(-counts, kind="stable")
    if len(found) > 2 and _is_lossy(image):
        pair = _two_strongest(colours[strongest], counts[strongest])
    else:
        pair = colours[strongest]
    if len(pair) != 2:
        raise _not_two(path, "colour", [tuple(colour) for colour in pair.tolist()])
    dark, bright = sorted(pair.tolist(), key=lambda c: (_brightness(c), c))
    is_bright = _distance(colours, bright) < _distance(colours, dark)  # (colours,)
    truth = np.full(codes.shape, UNLABELLED, np.uint8)
    truth[known] = is_bright[np.searchsorted(found, codes[known])]
    return truth, (tuple(dark), tuple(bright))


def read_pair(
    rgb_path: PathLike, gt_path: PathLike
) -> tuple[np.ndarray, np.ndarray, Colours]:
    """Read an image and its ground truth, which must be of one size.

    Parameters
    ----------
    rgb_path, gt_path : str or Path
        The two files.

    Returns
    -------
    rgb : ndarray, (H, W, 3) uint8
        The image, as `read_rgb` gives it.
    truth : ndarray, (H, W) uint8
        Its classes, as `read_truth` gives them.
    colours : tuple of two (red, green, blue)
        The colours of class 0 and class 1.

    Raises
    ------
    InputError
        A file cannot be read, or they differ in size.
    """
    rgb = read_rgb(rgb_path)
    truth, colours = read_truth(gt_path)
    check_same_size(rgb_path, rgb.shape, gt_path, truth.shape)
    return rgb, truth, colours


def check_same_size(
    rgb_path: PathLike,
    rgb_shape: Sequence[int],
    gt_path: PathLike,
    truth_shape: Sequence[int],
) -> None:
    """Refuse a ground truth of another size than its image's.

    Parameters
    ----------
    rgb_path, gt_path : str or Path
        The two files.
    rgb_shape, truth_shape : tuple of int
        Their shapes; height and width come first.

    Raises
    ------
    InputError
        They differ.
    """
    if truth_shape[:2] != rgb_shape[:2]:
        raise InputError(
            f"{gt_path}: {truth_shape[1]}x{truth_shape[0]} pixels, but {rgb_path} has "
            f"{rgb_shape[1]}x{rgb_shape[0]} (they must be of one size)"
        )


def check_pixels(path: PathLike, height: int, width: int, most: int) -> None:
    """Refuse an image of more pixels than are allowed.

    Parameters
    ----------
    path : str or Path
        The image's file.
    height, width : int
        Its size, as its header says.
    most : int
        How many pixels are allowed.

    Raises
    ------
    InputError
        It has more.
    """
    if height * width > most:
        raise InputError(
            f"{path}: {width}x{height}: more than {most:,} pixels (--max-pixels)"
        )


@contextmanager
def memory_told(paths: Sequence[PathLike], pixel_bytes: int) -> Iterator[None]:
    """Say how much memory the work on images takes, where it runs out.

    Parameters
    ----------
    paths : sequence of str or Path
        The images that are in memory together.
    pixel_bytes : int
        How many bytes the work takes for each pixel.

    Yields
    ------
    None

    Raises
    ------
    InputError
        There was not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        names = f"{paths[0]}" + (f" and {len(paths) - 1} more" if paths[1:] else "")
        raise InputError(
            f"{names}: out of memory{_memory_needed(paths, pixel_bytes)} "
            f"({MORE_MEMORY})"
        ) from error


def _memory_needed(paths: Sequence[PathLike], pixel_bytes: int) -> str:
    """Say how much memory images take, or nothing where a size cannot be read."""
    sizes = []
    try:
        for path in paths:
            with Image.open(path, formats=READ_FORMATS) as image:
                sizes.append(image.size)
    except Exception:  # of a folder, a damaged file, ...: it must not hide the cause
        return ""
    pixels = sum(width * height for width, height in sizes)
    size = f"{pixels:,}" if len(sizes) > 1 else "{}x{}".format(*sizes[0])
    gigabytes = (PROGRAM_BYTES + pixels * pixel_bytes) / 1e9
    return f": {size} pixels take about {gigabytes:.1f} GB"


def _open(path: PathLike, max_pixels: int | None = None) -> Image.Image:
    """Open and decode an image, whole and upright; every failure is an InputError."""
    check_input(path)
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            most = max_pixels or MAX_IMAGE_PIXELS
            check_pixels(path, image.height, image.width, most)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: is no image that can be read (PNG, JPEG, TIFF, WebP or BMP)"
        ) from error
    except (MemoryError, InputError):
        raise
    except OSError as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        if error.errno is not None:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        raise InputError(f"{path}: damaged image ({error})") from error
    except Exception as error:  # what a decoder raises on damaged bytes is not bounded
        raise InputError(f"{path}: damaged image ({error})") from error


def _colours_and_known(
    path: PathLike, image: Image.Image
) -> tuple[np.ndarray, np.ndarray]:
    """Give a truth's colours, (H, W, 3) uint8, and its labelled pixels, (H, W) bool."""
    known = _has_data(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = _two_values(path, np.asarray(image), known)
        return np.repeat(grey[..., None], 3, 2), known
    pixels = _pixels(path, image)
    if pixels.shape[2] == 4:
        known &= pixels[..., 3] == 255
    return pixels[..., :3], known


def _has_data(image: Image.Image) -> np.ndarray:
    """Tell where a TIFF's pixels differ from its nodata value: (H, W) bool."""
    nodata = getattr(image, "tag_v2", {}).get(GDAL_NODATA, "")
    try:
        value = np.float64(str(nodata).strip("\0 "))
    except ValueError:
        return np.ones(image.size[::-1], bool)
    pixels = np.asarray(image)  # of a palette, the indices
    differs = ~np.isnan(pixels) if np.isnan(value) else pixels != value
    return differs if differs.ndim == 2 else differs.any(-1)


def _two_values(path: PathLike, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Give a truth of 16 or 32 bits, (H, W), in 8: as it is, or by the high byte."""
    found = np.unique(values[known])
    if len(found) != 2:
        raise _not_two(path, "value", found.tolist())
    if not np.isin(found, np.arange(65_536)).all():
        raise InputError(f"{path}: values outside 0 to 65535 in a ground truth")
    # Classes are often written as 0 and 1, in 16 bits too: only where the upper range
    # is used are they scaled, and drawn black and white where that would join them.
    low, high = found.astype(int) >> (8 if found[1] > 255 else 0)
    low, high = (low, high) if low < high else (0, 255)
    return np.where(values == found[1], high, low).astype(np.uint8)


def _not_two(path: PathLike, noun: str, found: list) -> InputError:
    """Make the error that lists what a truth holds instead of two classes."""
    count = f"1 {noun}" if len(found) == 1 else f"{len(found)} {noun}s"
    listed = ", ".join(map(str, found[:6])) + (", ..." if len(found) > 6 else "")
    return InputError(
        f"{path}: {count} found, expected 2 ({listed}; draw each class in one colour, "
        "and save as PNG)"
    )


def _pixels(path: PathLike, image: Image.Image) -> np.ndarray:
    """Give an image's colours (H, W, 3), or (H, W, 4) where it has transparency."""
    mode = "RGBA" if image.has_transparency_data else "RGB"
    width, height = image.size
    pixels = np.empty((height, width, len(mode)), np.uint8)
    try:
        # Some rows at a time: Pillow would copy the whole image two or three times.
        for top in range(0, height, 256):
            rows = image.crop((0, top, width, min(top + 256, height)))
            pixels[top : top + 256] = np.asarray(rows.convert(mode))
        return pixels
    except ValueError as error:
        raise InputError(
            f"{path}: colours of mode {image.mode} are not read (save as RGB)"
        ) from error


def _is_lossy(image: Image.Image) -> bool:
    # A WebP file does not say whether it is, so it is taken to be.
    jpeg_in_tiff = image.info.get("compression") == "jpeg"
    return jpeg_in_tiff or image.format in ("JPEG", "MPO", "WEBP")


def _two_strongest(colours: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pick a lossy truth's two colours, or all where pixels are near to neither.

    `colours` is (colours, 3), the strongest first, and `counts` says how many pixels
    each has.
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


# ------------------------------------------------------------------ changed


def compressed(rgb: np.ndarray, quality: int) -> np.ndarray:
    """Give an image as a JPEG of a certain quality leaves it.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image.
    quality : int
        JPEG's own scale, 1 to 95; 75 is what many programs use.

    Returns
    -------
    ndarray, (H, W, 3) uint8
        The image without what the compression lost.
    """
    with io.BytesIO() as file:
        Image.fromarray(rgb).save(file, "JPEG", quality=quality)
        return np.array(Image.open(file))


def blurred(rgb: np.ndarray, radius: float) -> np.ndarray:
    """Give an image as a softer lens would have taken it.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image.
    radius : float
        The standard deviation of the Gaussian blur, in pixels.

    Returns
    -------
    ndarray, (H, W, 3) uint8
        The softer image.
    """
    return np.array(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(radius)))


def noisy(rgb: np.ndarray, spread: float) -> np.ndarray:
    """Give an image as a poorer sensor would have taken it.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image.
    spread : float
        The noise's standard deviation, on the scale of 0 to 255.

    Returns
    -------
    ndarray, (H, W, 3) uint8
        The image with noise, the same each time.
    """
    changed = rgb + np.random.default_rng(0).normal(0, spread, rgb.shape)
    return changed.round().clip(0, 255).astype(np.uint8)


# ------------------------------------------------------------------ out


def write_rgb(path: PathLike, rgb: np.ndarray) -> None:
    """Write an image; the suffix says the format.

    Parameters
    ----------
    path : str or Path
        A file ending in one of `WRITE_SUFFIXES`.
    rgb : ndarray, (H, W, 3) or (H, W), uint8 or float32
        The image: RGB or grey.

    Raises
    ------
    InputError
        The picture is too large for a JPEG.
    """
    with whole_file(path) as temporary:
        check_jpeg_size(path, rgb.shape)
        image = Image.fromarray(rgb)
        if _is_jpeg(path):
            # Colours are kept at full resolution: JPEG would else smear a mask's edges.
            image.save(temporary, quality=JPEG_QUALITY, subsampling=0)
        elif temporary.suffix.lower() in (".tif", ".tiff"):
            image.save(temporary, compression="tiff_deflate")
        else:
            image.save(temporary, compress_level=PNG_LEVEL)


def check_jpeg_size(path: PathLike, shape: Sequence[int]) -> None:
    """Refuse a JPEG that the format cannot hold.

    Parameters
    ----------
    path : str or Path
        The file to be written, of any format.
    shape : tuple of int
        The image's height and width come first.

    Raises
    ------
    InputError
        It would be a JPEG, and a side is over 65,500 pixels.
    """
    if _is_jpeg(path) and max(shape[:2]) > MAX_JPEG_SIDE:
        raise InputError(
            f"{path}: {shape[1]}x{shape[0]} pixels, and a JPEG holds at most "
            f"{MAX_JPEG_SIDE} a side (use .png or .tif)"
        )


def _is_jpeg(path: PathLike) -> bool:
    return str(path).lower().endswith((".jpg", ".jpeg"))


def write_mask(path: PathLike, mask: np.ndarray, colours: Colours) -> None:
    """Draw a mask in its two colours, so that it can be read back exactly.

    In a JPEG, too: each pixel stays nearer to its own colour than to the other. Two
    colours too near for that (0 and 1, say) are drawn black and white there.

    Parameters
    ----------
    path : str or Path
        A file ending in one of `WRITE_SUFFIXES`.
    mask : ndarray, (H, W) uint8
        0 or 1.
    colours : sequence of two (red, green, blue)
        The colours of class 0 and class 1.

    Raises
    ------
    InputError
        The picture is too large for a JPEG.
    """
    write_rgb(path, drawn_colours(path, colours)[mask])


def drawn_colours(path: PathLike, colours: Colours) -> np.ndarray:
    """Choose how the classes are drawn in a file of a mask.

    Parameters
    ----------
    path : str or Path
        The file.
    colours : sequence of two (red, green, blue)
        The colours of class 0 and class 1.

    Returns
    -------
    ndarray, (2, 3) or (2,) uint8
        Their colours in this file; two greys where they are grey.
    """
    drawn = np.array(colours, np.uint8)
    if _is_jpeg(path) and np.ptp(drawn.astype(int), axis=0).max() < MIN_JPEG_GAP:
        drawn = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
    is_grey = (drawn == drawn[:, :1]).all()
    return drawn[:, 0] if is_grey else drawn


def write_probabilities(path: PathLike, probability: np.ndarray) -> None:
    """Write probabilities: as 8-bit grey in a PNG, as they are in a TIFF.

    Parameters
    ----------
    path : str or Path
        A file ending in one of `PROBABILITY_SUFFIXES`.
    probability : ndarray, (H, W) float32
        Values of 0 to 1; a PNG holds them times 255, rounded.
    """
    if str(path).lower().endswith(".png"):
        probability = np.round(probability * 255).astype(np.uint8)
    write_rgb(path, probability)
