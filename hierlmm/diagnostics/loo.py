"""Leave-one-out cross-validation without refitting: one subject at a time, or one measurement at a time.

Leaving out a *subject* asks how well a subject not yet seen is predicted, and needs its marginal log-likelihood, random
effects integrated out (`hierlmm.likelihood.by_subject`). Leaving out a *measurement* asks how well a further
measurement of a known subject is predicted, and needs the conditional log-likelihood given b_i.

Summing the conditional log-likelihood of a subject's rows answers neither: b_i was estimated from these very rows, the
posterior without them is far away, and the importance weights fail (Vehtari et al. 2017; Merkle, Furr & Rabe-Hesketh
2019).

With several grouping factors rows and groups share groups of others, so that what is left out has its density given all
other rows, with the random effects of all factors integrated out (`hierlmm.likelihood.left_out`). The weights are those
of any other likelihood.

References
----------
Merkle, E. C., Furr, D., Rabe-Hesketh, S. (2019). Bayesian comparison of latent variable models: conditional versus
marginal likelihoods. Psychometrika 84, 802-829.

Vehtari, A., Gelman, A., Gabry, J. (2017). Practical Bayesian model evaluation using leave-one-out cross-validation and
WAIC. Statistics and Computing 27, 1413-1432.

Vehtari, A., Simpson, D., Gelman, A., Yao, Y., Gabry, J. (2024). Pareto smoothed importance sampling. Journal of Machine
Learning Research 25 (72).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.bayes.family_draws import family_log_likelihood, family_subject_loglik, rows_log_likelihood
from hierlmm.bayes.predictive import conditional_log_likelihood, normal_log_density, residual_sd_ratios
from hierlmm.bayes.tree import dispersion_variables, factor_dims, response_name
from hierlmm.design.design import Design
from hierlmm.design.formula import MULTILEVEL
from hierlmm.errors import NotAvailableError, warn
from hierlmm.fits.posterior import PosteriorNumbers, flat_parameters, flattened
from hierlmm.frames import shorten
from hierlmm.likelihood.by_subject import covariance_root, subject_loglik
from hierlmm.likelihood.left_out import left_out_loglik, refuse_too_much
from hierlmm.options import checked, choose
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import sayer

Unit = Literal["subject", "observation"]

UNITS = ("subject", "observation")
SAY = sayer(__file__)
MANY = {"subject": 0.25, "observation": 0.05}
"""Share of the units beyond which the model itself is to be looked at."""
SEE = "docs, page 'The collapsed posterior', section 'Leaving one subject out'"
PIECE = 5_000_000
"""Values of the log-likelihood (40 MB) that are smoothed at a time."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class LooResult(Result):
    """Expected log predictive density of a unit left out, by Pareto-smoothed importance sampling.

    Attributes
    ----------
    unit : {"subject", "observation"}
        With several grouping factors ``"observation"`` or a factor.
    elpd, se : float
        Expected log predictive density, summed over units, and its standard error; larger is better.
    p : float
        Effective number of parameters.
    elpd_i, pareto_k : Series by unit
    good_k : float
        Largest Pareto k at which the estimate for a unit can be relied on, with this number of draws.
    n_samples : int
        Number of posterior draws.
    verdict : str
        Whether the numbers can be relied on, and what to do if not.
    elpd_data : arviz_stats.ELPDData
        ArviZ's own result, for ``az.compare`` and ``az.plot_khat``.
    """

    unit: str
    elpd: float
    se: float
    p: float
    elpd_i: pd.Series
    pareto_k: pd.Series
    good_k: float
    n_samples: int
    verdict: str
    elpd_data: Any

    @property
    def n(self) -> int:
        """Number of units left out in turn."""
        return len(self.elpd_i)

    @property
    def unreliable(self) -> pd.Series:
        """Pareto k of the units for which it is too large, largest first."""
        return self.pareto_k[~(self.pareto_k <= self.good_k)].sort_values(ascending=False)

    @property
    def table(self) -> pd.DataFrame:
        """``elpd`` and ``pareto_k`` of every unit."""
        return pd.DataFrame({"elpd": self.elpd_i, "pareto_k": self.pareto_k})

    def _of_group(self) -> str:
        article = "an" if self.unit[0].lower() in "aeiou" else "a"
        return SAY("loo.group", article=article, unit=self.unit)

    def _page(self) -> Page:
        meaning = SAY(f"loo.{self.unit}") if self.unit in UNITS else self._of_group()
        title = f"Leave-one-{self.unit}-out, {self.n} {_noun(self.unit)}s, {self.n_samples} draws ({meaning})"
        whole = pd.DataFrame({"estimate": [self.elpd, self.p], "se": [self.se, np.nan]}, index=["elpd", "p"])
        printed = [
            f"{'':6}{'estimate':>10}  {'se':>7}",
            f"{'elpd':6}{self.elpd:>10.2f}  {self.se:>7.2f}",
            f"{'p':6}{self.p:>10.2f}",
        ]
        table = Table(whole, printed, "Summed over units", index=True, number="z.2f")
        return Page(title, ["", table, "", Paragraph(self.verdict, 110)])


