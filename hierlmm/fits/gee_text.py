"""GEE fits as text and HTML."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from hierlmm.design.formula import join_terms
from hierlmm.fits.text import counts_text, html_page
from hierlmm.text import table_text

if TYPE_CHECKING:
    from hierlmm.fits.gee import GEEFit

__all__ = ["gee_html", "gee_text"]

NAMES = {"robust": "robust (sandwich)", "naive": "naive (model-based)", "bias_reduced": "bias-reduced sandwich"}
DIVISORS = {
    "n-p": "residual sum of squares / (N - p), as statsmodels and R's gee",
    "n": "residual sum of squares / N, as R's geepack",
}


def fixed_formula(fit: GEEFit) -> str:
    """The formula without random effects."""
    hierarchy = fit.design.hierarchy
    parts = [join_terms(hierarchy.fixed_terms) if hierarchy.fixed_terms else "0"]
    return f"{hierarchy.response} ~ {' + '.join(parts + [f'offset({o})' for o in hierarchy.offsets])}"


def correlation_sentence(fit: GEEFit) -> str:
    """The working correlation in one line."""
    parameters, time = fit.correlation_parameters, fit.time
    if fit.correlation == "independence":
        return "independence"
    if fit.correlation == "unstructured":
        low, high = parameters.min(), parameters.max()
        return f"unstructured over {len(fit.estimate.positions)} values of {time}, {low:z.4f} to {high:z.4f}"
    alpha = parameters["alpha"]
    if fit.correlation == "exchangeable":
        return f"exchangeable, alpha = {alpha:z.4f} between any two rows of a subject"
    return f"AR(1), alpha = {alpha:z.4f} at a distance of {fit.estimate.spacing:g} in {time}, its powers beyond"


def dropped_sentence(fit: GEEFit) -> str:
    """Say what of the model was left out, or nothing."""
    parts = []
    if fit.design.term:
        parts.append(f"random effects ({', '.join(fit.design.term)})")
    if fit.design.has_residual_structure:
        parts.append("residual structure")
    return f"Of the model, dropped by GEE: {' and '.join(parts)}" if parts else ""


def gee_text(fit: GEEFit) -> str:
    """Print a GEE fit."""
    parts = ["Marginal model fitted by GEE", f"Formula: {fixed_formula(fit)}"]
    parts += [line for line in [dropped_sentence(fit)] if line]
    parts += [
        f"Working correlation: {correlation_sentence(fit)}",
        f"Scale (variance of a row): {fit.scale:.5g}, {DIVISORS[fit.estimate.scale_divisor]}",
        counts_text(fit.design),
        "",
        f"Coefficients, standard errors {NAMES[fit.se]}:",
        table_text(fit.summary().drop(columns="p"), 5),
        "",
        "Standard errors side by side:",
        table_text(fit.standard_errors(), 5),
        "",
        convergence_sentence(fit),
    ]
    return "\n".join(parts)


def convergence_sentence(fit: GEEFit) -> str:
    """Say whether the equations are solved, and what must be known."""
    estimate = fit.estimate
    state = "Converged" if fit.converged else "NOT CONVERGED"
    first = f"{state}: norm of the equations {estimate.score_norm:.1e} after {estimate.n_iterations} iterations"
    return "\n".join([first, *(f"Note: {w}" for w in fit.warnings)])


def gee_html(fit: GEEFit) -> str:
    """Notebook view of a GEE fit."""
    page = html_page(
        "Marginal model, GEE",
        fit.design,
        [
            (f"Coefficients, standard errors {NAMES[fit.se]}", fit.summary()),
            ("Standard errors side by side", fit.standard_errors()),
        ],
        [
            line
            for line in (
                dropped_sentence(fit),
                f"Working correlation: {correlation_sentence(fit)}",
                f"Scale (variance of a row): {fit.scale:.5g}, {DIVISORS[fit.estimate.scale_divisor]}",
                convergence_sentence(fit),
            )
            if line
        ],
    )
    return page.replace(html.escape(fit.design.hierarchy.formula), html.escape(fixed_formula(fit)), 1)
