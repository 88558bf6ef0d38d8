"""JupyterLab in a real browser, a headless Chromium, for tests.

Needs Debian's package chromium. A copy of the project is used, so nothing here
changes. A file of tests has `NEEDS_BROWSER` and the fixtures; a test takes `page` and
`server` and begins with `open_and_run`.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress

import numpy as np
import pytest
from conftest import ROOT
from playwright.sync_api import sync_playwright

from onelabel.strokes import as_stroke, draw
from segutils import Block


CHROMIUM = shutil.which("chromium")
PATIENCE = 120  # seconds for any one step: the slowest imports torch on a cold disk

NEEDS_BROWSER = pytest.mark.skipif(
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
EXECUTE = """code => {
    const { session } = window.jupyterapp.shell.currentWidget.sessionContext;
    window.busy = true;
    session.kernel.requestExecute({ code }).done.then(() => { window.busy = false; });
}"""
READ = "() => window.jupyterapp.shell.currentWidget.model.toJSON()"


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
def checkout(tmp_path_factory):
    """Copy the project; gives the folder."""
    root = tmp_path_factory.mktemp("jupyter") / "project"
    made = shutil.ignore_patterns(".*", "__pycache__", "*.pt", "masks")  # by runs
    return shutil.copytree(ROOT, root, ignore=made)


@pytest.fixture(scope="module")
def server(checkout):
    """Start JupyterLab in a copy of the project; gives its address."""
    home, port = checkout.parent, free_port()
    config, log = home / "config.py", home / "log"
    config.write_text(CONFIG.format(port=port, root=str(checkout), settings=str(home)))
    (home / "overrides.json").write_text(json.dumps(SETTINGS))
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


@pytest.fixture
def setting(page, server):
    """Change a setting of JupyterLab; at the end it is as before."""
    changed = []

    def change(plugin, **values):
        address = f"{server}/lab/api/settings/@jupyterlab/{plugin}"
        changed.append(address)
        assert page.request.put(address, data={"raw": json.dumps(values)}).ok

    yield change
    for address in changed:
        page.request.put(address, data={"raw": "{}"})


def write_notebook(checkout, name, *sources):
    """Write a notebook of code cells into the server's copy; gives its name."""
    empty = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    cells = [
        empty | {"id": f"cell-{number}", "source": source}
        for number, source in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel}  # else JupyterLab asks for a kernel
    whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    (checkout / f"notebooks/{name}.ipynb").write_text(json.dumps(whole))
    return name


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
    failed = [o for o in outputs if {o["output_type"], o.get("name")} & red]
    assert not failed, failed
    assert not [cell["id"] for cell in code if not cell["execution_count"]]
    return cells


def open_and_run(page, server, name):
    """Run all cells of a notebook, see that none failed, and give its cells."""
    open_and_start(page, server, name)
    return finish(page)


# JavaScript.
SHOWN = """view => {
    const { top, left, bottom, right, step } = view.window;
    const text = new TextDecoder("latin1").decode(view.labels());
    return { block: [top, left, bottom, right], step, text };
}"""


class Painting:
    """A painter on a page, and the hand that paints there."""

    def __init__(self, page, checkout, number=0):
        self.page, self.checkout = page, checkout
        self.view = f"window.onelabelPainters?.[{number}]"
        self.canvas = page.locator(".onelabel-painter canvas").nth(number)
        self.settle()
        self.canvas.scroll_into_view_if_needed()
        self.devices = page.context.new_cdp_session(page)

    def ask(self, expression):
        return self.page.evaluate(f"() => {self.view}.{expression}")

    def wait(self, expression):
        self.page.wait_for_function(f"() => {self.view}?.{expression}")

    def settle(self):
        self.wait("settled")

    def place(self, point):
        """Give the place on the screen of a pixel of the image."""
        x, y = point
        at = self.ask(f"toScreen({x}, {y})")
        return at["x"], at["y"]

    def drag(self, *points, button="left"):
        """Draw a line by the mouse, through pixels of the image."""
        places = [self.place(point) for point in points]  # before a drag moves them
        self.page.mouse.move(*places[0])
        self.page.mouse.down(button=button)
        for place in places[1:]:
            self.page.mouse.move(*place, steps=5)
        self.page.mouse.up(button=button)

    def pen(self, first, last):
        self.press("mousePressed", first)
        self.press("mouseMoved", last)
        self.press("mouseReleased", last)

    def press(self, kind, point):
        x, y = self.place(point)
        how = {"button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen"}
        event = {"type": kind, "x": x, "y": y} | how
        self.devices.send("Input.dispatchMouseEvent", event)

    def touch(self, kind, *places):
        """Set fingers down, move or lift them; the places are of the screen."""
        fingers = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
        event = {"type": kind, "touchPoints": fingers}
        self.devices.send("Input.dispatchTouchEvent", event)

    def keys(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def labels(self):
        """Give the labels on the screen, their block and their step."""
        shown = self.page.evaluate(SHOWN, self.page.evaluate_handle(self.view))
        block, step = Block(*shown["block"]), shown["step"]
        height = -(-(block.bottom - block.top) // step)
        values = np.frombuffer(shown["text"].encode("latin-1"), np.uint8)
        return values.reshape(height, -1), block, step

    def colour(self, point):
        """Give the red, green and blue that the canvas has at a pixel of the image."""
        self.settle()
        (x, y), box = self.place(point), self.canvas.bounding_box()
        place = f"{x - box['x']}, {y - box['y']}, 1, 1"
        return self.ask(f"context.getImageData({place}).data.slice(0, 3).join()")

    def kept(self):
        """Give the strokes that Python has."""
        file = self.checkout / "painted.json"
        plain = json.loads(file.read_text()) if file.exists() else []
        return [as_stroke(stroke) for stroke in plain]

    def check(self, count):
        """Wait until Python has so many strokes; see that both have the same labels."""
        end = time.monotonic() + PATIENCE
        while len(strokes := self.kept()) != count:
            assert time.monotonic() < end, f"{len(strokes)} strokes instead of {count}"
            self.page.wait_for_timeout(50)
        self.settle()
        shown, block, step = self.labels()
        drawn = draw(np.load(self.checkout / "start.npy"), strokes)
        np.testing.assert_array_equal(shown, drawn[block.slices][::step, ::step])
        assert len(np.unique(shown)) > 1  # it compares something
        return strokes
