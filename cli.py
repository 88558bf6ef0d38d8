"""What a command owes its user: errors in one line, files that are whole or absent.

The other modules build on this one; it imports nothing but Python's own library.
"""

import os
import sys
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says why."""


@contextmanager
def whole_file(path):
    """Write a file that appears under its name only when it is whole.

    Parameters
    ----------
    path : str or Path
        The file to write. It is replaced in one step when the block ends well, and
        left as it was when the block fails or is interrupted.

    Yields
    ------
    Path
        A temporary file beside `path`, with the same suffix, to write to.

    Raises
    ------
    OSError
        The folder is missing or cannot be written.
    """
    temporary = _temporary_beside(path)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_beside(path):
    path = Path(path)
    return path.with_name(f".{os.getpid()}.tmp{path.suffix}")


def check_outputs(inputs, outputs):
    """Refuse outputs that could not be written, before any work is done.

    Parameters
    ----------
    inputs : iterable of str or Path
        The files that are to be read.
    outputs : iterable of (str or Path, sequence of str)
        The files that are to be written, each with the suffixes it may have, such as
        ``(".jpg", ".png")``.

    Raises
    ------
    InputError
        An output's suffix is unknown, its name is a folder's, its folder is missing or
        cannot be written, or it is also an input or another output.
    """
    taken = {Path(path).resolve() for path in inputs}
    for path, suffixes in outputs:
        path = Path(path)
        if path.suffix.lower() not in suffixes:
            known = ", ".join(suffixes)
            raise InputError(f"{path}: unknown suffix {path.suffix!r} (use {known})")
        if path.resolve() in taken:
            raise InputError(f"{path}: would overwrite an input or another output")
        taken.add(path.resolve())
        _check_writable(path)


def _check_writable(path):
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder (give a file name)")
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} is missing (make it)")
        # Asking the permissions is not enough: a read-only disk answers yes.
        probe = _temporary_beside(path)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def run(main):
    """Run a command and turn what goes wrong into one line and an exit code.

    Parameters
    ----------
    main : callable
        The command, without arguments; it returns an exit code, or None for 0.

    Returns
    -------
    int
        The exit code: that of `main`; 2 where the input cannot be used or memory
        runs out; 130 after Ctrl-C.
    """
    try:
        return main() or 0
    except InputError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        message = "out of memory (use a smaller image or a machine with more memory)"
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    print(f"error: {message}", file=sys.stderr)
    return 2


def _is_out_of_memory(error):
    # PyTorch tells it by a RuntimeError, whose words depend on the device.
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(w in str(error) for w in words)
