"""The command line of predict.py, and what its options ask for."""

import argparse
from collections.abc import Sequence

import segutils
from onelabel import console, object_files, ome_labels, writing
from onelabel.files import InputError
from onelabel.object_files import Wanted
from onelabel.reading import MAX_IMAGE_PIXELS


BESIDE = {  # the mask: the files of these options, and their suffixes
    "overlay": writing.SUFFIXES,
    "probabilities": writing.PROBABILITY_SUFFIXES,
    **object_files.SUFFIXES,
}

MODES: dict[str, Sequence[str]] = {  # that segment no image, and their own options
    "from_mask": (
        *("output", "min_area", "fill_holes", "objects", "label_image", "polygons"),
        *("simplify", "rois", "max_pixels", "overwrite"),
    ),
    "verify": ("model", "device", "precision", "bands", "max_pixels"),
    "export": ("model",),
}


def singles(args: argparse.Namespace) -> dict[str, str]:
    """Give the options that are there and go with one image only."""
    options = {name.replace("_", "-"): value for name, value in vars(args).items()}
    return {
        name: options[name] for name in ("gt", *BESIDE) if options[name] is not None
    }


def beside(args: argparse.Namespace) -> list[tuple[str, Sequence[str]]]:
    """List the files beside the mask, each with the suffixes that it may have.

    Labels within an OME-Zarr image are checked by `Wanted.check`.
    """
    return [
        (path, BESIDE[name])
        for name, path in singles(args).items()
        if name != "gt" and not ome_labels.is_labels_name(path)
    ]


def keeps_logits(args: argparse.Namespace) -> bool:
    """Tell whether probabilities are asked for: of all pixels, or of the objects."""
    is_segmented = args.from_mask is None
    return is_segmented and (bool(args.probabilities) or args.wanted.needs_logits)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; `wanted` is what it asks for of the objects."""
    parser = console.Parser(description="Segment images with the trained network.")
    option = parser.option
    image = "images of any size, or folders of them (data/rgb.png)"
    option("images", [], image, nargs="*", metavar="IMAGE")
    option(
        "--model", "model.pt", "model file from train.py (%(default)s)", metavar="FILE"
    )
    mask = "mask to write: .jpg, .png, .tif, .zarr, a folder (predictions.jpg)"
    option("--output", None, mask, metavar="PATH")
    option("--gt", None, "the ground truth: print the scores", metavar="FILE")
    option(
        "--overlay", None, "write the image with the mask drawn on it", metavar="FILE"
    )
    probability = "write the probabilities of class 1: .png (8 bits), .tif (float)"
    option("--probabilities", None, probability, metavar="FILE")
    least = "remove objects smaller than this: 50 (pixels), 2.5m2, 0.1ha"
    option("--min-area", None, least, type=console.area, metavar="AREA")
    holes = "fill holes smaller than this"
    option("--fill-holes", None, holes, type=console.area, metavar="AREA")
    option("--objects", None, "write a table of the objects: .csv", metavar="FILE")
    ids = "write each pixel's object by its number: .png, .tif, X.zarr/labels/NAME"
    option("--label-image", None, ids, metavar="FILE")
    outlines = "write the objects' outlines: .gpkg, .geojson, .shp"
    option("--polygons", None, outlines, metavar="FILE")
    corners = "leave out corners of polygons within so many pixels (%(default)g)"
    option("--simplify", 0.0, corners, type=console.distance, metavar="PIXELS")
    rois = "write the objects for ImageJ (.zip) or QuPath (.geojson)"
    option("--rois", None, rois, metavar="FILE")
    already = "take a mask that is there already, instead of an image"
    option("--from-mask", None, already, metavar="MASK")
    devices = ("auto", "cpu", "cuda", "mps")
    option("--device", "auto", "where to run (%(default)s)", choices=devices)
    whose = "allow for the light of each image, of all together (folder), or of none"
    lights = ("image", "folder", "none")
    option("--light", "image", f"{whose} (%(default)s)", choices=lights)
    precision = "fp32: exact; int8: faster (needs VNNI); bf16: AMX, GPUs (%(default)s)"
    option("--precision", "fp32", precision, choices=tuple(segutils.PRECISIONS))
    bands = "which bands are red, green and blue (as the training had)"
    option("--bands", None, bands, type=console.three_bands, metavar="R,G,B")
    most = "refuse an image with more pixels (%(default)s)"
    option("--max-pixels", MAX_IMAGE_PIXELS, most, type=console.count, metavar="N")
    workers = "number of processes that share the work"
    option("--workers", None, workers, type=console.count, metavar="N")
    option(
        "--scheduler",
        None,
        "address of a Dask cluster that shares it",
        metavar="ADDRESS",
    )
    afresh = "do everything again, even what is done"
    parser.add_argument("--overwrite", action="store_true", help=afresh)
    check = "check this machine on a part of the image; write nothing"
    option("--verify", None, check, metavar="IMAGE")
    onnx = "write the network as an ONNX file, for QGIS Deepness; segment nothing"
    option("--export", None, onnx, metavar="FILE")
    args = parser.parse_args(argv)
    for mode, its_own in MODES.items():
        if getattr(args, mode) is not None:
            refuse_idle(args, parser, mode, its_own)
    if args.simplify and args.polygons is None:
        raise InputError(
            f"--simplify {args.simplify:g}: goes with --polygons (add it, or leave "
            "this out)"
        )
    args.wanted = Wanted.by(vars(args))
    if args.from_mask is None:
        args.images = args.images or ["data/rgb.png"]
        args.output = "predictions.jpg" if args.output is None else args.output
    return args


def refuse_idle(
    args: argparse.Namespace,
    parser: console.Parser,
    mode: str,
    its_own: Sequence[str],
) -> None:
    """Refuse options that say nothing where no image is segmented."""
    given = [name for name, v in vars(args).items() if v != parser.get_default(name)]
    idle = [name for name in given if name not in (mode, *its_own)]
    if idle:
        names = ["the image" if n == "images" else console.as_option(n) for n in idle]
        raise InputError(
            f"{console.as_option(mode)} {getattr(args, mode)}: no image is segmented "
            f"(leave out {', '.join(names)})"
        )
