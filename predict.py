# Generated from notebooks/predict.ipynb: edit the notebook, then export again.
"""Segment images with the trained network.

python predict.py
    data/rgb.png and model.pt -> predictions.jpg
python predict.py new.png --output new_mask.png --overlay new_overlay.jpg
    one image
python predict.py photos/*.jpg --output masks/
    several: a mask for each, photos/a.jpg -> masks/a.png
"""

import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cli
import figures
import images


def parse_args(argv=None):
    """Read the command line."""
    parser = cli.Parser(description="Segment images with the trained network.")

    def option(name, default, text, **more):
        parser.add_argument(name, default=default, help=text, **more)

    image = "images of any size (data/rgb.png)"
    option("images", ["data/rgb.png"], image, nargs="*", metavar="IMAGE")
    option("--model", "model.pt", "made by train.py (%(default)s)", metavar="FILE")
    mask = "mask to write: .jpg, .png, .tif, or a folder (%(default)s)"
    option("--output", "predictions.jpg", mask, metavar="PATH")
    option("--gt", None, "the ground truth: print the scores", metavar="IMAGE")
    option("--overlay", None, "draw the mask on the image here", metavar="FILE")
    probability = "of class 1, to write: .png (8 bits) or .tif (float)"
    option("--probabilities", None, probability, metavar="FILE")
    devices = ("auto", "cpu", "cuda", "mps")
    option("--device", "auto", "where to run (%(default)s)", choices=devices)
    precision = "of the arithmetic; bf16 only where it is faster (%(default)s)"
    option("--precision", "fp32", precision, choices=("fp32", "bf16"))
    return parser.parse_args(argv)


def plan(args):
    """Pair each image with its mask file, and refuse what could not be written."""
    if "" in (args.output, args.gt, args.overlay, args.probabilities):
        raise cli.InputError("an empty name is no file's (leave the option out)")
    if Path(args.output).is_dir():
        masks = [Path(args.output, f"{Path(name).stem}.png") for name in args.images]
    elif len(args.images) == 1 and Path(args.output).suffix:
        masks = [Path(args.output)]
    else:
        raise cli.InputError(f"--output {args.output}: no such folder (make it first)")
    for option in ("gt", "overlay", "probabilities"):
        if getattr(args, option) and len(args.images) > 1:
            raise cli.InputError(
                f"--{option} {getattr(args, option)}: goes with one image only"
            )
    outputs = [(mask, images.WRITE_SUFFIXES) for mask in masks]
    if args.overlay:
        outputs.append((args.overlay, images.WRITE_SUFFIXES))
    if args.probabilities:
        outputs.append((args.probabilities, images.PROBABILITY_SUFFIXES))
    inputs = [*args.images, args.model] + ([args.gt] if args.gt else [])
    cli.check_files(inputs, outputs)
    return list(zip(args.images, masks, strict=True))


class Picture(NamedTuple):
    """An image to be segmented."""

    name: str
    output: Path
    rgb: np.ndarray  # (H, W, 3) uint8
    truth: np.ndarray | None  # (H, W) uint8


def read(args, job):
    """Read an image, and its truth where there is one."""
    name, output = job
    if args.gt:
        rgb, truth, _ = images.read_pair(name, args.gt)
    else:
        rgb, truth = images.read_rgb(name), None
    for drawn in filter(None, (output, args.overlay)):
        images.check_jpeg_size(drawn, rgb.shape)
    return Picture(name, output, rgb, truth)


def begin(argv=None):
    """Read the command line, and begin to read the images in another thread."""
    args = parse_args(argv)
    return args, cli.ahead(partial(read, args), plan(args))


if __name__ == "__main__":
    begun = cli.begin(begin)  # mistakes are told before the second that torch takes

import light
import metrics
import segutils


class Prediction(NamedTuple):
    """What the network says of a picture."""

    picture: Picture
    mask: np.ndarray  # (H, W) uint8
    probability: np.ndarray | None  # (H, W) float32, where it is asked for
    warning: str | None  # in what the picture is unlike the training image


def predict(model, looks, precision, with_probabilities, picture):
    """Segment a picture, in its own light."""
    rgb = picture.rgb
    adapted, its_light = light.adapt(model, looks, rgb)
    if with_probabilities:
        margin = segutils.margins(adapted, rgb, precision, progress=True)
        mask, probability = (margin > 0).astype(np.uint8), segutils.sigmoid(margin)
    else:
        mask = segutils.segment(adapted, rgb, precision, progress=True)
        probability = None
    return Prediction(picture, mask, probability, light.warning(looks, its_light, rgb))


def write(args, colours, prediction):
    """Write what is asked for of a prediction."""
    picture, mask, probability, _ = prediction
    images.write_mask(picture.output, mask, colours)
    if args.overlay:
        images.write_rgb(args.overlay, figures.overlay(picture.rgb, mask))
    if args.probabilities:
        images.write_probabilities(args.probabilities, probability)
    return prediction


def report(prediction):
    """Print the share of class 1, warnings, and the scores where there is a truth."""
    picture, mask, _, warning = prediction
    print(f"{picture.output}: {mask.mean():.1%} of {picture.name} is class 1")
    if warning is None and mask.min() == mask.max():
        warning = f"every pixel is class {mask[0, 0]} (is it like the training image?)"
    if warning is not None:
        print(f"warning: {picture.name}: {warning}", file=sys.stderr)
    if picture.truth is not None:
        rows = {"network": metrics.scores(mask, picture.truth)}
        print(metrics.score_table(picture.name, rows))


def finish(args, pictures):
    """Segment the pictures, and write and report what is found."""
    device = segutils.choose_device(args.device)
    model, content = segutils.load_model(args.model, device)
    precision = segutils.choose_precision(args.precision, model)
    segment = partial(
        predict, model, content["looks"], precision, bool(args.probabilities)
    )
    found = (segment(picture) for picture in pictures)
    for prediction in cli.ahead(partial(write, args, content["colours"]), found):
        report(prediction)


def main(argv=None):
    """Segment images, as the command line says."""
    finish(*begin(argv))


if __name__ == "__main__":
    cli.leave(cli.run(finish, *begun))
