import json
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import distributed
import numpy as np
import pytest
import zarr
from conftest import NONE_HELD, ROOT
from conftest import predict_here as run
from PIL import Image

import segutils
from onelabel import libraries, pipeline
from onelabel.reading import open_image
from onelabel.store import DiskStore, Store, store_beside
from onelabel.truth import read_truth
from segutils import Block, Predictor


pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("size", [(176, 230), (731, 257), (245, 1), (1, 300)])
def test_by_blocks_is_the_same_as_held(trained_file, request, suffix, size):
    rgb = np.asarray(Image.open(ROOT / "data/rgb.png"))[: size[0], : size[1]]
    Image.fromarray(rgb).save(f"a.{suffix}")
    for name in ("held", "blocks"):
        outputs = ["--output", f"{name}.png", "--overlay", f"{name}-overlay.png"]
        assert run(f"a.{suffix}", *outputs, "--probabilities", f"{name}.tif") == 0
        request.getfixturevalue("none_held")
    for kind in (".png", "-overlay.png", ".tif"):
        one, other = (np.array(Image.open(n + kind)) for n in ("held", "blocks"))
        np.testing.assert_array_equal(one, other)
    assert not list(Path().glob(".*"))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_a_mask_by_blocks_can_be_read_back(trained_file, none_held, suffix):
    assert run("data/rgb.png", "--output", f"mask.{suffix}") == 0
    assert run("data/rgb.png", "--output", "mask.png", "--gt", "data/gt.png") == 0
    one, other = (read_truth(f"mask.{s}")[0] for s in (suffix, "png"))
    np.testing.assert_array_equal(one, other)
    assert 0 < one.mean() < 1


# ------------------------------------------------------------------ workers


def test_a_killed_workers_work_is_done_again(folder, model, none_held):
    rgb = np.tile(np.asarray(Image.open(ROOT / "data/rgb.png")), (3, 2, 1))
    zarr.create_array("a.zarr", data=rgb, chunks=(512, 512, 3))
    image = open_image("a.zarr")
    blocks = image.blocks()
    options = {}, False, True
    with (
        store_beside("mask.png", image.shape, *options) as store,
        pipeline.connected(2, None) as client,
    ):
        workers = client.run(os.getpid)
        arguments = store, image, Predictor(model), client
        filling = threading.Thread(target=pipeline.fill, args=arguments)
        filling.start()
        while len(store.missing(blocks)) == len(blocks):
            time.sleep(0.05)
        os.kill(next(iter(workers.values())), signal.SIGKILL)
        assert store.missing(blocks)
        filling.join()
        assert client.run(os.getpid) != workers
        assert not store.missing(blocks)
        found = np.concatenate(list(store.mask_rows()))
    np.testing.assert_array_equal(found, segutils.segment(model, rgb))


def test_two_workers_make_the_mask_of_one_process(trained_file, none_held, capsys):
    rgb = np.asarray(Image.open(ROOT / "data/rgb.png"))
    zarr.create_array("a.zarr", data=rgb)
    assert run("a.zarr", "--output", "one.png") == 0
    assert run("a.zarr", "--output", "two.png", "--workers", 2) == 0
    assert "dashboard: http://" in capsys.readouterr().err
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert 0 < read_truth("one.png")[0].mean() < 1


INTERRUPTED = f"""
import sys
import predict
from onelabel import console
{NONE_HELD}
if __name__ == "__main__":
    raise SystemExit(console.run(predict.main, sys.argv[1:]))
"""


def test_a_worker_reads_an_image_that_was_replaced_anew(folder):
    """It may outlive many runs of the command."""
    red = SimpleNamespace(segment=operator.itemgetter(np.s_[..., 0]))
    for value in (10, 110):
        Image.fromarray(np.full((40, 50, 3), value, np.uint8)).save("new.tif")
        os.replace("new.tif", "a.tif")
        if value == 10:
            image = open_image("a.tif")
        store = Store(np.zeros((40, 50), np.uint8))
        pipeline._fill_block(store, image, red, Block(0, 0, 40, 50))
        assert (store.mask == value).all()


