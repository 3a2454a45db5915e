"""Fits as text and HTML, in the layout that users of lme4 read at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.factors import finest_first
from hierlmm.design.terms import RandomColumns
from hierlmm.fits.base import Fit
from hierlmm.fits.likelihood_tables import LikelihoodNumbers
from hierlmm.fits.residual_text import correlation_heading, residual_blocks, residual_frames, variance_heading
from hierlmm.likelihood.residual_messages import UNBOUNDED
from hierlmm.results import Page, Paragraph, Part, Printed, Table
from hierlmm.text import align, count, table_text, wrap

WIDTH = 110
MOST_CORRELATED = 12
NEAR = 6.0
"""Optima within this of the best criterion are named in print: their likelihood is at least a twentieth of the best."""


def likelihood_page(fit: LikelihoodNumbers) -> Page:
    """What a REML or ML fit shows."""
    design = fit.design
    fixed, components = "Fixed effects", "Random effects and residual"
    if not design.term:
        fixed, components = "Coefficients", "Covariance parameters"
    quantiles = np.quantile(fit.residuals("pearson"), [0.0, 0.25, 0.5, 0.75, 1.0])
    residuals = pd.DataFrame([quantiles], columns=["Min", "1Q", "Median", "3Q", "Max"], index=[""])
    name = "REML criterion" if fit.reml else "Deviance (-2 log-likelihood)"
    values = f"{fit.criterion:z.4f}", f"AIC {fit.aic:z.1f}", f"BIC {fit.bic:z.1f} (log N)"
    random = ["Random effects:", random_effects_text(fit)] if design.term else [residual_sd_text(fit)]
    summary = table_text(fit.summary().rename(columns={"t": "t value"}), 5)
    parts: list[Part] = [
        f"Formula: {design.hierarchy.formula}",
        Printed([f"{name} at the optimum: {'   '.join(values)}", ""]),
        Printed([f"Scaled residuals{of_sample(design)}:", table_text(residuals, 5), "", *random]),
        counts_text(design),
        Printed([line for block in residual_blocks(fit) for line in ("", block)]),
        Table(fit.summary(), ["", f"{fixed}:", summary], fixed, index=True),
        Table(fit.variance_components(), (), components, True),
        *_residual_parts(fit),
        Paragraph(f"Criterion (−2 log-likelihood) {', '.join(values)}", 0),
    ]
    if len(design.coef) > 1:
        parts.append(Printed(["", *correlation_lines(fixed.lower(), fit.beta_cov)]))
    return Page(kind_of(fit), [*parts, "", *_convergence(fit)])


def _residual_parts(fit: LikelihoodNumbers) -> list[Part]:
    """The residual structure for a notebook: its tables, or the heading alone."""
    tables, design = residual_frames(fit), fit.design
    headings = [correlation_heading(design)] if design.residual is not None else []
    headings += [variance_heading(design)] if design.residual_variance is not None else []
    alone = [Paragraph(heading, 0) for heading in headings if heading not in dict(tables)]
    return [*(Table(frame, (), caption, index=True) for caption, frame in tables), *alone]


def kind_of(fit: LikelihoodNumbers) -> str:
    """Name the model and its estimator."""
    if fit.design.has_several_factors:
        return f"Multilevel linear mixed model fitted by {fit.estimator}"
    if fit.design.term:
        return f"Two-level linear mixed model fitted by {fit.estimator}"
    method = "generalised least squares" if fit.design.has_residual_structure else "least squares"
    return f"Marginal linear model fitted by {fit.estimator} ({method})"


def residual_sd_text(fit: LikelihoodNumbers) -> str:
    """σ and the degrees of freedom of a marginal model, as nlme's gls prints them."""
    degrees = fit.n_obs - len(fit.design.coef)
    what = (
        "Residual SD (sigma)" if fit.design.residual_variance is None else "sigma (SD of a row: see residual variance)"
    )
    return f"{what}: {fit.sigma:.5g}   rows less coefficients: {degrees}"


def _convergence(fit: LikelihoodNumbers) -> list[Part]:
    """Whether the optimum is one, and what must be known."""
    state = "Converged" if fit.converged else "NOT CONVERGED"
    lines: list[Part] = [
        f"{state}: gradient norm {fit.gradient_norm:.1e} after {fit.optimum.n_evaluations} evaluations"
        + ("; D is singular (see below)" if fit.is_singular else "")
    ]
    search = fit.optimum.search
    if search is not None and len(fit.optimum.lam):
        looked = f"{search.n_points} points, {search.n_descents} descents"
        inside = " inside the range" if any(w.startswith(UNBOUNDED) for w in fit.warnings) else ""
        said = f"Global search: {looked}, no lower optimum found{inside}"
        if search.exhaustive:
            said = "Global search: exhaustive, no lower optimum exists"
        elif search.n_points == 1:
            said = "No global search (it would take long): one descent, from a start by moments"
        lines.append(said)
    near = [o.value for o in (fit.optimum, *fit.optimum.others) if o.value < fit.criterion + NEAR]
    if len(near) > 1:
        values = ", ".join(f"{v:z.2f}" for v in near[:-1]) + f" and {near[-1]:z.2f}"
        lines.append(f"{len(near)} optima: {values} (fit.optima); the estimates are those of the lowest")
    return [*lines, *(Paragraph(f"Note: {w}", WIDTH, "", " " * 6, hyphens=False) for w in fit.warnings)]


