"""Plots of fits and comparisons, through ArviZ's plot collections (matplotlib, bokeh, plotly, or none).

Every function takes fits of any estimator, or a `Comparison`, and returns a `Picture`, a plot collection of ArviZ:
``.savefig(path)`` writes it, ``.show()`` shows it, ``.get_viz("figure")`` is the figure of the backend.
"""

import importlib as _importlib
import typing as _typing

__all__ = [
    "plot_conditional_vs_marginal",
    "plot_data",
    "plot_effects",
    "plot_forest",
    "plot_optima",
    "plot_posterior",
    "plot_ppc",
    "plot_prior_predictive",
    "plot_qq",
    "plot_random_effects",
    "plot_ranks",
    "plot_residuals",
    "plot_separate_lines",
    "plot_shrinkage",
    "plot_subject_prediction",
    "plot_trajectories",
]

# `hierlmm.drawing.effect_rows` draws tables of effects; curves have a module of their own.
_MODULES = {"plot_effects": "effect_curves"}

if _typing.TYPE_CHECKING:
    from hierlmm.plots.conditional_vs_marginal import plot_conditional_vs_marginal
    from hierlmm.plots.data import plot_data
    from hierlmm.plots.effect_curves import plot_effects
    from hierlmm.plots.forest import plot_forest
    from hierlmm.plots.optima import plot_optima
    from hierlmm.plots.posterior import plot_posterior
    from hierlmm.plots.ppc import plot_ppc
    from hierlmm.plots.prior_predictive import plot_prior_predictive
    from hierlmm.plots.qq import plot_qq
    from hierlmm.plots.random_effects import plot_random_effects
    from hierlmm.plots.ranks import plot_ranks
    from hierlmm.plots.residuals import plot_residuals
    from hierlmm.plots.separate_lines import plot_separate_lines
    from hierlmm.plots.shrinkage import plot_shrinkage
    from hierlmm.plots.subject_prediction import plot_subject_prediction
    from hierlmm.plots.trajectories import plot_trajectories


def __getattr__(name: str) -> _typing.Any:
    if name not in __all__:
        raise AttributeError(f"module 'hierlmm.plots' has no attribute {name!r}")
    module = _MODULES.get(name, name.removeprefix("plot_"))
    value = getattr(_importlib.import_module(f"hierlmm.plots.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
