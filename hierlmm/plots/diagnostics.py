"""Pictures of what a posterior rests on: its prior, single units of the data; see `hierlmm.plots.chains`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from hierlmm.bayes.predictive import prior_parameters
from hierlmm.diagnostics.loo import Unit, loo
from hierlmm.diagnostics.pit import loo_pit, pit_tree
from hierlmm.diagnostics.psense import power_scaling_tree, psense
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.style import evenly
from hierlmm.errors import FitWarning, NotAvailableError
from hierlmm.fits.named_draws import plain_draws
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import choose
from hierlmm.plots import verdicts
from hierlmm.plots.canvas import Canvas, wrapped
from hierlmm.plots.chosen import SEE, Asked, choose_draws, of_parameters, parameters_only

INTERVALS = 60
"""Most intervals side by side that can be told apart."""


@of_parameters()
def plot_prior_posterior(
    fit: PosteriorNumbers, parameters: str | Sequence[str] | None = None, *, draws: int = 2000, **asked: Unpack[Asked]
) -> Any:
    """Densities of prior and posterior, with what the data leave of the prior's SD in the title.

    Parameters
    ----------
    fit : PosteriorFit
    parameters, choose, max_panels, seed
    draws : int
        Number of draws from the prior.

    Returns
    -------
    Picture
        Visual ``dist`` over ``parameter`` × ``group``.

    Raises
    ------
    NotAvailableError
        If the priors of the fit are not known.
    """
    import xarray as xr

    from hierlmm.diagnostics.psense import parameters_dataset

    if fit.priors is None:
        remedy = "use model.fit(), which knows its priors"
        raise NotAvailableError("plot_prior_posterior", "the priors of this fit are not known", remedy, SEE)
    chosen = parameters_only(fit, choose_draws(fit, parameters, asked), "plot_prior_posterior")
    made = prior_parameters(fit.design, fit.priors, draws, asked["seed"])
    prior = {name: own for name, own in plain_draws(fit.design, made).items() if name in chosen.draws}
    tree = xr.DataTree.from_dict(
        {
            "prior": parameters_dataset(prior),
            "posterior": parameters_dataset({name: chosen.draws[name] for name in prior}),
        }
    )
    sd = [pd.Series({name: own[name].std() for name in prior}) for own in (prior, chosen.draws)]
    canvas, columns = wrapped(asked, len(prior), bottom=1.3)
    collection = canvas.draw("plot_prior_posterior", tree, col_wrap=columns)
    canvas.legend(collection, "group")
    return canvas.finish(collection, fit, "prior and posterior", verdicts.contraction(*sd), chosen.note)


@of_parameters(8, "all but the random effects, those most sensitive to the prior,")
def plot_psense(
    fit: PosteriorNumbers,
    parameters: str | Sequence[str] | None = None,
    *,
    unit: Unit = "subject",
    kind: Literal["densities", "quantities"] = "densities",
    **asked: Unpack[Asked],
) -> Any:
    """Posteriors with the prior, or the likelihood, counting less and more (0.8 and 1.25 times).

    See `psense` for the numbers. Where a density moves with the prior, the prior matters.

    Parameters
    ----------
    fit : PosteriorFit
    parameters, choose, max_panels, seed
    unit : {"subject", "observation"}
        Of the likelihood: random effects integrated out, or given.
    kind : {"densities", "quantities"}
        The posteriors, or their means and SDs as the weight changes.

    Returns
    -------
    Picture
        Visual ``dist`` over ``parameter`` × ``component_group``.

    Raises
    ------
    NotAvailableError
        If the priors of the fit are not known.
    """
    found = psense(fit, unit)
    chosen, most = choose_draws(fit, parameters, asked), asked["max_panels"]
    names = parameters_only(fit, chosen, "plot_psense").names
    if parameters is None and len(found.table) > most:
        names = found.table["prior"].nlargest(most).index.tolist()
    tree = power_scaling_tree(fit, unit, names)
    # ArviZ loses the dataset of a single variable.
    tree["posterior"] = tree["posterior"].assign(beside=tree["posterior"]["draws"].isel(parameter=0, drop=True))
    n, verdict = len(names), verdicts.scaling(found)
    if kind == "quantities":
        canvas = Canvas(asked, (9.6, 1.8 + 1.9 * n), 2 * n)
        collection = canvas.draw("plot_psense_quantities", tree, var_names=["draws"])
        canvas.legend(collection, "component_group")
        return canvas.finish(collection, fit, "means and SDs as the weight changes", verdict)
    canvas = Canvas(asked, (7.2, 1.8 + 1.5 * n), 2 * n)
    visuals = {"credible_interval": False, "point_estimate": False}
    collection = canvas.draw("plot_psense_dist", tree, var_names=["draws"], visuals=visuals)
    canvas.legend(collection, "alpha", "weight of the prior (left), of the likelihood (right)")
    note = f"{n} of {len(found.table)} parameters" if n < len(found.table) else ""
    return canvas.finish(collection, fit, "prior and likelihood scaled", verdict, note)


@pictured
def plot_khat(fit: PosteriorNumbers, unit: Unit = "subject", **figure: Unpack[Figure]) -> Any:
    """Pareto k of every unit left out, the largest named, with whether `loo` can be relied on in the title.

    Parameters
    ----------
    fit : PosteriorFit
    unit : {"subject", "observation"}
        What is left out; see `loo`.

    Returns
    -------
    Picture
        Visual ``khat`` over the units.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # the title says it
        found = loo(fit, unit)
    bad = found.unreliable
    options: dict[str, Any] = {
        "visuals": {
            "hlines": True,
            "xlabel": {"text": f"{unit}, in the order of the data"},
            "ylabel": {"text": "Pareto k"},
        },
        "hline_values": [found.good_k],
    }
    if 0 < len(bad) <= 30:
        options |= {"threshold": found.good_k}
    canvas = Canvas(figure, (7.2, 4.0))
    collection = canvas.draw("plot_khat", found.elpd_data, **options)
    canvas.lift_names(collection)
    return canvas.finish(collection, fit, f"Pareto k of each {unit} left out", verdicts.khat(found))


