"""Nested and crossed factors against the dense definition, finite differences, the two-level criterion, and lme4."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from factor_designs import SHAPES, drawn, several, some_lambda
from references import align, reference, references_of

import hierlmm as hl
from hierlmm.datasets import load_dataset
from hierlmm.design.design import Design
from hierlmm.design.rows import RandomTerm, group_by
from hierlmm.likelihood.crossproducts import working_rows
from hierlmm.likelihood.degrees import kenward_roger, satterthwaite_degrees
from hierlmm.likelihood.estimate import make_criterion, maximise_design
from hierlmm.likelihood.large_sample import large_sample
from hierlmm.likelihood.several_factors import factor_criterion, structure_of


def dense(design: Design, Lambda: np.ndarray, criterion) -> dict[str, np.ndarray]:
    """The same by matrices of the definition, in working columns with σ = 1."""
    XY = working_rows(design, np.arange(design.n_obs))[0].T
    V, parts, at = np.eye(design.n_obs), [], 0
    Bz = criterion.scaling.Bz
    for term in design.random:
        q = len(term.columns.names)
        own = slice(at, at + q)
        Z = term.Z @ np.linalg.inv(Bz[own, own])
        B = Lambda[own, own] @ Lambda[own, own].T
        parts.append((own, Z, B, term.group))
        V += np.where(term.group.index[:, None] == term.group.index, Z @ B @ Z.T, 0.0)
        at += q
    inverse = np.linalg.inv(V)
    EE, U = np.zeros((at, at)), np.zeros((at, at, XY.shape[1], XY.shape[1]))
    modes, covariances = [], []
    for own, Z, B, group in parts:
        mine = [np.where(group.index[:, None] == g, Z, 0.0) for g in range(len(group.labels))]
        u = np.array([z.T @ inverse @ XY for z in mine])
        EE[own, own] = sum(z.T @ inverse @ z for z in mine)
        U[own, own] = np.einsum("gia,gjb->ijab", u, u)
        modes.append(B @ u)
        covariances.append(np.array([B - B @ z.T @ inverse @ z @ B for z in mine]))
    log_det = np.linalg.slogdet(V)[1]
    return {
        "G": XY.T @ inverse @ XY,
        "log_det_T": log_det,
        "EE": EE,
        "U": U,
        "modes": modes,
        "covariances": covariances,
    }


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", SHAPES)
def test_elimination_is_the_dense_definition(shape, seed):
    design = drawn(shape, seed)
    criterion = factor_criterion(design, reml=True)
    Lambda = criterion.structure.factor(some_lambda(criterion, np.random.default_rng(seed)))
    found, expected = criterion.products.gather(Lambda), dense(design, Lambda, criterion)
    sums = found.sums._asdict() | {"G": found.sums.G + criterion.products.S_w}
    for name in ("G", "log_det_T", "EE", "U"):
        value = expected[name]
        size = float(np.abs(value).max())
        np.testing.assert_allclose(sums[name], value, rtol=1e-8, atol=1e-10 * size, err_msg=name)
    for k, mean in criterion.products.parts(found.mean):
        size = max(float(np.abs(expected["modes"][k]).max()), 1e-12)
        np.testing.assert_allclose(mean, expected["modes"][k], atol=1e-9 * size)
        # B - B Z'V⁻¹Z B is a difference: known to rounding of B, not of itself
        np.testing.assert_allclose(found.own[k], expected["covariances"][k], atol=1e-11 * np.abs(Lambda).max() ** 2)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_that_of_differences(shape, reml):
    design = drawn(shape, 11)
    criterion = factor_criterion(design, reml=reml)
    lam = np.random.default_rng(3).normal(size=criterion.structure.n_parameters)
    for function, at in (
        (lambda p: (criterion(p), criterion.evaluate(p).gradient), lam),
        (criterion.joint, np.append(lam, -0.2)),
    ):
        gradient = function(at)[1]
        steps = 1e-5 * np.eye(len(at))
        by_differences = [(function(at + e)[0] - function(at - e)[0]) / 2e-5 for e in steps]
        np.testing.assert_allclose(gradient, by_differences, rtol=2e-6, atol=2e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("bars", ["(1 | subject)", "(time | subject)", "(time || subject)"])
def test_with_one_factor_it_is_the_two_level_criterion(dental, bars):
    design = hl.TwoLevelModel.from_formula(f"distance ~ sex * time + {bars}", dental).design
    plain, several_factors = make_criterion(design, reml=True), factor_criterion(design, reml=True)
    rng = np.random.default_rng(1)
    for _ in range(5):
        lam = rng.normal(size=plain.structure.n_parameters)
        own, other = plain.evaluate(lam), several_factors.evaluate(lam)
        assert own.value == pytest.approx(other.value, rel=1e-12)
        np.testing.assert_allclose(own.gradient, other.gradient, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(own.gradient_B, other.gradient_B, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        plain.solution(lam).effects.mean(plain.solution(lam).beta),
        several_factors.solution(lam).by_factor[0].mean(several_factors.solution(lam).beta),
        rtol=1e-9,
        atol=1e-9,
    )
    np.testing.assert_allclose(
        plain.solution(lam).b_cov, several_factors.solution(lam).by_factor[0].covariance, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("bars", ["(time | subject)", "(time || subject)"])
def test_the_expected_hessian_of_groups_that_are_alike_is_the_dense_definition(dental, bars):
    design = hl.TwoLevelModel.from_formula(f"distance ~ sex * time + {bars}", dental).design
    criterion = factor_criterion(design, reml=False)
    lam = np.random.default_rng(1).normal(size=criterion.structure.n_parameters)
    Z = (design.Z @ np.linalg.inv(criterion.scaling.Bz))[design.subject_index == 0]

    def V(lam):
        Lambda = criterion.structure.factor(lam)
        return np.eye(len(Z)) + Z @ Lambda @ Lambda.T @ Z.T

    inverse, steps = np.linalg.inv(V(lam)), 1e-4 * np.eye(len(lam))
    slopes = [inverse @ (V(lam + step) - V(lam - step)) / 2e-4 for step in steps]  # exact: V is quadratic
    expected = [[design.n_subjects * np.trace(a @ b) for a in slopes] for b in slopes]
    np.testing.assert_allclose(criterion.expected_hessian(lam), expected, rtol=1e-8, atol=1e-8)


def test_rows_in_another_order_and_groups_by_other_names_change_nothing():
    design = drawn("nested beside crossed", 5)
    order = np.random.default_rng(0).permutation(design.n_obs)
    random = []
    for term in design.random:
        labels = pd.Series([f"g{9 - value % 10}{value}" for value in term.group.labels[term.group.index[order]]])
        random.append(RandomTerm(term.columns, group_by(labels.rename(term.columns.group)), term.Z[order]))
    rows = design.rows
    moved = replace(
        rows,
        frame=rows.frame.iloc[order],
        subject=replace(rows.subject, index=rows.subject.index[order]),
        **{name: getattr(rows, name)[order] for name in ("y", "offset", "X", "X1", "trials")},
    )
    other = replace(design, rows=moved, random=tuple(random))
    first, second = (factor_criterion(d, reml=True) for d in (design, other))
    lam = np.random.default_rng(2).normal(size=first.structure.n_parameters)
    assert first(lam) == pytest.approx(second(lam), rel=1e-12)
    np.testing.assert_allclose(first.evaluate(lam).gradient, second.evaluate(lam).gradient, rtol=1e-8, atol=1e-8)


LME4 = {
    "pastes_nested": ("strength ~ 1 + (1 | batch)", {"cask:batch": ["Intercept"], "batch": ["Intercept"]}),
    "penicillin_crossed": ("diameter ~ 1 + (1 | plate)", {"plate": ["Intercept"], "sample": ["Intercept"]}),
    "sleepstudy_by_day": (
        "reaction ~ days + (days | subject)",
        {"subject": ["Intercept", "days"], "day": ["Intercept"]},
    ),
    "rat_pups_crossed": (
        "weight ~ sex + (sex | litter)",
        {"litter": ["Intercept", "sex[T.Female]"], "lsize": ["Intercept"]},
    ),
}


DEGREES = {
    "pastes_nested_reml": (8.99999754463259, 8.99999999999937, 0.676870215074026),
    "penicillin_crossed_reml": (5.48659236245505, 5.4870618604518, 0.80859536138626),
}
"""Satterthwaite's degrees of freedom, Kenward and Roger's, and their standard error, of the mean."""


def data_of_reference(ref: dict) -> pd.DataFrame:
    frame = load_dataset(ref["data"].removesuffix("_by_day"))
    if "cask" in frame:
        frame["cask:batch"] = frame["cask"].astype(str) + ":" + frame["batch"].astype(str)
    if "days" in frame:
        frame["day"] = frame["days"].astype(str)
    if "weight" in frame:
        frame["sex"] = pd.Categorical(frame["sex"].astype(str), ["Male", "Female"])
    return frame


@pytest.mark.parametrize("name", sorted(path.stem for path in references_of("factors").glob("*.json")))
def test_lme4_at_the_optimum(name):
    ref = reference(name, "factors")
    formula, factors = LME4[name.rpartition("_")[0]]
    frame = data_of_reference(ref)
    design = several(formula, frame, [(frame[g], names, "|") for g, names in factors.items()])
    record = maximise_design(design, reml=ref["method"] == "REML")
    optimum, solution = ref["optimum"], record.solution
    assert record.optimum.converged
    assert record.optimum.value == pytest.approx(-2.0 * optimum["logLik"], rel=1e-9)
    assert record.optimum.value <= -2.0 * optimum["logLik"] + 1e-7
    np.testing.assert_allclose(solution.beta, align(optimum["coef"], design.coef), rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(solution.beta_cov)), align(optimum["se"], design.coef), rtol=1e-5)
    assert solution.sigma == pytest.approx(optimum["sigma"], rel=1e-5)
    sds = [row["sdcor"] for row in optimum["varcorr"] if row["var2"] is None and row["group"] != "Residual"]
    np.testing.assert_allclose(np.sqrt(np.diag(solution.D)), sds, rtol=1e-5, atol=1e-6)
    for term, effects in zip(design.random, solution.by_factor, strict=True):
        own = optimum["modes"][term.columns.group]
        at = pd.Index(term.group.labels.astype(str)).get_indexer(own["levels"])
        assert np.all(at >= 0) and len(at) == len(term.group.labels)
        blup, condvar = (np.array(own[key], dtype=float) for key in ("blup", "condvar"))
        np.testing.assert_allclose(effects.mean(solution.beta)[at], blup, rtol=1e-5, atol=1e-5 * np.abs(blup).max())
        np.testing.assert_allclose(
            effects.covariance[at], condvar, rtol=1e-5, atol=1e-5 * max(np.abs(condvar).max(), 1e-12)
        )


def test_a_variance_of_zero_is_found_and_named_as_one():
    """Groups that differ by nothing: the optimum lies on the boundary of one factor only."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"a": np.repeat(np.arange(20), 12), "b": np.tile(np.arange(12), 20)})
    frame["y"] = rng.normal(size=20)[frame["a"]] + rng.normal(size=240)
    frame["y"] -= frame.groupby("b")["y"].transform("mean")
    design = several("y ~ 1 + (1 | a)", frame, [(frame["a"], ["Intercept"], "|"), (frame["b"], ["Intercept"], "|")])
    record = maximise_design(design, reml=True)
    assert record.optimum.converged and record.optimum.n_boundary == 1
    np.testing.assert_allclose(np.diag(record.solution.D)[1], 0.0, atol=1e-12)
    alone = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | a)", frame).fit_reml()
    assert record.optimum.value == pytest.approx(alone.criterion, rel=1e-10)


