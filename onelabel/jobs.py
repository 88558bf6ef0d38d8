"""Many images: which ones, what is done already, and one after the other."""

import csv
import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, TypeVar

from onelabel.files import (
    InputError,
    PathLike,
    digest,
    identity,
    is_out_of_memory,
    is_zarr,
    is_zarr_name,
    whole_file,
)
from onelabel.pipeline import share
from onelabel.reading import SUFFIXES, is_image_name


if TYPE_CHECKING:
    from distributed import Client

Result = TypeVar("Result")

JOURNAL, SUMMARY = ".predictions.jsonl", "summary.csv"  # in the folder of the masks
TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # any file's name
COLUMNS = ("image", "mask", "share", "area_px", "area_m2", "objects", "warning")


class Job(NamedTuple):
    """An image and its mask."""

    image: str
    output: Path


def is_folder(output: str) -> bool:
    """Tell whether an output is a folder of masks; a Zarr array is one mask."""
    return Path(output).is_dir() and not is_zarr_name(output)


def list_jobs(names: Iterable[str], output: str) -> list[Job]:
    """Pair each image that is named, or lies in a folder that is named, with its mask.

    A name may be a pattern, such as ``photos/**/*.jpg``. The output is the mask's file,
    or a folder of masks. Where that lies in a named folder, the files in it are masks
    of an earlier run, and are left out.
    """
    names = list(names)
    images = [image for name in names for image in expand(name, output)]
    if is_folder(output):
        if any(os.path.isdir(n) and os.path.samefile(n, output) for n in names):
            raise InputError(
                f"{output}: holds the images (give the masks a folder of their own)"
            )
        masks: dict[Path, str] = {}
        for name, place in images:
            mask = Path(output) / place.with_suffix(".png")
            if mask in masks:
                raise InputError(
                    f"{name}: {masks[mask]} has the same mask, {mask} (rename one)"
                )
            masks[mask] = name
        return [Job(name, mask) for mask, name in masks.items()]
    if len(images) == 1 and Path(output).suffix:
        return [Job(images[0][0], Path(output))]
    many = f" for {len(images)} images" if len(images) > 1 else ""
    raise InputError(
        f"{output}: no such folder{many} (make one first, and name it by --output)"
    )


def expand(name: str, output: PathLike | None = None) -> list[tuple[str, Path]]:
    """Give the images of a name, each with its place in the folder that was named.

    What lies in the folder `output` is left out if that lies in a named one.
    """
    if _is_pattern(name) and not os.path.lexists(name):
        fixed = takewhile(lambda part: not _is_pattern(part), Path(name).parts)
        folder = Path(*fixed)
        paths = [Path(path) for path in glob.iglob(name, recursive=True)]
    elif not os.path.isdir(name) or is_zarr(name):
        return [(name, Path(Path(os.path.abspath(name)).name))]
    else:
        folder, paths = Path(name), list(Path(name).rglob("*"))
    if output is not None and _is_below(output, folder):
        paths = [path for path in paths if not _is_below(path, output)]
    images = [path for path in sorted(paths) if _is_image(path, folder)]
    if not images:
        holds = "matches" if _is_pattern(name) else "holds"
        raise InputError(f"{name}: {holds} no images ({', '.join(SUFFIXES)})")
    return [(str(path), path.relative_to(folder)) for path in images]


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _is_below(path: PathLike, folder: PathLike) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _is_image(path: Path, folder: Path) -> bool:
    """Tell whether a path in a folder is an image, and hidden nowhere below it."""
    parts = path.relative_to(folder).parts
    is_hidden = any(part.startswith(".") and part != ".." for part in parts)
    return is_image_name(path) and not is_hidden and path.is_file()


class Journal:
    """Which masks of a folder are done, of which images, and made with what.

    A line of JSON for each, in a hidden file of the folder. `key` says in plain values
    what the masks depend on beside their images. The folder's summary, a table for
    people, has a row for each mask.
    """

    def __init__(self, folder: PathLike, key: Mapping[str, object]) -> None:
        self.path, self.summary = Path(folder, JOURNAL), Path(folder, SUMMARY)
        self.key = key
        self.entries: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_bytes().splitlines():
                # A line may be damaged, or cut off where a run was killed.
                with suppress(ValueError, TypeError, KeyError):
                    entry = json.loads(line)
                    self.entries[entry["mask"]] = {**entry, "row": dict(entry["row"])}
        with suppress(FileNotFoundError), open(self.summary, **TEXT) as file:
            if file.readline().strip() != ",".join(COLUMNS):
                raise InputError(f"{file.name}: was not made by this program (move it)")

    def _entry(
        self, job: Job, row: Mapping[str, object], image: object
    ) -> dict[str, object]:
        made_of = digest([image, self.key])
        name, its_state = self._name(job.output), identity(job.output)
        return {"mask": name, "made_of": made_of, "is": its_state, "row": row}

    def _name(self, mask: PathLike) -> str:
        """Name a mask by its place in the folder, however the folder was named."""
        return os.path.relpath(mask, self.path.parent)

    def is_done(self, job: Job) -> bool:
        """Tell whether a mask is as it was written, for this image and key."""
        entry = self.entries.get(self._name(job.output))
        if entry is None or not job.output.exists():
            return False
        return entry == self._entry(job, entry["row"], identity(job.image))

    def begin(self, left: Sequence[Job]) -> None:
        """Write the summary anew, without the masks that are left to do."""
        undone = {self._name(job.output) for job in left}
        rows = [
            entry["row"]
            for name, entry in self.entries.items()
            if name not in undone and Path(self.path.parent, name).exists()
        ]
        with (
            whole_file(self.summary) as temporary,
            open(temporary, "w", **TEXT) as file,
        ):
            writer = _writer(file)
            writer.writeheader()
            writer.writerows(rows)

    def add(self, job: Job, row: Mapping[str, object], image: object) -> None:
        """Note that a mask is done, its row, and the image's identity when it was read.

        The image may have changed since.
        """
        with open(self.path, "a") as file:
            # In a line of its own, even after one that was cut off.
            file.write("\n" + json.dumps(self._entry(job, row, image)))
        self.add_row(row)

    def add_row(self, row: Mapping[str, object]) -> None:
        """Add a row to the summary alone."""
        with open(self.summary, "a", **TEXT) as file:
            _writer(file).writerow(row)


def _writer(file: TextIO) -> csv.DictWriter:
    return csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")


def run(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    client: "Client | None" = None,
) -> Iterator[tuple[Job, Result | Exception]]:
    """Do many jobs, of which some may fail; share them among workers, if there are any.

    Gives each job as it is done, with what the function returned or the error it
    raised.
    """
    attempt = partial(_attempt, function)
    if client:
        yield from share(client, attempt, jobs)
        return
    yield from map(attempt, jobs)


def _attempt(
    function: Callable[[Job], Result], job: Job
) -> tuple[Job, Result | Exception]:
    """Do a job; give it with its result, or with the error that it raised."""
    try:
        return job, function(job)
    except (InputError, OSError) as error:
        return job, error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return job, InputError(f"{job.image}: out of memory (cut the image)")
