"""How a posterior fit prints: what was fitted, the two tables of lme4, the priors, and whether to trust it."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.bayes.convergence import GOOD_K
from hierlmm.bayes.tree import dispersion_labels
from hierlmm.design.design import Design
from hierlmm.design.factors import finest_first, own_part
from hierlmm.fits.components import corr_label, sd_label
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.fits.residual_text import correlation_heading, variance_heading
from hierlmm.fits.text import counts_text
from hierlmm.results import Page, Part, Table
from hierlmm.text import align, count


def posterior_page(fit: PosteriorNumbers, ci: float = 0.95) -> Page:
    """What a posterior shows, with intervals of probability ``ci``."""
    title, *header = _header(fit).splitlines()
    link = "" if fit.design.is_gaussian else f" ({fit.design.family.link} scale, given the random effects)"
    random, fixed = ("Random effects", f"Fixed effects{link}") if fit.design.term else ("Residual SD", "Coefficients")
    heading = f"{random} (posterior mean, {ci:.0%} interval):"
    components, coefficients = fit.variance_components(ci), fit.summary(ci)
    parts: list[Part] = [
        *header,
        Table(
            _shown(components),
            ["", heading, _random_text(fit, components, ci), *_dispersion_text(fit, components)],
            random if fit.design.is_gaussian else f"{random} and dispersion",
            index=True,
        ),
        _counts(fit),
        *(Table(t, ["", title, _residual_text(t, ci)], title, index=True) for title, t in residual_tables(fit, ci)),
        *_known_weights(fit),
        Table(_shown(coefficients), ["", f"{fixed}:", _fixed_text(coefficients, ci)], fixed, index=True),
    ]
    if fit.priors is not None:
        parts.append(Table(fit.priors.to_frame(), ["", str(fit.priors)], "Priors", index=True))
    return Page(title, [*parts, "", *_verdict(fit).splitlines()])


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="mcse")


def _header(fit: PosteriorNumbers) -> str:
    attrs = fit.datatree.attrs
    how = ", ".join(str(attrs[k]) for k in ("sampler", "parametrization") if k in attrs)
    kind = "Two-level" if fit.design.term else "Marginal"
    kind = "Multilevel" if fit.design.has_several_factors else kind
    kind = kind if fit.design.is_gaussian else f"Generalised {kind.lower()}"
    lines = [f"{kind} model, posterior by {fit.estimator}" + (f" ({how})" if how else "")]
    lines.append(f"Formula: {fit.design.hierarchy.formula}")
    if not fit.design.is_gaussian:
        note = f"; {fit.design.rows.note}" if fit.design.rows.note else ""
        lines.append(f"Family:  {fit.design.family}{note}")
    posterior = fit.datatree["posterior"]
    settings = f"Draws:   {posterior.sizes['chain']} chains of {posterior.sizes['draw']}"
    if "tune" in attrs:
        settings += f" after {attrs['tune']} of warm-up each"
    if "target_accept" in attrs:
        settings += f", target acceptance {attrs['target_accept']}"
    if "seed" in attrs:
        settings += f", seed {attrs['seed']}"
    route = (
        [f"Route:   {attrs['sampler']}: {attrs['why']}"] if fit.design.has_several_factors and "why" in attrs else []
    )
    return "\n".join([*lines, settings, *route])


def _known_weights(fit: PosteriorNumbers) -> list[Part]:
    """The variance of rows of known weights, where it has no parameter and so no table."""
    design = fit.design
    known = design.weights is not None and "residual_variance" not in fit.datatree["posterior"]
    return ["", variance_heading(design)] if known else []


def residual_tables(fit: PosteriorNumbers, ci: float = 0.95) -> list[tuple[str, pd.DataFrame]]:
    """Heading and table (estimate, lower, upper) of the residual correlation and variance, where they were sampled."""
    posterior, found = fit.datatree["posterior"], []
    for name, spec, heading in (
        ("residual_correlation", fit.design.residual, correlation_heading),
        ("residual_variance", fit.design.residual_variance, variance_heading),
    ):
        if spec is None or name not in posterior:
            continue
        dimension = f"{name}_parameter"
        draws = posterior[name].transpose(dimension, "chain", "draw").to_numpy()
        flat = draws.reshape(len(draws), -1)
        lower, upper = np.quantile(flat, [0.5 * (1 - ci), 0.5 * (1 + ci)], axis=1)
        index = [str(label) for label in posterior[dimension].to_numpy()]
        table = pd.DataFrame({"estimate": flat.mean(axis=1), "lower": lower, "upper": upper}, index=index)
        found.append((heading(fit.design), table))
    return found


def _residual_text(table: pd.DataFrame, ci: float) -> str:
    rows = [["", "Estimate", *_bounds(ci)]]
    rows += [[str(name), *map(_short, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return _align(rows, left=1)


def _counts(fit: PosteriorNumbers) -> str:
    if fit.design.has_several_factors:
        return counts_text(fit.design)
    dropped = fit.design.n_dropped
    counts = f"Number of obs: {fit.n_obs}, {fit.design.hierarchy.subject}: {fit.n_subjects}"
    return counts + (f" ({count(dropped, 'incomplete row')} dropped)" if dropped else "")


def _random_text(fit: PosteriorNumbers, table: pd.DataFrame, ci: float) -> str:
    """lme4's table: one line per random effect, its correlations with those above it to the right."""
    term = fit.design.term
    lower, upper = _bounds(ci)
    rows = []
    if not term:
        estimate = [_short(table.loc["sigma", c]) for c in ("estimate", "lower", "upper")]
        return _align([["", "Estimate", lower, upper], ["sigma", *estimate]], left=1)
    for group, i, first, same, name in _lines_of(fit.design):
        row = table.loc[sd_label(fit.design, i)]
        labels = [corr_label(fit.design, k, i) if k >= same else "" for k in range(first, i)]
        correlations = [table["estimate"].get(label) for label in labels]
        corr = " ".join("     " if r is None else f"{r:5.2f}" for r in correlations)
        rows.append([group, name, *(_short(row[c]) for c in ("estimate", "lower", "upper")), corr])
    if fit.design.is_gaussian:
        rows.append(["Residual", "", *(_short(table.loc["sigma", c]) for c in ("estimate", "lower", "upper")), ""])
    with_corr = any(r[-1].strip() for r in rows)
    head = ["Groups", "Name", "Std.Dev.", lower, upper, "Corr"]
    return _align([r if with_corr else r[:-1] for r in [head, *rows]], left=2)


