"""Measure what labels by strokes are worth, painted by a simulated annotator.

    pip install -r benchmarks/requirements.txt
    python benchmarks/strokes.py [FOLDER]

FOLDER as for accuracy.py. The annotator paints a stroke inside each class; then, again
and again, one for each class, until there are 40. It paints in the middle of the
largest region that lacks the class ("corrections", as the literature on interactive
segmentation does), where the network is most in doubt ("doubt"), or anywhere
("random"). After each round the network trains as in label.ipynb. scikit-image's forest
learns the corrections, too. The tables and a chart are put into benchmarks/results.md.
"""

import sys
import time
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import accuracy  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402

import segutils  # noqa: E402 - from the folder above
import train  # noqa: E402
from onelabel import console, evaluation, lesson, pictures, scores  # noqa: E402
from onelabel.photo import Photo  # noqa: E402
from onelabel.strokes import Stroke  # noqa: E402
from segutils import Block  # noqa: E402


SEEDS = (0, 1)
MARKS = (4, 10, 20, 40)  # strokes after which new images are segmented
FOREST_MARKS = (40,)  # the same for the forest, which takes longer
MORE = (200, 400, 800, 1600)  # steps of the trainings after the last stroke
WAYS = ("corrections", "doubt", "random")
DIRECTIONS = 12  # of a stroke through a place

# ------------------------------------------------------------------ the annotator


class Annotator:
    """Paints strokes, and knows the truth.

    Parameters
    ----------
    truth : ndarray, (H, W) uint8
        0, 1 or `UNLABELLED`.
    seed : int
        Of where it paints, as far as that is open.
    """

    def __init__(self, truth, seed):
        self.truth, self.draws = truth, np.random.default_rng(seed)
        self.depths = [depth_inside(truth == label) for label in (0, 1)]
        longest = max(truth.shape)
        self.largest, self.reach = max(longest // 200, 1), max(longest // 25, 3)
        self.count = 0

    def stroke(self, place, region=None):
        """Paint through a place, inside its class, and inside a region if one is given.

        Of some directions the one with the longest way is taken.
        """
        label = int(self.truth[place])
        depth = self.depths[label]
        radius = int(np.clip(depth[place] / 2 - 1, 0, self.largest))
        is_open = depth > radius + 0.5
        if region is not None:
            is_open &= region
        turned = self.draws.uniform(0, np.pi / DIRECTIONS)
        ways = []
        for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS + turned:
            along = np.array([np.sin(angle), np.cos(angle)])
            ends = [self._go(place, way, is_open) for way in (along, -along)]
            ways.append((np.ptp(ends, axis=0).max(), ends))
        ends = max(ways, key=lambda way: way[0])[1]
        self.count += 1
        points = tuple((int(x), int(y)) for y, x in ends)
        return Stroke(str(self.count), label, radius, points)

    def _go(self, place, along, is_open):
        """Go from a place until the way is closed: row and column."""
        steps = np.arange(1, self.reach + 1)[:, None]
        path = np.round(place + steps * along).astype(int)
        inside = ((path >= 0) & (path < self.truth.shape)).all(1)
        path = path[inside]
        closed = np.nonzero(~is_open[path[:, 0], path[:, 1]])[0]
        path = path[: closed[0]] if len(closed) else path
        return path[-1] if len(path) else np.array(place)

    def first(self):
        """Paint well inside each class."""
        for label, depth in enumerate(self.depths):
            is_label = self.truth == label
            deep = depth >= np.percentile(depth[is_label], 70)
            yield self.stroke(self._any(deep & is_label))

    def more(self, way, photo):
        """Paint once for each class, in one of the ways."""
        if way == "corrections":
            return self.corrections(photo)
        return self.at_doubt(photo) if way == "doubt" else self.anywhere()

    def corrections(self, photo):
        """Paint in the middle of the largest region that lacks each class."""
        mask = photo.probability > 127
        for label in (0, 1):
            lacking, count = ndimage.label((mask != label) & (self.truth == label))
            if not count:
                continue
            sizes = np.bincount(lacking.ravel())
            largest = sizes[1:].argmax() + 1
            place = ndimage.find_objects(lacking)[largest - 1]
            depth = depth_inside(lacking[place] == largest)
            at = np.unravel_index(depth.argmax(), depth.shape)
            corner = [part.start for part in place]
            yield self.stroke(tuple(np.add(at, corner)), lacking == largest)

    def at_doubt(self, photo):
        """Paint where the network is most in doubt, once where each class is."""
        places = photo.unsure_places(most=200)
        for label in (0, 1):
            for place in places:
                inside = np.zeros(self.truth.shape, bool)
                inside[place.slices] = self.truth[place.slices] == label
                if inside.any():
                    depth = np.where(inside, self.depths[label], 0)
                    yield self.stroke(np.unravel_index(depth.argmax(), depth.shape))
                    break

    def anywhere(self):
        """Paint anywhere in each class."""
        for label in (0, 1):
            yield self.stroke(self._any(self.truth == label))

    def _any(self, where):
        rows, cols = np.nonzero(where)
        index = self.draws.integers(len(rows))
        return int(rows[index]), int(cols[index])


def depth_inside(region):
    """Give each pixel's distance to the nearest one outside a region."""
    return ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]


