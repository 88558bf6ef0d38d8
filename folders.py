"""Folders of images: what is in them, and which of it is done.

Contents
--------
In     expand
Done   Journal
"""

import glob
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import images
from bigimages import digest, identity, is_zarr
from cli import InputError, PathLike


JOURNAL = ".predictions.jsonl"  # in the folder of the masks


def expand(names: Iterable[str], output: PathLike) -> list[tuple[str, Path]]:
    """List the images that are named, and those in the folders that are named.

    Parameters
    ----------
    names : sequence of str
        Files, folders, and patterns such as ``photos/**/*.jpg``, which the shell may
        not have expanded.
    output : str or Path
        The folder of the masks. Where it lies in a named folder, the files in it are
        masks of an earlier run, and are left out.

    Returns
    -------
    list of (str, Path)
        Each image, and its place in the folder that was named.

    Raises
    ------
    InputError
        A folder holds no images, or a pattern matches none.
    """
    found: list[tuple[str, Path]] = []
    for name in names:
        if _is_pattern(name) and not os.path.lexists(name):
            fixed = takewhile(lambda part: not _is_pattern(part), Path(name).parts)
            folder, paths = (
                Path(*fixed),
                list(map(Path, glob.iglob(name, recursive=True))),
            )
        elif not os.path.isdir(name) or is_zarr(name):
            found.append((name, Path(Path(name).name)))
            continue
        else:
            folder, paths = Path(name), list(Path(name).rglob("*"))
        if _is_below(output, folder):
            paths = [path for path in paths if not _is_below(path, output)]
        inside = [path for path in sorted(paths) if _is_image(path, folder)]
        if not inside:
            known = ", ".join(images.READ_SUFFIXES)
            holds = "matches" if _is_pattern(name) else "holds"
            raise InputError(f"{name}: {holds} no images ({known})")
        found += [(str(path), path.relative_to(folder)) for path in inside]
    return found


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _is_below(path: PathLike, folder: PathLike) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _is_image(path: Path, folder: Path) -> bool:
    """Tell whether a path in a folder is an image, and hidden nowhere below it."""
    parts = path.relative_to(folder).parts
    is_hidden = any(part.startswith(".") and part != ".." for part in parts)
    known = path.suffix.lower() in images.READ_SUFFIXES
    return known and not is_hidden and path.is_file()


class Journal:
    """Which masks of a folder are done, of which images, and made with what.

    A line of JSON for each, in a hidden file of the folder.

    Parameters
    ----------
    folder : str or Path
        The folder of the masks.
    key : dict
        What the masks depend on beside their images, in plain values.
    """

    def __init__(self, folder: PathLike, key: Mapping[str, object]) -> None:
        self.path = Path(folder, JOURNAL)
        self.key = key
        self.known: dict[str, dict[str, object]] = {}
        if self.path.exists():
            for line in self.path.read_bytes().splitlines():
                # A line may be damaged, or cut off where a run was killed.
                with suppress(ValueError, TypeError, KeyError):
                    entry = json.loads(line)
                    self.known[entry["mask"]] = entry

    def _entry(self, image: PathLike, mask: PathLike) -> dict[str, object]:
        made_of = digest([identity(image), self.key])
        return {"mask": self._name(mask), "made_of": made_of, "is": identity(mask)}

    def _name(self, mask: PathLike) -> str:
        """Name a mask by its place in the folder, however the folder was named."""
        return os.path.relpath(mask, self.path.parent)

    def is_done(self, image: PathLike, mask: PathLike) -> bool:
        """Tell whether a mask stands as it was written, for this image and key.

        Parameters
        ----------
        image, mask : str or Path
            The two files.

        Returns
        -------
        bool
            It does.
        """
        known = self.known.get(self._name(mask))
        return (
            known is not None
            and Path(mask).exists()
            and known == self._entry(image, mask)
        )

    def add(self, image: PathLike, mask: PathLike) -> None:
        """Note that a mask is done.

        Parameters
        ----------
        image, mask : str or Path
            The two files.
        """
        with open(self.path, "a") as file:
            # In a line of its own, even after one that was cut off.
            file.write("\n" + json.dumps(self._entry(image, mask)))