def test_ctrl_c_is_told_in_one_word(trained_file):
    """A terminal sends it to the workers, too."""
    rgb = np.asarray(Image.open(ROOT / "data/rgb.png"))
    zarr.create_array("a.zarr", data=np.tile(rgb, (6, 6, 1)))
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, "a.zarr", "--output", "m.png"]
        + ["--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not list(Path(".m.png.part").glob("mask/c/*/*")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    *_, last = lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    assert last == "interrupted" and len(lines) == 3, lines  # dashboard, forecast
    assert not Path("m.png").exists()


@pytest.mark.parametrize("name", ["data/rgb.png", "small.tif"])
def test_no_workers_are_started_for_an_image_that_cannot_be_shared(
    trained_file, name, monkeypatch, capsys
):
    Image.open("data/rgb.png").save("small.tif")
    monkeypatch.setattr(distributed, "Client", None)
    assert run(name, "--output", "mask.png", "--workers", 2) == 0
    assert capsys.readouterr().err == (
        f"warning: {name}: segmented by one process (workers share large TIFFs, Zarr "
        "arrays and folders)\n"
    )


def test_workers_that_cannot_start_are_told(
    trained_file, none_held, monkeypatch, capsys
):
    zarr.create_array("a.zarr", data=np.zeros((300, 300, 3), np.uint8))
    full = mock.Mock(side_effect=OSError(24, "Too many open files"))
    monkeypatch.setattr(distributed, "Client", full)
    assert run("a.zarr", "--output", "mask.png", "--workers", 2) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last == (
        "error: 2 workers: cannot be reached or started "
        "([Errno 24] Too many open files)"
    )
    assert not Path("mask.png").exists()


def start(kind, path, *options):
    """Start a part of a cluster as the README does, with PYTHONPATH as `path`."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
    facts = ["--scheduler-file", "scheduler.json", "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.Popen(
        [*command, *facts], env=environment, start_new_session=True, **quiet
    )


@pytest.fixture
def start_cluster(folder):
    """Give a function that starts a scheduler with one worker."""
    begun = []

    def started(path):
        Path("scheduler.json").unlink(missing_ok=True)
        begun.append(start("scheduler", path, "--host", "127.0.0.1", "--port", "0"))
        while not Path("scheduler.json").exists():
            time.sleep(0.05)
        address = json.loads(Path("scheduler.json").read_text())["address"]
        begun.append(start("worker", path, "--nworkers", "1", "--nthreads", "1"))
        return begun[-2], address

    yield started
    for process in begun:  # and its children; a scheduler may wait long for its workers
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_run_whose_scheduler_is_lost_goes_on(
    trained_file, none_held, start_cluster, capsys
):
    rgb = np.tile(np.asarray(Image.open(ROOT / "data/rgb.png")), (2, 2, 1))
    zarr.create_array("a.zarr", data=rgb, chunks=(512, 512, 3))
    assert run("a.zarr", "--output", "one.png") == 0
    process, address = start_cluster(ROOT)

    def kill_when_some_is_known():
        # Of a block there may be two, and one that is not whole.
        while len(list(Path(".two.png.part").glob("mask/c/*/*"))) < 6:
            time.sleep(0.01)
        process.kill()

    killer = threading.Thread(target=kill_when_some_is_known)
    killer.start()
    assert run("a.zarr", "--output", "two.png", "--scheduler", address) == 2
    killer.join()
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"error: {address}: the scheduler was lost (")
    known = {path: path.stat().st_mtime_ns for path in Path().glob(".two.*/mask/c/*/*")}
    assert known and not Path("two.png").exists()

    _, address = start_cluster(ROOT)
    blocks = []
    kept = DiskStore.missing
    with mock.patch.object(
        DiskStore, "missing", lambda *a: blocks.extend(kept(*a)) or blocks
    ):
        code = run("a.zarr", "--output", "two.png", "--scheduler", address)
        assert code == 0, capsys.readouterr().err
    assert len(blocks) < len(open_image("a.zarr").blocks())
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_a_cluster_without_the_project_is_told(trained_file, start_cluster, capsys):
    zarr.create_array("a.zarr", data=np.zeros((600, 60000, 3), np.uint8))
    _, address = start_cluster("/")
    assert run("a.zarr", "--output", "a.png", "--scheduler", address) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert "cannot import this project" in last


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ["--scheduler", "tcp://127.0.0.1:1"],
            "tcp://127.0.0.1:1: cannot be reached or",
        ),
        (["--workers", 0], "0: expected a whole number from 1"),
        (
            ["--workers", 2, "--scheduler", "tcp://127.0.0.1:1"],
            "2 workers beside tcp://127.0.0.1:1, which has its own (leave one out)",
        ),
    ],
)
def test_workers_that_cannot_be_had_are_told(
    trained_file, none_held, monkeypatch, capsys, more, words
):
    zarr.create_array("a.zarr", data=np.zeros((300, 300, 3), np.uint8))
    monkeypatch.setattr(pipeline, "PATIENCE", 1)
    assert run("a.zarr", *more) == 2
    assert not list(Path().glob(".*.part"))
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_dask_is_asked_for(trained_file, monkeypatch, capsys):
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    assert run("--workers", 2) == 2
    line = "error: --workers and --scheduler need distributed (pip install -r "
    line += "requirements/large.txt)"
    assert capsys.readouterr().err == f"{line}\n"
