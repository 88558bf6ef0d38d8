"""The network and the tiler. Needs torch and numpy only: copy it away and it works.

The network never gets more than 256x256 pixels at once. For an image of any size it
still gives what one pass over the whole image would give: bit for bit on x86, and
elsewhere the same but for rounding.

Contents
--------
The network      FCNN, Normalise, Folded, Integers, is_exact, check_budget, input_span
The tiler        Block, Tile, tiles, HALO, RECEPTIVE_RADIUS
Prediction       Predictor, logits, segment, sigmoid

Images are (H, W, 3) uint8, masks (H, W) uint8 of 0 and 1. The *logit* of a pixel is its
log-odds of class 1: the network's second output less its first.
"""

import os
import platform
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np


# OpenMP's threads sleep while they wait; spinning, they slow down whatever else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

import torch
import torch.nn.functional as F
from torch import Tensor, nn


MAX_SIDE = 256  # pixels: the most rows or columns in one forward pass
MAX_PIXELS = MAX_SIDE**2  # the most pixels in one forward pass, over the whole batch
# What the convolutions compute in.
PRECISIONS = {"fp32": torch.float32, "int8": torch.int8, "bf16": torch.bfloat16}
INSIDE = 255  # in an 8-bit tile's fourth channel, which is 0 in the padding
REACH = 6  # standard deviations of a layer's values that 8 bits hold

# ------------------------------------------------------------------ the network


class Normalise(nn.Module):
    """Subtract the training images' means, divide by their standard deviations.

    Part of the network's state: training and prediction cannot scale in two ways.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))

    def fit(self, rgb: np.ndarray) -> None:
        """Take the constants from (..., 3) uint8 pixels of the training images."""
        values = rgb.reshape(-1, 3)
        self.mean.copy_(torch.from_numpy(values.mean(0)))
        # A constant channel must not divide by zero.
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
        """Give the logits layer by layer: slower, and the definition of `forward`."""
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
    gives all four kinds of pixels, and `pixel_shuffle` puts them in place.
    """
    tap = torch.arange(5, device=weight.device)
    parity = torch.arange(2, device=weight.device)[:, None]
    small = (parity + tap - 2).div(2, rounding_mode="floor") + 1  # (2, 5): 0, 1 or 2
    falls = F.one_hot(small, 3).to(weight.dtype)  # (parity, tap, small tap)
    folded = torch.einsum("oiyx,pyk,qxl->opqikl", weight, falls, falls)
    return folded.flatten(0, 2), bias.repeat_interleave(4)  # (4 o, i, 3, 3)


class Folded:
    """The network for prediction: from bytes to logits, nothing computed twice.

    The normalisations are folded into the convolutions beside them and the upsampling
    into the last one, of whose two outputs only the difference is made; ReLU waits
    until the pooling has left it a quarter of the pixels. But for rounding, it is the
    function of `FCNN.literal`, about four times as fast: from (B, H, W, 3) uint8, under
    the same rule, to (B, H, W) float32.
    """

    def __init__(self, model: FCNN, precision: torch.dtype = torch.float32) -> None:
        # The mean is not folded: at the image's edge the layers pad with zeros, which
        # stand for the mean.
        self.mean = model.normalise.mean
        self.precision = precision
        self.pairs = [
            (w.to(precision, memory_format=torch.channels_last), b.to(precision))
            for w, b in _fold(model)
        ]

    def __call__(self, rgb: Tensor) -> Tensor:
        """Give each pixel its logit: the second output less the first."""
        check_budget((rgb.shape[0], *rgb.shape[3:], *rgb.shape[1:3]))
        x = (rgb - self.mean).to(self.precision)
        x = x.permute(0, 3, 1, 2)  # (B, 3, H, W), the channels still last in memory
        x = _convolve(x, *self.pairs[0], padding=1).relu_()
        x = _pool(_convolve(x, *self.pairs[1], padding=1)).relu_()
        x = _convolve(x, *self.pairs[2], padding=1).relu_()
        return _placed(_convolve(x, *self.pairs[3], padding=1).float())


# Int8 weights, their unit for each channel, the bias, the units of input and output.
IntegerLayer = tuple[Tensor, Tensor, Tensor | None, float, float]
_WAY: Any = [1, 1], [1, 1], [1, 1], 1  # strides, padding, dilation, groups


