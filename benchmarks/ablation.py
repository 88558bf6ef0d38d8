"""Measure what each part of the recipe is worth, and what else was tried.

    pip install -r benchmarks/requirements.txt
    python benchmarks/ablation.py [FOLDER]

FOLDER is laid out as benchmarks/accuracy.py says; the project's own scenes are taken as
one more family, whose new image counts twice: as it is, and blurred. In each variant
one part of the recipe is taken away or replaced, and train.py and predict.py run with
no option, but for fewer steps. One process for each core, one thread each; the table in
benchmarks/results.md fills as the results come. On two cores it takes half an hour.
"""

import sys
import tempfile
from contextlib import ExitStack, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from unittest import mock

import accuracy
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn


sys.path.insert(0, str(accuracy.ROOT))

import peers
import report

import predict
import segutils
import train
from onelabel import changes, console, light, model_file, sampling, scores
from onelabel.truth import UNLABELLED
from onelabel.writing import write_picture


SEEDS = (0,)
STEPS = 200
BLUR = 0.7  # pixels
DATA = accuracy.ROOT / "data"

# ------------------------------------------------------------------ the light


def unadapted(model, looks, sample):
    """Take every light for the training image's."""
    return light.SAME


def believed(model, looks, sample):
    """Believe the gain that the network's own mask shows, whatever its error."""
    return light._look_twice(model, looks, sample, light.SAME, 0.5) or light.SAME


def own_median(model, looks, sample):
    """Scale an image by the typical colour of all of it, not of one class."""
    typical = light._typical_colour(light.known_pixels(sample)[:, 0])
    level = light._ratio(typical, looks["colour"])
    return light._light(level, level)


class Turned(segutils.Folded):
    """The mean of a tile's logits as seen in all eight symmetries."""

    def __call__(self, rgb):
        """Give each pixel its logit."""
        total = 0
        for turns in range(4):
            for flip in ([], [1]):
                seen = rgb.rot90(turns, (1, 2)).flip(flip)
                logit = super().__call__(seen.contiguous())
                total = total + logit.flip(flip).rot90(-turns, (1, 2))
        return total / 8


# ------------------------------------------------------------------ the patches


CUT, JITTER, ORIGINS = (
    sampling.cut_patches,
    sampling.jitter,
    sampling.origin_weights,
)


def unturned(*arguments):
    """Cut patches without turning them."""
    *others, symmetries = arguments
    return CUT(*others, torch.zeros_like(symmetries))


def warped(*arguments, scale=0.0, bend=0.0):
    """Cut patches, and enlarge, shrink or bend each."""
    x, y = CUT(*arguments)
    size, count = x.shape[2], len(x)
    factor = torch.exp((2 * torch.rand(count, 1, 1) - 1) * scale)
    theta = torch.eye(2, 3).repeat(count, 1, 1) * factor
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    shift = F.interpolate(torch.randn(count, 2, 5, 5), (size, size), mode="bicubic")
    grid = grid + shift.permute(0, 2, 3, 1) * bend * 2 / size  # `bend` is in pixels
    sample = partial(
        F.grid_sample, grid=grid, padding_mode="reflection", align_corners=False
    )
    answer = sample(y[:, None].float(), mode="nearest")[:, 0].to(y.dtype)
    return sample(x, mode="bilinear"), answer


def with_gamma(patches, strengths, generator, spread=0.3):
    """Jitter, and bend the tone curve of each patch."""
    x = JITTER(patches, strengths, generator).clamp(0, 255) / 255
    drawn = torch.rand(len(x), 1, 1, 1, generator=generator)
    return 255 * x ** torch.exp((2 * drawn - 1) * spread)


def around_edges(truth, block, size):
    """Draw half of the patches around the borders between the classes."""
    labelled = np.where(truth == UNLABELLED, 0, truth)
    border = ndimage.maximum_filter(labelled, 3) != ndimage.minimum_filter(labelled, 3)
    return ORIGINS(border.astype(np.uint8), block, size)


