# Generated from notebooks/predict.ipynb: edit the notebook, then export again.
"""Segment images with the trained network.

python predict.py
    data/rgb.png and model.pt -> predictions.jpg
python predict.py new.png --output new_mask.png --overlay new_overlay.jpg
    one image
python predict.py photos/ --output masks/
    all images of a folder: photos/2026/a.jpg -> masks/2026/a.png
python predict.py --verify new.png
    writes nothing, and tells whether this machine computes as it should
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

import bigimages
import cli
import cluster
import figures
import folders
import images


# OpenMP's threads sleep while they wait; spinning, they slow down whatever else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(description="Segment images with the trained network.")

    def option(name: str, default: object, text: str, **more: Any) -> None:
        parser.add_argument(name, default=default, help=text, **more)

    image = "images of any size, or folders of them (data/rgb.png)"
    option("images", ["data/rgb.png"], image, nargs="*", metavar="IMAGE")
    option("--model", "model.pt", "made by train.py (%(default)s)", metavar="FILE")
    mask = "mask to write: .jpg, .png, .tif, .zarr or a folder (%(default)s)"
    option("--output", "predictions.jpg", mask, metavar="PATH")
    option("--gt", None, "the ground truth: print the scores", metavar="IMAGE")
    option("--overlay", None, "draw the mask on the image here", metavar="FILE")
    probability = "of class 1, to write: .png (8 bits) or .tif (float)"
    option("--probabilities", None, probability, metavar="FILE")
    devices = ("auto", "cpu", "cuda", "mps")
    option("--device", "auto", "where to run (%(default)s)", choices=devices)
    precision = "bf16: for processors with AMX, and GPUs (%(default)s)"
    option("--precision", "fp32", precision, choices=("fp32", "bf16"))
    bands = "red, green and blue of a TIFF or Zarr array (1,2,3)"
    option("--bands", None, bands, type=bigimages.band_numbers, metavar="R,G,B")
    most = "refuse an image of more (%(default)s)"
    option("--max-pixels", bigimages.MAX_PIXELS, most, type=int, metavar="N")
    option("--workers", None, "processes to share the work", type=int, metavar="N")
    option("--scheduler", None, "of a Dask cluster, to share it", metavar="ADDRESS")
    afresh = "do what is done, or half done, once more"
    parser.add_argument("--overwrite", action="store_true", help=afresh)
    check = "write nothing; check this machine on a part of the image"
    option("--verify", None, check, metavar="IMAGE")
    return parser.parse_args(argv)


Job = tuple[str, Path]  # an image and its mask


def is_folder(output: str) -> bool:
    """Tell whether an output is a folder of masks; a Zarr array is one mask."""
    return Path(output).is_dir() and not bigimages.is_zarr_name(output)


def pair(args: argparse.Namespace) -> list[Job]:
    """Pair each image with its mask file."""
    # Pairs of an image and its place in its folder.
    found = folders.expand(args.images, args.output)
    if is_folder(args.output):
        folder = Path(args.output)
        return [(name, folder / place.with_suffix(".png")) for name, place in found]
    if len(found) == 1 and Path(args.output).suffix:
        return [(found[0][0], Path(args.output))]
    many = f" for {len(found)} images" if len(found) > 1 else ""
    raise cli.InputError(
        f"--output {args.output}: no such folder{many} (make one first)"
    )


def check_outputs(args: argparse.Namespace, jobs: list[Job]) -> None:
    """Refuse files that could not be read or written."""
    suffixes: Sequence[str] = (*images.WRITE_SUFFIXES, bigimages.ZARR)
    outputs: list[tuple[cli.PathLike, Sequence[str]]]
    outputs = [(mask, suffixes) for _, mask in jobs]
    if args.overlay:
        outputs.append((args.overlay, images.WRITE_SUFFIXES))
    if args.probabilities:
        outputs.append((args.probabilities, images.PROBABILITY_SUFFIXES))
    if bigimages.is_zarr_name(args.output):
        bigimages.check_zarr(args.output)
    arrays = [image for image, _ in jobs if bigimages.is_zarr(image)]
    files = [image for image, _ in jobs if image not in arrays]
    inputs = [*files, args.model, *filter(None, [args.gt])]
    cli.check_files(inputs, outputs, tree=args.output)
    for output, _ in outputs:
        bigimages.check_apart(output, arrays)


def plan(args: argparse.Namespace) -> list[Job]:
    """Pair each image with its mask file, and refuse what could not be written."""
    cluster.check(args.workers, args.scheduler)
    if "" in (*args.images, args.output, args.gt, args.overlay, args.probabilities):
        raise cli.InputError("an empty name is no file's (leave the option out)")
    jobs = pair(args)
    for option in ("gt", "overlay", "probabilities"):
        name = getattr(args, option)
        if name and len(jobs) > 1:
            raise cli.InputError(f"--{option} {name}: goes with one image only")
    check_outputs(args, jobs)
    return jobs


class Picture(NamedTuple):
    """An image to be segmented."""

    name: str
    output: Path
    source: bigimages.Source
    rgb: np.ndarray | None  # (H, W, 3) uint8; None where it is read by bands
    truth: np.ndarray | None  # (H, W) uint8


def pixel_bytes(args: argparse.Namespace) -> int:
    """Say how many bytes of memory the work takes for each pixel, at its peak."""
    return 30 if args.gt else 20 if args.overlay or args.probabilities else 10


def read(args: argparse.Namespace, job: Job, whole: bool = False) -> Picture:
    """Open an image, read it unless it is too large for that, and read its truth."""
    name, output = job
    with images.memory_told([name], pixel_bytes(args)):
        source = bigimages.open_source(name, args.bands, args.max_pixels)
        by_bands = bigimages.is_large(source) or bigimages.is_zarr_name(output)
        by_bands = by_bands and not whole
        if by_bands:
            files = output, args.overlay, args.probabilities
            forecast = bigimages.forecast(name, source, *files, bool(args.gt))
            print(forecast, file=sys.stderr)
        rgb = None if by_bands else source.whole()
        truth = images.read_truth(args.gt, args.max_pixels)[0] if args.gt else None
    if truth is not None:
        images.check_same_size(name, source.shape, args.gt, truth.shape)
    for drawn in filter(None, (output, args.overlay)):
        images.check_jpeg_size(drawn, source.shape)
    return Picture(name, output, source, rgb, truth)


def begin(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[Job]]:
    """Read the command line, and list the images and their masks."""
    args = parse_args(argv)
    if not Path(args.model).exists():
        raise cli.InputError(f"{args.model}: no such file (train.py writes it)")
    if args.verify is not None:
        is_array = bigimages.is_zarr(args.verify)
        cli.check_files([args.model] if is_array else [args.verify, args.model], [])
        return args, []
    return args, plan(args)


if __name__ == "__main__":
    begun = cli.begin(begin)  # mistakes are told before the second that torch takes

import torch

import light
import metrics
import segutils
import verify


class Prediction(NamedTuple):
    """What the network says of a picture."""

    picture: Picture
    mask: np.ndarray  # (H, W) uint8
    probability: np.ndarray | None  # (H, W) float32, where it is asked for
    warning: str | None  # in what the picture is unlike the training image


def predict(
    model: segutils.FCNN,
    looks: light.Looks,
    precision: torch.dtype,
    with_probabilities: bool,
    picture: Picture,
) -> Prediction:
    """Segment a picture, in its own light."""
    rgb = picture.rgb
    assert rgb is not None  # those that are read by bands go another way
    adapted, its_light = light.adapt(model, looks, rgb)
    predictor = segutils.Predictor(adapted, precision)
    if with_probabilities:
        margin = predictor.margins(rgb, progress=True)
        mask, probability = (margin > 0).astype(np.uint8), segutils.sigmoid(margin)
    else:
        mask, probability = predictor.segment(rgb, progress=True), None
    return Prediction(picture, mask, probability, light.warning(looks, its_light, rgb))


def one_class(counts: np.ndarray) -> str | None:
    """Say what may be wrong with a mask of so many pixels of class 0 and class 1."""
    if np.count_nonzero(counts) != 1:
        return None
    return f"every pixel is class {counts.argmax()} (is it like the training image?)"


class BandedPrediction(NamedTuple):
    """What the network says of a picture that is read by bands of rows."""

    picture: Picture
    store: bigimages.Store
    tint: figures.Colour  # of the overlay
    warning: str | None


def predict_by_bands(
    args: argparse.Namespace,
    key: dict[str, object],
    model: segutils.FCNN,
    looks: light.Looks,
    precision: torch.dtype,
    picture: Picture,
) -> BandedPrediction:
    """Segment a picture that is not held in memory."""
    bigimages.return_memory()
    name, output, source, *_ = picture
    identity = bigimages.identity(name)
    seen = source.cut(light.glimpse(*source.shape))
    adapted, its_light = light.adapt_to(model, looks, seen)
    margins = bool(args.probabilities)
    predictor = segutils.Predictor(adapted, precision)
    network = predictor.margins if margins else predictor.segment
    key = {**key, "image": identity}
    shared = (args.workers, args.scheduler) if source.in_any_order else (None, None)
    with cluster.connected(*shared) as client:
        store = bigimages.Store(output, key, source.shape, margins, args.overwrite)
        try:
            if client:
                cluster.fill(client, store, name, args.bands, network, segutils.HALO)
            else:
                store.fill(source, network, segutils.HALO)
            if bigimages.identity(name) != identity:
                raise cli.InputError(f"{name}: changed while it was read (start again)")
        except BaseException:
            store.lock.close()  # this process, too, may go on with it
            raise
    known = light.known_pixels(seen)
    warning = light.warning(looks, its_light, known)
    return BandedPrediction(picture, store, figures.tint(known), warning)


def write_by_bands(
    args: argparse.Namespace, colours: images.Colours, prediction: BandedPrediction
) -> "Outcome":
    """Write what is asked for of a picture that is not held in memory."""
    picture, store, tint, warning = prediction
    source = picture.source
    counts, scores = store.counts(), None
    if picture.truth is not None:
        truths = (picture.truth[block.slices] for block in store.blocks)
        masks = map(store.mask, store.blocks)
        scores = metrics.total_scores(zip(masks, truths, strict=True))
    bigimages.write_mask(picture.output, store, colours, source.place)
    if args.overlay:
        bigimages.write_overlay(args.overlay, source, store, tint)
    if args.probabilities:
        bigimages.write_probabilities(
            args.probabilities, store, segutils.sigmoid, source.place
        )
    store.remove()
    return Outcome(picture.name, picture.output, counts, warning, scores)


class Outcome(NamedTuple):
    """What is told of a picture when its files are written."""

    name: str
    output: Path
    counts: np.ndarray  # pixels of class 0 and class 1
    warning: str | None
    scores: dict | None


def write(
    args: argparse.Namespace,
    colours: images.Colours,
    prediction: Prediction | BandedPrediction,
) -> Outcome:
    """Write what is asked for of a prediction."""
    if isinstance(prediction, BandedPrediction):
        return write_by_bands(args, colours, prediction)
    picture, mask, probability, warning = prediction
    with images.memory_told([picture.name], pixel_bytes(args)):
        images.write_mask(picture.output, mask, colours)
        if args.overlay and picture.rgb is not None:
            images.write_rgb(args.overlay, figures.overlay(picture.rgb, mask))
        if probability is not None:
            images.write_probabilities(args.probabilities, probability)
    counts, scores = np.bincount(mask.ravel(), minlength=2), None
    if picture.truth is not None:
        scores = metrics.scores(mask, picture.truth)
    return Outcome(picture.name, picture.output, counts, warning, scores)


def report(outcome: Outcome) -> None:
    """Print the share of class 1, warnings, and the scores where there is a truth."""
    name, output, counts, warning, scores = outcome
    share = counts[1] / max(counts.sum(), 1)
    print(cli.printable(f"{output}: {share:.1%} of {name} is class 1"))
    warning = warning or one_class(counts)
    if warning is not None:
        cli.warn(f"{name}: {warning}")
    if scores is not None:
        print(metrics.score_table(cli.printable(name), {"network": scores}))


def made_with(args: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Say what a mask depends on beside its image, in plain values."""
    return {
        "model": hashlib.sha256(Path(args.model).read_bytes()).hexdigest(),
        "bands": args.bands,
        "precision": args.precision,
        "device": str(device),
        "PyTorch": torch.__version__,
    }


