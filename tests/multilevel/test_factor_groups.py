"""How much the groups of a factor differ, and who comes first: by matrices of all rows, and by draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.stats import norm, rankdata

import hierlmm as hl
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.interpret import ranked
from hierlmm.interpret.coefficients import position_of
from hierlmm.interpret.kinds import kind_of

close = np.testing.assert_allclose


def flat(fit: Any, name: str) -> np.ndarray:
    values = fit.draws(name)
    return values.reshape(-1, *values.shape[2:])


def test_how_much_groups_differ_is_their_own_distribution(fit):
    """Mean of the slope and SD of its random effect, each with the interval that the fit has for it."""
    row = fit.heterogeneity("school", "x", above=0.5).table.iloc[0]
    mean, sd = fit.summary(df="satterthwaite").loc["x"], fit.variance_components().loc["sd(x | school)"]
    close(row[["mean", "mean_lower", "mean_upper"]].astype(float), mean[["estimate", "lower", "upper"]], rtol=1e-9)
    close(row[["sd", "sd_lower", "sd_upper"]].astype(float), sd[["estimate", "lower", "upper"]], rtol=1e-6)
    close(row["high"] - row["mean"], norm.ppf(0.975) * sd["estimate"])
    close(row["share"], norm.cdf((mean["estimate"] - 0.5) / sd["estimate"]))
    assert row["new_low"] < row["low"]


def test_a_covariate_of_the_groups_moves_their_mean(pupils):
    """Of schools and classes, which it is constant in; raters see all of its values."""
    rows = pupils.assign(size=pupils["school"] % 4 / 2.0)
    formula = "y ~ size + kind + (1 | school / class) + (1 | rater)"
    fit = hl.MultilevelModel.from_formula(formula, rows).fit_ml()
    for factor in ("school", "school:class"):
        table = fit.heterogeneity(factor, at={"size": [0.0, 2.0]}).table
        close(table["mean"], fit.beta["Intercept"] + fit.beta["size"] * np.array([0.0, 2.0]))
        close(table["sd"], fit.sd_b[factor].iloc[0])
    with pytest.raises(SpecificationError, match="size"):
        fit.heterogeneity("rater", at={"size": 1.0})
    ranking = fit.rank_subjects("school", top=3)
    size = rows.groupby("school")["size"].first()
    expected = fit.beta["Intercept"] + fit.beta["size"] * size + fit.b["school"]["Intercept"]
    close(ranking.table["coefficient"].sort_index(), expected)


def test_draws_say_how_much_groups_differ(posterior):
    found = posterior.heterogeneity("rater", ci=0.8)
    row, beta, sd = found.table.iloc[0], flat(posterior, "beta")[:, 0], flat(posterior, "sd_b")[:, 3]
    close(row["low"], (beta - norm.ppf(0.975) * sd).mean())
    close([row["sd_lower"], row["sd_upper"]], np.quantile(sd, [0.1, 0.9]))
    assert "How much groups of rater differ (NUTS)" in str(found)
    assert "with the random effects of school and school:class at 0" in str(found)
    assert "subject" not in str(found)


def test_joint_draws_have_the_distribution_of_the_mixed_model_equations(fit, dense, monkeypatch):
    """β and the effects of all groups given y and θ, jointly: raters are compared over the same schools."""
    size = 20_000
    monkeypatch.setattr(ranked, "sampled_states", lambda *_: [fit.solution])
    monkeypatch.setattr(ranked, "THETAS", 1)
    names = list(dense.Z)
    Z = np.hstack([dense.Z[name].reshape(len(dense.y), -1) for name in names])
    B = block_diag(*(np.kron(np.eye(dense.Z[name].shape[1]), dense.D[name]) for name in names))
    W = np.hstack([dense.X, Z])
    precision = W.T @ W / dense.s2
    precision[4:, 4:] += np.linalg.inv(B)
    covariance = np.linalg.inv(precision)
    mean = covariance @ W.T @ dense.y / dense.s2
    for factor, term in (("rater", "Intercept"), ("school:class", "Intercept"), ("school", "x")):
        kind = kind_of(fit, factor)
        effects = ranked.RankedEffect(fit, kind, position_of(kind.design, term, what=""))
        (values,) = effects.sampled(size, 0)
        # every group's coefficient as a function of all effects
        A, at = np.zeros((effects.J, len(mean))), 4
        A[:, :4] = effects.rows
        for name in names:
            J, q = dense.Z[name].shape[1:]
            own = next(own.columns.names for own in fit.design.random if own.columns.group == name)
            if name == factor or (name == "school" and factor == "school:class"):
                above = [label.split(":")[0] for label in kind.design.subjects] if name != factor else range(J)
                A[np.arange(effects.J), at + np.array(above, dtype=int) * q + own.index(term)] = 1.0
            at += J * q
        expected = A @ covariance @ A.T
        error = np.sqrt(np.outer(np.diag(expected), np.diag(expected)) / size)
        assert np.all(np.abs(values.mean(axis=0) - A @ mean) < 5 * np.sqrt(np.diag(expected) / size))
        assert np.all(np.abs(np.cov(values.T) - expected) < 8 * error)
        close(effects.rows @ fit.beta.to_numpy() + effects.estimate, A @ mean, rtol=1e-6)


def test_ranks_of_classes_are_those_of_their_draws(posterior):
    """Of the intercept of a class together with that of its school."""
    design, ranking = posterior.design, posterior.rank_subjects("school:class", top=5, largest_first=False)
    school = [int(label.split(":")[0]) for label in design.random[1].group.labels]
    values = flat(posterior, "b_school:class")[:, :, 0] + flat(posterior, "b_school")[:, school, 0]
    ranks = rankdata(values, axis=1)
    table = ranking.table.loc[design.random[1].group.labels]
    close(table["expected_rank"], ranks.mean(axis=0))
    close(table["prob_top"], (ranks <= 5).mean(axis=0))
    assert "random effects of school:class and of school, which it is nested in" in str(ranking)
    assert "subject" not in str(ranking)
    assert ranking.plot(backend="none") is not None


def test_pictures_name_the_groups(fit):
    for found in (fit.heterogeneity("school"), fit.rank_subjects("school", "x", draws=200)):
        assert found.factor == "school"
        assert "roups of school" in str(found)
        assert found.plot(backend="none") is not None


@pytest.mark.parametrize("name", ["heterogeneity", "rank_subjects"])
def test_what_cannot_be_asked(name, fit, posterior):
    for own in (fit, posterior):
        with pytest.raises(DataError, match="use one of 'school', 'school:class', 'rater'"):
            getattr(own, name)()
        with pytest.raises((SpecificationError, NotAvailableError), match="vary"):
            getattr(own, name)("rater", "x")


def test_small_words_of_groups(fit):
    note = " ".join(str(fit.heterogeneity("rater", "Intercept")).split())
    assert "with the random effects of school and school:class at 0: sd is that of rater alone." in note
    assert "prob_top: probability to be the first." in " ".join(
        str(fit.rank_subjects("rater", top=1, draws=100)).split()
    )
