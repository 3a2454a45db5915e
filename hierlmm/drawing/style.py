"""Backends, colours and labels."""

from __future__ import annotations

import re
from importlib import import_module, util
from typing import Any

from hierlmm.errors import MissingPackageError, SpecificationError

__all__ = [
    "DPI",
    "GREY",
    "INK",
    "LABELLED",
    "PALETTE",
    "backend_module",
    "grid_shape",
    "percent",
    "resolve_backend",
    "without_backticks",
    "wrap_title",
]

# Okabe and Ito (2008): distinct under every common colour-vision deficiency.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#8c8c8c"
INK = "#202020"
BACKENDS = ("matplotlib", "bokeh", "plotly", "none")
PACKAGES = {"bokeh": ("bokeh",), "plotly": ("plotly", "webcolors"), "matplotlib": ("matplotlib",)}
DPI = 100
LABELLED = 60
"""Most subjects whose names are written on the axis."""


def resolve_backend(backend: str | None) -> str:
    """Return the backend to draw with: ArviZ's default (``rcParams["plot.backend"]``) if none is named.

    Raises
    ------
    SpecificationError
        If ArviZ has no such backend.
    MissingPackageError
        If its package is not installed.
    """
    from arviz_base import rcParams

    name = str(rcParams["plot.backend"]) if backend is None else backend
    if name not in BACKENDS:
        raise SpecificationError(
            f"backend={name!r}", "ArviZ has no backend of this name", f"use one of {', '.join(map(repr, BACKENDS))}"
        )
    lacking = [package for package in PACKAGES.get(name, ()) if util.find_spec(package) is None]
    if lacking:
        reason = f"the package {lacking[0]} is not installed"
        remedy = 'pip install "hierlmm[interactive]", or leave backend out to draw with matplotlib'
        raise MissingPackageError(f"backend={name!r}", reason, remedy, "docs, page 'Installation'")
    return name


def backend_module(backend: str) -> Any:
    """Functions of a backend: ``title``, ``xlabel``, ``yticks``, ``ylim``, ..."""
    return import_module(f"arviz_plots.backend.{backend}")


def grid_shape(n_panels: int, col_wrap: int | None = None) -> tuple[int, int]:
    """Return rows and columns of a wrapped grid: ``col_wrap`` columns, or 3 or 4, whichever fills it better."""
    if col_wrap is not None and col_wrap < 1:
        raise SpecificationError(
            f"col_wrap={col_wrap!r}", "a row holds at least one panel", "use a number of 1 or more"
        )
    columns = min(n_panels, col_wrap or (3 if n_panels in (5, 6, 9) else 4))
    return -(-n_panels // columns), columns


def percent(ci: float) -> str:
    """Write 0.95 as ``95 %``."""
    return f"{100 * ci:g} %"


def without_backticks(text: str) -> str:
    """The text with names of columns as they are, and not as a formula spells them."""
    return re.sub(r"`([^`]+)`", r"\1", text)


def wrap_title(text: str, width: int = 26) -> str:
    """Break a long name of a parameter after colons, commas and dots, so that neighbouring titles do not overlap."""
    lines = [""]
    for piece in re.split(r"(?<=[:, ])", text):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.strip() for line in lines)
