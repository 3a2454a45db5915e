"""A generalised fit as text and HTML, in the layout of glmer's print."""

from __future__ import annotations

from typing import Any

from hierlmm.fits.text import WIDTH, correlation_lines, counts_text, random_effects_frame
from hierlmm.results import Page, Paragraph, Part, Printed, Table
from hierlmm.text import align, table_text


def generalised_page(fit: Any) -> Page:
    """What a generalised fit shows."""
    design, family = fit.design, fit.family
    values = f"{fit.loglik:z.4f}", f"AIC {fit.aic:z.1f}", f"BIC {fit.bic:z.1f} (log N)"
    summary = fit.summary()
    said = [design.rows.note] if design.rows.note else []
    parts: list[Part] = [
        f"Formula: {design.hierarchy.formula}",
        f"Family: {family}" + (f"; {said[0]}" if said else ""),
        Printed([f"Log-likelihood at the optimum: {'   '.join(values)}", ""]),
        Printed(["Random effects:", _random_text(fit)]),
        Printed(_dispersion_text(fit)),
        counts_text(design),
        Table(
            summary,
            [
                "",
                f"Fixed effects (on the {family.link} scale, given the random effects):",
                table_text(summary.rename(columns={"z": "z value"}), 5),
            ],
            f"Fixed effects ({family.link} scale)",
            index=True,
        ),
        Table(fit.variance_components(), (), "Random effects and dispersion", True),
        Paragraph(f"Log-likelihood {', '.join(values)}", 0),
    ]
    if len(design.coef) > 1:
        parts.append(Printed(["", *correlation_lines("fixed effects", fit.beta_cov)]))
    state = "Converged" if fit.converged else "NOT CONVERGED"
    ends: list[Part] = [
        f"{state}: gradient norm {fit.gradient_norm:.1e} after {fit.optimum.n_evaluations} evaluations"
        + ("; D is singular (see below)" if fit.is_singular else "")
    ]
    ends += [Paragraph(f"Note: {w}", WIDTH, "", " " * 6, hyphens=False) for w in fit.warnings]
    kind = "multilevel" if design.has_several_factors else "two-level"
    return Page(f"Generalised {kind} model fitted by maximum likelihood ({fit.method})", [*parts, "", *ends])


def _dispersion_text(fit: Any) -> list[str]:
    """Dispersion of the family, or the thresholds of its categories; nothing where it has neither."""
    if fit.family.name == "ordinal":
        found, title = fit.thresholds, "Thresholds"
    else:
        found, title = fit.dispersion, "Dispersion"
    said = ", ".join(f"{k} {v:.5g}" for k, v in found.items())
    return [f"{title}: {said}"] if said else []


def _random_text(fit: Any) -> str:
    frame = random_effects_frame(fit, residual=False)
    cells = [[str(c) for c in frame.columns]]
    cells += [[f"{v:.5g}" if isinstance(v, float) else str(v) for v in row] for row in frame.to_numpy(dtype=object)]
    return "\n".join(f" {line}".rstrip() for line in align(cells, (0, 1)))
