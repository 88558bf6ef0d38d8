# Generated from notebooks/train.ipynb: edit the notebook, then export again.
"""Train the network on one labelled image, or on several.

python train.py
    data/rgb.png and data/gt.png -> model.pt and loss_vs_epochs.png
python train.py --rgb field.png --gt field_labels.png --model field.pt
    the same on your own image
python train.py --rgb a.png b.png --gt a_labels.png b_labels.png
    on two images
python train.py --unlabelled photos/
    learn from images without labels, too: those that the network is for
torchrun --standalone --nproc-per-node 4 --max-restarts 3 train.py
    in four processes

Ctrl-C ends the training and keeps what was learned so far. After a crash or a kill,
--resume continues.
"""

import signal


if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of an import

import argparse
import copy
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm


# OpenMP's threads sleep while they wait; spinning, they slow down whatever else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

import torch
from torch import Tensor

import segutils
from onelabel import (
    changes,
    console,
    files,
    labelled,
    light,
    model_file,
    pictures,
    processes,
    sampling,
    scores,
    snapshots,
    unlabelled,
)
from onelabel.evaluation import describe_images, describe_scores, evaluate
from onelabel.sampling import Scene
from onelabel.truth import find_pairs
from segutils import FCNN, Piece


STEPS = 3000  # optimiser steps, unless --epochs says otherwise
EPOCH = 20  # steps of an epoch, at least: scoring it should take little of its time
PATCH = 32  # pixels a side
LEARNING_RATE = 1e-2  # the peak; it rises to it and falls to almost nothing after
WEIGHT_DECAY = 1e-2
JITTER = (0.05, 0.1, 0.03, 0.05)  # of brightness, contrast, colour, mixed channels
AVERAGE = 0.998  # the most that the running average keeps of itself at a step


def image_versions(rgb: np.ndarray) -> np.ndarray:
    """Give the image as it is and as other cameras and files have it: (V, H, W, 3)."""
    return np.stack([rgb, *(version(rgb) for version in changes.VERSIONS)])


def draw_versions(count: int, generator: torch.Generator) -> Tensor:
    """Draw a version for each patch: the image itself half of the time."""
    versions = len(changes.VERSIONS)
    drawn = torch.randint(2 * versions, (count,), generator=generator)
    return (drawn - versions + 1).clamp(min=0)


class Epoch(NamedTuple):
    """The figures of an epoch; the held-out ones are those of the average."""

    number: int  # from 1
    training_loss: float
    held_out_loss: float
    scores: dict[str, float]  # of the held-out block


def move_average(average: FCNN, model: FCNN, step: int) -> None:
    """Move the running average: it spans about the last tenth of the steps."""
    share = max(1 - AVERAGE, 9 / (step + 10))
    states = average.state_dict().values(), model.state_dict().values()
    for mean, value in zip(*states, strict=True):
        if mean.is_floating_point():  # the norms also count batches
            mean.lerp_(value, share)


class Trainer:
    """A training: the network, its average, and all that moves them."""

    STATEFUL = ("model", "average", "optimiser", "schedule")

    def __init__(
        self,
        model: FCNN,
        scenes: Sequence[Scene],
        size: int,
        epochs: int,
        steps: int,
        seed: int,
        peak_rate: float = LEARNING_RATE,
        taught: Sequence[Scene] = (),
        pixels: int = segutils.MAX_PIXELS,
        rare_share: float = 0.5,
    ) -> None:
        self.model, self.average = model, copy.deepcopy(model)
        self.scenes, self.size, self.epochs, self.steps = scenes, size, epochs, steps
        self.batch = pixels // size**2  # patches in a forward pass
        self.device = model.conv1.weight.device
        learned = [*scenes, *taught]  # `taught`: labelled by another network
        seen = sampling.sheet([image_versions(scene.rgb) for scene in learned], rows=1)
        self.versions = torch.from_numpy(seen).to(self.device)  # (V, H, W, 3)
        truths = sampling.sheet([scene.truth for scene in learned])
        self.classes = torch.from_numpy(truths).to(self.device)  # (H, W)
        self.weights = sampling.sheet_weights(scenes, size, taught, rare_share)
        self.generator = torch.Generator().manual_seed(seed)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), peak_rate, weight_decay=WEIGHT_DECAY
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, peak_rate, total_steps=epochs * steps
        )
        self.history: list[Epoch] = []

    def take(self, steps: int) -> float:
        """Take so many steps; give their mean loss."""
        self.model.train()
        total, generator = 0.0, self.generator
        origins = sampling.draw_origins(self.weights, steps * self.batch, generator)
        which = draw_versions(len(origins), generator)
        symmetries = torch.randint(8, (len(origins),), generator=generator)
        draws = which, origins, symmetries
        drawn = (draw.to(self.device).split(self.batch) for draw in draws)
        for version, origin, symmetry in zip(*drawn, strict=True):
            patches, truth = sampling.cut_patches(
                self.versions, self.classes, version, origin, self.size, symmetry
            )
            patches = sampling.jitter(patches, JITTER, generator)  # (B, 3, size, size)
            outputs = self.model(patches)  # (B, 2, size, size)
            loss = scores.segmentation_loss(outputs[:, 1] - outputs[:, 0], truth)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            move_average(self.average, self.model, self.schedule.last_epoch)
            self.schedule.step()
            total += loss.item()
        return total / steps

    def epoch(self) -> Epoch:
        """Take the steps of an epoch, and score the average."""
        figures = self.take(self.steps), *evaluate(self.average, self.scenes)
        self.history.append(Epoch(len(self.history) + 1, *figures))
        return self.history[-1]

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done."""
        return len(self.history) >= self.epochs

    def state_dict(self) -> dict[str, Any]:
        """Give all that the training needs to go on, but for its generator."""
        parts = {name: getattr(self, name).state_dict() for name in self.STATEFUL}
        return {**parts, "history": [list(epoch) for epoch in self.history]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name in self.STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.history = [Epoch(*values) for values in state["history"]]


Weights = dict[str, Tensor]


def fit(
    trainer: Trainer,
    on_epoch: Sequence[Callable[[Trainer], bool | None]] = (),
) -> Weights:
    """Train to the last epoch; give the average's weights."""
    weights = copy.deepcopy(trainer.average.state_dict())
    try:
        while not trainer.is_over:
            epoch = trainer.epoch()
            loss = epoch.training_loss + epoch.held_out_loss
            if not np.isfinite(loss):
                trainer.history.remove(epoch)
                console.warn(f"epoch {epoch.number}: the loss is {loss}: stopped")
                break
            weights = copy.deepcopy(trainer.average.state_dict())
            if any([call(trainer) for call in on_epoch]):
                break
    except KeyboardInterrupt:
        if not trainer.history:
            raise
        print(f"interrupted: the average after epoch {len(trainer.history)} is taken")
    return weights


