"""What a likelihood fit can be asked beyond its estimates: profiles, bootstraps, shares of variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.inference.profile import Profile


@checked
class ProfileVerbs:
    """Profile likelihood, of Gaussian responses."""

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
