"""The rooms of the package: imports point down the street, also inside functions and for types (pyproject.toml).

The tests mirror the street, and what several of their files use stands in modules of its own.
"""

import ast
import importlib.util
from pathlib import Path

from importlinter import cli

ROOT = Path(__file__).parents[2]


def test_the_contracts_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    status = cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_street_picture():
    """The picture in docs/architecture.md is that of the imports; ``make street`` draws it anew."""
    spec = importlib.util.spec_from_file_location("street", ROOT / "tools" / "street.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    street = tool.read_street()
    assert not street.up
    assert not street.circles
    assert tool.PICTURE.read_text(encoding="utf-8") == tool.picture(street)


def imported(path):
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_no_test_file_imports_another():
    files = sorted((ROOT / "tests").rglob("*.py"))
    found = {str(path.relative_to(ROOT)): name for path in files for name in imported(path) if name.startswith("test_")}
    assert not found


def test_a_folder_of_tests_for_every_room():
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "hierlmm").iterdir()}
    others = {"doors", "ground", "house"}  # doors of the package and its ground, which are files; the repository itself
    assert {path.parent.name for path in (ROOT / "tests").rglob("*/test_*.py")} <= rooms | others
