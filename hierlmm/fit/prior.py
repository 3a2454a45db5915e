"""What a model says of data before any fit, as verbs."""

from __future__ import annotations

from typing import Any

from hierlmm import plots
from hierlmm.bound import BoundModel
from hierlmm.design.questions import refuse_without_likelihood
from hierlmm.drawing.figure import as_verb
from hierlmm.options import checked


@checked
class PriorVerbs(BoundModel):
    """What the priors of a model say of data, before any fit."""

    def prior_predictive(self, draws: int = 500, seed: int | None = None) -> Any:
        """Draw parameters, random effects and responses from the priors, without a fit.

        Parameters
        ----------
        draws : int
            Number of draws (one chain).
        seed : int, optional

        Returns
        -------
        xarray.DataTree
            Groups ``prior``, ``prior_predictive``, ``observed_data`` and ``constant_data``, named as in a fit's tree.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", hl.load_dataset("sleepstudy"))
        >>> dict(model.prior_predictive(draws=100, seed=1)["prior_predictive"].sizes)
        {'chain': 1, 'draw': 100, 'obs': 180}
        """
        import xarray as xr

        from hierlmm.bayes.predictive import prior_tree
        from hierlmm.bayes.tree import constant_data, observed_data

        design = self.design
        refuse_without_likelihood(design, "a prior predictive distribution")
        data = {"observed_data": observed_data(design), "constant_data": constant_data(design)}
        return xr.DataTree.from_dict(prior_tree(design, self.priors, draws, seed) | data)

    plot_prior_predictive = as_verb(plots.plot_prior_predictive)
