import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import NONE_HELD, ROOT
from conftest import predict_here as run
from PIL import Image

import segutils
from onelabel import files, image, pipeline, store
from onelabel.image import NODATA, strips
from onelabel.reading import open_image
from onelabel.store import part_folder, store_beside
from onelabel.writing import write_picture


def test_what_is_known_is_not_computed_again(trained_file, none_held, monkeypatch):
    shutil.copy(ROOT / "data/rgb.png", "a.png")
    assert run("a.png", "--output", "whole.png") == 0
    segment, seen = segutils.Predictor.segment, []

    def dies(predictor, rgb):
        seen.append(len(rgb))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return segment(predictor, rgb)

    monkeypatch.setattr(segutils.Predictor, "segment", dies)
    assert run("a.png", "--output", "mask.png") == 130
    assert not Path("mask.png").exists()
    assert run("a.png", "--output", "mask.png") == 0
    count = len(open_image("a.png").blocks())
    assert len(seen) == count + 1  # that of the interrupt was done again
    assert Path("mask.png").read_bytes() == Path("whole.png").read_bytes()


@pytest.mark.parametrize("harm", ["lose all", "lose a chunk", "empty a chunk"])
def test_parts_that_are_lost_or_damaged_give_no_mask(
    trained_file, none_held, monkeypatch, capsys, harm
):
    shutil.copy(ROOT / "data/rgb.png", "a.png")
    fill, chunk = pipeline.fill, Path(".mask.png.part/mask/c/0/0")

    def harmed(*arguments):
        fill(*arguments)
        if harm == "lose all":
            shutil.rmtree(".mask.png.part/mask")
        elif harm == "lose a chunk":
            chunk.unlink()
        else:
            chunk.write_bytes(b"")

    monkeypatch.setattr(pipeline, "fill", harmed)
    assert run("a.png", "--output", "mask.png") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert ".mask.png.part: a part of the mask is missing or damaged (delete" in said
    assert not Path("mask.png").exists()


@pytest.mark.parametrize("changed", ["image", "model", "option", "overwrite"])
def test_what_is_left_of_something_else_is_not_used(
    trained_file, none_held, monkeypatch, changed
):
    shutil.copy(ROOT / "data/rgb.png", "a.png")
    fill = pipeline.fill
    monkeypatch.setattr(
        pipeline, "fill", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert run("a.png", "--output", "mask.png") == 130
    left = zarr.open_array(".mask.png.part/mask", mode="r+")
    left[:] = 1  # as if all were known
    monkeypatch.setattr(pipeline, "fill", fill)
    more = []
    if changed == "image":
        rgb = open_image("a.png").whole()
        write_picture("a.png", rgb[::-1])
    elif changed == "model":
        content = Path("model.pt").read_bytes()
        Path("model.pt").write_bytes(content + b"\0")
    elif changed == "option":
        more = ["--probabilities", "p.tif"]
    else:
        more = ["--overwrite"]
    assert run("a.png", "--output", "mask.png", *more) == 0
    assert len(np.unique(open_image("mask.png").whole())) > 1


def test_a_zarr_array_of_which_a_chunk_changed_is_another(tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, data=np.ones((60, 70), np.uint8), chunks=(30, 35))
    before = files.identity(path)
    assert files.identity(path) == before
    array[:30, :35] = 7
    assert files.identity(path) != before


@pytest.fixture
def open_store(folder):
    """Give a function that opens the store of mask.png, until the test ends."""
    with ExitStack() as stack:

        def open_it(with_logits=False, overwrite=False):
            options = {}, with_logits, True, overwrite
            opened = store_beside(folder / "mask.png", (300, 250), *options)
            return stack.enter_context(opened), opened

        yield open_it


def test_a_block_is_known_once_all_its_chunks_are(monkeypatch, open_store):
    """A chunk that shows nothing is known, too."""
    monkeypatch.setattr(store, "CHUNK", (image.STRIP, 100))
    opened, _ = open_store()
    blocks = strips(opened.shape)
    opened.mask[:244, :200] = NODATA
    assert opened.missing(blocks) == blocks
    opened.mask[:244, 200:] = 1
    assert opened.missing(blocks) == blocks[1:]


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("with_logits", [True, False])
def test_a_store_gives_back_what_was_put_into_it(tmp_path, on_disk, with_logits):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 250)).astype(np.float32)
    hidden = rng.random((300, 250)) < 0.1
    options = (300, 250), {}, with_logits, on_disk
    with store_beside(tmp_path / "mask.png", *options) as kept:
        for block in strips((300, 250)):
            part = logits[block.slices]
            values = part.copy() if with_logits else (part > 0).astype(np.uint8)
            kept.put(block, values, hidden[block.slices])
        mask = np.where(hidden, NODATA, logits > 0)
        np.testing.assert_array_equal(np.concatenate(list(kept.mask_rows())), mask)
        counts = [(mask == 0).sum(), (mask == 1).sum()]
        np.testing.assert_array_equal(kept.counts, counts)
        if with_logits:
            found = np.concatenate(list(kept.logit_rows()))
            np.testing.assert_array_equal(found, np.where(hidden, np.nan, logits))
    assert not list(tmp_path.iterdir())


