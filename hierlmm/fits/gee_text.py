"""GEE fits as text and HTML."""

from __future__ import annotations

from hierlmm.covariance.composed import stated
from hierlmm.design.formula import join_terms
from hierlmm.fits.gee import GEENumbers
from hierlmm.fits.text import counts_text
from hierlmm.results import Page, Part, Table
from hierlmm.text import table_text

NAMES = {"robust": "robust (sandwich)", "naive": "naive (model-based)", "bias_reduced": "bias-reduced sandwich"}
DIVISORS = {"n-p": "(N - p), as statsmodels and R's gee", "n": "N, as R's geepack"}


def fixed_formula(fit: GEENumbers) -> str:
    """The formula without random effects."""
    hierarchy = fit.design.hierarchy
    parts = [join_terms(hierarchy.fixed_terms) if hierarchy.fixed_terms else "0"]
    return f"{hierarchy.response} ~ {' + '.join(parts + [f'offset({o})' for o in hierarchy.offsets])}"


def correlation_sentence(fit: GEENumbers) -> str:
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


def dropped_sentence(fit: GEENumbers) -> str:
    """Say what of the model was left out, or nothing."""
    parts = []
    if fit.design.term:
        parts.append(f"random effects ({', '.join(fit.design.own_term)})")
    design = fit.design
    if (design.residual or stated(design.residual_variance) or design.residual_group) and design.is_gaussian:
        parts.append("residual structure")  # of another response it is GEE's own
    return f"Of the model, dropped by GEE: {' and '.join(parts)}" if parts else ""


def weights_sentence(fit: GEENumbers) -> str:
    """Say that weights were kept, or nothing."""
    name = fit.design.weights
    return f"Weights: {name}; the variance of a row is the scale over its weight" if name else ""


def family_sentence(fit: GEENumbers) -> str:
    """Family and link, which level is a success, and the shape that was taken as known."""
    note = f"; {fit.design.rows.note}" if fit.design.rows.note else ""
    shape = fit.dispersion.get("shape")
    if shape is None:
        return f"Family: {fit.family}{note}"
    source = "as stated" if fit.estimate.shape_given else "where Pearson's chi-squared of independent rows is N - p"
    return f"Family: {fit.family}, shape fixed at {shape:.5g} ({source}){note}"


def scale_sentence(fit: GEENumbers) -> str:
    """What φ is, and what it was divided by."""
    divisor = DIVISORS[fit.estimate.scale_divisor]
    if fit.design.is_gaussian:
        return f"Scale (variance of a row): {fit.scale:.5g}, residual sum of squares / {divisor}"
    return f"Scale (variance of a row / that of its family): {fit.scale:.5g}, Pearson's chi-squared / {divisor}"


def gee_page(fit: GEENumbers) -> Page:
    """What a GEE fit shows."""
    dropped, estimate = dropped_sentence(fit), fit.estimate
    where = "" if fit.design.is_gaussian else f" of the mean over subjects ({fit.family.link} scale)"
    coefficients, errors = f"Coefficients{where}, standard errors {NAMES[fit.se]}", fit.standard_errors()
    table = table_text(fit.summary().drop(columns="p"), 5)
    state = "Converged" if fit.converged else "NOT CONVERGED"
    parts: list[Part] = [
        f"Formula: {fixed_formula(fit)}",
        *([] if fit.design.is_gaussian else [family_sentence(fit)]),
        *(line for line in (dropped, weights_sentence(fit)) if line),
        f"Working correlation: {correlation_sentence(fit)}",
        scale_sentence(fit),
        counts_text(fit.design),
        Table(fit.summary(), ["", f"{coefficients}:", table], coefficients, True),
        Table(
            errors, ["", "Standard errors side by side:", table_text(errors, 5)], "Standard errors side by side", True
        ),
        "",
        f"{state}: norm of the equations {estimate.score_norm:.1e} after {estimate.n_iterations} iterations",
        *(f"Note: {w}" for w in fit.warnings),
    ]
    return Page("Marginal model fitted by GEE", parts)
