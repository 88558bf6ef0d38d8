"""A self-check: whether this machine computes what the network is defined to say."""

import copy
import platform
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from onelabel.files import counted
from segutils import FCNN, MAX_SIDE, Block, Predictor, is_exact, tiles


SIDE = 64  # pixels a side, of the small tiles that are compared with one pass
# How far logits may differ by rounding, as a share of the largest of them.
TOLERANCE = {torch.float32: 1e-4, torch.int8: 0.1, torch.bfloat16: 5e-2}


class Finding(NamedTuple):
    """How two ways to compute the same differ."""

    ways: str
    difference: float  # the largest between the logits
    share: float  # the same, as a share of the largest logit
    pixels: int  # whose class differs


def middle(shape: Sequence[int]) -> Block:
    """Choose the part of an image of (H, W) to check: at most 256x256 pixels."""
    sides = [min(side, MAX_SIDE) for side in shape]
    top, left = ((whole - side) // 2 for whole, side in zip(shape, sides, strict=True))
    return Block(top, left, top + sides[0], left + sides[1])


def literal_logits(model: FCNN, rgb: np.ndarray) -> np.ndarray:
    """Compute the network's definition, layer by layer in float64 on the processor."""
    exact = copy.deepcopy(model).cpu().double().eval()
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].double()  # (1, 3, H, W)
    with torch.no_grad():
        outputs = exact.literal(pixels)[0].numpy()
    return outputs[1] - outputs[0]


def compare(
    model: FCNN, rgb: np.ndarray, precision: torch.dtype
) -> tuple[Finding, ...]:
    """Compute a part of an image in three ways that should agree.

    Gives how small tiles differ from one pass, and one pass from the definition. The
    part, (H, W, 3) uint8, is at most 256x256 pixels.
    """
    odd = [(0, side % 2) for side in rgb.shape[:2]]
    rgb = np.pad(rgb, [*odd, (0, 0)], "edge")
    predictor = Predictor(model, precision)
    once = predictor.logits(rgb)
    tiled = np.full_like(once, np.nan)
    height, width = once.shape
    cut = tiles(height, width, SIDE)
    pieces = [(tile, rgb[tile.seen.slices]) for tile in cut]
    for tile, logit in predictor.tile_logits(pieces):
        tiled[tile.core.slices] = logit
    findings = []
    for ways, one, other in [
        (f"{counted(len(cut), 'tile')} against one pass", tiled, once),
        ("one pass against the layers as written", once, literal_logits(model, rgb)),
    ]:
        difference = float(np.abs(one - other).max())
        share = difference / max(float(np.abs(other).max()), 1e-30)
        pixels = int(((one > 0) != (other > 0)).sum())
        findings.append(Finding(ways, difference, share, pixels))
    return tuple(findings)


def describe_findings(
    name: str,
    shape: Sequence[int],
    device: torch.device,
    precision: torch.dtype,
    findings: Sequence[Finding],
) -> tuple[str, bool]:
    """Lay out the findings; tell whether this machine computes as it should."""
    kind = str(precision).removeprefix("torch.")
    lines = [
        f"{name}: {shape[1]}x{shape[0]} pixels of its middle, {kind} on {device}, "
        f"{platform.machine()}, PyTorch {torch.__version__}"
    ]
    for ways, difference, share, pixels in findings:
        others = f"{counted(pixels, 'pixel')} of another class"
        masks = others if pixels else "masks equal"
        lines.append(
            f"{ways}: logits differ by at most {difference:.1g} ({share:.1g} of the "
            f"largest), {masks}"
        )
    tiled = findings[0]
    is_well = all(finding.share <= TOLERANCE[precision] for finding in findings)
    if is_exact(device, precision):
        lines.append("here tiles give the bits of one pass over the whole image")
        is_well = is_well and tiled.difference == 0
    return "\n".join(lines), is_well
