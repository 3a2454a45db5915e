"""A posterior as numbers of a fit: the same questions as every other fit, answered from draws.

Point estimates are posterior means, uncertainties posterior standard deviations, intervals equal-tailed quantiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.bayes.convergence import Convergence, assess_convergence, diagnostics
from hierlmm.bayes.family_replications import replicator_of
from hierlmm.bayes.predictive import posterior_predictive_draws, prior_tree
from hierlmm.bayes.replications import LEVELS, Draw
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import (
    as_response,
    corr_pairs,
    dataset,
    dispersion_labels,
    first_effects,
    matrices,
    pair_labels,
    response_name,
)
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit, Level
from hierlmm.fits.capabilities import POSTERIOR, Lack
from hierlmm.fits.components import component_labels, group_sigma_draws
from hierlmm.frames import shorten
from hierlmm.likelihood.by_subject import covariance_root, subject_loglik
from hierlmm.likelihood.residual_rows import ResidualRows, residual_rows
from hierlmm.options import check_ci, checked, choose

SEE = "docs, page 'Posterior fits'"
Replication = Literal["subject", "new_subject", "mixed"]


@checked
@dataclass(frozen=True, eq=False, repr=False)
class PosteriorNumbers(Fit):
    """Posterior draws of a two-level model.

    Its attributes are described where users meet them: `hierlmm.fit.posterior.PosteriorFit`.
    """

    design: Design
    datatree: Any
    priors: ResolvedPriors | None
    estimator: str = "NUTS"
    warnings: tuple[str, ...] = ()
    lacks: ClassVar[Mapping[str, Lack]] = POSTERIOR
    has_draws: ClassVar[bool] = True

    # --- draws -------------------------------------------------------------------------------------------------------

    def draws(self, name: str) -> FloatArray:
        """Draws of one variable, (chain, draw, ...), read-only: copy them to change them.

        Parameters
        ----------
        name : str
            ``"beta"``, ``"b"``, ``"sd_b"``, ``"sigma"``, ``"threshold 2"``, ...; ``"corr_b"`` and ``"D"`` as matrices.

        Raises
        ------
        NotAvailableError
            If the posterior has no such variable.
        """
        posterior = self.datatree["posterior"]
        own = name if name in posterior else name.replace(" ", "_")
        if own in posterior and own != "corr_b":
            values = posterior[own].to_numpy().view()
            values.flags.writeable = False
            return values
        if name == "beta" and not self.design.coef:
            return np.empty((posterior.sizes["chain"], posterior.sizes["draw"], 0))
        if self.design.term and "sd_b" in posterior and name in ("corr_b", "D"):
            return matrices(self.design, posterior)[name == "D"]
        others = f"use one of {', '.join(map(str, posterior.data_vars))}"
        if name == "subject_coef" and "b" in posterior:
            reason = "too large to be stored; it is level 2's prediction plus the random effects"
            raise NotAvailableError(f"draws of {name!r}", reason, others, SEE)
        if name in ("b", "subject_coef"):
            self.need_effects(f"draws of {name!r}", draws=True, instead=f"{others}, or ")
        raise NotAvailableError(f"draws of {name!r}", "the posterior has no such variable", f"{others}, or refit", SEE)

    def need_effects(self, asked: str, *, draws: bool = False, instead: str = "") -> None:
        """Refuse what needs random effects where the fit did not keep them.

        Parameters
        ----------
        asked : str
            What needs them.
        draws : bool
            Whether it needs their draws; else their means suffice.
        instead : str
            What else could be done.
        """
        if first_effects(self.design) in self.datatree["posterior"] or (self._only_summary and not draws):
            return
        reason, remedy = "the fit keeps no draws of the random effects", "refit with random_effects='draws'"
        if self._only_summary:
            reason = "the fit keeps means and SDs of the random effects (fit.b, fit.b_sd), not their draws"
        elif draws:
            remedy += " ('summary' suffices for b, b_sd, fitted values and plots)"
        else:
            reason += ", nor their means"
            remedy = "refit with random_effects='summary' (enough for b, b_sd, fitted values and plots) or "
            remedy += "random_effects='draws'"
        raise NotAvailableError(asked, reason, instead + remedy, SEE)

    @property
    def sample_stats(self) -> Any:
        """Sampler statistics, Dataset (chain, draw)."""
        if "sample_stats" not in self.datatree.children:
            raise NotAvailableError(
                "sample_stats", "this fit was made without sampler statistics", "refit with model.fit()", SEE
            )
        return self.datatree["sample_stats"].to_dataset()

    def to_datatree(self) -> Any:
        """Return the DataTree itself."""
        return self.datatree

    @property
    def draw_shape(self) -> tuple[int, int]:
        """Number of chains, and of draws of each."""
        sizes = self.datatree["posterior"].sizes
        return int(sizes["chain"]), int(sizes["draw"])

    # --- point estimates ---------------------------------------------------------------------------------------------

    @property
    def beta(self) -> pd.Series:
        """Posterior means of the fixed effects, Series by ``coef``."""
        return pd.Series(_mean(self.draws("beta")), index=self._coef, name="beta")

    @property
    def beta_cov(self) -> pd.DataFrame:
        """Posterior covariance of the fixed effects, ``coef`` × ``coef``."""
        flat = flattened(self.draws("beta"))
        cov = np.cov(flat, rowvar=False).reshape(flat.shape[1], flat.shape[1])
        return pd.DataFrame(cov, index=self._coef, columns=self._coef)

    @property
    def sigma(self) -> float:
        """Posterior mean of the residual standard deviation."""
        return float(self.draws("sigma").mean())

    @property
    def D(self) -> pd.DataFrame:
        """Posterior mean of the covariance of the random effects, ``term`` × ``term``."""
        return pd.DataFrame(_mean(self.draws("D")), index=self._names(), columns=self._names())

    @property
    def sd_b(self) -> pd.Series:
        """Posterior means of the standard deviations of the random effects, Series by ``term``."""
        return pd.Series(_mean(self.draws("sd_b")), index=self._names(), name="sd_b")

    @property
    def corr_b(self) -> pd.DataFrame:
        """Posterior means of the correlations of the random effects, ``term`` × ``term``."""
        return pd.DataFrame(_mean(self.draws("corr_b")), index=self._names(), columns=self._names())

    @property
    def b(self) -> pd.DataFrame:
        """Posterior means of the random effects, ``subject`` × ``term``."""
        self.need_effects("b")
        values = self._summarised("mean") if self._only_summary else _mean(self.draws("b"))
        return pd.DataFrame(values, index=self.design.subjects, columns=self._names(own=True))

    @property
    def b_sd(self) -> pd.DataFrame:
        """Posterior SDs of the random effects, ``subject`` × ``term``."""
        self.need_effects("b_sd")
        values = self._summarised("sd") if self._only_summary else self.draws("b").std(axis=(0, 1), ddof=1)
        return pd.DataFrame(values, index=self.design.subjects, columns=self._names(own=True))

    @property
    def subject_coef(self) -> pd.DataFrame:
        """Each subject's own level-1 regression at the posterior means, ``subject`` × level-1 coefficient."""
        self.need_effects("subject_coef")
        return super().subject_coef

    @property
    def icc(self) -> float:
        """Posterior mean of D₀₀ / (D₀₀ + σ²), the ICC at the origin of the level-1 covariates (draws: ``icc``)."""
        return float(self.draws("icc").mean()) if INTERCEPT in self.design.term else super().icc

    @property
    def loglik(self) -> float:
        """Marginal log-likelihood (random effects integrated out) at the posterior means of beta, D and sigma.

        Comparable with the log-likelihood of an ML fit, which is its maximum.
        """
        beta, sigma = self.beta.to_numpy()[None], np.array([self.sigma])
        residuals = None if self.residual_estimate is None else [self.residual_estimate]
        return float(subject_loglik(self.design, beta, covariance_root(self._D_values)[None], sigma, residuals).sum())

    @property
    def _D_values(self) -> FloatArray:
        q = len(self.design.term)
        return _mean(self.draws("D")) if q else np.empty((0, 0))

    @cached_property
    def _residual_rows(self) -> ResidualRows:
        return residual_rows(self.design)

    @property
    def residual_estimate(self) -> ResidualEstimate | None:
        """The residual structure at the posterior mean of its unconstrained parameters; None without one."""
        if not self.design.has_residual_structure:
            return None
        return self.residual_at(_mean(self.residual_draws()))

    def residual_draws(self) -> FloatArray:
        """Draws of the unconstrained residual parameters η, (chain, draw, parameter); (chain, draw, 0) without any."""
        if not self.design.has_residual_structure:
            return np.empty((*self.draw_shape, 0))
        return self.datatree["residual"]["unconstrained"].to_numpy()

    def residual_at(self, eta: FloatArray) -> ResidualEstimate:
        """The residual structure at given unconstrained parameters, (k,).

        Parameters
        ----------
        eta : (k,)
            Unconstrained parameters of the residual structure.
        """
        rows = self._residual_rows
        return ResidualEstimate(rows.rows, rows.correlation, rows.variance, eta)

    @property
    def converged(self) -> bool:
        """Whether no convergence check failed; other notes (a prior that conflicts with the data) do not count."""
        return not self.warnings or self.convergence().ok

    def convergence(self) -> Convergence:
        """Worst R-hat, effective sample sizes, E-BFMI, divergences, and the messages they give rise to."""
        return assess_convergence(self.datatree)

    # --- tables ------------------------------------------------------------------------------------------------------

    def summary(self, ci: float = 0.95) -> pd.DataFrame:
        """Fixed effects: posterior mean, SD, equal-tailed interval and diagnostics.

        Parameters
        ----------
        ci : float
            Probability of the interval.

        Returns
        -------
        DataFrame indexed by ``coef``
            ``estimate``, ``se``, ``lower``, ``upper``, ``ess_bulk``, ``ess_tail``, ``r_hat``, ``mcse``.
        """
        return _table(self.draws("beta"), list(self.design.coef), ci, "coef")

    def variance_components(self, ci: float = 0.95, method: str = "quantile") -> pd.DataFrame:
        """SDs and correlations of the random effects, residual parameters and σ (dispersion), columns as in `summary`.

        Rows ``sd(Intercept)``, ..., ``corr(Intercept, time)``, ..., those of the residual structure, ``sigma``.

        Parameters
        ----------
        ci : float
            Probability of the intervals.
        method : {"quantile"}
            Equal-tailed quantiles of the draws; Wald and profile intervals are those of a likelihood.

        Raises
        ------
        SpecificationError
            For an interval that draws do not have.
        """
        if method != "quantile":
            reason = "its intervals are quantiles of the draws; Wald and profile intervals belong to a likelihood"
            other = ", or ask model.fit_reml().variance_components(method='profile')" * self.design.is_gaussian
            raise SpecificationError(f"method={method!r} of a posterior", reason, f"leave method out{other}", SEE)
        term, posterior = self.design.term, self.datatree["posterior"]
        structure = [name for name in ("residual_correlation", "residual_variance") if name in posterior]
        extra, level1 = [self.draws(name) for name in structure], [*dispersion_labels(self.design)]
        names = [str(v) for name in structure for v in posterior[name][f"{name}_parameter"].to_numpy()]
        ends = [self.draws(name)[..., None] for name in level1]
        own = group_sigma_draws(self.design, posterior)
        level1, ends = [*own, *level1], [*(draws[..., None] for draws in own.values()), *ends]
        if not term:
            return _table(np.concatenate([*extra, *ends], axis=-1), [*names, *level1], ci, "component")
        if self.design.covariance == "compound_symmetry":
            k = np.array([part[0] for part in self.design.terms.by_subject.parts])
            common = [self.draws("sd_b")[..., k], self.draws("corr_b")[..., k, k + 1], *extra, *ends]
            labels = [*component_labels(self.design)[:-1], *names, *level1]
            return _table(np.concatenate(common, axis=-1), labels, ci, "component")
        pairs = corr_pairs(self.design)
        corrs = [f"corr({pair})" for pair in pair_labels(term, pairs)]
        labels = [*(f"sd({t})" for t in term), *corrs, *names, *level1]
        columns = [self.draws("sd_b"), self.draws("corr_b")[(..., *pairs)], *extra, *ends]
        return _table(np.concatenate(columns, axis=-1), labels, ci, "component")

    def fitted(self, level: Level = "subject") -> pd.Series:
        """Fitted values of the rows used, with the subjects' effects or at b = 0 (``"population"``)."""
        if level == "subject":
            self.need_effects("fitted(level='subject')")
        return super().fitted(level)

    def posterior_predictive(
        self, draws: int | None = None, seed: int | None = None, *, level: Replication | None = None
    ) -> Any:
        """Replicated responses as a new tree with group ``posterior_predictive``: the response (obs).

        Parameters
        ----------
        draws : int, optional
            Number of draws in each chain, evenly spaced; all by default.
        seed : int, optional
        level : {"subject", "new_subject", "mixed"}, optional
            New rows of the same subjects (the default), which needs draws of b; of new subjects with the same
            covariates, b drawn from N(0, D); or every row given the subject's other rows (leave-one-out, b and
            correlated residuals included). See `hierlmm.bayes.replications`.
        """
        import xarray as xr

        chains, available = self.draw_shape
        if draws is not None and not 1 <= draws <= available:
            raise SpecificationError(
                f"draws={draws!r}", f"each chain has {available} draws", f"use a number from 1 to {available}", SEE
            )
        choose("level", level or "subject", LEVELS, SEE)
        keep = np.linspace(0, available - 1, available if draws is None else draws).astype(int)
        rng = np.random.default_rng(seed)
        if level in (None, "subject") and self.design.is_gaussian:
            if self.design.term:
                self.need_effects("posterior_predictive", draws=True)
            beta, sigma = (self.draws(name)[:, keep] for name in ("beta", "sigma"))
            b = self.draws("b")[:, keep] if self.design.term else np.empty((*sigma.shape, self.design.n_subjects, 0))
            eta = self.residual_draws()[:, keep]
            values = posterior_predictive_draws(self.design, beta, b, sigma, rng, eta)
        else:
            flat = (np.arange(chains)[:, None] * available + keep).ravel()
            replicator, level = replicator_of(self.design), level or "subject"
            states = self.parameter_draws(flat, b=level == "subject")
            rows = [replicator.replicate(draw, level, rng)[0] for draw in states]
            values = np.array(rows).reshape(chains, len(keep), -1)
        named = {response_name(self.design): as_response(self.design, values)}
        tree = self.datatree.copy()
        tree["posterior_predictive"] = xr.DataTree(dataset(self.design, named).assign_coords(draw=keep))
        return tree

    def evenly_kept(self, draws: int) -> IntArray:
        """Positions of at most that many draws, evenly spaced over all chains.

        Parameters
        ----------
        draws : int
        """
        total = int(np.prod(self.draw_shape))
        return np.linspace(0, total - 1, min(draws, total)).astype(np.intp)

    def parameter_draws(self, flat: IntArray, *, b: bool = False) -> Iterator[Draw]:
        """Draws of β, D, σ and η, one after the other, with those of b if they are asked for.

        Parameters
        ----------
        flat : (n,)
            Positions among the draws of all chains.
        b : bool
        """
        q = len(self.design.term)
        if b and q:
            self.need_effects("replications of the same subjects", draws=True)
        beta, D, sigma, eta = flat_parameters(self, flat)
        effects = flattened(self.draws("b"))[flat] if b and q else [None] * len(flat)
        for own in zip(beta, covariance_root(D), sigma, eta, effects, strict=True):
            yield Draw(*own)

    def prior_predictive(self, draws: int = 500, seed: int | None = None) -> Any:
        """Draws from the prior, and the data they imply, as a new tree with groups ``prior`` and ``prior_predictive``.

        Parameters
        ----------
        draws : int
            Number of draws (one chain).
        seed : int, optional
        """
        if self.priors is None:
            raise NotAvailableError("prior_predictive", "the priors of this fit are not known", "use model.fit()", SEE)
        tree = self.datatree.copy()
        for name, values in prior_tree(self.design, self.priors, draws, seed).items():
            tree[name] = values
        return tree

    @property
    def _coef(self) -> pd.Index:
        return pd.Index(self.design.coef, name="coef", dtype=object)

    def _names(self, *, own: bool = False) -> pd.Index:
        return pd.Index(self.design.own_term if own else self.design.term, name="term", dtype=object)

    @property
    def _only_summary(self) -> bool:
        tree = self.datatree  # means and SDs in place of draws
        return first_effects(self.design) not in tree["posterior"] and "random_effects" in tree.children

    def _summarised(self, what: str) -> FloatArray:
        return self.datatree["random_effects"][what].to_numpy().copy()


