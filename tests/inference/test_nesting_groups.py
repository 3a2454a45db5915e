"""D by group: what is called nested is reached exactly by the larger model, and what is not called so is not.

As in `test_nesting`: subjects in pairs with opposite responses, so that the likelihood is largest at known covariances,
here one for each of four groups, which are two of each of two coarser ones.
"""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.inference.chibar import orthant_weights
from hierlmm.inference.nesting import NotNested, changes

T = np.array([0.0, 1.0, 2.0, 4.0])
Z = np.column_stack([np.ones(4), T])
FULL = np.array([[1.0, 0.3], [0.3, 0.5]])
DIAGONAL = np.diag([0.8, 0.3])
ALIKE = np.array([[0.5, 0.2], [0.2, 0.5]])
ONE = np.diag([0.7, 0.0])
FINE, COARSE, OTHER, ALL = [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 2.5, 2.5], [1.0, 2.5, 1.0, 2.5], [1.0] * 4
STRUCTURES = {
    f"{name}, {by}": (D, sizes, bar, covariance, by)
    for name, D, bar, covariance in (
        ("intercept", ONE, "(1 | g)", None),
        ("diagonal", DIAGONAL, "(t || g)", None),
        ("both", FULL, "(t | g)", None),
        ("identity", 0.5 * np.eye(2), "(t | g)", "identity"),
        ("alike", ALIKE, "(t | g)", "compound_symmetry"),
    )
    for by, sizes in (("one", ALL), ("coarse", COARSE), ("other", OTHER), ("fine", FINE))
}


def frame_of(y):
    frame = pd.DataFrame({"g": np.repeat(np.arange(32), 4), "t": np.tile(T, 32), "y": y})
    frame["fine"] = np.repeat(list("abcd"), 32)
    return frame.assign(
        coarse=frame["fine"].isin(["c", "d"]).astype(str), other=frame["fine"].isin(["b", "d"]).astype(str)
    )


def model(name, of):
    """A structure for data at the covariances of one."""
    D, sizes, *_ = STRUCTURES[of]
    halves = [np.linalg.cholesky(np.eye(4) + size * Z @ D @ Z.T).T * 2.0 for size in sizes]
    y = np.concatenate([part for half in halves for part in (half, -half)])
    frame = frame_of(y.ravel())
    *_, bar, covariance, by = STRUCTURES[name]
    group = None if by == "one" else by
    return hl.TwoLevelModel.from_formula(f"y ~ 1 + {bar}", frame, covariance=covariance, group=group)


def said_to_be_nested(small, large):
    try:
        return changes(model(small, small).design, model(large, small).design)
    except NotNested:
        return None


def reached(small, large):
    D, sizes, *_ = STRUCTURES[small]
    V = [np.eye(4) + size * Z @ D @ Z.T for size in sizes]
    best = -4.0 * sum(4.0 * np.log(2.0 * np.pi) + np.linalg.slogdet(v)[1] + 4.0 for v in V)
    return model(large, small).fit_ml().loglik == pytest.approx(best, abs=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("large", ["both, fine", "both, coarse", "alike, fine", "diagonal, coarse", "both, one"])
def test_nested_is_what_is_reached(large):
    slow = large == "both, fine"  # contains all of them, and a few of them say so
    for small in list(STRUCTURES)[:: 3 if slow else 1]:
        if small != large:
            assert reached(small, large) == (said_to_be_nested(small, large) is not None), small


def information_on_slopes():
    """½ tr(V⁻¹AV⁻¹B) by definition: four variances of slopes, and what is fitted along, D's other entries and σ²."""
    one, t = Z.T
    ways = [np.outer(t, t), np.outer(one, one), np.outer(one, t) + np.outer(t, one)]
    whole = np.zeros((13, 13))
    for k, size in enumerate(COARSE):
        inverse = np.linalg.inv(np.eye(4) + size * Z @ ONE @ Z.T)
        A = [inverse @ way for way in (*ways, np.eye(4))]
        at = [k, 4 + k, 8 + k, 12]
        whole[np.ix_(at, at)] += [[0.5 * np.trace(a @ b) for b in A] for a in A]
    return whole[:4, :4] - whole[:4, 4:] @ np.linalg.solve(whole[4:, 4:], whole[4:, :4])


def test_boundaries_and_degrees_of_freedom():
    small, large = (model(name, "intercept, coarse").fit_ml() for name in ("intercept, coarse", "both, fine"))
    found = hl.anova(small, large)
    assert found.table["df"].iloc[1] == 10  # 3 × 4 parameters instead of 2
    (change,) = said_to_be_nested("intercept, coarse", "both, fine")
    assert (change.where, [c.size for c in change.cones]) == ("boundary", [1, 1, 1, 1])
    assert found.tests[0].mixture.first == 6  # two intercepts' variances and four covariances are free
    assert found.tests[0].mixture.weights == pytest.approx(orthant_weights(information_on_slopes(), seed=3), abs=0.01)
    assert "the same D for each fine" in repr(found)


@pytest.mark.filterwarnings("ignore")
def test_residual_groups_that_refine_others():
    columns = model("intercept, one", "intercept, fine").design
    data = frame_of(columns.y)

    def fit(group, formula="y ~ 1", **options):
        return hl.MarginalModel(formula, subject="g", data=data, group=group, **options).fit_ml()

    coarse, fine, other = (fit(by, correlation=hl.CompoundSymmetry()) for by in ("coarse", "fine", "other"))
    assert hl.anova(coarse, fine).table["df"].iloc[1] == 4
    assert hl.anova(fit(None, variance=hl.VarIdent("coarse")), fit("fine")).table["df"].iloc[1] == 2
    with pytest.raises(hl.SpecificationError, match="differ between groups by other"):
        hl.anova(other, fit("coarse", "y ~ 1 + t", correlation=hl.CompoundSymmetry()))
