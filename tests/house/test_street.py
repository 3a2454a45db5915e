"""The rooms of the package: imports point down the street, also inside functions and for types (pyproject.toml)."""

from pathlib import Path

from importlinter import cli

ROOT = Path(__file__).parents[2]


def test_the_contracts_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    status = cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out
