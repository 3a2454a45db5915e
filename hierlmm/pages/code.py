"""The lines of Python that make the fits of a report again, and the versions that made them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hierlmm._version import __version__
from hierlmm.covariance.composed import stated
from hierlmm.design.design import Design
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide

SAMPLED = ("draws", "tune", "chains", "seed", "target_accept")
PACKAGES = ("numpy", "scipy", "pandas", "formulaic", "numba", "matplotlib")
SAMPLERS = ("pymc", "pytensor", "nutpie", "arviz", "bambi")


def code_of(comparison: SideBySide, source: str | None = None) -> str:
    """Python code for the model and its fits.

    Parameters
    ----------
    comparison : SideBySide
    source : str, optional
        Python code that reads the table.
    """
    fits = comparison.fits
    design = fits[comparison.reference].design
    columns = ", ".join(map(str, design.frame.columns))
    data = source or f"...  # your table, with the columns {columns}"
    names = [f"fit_{k}" for k in range(1, len(fits) + 1)] if len(fits) > 1 else ["fit"]
    named = zip(names, fits.values(), strict=True)
    lines = ["import hierlmm as hl", *(["import pandas as pd"] if "pd." in data else []), "", f"data = {data}"]
    lines += [f"model = {_model(design)}", *(f"{name} = model.{_fitted(fit)}" for name, fit in named)]
    if len(fits) > 1:
        labels = f"labels={comparison.labels!r}, reference={comparison.reference!r}, ci={comparison.ci:g}"
        lines.append(f"comparison = hl.compare({', '.join(names)}, {labels})")
    return "\n".join([*lines, f'{"comparison" if len(fits) > 1 else "fit"}.report("report.html")'])


def _model(design: Design) -> str:
    hierarchy, outcome = design.hierarchy, design.outcome
    marginal = not design.term and not design.has_several_factors
    correlation, variance = ("correlation", "variance") if marginal else ("residual", "residual_variance")
    own = stated(design.residual_variance)
    covariance = hierarchy.covariance if hierarchy.covariance in ("identity", "compound_symmetry") else None
    texts = {
        correlation: None if design.residual is None else f"hl.{spec_text(design.residual)}",
        variance: None if own is None else f"hl.{spec_text(own)}",
        "family": None if design.is_gaussian else _family(design),
    }
    names = {
        "covariance": None if marginal or design.has_several_factors else covariance,
        "group" if marginal else "residual_group": design.residual_group,
        "weights": design.weights,
        "trials": outcome.trials,
        "exposure": outcome.exposure,
        "missing": "drop" if design.n_dropped else None,
    }
    options = [f"{name}={text}" for name, text in texts.items() if text is not None]
    options += [f"{name}={value!r}" for name, value in names.items() if value is not None]
    if marginal:
        own_rows = [f"subject={hierarchy.subject!r}", "data=data"]
        return f"hl.MarginalModel({', '.join([repr(hierarchy.formula), *own_rows, *options])})"
    kind = "MultilevelModel" if design.has_several_factors else "TwoLevelModel"
    return f"hl.{kind}.from_formula({', '.join([repr(hierarchy.formula), 'data', *options])})"


def _family(design: Design) -> str:
    family = design.family
    return (
        repr(family.name) if family.link == family.links[0] else f"hl.families.{type(family).__name__}({family.link!r})"
    )


def _fitted(fit: Fit) -> str:
    it: Any = fit
    if it.has_draws:
        attrs = it.datatree.attrs
        options = ", ".join(f"{name}={attrs[name]}" for name in SAMPLED if attrs.get(name) is not None)
        return f"fit({options})" if it.estimator == "NUTS" else f"compare({it.estimator.lower()!r})"
    if it.has_working_correlation:
        time = f", time={it.time!r}" if isinstance(it.time, str) else ""
        return f"fit_gee({it.correlation!r}{time}, se={it.se!r})"
    points = getattr(it, "n_quadrature", 1)
    return f"fit_{it.estimator.lower()}({f'n_quadrature={points}' if points != 1 else ''})"


def versions_of(comparison: SideBySide) -> dict[str, str]:
    """Versions of this package, of Python, and of what the fits were made with."""
    fits = comparison.fits.values()
    names = [*PACKAGES, *(SAMPLERS if any(fit.has_draws for fit in fits) else ())]
    names += ["statsmodels"] if any(fit.has_working_correlation for fit in fits) else []
    found = {"hierlmm": __version__, "Python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an optional one
            continue
    return found | {"system": f"{platform.system()} {platform.machine()}"}
