"""Images without labels: what a network is sure of there is taken as their truth.

A second network learns from both, the labelled image and these (self-training: Lee
2013, "Pseudo-Label"). So it sees things and places that one labelled image does not
show.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from onelabel import depth, jobs, light
from onelabel.files import InputError, PathLike
from onelabel.image import SAMPLED, UNLABELLED, spread
from onelabel.labelled import check_side
from onelabel.reading import open_image
from onelabel.sampling import NOWHERE, Scene, scene_of
from segutils import Piece, Predictor


SURE = 1.0  # a pixel's class is taken as told from this logit on, of either sign
MOST = 64  # tiles of all images together: 4 megapixels


class Taught(NamedTuple):
    """What a network says of unlabelled images."""

    scenes: list[Scene]  # tiles, with what it is sure of as their truths
    lights: list[light.Light]  # of each image
    sure: float  # the share of the pixels that have a truth


def list_images(
    names: Sequence[PathLike], pairs: Sequence[tuple[PathLike, PathLike]] = ()
) -> list[str]:
    """Name the images of files, folders and patterns, each of them once.

    Labelled ones, in pairs with their truths, are left out: what is held out of them
    must not be learned.
    """
    images = [image for name in names for image, _ in jobs.expand(str(name))]
    found = {os.path.realpath(image): image for image in images}
    for path, _ in pairs:
        found.pop(os.path.realpath(path), None)
    if images and not found:
        raise InputError(f"{images[0]}: is labelled (name images that are not)")
    return list(found.values())


def read_samples(
    paths: Sequence[str], scale: depth.Scale | None, channels: Sequence[int] | None
) -> list[list[Piece]]:
    """Read some tiles of each image, as the labelled images were read.

    Of very many images some are left out, evenly.
    """
    chosen = spread(paths, MOST)
    samples = []
    for path in chosen:
        image = open_image(path, channels)
        check_side(path, image.shape)
        image.use_scale(scale)
        samples.append(image.sample(min(SAMPLED, MOST // len(chosen))))
    return samples


def sure_classes(logit: np.ndarray) -> np.ndarray:
    """Give classes from (h, w) logits; unlabelled where those are near a draw."""
    classes = np.where(logit > 0, 1, 0).astype(np.uint8)
    classes[abs(logit) < SURE] = UNLABELLED
    return classes


def teach(looks: light.Looks, samples: Sequence[Sequence[Piece]], patch: int) -> Taught:
    """Let the network of the looks mask the samples, each image in its own light.

    The scenes are in the training image's light: prediction allows for the light of an
    image, so the network that learns them need not learn lights, too.
    Tiles smaller than a patch, and those of which nothing is sure, are left out.
    """
    lights = [light.estimate(looks, sample) for sample in samples]
    scenes, sure, total = [], 0, 0
    for sample, its_light in zip(samples, lights, strict=True):
        network = light.in_light(looks["network"], looks, its_light)
        predictor = Predictor(network)
        logits = predictor.tile_logits(sample)
        for (tile, pixels), (_, logit) in zip(sample, logits, strict=True):
            classes = sure_classes(logit)
            truth = np.full(pixels.shape[:2], UNLABELLED, np.uint8)
            truth[tile.core.within(tile.seen)] = classes
            scene = scene_of(pixels, truth, NOWHERE, patch)
            told = int(np.count_nonzero(scene.truth != UNLABELLED))
            sure, total = sure + told, total + classes.size
            if told and min(truth.shape) >= patch:
                rgb = light.as_in_training(scene.rgb, looks, its_light)
                scenes.append(scene._replace(rgb=rgb))
    return Taught(scenes, lights, sure / total)
