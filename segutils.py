"""The model and the tiler that train.py, predict.py and the notebooks share.

The network never gets more than 256x256 pixels at once, and what it says of an image
of any size is nevertheless exactly what it would say of the whole image in one pass.

Contents
--------
The network      FCNN, Folded, is_exact, input_span, HALO, RECEPTIVE_RADIUS
The tiler        Span, Tile, spans, tiles
Prediction       cut, Predictor, margins, probabilities, sigmoid, segment
The model file   save_model, load_model
The device       choose_device, PRECISIONS

Images are (H, W, 3) uint8, masks (H, W) uint8: 0 or 1. The *margin* of a pixel is the
logit of class 1 less that of class 0: positive for class 1.
"""

import io
import os
import platform
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, NamedTuple

import numpy as np


# OpenMP's threads sleep while they wait; spinning, they slow down whatever else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from cli import InputError, PathLike, check_input, whole_file
from images import Colours


MAX_SIDE = 256  # pixels: the most rows or columns in one forward pass
MAX_PIXELS = MAX_SIDE**2  # the most pixels in one forward pass, over the whole batch
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}  # of the convolutions

# ------------------------------------------------------------------ the network


class Normalise(nn.Module):
    """Subtract the training images' channel means and divide by their spreads.

    The constants are part of the network's state, so that training and prediction
    cannot scale an image in two ways.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))

    def fit(self, rgb: np.ndarray) -> None:
        """Take the constants from an image, or from the pixels of several.

        Parameters
        ----------
        rgb : ndarray, (..., 3) uint8
            The training pixels.
        """
        values = rgb.reshape(-1, 3)
        self.mean.copy_(torch.from_numpy(values.mean(0)))
        # A channel without spread (a grey ramp in red, say) must not divide by zero.
        self.std.copy_(torch.from_numpy(values.std(0)).clamp(min=1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, 3, H, W) values of 0 to 255."""
        return (x - self.mean[:, None, None]) / self.std[:, None, None]


class FCNN(nn.Sequential):
    """The fixed, tiny fully convolutional network: 10,514 convolution parameters.

    Its layers stand in the order in which they run; `input_span` reads the receptive
    field from the same list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()  # (B, 3, H, W), 0 to 255 in
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)  # (B, 16, H, W)
        self.norm1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)  # (B, 32, H, W)
        self.norm2 = nn.BatchNorm2d(32)
        self.relu2 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)  # (B, 32, H/2, W/2)
        self.conv3 = nn.Conv2d(32, 16, 3, padding=1)  # (B, 16, H/2, W/2)
        self.norm3 = nn.BatchNorm2d(16)
        self.relu3 = nn.ReLU()
        self.upsample = nn.Upsample(scale_factor=2)  # nearest: (B, 16, H, W)
        self.conv4 = nn.Conv2d(16, 2, 5, padding=2)  # (B, 2, H, W)

    def forward(self, x: Tensor) -> Tensor:
        """Give each pixel its two logits.

        Parameters
        ----------
        x : Tensor, (B, 3, H, W) float32
            RGB values of 0 to 255; H and W even and at most 256, B*H*W at most 65,536.

        Returns
        -------
        Tensor, (B, 2, H, W) float32
            The logits of class 0 and class 1.

        Raises
        ------
        ValueError
            The shape is not one of these.
        """
        check_budget(tuple(x.shape))
        x = self.relu1(self.norm1(self.conv1(self.normalise(x))))
        x = self.relu2(self.pool(self.norm2(self.conv2(x))))  # a quarter of the ReLUs
        x = self.relu3(self.norm3(self.conv3(x)))
        weight, bias = _fold_upsampling(*self.conv4.parameters())
        return F.pixel_shuffle(F.conv2d(x, weight, bias, padding=1), 2)

    def literal(self, x: Tensor) -> Tensor:
        """Give the logits layer by layer: slower, and the definition of `forward`.

        Parameters
        ----------
        x : Tensor, (B, 3, H, W) float32
            As for `forward`.

        Returns
        -------
        Tensor, (B, 2, H, W) float32
            As from `forward`, but for rounding.

        Raises
        ------
        ValueError
            The shape is not one that `forward` takes.
        """
        check_budget(tuple(x.shape))
        return super().forward(x)


def _fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Fold a batch normalisation into the convolution before it."""
    weight, bias = conv.parameters()
    gain, shift = norm.parameters()
    mean, variance, _ = norm.buffers()  # the last one counts batches
    scale = gain / torch.sqrt(variance + norm.eps)
    return weight * scale[:, None, None, None], (bias - mean) * scale + shift