class Integers:
    """`Folded` in 8-bit integers, for processors that multiply them (`has_integers`).

    The weights of each output channel are scaled to -127 to 127, and the outputs of
    each layer to 0 to 255. How large these become, the normalisations know: in training
    each channel had their shift as mean and their gain as standard deviation. So
    nothing is measured on an image, and all tiles are computed alike. The sums are
    exact: tiles give what one pass over the whole image gives, bit for bit.
    """

    def __init__(self, layers: list[IntegerLayer]) -> None:
        self.layers = layers

    @cached_property
    def packed(self) -> list[Tensor]:
        """The weights as oneDNN wants them."""
        pack = torch.ops.onednn.qconv_prepack
        return [pack(w, scale, unit, 0, *_WAY) for w, scale, _, unit, _ in self.layers]

    def __getstate__(self) -> dict[str, list]:
        return {"layers": self.layers}  # packed weights cannot be pickled

    def __call__(self, rgb: Tensor) -> Tensor:
        """Give each pixel its logit: from (B, H, W, 3) uint8 to (B, H, W) float32."""
        check_budget((rgb.shape[0], *rgb.shape[3:], *rgb.shape[1:3]))
        if not has_integers():  # of the computer that it came to
            raise ValueError("this processor does not multiply 8-bit integers")
        x = F.pad(rgb, (0, 1), value=INSIDE).permute(0, 3, 1, 2)  # (B, 4, H, W)
        x = _pool(self._convolve(self._convolve(x, 0), 1))
        return _placed(self._convolve(self._convolve(x, 2), 3))

    def _convolve(self, x: Tensor, index: int) -> Tensor:
        """Apply a layer, and ReLU after all but the last: uint8 to uint8, or logits."""
        _, scale, bias, unit, out_unit = self.layers[index]
        weight, zero = self.packed[index], torch.zeros_like(scale, dtype=torch.int8)
        is_last = index == len(self.layers) - 1
        kind, after = (torch.float32, "none") if is_last else (torch.uint8, "relu")
        inputs, outputs = (x, unit, 0, weight, scale, zero, bias), (out_unit, 0, kind)
        apply = torch.ops.onednn.qconv2d_pointwise
        return apply(*inputs, *_WAY, *outputs, after, [], "")


def _integer_layers(model: FCNN) -> list[IntegerLayer]:
    """Round the folded layers to 8-bit integers, each in its units."""
    pairs, norms = _fold(model), (model.norm1, model.norm2, model.norm3)
    mean = model.normalise.mean
    weight, bias = pairs[0]
    # The bytes of the image are the input. To subtract the mean, but not in the
    # padding, a fourth channel says where the image is.
    less = (weight * mean[:, None, None]).sum(1, keepdim=True) / -INSIDE
    pairs[0] = torch.cat([weight, less], 1), bias
    tops = [float((n.bias + REACH * n.weight.abs()).max()) for n in norms]
    units = [1.0, *(top / 255 for top in tops), 1.0]  # of inputs and outputs
    layers: list[IntegerLayer] = []
    for (weight, bias), unit, out_unit in zip(pairs, units, units[1:], strict=False):
        scale = weight.abs().amax((1, 2, 3)).clamp(min=1e-30) / 127
        rounded = (weight / scale[:, None, None, None]).round()
        if not layers:  # what rounding does to the mean colour is known
            error = rounded * scale[:, None, None, None] - weight
            typical = torch.cat([mean, mean.new_tensor([float(INSIDE)])])
            bias = bias - (error * typical[:, None, None]).sum((1, 2, 3))
        layers.append((rounded.to(torch.int8), scale, bias, unit, out_unit))
    return layers


@cache
def has_integers() -> bool:
    """Tell whether this processor multiplies 8-bit integers, as `Integers` needs it.

    Others cut off large sums, or halve the weights: so it is tried.
    """
    able = torch.cpu.get_capabilities()
    if not (able.get("avx512_vnni") or able.get("avx_vnni")):
        return False
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 4, 4)
    weight = (torch.arange(16 * 16 * 9) % 255 - 127).reshape(16, 16, 3, 3)
    layer = weight.to(torch.int8), torch.ones(16), None, 1.0, 1.0
    found = Integers([layer])._convolve(x, 0)
    return torch.equal(found, F.conv2d(x.float(), weight.float(), padding=1))


def _fold(model: FCNN) -> list[tuple[Tensor, Tensor]]:
    """Fold all layers into four convolutions, of which the first takes bytes."""
    first, bias = _fold_norm(model.conv1, model.norm1)
    return [
        (first / model.normalise.std[:, None, None], bias),
        _fold_norm(model.conv2, model.norm2),
        _fold_norm(model.conv3, model.norm3),
        _fold_upsampling(*(p[1:] - p[:1] for p in model.conv4.parameters())),
    ]