def hard_patches():
    """Draw half of the patches around the pixels that are wrong so far."""
    seen = {}

    def origin_weights(truth, block, size):
        seen["size"] = size
        seen["weights"] = ORIGINS(truth, block, size)
        return seen["weights"]

    def evaluate(model, scenes, judge=train.evaluate):
        rgb, truth, block, *_ = scenes[0]  # the only one
        wrong = segutils.segment(model, rgb) != truth
        wrong &= truth != UNLABELLED
        seen["weights"] = ORIGINS(wrong.astype(np.uint8), block, seen["size"])
        return judge(model, scenes)

    def draw_origins(_, count, generator, draw=sampling.draw_origins):
        return draw(seen["weights"], count, generator)

    return [
        (sampling, "origin_weights", origin_weights),
        (sampling, "draw_origins", draw_origins),
        (train, "evaluate", evaluate),
    ]


# ------------------------------------------------------------------ the loss


LOSS = scores.segmentation_loss


def _known(logit, truth):
    """Give the labelled pixels' logits and classes, flat."""
    labelled = truth != UNLABELLED
    return logit[labelled], truth[labelled].float()


def _dice(logit, target):
    probability = logit.sigmoid()
    overlap = (probability * target).sum()
    return 1 - (2 * overlap + 1) / (probability.sum() + target.sum() + 1)


def cross_entropy(logit, truth):
    """Cross-entropy alone."""
    return F.binary_cross_entropy_with_logits(*_known(logit, truth))


def dice_alone(logit, truth):
    """Dice alone."""
    return _dice(*_known(logit, truth))


def tversky(logit, truth, false=0.3, missed=0.7):
    """Cross-entropy plus Tversky, which weighs what is missed more."""
    logit, target = _known(logit, truth)
    p = logit.sigmoid()
    hit = (p * target).sum() + 1
    errors = false * (p * (1 - target)).sum() + missed * ((1 - p) * target).sum()
    return cross_entropy(logit, target) + 1 - hit / (hit + errors)


def focal(logit, truth):
    """Focal loss, which weighs pixels that are told already less, plus Dice."""
    logit, target = _known(logit, truth)
    entropy = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    weight = (1 - torch.exp(-entropy)) ** 2
    return 4 * (weight * entropy).mean() + _dice(logit, target)


def lovasz(logit, truth):
    """Cross-entropy plus the Lovasz hinge (https://arxiv.org/abs/1705.08790)."""
    logit, target = _known(logit, truth)
    errors, order = (1 - (2 * target - 1) * logit).sort(descending=True)
    sorted_ = target[order]
    kept = sorted_.sum() - sorted_.cumsum(0)
    jaccard = 1 - kept / (sorted_.sum() + (1 - sorted_).cumsum(0))
    slope = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return cross_entropy(logit, target) + (errors.relu() * slope).sum()


def boundary(logit, truth):
    """Count pixels within 2 of a border three times in the recipe's loss."""
    maps = truth.reshape(-1, 1, *truth.shape[-2:]).float()
    is_border = F.max_pool2d(maps, 5, 1, 2) != -F.max_pool2d(-maps, 5, 1, 2)
    weight = 1 + 2 * is_border.reshape(truth.shape).float()
    labelled = truth != UNLABELLED
    target = torch.where(labelled, truth, 0).float()
    entropy = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    weight = weight * labelled
    return (entropy * weight).sum() / weight.sum() + _dice(*_known(logit, truth))


# ------------------------------------------------------------------ the optimiser


ADAMW, ONE_CYCLE = torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR


def sgd(parameters, rate, weight_decay):
    """Nesterov's momentum; its rate is ten times AdamW's, its decay a twentieth."""
    return torch.optim.SGD(
        parameters, rate, momentum=0.9, nesterov=True, weight_decay=weight_decay / 20
    )


def ten_times(optimiser, rate, total_steps):
    """One cycle to ten times the rate."""
    return ONE_CYCLE(optimiser, 10 * rate, total_steps)