def of_sample(design: Design) -> str:
    """Of which subjects something is that needs rows, where those of others are not in memory."""
    return "" if design.whole is None else f" of {design.n_subjects} subjects drawn at random"


def counts_text(design: Design) -> str:
    """Numbers of rows and subjects, as lme4 prints them."""
    n_dropped = design.n_dropped if design.whole is None else design.whole.n_dropped
    dropped = f"  ({count(n_dropped, 'row')} with missing values dropped)" if n_dropped else ""
    groups = {design.hierarchy.subject: design.n_subjects_in_all}
    if design.has_several_factors:
        groups = finest_first(design)
    counts = "; ".join(f"{name}, {n}" for name, n in groups.items())
    return f"Number of obs: {design.n_obs_in_all}, groups: {counts}{dropped}"


def random_effects_frame(fit: Fit, *, residual: bool = True) -> pd.DataFrame:
    """Variance, standard deviation and correlations of the random effects, and the residual if there is one."""
    design, rows = fit.design, []
    for group, own, D, sd, corr in _by_group(fit):
        for k, term in enumerate(own.names):
            known = [m for m in range(k) if any(m in b and k in b for b in own.blocks)]
            correlations = [f"{corr[k, m]:z.2f}" if m in known else "" for m in range(k)]
            rows.append([group if k == 0 else "", term, D[k, k], sd[k], *correlations])
    # With a variance function σ is a factor of every row's SD, and no row need have it.
    if residual:
        rows.append(["Residual", "(sigma)" if design.residual_variance is not None else "", fit.sigma**2, fit.sigma])
    width = max(len(r) for r in rows)
    columns = ["Groups", "Name", "Variance", "Std.Dev."] + (["Corr"] + [""] * (width - 5) if width > 4 else [])
    return pd.DataFrame([r + [""] * (width - len(r)) for r in rows], columns=columns)


def _by_group(fit: Any) -> list[tuple[str, RandomColumns, FloatArray, FloatArray, FloatArray]]:
    """Grouping factors with their random effects, D, SDs and correlations; the finest factor first, as in lme4."""
    design = fit.design
    if design.has_several_factors:
        own = {term.columns.group: term.columns for term in design.random}
        tables = [(name, own[name], fit.D[name], fit.sd_b[name], fit.corr_b[name]) for name in finest_first(design)]
    else:
        tables = [(design.hierarchy.subject, design.terms.by_subject, fit.D, fit.sd_b, fit.corr_b)]
    return [(name, own, *(table.to_numpy() for table in values)) for name, own, *values in tables]


def random_effects_text(fit: Fit) -> str:
    """`random_effects_frame` in aligned text."""
    frame = random_effects_frame(fit)
    cells = [[str(c) for c in frame.columns]]
    cells += [[f"{v:.5g}" if isinstance(v, float) else str(v) for v in row] for row in frame.to_numpy(dtype=object)]
    return "\n".join(f" {line}".rstrip() for line in align(cells, (0, 1)))


def correlation_lines(what: str, cov: pd.DataFrame) -> list[str]:
    """The correlations of the fixed effects, or how to get them where they are more than lme4 prints as well."""
    if len(cov) <= MOST_CORRELATED:
        return [f"Correlation of {what}:", correlation_text(cov)]
    remedy = "fit.beta_cov / numpy.outer(fit.beta_se, fit.beta_se)"
    return wrap([f"Correlation of {what}: too wide to print, {len(cov)} by {len(cov)}; it is {remedy}"])


def correlation_text(cov: pd.DataFrame) -> str:
    """Lower triangle of the correlations of the fixed effects."""
    sd = np.sqrt(np.diag(cov))
    corr = cov.to_numpy() / np.outer(sd, sd)
    names = [str(n) for n in cov.index]
    short = [n if len(n) <= 12 else n[:11] + "…" for n in names]
    width = max(len(n) for n in names[1:])
    cells = [max(len(s), 6) for s in short[:-1]]
    header = " " * width + "  " + "  ".join(s.rjust(c) for s, c in zip(short[:-1], cells, strict=True))
    rows = [
        names[i].ljust(width) + "  " + "  ".join(f"{corr[i, j]:z.3f}".rjust(cells[j]) for j in range(i))
        for i in range(1, len(names))
    ]
    return "\n".join([header, *rows])
