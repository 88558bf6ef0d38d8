"""The objects of an OME-Zarr image as its labels, where such images keep them."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onelabel.files import InputError, PathLike, is_zarr, is_zarr_name, replace_folder
from onelabel.image import SIDE, STRIP, strips
from onelabel.libraries import require


LABELS = "labels"  # the group of an image that holds its labels


def is_labels_name(path: PathLike) -> bool:
    """Tell whether a name is ``IMAGE/labels/NAME``, where IMAGE is a Zarr group.

    One that is missing, but is named as a Zarr group, counts, too.
    """
    folder = Path(path).parent
    image = folder.parent
    return folder.name == LABELS and (is_zarr(image) or is_zarr_name(image))


def check_size(path: PathLike, shape: tuple[int, int]) -> None:
    """Refuse labels for an image of another size."""
    import zarr

    image = zarr.open_group(Path(path).parent.parent, mode="r")
    if _multiscale(path, image)[1] != shape:
        raise InputError(f"{path}: the image has another size than the mask")


def check_image(path: PathLike) -> None:
    """Refuse labels of what is no OME-Zarr image, before any work is done."""
    require(path, "zarr", "labels of an OME-Zarr image")
    import zarr

    if not is_zarr(Path(path).parent.parent):
        raise InputError(f"{path}: there is no such OME-Zarr image (write a .tif)")
    if Path(path).name.startswith("."):
        raise InputError(f"{path}: labels have a name without a dot before it")
    try:
        image = zarr.open_group(Path(path).parent.parent, mode="r")
        _multiscale(path, image)
    except Exception as error:  # damaged metadata raises anything
        raise InputError(
            f"{path}: the image is no OME-Zarr of version 0.4 or later (write a .tif)"
        ) from error


def write_labels(
    path: PathLike, rows: Iterable[np.ndarray], shape: tuple[int, int]
) -> None:
    """Write labels into an OME-Zarr image, as NGFF 0.4 and 0.5 have them.

    They have the axes of the image but for its channels, and the scale of its first
    resolution. Labels of the same name are replaced.

    Parameters
    ----------
    path : str or Path
        ``IMAGE/labels/NAME``.
    rows : iterable of ndarray, (h, W) uint32
        Each pixel's object, 0 for none, in strips from the top.
    shape : (int, int)
        The image's height and width.

    Raises
    ------
    InputError
        The image has another size.
    """
    import zarr

    name, folder = Path(path).name, Path(path).parent
    image: Any = zarr.open_group(folder.parent, mode="r")
    kind: Any = {"zarr_format": image.metadata.zarr_format}
    check_size(path, shape)
    multiscale, _ = _multiscale(path, image)
    first = (1,) * (len(multiscale["axes"]) - 2)  # of the axes before height and width
    part = folder / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    labels: Any = zarr.open_group(folder, mode="a", **kind)
    group: Any = zarr.open_group(part, mode="w", **kind)
    source = {"source": {"image": "../../"}}
    _note(group, {"multiscales": [multiscale], "image-label": source})
    chunks = (*first, STRIP, min(SIDE, shape[1]))
    sizes: Any = {"shape": (*first, *shape), "chunks": chunks, "dtype": "uint32"}
    array = group.create_array("0", fill_value=0, **sizes)
    for block, ids in zip(strips(shape), rows, strict=True):
        array[(..., *block.slices)] = ids.reshape(*first, *ids.shape)
    replace_folder(part, path)
    known = _facts(labels.attrs).get(LABELS, [])
    _note(labels, {LABELS: [*(other for other in known if other != name), name]})


def _facts(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give OME-Zarr's own attributes: since version 0.5 they are kept together."""
    return attributes.get("ome", attributes)


def _note(group: Any, facts: Mapping[str, Any]) -> None:
    """Add OME-Zarr's attributes to a group."""
    if group.metadata.zarr_format == 2:
        group.attrs.update(facts)
    else:
        known = group.attrs.get("ome", {"version": "0.5"})
        group.attrs["ome"] = {**known, **facts}


def _multiscale(path: PathLike, group: Any) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Describe the labels' one resolution, after the image's first; give its size."""
    image = _facts(group.attrs)["multiscales"][0]
    kept = [i for i, axis in enumerate(image["axes"]) if axis["name"] != "c"]
    first = image["datasets"][0]

    def changes(known: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Give the transformations, without the channels."""
        kinds = [(c["type"], c[c["type"]]) for c in known["coordinateTransformations"]]
        return [{"type": t, t: [values[i] for i in kept]} for t, values in kinds]

    multiscale = {
        "name": Path(path).name,
        "axes": [image["axes"][i] for i in kept],
        "datasets": [{"path": "0", "coordinateTransformations": changes(first)}],
    }
    if "coordinateTransformations" in image:
        multiscale["coordinateTransformations"] = changes(image)
    if group.metadata.zarr_format == 2:
        multiscale["version"] = "0.4"
    return multiscale, group[first["path"]].shape[-2:]
