"""A training from strokes, which goes on in the background while more are painted.

It is a chain of short trainings, each twice as long as the one before: the rate of each
falls to almost nothing at its end, where its average gives a mask (warm restarts:
Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983). Each begins half way from
the network as it is to a new one, which generalises better than to go on from it
(shrink and perturb: Ash and Adams 2020, https://arxiv.org/abs/1910.08475).

Strokes show little of an image. So in the longer trainings of a chain, half of the
patches come from parts spread over the image, where what the network is sure of
counts as labelled (self-training: Lee 2013, "Pseudo-Label").
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from onelabel.files import error_line
from onelabel.image import UNLABELLED, Image, grid, spread
from onelabel.sampling import NOWHERE, Scene, scene_of
from onelabel.unlabelled import sure_classes
from segutils import FCNN, Block, Predictor, single_threads


FIRST, LONGEST = 100, 1600  # steps of a chain's first training, and of its longest
ALONE = 200  # steps: longer trainings learn from the network's own labels, too
INHERITED = 0.5  # share of the network's weights that a training begins with
RUN = 25  # steps between two looks for new labels
PATCH = 16  # pixels a side: of a larger patch, strokes label a smaller share
PIXELS = 2**14  # in a forward pass: many small steps learn more in a second
CELL, MARGIN = 128, 16  # pixels: the parts of an image that are read, and around them
MOST = 96  # parts of an image, where an old truth labels all of it
OTHERS = 24  # parts of an image that the network labels itself

Pixels = dict[Block, np.ndarray]  # parts of an image, (h, w, 3) uint8
OnNetwork = Callable[[FCNN, int, bool], None]  # what `Lesson.start` calls


def labelled_parts(
    image: Image, labels: np.ndarray, drawn: Sequence[Block], known: Pixels
) -> list[Scene]:
    """Read the parts of an image that are labelled, to train on.

    Parameters
    ----------
    image : Image
        The image.
    labels : ndarray, (H, W) uint8
        0, 1 or `UNLABELLED`.
    drawn : sequence of Block
        Where strokes lie. All parts there are taken, and some of the others.
    known : dict of Block to ndarray
        The parts that were read before; those that are new are added.

    Returns
    -------
    list of Scene
        The parts with their labels.
    """
    cells = grid(image.shape, CELL, CELL)
    labelled = [cell for cell in cells if (labels[cell.slices] != UNLABELLED).any()]
    corrected = [cell for cell in labelled if any(map(cell.meets, drawn))]
    others = [cell for cell in labelled if cell not in corrected]
    room = max(MOST - len(corrected), 0)
    return _read_parts(image, labels, corrected + spread(others, room), known)


def spread_parts(image: Image, labels: np.ndarray, known: Pixels) -> list[Scene]:
    """Read some parts all over an image, labelled or not; as `labelled_parts` does."""
    cells = spread(grid(image.shape, CELL, CELL), OTHERS)
    return _read_parts(image, labels, cells, known)


def _read_parts(
    image: Image, labels: np.ndarray, cells: Sequence[Block], known: Pixels
) -> list[Scene]:
    scenes = []
    for cell in cells:
        part = cell.grown(MARGIN, image.shape)
        if part not in known:
            known[part] = image.read(part)
        scenes.append(scene_of(known[part], labels[part.slices], NOWHERE, PATCH))
    return scenes


def self_labelled(model: FCNN, scenes: Sequence[Scene]) -> list[Scene]:
    """Label what is not labelled, where a network is sure of it."""
    predictor, labelled = Predictor(model), []
    for scene in scenes:
        sure = sure_classes(predictor.logits(scene.rgb))
        truth = np.where(scene.truth == UNLABELLED, sure, scene.truth)
        if (truth != UNLABELLED).any():
            labelled.append(scene._replace(truth=truth))
    return labelled


def has_both_classes(scenes: Sequence[Scene]) -> bool:
    """Tell whether both classes are labelled."""
    return all(any((scene.truth == k).any() for scene in scenes) for k in (0, 1))


class Lesson:
    """Trains a network from labels that grow, in a thread of its own.

    Parameters
    ----------
    new_model, trainer : callable
        ``train.new_model`` and ``train.Trainer``.
    on_problem : callable
        Called with one line where the training failed.
    """

    def __init__(
        self,
        new_model: Callable[..., FCNN],
        trainer: Callable[..., Any],
        on_problem: Callable[[str], None],
    ) -> None:
        self.new_model, self.trainer = new_model, trainer
        self.on_problem = on_problem
        self.model: FCNN | None = None
        self.steps = 0  # of all trainings so far
        self.waiting: tuple[Sequence[Scene], Sequence[Scene], OnNetwork] | None = None
        self.is_at_work = False
        self.lock = threading.Lock()
        # Steps as small as these are faster in one thread; others may paint and draw.
        self.thread = single_threads(1)

    def start(
        self, scenes: Sequence[Scene], others: Sequence[Scene], on_network: OnNetwork
    ) -> None:
        """Begin a new chain of trainings, as soon as the run at work is done.

        Parameters
        ----------
        scenes : sequence of Scene
            From `labelled_parts`.
        others : sequence of Scene
            From `spread_parts`.
        on_network : callable
            Called in the thread with each better network, the steps so far, and whether
            it is the last one of the chain.
        """
        with self.lock:
            self.waiting = scenes, others, on_network
            if not self.is_at_work:
                self.is_at_work = True
                self.thread.submit(self._work)

    def _work(self) -> None:
        """Learn until no labels are waiting."""
        while True:
            with self.lock:
                if self.waiting is None:
                    self.is_at_work = False
                    return
                chain, self.waiting = self.waiting, None
            try:
                self._train_chain(*chain)
            except Exception as error:  # whatever it is, the page must show it
                self.on_problem(error_line(error))

    def close(self) -> None:
        """Break off what is at work, and take nothing more."""
        self.thread.shutdown(wait=False)

    def stop(self) -> None:
        """Begin nothing new, and end the chain at work."""
        self.start([], [], lambda *_: None)

    def _train_chain(
        self, scenes: Sequence[Scene], others: Sequence[Scene], on_network: OnNetwork
    ) -> None:
        """Go through a chain of trainings, or break it off for new labels."""
        length = FIRST
        while scenes and length <= LONGEST:
            better = self.train_once(scenes, others, length)
            if better is None:
                break
            self.model = better
            on_network(better, self.steps, length == LONGEST)
            length *= 2

    def train_once(
        self, scenes: Sequence[Scene], others: Sequence[Scene], length: int
    ) -> FCNN | None:
        """Train once; None where that was broken off, which the shortest never is."""
        taught = []
        if self.model is not None and length > ALONE:
            taught = self_labelled(self.model, others)
        begun = self._begun(scenes)
        # Drawn evenly, a small stroke counts almost as much as a large one.
        drawn = {"seed": self.steps, "pixels": PIXELS, "rare_share": 0}
        trainer = self.trainer(begun, scenes, PATCH, 1, length, taught=taught, **drawn)
        for _ in range(length // RUN):
            if length > FIRST and self._is_broken_off():
                return None
            trainer.take(RUN)
            self.steps += RUN
        return trainer.average.eval()

    def _begun(self, scenes: Sequence[Scene]) -> FCNN:
        """Give the network that a training begins with."""
        begun = self.new_model(scenes, self.steps, torch.device("cpu"))
        if self.model is not None:
            old = self.model.state_dict()
            for name, value in begun.state_dict().items():
                if value.is_floating_point():  # the norms also count batches
                    value.lerp_(old[name], INHERITED)
        return begun

    def _is_broken_off(self) -> bool:
        try:
            self.thread.submit(int)  # which does nothing
        except RuntimeError:  # no more work is taken: closed, or the program ends
            return True
        return self.waiting is not None
