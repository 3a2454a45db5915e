"""Effects of a posterior are those of its draws."""

from __future__ import annotations

import numpy as np
import pytest
from effect_fits import AT, fitted

from hierlmm.errors import NotAvailableError, SpecificationError


def test_posterior_effects_are_those_of_the_draws(dental_posterior):
    fit = dental_posterior
    beta = fit.draws("beta").reshape(-1, 4)
    effects = fit.contrasts("sex", by="time", at=AT, rope=(-2, 0.5), ci=0.9)
    draws = np.column_stack([-beta[:, 1], -beta[:, 1] - 6 * beta[:, 3]])
    np.testing.assert_allclose(effects.draws, draws, rtol=1e-9, atol=1e-12)
    table = effects.table
    np.testing.assert_allclose(table["estimate"], draws.mean(0), rtol=1e-9)
    np.testing.assert_allclose(table["se"], draws.std(0, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(table[["lower", "upper"]].T, np.quantile(draws, [0.05, 0.95], axis=0), rtol=1e-9)
    np.testing.assert_array_equal(table["prob_positive"], (draws > 0).mean(0))
    np.testing.assert_array_equal(table["prob_rope"], ((draws > -2) & (draws < 0.5)).mean(0))
    assert "p" not in table and "df" not in table
    slopes = fit.slopes("time", by="sex").table
    np.testing.assert_allclose(slopes["estimate"], [beta[:, 2].mean(), (beta[:, 2] + beta[:, 3]).mean()], rtol=1e-9)


def test_posterior_agrees_with_reml(dental_posterior):
    reml, bayes = fitted("dental_reml"), dental_posterior
    a, b = (f.contrasts("sex", by="time", at=AT).table for f in (reml, bayes))
    np.testing.assert_allclose(a["estimate"], b["estimate"], atol=0.1 * a["se"].max())


def test_simultaneous_intervals_hold_together(dental_posterior):
    effects = dental_posterior.contrasts(["sex", "time"], at=AT, simultaneous=True)
    table, draws = effects.table, effects.draws
    inside = np.all((draws >= table["lower"].to_numpy()) & (draws <= table["upper"].to_numpy()), axis=1)
    assert abs(inside.mean() - 0.95) <= 1 / len(draws)
    alone = dental_posterior.contrasts(["sex", "time"], at=AT)
    assert (alone.table["upper"] < table["upper"]).all()
    assert "no correction is applied" in repr(alone) and "sup-t" in repr(effects)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.contrasts("sex", adjust="holm"), "no p-values"),
        (lambda f: f.contrasts("sex", df="satterthwaite"), "quantiles of draws"),
        (lambda f: f.contrasts("sex", rope=(1, 0)), "region is empty"),
        (lambda f: f.anova(), "no F test"),
    ],
)
def test_what_a_posterior_has_not_is_refused(dental_posterior, call, message):
    with pytest.raises((SpecificationError, NotAvailableError), match=message):
        call(dental_posterior)
