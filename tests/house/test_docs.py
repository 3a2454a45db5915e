"""The pages that messages name exist, the names that pages use exist, and the code on the pages runs.

Every cell of every page is executed here; pages that sample are marked slow. ``make docs`` executes them once more, in
a Jupyter kernel, and shows what they print.
"""

import importlib
import importlib.util
import inspect
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cells import page_cells, run_page

import hierlmm as hl

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LECTURES = sorted((DOCS / "course").glob("*.md"))
"""Executed by `test_course.py`."""
BUILT = DOCS / "_build" / "html"
SLOW = re.compile(r"\.fit\(|\.compare\(|calibrate\(|design_analysis\(|loo\(|\bhierlmm\(")
"""Cells that sample, fit many times, or start a process."""


def headings(page):
    return re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S), re.M)


def is_slow(page):
    return any(SLOW.search(cell) for cell in page_cells(page))


def test_every_page_and_section_that_a_message_names_exists():
    sources = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "hierlmm").rglob("*.py"))
    named = re.findall(r"(?:docs|documentation), page '([^']+)'(?:, section '([^']+)')?", sources)
    assert named
    titles = {headings(page)[0]: page for page in PAGES}
    for title, section in named:
        assert title in titles, title
        assert not section or section in headings(titles[title]), (title, section)


def test_every_name_on_a_page_exists():
    named = {
        path
        for page in [*PAGES, *LECTURES]
        for path in re.findall(r"\bhl\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 40
    for path in named:
        target = hl
        for part in path.split("."):
            target = getattr(target, part)


def test_every_name_in_the_reference_exists():
    listed = re.findall(r"^   ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.M)
    assert len(listed) > 100
    for name in listed:
        module, _, last = f"hierlmm.{name}".rpartition(".")
        assert hasattr(importlib.import_module(module), last), name


def test_every_file_that_a_page_names_exists():
    """In the plan of the house and elsewhere: ``room/file.py``, or a file alone; NAME stands for what a reader adds."""
    there = {path.as_posix() for path in (ROOT / "hierlmm").rglob("*.py")}
    there |= {
        path.as_posix()
        for folder in ("benchmarks", "docs", "examples", "tests", "tools")
        for path in (ROOT / folder).rglob("*.py")
    }
    named = [
        (page.name, name)
        for page in [*PAGES, *LECTURES, ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
        for name in re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8"))
        if "NAME" not in name
    ]
    assert len(named) > 50
    assert not [(page, name) for page, name in named if not any(path.endswith(f"/{name}") for path in there)]


def test_every_public_name_is_in_the_reference():
    listed = set(re.findall(r"^   ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.M))
    assert set(hl.__all__) - {"__version__"} <= listed


def test_every_page_is_in_the_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^([a-z0-9/_]+)$", "\n".join(re.findall(r"```\{toctree\}(.*?)```", index, re.S)), re.M)
    assert {page.stem for page in PAGES} - {"index"} == set(listed) - {"gallery/index", "course/index"}


def test_every_cell_is_found():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert sum(len(page_cells(page)) for page in PAGES) == len(re.findall(r"^`+\{code", text, re.M)) > 150


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if is_slow(page) else [])
        for page in PAGES
        if page_cells(page)
    ],
)
@pytest.mark.usefixtures("as_a_reader_has_it", "short_chains")
def test_code_on_the_page_runs(page):
    run_page(page)


def load_mathml(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("mathml", DOCS / "_ext" / "mathml.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mathml", module)
    spec.loader.exec_module(module)
    return module.to_mathml


def test_equations_become_mathml(monkeypatch):
    to_mathml = load_mathml(monkeypatch)
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", hl.load_dataset("dental"))
    for equations in (model.equations(), model.equations(model.fit_reml())):
        markup = to_mathml(equations.latex, block=True)
        assert markup.startswith("<math") and "\n" not in markup
        assert markup.count("<mtable") == markup.count("</mtable>") >= 2
    tilde = to_mathml(r"\tilde b_{ij} + \sum_{i=1}^J x_i", block=True)
    assert "<msub><mover" in tilde and "<munderover>" in tilde  # the subscript of b beside it, the limits of the sum
    assert "<mfrac>" in to_mathml(r"\frac{a}{b}", block=False)
    assert "<mn>1</mn><mn>2</mn></mfrac>" in to_mathml(r"\tfrac12\sum x", block=False)  # a half, not 12 over a sum


class Addresses(HTMLParser):
    """What a browser fetches by itself to show a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if tag != "a" and name in ("src", "href", "srcset", "data", "poster") and value:
                self.found.append(value)


# `.ci/run` builds the pages before the tests; alone, these do not wait minutes for Sphinx.
@pytest.mark.skipif(not (BUILT / "index.html").exists(), reason="the documentation is not built (make docs)")
def test_built_pages_name_no_folder_and_fetch_nothing_from_the_network():
    for page in BUILT.rglob("*.html"):
        parser = Addresses()
        text = page.read_text(encoding="utf-8")
        assert str(ROOT) not in text, page.name
        parser.feed(text)
        remote = [a for a in parser.found if re.match(r"(https?:)?//", a)]
        assert not remote, (page.name, remote)
    for sheet in BUILT.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8", errors="ignore")
        assert not re.search(r"(url\(\s*['\"]?|@import\s+['\"])https?://", text), sheet.name


def test_tables_of_arguments_are_the_signatures():
    """A table headed "`hl.impute` | default" has every argument and its default."""
    found = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name, rows in re.findall(r"^\| `([\w.]+)` \| default \| \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.M):
            of, function = name.split(".")
            own = getattr(hl if of == "hl" else hl.LikelihoodFit, function)
            known = {k: v.default for k, v in inspect.signature(own).parameters.items() if k != "self"}
            said = {}
            for row in rows.splitlines():
                names, default = (cell.strip() for cell in row.split("|")[1:3])
                said |= dict.fromkeys(re.findall(r"`(\w+)`", names), default.strip("`"))
            missing = inspect.Parameter.empty
            assert said == {k: "" if v is missing else repr(v) for k, v in known.items()}, (page.name, name)
            found.add(function)
    assert {"impute", "tipping_point", "check_dropout", "bootstrap"} <= found
