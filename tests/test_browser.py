"""The notebooks in a real browser: JupyterLab in a headless Chromium.

Needs Debian's package chromium. A copy of the project is used, so nothing here
changes; a new test takes `page` and `server` and begins with `open_and_run`.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress

import pytest
from conftest import ROOT
from PIL import Image
from playwright.sync_api import sync_playwright


CHROMIUM = shutil.which("chromium")
PATIENCE = 120  # seconds for any one step: the slowest imports torch on a cold disk

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"),
    reason="needs a browser: apt-get install chromium",
)

# JupyterLab's own helper for tests switches off passwords, hence this machine only.
CONFIG = """\
from jupyterlab.galata import configure_jupyter_server

configure_jupyter_server(c)
c.ServerApp.ip = "127.0.0.1"
c.ServerApp.port = {port}
c.ServerApp.root_dir = {root!r}
c.ServerApp.allow_root = True  # containers run as root
c.LabApp.app_settings_dir = {settings!r}
"""
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {
        "windowingMode": "none",  # draw the cells out of view too
        "autoStartDefaultKernel": True,  # ask nobody which kernel
    },
    "@jupyterlab/apputils-extension:notification": {
        "checkForUpdates": False,
        "fetchNews": "false",  # else a question covers a corner of the page
    },
}
QUIET = (  # no sandbox: it cannot be had as root; the rest looks nothing up
    "--no-sandbox --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run"
).split()

# JavaScript; `jupyterapp` is there because the helper above asks for it.
READY = """path => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel;
    return panel?.context?.path === path && kernel?.status === "idle";
}"""
RUN_ALL = """async () => {
    const { commands } = window.jupyterapp;
    await commands.execute("notebook:clear-all-cell-outputs");  // those in the file
    const run = commands.execute("notebook:run-all-cells");
    run.finally(() => { window.finished = true; });
}"""
READ = "() => window.jupyterapp.shell.currentWidget.model.toJSON()"
CHANGED = """before => {
    const pictures = document.querySelectorAll("img.widget-image");
    return before.every((source, i) => pictures[i].src !== source);
}"""
WIDTH = "async picture => { await picture.decode(); return picture.naturalWidth; }"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(process, port, log):
    """Wait until the server answers; if it does not, fail with what it said."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError), closing(connection):  # refused: not yet
            connection.request("GET", "/api")
            connection.getresponse()
            return
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


def stop(process):
    """Let the server end its kernels and itself, then kill what may be left."""
    process.terminate()
    try:
        process.wait(30)
    finally:
        with suppress(ProcessLookupError):  # nothing is left
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start JupyterLab in a copy of the project; gives its address."""
    home, port = tmp_path_factory.mktemp("jupyter"), free_port()
    root, config, log = home / "project", home / "config.py", home / "log"
    made = shutil.ignore_patterns(".*", "__pycache__", "*.pt", "masks")  # by runs
    shutil.copytree(ROOT, root, ignore=made)
    config.write_text(CONFIG.format(port=port, root=str(root), settings=str(home)))
    (home / "overrides.json").write_text(json.dumps(SETTINGS))
    quick = [sys.executable, "train.py", "--epochs", "2"]  # a model for predict.ipynb
    subprocess.run(quick, cwd=root, check=True, capture_output=True)
    # Neither read the settings of whoever runs the test, nor leave files about.
    places = ["TMPDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"]
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", f"--config={config}"],
            env=os.environ | dict.fromkeys(places, str(home)),
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, to kill as one
        )
    try:
        wait_for(process, port, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


@pytest.fixture(scope="module")  # not session: its event loop would disturb nbclient's
def browser():
    with sync_playwright() as playwright:
        launch = playwright.chromium.launch
        with launch(executable_path=CHROMIUM, args=QUIET) as browser:
            yield browser


@pytest.fixture
def page(browser):
    """Open an empty page; at the end its kernels go, so that each test has its own."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE * 1000)
    yield page
    page.evaluate("() => window.jupyterapp?.serviceManager.sessions.shutdownAll()")
    page.close()


def open_and_start(page, server, name):
    """Open a notebook and begin to run all of its cells."""
    path = f"notebooks/{name}.ipynb"
    page.goto(f"{server}/lab/tree/{path}?reset")  # not what was open before
    page.wait_for_function(READY, arg=path)
    page.evaluate(RUN_ALL)


def finish(page):
    """Wait until all cells have run, see that none failed, and give the cells."""
    page.wait_for_function("() => window.finished")
    cells = page.evaluate(READ)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    red = {"error", "stderr"}  # what JupyterLab shows on red ground
    assert not [o for o in outputs if {o["output_type"], o.get("name")} & red]
    assert not [cell["id"] for cell in code if not cell["execution_count"]]
    return cells


def open_and_run(page, server, name):
    """Run all cells of a notebook, see that none failed, and give its cells."""
    open_and_start(page, server, name)
    return finish(page)


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
