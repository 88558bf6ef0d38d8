"""Several processes that train one network: the ranks that torchrun starts.

Each rank has the whole network and draws patches of its own; before each step the
ranks' gradients are averaged, so that all take the same step. Without torchrun there is
one rank, number 0, and nothing to average.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from onelabel.files import InputError
from segutils import FCNN


Value = TypeVar("Value")

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


def join(device: torch.device) -> None:
    """Join the group that torchrun started; without torchrun, do nothing.

    Ranks other than 0 print nothing from then on, and each takes a GPU of its own.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return
    if device.type not in BACKENDS:
        raise InputError(f"{device.type}: not with torchrun (use cpu or cuda)")
    if device.type == "cuda":
        own, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= gpus:
            raise InputError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes: more than GPUs, {gpus} "
                "(start one for each, or use the cpu)"
            )
        torch.cuda.set_device(own)
    store, number, world = next(dist.rendezvous("env://"))
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        # On one machine, torchrun keeps its store over a restart, and in it addresses
        # of processes that are gone: each start gets a prefix of its own. (Of several
        # machines each counts its restarts alone: docs/training.md says what to set.)
        store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    dist.init_process_group(
        BACKENDS[device.type], store=store, rank=number, world_size=world
    )
    if number > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Give this process's number; rank 0 writes and prints."""
    return dist.get_rank() if _joined() else 0


def count() -> int:
    """Count the processes."""
    return dist.get_world_size() if _joined() else 1


def restarted() -> bool:
    """Tell whether torchrun started the processes again, after one was lost."""
    # Of several machines, that of the lost process alone counts a restart.
    return any(gather(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0))


def own_seed(seed: int) -> int:
    """Give each rank a seed of its own; rank 0 has the seed itself."""
    return (seed + rank() * 0x9E3779B9) % 2**63


def average_steps(model: FCNN, optimiser: torch.optim.Optimizer) -> None:
    """Let all ranks take the same steps, and keep the same running statistics."""
    if count() == 1:
        return
    statistics = [b for b in model.buffers() if b.is_floating_point()]

    def before_step(*_: object) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        _average([*gradients, *statistics])

    optimiser.register_step_pre_hook(before_step)


def _average(tensors: Sequence[Tensor]) -> None:
    """Average tensors over all ranks, in place."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message, not many
    with _loss_explained():
        dist.all_reduce(flat)
    means = (flat / count()).split([tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, means, strict=True):
        tensor.copy_(mean.view_as(tensor))


def gather(value: Value) -> list[Value]:
    """Give every rank the values of all ranks, in their order."""
    values = [value] * count()
    if count() > 1:
        with _loss_explained():
            dist.all_gather_object(values, value)
    return values


def from_first(function: Callable[[], Value]) -> Value:
    """Call a function in rank 0 alone, and give every rank what it returns."""
    given: list[Any] = [function() if rank() == 0 else None]
    if count() > 1:
        with _loss_explained():
            dist.broadcast_object_list(given, 0)
    return given[0]


@contextmanager
def _loss_explained() -> Iterator[None]:
    """Report the loss of a process in one line; each backend has other words."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(
            "another process was lost (torchrun --max-restarts N starts all again)"
        ) from error
