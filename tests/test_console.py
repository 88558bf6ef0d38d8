import argparse
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from onelabel import console
from onelabel.files import InputError
from onelabel.ground import Area


ENDS = [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")]


@pytest.mark.parametrize(("number", "code", "line"), ENDS)
def test_a_signal_ends_in_one_line_and_leaves_the_old_file(
    tmp_path, number, code, line
):
    program = """
import time
from onelabel import console, files

def main():
    with files.whole_file("out.png") as temporary:
        temporary.write_text("half")
        print("writing", flush=True)
        time.sleep(60)

raise SystemExit(console.run(main))
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


def fails(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.png: no"), 2, "error: a.png: no"),
        (FileNotFoundError(2, "No such file", "a"), 2, "error: a: No such file"),
        (OSError("disk gone"), 2, "error: disk gone"),
        (MemoryError(), 2, "error: out of memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            2,
            "out of memory",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (console.Terminated(), 143, "terminated"),
        (InputError("a\nb.png: no"), 2, "error: a b.png: no"),
        (InputError("\x1b[31mred.png: no"), 2, "error:  [31mred.png: no"),
    ],
)
def test_failure_is_one_line_and_a_code(capsys, error, code, line):
    assert console.run(fails(error)) == code
    said = capsys.readouterr()
    assert line in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_wrong_command_line_is_one_line(capsys):
    parser = console.Parser()
    parser.add_argument("--epochs", type=int)
    for arguments in (["--epochs", "x"], ["--nope"], ["--epochs"]):
        assert console.run(lambda a=arguments: parser.parse_args(a)) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert "--help" in said


def test_success_is_zero_and_defects_are_not_hidden():
    assert console.run(lambda: None) == 0
    with pytest.raises(RuntimeError, match="a defect"):
        console.run(fails(RuntimeError("a defect")))


@pytest.mark.parametrize("text", ["3,2", "0,1,2", "1,2,x", "1,-2,3", "", "1,2,3,4"])
def test_three_bands_are_three_numbers_from_1(text):
    assert console.three_bands("3, 2,1") == [3, 2, 1]
    with pytest.raises(argparse.ArgumentTypeError, match="expected three numbers"):
        console.three_bands(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "\u00b2"])
def test_a_count_is_a_whole_number_from_1(text):
    assert console.count("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number"):
        console.count(text)


@pytest.mark.parametrize("text", ["1e999", "1e999m2", "x", "-1", "5 acres"])
def test_an_area_is_a_finite_number_and_a_unit(text):
    assert console.area("1e3") == Area(1000, "px")
    with pytest.raises(argparse.ArgumentTypeError, match="expected an area"):
        console.area(text)


@pytest.mark.parametrize("text", ["1e999", "x", "-1"])
def test_a_distance_is_a_finite_number(text):
    assert console.distance("1.5") == 1.5
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number"):
        console.distance(text)
