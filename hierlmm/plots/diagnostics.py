"""Pictures of a posterior's diagnostics: ArviZ's own, with our variables, sizes and labels, and the verdict in words.

ArviZ is handed a tree of the parameters that are drawn, under the names that tables use (`hierlmm.plots.chosen`): one
variable ``draws`` over ``parameter``. Each function returns a `Picture`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from hierlmm.bayes.convergence import MIN_ESS
from hierlmm.diagnostics.loo import Unit, loo
from hierlmm.diagnostics.pit import loo_pit, pit_tree
from hierlmm.diagnostics.psense import power_scaling_tree, psense
from hierlmm.drawing.style import backend_module, grid_shape, resolve_backend
from hierlmm.errors import FitWarning, NotAvailableError
from hierlmm.fits.named_draws import named_draws
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import choose
from hierlmm.plots import verdicts
from hierlmm.plots.chosen import SEE, Chosen, choose_draws

DPI = 100
"""Of backends that measure in dots."""


TRACE = {"alpha": 0.7, "width": 0.6}


class Selection(TypedDict, total=False):
    """Which parameters are drawn, as `choose_draws` takes them."""

    parameters: str | Sequence[str] | None
    how: str
    most: int
    seed: int | None


class Figure(TypedDict, total=False):
    """Size, title and backend of a figure."""

    figsize: Sequence[float] | None
    title: str | None
    backend: str | None
    figure_kwargs: Mapping[str, Any] | None


def plot_trace(fit: PosteriorNumbers, selection: Selection, figure: Figure) -> Any:
    """Draws in their order, a line for each chain."""
    what = "draws in their order"
    return _by_parameter("plot_trace", fit, selection, figure, what, verdicts.chains, visuals={"trace": TRACE})


def plot_rank(fit: PosteriorNumbers, selection: Selection, figure: Figure) -> Any:
    """Ranks of each chain's draws among all, less what they would be if the chains agreed."""
    return _by_parameter("plot_rank", fit, selection, figure, "ranks of the chains", verdicts.chains)


def plot_autocorr(fit: PosteriorNumbers, selection: Selection, figure: Figure) -> Any:
    """Correlation of draws that are so many steps apart."""
    return _by_parameter("plot_autocorr", fit, selection, figure, "autocorrelation", verdicts.sizes)


def plot_ess(fit: PosteriorNumbers, selection: Selection, figure: Figure, kind: str) -> Any:
    """Effective sample size along the distribution: of small intervals, or of quantiles."""
    what = "effective sample size of " + ("small intervals" if kind == "local" else "quantiles")
    return _by_parameter("plot_ess", fit, selection, figure, what, verdicts.sizes, kind=kind, min_ess=MIN_ESS)


def plot_mcse(fit: PosteriorNumbers, selection: Selection, figure: Figure) -> Any:
    """Monte-Carlo standard errors of quantiles."""
    chosen = choose_draws(fit, **selection)
    sd = pd.Series({name: values.std() for name, values in chosen.draws.items()})
    said = verdicts.errors(chosen.table, sd)
    return _drawn("plot_mcse", fit, chosen, figure, "Monte-Carlo error of quantiles", said)


def _by_parameter(
    function: str,
    fit: PosteriorNumbers,
    selection: Selection,
    figure: Figure,
    what: str,
    judge: Callable[[Any], str],
    **options: Any,
) -> Any:
    chosen = choose_draws(fit, **selection)
    return _drawn(function, fit, chosen, figure, what, judge(chosen.table), **options)


def _drawn(
    function: str, fit: PosteriorNumbers, chosen: Chosen, figure: Figure, what: str, said: str, **options: Any
) -> Any:
    """A panel of ArviZ for each parameter."""
    rows, columns = grid_shape(len(chosen.names))
    canvas = Canvas(figure, (0.5 + 2.7 * columns, 1.1 + 1.8 * rows))
    collection = canvas.draw(function, chosen.tree(fit), col_wrap=columns, **options)
    return canvas.finish(collection, fit, what, chosen.note, said)


