"""Measure how quick label.ipynb is, in JupyterLab in a real browser.

    pip install -r requirements/dev.txt     # and Debian's package chromium
    python benchmarks/painting.py

Two things, both put into benchmarks/results.md: how long a move of the brush takes to
be drawn, on 2,000x2,000 pixels with 200 strokes before, also while the kernel computes;
and how long it takes from *Train* to the first mask and to those after it.
"""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest


ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import browser as lab  # noqa: E402 - from the folder of tests
import report  # noqa: E402

from onelabel import console  # noqa: E402 - from the folder above


# The fixtures: this file is run by pytest, too, as the tests in a browser are.
browser, checkout, page, server = lab.browser, lab.checkout, lab.page, lab.server

FOUND = Path(os.environ.get("FOUND", os.devnull))  # where the figures are collected
SIDE, BRUSH, BEFORE, MOVES = 2000, 100, 200, 60

PAINTER = f"""
import os
if os.path.basename(os.getcwd()) == "notebooks":
    os.chdir("..")
import numpy as np
from onelabel.painter import Painter
from onelabel.strokes import Stroke

draws = np.random.default_rng(0)
image = draws.integers(0, 255, ({SIDE}, {SIDE}, 3)).astype(np.uint8)
strokes = []
for number in range({BEFORE}):
    path = draws.integers(0, {SIDE}, 2) + draws.integers(-9, 10, (40, 2)).cumsum(0)
    points = tuple(map(tuple, path.tolist()))
    strokes.append(Stroke(str(number), number % 2, {BRUSH} // 2, points))
painter = Painter()
painter.show(image.shape[:2], strokes, {{
    "image": lambda block, step: image[block.slices][::step, ::step]
}})
painter
"""
BUSY = (
    "end = __import__('time').time() + 20\nwhile __import__('time').time() < end: pass"
)
SET_SIZE = """size => {
    const slider = document.querySelector(".onelabel-painter input[type=range]");
    slider.value = size;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
}"""


def note(name, values):
    """Collect figures under a name."""
    with FOUND.open("a") as file:
        file.write(json.dumps([name, values]) + "\n")


def latencies(painting):
    """Paint a long stroke; give the time of each move to its frame, in ms."""
    x, y = painting.place((200, 200))
    painting.page.mouse.move(x, y)
    painting.page.mouse.down()
    found = []
    for move in range(MOVES):
        painting.page.mouse.move(x + 3 * move, y + 2 * (move % 40))
        painting.page.wait_for_timeout(30)
        found.append(painting.ask("latency"))
    painting.page.mouse.up()
    return found


def test_the_brush(page, server, checkout):
    """Measure how long a move of the brush takes to be drawn."""
    lab.open_and_run(page, server, lab.write_notebook(checkout, "brush", PAINTER))
    painting = lab.Painting(page, checkout)
    page.evaluate(SET_SIZE, BRUSH)
    note("a move of the brush", latencies(painting))
    name = lab.write_notebook(checkout, "busy", PAINTER, BUSY)
    lab.open_and_start(page, server, name)
    painting = lab.Painting(page, checkout)
    page.evaluate(SET_SIZE, BRUSH)
    note("the same, while a cell computes", latencies(painting))


def test_the_masks(page, server, checkout):
    """Measure how long the masks of label.ipynb take."""
    (checkout / "data/labels.json").unlink(missing_ok=True)
    lab.open_and_run(page, server, "label")
    painting = lab.Painting(page, checkout)
    seconds, count = [], 0
    for number in range(6):
        for key in "12":
            painting.keys(key)
            x, y = 150 + 150 * number, 200 + 90 * int(key) + 60 * number
            painting.drag((x, y), (x + 40, y + 30))
            count += 1
        page.get_by_text(f"{count} strokes;").wait_for()
        painting.keys("Enter")
        start = time.perf_counter()
        page.get_by_text(re.compile(f"knows {count} strokes")).first.wait_for()
        painting.settle()
        seconds.append(time.perf_counter() - start)
        page.wait_for_timeout(5000)  # a longer training is at work when the next begins
    note("from Train to the first mask", [1000 * seconds[0]])
    note("from Train to the masks after it", [1000 * s for s in seconds[1:]])


def main():
    """Measure, and put the table into results.md."""
    console.Parser(description="Measure how quick label.ipynb is.").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found")
        os.environ["FOUND"] = str(found)
        if code := pytest.main([__file__, "-q", "-p", "no:cacheprovider"]):
            return code
        rows = [json.loads(line) for line in found.read_text().splitlines()]
    lines = [
        "`python benchmarks/painting.py`, in milliseconds, 2 cores: from a pointer's "
        f"move to the frame, on {SIDE:,}x{SIDE:,} pixels with a brush of {BRUSH} "
        f"pixels and {BEFORE} strokes before; and from *Train* to the mask in the "
        "page.",
        "",
        "| | median | worst |",
        "|---|---|---|",
    ]
    for name, values in rows:
        lines.append(f"| {name} | {np.median(values):.0f} | {max(values):.0f} |")
    report.write_part("How quick painting is", "\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
