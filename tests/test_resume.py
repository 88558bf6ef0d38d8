"""Training that is killed goes on: alone, and as one of several ranks."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, train_here, train_until
from PIL import Image

import train
from onelabel import console, processes, snapshots


pytestmark = pytest.mark.usefixtures("short_epochs")


@pytest.fixture
def often(monkeypatch):
    """A snapshot after each epoch, however little time it took."""
    monkeypatch.setattr(snapshots, "SECONDS", 0)


def outcome(capsys):
    """What a training leaves: its files, byte for byte, and what it printed last."""
    files = {p.name: p.read_bytes() for p in Path().glob("*.p*")}
    return files, capsys.readouterr().out.split("wrote ")[1]


# Trains as train.py does, with a snapshot after each epoch, and is killed in the middle
# of writing one: the last bytes are missing.
KILLED_AS_IT_WRITES = """
import os, pathlib, signal, train
from onelabel import snapshots
snapshots.SECONDS, train.EPOCH = 0, 3
plain, calls = pathlib.Path.write_bytes, []
def write_bytes(path, content):
    calls.append(path)
    if len(calls) == 4:
        plain(path, bytes(content)[:-100])
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(path, content)
pathlib.Path.write_bytes = write_bytes
train.main(["--epochs", "6"])
"""


def test_a_killed_training_goes_on_to_the_same_end(project, often, capsys):
    assert train_here("--epochs", 6) == 0
    undisturbed = outcome(capsys)
    os.remove("model.pt")
    line = [sys.executable, "-c", KILLED_AS_IT_WRITES]
    assert subprocess.run(line).returncode == -signal.SIGKILL
    assert Path("model.pt.snapshot").exists()
    assert not Path("model.pt").exists()
    assert train_here("--epochs", 6, "--resume") == 0
    out, err = capsys.readouterr()
    assert out.startswith("model.pt.snapshot: the training continues after epoch 3\n")
    assert err == ""
    files = {p.name: p.read_bytes() for p in Path().glob("*.p*")}
    assert (files, out.split("wrote ")[1]) == undisturbed
    assert not Path("model.pt.snapshot").exists()


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_wherever_it_is_killed(folder, often, capsys, epoch):
    assert train_here("--epochs", 5) == 0
    undisturbed = outcome(capsys)
    os.remove("model.pt")
    train_until(epoch, "--epochs", 5)
    assert train_here("--epochs", 5, "--resume") == 0
    assert outcome(capsys) == undisturbed


def test_killed_twice_and_with_all_epochs_done(folder, often, capsys, monkeypatch):
    assert train_here("--epochs", 3) == 0
    undisturbed = outcome(capsys)
    os.remove("model.pt")
    train_until(1, "--epochs", 3)
    train_until(1, "--epochs", 3, "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(train, "save", lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            train.main(["--epochs", "3", "--resume"])
    assert train_here("--epochs", 3, "--resume") == 0
    assert outcome(capsys) == undisturbed


def test_without_a_snapshot_resume_begins(folder, capsys):
    assert train_here("--epochs", 1) == 0
    undisturbed = outcome(capsys)
    assert train_here("--epochs", 1, "--resume") == 0
    out, _ = capsys.readouterr()
    assert out.startswith(
        "model.pt.snapshot: no snapshot, so the training starts from the beginning\n"
    )
    files, printed = undisturbed
    assert out.endswith(printed)
    assert Path("model.pt").read_bytes() == files["model.pt"]


def test_without_resume_an_old_snapshot_is_neither_used_nor_kept(folder, often, capsys):
    assert train_here("--epochs", 3, "--seed", 1) == 0
    undisturbed = outcome(capsys)
    train_until(2, "--epochs", 3)
    train_until(0, "--epochs", 3, "--seed", 1)
    assert not Path("model.pt.snapshot").exists()
    assert train_here("--epochs", 3, "--seed", 1) == 0
    assert outcome(capsys) == undisturbed


def test_snapshots_are_kept_only_now_and_then(folder, monkeypatch):
    train_until(3, "--epochs", 5)  # in far less time than from one to the next
    monkeypatch.setattr(snapshots, "SECONDS", 3600)
    train_until(3, "--epochs", 5)
    assert not Path("model.pt.snapshot").exists()


def change_image():
    pixels = np.array(Image.open("data/rgb.png"))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save("data/rgb.png")


def change_truth():
    pixels = np.array(Image.open("data/gt.png"))
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save("data/gt.png")


def change_content(**changes):
    content = torch.load("model.pt.snapshot", weights_only=True)
    if isinstance(changes.get("key"), dict):
        changes["key"] = {**content["key"], **changes["key"]}
    torch.save({**content, **changes}, "model.pt.snapshot")


class Payload:
    """What a pickle that runs code looks like."""

    def __reduce__(self):
        return Path.touch, (Path("was_run"),)


ANOTHER = "belongs to another training: "
REFUSED = {
    "other seed": (None, ["--seed", 1], ANOTHER + "seed 0, here 1"),
    "other epochs": (None, ["--epochs", 4], ANOTHER + "epochs 3, here 4"),
    "other image": (change_image, [], ANOTHER + "images "),
    "other truth": (change_truth, [], ANOTHER + "truths "),
    "other PyTorch": (
        lambda: change_content(key={"PyTorch": "1.0"}),
        [],
        f"{ANOTHER}PyTorch 1.0, here {torch.__version__}",
    ),
    "other number of processes": (
        lambda: change_content(key={"processes": 2}),
        [],
        ANOTHER + "processes 2, here 1",
    ),
    "other version": (
        lambda: change_content(format="another"),
        [],
        "is not a snapshot of this version",
    ),
    "no key": (lambda: change_content(key=3), [], "does not say what it is of"),
    "no history": (
        lambda: change_content(history="none"),
        [],
        "does not say what it is of",
    ),
    "forged history": (
        lambda: change_content(history=[[1, 2]]),
        [],
        "is not a snapshot of this network",
    ),
    "forged weights": (
        lambda: change_content(average={"conv1.weight": torch.zeros(3)}),
        [],
        "is not a snapshot of this network",
    ),
    "forged optimiser": (
        lambda: change_content(optimiser=None),
        [],
        "is not a snapshot of this network",
    ),
    "truncated": (
        lambda: os.truncate("model.pt.snapshot", 100_000),
        [],
        "is not a snapshot, or is damaged",
    ),
    "no snapshot": (
        lambda: Path("model.pt.snapshot").write_text("no"),
        [],
        "is not a snapshot, or is damaged",
    ),
    "runs code": (
        lambda: change_content(average=Payload()),
        [],
        "is not a snapshot, or is damaged",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_snapshot_of_another_training_is_refused(folder, often, capsys, name):
    change, arguments, words = REFUSED[name]
    train_until(1, "--epochs", 3)
    if change:
        change()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert train_here("--epochs", 3, "--resume", *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: model.pt.snapshot: {words}")
    assert said.endswith("(delete it to train from the start)\n")
    assert said.count("\n") == 1
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_folder_under_the_name_of_the_snapshot_is_told(folder, capsys):
    os.mkdir("model.pt.snapshot")
    assert train_here("--epochs", 1) == 2
    said = capsys.readouterr().err
    assert said == "error: model.pt.snapshot: is a folder (give a file name)\n"


# ------------------------------------------------------------------ several ranks

# Trains as train.py does, with a snapshot after each epoch. In its first life rank 1 is
# killed in the third epoch, in its second life rank 0 in the next but one.
RANK = """
import os, signal, sys
import torch
import train
from onelabel import console, processes, snapshots

