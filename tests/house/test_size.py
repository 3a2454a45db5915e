"""How large files and functions may be, read from the sources.

A function beyond a bound says why in a comment of its own, before it or inside it: ``# Long: ...`` for its lines,
``# Branches: ...`` for its branches. What was beyond a bound when this was first counted stands below with its number,
which may only fall.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_OF_A_FILE = 450
LINES_OF_A_FUNCTION = 60
BRANCHES = 10
REASONS = {"lines": re.compile(r"# Long: \w+"), "branches": re.compile(r"# Branches: \w+")}
BRANCHING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

ALLOWED: dict[str, dict[str, int]] = {"file": {}, "lines": {}, "branches": {}}


def own_nodes(function):
    """Nodes of a function without those of functions inside it, which are counted on their own."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, FUNCTION):
            yield child
            yield from own_nodes(child)


def size_of(function):
    """Lines without the docstring, and branches."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= first.end_lineno - first.lineno + 1
    return {"lines": lines, "branches": sum(isinstance(node, BRANCHING) for node in own_nodes(function))}


def functions(tree, prefix=""):
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}{getattr(node, 'name', '')}"
        if isinstance(node, FUNCTION):
            yield name, node
        yield from functions(node, f"{name}." if isinstance(node, (*FUNCTION, ast.ClassDef)) else prefix)


def comments_of(lines, function):
    """The text of a function and of the comments directly above it and its decorators."""
    first = min([function.lineno, *(d.lineno for d in function.decorator_list)]) - 1
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return "\n".join(lines[first : function.end_lineno])


def beyond(source, where):
    """(kind, place, size) of everything beyond a bound without a reason."""
    lines = source.splitlines()
    if len(lines) > LINES_OF_A_FILE:
        yield "file", where, len(lines)
    for name, function in functions(ast.parse(source)):
        for kind, size in size_of(function).items():
            bound = LINES_OF_A_FUNCTION if kind == "lines" else BRANCHES
            if size > bound and not REASONS[kind].search(comments_of(lines, function)):
                yield kind, f"{where}:{name}", size


def found():
    for path in sorted((ROOT / "hierlmm").rglob("*.py")):
        yield from beyond(path.read_text(encoding="utf-8"), path.relative_to(ROOT / "hierlmm").as_posix())


@pytest.mark.parametrize("kind", ["file", "lines", "branches"])
def test_nothing_is_beyond_its_bound_without_a_reason(kind):
    too_large = {place: size for k, place, size in found() if k == kind and size > ALLOWED[kind].get(place, 0)}
    assert not too_large, too_large


LONG = "def f():\n    '''Text\n    of two lines.'''\n" + "    x = 1\n" * 60
BRANCHED = "def f(x):\n" + "    if x:\n        pass\n    elif not x:\n        pass\n" * 5


def test_the_bounds_are_seen():
    """One line or branch below the bound passes, one above does not, and a reason lets it pass."""
    at_bound = LONG.replace("    x = 1\n", "", 1)
    assert not [*beyond(at_bound, "f.py"), *beyond(BRANCHED, "f.py"), *beyond("x = 1\n" * LINES_OF_A_FILE, "f.py")]
    assert list(beyond("x = 1\n" * (LINES_OF_A_FILE + 1), "f.py")) == [("file", "f.py", LINES_OF_A_FILE + 1)]
    assert list(beyond(LONG, "f.py")) == [("lines", "f.py:f", 61)]
    more = BRANCHED + "    for y in x:\n        pass\n"
    assert list(beyond(more, "f.py")) == [("branches", "f.py:f", 11)]
    assert not list(beyond("# Branches: one for each kind.\n" + more, "f.py"))
    assert not list(beyond(LONG.replace("    x", "    # Long: one pass over the rows.\n    x", 1), "f.py"))
    inside = "class A:\n" + "".join(f"    {line}\n" for line in LONG.splitlines())
    assert list(beyond(inside, "f.py")) == [("lines", "f.py:A.f", 61)]