def plot_energy(fit: PosteriorNumbers, figure: Figure) -> Any:
    """Energy of the draws and of their steps, and E-BFMI of every chain."""
    if "energy" not in fit.sample_stats:
        reason = "the sampler's statistics have no energy"
        raise NotAvailableError("plot_energy", reason, "refit with model.fit()", SEE)
    canvas = Canvas(figure, (7.0, 3.6))
    collection = canvas.draw("plot_energy", fit.datatree)
    chains = list(range(fit.draws("sigma").shape[0]))
    panels = {str(p["column"].item()): p.item() for p in collection.viz.ds["plot"]}
    draw = backend_module(canvas.backend)
    draw.title("E-BFMI", panels["bfmi"])
    draw.title("energy, centred", panels["energy"])
    draw.yticks(chains, [str(chain) for chain in chains], panels["bfmi"])
    canvas.legend(collection, "energy")
    return canvas.finish(collection, fit, "energy of the sampler", "", verdicts.energy(fit.convergence()))


def plot_pair(fit: PosteriorNumbers, parameters: str | Sequence[str] | None, subject: Any, figure: Figure) -> Any:
    """Pairs of parameters: by default those of D, σ and one subject's random effects against them (the funnel)."""
    note = ""
    if parameters is None:
        term = fit.design.term
        names = ["sd", "corr", "residual", "sigma"]
        if term and "b" in fit.datatree["posterior"]:
            own = _subject(fit, subject)
            note = f"b: of subject {own}" + ("" if subject is not None else "; nobody has fewer rows")
            names += [f"b[{own}, {t}]" for t in term]
        elif subject is not None:
            fit.need_effects("plot_pair(subject=...)", draws=True)
        parameters = names if term or fit.design.has_residual_structure else ["fixed", "sigma"]
    chosen = choose_draws(fit, parameters, "worst", 8)
    n = len(chosen.names)
    canvas = Canvas(figure, (1.2 + 1.75 * n, 1.3 + 1.5 * n))
    visuals = {"divergence": {"alpha": 0.9, "size": 16}, "scatter": {"alpha": 0.15, "size": 5}}
    collection = canvas.draw("plot_pair", chosen.tree(fit), visuals=visuals)
    said = verdicts.divergences(fit.convergence(), fit.draws("sigma").size)
    return canvas.finish(collection, fit, "pairs of draws", "; ".join(filter(None, (chosen.note, note))), said)


def _subject(fit: PosteriorNumbers, subject: Any) -> Any:
    """The subject whose random effects are drawn: the one asked for, or the one that has the fewest rows."""
    if subject is not None:
        return subject
    rows = np.bincount(fit.design.subject_index, minlength=fit.design.n_subjects)
    return fit.design.subjects[int(np.argmin(rows))]


def plot_prior_posterior(fit: PosteriorNumbers, selection: Selection, figure: Figure, draws: int) -> Any:
    """Densities of the prior and of the posterior."""
    import xarray as xr

    from hierlmm.diagnostics.psense import parameters_dataset

    if fit.priors is None:
        remedy = "use model.fit(), which knows its priors"
        raise NotAvailableError("plot_prior_posterior", "the priors of this fit are not known", remedy, SEE)
    chosen = choose_draws(fit, **selection)
    made = fit.prior_predictive(draws, seed=selection.get("seed", 0))["prior"].to_dataset()
    prior = {n: v for kind in named_draws(fit.design, made).values() for n, v in kind.items() if n in chosen.draws}
    tree = xr.DataTree.from_dict(
        {
            "prior": parameters_dataset(prior),
            "posterior": parameters_dataset({name: chosen.draws[name] for name in prior}),
        }
    )
    sd = [pd.Series({name: own[name].std() for name in prior}) for own in (prior, chosen.draws)]
    rows, columns = grid_shape(len(prior))
    canvas = Canvas(figure, (0.5 + 2.7 * columns, 1.3 + 1.8 * rows))
    collection = canvas.draw("plot_prior_posterior", tree, col_wrap=columns)
    canvas.legend(collection, "group")
    return canvas.finish(collection, fit, "prior and posterior", chosen.note, verdicts.contraction(*sd))


