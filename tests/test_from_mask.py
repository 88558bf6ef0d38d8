"""The objects of a mask that is there already, of one image, and of many."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, predict_here
from PIL import Image
from samples import blobs, on_earth, place, rough, save, write_tiff

import predict
import segutils
from onelabel import jobs
from onelabel.truth import read_truth


pytestmark = pytest.mark.usefixtures("environment")

CLEAN = ("--min-area", 30, "--fill-holes", 20)
QUICK = ("--light", "none")  # as the light is not what is tested
FILES = {
    "objects": "table.csv",
    "label-image": "ids.tif",
    "polygons": "outlines.geojson",
    "rois": "rois.geojson",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def into(folder):
    """Give the options that write every file of objects into a folder."""
    Path(folder).mkdir()
    return [
        part
        for name, file in FILES.items()
        for part in (f"--{name}", f"{folder}/{file}")
    ]


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def table(path):
    how = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of any kind
    with open(path, newline="", **how) as file:
        return list(csv.DictReader(file))


def whole_scene():
    return np.array(Image.open(ROOT / "data/rgb.png"))


def mask_of(path):
    return read_truth(path)[0]


# ------------------------------------------------------------------ one mask


def test_a_mask_is_measured_and_stays_as_it_is(here, capsys):
    save("mask.png", blobs(300, 400) * 255)
    before = Path("mask.png").read_bytes(), os.stat("mask.png").st_mtime_ns
    assert predict_here("--from-mask", "mask.png", *into("found")) == 0
    assert set(contents("found")) == set(FILES.values())
    rows = table("found/table.csv")
    assert len(rows) > 20 and "mean_prob" not in rows[0]
    told = f"mask.png: 40.4% of mask.png is class 1 ({len(rows)} objects)\n"
    assert capsys.readouterr() == (told, "")
    assert (Path("mask.png").read_bytes(), os.stat("mask.png").st_mtime_ns) == before
    assert sorted(os.listdir()) == ["found", "mask.png"]


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "zarr"])
def test_a_cleaned_mask_is_written_in_the_colours_of_the_first(here, suffix):
    classes = rough(90, 120, 3, 0.4, 0)
    save("mask.png", np.uint8([[9, 90, 9], [250, 200, 90]])[classes])
    output = f"clean.{suffix}"
    assert predict_here("--from-mask", "mask.png", *CLEAN, "--output", output) == 0
    cleaned, colours = read_truth(output)
    assert (cleaned != classes).any()
    if suffix in ("png", "tif"):
        assert colours == ((9, 90, 9), (250, 200, 90))
    assert predict_here("--from-mask", output, "--objects", "t.csv") == 0
    assert min(int(row["area_px"]) for row in table("t.csv")) >= 30
    assert predict_here("--from-mask", "mask.png", *CLEAN, "--objects", "u.csv") == 0
    assert Path("u.csv").read_bytes() == Path("t.csv").read_bytes()


@pytest.mark.parametrize("kind", ["png", "jpg", "map"])
def test_it_gives_what_one_run_with_the_image_gives(trained_file, scene, kind):
    rgb = scene[0]
    name, suffix = ("a.tif", "tif") if kind == "map" else ("a.png", kind)
    if kind == "map":
        rgb = np.where(np.indices(rgb.shape[:2])[1][..., None] < 30, 0, rgb.clip(1))
        write_tiff(name, rgb, **place(), nodata=0)
    else:
        save(name, rgb)
    mask, clean = f"mask.{suffix}", f"clean.{suffix}"
    assert predict_here(name, "--output", mask) == 0
    assert predict_here(name, *CLEAN, "--output", clean, *into("one")) == 0
    options = ["--from-mask", mask, *CLEAN, "--output", f"two.{suffix}", *into("two")]
    assert predict_here(*options) == 0
    assert Path(f"two.{suffix}").read_bytes() == Path(clean).read_bytes()
    one, two = contents("one"), contents("two")
    assert one["ids.tif"] == two["ids.tif"]
    rows = table("one/table.csv")
    assert len(rows) > 5
    assert [0 <= float(row.pop("mean_prob")) <= 1 for row in rows] == [True] * len(rows)
    assert rows == table("two/table.csv")
    shapes = [
        [feature["geometry"] for feature in json.loads(files[name])["features"]]
        for files in (one, two)
        for name in ("outlines.geojson", "rois.geojson")
    ]
    assert shapes[:2] == shapes[2:]
    if kind == "map":
        assert min(float(row["map_x"]) for row in rows) > 5e5 + 15  # no data before


def test_an_image_larger_than_memory_gives_the_same_files(
    trained_file, none_held, monkeypatch
):
    save("a.png", whole_scene()[:300, :520])
    how = [*QUICK, *CLEAN, "--output"]
    assert predict_here("a.png", *how, "m.png", *into("large")) == 0
    options = ["--from-mask", "m.png", *CLEAN, "--output", "n.png", *into("again")]
    assert predict_here(*options) == 0
    monkeypatch.undo()
    monkeypatch.chdir(trained_file.parent)
    assert predict_here("a.png", *how, "held.png", *into("held")) == 0
    assert contents("held") == contents("large")
    assert Path("held.png").read_bytes() == Path("m.png").read_bytes()
    assert Path("n.png").read_bytes() == Path("m.png").read_bytes()
    assert contents("again")["ids.tif"] == contents("held")["ids.tif"]
    assert len(table("held/table.csv")) > 50


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_mask_larger_than_memory_gives_the_same_files(
    here, none_held, monkeypatch, suffix
):
    classes = rough(300, 520, 3, 0.4, 0)
    save(f"mask.{suffix}", classes * 255)
    options = ["--from-mask", f"mask.{suffix}", *CLEAN, "--output"]
    assert predict_here(*options, "large.png", *into("large")) == 0
    assert sorted(os.listdir()) == ["large", "large.png", f"mask.{suffix}"]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert predict_here(*options, "held.png", *into("held")) == 0
    assert contents("held") == contents("large")
    assert Path("held.png").read_bytes() == Path("large.png").read_bytes()


def test_a_zarr_mask_is_cleaned_to_a_zarr_mask(here):
    classes = rough(300, 400, 3, 0.4, 0.02)
    write_tiff("mask.tif", classes, **place(), nodata=255)
    assert predict_here("--from-mask", "mask.tif", "--output", "mask.zarr") == 0
    for mask in ("mask.tif", "mask.zarr"):
        options = ["--from-mask", mask, *CLEAN, "--output", f"{mask}.clean.zarr"]
        assert predict_here(*options) == 0
    first, second = mask_of("mask.tif.clean.zarr"), mask_of("mask.zarr.clean.zarr")
    np.testing.assert_array_equal(first, second)
    assert (first != np.where(classes == 255, 255, classes)).any()
    np.testing.assert_array_equal(first == 255, classes == 255)


def test_a_map_says_its_square_metres(here, capsys):
    write_tiff("mask.tif", blobs(200, 300), **place())
    assert predict_here("--from-mask", "mask.tif", "--min-area", "5m2") == 0
    pixels = int(blobs(200, 300).sum())
    assert f"objects; {pixels / 4:,.1f} m2)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more",
    [
        ["a.png"],
        ["--gt", "g.png"],
        ["--overlay", "o.jpg"],
        ["--probabilities", "p.tif"],
        ["--light", "none"],
        ["--workers", "2"],
        ["--bands", "3,2,1"],
    ],
)
def test_what_needs_an_image_is_refused(here, capsys, more):
    save("mask.png", blobs(30, 40) * 255)
    assert predict_here("--from-mask", "mask.png", *more) == 2
    idle = more[0] if more[0].startswith("--") else "the image"
    line = f"error: --from-mask mask.png: no image is segmented (leave out {idle})"
    assert capsys.readouterr().err == f"{line}\n"
    assert os.listdir() == ["mask.png"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["mask.png", "--output", "mask.png"], "mask.png: would overwrite the input"),
        (["none.png"], "none.png: no such file"),
        (["."], ".: is a folder"),
        (["grey.png"], "grey.png: 200 colours found, expected 2"),
        (["mask.png", "--objects", "t.txt"], "t.txt: unknown suffix '.txt' (use .csv)"),
        (["mask.png", "--polygons", "t.kml"], "t.kml: unknown suffix '.kml'"),
        (["mask.png", "--rois", "t.roi"], "t.roi: unknown suffix '.roi'"),
        (["mask.png", "--label-image", "t.jpg"], "t.jpg: unknown suffix '.jpg'"),
        (["mask.png", "--simplify", "-1"], "argument --simplify: -1: expected a"),
        (
            ["mask.png", "--polygons", "t.geojson", "--rois", "t.geojson"],
            "t.geojson: would overwrite the output t.geojson",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(here, capsys, options, told):
    save("mask.png", blobs(30, 40) * 255)
    save("grey.png", np.arange(200, dtype=np.uint8).reshape(20, 10))
    assert predict_here("--from-mask", *options) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}") and said.count("\n") == 1
    assert sorted(os.listdir()) == ["grey.png", "mask.png"]


LIBRARIES = {
    "objects": ["scipy", "skimage"],
    "label-image": ["scipy", "skimage"],
    "polygons": ["scipy", "skimage", "shapely", "rasterio", "pyogrio"],
    "rois": ["scipy", "skimage", "shapely", "rasterio", "roifile"],
}


@pytest.mark.parametrize(
    ("option", "library"),
    [(option, library) for option, needed in LIBRARIES.items() for library in needed],
)
def test_a_missing_library_is_named_before_any_work(
    here, monkeypatch, capsys, option, library
):
    save("mask.png", blobs(30, 40) * 255)
    monkeypatch.setattr("onelabel.libraries.has", lambda name: name != library)
    assert predict_here("--from-mask", "mask.png", f"--{option}", FILES[option]) == 2
    line = f"error: {FILES[option]}: --{option} needs {library} (pip install -r "
    assert capsys.readouterr().err == f"{line}requirements/objects.txt)\n"
    assert os.listdir() == ["mask.png"]


def test_cleaning_needs_scipy_and_a_mask_alone_needs_nothing(
    trained_file, monkeypatch, capsys
):
    for module in ("onelabel.libraries", "onelabel.object_files"):
        monkeypatch.setattr(
            f"{module}.has", lambda name: name in ("rasterio", "pyvips")
        )
    assert predict_here("--min-area", 5) == 2
    line = "error: --min-area: cleaning needs scipy (pip install -r "
    assert capsys.readouterr().err == f"{line}requirements/objects.txt)\n"
    assert predict_here() == 0
    assert "objects" not in capsys.readouterr().out


# ------------------------------------------------------------------ cleaning


def test_scores_and_overlay_are_of_the_cleaned_mask(trained_file, capsys):
    options = ["--gt", "data/gt.png", "--overlay", "o.png", "--output"]
    assert predict_here(*options, "whole.png") == 0
    whole, overlay = capsys.readouterr().out, Path("o.png").read_bytes()
    assert predict_here(*options, "clean.png", *CLEAN) == 0
    clean = capsys.readouterr().out
    assert whole.splitlines()[-1] != clean.splitlines()[-1]
    assert Path("o.png").read_bytes() != overlay
    share = (mask_of("clean.png") == 1).mean()
    assert f"{share:.1%} of data/rgb.png is class 1" in clean


def test_probabilities_stay_as_the_network_gave_them(trained_file):
    for name, more in (("a", []), ("b", CLEAN)):
        options = ["--output", f"{name}.png", "--probabilities", f"{name}.tif"]
        assert predict_here(*options, *more) == 0
    assert Path("a.png").read_bytes() != Path("b.png").read_bytes()
    assert Path("a.tif").read_bytes() == Path("b.tif").read_bytes()


@pytest.mark.parametrize("again", [CLEAN, ("--min-area", 4), ()])
def test_a_cleaned_part_of_a_killed_run_is_no_part_of_another(
    trained_file, none_held, monkeypatch, again
):
    """Of a large image the mask is kept on disk; what is cleaned away is lost there."""
    save("a.png", whole_scene()[:300, :520])

    def fails(*_):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(predict, "write", fails)
        assert predict_here("a.png", *QUICK, *CLEAN, "--output", "mask.png") == 2
    assert Path(".mask.png.part").exists()
    assert predict_here("a.png", *QUICK, *again, "--output", "mask.png") == 0
    assert predict_here("a.png", *QUICK, *again, "--output", "whole.png") == 0
    assert Path("mask.png").read_bytes() == Path("whole.png").read_bytes()


@pytest.mark.parametrize("changed", ["cleaning", "mask", "nothing"])
def test_a_part_of_a_killed_run_is_used_for_the_same_mask_alone(
    here, none_held, monkeypatch, changed
):
    save("mask.png", rough(300, 520, 3, 0.4, 0) * 255)

    def fails(*_):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(predict, "write_mask", fails)
        options = ["--from-mask", "mask.png", *CLEAN, "--output", "clean.png"]
        assert predict_here(*options) == 2
    assert Path(".clean.png.part").exists()
    clean = ["--min-area", 4] if changed == "cleaning" else CLEAN
    if changed == "mask":
        save("mask.png", rough(300, 520, 4, 0.4, 0) * 255)
    options = ["--from-mask", "mask.png", *clean, "--output"]
    assert predict_here(*options, "clean.png") == 0
    assert predict_here(*options, "whole.png") == 0
    assert Path("clean.png").read_bytes() == Path("whole.png").read_bytes()
    assert not list(Path().glob(".*"))


# ------------------------------------------------------------------ many images


@pytest.fixture
def photos(trained_file, scene):
    """A folder of three images of which one is a map, a folder of masks, a model."""
    Path("photos").mkdir()
    Path("masks").mkdir()
    rgb = scene[0]
    save("photos/a.png", rgb)
    save("photos/b.png", rgb[::-1, :150])
    write_tiff("photos/c.tif", rgb[:90], **place())
    return trained_file.parent


def run(*more):
    return predict_here("photos", "--output", "masks", *QUICK, *more)


def rows():
    return {row["image"]: row for row in table("masks/summary.csv")}


def assert_complete(*names):
    """Assert that the summary has exactly the rows of what the masks show."""
    found = rows()
    lines = Path("masks/summary.csv").read_text().splitlines()
    assert len(lines) == 1 + len(names) == 1 + len(found)
    for name in names:
        row, mask = found[f"photos/{name}"], mask_of(found[f"photos/{name}"]["mask"])
        assert int(row["area_px"]) == (mask == 1).sum()
        assert float(row["share"]) == pytest.approx((mask == 1).mean(), abs=1e-6)
        assert row["warning"] == ""


def test_a_folder_gets_a_summary(photos):
    assert run(*CLEAN) == 0
    assert_complete("a.png", "b.png", "c.tif")
    found = rows()
    for name, row in found.items():
        options = [*QUICK, *CLEAN, "--output", "one.png", "--objects", "t.csv"]
        assert predict_here(name, *options) == 0
        assert int(row["objects"]) == len(table("t.csv"))
        area = row["area_m2"]
        assert area == (str(int(row["area_px"]) / 4) if name.endswith(".tif") else "")
    assert found["photos/b.png"]["mask"] == "masks/b.png"


def test_a_summary_is_complete_after_a_run_that_was_interrupted(photos, monkeypatch):
    segment, seen = segutils.Predictor.segment, []

    def dies(predictor, rgb):
        seen.append(rgb)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return segment(predictor, rgb)

    monkeypatch.setattr(segutils.Predictor, "segment", dies)
    assert run() == 130
    assert_complete("a.png")
    assert run() == 0
    assert_complete("a.png", "b.png", "c.tif")
    assert run() == 0  # with nothing left to do
    assert_complete("a.png", "b.png", "c.tif")


@pytest.mark.parametrize("when", ["before", "half"])
def test_a_row_that_a_kill_lost_is_written_by_the_next_run(photos, monkeypatch, when):
    """The journal and the summary cannot be written at once."""

    def dies(journal, row):
        if when == "half":
            with open(journal.summary, "a") as file:
                file.write("photos/a.png,mas")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs.Journal, "add_row", dies)
        assert run() == 130
    assert run() == 0
    assert_complete("a.png", "b.png", "c.tif")


def test_errors_are_rows_until_they_are_mended(photos, capsys):
    whole = Path("photos/b.png").read_bytes()
    Path("photos/b.png").write_bytes(whole[:500])
    for _ in range(2):
        assert run() == 1
        found = rows()
        assert set(found) == {"photos/a.png", "photos/b.png", "photos/c.tif"}
        row = found["photos/b.png"]
        assert row["warning"].startswith("photos/b.png: damaged image")
        assert {row[name] for name in ("mask", "share", "area_px", "objects")} == {""}
    Path("photos/b.png").write_bytes(whole)
    assert run() == 0
    assert_complete("a.png", "b.png", "c.tif")


def test_warnings_are_told_in_the_summary_too(photos):
    save("photos/black.png", np.zeros((40, 50, 3), np.uint8))
    assert run() == 0
    assert rows()["photos/black.png"]["warning"] != ""


def test_masks_of_other_folders_stay_in_the_summary_while_they_exist(photos, scene):
    assert run() == 0
    Path("more").mkdir()
    save("more/d.png", scene[0][:50])
    assert predict_here("more", "--output", "masks", *QUICK) == 0
    assert set(rows()) == {"photos/a.png", "photos/b.png", "photos/c.tif", "more/d.png"}
    Path("masks/b.png").unlink()
    assert predict_here("more", "--output", "masks", *QUICK) == 0
    assert set(rows()) == {"photos/a.png", "photos/c.tif", "more/d.png"}


def test_a_foreign_summary_is_refused_and_stays(photos, capsys):
    for content in (b"name,value\n1,2\n", b"", b"\xff\xfe\x00", b"image,mask\n"):
        Path("masks/summary.csv").write_bytes(content)
        assert run() == 2
        line = "error: masks/summary.csv: was not made by this program (move it)\n"
        assert capsys.readouterr().err == line
        assert Path("masks/summary.csv").read_bytes() == content
        assert os.listdir("masks") == ["summary.csv"]


NAMES = [
    'a, "b".png',
    "Stück 1.png",
    "日本語.png",
    "two\nlines.png",
    os.fsdecode(b"latin-\xfc.png"),  # as old archives leave them
]


def test_a_summary_holds_names_of_any_kind(photos):
    for path in Path("photos").iterdir():
        path.unlink()
    for name in NAMES:
        save(f"photos/{name}", blobs(30, 40)[..., None].repeat(3, 2) * 200)
    for _ in range(2):
        assert run() == 0
        found = table("masks/summary.csv")
        assert {row["image"] for row in found} == {f"photos/{name}" for name in NAMES}
        assert all(Path(row["mask"]).exists() for row in found)
        assert len(found) == len(NAMES)


def test_masks_cleaned_in_another_way_are_made_again(photos, capsys):
    def states():
        return {p.name: p.stat().st_mtime_ns for p in Path("masks").glob("*.png")}

    assert run("--min-area", 30) == 0
    before, first = states(), rows()
    capsys.readouterr()
    assert run("--min-area", "30px") == 0  # the same
    assert "3 of 3 images are done already" in capsys.readouterr().out
    assert states() == before
    for other in (["--min-area", 31], ["--min-area", 30, "--fill-holes", 9], []):
        assert run(*other) == 0
        assert all(states()[name] != before[name] for name in before)
        assert "done already" not in capsys.readouterr().out
        before = states()
    assert rows() != first
    assert_complete("a.png", "b.png", "c.tif")


@pytest.mark.parametrize("option", FILES)
def test_a_file_of_objects_goes_with_one_image_only(photos, capsys, option):
    assert run(f"--{option}", FILES[option]) == 2
    line = f"error: --{option} {FILES[option]}: goes with one image only\n"
    assert capsys.readouterr().err == line
    assert os.listdir("masks") == []


def test_square_metres_in_a_folder_are_told_of_each_image_that_is_no_map(
    photos, capsys
):
    assert run("--min-area", "5m2") == 1
    said = capsys.readouterr()
    assert said.out.count("is class 1") == 1
    assert "error: photos/a.png: 5m2 asked for" in said.err
    found = rows()
    assert found["photos/c.tif"]["warning"] == ""
    assert found["photos/a.png"]["warning"].startswith("photos/a.png: 5m2 asked for")


@pytest.mark.parametrize(
    ("output", "told"),
    [("missing/clean.png", "is missing (make it)"), ("", "file name is empty")],
)
def test_an_output_that_cannot_be_written_is_told_before_any_work(
    here, capsys, output, told
):
    save("mask.png", blobs(40, 50) * 255)
    assert predict_here("--from-mask", "mask.png", "--output", output) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("value", "count"), [(0, 0), (255, 1), (1, 1)])
def test_a_mask_of_one_colour_is_all_one_class(here, value, count):
    save("mask.png", np.full((20, 30), value, np.uint8))
    assert predict_here("--from-mask", "mask.png", "--objects", "o.csv") == 0
    assert len(table("o.csv")) == count


def test_an_option_that_would_do_nothing_is_refused(here, capsys):
    save("mask.png", blobs(40, 50) * 255)
    assert predict_here("--from-mask", "mask.png", "--simplify", "1") == 2
    assert "--simplify 1: goes with --polygons" in capsys.readouterr().err


def test_what_a_mask_cannot_tell_is_refused_before_any_work(here, capsys, monkeypatch):
    save("mask.png", blobs(30, 40) * 255)
    monkeypatch.setattr(predict, "store_beside", None)  # any work would fail
    assert predict_here("--from-mask", "mask.png", "--min-area", "2m2") == 2
    assert "mask.png: 2m2 asked for" in capsys.readouterr().err


def test_an_image_is_refused_before_any_work(trained_file, capsys, monkeypatch):
    monkeypatch.setattr(predict, "store_beside", None)
    assert predict_here("--fill-holes", "2m2") == 2
    assert "data/rgb.png: 2m2 asked for" in capsys.readouterr().err


def test_objects_of_exactly_the_least_area_stay(here):
    mask = np.zeros((60, 60), np.uint8)
    mask[5:15, 5:15], mask[30:39, 30:40] = 255, 255  # 1 and 0.9 square metres
    where = on_earth("EPSG:32632", 0.1, corner=(412345.6, 5321098.7))
    write_tiff("mask.tif", mask, **where)
    line = ["--from-mask", "mask.tif", "--min-area", "1m2", "--objects", "t.csv"]
    assert predict_here(*line) == 0
    (row,) = table("t.csv")
    assert float(row["area_m2"]) == pytest.approx(1, abs=1e-12)


def test_a_mask_is_measured_where_nothing_can_be_written(here, none_held):
    Path("masks/.mask.png.part").mkdir(parents=True)
    save("masks/mask.png", blobs(300, 400) * 255)
    Path("masks/.mask.png.part/lock").touch()  # of a run that goes on later
    before = sorted(map(str, Path("masks").rglob("*")))
    os.chmod("masks", 0o555)
    assert predict_here("--from-mask", "masks/mask.png", "--objects", "t.csv") == 0
    os.chmod("masks", 0o755)
    assert sorted(map(str, Path("masks").rglob("*"))) == before
    assert sorted(os.listdir()) == ["masks", "t.csv"]


@pytest.mark.parametrize("colour", [(0, 255, 0), (0, 114, 178), (130, 0, 0)])
def test_a_mask_of_one_bright_colour_is_class_1(here, capsys, colour):
    save("mask.png", np.full((20, 30, 3), colour, np.uint8))
    assert predict_here("--from-mask", "mask.png") == 0
    assert "100.0% of mask.png is class 1 (1 object)" in capsys.readouterr().out


def test_polygons_where_a_name_would_be_cut_are_refused(here, capsys):
    Path("a!b").mkdir()
    save("a!b/mask.png", blobs(30, 40) * 255)
    line = ["--from-mask", "a!b/mask.png", "--polygons", "a!b/o.gpkg"]
    assert predict_here(*line) == 2
    assert "rename what has a !" in capsys.readouterr().err
