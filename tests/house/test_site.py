"""The pages as a reader meets them: links that lead somewhere, notebooks that open, pictures on long pages.

`.ci/run` builds the pages before the tests; what looks at built pages is left out where there are none (`make docs`).
"""

import functools
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from cells import page_cells

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BUILT = DOCS / "_build" / "html"
SOURCES = [*sorted(DOCS.glob("*.md")), *sorted((DOCS / "course").glob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]
DRAWS = re.compile(r"\.plot\w*\(|\bplot_\w+\(|\bplt\.|^!\[|^`{3,}\{(?:image|figure|raw)\}", re.M)
LONG = 2000
built = pytest.mark.skipif(not (BUILT / "index.html").exists(), reason="the documentation is not built (make docs)")


class Page(HTMLParser):
    """Where a page leads, and the places in it that can be led to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.places.add(value)
            elif name in ("href", "src", "data", "poster") and value:
                self.links.append(value)


@functools.cache
def read(path):
    return Page(path.read_text(encoding="utf-8"))


def dead(page, folder):
    """Links of a page that lead nowhere."""
    for link in read(page).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        to = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not to.is_file() or not to.is_relative_to(folder):
            yield link
        elif parts.fragment and to.suffix == ".html" and unquote(parts.fragment) not in read(to).places:
            yield link


@built
def test_every_link_leads_somewhere():
    pages = sorted(BUILT.rglob("*.html"))
    assert sum(len(read(page).links) for page in pages) > 5000
    found = {page.relative_to(BUILT).as_posix(): sorted(set(dead(page, BUILT))) for page in pages}
    assert not {page: links for page, links in found.items() if links}


def test_dead_links_are_seen(tmp_path):
    (tmp_path / "a.html").write_text('<p id="here"><a href="#here"><a href="b.html#there"><img src="c.png">')
    (tmp_path / "b.html").write_text('<a href="a.html#here"><a href="a.html#gone"><a href="https://x.org/y">')
    read.cache_clear()
    assert list(dead(tmp_path / "a.html", tmp_path)) == ["b.html#there", "c.png"]
    assert list(dead(tmp_path / "b.html", tmp_path)) == ["a.html#gone"]


@pytest.fixture
def notebooks(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    monkeypatch.delitem(sys.modules, "notebooks", raising=False)
    import notebooks

    return notebooks


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_page_as_a_notebook(notebooks, path):
    """All of its cells, none of MyST's markup, and nothing of the machine that made it."""
    if not notebooks.has_notebook(path.stem, path):
        assert not page_cells(path) or path.stem == "index"
        return
    made = notebooks.to_notebook(path, lambda role, target: target)
    nbformat.validate(made)
    assert made.metadata == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    if path.suffix == ".md":
        assert [cell.source for cell in code] == [cell.strip() for cell in page_cells(path)]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    text = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert text.startswith("# ")
    assert not re.findall(r"\{[\w:-]+\}`|^(?:`{3,}|:{3,})\{|^\([\w-]+\)=", text, re.M)


def test_markup_becomes_words(notebooks):
    said = {("doc", "gee"): "Estimating equations", ("ref", "splines"): "Splines"}
    text = (
        "(here)=\n## A title\n\nSee {doc}`gee`, {doc}`this page <gee>`, {ref}`splines`, {math}`a_b` and {py:func}`f`.\n\n"
        "```{admonition} A number that is not so\n:class: warning\nIt is 3.\n\nNot 4.\n```\n\n:::{note}\nBy hand.\n:::\n\n"
        "```{toctree}\nx\n```\n\n```python\n1\n```"
    )
    assert notebooks.to_markdown(text, lambda role, target: said[role, target]) == (
        "## A title\n\nSee *Estimating equations*, *this page*, *Splines*, $a_b$ and `f`.\n\n"
        "> **A number that is not so**\n>\n> It is 3.\n>\n> Not 4.\n\n> **Note**\n>\n> By hand.\n\n\n\n```python\n1\n```"
    )


def test_code_of_a_folded_solution_is_folded(notebooks, tmp_path):
    """Jupyter folds what lies within one cell; code between two texts is folded by itself."""
    page = tmp_path / "page.md"
    page.write_text(
        "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n# A\n\n<details><summary>Solution</summary>\n\nSo:\n\n"
        "```{code-cell} ipython3\n1\n```\n\n</details>\n\n```{code-cell} ipython3\n2\n```\n"
    )
    made = notebooks.to_notebook(page, str)
    folded = [cell.metadata.get("jupyter", {}).get("source_hidden") for cell in made.cells if cell.cell_type == "code"]
    assert folded == [True, None]


@built
def test_every_page_with_code_offers_its_notebook():
    for path in SOURCES:
        folder = {DOCS: "", DOCS / "course": "course/"}.get(path.parent, "gallery/")
        page = BUILT / f"{folder}{path.stem}.html"
        if not page.exists():  # newer than what was built
            continue
        offered = [link for link in read(page).links if link.endswith(".ipynb")]
        has = path.stem != "index" and (path.suffix == ".py" or bool(page_cells(path)))
        assert f"{path.stem}.ipynb" in offered if has else path.stem == "index" or not offered, page
        for name in offered:
            assert str(ROOT) not in (page.parent / name).read_text(encoding="utf-8")


@built
def test_every_example_has_a_card():
    offered = read(BUILT / "gallery" / "index.html").links
    for example in (ROOT / "examples").glob("*.py"):
        assert {f"{example.stem}.html", f"{example.stem}.ipynb"} <= set(offered)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_says_which_picture_its_card_shows(example):
    """And what is to be seen on it, in the line that begins the cell that draws."""
    (alt,) = re.findall(r'^# %% mystnb=\{"image": \{"alt": "(.+)"\}\}$', example.read_text(encoding="utf-8"), re.M)
    assert len(alt) > 20


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_a_long_page_has_a_picture(page):
    text = page.read_text(encoding="utf-8")
    if len(text.split()) >= LONG:
        assert any(DRAWS.search(cell) for cell in page_cells(page)) or re.search(DRAWS.pattern[DRAWS.pattern.index("^!") :], text, re.M)
