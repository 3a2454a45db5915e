"""How many subjects any correlation of the occasions needs: no more than its likelihood needs to have a maximum."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import hierlmm as hl
from hierlmm.errors import DataError

EITHER = [hl.Unstructured("visit"), hl.UnstructuredHeterogeneous("visit")]


def trial(J, m, seed=1):
    """J subjects at m visits: neighbours correlate by 0.7, and the SD rises."""
    rng = np.random.default_rng(seed)
    sd = 1 + 0.2 * np.arange(m)
    V = 0.7 ** np.abs(np.subtract.outer(np.arange(m), np.arange(m))) * np.outer(sd, sd)
    y = 1 + 0.3 * np.arange(m) + rng.normal(size=(J, m)) @ np.linalg.cholesky(V).T
    visit = np.tile(np.arange(m), J)
    return pd.DataFrame(
        {"id": np.repeat(np.arange(J), m), "visit": visit, "t": visit * 1.0, "y": np.round(y.ravel(), 3)}
    )


def wide_of(data):
    return data["y"].to_numpy().reshape(data["id"].nunique(), -1)


def marginal(data, correlation, mean="y ~ t", **options):
    return hl.MarginalModel(mean, correlation=correlation, subject="id", data=data, **options)


@pytest.mark.parametrize("method", ["fit_reml", "fit_ml"])
def test_one_subject_more_than_visits_is_enough(method):
    """With a mean for each visit the estimate is the covariance of the rows, and has a density with a maximum."""
    J, m = 8, 7
    data = trial(J, m)
    fit = getattr(marginal(data, EITHER[1], "y ~ C(visit)"), method)()
    wide = wide_of(data)
    V = np.cov(wide.T, ddof=1 if method == "fit_reml" else 0)
    assert fit.converged and not fit.warnings
    np.testing.assert_allclose(fit.marginal_covariance(0), V, rtol=1e-4, atol=1e-6 * V.max())
    loglik = multivariate_normal(wide.mean(axis=0), V).logpdf(wide).sum()
    if method == "fit_reml":
        loglik += 0.5 * m * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(J * np.linalg.inv(V))[1]
    assert fit.loglik == pytest.approx(loglik, abs=1e-7)


@pytest.mark.parametrize(("mean", "taken"), [("y ~ t", 1), ("y ~ C(visit)", 1), ("y ~ group * t", 2)])
def test_as_many_subjects_as_visits_are_refused(mean, taken):
    data = trial(7, 7).assign(group=lambda d: np.where(d["id"] < 3, "a", "b"))
    with pytest.raises(DataError, match=f"reproduce {taken} of them, and the residuals of {7 - taken} leave"):
        marginal(data, EITHER[1], mean)
    with pytest.raises(DataError, match="5 subjects, 7 occasions"):
        marginal(trial(5, 7), EITHER[0])


def test_the_refused_likelihood_has_no_bound():
    wide = wide_of(trial(7, 7))
    left = wide - wide.mean(axis=0)
    U, s, _ = np.linalg.svd(left.T @ left / 7)
    variances = np.array([[*s[:-1], lost] for lost in (1e-6, 1e-9, 1e-12)])
    deviance = 7 * np.log(variances).sum(axis=1) + ((left @ U) ** 2).sum(axis=0) @ (1 / variances).T
    np.testing.assert_allclose(np.diff(deviance), -7 * np.log(1e3), rtol=1e-6)


@pytest.mark.parametrize(("seed", "near"), [(9, True), (0, False)])
def test_one_variance_for_all_visits_may_need_one_subject_less(seed, near):
    """R can only be singular in a combination in which no visit outweighs all others together."""
    data = trial(5, 5, seed)
    wide = wide_of(data)
    a = np.abs(np.linalg.svd(wide[1:] - wide[0])[2][-1])  # what any common mean leaves without variance
    assert (a.max() > a.sum() - a.max()) == near
    model = marginal(data, EITHER[0])
    if near:
        assert model.fit_reml().converged
    else:
        with pytest.raises(DataError, match="rows of every id;"):
            model.fit_reml()


def test_each_group_is_counted_by_itself():
    data = pd.concat([trial(9, 4), trial(4, 4, 2).assign(id=lambda d: d["id"] + 9)])
    data["arm"] = np.where(data["id"] < 9, "drug", "placebo")
    with pytest.raises(DataError, match=r"4 subjects, 4 occasions .*, in arm 'placebo'"):
        marginal(data, EITHER[1], group="arm")
    assert marginal(data, EITHER[1]).fit_reml().converged


def test_no_subject_and_two_subjects_with_both_visits():
    """nlme: gls(distance ~ sex * time, correlation = corSymm(form = ~ occ | subject)), REML and ML."""
    data = hl.load_dataset("dental")
    subject, age = data["subject"], data["age"]
    lost = ((subject <= 13) & (age == 14)) | ((subject > 13) & (age == 8))
    options = {"correlation": hl.Unstructured("age"), "subject": "subject"}
    with pytest.raises(DataError, match=r"(?s)0 subjects with rows at both 8 and 14.*no subject shows that"):
        hl.MarginalModel("distance ~ sex * time", data=data[~lost], **options)
    model = hl.MarginalModel("distance ~ sex * time", data=data[~lost | (subject < 3)], **options)
    for method, loglik in (("fit_reml", -163.83787076632), ("fit_ml", -161.4528937417)):
        fit = getattr(model, method)()
        assert fit.loglik == pytest.approx(loglik, abs=1e-7)
        assert "that fewer than 3 subjects have both of: 8 and 14." in fit.warnings[0]
