import json
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest import mock

import distributed
import numpy as np
import pytest
import zarr
from conftest import ROOT
from PIL import Image

import bigimages
import cli
import cluster
import images
import light
import predict
import segutils


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Dask sets variables such as OMP_NUM_THREADS, which later tests are not to see."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(bigimages, "SIDE", 2 * bigimages.BAND)
    monkeypatch.setattr(bigimages, "HELD", 0)


@pytest.fixture
def model_file(folder, model, scene):
    looks = light.describe([scene[0]], [scene[1]])
    colours = ((0, 0, 0), (255, 255, 255))
    segutils.save_model("model.pt", model.state_dict(), colours, looks, {})
    return folder / "model.pt"


def run(*arguments):
    return cli.run(lambda: predict.main(list(map(str, arguments))))


def test_a_killed_workers_work_is_done_again(folder, model, small_blocks):
    rgb = np.tile(np.asarray(Image.open(ROOT / "data/rgb.png")), (3, 2, 1))
    zarr.create_array("a.zarr", data=rgb, chunks=(512, 512, 3))
    store = bigimages.Store("mask.png", {}, rgb.shape[:2], False)
    network = partial(segutils.segment, model)
    with cluster.connected(2, None) as client:
        workers = client.run(os.getpid)
        arguments = (client, store, "a.zarr", None, network, segutils.HALO)
        filling = threading.Thread(target=cluster.fill, args=arguments)
        filling.start()
        blocks = cluster.blocks(rgb.shape[:2])
        while len(store.missing(blocks)) == len(blocks):
            time.sleep(0.05)
        os.kill(next(iter(workers.values())), signal.SIGKILL)
        assert store.missing(blocks)
        filling.join()
        assert client.run(os.getpid) != workers
    assert not store.missing(blocks)
    found = np.concatenate([store.mask(block) for block in store.blocks])
    np.testing.assert_array_equal(found, segutils.segment(model, rgb))


def test_two_workers_make_the_mask_of_one_process(model_file, small_blocks, capsys):
    rgb = np.asarray(Image.open(ROOT / "data/rgb.png"))
    zarr.create_array("a.zarr", data=rgb)
    assert run("a.zarr", "--output", "one.png") == 0
    assert run("a.zarr", "--output", "two.png", "--workers", 2) == 0
    assert "dashboard: http://" in capsys.readouterr().err
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert len(np.unique(images.read_rgb("one.png"))) == 2


INTERRUPTED = """
import sys
import bigimages, cli, predict
bigimages.HELD, bigimages.SIDE = 0, bigimages.BAND
raise SystemExit(cli.run(predict.main, sys.argv[1:]))
"""


@pytest.fixture
def in_this_process(monkeypatch):
    """Let what a worker does be done here, without a worker's settings."""
    monkeypatch.setattr(cluster, "_prepare", lambda: None)


def test_a_worker_reads_an_image_that_was_replaced_anew(folder, in_this_process):
    """It may outlive many runs of the command."""
    block = images.Block(0, 0, 40, 50)

    for value in (10, 110):
        Image.fromarray(np.full((40, 50, 3), value, np.uint8)).save("new.tif")
        os.replace("new.tif", "a.tif")
        store = bigimages.Store(f"{value}.png", {}, (40, 50), False)
        red = operator.itemgetter(np.s_[..., 0])
        cluster._segment_block(str(store.folder), "a.tif", None, red, 0, block)
        assert (store[block] == value).all()


def test_an_image_that_is_replaced_while_it_is_read_gives_no_mask(
    model_file, small_blocks, capsys, monkeypatch
):
    rgb = np.asarray(Image.open(ROOT / "data/rgb.png"))
    for name, picture in (("a.tif", rgb), ("new.tif", rgb[::-1])):
        Image.fromarray(picture).save(name)
    fill = bigimages.Store.fill

    def replaced(*arguments):
        fill(*arguments)
        os.replace("new.tif", "a.tif")

    monkeypatch.setattr(bigimages.Store, "fill", replaced)
    assert run("a.tif", "--output", "mask.png") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: a.tif: changed while it was read (start again)"
    assert not Path("mask.png").exists()