class Trained(NamedTuple):
    """What is read from the model file, and what its masks depend on."""

    model: segutils.FCNN
    looks: light.Looks
    colours: images.Colours
    made_with: dict[str, object]


def load(args: argparse.Namespace) -> Trained:
    """Read the model file."""
    device = segutils.choose_device(args.device)
    model, content = segutils.load_model(args.model, device)
    key = made_with(args, device)
    return Trained(model, content["looks"], content["colours"], key)


NOT_SHARED = "segmented by one process (workers share maps, large TIFFs and arrays)"


def predict_all(
    args: argparse.Namespace,
    trained: Trained,
    pictures: Iterable[Picture | Exception],
) -> Iterator[Outcome | Exception]:
    """Segment and write the pictures; gives for each its outcome or its error."""
    model, looks, colours, key = trained
    precision = segutils.PRECISIONS[args.precision]

    def segment(picture: Picture) -> Prediction | BandedPrediction:
        picture.output.parent.mkdir(parents=True, exist_ok=True)
        is_shared = picture.rgb is None and picture.source.in_any_order
        if (args.workers or args.scheduler) and not is_shared:
            cli.warn(f"{picture.name}: {NOT_SHARED}")
        if picture.rgb is None:
            return predict_by_bands(args, key, model, looks, precision, picture)
        with images.memory_told([picture.name], pixel_bytes(args)):
            return predict(model, looks, precision, bool(args.probabilities), picture)

    found = (cli.attempt(segment, picture) for picture in pictures)
    return cli.ahead(partial(cli.attempt, partial(write, args, colours)), found)


