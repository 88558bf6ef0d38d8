"""Painting in a real browser: in JupyterLab and in Voila."""

import browser as lab
import pytest
from browser import EXECUTE, READ, Painting, open_and_run

from onelabel.image import UNLABELLED


pytestmark = lab.NEEDS_BROWSER
# The fixtures.
browser, checkout, page, server = lab.browser, lab.checkout, lab.page, lab.server
second_page, setting = page, lab.setting

SETUP = """\
import json, os, time
if os.path.basename(os.getcwd()) == "notebooks":
    os.chdir("..")
import numpy as np
from PIL import Image
from onelabel.painter import Painter
from segutils import Block

def stepped(array):
    return lambda block, step: array[block.slices][::step, ::step]

image = np.asarray(Image.open("data/rgb.png"))
rows, columns = np.indices(image.shape[:2])
start = np.full(image.shape[:2], 255, np.uint8)
start[(rows // 7 + columns // 5) % 9 == 0] = 1
np.save("start.npy", start)
mask = (image[..., 1] > 110).astype(np.uint8)
painter = Painter(names=["meadow", "tree"])

def keep():
    with open("painted.part", "w") as file:
        json.dump([stroke._asdict() for stroke in painter.strokes], file)
    os.replace("painted.part", "painted.json")  # whole or not at all

painter.on_strokes(keep)
layers = {name: stepped(globals()[name]) for name in ("image", "start", "mask")}
painter.show(image.shape[:2], [], layers)
painter.status = "nothing is labelled yet"
"""

# JavaScript.
SCROLL_TO = """number => {
    const { content } = window.jupyterapp.shell.currentWidget;
    document.activeElement.blur();  // JupyterLab keeps what has the focus
    content.activeCellIndex = number;
    content.scrollToItem(number);
}"""
SCROLLED = "document.querySelector('.jp-WindowedPanel-outer').scrollTop"


@pytest.fixture
def notebook(checkout):
    """Write a notebook that makes a painter, and goes on as told."""

    def write(*sources):
        (checkout / "painted.json").unlink(missing_ok=True)
        return lab.write_notebook(checkout, "painting", SETUP, *sources)

    return write


@pytest.fixture
def painting(page, server, checkout, notebook):
    """Open a painter in JupyterLab."""
    open_and_run(page, server, notebook("painter"))
    return Painting(page, checkout)


def test_mouse_pen_and_fingers_paint(painting):
    painting.drag((200, 300), (400, 500), (390, 200))
    painting.keys("2", "]", "]")
    painting.pen((700, 300), (800, 320))
    first, second = painting.place((600, 700)), painting.place((660, 730))
    painting.touch("touchStart", first)
    painting.touch("touchMove", second)
    painting.touch("touchEnd")
    painting.drag((300, 350), (395, 450), button="right")
    strokes = painting.check(4)
    assert [stroke.label for stroke in strokes] == [0, 1, 1, UNLABELLED]
    zoom = painting.ask("zoom")
    sizes = [20, 31, 31, 40]  # on the screen; ] makes a brush a quarter larger
    radii = [max(0, round((size / zoom - 1) / 2)) for size in sizes]
    assert [stroke.radius for stroke in strokes] == radii
    assert [stroke.points[-1] for stroke in strokes[1:3]] == [(800, 320), (660, 730)]


def test_two_fingers_zoom_and_paint_nothing(painting):
    before, (x, y) = painting.ask("zoom"), painting.place((600, 500))
    painting.touch("touchStart", (x - 50, y))
    painting.touch("touchMove", (x - 40, y))  # this has begun to paint
    painting.touch("touchStart", (x - 40, y), (x + 40, y))
    painting.touch("touchMove", (x - 80, y), (x + 80, y))
    painting.touch("touchEnd")
    assert painting.ask("zoom") == pytest.approx(2 * before)
    assert painting.place((600, 500)) == pytest.approx((x, y), abs=1.5)
    painting.check(0)


