import os

import pytest

from onelabel import files


def test_whole_file_replaces_at_the_end_only(tmp_path):
    target = tmp_path / "out.png"
    target.write_text("old")
    with files.whole_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.suffix == ".png"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["out.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whole_file_leaves_the_old_one_when_it_fails(tmp_path, error):
    target = tmp_path / "out.png"
    target.write_text("old")
    with pytest.raises(error), files.whole_file(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.png"]


def test_whole_file_writes_what_a_link_points_to(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link.png").symlink_to("far/real.png")
    with files.whole_file(tmp_path / "link.png") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "far/real.png").read_text() == "new"
    assert os.listdir(tmp_path / "far") == ["real.png"]


def a_folder(path, content):
    path.mkdir()
    (path / content).touch()
    return path


def test_a_folder_takes_the_place_of_another(tmp_path):
    target = tmp_path / "out.zarr"
    for content in ("first", "second"):
        files.replace_folder(a_folder(tmp_path / "new", content), target)
        assert [path.name for path in target.iterdir()] == [content]
        assert os.listdir(tmp_path) == ["out.zarr"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_folder_that_nothing_replaced_is_put_back(tmp_path, monkeypatch, error):
    target = a_folder(tmp_path / "out.zarr", "old")
    new = a_folder(tmp_path / "new", "new")
    rename = os.rename

    def interrupted(source, destination):
        monkeypatch.setattr(os, "rename", rename)
        rename(source, destination)
        raise error

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises((files.InputError, KeyboardInterrupt)) as caught:
        files.replace_folder(new, target)
    if isinstance(error, OSError):
        assert str(caught.value).endswith("cannot be written (No space left)")
    assert [path.name for path in target.iterdir()] == ["old"]
    assert sorted(os.listdir(tmp_path)) == ["new", "out.zarr"]


def test_whole_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    with files.whole_file(tmp_path / "whole"):
        pass
    plain, whole = (os.stat(tmp_path / n).st_mode for n in ("plain", "whole"))
    assert plain == whole


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.gif", r"unknown suffix '\.gif' \(use \.jpg, \.png\)"),
        ("out", "unknown suffix ''"),
        ("missing/out.jpg", "folder .*missing is missing"),
        ("file/out.jpg", "folder .*file is missing"),
        ("folder.png", "is a folder"),
        ("x" * 300 + ".png", "cannot be written"),
        ("pipe.png", "is not a regular file"),
        ("loop.png", "cannot be written"),
    ],
)
def test_output_that_cannot_be_is_refused(tmp_path, name, words):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(files.InputError, match=words):
        files.check_files([], [(tmp_path / name, (".jpg", ".png"))])


@pytest.mark.parametrize("again", ["in.png", "out.png", "folder/../in.png"])
def test_output_over_another_file_is_refused(tmp_path, again):
    (tmp_path / "folder").mkdir()
    (tmp_path / "in.png").touch()
    outputs = [(tmp_path / "out.png", (".png",)), (tmp_path / again, (".png",))]
    message = r"overwrite (the input .*in\.png|the output .*out\.png)"
    with pytest.raises(files.InputError, match=message):
        files.check_files([tmp_path / "in.png"], outputs)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("pipe", "is not a regular file"),
        ("loop", "cannot be read"),
        ("nul\0", "cannot be read"),
    ],
)
def test_input_that_cannot_be_is_refused(tmp_path, name, words):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(files.InputError, match=words):
        files.check_input(tmp_path / name)


def test_checking_an_output_leaves_nothing(tmp_path):
    (tmp_path / "old.PNG").write_text("old")
    for name in ("new.jpg", "old.PNG"):
        files.check_files([], [(tmp_path / name, (".jpg", ".png"))])
    assert os.listdir(tmp_path) == ["old.PNG"]
    assert (tmp_path / "old.PNG").read_text() == "old"


def test_whole_file_has_the_suffix_that_was_asked_for(tmp_path):
    (tmp_path / "out.png").symlink_to("store")
    with files.whole_file(tmp_path / "out.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("new")
    assert (tmp_path / "store").read_text() == "new"
    assert (tmp_path / "out.png").is_symlink()


def test_whole_file_names_the_file_that_the_disk_has_no_room_for(tmp_path):
    with (
        pytest.raises(files.InputError) as caught,
        files.whole_file(tmp_path / "a.png"),
    ):
        raise OSError(28, "No space left on device")
    assert str(caught.value).endswith(
        "a.png: cannot be written (No space left on device)"
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["array.zarr/out.png", "array.zarr/c/out.png"])
def test_output_inside_an_input_that_is_a_folder_is_refused(tmp_path, place):
    (tmp_path / "array.zarr/c").mkdir(parents=True)
    (tmp_path / "array.zarr/zarr.json").touch()
    with pytest.raises(files.InputError, match="is inside the input"):
        files.check_files([tmp_path / "array.zarr"], [(tmp_path / place, (".png",))])


def test_output_around_an_input_is_refused(tmp_path):
    (tmp_path / "array.zarr").mkdir()
    (tmp_path / "array.zarr/a.png").touch()
    outputs = [(tmp_path / "array.zarr", (".zarr",))]
    with pytest.raises(files.InputError, match=r"is around the input .*a\.png"):
        files.check_files([tmp_path / "array.zarr/a.png"], outputs)


def test_the_identity_of_a_file_or_folder_changes_with_its_content(tmp_path):
    folder = a_folder(tmp_path / "array.zarr", "chunk")
    for path in (folder / "chunk", folder):
        before = files.identity(path)
        assert files.identity(path) == before
        (folder / "chunk").write_text(f"new, seen in {path.name}")
        assert files.identity(path) != before