def _fold_upsampling(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Fold a nearest upsampling by 2 into the 5x5 convolution after it.

    An output pixel's 5 taps fall on 3 pixels of the small map; which, depends on
    whether the pixel is even or odd. So one 3x3 convolution with four times the outputs
    gives all four kinds of pixels at once, and `pixel_shuffle` puts them in place.
    Linear in the weights, it serves training as well.
    """
    tap = torch.arange(5, device=weight.device)
    parity = torch.arange(2, device=weight.device)[:, None]
    small = (parity + tap - 2).div(2, rounding_mode="floor") + 1  # (2, 5): 0, 1 or 2
    falls = F.one_hot(small, 3).to(weight.dtype)  # (parity, tap, small tap)
    folded = torch.einsum("oiyx,pyk,qxl->opqikl", weight, falls, falls)
    return folded.flatten(0, 2), bias.repeat_interleave(4)  # (4 o, i, 3, 3)


class Folded:
    """The network for prediction: from bytes to margins, and nothing computed twice.

    The normalisations are folded into the convolutions beside them and the upsampling
    into the last one, of whose two logits only the difference is made; ReLU waits until
    the pooling has left it a quarter of the pixels. The same function as the literal
    network's, but for rounding, and about four times as fast.

    Parameters
    ----------
    model : FCNN
        The network; later changes of its weights are not seen.
    precision : torch.dtype
        What the convolutions compute in; float32 is exact to rounding.
    """

    def __init__(self, model: FCNN, precision: torch.dtype = torch.float32) -> None:
        # The mean is not folded: at the image's edge the layers pad with zeros, which
        # stand for the mean.
        self.mean = model.normalise.mean
        first, bias = _fold_norm(model.conv1, model.norm1)
        pairs = [
            (first / model.normalise.std[:, None, None], bias),
            _fold_norm(model.conv2, model.norm2),
            _fold_norm(model.conv3, model.norm3),
            _fold_upsampling(*(p[1:] - p[:1] for p in model.conv4.parameters())),
        ]
        self.precision = precision
        self.pairs = [
            (w.to(precision, memory_format=torch.channels_last), b.to(precision))
            for w, b in pairs
        ]

    def __call__(self, rgb: Tensor) -> Tensor:
        """Give each pixel its margin.

        Parameters
        ----------
        rgb : Tensor, (B, H, W, 3) uint8
            H and W even and at most 256, B*H*W at most 65,536.

        Returns
        -------
        Tensor, (B, H, W) float32
            The logit of class 1 less that of class 0.

        Raises
        ------
        ValueError
            The shape is not one of these.
        """
        check_budget((rgb.shape[0], *rgb.shape[3:], *rgb.shape[1:3]))
        x = (rgb - self.mean).to(self.precision)
        x = x.permute(0, 3, 1, 2)  # (B, 3, H, W), the channels still last in memory
        x = _convolve(x, *self.pairs[0], padding=1).relu_()
        x = _pool(_convolve(x, *self.pairs[1], padding=1)).relu_()
        x = _convolve(x, *self.pairs[2], padding=1).relu_()
        x = _convolve(x, *self.pairs[3], padding=1).float()  # (B, 4, H/2, W/2)
        batch, _, height, width = x.shape
        # Each of the four to its place; here faster than pixel_shuffle.
        x = x.view(batch, 2, 2, height, width).permute(0, 3, 1, 4, 2)
        return x.reshape(batch, 2 * height, 2 * width)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """Convolve with padding, to the same bits in a tile as in the whole image.

    PyTorch leaves oneDNN for another library where the input is small, and that library
    may sum in another order; so oneDNN is called by name where it computes.
    """
    if is_exact(x.device, x.dtype):
        pair = [padding, padding]
        return torch.mkldnn_convolution(x, weight, bias, pair, [1, 1], [1, 1], 1)
    return F.conv2d(x, weight, bias, padding=padding)


def is_exact(device: torch.device, precision: torch.dtype = torch.float32) -> bool:
    """Tell whether tiles give the bits that one pass over the whole image would give.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    precision : torch.dtype
        What the convolutions compute in.

    Returns
    -------
    bool
        True where oneDNN computes in float32 on an x86 processor. Elsewhere the logits
        of tiles and of the whole may differ by rounding: by at most 1e-4 of the largest
        logit.
    """
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    by_onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return is_x86 and by_onednn and precision == torch.float32


def _pool(x: Tensor) -> Tensor:
    """Pool 2x2 as `MaxPool2d` does, faster where the channels are last in memory.

    `x` is overwritten: memory that is new to the processor's cache costs more than the
    comparing.
    """
    x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
    rows = x[:, ::2]
    torch.maximum(rows, x[:, 1::2], out=rows)
    x = torch.maximum(rows[:, :, ::2], rows[:, :, 1::2])
    return x.permute(0, 3, 1, 2)  # (B, C, H/2, W/2)


def check_budget(shape: Sequence[int]) -> None:
    """Refuse an input of the network that breaks the 256 rule.

    Parameters
    ----------
    shape : tuple of int
        The input's shape, to be (B, 3, H, W).

    Raises
    ------
    ValueError
        The shape is another, a side is odd, or there are too many pixels.
    """
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise ValueError(f"input of shape {shape}: expected (B, 3, H, W)")
    batch, _, height, width = shape
    if height > MAX_SIDE or width > MAX_SIDE:
        raise ValueError(
            f"input of {height}x{width} pixels: the network takes at most "
            f"{MAX_SIDE}x{MAX_SIDE} (cut it into tiles: segutils.tiles)"
        )
    if batch * height * width > MAX_PIXELS:
        raise ValueError(
            f"batch of {batch} inputs of {height}x{width} pixels: at most "
            f"{MAX_PIXELS} pixels in all (use a smaller batch)"
        )
    if height % 2 or width % 2:
        raise ValueError(
            f"input of {height}x{width} pixels: the sides must be even for the "
            "pooling (repeat the last row or column)"
        )


def input_span(model: FCNN, start: int, stop: int) -> tuple[int, int]:
    """Find the input rows (or columns) that given output rows depend on.

    Parameters
    ----------
    model : FCNN
        The network, whose layers are walked from the last to the first.
    start, stop : int
        The output rows ``start:stop``.

    Returns
    -------
    tuple of int
        The input rows ``start:stop``; they may reach outside the image.
    """
    for layer in reversed(model):
        if isinstance(layer, nn.Conv2d):
            before = int(layer.padding[0])
            after = layer.kernel_size[0] - 1 - before
            start, stop = start - before, stop + after
        elif isinstance(layer, nn.Upsample):
            assert isinstance(layer.scale_factor, float)  # one for rows and columns
            factor = int(layer.scale_factor)
            start, stop = start // factor, -(-stop // factor)
        elif isinstance(layer, nn.MaxPool2d):
            assert isinstance(layer.kernel_size, int)
            start, stop = start * layer.kernel_size, stop * layer.kernel_size
    return start, stop


with torch.device("meta"):  # only the layers' shapes are needed: no weights are made
    _layers = FCNN()

# An even pixel sees further to its right, an odd one further to its left. A tile's core
# starts at an even pixel and stops before one, so it needs only the shorter reach.
HALO = -input_span(_layers, 0, 2)[0]  # pixels that a tile needs around its core
RECEPTIVE_RADIUS = input_span(_layers, 0, 1)[1] - 1  # pixels that any one pixel may see

# ------------------------------------------------------------------ the tiler


class Span(NamedTuple):
    """One side of a tile: what the network sees, and the core that it decides."""

    start: int
    stop: int
    core_start: int
    core_stop: int

    @property
    def core(self) -> slice:
        """The core's place within the tile, a slice."""
        return slice(self.core_start - self.start, self.core_stop - self.start)


class Tile(NamedTuple):
    """A tile of an image: at most 256x256 pixels, with the core it decides."""

    rows: Span
    cols: Span

    @property
    def core(self) -> tuple[slice, slice]:
        """The core's place within the image, a pair of slices."""
        rows, cols = (slice(s.core_start, s.core_stop) for s in self)
        return rows, cols


Piece = tuple[Tile, np.ndarray]  # a tile and its pixels, (h, w, 3) uint8


def spans(length: int, side: int = MAX_SIDE) -> list[Span]:
    """Cover a length with overlapping spans of at most 256 pixels.

    Parameters
    ----------
    length : int
        Rows or columns of the image, at least 1.
    side : int
        Pixels of a span, even and more than two halos.

    Returns
    -------
    list of Span
        Their cores follow each other without a gap and cover ``0:length``. Starts and
        stops are even; the last stop is one past `length` where that is odd. Every span
        is `side` long unless the image is shorter: the last one is moved inwards
        instead of padded, so that only the image's own edges are zero-padded by the
        layers.
    """
    even = length + length % 2
    side = min(side, MAX_SIDE, even)
    found = []
    core_start = 0
    while core_start < length:
        start = min(max(core_start - HALO, 0), even - side)
        stop = start + side
        core_stop = length if stop == even else stop - HALO
        found.append(Span(start, stop, core_start, core_stop))
        core_start = core_stop
    return found


def tiles(height: int, width: int, side: int = MAX_SIDE) -> list[Tile]:
    """Cut an image into tiles that the network may see.

    Parameters
    ----------
    height, width : int
        The image's size in pixels.
    side : int
        The tiles' rows and columns, even and more than two halos.

    Returns
    -------
    list of Tile
        Row by row from the top; their cores are a partition of the image.

    Raises
    ------
    ValueError
        A side is under 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height}x{width} pixels has no tiles")
    return [Tile(*pair) for pair in product(spans(height, side), spans(width, side))]


# ------------------------------------------------------------------ prediction


def cut(rgb: np.ndarray, chosen: Iterable[Tile]) -> list[Piece]:
    """Cut tiles out of an image.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image, of any size.
    chosen : iterable of Tile
        The tiles, from `tiles`.

    Returns
    -------
    list of (Tile, ndarray)
        Each tile and its pixels, (h, w, 3) uint8: views of the image. At an odd edge
        they have one row or column less than the tile.

    Raises
    ------
    ValueError
        `rgb` is of another shape or type.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(
            f"image of shape {rgb.shape} and type {rgb.dtype}: expected (H, W, 3) uint8"
        )
    return [
        (tile, rgb[rows.start : rows.stop, cols.start : cols.stop])
        for tile in chosen
        for rows, cols in [tile]
    ]


def _made_even(tile: Tile, pixels: np.ndarray) -> np.ndarray:
    """Repeat the last row or column where an odd edge of the image cuts them off."""
    below = tile.rows.stop - tile.rows.start - pixels.shape[0]
    right = tile.cols.stop - tile.cols.start - pixels.shape[1]
    if below or right:
        pixels = np.pad(pixels, [(0, below), (0, right), (0, 0)], "edge")
    return np.ma.getdata(pixels)  # (h, w, 3), both even


class Predictor:
    """A network that is folded once, and gives the pixels of any image their answers.

    Parameters
    ----------
    model : FCNN
        The network; it is set to evaluation mode. Later changes of its weights are not
        seen.
    precision : torch.dtype
        What the convolutions compute in.
    """

    def __init__(self, model: FCNN, precision: torch.dtype = torch.float32) -> None:
        with torch.no_grad():
            self.network = Folded(model.eval(), precision)
        self.device = model.conv1.weight.device

    def tile_margins(
        self, pieces: Sequence[Piece], progress: bool = False
    ) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """Run the network over tiles of an image.

        Parameters
        ----------
        pieces : list of (Tile, ndarray)
            The tiles and their pixels, from `cut`.
        progress : bool
            Show a progress bar, where there is a terminal to show it on.

        Yields
        ------
        core : pair of slice
            The core's rows and columns in the image.
        margin : ndarray, (core rows, core columns) float32
            The logit of class 1 less that of class 0.
        """
        # A tile a thread keeps the processor busier than all threads at one tile.
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        shown = {"unit": "tile", "leave": False, "disable": None if progress else True}
        with _single_threads(threads) as pool:
            waiting: deque = deque()  # a few tiles ahead; never all of them
            for piece in tqdm(pieces, **shown):
                waiting.append(pool.submit(self._core_margin, piece))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    @torch.inference_mode()
    def _core_margin(self, piece: Piece) -> tuple[tuple[slice, slice], np.ndarray]:
        """Give a tile's core and its margins."""
        tile = piece[0]
        pixels = torch.from_numpy(_made_even(*piece)).to(self.device)  # (h, w, 3)
        core = self.network(pixels[None])[0, tile.rows.core, tile.cols.core]
        return tile.core, core.cpu().numpy()

    def margins(self, rgb: np.ndarray, progress: bool = False) -> np.ndarray:
        """Give every pixel's margin: how far the network leans towards class 1.

        Parameters
        ----------
        rgb : ndarray, (H, W, 3) uint8
            The image, of any size.
        progress : bool
            Show a progress bar, where there is a terminal to show it on.

        Returns
        -------
        ndarray, (H, W) float32
            The logit of class 1 less that of class 0.

        Raises
        ------
        ValueError
            `rgb` is of another shape or type.
        """
        pieces = cut(rgb, tiles(*rgb.shape[:2]))
        whole = np.empty(rgb.shape[:2], np.float32)
        for core, margin in self.tile_margins(pieces, progress):
            whole[core] = margin
        return whole

    def segment(self, rgb: np.ndarray, progress: bool = False) -> np.ndarray:
        """Give every pixel its class.

        Parameters
        ----------
        rgb : ndarray, (H, W, 3) uint8
            The image, of any size.
        progress : bool
            Show a progress bar, where there is a terminal to show it on.

        Returns
        -------
        ndarray, (H, W) uint8
            0 or 1. Decided tile by tile: no logits of the whole image are held.

        Raises
        ------
        ValueError
            `rgb` is of another shape or type.
        """
        pieces = cut(rgb, tiles(*rgb.shape[:2]))
        mask = np.empty(rgb.shape[:2], np.uint8)
        for core, margin in self.tile_margins(pieces, progress):
            mask[core] = margin > 0
        return mask


_starting = threading.Lock()  # of threads that compute with one thread


def _single_threads(count: int) -> ThreadPoolExecutor:
    """Start threads in each of which PyTorch computes with one thread.

    PyTorch keeps a number of threads for each thread, and one for those that come
    later. The latter is put back as soon as all have started.
    """
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # or PyTorch would take the common number over later
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count)
    with _starting:
        threads = torch.get_num_threads()
        for _ in range(count):
            pool.submit(start)  # each waits for the others, so each has a thread
        started.wait()
        torch.set_num_threads(threads)
    return pool


