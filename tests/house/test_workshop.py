"""What the project says about itself in several places must agree, and its tests and imports keep a few rules."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import hierlmm as hl

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = sorted((ROOT / "hierlmm").rglob("*.py"))
OPTIONAL = {
    "bambi",
    "docx",
    "great_tables",
    "openpyxl",
    "polars",
    "pyarrow",
}  # imported where they are asked for, by extras
OPTIONAL |= {"shiny", "starlette", "uvicorn"}  # the app; the last two come with the first
OPTIONAL |= {"IPython", "bokeh", "plotly"}  # only in a notebook, and after a picture was asked of these backends


def imports(path):
    """Full names of the modules and names that a file imports from other packages."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_one_version():
    assert "version" in PROJECT["dynamic"]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited.group(1) == hl.__version__
    assert "release = hierlmm.__version__" in (ROOT / "docs" / "conf.py").read_text()


def test_what_is_imported_is_declared():
    declared = {re.match(r"[\w-]+", line).group().replace("-", "_") for line in PROJECT["dependencies"]}
    used = {name.split(".")[0] for path in SOURCES for name in imports(path)}
    assert used - set(sys.stdlib_module_names) - {"hierlmm"} - OPTIONAL == declared


def test_no_private_parts_of_other_packages():
    found = {
        f"{path.name}: {name}"
        for path in [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.py")]
        for name in imports(path)
        if any(re.match(r"_\w", part) for part in name.split(".")[1:]) and not name.startswith("hierlmm.")
    }
    assert not found


def test_the_lock_file_has_hashes_and_no_addresses():
    lock = (ROOT / "requirements" / "lock.txt").read_text()
    assert not re.search(r"https?:|index|find-links|@ ", lock)
    pins = re.split(r"\n(?=\S)", lock.strip())
    assert all(re.match(r"[\w.-]+==\S+( ;.*)? \\\n", pin) and "--hash=sha256:" in pin for pin in pins)
    locked = {pin.split("==")[0] for pin in pins}
    wanted = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    assert {re.match(r"[\w-]+", line).group() for line in wanted} - {"hierlmm"} <= locked


def test_no_test_reads_a_clock():
    """How long something takes depends on what else the machine does; tests count work instead."""
    clock = re.compile(r"\b(perf_counter|monotonic|process_time|thread_time|timeit|time\.time\(|datetime\.now)")
    tests = [path for path in Path(__file__).parents[1].rglob("*.py") if path != Path(__file__)]
    assert not [path.name for path in tests if clock.search(path.read_text())]