def loo(fit: PosteriorNumbers, unit: Any = "subject") -> LooResult:
    """Leave out one subject, or one measurement, at a time, without refitting.

    Parameters
    ----------
    fit : PosteriorNumbers
    unit : {"subject", "observation"}
        ``"subject"`` uses the marginal log-likelihood of each subject, ``"observation"`` the conditional one of each
        row given the random effects. With several grouping factors ``"observation"`` or a factor; either uses the
        density given all other rows, random effects integrated out.

    Returns
    -------
    LooResult

    Raises
    ------
    NotAvailableError
        If ``unit="observation"`` and the fit of a two-level model kept no draws of b, or it would take hours.

    Warns
    -----
    FitWarning
        If the estimate cannot be relied on for some units.
    """
    import arviz as az
    import xarray as xr

    values, labels = _log_likelihood(fit, unit)
    posterior = fit.datatree["posterior"].to_dataset()
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    names = ("beta", "sd_b", *dispersion_variables(fit.design))
    parameters = posterior[[name for name in names if name in posterior]]
    reff = _relative_efficiency(parameters)
    step, dim = max(1, PIECE // (chains * draws)), _dim(fit.design, unit)
    pieces = []
    for lo in range(0, len(labels), step):
        part = slice(lo, min(lo + step, len(labels)))
        group = _group(values(part), response_name(fit.design), dim, labels[part].to_numpy(), posterior)
        tree = xr.DataTree.from_dict({"posterior": parameters, "log_likelihood": group})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Pareto.*", category=UserWarning)  # said in `verdict`
            pieces.append(az.loo(tree, pointwise=True, reff=reff))
    found = pieces[0] if len(pieces) == 1 else _merged(pieces, dim)
    pareto_k = pd.Series(found.pareto_k.to_numpy(), index=labels, name="pareto_k")
    result = LooResult(
        unit=unit,
        **{name: float(getattr(found, name)) for name in ("elpd", "se", "p", "good_k")},
        elpd_i=pd.Series(found.elpd_i.to_numpy(), index=labels, name="elpd"),
        pareto_k=pareto_k,
        n_samples=chains * draws,
        verdict=_verdict(unit, pareto_k, float(found.good_k), fit.design),
        elpd_data=found,
    )
    if len(result.unreliable):
        warn(result.verdict)
    return result


def log_likelihood_tree(fit: PosteriorNumbers, unit: Any = "observation") -> Any:
    """Copy of the fit's tree with group ``log_likelihood``: the response (chain, draw, obs or subject)."""
    import xarray as xr

    of_rows = unit == "observation" and fit.design.has_several_factors
    values, labels = _rows_of_factors(fit) if of_rows else _log_likelihood(fit, unit)
    dim, names = (
        ("obs", np.arange(len(labels))) if unit == "observation" else (_dim(fit.design, unit), labels.to_numpy())
    )
    group = _group(values(slice(0, len(labels))), response_name(fit.design), dim, names, fit.datatree["posterior"])
    tree = fit.datatree.copy()
    tree["log_likelihood"] = xr.DataTree(group)
    return tree


def total_log_likelihood(fit: PosteriorNumbers, unit: Unit) -> FloatArray:
    """Log-likelihood of all units together at every draw, (chain, draw)."""
    total = sum(values.sum(axis=1) for _, values in log_likelihood_pieces(fit, unit))
    return np.asarray(total).reshape(fit.draw_shape)


def unit_log_likelihood(fit: PosteriorNumbers, unit: str, chosen: IntArray) -> FloatArray:
    """Log-likelihood of the units at these positions, in ascending order: (chain, draw, units)."""
    found = [values[:, np.isin(at, chosen)] for at, values in log_likelihood_pieces(fit, unit)]
    return np.concatenate(found, axis=1).reshape(*fit.draw_shape, -1)


def log_likelihood_pieces(fit: PosteriorNumbers, unit: str) -> Iterator[tuple[IntArray, FloatArray]]:
    """Positions of some units and their log-likelihood at every draw, (S, units), until all were there."""
    values, labels = _log_likelihood(fit, unit)
    step = max(1, PIECE // int(np.prod(fit.draw_shape)))
    for lo in range(0, len(labels), step):
        at = np.arange(lo, min(lo + step, len(labels)))
        yield at, values(slice(lo, int(at[-1]) + 1))


def _dim(design: Design, unit: str) -> str:
    """Dimension of the units: of groups of several factors that of their random effects."""
    names = [own.group for own in design.terms.random] if design.has_several_factors else []
    return factor_dims(design)[names.index(unit)][0] if unit in names else unit


def _group(values: FloatArray, name: str, dim: str, names: Any, posterior: Any) -> Any:
    """The log-likelihood (S, units) as a dataset, with the chains and draws of the posterior."""
    import xarray as xr

    chain, draw = posterior["chain"].to_numpy(), posterior["draw"].to_numpy()
    shaped = values.reshape(len(chain), len(draw), -1)
    return xr.Dataset({name: (("chain", "draw", dim), shaped)}, coords={"chain": chain, "draw": draw, dim: names})


def subject_log_likelihood(
    design: Design, beta: FloatArray, D: FloatArray, sigma: FloatArray, subjects: slice | None = None
) -> FloatArray:
    """Marginal log-likelihood of every subject at every draw.

    Parameters
    ----------
    design : Design
    beta : (S, p)
    D : (S, q, q)
        Positive semi-definite.
    sigma : (S,)
    subjects : slice, optional
        Positions of the subjects; all by default.

    Returns
    -------
    (S, J)
    """
    return subject_loglik(design, beta, covariance_root(D), sigma, subjects=subjects)


def _log_likelihood(fit: PosteriorNumbers, unit: str) -> tuple[Callable[[slice], FloatArray], pd.Index]:
    """Log-likelihood of some units at every draw, (S, units), as a function of their positions; and their labels."""
    design = fit.design
    if design.has_several_factors:
        return _of_factors(fit, unit)
    choose("unit", unit, UNITS)
    if not design.is_gaussian:
        return _of_family(fit, unit)
    beta, D, sigma, eta = flat_parameters(fit)
    if unit == "observation" and design.residual is not None:
        reason = "measurements of a subject are correlated given all parameters, so they have no separate likelihoods"
        raise NotAvailableError("the log-likelihood of every observation on its own", reason, "use unit='subject'", SEE)
    if unit == "subject":
        root = covariance_root(D)
        if not design.has_residual_structure:
            return lambda part: subject_loglik(design, beta, root, sigma, subjects=part), design.subjects
        values = subject_loglik(design, beta, root, sigma, [fit.residual_at(own) for own in eta])
        return lambda part: values[:, part], design.subjects
    if design.term and "b" not in fit.datatree["posterior"]:
        received = "the log-likelihood of every observation given the random effects"
        remedy = "use unit='subject', which integrates them out, or refit with random_effects='draws'"
        raise NotAvailableError(received, "the fit kept no draws of the random effects", remedy, SEE)
    shape = len(sigma), design.n_subjects, design.n_own
    b = fit.draws("b").reshape(shape) if design.term else np.empty(shape)
    ratio = residual_sd_ratios(design, eta) if design.residual_variance is not None else None

    def conditional(part: slice) -> FloatArray:
        names = ("y", "X", "own_Z", "offset", "subject_index")  # what the likelihood reads of a design
        rows: Any = SimpleNamespace(**{name: getattr(design, name)[part] for name in names})
        own = sigma if ratio is None else sigma[:, None] * ratio[:, part]
        return conditional_log_likelihood(rows, beta, b, own)

    return conditional, design.frame.index


def _of_factors(fit: Any, unit: str) -> tuple[Callable[[slice], FloatArray], pd.Index]:
    """The same with several grouping factors, random effects integrated out: rows, or groups, given all other rows."""
    design, groups = fit.design, {term.columns.group: term.group for term in fit.design.random}
    if unit not in ("observation", *groups):
        remedy = f"use {' or '.join(f'unit={name!r}' for name in ('observation', *groups))}"
        raise NotAvailableError(f"unit={unit!r}", "the model has no such factor", remedy, MULTILEVEL)
    if not design.is_gaussian:
        if unit == "observation":
            return _rows_of_factors(fit)
        reason = "without a normal response no formula integrates out the random effects that groups share"
        raise NotAvailableError(f"unit={unit!r} of {design.family}", reason, "use unit='observation'", MULTILEVEL)
    index, labels = np.arange(design.n_obs), design.frame.index
    if unit != "observation":
        index, labels = groups[unit].index, groups[unit].labels
    given = tuple(flattened(fit.draws(name)) for name in ("beta", "D", "sigma"))
    refuse_too_much(design, index, unit, len(given[-1]))
    return lambda part: left_out_loglik(design, index, np.arange(len(labels))[part], *given), labels


def _rows_of_factors(fit: Any) -> tuple[Callable[[slice], FloatArray], pd.Index]:
    """Rows given the random effects of several factors: densities whose product is a likelihood."""
    fit.need_effects("the log-likelihood of every observation given the random effects", draws=True)
    if fit.design.is_gaussian:
        rows = flattened(normal_log_density(fit.design.y, fit.line_draws("all"), fit.draws("sigma")))
    else:
        rows = rows_log_likelihood(fit.design, *fit.line_draws("all", int(np.prod(fit.draw_shape))))
    return lambda part: rows[:, part], fit.design.frame.index


def _of_family(fit: Any, unit: str) -> tuple[Callable[[slice], FloatArray], pd.Index]:
    """The same of another family: by quadrature over b, or given b."""
    design, size = fit.design, int(np.prod(fit.draw_shape))
    beta, psi = fit.draws("beta").reshape(size, -1), fit.psi_draws().reshape(size, -1)
    if unit == "subject":
        values = family_subject_loglik(design, beta, covariance_root(flattened(fit.draws("D"))), psi)
        return lambda part: values[:, part], design.subjects
    fit.need_effects("the log-likelihood of every observation given the random effects", draws=True)
    rows = family_log_likelihood(design, beta, flattened(fit.draws("b")), psi)
    return lambda part: rows[:, part], design.frame.index


def _relative_efficiency(parameters: Any) -> float:
    """Effective over actual number of draws, on average over the parameters (1 for one chain, as in ArviZ)."""
    import arviz as az

    chains, draws = parameters.sizes["chain"], parameters.sizes["draw"]
    if chains == 1 or draws < 4:
        return 1.0
    found = np.concatenate([np.ravel(v.to_numpy()) for v in az.ess(parameters, method="mean").data_vars.values()])
    return float(np.mean(found[np.isfinite(found)]) / (chains * draws))


def _merged(pieces: list[Any], dim: str) -> Any:
    """One result from results for parts of the units; log weights are not kept."""
    import xarray as xr

    elpd_i, pareto_k = (xr.concat([getattr(p, name) for p in pieces], dim=dim) for name in ("elpd_i", "pareto_k"))
    n, p = elpd_i.size, float(sum(part.p for part in pieces))
    sums = {"elpd": float(elpd_i.sum()), "se": float(np.sqrt(n * elpd_i.var(ddof=1))), "p": p}
    found = {"elpd_i": elpd_i, "pareto_k": pareto_k, "n_data_points": n, "warning": any(p.warning for p in pieces)}
    return replace(pieces[0], **sums, **found, approx_posterior=False, log_weights=None)


def _noun(unit: str) -> str:
    """What one unit is called: a group, where the unit is a factor."""
    return unit if unit in UNITS else "group"


def _verdict(unit: str, k: pd.Series, good_k: float, design: Design) -> str:
    family, one = design.family, unit == "observation"
    given_b = one and not design.has_several_factors
    bad = k[~(k <= good_k)].sort_values(ascending=False)
    noun = _noun(unit)
    slots = {"unit": unit, "noun": noun, "n": len(k), "good": good_k}
    if bad.empty:
        return SAY("loo.good", largest=k.max(), label=k.idxmax(), **slots)
    slots |= {"any": f"any one of these {noun}s", "these": f"these {noun}s", "each": "each of them"}
    if len(bad) == 1:
        slots |= {"any": f"this {noun}", "these": f"this {noun}", "each": "it"}
    kind = "observation" if given_b else "subject"
    often = SAY(f"loo.often_{kind}", noun=noun) if len(bad) > MANY[kind] * len(k) else ""
    named = shorten([f"{label} ({value:z.2f})" for label, value in bad.items()])
    how = SAY(f"loo.how_{'row' if one and not given_b else kind}")
    if unit == "observation" and family.name != "gaussian":
        density = "probability" if family.discrete else "density"
        whose = "groups" if design.has_several_factors else "subject"
        how = SAY("loo.how_family", density=density, family=family.title or family.name, whose=whose)
    return SAY("loo.bad", bad=len(bad), named=named, often=often, how=how, **slots)
