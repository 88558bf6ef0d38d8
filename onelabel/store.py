"""A mask as far as it is computed: in memory, or on disk where a killed run goes on."""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from onelabel.files import (
    InputError,
    PathLike,
    cannot_be_written,
    digest,
    replace_folder,
)
from onelabel.image import NODATA, SIDE, STRIP, strips
from onelabel.libraries import require
from segutils import Block


if TYPE_CHECKING:
    import zarr

    Array = np.ndarray | zarr.Array

MASK, LOGITS = "mask", "logits"  # the arrays of a store, and their folders on disk
CHUNK = (STRIP, SIDE)  # rows and columns of a chunk: whole blocks are whole chunks


class Store:
    """A mask as far as it is computed, and its logits where they are asked for.

    `mask` is (H, W) uint8: 0, 1, or `NODATA`. `logits` is (H, W) float32, NaN where the
    image has no data, or None. Both are arrays in memory, or Zarr arrays on disk.
    """

    def __init__(self, mask: "Array", logits: "Array | None" = None) -> None:
        height, width = mask.shape
        self.shape = height, width
        self.mask, self.logits = mask, logits

    def missing(self, blocks: Iterable[Block]) -> list[Block]:
        """List the blocks that are not computed yet."""
        return list(blocks)

    def put(self, block: Block, values: np.ndarray, hidden: np.ndarray | None) -> None:
        """Keep a block's classes (uint8) or logits (float32), and where no data is."""
        mask = values if self.logits is None else (values > 0).astype(np.uint8)
        if hidden is not None:
            mask[hidden] = NODATA
        if self.logits is not None:
            if hidden is not None:
                values[hidden] = np.nan
            self._write(LOGITS, block, values)
        self.put_mask(block, mask)  # last: a block whose mask is there is whole

    def put_mask(self, block: Block, mask: np.ndarray) -> None:
        """Keep a block's classes alone: (h, w) uint8."""
        self._write(MASK, block, mask)

    def mask_of(self, block: Block) -> np.ndarray:
        """Give a block's classes: 0, 1 or `NODATA`, (h, w) uint8."""
        return self._read(MASK, block)

    def logits_of(self, block: Block) -> np.ndarray:
        """Give a block's logits, if they are kept: (h, w) float32."""
        return self._read(LOGITS, block)

    def _read(self, name: str, block: Block) -> np.ndarray:
        return np.asarray(getattr(self, name)[block.slices])

    def _write(self, name: str, block: Block, values: np.ndarray) -> None:
        getattr(self, name)[block.slices] = values

    def mask_rows(self) -> Iterator[np.ndarray]:
        """Give the mask from top to bottom, some rows (h, W) at a time."""
        return map(self.mask_of, strips(self.shape))

    def logit_rows(self) -> Iterator[np.ndarray]:
        """Give the logits from top to bottom, some rows (h, W) at a time."""
        return map(self.logits_of, strips(self.shape))

    @cached_property
    def counts(self) -> np.ndarray:
        """The pixels of class 0 and class 1, once all are computed: (2,) int64."""
        rows = [[np.count_nonzero(m == k) for k in (0, 1)] for m in self.mask_rows()]
        return np.sum(rows, axis=0)