def flat_parameters(fit: PosteriorNumbers, at: Any = slice(None)) -> tuple[FloatArray, ...]:
    """Draws of β (S, p), D (S, q, q), σ (S,) and η (S, k) of all chains, or those at some positions among them.

    Of another family σ is 1, and η its dispersion parameters ψ.
    """
    sigma = fit.draws("sigma") if fit.design.is_gaussian else np.ones(fit.draw_shape)
    D = fit.draws("D") if fit.design.term else np.empty((*sigma.shape, 0, 0))
    return tuple(flattened(own)[at] for own in (fit.draws("beta"), D, sigma, fit.residual_draws()))


def flattened(draws: FloatArray) -> FloatArray:
    """Draws of all chains, one after the other."""
    return draws.reshape(draws.shape[0] * draws.shape[1], *draws.shape[2:])


def _mean(draws: FloatArray) -> FloatArray:
    return draws.mean(axis=(0, 1))


def _table(draws: FloatArray, labels: list[str], ci: float, name: str) -> pd.DataFrame:
    tails = [(1 - check_ci(ci)) / 2, (1 + ci) / 2]
    if not labels:
        columns = ["estimate", "se", "lower", "upper", "ess_bulk", "ess_tail", "r_hat", "mcse"]
        return pd.DataFrame(columns=columns, index=pd.Index([], name=name, dtype=object), dtype=float)
    if len(set(labels)) < len(labels):
        raise SpecificationError(f"labels {shorten(labels)}", "they are not unique", "rename the columns", SEE)
    flat = flattened(draws)
    lower, upper = np.quantile(flat, tails, axis=0)
    index = pd.Index(labels, name=name, dtype=object)
    estimates = pd.DataFrame(
        {"estimate": flat.mean(axis=0), "se": flat.std(axis=0, ddof=1), "lower": lower, "upper": upper}, index=index
    )
    return estimates.join(diagnostics(draws, labels).set_axis(index, axis=0))
