"""Change the code at random, one place at a time, and see whether the tests notice.

    python tools/mutate.py --seconds 3600 --seed 1 --out mutants.jsonl

Each mutant is one change of one file of a copy of the repository (a sign, a comparison, a number, a condition, a left
out statement). First the tests of all rooms run on the unchanged code, each with its duration and the lines that it
executes; a mutant is then run against the tests of its room that execute the changed line, the quickest first, until
the first failure. What is compiled or stands outside of functions is tested by all that use the file. Compiled code of
a changed file and of those that inline it is compiled again (`hierlmm.compiled`). A killed mutant is one that a test
noticed; one that runs out of time counts as noticed, too. Survivors are to be read one by one: some change nothing that
matters, and of some no test of the room runs the line.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.util
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import arviz  # noqa: F401
import matplotlib as mpl
import numba
import pymc  # noqa: F401
import pytest
import statsmodels.api  # noqa: F401

mpl.use("Agg")
sys.dont_write_bytecode = True

ROOT = Path(__file__).resolve().parent.parent
OPTIMA = ["global_optimum", "random_optima", "divergence", "by_subject", "origin"]
RESIDUAL = ["residual_structures", "residual_limits", "residual_invariance", "residual_input"]
ROOMS = {
    "likelihood": ["likelihood", "df", "covariance_structures", "marginal_model", "boundary", *RESIDUAL],
    "covariance": ["covariance_structures", "own_structures", "likelihood", "hierarchy", *RESIDUAL],
    "effects": ["effects_contrasts", "effect_plots"],
    "predict": ["predict", "predict_subject", "predict_coverage", "predict_input", "origin", "by_subject"],
    "bayes": ["priors", "collapsed", "collapsed_fit", "posterior_fit", "conflict", "explicit", "modes", "origin"],
}
ROOMS["likelihood"] += ["residual_reference", "loo", *OPTIMA]
ROOMS["covariance"] += OPTIMA
ROOMS["bayes"] += ["residual_bayes"]
"""Test files of each room."""
SECONDS = 90
"""Processor time of a mutant's tests: what takes longer in sum on the unchanged code is left out, the longest first."""

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


class Place(NamedTuple):
    """Something that can be changed, and the lines that run when it does: none outside of what Python executes."""

    parent: Any
    field: str
    position: int | None
    new: ast.AST
    lines: range


def head(node: Any) -> range:
    """Lines of a statement, of a compound one down to its body."""
    body = getattr(node, "body", None)
    return range(node.lineno, max(body[0].lineno, node.lineno + 1) if body else node.end_lineno + 1)


def places(tree: ast.Module) -> list[Place]:
    """Every place of a module, outside annotations, messages and ``__all__``."""
    found: list[Place] = []

    def walk(node: ast.AST, lines: range, python: bool) -> None:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise | ast.JoinedStr):
                continue
            for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                own, inside = lines, python
                if isinstance(child, ast.FunctionDef):  # a changed default value matters where the function runs
                    inside = not any("compiled" in ast.unparse(decorator) for decorator in child.decorator_list)
                    own = range(child.body[0].lineno, child.body[-1].end_lineno + 1) if inside else range(0)
                elif isinstance(child, ast.stmt) and python:
                    own = head(child)
                if isinstance(child, ast.AST):
                    found.extend(Place(node, field, i, new, own) for new in changes(child))
                    walk(child, own, inside)

    walk(tree, range(0), False)
    return found


def mutant(path: Path, rng: random.Random) -> tuple[str, str, range]:
    """A changed source, what was changed, and the lines that run it."""
    tree = ast.parse(path.read_text())
    place = rng.choice(places(tree))
    old = getattr(place.parent, place.field)
    if place.position is None:
        setattr(place.parent, place.field, place.new)
    else:
        old[place.position], old = place.new, old[place.position]
    short = [" ".join(ast.unparse(node).split())[:100] for node in (old, place.new)]
    return ast.unparse(ast.fix_missing_locations(tree)), f"{old.lineno}: {short[0]}  ->  {short[1]}", place.lines


