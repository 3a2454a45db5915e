"""Linear hypotheses on the fixed effects, each by itself and all together.

Likelihood fits and GEE: t for each, F (Wald's χ²/r with infinite degrees of freedom) for all. A hypothesis with ``>``
or ``<`` is the alternative of a one-sided test. Posteriors: the probability that an inequality holds, of each and of
all together; for equalities the direction of the difference, and for several together the share of draws farther from
the posterior mean than the hypothesis, in Mahalanobis' distance: small if the hypothesis lies outside the bulk of the
posterior (Box and Tiao 1973, Bayesian Inference in Statistical Analysis, section 2.8, with ellipsoidal regions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from hierlmm.arrays import FloatArray
from hierlmm.effects.judge import PosteriorDraws, check_rope, estimates, judge_of, notes_of, share_inside
from hierlmm.effects.parse import Hypothesis, parse_hypotheses
from hierlmm.fits.base import Fit
from hierlmm.likelihood.wald import BY_DEFAULT, Asked, JointTest, Wald, independent_rows, two_sided
from hierlmm.options import checked
from hierlmm.results import Page, Result, Table
from hierlmm.text import sayer, table_lines

SAY = sayer(__file__)
type Region = tuple[float, float] | None


@checked
@dataclass(frozen=True, eq=False, repr=False)
class HypothesisTest(Result):
    """Linear hypotheses and what the fit says about them. Frozen.

    Attributes
    ----------
    table : DataFrame
        One row for each hypothesis, a copy: ``estimate`` is left side minus right side. Likelihood fits: ``se``,
        ``df``, ``lower``, ``upper``, ``t``, ``p``. Posteriors: ``se``, ``lower``, ``upper``, ``prob`` (that the
        inequality holds; for an equality that the left side is larger), ``prob_rope``.
    joint : JointTest or None
        F, df1, df2 and p of all equalities together (likelihood fits and GEE, two or more hypotheses).
    probability : float or None
        Posteriors: of all inequalities together; for several equalities, the share of draws farther out than they are.
    L : (k, p), value : (k,)
        The hypotheses as ``L β = value``.
    notes : tuple of str
        How the numbers were made.
    """

    estimator: str
    table: pd.DataFrame
    joint: JointTest | None
    probability: float | None
    L: FloatArray
    value: FloatArray
    notes: tuple[str, ...]

    def _page(self) -> Page:
        table = Table(self.table, table_lines(self.table, ["hypothesis"]), "Each hypothesis")
        together = []
        if self.joint is not None:
            F, df1, df2, p = self.joint
            p_text = f"p = {p:.4g}" if p >= 1e-4 else f"p = {p:.2e}"
            together = [f"All together: F = {F:z.4f} on {df1} and {df2:z.1f} degrees of freedom, {p_text}"]
            if np.isnan(F):
                together = ["All together: no test, as one of them has no standard error."]
        elif self.probability is not None:
            together = [f"All together: {self.probability:z.4f}"]
        return Page(f"Linear hypotheses ({self.estimator})", ["", table, "", *together, *self.notes])


def test_hypotheses(
    fit: Fit,
    hypotheses: str | Sequence[str],
    *,
    how: Asked = BY_DEFAULT,
    ci: float = 0.95,
    rope: float | tuple[float, float] | None = None,
) -> HypothesisTest:
    """Test linear hypotheses; see `hierlmm.fits.base.Fit.hypothesis`."""
    parsed = parse_hypotheses(hypotheses, fit.design)
    judge = judge_of(fit, how)
    region = check_rope(rope, judge)
    L, value = np.array([h.weights for h in parsed]), np.array([h.value for h in parsed])
    names = pd.DataFrame({"hypothesis": [h.text for h in parsed]})
    link = fit.design.family.link
    said = (
        () if fit.design.is_gaussian else (SAY("scale.coefficients", link=link, stay="stay" * fit.has_random_effects),)
    )
    joint, probability = None, None
    if isinstance(judge, PosteriorDraws):
        columns, probability, notes = _by_draws(judge, parsed, L, value, ci, region)
    else:
        columns, joint, notes = _by_wald(judge, parsed, L, value, ci)
    return HypothesisTest(
        fit.estimator, names.join(pd.DataFrame(columns)), joint, probability, L, value, (*said, *notes)
    )


def _by_wald(
    judge: Wald, parsed: list[Hypothesis], L: FloatArray, value: FloatArray, ci: float
) -> tuple[dict[str, FloatArray], JointTest | None, tuple[str, ...]]:
    found = estimates(judge, L, -value, ci)
    assert found.df is not None
    t, df, signs = found.estimate / found.se, found.df, np.array([h.sign for h in parsed])
    p = np.select([signs == ">", signs == "<"], [stats.t.sf(t, df), stats.t.cdf(t, df)], two_sided(t, df))
    how, several, joint = judge.description, len(parsed) > 1, None
    notes = [SAY("hypothesis.wald", how=how[:1].upper() + how[1:]), SAY("hypothesis.intervals", percent=100 * ci)]
    if np.any(signs != "="):
        notes += [SAY("hypothesis.one_sided"), *([SAY("hypothesis.no_joint")] if several else [])]
    elif several:
        joint = judge.joint(L, value)
        if joint.df1 < len(parsed):
            notes.append(SAY("hypothesis.dependent", r=joint.df1, n=len(parsed)))
    if several:
        notes.append(SAY("hypothesis.uncorrected"))
    return {**found.columns, "t": t, "p": p}, joint, (*notes, *notes_of((), judge))


def _by_draws(
    judge: PosteriorDraws, parsed: list[Hypothesis], L: FloatArray, value: FloatArray, ci: float, rope: Region
) -> tuple[dict[str, FloatArray], float | None, tuple[str, ...]]:
    draws = judge.of(L, -value)
    signs = np.array([h.sign for h in parsed])
    holds = np.where(signs == "<", draws < 0.0, draws > 0.0)
    columns = {**estimates(judge, L, -value, ci).columns, "prob": holds.mean(axis=0)}
    notes = [SAY("hypothesis.draws", percent=100 * ci)]
    if np.any(signs != "="):
        notes.append(SAY("hypothesis.prob"))
    if np.any(signs == "="):
        notes.append(SAY("hypothesis.prob_of_equality"))
    if rope is not None:
        columns["prob_rope"] = share_inside(draws, rope)
        notes.append(SAY("hypothesis.rope", low=rope[0], high=rope[1]))
    probability = None
    if len(parsed) > 1 and np.all(signs != "="):
        probability = float(holds.all(axis=1).mean())
        notes.append(SAY("hypothesis.hold"))
    elif len(parsed) > 1 and np.all(signs == "="):
        probability = _outside(judge, L, value)
        notes.append(SAY("hypothesis.farther"))
    return columns, probability, tuple(notes)


def _outside(judge: PosteriorDraws, L: FloatArray, value: FloatArray) -> float:
    L, value = independent_rows(L, value)
    draws = judge.of(L)
    mean = draws.mean(axis=0)
    half = np.linalg.cholesky(np.cov(draws, rowvar=False).reshape(len(L), len(L)))
    distance = np.sum(np.linalg.solve(half, (draws - mean).T) ** 2, axis=0)
    own = float(np.sum(np.linalg.solve(half, value - mean) ** 2))
    return float(np.mean(distance > own))
