"""What a picture of diagnostics says in words, in one line."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierlmm.bayes.convergence import MAX_RHAT, MIN_BFMI, MIN_ESS, Convergence
from hierlmm.diagnostics.loo import LooResult
from hierlmm.diagnostics.psense import CONFLICT, INFORMATIVE, WEAK, PowerScaling


def chains(table: pd.DataFrame) -> str:
    """Of R-hat."""
    rhat = table["r_hat"].dropna()
    if rhat.empty:
        return "one chain: whether chains agree cannot be seen"
    worst = f"{rhat.max():z.3f}"
    if rhat.max() > MAX_RHAT:
        more = int((rhat > MAX_RHAT).sum()) - 1
        others = f" and {more} more" if more else ""
        return f"R-hat is {worst} for {rhat.idxmax()}{others}, above {MAX_RHAT}: the chains do not agree yet"
    return f"R-hat at most {worst} ({rhat.idxmax()}): the chains agree"


def sizes(table: pd.DataFrame) -> str:
    """Of effective sample sizes."""
    least = table[["ess_bulk", "ess_tail"]].min(axis=1)
    if least.isna().all():
        return "too few draws for effective sample sizes"
    value, name = least.min(), least.idxmin()
    if value < MIN_ESS:
        return f"effective sample size {value:.0f} for {name}, below {MIN_ESS}: more draws are needed"
    return f"effective sample size at least {value:,.0f} ({name}): enough for means and intervals"


def errors(table: pd.DataFrame) -> str:
    """Of Monte-Carlo errors relative to posterior SDs."""
    share = (table["mcse"] / table["sd"]).dropna()
    if share.empty:
        return "too few draws for Monte-Carlo errors"
    text = f"{100 * share.max():z.1f} % of the posterior SD ({share.idxmax()})"
    if share.max() > 1 / np.sqrt(MIN_ESS):
        return f"Monte-Carlo error of a mean up to {text}: more draws are needed"
    return f"Monte-Carlo error of a mean at most {text}"


def energy(found: Convergence) -> str:
    """Of E-BFMI."""
    if np.isnan(found.min_bfmi):
        return "E-BFMI cannot be computed"
    if found.min_bfmi < MIN_BFMI:
        return f"E-BFMI {found.min_bfmi:z.2f} in the worst chain, below {MIN_BFMI}: the tails are explored too slowly"
    return f"E-BFMI at least {found.min_bfmi:z.2f}, above {MIN_BFMI}: the tails are explored"


def divergences(found: Convergence, draws: int) -> str:
    """Of divergences."""
    if not found.divergences:
        return "no divergences"
    share = "draw" if found.divergences == 1 else "draws"
    return f"{found.divergences} of {draws:,} {share} diverged (marked): where they gather, draws may be missing"


def contraction(prior: pd.Series, posterior: pd.Series) -> str:
    """Of SDs of the posterior relative to those of the prior."""
    share = posterior / prior
    text = f"the data leave {100 * share.max():.0f} % of the prior's SD"
    if share.max() > 0.8:
        return f"{text} for {share.idxmax()}, so there they say little"
    return f"{text} at most ({share.idxmax()})"


def scaling(found: PowerScaling) -> str:
    """Of the sensitivities."""
    table = found.table.sort_values("prior", ascending=False)
    if not table["diagnosis"].any():
        return f"sensitivity to the prior at most {table['prior'].iloc[0]:z.3f} ({table.index[0]}): it hardly matters"
    worst = next(own for own in (CONFLICT, WEAK, INFORMATIVE) if (table["diagnosis"] == own).any())
    high = table[table["diagnosis"] == worst]
    more = f" and {len(high) - 1} more" if len(high) > 1 else ""
    no = "" if worst == CONFLICT else "no conflict; "
    return f"{no}{worst}: {high.index[0]} ({high['prior'].iloc[0]:z.2f}){more}"


def khat(found: LooResult) -> str:
    """Of Pareto k."""
    bad, k = found.unreliable, found.pareto_k
    if len(bad):
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        worst = f"{bad.iloc[0]:z.2f} for {found.unit} {bad.index[0]}{more}"
        return f"k is {worst}, above {found.good_k:z.2f}: not to be relied on"
    return f"k at most {k.max():z.2f} ({found.unit} {k.idxmax()}), below {found.good_k:z.2f}: it can be relied on"
