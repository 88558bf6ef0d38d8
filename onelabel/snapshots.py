"""Snapshots of a training, from which it goes on after it was killed."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onelabel import processes, torch_file
from onelabel.files import InputError, PathLike, check_input
from onelabel.sampling import Scene


SNAPSHOT_FORMAT = "one-image segmentation training, 2"
SECONDS = 5  # at least, from one snapshot to the next


class Snapshots:
    """The snapshots of one training: one file, which each snapshot replaces whole.

    `key` says what the training depends on, by names that its user knows: a snapshot of
    another key is refused. A trainer has a state_dict, a history and a generator.
    """

    def __init__(self, path: PathLike, key: Mapping[str, int | str]) -> None:
        self.path = Path(path)
        self.key = key
        self.written = time.monotonic()  # the last snapshot; initially: the start

    def keep(self, trainer: Any) -> None:
        """Write a snapshot if the last one is old enough; call it after each epoch."""
        if processes.from_first(self._is_due):
            state = trainer.state_dict()
            state["generators"] = processes.gather(trainer.generator.get_state())
            processes.from_first(partial(self._write, state))

    def _is_due(self) -> bool:
        return time.monotonic() - self.written >= SECONDS

    def _write(self, state: Mapping[str, object]) -> None:
        content = {"format": SNAPSHOT_FORMAT, "key": self.key, **state}
        torch_file.write(self.path, content)
        self.written = time.monotonic()

    def begin(self, trainer: Any, resume: bool) -> str | None:
        """Let a training go on, or begin; say which, if it was to go on."""
        if not (resume or processes.restarted()):
            remove(self.path)  # an earlier training's, which nobody resumes
            return None
        if self.restore(trainer):
            epoch = len(trainer.history)
            return f"{self.path}: the training continues after epoch {epoch}"
        return f"{self.path}: no snapshot, so the training starts from the beginning"

    def restore(self, trainer: Any) -> bool:
        """Let a training go on from the last snapshot; False where there is none."""
        state = processes.from_first(self._read)
        if state is None:
            return False
        try:
            trainer.load_state_dict(state)
            trainer.generator.set_state(state["generators"][processes.rank()])
        except Exception as error:  # a forged file raises anything
            raise self._refusal("is not a snapshot of this network") from error
        return True

    def _read(self) -> dict[str, Any] | None:
        """Read the last snapshot, without running any code that the file may hold."""
        if not self.path.exists():
            return None
        check_input(self.path)
        try:
            state = torch_file.content_of(self.path.read_bytes())
        except ValueError as error:
            raise self._refusal("is not a snapshot, or is damaged") from error
        if not isinstance(state, dict) or state.get("format") != SNAPSHOT_FORMAT:
            raise self._refusal("is not a snapshot of this version")
        key = state.get("key")
        if not isinstance(key, dict) or not isinstance(state.get("history"), list):
            raise self._refusal("does not say what it is of")
        for name, value in self.key.items():
            if key.get(name) != value:
                raise self._refusal(
                    f"belongs to another training: {name} {key.get(name)}, here {value}"
                )
        return state

    def _refusal(self, problem: str) -> InputError:
        return InputError(f"{self.path}: {problem} (delete it to train from the start)")


def remove(path: PathLike) -> None:
    """Delete a snapshot, if there is one."""
    if processes.rank() == 0:
        Path(path).unlink(missing_ok=True)


def key_of(
    scenes: Sequence[Scene], epochs: int, seed: int, device: str
) -> dict[str, int | str]:
    """Name all that a training depends on."""
    return {
        "images": _digest_arrays(scene.rgb for scene in scenes),
        "truths": _digest_arrays(scene.truth for scene in scenes),
        "epochs": epochs,
        "seed": seed,
        "device": device,
        "processes": processes.count(),
        "PyTorch": str(torch.__version__),
    }


def _digest_arrays(arrays: Iterable[np.ndarray]) -> str:
    """Hash the shapes and contents of arrays, in their order: 16 digits."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(repr((array.shape, array.dtype.str)).encode())
        total.update(array.ravel().data)
    return total.hexdigest()[:16]
