# Generated from notebooks/train.ipynb: edit the notebook, then export again.
"""Train the network on one labelled image.

python train.py
    data/rgb.png and data/gt.png -> model.pt and loss_vs_epochs.png
python train.py --rgb field.png --gt field_labels.png --model field.pt
    the same on your own image

Ctrl-C ends the training and keeps the best weights so far.
"""

import copy
import math
from functools import partial
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

import cli
import figures
import images


STEPS = 3000  # optimiser steps, unless --epochs says otherwise
EPOCH = 20  # steps of an epoch, at least: scoring it should take little of its time
PATCH = 32  # pixels a side
LEARNING_RATE = 1e-2  # the peak; it rises to it and falls to almost nothing after
WEIGHT_DECAY = 1e-2
JITTER = (0.05, 0.1, 0.03)  # of brightness, contrast, colour: what `light` leaves
# What other cameras and files do to an image; half of the patches are seen like that.
VERSIONS = [partial(images.compressed, quality=quality) for quality in (90, 75, 50)]
VERSIONS += [partial(images.blurred, radius=radius) for radius in (0.5, 0.8)]
VERSIONS += [partial(images.noisy, spread=spread) for spread in (3, 6)]
PATIENCE = 1 / 3  # stop after this part of the epochs without a better one
MIN_SIDE = 32  # pixels: a smaller image has no room for patches and a held-out block


def parse_args(argv=None):
    """Read the command line."""
    parser = cli.Parser(description="Train the network on one labelled image.")

    def option(name, default, text, **more):
        parser.add_argument(name, default=default, help=text, **more)

    option("--rgb", "data/rgb.png", "the image (%(default)s)", metavar="IMAGE")
    option("--gt", "data/gt.png", "its ground truth (%(default)s)", metavar="IMAGE")
    option("--model", "model.pt", "model file to write (%(default)s)", metavar="FILE")
    option("--plot", "loss_vs_epochs.png", "curves (%(default)s)", metavar="FILE")
    option("--epochs", None, f"what makes {STEPS} steps", type=int, metavar="N")
    option("--seed", 0, "of all that is random (%(default)s)", type=int, metavar="N")
    devices = ("auto", "cpu", "cuda", "mps")
    option("--device", "auto", "where to run (%(default)s)", choices=devices)
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        raise cli.InputError(f"--epochs {args.epochs}: at least 1 is needed")
    if not 0 <= args.seed < 2**63:
        raise cli.InputError(f"--seed {args.seed}: not from 0 to 2**63 - 1")
    outputs = [(args.model, (".pt", ".pth")), (args.plot, figures.SUFFIXES)]
    cli.check_files([args.rgb, args.gt], outputs)
    return args


if __name__ == "__main__":
    cli.begin(parse_args)  # --help and mistakes, before the second that torch takes

import torch

import light
import metrics
import sampling
import segutils


def load(args):
    """Read the image (H, W, 3), its truth (H, W) and the truth's two colours."""
    rgb, truth, colours = images.read_pair(args.rgb, args.gt)
    height, width = truth.shape
    if min(height, width) < MIN_SIDE:
        raise cli.InputError(
            f"{args.rgb}: {width}x{height} pixels (training needs {MIN_SIDE} a side)"
        )
    if max(height, width) > images.MAX_JPEG_SIDE:
        raise cli.InputError(
            f"{args.rgb}: {width}x{height} pixels (training takes at most "
            f"{images.MAX_JPEG_SIDE} a side; cut out a part)"
        )
    return rgb, truth, colours


def image_versions(rgb):
    """Give the image as it is and as other cameras and files have it: (V, H, W, 3)."""
    return np.stack([rgb, *(version(rgb) for version in VERSIONS)])


def draw_versions(count, generator):
    """Draw a version for each patch: the image itself half of the time."""
    drawn = torch.randint(2 * len(VERSIONS), (count,), generator=generator)
    return (drawn - len(VERSIONS) + 1).clamp(min=0)


def margins_inside(model, rgb, block):
    """Give a block's margins as they are in the whole image."""
    around = block.grown(sampling.GUARD, rgb.shape[:2])
    return segutils.margins(model, rgb[around.slices])[block.within(around)]


def evaluate(model, rgb, truth, block):
    """Give the loss and the scores of the held-out block."""
    margin = margins_inside(model, rgb, block)
    answer = truth[block.slices]
    loss = metrics.segmentation_loss(torch.tensor(margin), torch.tensor(answer))
    return loss.item(), metrics.scores(margin > 0, answer)


class Epoch(NamedTuple):
    """What is known after an epoch."""

    number: int  # from 1
    training_loss: float
    held_out_loss: float
    scores: dict  # of the held-out block


