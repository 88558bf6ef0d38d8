import fcntl
import io
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
import zarr
from conftest import ROOT
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from rasterio.transform import from_origin

import bigimages
import cli
import figures
import images
import light
import predict
import segutils
from images import Block


PLACE = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 0.5, 0.5)}


def run(*arguments):
    """Run predict.py's main in this process; give its exit code."""
    return cli.run(lambda: predict.main(list(map(str, arguments))))


@pytest.fixture
def model_file(folder, model, scene):
    """A model file in the folder, whose masks have both classes."""
    looks = light.describe([scene[0]], [scene[1]])
    colours = ((10, 20, 30), (250, 240, 0))
    margin = segutils.margins(light.adapt(model, looks, scene[0])[0], scene[0])
    model.conv4.bias.data[1] -= float(np.median(margin))
    segutils.save_model("model.pt", model.state_dict(), colours, looks, {})
    return folder / "model.pt"


@pytest.fixture
def by_bands(monkeypatch):
    """Take every image to be too large to be held."""
    monkeypatch.setattr(bigimages, "HELD", 0)


def write_tiff(path, rgb, **more):
    """Write a TIFF by rasterio: (H, W, 3) or (H, W)."""
    planes = np.moveaxis(np.atleast_3d(rgb), -1, 0)
    count, height, width = planes.shape
    size = {"count": count, "height": height, "width": width}
    with rasterio.open(path, "w", "GTiff", dtype=rgb.dtype, **size, **more) as file:
        file.write(planes)


