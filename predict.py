# Generated from notebooks/predict.ipynb: edit the notebook, then export again.
"""Segment images with the trained network.

python predict.py
    data/rgb.png and model.pt -> predictions.jpg
python predict.py new.png --output new_mask.png --overlay new_overlay.jpg
    one image
python predict.py photos/ --output masks/
    all images of a folder: photos/2026/a.jpg -> masks/2026/a.png
python predict.py tiles/ --output masks/ --light folder
    tiles of one scene, in one light
python predict.py map.tif --output mask.tif --min-area 2m2 --polygons objects.gpkg
    its objects as polygons, too, without the smallest
python predict.py --from-mask mask.tif --objects table.csv
    measures the objects of a mask that is there already
python predict.py --export model.onnx
    writes the network for QGIS and other programs
python predict.py --verify new.png
    writes nothing; checks that this machine computes as it should
"""

import signal


if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of an import

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

import segutils
from onelabel import (
    console,
    drawing,
    files,
    ground,
    jobs,
    light,
    model_file,
    onnx_file,
    pipeline,
    scores,
)
from onelabel.image import SAMPLED, Colour, Colours, Image, InMemory, spread, strips
from onelabel.options import beside, keeps_logits, parse_args, singles
from onelabel.reading import MAX_IMAGE_PIXELS, open_image
from onelabel.resources import check_resources, is_large
from onelabel.store import Store, store_beside
from onelabel.truth import Classes, open_classes, read_truth_of
from onelabel.verify import compare, describe_findings, middle
from onelabel.writing import check_outputs, write_mask, write_probabilities, write_rows


def open_as_trained(
    path: str,
    trained: model_file.Trained,
    channels: Sequence[int] | None = None,
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> Image:
    """Open an image as the network's training image was read."""
    image = open_image(path, channels or trained.channels, max_pixels)
    image.use_scale(trained.scale)
    return image


class Outcome(NamedTuple):
    """What is reported of an image when its files are written."""

    job: jobs.Job
    counts: np.ndarray  # pixels of class 0 and class 1
    objects: int | None  # None where they were not counted
    pixel: float | None  # square metres, None where that is not known
    light: light.Light
    warning: str | None = None
    scores: dict[str, float] | None = None
    identity: object = None  # of the image's file when it was read


def row_of(outcome: Outcome) -> dict[str, object]:
    """Give an image's row of the summary of many."""
    counts, pixel = outcome.counts, outcome.pixel
    pixels = int(counts[1])
    return {
        "image": outcome.job.image,
        "mask": str(outcome.job.output),
        "share": round(pixels / max(int(counts.sum()), 1), 6),
        "area_px": pixels,
        "area_m2": None if pixel is None else round(pixels * pixel, 3),
        "objects": outcome.objects,
        "warning": outcome.warning,
    }


def report(outcome: Outcome) -> None:
    """Print how much is class 1, a warning, and the scores where there is a truth."""
    (name, output), counts, its_light = outcome.job, outcome.counts, outcome.light
    facts = []
    if outcome.objects is not None:
        facts.append(files.counted(outcome.objects, "object"))
    if outcome.pixel is not None:
        facts.append(ground.in_words(counts[1], outcome.pixel))
    if its_light != light.SAME:
        facts.append(f"light: {light.in_words(its_light)}")
    told = f" ({'; '.join(facts)})" if facts else ""
    share = counts[1] / max(counts.sum(), 1)
    print(console.printable(f"{output}: {share:.1%} of {name} is class 1{told}"))
    if outcome.warning is not None:
        console.warn(f"{name}: {outcome.warning}")
    if outcome.scores is not None:
        table = {"network": outcome.scores}
        print(scores.score_table(console.printable(name), table))


def predict(
    args: argparse.Namespace,
    trained: model_file.Trained,
    job: jobs.Job,
    common: light.Light | None = None,
) -> Outcome:
    """Segment one image, in its own light or the common one: from its file to files."""
    name, output = job
    before = files.identity(name)
    image = open_as_trained(name, trained, args.bands, args.max_pixels)
    check_image(args, image, output)
    truth = None
    if args.gt:
        truth, _ = read_truth_of(image, args.gt, args.max_pixels)
    sample = image.sample()
    its_light = common or light.estimate(trained.looks, sample)
    network = light.in_light(trained.model, trained.looks, its_light)
    predictor = segutils.Predictor(network, segutils.PRECISIONS[args.precision])
    on_disk = is_large(image) or files.is_zarr_name(output)
    workers = usable_workers(args, image, on_disk)
    key = {**made_with(args, trained, common), "image": before}
    keeps = keeps_logits(args)
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        pipeline.connected(*workers) as client,
        store_beside(output, image.shape, key, keeps, on_disk, args.overwrite) as store,
    ):
        pipeline.fill(store, image, predictor, client)
        if files.identity(name) != before:
            raise files.InputError(f"{name}: changed while it was read (start again)")
        args.wanted.clean(store, image)
        counts, table = store.counts, score(store, truth)
        number = args.wanted.write(store, image.place)
        tint = drawing.tint(light.known_pixels(sample))
        write(args, output, image, store, trained.colours, tint)
    pixel = ground.pixel_area(image.place, image.shape)
    unlike = light.warning(trained.looks, its_light, sample)
    if not (unlike or args.wanted.cleaning):
        unlike = scores.one_class(counts)
    return Outcome(job, counts, number, pixel, its_light, unlike, table, before)


