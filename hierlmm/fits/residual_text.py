"""The residual structure of a fit in print: its correlation, as a matrix where it has one, and its SDs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.covariance.bind import BoundVariance
from hierlmm.covariance.composed import stated
from hierlmm.design.bound import structured_rows
from hierlmm.design.design import Design
from hierlmm.equations.residual_symbols import (
    bind_structure,
    correlation_matrices,
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
    groups = "" if design.residual_group is None else f", parameters by {design.residual_group}"
    order = f" in {spec.time or 'the order of the rows'}" if "|s - t|" in formula else ""
    if order and (labels := structured_rows(design).labels):
        order += f" ({', '.join(labels[:SHOWN])}{', ...' if len(labels) > SHOWN else ''})"
    same = same_variance_words(design)
    return (
        f"Residual correlation: {spec_text(spec)}"
        + (f", R[s, t] = {formula}{order}" if formula else "")
        + groups
        + (f"\n (residual variance: {same})" if same else "")
    )


def variance_heading(design: Design) -> str:
    """``Residual variance: VarIdent('sex'), SD = sigma · ratio[sex]``."""
    spec = design.residual_variance
    assert spec is not None
    formula = formula_of(spec)
    return f"Residual variance: {spec_text(spec)}" + (f", SD = {formula}" if formula else "")


def correlation_triangles(design: Design, parameters: Mapping[str, float]) -> list[tuple[str, pd.DataFrame]]:
    """Lower triangle of the correlations by occasion or row, and of which group; none where there are too many."""
    found = []
    for group, labels, R in correlation_matrices(design, parameters):
        if not 2 <= len(labels) <= SHOWN:
            return []
        lower = np.where(np.tril(np.ones_like(R, dtype=bool), -1), R, np.nan)
        who = "" if group is None else f"{design.residual_group} = {group}"
        found.append((who, pd.DataFrame(lower[1:, :-1], index=labels[1:], columns=labels[:-1])))
    return found


def group_ratios(design: Design, parameters: Mapping[str, float], sigma: float) -> pd.DataFrame | None:
    """Ratio and SD of every group; None for other variance functions."""
    bound = bind_structure(design).variance
    if bound is not None and design.residual_group is not None and parameters:
        return _sds_by_group(bound, np.array(list(parameters.values())), sigma)
    if bound is None or not bound.groups or len(parameters) != len(bound.groups) - 1:
        return None
    ratio = np.array([1.0, *parameters.values()])
    return pd.DataFrame({"ratio": ratio, "Std.Dev.": sigma * ratio}, index=list(bound.groups))


def _sds_by_group(bound: BoundVariance, values: FloatArray, sigma: float) -> pd.DataFrame | None:
    """SDs (at weight 1) with a column for each group and, within it, a row for each level of `VarIdent`."""
    spec, (levels, states, _) = bound.spec, bound.state
    own_function = stated(spec)
    labels = [[""] for _ in levels] if own_function is None else [list(own_function._groups(s)) for s in states]
    if not all(labels):  # a function of a number
        return None
    columns = {}
    for g, own in enumerate(labels):
        v = np.column_stack([np.arange(len(own)), np.full(len(own), g), np.zeros(len(own))])
        columns[str(levels[g])] = pd.Series(sigma * np.exp(spec.log_ratio(v, values)), index=own)
    table = pd.DataFrame(columns, index=list(dict.fromkeys(label for own in labels for label in own)))
    return table.set_axis(["Std.Dev."]) if not states else table


def residual_blocks(fit: Fit) -> list[str]:
    """Text of the residual structure: a block for the correlation and one for the variance."""
    rho, delta = residual_numbers(fit)
    design, blocks = fit.design, []
    if design.residual is not None and rho:
        triangles = correlation_triangles(design, rho)
        shown = [
            part for who, table in triangles for part in (f" {who}:" if who else "", _triangle_text(table)) if part
        ]
        body = "\n".join(shown) if triangles else _row(rho)
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
    found: list[tuple[str, pd.DataFrame]] = []
    heading = correlation_heading(fit.design) if rho else ""
    found += [(f"{heading}, {who}" if who else heading, table) for who, table in correlation_triangles(fit.design, rho)]
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
