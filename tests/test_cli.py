import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

import cli


def test_whole_file_replaces_at_the_end_only(tmp_path):
    target = tmp_path / "out.png"
    target.write_text("old")
    with cli.whole_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.suffix == ".png"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["out.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whole_file_leaves_the_old_one_when_it_fails(tmp_path, error):
    target = tmp_path / "out.png"
    target.write_text("old")
    with pytest.raises(error), cli.whole_file(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.png"]


def test_whole_file_writes_what_a_link_points_to(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link.png").symlink_to("far/real.png")
    with cli.whole_file(tmp_path / "link.png") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "far/real.png").read_text() == "new"
    assert os.listdir(tmp_path / "far") == ["real.png"]


def test_whole_folder_replaces_at_the_end_only(tmp_path):
    target = tmp_path / "out.zarr"
    for content in ("first", "second"):
        with cli.whole_folder(target) as temporary:
            (temporary / content).write_text(content)
            assert not (target / content).exists()
        assert [path.name for path in target.iterdir()] == [content]
    with pytest.raises(RuntimeError), cli.whole_folder(target) as temporary:
        (temporary / "third").write_text("third")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_a_folder_that_nothing_replaced_is_put_back(tmp_path, monkeypatch):
    target = tmp_path / "out.zarr"
    with cli.whole_folder(target) as temporary:
        (temporary / "old").touch()
    rename = os.rename

    def interrupted(source, destination):
        monkeypatch.setattr(os, "rename", rename)
        rename(source, destination)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), cli.whole_folder(target):
        monkeypatch.setattr(os, "rename", interrupted)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_whole_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    with cli.whole_file(tmp_path / "whole"):
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
        ("pipe.png", "is no ordinary file"),
        ("loop.png", "cannot be written"),
    ],
)
def test_output_that_cannot_be_is_refused(tmp_path, name, words):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(cli.InputError, match=words):
        cli.check_files([], [(tmp_path / name, (".jpg", ".png"))])


@pytest.mark.parametrize("again", ["in.png", "out.png", "folder/../in.png"])
def test_output_over_another_file_is_refused(tmp_path, again):
    (tmp_path / "folder").mkdir()
    (tmp_path / "in.png").touch()
    outputs = [(tmp_path / "out.png", (".png",)), (tmp_path / again, (".png",))]
    message = r"overwrite (the input .*in\.png|another output)"
    with pytest.raises(cli.InputError, match=message):
        cli.check_files([tmp_path / "in.png"], outputs)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("pipe", "is no ordinary file"),
        ("loop", "cannot be read"),
        ("nul\0", "cannot be read"),
    ],
)
def test_input_that_cannot_be_is_refused(tmp_path, name, words):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(cli.InputError, match=words):
        cli.check_input(tmp_path / name)


def test_checking_an_output_leaves_nothing(tmp_path):
    (tmp_path / "old.PNG").write_text("old")
    for name in ("new.jpg", "old.PNG"):
        cli.check_files([], [(tmp_path / name, (".jpg", ".png"))])
    assert os.listdir(tmp_path) == ["old.PNG"]
    assert (tmp_path / "old.PNG").read_text() == "old"


def test_ahead_gives_results_in_order_and_takes_few_items():
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    results = cli.ahead(lambda i: (time.sleep(0.002 * (i % 3)), i)[1], items(), 3, 4)
    assert taken == []  # nothing is begun before a result is asked for
    for i, result in enumerate(results):
        assert result == i
        assert len(taken) <= i + 5


def test_ahead_ends_its_threads_when_it_is_closed():
    before, begun = threading.active_count(), []
    results = cli.ahead(begun.append, range(9), 2, 5)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert len(begun) <= 6


def test_ahead_raises_where_the_result_is_asked_for():
    results = cli.ahead(lambda i: 1 // i, [1, 0, 2])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_ahead_gives_what_was_begun_before_an_item_failed():
    def items():
        yield 1
        raise ValueError("the second")

    results = cli.ahead(lambda i: i + 1, items())
    assert next(results) == 2
    with pytest.raises(ValueError, match="the second"):
        next(results)


def test_whole_file_has_the_suffix_that_was_asked_for(tmp_path):
    (tmp_path / "out.png").symlink_to("store")
    with cli.whole_file(tmp_path / "out.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("new")
    assert (tmp_path / "store").read_text() == "new"
    assert (tmp_path / "out.png").is_symlink()


ENDS = [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")]


@pytest.mark.parametrize(("number", "code", "line"), ENDS)
def test_a_signal_ends_in_one_line_and_leaves_the_old_file(
    tmp_path, number, code, line
):
    program = """
import cli, time

def main():
    with cli.whole_file("out.png") as temporary:
        temporary.write_text("half")
        print("writing", flush=True)
        time.sleep(60)

raise SystemExit(cli.run(main))
"""
    (tmp_path / "out.png").write_text("old")
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, line)
    assert os.listdir(tmp_path) == ["out.png"]
    assert (tmp_path / "out.png").read_text() == "old"


def test_whole_file_names_the_file_that_the_disk_has_no_room_for(tmp_path):
    with pytest.raises(cli.InputError) as caught, cli.whole_file(tmp_path / "a.png"):
        raise OSError(28, "No space left on device")
    assert str(caught.value).endswith(
        "a.png: cannot be written (No space left on device)"
    )
    assert os.listdir(tmp_path) == []


def test_begin_gives_what_the_first_part_gives_or_ends(capsys):
    numbers = signal.SIGINT, signal.SIGTERM
    handlers = [signal.getsignal(number) for number in numbers]
    try:
        assert cli.begin(lambda: "begun") == "begun"
        with pytest.raises(SystemExit) as ended:
            cli.begin(fails(cli.InputError("no")))
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no\n"


def fails(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (cli.InputError("a.png: no"), 2, "error: a.png: no"),
        (FileNotFoundError(2, "No such file", "a"), 2, "error: a: No such file"),
        (OSError("disk gone"), 2, "error: disk gone"),
        (MemoryError(), 2, "error: out of memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            2,
            "out of memory",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (cli.Terminated(), 143, "terminated"),
        (cli.InputError("a\nb.png: no"), 2, "error: a b.png: no"),
        (cli.InputError("\x1b[31mred.png: no"), 2, "error:  [31mred.png: no"),
    ],
)
def test_failure_is_one_line_and_a_code(capsys, error, code, line):
    assert cli.run(fails(error)) == code
    said = capsys.readouterr()
    assert line in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_wrong_command_line_is_one_line(capsys):
    parser = cli.Parser()
    parser.add_argument("--epochs", type=int)
    for arguments in (["--epochs", "x"], ["--nope"], ["--epochs"]):
        assert cli.run(lambda a=arguments: parser.parse_args(a)) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert "--help" in said


def test_success_is_zero_and_defects_are_not_hidden():
    assert cli.run(lambda: None) == 0
    with pytest.raises(RuntimeError, match="a defect"):
        cli.run(fails(RuntimeError("a defect")))