def margins(model: FCNN, rgb: np.ndarray) -> np.ndarray:
    """Give every pixel's margin; see `Predictor.margins`."""
    return Predictor(model).margins(rgb)


def segment(model: FCNN, rgb: np.ndarray) -> np.ndarray:
    """Give every pixel its class; see `Predictor.segment`."""
    return Predictor(model).segment(rgb)


def sigmoid(margin: np.ndarray) -> np.ndarray:
    """Turn margins into probabilities of class 1.

    NumPy computes each value alike wherever it stands in the array; PyTorch rounds the
    last few of an array otherwise, so that tiles would differ from the whole.

    Parameters
    ----------
    margin : ndarray of float32
        Any shape.

    Returns
    -------
    ndarray of float32
        The same shape; values of 0 to 1.
    """
    with np.errstate(over="ignore"):  # exp(89) is infinite, and 1 / infinity is right
        return 1 / (1 + np.exp(-margin))


def probabilities(model: FCNN, rgb: np.ndarray) -> np.ndarray:
    """Give every pixel's probability of class 1.

    Parameters
    ----------
    model : FCNN
        The network.
    rgb : ndarray, (H, W, 3) uint8
        The image, of any size.

    Returns
    -------
    ndarray, (H, W) float32
        Values of 0 to 1.

    Raises
    ------
    ValueError
        `rgb` is of another shape or type.
    """
    return sigmoid(margins(model, rgb))