def predict_file(
    args: argparse.Namespace, trained: Trained, job: Job
) -> Outcome | Exception:
    """Segment and write one of many pictures, in a worker."""
    picture = cli.attempt(partial(read, args), job)
    (outcome,) = predict_all(args, trained, [picture])
    return outcome


def report_all(
    outcomes: Iterable[tuple[Job, Outcome | Exception]],
    count: int,
    is_one: bool,
    journal: folders.Journal | None,
) -> int:
    """Report the outcomes as they come, and what failed at the end; give the code."""
    shown = {"unit": "image", "disable": True if is_one else None}
    failed = []
    for job, outcome in tqdm(outcomes, total=count, **shown):
        if isinstance(outcome, Exception):
            failed.append(outcome)
            continue
        with tqdm.external_write_mode():
            report(outcome)
        if journal:
            journal.add(*job)
    if failed and is_one:
        raise failed[0]
    for error in failed:
        cli.complain(error)
    if failed:
        print(f"{len(failed)} of {count} images failed", file=sys.stderr)
    return 1 if failed else 0


def check_machine(args: argparse.Namespace) -> int:
    """Tell whether this machine computes as it should; gives the exit code."""
    model, looks, *_ = load(args)
    precision = segutils.PRECISIONS[args.precision]
    source = bigimages.open_source(args.verify, args.bands, args.max_pixels)
    rgb = np.ma.getdata(source.read(verify.middle(source.shape)))
    adapted, _ = light.adapt(model, looks, rgb)
    found = verify.compare(adapted, rgb, precision)
    shape = rgb.shape[:2]
    device = adapted.conv1.weight.device
    text, is_well = verify.report(args.verify, shape, device, precision, found)
    print(text)
    return 0 if is_well else 1


