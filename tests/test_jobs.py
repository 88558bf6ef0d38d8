import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import distributed
import numpy as np
import pytest
import torch
from conftest import ROOT, predict_here
from PIL import Image

import predict
import segutils
from onelabel import jobs, light, model_file
from onelabel.jobs import Job
from onelabel.reading import open_image
from onelabel.writing import write_picture


pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def photos(folder, model, scene):
    """A folder of four images in a tree, a folder for masks, and a model."""
    looks = {
        "network": model,
        "larger": 0,
        "colour": [90.0, 80.0, 70.0],
        "contrast": [9.0, 8.0, 7.0],
        "lowest": [0.0] * 3,
        "highest": [255.0] * 3,
        "error": [0.0, 0.0],
    }
    model_file.save("model.pt", model.state_dict(), looks, ((0,) * 3, (255,) * 3))
    for name in ("a.png", "deep/b.jpg", "deep/er/c.tif", "d.bmp"):
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene[0][:40, :50]).save(path)
    Path("photos/notes.txt").write_text("no image")
    Path("photos/.hidden.png").write_text("no image")
    Path("masks").mkdir()
    return folder


def run(*arguments):
    return predict_here("photos", "--output", "masks", *arguments)


def masks():
    return {str(p): p.stat().st_mtime_ns for p in sorted(Path("masks").rglob("*.png"))}


def test_a_folder_keeps_its_tree(photos, capsys):
    assert run() == 0
    expected = ["masks/a.png", "masks/d.png", "masks/deep/b.png", "masks/deep/er/c.png"]
    assert sorted(masks()) == expected
    assert capsys.readouterr().out.count("is class 1") == 4
    for mask in masks():
        assert open_image(mask).whole().shape == (40, 50, 3)


def test_what_is_done_is_skipped(photos, capsys):
    assert run() == 0
    before = masks()
    Path("masks/d.png").unlink()
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save("photos/a.png")
    capsys.readouterr()
    assert run() == 0
    said = capsys.readouterr().out
    assert "2 of 4 images are done already" in said
    assert said.count("is class 1") == 2
    after = masks()
    same = [name for name in before if before[name] == after[name]]
    assert same == ["masks/deep/b.png", "masks/deep/er/c.png"]


CHANGES = ["model", "option", "light", "overwrite", "mask", "device", "PyTorch"]


@pytest.mark.parametrize("changed", CHANGES)
def test_masks_of_something_else_are_made_again(photos, monkeypatch, changed):
    assert run() == 0
    before = masks()
    more = []
    if changed == "model":
        Path("model.pt").write_bytes(Path("model.pt").read_bytes() + b"\0")
    elif changed == "option":
        more = ["--precision", "bf16"]
    elif changed == "light":
        more = ["--light", "none"]
    elif changed == "overwrite":
        more = ["--overwrite"]
    elif changed == "device":
        key = model_file.Trained.key
        elsewhere = {"device": "cuda"}
        monkeypatch.setattr(
            model_file.Trained, "key", lambda trained: key(trained) | elsewhere
        )
    elif changed == "PyTorch":
        monkeypatch.setattr(torch, "__version__", "0.0")
    else:
        for name in before:
            Path(name).write_bytes(b"something else")
    assert run(*more) == 0
    assert all(masks()[name] != before[name] for name in before)
    assert all(open_image(name).whole().shape == (40, 50, 3) for name in before)


def test_the_precision_asked_for_is_used(photos, monkeypatch, capsys):
    used, plain = [], segutils.Predictor

    def predictor(model, precision=torch.float32):
        used.append(precision)
        return plain(model, precision)

    monkeypatch.setattr(segutils, "Predictor", predictor)
    names = set(segutils.PRECISIONS) - (set() if segutils.has_integers() else {"int8"})
    for name in sorted(names):
        precision = segutils.PRECISIONS[name]
        used.clear()
        assert run("--precision", name) == 0
        assert used.count(precision) >= 4  # one for each image
    assert capsys.readouterr().err == ""


DARK = light.Light((0.5, 0.6, 0.7), (0.8, 0.8, 0.8))


