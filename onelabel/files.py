"""Files: errors that name them, checks before any work, whole or absent outputs."""

import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


PathLike = str | os.PathLike[str]

ZARR = ".zarr"  # the suffix of an output that is a folder


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says why."""

    def _render_traceback_(self) -> list[str]:
        """Show the one line in a notebook, too: IPython calls this."""
        return [f"error: {self}"]


def check_input(path: PathLike) -> None:
    """Refuse a file that does not exist, or is a folder, a pipe or a device."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file (is the name right?)") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder (give a file name)")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is not a regular file (copy it into one)")


def check_files(
    inputs: Iterable[PathLike],
    outputs: Iterable[tuple[PathLike, Sequence[str]]],
    tree: PathLike | None = None,
) -> None:
    """Refuse files that could not be read or written, before any work is done.

    An output is given with the suffixes it may have, as ``(path, (".jpg", ".png"))``.
    Below the folder `tree` folders may be missing: they are made when a file in them is
    written. No output may lie on, in or around an input or another output.
    """
    taken: dict[Path, str] = {}  # what each path is
    around: dict[Path, str] = {}  # what a folder has in it

    def take(place: Path, name: str) -> None:
        taken[place] = name
        around.update((parent, name) for parent in place.parents)

    for path in inputs:
        if not is_zarr(path):
            check_input(path)
        take(Path(os.path.realpath(path)), f"the input {path}")
    for path, suffixes in outputs:
        path = Path(path)
        if path.suffix.lower() not in suffixes:
            known = ", ".join(suffixes)
            raise InputError(f"{path}: unknown suffix {path.suffix!r} (use {known})")
        try:
            place = Path(os.path.realpath(path))
        except ValueError as error:  # a name with NUL
            raise InputError(f"{path}: cannot be written ({error})") from error
        if place in taken:
            raise InputError(f"{path}: would overwrite {taken[place]} (rename one)")
        outer = next((parent for parent in place.parents if parent in taken), None)
        if outer:
            raise InputError(f"{path}: is inside {taken[outer]} (rename it)")
        if place in around:
            raise InputError(f"{path}: is around {around[place]} (rename it)")
        take(place, f"the output {path}")
        _check_writable(path, tree)


def _check_writable(path: Path, tree: PathLike | None) -> None:
    """Refuse an output whose folder is missing or read-only."""
    folder = path.parent
    if tree is not None and Path(tree) in path.parents:
        folder = next(parent for parent in path.parents if os.path.lexists(parent))
    try:
        if not folder.is_dir():
            raise InputError(f"{path}: the folder {folder} is missing (make it)")
        with suppress(FileNotFoundError):
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                if path.suffix.lower() != ZARR:
                    raise InputError(f"{path}: is a folder (give a file name)")
            elif not stat.S_ISREG(mode):
                raise InputError(f"{path}: is not a regular file (use another name)")
        # Asking the permissions is not enough: a read-only disk answers yes.
        with _new_file_beside(Path(os.path.realpath(folder / path.name))):
            pass
    except OSError as error:
        raise cannot_be_written(path, error) from error


@contextmanager
def whole_file(path: PathLike) -> Iterator[Path]:
    """Write a file that appears under its name only when it is whole.

    Gives a temporary file beside it, of the same suffix, to write to. The file is
    replaced in one step when the block ends well, and left as it was when the block
    fails or is interrupted.
    """
    target = Path(os.path.realpath(path))  # what a symbolic link points to
    try:
        # With the suffix of the name that was given: a link's target may have another.
        with _new_file_beside(target.with_suffix(Path(path).suffix)) as temporary:
            yield temporary
            os.replace(temporary, target)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    except UnicodeEncodeError as error:  # by GDAL
        raise InputError(
            f"{path}: cannot be written (a name in its path is not UTF-8: rename it)"
        ) from error


def replace_folder(new: Path, path: PathLike) -> None:
    """Move a whole folder to a name, where it replaces the folder that is there."""
    target = Path(os.path.realpath(path))
    old = _hidden_name(target)
    try:
        with suppress(FileNotFoundError):
            os.rename(target, old)
        os.rename(new, target)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    finally:
        if old.exists() and not target.exists():  # nothing took its place
            os.rename(old, target)
        shutil.rmtree(old, ignore_errors=True)


def _hidden_name(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}{path.suffix}")


@contextmanager
def _new_file_beside(path: Path) -> Iterator[Path]:
    # tempfile would make it readable by its owner alone.
    temporary = _hidden_name(path)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def cannot_be_written(path: PathLike, error: OSError) -> InputError:
    """Make the error of a file that could not be written."""
    return InputError(f"{path}: cannot be written ({error.strerror or error})")


def is_zarr(path: PathLike) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    names = ("zarr.json", ".zarray", ".zgroup")
    return any(os.path.isfile(os.path.join(path, name)) for name in names)


def is_zarr_name(path: PathLike) -> bool:
    """Tell whether an output is to be a Zarr array, by its suffix."""
    return Path(path).suffix.lower() == ZARR


def digest(values: object) -> str:
    """Hash plain values, as json writes them: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def identity(path: PathLike) -> list[object]:
    """Give a file's name, size and time of change; of a folder, those of its files."""
    path = os.path.realpath(path)
    if os.path.isdir(path):
        files = sorted(p for p in Path(path).rglob("*") if p.is_file())
        return [path, digest([identity(file) for file in files])]
    facts = os.stat(path)
    return [path, facts.st_size, facts.st_mtime_ns]


def counted(count: int, noun: str) -> str:
    """Count things in words: 1 object, 1,200 objects."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def one_line(error: BaseException) -> str:
    """Put a library's message into one line."""
    return " ".join(str(error).split())


def error_line(error: BaseException) -> str:
    """Say what went wrong in one line; of a defect, with the kind of error."""
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return f"error: {kind}{one_line(error)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: PyTorch raises a RuntimeError, in several words."""
    words = [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "bad_alloc",
        "cannot allocate memory",
        "can't start new thread",  # it needs room for its stack
    ]
    return isinstance(error, MemoryError) or any(w in str(error) for w in words)
