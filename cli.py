"""What a command owes its user: errors in one line, files that are whole or absent.

The other modules build on this one; it imports nothing but Python's own library.
"""

import argparse
import atexit
import io
import os
import secrets
import shutil
import signal
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, TypeVar


PathLike = str | os.PathLike[str]
Item = TypeVar("Item")
Result = TypeVar("Result")

ZARR = ".zarr"  # the suffix of an output that is a folder
MORE_MEMORY = "use a smaller image or a machine with more memory"


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says why."""

    def _render_traceback_(self) -> list[str]:
        """Tell IPython what to show in a notebook: the one line, too."""
        return [f"error: {self}"]


class Terminated(BaseException):
    """SIGTERM asked the command to end."""


class Parser(argparse.ArgumentParser):
    """A parser of the command line whose errors are one line, as all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Parameters
        ----------
        message : str
            What is wrong.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError(f"{message} (--help lists the options)")


@contextmanager
def whole_file(path: PathLike) -> Iterator[Path]:
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
    InputError
        The folder is missing or cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))  # what a symbolic link points to
    try:
        # With the suffix of the name that was given: a link's target may have another.
        with _new_file_beside(target.with_suffix(Path(path).suffix)) as temporary:
            yield temporary
            os.replace(temporary, target)
    except OSError as error:
        raise _cannot_be_written(path, error) from error


@contextmanager
def whole_folder(path: PathLike) -> Iterator[Path]:
    """Write a folder, such as a Zarr array, whole or not at all.

    Parameters
    ----------
    path : str or Path
        The folder. It is replaced when the block ends well; for an instant there is
        none of its name then.

    Yields
    ------
    Path
        A new folder beside `path` to write to.

    Raises
    ------
    InputError
        It cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    new, old = _hidden_name(target), _hidden_name(target)
    try:
        new.mkdir()
        yield new
        with suppress(FileNotFoundError):
            os.rename(target, old)
        os.rename(new, target)
    except OSError as error:
        raise _cannot_be_written(path, error) from error
    finally:
        if old.exists() and not target.exists():  # nothing took its place
            os.rename(old, target)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


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


def _cannot_be_written(path: PathLike, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror or error})")


def check_input(path: PathLike) -> None:
    """Refuse a file that could not be read.

    Parameters
    ----------
    path : str or Path
        The file that is to be read.

    Raises
    ------
    InputError
        There is none, or it is a folder, a pipe or a device, which might never end.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file (is the name right?)") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder (give a file name)")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is no ordinary file (copy it into one)")


def check_files(
    inputs: Sequence[PathLike],
    outputs: Iterable[tuple[PathLike, Sequence[str]]],
    tree: PathLike | None = None,
) -> None:
    """Refuse files that could not be read or written, before any work is done.

    Parameters
    ----------
    inputs : sequence of str or Path
        The files that are to be read.
    outputs : iterable of (str or Path, sequence of str)
        The files that are to be written, each with the suffixes it may have, such as
        ``(".jpg", ".png")``.
    tree : str or Path, optional
        A folder below which folders may be missing: they are made when a file in them
        is written.

    Raises
    ------
    InputError
        An input is missing or no ordinary file; an output's suffix is unknown, its
        name is a folder's, its folder is missing or cannot be written, or it is also
        an input or another output, or lies below one.
    """
    for path in inputs:
        check_input(path)
    taken = {os.path.realpath(path): f"the input {path}" for path in inputs}
    for path, suffixes in outputs:
        path = Path(path)
        if path.suffix.lower() not in suffixes:
            known = ", ".join(suffixes)
            raise InputError(f"{path}: unknown suffix {path.suffix!r} (use {known})")
        try:
            place = os.path.realpath(path)
        except ValueError as error:  # a name with NUL
            raise InputError(f"{path}: cannot be written ({error})") from error
        if place in taken:
            raise InputError(f"{path}: would overwrite {taken[place]} (rename one)")
        taken[place] = "another output of that name"
        _check_writable(path, tree)
    for place in taken:
        for folder in map(str, Path(place).parents):
            if folder in taken:
                raise InputError(f"{place}: lies below the output {folder} (rename it)")


def _check_writable(path: Path, tree: PathLike | None) -> None:
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
                raise InputError(f"{path}: is no ordinary file (use another name)")
        # Asking the permissions is not enough: a read-only disk answers yes.
        with _new_file_beside(Path(os.path.realpath(folder / path.name))):
            pass
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int = 1,
    waiting: int = 1,
    initializer: Callable[[], object] | None = None,
) -> Iterator[Result]:
    """Apply a function to items in threads, ahead of the result that is asked for.

    Nothing is begun before the first result is asked for. Where taking an item fails,
    the results of the items before it come first.

    Parameters
    ----------
    function : callable
        What to do with an item; it runs in another thread.
    items : iterable
        The items, taken in the thread that asks for results.
    threads : int
        How many threads work at once.
    waiting : int
        How many items are begun ahead of the one whose result is asked for.
    initializer : callable, optional
        What each thread does first.

    Yields
    ------
    object
        The results, in the order of the items.
    """
    pool = ThreadPoolExecutor(threads, initializer=initializer)
    begun: deque[Future[Result]] = deque()
    try:
        for future in _submitted(pool, function, items):
            begun.append(future)
            if len(begun) > waiting:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Future[Result]]:
    """Submit the items one by one; an error of taking one is a result, too."""
    try:
        for item in items:
            yield pool.submit(function, item)
    except Exception as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield failed


