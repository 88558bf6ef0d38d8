"""label.ipynb in a real browser: paint, train, see the mask, save, come back."""

import re

import browser as lab
import pytest
from browser import Painting, open_and_run

from onelabel import model_file
from onelabel.image import UNLABELLED
from onelabel.strokes import read_labels
from onelabel.truth import read_truth


pytestmark = lab.NEEDS_BROWSER
# The fixtures.
browser, checkout, page, server = lab.browser, lab.checkout, lab.page, lab.server


@pytest.fixture
def kept(checkout):
    """Say where the strokes are kept; there are none yet."""
    path = checkout / "data/labels.json"
    path.unlink(missing_ok=True)
    return path


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def enter(page, name, text):
    box = page.get_by_label(name, exact=True)
    box.fill(text)
    box.press("Enter")


def test_paint_train_save_and_come_back(page, server, checkout, kept):
    open_and_run(page, server, "label")
    painting = Painting(page, checkout)
    painting.drag((700, 500), (760, 540))
    painting.keys("2")
    painting.drag((405, 700), (415, 735))
    page.get_by_text("2 strokes;").wait_for()
    painting.keys("Enter")
    page.get_by_text(re.compile("knows 2 strokes")).first.wait_for()
    painting.settle()
    page.evaluate(
        "() => window.onelabelPainters[0].shared.warn(true)"
    )  # if it were late
    page.get_by_text("NOT KEPT so far").wait_for()
    press(page, "Where next?")
    press(page, "Save")
    page.get_by_text("wrote labelled/model.pt").wait_for()
    model_file.load(checkout / "labelled/model.pt")
    truth, _ = read_truth(checkout / "labelled/rgb_gt.png")
    assert {(truth == label).any() for label in (0, 1, UNLABELLED)} == {True}
    strokes = read_labels(kept)["rgb.png"].strokes
    assert [stroke.label for stroke in strokes] == [0, 1]
    # Another kernel.
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    open_and_run(page, server, "label")
    page.get_by_text("2 strokes;").wait_for()
    again = Painting(page, checkout)
    assert {0, 1} <= set(again.labels()[0].ravel().tolist())


def test_training_alone_says_what_is_missing(page, server, checkout, kept):
    open_and_run(page, server, "label")
    press(page, "Train")
    page.get_by_text("paint both classes").first.wait_for()
    press(page, "Which next?")
    page.get_by_text("error: no network yet").wait_for()


def test_images_are_opened_and_listed(page, server, checkout, kept):
    open_and_run(page, server, "label")
    shown = page.get_by_label("shown", exact=True)
    for name, last in (("data/new/rgb.png",) * 2, ("data", "data/gt.png")):
        enter(page, "open", name)
        shown.locator("option", has_text=last).wait_for(state="attached")
    page.wait_for_timeout(500)
    assert page.get_by_text(re.compile("^error: ")).all_inner_texts() == []
    listed = shown.locator("option").all_inner_texts()
    assert {"data/rgb.png", "data/new/rgb.png", "data/gt.png"} <= set(listed)


def test_an_old_truth_is_corrected(page, server, checkout, kept):
    open_and_run(page, server, "label")
    enter(page, "correct", "data/gt.png")
    page.get_by_text(re.compile(r"\d\d% object")).wait_for()
    painting = Painting(page, checkout)
    page.wait_for_function("() => window.onelabelPainters[0].labels().includes(1)")
    painting.drag((200, 300), (260, 340))
    press(page, "Train")
    page.get_by_text("knows 1 stroke,").first.wait_for()


def test_the_app_paints_and_trains(page, server, checkout, kept):
    pytest.importorskip("voila")
    page.goto(f"{server}/voila/render/notebooks/label.ipynb")
    painting = Painting(page, checkout)
    painting.drag((700, 500), (760, 540))
    painting.keys("2")
    painting.drag((405, 700), (415, 735))
    painting.keys("Enter")
    page.get_by_text("knows 2 strokes").first.wait_for()
    assert page.get_by_text("import train").count() == 0  # no code
