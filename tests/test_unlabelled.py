"""Training on images without labels, too."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, raised_after, train_here, train_until
from PIL import Image

import segutils
import train
from onelabel import light, model_file, sampling, snapshots, unlabelled
from onelabel.files import InputError
from onelabel.image import UNLABELLED, InMemory
from segutils import Block


pytestmark = pytest.mark.usefixtures("short_epochs")


@pytest.fixture
def photos(folder):
    """Two small images without labels, in a folder, beside the labelled one."""
    os.mkdir("photos")
    with Image.open(ROOT / "data/new/rgb.png") as rgb:
        rgb.crop((100, 100, 260, 240)).save("photos/a.png")
        rgb.crop((300, 300, 401, 377)).save("photos/b.jpg", quality=95)
    Path("photos/notes.txt").write_text("no image")
    return folder


def test_files_folders_and_patterns_name_images(photos):
    both = ["photos/a.png", "photos/b.jpg"]
    assert unlabelled.list_images(["photos"]) == both
    assert unlabelled.list_images(["photos/*.jpg", "photos/a.png"]) == both[::-1]
    assert unlabelled.list_images([]) == []
    with pytest.raises(InputError, match=r"data/new: holds no images"):
        os.mkdir("data/new")
        unlabelled.list_images(["data/new"])


def test_no_more_tiles_are_read_than_there_is_room_for(photos, monkeypatch):
    monkeypatch.setattr(unlabelled, "MOST", 4)
    Image.new("RGB", (900, 900)).save("photos/large.png")
    samples = unlabelled.read_samples(unlabelled.list_images(["photos"]), None, None)
    assert [len(sample) for sample in samples] == [1, 1, 1]
    (large,) = unlabelled.read_samples(["photos/large.png"], None, None)
    assert len(large) == 4
    names = ["photos/a.png", "photos/b.jpg"] * 5
    assert len(unlabelled.read_samples(names, None, None)) == 4


def test_what_the_network_is_sure_of_is_the_truth(model, scene, monkeypatch):
    monkeypatch.setattr(light, "estimate", lambda *_: light.SAME)
    rgb, truth = scene
    hidden = np.zeros(rgb.shape, bool)
    hidden[:20, :30] = True
    picture = np.ma.MaskedArray(rgb, hidden)
    wide = np.ma.concatenate([picture, picture], axis=1)  # of two tiles
    looks = light.describe(model, [rgb], [truth])
    logits = segutils.logits(model, wide)
    monkeypatch.setattr(unlabelled, "SURE", float(np.median(abs(logits))))
    sample = InMemory(wide).sample()
    taught = unlabelled.teach(looks, [sample], 32)
    assert len(taught.scenes) == len(sample) == 2
    covered = np.zeros(logits.shape, int)
    for (tile, _), learned in zip(sample, taught.scenes, strict=True):
        expected = np.where(logits > 0, 1, 0).astype(np.uint8)
        expected[abs(logits) < unlabelled.SURE] = UNLABELLED
        expected[np.ma.getmaskarray(wide).any(-1)] = UNLABELLED
        core = np.zeros(logits.shape, bool)
        core[tile.core.slices] = True
        covered += core
        expected[~core] = UNLABELLED
        np.testing.assert_array_equal(learned.truth, expected[tile.seen.slices])
        assert not any(learned.block)  # nothing is held out
    assert (covered == 1).all()
    assert 0.45 < taught.sure < 0.5
    assert taught.lights == [light.SAME]


def test_what_is_taught_is_in_the_training_light(model, scene, monkeypatch):
    dark = light.Light((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    monkeypatch.setattr(light, "estimate", lambda *_: dark)
    rgb, truth = scene
    looks = light.describe(model, [rgb], [truth])
    monkeypatch.setattr(unlabelled, "SURE", 0.0)
    (learned,) = unlabelled.teach(looks, [InMemory(rgb // 2).sample()], 32).scenes
    assert abs(learned.rgb.astype(int) - rgb).max() <= 1
    mask = segutils.segment(light.in_light(model, looks, dark), rgb // 2)
    np.testing.assert_array_equal(learned.truth, mask)


def test_labelled_images_are_left_out_and_others_named_once(photos):
    pair = ("data/rgb.png", "data/gt.png")
    os.symlink("../data/rgb.png", "photos/same.png")
    names = ["photos", "photos/*.png", os.path.abspath("photos/a.png")]
    found = unlabelled.list_images(names, [pair])
    assert [os.path.basename(path) for path in found] == ["a.png", "b.jpg"]
    with pytest.raises(InputError, match=r"data/rgb\.png: is labelled"):
        unlabelled.list_images(["data/rgb.png"], [pair])


def test_where_nothing_is_sure_the_first_network_is_kept(photos, monkeypatch, capsys):
    assert train_here("--epochs", 2) == 0
    first = model_file.load("model.pt").model.state_dict()
    monkeypatch.setattr(unlabelled, "SURE", 1e9)
    assert train_here("--epochs", 2, "--unlabelled", "photos") == 0
    assert "warning: unlabelled images are left out" in capsys.readouterr().err
    for name, value in model_file.load("model.pt").model.state_dict().items():
        assert (value == first[name]).all()
    assert not list(Path().glob("*.snapshot"))


def test_half_of_the_patches_are_of_unlabelled_images(scene):
    rgb, truth = scene
    labelled = sampling.split_scene(rgb, truth, 32)
    ones = np.ones((40, 60), np.uint8)  # of one class alone
    taught = [sampling.scene_of(rgb[:40, :60], ones, sampling.NOWHERE, 32)] * 3
    weights = sampling.sheet_weights([labelled], 32, taught)
    height = rgb.shape[0]
    assert weights.shape == (height + 3 * 40, rgb.shape[1])
    assert weights[:height].sum() == pytest.approx(0.5)
    for top in range(height, height + 120, 40):
        assert weights[top : top + 40].sum() == pytest.approx(0.5 / 3)
        assert not weights[top + 9 : top + 40].any()  # no patch leaves its image
    alone = sampling.sheet_weights([labelled], 32)
    np.testing.assert_allclose(weights[:height] * 2, alone)


def test_of_an_empty_block_nothing_is_guarded():
    truth = np.ones((50, 60), np.uint8)
    assert sampling.training_pixels(truth, Block(0, 0, 0, 0)) == truth.size
    assert sampling.training_pixels(truth, Block(10, 10, 20, 20)) < truth.size


def test_train_learns_from_unlabelled_images_and_reports_it(photos, capsys):
    assert train_here("--epochs", 2) == 0
    plain = model_file.load("model.pt")
    capsys.readouterr()
    assert train_here("--epochs", 2, "--unlabelled", "photos") == 0
    out, err = capsys.readouterr()
    first, second, *_ = out.splitlines()
    assert first.startswith("unlabelled images: 2; ")
    assert "% of their pixels are taken as labelled; " in first
    assert second.startswith("held-out IoU: ")
    assert second.endswith(" with")
    assert err == ""
    both = model_file.load("model.pt")
    assert not (both.model.conv1.weight == plain.model.conv1.weight).all()
    # What new images are compared with is the labelled image alone, by the network
    # that learned no other.
    learned = both.looks["network"].state_dict()
    for name, value in plain.model.state_dict().items():
        assert (learned[name] == value).all()
    for name in ("colour", "contrast", "lowest", "highest", "larger"):
        assert both.looks[name] == plain.looks[name]
    assert (both.model.normalise.mean == plain.model.normalise.mean).all()
    assert not list(Path().glob("*.snapshot"))


@pytest.mark.parametrize("scored", [1, 4])  # in the first training, in the second
def test_a_killed_training_goes_on_to_the_same_end(photos, monkeypatch, capsys, scored):
    monkeypatch.setattr(snapshots, "SECONDS", 0)
    line = ["--epochs", 3, "--unlabelled", "photos"]
    assert train_here(*line) == 0
    undisturbed = Path("model.pt").read_bytes()
    os.remove("model.pt")
    train_until(scored, *line)
    assert train_here(*line, "--resume") == 0
    assert Path("model.pt").read_bytes() == undisturbed
    assert not list(Path().glob("*.snapshot"))


def test_an_interrupted_first_training_ends_it(photos, capsys):
    with raised_after(1, KeyboardInterrupt):
        assert train_here("--epochs", 3, "--unlabelled", "photos") == 0
    out, _ = capsys.readouterr()
    assert "not finished: the unlabelled images are left out" in out
    assert model_file.load("model.pt").facts["epoch"] == 1


def test_an_interrupted_second_training_leaves_the_first_network(photos, capsys):
    assert train_here("--epochs", 3) == 0
    first = model_file.load("model.pt").model.state_dict()
    with raised_after(4, KeyboardInterrupt):  # of the second training, the first epoch
        assert train_here("--epochs", 3, "--unlabelled", "photos") == 0
    assert "learned without them is kept" in capsys.readouterr().out
    for name, value in model_file.load("model.pt").model.state_dict().items():
        assert (value == first[name]).all()
    assert not list(Path().glob("*.snapshot"))


def test_an_interrupt_while_images_are_masked_leaves_the_first_network(
    photos, monkeypatch, capsys
):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(unlabelled, "teach", interrupted)
    assert train_here("--epochs", 2, "--unlabelled", "photos") == 0
    assert "learned without them is kept" in capsys.readouterr().out
    assert model_file.load("model.pt").facts["epoch"] == 2


def test_a_second_training_without_a_loss_leaves_the_first_network(photos, monkeypatch):
    plain, calls = train.evaluate, []

    def second_fails(*arguments):
        calls.append(1)
        loss, found = plain(*arguments)
        return (loss if len(calls) <= 2 else np.nan), found

    monkeypatch.setattr(train, "evaluate", second_fails)
    assert train_here("--epochs", 2, "--unlabelled", "photos") == 0
    assert model_file.load("model.pt").facts["epoch"] == 2
    assert len(calls) == 3


def test_refused_unlabelled_images(photos, capsys):
    Image.fromarray(np.zeros((90, 90), np.uint16)).save("photos/deep.png")
    assert train_here("--epochs", 1, "--unlabelled", "photos/deep.png") == 2
    assert "photos/deep.png: uint16 pixels" in capsys.readouterr().err
    Image.new("RGB", (3, 40)).save("photos/thin.png")
    assert train_here("--epochs", 1, "--unlabelled", "photos/thin.png") == 2
    assert "thin.png: 3x40 pixels (training needs 32" in capsys.readouterr().err
    assert train_here("--epochs", 1, "--unlabelled", "missing.png") == 2
    assert "missing.png" in capsys.readouterr().err
    before = Path("photos/a.png").read_bytes()
    line = ["--epochs", 1, "--unlabelled", "photos/a.png", "--plot", "photos/a.png"]
    assert train_here(*line) == 2
    assert Path("photos/a.png").read_bytes() == before
    assert not Path("model.pt").exists()
