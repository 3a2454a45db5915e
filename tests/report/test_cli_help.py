"""The command line: help, version and data sets."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_line import SIMPLE, refused
from samples import DENTAL

import hierlmm
from hierlmm.cli import main
from hierlmm.fit.registry import ESTIMATORS


def test_module_prints_help_in_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-m", "hierlmm", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("fit", "demo", "datasets", "app", "exit codes", "examples"):
        assert word in done.stdout


def test_usage_error_names_what_is_required(capsys):
    assert main(["fit"]) == 2
    assert "required: DATA_OR_FILE, FORMULA\n" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom hierlmm.cli import main\nmain(['fit', '--help'])\n"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'pandas', 'pymc', 'matplotlib', 'arviz')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_version_and_no_command(capsys):
    assert main(["--version"]) == 0
    assert hierlmm.__version__ in capsys.readouterr().out
    assert main([]) == 0
    assert "hierlmm demo" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "demo", "datasets", "app"])
def test_help_of_commands(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: hierlmm " + command in shown
    assert all(len(line) <= 120 for line in shown.splitlines())


def test_usage_error_is_2(capsys):
    assert main(["fit"]) == 2
    assert "See hierlmm fit --help" in capsys.readouterr().err
    assert main(["fit", "dental", SIMPLE, "--draws", "many"]) == 2


def test_datasets_are_listed(capsys):
    from hierlmm.datasets.catalogue import catalogue

    assert main(["datasets"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in catalogue())


def test_dataset_is_described_with_the_next_command(capsys):
    assert main(["datasets", "dental"]) == 0
    assert f"hierlmm fit dental '{DENTAL}' --out dental-output" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pastes", "penicillin"])
def test_dataset_beyond_two_levels_suggests_a_command(name, capsys):
    assert main(["datasets", name]) == 0
    assert f"Fit it:  hierlmm fit {name} " in capsys.readouterr().out


def test_unknown_dataset_to_describe(capsys):
    assert "sleepstudy" in refused(["datasets", "sleepstud"], capsys)


def test_examples_of_the_help_stand_in_single_quotes(capsys):
    for arguments in (["--help"], ["fit", "--help"]):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert "hierlmm fit" in text and '"' not in text


def test_help_lists_the_estimators_of_the_registry(capsys):
    main(["fit", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"any of {', '.join(ESTIMATORS)}, with commas" in shown
    assert f"sampler ({', '.join(name for name, one in ESTIMATORS.items() if one.samples)})" in shown
