"""Did the sampler converge? What looks wrong, why it can happen, what to do.

R-hat is the rank-normalised split R-hat, ESS the bulk and tail effective sample size of Vehtari et al. (2021), with
their thresholds: R-hat at most 1.01, ESS at least 400 (100 for each of four chains). E-BFMI compares the variance of
the energy's steps with the energy's own (Betancourt 2016); below 0.3 the sampler moves too slowly through the tails.

References
----------
Vehtari, A., Gelman, A., Simpson, D., Carpenter, B., Bürkner, P.-C. (2021). Rank-normalization, folding, and
localization: an improved R-hat for assessing convergence of MCMC. Bayesian Analysis 16, 667-718.

Betancourt, M. (2016). Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo. arXiv:1604.00695.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.mixing import mixing

GOOD_K = 0.7
"""Pareto k up to which weights correct an approximation."""
MAX_RHAT = 1.01
MIN_ESS = 400
MIN_BFMI = 0.3
NAMES = ("beta", "sd_b", "corr_b", "sigma", "residual_correlation", "residual_variance", "b")
MAX_ENTRIES = 2000
AT_ONCE = 400_000
"""Draws that are diagnosed together: they bound the work space."""
LABELS = {"beta": "{}", "sd_b": "sd({})", "corr_b": "corr({})", "b": "b[{}]"}


@dataclass(frozen=True)
class Convergence:
    """Worst diagnostics of a fit, and what they mean.

    Attributes
    ----------
    messages : tuple of str
        Empty where nothing looks wrong.
    max_rhat, min_ess_bulk, min_ess_tail, min_bfmi : float
        NaN where they cannot be computed.
    divergences, at_max_depth : int
        Draws after the warm-up.
    """

    messages: tuple[str, ...]
    max_rhat: float
    min_ess_bulk: float
    min_ess_tail: float
    min_bfmi: float
    divergences: int
    at_max_depth: int

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.messages


def pareto_smoothed(log_weights: FloatArray) -> tuple[FloatArray, float]:
    """Logarithms of importance weights with their largest ones smoothed, (S,), and Pareto k of the tail."""
    from arviz_stats.base import array_stats

    smoothed, k = array_stats.psislw(log_weights.max() - log_weights)  # it takes minus the log weights
    return smoothed, float(k)


def smoothed_weights(log_weights: FloatArray) -> tuple[FloatArray, float]:
    """Pareto-smoothed importance weights of draws (S,), which sum to one, and their k."""
    smoothed, k = pareto_smoothed(log_weights)
    weight = np.exp(smoothed - smoothed.max())
    return weight / weight.sum(), k


def diagnostics(draws: FloatArray, labels: list[str]) -> pd.DataFrame:
    """Effective sample sizes, R-hat and Monte-Carlo standard error of the mean.

    Parameters
    ----------
    draws : (chain, draw, n)
    labels : list of str, length n

    Returns
    -------
    DataFrame, one row per label
        ``ess_bulk``, ``ess_tail``, ``r_hat``, ``mcse``; NaN for entries that do not vary, and for R-hat of one chain.
    """
    out = pd.DataFrame(np.nan, index=pd.Index(labels), columns=["ess_bulk", "ess_tail", "r_hat", "mcse"], dtype=float)
    spread = np.ptp(draws, axis=(0, 1))
    varying = np.isfinite(spread) & (spread > 0)
    if draws.shape[1] < 4 or not varying.any():
        return out
    chosen, size = np.flatnonzero(varying), max(1, AT_ONCE // (draws.shape[0] * draws.shape[1]))
    for lo in range(0, len(chosen), size):
        entries = chosen[lo : lo + size]
        found = mixing(np.ascontiguousarray(np.moveaxis(draws[..., entries], -1, 0)))
        out.iloc[entries] = np.column_stack(found)
    return out


def assess_convergence(datatree: Any) -> Convergence:
    """Compute the worst diagnostics of ``beta``, ``sd_b``, ``corr_b``, ``sigma`` and ``b``, and judge them.

    Constant entries are left out, as are random effects beyond the first 2000 numbers, and
    all of them on the collapsed route.
    """
    posterior = datatree["posterior"].to_dataset()
    # Collapsed: b is an exact draw given the others, independent of every other draw of b. Draws of b are related only
    # through E(b | the others), so it mixes as well as they do.
    scalars = [str(n) for n, v in posterior.data_vars.items() if v.ndim == 2 and n not in (*NAMES, "icc")]
    effects = [str(name) for name in posterior.data_vars if name == "b" or str(name).startswith("b_")]
    names = [*NAMES[:-1], *scalars, *([] if datatree.attrs.get("sampler") == "collapsed" else effects)]
    table = _table({name: posterior[name] for name in names if name in posterior})
    stats = datatree["sample_stats"].to_dataset() if "sample_stats" in datatree.children else None
    divergences = _total(stats, "diverging")
    at_max_depth = _total(stats, "maxdepth_reached") or _total(stats, "reached_max_treedepth")
    bfmi = _bfmi(stats)
    attrs = {**datatree.attrs, "random effects": "sd_b" in posterior}
    n_draws = int(posterior.sizes["chain"] * posterior.sizes["draw"])
    messages = [
        *_mixing(table, posterior.sizes["chain"], posterior.sizes["draw"], attrs),
        *_divergences(divergences, n_draws, attrs),
        *_energy(bfmi, at_max_depth, n_draws),
    ]
    return Convergence(
        tuple(messages),
        float(table["r_hat"].max()),
        float(table["ess_bulk"].min()),
        float(table["ess_tail"].min()),
        float(bfmi.min()) if bfmi.size else float("nan"),
        divergences,
        at_max_depth,
    )


def _table(variables: dict[str, Any]) -> pd.DataFrame:
    """Diagnostics of the entries of variables that vary, labelled for a reader."""
    labels, draws = list[str](), list[FloatArray]()
    for name, variable in variables.items():
        values = variable.to_numpy()
        values = values.reshape(*values.shape[:2], -1)
        keep = np.flatnonzero(np.ptp(values, axis=(0, 1)) > 0)[:MAX_ENTRIES]
        own = _named(variable, name)
        labels += [own[i] for i in keep]
        draws.append(values[..., keep])
    return diagnostics(np.concatenate(draws, axis=-1), labels)


def _named(variable: Any, name: str) -> list[str]:
    """Names of the entries of a variable."""
    dims = [d for d in variable.dims if d not in ("chain", "draw")]
    names = [""] if not dims else _labels([variable[d].to_numpy() for d in dims])
    if name.startswith("b_"):  # of one of several grouping factors
        return [f"{name}[{n}]" for n in names]
    return [LABELS.get(name, name.replace("threshold_", "threshold ")).format(n) for n in names]


def _labels(coords: list[Any]) -> list[str]:
    labels = [str(v) for v in coords[0]]
    for values in coords[1:]:
        labels = [f"{a}, {v}" for a in labels for v in values]
    return labels


def _total(stats: Any, name: str) -> int:
    return int(stats[name].sum()) if stats is not None and name in stats else 0


def _bfmi(stats: Any) -> FloatArray:
    """E-BFMI of each chain, or an empty array."""
    if stats is None or "energy" not in stats or stats.sizes["draw"] < 4:
        return np.empty(0)
    energy = stats["energy"].to_numpy()
    variance = energy.var(axis=1)
    return np.mean(np.diff(energy, axis=1) ** 2, axis=1)[variance > 0] / variance[variance > 0]


def _mixing(table: pd.DataFrame, chains: int, draws: int, attrs: dict[str, Any]) -> list[str]:
    messages = []
    if chains < 2:
        messages.append("One chain only: whether chains agree (R-hat) cannot be checked. To do: sample with chains=4.")
    if draws < 4:
        few = "1 draw" if draws == 1 else f"{draws} draws"
        messages.append(f"Only {few} of each chain: nothing about convergence can be checked. To do: draws=1000.")
    high = table["r_hat"][table["r_hat"] > MAX_RHAT].sort_values(ascending=False)
    if len(high):
        messages.append(
            f"R-hat is {high.iloc[0]:z.3f} for {high.index[0]}{_more(high)} (it should not exceed {MAX_RHAT}): the "
            "chains do not agree yet, so the draws are not yet draws from the posterior. This happens when warm-up or "
            "sampling were too short, or when the data hardly determine a quantity. To do: increase tune and draws; "
            f"{_reparametrise(attrs)}; or give that quantity a more informative prior."
        )
    for column, kind, part in (
        ("ess_bulk", "bulk", "a reliable posterior mean"),
        ("ess_tail", "tail", "reliable interval ends"),
    ):
        low = table[column][table[column] < MIN_ESS].sort_values()
        if len(low):
            factor = min(int(np.ceil(1.5 * MIN_ESS / max(float(low.iloc[0]), 1.0))), 20)
            messages.append(
                f"The {kind} effective sample size is {low.iloc[0]:z.0f} for {low.index[0]}{_more(low)} (at least "
                f"{MIN_ESS} are needed for {part}): successive draws are too similar, or there are too few "
                f"of them. To do: draws={factor * draws} would probably do."
            )
    return messages


def _divergences(count: int, n_draws: int, attrs: dict[str, Any]) -> list[str]:
    if count == 0:
        return []
    accept = float(attrs.get("target_accept", 0.8))
    smaller = "target_accept=0.99" if accept >= 0.95 else "target_accept=0.95"
    return [
        f"{count} of {n_draws} draws ended in a divergence: the sampler could not follow the posterior where it curves "
        "sharply, often where the standard deviation of a random effect is close to zero, and the draws may miss that "
        f"region. To do: {smaller} (smaller steps); {_reparametrise(attrs)}; or a prior that keeps the standard "
        "deviations away from where the data say nothing."
    ]


def _energy(bfmi: FloatArray, at_max_depth: int, n_draws: int) -> list[str]:
    messages = []
    if bfmi.size and bfmi.min() < MIN_BFMI:
        messages.append(
            f"E-BFMI is {bfmi.min():z.2f} in the worst chain (it should exceed {MIN_BFMI}): the sampler moves too "
            "slowly between the bulk and the tails, typically because a prior has heavy tails or the data say little. "
            "To do: increase tune, or use priors with lighter tails."
        )
    if at_max_depth > 0.01 * n_draws:
        messages.append(
            f"{at_max_depth} of {n_draws} draws stopped at the largest trajectory length: sampling is slow, not wrong; "
            "parameters are strongly correlated or on very different scales. To do: centre and scale covariates with "
            "large values, or use priors that keep weakly determined parameters in range."
        )
    return messages


def _more(found: pd.Series) -> str:
    more = len(found) - 1
    return "" if not more else f" and beyond the limit for {more} other {'quantity' if more == 1 else 'quantities'}"


def _reparametrise(attrs: dict[str, Any]) -> str:
    if attrs.get("sampler") == "explicit" and attrs.get("parametrization") == "by factor":
        return "check that the model is identified (fit_reml() shows a singular D at once)"
    if attrs.get("sampler") == "explicit" and attrs.get("parametrization") == "centred":
        return "use centered=False, which suits subjects with few rows"
    if attrs.get("sampler") == "explicit":
        return "use centered=True if every subject has many rows"
    if not attrs.get("random effects", True):
        return "check that the model is identified (fit_reml() says at once what the data do not determine)"
    way = "fit_ml" if attrs.get("sampler") in ("joint", "laplace") else "fit_reml"  # families have no REML
    return f"check that the model is identified ({way}() shows a singular D at once)"