def cosine(optimiser, rate, total_steps):
    """Fall from the peak to nothing along a cosine, with no rise before."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total_steps)


def not_averaged(average, model, step):
    """Keep the weights as they are after the last step."""
    average.load_state_dict(model.state_dict())


# ------------------------------------------------------------------ the network


class Unfolded:
    """A network of other layers, for prediction."""

    def __init__(self, model, precision=torch.float32):
        self.model = model

    def __call__(self, rgb):
        """Give each pixel its logit."""
        logits = self.model(rgb.permute(0, 3, 1, 2).float())
        return logits[:, 1] - logits[:, 0]


class Idle(nn.BatchNorm2d):
    """A batch normalisation that does nothing."""

    def __init__(self, channels):
        super().__init__(channels, eps=0)

    def forward(self, x):
        """Give `x` as it is."""
        return x


class Dropped(nn.BatchNorm2d):
    """A batch normalisation that drops a tenth of the channels in training."""

    def forward(self, x):
        """Normalise, and drop."""
        return F.dropout2d(super().forward(x), 0.1, self.training)


class Grouped(nn.BatchNorm2d):
    """Group normalisation in four groups: by a tile's own statistics."""

    def forward(self, x):
        """Normalise."""
        return F.group_norm(x, 4, self.weight, self.bias)


class Bilinear(segutils.FCNN):
    """The network with bilinear upsampling."""

    def forward(self, x):
        """Give each pixel its two logits."""
        x = self.relu1(self.norm1(self.conv1(self.normalise(x))))
        x = self.relu2(self.pool(self.norm2(self.conv2(x))))
        x = self.relu3(self.norm3(self.conv3(x)))
        return self.conv4(F.interpolate(x, scale_factor=2, mode="bilinear"))


def without_scaling(normalise, rgb):
    """Give the network values of 0 to 1."""
    normalise.std.fill_(255)


# ------------------------------------------------------------------ all variants


def _estimate(way):
    return [(light, "estimate", way)]


def _cut(**how):
    return [(sampling, "cut_patches", partial(warped, **how))]


def _loss(loss):
    return [(scores, "segmentation_loss", loss)]


def _steps(count):
    return [(train, "STEPS", count)]


IDLE = [(nn, "BatchNorm2d", Idle)]
PLAIN_VERSIONS = [
    (train, "image_versions", lambda rgb: rgb[None]),
    (train, "draw_versions", lambda n, _: torch.zeros(n, dtype=torch.long)),
]
UNFOLDED = [(module, "Folded", Unfolded) for module in (segutils, model_file)]

# For each variant: the module, what it is called there, and what takes its place.
VARIANTS = {
    "Taken away": {
        "nothing: the recipe": [],
        "its own light": _estimate(unadapted),
        "changed versions": PLAIN_VERSIONS,
        "jitter": [(train, "JITTER", (0, 0, 0, 0))],
        "mixed channels": [(train, "JITTER", (0.05, 0.1, 0.03, 0))],
        "the 8 symmetries": [(sampling, "cut_patches", unturned)],
        "patches around the rarer class": [
            (sampling, "origin_weights", partial(ORIGINS, rare_share=0))
        ],
        "batch norm": IDLE,
        "Dice in the loss": _loss(cross_entropy),
        "cross-entropy in the loss": _loss(dice_alone),
        "all of these but cross-entropy": _estimate(unadapted)
        + PLAIN_VERSIONS
        + [
            (train, "JITTER", (0, 0, 0, 0)),
            (sampling, "cut_patches", unturned),
            (sampling, "origin_weights", partial(ORIGINS, rare_share=0)),
        ]
        + IDLE
        + _loss(cross_entropy),
    },
    "Patches": {
        "of 16 pixels": [(train, "PATCH", 16)],
        "of 24 pixels": [(train, "PATCH", 24)],
        "of 64 pixels": [(train, "PATCH", 64)],
        "of 128 pixels": [(train, "PATCH", 128)],
        "enlarged or shrunk by up to a fifth": _cut(scale=0.2),
        "bent by 1 pixel": _cut(bend=1.0),
        "jitter twice as strong": [(train, "JITTER", (0.1, 0.2, 0.06, 0.1))],
        "gamma": [(sampling, "jitter", with_gamma)],
        "half around the classes' borders": [
            (sampling, "origin_weights", around_edges)
        ],
        "half around pixels that are wrong": hard_patches(),
    },
    "Loss": {
        "cross-entropy and Tversky": _loss(tversky),
        "focal and Dice": _loss(focal),
        "cross-entropy and Lovasz": _loss(lovasz),
        "borders count three times": _loss(boundary),
    },
    "Optimiser": {
        "SGD with momentum": [
            (torch.optim, "AdamW", sgd),
            (torch.optim.lr_scheduler, "OneCycleLR", ten_times),
        ],
        "RAdam": [(torch.optim, "AdamW", torch.optim.RAdam)],
        "cosine": [(torch.optim.lr_scheduler, "OneCycleLR", cosine)],
        "the last weights, not their average": [(train, "move_average", not_averaged)],
        "twice the steps": _steps(2 * STEPS),
    },
    "Network": {
        "input of 0 to 1": [(segutils.Normalise, "fit", without_scaling)],
        "group norm": [(nn, "BatchNorm2d", Grouped), *UNFOLDED],
        "dropout of a tenth": [(nn, "BatchNorm2d", Dropped)],
        "bilinear upsampling": [
            *((module, "FCNN", Bilinear) for module in (train, model_file)),
            *UNFOLDED,
        ],
    },
    "The light of a new image": {
        "believed, whatever its error": _estimate(believed),
        "scaled by the typical colour of all of it": _estimate(own_median),
        "no gain with an offset": [(light, "MUCH_NEARER", 0)],
        "mean of the 8 symmetries (8 times the work)": [(segutils, "Folded", Turned)],
    },
}

