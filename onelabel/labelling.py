"""Label images by strokes: paint, see what the network makes of them, correct it.

A `Session` joins the painter in the page, the lesson that trains in the background, and
the images with their labels. It needs no widget: the painter may be anything that has
its methods.
"""

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onelabel import depth, drawing, model_file, pipeline, writing
from onelabel.evaluation import describe
from onelabel.files import InputError, PathLike, one_line
from onelabel.image import spread
from onelabel.lesson import Lesson, has_both_classes
from onelabel.photo import DOUBTS, Photo
from onelabel.reading import open_image
from onelabel.resources import is_large
from onelabel.sampling import Scene
from onelabel.store import Store
from onelabel.strokes import Labels, read_labels, write_labels
from onelabel.truth import BLACK_AND_WHITE
from segutils import FCNN, Predictor, sigmoid


if TYPE_CHECKING:
    from onelabel.painter import Painter

KEPT = "labels.json"  # beside the images
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
        self.photos: dict[str, Photo] = {}
        self.scale: depth.Scale | None = None
        self.model: FCNN | None = None
        self.told = "No mask yet: paint both classes, then Train."
        self.is_eager = False  # whether each stroke begins a training
        self.lesson = Lesson(new_model, trainer, self._take_network, self._tell)
        self.wanted: tuple[Photo, Predictor] | None = None
        self.due = threading.Condition()
        threading.Thread(target=self._preview, daemon=True).start()

    # -------------------------------------------------------------- images

    def open(self, path: PathLike) -> None:
        """Show an image, with the strokes that it has; it joins those to learn from."""
        name = str(path)
        if name not in self.photos:
            labels = read_labels(Path(path).with_name(KEPT)).get(Path(path).name)
            photo = Photo(path, self.scale, labels or Labels([]))
            self.scale = photo.image.scale
            self.photos[name] = photo
        self.photo = self.photos[name]
        self._show()
        self._want()

    def _show(self) -> None:
        photo = self.photo
        red, green, blue = self.painter.colours[1]
        layers: dict[str, Any] = {"image": photo.picture}
        if photo.start is not None:
            layers["start"] = photo.start_layer
        layers["mask"] = partial(photo.mask_layer, (red, green, blue))
        layers["unsure"] = photo.doubt_layer
        self.painter.show(photo.shape, photo.strokes, layers)
        self._tell()

    def start_from(self, path: PathLike | None) -> None:
        """Correct an older ground truth or mask of the image shown."""
        self.photo.start_from(path)
        self._keep()
        self._show()

    def strokes_changed(self) -> None:
        """Take the painter's strokes over, and keep them in the file."""
        self.photo.set_strokes(self.painter.strokes)
        self._keep()
        self._tell()
        if self.is_eager:
            self.train()

    def _keep(self) -> None:
        photo = self.photo
        path = photo.path.with_name(KEPT)
        labels = read_labels(path)
        labels[photo.path.name] = Labels(photo.strokes, photo.start_path)
        write_labels(path, labels)

    # -------------------------------------------------------------- the network

    def scenes(self) -> list[Scene]:
        """Give the labelled parts of all images."""
        return [scene for photo in self.photos.values() for scene in photo.scenes()]

    def train(self) -> None:
        """Learn what is labelled, in the background, and show the mask as it grows."""
        scenes = self.scenes()
        if not has_both_classes(scenes):
            self._tell("Nothing to learn yet: paint both classes.")
            return
        if self.model is None:
            self.told = "Training: the first mask comes in a moment."
        self._tell()
        self.lesson.teach(scenes, self._count())

    def _take_network(self, model: FCNN, steps: int, known: str) -> None:
        """Show what a better network makes of the image."""
        self.model = model
        self.told = (
            f"Mask of {time.strftime('%H:%M:%S')}: knows {known}, after {steps} steps."
        )
        self._want()
        self._tell()

    def _tell(self, problem: str = "") -> None:
        """Say how much is labelled, and what the mask knows; or what went wrong."""
        shares = zip(self.photo.shares(), self.painter.names, strict=True)
        labelled = ", ".join(f"{100 * share:.2g}% {name}" for share, name in shares)
        text = f"{self._count()} painted; labelled: {labelled}."
        self.painter.status = f"{text} {problem or self.told} {ADVICE}"

    def _count(self) -> str:
        """Say how many strokes all images have."""
        return counted(sum(len(photo.strokes) for photo in self.photos.values()))

    # -------------------------------------------------------------- the mask

    def _want(self) -> None:
        """Ask for the mask of the image shown, by the network as it is."""
        if self.model is not None:
            with self.due:
                self.wanted = self.photo, Predictor(self.model)
                self.due.notify()

    def _preview(self) -> None:
        """Segment what is wanted, for ever."""
        while True:
            with self.due:
                self.due.wait_for(lambda: self.wanted is not None)
                wanted, self.wanted = self.wanted, None
            assert wanted is not None
            try:
                self._segment(*wanted)
            except Exception as error:  # whatever it is, the page must show it
                self._tell(one_line(error))

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
        """Move the view to the place where the network is most in doubt."""
        place = self.photo.unsure_places()[0]
        self.painter.go_to(place.grown(100, self.photo.shape))

    def rank(self, paths: Iterable[PathLike]) -> list[tuple[float, str]]:
        """Rank images by how unsure the network is of them, the most doubtful first.

        Some tiles of each are looked at. Gives the mean doubt, 0 to 1, and the name.
        """
        if self.model is None:
            raise InputError("no network yet: paint and train first")
        ranked = []
        for path in paths:
            image = open_image(path)
            image.use_scale(self.scale)
            sample = spread(image.sample(), 4)
            logits = Predictor(self.model).tile_logits(sample)
            doubt = [
                DOUBTS[(255 * sigmoid(z)).astype(np.uint8)].mean() for _, z in logits
            ]
            ranked.append((float(np.mean(doubt)) / 255, str(path)))
        return sorted(ranked, reverse=True)

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
        photo, folder = self.photo, Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stem, image, colours = photo.path.stem, photo.image, BLACK_AND_WHITE
        truth, labels = folder / f"{stem}_gt.png", photo.labels
        written = []
        if self.model is not None:
            # A JPEG is held whole while it is written, and a PNG is no map.
            is_map = image.place is not None or is_large(image)
            drawn, pictured = (".tif", ".tif") if is_map else (".png", ".jpg")
            mask = folder / f"{stem}_mask{drawn}"
            overlay = folder / f"{stem}_overlay{pictured}"
            whole_mask = np.empty(photo.shape, np.uint8)
            store = Store(whole_mask)
            pipeline.fill(store, image, Predictor(self.model))
            writing.write_mask(mask, store, colours, image.place)
            rows = drawing.overlay_rows(image, store, drawing.tint(photo.overview))
            writing.write_rows(overlay, rows, photo.shape, place=image.place)
            if whole:
                labels = np.where(labels <= 1, labels, whole_mask)
            model = folder / "model.pt"
            described = [s for one in self.photos.values() for s in one.described()]
            looks = describe(self.model, described)
            weights = self.model.state_dict()
            model_file.save(model, weights, looks, colours, self.scale)
            written = [mask, overlay, model]
        writing.write_mask(truth, Store(labels), colours)
        return [*written, truth]


def counted(strokes: int) -> str:
    """Count strokes in words."""
    return "1 stroke" if strokes == 1 else f"{strokes} strokes"