def _placed(x: Tensor) -> Tensor:
    """Put the four kinds of pixels in place: (B, 4, H/2, W/2) to (B, H, W).

    Here it is faster than `pixel_shuffle`.
    """
    batch, _, height, width = x.shape
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
    """Tell whether tiles give what one pass over the whole image gives, bit for bit.

    They do where oneDNN computes in float32 or int8 on an x86 processor. Elsewhere
    logits may differ by rounding: by at most 1e-4 of the largest in float32, 5e-2 in
    bfloat16.
    """
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    by_onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return is_x86 and by_onednn and precision in (torch.float32, torch.int8)


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
    """Refuse an input of the network that breaks the 256 rule, by a ValueError."""
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
    """Find the input rows (or columns) that the output rows ``start:stop`` depend on.

    The layers are walked from the last to the first. The rows may reach outside the
    image.
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


class Block(NamedTuple):
    """A rectangle of an image: rows ``top:bottom`` and columns ``left:right``."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns, to index an array of the image."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, other: "Block") -> tuple[slice, slice]:
        """Give the rows and columns, to index an array of a block around this one."""
        rows = slice(self.top - other.top, self.bottom - other.top)
        return rows, slice(self.left - other.left, self.right - other.left)

    def common(self, other: "Block") -> "Block":
        """Give what lies in both; it is empty where they do not meet."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Block(top, left, max(bottom, top), max(right, left))

    def meets(self, other: "Block") -> bool:
        """Tell whether the two have pixels in common."""
        common = self.common(other)
        return common.top < common.bottom and common.left < common.right

    def grown(self, margin: int, shape: Sequence[int]) -> "Block":
        """Add a margin on each side, cut off at the edges of an image of (H, W)."""
        top, left = self.top - margin, self.left - margin
        more = Block(top, left, self.bottom + margin, self.right + margin)
        return more.common(Block(0, 0, shape[0], shape[1]))


class Tile(NamedTuple):
    """A part of an image that the network sees, and the core that it decides there."""

    seen: Block  # at most 256x256 pixels
    core: Block


Piece = tuple[Tile, np.ndarray]  # a tile and its pixels, (h, w, 3) uint8


def tiles(height: int, width: int, side: int = MAX_SIDE) -> list[Tile]:
    """Cut an image into overlapping tiles that the network may see.

    Their cores cover the image, each pixel once. Tiles start and stop at even pixels,
    so at an odd edge they reach one pixel outside. Each is `side` long unless the image
    is shorter: the last one is moved inwards instead of padded, so that only the
    image's own edges are zero-padded.

    Parameters
    ----------
    height, width : int
        The image's size in pixels.
    side : int
        The tiles' rows and columns, even and more than two halos.

    Returns
    -------
    list of Tile
        Row by row from the top.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height}x{width} pixels has no tiles")
    pairs = product(_spans(height, side), _spans(width, side))
    return [
        Tile(Block(top, left, bottom, right), Block(y, x, y_stop, x_stop))
        for (top, bottom, y, y_stop), (left, right, x, x_stop) in pairs
    ]


def _spans(length: int, side: int) -> list[tuple[int, int, int, int]]:
    """Cover a length with spans: start, stop, and start and stop of the core."""
    even = length + length % 2
    side = min(side, MAX_SIDE, even)
    spans = []
    core_start = 0
    while core_start < length:
        start = min(max(core_start - HALO, 0), even - side)
        stop = start + side
        core_stop = length if stop == even else stop - HALO
        spans.append((start, stop, core_start, core_stop))
        core_start = core_stop
    return spans


# ------------------------------------------------------------------ prediction


