"""Pictures of a fit: the functions of `hierlmm.plots` as methods, with their own signatures and docstrings."""

from __future__ import annotations

from hierlmm import plots
from hierlmm.drawing.figure import as_verb
from hierlmm.fits.base import Fit
from hierlmm.options import checked


@checked
class PlotVerbs(Fit):
    """Plots; each is the function of the same name in `hierlmm.plots`."""

    plot_conditional_vs_marginal = as_verb(plots.plot_conditional_vs_marginal, "variable", "by")
    plot_effects = as_verb(plots.plot_effects, "variable", "by", "at")
    plot_trajectories = as_verb(plots.plot_trajectories)
    plot_subject_prediction = as_verb(plots.plot_subject_prediction, "history", "times")
    plot_random_effects = as_verb(plots.plot_random_effects)
    plot_shrinkage = as_verb(plots.plot_shrinkage)
    plot_forest = as_verb(plots.plot_forest)
    plot_posterior = as_verb(plots.plot_posterior)
