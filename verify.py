"""A self-check: whether this machine computes what the network is defined to say."""

import copy
import platform
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

import segutils
from images import Block
from segutils import FCNN


SIDE = 64  # pixels a side, of the small tiles that are compared with one pass
# How far logits may differ by rounding, as a share of the largest of them.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


class Finding(NamedTuple):
    """How two ways to compute the same differ."""

    ways: str
    difference: float  # the largest between the margins
    share: float  # the same, as a share of the largest margin
    pixels: int  # whose class differs


def middle(shape: Sequence[int]) -> Block:
    """Choose the part of an image that is checked: what one forward pass may see.

    Parameters
    ----------
    shape : tuple of int
        The image's height and width.

    Returns
    -------
    Block
        At most 256x256 pixels in its middle.
    """
    sides = [min(side, segutils.MAX_SIDE) for side in shape]
    top, left = ((whole - side) // 2 for whole, side in zip(shape, sides, strict=True))
    return Block(top, left, top + sides[0], left + sides[1])


def literal_margins(model: FCNN, rgb: np.ndarray) -> np.ndarray:
    """Compute the network's definition, layer by layer in float64 on the processor.

    Parameters
    ----------
    model : FCNN
        The network.
    rgb : ndarray, (H, W, 3) uint8
        At most 256x256 pixels, both sides even.

    Returns
    -------
    ndarray, (H, W) float64
        The margins.
    """
    exact = copy.deepcopy(model).cpu().double().eval()
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].double()  # (1, 3, H, W)
    with torch.no_grad():
        logits = exact.literal(pixels)[0].numpy()
    return logits[1] - logits[0]


def compare(
    model: FCNN, rgb: np.ndarray, precision: torch.dtype
) -> tuple[Finding, ...]:
    """Compute a part of an image in three ways that should agree.

    Parameters
    ----------
    model : FCNN
        The network, on the device that is to be checked.
    rgb : ndarray, (H, W, 3) uint8
        The part, at most 256x256 pixels.
    precision : torch.dtype
        What the convolutions compute in.

    Returns
    -------
    tiled, literal : Finding
        Small tiles against one pass; one pass against the definition.
    """
    odd = [(0, side % 2) for side in rgb.shape[:2]]
    rgb = np.pad(rgb, [*odd, (0, 0)], "edge")
    predictor = segutils.Predictor(model, precision)
    once = predictor.margins(rgb)
    tiled = np.full_like(once, np.nan)
    height, width = once.shape
    pieces = segutils.cut(rgb, segutils.tiles(height, width, SIDE))
    for core, margin in predictor.tile_margins(pieces):
        tiled[core] = margin
    findings = []
    for ways, one, other in [
        (f"{len(pieces)} tiles against one pass", tiled, once),
        ("one pass against the layers as written", once, literal_margins(model, rgb)),
    ]:
        difference = float(np.abs(one - other).max())
        share = difference / max(float(np.abs(other).max()), 1e-30)
        pixels = int(((one > 0) != (other > 0)).sum())
        findings.append(Finding(ways, difference, share, pixels))
    return tuple(findings)


def report(
    name: str,
    shape: Sequence[int],
    device: torch.device,
    precision: torch.dtype,
    findings: Sequence[Finding],
) -> tuple[str, bool]:
    """Lay out the findings.

    Parameters
    ----------
    name : str
        The image's file.
    shape : tuple of int
        The part's height and width.
    device : torch.device
        What was checked.
    precision : torch.dtype
        What the convolutions computed in.
    findings : sequence of Finding
        From `compare`.

    Returns
    -------
    text : str
        A line for the machine, and one for each finding.
    is_well : bool
        Whether tiles give the bits of one pass, where `segutils.is_exact` promises it,
        and all logits agree but for rounding.
    """
    kind = str(precision).removeprefix("torch.")
    lines = [
        f"{name}: {shape[1]}x{shape[0]} pixels of its middle, {kind} on {device}, "
        f"{platform.machine()}, PyTorch {torch.__version__}"
    ]
    for ways, difference, share, pixels in findings:
        masks = f"{pixels} pixels of another class" if pixels else "masks equal"
        lines.append(
            f"{ways}: logits differ by at most {difference:.1g} ({share:.1g} of the "
            f"largest), {masks}"
        )
    tiled = findings[0]
    is_well = all(finding.share <= TOLERANCE[precision] for finding in findings)
    if segutils.is_exact(device, precision):
        lines.append("here tiles give the bits of one pass over the whole image")
        is_well = is_well and tiled.difference == 0
    return "\n".join(lines), is_well