def picture(mode):
    """A picture of 301x190 pixels in one of Pillow's modes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (19, 43, 4)).repeat(10, 0).repeat(7, 1)
    values = (coarse + rng.integers(0, 9, coarse.shape)).clip(0, 255).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 250 + 17)
    return Image.fromarray(values, "RGBA").convert(mode)


# ------------------------------------------------------------------ in


FILES = [
    *(("png", mode) for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "I;16")),
    *(("jpg", mode) for mode in ("RGB", "L", "CMYK")),
    *(("tif", mode) for mode in ("RGB", "L", "1", "P", "RGBA", "I;16", "CMYK")),
    *(("webp", mode) for mode in ("RGB", "RGBA")),
]


@pytest.mark.parametrize(("suffix", "mode"), FILES)
def test_every_kind_is_read_as_pillow_reads_it(tmp_path, suffix, mode):
    path = tmp_path / f"a.{suffix}"
    picture(mode).save(path)
    expected = images.read_rgb(path)
    source = bigimages.open_source(path)
    assert source.shape == expected.shape[:2]
    np.testing.assert_array_equal(source.whole(), expected)
    for top, bottom, left, right in [(0, 50, 0, 301), (44, 90, 3, 40), (10, 190, 0, 9)]:
        part = source.read(Block(top, left, bottom, right))
        np.testing.assert_array_equal(part, expected[top:bottom, left:right])


def test_a_turned_photograph_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture("RGB").save(tmp_path / "a.jpg", exif=exif)
    source = bigimages.open_source(tmp_path / "a.jpg")
    np.testing.assert_array_equal(source.whole(), images.read_rgb(tmp_path / "a.jpg"))
    assert source.shape == (301, 190)


def add_chunk(path, name, data):
    """Add a chunk to a PNG, behind its pixels."""
    content = path.read_bytes()
    chunk = name + data
    chunk = struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:-12] + chunk + content[-12:])  # IEND takes 12 bytes


def test_a_png_turned_by_what_follows_its_pixels_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture("RGB").save(tmp_path / "a.png")
    add_chunk(tmp_path / "a.png", b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    source = bigimages.open_source(tmp_path / "a.png")
    np.testing.assert_array_equal(source.whole(), images.read_rgb(tmp_path / "a.png"))
    assert source.shape == (301, 190)


def test_a_png_is_opened_without_decoding_it(tmp_path, monkeypatch):
    picture("RGB").save(tmp_path / "a.png")
    add_chunk(tmp_path / "a.png", b"tEXt", b"Comment\0nothing of its orientation")

    decoded = []
    monkeypatch.setattr(PngImageFile, "load", lambda self: decoded.append(self))
    source = bigimages.open_source(tmp_path / "a.png")
    assert source.read(Block(0, 0, 10, 10)).shape == (10, 10, 3)
    assert not decoded


def test_sixteen_bit_bands_are_chosen(tmp_path):
    values = np.random.default_rng(0).integers(0, 2**16, (40, 50, 5), np.uint16)
    write_tiff(tmp_path / "a.tif", values)
    source = bigimages.open_source(tmp_path / "a.tif", [5, 1, 3])
    np.testing.assert_array_equal(source.whole(), values[..., [4, 0, 2]] >> 8)
    with pytest.raises(cli.InputError, match=r"has 5 bands \(--bands 6,1,3\)"):
        bigimages.open_source(tmp_path / "a.tif", [6, 1, 3])


@pytest.mark.parametrize("shape", [(3, 60, 70), (60, 70, 3), (1, 3, 1, 60, 70)])
def test_zarr_is_read_with_its_channels_first_or_last(tmp_path, shape):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    array = zarr.create_array(tmp_path / "a.zarr", data=values, chunks="auto")
    assert array.shape == shape
    flat = values.squeeze()
    expected = flat if flat.shape[2] == 3 else np.moveaxis(flat, 0, -1)
    source = bigimages.open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(source.whole(), expected)


def of_axes(rgb, axes):
    """An array of such axes that shows an image (H, W, 3), first in time and depth."""
    shape = {"t": 2, "c": 3, "z": 2, "y": rgb.shape[0], "x": rgb.shape[1]}
    array = np.full([shape[axis] for axis in axes], 99, np.uint8)
    order = np.transpose(rgb, ["yxc".index(axis) for axis in axes if axis in "yxc"])
    array[tuple(0 if axis in "tz" else slice(None) for axis in axes)] = order
    return array


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "yxc", "zyxc", "czyx", "tcyx", "tczyx", "xyc"])
def test_the_axes_of_ome_zarr_are_those_of_its_metadata(tmp_path, axes, version):
    rgb = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    scales = [{"axes": [{"name": axis} for axis in axes], "version": version}]
    facts = {"multiscales": scales}
    group = zarr.create_group(
        tmp_path / "a.zarr",
        attributes={"ome": facts} if version == "0.5" else facts,
        zarr_format=2 if version == "0.4" else 3,
    )
    group.create_array("0", data=of_axes(rgb, axes))
    source = bigimages.open_source(tmp_path / "a.zarr")
    assert source.shape == (60, 70)
    np.testing.assert_array_equal(source.whole(), rgb)
    np.testing.assert_array_equal(source.read(Block(4, 5, 30, 9)), rgb[4:30, 5:9])


@pytest.mark.parametrize("axes", ["cyx", "yxc", "czyx", "tczyx"])
def test_the_axes_of_another_zarr_array_are_known_by_their_number(tmp_path, axes):
    rgb = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    group = zarr.create_group(tmp_path / "a.zarr", attributes={"multiscales": "odd"})
    group.create_array("0", data=of_axes(rgb, axes))
    source = bigimages.open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(source.whole(), rgb)


def test_of_a_pyramid_the_largest_array_is_read(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    for name, side in [("10", 20), ("2", 80), ("3", 40)]:
        group.create_array(name, data=np.zeros((side, side), np.uint8))
    group.create_group("labels").create_array("0", data=np.zeros((99, 99), np.uint8))
    assert bigimages.open_source(tmp_path / "a.zarr").shape == (80, 80)


def test_the_first_image_of_a_collection_is_read(tmp_path):
    first = zarr.create_group(tmp_path / "a.zarr").create_group("0")
    first.create_array("0", data=np.zeros((80, 80), np.uint8))
    assert bigimages.open_source(tmp_path / "a.zarr").shape == (80, 80)


@pytest.mark.parametrize("shape", [(), (9,), (2, 2, 2, 2, 9, 9)])
def test_other_zarr_arrays_are_refused(tmp_path, shape):
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros(shape, np.uint8))
    with pytest.raises(cli.InputError, match=r"an array of shape \("):
        bigimages.open_source(tmp_path / "a.zarr")


def test_a_zarr_group_without_arrays_is_refused(tmp_path):
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(cli.InputError, match=r"a.zarr: is no Zarr array \("):
        bigimages.open_source(tmp_path / "a.zarr")


@pytest.mark.parametrize("text", ["1,2", "0,1,2", "a,b,c", "1,2,3,4"])
def test_other_bands_are_refused(folder, capsys, text):
    assert run("data/rgb.png", "--bands", text) == 2
    assert "invalid band_numbers value" in capsys.readouterr().err


def test_bands_of_a_png_are_refused(model_file, capsys):
    assert run("data/rgb.png", "--bands", "1,2,3") == 2
    assert "--bands goes with TIFF and Zarr only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "missing"), [("zarr", "zarr"), ("big", "rasterio"), ("map", "rasterio")]
)
def test_a_library_that_is_missing_is_asked_for(
    model_file, monkeypatch, capsys, what, missing
):
    if what == "zarr":
        zarr.create_array("a.zarr", data=np.zeros((9, 9, 3), np.uint8))
        name = "a.zarr"
    else:
        name = "a.tif"
        more = {"BIGTIFF": "YES"} if what == "big" else PLACE
        write_tiff(name, np.zeros((9, 9, 3), np.uint8), **more)
    monkeypatch.setattr(bigimages, "_has", lambda library: library != missing)
    assert run(name, "--output", "mask.png") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"needs {missing} (pip install -r requirements-big.txt)" in said


@pytest.mark.parametrize(
    ("missing", "outputs", "named"),
    [
        ("zarr", {"output": "m.tif"}, "map.tif"),
        ("zarr", {"output": "m.png"}, "map.tif"),
        ("pyvips", {"output": "m.png"}, "m.png"),
        ("pyvips", {"output": "m.tif", "overlay": "o.jpg"}, "o.jpg"),
        ("pyvips", {"output": "m.zarr", "probabilities": "p.png"}, "p.png"),
        ("rasterio", {"output": "m.tif"}, "m.tif"),
        ("rasterio", {"output": "m.png"}, "m.png"),
        ("rasterio", {"output": "m.zarr", "overlay": "o.jpg"}, "o.jpg"),
    ],
)
def test_any_library_may_be_missing(
    model_file, scene, by_bands, monkeypatch, capsys, missing, outputs, named
):
    name = "data/rgb.png" if missing == "rasterio" else "map.tif"
    write_tiff("map.tif", scene[0], **PLACE)
    before = sorted(os.listdir())
    monkeypatch.setattr(bigimages, "_has", lambda library: library != missing)
    options = [part for key in outputs for part in (f"--{key}", outputs[key])]
    assert run(name, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {named}: ")
    assert line.endswith(f" needs {missing} (pip install -r requirements-big.txt)")
    assert sorted(os.listdir()) == before


def test_ordinary_images_need_no_library(model_file, monkeypatch):
    assert run("--output", "with.png") == 0
    monkeypatch.setattr(bigimages, "_has", lambda library: False)
    assert run("--output", "alone.png") == 0
    assert Path("alone.png").read_bytes() == Path("with.png").read_bytes()


def test_too_many_pixels_are_refused_by_the_header(model_file, capsys):
    assert run("--max-pixels", 1000) == 2
    assert "230x176: more than 1,000 pixels (--max-pixels)" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_file_that_ends_early_is_told(model_file, by_bands, capsys, scene, suffix):
    with io.BytesIO() as file:
        Image.fromarray(scene[0]).save(
            file, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, "PNG")
        )
        Path(f"cut.{suffix}").write_bytes(file.getvalue()[:5000])
    before = sorted(os.listdir())
    assert run(f"cut.{suffix}", "--output", "mask.png") == 2
    said = capsys.readouterr().err
    assert f"error: cut.{suffix}: damaged image" in said.splitlines()[-1]
    assert sorted(os.listdir()) == before


# ------------------------------------------------------------------ between


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("size", [(176, 230), (731, 257), (245, 1), (1, 300)])
def test_by_bands_is_the_same_as_held(model_file, monkeypatch, suffix, size):
    rgb = np.asarray(Image.open(ROOT / "data/rgb.png"))[: size[0], : size[1]]
    Image.fromarray(rgb).save(f"a.{suffix}")
    for held, name in ((10**9, "held"), (0, "bands")):
        monkeypatch.setattr(bigimages, "HELD", held)
        outputs = ["--output", f"{name}.png", "--overlay", f"{name}-overlay.png"]
        assert run(f"a.{suffix}", *outputs, "--probabilities", f"{name}.tif") == 0
    for kind in (".png", "-overlay.png", ".tif"):
        one, other = (np.array(Image.open(n + kind)) for n in ("held", "bands"))
        np.testing.assert_array_equal(one, other)
    assert not list(Path().glob(".*"))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_a_mask_by_bands_can_be_read_back(model_file, by_bands, suffix):
    assert run("data/rgb.png", "--output", f"mask.{suffix}") == 0
    assert run("data/rgb.png", "--output", "mask.png", "--gt", "data/gt.png") == 0
    one, other = (images.read_truth(f"mask.{s}")[0] for s in (suffix, "png"))
    np.testing.assert_array_equal(one, other)
    assert 0 < one.mean() < 1


def test_what_is_known_is_not_computed_again(model_file, by_bands, monkeypatch):
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
    count = len(bigimages.bands(images.read_rgb("a.png").shape[:2]))
    assert len(seen) == count + 1  # that of the interrupt was done again
    assert Path("mask.png").read_bytes() == Path("whole.png").read_bytes()


@pytest.mark.parametrize("harm", ["lose all", "lose a chunk", "empty a chunk"])
def test_parts_that_are_lost_or_damaged_give_no_mask(
    model_file, by_bands, monkeypatch, capsys, harm
):
    shutil.copy(ROOT / "data/rgb.png", "a.png")
    fill, chunk = bigimages.Store.fill, Path(".mask.png.part/c/0/0")

    def harmed(*arguments):
        fill(*arguments)
        if harm == "lose all":
            shutil.rmtree(".mask.png.part")
        elif harm == "lose a chunk":
            chunk.unlink()
        else:
            chunk.write_bytes(b"")

    monkeypatch.setattr(bigimages.Store, "fill", harmed)
    assert run("a.png", "--output", "mask.png") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert ".mask.png.part: a part of the mask is missing or damaged (delete" in said
    assert not Path("mask.png").exists()


@pytest.mark.parametrize("changed", ["image", "model", "option", "overwrite"])
def test_what_is_left_of_something_else_is_not_used(
    model_file, by_bands, monkeypatch, changed
):
    shutil.copy(ROOT / "data/rgb.png", "a.png")
    fill = bigimages.Store.fill
    monkeypatch.setattr(
        bigimages.Store, "fill", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert run("a.png", "--output", "mask.png") == 130
    left = zarr.open_array(".mask.png.part", mode="r+")
    left[:] = 1  # as if all were known
    monkeypatch.setattr(bigimages.Store, "fill", fill)
    more = []
    if changed == "image":
        rgb = images.read_rgb("a.png")
        images.write_rgb("a.png", rgb[::-1])
    elif changed == "model":
        content = Path("model.pt").read_bytes()
        Path("model.pt").write_bytes(content + b"\0")
    elif changed == "option":
        more = ["--probabilities", "p.tif"]
    else:
        more = ["--overwrite"]
    assert run("a.png", "--output", "mask.png", *more) == 0
    assert len(np.unique(images.read_rgb("mask.png"))) > 1


def test_a_zarr_array_of_which_a_chunk_changed_is_another(tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, data=np.ones((60, 70), np.uint8), chunks=(30, 35))
    before = bigimages.identity(path)
    assert bigimages.identity(path) == before
    array[:30, :35] = 7
    assert bigimages.identity(path) != before


def test_a_band_is_known_once_all_its_chunks_are(model_file, monkeypatch):
    """A chunk that shows nothing is known, too."""
    monkeypatch.setattr(bigimages, "SIDE", 100)
    store = bigimages.Store("mask.png", {}, (300, 250), False)
    store.array[:244, :200] = bigimages.NODATA
    assert store.missing(store.blocks) == store.blocks
    store.array[:244, 200:] = 1
    assert store.missing(store.blocks) == store.blocks[1:]


def test_two_runs_do_not_share_a_mask(model_file, by_bands, capsys):
    args = Path("mask.png"), {}, (300, 300), False
    first = bigimages.Store(*args)
    assert run("data/rgb.png", "--output", "mask.png") == 2
    assert "mask.png: another run is writing it" in capsys.readouterr().err
    first.remove()
    assert run("data/rgb.png", "--output", "mask.png") == 0


def holds_its_lock(store):
    """Whether the lock that a store holds is the one that others would find."""
    held, found = os.fstat(store.lock.fileno()), os.stat(store.folder / "lock")
    return os.path.samestat(held, found)


def test_a_lock_that_is_removed_before_it_is_held_is_made_anew(folder, monkeypatch):
    args = Path("mask.png"), {}, (300, 300), False
    first, flock = bigimages.Store(*args), fcntl.flock

    def late(file, how):
        monkeypatch.undo()
        first.remove()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    second = bigimages.Store(folder / args[0], *args[1:])
    assert holds_its_lock(second)
    with pytest.raises(cli.InputError, match="another run is writing it"):
        bigimages.Store(folder / args[0], *args[1:])


def test_a_folder_that_is_removed_before_it_is_locked_is_made_anew(folder, monkeypatch):
    args = folder / "mask.png", {}, (300, 300), False
    mkdir = Path.mkdir

    def unlucky(path):
        monkeypatch.undo()
        mkdir(path)
        path.rmdir()

    monkeypatch.setattr(Path, "mkdir", unlucky)
    assert holds_its_lock(bigimages.Store(*args))


def test_a_store_is_removed_up_to_the_lock_of_the_next_run(folder, monkeypatch):
    args = folder / "mask.png", {}, (300, 300), False
    first, rmdir, stores = bigimages.Store(*args), Path.rmdir, []

    def late(path):
        monkeypatch.undo()
        stores.append(bigimages.Store(*args))
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", late)
    first.remove()
    assert holds_its_lock(*stores)
    stores[0].remove()
    assert not first.folder.exists()


KILLED = """
import sys
import bigimages, cli, predict
bigimages.HELD = 0
raise SystemExit(cli.run(predict.main, sys.argv[1:]))
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_mask(model_file):
    rgb = np.tile(np.asarray(Image.open(ROOT / "data/rgb.png")), (4, 2, 1))
    Image.fromarray(rgb).save("a.png", compress_level=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(output):
        line = [sys.executable, "-c", KILLED, "a.png", "--output", output]
        return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE)

    began = time.monotonic()
    assert start("whole.png").wait() == 0
    whole = time.monotonic() - began
    draw = random.Random(0)
    for _ in range(10):
        process = start("mask.png")
        time.sleep(draw.uniform(0.3, 0.9) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if Path("mask.png").exists():
            assert Path("mask.png").read_bytes() == Path("whole.png").read_bytes()
    assert start("mask.png").wait() == 0
    assert Path("mask.png").read_bytes() == Path("whole.png").read_bytes()


# ------------------------------------------------------------------ out


def test_a_map_keeps_its_place(model_file):
    rgb = np.asarray(Image.open(ROOT / "data/rgb.png"))
    write_tiff("map.tif", rgb, **PLACE, tiled=True)
    assert run("map.tif", "--output", "mask.tif", "--probabilities", "p.tif") == 0
    Image.fromarray(rgb).save("plain.png")
    assert run("plain.png", "--output", "plain-mask.png") == 0
    with rasterio.open("mask.tif") as mask, rasterio.open("map.tif") as image:
        assert mask.crs == image.crs == rasterio.crs.CRS.from_epsg(32633)
        assert mask.transform == image.transform
        assert mask.bounds == image.bounds
        assert mask.dtypes == ("uint8",)
        assert mask.nodata == bigimages.NODATA
        assert mask.overviews(1) == [2, 4]
        assert mask.block_shapes == [(256, 256)]
        assert mask.colormap(1)[1] == (250, 240, 0, 255)
        assert mask.compression.value == "DEFLATE"
        found = mask.read(1)
    np.testing.assert_array_equal(found, images.read_truth("plain-mask.png")[0])
    with rasterio.open("p.tif") as file:
        assert file.crs == rasterio.crs.CRS.from_epsg(32633)
        assert file.dtypes == ("float32",)
        probability = file.read(1)
    is_clear = probability != 0.5  # to which a tiny logit difference is rounded
    is_one = found == 1
    np.testing.assert_array_equal((probability > 0.5)[is_clear], is_one[is_clear])


@pytest.mark.parametrize("how", ["value", "alpha"])
def test_where_a_map_shows_nothing_there_is_no_class(model_file, scene, how):
    rgb = scene[0].clip(1)
    rgb[:, 200:] = 0
    if how == "alpha":
        alpha = np.where(np.arange(230) < 200, 255, 0).astype(np.uint8)
        rgb = np.dstack([rgb, np.broadcast_to(alpha, (176, 230))])
        write_tiff("map.tif", rgb, **PLACE, photometric="RGB", alpha="YES")
    else:
        write_tiff("map.tif", rgb, **PLACE, nodata=0)
    assert run("map.tif", "--output", "mask.tif") == 0
    with rasterio.open("mask.tif") as file:
        mask = file.read(1)
    assert (mask[:, 200:] == bigimages.NODATA).all()
    assert set(np.unique(mask[:, :200])) == {0, 1}
    assert run("map.tif", "--output", "mask.jpg") == 0
    drawn = images.read_rgb("mask.jpg")
    assert (abs(drawn[:, 200:].astype(int) - [130, 130, 15]) < 8).all()


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("colours", [((0,) * 3, (255,) * 3), ((10, 20, 30), (0, 9, 0))])
def test_a_mask_of_a_map_can_be_read_back(
    model_file, scene, monkeypatch, colours, suffix
):
    rgb = scene[0].clip(1)
    rgb[:, 200:] = 0
    write_tiff("map.tif", rgb, **PLACE, nodata=0)
    assert run("map.tif", "--output", "mask.zarr") == 0
    load = segutils.load_model
    monkeypatch.setattr(
        segutils,
        "load_model",
        lambda *args: (load(*args)[0], {**load(*args)[1], "colours": colours}),
    )
    assert run("map.tif", "--output", f"mask.{suffix}") == 0
    truth, found = images.read_truth(f"mask.{suffix}")
    by_brightness = sorted(range(2), key=lambda k: images._brightness(colours[k]))
    assert found == tuple(colours[k] for k in by_brightness)
    classes = zarr.open_array("mask.zarr", mode="r")[:]
    assert (truth[:, 200:] == images.UNLABELLED).all()
    order = np.array(by_brightness)
    np.testing.assert_array_equal(order[truth[:, :200]], classes[:, :200])


def test_where_a_map_shows_nothing_the_mask_is_not_right(model_file, scene, capsys):
    rgb = scene[0].clip(1)
    rgb[:, 200:] = 0
    write_tiff("map.tif", rgb, **PLACE, nodata=0)
    assert run("map.tif", "--output", "mask.tif", "--gt", "data/gt.png") == 0
    *_, line = capsys.readouterr().out.splitlines()
    with rasterio.open("mask.tif") as file:
        is_right = file.read(1) == scene[1]
    *_, recall, accuracy = line.split()
    assert recall == f"{is_right[scene[1] == 1].mean():.3f}"
    assert accuracy == f"{is_right.mean():.3f}"


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_map_without_data_gives_a_mask_without_classes(model_file, scene):
    write_tiff("map.tif", np.zeros_like(scene[0]), **PLACE, nodata=0)
    assert run("map.tif", "--output", "mask.tif", "--overlay", "drawn.png") == 0
    with rasterio.open("mask.tif") as file:
        assert (file.read(1) == bigimages.NODATA).all()
    assert not images.read_rgb("drawn.png").any()


def test_what_shows_nothing_tells_nothing_of_the_light(model, scene):
    rgb, truth = scene
    looks = light.describe([rgb], [truth])
    tiles = light.glimpse(*rgb.shape[:2])
    hidden = np.zeros(rgb.shape, bool)
    hidden[:, 150:] = True
    black, white = (
        np.ma.MaskedArray(np.where(hidden, v, rgb), hidden) for v in (0, 255)
    )
    black, white = black.astype(np.uint8), white.astype(np.uint8)
    one, its_light = light.adapt_to(model, looks, segutils.cut(black, tiles))
    _, other = light.adapt_to(model, looks, segutils.cut(white, tiles))
    np.testing.assert_allclose(its_light, other, rtol=0.02)  # but for the border
    nothing = np.ma.MaskedArray(rgb, True)
    same, unknown = light.adapt_to(model, looks, segutils.cut(nothing, tiles))
    assert unknown.tolist() == [1, 1, 1]
    for name, value in model.normalise.state_dict().items():
        assert torch.equal(same.normalise.state_dict()[name], value)
        assert not torch.equal(one.normalise.state_dict()[name], value)


def test_a_forecast_is_told_and_too_little_memory_refused(
    model_file, by_bands, monkeypatch, capsys
):
    assert run("--output", "mask.png") == 0
    said = capsys.readouterr().err
    assert said.startswith("data/rgb.png: 230x176 pixels, 1 tiles, at most 0.5 GB")
    monkeypatch.setattr(bigimages, "_free_memory", lambda: 1e8)
    assert run("--output", "mask.png") == 2
    assert "need 0.5 GB of memory, and 0.1 are free" in capsys.readouterr().err


def test_the_forecast_comes_before_the_first_pixel(
    model_file, by_bands, monkeypatch, capsys
):
    def refuse(*_):
        raise cli.InputError("read")

    monkeypatch.setattr(bigimages.Vips, "read", refuse)
    monkeypatch.setattr(images, "read_truth", refuse)
    assert run("--output", "mask.png", "--gt", "data/gt.png") == 2
    forecast, error = capsys.readouterr().err.splitlines()
    assert forecast.startswith("data/rgb.png: 230x176 pixels, 1 tiles, at most 0.5 GB")
    assert error == "error: read"


def needs(monkeypatch, source, *files, free=0, with_truth=False):
    """The error that a forecast ends with where so much disk is free, or None."""
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(bigimages, "_free_memory", lambda: 1e12)
    try:
        bigimages.forecast("a.png", source, *files, with_truth)
    except cli.InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("files", "pixel_bytes"),
    [
        (("m.zarr", None, None), 1 + 1),  # the store and the mask
        (("m.tif", None, None), 1 + 3),
        (("m.png", None, None), 1 + 3 + 3),  # and a TIFF that is then encoded
        (("m.tif", "o.jpg", None), 1 + 3 + 3 + 3),
        (("m.tif", None, "p.tif"), 4 + 3 + 4),
        (("m.png", "o.jpg", "p.tif"), 4 + 3 + 3 + 3 + 4),
    ],
)
def test_all_files_count_in_the_forecast(folder, monkeypatch, files, pixel_bytes):
    source = bigimages.Held(np.broadcast_to(np.uint8(0), (10**4, 10**5, 3)))
    gigabytes = 1.0 * pixel_bytes
    said = needs(monkeypatch, source, *files)
    assert f"100000x10000 pixels need {gigabytes} GB of disk in {folder}," in said
    assert needs(monkeypatch, source, *files, free=gigabytes * 1e9) is None


