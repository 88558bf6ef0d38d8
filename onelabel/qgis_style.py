"""How QGIS draws the objects of a GeoPackage: a style that the file itself holds."""

import sqlite3
from contextlib import closing
from pathlib import Path


NAME = "objects"
COLOUR = "255,110,0"  # an orange that is seen on soil, leaves and stone

# The table as QGIS 3.22 makes it. Of a layer it takes the style that is the default.
TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256),
    f_table_schema TEXT(256),
    f_table_name TEXT(256),
    f_geometry_column TEXT(256),
    styleName TEXT(30),
    styleQML TEXT,
    styleSLD TEXT,
    useAsDefault BOOLEAN,
    description TEXT,
    owner TEXT(30),
    ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""

LIST_TABLE = """
INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id)
VALUES ('layer_styles', 'attributes', 'layer_styles', 0)
"""

ADD_STYLE = """
INSERT INTO layer_styles (
    f_table_catalog, f_table_schema, f_table_name, f_geometry_column,
    styleName, styleQML, useAsDefault, description, owner
)
SELECT '', '', table_name, column_name, ?, ?, 1, 'Outlines of objects', ''
FROM gpkg_geometry_columns WHERE table_name = ?
"""

QML = f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22" styleCategories="Symbology">
 <renderer-v2 type="singleSymbol">
  <symbols>
   <symbol type="fill" name="0" alpha="1">
    <layer class="SimpleFill">
     <Option type="Map">
      <Option type="QString" name="style" value="solid"/>
      <Option type="QString" name="color" value="{COLOUR},77"/>
      <Option type="QString" name="outline_style" value="solid"/>
      <Option type="QString" name="outline_color" value="{COLOUR},255"/>
      <Option type="QString" name="outline_width" value="0.4"/>
      <Option type="QString" name="outline_width_unit" value="MM"/>
      <Option type="QString" name="joinstyle" value="round"/>
     </Option>
    </layer>
   </symbol>
  </symbols>
 </renderer-v2>
 <layerGeometryType>2</layerGeometryType>
</qgis>
"""


def add_style(path: Path, layer: str) -> None:
    """Let QGIS draw a layer of a GeoPackage as outlines, their inside see-through.

    Parameters
    ----------
    path : Path
        A GeoPackage without styles.
    layer : str
        The name of its layer of polygons.
    """
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(TABLE)
        file.execute(LIST_TABLE)
        file.execute(ADD_STYLE, (NAME, QML, layer))