# ------------------------------------------------------------------ the model file

MODEL_FORMAT = "one-image segmentation model, 3"


def save_model(
    path: PathLike,
    weights: Mapping[str, Tensor],
    colours: Colours,
    looks: Mapping[str, object],
    facts: Mapping[str, object],
) -> None:
    """Write a model file: tensors and plain values only.

    Parameters
    ----------
    path : str or Path
        The file to write.
    weights : dict of str to Tensor
        The network's ``state_dict()``.
    colours : sequence of two (red, green, blue)
        How class 0 and class 1 are drawn, 0 to 255.
    looks : dict
        What the training image looks like, from `light.describe`.
    facts : dict of str to int, float, str or dict
        What else is to be known of the model: its seed, its scores.
    """
    content = {
        "format": MODEL_FORMAT,
        "weights": {name: value.cpu() for name, value in weights.items()},
        "colours": [list(map(int, colour)) for colour in colours],
        "looks": looks,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        **facts,
    }
    # Saved to memory first: PyTorch would tell a full disk by an error of its own, and
    # write the file's temporary name into it.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_model(
    path: PathLike, device: str | torch.device = "cpu"
) -> tuple[FCNN, dict[str, Any]]:
    """Read a model file, without running any code it may hold.

    Parameters
    ----------
    path : str or Path
        The file, written by `save_model`.
    device : str or torch.device
        Where the network is to run.

    Returns
    -------
    model : FCNN
        The network, in evaluation mode.
    content : dict
        The file's other entries: ``colours``, ``looks``, ``versions`` and the facts.

    Raises
    ------
    InputError
        The file is missing, is no model file, or is that of another network.
    """
    check_input(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the file holds instead
            content = torch.load(path, "cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # what damaged bytes raise is not bounded
        raise InputError(
            f"{path}: is no model file, or is damaged (python train.py makes one)"
        ) from error
    if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT:
        raise InputError(
            f"{path}: is no model file of this version's train.py (train again)"
        )
    model = FCNN()
    try:
        weights = content.pop("weights")
        if _types(weights) != _types(model.state_dict()):
            raise TypeError("PyTorch would convert them, even complex numbers")
        model.load_state_dict(weights)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: holds another network's weights") from error
    if not _are_two_colours(content.get("colours")):
        raise InputError(f"{path}: does not name the two colours of a mask")
    if not _are_looks(content.get("looks")):
        raise InputError(f"{path}: does not say what the training image looks like")
    if not _answers_are_finite(model.eval()):
        raise InputError(f"{path}: weights that give no finite answer (train again)")
    return model.to(device), content


def _types(
    weights: Mapping[str, Tensor],
) -> dict[str, tuple[torch.dtype, torch.layout]]:
    return {name: (value.dtype, value.layout) for name, value in weights.items()}


@torch.no_grad()
def _answers_are_finite(model: FCNN) -> bool:
    """Say whether the network works: not with NaN, overflow or a spread of 0."""
    black_and_white = torch.zeros((1, 16, 16, 3), dtype=torch.uint8)
    black_and_white[:, 8:] = 255
    weights_are_finite = all(w.isfinite().all() for w in model.state_dict().values())
    return weights_are_finite and bool(Folded(model)(black_and_white).isfinite().all())


def _are_two_colours(colours: Any) -> bool:
    try:
        dark, bright = (bytes(list(colour)) for colour in colours)  # 0 to 255 each
        return len(dark) == len(bright) == 3 and dark != bright
    except (TypeError, ValueError, OverflowError):
        return False


def _are_looks(looks: Any) -> bool:
    try:
        keys = ("colour", "contrast", "lowest", "highest")
        values = np.array([looks[key] for key in keys], float)
        possible = values.shape == (4, 3) and ((values >= 0) & (values <= 255)).all()
        error = np.array(looks["error"], float)
        possible = possible and error.shape == (2,) and (error >= 0).all()
        # What other images are divided by cannot be 0.
        return bool(possible and values[:2].all() and looks["larger"] in (0, 1))
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, RuntimeError):
        return False


# ------------------------------------------------------------------ the device


def choose_device(name: str) -> torch.device:
    """Find the device to run on, and make its arithmetic plain and repeatable.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda", "mps"}
        ``auto`` is a GPU where there is one, otherwise the CPU.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    InputError
        There is no such device here.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device in there if there[device])
    if not there[name]:
        raise InputError(f"--device {name}: there is none here (use --device cpu)")
    # TF32 rounds the inputs of convolutions to 10 bits; cuDNN may else pick an
    # algorithm that sums in another order on each run. (torch's hints lack `conv`.)
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    return torch.device(name)
