"""What the priors of a posterior say of its model as a whole, as verbs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hierlmm.errors import NotAvailableError
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.bayes.evidence import MarginalLikelihood
    from hierlmm.inference.savage_dickey import SavageDickey


@checked
class EvidenceVerbs(PosteriorNumbers):
    """The marginal likelihood, and Bayes factors of hypotheses on single effects."""

    def log_marginal_likelihood(self, *, seed: int = 0) -> MarginalLikelihood:
        """Log of the probability density that model and priors gave the data, with everything integrated out.

        Fixed and random effects are integrated out in closed form, the covariance parameters by adaptive quadrature
        (up to three) or importance sampling. The draws of the fit are not used.

        Parameters
        ----------
        seed : int
            Of the importance sampling.

        Returns
        -------
        MarginalLikelihood
            ``value``, ``error``, ``method`` and ``pareto_k``; ``float()`` of it is the value.

        Raises
        ------
        NotAvailableError
            If the priors are not known, or have no closed form.
        """
        from hierlmm.bayes.evidence import SEE, log_marginal_likelihood

        if self.priors is None:
            reason = "the priors of this fit are not known, and it is an average over them"
            raise NotAvailableError("log_marginal_likelihood", reason, "refit with model.fit()", SEE)
        return log_marginal_likelihood(self.design, self.priors, seed=seed)

    def savage_dickey(self, hypothesis: str | Sequence[str]) -> SavageDickey:
        """Bayes factor of an equality of fixed effects, such as ``"days = 0"``, against this model.

        It is the ratio of posterior to prior density at the value (Dickey 1971), both without smoothing: given the
        covariance parameters the coefficients are normal.

        Parameters
        ----------
        hypothesis : str or sequence of str
            As in `hypothesis`, with ``=``; several are taken together.

        Returns
        -------
        SavageDickey
            ``log_bf`` (positive if the data speak for the hypothesis), its ``error``, a verdict in words and a picture.

        Raises
        ------
        SpecificationError
            If it is no equality of coefficients.
        NotAvailableError
            If the priors are not known, or those of the fixed effects not normal; and of covariance parameters, whose
            densities are not in closed form (``hl.bayes_factor`` of the models with and without them).

        Warns
        -----
        FitWarning
            If the hypothesis lies so far out that few draws count.
        """
        from hierlmm.inference.savage_dickey import savage_dickey

        return savage_dickey(self, hypothesis)