def _lines_of(design: Design) -> list[tuple[str, int, int, int, str]]:
    """Of every random effect: its factor on the first line, position, where correlations begin, its group, its name.

    Factors stand the finest first, as in lme4.
    """
    if not design.has_several_factors:
        own = enumerate(design.term)
        return [("" if i else design.hierarchy.subject, i, 0, i - i % design.n_own, name) for i, name in own]
    found, names = [], [own.columns.group for own in design.random]
    for factor in finest_first(design):
        k = names.index(factor)
        start = own_part(design, k)[0].start
        found += [
            ("" if a else factor, start + a, start, start, name)
            for a, name in enumerate(design.random[k].columns.names)
        ]
    return found


def _dispersion_text(fit: PosteriorNumbers, table: pd.DataFrame) -> list[str]:
    """Dispersion of a family on a line of its own, with intervals; nothing of a Gaussian response, or without one."""
    names = [] if fit.design.is_gaussian else list(dispersion_labels(fit.design))
    rows = table.loc[names, ["estimate", "lower", "upper"]].itertuples(name=None)
    said = [f"{name} {_short(e)} [{_short(low)}, {_short(high)}]" for name, e, low, high in rows]
    title = "Thresholds" if fit.design.family.name == "ordinal" else "Dispersion"
    return [f"{title}: {', '.join(said)}"] if said else []


def _fixed_text(table: pd.DataFrame, ci: float) -> str:
    if table.empty:
        return " (none)"
    lower, upper = _bounds(ci)
    rows = [["", "Estimate", "Post.SD", lower, upper, "ESS bulk", "ESS tail", "R-hat"]]
    for name, row in table.iterrows():
        numbers = [_short(row[c]) for c in ("estimate", "se", "lower", "upper")]
        checks = [
            _count(row["ess_bulk"]),
            _count(row["ess_tail"]),
            "" if np.isnan(row["r_hat"]) else f"{row['r_hat']:z.3f}",
        ]
        rows.append([str(name), *numbers, *checks])
    return _align(rows, left=1)


def _verdict(fit: PosteriorNumbers) -> str:
    check = fit.convergence()
    facts = (
        f"largest R-hat {check.max_rhat:z.3f}, smallest ESS {_count(check.min_ess_bulk)} (bulk) and "
        f"{_count(check.min_ess_tail)} (tail), {check.divergences} divergences"
    )
    if "pareto_k" in fit.datatree.attrs:
        facts += f"; Laplace's method: Pareto k {fit.datatree.attrs['pareto_k']:z.2f}"
    failed = [m for m in fit.warnings if m in check.messages]
    notes = [m for m in fit.warnings if m not in check.messages]
    if failed:
        lines = [f"NOT CONVERGED, do not use these numbers yet ({facts}):", *map(_bullet, failed)]
    elif not (k := fit.datatree.attrs.get("pareto_k", 0.0)) <= GOOD_K:
        whether = "is not the posterior" if k > GOOD_K else "was not compared with the posterior"
        lines = [f"The chains converged, but to Laplace's approximation, which {whether} ({facts})."]
    else:
        lines = [f"Convergence: nothing looks wrong ({facts})."]
    if notes:
        lines += ["Before you use it:", *map(_bullet, notes)]
    return "\n".join(lines)


def _bullet(message: str) -> str:
    return textwrap.fill(message, 110, initial_indent="  - ", subsequent_indent="    ")


def _bounds(ci: float) -> tuple[str, str]:
    return f"{50 * (1 - ci):.3g} %", f"{50 * (1 + ci):.4g} %"


def _count(value: float) -> str:
    return "" if np.isnan(value) else f"{value:z.0f}"


def _short(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:z.0f}"


def _align(rows: list[list[str]], left: int) -> str:
    return "\n".join(f" {line}".rstrip() for line in align(rows, range(left)))
