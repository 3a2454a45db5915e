"""Machine code on disk belongs to the sources that it was compiled from."""

import ast
import os
import re
import shutil
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest

from hierlmm.compiled import KEPT, PACKAGE, sources

DENSITY = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
import hierlmm as hl
from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.collapsed_kernel import compiled_density, evaluate
from hierlmm.bayes.priors import resolve_priors
assert hl.__file__.startswith({root!r})
d = hl.load_dataset("sleepstudy").iloc[:40]
design = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", d).design
posterior = collapsed_posterior(design, resolve_priors(None, design))
print(evaluate(np.zeros(len(posterior.mode)), posterior.buffer)[0], compiled_density().cache_hits)
"""
CALLER = """
from hierlmm.compiled import compiled
from hierlmm.likelihood.kernel import callee


@compiled()
def caller():
    return callee()
"""
CALLEE = """
from hierlmm.compiled import compiled


@compiled()
def callee():
    return {value}
"""
CALL = """
import sys
sys.path.insert(0, {root!r})
from hierlmm.bayes.caller import caller
print(caller(), sum(caller.stats.cache_hits.values()))
"""


def run(code: str, root: Path, **environment: str) -> list[str]:
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", code.format(root=str(root))],
        capture_output=True,
        text=True,
        env=variables | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A small package with the layout of ours: its caller lies in another file than what it inlines."""
    package = tmp_path / "hierlmm"
    for folder in ("likelihood", "bayes"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    (package / "__init__.py").touch()
    shutil.copy(PACKAGE / "compiled.py", package)
    (package / "bayes/caller.py").write_text(CALLER)
    (package / "likelihood/kernel.py").write_text(CALLEE.format(value=1))
    return tmp_path


@pytest.mark.slow
def test_an_edit_of_the_kernel_reaches_the_posterior(tmp_path: Path) -> None:
    """The density of the collapsed posterior has `pattern_sums` of another file inlined."""
    shutil.copytree(PACKAGE, tmp_path / "hierlmm", ignore=shutil.ignore_patterns("__pycache__"))
    first, hits = run(DENSITY, tmp_path)
    assert hits == "0"
    assert run(DENSITY, tmp_path) == [first, "1"]
    kernel = tmp_path / "hierlmm/likelihood/kernel.py"
    text = kernel.read_text()
    assert "return PatternSums(G, log_det, EE, products)" in text
    kernel.write_text(text.replace("PatternSums(G, log_det,", "PatternSums(G, log_det + 1.0,"))
    second, hits = run(DENSITY, tmp_path)
    assert float(second) - float(first) == pytest.approx(-0.5, abs=1e-9)
    assert hits == "0"


def test_an_edit_of_an_inlined_callee_in_another_file(copy: Path) -> None:
    assert run(CALL, copy) == ["1", "0"]
    assert run(CALL, copy) == ["1", "1"]
    (copy / "hierlmm/likelihood/kernel.py").write_text(CALLEE.format(value=2))
    assert run(CALL, copy) == ["2", "0"]
    assert run(CALL, copy) == ["2", "1"]
    (copy / "hierlmm/likelihood/kernel.py").write_text(CALLEE.format(value=1))
    assert run(CALL, copy) == ["1", "1"], "the folder of the version before is still there"


def test_old_folders_do_not_pile_up(copy: Path) -> None:
    compiled = copy / "hierlmm/__pycache__/compiled"
    for age in range(KEPT + 4):
        marker = compiled / f"version{age}" / "last_used"
        marker.parent.mkdir(parents=True)
        marker.touch()
        os.utime(marker, (1e9 - age, 1e9 - age))
    assert run(CALL, copy) == ["1", "0"]
    left = {folder.name for folder in compiled.iterdir()}
    assert len(left) == KEPT + 1 and {f"version{age}" for age in range(KEPT)} < left
    assert run(CALL, copy) == ["1", "1"]


def test_a_folder_that_another_process_removes(copy: Path) -> None:
    code = CALL.replace(
        "print(", "import shutil; from hierlmm.compiled import cache_folder\nshutil.rmtree(cache_folder())\nprint("
    )
    assert run(code, copy) == ["1", "0"]
    assert run(CALL, copy) == ["1", "1"]


def test_a_package_that_cannot_be_written_uses_the_folder_of_the_user(copy: Path, tmp_path: Path) -> None:
    (copy / "hierlmm/__pycache__").write_text("a file where a folder is needed: nothing can be written here")
    home = tmp_path / "home"
    places = {"XDG_CACHE_HOME": str(home), "HOME": str(home), "LOCALAPPDATA": str(home)}
    assert run(CALL, copy, **places) == ["1", "0"]
    assert run(CALL, copy, **places) == ["1", "1"]
    assert list(home.rglob("*.nbi"))
    (copy / "hierlmm/likelihood/kernel.py").write_text(CALLEE.format(value=2))
    assert run(CALL, copy, **places) == ["2", "0"]


def test_without_any_place_to_write_it_compiles_every_time(copy: Path, tmp_path: Path) -> None:
    (copy / "hierlmm/__pycache__").write_text("")
    home = tmp_path / "home"
    home.write_text("")
    places = {"XDG_CACHE_HOME": str(home), "HOME": str(home), "LOCALAPPDATA": str(home)}
    assert run(CALL, copy, **places) == run(CALL, copy, **places) == ["1", "0"]


def test_numba_cache_dir_is_respected(copy: Path, tmp_path: Path) -> None:
    assert run(CALL, copy, NUMBA_CACHE_DIR=str(tmp_path / "here")) == ["1", "0"]
    assert run(CALL, copy, NUMBA_CACHE_DIR=str(tmp_path / "here")) == ["1", "1"]
    assert not (copy / "hierlmm/__pycache__/compiled").exists()


def compiled_functions(tree: ast.Module) -> list[ast.FunctionDef]:
    """Functions decorated with `compiled`, or handed to it, to `compiled_callback` or to `with_names`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = {
        argument.id
        for call in calls
        for argument in call.args
        if isinstance(argument, ast.Name)
        and any(maker in ast.unparse(call.func) for maker in ("compiled", "with_names"))
    }
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and (node.name in named or any("compiled" in ast.unparse(d) for d in node.decorator_list))
    ]


COMPILED = [path for path in sources() if path != PACKAGE / "compiled.py"]


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_what_compiled_code_uses_lies_in_hashed_files(path: Path) -> None:
    tree = ast.parse(path.read_text())
    origin = {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hierlmm")
        for alias in node.names
    }
    functions = compiled_functions(tree)
    hashed = {".".join(("hierlmm", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in sources()}
    module = import_module(".".join(("hierlmm", *path.relative_to(PACKAGE).with_suffix("").parts)))
    assert isinstance(module, types.ModuleType) and functions
    used = {
        node.id
        for function in functions
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name)
    }
    assert {origin[name] for name in used & set(origin)} <= hashed


def test_no_compiled_function_goes_past_the_hash() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if path.name != "compiled.py"]
    assert any("import numba" in path.read_text() for path in others)
    for path in others:
        text = path.read_text()
        assert not re.search(r"\bnumba\.(njit|jit|cfunc|(gu)?vectorize|stencil)\b|\bfrom numba import", text), path
        assert "cache=True" not in text, path
