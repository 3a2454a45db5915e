"""A design in its parts: terms learnt from a sample of rows and applied to others; several random terms."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.design.rows import RandomTerm, group_by
from hierlmm.design.terms import RandomColumns
from hierlmm.errors import DataError

FORMULAS = [
    "y ~ sex * (time + I(time ** 2)) + (1 + time | subject)",
    "y ~ arm * ns(time, knots=[1.5, 4], boundary_knots=[0, 6]) + offset(w) + (1 + time || subject)",
    "y ~ 0 + sex:arm + np.log(dose) + C(visit) + (0 + time | subject)",
    "y ~ bs(time, knots=[2], boundary_knots=[0, 6]):sex + arm + dose + (1 | subject) + (0 + dose | subject)",
]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(4)
    n = 60
    frame = pd.DataFrame({"subject": np.repeat(np.arange(n), 7), "visit": np.tile(np.arange(7), n)})
    frame["time"] = frame["visit"] + 0.0
    frame["sex"] = np.where(frame["subject"] % 2 == 0, "female", "male")
    frame["arm"] = frame["subject"].map(dict(enumerate(rng.permutation(["a", "b", "c"] * 20))))
    frame["dose"] = rng.uniform(1.0, 3.0, len(frame))
    frame["w"] = rng.normal(size=len(frame))
    frame["y"] = rng.normal(size=len(frame)) + frame["dose"]
    return frame


def build(formula, frame):
    return design_from_formula(parse_formula(formula), frame)


@pytest.mark.parametrize("formula", FORMULAS)
def test_terms_of_a_sample_applied_to_chunks_are_the_columns_of_the_whole(table, formula):
    whole = build(formula, table)
    terms = pickle.loads(pickle.dumps(build(formula, table[table["subject"] < 12]).terms))
    assert (terms.coef, terms.level1, terms.by_subject.names) == (whole.coef, whole.level1, whole.term)
    assert terms.by_subject.blocks == whole.blocks
    chunks = [terms.apply(chunk[list(terms.variables)]) for _, chunk in table.groupby(np.arange(len(table)) // 50)]
    for name in ("X", "Z", "X1", "offset"):
        np.testing.assert_allclose(np.concatenate([getattr(c, name) for c in chunks]), getattr(whole, name), rtol=1e-14)


@pytest.mark.filterwarnings("ignore:.*is extrapolated")
def test_what_terms_learnt_stays_learnt(table):
    """Knots and means are those of the sample, in whatever chunks the rows come."""
    sample = table[table["subject"] < 12]
    terms = build("y ~ ns(dose, 3) + center(w) + poly(time, 2) + (1 + time | subject)", sample).terms
    everything = terms.apply(table).X
    chunks = [terms.apply(table.iloc[k::5]).X for k in range(5)]
    for k, chunk in enumerate(chunks):
        np.testing.assert_array_equal(chunk, everything[k::5])
    centred = everything[:, terms.coef.index("center(w)")]
    np.testing.assert_allclose(centred, table["w"] - sample["w"].mean(), rtol=1e-12, atol=1e-14)


def test_terms_hold_no_rows(table):
    sizes = [len(pickle.dumps(build(FORMULAS[1], table[table["subject"] < n]).terms)) for n in (12, 60)]
    assert sizes[1] <= sizes[0] + 50  # the numbers of rows have more digits


def test_a_level_that_the_sample_did_not_have_is_refused(table):
    terms = build("y ~ arm + time + (1 | subject)", table[table["arm"] != "c"]).terms
    with pytest.raises(DataError, match="arm = 'c'"):
        terms.apply(table)


@pytest.fixture
def crossed(table):
    """Subjects and visits as crossed factors: an intercept and a slope by subject, a dose by visit."""
    design = build("y ~ sex * time + dose + (1 + time | subject)", table.sample(frac=0.8, random_state=1))
    columns = [design.level1.index("Intercept"), design.level1.index("dose")]
    visits = RandomColumns("visit", np.array(columns), ("Intercept", "dose"), ((0,), (1,)), "diagonal")
    frame = table.loc[design.frame.index]
    second = RandomTerm(visits, group_by(frame["visit"]), design.X1[:, columns])
    terms = replace(design.terms, random=(*design.terms.random, visits))
    return replace(design, terms=terms, random=(*design.random, second)), frame


def test_two_random_terms_give_the_marginal_covariance_of_the_definition(crossed):
    design, frame = crossed
    D = [np.array([[2.0, -0.3], [-0.3, 0.5]]), np.diag([0.7, 1.1])]
    sigma = 0.8
    V = sum(term.covariance(own) for term, own in zip(design.random, D, strict=True)) + sigma**2 * np.eye(len(frame))

    rows = list(frame.itertuples())
    by_hand = np.empty((len(rows), len(rows)))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            v = sigma**2 * (i == j)
            if a.subject == b.subject:
                v += np.array([1.0, a.time]) @ D[0] @ np.array([1.0, b.time])
            if a.visit == b.visit:
                v += np.array([1.0, a.dose]) @ D[1] @ np.array([1.0, b.dose])
            by_hand[i, j] = v
    np.testing.assert_allclose(V, by_hand, rtol=1e-13, atol=1e-13)
    assert np.linalg.eigvalsh(V)[0] > 0.0


def test_rows_of_a_second_factor_are_its_own(crossed):
    design, frame = crossed
    visits = design.random[1]
    np.testing.assert_array_equal(visits.group.labels[visits.group.index], frame["visit"])
    assert visits.group.sizes.sum() == len(frame)
    assert [own.columns.n_parameters for own in design.random] == [3, 2]
    new = design.terms.apply(frame.iloc[:9])
    for own in design.random:
        np.testing.assert_array_equal(new.X1[:, own.columns.columns], own.Z[:9])


def test_what_is_asked_of_a_design_is_asked_of_all_factors_side_by_side(crossed):
    design, frame = crossed
    assert design.term == ("Intercept | subject", "time | subject", "Intercept | visit", "dose | visit")
    assert (design.blocks, design.covariance, design.n_random_parameters) == (((0, 1), (2,), (3,)), "blocks", 5)
    np.testing.assert_array_equal(design.Z, np.column_stack([own.Z for own in design.random]))
    assert not design.Z.flags.writeable and design.random_structure.n_parameters == 5
    np.testing.assert_array_equal(design.terms.apply(frame.iloc[:9]).Z, design.Z[:9])
    bare = design.without_random()
    assert (bare.term, bare.blocks, bare.covariance, bare.Z.shape) == ((), (), "none", (len(frame), 0))


def test_every_part_is_read_only_and_stays_so(crossed):
    design, _ = crossed
    for found in (design, copy.deepcopy(design), pickle.loads(pickle.dumps(design))):
        for part in (found.terms, found.rows, found.rows.subject, *found.random, found.random[1].group):
            arrays = [v for v in vars(part).values() if isinstance(v, np.ndarray)]
            assert arrays and not any(array.flags.writeable for array in arrays), type(part).__name__
