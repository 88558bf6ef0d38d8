# Generated from notebooks/train.ipynb: edit the notebook, then export again.
"""Train the network on one labelled image, or on several.

python train.py
    data/rgb.png and data/gt.png -> model.pt and loss_vs_epochs.png
python train.py --rgb field.png --gt field_labels.png --model field.pt
    the same on your own image
python train.py --rgb a.png b.png --gt a_labels.png b_labels.png
    on two images
torchrun --nproc-per-node 4 --max-restarts 3 train.py
    in four processes

Ctrl-C ends the training and keeps what was learned so far. After any other end,
--resume goes on.
"""

import argparse
import copy
import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

import cli
import figures
import images


# OpenMP's threads sleep while they wait; spinning, they slow down whatever else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
AVERAGE = 0.998  # the share of the past in the running average, a step
PIXEL_BYTES = 100  # of memory for each pixel of the image, at the peak
MIN_SIDE = 32  # pixels: a smaller image has no room for patches and a held-out block
SNAPSHOT = 5  # seconds, at least, from one snapshot to the next


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(description="Train the network on labelled images.")

    def option(name: str, default: object, text: str, **more: Any) -> None:
        parser.add_argument(name, default=default, help=text, **more)

    several = {"nargs": "+", "metavar": "IMAGE"}
    option("--rgb", ["data/rgb.png"], "the image, or several (data/rgb.png)", **several)
    text = "the ground truth of each, in order (data/gt.png); or each option a folder"
    option("--gt", ["data/gt.png"], text, **several)
    option("--model", "model.pt", "model file to write (%(default)s)", metavar="FILE")
    option("--plot", "loss_vs_epochs.png", "curves (%(default)s)", metavar="FILE")
    option("--epochs", None, f"what makes {STEPS} steps", type=int, metavar="N")
    option("--seed", 0, "of all that is random (%(default)s)", type=int, metavar="N")
    devices = ("auto", "cpu", "cuda", "mps")
    option("--device", "auto", "where to run (%(default)s)", choices=devices)
    text = "go on from the snapshot of a training that did not end"
    option("--resume", False, text, action="store_true")
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        raise cli.InputError(f"--epochs {args.epochs}: at least 1 is needed")
    if not 0 <= args.seed < 2**63:
        raise cli.InputError(f"--seed {args.seed}: not from 0 to 2**63 - 1")
    args.pairs = images.find_pairs(args.rgb, args.gt)
    args.snapshot = f"{args.model}.snapshot"
    outputs = [(args.model, (".pt", ".pth")), (args.plot, figures.SUFFIXES)]
    outputs += [(args.snapshot, (".snapshot",))]
    cli.check_files([path for pair in args.pairs for path in pair], outputs)
    return args


if __name__ == "__main__":
    cli.begin(parse_args)  # --help and mistakes, before the second that torch takes

import torch
from torch import Tensor

import light
import metrics
import ranks
import sampling
import segutils
import snapshots
from sampling import Scene
from segutils import FCNN


Weights = dict[str, Tensor]
Change = Callable[[np.ndarray], np.ndarray]


def load(args: argparse.Namespace) -> tuple[list[Scene], images.Colours]:
    """Read and split the labelled images; gives their truths' two colours, too."""
    scenes: list[Scene] = []
    colours: images.Colours = []  # those of the first truth
    for rgb_path, gt_path in args.pairs:
        rgb, truth, drawn_in = images.read_pair(rgb_path, gt_path)
        height, width = truth.shape
        if min(height, width) < MIN_SIDE:
            raise cli.InputError(
                f"{rgb_path}: {width}x{height} pixels (training needs {MIN_SIDE} a "
                "side)"
            )
        if max(height, width) > images.MAX_JPEG_SIDE:
            raise cli.InputError(
                f"{rgb_path}: {width}x{height} pixels (training takes at most "
                f"{images.MAX_JPEG_SIDE} a side; cut out a part)"
            )
        colours = colours or drawn_in
        if drawn_in != colours:
            raise cli.InputError(
                f"{gt_path}: drawn in {drawn_in[0]} and {drawn_in[1]}, but "
                f"{args.pairs[0][1]} in {colours[0]} and {colours[1]} (draw all "
                "truths in the same two colours)"
            )
        try:
            scenes.append(sampling.split_scene(rgb, truth, PATCH))
        except cli.InputError as error:
            raise cli.InputError(f"{gt_path}: {error}") from error
    return scenes, colours


def image_versions(rgb: np.ndarray) -> np.ndarray:
    """Give the image as it is and as other cameras and files have it: (V, H, W, 3)."""
    return np.stack([rgb, *(version(rgb) for version in VERSIONS)])


