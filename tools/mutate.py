"""Change the code at random, one place at a time, and see whether the tests notice.

    python tools/mutate.py --seconds 3600 --seed 1 --out mutants.jsonl

Each mutant is one change of one file of a copy of the repository (a sign, a comparison, a number, a condition, a left
out statement), run against the quick tests of its room until the first failure. numba does not notice changes of what a
compiled function calls, so what was compiled from a changed file and its callers is compiled again. A killed mutant is
one that a test noticed; survivors are to be read one by one: some change nothing that matters.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arviz  # noqa: F401
import matplotlib as mpl
import numba
import pymc  # noqa: F401
import pytest
import statsmodels.api  # noqa: F401

mpl.use("Agg")
sys.dont_write_bytecode = True

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "likelihood": ["likelihood", "df", "covariance_structures", "residual_structures", "marginal_model", "boundary"],
    "covariance": ["covariance_structures", "own_structures", "residual_structures", "likelihood", "hierarchy"],
    "effects": ["effects_contrasts", "effect_plots"],
    "predict": ["predict"],
    "bayes": ["priors", "collapsed", "posterior_fit", "conflict", "residual_bayes", "explicit"],
}
ROOMS["likelihood"] += ["residual_reference", "loo"]
"""Test files of each room, the likeliest to notice first."""

COMPARISONS: dict[type, type] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
COMPARISONS |= {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is}
OPERATORS: dict[type, type] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
OPERATORS |= {ast.Pow: ast.Mult}


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    new: Any = copy.deepcopy(node)
    if isinstance(new, ast.BinOp | ast.AugAssign) and type(new.op) in OPERATORS:
        new.op = OPERATORS[type(new.op)]()
        yield new
    elif isinstance(new, ast.Compare) and type(new.ops[0]) in COMPARISONS:
        new.ops[0] = COMPARISONS[type(new.ops[0])]()
        yield new
    elif isinstance(new, ast.BoolOp):
        new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()
        yield new
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, ast.USub | ast.Not):
        yield new.operand
    elif isinstance(new, ast.Constant) and isinstance(new.value, bool):
        yield ast.Constant(not new.value)
    elif isinstance(new, ast.Constant) and isinstance(new.value, int | float):
        yield ast.Constant(new.value + 1 if isinstance(new.value, int) else 2.0 * new.value + 1.0)
    elif isinstance(new, ast.If | ast.IfExp | ast.While):
        new.test = ast.UnaryOp(ast.Not(), new.test)
        yield new
    elif isinstance(new, ast.Call) and getattr(new.func, "attr", "") in ("maximum", "minimum", "abs", "sqrt"):
        yield new.args[0]
    if isinstance(node, ast.Raise | ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(new.value, ast.Call)):
        yield ast.Pass()


def places(tree: ast.Module) -> list[tuple[Any, str, int | None, ast.AST]]:
    """Every (parent, field, position, replacement) of a module, outside annotations, messages and ``__all__``."""
    found: list[tuple[Any, str, int | None, ast.AST]] = []

    def walk(node: ast.AST) -> None:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise | ast.JoinedStr):
                continue
            for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST):
                    found.extend((node, field, i, new) for new in changes(child))
                    walk(child)

    walk(tree)
    return found


def mutant(path: Path, rng: random.Random) -> tuple[str, str]:
    """A changed source, and what was changed."""
    tree = ast.parse(path.read_text())
    parent, field, i, new = rng.choice(places(tree))
    old = getattr(parent, field) if i is None else getattr(parent, field)[i]
    if i is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[i] = new
    short = [" ".join(ast.unparse(node).split())[:100] for node in (old, new)]
    return ast.unparse(ast.fix_missing_locations(tree)), f"{old.lineno}: {short[0]}  ->  {short[1]}"


def cache_without(path: Path, compiled: list[Path], warm: Path, cold: Path) -> Path:
    """A cache of numba without what was compiled from a file, and from those that import from it."""
    stale = [path]
    for source in stale:
        text = f"hierlmm.{source.parent.name}.{source.stem} import"
        stale += [f for f in compiled if f not in stale and text in f.read_text()]
    shutil.rmtree(cold, ignore_errors=True)
    shutil.copytree(warm, cold)
    for source in stale:
        for entry in cold.glob(f"{source.parent.name}_*/{source.stem}.*"):
            entry.unlink()
    return cold


def run(copy_of: Path, room: str, cache: Path, limit: float) -> str:
    """Run a room's tests on the copy in a process of its own: "survived", "killed by ..." or "timeout"."""
    log = copy_of.parent / "log"
    child = os.fork()  # the libraries are imported already, the package is not
    if child == 0:
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.chdir(copy_of)
        sys.path.insert(0, str(copy_of / "src"))
        os.environ["PYTHONPATH"], numba.config.CACHE_DIR = str(copy_of / "src"), str(cache)
        signal.alarm(int(limit))
        files = [f"tests/test_{name}.py" for name in ROOMS[room]]
        code = pytest.main(["-x", "-q", "--tb=no", "-m", "not slow", "-p", "no:cacheprovider", *files])
        sys.stdout.flush()
        os._exit(int(code))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        return "survived"
    if status == -signal.SIGALRM:
        return "timeout"
    lines = [line for line in log.read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return f"killed by {lines[0][:100] if lines else f'exit {status}'}"


def main() -> None:
    """Mutate until the time is over, and print the score by room."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=300, help="seconds for one mutant")
    parser.add_argument("--rooms", nargs="*", default=list(ROOMS), choices=list(ROOMS))
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    files = {room: sorted((ROOT / "src" / "hierlmm" / room).glob("[!_]*.py")) for room in options.rooms}
    weights = {room: [len(places(ast.parse(f.read_text()))) for f in own] for room, own in files.items()}
    compiled = [f for f in (ROOT / "src").rglob("*.py") if "numba.njit" in f.read_text()]
    score: dict[str, Counter[str]] = {room: Counter() for room in files}
    with tempfile.TemporaryDirectory() as folder:
        copy_of, warm = Path(folder) / "copy", Path(folder) / "warm"
        for part in ("src", "tests"):
            shutil.copytree(ROOT / part, copy_of / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "pyproject.toml", copy_of)
        for room in files:  # also fills the cache of numba
            if (outcome := run(copy_of, room, warm, 10 * options.limit)) != "survived":
                sys.exit(f"The tests of {room} fail on the unchanged code: {outcome}")
        start = time.monotonic()
        while time.monotonic() - start < options.seconds:
            room = min(score, key=lambda name: score[name].total())
            path = rng.choices(files[room], weights[room])[0]
            source, change = mutant(path, rng)
            target = copy_of / path.relative_to(ROOT)
            target.write_text(source)
            cache = cache_without(path, compiled, warm, Path(folder) / "cold") if path in compiled else warm
            began, outcome = time.monotonic(), run(copy_of, room, cache, options.limit)
            shutil.copy2(path, target)
            score[room][outcome.split()[0]] += 1
            record = {"mutant": f"{path.relative_to(ROOT)}:{change}", "outcome": outcome}
            with options.out.open("a") as out:
                out.write(json.dumps(record | {"seconds": round(time.monotonic() - began)}, ensure_ascii=False) + "\n")
    for room, counts in score.items():
        print(f"{room:12}", dict(counts))


if __name__ == "__main__":
    main()
