"""Sphinx configuration. Nothing here, and nothing in the pages it makes, asks a network address."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import jupytext

import hierlmm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

# Pages are executed: figures go into the page, whatever backend the shell that builds them prefers.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
os.environ.pop("HIERLMM_DATA", None)  # as a reader has it

project = "hierlmm"
author = "The hierlmm developers"
copyright = author
version = release = hierlmm.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "mathml"]
exclude_patterns = ["_build", "_ext", "_templates", "conf.py", "jupyter_execute"]
templates_path = ["_templates"]
default_role = "py:obj"

# --- pages, executed as they are built ---

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
# A number on a page is the number that this version of the code computes; EXECUTE=off only builds the pages.
nb_execution_mode = os.environ.get("EXECUTE", "force")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress and paths; what a fit warns of is printed with the fit
suppress_warnings = ["myst-nb.lexer"]  # only a kernel says what language a cell is in
nb_ipywidgets_js = {}  # its default is two network addresses

# --- reference ---

autosummary_generate = True
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # numpydoc's sections say it, with shapes
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# --- HTML ---

html_theme = "pydata_sphinx_theme"
html_title = "hierlmm"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "hierlmm"},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_center": [],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"**": ["contents.html"]}


def make_gallery(source: Path, target: Path) -> None:
    """Copy every example into the gallery and list them; unchanged files are left alone."""
    target.mkdir(exist_ok=True)
    examples = sorted(source.glob("*.py"))
    for stale in set(target.glob("*.py")) - {target / example.name for example in examples}:
        stale.unlink()
    for example in examples:
        _write(target / example.name, example.read_text(encoding="utf-8"))
    lines = ["# Gallery", ""]
    if examples:
        lines += [
            "Every example is a Python file in `examples/` that runs as it stands and opens as a notebook "
            "(`jupytext --to ipynb`). It is executed when these pages are built, and by the tests.",
            "",
            "```{toctree}",
            ":hidden:",
            "",
            *(example.stem for example in examples),
            "```",
            "",
            *(f"{{doc}}`{example.stem}`\n: {_first_sentence(example)}\n" for example in examples),
        ]
    else:
        lines += ["There are no examples yet; the {doc}`quickstart </quickstart>` shows what the package does."]
    _write(target / "index.md", "\n".join(lines) + "\n")


def _first_sentence(example: Path) -> str:
    """First paragraph of text below the title."""
    cells = [c.source for c in jupytext.read(example, fmt="py:percent").cells if c.cell_type == "markdown"]
    paragraphs = [p.strip() for p in "\n\n".join(cells).split("\n\n")]
    text = next((p for p in paragraphs if p and not p.startswith(("#", "-", "|", "$", "```"))), "")
    return " ".join(text.split())


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    """Pages that compute are spread: a process reads some thirty neighbours at a time."""

    def spread(app: Any, env: Any, names: list[str]) -> None:
        names[:] = [name for k in range(8) for name in names[k::8]]

    app.connect("env-before-read-docs", spread)


shutil.rmtree(HERE / "generated", ignore_errors=True)  # reference pages of names that are gone
make_gallery(HERE.parent / "examples", HERE / "gallery")
