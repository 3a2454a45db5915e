"""The posterior of a model with several grouping factors: what is by subject elsewhere is by factor here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.predictive import factor_lines
from hierlmm.bayes.tree import effects_names, factor_dims
from hierlmm.design.factors import factors_at, own_part, unknown_factor
from hierlmm.design.formula import INTERCEPT
from hierlmm.design.rows import RandomTerm
from hierlmm.errors import NotAvailableError
from hierlmm.fits.by_factor import ByFactor
from hierlmm.fits.capabilities import Lack
from hierlmm.fits.multilevel import one_factor
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.fits.several import ANSWERED_BY_DRAWS, OF_MODELS, SEE, SEVERAL_POSTERIOR, unanswered
from hierlmm.fits.several_numbers import FactorNumbers, by_group, square, terms_of
from hierlmm.likelihood.several_factors import marginal_log_likelihood
from hierlmm.options import checked


@checked
class MultilevelPosteriorNumbers(FactorNumbers, PosteriorNumbers):  # type: ignore[misc]
    """The numbers of a posterior with several grouping factors."""

    lacks: ClassVar[Mapping[str, Lack]] = SEVERAL_POSTERIOR
    _answered_by: ClassVar[frozenset[str]] = ANSWERED_BY_DRAWS
    """Functions of the package that take such a fit; all others refuse it."""
    _unanswered = unanswered(
        "a posterior with several grouping factors",
        "use what the fit says by factor: print(fit)",
        OF_MODELS,
        "use model.fit_reml() or model.fit_ml()",
    )

    @property
    def _named_in_refusals(self) -> dict[str, str]:
        return super()._named_in_refusals | {"effects": repr(effects_names(self.design)[0])}

    @property
    def _D_values(self) -> FloatArray:
        return self._means("D")

    def _means(self, name: str) -> FloatArray:
        return np.asarray(self.draws(name).mean(axis=(0, 1)))

    @property
    def sd_b(self) -> ByFactor[pd.Series]:  # type: ignore[override]
        """Posterior means of the standard deviations by factor, ``fit.sd_b["batch"]``: Series by ``term``."""
        values = self._means("sd_b")
        return self._of_factors(
            "sd_b", lambda k, term: pd.Series(values[own_part(self.design, k)[0]], index=terms_of(term), name="sd_b")
        )

    @property
    def corr_b(self) -> ByFactor[pd.DataFrame]:  # type: ignore[override]
        """Posterior means of the correlations of the random effects by factor: ``term`` × ``term``."""
        values = self._means("corr_b")
        return self._of_factors("corr_b", lambda k, term: square(term, values[own_part(self.design, k)]))

    def _effects(self, k: int) -> FloatArray:
        name = effects_names(self.design)[k]
        return self._summarised(f"mean{name[1:]}") if self._only_summary else self._means(name)

    @cached_property
    def b(self) -> ByFactor[pd.DataFrame]:  # type: ignore[override]
        """Posterior means of the random effects by factor, ``fit.b["batch"]``: ``group`` × ``term``."""
        self.need_effects("b")
        return self._of_factors("b", lambda k, term: by_group(term, self._effects(k)))

    @cached_property
    def b_sd(self) -> ByFactor[pd.DataFrame]:  # type: ignore[override]
        """Posterior SDs of the random effects by factor: ``group`` × ``term``."""
        self.need_effects("b_sd")

        def own(k: int, term: RandomTerm) -> pd.DataFrame:
            name = effects_names(self.design)[k]
            known = self._only_summary
            return by_group(
                term, self._summarised(f"sd{name[1:]}") if known else self.draws(name).std(axis=(0, 1), ddof=1)
            )

        return self._of_factors("b_sd", own)

    def draws(self, name: str) -> FloatArray:
        """Draws of one variable, (chain, draw, ...), read-only: copy them to change them.

        Parameters
        ----------
        name : str
            ``"beta"``, ``"sd_b"``, ``"sigma"``; ``"corr_b"`` and ``"D"`` as matrices of the random effects of all
            factors; ``"b_batch"`` for the random effects of factor ``batch``, (chain, draw, group, term).

        Raises
        ------
        NotAvailableError
            If the posterior has no such variable.
        """
        if name in effects_names(self.design):
            self.need_effects(f"draws of {name!r}", draws=True)
        return super().draws(name)

    @property
    def icc(self) -> pd.Series:  # type: ignore[override]
        """Posterior mean of the share of each factor's intercept variance in the total, at the covariates' origin.

        Rows that share groups of several factors (a cask, and so its batch) correlate by the sum of their shares.
        """
        term, names = self.design.term, [own.columns.group for own in self.design.random]
        wanted = [f"{INTERCEPT} | {name}" for name in names]
        if absent := [name for name, own in zip(names, wanted, strict=True) if own not in term]:
            reason = f"the random effects of {absent[0]!r} have no intercept, whose variance could be compared"
            raise NotAvailableError("icc", reason, "read fit.marginal_covariance(rows), or add a random intercept", SEE)
        variance = self.draws("sd_b")[..., [term.index(own) for own in wanted]] ** 2
        total = variance.sum(axis=-1) + self.draws("sigma") ** 2
        shares = (variance / total[..., None]).mean(axis=(0, 1))
        return pd.Series(shares, index=pd.Index(names, name="factor"), name="icc")

    @property
    def loglik(self) -> float:
        """Marginal log-likelihood (random effects integrated out) at the posterior means of beta, D and sigma.

        Comparable with the log-likelihood of an ML fit, which is its maximum.
        """
        return marginal_log_likelihood(self.design, self.beta.to_numpy(), self._D_values, self.sigma)

    def fitted(self, level: str = "all") -> pd.Series:
        """Fitted values of the rows used, with the random effects of some factors.

        Parameters
        ----------
        level : str
            ``"all"``: of all factors; ``"population"``: of none; or a factor: its own, and those of the factors that
            it is nested in.
        """
        if factors_at(self.design, level):
            self.need_effects(f"fitted(level={level!r})")
        return super().fitted(level)

    def line_draws(self, level: str) -> FloatArray:
        """Draws of the expected response of every fitted row, (chain, draw, N).

        Parameters
        ----------
        level : str
            As for `fitted`.
        """
        factors = factors_at(self.design, level)
        names = [effects_names(self.design)[k] for k in factors]
        return factor_lines(self.design, self.draws("beta"), {name: self.draws(name) for name in names}, factors)


class OfFactorDraws(PosteriorNumbers):
    """The random effects of one factor as if its groups were subjects: for pictures of b, and nothing else."""


def of_factor_draws(fit: MultilevelPosteriorNumbers, factor: str | None) -> OfFactorDraws:
    """What a picture of the random effects of one factor is drawn from.

    Raises
    ------
    DataError
        If there is no such factor.
    """
    import xarray as xr

    names = [own.columns.group for own in fit.design.random]
    if factor is None or factor not in names:
        raise unknown_factor(factor, names)
    k = names.index(factor)
    one, groups = one_factor(fit.design, k), dict[str, Any]()
    posterior = fit.datatree["posterior"].to_dataset()
    if (variable := effects_names(fit.design)[k]) in posterior:
        dims = dict(zip(factor_dims(fit.design)[k], ("subject", "term"), strict=True))
        groups["posterior"] = posterior[[variable]].rename({variable: "b", **dims})
    else:
        groups["posterior"] = posterior[["sigma"]]
    found = OfFactorDraws(one, xr.DataTree.from_dict(groups), None, fit.estimator)
    vars(found).update(D=fit.D[factor], b=fit.b[factor], b_sd=fit.b_sd[factor])
    return found