def test_labels_agree_after_zoom_move_undo_and_redo(painting):
    page = painting.page
    painting.drag((200, 300), (900, 600))
    page.mouse.move(*painting.place((500, 450)))
    for _ in range(4):
        page.mouse.wheel(0, -200)
    painting.wait("zoom > 3")
    painting.keys("2", *["["] * 20)  # to a true pixel
    painting.drag((480, 440), (510, 450))
    assert painting.check(2)[1].radius == 0
    painting.drag((500, 450), (470, 480), button="middle")
    page.keyboard.down(" ")
    painting.drag((480, 450), (500, 450))
    page.keyboard.up(" ")
    painting.check(2)
    painting.keys("Control+z")
    painting.check(1)
    painting.keys("Control+z")
    painting.check(0)
    painting.keys("Control+y", "Control+Shift+Z")
    painting.check(2)
    painting.keys("0", "-", "-", "-")  # so far away that not each pixel is seen
    painting.wait("window.step > 1")
    painting.check(2)
    painting.drag((1000, 700), (100, 800))
    painting.check(3)
    painting.keys("Control+z", "0")
    painting.check(2)
    saves = "new KeyboardEvent('keydown', {key: 's', ctrlKey: true, cancelable: true})"
    assert not painting.ask(f"root.dispatchEvent({saves})")  # no browser's dialog


def test_drags_move_the_picture(painting):
    page = painting.page
    painting.keys(*["+"] * 6)
    x, y = painting.place((600, 500))
    painting.drag((600, 500), (620, 530), button="middle")
    moved = painting.place((600, 500))
    zoom = painting.ask("zoom")
    assert moved == pytest.approx((x + 20 * zoom, y + 30 * zoom), abs=1)
    page.keyboard.down(" ")
    painting.drag((620, 530), (600, 500))
    page.keyboard.up(" ")
    assert painting.place((600, 500)) == pytest.approx((x, y), abs=1)
    painting.check(0)


def test_stroke_outside_is_ignored(painting):
    painting.keys(*["["] * 20)
    painting.drag((-50, 300), (-60, 900))
    assert painting.ask("shared.strokes.length") == 0  # nothing to be undone
    painting.drag((-50, 300), (50, 300))
    (kept,) = painting.check(1)
    assert kept.points[0] == (-50, 300)


def test_strokes_are_the_same_in_all_views_and_come_back(
    page, second_page, server, checkout, notebook
):
    open_and_run(page, server, notebook("painter", "painter"))
    first, second = Painting(page, checkout), Painting(page, checkout, 1)
    second.drag((300, 300), (600, 500))
    page.keyboard.press("+")
    first.check(1)
    second.check(1)
    assert second.ask("zoom") > first.ask("zoom")
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.goto(f"{server}/lab/tree/notebooks/painting.ipynb")
    again = Painting(page, checkout)
    again.check(1)
    second_page.goto(f"{server}/lab/tree/notebooks/painting.ipynb?reset")
    other = Painting(second_page, checkout)
    other.check(1)
    other.drag((700, 300), (800, 500))
    other.check(2)
    again.check(2)
    page.get_by_role("button", name="Undo the last stroke").first.click()
    again.drag((400, 600), (900, 600))
    assert again.check(2) == other.check(2)


@pytest.mark.parametrize("subshells", ["perCommTarget", "disabled"])
def test_painting_goes_on_while_a_cell_runs(
    page, server, checkout, notebook, setting, subshells
):
    setting("apputils-extension:kernels-settings", commsOverSubshells=subshells)
    open_and_run(page, server, notebook("painter"))
    painting, done = Painting(page, checkout), checkout / "done"
    page.evaluate(EXECUTE, "while not os.path.exists('done'): time.sleep(0.1)")
    before, *_ = painting.labels()
    painting.drag((300, 300), (600, 500))
    painting.keys("2")
    painting.drag((300, 600), (600, 700))
    painting.keys("Control+z")
    shown, *_ = painting.labels()
    assert (shown == 0).sum() > (before == 0).sum()
    if subshells == "disabled":
        page.wait_for_timeout(1000)
        assert not painting.kept()
    else:
        painting.check(1)
    assert page.evaluate("() => window.busy")
    done.touch()
    page.wait_for_function("() => !window.busy")
    done.unlink()
    assert painting.check(1)[0].label == 0