class Predictor:
    """A network folded once, to segment images of any size; it can be pickled.

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
            self.network: Folded | Integers
            if precision == torch.int8:
                self.network = Integers(_integer_layers(model.eval()))
            else:
                self.network = Folded(model.eval(), precision)
        self.device = model.conv1.weight.device
        # What pixels without data are taken for: black or white would tell of an edge.
        self.mean = model.normalise.mean.cpu().numpy()

    def tile_logits(self, pieces: Iterable[Piece]) -> Iterator[tuple[Tile, np.ndarray]]:
        """Run the network over tiles of an image, one in each thread.

        Parameters
        ----------
        pieces : iterable of (Tile, ndarray)
            The tiles and their pixels, (h, w, 3) uint8, masked where there is no data.
            At an odd edge of the image they have one row or column less than the tile.

        Yields
        ------
        tile : Tile
            Each tile, in the order given.
        logit : ndarray, (core rows, core columns) float32
            The log-odds of class 1 in its core.
        """
        # One tile for each thread is faster than all threads on one tile.
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        with single_threads(threads) as pool:
            waiting: deque = deque()  # a few tiles ahead; never all of them
            for tile, pixels in pieces:
                waiting.append((tile, pool.submit(self._core_logit, tile, pixels)))
                if len(waiting) > 2 * threads:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for tile, future in waiting:
                yield tile, future.result()

    @torch.inference_mode()
    def _core_logit(self, tile: Tile, pixels: np.ndarray) -> np.ndarray:
        """Give the logits of a tile's core."""
        known = without_gaps(pixels, self.mean)
        x = torch.from_numpy(made_even(tile, known)).to(self.device)  # (h, w, 3)
        return self.network(x[None])[0][tile.core.within(tile.seen)].cpu().numpy()

    def logits(self, rgb: np.ndarray) -> np.ndarray:
        """Give every pixel's logit.

        Parameters
        ----------
        rgb : ndarray, (H, W, 3) uint8
            The image, of any size; masked where it has no data.

        Returns
        -------
        ndarray, (H, W) float32
            The log-odds of class 1.

        Raises
        ------
        ValueError
            `rgb` is of another shape or type.
        """
        whole = np.empty(rgb.shape[:2], np.float32)
        for tile, logit in self.tile_logits(_cut(rgb)):
            whole[tile.core.slices] = logit
        return whole

    def segment(self, rgb: np.ndarray) -> np.ndarray:
        """Give every pixel's class, 0 or 1: as `logits` does, (H, W) uint8.

        Decided tile by tile: no logits of the whole image are kept.
        """
        mask = np.empty(rgb.shape[:2], np.uint8)
        for tile, logit in self.tile_logits(_cut(rgb)):
            mask[tile.core.slices] = logit > 0
        return mask


def logits(model: FCNN, rgb: np.ndarray) -> np.ndarray:
    """Give every pixel's logit; see `Predictor.logits`."""
    return Predictor(model).logits(rgb)


def segment(model: FCNN, rgb: np.ndarray) -> np.ndarray:
    """Give every pixel's class; see `Predictor.segment`."""
    return Predictor(model).segment(rgb)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """Turn logits into probabilities of class 1, float32 of the same shape.

    NumPy computes each value alike wherever it stands in the array. PyTorch rounds the
    last few of an array otherwise, so that tiles would differ from the whole.
    """
    with np.errstate(over="ignore"):  # exp(89) is infinite, and 1 / infinity is right
        return 1 / (1 + np.exp(-logit))


def _cut(rgb: np.ndarray) -> list[Piece]:
    """Cut an image into tiles; their pixels are views of the image."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(
            f"image of shape {rgb.shape} and type {rgb.dtype}: expected (H, W, 3) uint8"
        )
    return [(tile, rgb[tile.seen.slices]) for tile in tiles(*rgb.shape[:2])]


def without_gaps(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Give (h, w, 3) uint8 pixels; those without data, the masked ones, in a colour."""
    if not np.ma.isMaskedArray(pixels):
        return pixels
    hidden, filling = np.ma.getmaskarray(pixels), colour.round().clip(0, 255)
    return np.where(hidden, filling, np.ma.getdata(pixels)).astype(np.uint8)


def made_even(tile: Tile, pixels: np.ndarray) -> np.ndarray:
    """Repeat the last row or column where an odd edge of the image cuts them off."""
    below = tile.seen.bottom - tile.seen.top - pixels.shape[0]
    right = tile.seen.right - tile.seen.left - pixels.shape[1]
    if below or right:
        pixels = np.pad(pixels, [(0, below), (0, right), (0, 0)], "edge")
    return pixels  # (h, w, 3), both even


_starting = threading.Lock()  # of threads that compute with one thread


def single_threads(count: int) -> ThreadPoolExecutor:
    """Start threads in each of which PyTorch computes with one thread.

    PyTorch keeps a thread count for each thread, and a default for new threads. The
    default is restored as soon as all have started.
    """
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # or PyTorch would take the common number over later
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count)
    with _starting:
        threads = torch.get_num_threads()
        try:
            for _ in range(count):
                pool.submit(start)  # each waits for the others, so each has a thread
            started.wait()
        except BaseException:  # Ctrl-C: or they would wait for ever, and so would exit
            started.abort()
            raise
        finally:
            torch.set_num_threads(threads)
    return pool