def test_ctrl_c_is_told_in_one_word(model_file):
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
    while process.poll() is None and not list(Path(".m.png.part").glob("c/*/*")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    *_, last = lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    assert last == "interrupted" and len(lines) == 3, lines  # dashboard, forecast
    assert not Path("m.png").exists()


def test_workers_share_a_folder(model_file, scene, monkeypatch, capsys):
    for index in range(5):
        path = Path("photos", str(index % 2), f"{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene[0][:60, : 40 + index]).save(path)
    path.write_bytes(b"no image")
    read = mock.Mock(wraps=predict.read)
    monkeypatch.setattr(predict, "read", read)
    for masks, more in (("one", ()), ("two", ("--workers", 2))):
        Path(masks).mkdir()
        assert run("photos", "--output", masks, *more) == 1
        said = capsys.readouterr()
        assert said.out.count("is class 1") == 4
        assert "1 of 5 images failed" in said.err
    assert read.call_count == 5  # by one process; the workers read for themselves
    found = {p.relative_to("one"): p.read_bytes() for p in Path("one").rglob("*.png")}
    assert len(found) == 4
    for place, mask in found.items():
        assert Path("two", place).read_bytes() == mask
    assert run("photos", "--output", "two", "--workers", 2) == 1
    assert "4 of 5 images are done already" in capsys.readouterr().out


def test_the_script_shares_a_folder(model_file, scene):
    """What it sends to the workers is of no module that they could import."""
    for name in ("photos/a.png", "photos/b.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(scene[0][:40, :50]).save(name)
    Path("masks").mkdir()
    line = [sys.executable, ROOT / "predict.py", "photos", "--output", "masks"]
    done = subprocess.run([*line, "--workers", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is class 1") == 2


def test_images_are_told_as_they_are_done_and_the_model_is_sent(
    model_file, scene, in_this_process, monkeypatch
):
    """So that a slow image and a kill do not cost the masks of those after it."""
    jobs = [(f"{name}.png", Path(f"{name}-mask.png")) for name in ("slow", "quick")]
    for name, _ in jobs:
        Image.fromarray(scene[0][:40, :50]).save(name)
    args = predict.parse_args(["slow.png", "quick.png"])
    trained = predict.load(args)
    model_file.unlink()  # no worker reads it
    told, read = threading.Event(), predict.read

    def read_in_turn(args, job):
        if job == jobs[0]:
            told.wait(60)
        return read(args, job)

    monkeypatch.setattr(predict, "read", read_in_turn)
    here = {"processes": False, "n_workers": 1, "threads_per_worker": 2}
    with distributed.Client(**here, dashboard_address=None) as client:
        found = []
        for job, outcome in cluster.attempt_all(client, args, trained, jobs):
            told.set()
            assert outcome.output == job[1]
            found.append(job)
    assert found == jobs[::-1]


@pytest.mark.parametrize("name", ["data/rgb.png", "small.tif"])
def test_no_workers_are_started_for_an_image_that_cannot_be_shared(
    model_file, name, monkeypatch, capsys
):
    Image.open("data/rgb.png").save("small.tif")
    monkeypatch.setattr(distributed, "LocalCluster", None)
    assert run(name, "--output", "mask.png", "--workers", 2) == 0
    assert capsys.readouterr().err == f"warning: {name}: {predict.NOT_SHARED}\n"


@pytest.mark.parametrize("fails", ["LocalCluster", "Client"])
def test_workers_that_cannot_start_are_told_and_closed(
    model_file, small_blocks, fails, monkeypatch, capsys
):
    zarr.create_array("a.zarr", data=np.zeros((300, 300, 3), np.uint8))
    started = mock.Mock()
    monkeypatch.setattr(distributed, "LocalCluster", started)
    full = mock.Mock(side_effect=OSError(24, "Too many open files"))
    monkeypatch.setattr(distributed, fails, full)
    assert run("a.zarr", "--output", "mask.png", "--workers", 2) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "error: --workers 2: cannot start ([Errno 24] Too many open files)"
    assert started.return_value.close.called == (fails == "Client")
    assert not list(Path().glob("*mask*"))


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
    model_file, small_blocks, start_cluster, capsys
):
    rgb = np.tile(np.asarray(Image.open(ROOT / "data/rgb.png")), (2, 2, 1))
    zarr.create_array("a.zarr", data=rgb, chunks=(512, 512, 3))
    assert run("a.zarr", "--output", "one.png") == 0
    process, address = start_cluster(ROOT)

    def kill_when_some_is_known():
        # Of a block there may be two, and one that is not whole.
        while len(list(Path(".two.png.part").glob("c/*/*"))) < 6:
            time.sleep(0.01)
        process.kill()

    killer = threading.Thread(target=kill_when_some_is_known)
    killer.start()
    assert run("a.zarr", "--output", "two.png", "--scheduler", address) == 2
    killer.join()
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"error: --scheduler {address}: was lost")
    known = {path: path.stat().st_mtime_ns for path in Path().glob(".two.*/c/*/*")}
    assert known and not Path("two.png").exists()

    _, address = start_cluster(ROOT)
    blocks = []
    kept = bigimages.Store.missing
    with mock.patch.object(
        bigimages.Store, "missing", lambda *a: blocks.extend(kept(*a)) or blocks
    ):
        code = run("a.zarr", "--output", "two.png", "--scheduler", address)
        assert code == 0, capsys.readouterr().err
    assert len(blocks) < len(cluster.blocks(rgb.shape[:2]))
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_a_cluster_without_the_project_is_told(model_file, start_cluster, capsys):
    zarr.create_array("a.zarr", data=np.zeros((600, 60000, 3), np.uint8))
    _, address = start_cluster("/")
    assert run("a.zarr", "--output", "a.png", "--scheduler", address) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert "cannot import this project" in last


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--scheduler", "tcp://127.0.0.1:1"], "tcp://127.0.0.1:1: does not answer"),
        (["--workers", 0], "--workers 0: at least 1 is needed"),
        (
            ["--workers", 2, "--scheduler", "tcp://127.0.0.1:1"],
            "--workers 2: --scheduler has workers of its own (leave one out)",
        ),
    ],
)
def test_workers_that_cannot_be_had_are_told(
    model_file, small_blocks, monkeypatch, capsys, more, words
):
    zarr.create_array("a.zarr", data=np.zeros((300, 300, 3), np.uint8))
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    assert run("a.zarr", *more) == 2
    assert not list(Path().glob(".*.part"))
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_dask_is_asked_for(model_file, monkeypatch, capsys):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    assert run("--workers", 2) == 2
    assert "need dask (pip install -r requirements-cluster.txt)" in (
        capsys.readouterr().err
    )
