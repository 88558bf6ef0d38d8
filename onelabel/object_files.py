"""What predict.py does with a mask's objects: cleaning, counting, files of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from onelabel import components, ground, objects, ome_labels, outlines, vectors
from onelabel.image import Image, Place
from onelabel.libraries import OBJECTS, has, require
from onelabel.reading import IN_MEMORY
from onelabel.store import Store


SUFFIXES = {  # of the file of each option
    "objects": (".csv",),
    "label-image": (".png", ".tif", ".tiff"),
    "polygons": tuple(vectors.DRIVERS),
    "rois": (".zip", ".geojson"),
}
LIBRARIES = {  # that it needs, beside those that find the objects
    "objects": (),
    "label-image": (),
    "polygons": ("shapely", "rasterio", "pyogrio"),
    "rois": ("shapely", "rasterio", "roifile"),
}
FINDING = ("scipy", "skimage")
OBJECT_BYTES = 10_000  # of memory, measured with an outline of 65 corners


class Wanted(NamedTuple):
    """What is to be done with the objects of a mask."""

    min_area: ground.Area | None  # smaller objects are removed
    fill_holes: ground.Area | None  # smaller holes are filled
    simplify: float  # how far, in pixels, a polygon may be from the outline
    files: dict[str, str]  # of the options of `SUFFIXES`

    @classmethod
    def by(cls, options: Mapping[str, Any]) -> "Wanted":
        """Take it from the options of the command line."""
        named = {name: options[name.replace("-", "_")] for name in SUFFIXES}
        files = {name: path for name, path in named.items() if path}
        return cls(
            options["min_area"], options["fill_holes"], options["simplify"], files
        )

    @property
    def cleaning(self) -> dict[str, object]:
        """Say in plain values what is done to the mask itself, if anything."""
        if not (self.min_area or self.fill_holes):
            return {}
        return {"min_area": self.min_area, "fill_holes": self.fill_holes}

    @property
    def needs_logits(self) -> bool:
        """Whether the objects' mean probabilities are asked for."""
        return bool(set(self.files) - {"label-image"})

    @property
    def memory(self) -> str:
        """Say what the objects take beside what is known before they are counted."""
        return (
            f"; each object takes {OBJECT_BYTES // 1000} kB more" if self.files else ""
        )

    def check(self) -> None:
        """Refuse what needs a library that is not installed."""
        for option, path in self.files.items():
            for library in (*FINDING, *LIBRARIES[option]):
                require(path, library, f"--{option}", OBJECTS)
        if "polygons" in self.files:
            vectors.check_name(self.files["polygons"])
        labels = self.files.get("label-image", "")
        if ome_labels.is_labels_name(labels):
            ome_labels.check_image(labels)
        if self.cleaning:
            option = "--min-area" if self.min_area else "--fill-holes"
            require(option, "scipy", "cleaning", OBJECTS)

    def check_image(self, image: Image) -> None:
        """Refuse an image that does not say how large its pixels are, or where."""
        for area in filter(None, (self.min_area, self.fill_holes)):
            ground.in_pixels(area, image.path, image.place, image.shape)
        if "polygons" in self.files:
            vectors.check_place(self.files["polygons"], image.place)
        labels = self.files.get("label-image", "")
        if ome_labels.is_labels_name(labels):
            ome_labels.check_size(labels, image.shape)

    def clean(self, store: Store, image: Image) -> None:
        """Remove the small objects of a mask, then fill its small holes."""
        of_image = image.path, image.place, image.shape
        if self.min_area:
            area = ground.in_pixels(self.min_area, *of_image)
            components.remove_small(store, area)
        if self.fill_holes:
            area = ground.in_pixels(self.fill_holes, *of_image)
            components.fill_small(store, area)

    def write(self, store: Store, place: Place | None) -> int | None:
        """Write the files that are asked for; give the number of objects.

        It is None where counting them takes a while that nobody asked for.
        """
        if not self.files:
            is_quick = store.mask.size <= IN_MEMORY and has("scipy")
            return components.count(store) if is_quick else None
        found, files = objects.find(store, place), self.files
        table = found.table
        if "objects" in files:
            objects.write_table(files["objects"], table)
        if "label-image" in files:
            objects.write_label_image(files["label-image"], found, place)
        if "polygons" in files or "rois" in files:
            drawn = outlines.outline(found)
        if "polygons" in files:
            columns = {"class": np.ones_like(table["id"]), **table}
            simple = outlines.simplified(drawn, self.simplify)
            vectors.write_polygons(files["polygons"], simple, columns, place)
        if "rois" in files:
            outlines.write_rois(files["rois"], drawn, table)
        return len(table["id"])
