"""Run explore.ipynb and store its pictures in it, for readers who do not run it.

    python notebooks/store_pictures.py

They are stored small, and nothing else is: no text, no widget, no trace of the run.
"""

import base64
import io
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image


NOTEBOOK = Path(__file__).resolve().parent / "explore.ipynb"
LARGEST = (800, 440)  # pixels
COLOURS = 64  # all colours of a photograph would take six times the space


def small(png):
    """Make a PNG in base 64 small: at most `LARGEST` pixels, and few colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.thumbnail(LARGEST)
    file = io.BytesIO()
    # The octree keeps colours of few pixels, such as those of lines.
    few = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=0)
    few.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def only_pictures(outputs):
    """Keep what is a picture of the outputs of a cell.

    Parameters
    ----------
    outputs : list of nbformat.NotebookNode
        What the cell has put out.

    Returns
    -------
    list of nbformat.NotebookNode
        Its pictures alone, small.
    """
    pictures = (output.get("data", {}).get("image/png") for output in outputs)
    return [
        nbformat.v4.new_output("display_data", {"image/png": small(picture)})
        for picture in pictures
        if picture
    ]


def main():
    """Run the notebook, and store its pictures in it."""
    clean, run = (nbformat.read(NOTEBOOK, as_version=4) for _ in range(2))
    options = {"store_widget_state": False, "timeout": 600}
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(run, resources=place, **options).execute()
    for cell, executed in zip(clean.cells, run.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs = only_pictures(executed.outputs)
    nbformat.write(clean, NOTEBOOK)


if __name__ == "__main__":
    main()
