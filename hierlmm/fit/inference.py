"""What a likelihood fit can be asked beyond its estimates: profiles and bootstraps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.inference.bootstrap import Bootstrap
    from hierlmm.inference.profile import Profile


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
            It gets fits of this class: ``lambda fit: fit.beta["time"] / fit.sigma``.
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

    def profile(self, parameters: str | Sequence[str] | None = None) -> Profile:
        """Profile the likelihood: how well every value of a parameter fits, all others fitted again.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Names of coefficients and of components (``"sd(Intercept)"``, ``"sigma"``); all of them by default.

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

        return profile_fit(self, parameters)  # type: ignore[arg-type]