def plot_psense(fit: PosteriorNumbers, selection: Selection, figure: Figure, unit: Unit, kind: str) -> Any:
    """Posteriors with the prior, or the likelihood, counting less and more."""
    found = psense(fit, unit)
    names = choose_draws(fit, **selection).names
    if selection.get("parameters") is None and len(found.table) > selection.get("most", 8):
        names = found.table["prior"].nlargest(selection.get("most", 8)).index.tolist()
    canvas = Canvas(figure, (7.2, 1.8 + 1.5 * len(names)))
    tree = power_scaling_tree(fit, unit, names)
    # ArviZ loses the dataset of a single variable.
    tree["posterior"] = tree["posterior"].assign(beside=tree["posterior"]["draws"].isel(parameter=0, drop=True))
    if kind == "quantities":
        canvas = Canvas(figure, (9.6, 1.8 + 1.9 * len(names)))
        collection = canvas.draw("plot_psense_quantities", tree, var_names=["draws"])
        canvas.legend(collection, "component_group")
        return canvas.finish(collection, fit, "means and SDs as the weight changes", "", verdicts.scaling(found))
    visuals = {"credible_interval": False, "point_estimate": False}
    collection = canvas.draw("plot_psense_dist", tree, var_names=["draws"], visuals=visuals)
    canvas.legend(collection, "alpha", "weight of the prior (left), of the likelihood (right)")
    left_out = len(found.table) - len(names)
    note = f"{len(names)} of {len(found.table)} parameters" if left_out else ""
    return canvas.finish(collection, fit, "prior and likelihood scaled", note, verdicts.scaling(found))


def plot_khat(fit: PosteriorNumbers, figure: Figure, unit: Unit) -> Any:
    """Pareto k of every unit left out; those that are too large are named."""
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
    return canvas.finish(collection, fit, f"Pareto k of each {unit} left out", "", verdicts.khat(found))


def plot_loo_pit(fit: PosteriorNumbers, figure: Figure, unit: Unit, statistic: str, seed: int | None, kind: str) -> Any:
    """Distribution function of the leave-one-out PIT less a uniform one, or the intervals that were predicted."""
    import xarray as xr

    choose("kind", kind, ("pit", "interval"))
    found = loo_pit(fit, unit, statistic, seed)
    tree = xr.DataTree.from_dict({"loo_pit": xr.Dataset({"draws": ("unit", found.pit.to_numpy())})})
    what = {"mean": "mean of a subject's rows", "sd": "SD of a subject's rows", "y": "measurement"}
    of = what.get(found.statistic, f"{found.statistic} of a subject's own regression")
    if kind == "interval":
        canvas = Canvas(figure, (8.0, 4.0))
        made, _, _ = pit_tree(fit, unit, statistic, np.random.default_rng(seed))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Pareto.*", category=UserWarning)
            look = {"xlabel": {"text": f"{unit}, in the order of the data"}}
            collection = canvas.draw("plot_loo_interval", made, visuals=look)
        return canvas.finish(collection, fit, f"{of}, predicted from all others", "", found.verdict)
    canvas = Canvas(figure, (6.4, 4.0))
    visuals: dict[str, Any] = {"title": False, "xlabel": {"text": "LOO-PIT"}, "ylabel": {}, "p_value_text": False}
    collection = canvas.draw(
        "plot_ecdf_pit", tree, group="loo_pit", sample_dims=["unit"], method="pot_c", visuals=visuals
    )
    return canvas.finish(collection, fit, f"LOO-PIT of the {of}", "", found.verdict)


HIDDEN = dict.fromkeys(("title", "xlabel"), False)
PAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "draws in their order": ("plot_trace", {"visuals": {**HIDDEN, "trace": TRACE}}),
    "ranks of the chains": ("plot_rank", {"visuals": HIDDEN}),
    "autocorrelation": ("plot_autocorr", {"visuals": HIDDEN}),
    "effective sample size": ("plot_ess", {"visuals": {**HIDDEN, "ylabel": False}}),
}
"""Columns of `plot_diagnostics`: headings, and ArviZ's functions with what they draw."""