def train(model, rgb, truth, block, size, epochs, steps, seed, peak_rate=LEARNING_RATE):
    """Train the model, `epochs` times `steps` batches; yields after each epoch."""
    device = model.conv1.weight.device
    versions = torch.tensor(image_versions(rgb), device=device)
    classes = torch.tensor(truth, device=device)
    weights = sampling.origin_weights(truth, block, size)
    batch = segutils.MAX_PIXELS // size**2  # patches in the budget of one forward pass
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), peak_rate, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peak_rate, total_steps=epochs * steps
    )
    for number in range(1, epochs + 1):
        model.train()
        total = 0.0
        origins = sampling.draw_origins(weights, steps * batch, generator)  # an epoch's
        which = draw_versions(len(origins), generator)
        symmetries = torch.randint(8, (len(origins),), generator=generator)
        drawn = (d.to(device).split(batch) for d in (which, origins, symmetries))
        for version, origin, symmetry in zip(*drawn, strict=True):
            patches, answer = sampling.cut_patches(
                versions, classes, version, origin, size, symmetry
            )
            patches = sampling.jitter(patches, JITTER, generator)  # (B, 3, size, size)
            logits = model(patches)  # (B, 2, size, size)
            loss = metrics.segmentation_loss(logits[:, 1] - logits[:, 0], answer)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        yield Epoch(number, total / steps, *evaluate(model, rgb, truth, block))


def keep_best(model, training, epochs):
    """Run the training; give all epochs, the best of them, and its weights."""
    history, best, weights = [], None, None
    bar = tqdm(training, total=epochs, unit="epoch", disable=None)
    try:
        for epoch in bar:
            history.append(epoch)
            if best is None or epoch.held_out_loss < best.held_out_loss:
                best, weights = epoch, copy.deepcopy(model.state_dict())
            elif epoch.number - best.number >= max(10, PATIENCE * epochs):
                print(f"no better epoch since {best.number}: stopped early")
                break
            bar.set_postfix({"held-out IoU": f"{epoch.scores['IoU']:.3f}"})
    except KeyboardInterrupt:
        if best is None:
            raise
        print(f"interrupted: the best epoch so far, {best.number}, is kept")
    finally:
        bar.close()
    return history, best, weights


def draw_curves(history, best, planned=None):
    """Plot the losses and the held-out IoU of all epochs so far."""
    return figures.loss_curve(
        [epoch.training_loss for epoch in history],
        [epoch.held_out_loss for epoch in history],
        [epoch.scores["IoU"] for epoch in history],
        best.number,
        planned,
    )


def new_model(rgb, seed, device):
    """Make an untrained network, normalised for an image."""
    torch.manual_seed(seed)
    model = segutils.FCNN()
    model.normalise.fit(rgb)
    return model.to(device)


def plan_epochs(truth, block, epochs=None):
    """Give the patch size, the number of epochs, and the steps of each."""
    size = sampling.patch_size(truth, block, PATCH)
    area = sampling.training_pixels(truth, block)
    steps = max(EPOCH, round(area / segutils.MAX_PIXELS))
    return size, epochs or -(-STEPS // steps), steps


def scores_when_changed(model, looks, rgb, truth, block):
    """Give the held-out block's scores under each change that an image may undergo."""
    around = block.grown(sampling.GUARD, truth.shape)
    found = {}
    for name, change in light.CHANGES.items():
        changed = change(rgb[around.slices])
        adapted, _ = light.adapt(model, looks, changed)
        mask = segutils.segment(adapted, changed)[block.within(around)]
        found[name] = metrics.scores(mask, truth[block.slices])
    return found


def scores_of_constant(truth, answer):
    """Score always answering the image's larger class; gives the class, too."""
    larger = int((truth == 1).sum() > (truth == 0).sum())
    odds = (truth == 1).sum() / (truth == 0).sum()
    constant = torch.full(answer.shape, float(odds)).log()
    loss = metrics.segmentation_loss(constant, torch.tensor(answer)).item()
    return larger, {
        "loss": loss,
        **metrics.scores(np.full_like(answer, larger), answer),
    }


def report(model, looks, history, best, rgb, truth, block):
    """Print the held-out scores, as the block is and changed, beside a constant's."""
    changed = scores_when_changed(model, looks, rgb, truth, block)
    worst = min(changed, key=lambda name: changed[name]["IoU"])
    larger, constant = scores_of_constant(truth, truth[block.slices])
    rows = {
        f"network (epoch {best.number} of {len(history)})": {
            "loss": best.held_out_loss,
            **best.scores,
        },
        f"the block changed, at worst ({worst})": {"loss": math.nan, **changed[worst]},
        f"always class {larger}": constant,
    }
    print(metrics.score_table("held-out block", rows))


def save(args, colours, looks, history, best, weights):
    """Write the model file and the curves."""
    facts = {
        "seed": args.seed,
        "epoch": best.number,
        "held_out": {"loss": best.held_out_loss, **best.scores},
    }
    segutils.save_model(args.model, weights, colours, looks, facts)
    figures.save(draw_curves(history, best), args.plot)
    print(f"wrote {args.model} and {args.plot}")


def main(argv=None):
    """Train on one labelled image, as the command line says."""
    args = parse_args(argv)
    device = segutils.choose_device(args.device)
    rgb, truth, colours = load(args)
    block = sampling.hold_out(truth)
    size, epochs, steps = plan_epochs(truth, block, args.epochs)
    model = new_model(rgb, args.seed, device)
    training = train(model, rgb, truth, block, size, epochs, steps, args.seed)
    history, best, weights = keep_best(model, training, epochs)
    model.load_state_dict(weights)
    looks = light.describe(rgb, truth)
    save(args, colours, looks, history, best, weights)
    report(model, looks, history, best, rgb, truth, block)


if __name__ == "__main__":
    cli.leave(cli.run(main))