# ------------------------------------------------------------------ what it is worth


def measure(way, family, seed):
    """Paint and train; give rows of figures: strokes, seconds, IoU labelled and new."""
    photo = Photo(family.folder / "rgb.png")
    annotator = Annotator(family.truth, seed)
    pupil = lesson.Lesson(train.new_model, train.Trainer, print)
    pupil.steps = 10_000 * seed  # the seed of its first training
    strokes, rows, seconds = list(annotator.first()), [], 0.0
    rows_of_forest = []

    def practise(length):
        nonlocal seconds
        start = time.perf_counter()
        scenes = photo.scenes()
        pupil.model = pupil.train_once(scenes, photo.others(), length)
        seconds += time.perf_counter() - start

    def note(name):
        mask = (photo.probability > 127).astype(np.uint8)
        own = scores.scores(mask, family.truth)["IoU"]
        rows.append((name, seconds, own, iou_of_new(pupil.model, family, photo)))

    while True:
        photo.set_strokes(strokes)
        practise(lesson.FIRST)
        segment(photo, pupil.model)
        if len(strokes) in MARKS:
            note(len(strokes))
        if len(strokes) in FOREST_MARKS and way == "corrections":
            figure = iou_of_forest(family, photo.labels, seed)
            rows_of_forest.append((len(strokes), *figure))
        if len(strokes) >= MARKS[-1]:
            break
        added = list(annotator.more(way, photo))
        if len(added) < 2:  # nothing is wrong any more, or in doubt
            added = [*added, *annotator.anywhere()][:2]
        strokes += added
    for length in MORE:
        practise(length)
    segment(photo, pupil.model)
    note("more")
    return rows, rows_of_forest


def segment(photo, model):
    """Segment the labelled image."""
    predictor = segutils.Predictor(model)
    for part in photo.parts_from(Block(0, 0, 1, 1)):
        photo.segment(predictor, part)


def iou_of_new(model, family, photo):
    """Segment the new images as predict.py does."""
    looks = evaluation.describe_images(model, photo.overall())
    return accuracy.own_light_iou(model, looks, family.new)


def iou_of_forest(family, labels, seed):
    """Train scikit-image's forest on labels; IoU on the labelled image and on new."""
    forest = peers.train_forest(family.rgb, labels, Block(0, 0, 0, 0), seed)
    own = scores.scores(peers.forest_mask(forest, family.rgb), family.truth)["IoU"]
    masks = [peers.forest_mask(forest, rgb) for _, rgb, _ in family.new]
    return own, accuracy.pooled_scores(masks, accuracy.truths(family))["IoU"]