def check_image(args: argparse.Namespace, image: Image, output: Path) -> None:
    """Refuse an image that its options do not suit, or that is too large."""
    args.wanted.check_image(image)
    outputs = output, args.overlay, args.probabilities
    needs = check_resources(image, *outputs, bool(args.gt), keeps_logits(args))
    if is_large(image):
        print(console.printable(needs + args.wanted.memory), file=sys.stderr)


def score(store: Store, truth: np.ndarray | None) -> dict[str, float] | None:
    """Compare a mask with the truth, some rows at a time."""
    if truth is None:
        return None
    parts = (truth[block.slices] for block in strips(store.shape))
    return scores.total_scores(zip(store.mask_rows(), parts, strict=True))


def write(
    args: argparse.Namespace,
    output: Path,
    image: Image,
    store: Store,
    colours: Colours,
    tint: Colour,
) -> None:
    """Write the files that are asked for."""
    if args.overlay:
        drawn = drawing.overlay_rows(image, store, tint)
        write_rows(args.overlay, drawn, image.shape, image.place)
    if args.probabilities:
        write_probabilities(args.probabilities, store, image.place)
    write_mask(output, store, colours, image.place)


def common_light(
    args: argparse.Namespace, trained: model_file.Trained, planned: Sequence[jobs.Job]
) -> light.Light | None:
    """Estimate the light of all images together, where `--light` asks for it.

    None where each image is seen in its own light. An image that cannot be read is
    reported when its turn comes.
    """
    if args.light == "image":
        return None
    if args.light == "none":
        return light.SAME
    pieces = []
    for job in spread(planned, SAMPLED):
        with suppress(files.InputError, OSError):
            image = open_as_trained(job.image, trained, args.bands, args.max_pixels)
            pieces += image.sample()
    if not pieces:
        return light.SAME
    found = light.estimate(trained.looks, spread(pieces, SAMPLED))
    print(f"light of all images together: {light.in_words(found)}")
    return found


def made_with(
    args: argparse.Namespace, trained: model_file.Trained, common: light.Light | None
) -> dict[str, object]:
    """Say what a mask depends on beside its image, in plain values."""
    how = {"bands": args.bands, "precision": args.precision, "light": common}
    return {**trained.key(), **how, **args.wanted.cleaning}


def usable_workers(
    args: argparse.Namespace, image: Image, on_disk: bool
) -> tuple[int | None, str | None]:
    """Give the workers that are asked for, if they can share the image's blocks."""
    if on_disk and image.in_any_order:
        return args.workers, args.scheduler
    if args.workers or args.scheduler:
        console.warn(
            f"{image.path}: segmented by one process (workers share large "
            "TIFFs, Zarr arrays and folders)"
        )
    return None, None


def plan(args: argparse.Namespace) -> list[jobs.Job]:
    """Pair each image with its mask file, and refuse what could not be written."""
    pipeline.check_workers(args.workers, args.scheduler)
    args.wanted.check()
    planned = jobs.list_jobs(args.images, args.output)
    for option, name in singles(args).items():
        if len(planned) > 1:
            raise files.InputError(f"--{option} {name}: goes with one image only")
    inputs = [*(job.image for job in planned), args.model, *filter(None, [args.gt])]
    masks = [job.output for job in planned]
    check_outputs(inputs, masks, beside(args), tree=args.output)
    return planned


def left_to_do(
    args: argparse.Namespace, journal: jobs.Journal, planned: list[jobs.Job]
) -> list[jobs.Job]:
    """Leave out the images whose masks are done."""
    if args.overwrite or singles(args):
        return planned
    left = [job for job in planned if not journal.is_done(job)]
    if len(left) < len(planned):
        done = len(planned) - len(left)
        print(f"{done} of {len(planned)} images are done already")
    return left


