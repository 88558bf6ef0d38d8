"""How the code is laid out: short files, no circles, and what may import what."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter

import pytest
from conftest import ROOT


PACKAGE = sorted((ROOT / "onelabel").glob("*.py"))
SCRIPTS = [ROOT / name for name in ("segutils.py", "train.py", "predict.py")]
FILES = [*PACKAGE, *SCRIPTS]
MOST_LINES = 400
# It must be one file to copy away: network, tiler and prediction together.
MORE_LINES = {"segutils.py": 640}


def name_of(path):
    """Give a module's name, as others import it."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


NAMES = {name_of(path) for path in FILES}


def is_for_types(node):
    """Tell whether a statement is an `if TYPE_CHECKING`, which never runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(node):
    """Give all nodes below one, but for those that serve the hints of types."""
    for child in ast.iter_child_nodes(node):
        if not is_for_types(child):
            yield child
            yield from statements(child)


def imports(path):
    """Give the names of the modules that a file imports, wherever it does."""
    found = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: import by the whole name"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & NAMES
            found |= inner or {node.module}
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_too_long_to_be_read_at_once(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MORE_LINES.get(path.name, MOST_LINES)


def test_imports_go_round_in_no_circle():
    graph = {name_of(path): imports(path) & NAMES for path in FILES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_the_package_imports_no_script(path):
    assert not imports(path) & {"train", "predict"}


def test_the_command_line_serves_commands_alone():
    found = {name_of(path) for path in FILES if "onelabel.console" in imports(path)}
    assert found == {"train", "predict", "onelabel.options"}


def test_segutils_needs_torch_and_numpy_alone():
    found = {name.split(".")[0] for name in imports(ROOT / "segutils.py")}
    assert found - sys.stdlib_module_names == {"torch", "numpy"}
