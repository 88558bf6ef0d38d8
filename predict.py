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
from pathlib import Path

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


if __name__ == "__main__":
    cli.answer(parse_args)  # --help and mistakes, before the second that torch takes

import segutils


def predict(model, rgb, with_probabilities):
    """Give the mask (H, W), and the probabilities (H, W) where they are asked for."""
    if not with_probabilities:
        return segutils.segment(model, rgb, progress=True), None
    margin = segutils.margins(model, rgb, progress=True)
    return (margin > 0).astype("uint8"), segutils.sigmoid(margin)


def main(argv=None):
    """Segment images, as the command line says."""
    args = parse_args(argv)
    jobs = plan(args)
    model, content = segutils.load_model(
        args.model, segutils.choose_device(args.device)
    )
    for name, output in jobs:
        if args.gt:
            rgb, truth, _ = images.read_pair(name, args.gt)
        else:
            rgb, truth = images.read_rgb(name), None
        for drawn in filter(None, (output, args.overlay)):
            images.check_jpeg_size(drawn, rgb.shape)
        mask, probability = predict(model, rgb, bool(args.probabilities))
        images.write_mask(output, mask, content["colours"])
        if args.overlay:
            images.write_rgb(args.overlay, figures.overlay(rgb, mask))
        if args.probabilities:
            images.write_probabilities(args.probabilities, probability)
        print(f"{output}: {mask.mean():.1%} of {name} is class 1")
        if mask.min() == mask.max():
            print(
                f"warning: {name}: every pixel is class {mask[0, 0]} (is it like the "
                "training image?)",
                file=sys.stderr,
            )
        if truth is not None:
            rows = {"network": segutils.scores(mask, truth)}
            print(segutils.score_table(name, rows))


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
