"""Two subjects compared, and all of them ranked, against the mixed-model equations."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from textbook import mixed_model_equations, residual_blocks

import hierlmm as hl
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.interpret import ranking
from hierlmm.interpret.theta import sampled_states
from hierlmm.plots import plot_ranks


def henderson(fit, D=None, sigma=None):
    """β̂, b̂ and the inverse of the coefficient matrix of the mixed-model equations, dense, at the estimated θ or any."""
    design = fit.design
    D = fit.D.to_numpy() if D is None else D
    sigma = fit.sigma if sigma is None else sigma
    return mixed_model_equations(design, D, sigma**2 * residual_blocks(design, fit.residual_estimate))[:2]


def with_uncertain_theta(fit, moments):
    """Standard error and Satterthwaite's df of a difference from its dense (mean, variance) as functions of θ."""
    large, step = fit.large_sample, 1e-5
    at = [[moments(*large.split(large.centre + s * step * e)) for s in (1, -1)] for e in np.eye(len(large.centre))]
    jacobian = np.array([np.subtract(*pair) / (2 * step) for pair in at])
    moved, spread = np.einsum("ik,ij,jk->k", jacobian, large.covariance, jacobian)
    variance = moments(*large.split(large.centre))[1]
    return np.sqrt(variance + moved), 2.0 * variance**2 / spread


def growing_spread(subject_sd):
    """A residual SD that grows with a time far from zero: the SD of the whitened rows is far from sigma."""
    rng = np.random.default_rng(8)
    s, t = np.repeat(np.arange(12), 6), np.tile(np.arange(10.0, 16.0), 12)
    y = 5.0 + subject_sd * rng.normal(size=12)[s] + 0.3 * t + np.exp(0.2 * (t - 12.5)) * rng.normal(size=72)
    if not subject_sd:  # every subject's mean is on the line
        y -= np.repeat((y - 0.3 * t).reshape(12, 6).mean(axis=1), 6)
    data = pd.DataFrame({"id": s, "t": t, "y": y})
    fit = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", data, residual_variance=hl.VarExp("t")).fit_reml()
    assert abs(fit.solution.shift) > 1.0
    return fit


def test_subjects_under_a_variance_function_are_those_of_the_fit(monkeypatch):
    fit = growing_spread(1.0)
    solution, inverse = henderson(fit)
    L = np.zeros(14)
    L[[4, 9]] = 1.0, -1.0
    given = np.sqrt(L @ inverse @ L)
    ranks = fit.rank_subjects("Intercept", draws=4000, seed=1).table.loc[fit.design.subjects]
    own = np.eye(14)[2:] + np.eye(14)[0]
    np.testing.assert_allclose(ranks["se"], np.sqrt(np.diag(own @ inverse @ own.T)), rtol=0.15)
    for least in (0.0, np.inf):  # Satterthwaite's degrees of freedom, and draws of theta
        monkeypatch.setattr("hierlmm.interpret.theta.MIN_DF", least)
        found = fit.compare_subjects(2, 7, "Intercept")
        assert found.estimate == pytest.approx(fit.b.loc[2, "Intercept"] - fit.b.loc[7, "Intercept"], rel=1e-8)
        assert found.estimate == pytest.approx(L @ solution, rel=1e-6)
        assert 0.95 * given < found.se < 1.4 * given


def test_theta_is_drawn_around_the_estimate_at_the_boundary_under_a_variance_function():
    fit = growing_spread(0.0)
    assert fit.is_singular
    sigma = [state.sigma for state in sampled_states(fit, 200, np.random.default_rng(1))]
    assert np.median(np.log(sigma)) == pytest.approx(np.log(fit.sigma), abs=0.3)


def test_a_ranking_is_not_drawn_by_another_term(sexes):
    ranking = sexes.rank_subjects("time", draws=200)
    for draw in (ranking.plot, partial(plot_ranks, ranking)):
        with pytest.raises(SpecificationError, match="the ranking has been made"):
            draw(term="Intercept", backend="none")
        draw(term="time", backend="none")


def simulated_fit(seed, slope_sd=0.3):
    """Twenty subjects, five rows each: their random effects (20, 2), and a fit by REML."""
    rng = np.random.default_rng(seed)
    D = np.array([[1.0, slope_sd / 3.0], [slope_sd / 3.0, slope_sd**2]])
    b = rng.standard_normal((20, 2)) @ np.linalg.cholesky(D).T
    s, t = np.repeat(np.arange(20), 5), np.tile(np.arange(5.0), 20)
    y = 1.0 + b[s, 0] + (0.5 + b[s, 1]) * t + 0.7 * rng.standard_normal(100)
    return b, hl.TwoLevelModel.from_formula("y ~ t + (1 + t | id)", pd.DataFrame({"id": s, "t": t, "y": y})).fit_reml()


