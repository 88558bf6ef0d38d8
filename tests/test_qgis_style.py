"""The style in a GeoPackage: QGIS draws the objects by it, others read on."""

import json
import sqlite3
import subprocess
from contextlib import closing
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
from pyogrio import list_layers, raw
from rasterio.crs import CRS
from samples import place

from onelabel import vectors


PYTHON = "/usr/bin/python3"  # of the system: PyQGIS belongs to QGIS, not to an index

OPEN = """
import json, os, sys
from qgis.core import QgsApplication, QgsVectorLayer
app = QgsApplication([], False)
app.initQgis()
layer = QgsVectorLayer(f"{sys.argv[1]}|layername={sys.argv[2]}", "objects", "ogr")
symbol = layer.renderer().symbol()
outline = symbol.symbolLayer(0).strokeColor().getRgb()
found = layer.isValid(), layer.featureCount(), symbol.color().getRgb(), outline
print(json.dumps(found), flush=True)
os._exit(0)  # PyQGIS may crash when it ends
"""


def write(folder, count, name="my field's.gpkg"):
    """Write so many squares as polygons of a map; gives the file."""
    squares = shapely.box(4 * np.arange(count), 0, 4 * np.arange(count) + 3, 3)
    where = {**place(), "crs": CRS.from_string(place()["crs"])}
    vectors.write_polygons(folder / name, squares, {"id": np.arange(count)}, where)
    return folder / name


@pytest.mark.parametrize("count", [0, 3])
def test_the_style_is_the_default_of_the_layer(tmp_path, count):
    path = write(tmp_path, count)
    columns = "f_table_name, f_geometry_column, useAsDefault, styleQML"
    with closing(sqlite3.connect(path)) as file:
        ((layer, geometry, is_default, style),) = file.execute(
            f"SELECT {columns} FROM layer_styles"
        )
        listed = file.execute("SELECT column_name FROM gpkg_geometry_columns")
        assert listed.fetchall() == [(geometry,)]
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []
    assert (layer, is_default) == (vectors.LAYER, 1)
    assert ElementTree.fromstring(style).find("renderer-v2/symbols/symbol") is not None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("count", [0, 3])
def test_other_programs_read_the_polygons_first(tmp_path, count):
    path = write(tmp_path, count)
    names = list_layers(path)[:, 0].tolist()
    assert names == [vectors.LAYER, "layer_styles"]
    meta, _, geometry, (ids,) = raw.read(path, layer=0)
    assert meta["crs"] == place()["crs"]
    assert len(geometry) == count
    assert ids.tolist() == list(range(count))


def has_qgis():
    """Tell whether the system's Python has PyQGIS."""
    try:
        done = subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def test_qgis_draws_the_layer_by_its_style(tmp_path, monkeypatch):
    if not has_qgis():
        pytest.skip("PyQGIS is absent (Debian's package: python3-qgis)")
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    path = write(tmp_path, 3)
    command = [PYTHON, "-c", OPEN, path, vectors.LAYER]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    is_valid, count, fill, outline = json.loads(done.stdout.splitlines()[-1])
    assert is_valid
    assert count == 3
    assert fill == [255, 110, 0, 77]
    assert outline == [255, 110, 0, 255]
