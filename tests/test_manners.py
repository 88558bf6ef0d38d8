"""The scripts talk to nobody, and leave files only where they were asked to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


# Python runs a file of this name before any other; no socket may be used after it.
SITE = """
import os, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
        os.write(2, f"{event} {arguments}".encode())
        os._exit(99)

sys.addaudithook(refuse)
"""

COMMANDS = [
    ["train.py", "--epochs", "1"],
    ["predict.py"],
    ["predict.py", "data/rgb.png", "--output", "mask.tif", "--overlay", "o.png"],
    ["predict.py", "--gt", "data/gt.png", "--probabilities", "p.tif"],
    ["predict.py", "--verify", "data/rgb.png"],
]


@pytest.fixture
def alone(project):
    """Give a function that runs a script in a home of its own, without a network."""
    for name in ("site", "home", "temporary"):
        (project / name).mkdir()
    (project / "site/sitecustomize.py").write_text(SITE)
    places = {
        "HOME": project / "home",
        "TMPDIR": project / "temporary",
        "PYTHONPATH": project / "site",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment = {name: v for name, v in os.environ.items() if "XDG" not in name}
    environment = {**environment, **{name: str(v) for name, v in places.items()}}
    environment.pop("MPLCONFIGDIR", None)

    def run(*command):
        return subprocess.run(
            [sys.executable, *command],
            env=environment,
            capture_output=True,
            text=True,
            umask=0o027,
        )

    return run


def files():
    return {path for path in Path().rglob("*") if path.is_file()}


def test_scripts_need_no_network_and_leave_nothing_elsewhere(alone):
    before = files()
    for command in COMMANDS:
        done = alone(*command)
        assert done.returncode == 0, done.stderr
    made = files() - before
    cache = {
        path for path in made if path.parts[:3] == ("home", ".cache", "matplotlib")
    }
    expected = ["model.pt", "loss_vs_epochs.png", "predictions.jpg", "mask.tif"]
    assert made - cache == {Path(name) for name in [*expected, "o.png", "p.tif"]}
    for path in made - cache:
        assert path.stat().st_mode & 0o777 == 0o640, path


def test_no_temporary_folder_stays_where_there_is_no_home(alone):
    Path("home").rmdir()
    Path("home").touch()  # where matplotlib would keep its cache
    assert alone("train.py", "--epochs", "1").returncode == 0
    assert not list(Path("temporary").glob("matplotlib-*"))


def test_a_network_would_be_noticed(alone):
    done = alone("-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9')")
    assert done.returncode == 99


def test_the_lock_holds_what_the_requirements_name():
    """Of every version in requirements.txt, requirements/lock.txt has the hashes."""
    named = (ROOT / "requirements.txt").read_text().split()
    locked = (ROOT / "requirements/lock.txt").read_text().splitlines()
    found = {line.split()[0].split("+")[0] for line in locked if "==" in line}
    pins = {word for word in named if "==" in word}
    assert len(pins) == 9 and pins <= found
    assert sum("--hash=sha256:" in line for line in locked) > len(found)


@pytest.mark.parametrize(
    "module", ["train", "predict", "segutils", "onelabel.pipeline"]
)
@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_that_wait_sleep_unless_the_user_decides(module, own):
    """It must be set before torch is loaded, which reads it then."""
    look = (
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'torch': print(os.environ.get('OMP_WAIT_POLICY'))\n"
        "sys.meta_path.insert(0, Finder)\n"
        f"import {module}, segutils"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if own:
        environment["OMP_WAIT_POLICY"] = own
    line = [sys.executable, "-c", look]
    told = subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert told.stdout == f"{own or 'PASSIVE'}\n"
