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
from itertools import takewhile
from pathlib import Path

import images
from bigimages import digest, identity, is_zarr
from cli import InputError, PathLike


JOURNAL = ".predictions.jsonl"  # in the folder of the masks


def expand(names: Iterable[str]) -> list[tuple[str, Path]]:
    """List the images that are named, those in folders and below them too.

    Parameters
    ----------
    names : sequence of str
        Files, folders, and patterns such as ``photos/**/*.jpg``, which a shell may have
        left as they are.

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
        inside = [path for path in sorted(paths) if _is_image(path)]
        if not inside:
            known = ", ".join(images.READ_SUFFIXES)
            holds = "matches" if _is_pattern(name) else "holds"
            raise InputError(f"{name}: {holds} no images ({known})")
        found += [(str(path), path.relative_to(folder)) for path in inside]
    return found


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _is_image(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts if part not in (".", ".."))
    return path.suffix.lower() in images.READ_SUFFIXES and path.is_file() and not hidden


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
            for line in self.path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                    self.known[entry["mask"]] = entry
                except (ValueError, TypeError, KeyError):  # cut off where a run died
                    continue

    def _entry(self, image: PathLike, mask: PathLike) -> dict[str, object]:
        made_of = digest([identity(image), self.key])
        return {"mask": str(mask), "made_of": made_of, "is": identity(mask)}

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
        known = self.known.get(str(mask))
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
            file.write(json.dumps(self._entry(image, mask)) + "\n")
