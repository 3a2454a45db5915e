"""Sphinx configuration. Nothing here, and nothing in the pages it makes, asks a network address."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

from sphinx.util import logging

import hierlmm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from gallery import make_gallery  # noqa: E402
from notebooks import read_page  # noqa: E402

# Pages are executed: figures go into the page, whatever backend the shell that builds them prefers.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
os.environ.pop("HIERLMM_DATA", None)  # as a reader has it

project = "hierlmm"
author = "The hierlmm developers"
copyright = author
version = release = hierlmm.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "gallery", "mathml", "notebooks"]
exclude_patterns = ["_build", "_ext", "_templates", "conf.py", "jupyter_execute"]
templates_path = ["_templates"]
default_role = "py:obj"

# --- pages, executed as they are built ---

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
# A number on a page is the number that this version of the code computes: what was executed is kept for as long as
# neither the page nor the package nor what it is built on changes. EXECUTE=force executes all pages, EXECUTE=off none.
nb_execution_mode = os.environ.get("EXECUTE", "cache")
nb_execution_timeout = 600
nb_execution_show_tb = False  # `tell_failures` says it
nb_merge_streams = True
nb_output_stderr = "remove"  # progress and paths; what a fit warns of is printed with the fit
suppress_warnings = ["myst-nb.lexer", "mystnb.exec"]  # only a kernel says what language a cell is in
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
    "article_header_end": ["notebook.html"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"**": ["contents.html"]}


def kept_pages() -> Path:
    """Where executed pages are kept: a folder for this state of the package and of what it is built on.

    Reference pages, which are made of its docstrings, are made anew with it.
    """
    package, digest = Path(hierlmm.__file__).parent, hashlib.sha256()
    for path in [HERE.parent / "requirements" / "lock.txt", *sorted(package.rglob("*"))]:
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(HERE.parent).as_posix().encode() + path.read_bytes())
    folder = HERE / "_build" / "executed" / digest.hexdigest()[:16]
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other)
    if not folder.exists():
        folder.mkdir(parents=True)
        shutil.rmtree(HERE / "generated", ignore_errors=True)  # reference pages of names that are gone
    return folder


def tell_failures(app: Any, env: Any) -> None:
    """Warn, which ends the build, where a cell failed: which page, which cell, what error."""
    from myst_nb.sphinx_ import NbMetadataCollector

    for name in sorted(env.all_docs):
        found = NbMetadataCollector.get_exec_data(env, name)
        if not found or not found["error"]:
            continue
        plain = re.sub(r"\x1b\[[0-9;]*m", "", found["traceback"] or "")
        page, parts = Path(env.doc2path(name)), re.split(r"^-{10,}$", plain, flags=re.M)
        sources = [cell.source.strip() for cell in read_page(page).cells if cell.cell_type == "code"]
        at = [n for n, source in enumerate(sources, start=1) if len(parts) > 1 and source == parts[1].strip()]
        error = " ".join(re.split(r"^(?=[\w.]+: )", plain, flags=re.M)[-1].split()) or found["error"]
        where = f"{page.relative_to(HERE)}, code cell {at[0] if at else '?'} of {len(sources)}"
        logging.getLogger(__name__).warning(f"{where} fails: {textwrap.shorten(error, 400)}")
        env.all_docs[name] = 0  # read long ago: again next time


def setup(app: Any) -> None:
    """Pages that compute are spread: a process reads some thirty neighbours at a time."""

    def spread(app: Any, env: Any, names: list[str]) -> None:
        names[:] = [name for k in range(8) for name in names[k::8]]

    app.connect("env-before-read-docs", spread)
    app.connect("env-updated", tell_failures)


nb_execution_cache_path = str(kept_pages())
make_gallery(HERE.parent / "examples", HERE / "gallery")