def plot_diagnostics(fit: PosteriorNumbers, selection: Selection, figure: Figure) -> Any:
    """One page: trace, ranks, autocorrelation and effective sample size of the parameters, a row for each."""
    import arviz_plots as az

    chosen = choose_draws(fit, **selection, effects=True)
    canvas = Canvas(figure, (10.5, 1.9 + 1.15 * len(chosen.names)))
    plots = [(getattr(az, name), dict(look)) for name, look in PAGE.values()]
    options: dict[str, Any] = {"plots": plots, "plot_names": list(PAGE)}
    collection = canvas.draw("combine_plots", chosen.tree(fit), sharex="col", **options)
    canvas.name_grid(collection, list(PAGE), chosen.names)
    found = fit.convergence()
    said = [verdicts.chains(chosen.table), verdicts.sizes(chosen.table)]
    said += [] if np.isnan(found.min_bfmi) else [verdicts.energy(found)]
    said += [verdicts.divergences(found, fit.draws("sigma").size)] if "sample_stats" in fit.datatree.children else []
    return canvas.finish(collection, fit, "diagnostics", chosen.note, "; ".join(said))


class Canvas:
    """The figure of a picture: its backend, its size, ArviZ's function, and the title with the verdict."""

    def __init__(self, figure: Figure, size: tuple[float, float]) -> None:
        from hierlmm.bayes.labels import Labeller

        self.backend = resolve_backend(figure.get("backend"))
        self.title, self.labeller = figure.get("title"), Labeller()
        given = dict(figure.get("figure_kwargs") or {})
        self.letters = _letters() if self.backend == "matplotlib" else 1.0
        grown = (size[0] * self.letters, size[1] * self.letters)
        self.size = tuple(figure.get("figsize") or given.pop("figsize", None) or grown)
        self.kwargs: dict[str, Any] = {"figsize": self.size, "figsize_units": "inches", "layout": "constrained"}
        if self.backend != "matplotlib":
            self.kwargs = {"figsize": tuple(DPI * v for v in self.size), "figsize_units": "dots"}
        self.kwargs |= given

    def draw(self, function: str, data: Any, *, sharex: Any = None, **options: Any) -> Any:
        """Call a function of ArviZ by name."""
        import arviz_plots as az
        from arviz_base import rc_context

        if function != "combine_plots":
            options["labeller"] = self.labeller
        with rc_context({"plot.max_subplots": None}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(overlay|constrained_layout).*")
            figure = self.kwargs | ({} if sharex is None else {"sharex": sharex})
            return getattr(az, function)(data, backend=self.backend, figure_kwargs=figure, **options)

    def legend(self, collection: Any, dim: str, title: str = "") -> None:
        """Add a legend, below the panels in matplotlib: there it never meets the title."""
        if self.backend == "matplotlib":
            for own in collection.get_viz("figure").legends:
                own.remove()
            collection.add_legend(dim, title=title, loc="outside lower center", ncols=3, frameon=False)

    def name_grid(self, collection: Any, columns: Sequence[str], rows: Sequence[str]) -> None:
        """Name the columns of a grid above it, and its rows beside it."""
        draw = backend_module(self.backend)
        for column in columns:
            draw.title(column, collection.get_target("draws", {"column": column, "parameter": rows[0]}))
        for row in rows:
            label = row if len(row) <= 14 else row.replace(", ", ",\n")
            draw.ylabel(label, collection.get_target("draws", {"column": columns[0], "parameter": row}))
        if self.backend == "matplotlib":  # rendered from a list of marks, panels have no margins and texts no place
            for axes in collection.get_viz("figure").axes:
                axes.margins(y=0.15)
                for text in list(axes.texts):
                    text.remove()

    def finish(self, collection: Any, fit: PosteriorNumbers, what: str, note: str, *said: str) -> Any:
        """Write the title: what is seen, which parameters, and the verdict."""
        import textwrap

        from hierlmm.drawing.picture import as_picture

        first = f"{fit.design.hierarchy.response}: {what}" + (f" ({note})" if note else "")
        title = "\n".join([first, *said]) if self.title is None else self.title
        if title:
            width = int(9.5 * self.size[0] / self.letters)
            lines = [line for text in title.split("\n") for line in textwrap.wrap(text, width)]
            collection.add_title("\n".join(lines) if self.backend == "matplotlib" else ". ".join(title.split("\n")))
        return as_picture(collection)


def _letters() -> float:
    """Size of matplotlib's letters relative to its own default."""
    from matplotlib import rcParams

    return float(rcParams["font.size"]) / 10.0