@pytest.fixture
def estimates(monkeypatch):
    """The samples that a light was estimated from; it is always `DARK`."""
    seen = []

    def estimate(looks, sample):
        seen.append(sample)
        return DARK

    monkeypatch.setattr(light, "estimate", estimate)
    return seen


def test_each_image_is_seen_in_its_own_light(photos, estimates, capsys):
    assert run() == 0
    assert len(estimates) == 4
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    told = r"is class 1 \([\d,]+ objects?; light: 0.50 red, 0.60 green, 0.70 blue\)$"
    assert all(re.search(told, line) for line in lines)


def test_a_folder_may_have_one_light(photos, estimates, monkeypatch, capsys):
    monkeypatch.setattr(predict, "SAMPLED", 3)
    Path("photos/broken.png").write_text("no image")
    assert run("--light", "folder") == 1
    (sample,) = estimates
    assert len(sample) <= 3
    out, err = capsys.readouterr()
    told = "light of all images together: 0.50 red, 0.60 green, 0.70 blue"
    assert out.splitlines()[0] == told
    assert "photos/broken.png" in err and "1 of 5 images failed" in err
    # The light is part of what a mask is made with.
    os.remove("photos/broken.png")
    assert run("--light", "folder") == 0
    assert "4 of 4 images are done already" in capsys.readouterr().out
    monkeypatch.setattr(light, "estimate", lambda *_: light.SAME)
    before = masks()
    assert run("--light", "folder") == 0
    assert all(masks()[name] != before[name] for name in before)


def test_no_light_may_be_allowed_for(photos, estimates, capsys):
    assert run("--light", "none") == 0
    assert estimates == []
    assert "light" not in capsys.readouterr().out
    trained = model_file.load("model.pt")
    rgb = open_image("photos/a.png").whole()
    expected = segutils.segment(trained.model, rgb)
    mask = (open_image("masks/a.png").whole() == trained.colours[1]).all(-1)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("option", "name"),
    [("gt", "gt.png"), ("overlay", "o.png"), ("probabilities", "p.tif")],
)
def test_what_a_journal_does_not_know_is_made(photos, capsys, option, name):
    write_picture("gt.png", np.tile(np.uint8([[[0]], [[255]]]), (20, 50, 3)))
    arguments = ["photos/a.png", "--output", "masks"]
    assert predict_here(*arguments) == 0
    assert predict_here(*arguments, f"--{option}", name) == 0
    assert Path(name).exists()
    said = capsys.readouterr().out
    assert "done already" not in said
    assert ("accuracy" in said) == (option == "gt")


def test_what_is_done_is_known_however_the_folder_is_named(photos, capsys):
    assert run() == 0
    capsys.readouterr()
    again = ["photos", "--output", str(Path("masks").resolve())]
    assert predict_here(*again) == 0
    assert "4 of 4 images are done already" in capsys.readouterr().out


def test_a_journal_that_was_cut_off_is_no_fault(photos):
    assert run() == 0
    journal = Path("masks", jobs.JOURNAL)
    journal.write_text(journal.read_text()[:-30] + "\n[]\n")
    before = masks()
    assert run() == 0
    assert sum(before[name] != masks()[name] for name in before) == 1


def test_bad_files_are_told_at_the_end_and_the_others_done(photos, scene, capsys):
    for index in range(6):
        Image.fromarray(scene[0][:30, : 30 + index]).save(f"photos/{index}.png")
    whole = Path("photos/1.png").read_bytes()
    Path("photos/1.png").write_bytes(whole[:200])
    Path("photos/3.png").write_bytes(b"")
    Path("photos/d.bmp").write_bytes(b"BM no image")
    assert run() == 1
    said = capsys.readouterr()
    assert said.out.count("is class 1") == 7
    *errors, last = said.err.splitlines()
    assert [line.split(":")[1] for line in errors] == [
        " photos/1.png",
        " photos/3.png",
        " photos/d.bmp",
    ]
    assert last == "3 of 10 images failed"
    assert len(masks()) == 7
    Path("photos/1.png").write_bytes(whole)
    assert run() == 1
    assert "7 of 10 images are done already" in capsys.readouterr().out


