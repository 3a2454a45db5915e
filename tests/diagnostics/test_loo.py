"""Leave-one-subject-out and leave-one-measurement-out, against dense normals, ArviZ and refits."""

from __future__ import annotations

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from scipy.special import logsumexp
from textbook import marginal_covariance

from hierlmm.datasets import simulate
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.diagnostics import loo as module
from hierlmm.diagnostics.loo import subject_log_likelihood
from hierlmm.errors import FitWarning, NotAvailableError, SpecificationError
from hierlmm.model import TwoLevelModel


@pytest.fixture(scope="module")
def sleep_model(sleepstudy):
    return TwoLevelModel("reaction ~ days", subject="subject", data=sleepstudy)


@pytest.fixture(scope="module")
def fit(sleep_nuts):
    return sleep_nuts


@pytest.fixture(scope="module")
def by_subject(fit):
    with pytest.warns(FitWarning, match="1 of 18 subjects"):
        return fit.loo()


def parameters(fit):
    S = fit.draws("sigma").size
    q = len(fit.design.term)
    return fit.draws("beta").reshape(S, -1), fit.draws("D").reshape(S, q, q), fit.draws("sigma").ravel()


def irregular(seed=3):
    """Subjects with one to seven rows, covariates far from zero, an offset."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 8, 15)
    counts[0] = 1
    subject = rng.permutation(np.repeat(np.arange(15), counts))
    n = len(subject)
    frame = pd.DataFrame({"subject": subject, "t": rng.normal(2000, 3, n), "u": rng.normal(size=n)})
    frame["start"] = rng.normal(50, 5, n)
    frame["y"] = 1e4 + 0.5 * frame["t"] + rng.normal(0, 3, n)
    return frame


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ t + (1 | subject)",
        "y ~ t + u + (1 + u | subject)",
        "y ~ t + u + (1 + t + u | subject)",
        "y ~ 0 + (1 + u || subject)",
        "y ~ t + offset(start) + (0 + u | subject)",
    ],
)
def test_marginal_log_likelihood_equals_a_dense_normal(formula):
    design = design_from_formula(parse_formula(formula), irregular())
    rng = np.random.default_rng(1)
    S, p, q = 5, len(design.coef), len(design.term)
    start = np.linalg.lstsq(design.X, design.y - design.offset)[0] if p else np.empty(0)
    beta = start + rng.normal(scale=0.01, size=(S, p))
    half = np.tril(rng.normal(size=(S, q, q)))
    D, sigma = half @ np.swapaxes(half, 1, 2), rng.uniform(1, 4, S)
    D[0] = 0.0  # no variation between subjects is allowed
    D[1, :, 1:] = D[1, 1:, :] = 0.0
    D[2] *= 1e4
    found = subject_log_likelihood(design, beta, D, sigma)
    for s in range(S):
        V = marginal_covariance(design, D[s], sigma[s])
        mean = design.offset + design.X @ beta[s]
        for j in range(design.n_subjects):
            rows = np.flatnonzero(design.subject_index == j)
            L = np.linalg.cholesky(V[np.ix_(rows, rows)])
            z = np.linalg.solve(L, design.y[rows] - mean[rows])
            expected = stats.norm.logpdf(z).sum() - np.log(np.diag(L)).sum()
            # The dense matrix loses digits where D is large against σ (exact arithmetic: test_by_subject.py).
            assert found[s, j] == pytest.approx(expected, rel=1e-6 if s == 2 else 1e-8)
    np.testing.assert_array_equal(subject_log_likelihood(design, beta, D, sigma, slice(4, 9)), found[:, 4:9])


def test_tree_by_subject(fit):
    tree = fit.log_likelihood("subject")
    stored = tree["log_likelihood"]["reaction"]
    assert stored.dims == ("chain", "draw", "subject")
    assert list(stored["subject"].to_numpy()) == list(fit.design.subjects)
    beta, D, sigma = (fit.draws(name)[2, 30:31] for name in ("beta", "D", "sigma"))
    expected = subject_log_likelihood(fit.design, beta, D, sigma)[0]
    np.testing.assert_allclose(stored.to_numpy()[2, 30], expected, rtol=1e-9)
    assert fit.datatree["log_likelihood"]["reaction"].dims == ("chain", "draw", "obs")
    assert fit.log_likelihood()["log_likelihood"]["reaction"].dims == ("chain", "draw", "obs")
    np.testing.assert_array_equal(
        fit.log_likelihood()["log_likelihood"]["reaction"], fit.datatree["log_likelihood"]["reaction"]
    )
    with pytest.raises(SpecificationError, match="unit='row'"):
        fit.log_likelihood("row")


def test_marginal_is_the_average_of_the_conditional_over_the_random_effects(fit):
    """log E_b p(y_i | b): one draw of (β, D, σ), many b from N(0, D), for a subject near the middle."""
    design, s = fit.design, 17
    beta, D, sigma = (values[s] for values in parameters(fit))
    found = subject_log_likelihood(design, beta[None], D[None], sigma[None])[0]
    j = int(np.argmax(found))
    rows = design.subject_index == j
    b = np.random.default_rng(1).multivariate_normal(np.zeros(2), D, 400_000)
    mu = design.X[rows] @ beta + b @ design.Z[rows].T
    terms = stats.norm(mu, sigma).logpdf(design.y[rows]).sum(axis=1)
    assert found[j] == pytest.approx(logsumexp(terms) - np.log(len(terms)), abs=0.05)


def test_leaving_subjects_out(by_subject, fit):
    """One influential subject; elpd as by ArviZ from the same log-likelihood."""
    result = by_subject
    assert (result.unit, result.n, result.n_samples) == ("subject", 18, 4000)
    assert list(result.unreliable.index) == [332]
    assert list(result.pareto_k.index) == list(result.elpd_i.index) == list(fit.design.subjects)
    assert result.good_k == pytest.approx(0.7)
    assert result.elpd == pytest.approx(-886, abs=2)
    assert 9 < result.p < 15
    assert result.elpd == pytest.approx(result.elpd_i.sum())
    assert result.se == pytest.approx(np.sqrt(18 * result.elpd_i.var(ddof=1)))
    with pytest.warns(UserWarning, match="Pareto"):
        other = az.loo(fit.log_likelihood("subject"), pointwise=True)
    assert result.elpd == pytest.approx(other.elpd, abs=0.1)  # differs by the relative efficiency
    np.testing.assert_allclose(result.pareto_k, other.pareto_k, atol=0.15)


def test_summing_the_conditional_log_likelihood_is_wrong(by_subject, fit):
    """What must not be done: nearly every k is too large, and elpd too high by more than ten."""
    conditional = fit.datatree["log_likelihood"]["reaction"].to_numpy()
    summed = np.stack([conditional[..., fit.design.subject_index == j].sum(axis=-1) for j in range(18)], axis=-1)
    posterior = fit.datatree["posterior"].to_dataset()
    group = xr.Dataset({"y": (("chain", "draw", "subject"), summed)})
    with pytest.warns(UserWarning, match="Pareto"):
        wrong = az.loo(xr.DataTree.from_dict({"posterior": posterior, "log_likelihood": group}), pointwise=True)
    assert (wrong.pareto_k > 0.5).sum() == 18
    assert np.median(wrong.pareto_k) > 0.7  # single k move by 0.2 from one set of draws to the next
    assert wrong.elpd > by_subject.elpd + 10


def refit_without(model, fit, label, seed):
    """log p(y_i | y without subject i), by refitting."""
    data = model.data[model.data["subject"] != label]
    rest = TwoLevelModel("reaction ~ days", subject="subject", data=data, priors=fit.priors)
    other = rest.fit(seed=seed, progressbar=False)
    k = list(fit.design.subjects).index(label)
    values = subject_log_likelihood(fit.design, *parameters(other), slice(k, k + 1))[:, 0]
    return logsumexp(values) - np.log(len(values))


def test_estimates_with_small_k_equal_refits(by_subject, fit, sleep_model):
    for label in (308, 309, 337):
        assert by_subject.pareto_k[label] < 0.7
        exact = refit_without(sleep_model, fit, label, seed=5)
        assert by_subject.elpd_i[label] == pytest.approx(exact, abs=0.25)


def test_a_large_k_marks_the_subject_that_moves_the_posterior(by_subject, fit, sleep_model):
    """The least well predicted subject; reweighting and refitting need not agree closely."""
    exact = refit_without(sleep_model, fit, 332, seed=5)
    assert by_subject.elpd_i[332] == pytest.approx(exact, abs=5)
    assert by_subject.pareto_k.idxmax() == by_subject.elpd_i.idxmin() == 332


def test_leaving_measurements_out(fit, by_subject):
    with pytest.warns(FitWarning, match="of 180 observations"):
        result = fit.loo("observation")
    with pytest.warns(UserWarning, match="Pareto"):
        other = az.loo(fit.datatree, pointwise=True)
    assert result.n == 180
    assert result.elpd == pytest.approx(other.elpd, abs=0.3)
    assert result.elpd > by_subject.elpd + 15  # a known subject is easier to predict
    assert list(result.pareto_k.index) == list(fit.design.frame.index)


def test_printed_result_is_plain(by_subject):
    text = repr(by_subject)
    for part in ("Leave-one-subject-out, 18 subjects, 4000 draws", "a subject not yet seen", "332 (", "To do:"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 120
    html = by_subject._repr_html_()
    assert "<table>" in html
    assert "332" in html
    assert "array(" not in text + html
    assert "np." not in text + html


def test_nothing_to_complain_about():
    frame = simulate(
        beta={"Intercept": 250.0, "time": 10.0},
        D=[[600.0, 10.0], [10.0, 35.0]],
        sigma=25.0,
        random=["Intercept", "time"],
        n_subjects=60,
        times=np.arange(6.0),
        seed=1,
    )
    fit = TwoLevelModel("y ~ time", subject="subject", data=frame).fit(seed=1, progressbar=False)
    result = fit.loo()
    assert result.unreliable.empty
    assert result.verdict.startswith("All 60 Pareto k are at most 0.70")
    assert "can be relied on" in repr(result)
    # elpd estimates the log density of new data: the marginal one at the truth, less what estimation costs.
    truth = subject_log_likelihood(
        fit.design, np.array([[250.0, 10.0]]), np.array([[[600.0, 10.0], [10.0, 35.0]]]), np.array([25.0])
    )
    assert result.elpd == pytest.approx(truth.sum(), abs=8)


def test_summary_of_random_effects_is_enough_for_subjects_but_not_for_measurements(sleep_model, fit, by_subject):
    lean = sleep_model.fit(seed=1, progressbar=False, random_effects="none")
    with pytest.warns(FitWarning):
        assert lean.loo().elpd == by_subject.elpd
    with pytest.raises(NotAvailableError, match="random_effects='draws'") as error:
        lean.loo("observation")
    assert "unit='subject'" in error.value.remedy
    with pytest.raises(SpecificationError, match="unit='chain'"):
        fit.loo("chain")


def test_parts_give_the_whole(fit, by_subject, monkeypatch):
    """With many subjects the log-likelihood is smoothed a part at a time."""
    monkeypatch.setattr(module, "PIECE", 4000 * 5)
    with pytest.warns(FitWarning):
        parts = fit.loo()
    pd.testing.assert_series_equal(parts.elpd_i, by_subject.elpd_i)
    pd.testing.assert_series_equal(parts.pareto_k, by_subject.pareto_k)
    for name in ("elpd", "se", "p", "good_k"):
        assert getattr(parts, name) == pytest.approx(getattr(by_subject, name))


def test_effective_share_of_the_draws():
    """Mean of the ESS over the number of draws; one chain, or too few draws to tell, count in full, as in ArviZ."""
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(4, 500, 3))
    slow = noise.copy()
    for t in range(1, 500):
        slow[:, t] = 0.9 * slow[:, t - 1] + noise[:, t]
    many = xr.Dataset({"x": (("chain", "draw", "k"), slow[..., :2]), "y": (("chain", "draw"), slow[..., 2])})
    found = module._relative_efficiency(many)
    each = [float(az.ess(slow[..., k], method="mean")) for k in range(3)]
    assert found == pytest.approx(np.mean(each) / 2000, rel=1e-10)
    assert found == pytest.approx((1 - 0.9) / (1 + 0.9), rel=0.5)  # of an autoregression
    assert module._relative_efficiency(many.isel(chain=[0])) == 1.0
    assert module._relative_efficiency(many.isel(draw=slice(3))) == 1.0


def test_arviz_compares_models(fit, by_subject, sleepstudy):
    without = TwoLevelModel("reaction ~ days", subject="subject", data=sleepstudy, random=["Intercept"])
    other = without.fit(seed=2, progressbar=False).loo()
    table = az.compare({"slopes vary": by_subject.elpd_data, "intercepts vary": other.elpd_data})
    assert table.index[0] == "slopes vary"
    az.plot_khat(by_subject.elpd_data, backend="none")
