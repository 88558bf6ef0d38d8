import copy
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from packaging.requirements import Requirement
from PIL import Image
from samples import write_tiff

import predict
import segutils
import train
from benchmarks import kill
from onelabel import console, jobs, labelled, light, model_file
from onelabel.reading import open_image
from onelabel.truth import read_truth


def run(main, *arguments):
    """Run a command in this process; give its exit code."""
    return console.run(lambda: main(list(map(str, arguments))))


@pytest.fixture
def trained(folder):
    assert run(train.main, "--epochs", 2) == 0
    return folder


# ------------------------------------------------------------------ training


def test_train_writes_its_files_and_says_how_good(folder, capsys):
    assert run(train.main, "--epochs", 3) == 0
    assert sorted(p.name for p in folder.iterdir()) == [
        "data",
        "loss_vs_epochs.png",
        "model.pt",
    ]
    assert Image.open("loss_vs_epochs.png").width > 600
    said = capsys.readouterr()
    wrote, header, *_ = said.out.splitlines()
    assert wrote == "wrote model.pt and loss_vs_epochs.png"
    columns = header.split()
    assert columns[-6:] == ["loss", "IoU", "Dice", "precision", "recall", "accuracy"]
    assert "always class 0" in said.out
    assert said.out.splitlines()[-1].startswith("expected IoU on new images: 0.")
    assert said.err == ""  # no progress bar, as this is no terminal
    facts = model_file.load("model.pt").facts
    assert facts["seed"] == 0
    assert set(facts["held_out"]) == set(columns[-6:])


def test_training_learns(folder):
    shutil.copytree(ROOT / "data", "whole")
    scene = ["--rgb", "whole/rgb.png", "--gt", "whole/gt.png"]
    assert run(train.main, *scene, "--epochs", 5) == 0
    assert model_file.load("model.pt").facts["held_out"]["IoU"] > 0.6


def weights(path):
    return torch.load(path, weights_only=True)["weights"]