def test_two_images_of_one_mask_are_refused(photos, capsys):
    Image.open("photos/a.png").save("photos/a.jpg")
    assert run() == 2
    line = "error: photos/a.png: photos/a.jpg has the same mask, masks/a.png"
    assert capsys.readouterr().err == f"{line} (rename one)\n"
    assert not list(Path("masks").iterdir())


def test_a_file_in_the_way_of_a_folder_is_told_before_any_work(photos, capsys):
    Path("masks/deep").touch()
    assert run() == 2
    assert "b.png: the folder masks/deep is missing" in capsys.readouterr().err
    assert os.listdir("masks") == ["deep"]


def test_a_mask_in_the_way_of_a_folder_is_told_before_any_work(photos, capsys):
    Path("more/a.png").mkdir(parents=True)
    shutil.copy("photos/d.bmp", "more/a.png/d.bmp")
    assert predict_here("photos", "more", "--output", "masks") == 2
    assert (
        "masks/a.png/d.png: is inside the output masks/a.png" in capsys.readouterr().err
    )
    assert not list(Path("masks").iterdir())


def test_folders_are_made_only_for_masks(photos):
    Path("photos/bad").mkdir()
    Path("photos/bad/a.png").write_bytes(b"no image")
    assert run() == 1
    assert {path.name for path in Path("masks").iterdir()} == {
        *(jobs.JOURNAL, jobs.SUMMARY),
        *("a.png", "d.png", "deep"),
    }


def test_a_folder_without_images_is_told(photos, capsys):
    Path("empty").mkdir()
    assert predict_here("empty", "--output", "masks") == 2
    assert capsys.readouterr().err.startswith("error: empty: holds no images (.png")


def test_the_documents_name_the_exit_codes():
    text = (ROOT / "docs/commands.md").read_text()
    assert "| 1 | some of many images could not be used" in text


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["a.png"]),
        ("photos/**/*.jpg", ["deep/b.png"]),
        ("photos/[ad]*", ["a.png", "d.png"]),
        ("ph*/deep/*", ["photos/deep/b.png"]),
    ],
)
def test_a_pattern_that_the_shell_left_is_taken(photos, pattern, expected):
    assert predict_here(pattern, "--output", "masks") == 0
    assert sorted(masks()) == [f"masks/{name}" for name in expected]


def test_a_pattern_without_images_is_told(photos, capsys):
    assert predict_here("photos/*.xyz", "--output", "masks") == 2
    assert "error: photos/*.xyz: matches no images" in capsys.readouterr().err


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(photos):
    Path("photos/a.png").rename("a[1].png")
    assert predict_here("a[1].png", "--output", "masks") == 0
    assert list(masks()) == ["masks/a[1].png"]


@pytest.mark.parametrize("name", [".data/photos", ".data/photos/**/*"])
def test_a_folder_below_a_hidden_one_is_read(photos, name):
    Path(".data").mkdir()
    Path("photos").rename(".data/photos")
    assert predict_here(name, "--output", "masks") == 0
    names = ["a.png", "d.png", "deep/b.png", "deep/er/c.png"]
    assert list(masks()) == [f"masks/{name}" for name in names]


def test_a_journal_with_bytes_that_are_no_text_is_no_fault(photos, capsys):
    assert run() == 0
    journal = Path("masks", jobs.JOURNAL)
    journal.write_bytes(b'\xff\xfe\n{"mask": "\xff"}\n' + journal.read_bytes())
    capsys.readouterr()
    assert run() == 0
    assert "4 of 4 images are done already" in capsys.readouterr().out


def test_a_cut_off_line_of_the_journal_does_not_spoil_the_next(photos, capsys):
    assert run() == 0
    journal = Path("masks", jobs.JOURNAL)
    journal.write_bytes(journal.read_bytes()[:-30])
    assert run() == 0
    capsys.readouterr()
    assert run() == 0
    assert "4 of 4 images are done already" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["photos", "photos/**/*"])
def test_masks_in_a_folder_among_the_images_are_no_images(photos, name, capsys):
    Path("photos/masks").mkdir()
    for said in ("is class 1", "4 of 4 images are done already"):
        assert predict_here(name, "--output", "photos/masks") == 0
        assert said in capsys.readouterr().out
    assert len(list(Path("photos/masks").rglob("*.png"))) == 4


