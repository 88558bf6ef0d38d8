"""Measure how quick the notebooks' sliders are, in a kernel as a person has it.

    pip install -r benchmarks/requirements.txt
    python benchmarks/widgets.py

Runs the three notebooks in a copy of the project, with a briefly trained model, then
moves each of their controls to values all over its range. The times until the new
pictures stand are written to benchmarks/results.md. It takes a few minutes.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import report  # noqa: E402

from onelabel import console  # noqa: E402 - from the folder above


TARGET = 0.5  # seconds
# Few epochs: the pictures take the same time after more. predict.ipynb is the last, as
# it needs the model that train.ipynb writes.
NOTEBOOKS = {
    "explore": {},
    "train": {"LESSON = 800": "LESSON = 100"},
    "predict": {},
}

# The last cell of each notebook. A control's callbacks have run, and drawn, when the
# setting of its value returns. Moves that change no picture are not counted.
MEASURE = """
import json
import random
import time

MOVES = 20


def moves_of(control):
    if hasattr(control, "options"):
        places = range(len(control.options))
        return "index", [places[i % len(places)] for i in range(MOVES)]
    if hasattr(control, "max"):
        values = [control.min + (control.max - control.min) * i / (MOVES - 1)
                  for i in range(MOVES)]
        whole = isinstance(control.value, int)
        return "value", [round(value) if whole else value for value in values]
    return "value", []


found = [thing for thing in globals().values() if isinstance(thing, widgets.Widget)]
pictures = [widget for widget in found if isinstance(widget, widgets.Image)]
controls = {}
for widget in found:
    label = getattr(widget, "description", "") or getattr(widget, "tooltip", "")
    controls[label] = widget
seconds = {}
for name, control in controls.items():
    trait, moves = moves_of(control)
    first = getattr(control, trait, None)
    random.Random(0).shuffle(moves)
    for move in moves:
        before = [picture.value for picture in pictures]
        start, work = time.perf_counter(), time.process_time()
        setattr(control, trait, move)
        took = time.perf_counter() - start, time.process_time() - work
        if before != [picture.value for picture in pictures]:
            seconds.setdefault(name, []).append(took)
    if moves:
        setattr(control, trait, first)  # the others are measured as a person finds them
print(json.dumps(seconds))
"""


def measure(project, name, changes):
    """Run a notebook of a project; give the seconds of each control's moves."""
    notebook = nbformat.read(project / f"notebooks/{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    notebook.cells.append(nbformat.v4.new_code_cell(MEASURE))
    NotebookClient(
        notebook,
        timeout=1800,
        store_widget_state=False,
        resources={"metadata": {"path": str(project / "notebooks")}},
    ).execute()
    said = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    return json.loads(said.splitlines()[-1])


def table(found):
    """Lay the times out: lines of Markdown."""
    lines = [
        "| notebook | control | median, s | worst, s | median of the processor's, s |",
        "|---|---|---|---|---|",
    ]
    for name, controls in found.items():
        for control, moves in controls.items():
            (median, work), worst = np.median(moves, 0), np.max(moves, 0)[0]
            cells = (f"{seconds:.2f}" for seconds in (median, worst, work))
            lines.append(f"| {name}.ipynb | {control} | {' | '.join(cells)} |")
    return lines


def main():
    """Measure, and put the table into results.md."""
    console.Parser(description="Measure how quick the sliders are.").parse_args()
    made = shutil.ignore_patterns(".*", "__pycache__", "*.pt", "masks")  # by runs
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        shutil.copytree(ROOT, project, ignore=made)
        for name, changes in tqdm(NOTEBOOKS.items(), disable=None):
            found[name] = measure(project, name, changes)
    every = [np.median(m, 0)[0] for group in found.values() for m in group.values()]
    text = [
        "`python benchmarks/widgets.py`; seconds of kernel time from the move of a "
        "control to the new pictures, on the sample scene, 2 threads, 20 moves each. "
        "Where other work slows the machine, the processor's seconds tell how much of "
        f"that is the kernel's own. {sum(m <= TARGET for m in every)} of {len(every)} "
        f"controls are within {TARGET} s in the median. (`image` is the drop-down: "
        "another image is read and segmented, too.)",
        "",
        *table(found),
    ]
    report.write_part("How quick the notebooks' sliders are", "\n".join(text))


if __name__ == "__main__":
    raise SystemExit(console.run(main))
