"""Labelling by strokes: what is learned, shown and kept, without a page."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import predict_here
from PIL import Image
from rasterio.transform import from_origin
from samples import write_deep_png

import segutils
import train
from onelabel import lesson, model_file, photo, strokes
from onelabel.files import InputError
from onelabel.image import UNLABELLED
from onelabel.labelling import Session
from onelabel.lesson import Lesson, labelled_parts
from onelabel.photo import Photo
from onelabel.strokes import Labels, Stroke
from onelabel.truth import read_truth
from segutils import Block


RGB = "data/rgb.png"
ZERO = Stroke("a", 0, 3, ((10, 10), (40, 12)))
ONE = Stroke("b", 1, 2, ((100, 90), (120, 95)))


def opened(path=RGB, labels=()):
    image = Photo(path)
    image.set_strokes(list(labels))
    return image


def drawn(shape, *several):
    return strokes.draw(np.full(shape, UNLABELLED, np.uint8), several)


# ------------------------------------------------------------------ a photo


def test_labels_follow_the_strokes(folder):
    image = opened(labels=[ZERO])
    image.set_strokes([ZERO, ONE])
    assert (image.labels == drawn(image.shape, ZERO, ONE)).all()
    image.set_strokes([ONE])
    assert (image.labels == drawn(image.shape, ONE)).all()
    image.set_strokes([])
    assert (image.labels == UNLABELLED).all()


def test_strokes_correct_an_older_truth(folder):
    image = opened()
    image.start_from("data/gt.png")
    truth, _ = read_truth("data/gt.png")
    assert (image.labels == truth).all()
    image.set_strokes([ZERO])
    assert (image.labels == strokes.draw(truth.copy(), [ZERO])).all()
    image.start_from(None)
    assert (image.labels == drawn(image.shape, ZERO)).all()


def test_a_truth_of_another_size_is_refused(folder):
    Image.new("L", (30, 20)).save("other.png")
    with pytest.raises(InputError, match=r"other\.png"):
        opened().start_from("other.png")


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_a_view_shows_every_few_pixels(folder, scene, step):
    block = Block(8, 13, 150, 201)
    view = opened().picture(block, step)
    assert (view == scene[0][block.slices][::step, ::step]).all()


def test_views_of_a_whole_large_image_are_of_its_overview(folder, scene, monkeypatch):
    monkeypatch.setattr(photo, "OVERVIEW", scene[1].size // 9)
    image = opened()
    assert (image.overview == scene[0][::3, ::3]).all()
    whole = Block(0, 0, *image.shape)
    assert (image.picture(whole, 6) == scene[0][::6, ::6]).all()
    assert image.picture(whole, 5).shape[:2] == scene[0][::5, ::5].shape[:2]
    assert (image.picture(whole, 2) == scene[0][::2, ::2]).all()


def test_parts_are_segmented_as_the_whole(folder, scene, model, monkeypatch):
    monkeypatch.setattr(photo, "PART", 64)
    image, predictor = opened(), segutils.Predictor(model)
    for part in image.parts_from(Block(0, 0, 10, 10)):
        image.segment(predictor, part)
    expected = 255 * segutils.sigmoid(predictor.logits(scene[0]))
    assert abs(image.probability - expected).max() <= 0.51


def test_the_part_in_view_comes_first(folder, monkeypatch):
    monkeypatch.setattr(photo, "PART", 50)
    parts = opened().parts_from(Block(100, 150, 150, 200))
    assert parts[0] == Block(100, 150, 150, 200)
    assert sum((p.bottom - p.top) * (p.right - p.left) for p in parts) == 176 * 230


def test_the_most_doubtful_place_is_one_that_is_not_painted(folder):
    image = opened()
    image.probability[64:96, 96:128] = 140
    image.probability[32:64, 32:64] = 180
    assert image.unsure_places()[0] == Block(64, 96, 96, 128)
    image.set_strokes([ONE._replace(points=((100, 70),))])
    assert image.unsure_places()[0] == Block(32, 32, 64, 64)


def test_doubt_counts_to_the_edge_and_where_an_older_truth_labels_all(folder):
    image = opened()
    image.start_from("data/gt.png")
    image.probability[170:, 225:] = 128
    image.set_strokes([ONE])
    assert image.unsure_places() == [Block(160, 224, 176, 230)]


def test_where_nothing_is_doubtful_the_view_stays(session):
    session.model = segutils.FCNN()
    with pytest.raises(InputError, match="nothing is doubtful"):
        session.go_to_doubt()
    assert session.painter.gone == []


# ------------------------------------------------------------------ what is learned


def test_the_labelled_parts_are_learned(folder, scene):
    image = opened(labels=[ZERO, ONE])
    scenes = image.scenes()
    assert len(scenes) == 1  # both lie in one part
    part = scenes[0]
    assert (part.rgb == scene[0][:144, :144]).all()
    assert (part.truth == image.labels[:144, :144]).all()


def test_of_an_old_truth_some_parts_are_learned_and_all_corrected_ones(
    folder, monkeypatch
):
    monkeypatch.setattr(lesson, "CELL", 32)
    monkeypatch.setattr(lesson, "MOST", 5)
    image = opened()
    image.start_from("data/gt.png")
    assert len(labelled_parts(image.image, image.labels, [], {})) == 5
    monkeypatch.setattr(lesson, "MOST", 2)
    boxes, known = [strokes.box(stroke) for stroke in (ZERO, ONE)], {}
    labelled_parts(image.image, image.labels, boxes, known)
    corners = {(part.top, part.left) for part in known}
    assert corners == {(0, 0), (0, 16), (48, 80), (80, 80)}  # with their margins


class FakeTrainer:
    """What stands for train.Trainer: it counts, and may wait or fail."""

    made: list
    on_take = staticmethod(lambda trainer: None)

    def __init__(self, model, scenes, size, epochs, steps, **more):
        self.average, self.steps, self.taken, self.scenes = model, steps, 0, scenes
        FakeTrainer.made.append(self)

    def take(self, steps):
        self.taken += steps
        FakeTrainer.on_take(self)


@pytest.fixture
def lessons(model):
    """A lesson of fake trainings, and what it calls."""
    FakeTrainer.made, FakeTrainer.on_take = [], lambda trainer: None
    networks, problems, done = [], [], threading.Event()

    def start(scenes, told):
        def on_network(network, steps, is_last):
            networks.append((steps, told))
            if is_last:
                done.set()

        made.start(scenes, (), on_network)

    def on_problem(problem):
        problems.append(problem)
        done.set()

    made = Lesson(lambda *_: model, FakeTrainer, on_problem)
    return start, networks, problems, done


def test_trainings_grow_from_each_other(lessons):
    start, networks, _, done = lessons
    start(["scenes"], "last")
    assert done.wait(20)
    assert [trainer.steps for trainer in FakeTrainer.made] == [100, 200, 400, 800, 1600]
    assert all(trainer.taken == trainer.steps for trainer in FakeTrainer.made)
    assert networks[:3] == [(100, "last"), (300, "last"), (700, "last")]


def test_new_labels_break_off_a_long_training(lessons):
    start, networks, _, done = lessons

    def on_take(trainer):
        if trainer.steps == 400 and trainer.scenes == ["old"]:
            start(["new"], "last")

    FakeTrainer.on_take = on_take
    start(["old"], "first")
    assert done.wait(20)
    old = [t for t in FakeTrainer.made if t.scenes == ["old"]]
    assert [t.taken for t in old] == [100, 200, lesson.RUN]
    assert [told for _, told in networks[:3]] == ["first", "first", "last"]


def test_a_training_that_fails_is_told_and_the_next_one_works(lessons):
    start, networks, problems, done = lessons

    def fails(trainer):
        raise RuntimeError("no\nluck")

    FakeTrainer.on_take = fails
    start(["scenes"], "first")
    assert done.wait(20)
    assert len(problems) == 1
    assert problems[0].endswith(": no luck")
    done.clear()
    FakeTrainer.on_take = lambda trainer: None
    start(["scenes"], "last")
    assert done.wait(20)
    assert networks


# ------------------------------------------------------------------ a session


class FakePainter:
    """A page that does not exist."""

    def __init__(self):
        self.strokes, self.status, self.gone = [], "", []
        self.names, self.colours = ["soil", "plant"], [(0, 0, 0), (255, 0, 0)]
        self.is_new = threading.Event()

    def show(self, shape, strokes, layers):
        self.shape, self.strokes, self.layers = shape, list(strokes), layers

    def refresh(self, *names):
        assert set(names) <= set(self.layers)
        self.is_new.set()

    def go_to(self, block):
        self.gone.append(block)

    def view(self):
        return Block(0, 0, 50, 50)


@pytest.fixture
def session(folder, monkeypatch):
    """A session whose trainings are very short."""
    for name in ("FIRST", "LONGEST", "RUN"):
        monkeypatch.setattr(lesson, name, 5)
    made = Session(FakePainter(), train.new_model, train.Trainer)
    made.open(RGB)
    return made


def kept_strokes():
    labels = strokes.read_labels("data/labels.json")
    return {name: kept.strokes for name, kept in labels.items()}


def another_session():
    made = Session(FakePainter(), train.new_model, train.Trainer)
    made.open(RGB)
    return made


def paint(session, *several):
    session.painter.strokes += several
    session.strokes_changed()


def trained(session):
    """Train, and wait for the mask."""
    session.painter.is_new.clear()
    session.train()
    assert session.painter.is_new.wait(60)


def test_each_stroke_is_kept_at_once(session):
    paint(session, ZERO)
    assert kept_strokes() == {"rgb.png": [ZERO]}
    paint(session, ONE)
    another = another_session()
    assert another.painter.strokes == [ZERO, ONE]


def test_the_labels_of_other_images_stay(session):
    Image.open(RGB).save("data/other.png")
    paint(session, ZERO)
    session.open("data/other.png")
    assert session.painter.strokes == []
    paint(session, ONE)
    assert kept_strokes() == {"rgb.png": [ZERO], "other.png": [ONE]}
    session.open("./data/rgb.png")  # by another name
    assert session.painter.strokes == [ZERO]
    assert session.painter.status.startswith("2 strokes on 2 images; labelled here: ")


def test_one_class_alone_is_not_learned(session):
    paint(session, ZERO)
    assert re.match(
        "1 stroke; labelled here: .* soil, 0% plant", session.painter.status
    )
    session.train()
    assert "paint both classes" in session.painter.status
    assert session.model is None


def test_the_mask_follows_a_training(session):
    paint(session, ZERO, ONE)
    trained(session)
    assert "2 strokes; labelled here: " in session.painter.status
    assert (
        "knows 2 strokes, after 5 steps; the training is done" in session.painter.status
    )
    predictor = segutils.Predictor(session.model)
    mask = predictor.segment(session.photo.image.whole()) == 1
    shown = session.painter.layers["mask"](Block(0, 0, 60, 50), 1)
    assert ((shown[..., 3] > 0) == mask[:60, :50]).mean() > 0.99
    session.go_to_doubt()
    session.go_to_doubt()
    first, second = session.painter.gone
    assert first != second


def test_after_each_stroke_if_asked_to(session):
    session.is_eager = True
    paint(session, ZERO, ONE)
    assert session.painter.is_new.wait(60)


def test_images_are_ranked_by_doubt(session, scene):
    Image.fromarray(np.full_like(scene[0], 255)).save("data/white.png")
    with pytest.raises(InputError, match="train first"):
        session.rank([RGB])
    paint(session, ZERO, ONE)
    trained(session)
    Image.new("RGB", (1, 1)).save("data/dot.png")
    *ranked, problem = session.rank([RGB, "data/dot.png", "data/white.png"])
    doubts, names = zip(*(line.split("  ") for line in ranked), strict=True)
    assert sorted(names) == [RGB, "data/white.png"]
    assert 1 >= float(doubts[0]) >= float(doubts[1]) >= 0
    assert problem.startswith("error: data/dot.png: 1x1 pixels")


def test_what_is_saved_is_what_the_commands_take(session):
    paint(session, ZERO, ONE)
    trained(session)
    names = [path.name for path in session.save("out")]
    assert names == ["rgb_mask.png", "rgb_overlay.jpg", "model.pt", "rgb_gt.png"]
    truth, _ = read_truth("out/rgb_gt.png")
    assert (truth == session.photo.labels).all()
    model_file.load("out/model.pt")
    assert predict_here(RGB, "--model", "out/model.pt", "--light", "none") == 0


def test_of_a_map_maps_are_saved(session, scene):
    place = {"crs": "EPSG:32633", "transform": from_origin(500, 900, 2, 2)}
    with rasterio.open(
        "map.tif",
        "w",
        driver="GTiff",
        width=230,
        height=176,
        count=3,
        dtype="uint8",
        **place,
    ) as file:
        file.write(np.moveaxis(scene[0], -1, 0))
    session.open("map.tif")
    paint(session, ZERO, ONE)
    trained(session)
    for path in session.save("out")[:2]:
        assert path.suffix == ".tif"
        with rasterio.open(path) as file:
            assert file.transform == place["transform"]
    side = model_file.load("out/model.pt").facts["pixel_side"]
    assert side == pytest.approx(place["transform"].a)


def test_the_whole_mask_may_be_the_truth(session):
    paint(session, ZERO, ONE)
    trained(session)
    session.save("out", whole=True)
    mask = segutils.segment(session.model, session.photo.image.whole())
    expected = strokes.draw(mask, [ZERO, ONE])
    truth = np.array(Image.open("out/rgb_gt.png").convert("L")) > 0
    assert (truth == expected).all()


def test_labels_are_saved_without_a_network(session):
    paint(session, ZERO, ONE)
    assert [path.name for path in session.save("out")] == ["rgb_gt.png"]


def test_the_truth_that_was_corrected_is_kept(session):
    session.start_from("data/gt.png")
    paint(session, ONE)
    kept = strokes.read_labels("data/labels.json")["rgb.png"]
    assert kept == Labels([ONE], session.photo.shape, "gt.png")
    assert "start" in session.painter.layers
    another = another_session()
    assert (another.photo.labels == session.photo.labels).all()


def test_the_truth_may_lie_in_another_folder(session):
    Path("older").mkdir()
    Image.open("data/gt.png").save("older/old.png")
    session.start_from("older/old.png")
    paint(session, ONE)
    another = another_session()
    assert (another.photo.labels == session.photo.labels).all()


def test_a_truth_that_is_gone_leaves_the_strokes(session):
    Path("data/old.png").write_bytes(Path("data/gt.png").read_bytes())
    session.start_from("data/old.png")
    paint(session, ONE)
    Path("data/old.png").unlink()
    another = another_session()
    assert another.painter.strokes == [ONE]
    assert (
        "The truth that these strokes correct cannot be used" in another.painter.status
    )
    paint(another, ZERO)
    kept = strokes.read_labels("data/labels.json")["rgb.png"]
    assert kept.start == "old.png"  # it may come back


def test_two_kernels_keep_the_strokes_of_both(session):
    another = another_session()
    paint(session, ZERO)
    paint(another, ONE)
    paint(session, ZERO._replace(id="c"))
    assert {stroke.id for stroke in kept_strokes()["rgb.png"]} == {"a", "b", "c"}
    session.painter.strokes.pop()  # what one kernel takes back is gone
    session.strokes_changed()
    assert {stroke.id for stroke in kept_strokes()["rgb.png"]} == {"a", "b"}


def test_strokes_of_an_image_of_another_size_are_refused(session):
    paint(session, ZERO)
    with Image.open(RGB) as image:
        image.crop((0, 0, 99, 88)).save(RGB)
    with pytest.raises(InputError, match="230x176 pixels, but it has 99x88"):
        another_session()


def test_strokes_that_cannot_be_kept_are_told_until_they_are(session):
    paint(session, ZERO)
    Path("data/labels.json").write_text("dear diary")
    paint(session, ONE)
    assert "NOT KEPT" in session.painter.status
    session.train()
    assert "NOT KEPT" in session.painter.status
    Path("data/labels.json").unlink()
    paint(session, ZERO._replace(id="c"))
    assert "NOT KEPT" not in session.painter.status
    assert len(kept_strokes()["rgb.png"]) == 3


def test_images_of_two_kinds_of_pixels_do_not_mix(session, scene):
    write_deep_png("deep.png", scene[0].astype(np.uint16) * 200)
    with pytest.raises(InputError, match="training image has 8 bits"):
        session.open("deep.png")
    assert str(session.photo.path) == RGB


def test_images_that_have_strokes_are_learned_without_being_shown(session):
    Image.open(RGB).save("data/other.png")
    session.open("data/other.png")
    paint(session, ONE)
    another = another_session()
    another.add([RGB, "data/other.png", "data/gt.png"])
    assert len(another.photos) == 2
    assert str(another.photo.path) == RGB


def test_what_images_look_like_is_told_of_those_not_shown_too(session):
    truth = 1 - read_truth("data/gt.png")[0]  # class 1 is the larger one
    for name in ("a", "b"):
        Image.open(RGB).save(f"data/{name}.png")
    Image.fromarray(truth * 255).save("data/truth.png")
    session.open("data/a.png")
    session.start_from("data/truth.png")
    session.model = train.new_model(session.photo.scenes(), 0, torch.device("cpu"))
    session.model.conv4.bias.data = torch.tensor([0.0, 100.0])  # all is class 1
    session.open("data/b.png")
    paint(session, ZERO, ONE)
    session.save("out")
    assert model_file.load("out/model.pt").looks["larger"] == 1


def test_an_image_too_small_to_train_on_is_refused(session):
    Image.new("RGB", (60, 31)).save("small.png")
    with pytest.raises(InputError, match=r"small\.png: 60x31 pixels \(training needs"):
        session.open("small.png")


def test_nothing_painted_is_not_saved(session):
    with pytest.raises(InputError, match="nothing is painted"):
        session.save("out")
    paint(session, ONE)
    with pytest.raises(InputError, match="train first"):
        session.save("out", whole=True)
    with pytest.raises(InputError, match="train first"):
        session.go_to_doubt()


def test_erased_labels_end_the_training(session):
    paint(session, ZERO, ONE)
    trained(session)
    paint(session, Stroke("e", UNLABELLED, 400, ((0, 0),)))
    session.train()
    assert "Nothing to learn" in session.painter.status


def test_images_of_one_name_are_saved_apart(session, folder):
    (folder / "more").mkdir()
    Image.open(RGB).save("more/rgb.png")
    paint(session, ZERO)
    session.open("more/rgb.png")
    paint(session, ONE)
    assert [path.name for path in session.save("out")] == ["more_rgb_png_gt.png"]
    (folder / "x/more").mkdir(parents=True)
    Image.open(RGB).save("x/more/rgb.png")
    session.open("x/more/rgb.png")
    paint(session, ONE)
    assert [path.name for path in session.save("out")] == ["x_more_rgb_png_gt.png"]


def test_what_is_corrected_is_not_overwritten(session, folder):
    (folder / "out").mkdir()
    Image.open("data/gt.png").save("out/rgb_gt.png")
    session.start_from("out/rgb_gt.png")
    with pytest.raises(InputError, match=r"would overwrite the input out/rgb_gt\.png"):
        session.save("out")
    Path("file").touch()
    with pytest.raises(InputError, match="file"):
        session.save("file")


def test_a_closed_session_leaves_nothing_at_work(session):
    paint(session, ZERO, ONE)
    trained(session)
    (preview,) = [t for t in threading.enumerate() if t._target == session._preview]
    session.painter.close = lambda: None
    session.close()
    preview.join(20)
    assert not preview.is_alive()
    with pytest.raises(RuntimeError):
        session.train()