def attempt(
    function: Callable[[Item], Result], item: Item | Exception
) -> Result | Exception:
    """Apply a function to one of many items, of which some may fail.

    Parameters
    ----------
    function : callable
        What to do with the item.
    item : object
        The item, or the error that an earlier attempt ended with.

    Returns
    -------
    object
        What the function returns, or the error: an InputError or OSError.
    """
    if isinstance(item, Exception):
        return item
    try:
        return function(item)
    except (InputError, OSError) as error:
        return error


def complain(error: Exception) -> None:
    """Tell an error in one line.

    Parameters
    ----------
    error : InputError or OSError
        What went wrong; an OSError is told with the name of its file.
    """
    message: object = error
    if isinstance(error, OSError):
        reason = error.strerror or error
        message = f"{error.filename}: {reason}" if error.filename else reason
    _say("error", message)


def run(main: Callable[..., int | None], *arguments: object) -> int:
    """Run a command and turn what goes wrong into one line and an exit code.

    Parameters
    ----------
    main : callable
        The command; it may return an exit code of its own.
    *arguments : object
        What to call it with.

    Returns
    -------
    int
        The exit code: the command's own, or 0; 2 where the input cannot be used, a
        file cannot be written or memory runs out; 130 after Ctrl-C, 143
        after SIGTERM.
    """
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGTERM)
    if before in (signal.SIG_DFL, _end_at_once):
        signal.signal(signal.SIGTERM, _raise_terminated)
    # Where the shell closed a stream, what is said goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold what the terminal's encoding does not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main(*arguments) or 0
        sys.stdout.flush()
        return code
    except (InputError, OSError) as error:
        complain(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _say("error", f"out of memory ({MORE_MEMORY})")
    except KeyboardInterrupt:
        return _say_ended(signal.SIGINT)
    except Terminated:
        return _say_ended(signal.SIGTERM)
    finally:
        if before in (signal.SIG_DFL, _end_at_once):
            signal.signal(signal.SIGTERM, before)
    return 2


def warn(message: str) -> None:
    """Warn the user in one line.

    Parameters
    ----------
    message : str
        What may be wrong.
    """
    _say("warning", message)


def _say(kind: str, message: object) -> None:
    print(f"{kind}: {printable(message)}", file=sys.stderr)


def printable(message: object) -> str:
    """Put something into one line, such as a file's name.

    Parameters
    ----------
    message : object
        What is to be printed. It may hold line ends, and codes that a terminal would
        obey.

    Returns
    -------
    str
        The same with spaces instead of them.
    """
    return "".join(c if c.isprintable() else " " for c in str(message))


def leave(code: int) -> NoReturn:
    """End the process at once, without the half second that torch takes to be unloaded.

    Parameters
    ----------
    code : int
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # told already, where it matters: `run` flushes, too
            stream.flush()
    atexit._run_exitfuncs()  # they remove temporary folders, matplotlib's for one
    os._exit(code)


def begin(first: Callable[[], Result]) -> Result:
    """Do a command's first part, ahead of its heavy imports.

    Parameters
    ----------
    first : callable
        Reads the command line.

    Returns
    -------
    object
        What `first` returns.

    Raises
    ------
    SystemExit
        The command line has a mistake, or asks for help.
    """
    given = []
    code = run(lambda: given.append(first()))
    if code:
        raise SystemExit(code)
    # Until the command runs, they would end an import in a page of traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end_at_once)
    sys.excepthook = _end_without_memory
    return given[0]


def _end_without_memory(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Tell in one line that even the imports find too little memory."""
    if not is_out_of_memory(error):
        sys.__excepthook__(kind, error, trace)
        return
    _say("error", "out of memory before any work (use a machine with more memory)")
    leave(2)


def _end_at_once(number: int, _: FrameType | None) -> NoReturn:
    os._exit(_say_ended(number))


def _say_ended(number: int) -> int:
    """Say which signal ended the command; give its exit code."""
    word = "interrupted" if number == signal.SIGINT else "terminated"
    print(word, file=sys.stderr, flush=True)
    return 128 + number


def _raise_terminated(*_: object) -> NoReturn:
    raise Terminated


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out.

    PyTorch tells it by a RuntimeError, whose words depend on the device, Pillow by an
    OSError; a new thread needs room for its stack.

    Parameters
    ----------
    error : Exception
        What was raised.

    Returns
    -------
    bool
        Whether it means that.
    """
    words = [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "bad_alloc",
        "failed to map segment",  # of a library
        "cannot allocate memory",
        "can't start new thread",
    ]
    return isinstance(error, MemoryError) or any(w in str(error) for w in words)
