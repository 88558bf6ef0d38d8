import json

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from nbconvert import PythonExporter
from traitlets.config.loader import PyFileConfigLoader


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


def test_the_three_notebooks_are_there():
    assert NAMES == ["explore", "predict", "train"]


@pytest.mark.parametrize("name", ["train", "predict"])
def test_script_is_what_its_notebook_exports(name):
    config = PyFileConfigLoader(str(ROOT / "notebooks/nbconvert_config.py"))
    exporter = PythonExporter(config=config.load_config())
    script, _ = exporter.from_filename(str(ROOT / f"notebooks/{name}.ipynb"))
    assert (ROOT / f"{name}.py").read_text() == script, (
        "run: jupyter nbconvert --config notebooks/nbconvert_config.py"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_is_committed_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count is None
            assert cell.outputs == []
    assert len(path.read_bytes()) < 1_000_000
    ids = [cell["id"] for cell in json.loads(path.read_text())["cells"]]
    assert len(set(ids)) == len(ids)


def execute(project, name, **changes):
    """Run a notebook of the copied project; give its code cells."""
    notebook = nbformat.read(project / f"notebooks/{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    NotebookClient(
        notebook,
        timeout=300,
        store_widget_state=False,
        resources={"metadata": {"path": str(project / "notebooks")}},
    ).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cells):
    return sum("image/png" in out.get("data", {}) for c in cells for out in c.outputs)


def complaints(cells):
    """What a cell wrote to standard error: warnings, mostly."""
    return [out.text for c in cells for out in c.outputs if out.get("name") == "stderr"]


def test_explore_runs_on_ones_own_scene(project):
    cells = execute(project, "explore")
    assert pictures(cells) == 8
    assert complaints(cells) == []


def test_train_and_predict_run_one_after_the_other(project):
    short = {"parse_args([])": 'parse_args(["--epochs", "3"])'}
    cells = execute(project, "train", **short)
    assert pictures(cells) == 6
    assert complaints(cells) == []
    for name in ("model.pt", "loss_vs_epochs.png"):
        assert (project / name).exists()
    ours = {"data/new/": "data/"}  # the small scene is the only one here
    cells = execute(project, "predict", **ours)
    assert pictures(cells) == 4
    assert complaints(cells) == []
    assert (project / "predictions.jpg").exists()
