"""The rooms of the package: imports point down the street, also inside functions and for types (pyproject.toml)."""

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
