"""Pictures of a sampler's chains: ArviZ's own, with our variables, sizes and labels, and the verdict in words.

ArviZ is handed a tree of the parameters that are drawn, under the names that tables use (`hierlmm.plots.chosen`): one
variable ``draws`` over ``parameter``. Each function returns a `Picture`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from hierlmm.bayes.convergence import MIN_ESS
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.style import backend_module
from hierlmm.errors import NotAvailableError
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.plots import verdicts
from hierlmm.plots.canvas import Canvas, wrapped
from hierlmm.plots.chosen import SEE, Asked, choose_draws, of_parameters

TRACE = {"alpha": 0.7, "width": 0.6}


@of_parameters()
def plot_trace(fit: PosteriorNumbers, parameters: str | Sequence[str] | None = None, **asked: Unpack[Asked]) -> Any:
    """Draws in their order, a line for each chain, with R-hat in the title.

    Chains that agree lie on top of each other, without trends; divergences are ticks below.

    Parameters
    ----------
    fit : PosteriorFit
    parameters, choose, max_panels, seed

    Returns
    -------
    Picture
        Visuals ``trace`` and ``divergence`` over ``parameter``.

    Raises
    ------
    NotAvailableError
        If random effects are asked for, and the fit kept no draws of them.
    """
    what = "draws in their order"
    return _by_parameter("plot_trace", fit, parameters, asked, what, verdicts.chains, visuals={"trace": TRACE})


@of_parameters()
def plot_rank(fit: PosteriorNumbers, parameters: str | Sequence[str] | None = None, **asked: Unpack[Asked]) -> Any:
    """Ranks of each chain's draws among all draws, with R-hat in the title.

    Drawn is the distribution of the ranks less a uniform one: lines that stay near zero, and a large p-value of
    ArviZ's test, mean that the chains agree (Säilynoja, Bürkner & Vehtari 2022).

    Parameters
    ----------
    fit : PosteriorFit
    parameters, choose, max_panels, seed

    Returns
    -------
    Picture
        Visual ``ecdf_lines`` over ``parameter``.

    Raises
    ------
    NotAvailableError
        If random effects are asked for, and the fit kept no draws of them.
    """
    return _by_parameter("plot_rank", fit, parameters, asked, "ranks of the chains", verdicts.chains)


@of_parameters()
def plot_autocorr(fit: PosteriorNumbers, parameters: str | Sequence[str] | None = None, **asked: Unpack[Asked]) -> Any:
    """Correlation of draws that are so many steps apart, with effective sample sizes in the title.

    Parameters
    ----------
    fit : PosteriorFit
    parameters, choose, max_panels, seed

    Returns
    -------
    Picture
        Visual ``lines`` over ``parameter``.

    Raises
    ------
    NotAvailableError
        If random effects are asked for, and the fit kept no draws of them.
    """
    return _by_parameter("plot_autocorr", fit, parameters, asked, "autocorrelation", verdicts.sizes)


@of_parameters()
def plot_ess(
    fit: PosteriorNumbers,
    parameters: str | Sequence[str] | None = None,
    *,
    kind: Literal["local", "quantile"] = "local",
    **asked: Unpack[Asked],
) -> Any:
    """Effective sample size along the distribution of each parameter, with the least of all in the title.

    Parameters
    ----------
    fit : PosteriorFit
    parameters, choose, max_panels, seed
    kind : {"local", "quantile"}
        Of the probability of small intervals, or of quantiles.

    Returns
    -------
    Picture
        Visuals ``ess`` and ``min_ess`` (400) over ``parameter``.

    Raises
    ------
    NotAvailableError
        If random effects are asked for, and the fit kept no draws of them.
    """
    what = "effective sample size of " + ("small intervals" if kind == "local" else "quantiles")
    return _by_parameter("plot_ess", fit, parameters, asked, what, verdicts.sizes, kind=kind, min_ess=MIN_ESS)


@of_parameters()
def plot_mcse(fit: PosteriorNumbers, parameters: str | Sequence[str] | None = None, **asked: Unpack[Asked]) -> Any:
    """Monte-Carlo standard error of every quantile, with that of the means in the title.

    Parameters
    ----------
    fit : PosteriorFit
    parameters, choose, max_panels, seed

    Returns
    -------
    Picture
        Visual ``mcse`` over ``parameter``.

    Raises
    ------
    NotAvailableError
        If random effects are asked for, and the fit kept no draws of them.
    """
    return _by_parameter("plot_mcse", fit, parameters, asked, "Monte-Carlo error of quantiles", verdicts.errors)


def _by_parameter(
    function: str,
    fit: PosteriorNumbers,
    parameters: str | Sequence[str] | None,
    asked: Asked,
    what: str,
    judge: Callable[[pd.DataFrame], str],
    **options: Any,
) -> Any:
    """A panel of ArviZ for each parameter."""
    chosen = choose_draws(fit, parameters, asked)
    canvas, columns = wrapped(asked, len(chosen.names))
    collection = canvas.draw(function, chosen.tree(fit), col_wrap=columns, **options)
    return canvas.finish(collection, fit, what, judge(chosen.table), chosen.note)


@pictured
def plot_energy(fit: PosteriorNumbers, **figure: Unpack[Figure]) -> Any:
    """Energy of the draws and of their steps, with E-BFMI of every chain.

    Where steps change the energy less than the draws spread, the sampler moves too slowly through the tails
    (Betancourt 2016).

    Parameters
    ----------
    fit : PosteriorFit

    Returns
    -------
    Picture

    Raises
    ------
    NotAvailableError
        If the fit has no statistics of a sampler.
    """
    if "energy" not in fit.sample_stats:
        reason = "the sampler's statistics have no energy"
        raise NotAvailableError("plot_energy", reason, "refit with model.fit()", SEE)
    canvas = Canvas(figure, (7.0, 3.6), 2)
    collection = canvas.draw("plot_energy", fit.datatree)
    chains = list(range(fit.draw_shape[0]))
    panels = {str(p["column"].item()): p.item() for p in collection.viz.ds["plot"]}
    draw = backend_module(canvas.backend)
    if canvas.backend == "plotly":  # which would write them over those that are there
        collection.get_viz("figure").layout.annotations = ()
    draw.title("E-BFMI", panels["bfmi"])
    draw.title("energy, centred", panels["energy"])
    draw.yticks(chains, [str(chain) for chain in chains], panels["bfmi"])
    canvas.legend(collection, "energy")
    return canvas.finish(collection, fit, "energy of the sampler", verdicts.energy(fit.convergence()))


@pictured
def plot_pair(
    fit: PosteriorNumbers,
    parameters: str | Sequence[str] | None = None,
    *,
    subject: Any = None,
    **figure: Unpack[Figure],
) -> Any:
    """Pairs of draws, with divergences marked.

    By default the standard deviations, correlations, residual parameters and σ, and the random effects of one
    subject: where draws of b fan out as their standard deviation grows, and divergences gather at its tip, the
    sampler may miss the region near zero (the funnel). At most eight parameters, those with the largest R-hat.

    Parameters
    ----------
    fit : PosteriorFit
    parameters : str or sequence of str, optional
        Names (``"sd(Intercept)"``, ``"b[308, days]"``) or kinds (``"fixed"``, ``"sd"``, ``"corr"``, ``"residual"``,
        ``"sigma"``).
    subject : label, optional
        Whose random effects are drawn; by default those of the subject who has the fewest rows.

    Returns
    -------
    Picture
        Visuals ``scatter`` and ``divergence`` over pairs of ``parameter``.

    Raises
    ------
    NotAvailableError
        If random effects are asked for, and the fit kept no draws of them.
    """
    note = ""
    if parameters is None:
        term = fit.design.own_term
        names = ["sd", "corr", "residual", "sigma"]
        if term and "b" in fit.datatree["posterior"]:
            own = _subject(fit, subject)
            note = f"b: of subject {own}" + ("" if subject is not None else "; nobody has fewer rows")
            names += [f"b[{own}, {t}]" for t in term]
        elif subject is not None:
            fit.need_effects("plot_pair(subject=...)", draws=True)
        parameters = names if term or fit.design.has_residual_structure else ["fixed", "sigma"]
    chosen = choose_draws(fit, parameters, {"choose": "worst", "max_panels": 8, "seed": 0})
    n = len(chosen.names)
    canvas = Canvas(figure, (1.2 + 1.75 * n, 1.3 + 1.5 * n), n * n)
    visuals = {"divergence": {"alpha": 0.9, "size": 16}, "scatter": {"alpha": 0.15, "size": 5}}
    collection = canvas.draw("plot_pair", chosen.tree(fit), visuals=visuals)
    said = verdicts.divergences(fit.convergence(), int(np.prod(fit.draw_shape)))
    return canvas.finish(collection, fit, "pairs of draws", said, chosen.note, note)


def _subject(fit: PosteriorNumbers, subject: Any) -> Any:
    """The subject whose random effects are drawn: the one asked for, or the one that has the fewest rows."""
    if subject is not None:
        return subject
    rows = np.bincount(fit.design.subject_index, minlength=fit.design.n_subjects)
    return fit.design.subjects[int(np.argmin(rows))]


HIDDEN = dict.fromkeys(("title", "xlabel"), False)
PAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "draws in their order": ("plot_trace", {"visuals": {**HIDDEN, "trace": TRACE}}),
    "ranks of the chains": ("plot_rank", {"visuals": HIDDEN}),
    "autocorrelation": ("plot_autocorr", {"visuals": HIDDEN}),
    "effective sample size": ("plot_ess", {"visuals": {**HIDDEN, "ylabel": False}}),
}
"""Columns of `plot_diagnostics`: headings, and ArviZ's functions with what they draw."""


