"""Objects as labels within an OME-Zarr image."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import predict_here
from skimage.measure import label

from onelabel.reading import open_image


def write_image(path, pixels, version):
    """Write an OME-Zarr image of an array (H, W, 3), with the axes t, c, z, y, x."""
    kind = {"zarr_format": 2 if version == "0.4" else 3}
    group = zarr.open_group(path, mode="w", **kind)
    planes = pixels.transpose(2, 0, 1)[None, :, None]  # (1, 3, 1, H, W)
    array = group.create_array("0", shape=planes.shape, dtype=planes.dtype)
    array[:] = planes
    axes = [{"name": name} for name in "tczyx"]
    scale = {"type": "scale", "scale": [1, 1, 2, 0.5, 0.25]}
    moved = {"type": "translation", "translation": [0, 9, 0, 100, 200]}
    dataset = {"path": "0", "coordinateTransformations": [scale, moved]}
    twice = {"type": "scale", "scale": [1, 1, 2, 2, 2]}
    whole = {"coordinateTransformations": [twice], "datasets": [dataset]}
    facts = {"multiscales": [{"axes": axes, **whole}]}
    group.attrs.update(
        facts if version == "0.4" else {"ome": {"version": version, **facts}}
    )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_lie_where_ome_zarr_keeps_them(trained_file, scene, version):
    write_image("a.zarr", scene[0], version)
    for _ in range(2):  # the second time they are replaced
        made = predict_here(
            *("a.zarr", "--output", "mask.png", "--label-image", "a.zarr/labels/trees")
        )
        assert made == 0
    labels = zarr.open_group("a.zarr/labels", mode="r")
    facts = labels.attrs if version == "0.4" else labels.attrs["ome"]
    assert facts["labels"] == ["trees"]
    own = labels["trees"].attrs if version == "0.4" else labels["trees"].attrs["ome"]
    assert own["image-label"] == {"source": {"image": "../../"}}
    multiscale = own["multiscales"][0]
    assert [axis["name"] for axis in multiscale["axes"]] == list("tzyx")
    scale, moved = multiscale["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1, 2, 0.5, 0.25]
    assert moved == {"type": "translation", "translation": [0, 0, 100, 200]}
    assert multiscale["coordinateTransformations"][0]["scale"] == [1, 2, 2, 2]
    mask = open_image("mask.png").whole()[..., 0] > 100
    ids = labels["trees/0"][0, 0]
    np.testing.assert_array_equal(ids, label(mask, connectivity=2))
    # The image itself is still read as one.
    np.testing.assert_array_equal(open_image("a.zarr").whole(), scene[0])


def test_a_mask_that_is_there_gives_labels_in_folders_that_are_not(trained_file, scene):
    assert predict_here("--output", "mask.png") == 0
    write_image("a.zarr", scene[0], "0.4")
    line = "--from-mask", "mask.png", "--label-image", "a.zarr/labels/trees"
    assert predict_here(*line) == 0
    assert zarr.open_group("a.zarr/labels", mode="r")["trees/0"][0, 0].any()


def test_labels_of_what_is_no_such_image_are_refused_before_any_work(
    trained_file, scene, capsys
):
    zarr.save_array("plain.zarr", scene[0])
    arguments = ("--output", "m.png", "--label-image", "plain.zarr/labels/x")
    assert predict_here("data/rgb.png", *arguments) == 2
    assert "no OME-Zarr" in capsys.readouterr().err


def test_labels_of_an_image_of_another_size_are_refused(trained_file, scene, capsys):
    write_image("a.zarr", scene[0][:40], "0.5")
    arguments = ("--output", "m.png", "--label-image", "a.zarr/labels/x")
    assert predict_here("data/rgb.png", *arguments) == 2
    assert "has another size" in capsys.readouterr().err


def test_a_name_that_would_hide_what_the_store_needs_is_refused(
    trained_file, scene, capsys
):
    write_image("a.zarr", scene[0], "0.4")
    arguments = ("--output", "m.png", "--label-image", "a.zarr/labels/.zattrs")
    assert predict_here("data/rgb.png", *arguments) == 2
    assert "a name without a dot" in capsys.readouterr().err
    assert not Path("a.zarr/labels").exists() and not Path("m.png").exists()
