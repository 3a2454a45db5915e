"""Imputation and what follows if responses are not missing at random, against formulas of the normal distribution."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.missingness import impute as imputing
from hierlmm.missingness.planned import Parameters, estimates, planned_of
from hierlmm.missingness.pool import rubin
from hierlmm.missingness.sensitivity import analysis_of, at_estimates
from hierlmm.missingness.strategies import Assumption, conditional

ARMS = {"treatment": "arm", "reference": "placebo"}


def trial(n=60, seed=2):
    """Two arms, four visits, drop-out that depends on the last response, and some gaps."""
    rng = np.random.default_rng(seed)
    arm = np.repeat(np.where(np.arange(n) % 2, "drug", "placebo"), 4)
    visit = np.tile(np.arange(4), n)
    root = np.linalg.cholesky(
        4.0 * 0.6 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4))) + np.diag([0, 1, 2, 3])
    )
    y = 10.0 + visit * np.where(arm == "drug", 1.5, 0.5) + (rng.normal(size=(n, 4)) @ root.T).ravel()
    data = pd.DataFrame({"id": np.repeat(np.arange(n), 4), "visit": visit, "arm": arm, "y": y})
    data["week"] = pd.Categorical([f"W{v}" for v in visit])
    wide = y.reshape(n, 4)
    gone = np.zeros((n, 4), dtype=bool)
    for k in range(1, 4):
        gone[:, k] = gone[:, k - 1] | (rng.random(n) < 1 / (1 + np.exp(1.5 + 0.3 * (wide[:, k - 1] - 10.0))))
    gap = (rng.random((n, 4)) < 0.08) & (np.arange(4) == 1)
    return data[~(gone | gap).ravel()].sample(frac=1.0, random_state=1)


@pytest.fixture(scope="module")
def mmrm():
    structure = hl.UnstructuredHeterogeneous("visit")
    return hl.MarginalModel("y ~ arm * week", correlation=structure, subject="id", data=trial())


@pytest.fixture(scope="module")
def fit(mmrm):
    return mmrm.fit_reml()


@pytest.fixture(scope="module")
def planned(fit):
    return planned_of(fit, "arm", "placebo", None, None, caller="test")


def difference(fit):
    """The estimates of the model itself, drug - placebo by week."""
    return fit.contrasts("arm", by="week").table["estimate"].to_numpy()


def test_means_given_the_estimates_give_the_estimates_again(fit, planned):
    """Completed by conditional means at the estimates, data have the estimates as their own (a fixed point of EM)."""
    np.testing.assert_allclose(at_estimates(analysis_of(planned), Assumption()), difference(fit), atol=1e-8)


def test_imputation_at_random_has_the_estimate_of_the_model(fit):
    table = hl.delta_adjusted(fit, 0.0, **ARMS, n=200, seed=3).table
    assert np.all(np.abs(table["estimate"] - difference(fit)) < 4.0 * table["mcse"] + 1e-9)
    np.testing.assert_allclose(table["estimate"], table["at_random"])
    own = fit.contrasts("arm", by="week").table["se"].to_numpy()
    assert np.all(np.abs(table["se"] / own - 1.0) < 0.15)


@pytest.mark.parametrize("each_visit", [False, True])
def test_delta_shifts_the_mean_by_the_share_that_dropped_out(fit, planned, each_visit):
    table = hl.delta_adjusted(fit, -3.0, **ARMS, n=5, each_visit=each_visit).table
    last, arm = planned.visits.last, planned.arm
    times = (np.arange(4) - last[:, None]).clip(0)
    shift = -3.0 * (times if each_visit else times > 0)[arm == 1].mean(axis=0)
    np.testing.assert_allclose(table["estimate"] - table["at_random"], shift, atol=1e-8)
    both = hl.delta_adjusted(fit, {"drug": -3.0, "placebo": -3.0}, **ARMS, n=5, each_visit=each_visit).table
    of_placebo = -3.0 * (times if each_visit else times > 0)[arm == 0].mean(axis=0)
    np.testing.assert_allclose(both["estimate"] - both["at_random"], shift - of_placebo, atol=1e-8)


@pytest.mark.parametrize("strategy", ["j2r", "cir", "cr"])
def test_strategies_are_conditional_normal_means(fit, planned, strategy):
    whole = planned.visits.subjects[np.flatnonzero(planned.seen.all(axis=1))[0]]
    order = np.argsort(fit.design.frame.loc[fit.design.frame["id"] == whole, "visit"])
    V = fit.marginal_covariance(whole).to_numpy()[np.ix_(order, order)]
    mean = fit.marginal_means("arm", by="week").table.set_index(["arm", "week"])["estimate"]
    drug, placebo = (mean[a].to_numpy() for a in ("drug", "placebo"))
    names = {"j2r": "jump to reference", "cir": "copy increments", "cr": "copy reference"}
    y, at_random = conditional(planned, estimates(fit), 0, Assumption(names[strategy]), Assumption())
    checked = 0
    for j in np.flatnonzero((planned.arm == 1) & (planned.visits.last < 3)):
        L, seen = planned.visits.last[j], planned.seen[j]
        if not seen[: L + 1].all():
            continue
        o, m = np.arange(L + 1), np.arange(L + 1, 4)
        before, after = drug[o], placebo[m]
        if strategy == "cr":
            before = placebo[o]
        if strategy == "cir":
            after = drug[L] + placebo[m] - placebo[L]
        expected = after + V[np.ix_(m, o)] @ np.linalg.inv(V[np.ix_(o, o)]) @ (planned.visits.y[j, o] - before)
        np.testing.assert_allclose(y[j, m], expected, rtol=1e-8)
        checked += 1
    assert checked > 5
    np.testing.assert_array_equal(y[planned.seen], planned.visits.y[planned.seen])
    gaps = ~planned.seen & ~planned.after
    np.testing.assert_allclose(y[gaps], at_random[gaps])


def test_draws_have_the_conditional_covariance(fit, planned, monkeypatch):
    at = estimates(fit)
    fixed = Parameters(*(np.repeat(part, 800, axis=0) for part in at))
    monkeypatch.setattr(imputing, "parameter_draws", lambda *_: fixed)
    y = imputing.completed(planned, Assumption(), 800, 1)
    j = np.flatnonzero(planned.visits.last == 1)[0]
    V = planned.covariances(at, 0)[0]
    o, m = np.flatnonzero(planned.seen[j]), np.array([2, 3])
    expected = V[np.ix_(m, m)] - V[np.ix_(m, o)] @ np.linalg.inv(V[np.ix_(o, o)]) @ V[np.ix_(o, m)]
    found = np.cov(y[:, j, m], rowvar=False)
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / 800)
    assert np.all(np.abs(found - expected) < 4.5 * error)
    mean = conditional(planned, at, 0, Assumption())[0, j, m]
    assert np.all(np.abs(y[:, j, m].mean(axis=0) - mean) < 4.5 * np.sqrt(np.diag(expected) / 800))


def test_rubins_rules_by_hand():
    # Three data sets: mean 2, B = 1, Ū = 0.5, T = 0.5 + 4/3.
    found = rubin(np.array([[1.0], [2.0], [3.0]]), np.array([[0.4], [0.5], [0.6]]), 50.0)
    T = 0.5 + 4.0 / 3.0
    share = (4.0 / 3.0) / T
    observed = 51.0 / 53.0 * 50.0 * (1.0 - share)
    assert found.estimate[0] == pytest.approx(2.0)
    assert found.se[0] == pytest.approx(np.sqrt(T))
    assert found.df[0] == pytest.approx(1.0 / (share**2 / 2.0 + 1.0 / observed))
    assert found.mcse[0] == pytest.approx(np.sqrt(1.0 / 3.0))


def test_where_nothing_is_filled_in_imputation_has_no_error(fit, planned):
    """The first visit was never missed: the same estimate in all data sets, but for rounding."""
    assert planned.seen[:, 0].all()
    for found in (hl.delta_adjusted(fit, -3.0, **ARMS, n=5), hl.reference_based(fit, "cir", **ARMS, n=5)):
        assert found.table["mcse"].iloc[0] == 0.0
        assert (found.table["mcse"].iloc[1:] > 1e-3).all()
        assert " 0\n" in repr(found)


def test_effects_as_functions_of_draws(planned):
    model = hl.TwoLevelModel.from_formula("y ~ arm * week + (1 | id)", trial())
    post = model.fit(seed=1, progressbar=False)
    found = hl.delta_adjusted(post, -3.0, **ARMS, time="week", n=300)
    assert found.method == "draws"
    table = found.table
    at_random = post.contrasts("arm", by="week").table["estimate"].to_numpy()
    np.testing.assert_allclose(table["at_random"], at_random, atol=4.0 * float(table["mcse"].max()))
    shift = -3.0 * planned.after[planned.arm == 1].mean(axis=0)
    spread = 3.0 * np.sqrt(0.25 / (planned.arm == 1).sum() / found.n)  # of a weighted share, at most
    assert np.all(np.abs(table["estimate"] - table["at_random"] - shift) < 4.5 * spread)
    j2r = hl.reference_based(post, "jump to reference", **ARMS, time="week", n=100).table
    # Jumping to the reference, the effect shrinks by the share that dropped out.
    kept = 1.0 - planned.after[planned.arm == 1].mean(axis=0)
    assert np.all(np.abs(j2r["estimate"] - kept * j2r["at_random"]) < 0.25)


def test_the_interval_reaches_zero_at_the_tipping_point(fit):
    found = hl.tipping_point(fit, np.linspace(0.0, -12.0, 5), **ARMS, n=20)
    assert found.visit == 3
    at = hl.delta_adjusted(fit, found.tipping, **ARMS, n=20).table.iloc[-1]
    assert at["lower"] == pytest.approx(0.0, abs=2e-3)
    assert "reaches zero if the y of those in drug" in " ".join(repr(found).split())
    never = hl.tipping_point(fit, [0.0, 0.1], **ARMS, n=20)
    assert np.isnan(never.tipping)
    assert "stays off zero if values are missing at random, and for every delta" in " ".join(repr(never).split())


def test_where_there_is_no_difference_none_is_lost(fit):
    held = hl.tipping_point(fit, [0.0, -1.0], **ARMS, n=20, ci=1.0 - 1e-9)
    assert held.holds_zero and np.isnan(held.tipping)
    assert "holds zero if values are missing at random, and for every delta" in " ".join(repr(held).split())
    left = hl.tipping_point(fit, np.linspace(0.0, 30.0, 5), **ARMS, n=20, visit=1)
    assert left.holds_zero and left.tipping > 0.0 and left.table["lower"].iloc[-1] > 0.0
    assert "so there is no difference to lose. It leaves zero if the y of those" in " ".join(repr(left).split())


def test_completed_data_sets_are_all_planned_rows(fit, mmrm):
    found = hl.impute(fit, 3, **ARMS, strategy="j2r", delta=-1.0)
    data = found.data(1)
    assert len(data) == 60 * 4
    assert data["imputed"].sum() == 240 - fit.n_obs
    same = data[~data["imputed"]].set_index(["id", "visit"])["y"]
    own = mmrm.data.set_index(["id", "visit"])["y"].reindex(same.index)
    np.testing.assert_array_equal(same, own)
    assert not np.allclose(data.loc[data["imputed"], "y"], found.data(2).loc[data["imputed"], "y"])
    again = hl.MarginalModel("y ~ arm * week", correlation=hl.CompoundSymmetry(), subject="id", data=data)
    assert again.fit_reml().converged
    assert len(list(found)) == 3
    assert "jump to reference, then -1" in repr(found)


def test_at_random_needs_no_arms(fit):
    plain = hl.impute(fit, 3)
    np.testing.assert_array_equal(plain.y, hl.impute(fit, 3, **ARMS).y)
    pd.testing.assert_frame_equal(plain.table, hl.impute(fit, 3, **ARMS).table)
    assert "missing at random" in repr(plain) and len(plain.data(0)) == 240
    for more in ({"strategy": "j2r"}, {"delta": 1.0}, {"reference": "placebo"}):
        with pytest.raises(SpecificationError, match=r"(?s)treatment=None.*the arms are not known.*use treatment="):
            hl.impute(fit, 3, **more)


@pytest.mark.parametrize("formula", ["y ~ arm * week + imputed", "imputed ~ arm * week"])
def test_a_column_called_imputed_is_not_overwritten(formula):
    data = trial().assign(imputed=lambda d: np.random.default_rng(0).normal(size=len(d)))
    fit = hl.MarginalModel(formula, correlation=hl.CompoundSymmetry(), subject="id", data=data).fit_reml()
    with pytest.raises(DataError, match=r"(?s)Received: .*a column 'imputed'.*Why not: .*To do: .*rename"):
        hl.impute(fit, 2, **ARMS, time="week", data=whole().assign(imputed=1.0))


def test_two_level_models_and_numbers_as_time():
    fit = hl.TwoLevelModel.from_formula("y ~ arm * visit + (1 + visit | id)", trial()).fit_reml()
    found = planned_of(fit, "arm", None, None, None, caller="test")
    at = at_estimates(analysis_of(found), Assumption())
    slope = fit.beta["arm[T.placebo]"] + fit.beta["arm[T.placebo]:visit"] * np.arange(4)
    np.testing.assert_allclose(at, -slope if found.arms[0] == "placebo" else slope, atol=1e-7)


def test_what_cannot_be_imputed_is_refused(fit, mmrm, dental):
    with pytest.raises(SpecificationError, match="no factor between subjects"):
        hl.impute(fit, treatment="week")
    with pytest.raises(SpecificationError, match="no level of 'arm'"):
        hl.impute(fit, treatment="arm", reference="nothing")
    with pytest.raises(SpecificationError, match="no strategy"):
        hl.reference_based(fit, "jump", **ARMS)
    with pytest.raises(SpecificationError, match="two or more"):
        hl.impute(fit, 1, **ARMS)
    with pytest.raises(SpecificationError, match="no arm"):
        hl.delta_adjusted(fit, {"other": 1.0}, **ARMS)
    with pytest.raises(NotAvailableError, match="normal distribution"):
        hl.impute(mmrm.fit_gee("independence"), **ARMS)
    complete = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_reml()
    with pytest.raises(NotAvailableError, match="measured at every visit"):
        hl.impute(complete, treatment="sex")
    rows = hl.MarginalModel("distance ~ sex * time", correlation=hl.AR1(), subject="subject", data=dental.iloc[:-1])
    with pytest.raises(NotAvailableError, match="counts the rows"):
        hl.impute(rows.fit_reml(), treatment="sex", time="time")
    data = trial().assign(dose=lambda d: np.random.default_rng(0).normal(size=len(d)))
    dosed = hl.MarginalModel(
        "y ~ arm * week + dose", correlation=hl.CompoundSymmetry(), subject="id", data=data
    ).fit_reml()
    with pytest.raises(DataError, match="give the planned rows"):
        hl.impute(dosed, **ARMS, time="week")
    assert len(hl.impute(dosed, 2, **ARMS, time="week", data=whole().assign(dose=0.5, y=0.0))) == 2


def unequal():
    """25 subjects of one arm with SD 12 against 125 with SD 4, or weights that differ by arm; one in twelve leaves."""
    rng = np.random.default_rng(5)
    root = np.linalg.cholesky(0.4 + 0.6 * np.eye(3))
    arm = np.where(np.arange(150) < 25, "act", "pbo")
    wide = np.where(arm == "act", 12.0, 4.0)[:, None] * (rng.normal(size=(150, 3)) @ root.T)
    data = pd.DataFrame({"id": np.repeat(np.arange(150), 3), "arm": np.repeat(arm, 3), "y": wide.ravel()})
    data["visit"] = np.tile(["V1", "V2", "V3"], 150)
    data["w"] = np.where(data["arm"] == "act", 1.0, 9.0)
    return data[(data["visit"] != "V3") | np.repeat(rng.random(150) > 0.08, 3)]


@pytest.mark.parametrize("own", [{"group": "arm"}, {"weights": "w"}])
def test_standard_errors_where_covariances_differ_between_arms(own):
    """The small arm varies three times as much: its own variance, not the average one, is in the standard error."""
    structure = hl.UnstructuredHeterogeneous("visit")
    fit = hl.MarginalModel("y ~ arm * visit", correlation=structure, subject="id", data=unequal(), **own).fit_reml()
    table = hl.delta_adjusted(fit, 0.0, treatment="arm", reference="pbo", n=100).table
    model = fit.contrasts("arm", "trt.vs.ctrl", reference="pbo", by="visit").table
    np.testing.assert_allclose(table["se"], model["se"], rtol=0.05)


def test_a_shift_in_one_arm_adds_to_the_variance_of_that_arm():
    """By Welch's formula from the completed responses of the last visit, whichever arm is shifted."""
    structure = hl.UnstructuredHeterogeneous("visit")
    fit = hl.MarginalModel(
        "y ~ arm * visit", correlation=structure, group="arm", subject="id", data=unequal()
    ).fit_reml()
    planned = planned_of(fit, "arm", "pbo", None, None, caller="test")
    for delta in ({"act": -30.0}, {"pbo": -10.0}):
        y = imputing.completed(planned, Assumption(delta=delta), 5, 1)
        _, variance, df = analysis_of(planned).analyse(y)
        parts = np.array([y[:, planned.arm == g, 2].var(axis=1, ddof=1) / (planned.arm == g).sum() for g in (0, 1)])
        # The weights of a delta are those of the model: equal within an arm, as every completed visit is.
        np.testing.assert_allclose(variance[:, 2], parts.sum(axis=0), rtol=1e-6)
        share = (parts / parts.sum(axis=0)).mean(axis=1)
        np.testing.assert_allclose(df[2], 1.0 / (share**2 / np.array([124.0, 24.0])).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda f: hl.delta_adjusted(f, "5", **ARMS), "delta='5'"),
        (lambda f: hl.delta_adjusted(f, pd.Series({"drug": -5.0}), **ARMS), "a Series was given"),
        (lambda f: hl.delta_adjusted(f, [-5, -2], **ARMS), "a list that holds"),
        (lambda f: hl.delta_adjusted(f, np.nan, **ARMS), "delta=nan"),
        (lambda f: hl.delta_adjusted(f, {"drug": "5"}, **ARMS), "finite number"),
        (lambda f: hl.delta_adjusted(f, {}, **ARMS), "finite number"),
        (lambda f: hl.impute(f, delta={"drug": None}, **ARMS), "finite number"),
        (lambda f: hl.delta_adjusted(f, -5, ci=95, **ARMS), "ci=95"),
        (lambda f: hl.delta_adjusted(f, -5, each_visit="no", **ARMS), "each_visit='no'"),
        (lambda f: hl.delta_adjusted(f, -5, n=0, **ARMS), "n=0"),
        (lambda f: hl.delta_adjusted(f, -5, n=1, method="draws", **ARMS), "n=1"),
        (lambda f: hl.delta_adjusted(f, -5, n=-3, method="draws", **ARMS), "n=-3"),
        (lambda f: hl.delta_adjusted(f, -5, seed=-1, **ARMS), "seed=-1"),
        (lambda f: hl.delta_adjusted(f, -5, treatment=["arm"]), "treatment="),
        (lambda f: hl.reference_based(f, None, **ARMS), "strategy=None"),
        (lambda f: hl.reference_based(f, "j2r"), "missing a required keyword-only argument"),
        (lambda f: hl.tipping_point(f, "abc", **ARMS), "deltas='abc'"),
        (lambda f: hl.tipping_point(f, [None, 1], **ARMS), "deltas="),
        (lambda f: hl.tipping_point(f, ci=95, **ARMS), "ci=95"),
        (lambda f: hl.impute(f, "5", **ARMS), "n='5'"),
        (lambda f: hl.missing_patterns(f, time=3), "time=3"),
        (lambda f: hl.check_dropout(f, by=["arm"]), "by="),
        (lambda f: hl.dropped_rows(f, data=None, rows=3), "no argument of this name"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(fit, ask, said):
    with pytest.raises(SpecificationError, match=r"(?s)Received: .*Why not: .*To do: ") as refused:
        ask(fit)
    assert said in str(refused.value)


def test_both_estimates_are_of_the_same_draws_whatever_the_seed(fit):
    for seed in (None, np.random.default_rng(1)):
        table = hl.delta_adjusted(fit, 0.0, **ARMS, n=3, seed=seed).table
        np.testing.assert_array_equal(table["estimate"], table["at_random"])


def test_the_sd_at_the_tipping_point_is_of_the_arm_that_is_shifted():
    structure = hl.UnstructuredHeterogeneous("visit")
    data = unequal()
    fit = hl.MarginalModel("y ~ arm * visit", correlation=structure, group="arm", subject="id", data=data).fit_reml()
    for arm, other in (("act", "pbo"), ("pbo", "act")):
        found = hl.tipping_point(fit, treatment="arm", arm=arm, reference=other, n=3)
        sd = data[(data["arm"] == arm) & (data["visit"] == "V3")]["y"].std()
        assert found.sd == pytest.approx(sd, rel=0.1)


def whole():
    """All planned rows of `trial`."""
    rows = pd.MultiIndex.from_product([np.arange(60), np.arange(4)], names=["id", "visit"]).to_frame(index=False)
    rows["week"] = pd.Categorical([f"W{v}" for v in rows["visit"]])
    return rows.assign(arm=np.where(rows["id"] % 2, "drug", "placebo"))


def test_measured_rows_keep_their_covariates():
    """Planned rows say what is not measured; the doses of measured rows are those of the fit."""
    data = trial()
    data["dose"] = np.random.default_rng(0).normal(size=len(data))
    structure = hl.CompoundSymmetry()
    dosed = hl.MarginalModel("y ~ arm * week + dose", correlation=structure, subject="id", data=data).fit_reml()
    planned = whole().assign(dose=0.25)
    completed = hl.impute(dosed, 2, **ARMS, time="week", data=planned).data(0)
    same = completed[~completed["imputed"]].merge(data, on=["id", "week"], suffixes=("", "_own"))
    assert len(same) == len(data)
    np.testing.assert_array_equal(same["dose"], same["dose_own"])
    assert (completed.loc[completed["imputed"], "dose"] == 0.25).all()
    with pytest.raises(DataError, match="two rows of id 0 at week 'W0'"):
        hl.impute(dosed, 2, **ARMS, time="week", data=pd.concat([planned, planned.iloc[:1]]))
    with pytest.raises(DataError, match="'arm' varies within id"):
        hl.impute(dosed, 2, **ARMS, time="week", data=planned.assign(arm="drug"))
    # A column whose name is part of the response's name is a covariate that is needed.
    named = hl.MarginalModel(
        "dosed ~ arm * week + dose", correlation=structure, subject="id", data=data.rename(columns={"y": "dosed"})
    ).fit_reml()
    with pytest.raises(DataError, match="add the column 'dose'"):
        hl.impute(named, 2, **ARMS, time="week", data=planned.drop(columns="dose"))


def test_a_transformed_response_is_completed_under_its_own_name():
    data = trial().assign(y=lambda d: np.exp(0.1 * d["y"]))
    fit = hl.MarginalModel("log(y) ~ arm * week", correlation=hl.CompoundSymmetry(), subject="id", data=data).fit_reml()
    found = hl.impute(fit, 2, **ARMS, time="week")
    completed = found.data(0)
    assert "y" not in completed
    assert completed["log(y)"].notna().all()
    assert "y is left out" in " ".join(repr(found).split())


def test_numbers_as_arms_and_names_of_columns(fit):
    """C(arm) with numbers gives what the labels give; a treatment may be called p."""
    data = trial().assign(p=lambda d: (d["arm"] == "drug").astype(int))
    structure = hl.UnstructuredHeterogeneous("visit")
    coded = hl.MarginalModel("y ~ C(p) * week", correlation=structure, subject="id", data=data).fit_reml()
    found = hl.delta_adjusted(coded, {1: -3.0}, treatment="p", n=3)
    own = hl.delta_adjusted(fit, -3.0, **ARMS, n=3).table
    assert found.table.index.names == ["visit", "at p"]
    np.testing.assert_allclose(found.table["se"], own["se"], rtol=0.3)
    shift = own["estimate"] - own["at_random"]
    np.testing.assert_allclose(found.table["estimate"] - found.table["at_random"], shift, atol=1e-8)
    assert "at p" in repr(found)