def move_bar(bar: tqdm, trainer: Trainer) -> None:
    """Move a progress bar on by an epoch."""
    iou = trainer.history[-1].scores["IoU"]
    bar.set_postfix({"held-out IoU": f"{iou:.3f}"})
    bar.update(len(trainer.history) - bar.n)


def new_model(scenes: Sequence[Scene], seed: int, device: torch.device) -> FCNN:
    """Make an untrained network, normalised for the images."""
    torch.manual_seed(seed)
    model = FCNN()
    model.normalise.fit(np.concatenate([scene.known_pixels for scene in scenes]))
    return model.to(device)


def plan_epochs(
    scenes: Sequence[Scene], epochs: int | None = None, ranks: int = 1
) -> tuple[int, int, int]:
    """Give the patch size, the number of epochs, and the steps of each."""
    size = min(scene.patch for scene in scenes)
    area = sum(sampling.training_pixels(s.truth, s.block) for s in scenes)
    steps = max(EPOCH, round(area / (segutils.MAX_PIXELS * ranks)))
    return size, epochs or -(-STEPS // steps), steps  # rounded up


def draw_curves(history: Sequence[Epoch], planned: int | None = None) -> Figure:
    """Plot the losses and the held-out IoU of all epochs so far."""
    return pictures.loss_curve(
        [epoch.training_loss for epoch in history],
        [epoch.held_out_loss for epoch in history],
        [epoch.scores["IoU"] for epoch in history],
        planned,
    )


def save(
    args: argparse.Namespace,
    labels: labelled.Labelled,
    looks: light.Looks,
    trainer: Trainer,
) -> None:
    """Write the model file and the curves."""
    last, weights = trainer.history[-1], trainer.model.state_dict()
    held_out = {"loss": last.held_out_loss, **last.scores}
    facts = {"seed": args.seed, "epoch": last.number, "held_out": held_out}
    facts["pixel_side"] = labels.pixel_side
    read_by = labels.colours, labels.scale, args.bands
    model_file.save(args.model, weights, looks, *read_by, facts)
    pictures.save(draw_curves(trainer.history), args.plot)
    print(f"wrote {args.model} and {args.plot}")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, and check the files that it names."""
    parser = console.Parser(description="Train the network on labelled images.")
    option = parser.option
    several = {"nargs": "+", "metavar": "IMAGE"}
    option("--rgb", ["data/rgb.png"], "the image, or several (data/rgb.png)", **several)
    text = "the ground truth of each, in order (data/gt.png); both may be folders"
    option("--gt", ["data/gt.png"], text, nargs="+", metavar="FILE")
    text = "which bands are red, green and blue (1,2,3)"
    option("--bands", None, text, type=console.three_bands, metavar="R,G,B")
    option("--model", "model.pt", "model file to write (%(default)s)", metavar="FILE")
    text = "loss curves to write (%(default)s)"
    option("--plot", "loss_vs_epochs.png", text, metavar="FILE")
    text = "images without labels to learn from: files, folders, patterns"
    option("--unlabelled", [], text, **several)
    text = f"number of epochs (as many as make {STEPS} steps)"
    option("--epochs", None, text, type=console.count, metavar="N")
    option("--seed", 0, "seed of all random draws (%(default)s)", type=int, metavar="N")
    devices = ("auto", "cpu", "cuda", "mps")
    option("--device", "auto", "where to run (%(default)s)", choices=devices)
    option("--resume", False, "resume a training that was cut off", action="store_true")
    args = parser.parse_args(argv)
    if not 0 <= args.seed < 2**63:
        raise files.InputError(f"--seed {args.seed}: not from 0 to 2**63 - 1")
    args.pairs = find_pairs(args.rgb, args.gt)
    args.unlabelled = unlabelled.list_images(args.unlabelled, args.pairs)
    inputs = [*(path for pair in args.pairs for path in pair), *args.unlabelled]
    outputs = [(args.model, (".pt", ".pth")), (args.plot, pictures.SUFFIXES)]
    outputs += [(snapshot_of(args, first), (".snapshot",)) for first in (True, False)]
    files.check_files(inputs, outputs)
    return args


def snapshot_of(args: argparse.Namespace, is_first: bool) -> str:
    """Name the snapshot of the first training, or of that with unlabelled images."""
    return f"{args.model}{'' if is_first else '.second'}.snapshot"


def read_scenes(args: argparse.Namespace) -> tuple[list[Scene], labelled.Labelled]:
    """Read the labelled images, and split each of them."""
    labels = labelled.read_labelled(args.pairs, args.bands)
    scenes = []
    for (_, gt), (rgb, truth) in zip(args.pairs, labels.pairs, strict=True):
        try:
            scenes.append(sampling.split_scene(rgb, truth, PATCH))
        except files.InputError as error:
            raise files.InputError(f"{gt}: {error}") from error
    return scenes, labels


def learn(
    args: argparse.Namespace,
    scenes: Sequence[Scene],
    device: torch.device,
    taught: Sequence[Scene] = (),
) -> Trainer:
    """Train a new network, from a snapshot on where the command line asks for that."""
    size, epochs, steps = plan_epochs(scenes, args.epochs, processes.count())
    model = new_model(scenes, args.seed, device)
    seed = processes.own_seed(args.seed)
    trainer = Trainer(model, scenes, size, epochs, steps, seed, taught=taught)
    processes.average_steps(model, trainer.optimiser)
    key = snapshots.key_of([*scenes, *taught], epochs, args.seed, device.type)
    keeper = snapshots.Snapshots(snapshot_of(args, not taught), key)
    if said := keeper.begin(trainer, args.resume):
        print(said)
    shown = {"unit": "epoch", "disable": True if processes.rank() else None}
    with tqdm(total=epochs, initial=len(trainer.history), **shown) as bar:
        weights = fit(trainer, [partial(move_bar, bar), keeper.keep])
    model.load_state_dict(weights)
    return trainer


def learn_anew(
    args: argparse.Namespace,
    scenes: Sequence[Scene],
    samples: Sequence[Sequence[Piece]],
    looks: light.Looks,
    first: Trainer,
) -> Trainer:
    """Label samples of unlabelled images, and train anew on all, unless cut off."""
    if not first.is_over:
        print("not finished: the unlabelled images are left out")
        return first
    teach = partial(unlabelled.teach, looks, samples, first.size)
    with suppress(KeyboardInterrupt):
        taught = processes.from_first(teach)
        if not taught.scenes:
            why = "the network is sure of nothing (name images like the labelled one)"
            console.warn(f"unlabelled images are left out: {why}")
            return first
        levels = [level for its_light in taught.lights for level in its_light.level]
        print(
            f"unlabelled images: {len(samples)}; {taught.sure:.0%} of their pixels are "
            f"taken as labelled; {min(levels):.2f} to {max(levels):.2f} times as bright"
        )
        second = learn(args, scenes, first.device, taught.scenes)
        if second.is_over:
            before, after = (t.history[-1].scores["IoU"] for t in (first, second))
            ious = f"{before:.3f} without the unlabelled images, {after:.3f} with"
            print(f"held-out IoU: {ious}")
            return second
    print("not finished: the network that learned without them is kept instead")
    return first


def main(argv: Sequence[str] | None = None) -> None:
    """Train on labelled images as the command line says, and report how good it is."""
    args = parse_args(argv)
    device = model_file.choose_device(args.device)
    processes.join(device)
    scenes, labels = read_scenes(args)
    samples = unlabelled.read_samples(args.unlabelled, labels.scale, args.bands)
    trainer = learn(args, scenes, device)
    if not trainer.history:
        raise files.InputError("nothing was learned (try another --seed)")
    looks = describe_images(trainer.model, scenes)
    if samples:
        trainer = learn_anew(args, scenes, samples, looks, trainer)
    if processes.rank() > 0:
        return
    save(args, labels, looks, trainer)
    for is_first in (True, False):
        snapshots.remove(snapshot_of(args, is_first))
    name = f"network after epoch {len(trainer.history)}"
    print(describe_scores(trainer.model, looks, scenes, name))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
