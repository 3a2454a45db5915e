"""What the sweeps over public names share: the names, the functions, and what a refusal is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import hierlmm as hl
from hierlmm import plots
from hierlmm.errors import NotAvailableError, OtherNameError, SpecificationError
from hierlmm.fits.capabilities import LME4

FUNCTIONS = {
    name: getattr(hl, name)
    for name in hl.__all__
    if inspect.isfunction(getattr(hl, name)) and inspect.signature(getattr(hl, name)).parameters
} | {name: getattr(plots, name) for name in dir(plots) if name.startswith("plot_")}


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(NotAvailableError) as caught:
        call()
    error = caught.value
    assert all([error.received, error.reason, error.remedy, error.see])
    assert not isinstance(error, OtherNameError)


def reports(fit: Any) -> None:
    """Only what it would not write; pages are seen in tests/pages."""
    with pytest.raises(SpecificationError, match=r"use a name like fit\.html"):
        fit.report("fit.txt")


def public(kind: type, *more: str) -> list[str]:
    return sorted({name for name in (*dir(kind), *more) if not name.startswith("_")} - set(LME4))


def call_with(function: Callable[..., Any], thing: Any) -> Any:
    """Call a function with a thing for every argument that it needs."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    positional = [thing for p in needed if p.kind is not p.KEYWORD_ONLY] or [thing]
    named = {p.name: thing for p in needed if p.kind is p.KEYWORD_ONLY}
    if next(iter(parameters)).kind is inspect.Parameter.KEYWORD_ONLY:
        positional = []
    return function(*positional, **named)
