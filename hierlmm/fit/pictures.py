"""Pictures of the data, with or without a fit, and of what a fit leaves over."""

from __future__ import annotations

from hierlmm import plots
from hierlmm.drawing.figure import as_verb
from hierlmm.fits.base import Fit
from hierlmm.options import checked


@checked
class DataPictures(Fit):
    """The data with the population line, lines of each group alone, residuals and quantiles."""

    plot_data = as_verb(plots.plot_data, "by", "facet")
    plot_separate_lines = as_verb(plots.plot_separate_lines)
    plot_residuals = as_verb(plots.plot_residuals)
    plot_qq = as_verb(plots.plot_qq)
