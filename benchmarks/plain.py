"""The network as the exercise writes it, and two programs around it, as others write.

    python benchmarks/plain.py windows|monai IMAGE MASK

IMAGE is a GeoTIFF of three bytes a pixel. ``windows`` reads, segments and writes one
window after the other, as raster toolboxes do (OTB with OTBTF, for one). ``monai``
reads the image, slides MONAI's window over all of it, and writes the mask.
"""

import copy
import sys
from pathlib import Path

import rasterio
import torch
from rasterio.windows import Window


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import segutils  # noqa: E402 - from the folder above
from onelabel import model_file  # noqa: E402


def bare(model):
    """Write the network as the exercise does: four convolutions, without norms.

    The norms are folded into the convolutions, so it is the same function but for the
    pixels at the image's edge.
    """
    layers = dict(model.named_children())
    for name, (weight, bias) in zip(
        ("conv1", "conv2", "conv3"), segutils._fold(model), strict=False
    ):
        layers[name] = copy.deepcopy(layers[name])
        layers[name].weight.data, layers[name].bias.data = weight, bias
        if name == "conv1":
            layers[name].bias.data = bias - (
                weight * model.normalise.mean[:, None, None]
            ).sum((1, 2, 3))
    kept = (layer for name, layer in layers.items() if not name.startswith("norm"))
    return torch.nn.Sequential(*kept).eval()


def by_windows(network, source, target):
    """Segment an open raster into another, tile by tile."""
    for tile in segutils.tiles(*source.shape):
        rgb = source.read(window=Window.from_slices(*tile.seen.slices))  # (3, h, w)
        logits = network(torch.from_numpy(rgb)[None].float())[0]
        mask = logits.argmax(0).byte().numpy()[tile.core.within(tile.seen)]
        target.write(mask, 1, window=Window.from_slices(*tile.core.slices))


def by_monai(network, source, target):
    """Segment an open raster into another, all of it at once."""
    from monai.inferers import sliding_window_inference  # not for the other program

    x = torch.from_numpy(source.read())[None].float()  # (1, 3, H, W)
    logits = sliding_window_inference(x, segutils.MAX_SIDE, 1, network)
    target.write(logits[0].argmax(0).byte().numpy(), 1)


WAYS = {"windows": by_windows, "monai": by_monai}


@torch.inference_mode()
def main(way, image, mask):
    """Segment an image's file into a mask's."""
    network = bare(model_file.load(ROOT / "model.pt").model)
    with rasterio.open(image) as source:
        height, width = source.shape
        shape = {"height": height, "width": width, "count": 1, "dtype": "uint8"}
        place = {"crs": source.crs, "transform": source.transform}
        with rasterio.open(mask, "w", tiled=True, **shape, **place) as target:
            WAYS[way](network, source, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