# ------------------------------------------------------------------ all


def table(found, results, way):
    """Lay out one way's IoU of new images against the number of strokes."""
    columns = [*map(str, MARKS), "and 3,000 steps"]
    lines = report.heads(*columns, "the labelled image then", "seconds")
    for family in found:
        runs = results[family.name, way]
        new = np.mean([[row[3] for row in rows] for rows in runs], axis=0)
        own = np.mean([rows[-1][2] for rows in runs])
        seconds = np.mean([rows[-2][1] for rows in runs])
        cells = [f"{value:.3f}" for value in [*new, own]]
        lines.append(f"| {family.name} | {' | '.join(cells)} | {seconds:.0f} |")
    return lines


def table_of_forest(found, forests):
    """Lay out the forest's IoU: new images, and the labelled one."""
    marks = product(FOREST_MARKS, ("new", "own"))
    lines = report.heads(*(f"{mark} strokes: {what}" for mark, what in marks))
    for family in found:
        mean = np.mean([[row[1:] for row in run] for run in forests[family.name]], 0)
        cells = [f"{value:.3f}" for own, new in mean for value in (new, own)]
        lines.append(f"| {family.name} | {' | '.join(cells)} |")
    return lines


def chart(found, results, forests):
    """Draw IoU of new images against strokes, a panel for each family."""
    with matplotlib.rc_context(pictures.STYLE):
        figure = Figure(figsize=(10, 5), layout="constrained")
        axes = figure.subplots(2, 4, sharex=True, sharey=True).ravel()
        colours = (pictures.BLUE, pictures.ORANGE, pictures.GREEN)
        for axis, family in zip(axes, found, strict=False):
            for way, colour in zip(WAYS, colours, strict=True):
                runs = results[family.name, way]
                values = np.mean([[r[3] for r in rows[:-1]] for rows in runs], 0)
                axis.plot(MARKS, values, color=colour, label=way)
            mean = np.mean([[r[2] for r in run] for run in forests[family.name]], 0)
            axis.plot(
                FOREST_MARKS, mean, "s", color=pictures.VERMILLION, label="forest"
            )
            axis.set(title=family.name, ylim=(0, 1))
        axes[0].legend()
        figure.supxlabel("strokes")
        figure.supylabel("IoU on new images")
    pictures.save(figure, ROOT / "benchmarks/strokes.png")


def main():
    """Measure, and put the tables into results.md."""
    parser = console.Parser(description="Measure what labels by strokes are worth.")
    parser.add_argument("folder", type=Path, nargs="?", default=accuracy.SCENES)
    args = parser.parse_args()
    found = [*accuracy.families(args.folder), accuracy.own_family()]
    jobs = [(way, family, seed) for way in WAYS for family in found for seed in SEEDS]
    results = {(family.name, way): [] for family in found for way in WAYS}
    forests = {family.name: [] for family in found}
    for (way, family, _), (rows, of_forest) in peers.one_thread_each(measure, jobs):
        results[family.name, way].append(rows)
        if of_forest:
            forests[family.name].append(of_forest)
    lines = [
        f"`python benchmarks/strokes.py`; the mean of {len(SEEDS)} seeds. A simulated "
        "annotator paints 40 strokes on the labelled image; after each two, the "
        f"network trains {lesson.FIRST} steps. IoU of new images against the number of "
        "strokes; seconds of training, one thread, beside another.",
        "",
        "![IoU against strokes](strokes.png)",
    ]
    for way in WAYS:
        lines += ["", f"## Strokes by {way}", "", *table(found, results, way)]
    lines += ["", "## The forest, on the corrections", ""]
    chart(found, results, forests)
    report.write_part(
        "What strokes are worth", "\n".join(lines + table_of_forest(found, forests))
    )


if __name__ == "__main__":
    raise SystemExit(console.run(main))