def test_images_below_the_folder_of_the_masks_are_read(photos):
    assert predict_here("photos", "--output", ".") == 0
    assert Path("deep/er/c.png").exists()


# ------------------------------------------------------------------ workers


def test_workers_share_a_folder(trained_file, scene, capsys):
    for index in range(5):
        path = Path("photos", str(index % 2), f"{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene[0][:60, : 40 + index]).save(path)
    path.write_bytes(b"no image")
    for masks, more in (("one", ()), ("two", ("--workers", 2))):
        Path(masks).mkdir()
        assert predict_here("photos", "--output", masks, *more) == 1
        said = capsys.readouterr()
        assert said.out.count("is class 1") == 4
        assert "1 of 5 images failed" in said.err
    found = {p.relative_to("one"): p.read_bytes() for p in Path("one").rglob("*.png")}
    assert len(found) == 4
    for place, mask in found.items():
        assert Path("two", place).read_bytes() == mask
    assert predict_here("photos", "--output", "two", "--workers", 2) == 1
    assert "4 of 5 images are done already" in capsys.readouterr().out


def test_the_script_shares_a_folder(trained_file, scene):
    """What it sends to the workers is of no module that they could import."""
    for name in ("photos/a.png", "photos/b.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(scene[0][:40, :50]).save(name)
    Path("masks").mkdir()
    line = [sys.executable, ROOT / "predict.py", "photos", "--output", "masks"]
    done = subprocess.run([*line, "--workers", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is class 1") == 2


TOLD = threading.Event()  # that the quick one of two images is done


def in_turn(args, trained, job):
    """What workers do; here they are threads."""
    if job.image == "slow.png":
        TOLD.wait(60)
    return predict.predict(args, trained, job)


def test_images_are_told_as_they_are_done_and_the_model_is_sent(trained_file, scene):
    """So that a slow image and a kill do not cost the masks of those after it."""
    todo = [Job(f"{name}.png", Path(f"{name}-mask.png")) for name in ("slow", "quick")]
    for job in todo:
        Image.fromarray(scene[0][:40, :50]).save(job.image)
    args = predict.parse_args(["slow.png", "quick.png"])
    trained = model_file.load(args.model)
    trained_file.unlink()  # no worker reads it
    here = {"processes": False, "n_workers": 1, "threads_per_worker": 2}
    with distributed.Client(**here, dashboard_address=None) as client:
        found = []
        for job, outcome in jobs.run(partial(in_turn, args, trained), todo, client):
            TOLD.set()
            assert outcome.job == job
            assert job.output.exists()
            found.append(job)
    assert found == todo[::-1]


def test_a_job_that_runs_out_of_memory_does_not_end_the_others():
    todo = [Job(f"{name}.png", Path(f"{name}-mask.png")) for name in "abcd"]
    raised = {
        "b.png": MemoryError(),
        "c.png": RuntimeError("[enforce fail] can't allocate memory: you tried"),
    }

    def fails(job):
        if job.image in raised:
            raise raised[job.image]
        return "done"

    found = dict(jobs.run(fails, todo))
    assert found[todo[0]] == found[todo[3]] == "done"
    for job in todo[1:3]:
        assert str(found[job]) == f"{job.image}: out of memory (cut the image)"


def test_a_defect_is_not_taken_for_a_bad_image():
    def fails(_):
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        list(jobs.run(fails, [Job("a.png", Path("a-mask.png"))]))


def test_an_image_that_changes_while_its_mask_is_written_is_done_again(
    photos, monkeypatch, capsys
):
    plain, first = predict.write_mask, Path("photos/a.png")

    def write_mask(path, *more):
        plain(path, *more)
        if Path(path).stem == first.stem:
            os.utime(first, ns=(1, 1))

    with monkeypatch.context() as patch:
        patch.setattr(predict, "write_mask", write_mask)
        run()
    capsys.readouterr()
    run()
    done = re.search(r"(\d) of (\d) images are done", capsys.readouterr().out)
    assert int(done[1]) == int(done[2]) - 1


def test_masks_among_their_images_are_refused_at_once(photos, capsys):
    assert predict_here("photos", "--output", "photos") == 2
    assert "photos: holds the images (give the masks" in capsys.readouterr().err
