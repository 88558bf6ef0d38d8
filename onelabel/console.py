"""The command line: one-line errors and warnings, exit codes, signals, quiet libraries.

Only train.py, predict.py, options.py and the benchmarks import this: nothing here
serves a library.
"""

import argparse
import ctypes
import errno
import io
import logging
import math
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from PIL import Image

from onelabel.files import InputError, is_out_of_memory
from onelabel.ground import HECTARE, Area


NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"  # from 0, as a pattern
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # as glibc numbers them


class Terminated(BaseException):
    """SIGTERM asked the command to end."""


class Parser(argparse.ArgumentParser):
    """A parser of whole option names, whose errors are one line, as all others."""

    def __init__(self, description: str = "") -> None:
        super().__init__(description=description, allow_abbrev=False)

    def option(self, name: str, default: object, text: str, **more: Any) -> None:
        """Add an option or a positional argument; `text` is its help."""
        self.add_argument(name, default=default, help=text, **more)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read the command line; a file name may not be empty."""
        options = super().parse_args(args, namespace)
        for name, value in vars(options).items():
            if value == "" or (isinstance(value, list) and "" in value):
                name = "IMAGE" if name == "images" else as_option(name)
                raise InputError(f"{name}: a file name is empty (leave the option out)")
        return options

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise InputError(f"{message} (--help lists the options)")


def as_option(name: str) -> str:
    """Write the name of a value as its option on the command line."""
    return f"--{name.replace('_', '-')}"


def count(text: str) -> int:
    """Read a number of things from the command line: at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1")
    return int(text)


def distance(text: str) -> float:
    """Read a number of pixels from the command line: 0 or more."""
    if not re.fullmatch(NUMBER, text) or math.isinf(float(text)):
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 0, as 1.5")
    return float(text)


def area(text: str) -> Area:
    """Read an area: ``50`` pixels, ``2.5m2`` or ``0.1ha``."""
    found = re.fullmatch(rf"({NUMBER}) ?(px|m2|m²|ha|)", text.strip())
    if not found or math.isinf(float(found[1])):
        raise argparse.ArgumentTypeError(
            f"{text}: expected an area, as 50 (pixels), 2.5m2 or 0.1ha"
        )
    number, unit = float(found[1]), found[2] or "px"
    if unit == "px":
        return Area(number, "px")
    return Area(number * (HECTARE if unit == "ha" else 1), "m2")


def three_bands(text: str) -> list[int]:
    """Read three band numbers, counted from 1, such as ``3,2,1``."""
    numbers = [int(n) if n.strip().isdecimal() else 0 for n in text.split(",")]
    if len(numbers) != 3 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(
            f"{text}: expected three numbers from 1, as 3,2,1"
        )
    return numbers


def run(main: Callable[..., int | None], *arguments: object) -> int:
    """Run a command; turn what goes wrong into one line and an exit code.

    The code is the command's own, or 0; 2 where the input cannot be used, a file cannot
    be written or memory runs out; 130 after Ctrl-C, 143 after SIGTERM.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as the scripts import
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _raise_terminated)
    _ready_streams()
    _quiet_libraries()
    try:
        code = main(*arguments) or 0
        sys.stdout.flush()
        return code
    except (InputError, OSError) as error:
        complain(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _say("error", "out of memory (use a smaller image, or more memory)")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
    except Terminated:
        print("terminated", file=sys.stderr, flush=True)
        return 128 + signal.SIGTERM
    finally:
        if before == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)
    return 2


def _raise_terminated(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would end it halfway
    raise Terminated


def _ready_streams() -> None:
    """Let prints go nowhere where the shell closed a stream, and fail nowhere."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold what the terminal's encoding does not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _quiet_libraries() -> None:
    """Let libraries print no lines of their own: every error is reported by `run`."""
    warnings.filterwarnings("ignore", module="PIL|rasterio")  # odd tags, no map
    for name in ("PIL", "rasterio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it keeps no cache, say
    with suppress(AttributeError):  # libtiff may be out of reach
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


def set_malloc_limits() -> None:
    """Let large arrays go back to the system when they are freed.

    By default glibc keeps freed memory of up to 32 MiB apiece, in a part of its own for
    each thread: hundreds of megabytes, when blocks are passed between threads.
    """
    keep = 12 * 2**20  # bytes: more than any of the network's maps
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, keep)
        mallopt(M_TRIM_THRESHOLD, 2 * keep)  # else it would be 128 KiB, and slow


def complain(error: Exception) -> None:
    """Report an error in one line, with the name of the file."""
    message: object = error
    if isinstance(error, OSError):
        reason = error.strerror or error
        # An error names its file; standard output has no name.
        is_print = error.errno in (errno.EPIPE, errno.ENOSPC)
        place = error.filename or ("standard output" if is_print else None)
        message = f"{place}: {reason}" if place else reason
    elif isinstance(error, MemoryError):
        message = f"{error or 'out of memory'}"
    _say("error", message)


def warn(message: str) -> None:
    """Warn the user in one line."""
    _say("warning", message)


def _say(kind: str, message: object) -> None:
    print(f"{kind}: {printable(message)}", file=sys.stderr)


def printable(message: object) -> str:
    """Replace line ends and control codes, which a file's name may hold, by spaces."""
    return "".join(c if c.isprintable() else " " for c in str(message))