def draw_versions(count: int, generator: torch.Generator) -> Tensor:
    """Draw a version for each patch: the image itself half of the time."""
    drawn = torch.randint(2 * len(VERSIONS), (count,), generator=generator)
    return (drawn - len(VERSIONS) + 1).clamp(min=0)


def margins_inside(model: FCNN, rgb: np.ndarray, block: images.Block) -> np.ndarray:
    """Give a block's margins as they are in the whole image."""
    around = block.grown(sampling.GUARD, rgb.shape[:2])
    return segutils.margins(model, rgb[around.slices])[block.within(around)]


def pooled(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Put the pixels of several pictures (h, w) together: (N,)."""
    return np.concatenate([picture.ravel() for picture in pictures])


def held_out_truth(scenes: Sequence[Scene]) -> np.ndarray:
    """Give the classes of the held-out blocks' pixels: (N,)."""
    return pooled([scene.truth[scene.block.slices] for scene in scenes])


def evaluate(model: FCNN, scenes: Sequence[Scene]) -> tuple[float, dict[str, float]]:
    """Give the loss and the scores of the held-out blocks."""
    margin = pooled([margins_inside(model, s.rgb, s.block) for s in scenes])  # (N,)
    answer = held_out_truth(scenes)
    loss = metrics.segmentation_loss(torch.tensor(margin), torch.tensor(answer))
    return loss.item(), metrics.scores(margin > 0, answer)


class Epoch(NamedTuple):
    """The figures of an epoch; the held-out ones are those of the average."""

    number: int  # from 1
    training_loss: float
    held_out_loss: float
    scores: dict[str, float]  # of the held-out block


def move_average(average: FCNN, model: FCNN, step: int) -> None:
    """Move the running average towards the weights; by more in the first steps."""
    share = max(1 - AVERAGE, 9 / (step + 10))
    for mean, value in zip(
        average.state_dict().values(), model.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():  # the norms also count batches
            mean.lerp_(value, share)


STATEFUL = ("model", "average", "optimiser", "schedule")  # of a trainer


class Trainer:
    """A training: the network, its average, and all that moves them."""

    def __init__(
        self,
        model: FCNN,
        scenes: Sequence[Scene],
        size: int,
        epochs: int,
        steps: int,
        seed: int,
        peak_rate: float = LEARNING_RATE,
    ) -> None:
        self.model, self.average = model, copy.deepcopy(model)
        self.scenes, self.size, self.steps = scenes, size, steps
        self.device = model.conv1.weight.device
        seen = sampling.sheet([image_versions(scene.rgb) for scene in scenes], rows=1)
        self.versions = torch.from_numpy(seen).to(self.device)  # (V, H, W, 3)
        truths = sampling.sheet([scene.truth for scene in scenes])
        self.classes = torch.from_numpy(truths).to(self.device)  # (H, W)
        self.weights = sampling.sheet_weights(scenes, size)
        self.generator = torch.Generator().manual_seed(ranks.own_seed(seed))
        self.optimiser = torch.optim.AdamW(
            model.parameters(), peak_rate, weight_decay=WEIGHT_DECAY
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, peak_rate, total_steps=epochs * steps
        )
        self.history: list[Epoch] = []

    def epoch(self) -> Epoch:
        """Take the steps of an epoch, and score the average."""
        self.model.train()
        total = 0.0
        batch = segutils.MAX_PIXELS // self.size**2  # patches in a forward pass
        generator, first = self.generator, len(self.history) * self.steps
        origins = sampling.draw_origins(self.weights, self.steps * batch, generator)
        which = draw_versions(len(origins), generator)
        symmetries = torch.randint(8, (len(origins),), generator=generator)
        drawn = (d.to(self.device).split(batch) for d in (which, origins, symmetries))
        for step, (version, origin, symmetry) in enumerate(zip(*drawn, strict=True)):
            patches, answer = sampling.cut_patches(
                self.versions, self.classes, version, origin, self.size, symmetry
            )
            patches = sampling.jitter(patches, JITTER, generator)  # (B, 3, size, size)
            logits = self.model(patches)  # (B, 2, size, size)
            loss = metrics.segmentation_loss(logits[:, 1] - logits[:, 0], answer)
            self.optimiser.zero_grad()
            loss.backward()
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            ranks.average(gradients)
            self.optimiser.step()
            self.schedule.step()
            move_average(self.average, self.model, first + step)
            total += loss.item()
        for network in (self.model, self.average):
            ranks.average(running_statistics(network))
        training_loss = statistics.fmean(ranks.gather(total / self.steps))
        scored = ranks.from_first(partial(evaluate, self.average, self.scenes))
        self.history.append(Epoch(len(self.history) + 1, training_loss, *scored))
        return self.history[-1]

    def state_dict(self) -> dict[str, Any]:
        """Give all that the training needs to go on, in tensors and plain values."""
        parts = {name: getattr(self, name).state_dict() for name in STATEFUL}
        generators = ranks.gather(self.generator.get_state())
        history = [list(epoch) for epoch in self.history]
        return {**parts, "generators": generators, "history": history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generators"][ranks.number()])
        self.history = [Epoch(*values) for values in state["history"]]


def running_statistics(model: FCNN) -> list[Tensor]:
    """Give the means and variances that normalise the layers at prediction."""
    norms = [layer for layer in model if isinstance(layer, torch.nn.BatchNorm2d)]
    # Their third buffer counts batches.
    return [b for norm in norms for b in norm.buffers() if b.is_floating_point()]


def is_finite(epoch: Epoch) -> bool:
    """Say whether an epoch's losses are numbers: else nothing more can be learned."""
    loss = epoch.training_loss + epoch.held_out_loss
    if math.isfinite(loss):
        return True
    problem = f"epoch {epoch.number}: the loss is {loss}"
    if epoch.number == 1:
        raise cli.InputError(f"{problem}, so nothing was learned (try another --seed)")
    cli.warn(f"{problem}: stopped (what was learned before is kept)")
    return False


def fit(
    trainer: Trainer,
    epochs: int,
    on_epoch: Sequence[Callable[[Trainer], bool | None]] = (),
) -> Weights:
    """Train to the last epoch; give the average's weights."""
    weights = copy.deepcopy(trainer.average.state_dict())
    bar = tqdm(total=epochs, unit="epoch", disable=ranks.number() > 0 or None)
    bar.update(len(trainer.history))
    try:
        while len(trainer.history) < epochs:
            epoch = trainer.epoch()
            if not is_finite(epoch):
                trainer.history.remove(epoch)
                break
            weights = copy.deepcopy(trainer.average.state_dict())
            bar.set_postfix({"held-out IoU": f"{epoch.scores['IoU']:.3f}"})
            bar.update()
            if any([call(trainer) for call in on_epoch]):
                break
    except KeyboardInterrupt:
        if not trainer.history:
            raise
        print(f"interrupted: the average after epoch {len(trainer.history)} is kept")
    finally:
        bar.close()
    return weights


def draw_curves(history: Sequence[Epoch], planned: int | None = None) -> "Figure":
    """Plot the losses and the held-out IoU of all epochs so far."""
    return figures.loss_curve(
        [epoch.training_loss for epoch in history],
        [epoch.held_out_loss for epoch in history],
        [epoch.scores["IoU"] for epoch in history],
        planned,
    )


def new_model(scenes: Sequence[Scene], seed: int, device: torch.device) -> FCNN:
    """Make an untrained network, normalised for the images."""
    torch.manual_seed(seed)
    model = segutils.FCNN()
    model.normalise.fit(np.concatenate([s.rgb.reshape(-1, 3) for s in scenes]))
    return model.to(device)


def plan_epochs(
    scenes: Sequence[Scene], epochs: int | None = None
) -> tuple[int, int, int]:
    """Give the patch size, the number of epochs, and the steps of each."""
    size = min(scene.patch for scene in scenes)
    area = sum(sampling.training_pixels(s.truth, s.block) for s in scenes)
    steps = max(EPOCH, round(area / (segutils.MAX_PIXELS * ranks.count())))
    return size, epochs or -(-STEPS // steps), steps


def describe(model: FCNN, scenes: Sequence[Scene]) -> light.Looks:
    """Say what the labelled images look like, and how well their light can be told."""
    pictures = [s.rgb for s in scenes]
    looks = light.describe(pictures, [s.truth for s in scenes])
    return {**looks, "error": light.measure_error(model, looks, pictures)}


def segment_changed(
    model: FCNN, looks: light.Looks, scene: Scene, change: Change
) -> np.ndarray:
    """Segment a scene's held-out block as it is after a change."""
    around = scene.block.grown(sampling.GUARD, scene.truth.shape)
    changed = change(scene.rgb[around.slices])
    adapted, _ = light.adapt(model, looks, changed)
    return segutils.segment(adapted, changed)[scene.block.within(around)]


def scores_when_changed(
    model: FCNN, looks: light.Looks, scenes: Sequence[Scene]
) -> dict[str, dict[str, float]]:
    """Give the held-out scores under each change that an image may undergo."""
    answer = held_out_truth(scenes)
    found = {}
    for name, change in light.CHANGES.items():
        masks = [segment_changed(model, looks, scene, change) for scene in scenes]
        found[name] = metrics.scores(pooled(masks), answer)
    return found


def scores_of_constant(
    truth: np.ndarray, answer: np.ndarray
) -> tuple[int, dict[str, float]]:
    """Score always answering the images' larger class; gives the class, too."""
    larger = int((truth == 1).sum() > (truth == 0).sum())
    odds = (truth == 1).sum() / (truth == 0).sum()
    constant = torch.full(answer.shape, float(odds)).log()
    loss = metrics.segmentation_loss(constant, torch.tensor(answer)).item()
    return larger, {
        "loss": loss,
        **metrics.scores(np.full_like(answer, larger), answer),
    }


def report(
    model: FCNN,
    looks: light.Looks,
    history: Sequence[Epoch],
    scenes: Sequence[Scene],
) -> None:
    """Print the held-out scores, as the block is and changed, beside a constant's."""
    changed = scores_when_changed(model, looks, scenes)
    worst = min(changed, key=lambda name: changed[name]["IoU"])
    truth = pooled([scene.truth for scene in scenes])
    larger, constant = scores_of_constant(truth, held_out_truth(scenes))
    last = history[-1]
    rows = {
        f"network after {last.number} epochs": {
            "loss": last.held_out_loss,
            **last.scores,
        },
        f"at worst: {worst}": {"loss": math.nan, **changed[worst]},
        f"always class {larger}": constant,
    }
    title = "held-out block" if len(scenes) == 1 else f"{len(scenes)} held-out blocks"
    print(metrics.score_table(title, rows))


def snapshots_of(
    args: argparse.Namespace,
    scenes: Sequence[Scene],
    epochs: int,
    device: torch.device,
) -> snapshots.Snapshots:
    """Name all that a training depends on, for its snapshots."""
    key = {
        "images": snapshots.digest(scene.rgb for scene in scenes),
        "truths": snapshots.digest(scene.truth for scene in scenes),
        "epochs": epochs,
        "seed": args.seed,
        "device": device.type,
        "ranks": ranks.count(),
        "PyTorch": str(torch.__version__),
    }
    return snapshots.Snapshots(args.snapshot, key, SNAPSHOT)


def go_on(keeper: snapshots.Snapshots, trainer: Trainer) -> None:
    """Restore a training from its last snapshot, if there is one."""
    state = ranks.from_first(keeper.read)
    if state is None:
        print(f"{keeper.path}: no such file, so the training begins")
        return
    try:
        trainer.load_state_dict(state)
    except Exception as error:  # what a forged file raises is not bounded
        raise keeper.refusal("is no snapshot of this network") from error
    print(f"{keeper.path}: goes on after epoch {len(trainer.history)}")


def keep_snapshot(keeper: snapshots.Snapshots, trainer: Trainer) -> None:
    """Write a snapshot if the last one is old enough."""
    if ranks.from_first(keeper.is_due):
        state = trainer.state_dict()  # in every rank: their generators are gathered
        ranks.from_first(partial(keeper.write, state))


def save(
    args: argparse.Namespace,
    colours: images.Colours,
    looks: light.Looks,
    history: Sequence[Epoch],
    weights: Weights,
) -> None:
    """Write the model file and the curves."""
    last = history[-1]
    facts = {
        "seed": args.seed,
        "epoch": last.number,
        "held_out": {"loss": last.held_out_loss, **last.scores},
    }
    segutils.save_model(args.model, weights, colours, looks, facts)
    figures.save(draw_curves(history), args.plot)
    print(f"wrote {args.model} and {args.plot}")


def learn(args: argparse.Namespace) -> None:
    """Train on labelled images, write what was learned, and say how good it is."""
    device = segutils.choose_device(args.device)
    ranks.join(device)
    scenes, colours = load(args)
    size, epochs, steps = plan_epochs(scenes, args.epochs)
    model = new_model(scenes, args.seed, device)
    trainer = Trainer(model, scenes, size, epochs, steps, args.seed)
    keeper = snapshots_of(args, scenes, epochs, device)
    if args.resume or ranks.restarted():
        go_on(keeper, trainer)
    else:
        ranks.from_first(keeper.remove)  # an earlier training's, which nobody resumes
    weights = fit(trainer, epochs, [partial(keep_snapshot, keeper)])
    if ranks.number() > 0:
        return
    model.load_state_dict(weights)
    looks = describe(model, scenes)
    save(args, colours, looks, trainer.history, weights)
    keeper.remove()
    report(model, looks, trainer.history, scenes)


def main(argv: Sequence[str] | None = None) -> None:
    """Train on labelled images, as the command line says."""
    args = parse_args(argv)
    with images.memory_told([rgb for rgb, _ in args.pairs], PIXEL_BYTES):
        learn(args)


if __name__ == "__main__":
    cli.leave(cli.run(main))