snapshots.SECONDS, train.EPOCH = 0, 3
life = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
todo = sys.argv.pop(1)
if todo == "draw alike":
    processes.own_seed = lambda seed: seed
calls = []
plain = train.evaluate

def evaluate(*arguments):
    calls.append(1)
    if todo == "die" and (life, processes.rank(), len(calls)) in [(0, 1, 3), (1, 0, 2)]:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*arguments)

def fit(trainer, *arguments, plain=train.fit):
    weights = plain(trainer, *arguments)
    state = {**trainer.model.state_dict(), "average": weights}
    torch.save(state, f"{processes.rank()}.state")
    return weights

train.evaluate, train.fit = evaluate, fit
sys.exit(console.run(train.main))
"""


def train_with(ranks, todo, model):
    """Train in so many processes, by torchrun unless it is one."""
    Path("rank.py").write_text(RANK)
    torchrun = "-m torch.distributed.run --standalone --max-restarts 2 --nproc-per-node"
    launch = [*torchrun.split(), str(ranks)] if ranks > 1 else []
    line = [sys.executable, *launch, "rank.py", todo, "--epochs", "5"]
    done = subprocess.run(
        [*line, "--model", model, "--plot", f"{model}.png"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(model, weights_only=True)["weights"], done.stdout


def same(weights, others):
    return all(torch.equal(weights[name], others[name]) for name in weights)


def test_killed_ranks_are_restarted_and_end_with_the_same_weights(folder):
    undisturbed, out = train_with(2, "live", "two.pt")
    assert out.startswith("wrote two.pt and two.pt.png\n")
    assert out.count("held-out block ") == 1  # one rank prints
    states = [torch.load(f"{rank}.state", weights_only=True) for rank in (0, 1)]
    averages = [state.pop("average") for state in states]
    assert same(*averages)
    assert same(*states)  # running statistics and all
    weights, out = train_with(2, "die", "killed.pt")
    assert out.startswith(
        "killed.pt.snapshot: the training continues after epoch 2\n"
        "killed.pt.snapshot: the training continues after epoch 3\n"
        "wrote killed.pt and killed.pt.png\n"
    )
    assert same(weights, undisturbed)
    assert Path("killed.pt.png").read_bytes() == Path("two.pt.png").read_bytes()
    assert not Path("killed.pt.snapshot").exists()
    # Two ranks see other patches than one; where they draw alike, their averages are
    # what each has.
    one, _ = train_with(1, "live", "one.pt")
    assert not same(undisturbed, one)
    alike, _ = train_with(2, "draw alike", "alike.pt")
    assert same(alike, one)


def test_a_lost_process_is_told_in_one_line(monkeypatch, capsys):
    def lost(*_):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection reset by peer")

    monkeypatch.setattr(processes, "count", lambda: 2)
    for name in ("all_reduce", "all_gather_object", "broadcast_object_list"):
        monkeypatch.setattr(torch.distributed, name, lost)
    layer = torch.nn.Linear(2, 1)
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    processes.average_steps(layer, optimiser)
    layer(torch.ones(1, 2)).sum().backward()
    for call in (
        optimiser.step,
        lambda: processes.gather(1),
        lambda: processes.from_first(list),
    ):
        assert console.run(call) == 2
        assert capsys.readouterr().err == (
            "error: another process was lost (torchrun --max-restarts N starts all "
            "again)\n"
        )