def test_what_an_earlier_run_left_is_not_counted_again(folder, monkeypatch):
    source = bigimages.Held(np.broadcast_to(np.uint8(0), (10**3, 10**4, 3)))
    files = "m.tif", None, None
    assert needs(monkeypatch, source, *files, free=39e6)
    Path(".m.tif.part/c/0").mkdir(parents=True)
    Path(".m.tif.part/c/0/0").write_bytes(bytes(10**6))
    assert needs(monkeypatch, source, *files, free=39e6) is None


def test_each_disk_must_have_room_for_its_own_files(folder, monkeypatch):
    Path("other").mkdir()
    monkeypatch.setattr(bigimages, "_disk", lambda folder: folder.name)
    source = bigimages.Held(np.broadcast_to(np.uint8(0), (10**4, 10**5, 3)))
    files = "m.tif", "other/o.tif", None
    assert needs(monkeypatch, source, *files, free=4e9) is None
    said = needs(monkeypatch, source, *files, free=3.5e9)
    assert f"need 4.0 GB of disk in {folder}, and 3.5 are free" in said


def test_a_truth_counts_in_the_forecast(model_file, by_bands, monkeypatch, capsys):
    monkeypatch.setattr(bigimages, "_free_memory", lambda: 0.5018e9)
    assert run("--output", "mask.png") == 0
    assert run("--output", "mask.png", "--gt", "data/gt.png") == 2
    assert "GB of memory" in capsys.readouterr().err


