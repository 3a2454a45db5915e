"""Can the fit be believed? Doors to `hierlmm.checks`, which is imported when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from hierlmm.fits.base import Fit
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.checks.check import Checkup
    from hierlmm.checks.influence import Influence


@checked
class CheckVerbs(Fit):
    """All checks on one page, and what single subjects do to a fit."""

    def check(
        self, data: Any = None, *, simulations: int = 499, seed: int | None = 0, time: str | None = None
    ) -> Checkup:
        """Check the fit: residuals, random effects, subjects, rows, columns, and the estimate itself, on one page.

        Every check ends in a sentence: what was seen, why it may matter, what to do, what to read. What is a matter of
        chance is compared with data simulated under the fit, allowing for all that was looked at, so that a page of a
        model that is true calls for action in at most about one of twenty data sets.

        Parameters
        ----------
        data : table, optional
            Further columns about the subjects, for example the table that the model was fitted to: those that are
            constant within subjects and not in the model are looked at beside the random effects.
        simulations : int
            Data sets simulated under the fit: at least 20 for each check of chance on the page, less one, so that one
            of them alone can call for action after Holm's correction; of fewer nothing could be found, and they are
            refused.
        seed : int, optional
        time : str, optional
            Column in whose order a subject's rows were measured; by default that of the residual structure, or the one
            number that varies within subjects. Without one rows are taken as they stand, and the page says so.

        Returns
        -------
        Checkup
            ``findings``, the most severe first; ``table``; ``plot()``; ``ok``.

        Examples
        --------
        >>> import hierlmm as hl
        >>> sleep = hl.load_dataset("sleepstudy")
        >>> fit = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", sleep).fit_reml()
        >>> page = fit.check()
        >>> page["residual_normality"].severity, page["outlying_rows"].severity
        ('act', 'act')
        """
        from hierlmm.checks.check import check

        return check(self, data, simulations=simulations, seed=seed, time=time)

    def influence(self, theta: Literal["updated", "fixed"] = "updated") -> Influence:
        """What the fit would be without each subject in turn.

        Of REML and ML with a normal response from cross-products, without fitting again; of another family by Newton
        steps, and local searches where these are long; of a posterior by weighting its draws.

        Parameters
        ----------
        theta : {"updated", "fixed"}
            Whether the covariance parameters are estimated anew without the subject: by one Newton step for every
            subject, and by further ones where it moves them by more than 0.1 standard errors. Or, of REML and ML with a
            normal response, held at those of the fit: then coefficients are exactly those of a fit without the subject
            at these.

        Returns
        -------
        Influence
            ``table`` (Cook's distance, the largest DFBETAS, the move of the covariance parameters), ``beta``,
            ``dfbetas`` and ``components`` by subject, and ``plot()``.

        Raises
        ------
        NotAvailableError
            If the fit has no likelihood (GEE) or no fixed effects, or has no closed form at a held ``theta``.

        Warns
        -----
        FitWarning
            If the draws of a posterior cannot say what it would be without some subjects (Pareto k).

        Examples
        --------
        >>> import hierlmm as hl
        >>> sleep = hl.load_dataset("sleepstudy")
        >>> fit = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", sleep).fit_reml()
        >>> fit.influence().table["cook"].nlargest(3).round(2).to_dict()
        {309: 0.15, 335: 0.13, 337: 0.13}
        """
        from hierlmm.checks.influence import influence

        fit: Any = self
        return influence(fit, theta)
