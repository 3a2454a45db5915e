"""A notebook to download for every page with code: its text and cells, not executed, without what MyST alone reads."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jupytext
import nbformat

ROLE = re.compile(r"\{([\w:+-]+)\}`([^`]+)`")
LABEL = re.compile(r"^\([\w-]+\)=\n+", re.M)
DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w-]+)\} *(?P<title>.*)\n(?P<body>(?:.*\n)*?)(?P=fence)$", re.M
)
OPTIONS = re.compile(r"\A(?::[\w-]+:.*\n)+\n?")
FOLDED = re.compile(r"</?details>")
WITHOUT_WORDS = {"contents", "eval-rst", "raw", "toctree"}


def read_page(path: Path) -> Any:
    """A page or an example as a notebook."""
    return jupytext.read(path, fmt="py:percent" if path.suffix == ".py" else "md:myst")


def to_notebook(path: Path, name_of: Callable[[str, str], str]) -> Any:
    """A page as a notebook for Jupyter; `name_of` says what a role (``doc``, ``ref``) with a target is called."""
    page, folded = read_page(path), False
    for number, cell in enumerate(page.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata, cell.id = nbformat.from_dict({"tags": tags} if tags else {}), f"cell-{number}"
        if cell.cell_type == "code" and folded:  # a solution between two texts: Jupyter folds text of one cell only
            cell.metadata["jupyter"] = {"source_hidden": True}
        elif cell.cell_type == "markdown":
            folded = [folded, *(mark == "<details>" for mark in FOLDED.findall(cell.source))][-1]
            cell.source = to_markdown(cell.source, name_of)
    page.cells = [cell for cell in page.cells if cell.source]
    page.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    return page


def to_markdown(text: str, name_of: Callable[[str, str], str]) -> str:
    """Text as Jupyter reads it: names of pages instead of roles, quoted boxes, no labels."""

    def role(found: re.Match[str]) -> str:
        kind, content = found.groups()
        if kind == "math":
            return f"${content}$"
        if kind not in ("doc", "ref"):
            return f"`{content}`"
        explicit = re.fullmatch(r"(.*?)\s*<.+>", content, re.S)
        return f"*{explicit[1] if explicit else name_of(kind, content)}*"

    def directive(found: re.Match[str]) -> str:
        name, title = found["name"], found["title"].strip()
        options = OPTIONS.match(found["body"])
        body = found["body"][options.end() if options else 0 :].strip()
        if name in WITHOUT_WORDS:
            return ""
        if name in ("image", "figure"):
            alt = re.search(r"^:alt: (.+)$", found["body"], re.M)
            return "\n\n".join(filter(None, [f"*{alt[1]}*" if alt else "", body]))
        if name in ("code", "code-block"):
            return f"```{title}\n{body}\n```"
        if name == "math":
            return f"$$\n{body}\n$$"
        box = f"**{title if name == 'admonition' or title else name.capitalize()}**\n\n{body}"
        return "\n".join(f"> {line}".rstrip() for line in box.splitlines())

    return ROLE.sub(role, DIRECTIVE.sub(directive, LABEL.sub("", f"{text}\n"))).strip()


def has_notebook(docname: str, path: Path) -> bool:
    """Pages with code, but those that only lead to others."""
    if posixpath.basename(docname) == "index" or not path.is_file():
        return False
    return path.suffix == ".py" or (path.suffix == ".md" and "```{code-cell}" in path.read_text(encoding="utf-8"))


def add_notebook(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Write the notebook beside the page and tell the template (``notebook.html``) its name."""
    path = Path(app.env.doc2path(pagename))
    if doctree is None or not has_notebook(pagename, path):
        return

    def name_of(role: str, target: str) -> str:
        if role == "ref":
            return app.env.get_domain("std").labels[target.lower()][2]
        name = target.lstrip("/") if target.startswith("/") else posixpath.join(posixpath.dirname(pagename), target)
        return app.env.titles[posixpath.normpath(name)].astext()

    written = Path(app.outdir) / f"{pagename}.ipynb"
    written.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(to_notebook(path, name_of), written)
    context["notebook"] = written.name


def setup(app: Any) -> dict[str, Any]:
    app.connect("html-page-context", add_notebook)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
