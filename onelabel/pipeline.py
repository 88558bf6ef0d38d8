"""Fill the store of a mask, block by block: in this process, or on Dask's workers."""

import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tqdm.auto import tqdm

from onelabel.files import InputError, one_line
from onelabel.image import Image, without_data
from onelabel.libraries import LARGE, has
from onelabel.store import Store
from segutils import HALO, Block, Predictor


if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 2  # of a piece of work that failed, on another worker
PATIENCE = 10  # seconds for a scheduler to answer
DASK = {
    # Looking at what a worker does every 10 ms costs it a twentieth of its time, and
    # giving memory back after every tile half of it.
    "distributed.worker.profile.enabled": False,
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 24 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 12 * 2**20,
    # `share` explains what is lost in one line.
    "logging.distributed": "critical",
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
    "distributed.nanny.pre-spawn-environ.PYTHONWARNINGS": "ignore",  # of odd files
}


def fill(
    store: Store, image: Image, predictor: Predictor, client: "Client | None" = None
) -> None:
    """Segment the blocks that a store lacks.

    Dask's workers, if there are any, share the blocks; they reach the image and the
    store, on disk, under the same names.
    """
    blocks = store.missing(image.blocks())
    with tqdm(total=len(blocks), unit="block", leave=False, disable=None) as bar:
        for _ in _results(store, image, predictor, blocks, client):
            bar.update()


def _results(
    store: Store,
    image: Image,
    predictor: Predictor,
    blocks: list[Block],
    client: "Client | None",
) -> Iterator[None]:
    """Do the blocks; one is read, one segmented and one written at the same time."""
    if client:
        yield from share(client, partial(_fill_block, store, image, predictor), blocks)
        return
    pieces = prefetch(partial(read_with_halo, image), blocks)
    # No name is bound to the pixels: they must be freed before the next block arrives.
    segmented = (
        (block, *_segment(store, predictor, *next(pieces))) for block in blocks
    )
    yield from prefetch(lambda result: store.put(*result), segmented)


def read_with_halo(
    image: Image, block: Block
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Read a block and the pixels around it; give its place among them, too."""
    around = block.grown(HALO, image.shape)
    return image.read(around), block.within(around)


def _segment(
    store: Store, predictor: Predictor, pixels: np.ndarray, inside: tuple[slice, slice]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Give a block's classes or logits, as the store takes them, and its gaps."""
    compute = predictor.segment if store.logits is None else predictor.logits
    hidden = None
    if np.ma.isMaskedArray(pixels):
        hidden = without_data(pixels)[inside]
    return compute(pixels)[inside], hidden


def _fill_block(store: Store, image: Image, predictor: Predictor, block: Block) -> None:
    """Segment a block in a worker, which outlives a run: the file may have changed."""
    piece = read_with_halo(image.opened_anew(), block)
    store.put(block, *_segment(store, predictor, *piece))


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Give function(item) for each item; the next one is computed meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for item in items:
            following = pool.submit(function, item)
            if ahead:
                yield ahead.result()
            ahead = following
        if ahead:
            yield ahead.result()


# ------------------------------------------------------------------ workers


def check_workers(workers: int | None, scheduler: str | None) -> None:
    """Refuse workers that could not be started, before any work is done."""
    if workers and scheduler:
        raise InputError(
            f"{workers} workers beside {scheduler}, which has its own (leave one out)"
        )
    if (workers or scheduler) and not has("distributed"):
        raise InputError(f"--workers and --scheduler need distributed ({LARGE})")


@contextmanager
def connected(workers: int | None, scheduler: str | None) -> "Iterator[Client | None]":
    """Start workers on this machine, or find those of a scheduler, or give None.

    The address of a scheduler is such as ``tcp://10.0.0.1:8786``. Workers that were
    started here end with the block.
    """
    if not (workers or scheduler):
        yield None
        return
    import dask

    dask.config.set(DASK)
    from distributed import Client
    from distributed.gc import disable_gc_diagnosis

    name = scheduler or f"{workers} workers"
    how: dict[str, Any] = {"address": scheduler, "timeout": PATIENCE}
    if workers:
        how = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
        how["silence_logs"] = logging.CRITICAL
    try:
        client = Client(**how)
    except (OSError, ValueError, RuntimeError) as error:
        reason = one_line(error.__cause__ or error).split(">: ")[-1]
        raise InputError(f"{name}: cannot be reached or started ({reason})") from error
    disable_gc_diagnosis(force=True)  # a Ctrl-C that falls into it would be lost
    with client:
        if workers:
            client.run(_ignore_interrupts)
        print(f"dashboard: {client.dashboard_link}", file=sys.stderr)
        yield client


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to workers, too, to the command itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def share(
    client: "Client", function: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    """Give function(item) for each item, as the workers are done with it."""
    from distributed import KilledWorker, as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    name = client.scheduler.address
    try:
        futures = client.map(function, items, retries=RETRIES, pure=False)
        for future in as_completed(futures):
            yield future.result()
    except (FutureCancelledError, CommClosedError) as error:
        raise InputError(
            f"{name}: the scheduler was lost (start it and its workers, and this "
            "command again: it goes on)"
        ) from error
    except KilledWorker as error:
        raise InputError(
            f"{name}: workers died over one piece of work, one after the other (is "
            "their memory too small?)"
        ) from error
    except (ImportError, RuntimeError) as error:
        if not isinstance(error, ImportError) and "deserialization" not in str(error):
            raise
        raise InputError(
            f"{name}: its workers cannot import this project (start them with "
            "PYTHONPATH set to the project's folder)"
        ) from error
