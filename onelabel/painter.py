"""The painter: a widget that labels an image, of any size, by strokes of a brush.

The page paints by itself, without a word to Python, and sends each stroke when it ends;
Python keeps them. The page has only the pixels that it shows: it asks for a window of
the image, at its zoom. painter.js is the page's side, and lists the messages.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image

from onelabel.files import InputError, error_line
from onelabel.strokes import Stroke, as_stroke, is_inside
from segutils import Block


# Gives a layer's pixels of a block, every so many rows and columns of it, as an array
# of the image does by `array[top:bottom:step, left:right:step]`: (h, w, 3) RGB,
# (h, w, 4) RGBA, or (h, w) labels that are 0, 1 or 255 for none; all uint8.
Layer = Callable[[Block, int], np.ndarray]
Message = dict[str, Any]


class Painter(anywidget.AnyWidget):
    """A picture to paint on, with its tools; `show` gives it an image.

    Where JupyterLab has subshells, the page's messages come in a thread of their own,
    also while a cell runs; elsewhere between two cells. The calls of `on_strokes` and
    `on_enter` and the layers are called there.
    """

    _esm = Path(__file__).with_name("painter.js")
    names = traitlets.List(traitlets.Unicode(), ["class 0", "class 1"]).tag(sync=True)
    colours = traitlets.List([[230, 97, 0], [26, 133, 255]]).tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)  # a line under the picture

    def __init__(self, **traits: Any) -> None:
        self._lock = Lock()  # of all below
        self._picture = 0  # counts the images shown
        self._shape: tuple[int, int] | None = None
        self._strokes: list[Stroke] = []
        self._layers: dict[str, Layer] = {}
        self._place: Message | None = None  # where to go, for pages that come later
        self._seen: Block | None = None  # the part that a page asked for last
        self._stroke_calls: list[Callable[[], object]] = []
        self._enter_calls: list[Callable[[], object]] = []
        super().__init__(**traits)
        self.on_msg(self._hear)

    @property
    def strokes(self) -> list[Stroke]:
        """The strokes on the image that is shown, the earliest first: a copy."""
        with self._lock:
            return list(self._strokes)

    def on_strokes(self, call: Callable[[], object]) -> None:
        """Call a function after a user has painted, undone or redone a stroke."""
        self._stroke_calls.append(call)

    def on_enter(self, call: Callable[[], object]) -> None:
        """Call a function when a user presses Enter on the painter."""
        self._enter_calls.append(call)

    def show(
        self,
        shape: Sequence[int],
        strokes: Iterable[Stroke],
        layers: Mapping[str, Layer],
    ) -> None:
        """Show an image, in the place of the one before.

        Parameters
        ----------
        shape : (int, int)
            Its height and width.
        strokes : iterable of Stroke
            What has been painted on it, the earliest first.
        layers : mapping of str to Layer
            "image"; perhaps "start", the labels below all strokes; and overlays under
            any other names, which the page shows or hides.
        """
        with self._lock:
            self._picture += 1
            self._shape = (int(shape[0]), int(shape[1]))
            self._strokes, self._layers = list(strokes), dict(layers)
            self._place = self._seen = None
            self._send_state()

    def refresh(self, *names: str) -> None:
        """Say that layers have changed; without names, all of them."""
        with self._lock:
            self._tell("changed", layers=names or tuple(self._layers))

    def go_to(self, block: Block) -> None:
        """Show a part of the image, as large as it fits."""
        with self._lock:
            self._place = block._asdict()
            self._tell("go", place=self._place)

    def view(self) -> Block:
        """Give the part of the image that a page showed last; at first, all of it."""
        with self._lock:
            return self._seen or Block(0, 0, *(self._shape or (1, 1)))

    def _tell(self, kind: str, buffers: Sequence[bytes] = (), **more: Any) -> None:
        self.send({"kind": kind, "picture": self._picture} | more, list(buffers))

    def _send_state(self, page: str | None = None) -> None:
        """Send all that a page needs to begin: to one page, or to all."""
        if self._shape is not None:
            self._tell(
                "state",
                page=page,
                shape=self._shape,
                layers=list(self._layers),
                strokes=[stroke._asdict() for stroke in self._strokes],
                place=self._place,
            )

    def _hear(self, _widget: object, message: Message, _buffers: object) -> None:
        self._try(self._answer, message)

    def _answer(self, message: Message) -> None:
        """Do what a page asks for."""
        answers = {
            "hello": self._greet,
            "add": self._add,
            "remove": self._remove,
            "look": self._look,
            "enter": lambda _: self._call(self._enter_calls),
        }
        answers[message["kind"]](message)

    def _try(self, call: Callable[..., object], *values: Any) -> None:
        """Call a function; its error becomes the status, else nobody would see it."""
        try:
            call(*values)
        except Exception as error:
            self.status = error_line(error)

    def _call(self, calls: Iterable[Callable[[], object]]) -> None:
        for call in calls:
            self._try(call)

    def _greet(self, message: Message) -> None:
        with self._lock:
            self._send_state(message["page"])

    def _add(self, message: Message) -> None:
        stroke = as_stroke(message["stroke"])
        with self._lock:
            if message["picture"] != self._picture or self._shape is None:
                raise _too_late()
            if not is_inside(stroke, self._shape):
                return
            if all(stroke.id != other.id for other in self._strokes):
                self._strokes.append(stroke)
            self._tell("added", stroke=stroke._asdict(), page=message["page"])
        self._call(self._stroke_calls)

    def _remove(self, message: Message) -> None:
        gone = message["id"]
        with self._lock:
            if message["picture"] != self._picture:
                raise _too_late()
            self._strokes = [stroke for stroke in self._strokes if stroke.id != gone]
            self._tell("removed", id=gone, page=message["page"])
        self._call(self._stroke_calls)

    def _look(self, message: Message) -> None:
        """Send layers of a window, one by one, and say when that is done."""
        with self._lock:
            layers, shape = self._layers, self._shape
            if message["picture"] != self._picture or shape is None:
                return  # the page learns of another image, and looks anew
            self._seen = _as_block(message["window"])
        reply = {key: message[key] for key in ("window", "view", "picture")}
        for name in message["layers"]:
            self._try(self._send_layer, layers, shape, reply | {"name": name})
        self.send(reply | {"kind": "looked"})

    def _send_layer(
        self, layers: Mapping[str, Layer], shape: tuple[int, int], reply: Message
    ) -> None:
        window, name = reply["window"], reply["name"]
        block = _as_block(window)
        step = int(window["step"])
        if block.common(Block(0, 0, *shape)) != block or step < 1:
            raise ValueError(f"{window} is no window of an image of {shape}")
        pixels = np.asarray(layers[name](block, step))
        height, width = block.bottom - block.top, block.right - block.left
        expected = (-(-height // step), -(-width // step))
        if pixels.shape[:2] != expected or pixels.dtype != np.uint8:
            raise ValueError(
                f"layer {name}: {pixels.dtype} pixels of {pixels.shape}, not uint8 "
                f"of {expected}"
            )
        labels = pixels.ndim == 2
        self.send(reply | {"kind": "layer", "labels": labels}, [_png(pixels)])


def _too_late() -> InputError:
    return InputError(
        "a stroke was NOT KEPT: another image was being opened (paint it again)"
    )


def _as_block(window: Message) -> Block:
    """Make a block of plain values, as they come from a page."""
    return Block(*(int(window[side]) for side in Block._fields))


def _png(pixels: np.ndarray) -> bytes:
    """Encode pixels fast rather than small: they do not go far."""
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, "png", compress_level=1)
    return encoded.getvalue()
