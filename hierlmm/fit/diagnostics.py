"""Diagnostics of a posterior: pictures, each with its verdict in words, and the sensitivity to prior and likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from hierlmm.diagnostics.loo import Unit
from hierlmm.drawing.figure import as_verb
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import checked
from hierlmm.plots import chains, diagnostics
from hierlmm.plots.chosen import Choice

if TYPE_CHECKING:
    from hierlmm.diagnostics.loo import LooResult
    from hierlmm.diagnostics.psense import PowerScaling


@checked
class DiagnosticVerbs(PosteriorNumbers):
    """Pictures of ArviZ with the right variables, sizes and labels, and whether anything is wrong in the title."""

    plot_trace = as_verb(chains.plot_trace, "parameters")
    plot_rank = as_verb(chains.plot_rank, "parameters")
    plot_autocorr = as_verb(chains.plot_autocorr, "parameters")
    plot_ess = as_verb(chains.plot_ess, "parameters")
    plot_mcse = as_verb(chains.plot_mcse, "parameters")
    plot_energy = as_verb(chains.plot_energy)
    plot_pair = as_verb(chains.plot_pair, "parameters")
    plot_prior_posterior = as_verb(diagnostics.plot_prior_posterior, "parameters")
    plot_psense = as_verb(diagnostics.plot_psense, "parameters")
    plot_khat = as_verb(diagnostics.plot_khat, "unit")
    plot_loo_pit = as_verb(diagnostics.plot_loo_pit, "unit")
    plot_diagnostics = as_verb(chains.plot_diagnostics, "parameters")

    @property
    def labeller(self) -> Any:
        """Labels for ArviZ, as the tables write them: ``az.plot_trace(fit.datatree, labeller=fit.labeller)``."""
        from hierlmm.bayes.labels import Labeller

        return Labeller()

    def for_arviz(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        choose: Choice = "worst",
        max_panels: int = 12,
        seed: int | None = 0,
    ) -> Any:
        """A smaller tree for any function of ArviZ: the parameters under the names that tables use.

        ``az.plot_rank_dist(fit.for_arviz(), labeller=fit.labeller)`` draws a panel for each parameter, where
        ``az.plot_rank_dist(fit.datatree)`` would need one for every random effect.

        Parameters
        ----------
        parameters, choose, max_panels, seed
            As for `plot_trace`.

        Returns
        -------
        DataTree
            ``posterior`` (and ``prior``, if the fit was extended by it) with one variable ``draws`` (chain, draw,
            parameter); ``log_likelihood`` by subject, random effects integrated out; all other groups of the fit's own
            tree as they are.
        """
        from hierlmm.plots.chosen import choose_draws, tree_for_arviz

        return tree_for_arviz(
            self, choose_draws(self, parameters, {"choose": choose, "max_panels": max_panels, "seed": seed})
        )

    def psense(self, unit: Unit = "subject") -> PowerScaling:
        """How much the posterior changes when the prior, or the likelihood, counts a little more or less.

        Both are raised to powers near 1 and the draws reweighted, without refitting (Kallioinen et al. 2024). A
        parameter that is sensitive to its prior and to the data may have a prior that contradicts the data; one that is
        sensitive to its prior alone is determined by it.

        Parameters
        ----------
        unit : {"subject", "observation"}
            Of the likelihood that is scaled. ``"subject"``: random effects integrated out, the likelihood of the
            parameters that have a prior. ``"observation"``: given the random effects, which makes standard deviations
            look more sensitive than they are. The prior is that of fixed effects, D, residual parameters and σ.

        Returns
        -------
        PowerScaling
            ``table`` (``prior``, ``likelihood``, ``diagnosis`` by parameter) and ``verdict``.

        Raises
        ------
        NotAvailableError
            If the priors of the fit are not known.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", hl.load_dataset("sleepstudy"))
        >>> fit = model.fit(seed=1, progressbar=False)
        >>> list(fit.psense().table.columns)
        ['prior', 'likelihood', 'shift', 'diagnosis']
        """
        from hierlmm.diagnostics.psense import psense

        return psense(self, unit)

    def log_likelihood(self, unit: Literal["subject", "observation"] = "observation") -> Any:
        """Pointwise log-likelihood as a new tree with group ``log_likelihood``.

        Parameters
        ----------
        unit : {"subject", "observation"}
            ``"observation"``: conditional, given b, ``y`` (obs). ``"subject"``: marginal, b integrated out (for other
            families than the Gaussian by quadrature), ``y`` (subject), which is what leaving out a whole subject needs.
        """
        from hierlmm.diagnostics.loo import log_likelihood_tree

        return log_likelihood_tree(self, unit)

    def loo(self, unit: Literal["subject", "observation"] = "subject") -> LooResult:
        """Leave-one-out cross-validation without refitting; see `hierlmm.diagnostics.loo.loo`.

        Parameters
        ----------
        unit : {"subject", "observation"}
            What is left out: a subject (how well is a new subject predicted?) or a measurement (how well is a further
            measurement of a known subject predicted?).

        Returns
        -------
        LooResult
            ``elpd``, ``se``, ``p``, ``pareto_k`` by unit, and a verdict in words.
        """
        from hierlmm.diagnostics.loo import loo

        return loo(self, unit)