class DiskStore(Store):
    """A store in a folder, of which each chunk is a file, whole or absent."""

    def __init__(self, folder: Path, with_logits: bool) -> None:
        try:
            self.folder, logits = folder, None
            if with_logits:
                logits = _open(folder / LOGITS)
            super().__init__(_open(folder / MASK), logits)
        except Exception as error:  # damaged metadata raises anything
            raise _lost(folder) from error

    def missing(self, blocks: Iterable[Block]) -> list[Block]:
        """List the blocks of which a chunk is not written yet."""
        return [block for block in blocks if not self._has(MASK, block)]

    def _write(self, name: str, block: Block, values: np.ndarray) -> None:
        try:
            super()._write(name, block, values)
        except OSError as error:
            raise cannot_be_written(self.folder, error) from error

    def _has(self, name: str, block: Block) -> bool:
        places = [
            range(part.start // size, -(-part.stop // size))
            for part, size in zip(block.slices, CHUNK, strict=True)
        ]
        chunks = self.folder / name / "c"
        return all(Path(chunks, *map(str, at)).exists() for at in product(*places))

    def _read(self, name: str, block: Block) -> np.ndarray:
        if not self._has(name, block):
            raise _lost(self.folder)
        try:
            return super()._read(name, block)
        except Exception as error:  # a damaged chunk raises anything
            raise _lost(self.folder) from error

    def keep_mask(self, path: PathLike, attributes: dict[str, Any]) -> None:
        """Let the mask's array stay, as a Zarr array of this name."""
        for _ in self.mask_rows():  # every chunk is there, and can be read
            pass
        # Its key goes last: a run that is killed before goes on from here.
        _open(self.folder / MASK).attrs.update(attributes)
        replace_folder(self.folder / MASK, path)
        _open(Path(path)).attrs.put(attributes)

    def __reduce__(self) -> tuple:
        return DiskStore, (self.folder, self.logits is not None)


@contextmanager
def store_beside(
    output: PathLike,
    shape: tuple[int, int],
    key: Mapping[str, object],
    with_logits: bool,
    on_disk: bool,
    overwrite: bool = False,
) -> Iterator[Store]:
    """Make the store of a mask of (H, W) that is to be written to `output`.

    On disk it is a hidden folder beside that file. It is deleted when the block ends
    well; after an error it stays, and the next run goes on with it, unless `key`, what
    the mask depends on, has changed, or `overwrite` says to begin afresh.

    Raises
    ------
    InputError
        Another run is writing the file, or something else has the folder's name.
    """
    if not on_disk:
        logits = np.empty(shape, np.float32) if with_logits else None
        yield Store(np.empty(shape, np.uint8), logits)
        return
    require(output, "zarr", "the mask of a large image")
    folder = part_folder(output)
    with _lock_folder(folder, output):  # until the file is closed
        facts = {**key, "shape": shape, "chunk": CHUNK, "logits": with_logits}
        if overwrite or not _is_of(folder, digest(facts)):
            _create(folder, shape, digest(facts), with_logits)
        yield DiskStore(folder, with_logits)
        _empty(folder)
        with suppress(OSError):
            os.unlink(folder / "lock")  # last, so that no other run begins meanwhile
            folder.rmdir()


def part_folder(output: PathLike) -> Path:
    """Name the folder of a mask's store."""
    output = Path(os.path.realpath(output))
    return output.with_name(f".{output.name}.part")


def _lock_folder(folder: Path, output: PathLike) -> TextIO:
    """Make a store's folder, or take one that an earlier run left, and lock it."""
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        with suppress(FileNotFoundError):  # another run has just removed it
            _check_folder(folder)
            file = open(folder / "lock", "w")  # noqa: SIM115
            _lock(file, output)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)):
                return file
            file.close()


def _check_folder(folder: Path) -> None:
    """Refuse a folder that no run of this program left."""
    is_folder = stat.S_ISDIR(os.lstat(folder).st_mode)
    if not is_folder or not set(os.listdir(folder)) <= {"lock", MASK, LOGITS}:
        raise InputError(
            f"{folder}: exists, and was not made by this program (move it, or give the "
            "mask another name)"
        )


def _lock(file: TextIO, output: PathLike) -> None:
    """Hold a file for this run, until it is closed or the process ends."""
    with suppress(ImportError):  # there is none on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise InputError(f"{output}: another run is writing it") from error


def _is_of(folder: Path, key: str) -> bool:
    """Tell whether a folder holds a mask of this key."""
    with suppress(Exception):  # a damaged array raises anything
        return _open(folder / MASK).attrs.get("key") == key
    return False


def _create(folder: Path, shape: tuple[int, int], key: str, with_logits: bool) -> None:
    """Make the arrays afresh; the mask last, whose presence says that all is there."""
    import zarr

    _empty(folder)
    chunks = tuple(min(pair) for pair in zip(CHUNK, shape, strict=True))
    kinds = [(LOGITS, "float32", np.nan)] if with_logits else []
    for name, dtype, fill in [*kinds, (MASK, "uint8", NODATA)]:
        facts: dict[str, Any]
        facts = {"dtype": dtype, "fill_value": fill, "attributes": {"key": key}}
        zarr.create_array(folder / name, shape=shape, chunks=chunks, **facts)


def _empty(folder: Path) -> None:
    """Delete all but the lock."""
    for name in (MASK, LOGITS):
        shutil.rmtree(folder / name, ignore_errors=True)


def _open(path: Path) -> "zarr.Array":
    import zarr

    # By default a chunk of fill values would not be written.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_array(path, mode="r+")


def _lost(folder: PathLike) -> InputError:
    return InputError(
        f"{folder}: a part of the mask is missing or damaged (delete this folder, and "
        "start again)"
    )