def test_same_seed_same_weights(folder):
    for name, seed in (("a.pt", 5), ("b.pt", 5), ("c.pt", 6)):
        assert run(train.main, "--epochs", 2, "--seed", seed, "--model", name) == 0
    a, b, c = (weights(name) for name in ("a.pt", "b.pt", "c.pt"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["conv1.weight"], c["conv1.weight"])


def test_unlabelled_pixels_are_not_learned(folder, scene):
    """What colour a transparent pixel hides changes nothing at all."""
    _, truth = scene
    results = []
    for hidden in (0, 255):
        rgba = np.repeat((truth * 255)[..., None], 4, 2)
        rgba[..., 3] = 255
        rgba[:40, :, 3] = 0
        rgba[:40, :, :3] = hidden
        Image.fromarray(rgba).save("data/gt.png")
        assert run(train.main, "--epochs", 2) == 0
        results.append(weights("model.pt"))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_the_average_follows_weights_and_statistics_alike(model):
    average, start = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for value in model.state_dict().values():
            value += 10
    for step, share in ((0, 0.9), (10**6, 0.002)):
        average.load_state_dict(start)
        train.move_average(average, model, step)
        for name, value in average.state_dict().items():
            moved = 0 if name.endswith("num_batches_tracked") else 10 * share
            torch.testing.assert_close(value, start[name] + moved, msg=name)


def test_the_average_is_scored_and_kept_and_the_schedule_runs_to_its_end(
    folder, monkeypatch
):
    """However bad the last epochs look on the held-out block."""
    trainers, scored, last = [], [], {}
    plain = train.evaluate

    def worse_and_worse(model, scenes):
        scored.append(copy.deepcopy(model.state_dict()))
        loss, scores = plain(model, scenes)
        return loss + 10 * len(scored), scores

    def fit(trainer, *arguments, plain=train.fit):
        trainers.append(trainer)
        kept = plain(trainer, *arguments)
        last.update(copy.deepcopy(trainer.model.state_dict()))
        return kept

    monkeypatch.setattr(train, "evaluate", worse_and_worse)
    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(train, "EPOCH", 3)
    assert run(train.main, "--epochs", 12) == 0
    kept = weights("model.pt")
    assert len(scored) == 12
    assert trainers[0].schedule.last_epoch == 12 * trainers[0].steps
    for name, value in kept.items():
        assert torch.equal(value, scored[-1][name])
        assert torch.equal(value, trainers[0].average.state_dict()[name])
    for name in ("conv1.weight", "norm1.running_var"):
        assert not torch.equal(last[name], kept[name])


class TrainerOf:
    """A trainer whose epochs have given losses; its weights are the epoch's number."""

    def __init__(self, losses):
        self.losses, self.history, self.epochs = iter(losses), [], len(losses)
        self.average = segutils.FCNN()

    def epoch(self):
        loss = next(self.losses)
        if loss is KeyboardInterrupt:
            self.average.normalise.mean.fill_(99)  # in the middle of an epoch
            raise KeyboardInterrupt
        number = len(self.history) + 1
        self.average.normalise.mean.fill_(number)
        self.history.append(train.Epoch(number, loss, 1 / number, {"IoU": 0.5}))
        return self.history[-1]

    is_over = train.Trainer.is_over


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_no_number_ends_the_training(capsys, loss):
    trainer = TrainerOf([1.0, 1.0, loss, 1.0])
    kept = train.fit(trainer)
    assert len(trainer.history) == 2
    assert kept["normalise.mean"].tolist() == [2, 2, 2]
    said = capsys.readouterr().err
    assert said == f"warning: epoch 3: the loss is {loss}: stopped\n"


def test_an_interrupt_keeps_the_average_of_the_last_whole_epoch(capsys):
    kept = train.fit(TrainerOf([1.0, 1.0, KeyboardInterrupt]))
    assert kept["normalise.mean"].tolist() == [2, 2, 2]
    said = capsys.readouterr().out
    assert said == "interrupted: the average after epoch 2 is taken\n"
    with pytest.raises(KeyboardInterrupt):
        train.fit(TrainerOf([KeyboardInterrupt]))


def test_a_function_called_after_each_epoch_may_end_the_training():
    trainer, numbers = TrainerOf([1.0] * 9), []
    train.fit(trainer, [lambda t: numbers.append(len(t.history)) or numbers[-1] == 3])
    assert numbers == [1, 2, 3]


def test_a_loss_that_never_was_a_number_is_an_error(folder, capsys, monkeypatch):
    monkeypatch.setattr(train, "evaluate", lambda *_: (np.nan, {"IoU": 0}))
    assert run(train.main, "--epochs", 2) == 2
    said = capsys.readouterr().err
    assert said.startswith("warning: epoch 1: the loss is nan: stopped\nerror: nothing")
    assert os.listdir(folder) == ["data"]


def test_the_learning_rate_falls_to_almost_nothing(folder, monkeypatch):
    rates = []
    plain = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    assert run(train.main, "--epochs", 10) == 0
    assert rates[-1] < 1e-3 * max(rates)
    assert np.argmax(rates) < 0.4 * len(rates)


def test_half_of_the_patches_are_seen_in_changed_versions(scene):
    versions = train.image_versions(scene[0])
    assert versions.shape == (8, *scene[0].shape)
    np.testing.assert_array_equal(versions[0], scene[0])
    lost = [abs(v.astype(int) - scene[0]).mean() for v in versions]
    assert 0 == lost[0] < lost[1] < lost[2] < lost[3]  # JPEG
    assert 0 < lost[4] < lost[5]  # blur
    assert 0 < lost[6] < lost[7]  # noise
    drawn = train.draw_versions(14_000, torch.Generator().manual_seed(0))
    shares = drawn.bincount() / 14_000
    torch.testing.assert_close(
        shares, torch.tensor([7] + 7 * [1]) / 14, atol=0.02, rtol=0
    )


# ------------------------------------------------------------------ the 256 rule


def test_no_forward_pass_is_over_the_budget(folder, scene, monkeypatch):
    """Through training, validation and prediction, counted at every convolution."""
    rgb = np.tile(scene[0], (3, 3, 1))
    Image.fromarray(rgb).save("data/rgb.png")
    Image.fromarray(np.tile(scene[1], (3, 3)) * 255).save("data/gt.png")
    shapes = []

    def counted(x, weight, *args, convolve, **kwargs):
        if weight.shape[1] == 3:
            shapes.append((x.shape, torch.is_grad_enabled()))
        return convolve(x, weight, *args, **kwargs)

    for module, name in (
        (torch.nn.functional, "conv2d"),
        (torch, "mkldnn_convolution"),
    ):
        convolve = getattr(module, name)
        monkeypatch.setattr(module, name, partial(counted, convolve=convolve))
    assert run(train.main, "--epochs", 2) == 0
    assert run(predict.main) == 0
    assert {grad for _, grad in shapes} == {True, False}  # training, and the others
    assert max(s[2] for s, _ in shapes) == max(s[3] for s, _ in shapes) == 256
    assert max(s[0] * s[2] * s[3] for s, _ in shapes) == 65_536


# ------------------------------------------------------------------ prediction


def test_predict_draws_the_mask(trained, capsys):
    assert run(predict.main) == 0
    learned, image = model_file.load("model.pt"), open_image("data/rgb.png")
    its_light = light.estimate(learned.looks, image.sample())
    adapted = light.in_light(learned.model, learned.looks, its_light)
    mask = segutils.segment(adapted, image.whole())
    drawn, colours = read_truth("predictions.jpg")
    np.testing.assert_array_equal(drawn, mask)
    assert list(map(tuple, colours)) == list(map(tuple, learned.colours))
    assert "predictions.jpg" in capsys.readouterr().out


def test_predict_writes_all_that_is_asked_for(trained, capsys):
    options = "--output m.tif --gt data/gt.png --overlay o.jpg --probabilities p.tif"
    assert run(predict.main, "data/rgb.png", *options.split()) == 0
    assert "precision" in capsys.readouterr().out
    probability = np.array(Image.open("p.tif"))
    mask = np.array(Image.open("m.tif")) > 0
    rgb = open_image("data/rgb.png").whole()
    assert probability.dtype == np.float32
    np.testing.assert_array_equal(mask[probability > 0.5], True)
    np.testing.assert_array_equal(mask[probability < 0.5], False)
    assert mask.shape == rgb.shape[:2]
    assert Image.open("o.jpg").size == Image.open("data/rgb.png").size


def test_predict_warns_of_an_image_that_is_unlike(trained, scene, capsys):
    strange = np.full_like(scene[0], [250, 0, 250])
    Image.fromarray(strange).save("strange.png")
    assert run(predict.main, "strange.png", "--output", "m.png") == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: strange.png: 100% of it has colours that")
    assert said.count("\n") == 1


def test_predict_keeps_the_colours_of_the_truth(trained, scene):
    Image.fromarray(np.array([[9, 9, 90], [250, 180, 0]], np.uint8)[scene[1]]).save(
        "data/gt.png"
    )
    assert run(train.main, "--epochs", 1) == 0
    assert run(predict.main, "data/rgb.png", "--output", "m.png") == 0
    found = {tuple(c) for c in open_image("m.png").whole().reshape(-1, 3).tolist()}
    assert found <= {(9, 9, 90), (250, 180, 0)}


def test_several_images_go_into_a_folder(trained, scene):
    Image.fromarray(scene[0][:33, :71]).save("odd.png")
    Path("masks").mkdir()
    assert run(predict.main, "data/rgb.png", "odd.png", "--output", "masks") == 0
    expected = [jobs.JOURNAL, "odd.png", "rgb.png", jobs.SUMMARY]
    assert sorted(os.listdir("masks")) == expected
    assert Image.open("masks/odd.png").size == (71, 33)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="not on Linux")
