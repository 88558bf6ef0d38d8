"""Snapshots of a training, from which it goes on after it was killed."""

import hashlib
import io
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cli import InputError, PathLike, check_input, whole_file


SNAPSHOT_FORMAT = "one-image segmentation training, 1"


class Snapshots:
    """The snapshots of one training: a file, whole at any time, that each replaces.

    Parameters
    ----------
    path : str or Path
        The file.
    key : dict of str to int or str
        What the training depends on, by names that its user knows: a snapshot of
        another key is refused.
    seconds : float
        The least time from one snapshot to the next.
    """

    def __init__(
        self, path: PathLike, key: Mapping[str, int | str], seconds: float
    ) -> None:
        self.path = Path(path)
        self.key = key
        self.seconds = seconds
        self.written = time.monotonic()  # when the last was written; at first: now

    def is_due(self) -> bool:
        """Say whether enough time has passed since the last snapshot."""
        return time.monotonic() - self.written >= self.seconds

    def write(self, state: Mapping[str, object]) -> None:
        """Write a snapshot.

        Parameters
        ----------
        state : dict
            All that the training needs to go on: tensors and plain values only.
        """
        # To memory first, as `segutils.save_model` does.
        buffer = io.BytesIO()
        torch.save({"format": SNAPSHOT_FORMAT, "key": self.key, **state}, buffer)
        with whole_file(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
        self.written = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """Read the last snapshot, without running any code that the file may hold.

        Returns
        -------
        dict or None
            The state that was written; None where there is no file.

        Raises
        ------
        InputError
            The file is no snapshot, is damaged, or is that of another training.
        """
        if not self.path.exists():
            return None
        check_input(self.path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what the file holds instead
                state = torch.load(self.path, "cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # what damaged bytes raise is not bounded
            raise self.refusal("is no snapshot, or is damaged") from error
        if not isinstance(state, dict) or state.get("format") != SNAPSHOT_FORMAT:
            raise self.refusal("is no snapshot of this version's train.py")
        key = state.get("key")
        if not isinstance(key, dict) or not isinstance(state.get("history"), list):
            raise self.refusal("does not say what it is of")
        for name, value in self.key.items():
            if key.get(name) != value:
                raise self.refusal(
                    f"is of another training, {name} {key.get(name)}, here {value}"
                )
        return state

    def refusal(self, problem: str) -> InputError:
        """Say what is wrong with the file, and what to do.

        Parameters
        ----------
        problem : str
            What is wrong.

        Returns
        -------
        InputError
            One line.
        """
        return InputError(
            f"{self.path}: {problem} (leave out --resume to train from the start)"
        )

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Give a short name to the contents of arrays.

    Parameters
    ----------
    arrays : iterable of ndarray
        Any shapes; their order counts, too.

    Returns
    -------
    str
        16 hexadecimal digits, others for all other contents or shapes.
    """
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr((array.shape, array.dtype.str)).encode())
        found.update(array.ravel().data)
    return found.hexdigest()[:16]