def test_painter_survives_being_out_of_view(page, server, checkout, notebook, setting):
    setting("notebook-extension:tracker", windowingMode="full")
    open_and_run(page, server, notebook("painter", *["'a line of text'"] * 40))
    page.evaluate(SCROLL_TO, 1)
    painting = Painting(page, checkout)
    painting.drag((300, 300), (600, 500))
    painting.check(1)
    page.evaluate(SCROLL_TO, 41)
    painting.canvas.wait_for(state="hidden")
    page.evaluate(SCROLL_TO, 1)
    painting = Painting(page, checkout)
    painting.check(1)
    painting.drag((600, 300), (300, 500))
    painting.check(2)
    painting.ask("set({ opacity: 1 })")
    assert painting.colour((300, 300)) == painting.colour((600, 300)) == "230,97,0"


def test_painter_in_voila(page, server, checkout, notebook):
    pytest.importorskip("voila")
    page.goto(f"{server}/voila/render/notebooks/{notebook('painter')}.ipynb")
    painting = Painting(page, checkout)
    painting.drag((300, 300), (600, 500))
    painting.check(1)
    painting.keys("Control+z", "Control+y")
    painting.check(1)


def test_keys_and_wheel_are_the_painters_with_focus_alone(painting):
    page = painting.page
    cells, zoom = page.evaluate(READ)["cells"], painting.ask("zoom")
    page.mouse.move(*painting.place((600, 500)))
    scrolled = page.evaluate(SCROLLED)
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"before => {SCROLLED} < before", arg=scrolled)
    assert painting.ask("zoom") == zoom
    painting.drag((300, 300), (600, 500))
    painting.ask("set({ opacity: 1 })")
    assert painting.colour((300, 300)) == "230,97,0"
    painting.keys("h")
    assert painting.colour((300, 300)) != "230,97,0"
    # To the notebook, x cuts a cell, d twice deletes one, 1 makes it a heading.
    painting.keys("x", "1", "2", "d", "d", "h", "]", "b", "Enter")
    assert page.evaluate(READ)["cells"] == cells
    page.get_by_role("button", name="Undo the last stroke").click()
    painting.check(0)
    painting.keys("Control+y")  # the focus is on the picture again
    painting.check(1)
    page.mouse.move(*painting.place((600, 500)))
    scrolled = page.evaluate(SCROLLED)
    page.mouse.wheel(0, -200)
    painting.wait(f"zoom > {zoom}")
    assert page.evaluate(SCROLLED) == scrolled


def test_python_leads_the_page(painting):
    page = painting.page

    def run(code):
        page.evaluate(EXECUTE, code)
        page.wait_for_function("() => !window.busy")

    run("painter.go_to(Block(100, 200, 150, 300)); painter.status = '12% is meadow'")
    painting.wait("zoom > 5")
    left, top = painting.place((199.5, 99.5))
    box = painting.canvas.bounding_box()
    assert left == pytest.approx(box["x"], abs=1)  # it fills the width
    assert box["y"] < top < box["y"] + box["height"] / 2
    page.get_by_text("12% is meadow").wait_for()
    run("painter.on_enter(lambda: setattr(painter, 'status', 'on it goes'))")
    painting.drag((210, 110), (220, 120))
    painting.keys("Enter")
    page.get_by_text("on it goes").wait_for()
    painting.check(1)
    start = "start[:] = 1; start[:120, :250] = 0; np.save('start.npy', start)"
    run(f"{start}; painter.refresh('start')")
    painting.wait("labels()[0] === 0")
    painting.check(1)
    painting.ask("set({ opacity: 1 })")
    run("mask[:] = 1; painter.colours = [[9, 8, 7], [1, 2, 3]]")
    run("start = np.full((300, 200), 255, np.uint8); np.save('start.npy', start)")
    run("painter.show((300, 200), [], {n: stepped(globals()[n]) for n in layers})")
    painting.wait("window.bottom === 300")
    assert painting.colour((100, 100)) == "1,2,3"
    (painting.checkout / "painted.json").unlink()
    painting.keys("2")
    painting.drag((20, 20), (100, 200))
    painting.check(1)