class Measure:
    """Plugin of pytest: seconds and executed lines of the package by test; what a fixture runs counts for its file."""

    def __init__(self, package: Path):
        self.package, self.seen, self.seconds = str(package), set(), {}
        self.lines: dict[str, set[tuple[str, int]]] = defaultdict(set)
        sys.monitoring.use_tool_id(4, "mutate")
        sys.monitoring.register_callback(4, sys.monitoring.events.PY_START, self.starts)
        sys.monitoring.register_callback(4, sys.monitoring.events.LINE, self.line)
        sys.monitoring.set_events(4, sys.monitoring.events.PY_START)

    def line(self, code: Any, number: int) -> None:
        """Keep an executed line."""
        self.seen.add((code.co_filename, number))

    def starts(self, code: Any, _offset: int) -> Any:
        """Watch the lines of a function of the package, from its first call on."""
        if code.co_filename.startswith(self.package):
            sys.monitoring.set_local_events(4, code, sys.monitoring.events.LINE)
        return sys.monitoring.DISABLE

    def phase(self, name: str) -> Iterator[None]:
        """Book what happens meanwhile to a name."""
        self.seen, began = set(), time.process_time()
        try:
            return (yield)
        finally:
            self.lines[name] |= self.seen
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """Fixtures: booked to the file."""
        return (yield from self.phase(item.nodeid.split("::")[0]))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """The test itself."""
        return (yield from self.phase(item.nodeid))

    def pytest_sessionfinish(self) -> None:
        """Write all of it to a file."""
        files = {name: {file for file, _ in lines} for name, lines in self.lines.items()}
        Path("measured").write_bytes(pickle.dumps((self.seconds, dict(self.lines), files)))