def report_all(
    results: Iterable[tuple[jobs.Job, Outcome | Exception]],
    left: Sequence[jobs.Job],
    is_one: bool,
    journal: jobs.Journal | None,
) -> int:
    """Report the outcomes as they come, the failures at the end; give the exit code."""
    failures = []
    shown = {"unit": "image", "disable": True if is_one else None}
    for job, result in tqdm(results, total=len(left), **shown):
        if isinstance(result, Exception):
            failures.append(result)
            if journal:
                journal.add_row({"image": job.image, "warning": str(result)})
            continue
        with tqdm.external_write_mode():
            report(result)
        if journal:
            journal.add(job, row_of(result), result.identity)
    if failures and is_one:
        raise failures[0]
    for error in failures:
        console.complain(error)
    if failures:
        print(f"{len(failures)} of {len(left)} images failed", file=sys.stderr)
    return 1 if failures else 0


def measure(args: argparse.Namespace) -> int:
    """Clean a mask that is there already, and write the files of its objects."""
    wanted = args.wanted
    wanted.check()
    masks = [] if args.output is None else [args.output]
    check_outputs([args.from_mask], masks, beside(args))
    drawn = open_classes(args.from_mask, args.max_pixels, one_is_enough=True)
    image = drawn.image
    # Beside the first file to write, where there is room; its folder may not be there.
    first = next(iter(wanted.files.values()), None)
    folders = Path(first).absolute().parents if first else []
    place = next(filter(Path.is_dir, folders), None)  # None: the system's own
    with tempfile.TemporaryDirectory(prefix=".", dir=place) as aside:
        output = Path(args.output or Path(aside, "mask.png"))
        check_image(args, image, output)
        counts, number = clean_mask(args, drawn, output)
    pixel = ground.pixel_area(image.place, image.shape)
    job = jobs.Job(args.from_mask, Path(args.output or args.from_mask))
    report(Outcome(job, counts, number, pixel, light.SAME))
    return 0


def clean_mask(
    args: argparse.Namespace, drawn: Classes, output: Path
) -> tuple[np.ndarray, int | None]:
    """Clean a mask, write the files; give the pixels of each class, and the objects."""
    image, wanted = drawn.image, args.wanted
    before = files.identity(args.from_mask)
    on_disk = is_large(image) or files.is_zarr_name(output)
    key = {"mask": before, **wanted.cleaning}
    with store_beside(
        output, image.shape, key, False, on_disk, args.overwrite
    ) as store:
        for block in tqdm(store.missing(image.blocks()), unit="block", disable=None):
            store.put_mask(block, drawn.of(block))
        if files.identity(args.from_mask) != before:
            raise files.InputError(f"{args.from_mask}: changed while it was read")
        wanted.clean(store, image)
        counts, number = store.counts, wanted.write(store, image.place)
        if args.output:
            write_mask(output, store, drawn.colours, image.place)
    return counts, number


def check_machine(args: argparse.Namespace) -> int:
    """Check that this machine computes as it should; give the exit code."""
    device = model_file.choose_device(args.device, args.precision)
    trained = model_file.load(args.model, device)
    image = open_as_trained(args.verify, trained, args.bands, args.max_pixels)
    rgb = np.ma.getdata(image.read(middle(image.shape)))
    sample = InMemory(rgb).sample()
    its_light = light.estimate(trained.looks, sample)
    network = light.in_light(trained.model, trained.looks, its_light)
    precision = segutils.PRECISIONS[args.precision]
    findings = compare(network, rgb, precision)
    text, is_well = describe_findings(
        args.verify, rgb.shape[:2], device, precision, findings
    )
    print(text)
    return 0 if is_well else 1


def export(args: argparse.Namespace) -> int:
    """Write the network as an ONNX file; give the exit code."""
    files.check_files([args.model], [(args.export, (".onnx",))])
    onnx_file.export(args.export, model_file.load(args.model))
    print(f"wrote {args.export}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Segment images as the command line says; give the exit code."""
    args = parse_args(argv)
    console.set_malloc_limits()
    if args.verify is not None:
        return check_machine(args)
    if args.export is not None:
        return export(args)
    if args.from_mask is not None:
        return measure(args)
    device = model_file.choose_device(args.device, args.precision)
    trained = model_file.load(args.model, device)
    planned, journal = plan(args), None
    common = common_light(args, trained, planned)
    left, many = planned, len(planned) > 1
    if jobs.is_folder(args.output):
        journal = jobs.Journal(args.output, made_with(args, trained, common))
        left = left_to_do(args, journal, planned)
        journal.begin(left)
    shared = (args.workers, args.scheduler) if many else (None, None)
    if many:  # the workers share the images, not the blocks of each
        args.workers = args.scheduler = None
    with pipeline.connected(*shared) as client:
        results = jobs.run(partial(predict, args, trained, common=common), left, client)
        return report_all(results, left, not many, journal)


if __name__ == "__main__":
    raise SystemExit(console.run(main))