def test_the_structure_of_all_factors_is_block_diagonal():
    design = several(
        "y ~ x + (1 + x | a)",
        pd.DataFrame({"a": np.arange(40) % 8, "x": np.arange(40.0) ** 0.5, "y": np.sin(np.arange(40.0))}),
        [
            (pd.Series(np.arange(40) % 8, name="a"), ["Intercept", "x"], "|"),
            (pd.Series(np.arange(40) // 10, name="b"), ["Intercept", "x"], "||"),
        ],
    )
    structure = structure_of(design)
    assert structure.n_parameters == 5 and structure.blocks == ((0, 1), (2,), (3,))


@pytest.mark.parametrize("seed", [2, 3, 6])
@pytest.mark.parametrize("shape", ["crossed", "nested beside crossed", "three levels"])
def test_kenward_roger_is_the_dense_definition(shape, seed):
    """Kenward and Roger (1997) with matrices of all rows, in the user's columns."""
    design = drawn(shape, seed)
    criterion = factor_criterion(design, reml=True)
    lam = np.random.default_rng(seed).uniform(0.3, 1.0, criterion.structure.n_parameters)
    solution = criterion.solution(lam)
    found = kenward_roger(solution)
    D, s2, N = solution.D, solution.sigma**2, design.n_obs
    derivatives, at, V = [], 0, s2 * np.eye(N)
    for term in design.random:
        q = len(term.columns.names)
        V += term.covariance(D[at : at + q, at : at + q])
        for block in term.columns.blocks:
            for i, a in enumerate(block):
                for b in block[i:]:
                    unit = np.zeros((q, q))
                    unit[a, b] = unit[b, a] = 1.0
                    derivatives.append(term.covariance(unit))
        at += q
    derivatives.append(np.eye(N))
    inverse, X = np.linalg.inv(V), design.X
    Phi = np.linalg.inv(X.T @ inverse @ X)
    m = len(derivatives)
    P = [-X.T @ inverse @ own @ inverse @ X for own in derivatives]
    Q = [[X.T @ inverse @ a @ inverse @ b @ inverse @ X for b in derivatives] for a in derivatives]
    information = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            information[i, j] = (
                np.trace(inverse @ derivatives[i] @ inverse @ derivatives[j])
                - 2.0 * np.trace(Phi @ Q[i][j])
                + np.trace(Phi @ P[i] @ Phi @ P[j])
            )
    W = 2.0 * np.linalg.inv(information)
    middle = sum(W[i, j] * (Q[i][j] - P[i] @ Phi @ P[j]) for i in range(m) for j in range(m))
    np.testing.assert_allclose(found.beta_cov, Phi, rtol=1e-8)
    np.testing.assert_allclose(found.adjusted, Phi + 2.0 * Phi @ middle @ Phi, rtol=1e-6)
    L = np.eye(len(Phi))
    g = np.array([[row @ Phi @ own @ Phi @ row / (row @ Phi @ row) for own in P] for row in L])
    np.testing.assert_allclose(found.of_rows(L), 2.0 / np.einsum("ki,ij,kj->k", g, W, g), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(DEGREES))
def test_degrees_of_freedom_of_lmertest_and_pbkrtest(name):
    """By lmerTest 3.1-3 and pbkrtest 0.5.2 at lme4's own stop: `summary(fit, ddf=...)`, `vcovAdj(fit)`."""
    ref = reference(name, "factors")
    formula, factors = LME4[name.rpartition("_")[0]]
    frame = data_of_reference(ref)
    design = several(formula, frame, [(frame[g], names, "|") for g, names in factors.items()])
    solution = maximise_design(design, reml=True).solution
    L = np.ones((1, 1))
    large = large_sample(solution.criterion, solution.lam, solution.whitened_sd)
    satterthwaite, kr_df, kr_se = DEGREES[name]
    assert satterthwaite_degrees(large).of_rows(L)[0] == pytest.approx(satterthwaite, rel=1e-3)
    found = kenward_roger(solution)
    assert found.of_rows(L)[0] == pytest.approx(kr_df, rel=1e-3)
    assert np.sqrt(found.adjusted[0, 0]) == pytest.approx(kr_se, rel=1e-4)


def test_scales_beyond_what_rounding_leaves_of_V_are_passed_over():
    """Λ = 10⁷ is tried, where school = Σ class is lost; criteria: lmer's, bobyqa with rhoend = 1e-10, lme4 1.1-31."""
    rng, n = np.random.default_rng(5), 240
    s, c, r, w = (rng.integers(0, k, n) for k in (8, 3, 7, 6))
    y = 10 + rng.normal(0, 2, 8)[s] + rng.normal(0, 1, (8, 3))[s, c] + rng.normal(0, 0.8, 7)[r]
    y = y + rng.normal(0, 0.5, 6)[w] + rng.normal(size=n)
    data = pd.DataFrame({"y": y, "school": s, "class": c, "rater": r, "day": w})
    formula = "y ~ 1 + (1 | school / class) + (1 | rater) + (1 | day)"
    fit = hl.MultilevelModel.from_formula(formula, data).fit_reml()
    assert fit.criterion == pytest.approx(796.349280166, abs=1e-6)
    plates = load_dataset("penicillin")
    plates["day"] = plates.groupby("plate").ngroup() // 6
    fit = hl.MultilevelModel.from_formula("diameter ~ 1 + (1 | day / plate) + (1 | sample)", plates).fit_reml()
    assert fit.criterion == pytest.approx(330.231509063, abs=1e-6)
