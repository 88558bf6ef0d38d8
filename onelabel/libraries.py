"""Libraries that only some files need, and how they are installed."""

import importlib.util

from onelabel.files import InputError, PathLike


# How those for large images, and those for objects, are installed.
LARGE = "pip install -r requirements/large.txt"
OBJECTS = "pip install -r requirements/objects.txt"


def has(library: str) -> bool:
    """Tell whether a library is installed."""
    return importlib.util.find_spec(library) is not None


def require(path: PathLike, library: str, what: str, install: str = LARGE) -> None:
    """Refuse what needs a library that is not installed."""
    if not has(library):
        raise InputError(f"{path}: {what} needs {library} ({install})")