@pytest.mark.parametrize(("a", "b"), [(1, 20), (3, 7), (24, 26)])
@pytest.mark.parametrize("term", ["Intercept", "time"])
def test_two_subjects_against_the_mixed_model_equations(sexes, a, b, term):
    solution, inverse = henderson(sexes)
    design = sexes.design
    k = design.term.index(term)
    L = np.zeros(len(solution))
    for subject, sign in ((a, 1.0), (b, -1.0)):
        j = design.subjects.get_loc(subject)
        male = float(design.frame.loc[design.subject_index == j, "sex"].iloc[0] == "Male")
        L[[2 * k, 2 * k + 1]] += sign * np.array([1.0, male])
        L[4 + 2 * j + k] += sign
    order = [design.coef.index(c) for c in ("Intercept", "sex[T.Male]", "time", "sex[T.Male]:time")]
    L[:4] = L[:4][np.argsort(order)]

    def moments(D, sigma):
        solution, inverse = henderson(sexes, D, sigma)
        return np.array([L @ solution, L @ inverse @ L])

    difference, (se, df) = L @ solution, with_uncertain_theta(sexes, moments)
    assert se > 1.01 * np.sqrt(L @ inverse @ L)
    found = sexes.compare_subjects(a, b, term)
    assert found.estimate == pytest.approx(difference, rel=1e-7)
    if df > 4.0:
        assert found.se == pytest.approx(se, rel=1e-5)
        assert found.upper == pytest.approx(difference + stats.t.ppf(0.975, df) * se, rel=1e-4)
        assert found.probability == pytest.approx(stats.t.cdf(difference / se, df), rel=1e-4)
    else:  # next to the boundary θ is drawn
        assert "nearly singular" in repr(found) and found.mcse > 0.0
        assert found.se == pytest.approx(se, rel=0.25)
    assert found.coefficient_a == pytest.approx(sexes.subject_coef.loc[a, term], rel=1e-10)
    back = sexes.compare_subjects(b, a, term)
    assert back.probability == pytest.approx(1.0 - found.probability, abs=1e-12)


def test_two_subjects_under_a_residual_structure(all_fits):
    fit = all_fits["serial"]
    solution, inverse = henderson(fit)
    L = np.zeros(len(solution))
    L[2 + 4], L[2 + 9] = 1.0, -1.0
    found = fit.compare_subjects(4, 9, "Intercept")
    assert found.estimate == pytest.approx(L @ solution, rel=1e-7)
    given = np.sqrt(L @ inverse @ L)
    assert given < found.se < 1.2 * given


def test_intervals_of_two_subjects_cover():
    """20 subjects of 5 rows: with θ taken as known the slopes' intervals cover 81 % in 300 data sets."""
    covered, singular = [], []
    for seed in range(20):
        b, fit = simulated_fit(seed)
        for i in range(0, 20, 4):
            found = fit.compare_subjects(i, i + 1, "t")
            covered.append(found.lower < b[i, 1] - b[i + 1, 1] < found.upper)
            singular.append(fit.is_singular)
    assert 0.91 < np.mean(covered) <= 0.99
    assert 0 < np.mean(singular) < 0.5


def test_theta_is_drawn_from_a_multivariate_t(sexes):
    """θ̂ + √(5/χ²₅) N(0, 2H⁻¹), H by differences of the criterion: the quadratic form over m has the F law of (m, 5)."""
    from hierlmm.interpret import theta

    states = theta.sampled_states(sexes, 3000, np.random.default_rng(4))
    points = np.array([np.append(s.lam, np.log(s.working_sd)) for s in states])
    centre, m, h = sexes.large_sample.centre, points.shape[1], 1e-4
    joint, unit = sexes.criterion_function.joint, h * np.eye(points.shape[1])
    H = np.array([(joint(centre + e)[1] - joint(centre - e)[1]) / (2 * h) for e in unit])
    deviation = points - centre
    square = np.einsum("si,ij,sj->s", deviation, H / 2.0, deviation)
    assert stats.kstest(square / m, stats.f(m, 5).cdf).pvalue > 1e-4
    for k, sd in enumerate(np.sqrt(np.diag(2.0 * np.linalg.inv(H)))):
        assert stats.kstest(deviation[:, k] / sd, stats.t(5).cdf).pvalue > 1e-4


def test_two_subjects_of_a_singular_fit():
    """The interval neither collapses at the boundary nor takes the whole line next to it."""
    fits = [simulated_fit(seed)[1] for seed in range(12)]
    assert {fit.is_singular for fit in fits} == {True, False}
    for fit in fits:
        found = fit.compare_subjects(0, 1, "t")
        assert ("D is singular" in repr(found)) == fit.is_singular
        assert ("draws of θ" in repr(found)) == (found.mcse > 0.0)
        assert found.lower < found.estimate < found.upper
        assert 0.5 < found.upper - found.lower < 2.5


