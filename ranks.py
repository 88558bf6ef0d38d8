"""Several processes that train one network: the ranks that torchrun starts.

Each rank has the whole network and draws patches of its own; gradients are averaged, so
that all take the same steps. Without torchrun there is one rank, number 0, and the
functions give back what they are given.

Contents
--------
The group        join, number, count, restarted, own_seed
Between ranks    average, gather, from_first
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cli import InputError


Value = TypeVar("Value")

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}

# ------------------------------------------------------------------ the group


def join(device: torch.device) -> None:
    """Join the group that torchrun started; without torchrun, do nothing.

    Ranks other than 0 print nothing from then on, and each takes a GPU of its own.

    Parameters
    ----------
    device : torch.device
        Where the network is to run.

    Raises
    ------
    InputError
        The device cannot be shared out.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return
    if device.type not in BACKENDS:
        raise InputError(f"--device {device.type}: not with torchrun (use cpu or cuda)")
    if device.type == "cuda":
        own, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= gpus:
            raise InputError(
                f"--nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}: more ranks than "
                f"GPUs, {gpus} (start one for each, or use --device cpu)"
            )
        torch.cuda.set_device(own)
    store, rank, world = next(dist.rendezvous("env://"))
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        # On one machine, torchrun keeps its store over a restart, and in it the
        # addresses of ranks that are no more: each start gets a shelf of its own. (Of
        # several machines each counts its restarts alone: README says what to set.)
        store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    dist.init_process_group(
        BACKENDS[device.type], store=store, rank=rank, world_size=world
    )
    if rank > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def number() -> int:
    """Give this process's rank.

    Returns
    -------
    int
        0 to `count` - 1; rank 0 writes and prints.
    """
    return dist.get_rank() if _joined() else 0


def count() -> int:
    """Count the ranks.

    Returns
    -------
    int
        At least 1.
    """
    return dist.get_world_size() if _joined() else 1


def restarted() -> bool:
    """Say whether torchrun started the ranks anew, after one was lost.

    Returns
    -------
    bool
        The same in all ranks.
    """
    # Of several machines, that of the lost rank alone counts a restart.
    return any(gather(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0))


def own_seed(seed: int) -> int:
    """Give each rank a seed of its own.

    Parameters
    ----------
    seed : int
        That of rank 0, from 0 to 2**63 - 1.

    Returns
    -------
    int
        Far from those that other ranks have for the next seeds.
    """
    return (seed + number() * 0x9E3779B9) % 2**63


# ------------------------------------------------------------------ between ranks


@contextmanager
def _losses_told() -> Iterator[None]:
    """Tell in one line that a rank was lost; each backend tells it in another way."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(
            "another rank was lost (torchrun --max-restarts N starts all again)"
        ) from error


def average(tensors: Sequence[Tensor]) -> None:
    """Average tensors over all ranks, in place.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of one type and device, and of the same shapes in all ranks.
    """
    if count() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message, not many
    with _losses_told():
        dist.all_reduce(flat)
    means = (flat / count()).split([tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, means, strict=True):
        tensor.copy_(mean.view_as(tensor))


def gather(value: Value) -> list[Value]:
    """Give every rank the values of all ranks.

    Parameters
    ----------
    value : object
        This rank's value; it can be pickled.

    Returns
    -------
    list
        The values, in the order of the ranks.
    """
    values = [value] * count()
    if count() > 1:
        with _losses_told():
            dist.all_gather_object(values, value)
    return values


def from_first(function: Callable[[], Value]) -> Value:
    """Call a function in rank 0 alone, and give every rank what it returns.

    Parameters
    ----------
    function : callable
        Without parameters; what it returns can be pickled.

    Returns
    -------
    object
        What it returned.
    """
    given: list[Any] = [function() if number() == 0 else None]
    if count() > 1:
        with _losses_told():
            dist.broadcast_object_list(given, 0)
    return given[0]