@of_parameters(6, "all, and the random effects where they were sampled with them,")
def plot_diagnostics(
    fit: PosteriorNumbers, parameters: str | Sequence[str] | None = None, **asked: Unpack[Asked]
) -> Any:
    """One page: trace, ranks, autocorrelation and effective sample size, a row for each parameter.

    Parameters
    ----------
    fit : PosteriorFit
    parameters, choose, max_panels, seed

    Returns
    -------
    Picture
    """
    import arviz_plots as az

    # Drawn exactly given the others, random effects mix as these do; `assess_convergence` leaves them out as well.
    chosen = choose_draws(fit, parameters, asked, effects=fit.datatree.attrs.get("sampler") != "collapsed")
    canvas = Canvas(asked, (10.5, 1.9 + 1.15 * len(chosen.names)), len(PAGE) * len(chosen.names))
    plots = [(getattr(az, name), dict(look)) for name, look in PAGE.values()]
    options: dict[str, Any] = {"plots": plots, "plot_names": list(PAGE)}
    collection = canvas.draw("combine_plots", chosen.tree(fit), sharex="col", **options)
    canvas.name_grid(collection, list(PAGE), chosen.names)
    found = fit.convergence()
    said = [verdicts.chains(chosen.table), verdicts.sizes(chosen.table)]
    said += [] if np.isnan(found.min_bfmi) else [verdicts.energy(found)]
    said += (
        [verdicts.divergences(found, int(np.prod(fit.draw_shape)))] if "sample_stats" in fit.datatree.children else []
    )
    return canvas.finish(collection, fit, "diagnostics", "; ".join(said), chosen.note)
