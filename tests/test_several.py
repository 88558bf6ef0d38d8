"""Training on several labelled images."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, train_here
from PIL import Image

import segutils
import train
from onelabel import light, model_file, sampling, scores
from onelabel.image import UNLABELLED
from onelabel.truth import read_truth


@pytest.fixture
def two(folder):
    """Two small scenes of different sizes: photos/a, b and labels/a, b."""
    for name in ("photos", "labels"):
        os.mkdir(name)
    with (
        Image.open(ROOT / "data/rgb.png") as rgb,
        Image.open(ROOT / "data/gt.png") as gt,
    ):
        for name, box in {"a": (400, 500, 630, 676), "b": (100, 200, 228, 440)}.items():
            rgb.crop(box).save(f"photos/{name}.png")
            gt.crop(box).save(f"labels/{name}.png")
    return folder


LISTED = "--rgb photos/a.png photos/b.png --gt labels/a.png labels/b.png".split()
FOLDERS = "--rgb photos --gt labels/".split()


def scenes_of(*arguments):
    return train.read_scenes(train.parse_args(arguments))[0]


def test_held_out_scores_are_those_of_all_blocks_together(two, capsys):
    assert train_here(*LISTED, "--epochs", 1) == 0
    assert "\n2 held-out blocks " in capsys.readouterr().out
    learned = model_file.load("model.pt")
    logits, answers = [], []
    for scene in scenes_of(*LISTED):
        whole = segutils.logits(learned.model, scene.rgb)
        logits += whole[scene.block.slices].ravel().tolist()
        answers += scene.truth[scene.block.slices].ravel().tolist()
    logits, answers = torch.tensor(logits), torch.tensor(answers, dtype=torch.uint8)
    loss = scores.segmentation_loss(logits, answers).item()
    table = scores.scores(logits.numpy() > 0, answers.numpy())
    assert learned.facts["held_out"] == pytest.approx({"loss": loss, **table})


def test_colour_constants_and_looks_are_those_of_all_images(two):
    assert train_here(*LISTED, "--epochs", 1) == 0
    learned = model_file.load("model.pt")
    scenes = scenes_of(*LISTED)
    pixels = np.concatenate([scene.rgb.reshape(-1, 3) for scene in scenes])
    np.testing.assert_allclose(learned.model.normalise.mean, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(learned.model.normalise.std, pixels.std(0), rtol=1e-6)
    looks = learned.looks
    np.testing.assert_allclose(looks["lowest"], np.percentile(pixels, 0.5, axis=0))
    pictures, truths = [s.rgb for s in scenes], [s.truth for s in scenes]
    error = light.measure_error(looks, pictures)
    assert looks == {
        **light.describe(looks["network"], pictures[::-1], truths[::-1]),
        "error": error,
    }
    alone = [
        light.describe(looks["network"], [p], [t])["colour"]
        for p, t in zip(pictures, truths, strict=True)
    ]
    low, high = np.sort(alone, axis=0)
    assert ((low < looks["colour"]) & (looks["colour"] < high)).all()


def test_folders_are_paired_by_name(two):
    assert train_here(*LISTED, "--epochs", 1, "--model", "listed.pt") == 0
    # Other formats, and files that are no images, make no difference.
    with Image.open("photos/b.png") as picture:
        picture.save("photos/b.TIFF")
    os.remove("photos/b.png")
    for name in ("photos/notes.txt", "labels/.hidden.png"):
        Path(name).write_text("no picture")
    assert train_here(*FOLDERS, "--epochs", 1) == 0
    one, other = (model_file.load(name).model for name in ("listed.pt", "model.pt"))
    other = other.state_dict()
    assert all(torch.equal(v, other[name]) for name, v in one.state_dict().items())


def recolour(path):
    truth, _ = read_truth(path)
    Image.fromarray(np.array([[0, 0, 9], [255, 255, 255]], np.uint8)[truth]).save(path)


def one_corner(path):
    truth = np.zeros((240, 128), np.uint8)
    truth[:5, :5] = 255
    Image.fromarray(truth).save(path)


BAD = {
    "an image more": (
        None,
        LISTED[:5],
        "photos/a.png: number of images 2, of truths 1",
    ),
    "folder and file": (None, ["--rgb", "photos", *LISTED[3:5]], "photos: is a folder"),
    "folder and files": (
        None,
        ["--rgb", "photos", *LISTED[3:]],
        "photos: number of images 1, of truths 2",
    ),
    "an image without truth": (
        lambda: os.remove("labels/b.png"),
        FOLDERS,
        "photos/b.png: labels/ holds no truth of that name",
    ),
    "a truth without image": (
        lambda: os.remove("photos/a.png"),
        FOLDERS,
        "labels/a.png: photos holds no image of that name",
    ),
    "two of one name": (
        lambda: shutil.copy("labels/a.png", "labels/a.bmp"),
        FOLDERS,
        "labels/a.png: labels/a.bmp has the same name",
    ),
    "an empty folder": (
        lambda: os.mkdir("none"),
        ["--rgb", "photos", "--gt", "none"],
        "none: holds no images",
    ),
    "other colours": (
        lambda: recolour("labels/b.png"),
        LISTED,
        "labels/b.png: drawn in (0, 0, 9) and (255, 255, 255), but labels/a.png in",
    ),
    "a class in one place": (
        lambda: one_corner("labels/b.png"),
        LISTED,
        "labels/b.png: the smaller class (25 pixels) lies in one place",
    ),
    "a small image": (
        lambda: Image.new("RGB", (31, 40)).save("photos/a.png"),
        ["--rgb", "photos/b.png", "photos/a.png", "--gt", "labels/b.png", "small.png"],
        "photos/a.png: 31x40 pixels (training needs",
    ),
    "model over the second": (
        lambda: os.rename("labels/b.png", "labels/b.pt"),
        [*LISTED[:-1], "labels/b.pt", "--model", "labels/b.pt"],
        "labels/b.pt: would overwrite the input",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pairs_are_told_in_one_line(two, capsys, name):
    make, arguments, words = BAD[name]
    Image.fromarray(255 * np.eye(40, 31, dtype=np.uint8)).save("small.png")
    if make:
        make()
    before = {p: p.read_bytes() for p in two.rglob("*") if p.is_file()}
    assert train_here(*arguments, "--epochs", 1) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {words}")
    assert said.count("\n") == 1
    assert {p: p.read_bytes() for p in two.rglob("*") if p.is_file()} == before


# ------------------------------------------------------------------ the sheet


def scenes_of_sizes(*shapes):
    found = []
    for number, shape in enumerate(shapes):
        rng = np.random.default_rng(number)
        rgb = np.full((*shape, 3), 10 * number + 10, np.uint8)
        truth = rng.integers(0, 2, shape, np.uint8)
        found.append(sampling.split_scene(rgb, truth, 16))
    return found


def test_patches_are_drawn_from_images_by_labelled_area_and_never_across_two():
    scenes = scenes_of_sizes((100, 60), (64, 140), (90, 90))
    scenes[2].truth[:, 40:] = UNLABELLED
    weights = sampling.sheet_weights(scenes, 16)
    assert weights.shape == (254, 140)
    assert weights.sum() == pytest.approx(1)
    areas = []
    for scene in scenes:
        guarded = scene.block.grown(sampling.GUARD, scene.truth.shape)
        left = np.ones(scene.truth.shape, bool)
        left[guarded.slices] = False
        areas.append((left & (scene.truth != UNLABELLED)).sum())
    shares = [
        weights[rows].sum() for rows in (slice(100), slice(100, 164), slice(164, 254))
    ]
    np.testing.assert_allclose(shares, np.array(areas) / sum(areas))
    origins = sampling.draw_origins(weights, 3000, torch.Generator().manual_seed(0))
    sheet = torch.from_numpy(sampling.sheet([s.rgb[None] for s in scenes], rows=1))
    held_out = [np.zeros(s.truth.shape, np.uint8) for s in scenes]
    for scene, outside in zip(scenes, held_out, strict=True):
        outside[scene.block.slices] = 1
    marks = torch.from_numpy(sampling.sheet(held_out))
    still = torch.zeros(len(origins), dtype=torch.long)
    patches, inside = sampling.cut_patches(sheet, marks, still, origins, 16, still)
    assert inside.max() == 0  # no patch reaches into a block
    values = patches.flatten(1)
    assert (values == values[:, :1]).all()  # of one image
    drawn = [(values[:, 0] == value).float().mean().item() for value in (10, 20, 30)]
    np.testing.assert_allclose(drawn, shares, atol=0.03)


def test_one_image_on_its_sheet_is_drawn_from_as_without_one():
    (scene,) = scenes_of_sizes((90, 70))
    _, truth, block, size, _ = scene
    draws = [
        sampling.draw_origins(weights, 5000, torch.Generator().manual_seed(1))
        for weights in (
            sampling.origin_weights(truth, block, size),
            sampling.sheet_weights([scene], size),
        )
    ]
    assert torch.equal(*draws)


def test_a_small_image_among_large_ones_sets_the_size_of_patches(two):
    with Image.open("photos/a.png") as rgb, Image.open("labels/a.png") as gt:
        rgb.crop((0, 0, 60, 60)).save("photos/c.png")
        gt.crop((0, 0, 60, 60)).save("labels/c.png")
    scenes = scenes_of(*FOLDERS)
    patches = [scene.patch for scene in scenes]
    assert len(patches) == 3
    assert train.plan_epochs(scenes)[0] == min(patches) < max(patches)
    assert train_here(*FOLDERS, "--epochs", 1) == 0
