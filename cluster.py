"""Many workers, on this machine or on others: the engine is Dask.

A huge image is shared out by blocks, of which each worker reads its own, with its halo,
and writes its own chunks of a Zarr array that all can reach; a folder is shared out by
files. What a lost worker had is done again by another, and what is known stays known:
a run that is started again goes on where the last one stopped.

Contents
--------
The workers     check, connected
A huge image    blocks, fill
A folder        attempt_all
"""

import argparse
import importlib.util
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import product
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING

import bigimages
from cli import InputError
from images import Block


if TYPE_CHECKING:
    from distributed import Client, LocalCluster

    from predict import Job, Outcome, Trained


RETRIES = 2  # of a block that failed, on another worker
PATIENCE = 10  # seconds for a scheduler to answer
HINT = "pip install -r requirements-cluster.txt"
LOADED = ["torch", "distributed", "distributed.nanny", "rasterio", "zarr"]

# ------------------------------------------------------------------ the workers


def check(workers: int | None, scheduler: str | None) -> None:
    """Refuse workers that could not be started or found, before any work is done.

    Parameters
    ----------
    workers : int or None
        How many are to be started on this machine.
    scheduler : str or None
        The address of a scheduler that has workers.

    Raises
    ------
    InputError
        Fewer than one is asked for, or both kinds, or Dask is not installed.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: at least 1 is needed")
    if workers and scheduler:
        raise InputError(
            f"--workers {workers}: --scheduler has workers of its own (leave one out)"
        )
    if (workers or scheduler) and importlib.util.find_spec("distributed") is None:
        raise InputError(f"--workers, --scheduler: need dask ({HINT})")


@contextmanager
def connected(workers: int | None, scheduler: str | None) -> Iterator["Client | None"]:
    """Start workers on this machine, or find those of a scheduler.

    Parameters
    ----------
    workers : int or None
        How many to start here, where there is no scheduler.
    scheduler : str or None
        The address of a scheduler that has workers, such as ``tcp://10.0.0.1:8786``.

    Yields
    ------
    distributed.Client or None
        The workers, of which those that were started here end with the block; None
        where neither is asked for.

    Raises
    ------
    InputError
        The workers cannot be started, or the scheduler does not answer.
    """
    if not (workers or scheduler):
        yield None
        return
    import dask
    from distributed import Client
    from distributed.gc import disable_gc_diagnosis

    # Looking at what a worker does every 10 ms costs it a twentieth of its time.
    dask.config.set({"distributed.worker.profile.enabled": False})
    # Its own words on a lost scheduler are a traceback; `_told` has one line for it.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    with ExitStack() as opened:
        try:
            if scheduler:
                client = Client(scheduler, timeout=PATIENCE)
            else:
                cluster = opened.enter_context(closing(_local_cluster(workers)))
                client = Client(cluster)
        except (OSError, ValueError, RuntimeError) as error:
            if scheduler:
                raise InputError(f"--scheduler {scheduler}: does not answer") from error
            reason = error.__cause__ or error
            raise InputError(f"--workers {workers}: cannot start ({reason})") from error
        opened.callback(client.close)
        disable_gc_diagnosis(force=True)  # a Ctrl-C that falls into it would be lost
        print(f"dashboard: {client.dashboard_link}", file=sys.stderr)
        yield client


def _local_cluster(workers: int | None) -> "LocalCluster":
    """Start workers on this machine."""
    import dask
    from distributed import LocalCluster

    with _deaf_to_interrupts():
        if _can_fork():
            # They are forked from a process that has loaded what they need: loaded by
            # each for itself, it would take all cores for seconds.
            multiprocessing.set_forkserver_preload(LOADED)
            forkserver.ensure_running()
            dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )


def _can_fork() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Start processes and threads that leave Ctrl-C to this one.

    A terminal sends it to all of them, and each would tell of it in a page.
    """
    if not _can_fork():
        yield
        return
    resource_tracker.ensure_running()  # it would end the block when it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _told(client: "Client") -> Iterator[None]:
    """Turn what may happen to a cluster into one line."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    address = client.scheduler.address
    try:
        yield
    except (FutureCancelledError, CommClosedError) as error:
        raise InputError(
            f"--scheduler {address}: was lost (start it and its workers, and this "
            "command again: it goes on)"
        ) from error
    except KilledWorker as error:
        raise InputError(
            f"--scheduler {address}: workers died over one piece of work, one after "
            "the other (is their memory too small?)"
        ) from error
    except (ImportError, RuntimeError) as error:
        if not isinstance(error, ImportError) and "deserialization" not in str(error):
            raise
        raise InputError(
            f"--scheduler {address}: cannot import this project (start it and its "
            "workers with PYTHONPATH set to the project's folder)"
        ) from error


# ------------------------------------------------------------------ a huge image


def blocks(shape: Sequence[int]) -> list[Block]:
    """Cut an image into blocks, each of whole tiles.

    Parameters
    ----------
    shape : tuple of int
        Height and width.

    Returns
    -------
    list of Block
        The blocks, row by row.
    """
    height, width = shape
    side = bigimages.SIDE
    return [
        Block(top, left, min(top + side, height), min(left + side, width))
        for top, left in product(range(0, height, side), range(0, width, side))
    ]


def fill(
    client: "Client",
    store: bigimages.Store,
    image: str,
    channels: Sequence[int] | None,
    network: bigimages.Network,
    halo: int,
) -> None:
    """Segment the blocks of an image that are missing, on all workers.

    Parameters
    ----------
    client : distributed.Client
        The workers.
    store : bigimages.Store
        Where the results go; the workers reach its folder by the same name.
    image : str
        The image's file; the workers reach it by the same name.
    channels : list of int or None
        Its bands, as for `bigimages.open_source`.
    network : callable
        Gives the values of pixels, (h, w, 3) uint8; it is sent to the workers.
    halo : int
        Pixels that the network must see around a block.

    Raises
    ------
    InputError
        A worker was lost for good.
    """
    from distributed import as_completed

    missing = store.missing(blocks(store.array.shape))
    image = os.path.abspath(image)  # workers may run in another folder
    segment = partial(_segment_block, str(store.folder), image, channels, network, halo)
    with _told(client), store.progress(len(missing), "block") as bar:
        futures = client.map(segment, missing, retries=RETRIES, pure=False)
        for future in as_completed(futures):
            future.result()
            bar.update()


def _segment_block(
    folder: str,
    image: str,
    channels: Sequence[int] | None,
    network: bigimages.Network,
    halo: int,
    block: Block,
) -> None:
    """Segment a block in a worker, and write its chunks."""
    _prepare()
    # Opened anew for each block: a worker outlives a run, and the file may change.
    source = bigimages.open_source(image, channels, sys.maxsize)
    seen = bigimages.read_with_halo(source, halo, block)
    array = bigimages.open_array(folder)
    array[block.slices] = bigimages.block_values(network, array.fill_value, *seen)


def _prepare() -> None:
    """Set a worker up for the network."""
    import torch

    torch.set_num_threads(1)  # a worker a core
    # Dask has glibc give back memory after every tile, which takes half of the time.
    bigimages.return_memory()


# ------------------------------------------------------------------ a folder


def attempt_all(
    client: "Client",
    args: argparse.Namespace,
    trained: "Trained",
    jobs: Sequence["Job"],
) -> Iterator[tuple["Job", "Outcome | Exception"]]:
    """Segment many files, each whole by one worker.

    Parameters
    ----------
    client : distributed.Client
        The workers.
    args : argparse.Namespace
        The options of predict.py.
    trained : predict.Trained
        The network; it is sent to the workers.
    jobs : list of (str, Path)
        The images and their masks; the workers reach them by the same names.

    Yields
    ------
    job : (str, Path)
        An image and its mask, in the order in which they are done.
    outcome : object
        What `predict.predict_file` gives of it, or its error.
    """
    from distributed import as_completed

    alone = argparse.Namespace(**{**vars(args), "workers": None, "scheduler": None})
    # As a plain tuple: of a script's own class a worker knows nothing.
    segment = partial(_predict_file, alone, tuple(trained))
    with _told(client):
        futures = client.map(segment, jobs, retries=RETRIES, pure=False)
        for future in as_completed(futures):
            yield future.result()


def _predict_file(
    args: argparse.Namespace, trained: tuple, job: "Job"
) -> tuple["Job", "Outcome | Exception"]:
    import predict

    _prepare()
    return job, predict.predict_file(args, predict.Trained(*trained), job)
