"""Splines in formulas: R's ns, bs and poly; one basis for both parts and for new rows; fits against nlme and lme4."""

import json
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from references import data_elsewhere, references_of

from hierlmm.datasets import load_dataset
from hierlmm.design.splines import SplineBasis, learn_poly, learn_spline
from hierlmm.errors import DataError, FitWarning, FormulaError
from hierlmm.model import TwoLevelModel

FOLDER = references_of("splines")
FITS = sorted(p.stem for p in FOLDER.glob("p*.json") if p.stem.endswith(("reml", "_ml")))
BASES = json.loads((FOLDER / "bases.json").read_text())["bases"]


def read(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def first_prothrombin(data, column):
    return data.assign(basepro=data.groupby("id")[column].transform("first"))


@pytest.fixture(scope="module")
def pbc():
    data = load_dataset("pbc").rename(columns={"subject": "id"})
    data["sex"] = data["sex"].cat.rename_categories({"Male": "male", "Female": "female"})
    return first_prothrombin(data, "protime")


@pytest.fixture(scope="module")
def table(pbc):
    """Data of a reference by its R name."""

    def get(name):
        if name == "pbcseq":
            return pbc
        data = pd.read_csv(data_elsewhere(name))
        if name == "prothro":
            return data.assign(treat=pd.Categorical(data["treat"], ["placebo", "prednisone"]))
        areas = pd.read_csv(data_elsewhere("pbc2_cumprothrombin"))[["cum_trap", "cum_locf"]]
        data = pd.concat([data, areas], axis=1).assign(sex=pd.Categorical(data["sex"], ["male", "female"]))
        return first_prothrombin(data, "prothrombin")

    return get


# The bases ---------------------------------------------------------------------------------------------------------


def learn(ref):
    """Our basis for an R call such as ``ns(x, df = 3, Boundary.knots = c(1, 10))``."""
    kind, rest = re.fullmatch(r"(\w+)\(x, (.*)\)", ref["r_call"]).groups()
    rest = rest.replace("Boundary.knots", "boundary_knots").replace("TRUE", "True").replace("c(", "tuple_(")
    if kind == "poly":
        return learn_poly(ref["x"], int(rest))
    return eval(
        f"learn_spline(x, kind, {rest})",
        {
            "learn_spline": learn_spline,
            "tuple_": lambda *v: v,
            "x": ref["x"],
            "kind": kind,
        },
    )


@pytest.mark.parametrize("ref", BASES, ids=[f"{k}-{ref['r_call']}" for k, ref in enumerate(BASES)])
def test_basis_is_that_of_r(ref):
    basis = learn(ref)
    if ref["kind"] != "poly":
        np.testing.assert_allclose(basis.knots, np.atleast_1d(ref["knots"]), rtol=1e-12)
        np.testing.assert_allclose(basis.boundary, ref["boundary"], rtol=1e-12)
        assert basis.df == np.shape(ref["basis"])[1]
    np.testing.assert_allclose(basis.evaluate(ref["x"]), ref["basis"], rtol=1e-10, atol=1e-10)
    scale = np.maximum(1.0, np.abs(ref["new_basis"]))
    np.testing.assert_allclose(basis.evaluate(ref["new"]) / scale, ref["new_basis"] / scale, rtol=1e-10, atol=1e-10)


def test_ns_of_the_pbc_visits(table):
    ref = read("pbc_ns_basis")
    basis = learn_spline(table("pbc2")["year"], df=2)
    np.testing.assert_allclose(basis.knots, ref["knots"], rtol=1e-12)
    np.testing.assert_allclose(basis.boundary, ref["boundary_knots"], rtol=1e-12)
    np.testing.assert_allclose(basis.evaluate(ref["first10_year"]), ref["first10_basis"], atol=1e-10)
    np.testing.assert_allclose(basis.evaluate(ref["grid_year"]), ref["grid_basis"], atol=1e-10)


def test_natural_splines_are_linear_beyond_the_boundary_and_smooth_at_it():
    basis = learn_spline(np.linspace(0, 7, 50), df=4)
    far = basis.evaluate([-3, -2, -1, 8, 9, 10])
    np.testing.assert_allclose(np.diff(far[:3], 2, axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.diff(far[3:], 2, axis=0), 0.0, atol=1e-12)
    h = 1e-4
    for end in basis.boundary:  # second differences vanish on both sides, first ones agree
        values = basis.evaluate(end + h * np.arange(-2, 3))
        np.testing.assert_allclose(np.diff(values, 2, axis=0) / h**2, 0.0, atol=1e-2)


def test_b_splines_sum_to_one_and_ns_lies_in_their_span():
    x = np.linspace(1, 9, 200) ** 1.5
    bs = learn_spline(x, "bs", knots=[5, 9], intercept=True).evaluate(x)
    np.testing.assert_allclose(bs.sum(axis=1), 1.0, atol=1e-13)
    ns = learn_spline(x, knots=[5, 9]).evaluate(x)
    residual = ns - bs @ np.linalg.lstsq(bs, ns, rcond=None)[0]
    np.testing.assert_allclose(residual, 0.0, atol=1e-12)


def test_polynomials_are_orthonormal_whatever_the_origin():
    x = np.repeat(np.arange(9.0), 3)
    for shift in (0.0, 2000.0):
        columns = learn_poly(x + shift, 8).evaluate(x + shift)
        np.testing.assert_allclose(columns.T @ columns, np.eye(8), atol=1e-8)
        np.testing.assert_allclose(columns.sum(axis=0), 0.0, atol=1e-8)


def test_a_basis_is_frozen():
    basis = learn_spline([0.0, 1, 2, 4], df=2)
    assert isinstance(basis, SplineBasis)
    assert pickle.loads(pickle.dumps(basis)) == basis
    with pytest.raises(AttributeError):
        basis.knots = (1.0,)


# Fits --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FITS)
def pair(request, table):
    ref = read(request.param)
    model = TwoLevelModel.from_formula(ref["formula"], table(ref["data"]))
    return ref, model.fit_reml() if ref["method"] == "REML" else model.fit_ml()


def key(name):
    """A coefficient name of ours or of R as a set of factors: ``ns(year, 2)[1]`` is ``ns(year, 2)1``."""
    name = (
        "(Intercept)"
        if name == "Intercept"
        else name.replace("df = ", "df=").replace("knots = c(1, 4)", "knots=[1, 4]")
    )
    return frozenset(re.sub(r"\[(?:T\.)?(\w+)\]", r"\1", part) for part in name.split(":"))


def align(values, names):
    by_name = {key(name): value for name, value in values.items()}
    return np.array([by_name[key(name)] for name in names])


def test_fit_against_the_optimum(pair):
    ref, fit = pair
    best = ref["optimum"]
    assert (fit.n_obs, fit.n_subjects) == (ref["n_obs"], ref["n_groups"])
    assert fit.converged
    assert fit.loglik == pytest.approx(best["logLik"], rel=1e-11)
    np.testing.assert_allclose(fit.beta, align(best["coef"], fit.beta.index), rtol=1e-6)
    np.testing.assert_allclose(fit.beta_se, align(best["se"], fit.beta.index), rtol=1e-6)
    assert fit.sigma == pytest.approx(best["sigma"], rel=1e-6)
    assert [key(t) for t in fit.D.index] == [key(t) for t in best["random_terms"]]
    np.testing.assert_allclose(fit.D, best["D"], rtol=1e-6, atol=1e-12)
    b = fit.b.set_axis(fit.b.index.map(str)).loc[[str(level) for level in best["blup_levels"]]]
    np.testing.assert_allclose(b / fit.sd_b.to_numpy(), best["blup_first5"] / fit.sd_b.to_numpy(), atol=1e-5)
    np.testing.assert_allclose(fit.fitted("subject").iloc[:5], best["fitted_first5"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(fit.fitted("population").iloc[:5], best["fitted_pop_first5"], rtol=1e-5, atol=1e-7)


def test_fit_is_no_worse_than_nlme_and_near_it(pair):
    """nlme stops within 2e-4 standard errors of the optimum, at a likelihood that is lower by at most 4e-7."""
    ref, fit = pair
    theirs = ref["nlme"]
    assert fit.loglik >= theirs["logLik"] - 1e-9
    assert fit.loglik == pytest.approx(theirs["logLik"], rel=1e-9)
    se = align(theirs["se"], fit.beta.index)
    np.testing.assert_allclose((fit.beta - align(theirs["coef"], fit.beta.index)) / se, 0.0, atol=2e-4)
    np.testing.assert_allclose(fit.beta_se, se, rtol=1e-4)
    np.testing.assert_allclose(fit.sd_b, np.sqrt(np.diag(theirs["D"])), rtol=1e-4)
    np.testing.assert_allclose(fit.fitted("subject").iloc[:5], theirs["fitted_first5"], atol=1e-4 * fit.sigma)


def test_population_curve_with_its_standard_error(table):
    grid = read("pbc_effectplot_grid")
    fit = TwoLevelModel.from_formula(read("pbc_effectplot_lme_reml")["formula"], table("pbc2")).fit_reml()
    rows = pd.DataFrame(grid["grid"])
    np.testing.assert_allclose(fit.predict(rows, level="population")["estimate"], grid["pred"], rtol=1e-5)
    X = fit.design.new(rows, need_subject=False).X
    se = np.sqrt(np.einsum("ij,jk,ik->i", X, fit.beta_cov.to_numpy(), X))
    np.testing.assert_allclose(se, (np.array(grid["upp"]) - grid["low"]) / (2 * 1.96), rtol=1e-4)


def test_a_diagonal_d_depends_on_the_basis(pbc):
    """The same space of curves, other columns: an unstructured D gives the same fit, a diagonal D another model."""
    base = "log(bili) ~ {0} + ({0} {1} id)"
    spellings = ["ns(year, knots=3)", "cr(year, knots=[3], constraints='center')"]
    full, diagonal = (
        [TwoLevelModel.from_formula(base.format(s, bar), pbc).fit_ml().loglik for s in spellings] for bar in ("|", "||")
    )
    assert full[0] == pytest.approx(full[1], abs=1e-6)
    assert abs(diagonal[0] - diagonal[1]) > 1.0


# Both levels, and NUTS ---------------------------------------------------------------------------------------------


def test_two_levels_say_the_same_as_the_formula(pbc):
    combined = TwoLevelModel.from_formula("log(bili) ~ ns(year, 2) * sex + (1 + ns(year,2) | id)", pbc)
    levels = TwoLevelModel(
        "log(bili) ~ ns(year, 2)",
        {"Intercept": "sex", "ns(year,2)": "sex"},
        subject="id",
        data=pbc,
        random=["Intercept", "ns(year, 2)"],
    )
    names = [set(c.split(":")) for c in combined.design.coef]  # one of them writes ns:sex, the other sex:ns
    position = [names.index(set(c.split(":"))) for c in levels.design.coef]
    assert sorted(position) == list(range(6))
    assert levels.design.term == ("Intercept", "ns(year, 2)[1]", "ns(year, 2)[2]")
    assert levels.design.level1 == combined.design.level1 == levels.design.term
    np.testing.assert_array_equal(levels.design.X, combined.design.X[:, position])
    np.testing.assert_array_equal(levels.design.Z, combined.design.Z)
    assert levels.level2 == combined.level2 == {"Intercept": "sex", "ns(year, 2)": "sex"}
    again = TwoLevelModel.from_formula(levels.formula, pbc)
    np.testing.assert_array_equal(again.design.X, levels.design.X)
    only = TwoLevelModel("log(bili) ~ ns(year, 2)", subject="id", data=pbc, covariance="diagonal")
    assert only.formula == "log(bili) ~ 1 + ns(year, 2) + (1 + ns(year, 2) || id)"


def test_a_spline_at_level_2(pbc):
    model = TwoLevelModel("log(bili) ~ year", {"Intercept": "ns(age, 3)", "year": "sex"}, subject="id", data=pbc)
    columns = [c for c in model.design.coef if c.startswith("ns(age, 3)")]
    expected = learn_spline(pbc["age"], df=3).evaluate(pbc["age"])  # all rows, as R does
    got = model.design.X[:, [model.design.coef.index(c) for c in columns]]
    np.testing.assert_array_equal(got, expected)
    assert model.fit_reml().converged


@pytest.mark.parametrize("bar", ["|", "||"])
def test_nuts_with_a_random_spline(pbc, bar):
    some = pbc[pbc["id"] <= 100]
    model = TwoLevelModel.from_formula(f"log(bili) ~ ns(year, 2) * sex + (ns(year, 2) {bar} id)", some)
    fit, reml = model.fit(draws=1000, tune=1000, chains=4, seed=1, progressbar=False), model.fit_reml()
    assert fit.converged
    np.testing.assert_allclose((fit.beta - reml.beta) / reml.beta_se, 0.0, atol=0.4)
    assert fit.sigma == pytest.approx(reml.sigma, rel=0.05)
    np.testing.assert_allclose(fit.sd_b, reml.sd_b, rtol=0.3)
    new = some.iloc[[7]]
    posterior, restricted = fit.predict(new)["estimate"], reml.predict(new)["estimate"]
    np.testing.assert_allclose(posterior, restricted, atol=0.1)


def test_pymc_model_has_the_same_level_1(pbc):
    model = TwoLevelModel.from_formula("log(bili) ~ ns(year, 2) * sex + (ns(year, 2) || id)", pbc[pbc["id"] <= 30])
    built = model.to_pymc()
    assert list(built.coords["term"]) == ["Intercept", "ns(year, 2)[1]", "ns(year, 2)[2]"]
    assert list(built.coords["coef"])[1:3] == ["ns(year, 2)[1]", "ns(year, 2)[2]"]


# New data ----------------------------------------------------------------------------------------------------------

SPELLINGS = [
    "ns(year, 2)",
    "ns(year, df=3)",
    "ns(year, knots=[2, 5])",
    "ns(year, knots=4, boundary_knots=[1, 9])",
    "ns(np.sqrt(year), 2)",
    "ns(center(year), 2)",
    "bs(year, df=4)",
    "bs(year, df=3, degree=2)",
    "poly(year, 3)",
    "poly(year, 2, raw=True)",
]


@pytest.mark.parametrize("spline", SPELLINGS)
def test_one_row_gets_the_columns_it_had(pbc, spline):
    fit = TwoLevelModel.from_formula(f"log(bili) ~ {spline} * sex + (1 + {spline} || id)", pbc).fit_reml()
    rows = [5, 700, 1900]
    design = pickle.loads(pickle.dumps(fit.design))
    for row in rows:
        new = design.new(pbc.iloc[[row]], need_subject=True)
        np.testing.assert_array_equal(new.X[0], fit.design.X[row])
        np.testing.assert_array_equal(new.Z[0], fit.design.Z[row])
    np.testing.assert_allclose(fit.predict(pbc.iloc[rows])["estimate"], fit.fitted("subject").iloc[rows], rtol=1e-12)
    prefix = spline.split("(")[0]
    numbered = [c for c in fit.design.coef if c.startswith(prefix) and ":" not in c]
    assert [re.search(r"\[(\d)\]$", c).group(1) for c in numbered] == [str(k + 1) for k in range(len(numbered))]


def test_the_fitted_rows_make_the_knots(pbc):
    """Rows that are dropped, and new rows, have no say."""
    gaps = pbc.assign(bili=pbc["bili"].where(pbc["year"] < 6))
    with pytest.warns(FitWarning, match="were dropped"):
        model = TwoLevelModel.from_formula("log(bili) ~ ns(year, 3) + (1 | id)", gaps, missing="drop")
    early = pbc[pbc["year"] < 6]
    expected = learn_spline(early["year"], df=3)
    assert expected.boundary[1] < 6
    np.testing.assert_array_equal(model.design.X[:, 1:], expected.evaluate(early["year"]))


@pytest.mark.parametrize(
    ("spline", "shape"),
    [
        ("ns(year, 2)", "a straight line"),
        ("bs(year, df=4)", "the polynomial of its last piece"),
        ("cr(year, df=3, constraints='center')", "a straight line"),
    ],
)
def test_rows_beyond_the_boundary_knots_are_warned_about_once(pbc, spline, shape):
    fit = TwoLevelModel.from_formula(f"log(bili) ~ {spline} * sex + ({spline} || id)", pbc).fit_reml()
    new = pd.DataFrame({"id": [1, 1, 2], "sex": ["female"] * 3, "year": [16.0, 20.0, 1.0]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimate = fit.predict(new)["estimate"]
    assert [w.category for w in caught] == [FitWarning]
    message = str(caught[0].message)
    assert message.startswith(
        f"{spline} is extrapolated in 2 rows: year is 16 to 20, its boundary knots are 0 and 14.1"
    )
    assert shape in message
    assert Path(caught[0].filename) == Path(__file__)
    assert np.isfinite(estimate).all()


def test_no_warning_within_the_knots_or_for_a_rounded_boundary(pbc):
    fit = TwoLevelModel.from_formula("log(bili) ~ ns(year, 2) + (1 | id)", pbc).fit_reml()
    end = pbc["year"].max()
    fit.predict(pd.DataFrame({"id": [1, 1], "year": [0.0, end * (1 + 1e-15)]}))


def test_a_column_in_backticks_is_named_as_it_is(pbc):
    fit = TwoLevelModel.from_formula(
        "log(bili) ~ ns(`year of visit`, 2) + (1 | id)", pbc.rename(columns={"year": "year of visit"})
    ).fit_reml()
    with pytest.warns(FitWarning, match=r"^ns\(`year of visit`, 2\) is extrapolated in 1 row: year of visit is 20,"):
        fit.predict(pd.DataFrame({"id": [1], "year of visit": [20.0]}))


def test_boundary_knots_inside_the_data(pbc):
    """ns was asked for straight tails and says nothing, also of new rows among the data; bs warns as R does."""
    fit = TwoLevelModel.from_formula("log(bili) ~ ns(year, 2, boundary_knots=[1, 9]) + (1 | id)", pbc).fit_reml()
    fit.predict(pd.DataFrame({"id": [1], "year": [12.0]}))
    with pytest.warns(FitWarning, match="year is 15, its boundary knots are 1 and 9"):
        fit.predict(pd.DataFrame({"id": [1], "year": [15.0]}))
    with pytest.warns(FitWarning, match=r"bs\(year, 4, boundary_knots=\[1, 9\]\) is extrapolated in"):
        TwoLevelModel.from_formula("log(bili) ~ bs(year, 4, boundary_knots=[1, 9]) + (1 | id)", pbc)


def test_missing_and_infinite_new_values_are_errors_not_extrapolation(pbc):
    fit = TwoLevelModel.from_formula("log(bili) ~ ns(year, 2) + (1 | id)", pbc).fit_reml()
    with pytest.raises(DataError, match="has no finite value there"):
        fit.predict(pd.DataFrame({"id": [1], "year": [np.inf]}))
    with pytest.raises(DataError, match="incomplete"):
        fit.predict(pd.DataFrame({"id": [1], "year": [np.nan]}))


# Bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "error", "fragment"),
    [
        ("ns(year, 0)", FormulaError, "df is a whole number, here at least 1"),
        ("ns(year, 2.5)", FormulaError, "df=2.5"),
        ("ns(year, True)", FormulaError, "df=True"),
        ("ns(year, age)", FormulaError, "df that is no number"),
        ("bs(year, 2)", FormulaError, "here at least 3"),
        ("bs(year, df=4, degree=0)", FormulaError, "degree is a whole number"),
        ("ns(year, 2, knots=[3])", FormulaError, "df and knots both say"),
        ("ns(year, knots=[30])", DataError, "interior knots at 30 and boundary knots at 0 and 14.1"),
        ("ns(year, knots=[3, 3])", DataError, "knots coincide"),
        ("ns(year, knots=['a'])", FormulaError, "these are not numbers"),
        ("ns(year, 2, boundary_knots=[3])", FormulaError, "these are not two numbers"),
        ("ns(year, 2, boundary_knots=[30, 40])", FormulaError, "with data between them"),
        ("ns(year, 3, intercept=1)", FormulaError, "intercept is True or False"),
        ("bs(year, 4, lower_bound=0)", FormulaError, "bs has no argument of this name"),
        ("bs(year, 4, knot=[3])", FormulaError, "Did you mean 'knots'?"),
        ("ns(x=year)", FormulaError, "cannot be evaluated"),
        ("ns(np.log(year), 2)", DataError, "312 infinite or undefined values of np.log(year)"),
        ("ns(sex, 2)", FormulaError, "category values"),
        ("ns(poly(year, 2), 2)", FormulaError, "2 columns"),
        ("ns(one, 2)", DataError, "ns(one, 2) of one value (1)"),
        ("ns(visit, 6)", DataError, "use a smaller df (3 distinct values are there)"),
        ("ns(np.round(visit) * 0.1, 5)", DataError, "knots coincide"),
        ("poly(visit, 3)", DataError, "poly(visit, 3) of 3 distinct values"),
        ("poly(year, 0)", FormulaError, "degree=0"),
        ("offset(ns(year, 1))", FormulaError, "learns from the rows it sees"),
        ("offset(center(year))", FormulaError, "'center(year)' learns from the rows it sees"),
    ],
)
def test_what_cannot_be_used_is_refused(pbc, term, error, fragment):
    data = pbc.assign(one=1.0, visit=np.arange(len(pbc)) % 3)
    with pytest.raises(error) as caught:
        TwoLevelModel.from_formula(f"log(bili) ~ year + {term} + (1 | id)", data)
    assert fragment in str(caught.value)


def test_a_basis_with_the_constant_needs_a_formula_without_it(pbc):
    formula = "log(bili) ~ {} + ns(year, 3, intercept=True) + (1 | id)"
    with pytest.raises(DataError, match="rank 3"):
        TwoLevelModel.from_formula(formula.format("1"), pbc).fit_reml()
    without = TwoLevelModel.from_formula(formula.format("0"), pbc).fit_ml()
    same = TwoLevelModel.from_formula("log(bili) ~ ns(year, 2) + (1 | id)", pbc).fit_ml()
    assert without.loglik == pytest.approx(same.loglik, rel=1e-10)


def test_a_column_named_like_a_function_hides_it(pbc):
    with pytest.raises(FormulaError, match="hides the function"):
        TwoLevelModel.from_formula("log(bili) ~ ns(year, 2) + (1 | id)", pbc.assign(ns=1.0))
