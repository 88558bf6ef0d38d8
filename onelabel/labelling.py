"""Label images by strokes: paint, see what the network makes of them, correct it.

A `Session` joins the painter in the page, the lesson that trains in the background, and
the images with their labels. It needs no widget: the painter may be anything that has
its methods.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onelabel import drawing, ground, model_file, pipeline, writing
from onelabel.evaluation import describe_images
from onelabel.files import (
    InputError,
    PathLike,
    cannot_be_written,
    check_files,
    counted,
    error_line,
)
from onelabel.image import BLACK_AND_WHITE, UNLABELLED
from onelabel.labelled import check_side
from onelabel.lesson import Lesson, has_both_classes
from onelabel.photo import DOUBTS, KEPT, Photo, in_bytes
from onelabel.reading import open_image
from onelabel.resources import is_large
from onelabel.store import Store
from onelabel.strokes import read_labels
from segutils import FCNN, Block, Predictor


if TYPE_CHECKING:
    from onelabel.painter import Painter

ADVICE = (
    "Paint short strokes inside each class and close to its border, about as many of "
    "each; then correct the mask where it is wrong."
)
PAUSE = 0.3  # seconds between two drawings of a mask that grows


class Session:
    """Images that are labelled for one network.

    Parameters
    ----------
    painter : Painter
        Where the strokes are painted.
    new_model, trainer : callable
        ``train.new_model`` and ``train.Trainer``.
    """

    def __init__(
        self,
        painter: "Painter",
        new_model: Callable[..., FCNN],
        trainer: Callable[..., Any],
    ) -> None:
        self.painter = painter
        self.photos: dict[str, Photo] = {}  # by the whole names of their files
        self.model: FCNN | None = None
        self.told = "No mask yet: paint both classes, then Train."
        self.problem = ""  # said until it is over
        self.switching = threading.Lock()
        self.is_eager = False  # whether each stroke begins a training
        self.lesson = Lesson(new_model, trainer, self._fail)
        self.wanted: tuple[Photo, Predictor] | None = None
        self.due = threading.Condition()
        self.is_closed = False
        threading.Thread(target=self._preview, daemon=True).start()

    # -------------------------------------------------------------- images

    def open(self, path: PathLike) -> None:
        """Show an image, with the strokes that it has; it joins those to learn from."""
        photo = self._add(path)
        layers: dict[str, Any] = {"image": photo.picture}
        if photo.start is not None:
            layers["start"] = photo.start_layer
        layers["mask"] = partial(self._mask_layer, photo)
        layers["unsure"] = photo.doubt_layer
        with self.switching:
            self.photo, self.turn, self.problem = photo, 0, photo.problem
            self.painter.show(photo.shape, photo.strokes, layers)
        self._tell()
        self._want()

    def _mask_layer(self, photo: Photo, block: Block, step: int) -> np.ndarray:
        """Draw a photo's mask in the colour that the painter has now."""
        red, green, blue = self.painter.colours[1]
        return photo.mask_layer((red, green, blue), block, step)

    def add(self, paths: Iterable[PathLike]) -> None:
        """Learn from images that have strokes already, without showing them."""
        kept: dict[Path, set[str]] = {}  # the images of each file that have strokes
        for path in map(Path, paths):
            file = path.with_name(KEPT)
            if file not in kept:
                kept[file] = set(read_labels(file))
            if path.name in kept[file]:
                self._add(path)

    def _add(self, path: PathLike) -> Photo:
        name = os.path.realpath(path)
        if name not in self.photos:
            like = next(iter(self.photos.values()), None)
            self.photos[name] = Photo(path, like)
        return self.photos[name]

    def start_from(self, path: PathLike | None) -> None:
        """Correct an older ground truth or mask of the image shown."""
        with self.switching:
            self.photo.start_from(path)
            self._keep()
        self.open(self.photo.path)

    def strokes_changed(self) -> None:
        """Take the painter's strokes over, and keep them in the file."""
        with self.switching:  # or strokes of one image might be taken for another's
            self.photo.set_strokes(self.painter.strokes)
            self._keep()
        self._tell()
        if self.is_eager:
            self.train()

    def _keep(self) -> None:
        try:
            self.photo.keep()
            self.problem = ""
        except InputError as error:
            self.problem = f"NOT KEPT: {error}."

    def close(self) -> None:
        """End all that goes on in the background, and take the painter away."""
        self.lesson.close()
        with self.due:
            self.is_closed = True
            self.due.notify()
        self.painter.close()

    # -------------------------------------------------------------- the network

    def train(self) -> None:
        """Learn what is labelled, in the background, and show the mask as it grows."""
        photos = list(self.photos.values())
        scenes = [scene for photo in photos for scene in photo.scenes()]
        if not has_both_classes(scenes):
            self.lesson.stop()
            self.told = "Nothing to learn: paint both classes, then Train."
        else:
            others = [part for photo in photos for part in photo.others()]
            self.lesson.start(
                scenes, others, partial(self._take_network, self._count())
            )
            if self.model is None:
                self.told = "Training: the first mask comes in a moment."
        self._tell()

    def _take_network(self, known: str, model: FCNN, steps: int, is_last: bool) -> None:
        """Show what a better network makes of the image."""
        self.model, self.turn = model, 0
        goes_on = "the training is done" if is_last else "the training goes on"
        self.told = (
            f"Mask of {time.strftime('%H:%M:%S')}: knows {known}, after {steps} steps; "
            f"{goes_on}."
        )
        self._want()
        self._tell()

    def _fail(self, problem: str) -> None:
        """Say what went wrong, until there is another mask."""
        self.told = problem
        self._tell()

    def _tell(self) -> None:
        """Say how much is labelled, and what the mask knows; or what went wrong."""
        shares = zip(self.photo.shares(), self.painter.names, strict=True)
        labelled = ", ".join(f"{100 * share:.2g}% {name}" for share, name in shares)
        text = f"{self._count()}; labelled here: {labelled}. {self.problem}"
        advice = f" {ADVICE}" if self.model is None else ""
        self.painter.status = f"{text} {self.told}{advice}"

    def _count(self) -> str:
        """Say how many strokes all images have."""
        counts = [len(photo.strokes) for photo in list(self.photos.values())]
        return counted(sum(counts), "stroke") + (
            f" on {counted(len(counts), 'image')}" if len(counts) > 1 else ""
        )

    # -------------------------------------------------------------- the mask

    def _want(self) -> None:
        """Ask for the mask of the image shown, by the network as it is."""
        if self.model is not None:
            with self.due:
                self.wanted = self.photo, Predictor(self.model)
                self.due.notify()

    def _preview(self) -> None:
        """Segment what is wanted, until the session is closed."""
        while True:
            with self.due:
                self.due.wait_for(lambda: self.wanted or self.is_closed)
                wanted, self.wanted = self.wanted, None
            if wanted is None:
                return
            try:
                self._segment(*wanted)
            except Exception as error:  # whatever it is, the page must show it
                self._fail(error_line(error))

    def _segment(self, photo: Photo, predictor: Predictor) -> None:
        """Segment an image, the part in view first, until another is wanted."""
        drawn = time.monotonic()
        for part in photo.parts_from(self.painter.view()):
            if self.wanted is not None:
                break
            photo.segment(predictor, part)
            if time.monotonic() > drawn + PAUSE:
                self.painter.refresh("mask", "unsure")
                drawn = time.monotonic()
        self.painter.refresh("mask", "unsure")

    def go_to_doubt(self) -> None:
        """Move the view to the most doubtful place; again, to the next one."""
        self._require_network()
        places = self.photo.unsure_places()
        if not places:
            raise InputError("nothing is doubtful where nothing is painted")
        place = places[self.turn % len(places)]
        self.turn += 1
        self.painter.go_to(place.grown(100, self.photo.shape))

    def _require_network(self) -> FCNN:
        if self.model is None:
            raise InputError("no network yet: paint both classes and train first")
        return self.model

    def rank(self, paths: Iterable[PathLike]) -> list[str]:
        """Rank images by how unsure the network is of them, the most doubtful first.

        Some tiles of each are looked at. Gives lines of the mean doubt, 0 to 1, and the
        name; at the end those that cannot be labelled.
        """
        predictor = Predictor(self._require_network())
        ranked: list[tuple[float, str]] = []
        problems = []
        for path in paths:
            try:
                ranked.append((self._doubt(path, predictor), str(path)))
            except InputError as error:
                problems.append(error_line(error))
        ranked.sort(reverse=True)
        return [f"{doubt:.3f}  {name}" for doubt, name in ranked] + problems

    def _doubt(self, path: PathLike, predictor: Predictor) -> float:
        image = open_image(path)
        check_side(path, image.shape)
        image.use_scale(self.photo.image.scale)
        logits = predictor.tile_logits(image.sample(4))
        doubts = [DOUBTS[in_bytes(logit)].mean() for _, logit in logits]
        return float(np.mean(doubts)) / 255

    # -------------------------------------------------------------- files

    def save(self, folder: PathLike, whole: bool = False) -> list[Path]:
        """Write the image's ground truth, mask and overlay, and the model file.

        Parameters
        ----------
        folder : str or Path
            Where to; it is made if it is missing.
        whole : bool
            Whether the ground truth is the whole mask, corrected by the strokes, or
            what is labelled alone (the rest is transparent).

        Returns
        -------
        list of Path
            The files; the ground truth is the last one.
        """
        photo, labels, network = self.photo, self.photo.labels_now(), self.model
        if (labels == UNLABELLED).all():
            raise InputError("nothing is painted on this image yet")
        if whole:
            self._require_network()
        truth, mask, overlay, model = self._outputs(Path(folder))
        written = []
        if network is not None:
            predictor = Predictor(network)
            whole_mask = np.empty(photo.shape, np.uint8)
            store = Store(whole_mask)
            pipeline.fill(store, photo.image, predictor)
            place = photo.image.place
            writing.write_mask(mask, store, BLACK_AND_WHITE, place)
            rows = drawing.overlay_rows(
                photo.image, store, drawing.tint(photo.overview)
            )
            writing.write_rows(overlay, rows, photo.shape, place=place)
            if whole:
                labels = np.where(labels == UNLABELLED, whole_mask, labels)
            photos = list(self.photos.values())
            looks = describe_images(
                network, [s for one in photos for s in one.overall()]
            )
            weights, scale = network.state_dict(), photo.image.scale
            facts = {"pixel_side": ground.pixel_side(place, photo.shape)}
            model_file.save(model, weights, looks, BLACK_AND_WHITE, scale, facts=facts)
            written = [mask, overlay, model]
        writing.write_mask(truth, Store(labels), BLACK_AND_WHITE)
        return [*written, truth]

    def _outputs(self, folder: Path) -> list[Path]:
        """Name the ground truth, mask, overlay and model file; see that they can be."""
        photo = self.photo
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_be_written(folder, error) from error
        stem = _own_name(photo.path, [p.path for p in self.photos.values()])
        # A JPEG is held whole while it is written, and a PNG is no map.
        is_map = photo.image.place is not None or is_large(photo.image)
        names = [
            f"{stem}_gt.png",
            f"{stem}_mask{'.tif' if is_map else '.png'}",
            f"{stem}_overlay{'.tif' if is_map else '.jpg'}",
            "model.pt",
        ]
        outputs = [folder / name for name in names]
        starts: list[PathLike] = [
            p.start_path for p in self.photos.values() if p.start_path
        ]
        inputs: list[PathLike] = [p.path for p in self.photos.values()]
        check_files(inputs + starts, [(path, (path.suffix,)) for path in outputs])
        return outputs


def _own_name(path: Path, others: Iterable[Path]) -> str:
    """Name an image's files by its stem, and by its folders where others have it."""
    same = [other for other in others if other.stem == path.stem and other != path]
    if not same:
        return path.stem

    def name(one: Path, count: int) -> str:
        """Join the last parts of a path, without the root."""
        return "_".join(one.absolute().parts[1:][-count:]).replace(".", "_")

    own = name(path, 1)
    for count in range(2, len(path.absolute().parts)):
        own = name(path, count)
        if all(own != name(other, count) for other in same):
            break
    return own