def test_two_runs_do_not_share_a_mask(trained_file, none_held, capsys):
    with store_beside("mask.png", (300, 300), {}, False, True):
        assert run("data/rgb.png", "--output", "mask.png") == 2
        assert "mask.png: another run is writing it" in capsys.readouterr().err
    assert run("data/rgb.png", "--output", "mask.png") == 0


def is_locked(output):
    """Whether another run would find a lock that is held."""
    try:
        with store_beside(output, (300, 250), {}, False, True):
            return False
    except files.InputError as error:
        return "another run is writing it" in str(error)


def test_a_lock_that_is_removed_before_it_is_held_is_made_anew(
    folder, monkeypatch, open_store
):
    _, first = open_store()
    flock = fcntl.flock

    def late(file, how):
        monkeypatch.undo()
        first.__exit__(None, None, None)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    open_store()
    assert is_locked(folder / "mask.png")


def test_a_folder_that_is_removed_before_it_is_locked_is_made_anew(
    folder, monkeypatch, open_store
):
    mkdir = Path.mkdir

    def unlucky(path, *more, **options):
        monkeypatch.undo()
        mkdir(path, *more, **options)
        path.rmdir()

    monkeypatch.setattr(Path, "mkdir", unlucky)
    open_store()
    assert is_locked(folder / "mask.png")


def test_a_store_is_removed_up_to_the_lock_of_the_next_run(
    folder, monkeypatch, open_store
):
    _, first = open_store()
    rmdir, later = Path.rmdir, []

    def late(path):
        monkeypatch.undo()
        later.append(open_store()[1])
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", late)
    first.__exit__(None, None, None)
    assert is_locked(folder / "mask.png")
    later[0].__exit__(None, None, None)
    assert not part_folder(folder / "mask.png").exists()


KILLED = f"""
import sys
import predict
from onelabel import console
{NONE_HELD}
raise SystemExit(console.run(predict.main, sys.argv[1:]))
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_mask(trained_file):
    rgb = np.tile(np.asarray(Image.open(ROOT / "data/rgb.png")), (4, 2, 1))
    Image.fromarray(rgb).save("a.png", compress_level=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(output):
        line = [sys.executable, "-c", KILLED, "a.png", "--output", output]
        return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE)

    def chunks():
        return list(Path().glob(".mask.png.part/mask/c/*/*"))

    def is_written():  # at first, whether a file can be written is tried by one as well
        begun = any(Path().glob(".*.png")) and chunks()
        return begun or Path("mask.png").exists()

    assert start("whole.png").wait() == 0
    known, draw = 0, random.Random(0)
    for moment in ("first", "later", "later", "writing"):
        process = start("mask.png")
        most = known + (1 if moment == "first" else draw.randint(2, 9))
        while process.poll() is None and not is_written():
            if moment != "writing" and len(chunks()) >= most:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        is_done = Path("mask.png").exists()  # its store may be gone, or half gone
        assert len(chunks()) >= max(known, 1) or is_done  # nothing is computed twice
        known = len(chunks())
        if is_done:
            assert Path("mask.png").read_bytes() == Path("whole.png").read_bytes()
    assert start("mask.png").wait() == 0
    assert Path("mask.png").read_bytes() == Path("whole.png").read_bytes()
    assert not list(Path().glob(".mask*"))


def tree():
    return {str(p): p.stat().st_mtime_ns for p in Path().rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["link", "file", "folder"])
def test_what_is_in_the_way_is_kept(trained_file, scene, capsys, kind):
    zarr.create_array("a.zarr", data=scene[0])
    Path("mine").mkdir()
    Path("mine/x").write_text("mine")
    part = Path(".m.zarr.part")
    if kind == "link":
        part.symlink_to("mine")
    elif kind == "file":
        part.write_text("mine")
    else:
        shutil.copytree("mine", part)
    before = tree()
    assert run("a.zarr", "--output", "m.zarr") == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.endswith("(move it, or give the mask another name)")
    assert tree() == before


def test_an_image_that_is_replaced_while_it_is_read_gives_no_mask(
    trained_file, none_held, capsys, monkeypatch
):
    rgb = np.asarray(Image.open(ROOT / "data/rgb.png"))
    for name, picture in (("a.tif", rgb), ("new.tif", rgb[::-1])):
        Image.fromarray(picture).save(name)
    fill = pipeline.fill

    def replaced(*arguments):
        fill(*arguments)
        os.replace("new.tif", "a.tif")

    monkeypatch.setattr(pipeline, "fill", replaced)
    assert run("a.tif", "--output", "mask.png") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: a.tif: changed while it was read (start again)"
    assert not Path("mask.png").exists()


@pytest.mark.parametrize("held", [True, False])
def test_an_image_that_is_deleted_while_it_is_read_gives_no_mask(
    trained_file, capsys, monkeypatch, request, held
):
    if not held:
        request.getfixturevalue("none_held")
    shutil.copy("data/rgb.png", "a.png")
    fill = pipeline.fill

    def deleted(*arguments):
        fill(*arguments)
        os.unlink("a.png")

    monkeypatch.setattr(pipeline, "fill", deleted)
    assert run("a.png", "--output", "mask.png") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and "a.png" in line
    assert not Path("mask.png").exists()