def left_to_do(
    args: argparse.Namespace, journal: folders.Journal, jobs: list[Job]
) -> list[Job]:
    """Leave out the images whose masks are done."""
    if args.overwrite or args.gt or args.overlay or args.probabilities:
        return jobs
    left = [job for job in jobs if not journal.is_done(*job)]
    if len(left) < len(jobs):
        print(f"{len(jobs) - len(left)} of {len(jobs)} images are done already")
    return left


def finish(args: argparse.Namespace, jobs: list[Job]) -> int:
    """Segment the pictures, write and report what is found; give the exit code."""
    if args.verify is not None:
        return check_machine(args)
    trained, is_one, journal = load(args), len(jobs) == 1, None
    if is_folder(args.output):
        journal = folders.Journal(args.output, trained.made_with)
        jobs = left_to_do(args, journal, jobs)
    shared = (args.workers, args.scheduler) if len(jobs) > 1 else (None, None)
    with cluster.connected(*shared) as client:
        if client:
            found = cluster.attempt_all(client, args, trained, jobs)
        else:
            pictures = cli.ahead(partial(cli.attempt, partial(read, args)), jobs)
            found = zip(jobs, predict_all(args, trained, pictures), strict=True)
        return report_all(found, len(jobs), is_one, journal)


def main(argv: Sequence[str] | None = None) -> int:
    """Segment images, as the command line says."""
    return finish(*begin(argv))


if __name__ == "__main__":
    cli.leave(cli.run(finish, *begun))
