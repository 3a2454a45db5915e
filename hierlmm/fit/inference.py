"""What a fit can be asked beyond its estimates: shares of variance, profiles and bootstraps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hierlmm.fits.base import Fit
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.inference.bootstrap import Bootstrap
    from hierlmm.inference.profile import Profile
    from hierlmm.inference.shares import VarianceShares

type Interval = Literal["delta", "profile", "bootstrap"]


@checked
class ShareVerbs(Fit):
    """Shares of variance, of Gaussian responses."""

    def intraclass_correlation(
        self, *, ci: float = 0.95, method: Interval = "delta", n: int = 1000, seed: int | None = None
    ) -> VarianceShares:
        """Intra-class correlation: the share of the variance left by the fixed effects that lies between subjects.

        With random slopes or unequal residual variances it has no single value, and one line for each kind of row;
        ``fit.icc`` is the number at the origin of the level-1 covariates.
        Of a marginal model with `CompoundSymmetry` it is the common correlation, which may be negative.

        Parameters
        ----------
        ci : float
            Probability of the intervals.
        method : {"delta", "profile", "bootstrap"}
            Of a likelihood fit: large-sample intervals on the logit scale; all values that cost less than half the χ²₁
            quantile in log-likelihood; or percentiles of a parametric bootstrap. A posterior has its draws.
        n : int
            Data sets of the bootstrap.
        seed : int, optional
            Of the bootstrap.

        Returns
        -------
        VarianceShares
            ``.table``; ``.estimate``, where there is one; sentences in print.

        Raises
        ------
        NotAvailableError
            Of a marginal model without one common correlation, of GEE, and of another family than the Gaussian.

        Examples
        --------
        >>> import hierlmm as hl
        >>> fit = hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", hl.load_dataset("dyestuff")).fit_reml()
        >>> fit.intraclass_correlation(method="profile").table.round(2).to_numpy().tolist()
        [[0.42, 0.07, 0.82]]
        """
        from hierlmm.inference.shares import intraclass_correlation

        return intraclass_correlation(self, ci=ci, method=method, n=n, seed=seed)

    def r_squared(
        self, *, ci: float = 0.95, method: Interval = "delta", n: int = 1000, seed: int | None = None
    ) -> VarianceShares:
        """Marginal and conditional R²: shares of the variance of the response.

        What the fixed effects account for (marginal), and what they do together with the random effects (conditional),
        after Nakagawa and Schielzeth; the variance of random slopes is averaged over the rows (Johnson 2014).

        Parameters
        ----------
        ci : float
            Probability of the intervals.
        method : {"delta", "bootstrap"}
            Of a likelihood fit: large-sample intervals on the logit scale, or percentiles of a parametric bootstrap. A
            posterior has its draws.
        n : int
            Data sets of the bootstrap.
        seed : int, optional
            Of the bootstrap.

        Returns
        -------
        VarianceShares
            ``.table`` by ``marginal`` and ``conditional``; sentences in print.
        """
        from hierlmm.inference.shares import r_squared

        return r_squared(self, ci=ci, method=method, n=n, seed=seed)


@checked
class BootstrapVerbs:
    """Bootstraps, of any likelihood fit."""

    def bootstrap(
        self,
        n: int = 1000,
        kind: Literal["parametric", "subject"] = "parametric",
        statistic: Callable[[Any], Any] | None = None,
        *,
        seed: int | None = None,
        cores: int | None = None,
        progressbar: bool = True,
    ) -> Bootstrap:
        """Fit the model again to data drawn from it, or to subjects drawn from the data.

        Parameters
        ----------
        n : int
            Number of data sets.
        kind : {"parametric", "subject"}
            Responses simulated from the fitted model, for new subjects with the same covariates; or subjects drawn with
            replacement, with all their rows.
        statistic : callable, optional
            A function of a fit that returns a number, an array, or numbers with names; followed beside the parameters.
            It gets fits of this class: ``lambda fit: fit.beta["time"] / fit.sigma``. Names of parameters are taken.
        seed : int, optional
            The same data sets every time, whatever the number of threads.
        cores : int, optional
            Threads; by default as many as there are processors.
        progressbar : bool
            Show progress, in a terminal or notebook.

        Returns
        -------
        Bootstrap
            ``.draws``, ``.table(ci, method)``, ``.plot()``.

        Raises
        ------
        DataError
            If no data set could be fitted. Single ones that cannot are counted and reported.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", hl.load_dataset("sleepstudy"))
        >>> found = model.fit_reml().bootstrap(20, seed=1, progressbar=False)
        >>> found.draws.shape
        (20, 4)
        """
        from hierlmm.inference.bootstrap import bootstrap_fit

        return bootstrap_fit(self, n, kind, statistic, seed=seed, cores=cores, progressbar=progressbar)


@checked
class ProfileVerbs(BootstrapVerbs):
    """Profile likelihood and bootstraps, of Gaussian responses."""

    def profile(self, parameters: str | Sequence[str] | None = None, *, progressbar: bool = True) -> Profile:
        """Profile the likelihood: how well every value of a parameter fits, all others fitted again.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Names of coefficients and of components (``"sd(Intercept)"``, ``"sigma"``); all of them by default.
        progressbar : bool
            Show progress, in a terminal or notebook.

        Returns
        -------
        Profile
            ``.table(ci)``, ``.curves``, ``.plot()``, ``.plot(kind="density")``.

        Notes
        -----
        Fixed effects are profiled by ML; a fit by REML is made again for them, as lme4 does. All other parameters are
        profiled by the fit's own criterion.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", hl.load_dataset("sleepstudy"))
        >>> model.fit_ml().profile("days").table().round(2).to_numpy().tolist()
        [[10.47, 8.89, 12.05]]
        """
        from hierlmm.inference.profile import profile_fit

        return profile_fit(self, parameters, progressbar=progressbar)  # type: ignore[arg-type]