def test_two_subjects_differ_by_level_2_too(sexes):
    """The random effects alone would rank these two the other way round."""
    b, total = sexes.b["time"], sexes.subject_coef["time"]
    girls, boys = range(1, 12), range(12, 28)
    pairs = [(g, m) for g in girls for m in boys if b[g] > b[m] and total[g] < total[m]]
    assert pairs
    assert sexes.compare_subjects(*pairs[0]).probability < 0.5


def test_two_subjects_of_a_posterior(posterior):
    draws = posterior.draws("subject_coef")
    subjects = list(posterior.design.subjects)
    one, two = subjects.index(1), subjects.index(20)
    larger = draws[:, :, one, 1] > draws[:, :, two, 1]
    found = posterior.compare_subjects(1, 20, term="time")
    assert found.probability == pytest.approx(larger.mean(), abs=1e-12)
    assert 0.5 < found.mcse / np.sqrt(larger.mean() * (1 - larger.mean()) / larger.size) < 3.0
    assert "posterior probability that 1 has the larger one" in repr(found)


def test_posterior_and_likelihood_agree_on_two_subjects(posterior, sexes):
    for pair in ((1, 20), (24, 26), (3, 7)):
        assert posterior.compare_subjects(*pair).probability == pytest.approx(
            sexes.compare_subjects(*pair).probability, abs=0.15
        )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0004, "less than 0.001"), (0.0016, "0.002"), (0.25, "0.250"), (0.9984, "0.998"), (0.9996, "more than 0.999")],
)
def test_a_probability_near_its_ends_is_not_rounded_to_them(sexes, value, shown):
    assert f"has the larger one: {shown}" in replace(sexes.compare_subjects(1, 20), probability=value, mcse=0.0).text


def test_what_cannot_be_compared(sexes, males):
    with pytest.raises(SpecificationError, match="twice"):
        sexes.compare_subjects(1, 1)
    with pytest.raises(DataError, match="not in the fitted data"):
        sexes.compare_subjects(1, 99)
    with pytest.raises(SpecificationError, match="level 1 has no coefficient"):
        sexes.compare_subjects(1, 2, "age")
    with pytest.raises(NotAvailableError, match="it does not vary by subject"):
        males["ri"].compare_subjects(12, 13, "time")


def drawn_theta(fit, size, seed):
    """D and σ at draws of Student's t with 5 df around the estimate."""
    large, rng = fit.large_sample, np.random.default_rng(seed)
    normal = rng.multivariate_normal(np.zeros(len(large.centre)), large.covariance, size)
    for deviation in normal / np.sqrt(rng.chisquare(5, (size, 1)) / 5):
        yield large.split(large.centre + deviation)


def test_expected_ranks_in_closed_form(sexes):
    """Given θ the expected rank is 1 + Σ P(another's is larger), here dense; then the mean over draws of θ."""
    ranking = sexes.rank_subjects("time", draws=8000, seed=1)
    table, design = ranking.table, sexes.design
    p, J = len(design.coef), design.n_subjects
    W = np.hstack([np.where(design.coef_level1 == 1, design.W, 0.0), np.kron(np.eye(J), [[0.0, 1.0]])])
    assert design.level1[1] == "time" and p == 4
    found, within, rng = [], [], np.random.default_rng(9)
    for D, sigma in drawn_theta(sexes, 150, 8):
        solution, inverse = henderson(sexes, D, sigma)
        c, C = W @ solution, W @ inverse @ W.T
        sd = np.sqrt(np.diag(C)[:, None] + np.diag(C) - 2.0 * C)
        np.fill_diagonal(sd, 1.0)
        found.append(0.5 + stats.norm.cdf((c[None, :] - c[:, None]) / sd).sum(axis=1))
        drawn = rng.multivariate_normal(c, C, 40)
        within.append(stats.rankdata(drawn, axis=1).var(axis=0, ddof=1))
    # 8000 draws of (β, b), sixteen to each of 500 draws of θ; our own 150 draws of θ.
    between, own = np.var(found, axis=0, ddof=1), table.loc[design.subjects]
    mcse = np.sqrt(between / 500 + np.mean(within, axis=0) / 8000)
    error = np.abs(own["expected_rank"] - np.mean(found, axis=0))
    assert np.all(error < 4.5 * np.sqrt(mcse**2 + between / 150))
    assert np.all(np.abs(np.log(own["mcse_rank"] / mcse)) < np.log(1.6))  # 89 batches: within 8 %, four times
    assert table["expected_rank"].sum() == pytest.approx(27 * 28 / 2)
    assert table["prob_top"].sum() == pytest.approx(3.0)
    assert table["expected_rank"].is_monotonic_increasing