@pictured
def plot_loo_pit(
    fit: PosteriorNumbers,
    unit: Unit = "subject",
    *,
    statistic: str = "mean",
    kind: Literal["pit", "interval"] = "pit",
    seed: int | None = 0,
    **figure: Unpack[Figure],
) -> Any:
    """Is every subject where the others say it should be? Leave-one-out PIT, with a test in the title.

    One number T of each subject's rows is compared with the same number of a new subject that has the covariates of
    this one, given the data of all other subjects:

        ``PIT_i = P(T(y_i*) ≤ T(y_i) | y_-i)``

    with ``y_i* ~ N(X_i β, Z_i D Z_i' + Σ_i)``, and β, D, Σ from the posterior without subject i (importance
    sampling with the subject's marginal likelihood). It is uniform where the model is true, for any T that is a
    function of the data (Gelfand, Dey & Chang 1992). Drawn is its distribution function less that of a uniform
    distribution: above zero left and below it right where subjects spread more widely than the model expects, the
    other way round where less. A check with draws given the subjects' own random effects is not uniform (docs,
    page "Posterior fits").

    Parameters
    ----------
    fit : PosteriorFit
    unit : {"subject", "observation"}
        What is left out: a subject, or a row given the other rows of its subject.
    statistic : str
        What T is: ``"mean"`` or ``"sd"`` of the subject's rows, or a random effect's term (``"days"``): that
        coefficient of the subject's own least-squares regression. Of subjects only.
    kind : {"pit", "interval"}
        The PIT, or T of every subject (at most 60, evenly chosen) over the interval that all others predict for it.
    seed : int, optional
        Of the simulated subjects, and of the choice of 1,000 where there are more.

    Returns
    -------
    Picture
        Visuals ``ecdf_lines`` and ``suspicious_points``.
    """
    import xarray as xr

    choose("kind", kind, ("pit", "interval"))
    found = loo_pit(fit, unit, statistic, seed)
    tree = xr.DataTree.from_dict({"loo_pit": xr.Dataset({"draws": ("unit", found.pit.to_numpy())})})
    what = {"mean": "mean of a subject's rows", "sd": "SD of a subject's rows", "y": "measurement"}
    of = what.get(found.statistic, f"{found.statistic} of a subject's own regression")
    if kind == "interval":
        canvas = Canvas(figure, (8.0, 4.0))
        made, _, _ = pit_tree(fit, unit, statistic, np.random.default_rng(seed))
        some = evenly(len(found.pit), INTERVALS)
        note = f"{len(some)} of {found.n}" if len(some) < found.n else ""
        made = made.map_over_datasets(lambda own: own.isel(unit=some, missing_dims="ignore"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Pareto.*", category=UserWarning)
            look = {"xlabel": {"text": f"{unit}, in the order of the data"}}
            collection = canvas.draw("plot_loo_interval", made, visuals=look)
        return canvas.finish(collection, fit, f"{of}, predicted from all others", found.verdict, note)
    canvas = Canvas(figure, (6.4, 4.0))
    visuals: dict[str, Any] = {"title": False, "xlabel": {"text": "LOO-PIT"}, "ylabel": {}, "p_value_text": False}
    collection = canvas.draw(
        "plot_ecdf_pit", tree, group="loo_pit", sample_dims=["unit"], method="pot_c", visuals=visuals
    )
    return canvas.finish(collection, fit, f"LOO-PIT of the {of}", found.verdict)