# ------------------------------------------------------------------ measuring


def in_process(script, *arguments):
    """Run a script's main function here, where a part may have been replaced."""
    main = {"train.py": train.main, "predict.py": predict.main}[script]
    with redirect_stdout(StringIO()):
        main(list(map(str, arguments)))


def own_scenes(folder):
    """Take the project's own scenes as a family; a blurred copy goes into `folder`."""
    rgb, truth = accuracy.read_pair(DATA / "rgb.png")
    path = DATA / "new/rgb.png"
    new, answer = accuracy.read_pair(path)
    blurred = changes.blurred(new, BLUR)
    copy_path = Path(folder, "blurred.png")
    write_picture(copy_path, blurred)
    seen = [(path, new, answer), (copy_path, blurred, answer)]
    return accuracy.Family("data/new", DATA, rgb, truth, seen)


def measure(section, name, family, seed):
    """Give the IoU of a variant on a family: of the new images, of the held-out."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(train, "STEPS", STEPS))
        for patch in VARIANTS[section][name]:
            stack.enter_context(mock.patch.object(*patch))
        result = accuracy.ours(family, seed, in_process)
    return result.scores["IoU"], result.held_out


def table(found, known):
    """Lay out what is known so far: lines of Markdown."""
    names = [family.name for family in found]
    lines = []
    for section, variants in VARIANTS.items():
        lines += ["", f"| {section} | {' | '.join(names)} |"]
        lines += ["|---" * (len(names) + 1) + "|"]
        for variant in variants:
            cells = [
                "{:.3f} ({:.3f})".format(*np.mean(runs, 0)) if runs else "-"
                for runs in (known[section, variant, name] for name in names)
            ]
            lines.append(f"| {variant} | {' | '.join(cells)} |")
    return lines


def main():
    """Measure all variants, and put the table into results.md."""
    about = "Measure what each part of the recipe is worth."
    parser = console.Parser(description=about)
    parser.add_argument("folder", type=Path, nargs="?", default=accuracy.SCENES)
    args = parser.parse_args()
    text = [
        f"`python benchmarks/ablation.py`; {STEPS} steps, seed 0: "
        "IoU of each family's new images, pooled (and of the held-out block). "
        f"data/new is taken twice, as it is and blurred by {BLUR} pixels.",
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = [own_scenes(folder), *accuracy.families(args.folder)]
        names = [(s, v) for s, variants in VARIANTS.items() for v in variants]
        known = {(*name, family.name): [] for name in names for family in found}
        jobs = [(*n, family, seed) for seed in SEEDS for n in names for family in found]
        for (*name, family, _), result in peers.one_thread_each(measure, jobs):
            known[*name, family.name].append(result)
            lines = [*text, *table(found, known)]
            report.write_part("What each part is worth", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