def test_probability_of_first_rank_by_integration(males):
    """P(first | θ) = ∫ φ Π Φ over independent coefficients: a random intercept; then the mean over draws of θ."""
    fit, found = males["ri"], []
    best = int(np.argmax(fit.b["Intercept"].to_numpy()))
    n = fit.design.rows_per_subject[0]
    for D, sigma in drawn_theta(fit, 100, 3):
        # In balanced data the uncertainty of β shifts all subjects alike, so it does not touch ranks.
        mean = henderson(fit, D, sigma)[0][len(fit.beta) :]
        sd = 1.0 / np.sqrt(1.0 / D[0, 0] + n / sigma**2)
        others = np.delete(mean, best)
        x = np.linspace(mean[best] - 8 * sd, mean[best] + 8 * sd, 400)
        density = stats.norm.pdf((x - mean[best]) / sd) / sd
        found.append(integrate.simpson(density * stats.norm.cdf((x[:, None] - others) / sd).prod(axis=1), x=x))
    row = fit.rank_subjects("Intercept", top=1, draws=20_000, seed=2).table.loc[fit.design.subjects[best]]
    p, between = np.mean(found), np.var(found, ddof=1)  # 20,000 draws, forty to each of 500 draws of θ
    mcse = np.sqrt(between / 500 + p * (1.0 - p) / 20_000)
    assert abs(row["prob_top"] - p) < 4.0 * np.sqrt(mcse**2 + between / 100)
    assert row["mcse_top"] == pytest.approx(mcse, rel=0.4)


@pytest.mark.parametrize("extra", [0, 1])
def test_batch_means_by_hand(extra):
    """Two chains of nine draws (or ten, of which one is left over): six batches of three."""
    first, second = [1, 2, 3, 5, 5, 5, 9, 8, 7], [2, 2, 2, 4, 6, 8, 0, 0, 3]
    values = np.array([first + [100] * extra + second + [100] * extra])
    means = np.array([2.0, 5.0, 8.0, 2.0, 6.0, 1.0])
    expected = np.sqrt(np.sum((means - 4.0) ** 2) / 5 / 6)
    assert ranking._mcse(values, 2) == pytest.approx([expected], rel=1e-12)


def test_ranks_of_a_posterior(posterior):
    coefficient = posterior.draws("subject_coef")[..., 1].reshape(-1, 27)
    ranks = stats.rankdata(-coefficient, axis=1)
    table = posterior.rank_subjects("time", top=5, ci=0.8).table.loc[posterior.design.subjects]
    assert table["expected_rank"].to_numpy() == pytest.approx(ranks.mean(axis=0), rel=1e-12)
    assert table["prob_top"].to_numpy() == pytest.approx((ranks <= 5).mean(axis=0), abs=1e-12)
    lower = np.quantile(ranks, 0.1, axis=0, method="inverted_cdf")
    assert np.array_equal(table["rank_lower"], lower)
    assert table["se"].to_numpy() == pytest.approx(coefficient.std(axis=0, ddof=1), rel=1e-8)
    smallest = posterior.rank_subjects("time", largest_first=False).table
    assert smallest["expected_rank"].to_numpy() == pytest.approx(28 - ranks.mean(axis=0)[
        [list(posterior.design.subjects).index(s) for s in smallest.index]], rel=1e-12)  # fmt: skip


def test_chunks_do_not_change_ranks(sexes, monkeypatch):
    whole = sexes.rank_subjects("time", draws=300).table
    monkeypatch.setattr(ranking, "CHUNK", 300 * 5)
    parts = sexes.rank_subjects("time", draws=300).table
    assert whole["coefficient"].sort_index().equals(parts["coefficient"].sort_index())
    assert (whole["expected_rank"] - parts["expected_rank"]).abs().max() < 6.0  # other random numbers, same subjects
    assert parts["expected_rank"].sum() == pytest.approx(27 * 28 / 2)


def test_ranks_that_would_not_fit_into_memory_are_refused(sexes, monkeypatch):
    monkeypatch.setattr(ranking, "MOST", 10_000)
    with pytest.raises(SpecificationError, match="GB of memory"):
        sexes.rank_subjects("time")
    with pytest.raises(SpecificationError, match="from 1 to 26"):
        sexes.rank_subjects("time", top=27)
    with pytest.raises(SpecificationError, match="level 1 has no coefficient"):
        sexes.rank_subjects("height")


def test_ranks_are_drawn(sexes):
    ranking = sexes.rank_subjects("time", draws=500)
    drawn = ranking.plot(backend="none")
    points = drawn.viz["point_estimate"]["ranks"].sel(term="time").item()
    x = np.asarray(points["x"] if isinstance(points, dict) else points.x)
    assert x[~np.isnan(x)] == pytest.approx(ranking.table["expected_rank"].to_numpy())
    with pytest.raises(SpecificationError, match="at least one"):
        ranking.plot(backend="none", max_subjects=0)