@pytest.mark.parametrize("script", ["train.py", "predict.py"])
def test_ctrl_c_while_torch_is_imported_ends_quietly(script):
    process = subprocess.Popen(
        [sys.executable, ROOT / script, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    libraries = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtorch" not in libraries.read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == -signal.SIGINT


def test_a_cleaned_mask_may_be_empty_and_a_map_without_data_is_warned_of(
    trained, scene, capsys
):
    assert run(predict.main, "--min-area", "10000000") == 0
    assert capsys.readouterr().err == ""
    write_tiff("hidden.tif", np.zeros_like(scene[0]), nodata=0)
    assert run(predict.main, "hidden.tif") == 0
    err = capsys.readouterr().err
    assert err == "warning: hidden.tif: no pixel has data (is it the right image?)\n"


def test_one_class_for_the_whole_picture_is_warned_of(trained, capsys):
    content = torch.load("model.pt", weights_only=True)
    content["weights"]["conv4.bias"] += torch.tensor([1e6, 0])
    torch.save(content, "model.pt")
    assert run(predict.main) == 0
    assert "warning: data/rgb.png: every pixel is class 0" in capsys.readouterr().err


# ------------------------------------------------------------------ bad input


def bad_gt(values):
    Image.fromarray(np.array(values, np.uint8)).save("data/gt.png")


def make_text(name):
    Path(name).write_text("no picture")


BAD_TRAINING = {
    "missing image": (lambda: os.remove("data/rgb.png"), [], "rgb.png: no such file"),
    "missing truth": (lambda: os.remove("data/gt.png"), [], "gt.png: no such file"),
    "text for an image": (lambda: make_text("data/rgb.png"), [], "is not an image"),
    "empty image": (
        lambda: Path("data/rgb.png").write_bytes(b""),
        [],
        "is not an image",
    ),
    "truth of another size": (lambda: bad_gt([[0, 255]]), [], "2x1 pixels, but"),
    "truth of one colour": (
        lambda: bad_gt(np.zeros((176, 230))),
        [],
        "1 colour found, expected 2",
    ),
    "truth of many colours": (
        lambda: bad_gt(np.arange(176 * 230).reshape(176, 230) % 256),
        [],
        "256 colours found, expected 2",
    ),
    "no epochs": (None, ["--epochs", 0], "--epochs: 0: expected a whole number from 1"),
    "epochs that are no number": (
        None,
        ["--epochs", "x"],
        "x: expected a whole number",
    ),
    "unknown option": (None, ["--nope"], "unrecognized arguments: --nope"),
    "seed below zero": (None, ["--seed=-1"], "--seed -1: not from 0"),
    "seed too large": (None, ["--seed", 2**64], "not from 0 to 2**63"),
    "model suffix": (None, ["--model", "m.txt"], "m.txt: unknown suffix"),
    "model folder": (None, ["--model", "no/m.pt"], "the folder no is missing"),
    "plot suffix": (None, ["--plot", "p.txt"], "p.txt: unknown suffix"),
    "plot is a folder": (lambda: os.mkdir("p.png"), ["--plot", "p.png"], "is a folder"),
    "model over the image": (
        lambda: shutil.copy("data/rgb.png", "rgb.pt"),
        ["--rgb", "rgb.pt", "--model", "rgb.pt"],
        "rgb.pt: would overwrite the input",
    ),
    "device": (None, ["--device", "cuda"], "cuda: this machine has no such device"),
}


def state(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", BAD_TRAINING)
def test_bad_training_input_is_one_line_and_leaves_all_as_it_was(
    folder, capsys, monkeypatch, name
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    make, arguments, words = BAD_TRAINING[name]
    Path("model.pt").write_text("an older model")
    if make:
        make()
    before = state(folder)
    assert run(train.main, *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert words in said
    assert state(folder) == before


@pytest.mark.parametrize("side", [31, 32])
def test_training_needs_32_pixels_a_side(folder, scene, capsys, side):
    rgb, truth = (array[60:, 100:][:side, :40] for array in scene)
    truth = truth.copy()
    truth[::3, ::3] = 1 - truth[::3, ::3]
    Image.fromarray(rgb).save("data/rgb.png")
    Image.fromarray(truth * 255).save("data/gt.png")
    assert run(train.main, "--epochs", 1) == (0 if side == 32 else 2)
    if side == 31:
        assert "40x31 pixels (training needs 32 a side)" in capsys.readouterr().err


BAD_PREDICTION = {
    "missing image": (["no.png"], "no.png: no such file"),
    "folder for an image": (["data"], "predictions.jpg: no such folder for"),
    "text for an image": (["text.png"], "text.png: is not an image"),
    "missing model": (["--model", "no.pt"], "no.pt: no such file"),
    "text for a model": (["--model", "text.png"], "text.png: is not a model file"),
    "suffix": (["--output", "m.gif"], "unknown suffix '.gif'"),
    "no suffix": (["--output", "mask"], "mask: no such folder"),
    "missing folder": (["--output", "no/m.png"], "the folder no is missing"),
    "overlay suffix": (["--overlay", "o.txt"], "o.txt: unknown suffix"),
    "probability suffix": (["--probabilities", "p.jpg"], "p.jpg: unknown suffix"),
    "several without a folder": (["a.png", "b.png"], "predictions.jpg: no such folder"),
    "several with a truth": (
        ["data/rgb.png", "text.png", "--output", "data", "--gt", "data/gt.png"],
        "--gt data/gt.png: goes with one image only",
    ),
    "empty name": (["--output", ""], "a file name is empty"),
    "empty truth": (["--gt", ""], "a file name is empty"),
    "second image missing": (
        ["data/rgb.png", "no.png", "--output", "data/new"],
        "no.png: no such file",
    ),
    "two of one name": (
        ["data/rgb.png", "other/rgb.png", "--output", "data/new"],
        "other/rgb.png: data/rgb.png has the same mask, data/new/rgb.png (rename",
    ),
    "output over the image": (
        ["data/rgb.png", "--output", "data/../data/rgb.png"],
        "would overwrite the input",
    ),
    "output over the truth": (
        ["data/rgb.png", "--gt", "data/gt.png", "--overlay", "data/gt.png"],
        "would overwrite the input",
    ),
    "overlay over the mask": (
        ["--output", "m.png", "--overlay", "m.png"],
        "m.png: would overwrite the output m.png",
    ),
    "truth of another size": (["--gt", "small.png"], "2x1 pixels, but"),
    "jpeg too wide": (["wide.png"], "70000x1 pixels, and a JPEG holds at most 65500"),
    "device": (["--device", "cuda"], "cuda: this machine has no such device"),
}


@pytest.mark.parametrize("name", BAD_PREDICTION)
def test_bad_prediction_input_is_one_line_and_leaves_all_as_it_was(
    trained, capsys, monkeypatch, name
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments, words = BAD_PREDICTION[name]
    for name in ("data/new", "other"):
        (trained / name).mkdir()
    for name in ("a.png", "b.png", "other/rgb.png"):
        shutil.copy("data/rgb.png", name)
    make_text("text.png")
    Image.fromarray(np.array([[0, 255]], np.uint8)).save("small.png")
    Image.fromarray(np.zeros((1, 70_000, 3), np.uint8)).save("wide.png")
    Path("predictions.jpg").write_text("an older mask")
    capsys.readouterr()
    before = state(trained)
    assert run(predict.main, *arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert words in said.err
    assert state(trained) == before


def test_out_of_memory_is_told(trained, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(segutils.Predictor, "segment", full)
    capsys.readouterr()
    assert run(predict.main) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: data/rgb.png: out of memory (")
    assert said.count("\n") == 1
    assert not Path("predictions.jpg").exists()


def test_out_of_memory_in_training_is_told(folder, capsys, monkeypatch):
    monkeypatch.setattr(train, "image_versions", fails_for_memory)
    assert run(train.main) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory (") and said.count("\n") == 1
    assert os.listdir(folder) == ["data"]


def fails_for_memory(*_):
    raise MemoryError


def test_too_little_memory_to_train_is_told_before_any_work(
    folder, capsys, monkeypatch
):
    monkeypatch.setattr(labelled, "free_memory", lambda: 4e8)
    assert run(train.main) == 2
    assert capsys.readouterr().err == (
        "error: data/rgb.png: 230x176 pixels to train on need 0.5 GB of memory, but "
        "0.4 GB are free (free some, or cut the image)\n"
    )
    assert os.listdir(folder) == ["data"]


# ------------------------------------------------------------------ as a process

LIMITED = """
import resource, sys
import predict
from onelabel import console

limit = int(sys.argv.pop(1)) * 2**20
limit += int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(console.run(predict.main, sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
@pytest.mark.parametrize("mebibytes", [100, 200, 700])
def test_memory_does_not_grow_faster_than_is_said(trained, mebibytes):
    """The logits of the whole image alone would take 160 MB, its features 1.3 GB."""
    rgb = np.tile(open_image("data/rgb.png").whole(), (23, 22, 1))[:4000, :5000]
    Image.fromarray(rgb).save("large.png", compress_level=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    options = [str(mebibytes), "large.png", "--output", "m.png"]
    process = command(trained, "-c", LIMITED, *options, env=environment)
    _, err = process.communicate()
    if mebibytes < 700:
        need = r"5000x4000 pixels need \d\.\d GB of memory, but 0\.\d GB are free"
        if mebibytes == 100:  # too little to decode it
            need = f"{need}|out of memory"
        assert process.returncode == 2
        assert re.fullmatch(rf"error: large\.png: ({need}) \(.*\)\n", err)
    else:
        assert (process.returncode, err) == (0, "")
    assert (trained / "m.png").exists() == (mebibytes == 700)


def command(project, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_do_no_harm(trained, closed):
    line = f"{sys.executable} {ROOT / 'predict.py'} --output m.png {closed}"
    assert subprocess.run(line, shell=True).returncode == 0
    assert Path("m.png").exists()


def test_a_killed_run_leaves_whole_files():
    found = sum(kill.kill_many(5).values(), Counter())
    assert found["killed"] > 0
    assert found["old"] + found["new"] == 3 * 2 + 2 * 3


def test_ctrl_c_keeps_what_was_learned_so_far(project):
    code = (
        "import train\n"
        "from onelabel import console\n"
        "plain = train.evaluate\n"
        "def evaluate(*args):\n"
        "    print('epoch', flush=True)\n"
        "    return plain(*args)\n"
        "train.evaluate = evaluate\n"
        "raise SystemExit(console.run(lambda: train.main(['--epochs', '10000'])))"
    )
    process = command(project, "-c", code)
    # At the end of the second epoch, the first is certainly kept.
    assert [process.stdout.readline() for _ in range(2)] == ["epoch\n"] * 2
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert re.search(r"interrupted: the average after epoch \d+ is taken", out)
    model_file.load(project / "model.pt")


def test_ctrl_c_before_the_first_epoch_leaves_nothing(project):
    code = (
        "import train\n"
        "from onelabel import console\n"
        "def evaluate(*args):\n"
        "    print('now', flush=True)\n"
        "    while True: pass\n"
        "train.evaluate = evaluate\n"
        "raise SystemExit(console.run(lambda: train.main([])))"
    )
    process = command(project, "-c", code)
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert not (project / "model.pt").exists()


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")],
)
def test_a_signal_while_an_image_is_segmented_is_one_line(trained, number, code, line):
    program = (
        "import time, predict, segutils\n"
        "from onelabel import console\n"
        "def slow(*_):\n"
        "    print('now', flush=True)\n"
        "    time.sleep(60)\n"
        "segutils.Predictor.segment = slow\n"
        "raise SystemExit(console.run(predict.main, ['--output', 'm.png']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = command(trained, "-c", program, env=environment)
    assert process.stdout.readline() == "now\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, line)
    assert not [path for path in trained.iterdir() if "m.png" in path.name]


def scripts_alone(folder):
    """Make an environment of only what the README says that the scripts need."""
    wanted, found = ["torch", "numpy", "pillow", "matplotlib", "tqdm"], set()
    while wanted:
        name = wanted.pop()
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system
        if package.metadata["Name"] in found:
            continue
        found.add(package.metadata["Name"])
        for requirement in map(Requirement, package.requires or ()):
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
        for top in {Path(f).parts[0] for f in package.files if f.parts[0] != ".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(package.locate_file(top))
    return folder


def test_scripts_run_where_jupyter_is_not_installed(project, tmp_path_factory):
    packages = scripts_alone(tmp_path_factory.mktemp("packages"))
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    for code, expected in (("import IPython", 1), ("import ipywidgets", 1)):
        process = command(project, "-S", "-c", code, env=environment)
        assert process.wait() == expected
    for line in (["train.py", "--epochs", "1"], ["predict.py", "--overlay", "o.jpg"]):
        process = command(project, "-S", *line, env=environment)
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
    assert (project / "predictions.jpg").exists()


@pytest.mark.parametrize("script", ["train.py", "predict.py"])
@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--nope", 2)])
def test_help_and_mistakes_are_answered(project, script, option, code):
    process = command(project, script, option)
    out, err = process.communicate()
    assert process.returncode == code
    if code == 0:
        assert out.startswith("usage:") and err == ""
    else:
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_predict_imports_no_more_than_it_needs(project):
    assert command(project, "train.py", "--epochs", "1").wait() == 0
    code = (
        "import sys, predict\n"
        "predict.main([])\n"
        "heavy = {'matplotlib', 'IPython', 'torch._dynamo', 'onelabel.sampling'}\n"
        "sys.exit(repr(heavy & set(sys.modules) or 0))"
    )
    _, err = command(project, "-c", code).communicate()
    assert err.strip() == "0"