@pytest.mark.parametrize(("progressive", "pixel_bytes"), [(False, 0), (True, 8)])
def test_what_a_decoder_holds_counts_in_the_forecast(
    tmp_path, progressive, pixel_bytes
):
    picture("RGB").save(tmp_path / "a.jpg", progressive=progressive)
    source = bigimages.open_source(tmp_path / "a.jpg")
    assert source.held_bytes == pixel_bytes * 190 * 301


def test_a_truth_of_too_many_pixels_is_refused_by_its_header(model_file, capsys):
    Image.new("1", (1000, 1000)).save("large.png")
    options = ["--gt", "large.png", "--max-pixels", 100_000, "--output", "mask.png"]
    assert run("data/rgb.png", *options) == 2
    assert "large.png: 1000x1000: more than 100,000 pixels" in capsys.readouterr().err


def test_an_overlay_has_one_tint(model_file, by_bands, monkeypatch):
    rgb = np.full((1000, 300, 3), [60, 120, 60], np.uint8)
    rgb[:250] = figures.TINTS[0]
    Image.fromarray(rgb).save("a.png")

    def stripes(_, rgb):
        return np.broadcast_to(np.arange(rgb.shape[1]) // 20 % 2, rgb.shape[:2])

    monkeypatch.setattr(segutils.Predictor, "segment", stripes)
    assert run("a.png", "--output", "mask.png", "--overlay", "drawn.png") == 0
    edge = images.read_rgb("drawn.png")[:, 20]
    np.testing.assert_array_equal(edge, np.broadcast_to(figures.TINTS[0], edge.shape))


# ------------------------------------------------------------------ Zarr


def test_a_mask_can_be_a_zarr_array(model_file, scene):
    Image.fromarray(scene[0]).save("a.png")
    assert run("a.png", "--output", "mask.png") == 0
    for _ in range(2):  # once more, over the first
        assert run("a.png", "--output", "mask.zarr") == 0
        array = zarr.open_array("mask.zarr", mode="r")
        np.testing.assert_array_equal(array[:], images.read_truth("mask.png")[0])
    assert array.attrs["colours"] == [[10, 20, 30], [250, 240, 0]]
    names = {path.name for path in Path().iterdir()}
    assert names == {"a.png", "data", "mask.png", "mask.zarr", "model.pt"}


def test_the_suffix_of_a_zarr_array_may_be_large(model_file, scene):
    Image.fromarray(scene[0]).save("a.png")
    for _ in range(2):
        assert run("a.png", "--output", "mask.ZARR") == 0
    assert zarr.open_array("mask.ZARR", mode="r").shape == (176, 230)


def test_a_maps_zarr_array_knows_its_place(model_file, scene):
    write_tiff("map.tif", scene[0], **PLACE, nodata=0)
    assert run("map.tif", "--output", "mask.zarr", "--probabilities", "p.tif") == 0
    facts = zarr.open_array("mask.zarr", mode="r").attrs
    assert rasterio.crs.CRS.from_wkt(facts["crs"]).to_epsg() == 32633
    assert facts["transform"] == [0.5, 0, 5e5, 0, -0.5, 5e6]
    assert facts["nodata"] == bigimages.NODATA


def test_what_is_no_zarr_array_is_not_overwritten(model_file, scene, capsys):
    Path("notes.zarr").mkdir()
    Path("notes.zarr/mine.txt").write_text("mine")
    zarr.create_array("a.zarr", data=scene[0])
    assert run("a.zarr", "--output", "notes.zarr") == 2
    assert "notes.zarr: is no mask of predict.py's" in capsys.readouterr().err
    assert run("a.zarr", "--output", "a.zarr") == 2
    assert "a.zarr: is no mask of predict.py's" in capsys.readouterr().err
    assert Path("notes.zarr/mine.txt").read_text() == "mine"
    np.testing.assert_array_equal(zarr.open_array("a.zarr", mode="r")[:], scene[0])


def tree():
    return {str(p): p.stat().st_mtime_ns for p in Path().rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("image", "output"),
    [
        ("group.zarr/0", "group.zarr"),
        ("group.zarr", "group.zarr/0"),
        ("a.zarr", "a.zarr/mask.zarr"),
        ("a.zarr", "a.zarr/c/mask.png"),
        ("a.zarr", "group.zarr"),
        ("a.zarr", "link.zarr"),
        ("a.zarr", "mask.zarr"),
    ],
)
def test_nothing_but_a_mask_is_replaced(model_file, scene, capsys, image, output):
    group = zarr.create_group("group.zarr")
    for level in "01":
        group.create_array(level, data=scene[0])
    zarr.create_array("a.zarr", data=scene[0])
    assert run("a.zarr", "--output", "mask.zarr") == 0
    Path("mask.zarr/notes.txt").write_text("mine")
    Path("link.zarr").symlink_to("group.zarr")
    before = tree()
    capsys.readouterr()
    assert run(image, "--output", output) == 2
    assert capsys.readouterr().err.startswith(f"error: {output}")
    assert tree() == before


@pytest.mark.parametrize("kind", ["link", "file", "folder"])
def test_what_is_in_the_way_is_kept(model_file, scene, capsys, kind):
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
    assert last.endswith("(move it, or give another --output)")
    assert tree() == before


def test_a_damaged_chunk_is_told(model_file, scene, capsys):
    zarr.create_array("a.zarr", data=scene[0])
    (chunk,) = [p for p in Path("a.zarr/c").rglob("*") if p.is_file()]
    chunk.write_bytes(b"garbage")
    assert run("a.zarr", "--output", "m.png") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a.zarr: damaged image (")
