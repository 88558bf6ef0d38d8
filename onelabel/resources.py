"""How much memory and disk the work on an image takes, checked before it begins."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from onelabel.files import InputError, PathLike, is_zarr_name
from onelabel.image import STRIP, Image
from onelabel.libraries import has, require
from onelabel.reading import IN_MEMORY
from onelabel.store import part_folder
from onelabel.writing import TIFF_BLOCK, check_jpeg, is_jpeg, is_tiff


PROGRAM_BYTES = 500_000_000  # what Python, torch and the libraries take
HELD_BYTES = 10  # a pixel, of an image in memory with its mask and their copies
DRAWN_BYTES = 10  # a pixel, of a picture that its encoder holds whole
TRUTH_BYTES = 4  # a pixel, of a ground truth while it is read
CONTAINER = "/sys/fs/cgroup"  # where Linux says what a container may use
FILE_BYTES = (3, 3, 4)  # a pixel, at most, of a mask, overlay and probabilities


def is_large(image: Image) -> bool:
    """Tell whether an image, and so its mask, is too large to be held in memory."""
    return image.shape[0] * image.shape[1] > IN_MEMORY


def check_resources(
    image: Image,
    output: PathLike,
    overlay: PathLike | None = None,
    probabilities: PathLike | None = None,
    with_truth: bool = False,
    with_logits: bool = False,
) -> str:
    """Refuse an image for which there is too little memory or disk.

    A missing library is refused, too, and a JPEG that cannot hold the picture.
    `with_truth` says that the mask is compared with a ground truth, which is in memory;
    `with_logits` that the logits are kept beside the mask.
    Gives one line: size, memory and disk.
    """
    pictures = [path for path in (output, overlay, probabilities) if path]
    if is_large(image):
        require(image.path, "zarr", "an image of over 32 megapixels")
        for path in filter(is_tiff, pictures):
            require(path, "rasterio", "a TIFF of over 32 megapixels")
    for path in pictures:
        check_jpeg(path, image.shape)
    height, width = image.shape
    pixel_bytes = 0 if is_large(image) else HELD_BYTES
    pixel_bytes += TRUTH_BYTES if with_truth else 0
    pixel_bytes += DRAWN_BYTES * sum(map(_is_held_whole, pictures))
    memory = PROGRAM_BYTES + _block_bytes(image) + height * width * pixel_bytes
    outputs = output, overlay, probabilities
    disks = _disk_bytes(image, outputs, with_logits or bool(probabilities))
    size = f"{width}x{height} pixels"
    check_room(image.path, size, "memory", memory, free_memory())
    for folder, need in disks.items():
        free = shutil.disk_usage(folder).free
        check_room(image.path, size, f"disk in {folder}", need, free)
    return (
        f"{image.path}: {size}, at most {memory / 1e9:.1f} GB of memory and "
        f"{sum(disks.values()) / 1e9:.1f} GB of disk"
    )


def check_room(path: PathLike, size: str, what: str, need: float, free: float) -> None:
    """Refuse work for which there is too little of something, in bytes."""
    if need > free:
        raise InputError(
            f"{path}: {size} need {need / 1e9:.1f} GB of {what}, but {free / 1e9:.1f} "
            "GB are free (free some, or cut the image)"
        )


def free_memory() -> float:
    """Give the bytes of memory that are free; infinite where that is not known."""
    free = float("inf")
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024.0 * next(int(x.split()[1]) for x in lines if "MemAvailable" in x)
    with suppress(OSError, ValueError, KeyError):  # a container's limit, if any
        limit, used = (
            int(Path(CONTAINER, name).read_text())
            for name in ("memory.max", "memory.current")
        )
        lines = Path(CONTAINER, "memory.stat").read_text().splitlines()
        kept = int(dict(line.split() for line in lines)["inactive_file"])
        free = min(free, limit - used + kept)  # what is kept of files is given up
    with suppress(ImportError, OSError):  # Windows has no such limit
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            # What the process has counts in the need, too.
            free = min(free, limit - pages * resource.getpagesize() + PROGRAM_BYTES)
    return free


def _block_bytes(image: Image) -> float:
    """Give the memory for the blocks at work, and for rows of the files."""
    block = image.blocks()[0]
    values = 3 if image.scale is None else 3 * image.dtype.itemsize + 24  # a pixel
    pixels = (block.bottom - block.top) * (block.right - block.left)
    rows = image.shape[1] * (9 * STRIP + 4 * 2 * TIFF_BLOCK)
    return pixels * (2 * values + 9) + rows + image.memory


def _is_held_whole(path: PathLike) -> bool:
    """Tell whether a file is written from a picture in memory, not from rows."""
    return is_jpeg(path) or (is_tiff(path) and not has("rasterio"))


def _disk_bytes(
    image: Image, outputs: tuple[PathLike | None, ...], with_logits: bool
) -> dict[Path, float]:
    """Give the most bytes that each disk must still take, by one folder on it."""
    mask = outputs[0]
    assert mask is not None
    part = part_folder(mask)
    files = [
        (Path(os.path.realpath(path)), size)
        for path, size in zip(outputs, FILE_BYTES, strict=True)
        if path and not is_zarr_name(path)
    ]
    if is_large(image) or is_zarr_name(mask):
        files.append((part, 5 if with_logits else 1))
    pixels = float(image.shape[0] * image.shape[1])
    pixels *= 4 / 3 if image.place else 1  # with overviews
    folders: dict[object, Path] = {}
    needs: dict[Path, float] = {}
    for path, size in files:
        folder = next(f for f in path.parents if f.exists())
        folder = folders.setdefault(disk(folder), folder)
        needs[folder] = needs.get(folder, 0) + size * pixels
        with suppress(FileNotFoundError):  # another run has just removed it
            if path == part:  # an earlier run's part is there
                left = [p.stat().st_size for p in part.rglob("*") if p.is_file()]
                needs[folder] = max(needs[folder] - sum(left), 0)
    return needs


def disk(folder: Path) -> object:
    """Tell which disk a folder is on."""
    return os.stat(folder).st_dev
