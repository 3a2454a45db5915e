"""The residual structure of a fit in print: its correlation, as a matrix where it has one, and its SDs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hierlmm.design.design import Design
from hierlmm.equations.residual_symbols import (
    bind_structure,
    correlation_matrix,
    formula_of,
    residual_numbers,
    same_variance_words,
    spec_text,
)
from hierlmm.fits.base import Fit

SHOWN = 10
"""Most occasions whose correlations are printed as a matrix."""
ROUNDING = 1e-12


def correlation_heading(design: Design) -> str:
    """``Residual correlation: AR1(), R[s, t] = rho^|s - t|``."""
    spec = design.residual
    assert spec is not None
    formula = formula_of(spec)
    order = f" in {spec.time or 'the order of the rows'}" if "|s - t|" in formula else ""
    same = same_variance_words(design)
    return (
        f"Residual correlation: {spec_text(spec)}"
        + (f", R[s, t] = {formula}{order}" if formula else "")
        + (f"\n (residual variance: {same})" if same else "")
    )


def variance_heading(design: Design) -> str:
    """``Residual variance: VarIdent('sex'), SD = sigma · ratio[sex]``."""
    spec = design.residual_variance
    assert spec is not None
    formula = formula_of(spec)
    return f"Residual variance: {spec_text(spec)}" + (f", SD = {formula}" if formula else "")


def correlation_triangle(design: Design, parameters: Mapping[str, float]) -> pd.DataFrame | None:
    """Lower triangle of the correlations by occasion or row, without its diagonal; None where there are too many."""
    table = correlation_matrix(design, parameters)
    if table is None or not 2 <= len(table[0]) <= SHOWN:
        return None
    labels, R = table
    lower = np.where(np.tril(np.ones_like(R, dtype=bool), -1), R, np.nan)
    return pd.DataFrame(lower[1:, :-1], index=labels[1:], columns=labels[:-1])


def group_ratios(design: Design, parameters: Mapping[str, float], sigma: float) -> pd.DataFrame | None:
    """Ratio and SD of every group; None for other variance functions."""
    bound = bind_structure(design).variance
    if bound is None or not bound.groups or len(parameters) != len(bound.groups) - 1:
        return None
    ratio = np.array([1.0, *parameters.values()])
    return pd.DataFrame({"ratio": ratio, "Std.Dev.": sigma * ratio}, index=list(bound.groups))


def residual_blocks(fit: Fit) -> list[str]:
    """Text of the residual structure: a block for the correlation and one for the variance."""
    rho, delta = residual_numbers(fit)
    design, blocks = fit.design, []
    if design.residual is not None and rho:
        triangle = correlation_triangle(design, rho)
        body = _row(rho) if triangle is None else _triangle_text(triangle)
        blocks.append(f"{correlation_heading(design)}\n{body}")
    if design.residual_variance is not None and (delta or fit.residual_estimate is not None):
        ratios = group_ratios(design, delta, fit.sigma)
        if ratios is None:
            body = "\n".join(part for part in (_row(delta), _spread(fit)) if part)
        else:
            body = _indent(ratios.to_string(float_format=lambda v: f"{v:.5g}"))
        blocks.append(f"{variance_heading(design)}\n{body}")
    return blocks


def _spread(fit: Fit) -> str:
    """Smallest and largest SD of a row, where the fit can tell."""
    estimate, design = fit.residual_estimate, fit.design
    if estimate is None:
        return ""
    sd = fit.sigma * estimate.sd_ratio(design.frame, design.variance_fitted)
    return f" SD of a row: {sd.min():.5g} to {sd.max():.5g}"


def residual_frames(fit: Fit) -> list[tuple[str, pd.DataFrame]]:
    """Captioned tables that say more than a list of the parameters does: a correlation matrix, the SD of each group."""
    rho, delta = residual_numbers(fit)
    found = []
    if rho and (triangle := correlation_triangle(fit.design, rho)) is not None:
        found.append((correlation_heading(fit.design), triangle))
    if delta and (ratios := group_ratios(fit.design, delta, fit.sigma)) is not None:
        found.append((variance_heading(fit.design), ratios))
    return found


def _row(values: Mapping[str, float]) -> str:
    """Names over values, up to eight on a line."""
    # A correlation of 1e-16 is what rounding left of zero; other parameters have units.
    items = [(n, "0" if n.startswith("rho") and abs(v) < ROUNDING else f"{v:.5g}") for n, v in values.items()]
    lines = []
    for start in range(0, len(items), 8):
        part = items[start : start + 8]
        widths = [max(len(a), len(b)) for a, b in part]
        for which in (0, 1):
            lines.append("  ".join(item[which].rjust(w) for item, w in zip(part, widths, strict=True)))
    return _indent("\n".join(lines))


def _triangle_text(triangle: pd.DataFrame) -> str:
    triangle = triangle.set_axis([n if len(n) <= 12 else n[:11] + "…" for n in triangle.columns], axis=1)
    return _indent(triangle.to_string(float_format=lambda v: f"{v:z.3f}", na_rep=""))


def _indent(text: str) -> str:
    return "\n".join(f" {line}".rstrip() for line in text.splitlines())
