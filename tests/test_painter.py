"""The painter's messages; test_painting.py has a browser paint."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from onelabel.files import InputError
from onelabel.painter import Painter
from onelabel.strokes import Stroke, as_stroke
from segutils import Block


SHAPE = 50, 70
PIXELS = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)


def stepped(array):
    """Make a layer of an array."""
    return lambda block, step: array[block.slices][::step, ::step]


class Heard:
    """A painter, what it sends, and how a page speaks to it."""

    def __init__(self, monkeypatch):
        self.painter = Painter(names=["meadow", "tree"])
        self.sent = []
        monkeypatch.setattr(self.painter, "send", self.keep)

    def keep(self, *message):
        self.sent.append(message)

    def show(self, *strokes, **layers):
        layers = {"image": stepped(PIXELS)} | layers
        self.painter.show(SHAPE, strokes, layers)
        return self.sent[-1][0]["picture"]

    def say(self, kind, picture=1, **more):
        """Send a message as a page does; give the painter's answers."""
        before = len(self.sent)
        message = {"kind": kind, "page": "p", "picture": picture} | more
        self.painter._handle_custom_msg(json.loads(json.dumps(message)), [])
        return [content for content, *_ in self.sent[before:]]

    def look(self, *layers, step=1, window=(0, 0, *SHAPE)):
        window = Block(*window)._asdict() | {"step": step}
        return self.say("look", view="v", window=window, layers=layers)

    def pixels(self):
        """Give the arrays of the layers that were sent."""
        pictures = [buffers[0] for _, *buffers in self.sent if buffers and buffers[0]]
        return [np.array(Image.open(io.BytesIO(png))) for (png,) in pictures]


@pytest.fixture
def heard(monkeypatch):
    return Heard(monkeypatch)


def stroke(id="a", label=1, radius=2, points=((5, 6), (9, 20))):
    return Stroke(id, label, radius, points)


def test_strokes_are_kept_in_the_order_of_painting(heard):
    calls = []
    heard.painter.on_strokes(lambda: calls.append(len(heard.painter.strokes)))
    heard.show(stroke("a"))
    (added,) = heard.say("add", stroke=stroke("b", 0)._asdict())
    assert (added["kind"], added["page"]) == ("added", "p")
    assert as_stroke(added["stroke"]) == stroke("b", 0)
    heard.say("add", stroke=stroke("b", 0)._asdict())  # twice, if the page asks twice
    assert heard.painter.strokes == [stroke("a"), stroke("b", 0)]
    (removed,) = heard.say("remove", id="a")
    assert (removed["kind"], removed["id"]) == ("removed", "a")
    assert heard.painter.strokes == [stroke("b", 0)]
    assert calls == [2, 2, 1]


def test_strokes_outside_and_on_an_earlier_image_are_ignored(heard):
    heard.show()
    assert not heard.say("add", stroke=stroke(points=[(-3, 5)])._asdict())
    assert heard.say("add", stroke=stroke(points=[(-2, 5)])._asdict())
    kept = heard.painter.strokes
    assert heard.show(*kept) == 2
    assert not heard.say("add", picture=1, stroke=stroke("b")._asdict())
    assert "NOT KEPT" in heard.painter.status
    heard.painter.status = ""
    assert not heard.say("remove", picture=1, id="a")
    assert "NOT KEPT" in heard.painter.status
    assert heard.painter.strokes == kept


def test_the_view_is_what_a_page_showed_last(heard):
    heard.show()
    assert heard.painter.view() == Block(0, 0, *SHAPE)
    window = Block(3, 6, 49, 68)
    heard.say("look", window=window._asdict() | {"step": 1}, layers=[], view=1)
    assert heard.painter.view() == window


def test_page_is_told_all_when_it_comes(heard):
    assert not heard.say("hello", picture=0)  # there is no image yet
    heard.show(stroke(), start=stepped(PIXELS[..., 0]), mask=stepped(PIXELS))
    heard.painter.go_to(Block(1, 2, 3, 4))
    (state,) = heard.say("hello", picture=0)
    assert state["page"] == "p"
    assert state["shape"] == SHAPE
    assert state["layers"] == ["image", "start", "mask"]
    assert [as_stroke(plain) for plain in state["strokes"]] == [stroke()]
    assert state["place"] == {"top": 1, "left": 2, "bottom": 3, "right": 4}


@pytest.mark.parametrize("step", [1, 3])
def test_layers_arrive_as_an_array_is_cut(heard, step):
    labels = np.where(PIXELS[..., 0] > 200, 255, PIXELS[..., 0] % 2).astype(np.uint8)
    rgba = np.dstack([PIXELS, PIXELS[..., 1]])
    heard.show(start=stepped(labels), unsure=stepped(rgba))
    window = Block(3, 6, 49, 68)
    *layers, done = heard.look("image", "start", "unsure", step=step, window=window)
    assert done["kind"] == "looked"
    assert [layer["labels"] for layer in layers] == [False, True, False]
    assert layers[1]["window"] == window._asdict() | {"step": step}
    for sent, array in zip(heard.pixels(), [PIXELS, labels, rgba], strict=True):
        np.testing.assert_array_equal(sent, array[3:49:step, 6:68:step])


def fail(error):
    def call(*_):
        raise error

    return call


def test_errors_are_shown_in_one_line(heard):
    heard.show(mask=fail(InputError("mask.png:\n is damaged")), wrong=lambda *_: PIXELS)
    *layers, done = heard.look("mask", "image")
    assert [layer["name"] for layer in layers] == ["image"]  # all but the damaged one
    assert done["kind"] == "looked"
    assert heard.painter.status == "error: mask.png: is damaged"
    heard.look("wrong", step=2)
    assert heard.painter.status.startswith("error: ValueError: layer wrong: uint8")
    heard.look("image", window=(0, 0, 51, 70))
    assert "is no window" in heard.painter.status
    heard.say("add", stroke=stroke(label=7)._asdict())
    assert "no stroke: label 7" in heard.painter.status
    heard.painter.on_enter(fail(RuntimeError("busy")))
    heard.say("enter")
    assert heard.painter.status == "error: RuntimeError: busy"
    heard.say("sing")
    assert heard.painter.status == "error: KeyError: 'sing'"


def test_enter_and_refresh(heard):
    entered = []
    heard.painter.on_enter(lambda: entered.append(True))
    heard.show(mask=stepped(PIXELS))
    heard.say("enter")
    assert entered == [True]
    heard.painter.refresh("mask")
    assert heard.sent[-1][0]["layers"] == ("mask",)
    heard.painter.refresh()
    assert heard.sent[-1][0]["layers"] == ("image", "mask")


def test_no_look_at_an_image_that_is_gone(heard):
    heard.show()
    heard.show()
    assert not heard.look("image")
