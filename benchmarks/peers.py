"""What people use now, trained on the same labelled image and the same split.

Contents
--------
Naive    train_naive, naive_steps
Forest   train_forest, forest_mask
Work     one_thread_each
"""

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F
from skimage.feature import multiscale_basic_features
from skimage.future import fit_segmenter, predict_segmenter
from sklearn.ensemble import RandomForestClassifier
from torch import nn
from tqdm.auto import tqdm

import segutils
from onelabel import sampling
from onelabel.image import UNLABELLED


NAIVE_STEPS = 800
NAIVE_PATCH = 128

# ------------------------------------------------------------------ naive


def naive_steps(rgb, truth, block, seed):
    """Train the network as a first try would: plainly, on plain patches.

    Four patches of 128x128 pixels a step, drawn evenly from outside the held-out block;
    values of 0 to 1, no normalisation, no augmentation, cross-entropy, Adam at 1e-3;
    the literal network, channels first.

    Parameters
    ----------
    rgb : ndarray, (H, W, 3) uint8
        The image.
    truth : ndarray, (H, W) uint8
        Its classes.
    block : sampling.Block
        The held-out block.
    seed : int
        Of the weights and the patches.

    Yields
    ------
    FCNN
        The network after each of the 800 steps; its normalisations do nothing.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = segutils.FCNN().eval()
    model.normalise.std.fill_(255)
    layers = (layer for layer in model if not isinstance(layer, nn.BatchNorm2d))
    plain = nn.Sequential(*layers)  # of the same weights
    optimiser = torch.optim.Adam(plain.parameters(), 1e-3)
    size = sampling.patch_size(truth, block, NAIVE_PATCH)
    even = sampling.origin_weights(truth, block, size, rare_share=0)
    batch = segutils.MAX_PIXELS // size**2
    image, classes = torch.from_numpy(rgb)[None], torch.from_numpy(truth)
    still = torch.zeros(batch, dtype=torch.long)
    for _ in range(NAIVE_STEPS):
        origins = sampling.draw_origins(even, batch, generator)
        x, y = sampling.cut_patches(image, classes, still, origins, size, still)
        logits = plain(x.contiguous())
        loss = F.cross_entropy(logits, y.long(), ignore_index=UNLABELLED)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield model


def train_naive(rgb, truth, block, seed):
    """Train the naive recipe to its end; parameters as for `naive_steps`.

    Returns
    -------
    FCNN
        The trained network.
    """
    *_, model = naive_steps(rgb, truth, block, seed)
    return model


# ------------------------------------------------------------------ forest


def _features(rgb):
    """Give each pixel's colours, edges and textures at five scales: (H, W, F)."""
    return multiscale_basic_features(
        rgb, intensity=True, edges=True, texture=True, sigma_max=16, channel_axis=-1
    )


def train_forest(rgb, truth, block, seed):
    """Train scikit-image's segmenter with a random forest, as its example does.

    Parameters as for `naive_steps`; the held-out block is not trained on.

    Returns
    -------
    RandomForestClassifier
        The trained forest.
    """
    labels = np.where(truth == UNLABELLED, 0, truth + 1)  # 0: unlabelled
    labels[block.grown(sampling.GUARD, truth.shape).slices] = 0
    forest = RandomForestClassifier(
        n_estimators=50, max_depth=10, max_samples=0.05, random_state=seed
    )
    return fit_segmenter(labels, _features(rgb), forest)


def forest_mask(forest, rgb):
    """Segment an image with a forest.

    Parameters
    ----------
    forest : RandomForestClassifier
        From `train_forest`.
    rgb : ndarray, (H, W, 3) uint8
        The image.

    Returns
    -------
    ndarray, (H, W) uint8
        0 or 1.
    """
    return (predict_segmenter(_features(rgb), forest) - 1).astype(np.uint8)


# ------------------------------------------------------------------ work


def one_thread_each(function, jobs):
    """Apply a function to jobs, in as many processes as there are cores.

    Parameters
    ----------
    function : callable
        What to do; its own processes use one thread, too.
    jobs : list of tuple
        Its arguments.

    Yields
    ------
    job : tuple
        One of the jobs, whichever is done first.
    result : object
        What the function gave.
    """
    with ProcessPoolExecutor(
        os.cpu_count(), get_context("spawn"), initializer=_use_one_thread
    ) as pool:
        futures = {pool.submit(function, *job): job for job in jobs}
        for future in tqdm(as_completed(futures), total=len(jobs), disable=None):
            yield futures[future], future.result()


def _use_one_thread():
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
