"""The notebooks in a real browser."""

import re
import subprocess
import sys

import browser as lab
import pytest
from browser import finish, open_and_run, open_and_start
from conftest import ROOT
from PIL import Image


pytestmark = lab.NEEDS_BROWSER
# The fixtures.
browser, checkout, page, server = lab.browser, lab.checkout, lab.page, lab.server

# JavaScript.
CHANGED = """before => {
    const pictures = document.querySelectorAll("img.widget-image");
    return before.every((source, i) => pictures[i].src !== source);
}"""
WIDTH = "async picture => { await picture.decode(); return picture.naturalWidth; }"


@pytest.fixture(scope="module", autouse=True)
def trained(checkout):
    """Have a model for predict.ipynb."""
    quick = [sys.executable, "train.py", "--epochs", "2"]
    subprocess.run(quick, cwd=checkout, check=True, capture_output=True)


def moved(page, description, key="ArrowRight"):
    """Move a slider by one step, as a person does by the keyboard."""
    slider = page.locator(".widget-slider", has_text=description)
    slider.locator(".noUi-handle").press(key)


def changes(page, picture):
    """Give a function that waits until a picture is another than it is now."""
    before = picture.get_attribute("src")

    def wait():
        other = "([picture, before]) => picture.src !== before"
        page.wait_for_function(other, arg=[picture.element_handle(), before])

    return wait


def upload(page, *files):
    """Give files to the page's upload button, once those before are dealt with."""
    with page.expect_file_chooser() as chooser:
        page.locator("button.widget-upload", has_text="(0)").click()
    chooser.value.set_files(files)


def picture_width(page, number):
    """Wait until the page shows a cell's first picture; gives its width in pixels."""
    cell = page.locator(".jp-Notebook .jp-Cell").nth(number)
    picture = cell.locator(".jp-OutputArea img").first
    return picture.evaluate(WIDTH, timeout=10_000)  # the cell itself has run


def test_explore_draws_every_picture(page, server):
    cells = open_and_run(page, server, "explore")
    # A line that begins with "pictures." or "draw_" makes a picture.
    drawing = [
        number
        for number, cell in enumerate(cells)
        if re.search(r"^(pictures\.|draw_)", "".join(cell["source"]), re.M)
    ]
    assert len(drawing) == 10
    for number in drawing:
        assert picture_width(page, number) > 100


def slider(page, name):
    """Find the handle of a slider by the name that stands beside it."""
    return page.locator(".widget-hslider", has_text=name).locator(".noUi-handle")


def test_patch_size_slider_draws_other_pictures(page, server):
    open_and_run(page, server, "explore")
    handle, pictures = slider(page, "patch size"), page.locator("img.widget-image")

    def sources():
        return [pictures.nth(i).get_attribute("src") for i in range(3)]  # of a batch

    handle.scroll_into_view_if_needed()
    before = sources()
    handle.press("ArrowRight")
    page.wait_for_function(CHANGED, arg=before)
    page.get_by_text("16 x 64 x 64 = 65,536 pixels, 100% of the budget").wait_for()
    before, place = sources(), handle.bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 300, y, steps=5)  # beyond the slider's end
    page.mouse.up()
    page.wait_for_function(CHANGED, arg=before)
    page.get_by_text("1024 x 8 x 8 = 65,536 pixels, 100% of the budget").wait_for()
    for number in range(3):
        assert pictures.nth(number).evaluate(WIDTH) > 400


def test_training_is_drawn_and_stops_at_the_button(page, server):
    open_and_start(page, server, "train")
    page.get_by_text(re.compile(r"^epoch 2 of \d+")).wait_for()
    another = changes(page, page.locator("img.widget-image").first)
    another()  # the curves grow while the cell is at work
    page.get_by_role("button", name="Stop").click()
    cells = finish(page)
    number = next(n for n, cell in enumerate(cells) if cell["id"] == "train-shown")
    said = page.locator(".jp-Notebook .jp-Cell").nth(number).inner_text()
    epochs, planned = map(int, re.search(r"(\d+) of (\d+) epochs", said).groups())
    assert 1 < epochs < planned
    past = changes(page, page.locator("img.widget-image").last)
    moved(page, "saved epoch", "Home")
    past()


def test_prediction_follows_opacity_and_threshold(page, server):
    open_and_run(page, server, "predict")
    canvas = page.locator("img.widget-image").first
    table = page.locator(".widget-html-content pre")
    another, before = changes(page, canvas), table.inner_text()
    moved(page, "opacity")
    another()
    assert table.inner_text() == before
    another = changes(page, canvas)
    moved(page, "threshold", "PageUp")
    another()
    table.get_by_text("threshold 0.50").wait_for(state="detached")
    iou, other = (text.split()[-5] for text in (before, table.inner_text()))
    assert float(iou) != float(other)


def test_upload_is_predicted_or_refused_in_one_line(page, server, tmp_path):
    open_and_run(page, server, "predict")
    canvas = page.locator("img.widget-image").first
    mine, notes = tmp_path / "mine.png", tmp_path / "notes.png"
    Image.open(ROOT / "data/new/rgb.png").crop((0, 0, 301, 200)).save(mine)
    notes.write_text("dear diary")
    another = changes(page, canvas)
    upload(page, mine)
    another()
    page.get_by_text("there is no truth to compare").wait_for()
    upload(page, notes)
    error = page.get_by_text("error: notes.png: is not an image")
    error.wait_for()
    assert "\n" not in error.inner_text()