class Choice:
    """A plugin of pytest: these tests in this order."""

    def __init__(self, chosen: list[str]):
        self.order = {name: i for i, name in enumerate(chosen)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the others out."""
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda item: self.order[item.nodeid])


def importers(path: Path, compiled: list[Path]) -> tuple[list[Path], list[Path]]:
    """Files with compiled code that may inline a file's, and all files that import from these or from the file."""
    stale = [path]
    sources = {f: f.read_text() for f in (ROOT / "hierlmm").rglob("*.py")}

    def imports(source: Path, own: Path) -> bool:
        return f"hierlmm.{own.parent.name}.{own.stem} import" in sources[source]

    for own in stale:
        stale += [f for f in compiled if f not in stale and imports(f, own)]
    return stale, stale + [f for f in sources if f not in stale and any(imports(f, own) for own in stale)]


def choose(room: str, lines: set[tuple[str, int]], files: list[str], measured: Any) -> tuple[list[str], float]:
    """Tests of a room that execute some of the lines, or of the files where that is none; and their seconds."""
    seconds, executed, used = measured
    tests = [name for name in seconds if "::" in name and Path(name.split("::")[0]).stem[5:] in ROOMS[room]]
    both = {name: (name, name.split("::")[0]) for name in tests}  # a test, and the fixtures of its file
    chosen = [name for name in tests if any(not lines.isdisjoint(executed[part]) for part in both[name])]
    if not chosen:
        chosen = [name for name in tests if any(not used[part].isdisjoint(files) for part in both[name])]
    total, by_file = 0.0, defaultdict(list)
    for name in sorted(chosen, key=lambda name: seconds[name]):
        total += seconds[name]
        if total > SECONDS:
            break
        by_file[name.split("::")[0]].append(name)
    order = sorted(by_file, key=lambda file: seconds[file] + sum(seconds[name] for name in by_file[file]))
    return [name for file in order for name in by_file[file]], min(total, SECONDS) + sum(seconds[f] for f in order)


def keep_compiled(package: Path, stale: list[Path]) -> None:
    """Fill the changed code's folder of machine code with that of files that do not inline it: with a new stamp."""
    spec = importlib.util.spec_from_file_location("compiled_of_copy", package / "compiled.py")
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    cold = own.cache_folder()
    (warm,) = (folder for folder in cold.parent.iterdir() if (folder / "warm").exists())
    prefixes = tuple(f"{path.stem}." for path in stale)
    for entry in warm.glob("*.nb?"):
        if entry.name.startswith(prefixes) or cold == warm:
            continue
        if entry.suffix == ".nbi":
            with entry.open("rb") as old, (cold / entry.name).open("wb") as new:
                pickle.dump(pickle.load(old), new)
                new.write(pickle.dumps((own.fingerprint(), pickle.loads(old.read())[1])))
        else:
            shutil.copy2(entry, cold)


def run_tests(copy_of: Path, arguments: list[str], plugin: Any, stale: list[Path]) -> None:
    """Run tests on the copy, in a process that ends with them. The package is imported here and nowhere earlier."""
    code = 1
    try:
        os.setsid()
        with (copy_of.parent / "log").open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.chdir(copy_of)
        sys.path.insert(0, str(copy_of))
        os.environ["PYTHONPATH"], os.environ["NUMBA_CACHE_DIR"] = str(copy_of), numba.config.CACHE_DIR
        package = copy_of / "hierlmm"
        if stale:
            keep_compiled(package, stale)  # loads types of the package
        made = Measure(package) if plugin is Measure else plugin
        code = int(pytest.main(["-x", "-q", "--tb=no", "-p", "no:cacheprovider", *arguments], plugins=[made]))
        sys.stdout.flush()
    finally:
        os._exit(code)


def run(copy_of: Path, arguments: list[str], plugin: Any, limit: float, stale: list[Path]) -> str:
    """Run tests on the copy in a process of its own: "survived", "killed by ..." or "timeout"."""
    if "hierlmm" in sys.modules:
        raise RuntimeError("the package was imported: changed code would not be run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads: those of the libraries are idle
        child = os.fork()  # the libraries are imported already, the package is not
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, limit)  # time of the processor; ends compiled code that hangs, too
        signal.alarm(int(10 * limit))  # by the clock, should it wait for ever
        run_tests(copy_of, arguments, plugin, stale)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it has started
    if status == 0:
        return "survived"
    if status in (-signal.SIGPROF, -signal.SIGALRM):
        return "timeout"
    log = (copy_of.parent / "log").read_text()
    lines = [line for line in log.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return f"killed by {lines[0][:100] if lines else f'exit {status}'}"


def measure(copy_of: Path, rooms: list[str]) -> Any:
    """Run all tests on the unchanged code: seconds and lines by test."""
    names = sorted({str(next(Path("tests").rglob(f"test_{name}.py"))) for room in rooms for name in ROOMS[room]})
    if (outcome := run(copy_of, ["-m", "not slow", *names], Measure, 3600, [])) != "survived":
        sys.exit(f"A test fails on the unchanged code: {outcome}")
    (folder,) = Path(numba.config.CACHE_DIR).glob("hierlmm-*/*")
    (folder / "warm").touch()
    return pickle.loads((copy_of / "measured").read_bytes())


def one(
    path: Path, room: str, rng: random.Random, copy_of: Path, compiled: list[Path], measured: Any
) -> dict[str, Any]:
    """Make a mutant of a file, test it, and put the file back."""
    source, change, lines = mutant(path, rng)
    target = copy_of / path.relative_to(ROOT)
    unchanged = target.read_text()
    stale, files = importers(path, compiled)
    where = [str(copy_of / file.relative_to(ROOT)) for file in files]
    in_python = path not in compiled and bool(lines)
    tests, seconds = choose(room, {(str(target), n) for n in lines}, [] if in_python else where, measured)
    began, outcome = time.monotonic(), "survived"
    if tests:
        target.write_text(source)
        names = sorted({name.split("::")[0] for name in tests})
        outcome = run(copy_of, names, Choice(tests), 60 + 3 * seconds, stale if path in compiled else [])
        target.write_text(unchanged)
        for folder in Path(numba.config.CACHE_DIR).glob("hierlmm-*/*"):
            if not (folder / "warm").exists():
                shutil.rmtree(folder)
    record = {"room": room, "mutant": f"{path.relative_to(ROOT)}:{change}", "outcome": outcome}
    return record | {"tests": len(tests), "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    """Mutate until the time is over, and print the score by room."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600, help="of mutants; measuring the tests comes first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rooms", nargs="*", default=list(ROOMS), choices=list(ROOMS))
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    files = {room: sorted((ROOT / "hierlmm" / room).glob("[!_]*.py")) for room in options.rooms}
    weights = {room: [len(places(ast.parse(f.read_text()))) for f in own] for room, own in files.items()}
    compiled = [f for f in (ROOT / "hierlmm").rglob("*.py") if "hierlmm.compiled import" in f.read_text()]
    score: dict[str, Counter[str]] = {room: Counter() for room in files}
    spent = dict.fromkeys(files, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        copy_of, numba.config.CACHE_DIR = Path(folder) / "copy", str(Path(folder) / "numba")
        for part in ("hierlmm", "tests"):
            shutil.copytree(ROOT / part, copy_of / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "pyproject.toml", copy_of)
        measured = measure(copy_of, options.rooms)
        print("The unchanged code passes", len(measured[0]), "tests.", flush=True)
        start = time.monotonic()
        while time.monotonic() - start < options.seconds:
            room = min(spent, key=lambda name: spent[name])  # time is spread evenly over the rooms
            path = rng.choices(files[room], weights[room])[0]
            record = one(path, room, rng, copy_of, compiled, measured)
            spent[room] += record["seconds"] + 0.1
            score[room][record["outcome"].split()[0] if record["tests"] else "untested"] += 1
            with options.out.open("a") as out:
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
    for room, counts in score.items():
        print(f"{room:12}", dict(counts))


if __name__ == "__main__":
    main()
