import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import predict_here as run
from samples import picture

import predict
from onelabel import formats, resources
from onelabel.depth import INTEGERS, Scale
from onelabel.files import InputError
from onelabel.image import InMemory
from onelabel.reading import open_image


SCALE = Scale(INTEGERS, (0.0,) * 3, (1.0,) * 3)


def test_a_forecast_is_told_and_too_little_memory_refused(
    trained_file, none_held, monkeypatch, capsys
):
    assert run("--output", "mask.png") == 0
    said = capsys.readouterr().err
    assert said.startswith("data/rgb.png: 230x176 pixels, at most 0.5 GB of memory")
    monkeypatch.setattr(resources, "free_memory", lambda: 1e8)
    assert run("--output", "mask.png") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data/rgb.png: 230x176 pixels need 0.5 GB of memory")
    assert ", but 0.1 GB are free (" in line


def test_the_forecast_comes_before_the_first_pixel(
    trained_file, none_held, monkeypatch, capsys
):
    def refuse(*_):
        raise InputError("read")

    monkeypatch.setattr(formats.Stream, "values", refuse)
    monkeypatch.setattr(predict, "read_truth_of", refuse)
    assert run("--output", "mask.png", "--gt", "data/gt.png") == 2
    forecast, error = capsys.readouterr().err.splitlines()
    assert forecast.startswith("data/rgb.png: 230x176 pixels, at most 0.5 GB of memory")
    assert error == "error: read"


def needs(monkeypatch, image, *files, free=0, memory=1e12, with_truth=False):
    """The error that a forecast ends with where so much is free, or None."""
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(resources, "free_memory", lambda: memory)
    try:
        resources.check_resources(image, *files, with_truth)
    except InputError as error:
        return str(error)
    return None


@pytest.fixture
def large():
    """An image of a thousand million pixels, which takes no memory."""
    return InMemory(np.broadcast_to(np.uint8(0), (10**5, 10**4, 3)))


@pytest.mark.parametrize(
    ("files", "pixel_bytes"),
    [
        (("m.zarr", None, None), 1),  # the store becomes the mask
        (("m.tif", None, None), 1 + 3),
        (("m.png", None, None), 1 + 3),
        (("m.tif", "o.png", None), 1 + 3 + 3),
        (("m.tif", None, "p.tif"), 5 + 3 + 4),
        (("m.png", "o.png", "p.tif"), 5 + 3 + 3 + 4),
    ],
)
def test_all_files_count_in_the_forecast(
    folder, monkeypatch, large, files, pixel_bytes
):
    said = needs(monkeypatch, large, *files)
    gigabytes = float(pixel_bytes)
    assert f"10000x100000 pixels need {gigabytes} GB of disk in {folder}," in said
    assert needs(monkeypatch, large, *files, free=gigabytes * 1e9) is None


def test_the_overviews_of_a_map_count_in_the_forecast(folder, monkeypatch, large):
    large.place = {"crs": None}
    files = "m.tif", None, None
    assert needs(monkeypatch, large, *files, free=4 * 4.1e9 / 3) is None
    assert " need 5.3 GB of disk" in needs(monkeypatch, large, *files, free=4.1e9)


def test_what_an_earlier_run_left_is_not_counted_again(folder, monkeypatch):
    image = InMemory(np.broadcast_to(np.uint8(0), (10**4, 10**4, 3)))
    files = "m.tif", None, None
    assert needs(monkeypatch, image, *files, free=399e6)
    Path(".m.tif.part/mask/c/0").mkdir(parents=True)
    Path(".m.tif.part/mask/c/0/0").write_bytes(bytes(10**6))
    assert needs(monkeypatch, image, *files, free=399e6) is None


def test_each_disk_must_have_room_for_its_own_files(folder, monkeypatch, large):
    Path("other").mkdir()
    monkeypatch.setattr(resources, "disk", lambda folder: folder.name)
    files = "m.tif", "other/o.tif", None
    assert needs(monkeypatch, large, *files, free=4e9) is None
    said = needs(monkeypatch, large, *files, free=3.5e9)
    assert f"need 4.0 GB of disk in {folder}, but 3.5 GB are free" in said


@pytest.mark.parametrize(
    ("files", "with_truth", "more"),
    [
        (("m.png", None, None), True, 4),
        (("m.tif", "o.jpg", None), False, 10),  # an encoder that holds the picture
    ],
)
def test_what_is_held_whole_counts_in_the_forecast(
    folder, monkeypatch, files, with_truth, more
):
    image = InMemory(np.broadcast_to(np.uint8(0), (40_000, 50_000, 3)))
    image.memory, plenty = 0, {"free": 1e12, "with_truth": with_truth}
    plain = {"free": 1e12, "memory": 1e9}
    assert needs(monkeypatch, image, "m.png", None, None, **plain) is None
    said = needs(monkeypatch, image, *files, memory=1e9, **plenty)
    found = float(re.search(r"need (\S+) GB of memory", said)[1])
    assert 2 * more <= found < 2 * more + 1
    assert needs(monkeypatch, image, *files, memory=2e9 * more + 1e9, **plenty) is None


@pytest.mark.parametrize("name", ["m.jpg", "o.jpeg"])
def test_a_picture_that_a_jpeg_cannot_hold_is_refused_before_any_work(
    folder, monkeypatch, large, name
):
    files = (name, None) if name == "m.jpg" else ("m.png", name)
    said = needs(monkeypatch, large, *files, None, free=1e12)
    assert said.startswith(f"{name}: 10000x100000 pixels, and a JPEG holds at most")


def test_the_floats_of_a_deep_image_count_in_the_forecast(folder, monkeypatch):
    found = []
    for dtype, scale in ((np.uint8, None), (np.uint16, SCALE)):
        image = InMemory(np.broadcast_to(dtype(0), (10**4, 10**4, 3)))
        image.memory, image.scale = 0, scale
        said = needs(monkeypatch, image, "m.png", None, None, memory=0)
        found.append(float(re.search(r"need (\S+) GB", said)[1]))
    assert found[0] < found[1]


def test_an_image_that_is_held_is_refused_where_memory_is_short(
    trained_file, monkeypatch, capsys
):
    monkeypatch.setattr(resources, "free_memory", lambda: 1e8)
    assert run("--output", "mask.png") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data/rgb.png: 230x176 pixels need 0.5 GB of memory")
    assert not Path("mask.png").exists()


@pytest.mark.parametrize(("progressive", "pixel_bytes"), [(False, 0), (True, 8)])
def test_what_a_decoder_holds_counts_in_the_forecast(
    tmp_path, none_held, progressive, pixel_bytes
):
    picture("RGB").save(tmp_path / "a.jpg", progressive=progressive)
    image = open_image(tmp_path / "a.jpg")
    assert image.memory == pixel_bytes * 190 * 301


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "CONTAINER", tmp_path)
    (tmp_path / "memory.current").write_text("900000000\n")
    (tmp_path / "memory.stat").write_text("anon 800000000\ninactive_file 50000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    without = resources.free_memory()
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert resources.free_memory() == 150_000_000 < without
