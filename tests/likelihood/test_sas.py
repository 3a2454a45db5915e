"""SAS PROC MIXED on the data of a trial, as published with R's mmrm: likelihood, standard errors, degrees of freedom.

`polished` are the same models at the optimum by an independent program. SAS stops at a criterion that is up to 1.3e-5
above it; within a gap g the parameters are within √g of their standard errors, which is what its printed numbers are
allowed beside half a unit of their last digit.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from references import HERE, reference

import hierlmm as hl

SAS = reference("fev", "sas")
ENTRIES = {entry["id"]: entry for entry in SAS["entries"]}
ORDER, OCCASION = hl.VarIdent("AVISIT"), "VISITN"
STRUCTURES = {
    "AR(1)": (hl.AR1(OCCASION), None),
    "ARH(1)": (hl.AR1(OCCASION), ORDER),
    "CS": (hl.CompoundSymmetry(), None),
    "CSH": (hl.CompoundSymmetry(), ORDER),
    "TOEP": (hl.Toeplitz(OCCASION), None),
    "TOEPH": (hl.Toeplitz(OCCASION), ORDER),
    "SP(EXP)(VISITN)": (hl.Exponential(OCCASION), None),
    "SP(GAU)(VISITN)": (hl.Gaussian(OCCASION), None),
    "UN": (hl.UnstructuredHeterogeneous("AVISIT"), None),
}
METHODS = {"Satterthwaite": {"df": "satterthwaite"}, "Between-Within": {"df": "satterthwaite", "se": "empirical"}}
KR = {"Kenward-Roger": "kenward-roger", "Prasad-Rao-Jeske-Kackar-Harville": "kenward-roger-linear"}


@cache
def fitted(fixed, covariance, method, references, weights=None):
    data = pd.read_csv(HERE / "data" / "fev.csv").dropna(subset=["FEV1"])
    for factor, levels in references:
        data[factor] = pd.Categorical(data[factor], levels)
    correlation, variance = STRUCTURES[covariance]
    how = {"correlation": correlation, "variance": variance, "weights": weights, "subject": "USUBJID"}
    model = hl.MarginalModel(fixed, data=data, **how)
    return model.fit_reml() if method == "REML" else model.fit_ml()


def fit_of(entry):
    first = entry["reference_levels"]
    levels = {name: (first[name], *(v for v in entry["class_levels"][name] if v != first[name])) for name in first}
    return fitted(entry["fixed"], entry["covariance"], entry["method"], tuple(levels.items()))


def asked(entry):
    return METHODS.get(entry["df_method"]) or {"df": KR[entry["se_method"]]}


def sas_name(name):
    """``AVISIT[T.VIS2]:ARMCD[T.TRT]`` -> the parts of SAS's name."""
    return frozenset(name.replace("[T.", "[").split(":"))


def half_unit(decimals):
    return 0.5000001 * 10.0**-decimals


@pytest.fixture(params=ENTRIES)
def entry(request):
    return ENTRIES[request.param]


def test_likelihood_is_that_of_sas_and_never_lower(entry):
    fit = fit_of(entry)
    assert abs(fit.criterion - entry["minus2ll"]) < 1e-4
    assert fit.criterion < entry["minus2ll"] + 1e-6
    assert abs(fit.criterion - entry["polished"]["minus2ll"]) < 2e-7
    assert fit.converged


def test_standard_errors_and_degrees_of_freedom_at_the_optimum(entry):
    table = fit_of(entry).summary(**asked(entry))
    theirs = {sas_name(name): row for name, row in entry["polished"]["coef"].items()}
    assert len(table) == len(theirs)
    for name, ours in table.iterrows():
        row = theirs[sas_name(name)]
        assert ours["estimate"] == pytest.approx(row["estimate"], abs=2e-6)
        assert ours["se"] == pytest.approx(row["se"], abs=7e-7)
        if "df" in row:
            assert ours["df"] == pytest.approx(row["df"], abs=6e-4, rel=2e-6)


def test_printed_coefficients(entry):
    fit = fit_of(entry)
    table, slack = fit.summary(**asked(entry)), np.sqrt(entry["minus2ll"] - fit.criterion + 1e-8)
    theirs = {sas_name(row["name"]): row for row in entry["coef"]}
    for name, ours in table.iterrows():
        printed(ours, theirs[sas_name(name)], slack, df=entry["df_method"] != "Between-Within")


def printed(ours, row, slack, *, df):
    """Estimate, standard error, degrees of freedom and p against what SAS printed."""
    digits = row["decimals"] or {"estimate": 9, "se": 9, "df": 9, "p": 9}
    for name, by in (("estimate", ours["se"]), ("se", ours["se"]), *((("df", ours["df"]),) if df else ())):
        assert abs(ours[name] - row[name]) < half_unit(digits[name]) + slack * by, (name, ours[name], row[name])
    if not df or "p" not in ours:
        return
    if row["p"] is not None:
        assert abs(ours["p"] - row["p"]) < half_unit(digits["p"]) + slack * 0.25  # t moves by at most slack
    elif row["p_less_than"]:
        assert ours["p"] < row["p_less_than"] + 0.25 * slack


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.get("lsmeans")])
def test_least_squares_means_and_their_differences(name):
    entry = ENTRIES[name]
    fit, how = fit_of(entry), asked(entry)
    slack = np.sqrt(entry["minus2ll"] - fit.criterion + 1e-8)
    factors = list(entry["lsmeans"][0]["levels"])
    made = fit.marginal_means(factors, **how)
    place = {tuple(row): i for i, row in enumerate(made.table[factors].astype(str).itertuples(index=False, name=None))}
    for row in entry["lsmeans"]:
        ours = made.table.iloc[place[tuple(row["levels"][f] for f in factors)]]
        printed(ours, row, slack, df=entry["df_method"] != "Between-Within")
    for row in entry["diffs"]:
        first, second = (place[tuple(row[side][f] for f in factors)] for side in ("levels", "minus"))
        weights = np.zeros(len(made.table))
        weights[first], weights[second] = 1.0, -1.0
        ours = made.contrasts({"difference": weights}, adjust="none").table.iloc[0]
        printed(ours, row, slack, df=entry["df_method"] != "Between-Within")


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.get("type3")])
def test_type_three(name):
    """F, and its degrees of freedom rounded to whole numbers."""
    entry = ENTRIES[name]
    fit = fit_of(entry)
    table, slack = fit.anova(**asked(entry)), np.sqrt(entry["minus2ll"] - fit.criterion + 1e-8)
    ours = {frozenset(term.split(":")): row for term, row in table.iterrows()}
    for row in entry["type3"]:
        test = ours[frozenset(row["effect"].split("*"))]
        assert test["df1"] == row["num_df"]
        assert abs(test["F"] - row["F"]) < half_unit(row["decimals"]["F"]) + 2.0 * slack * np.sqrt(test["F"]) + slack
        if entry["df_method"] != "Between-Within":
            assert abs(test["df2"] - row["den_df"]) < half_unit(0) + slack * test["df2"]


@pytest.mark.parametrize("name", ["ar1_empirical", "un_empirical"])
def test_empirical_covariance_to_all_digits_that_its_optimum_has(name):
    """The sandwich moves with θ at first order: SAS's stop leaves four to five digits."""
    entry = ENTRIES[name]
    wald = fit_of(entry)._wald(None, "empirical")
    gap = entry["minus2ll"] - fit_of(entry).criterion
    np.testing.assert_allclose(wald.cov, entry["covb"]["matrix"], rtol=2.0 * np.sqrt(gap + 1e-8))


# Var(Intercept) and Var(ARMCD[TRT]) by SAS (CR0), without and with weights: design/Robust/ of mmrm 0.3.18.
SANDWICH = {
    "AR(1)": ((0.27666930670945, 0.68196697308307), (0.3741856039623, 0.95376377451164)),
    "ARH(1)": ((0.19106397930347, 0.46203608554929), (0.22611242154248, 0.60705140369159)),
    "CS": ((0.26910953746582, 0.6297163326325), (0.32402882795093, 0.81526337857816)),
    "CSH": ((0.19635239056617, 0.46038132267959), (0.21754684649458, 0.5806529085649)),
    "TOEP": ((0.30022945455349, 0.76371849328831), (0.39272956491025, 1.00563551122259)),
    "TOEPH": ((0.18350201218893, 0.46360435395588), (0.22472893956932, 0.60262173501823)),
    "UN": ((0.16725909903518, 0.40908637028234), (0.198001710472, 0.53420413502786)),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covariance", SANDWICH)
def test_empirical_covariance_of_other_structures_and_with_weights(covariance, weighted):
    fit = fitted("FEV1 ~ ARMCD", covariance, "REML", (("ARMCD", ("PBO", "TRT")),), "WEIGHT" if weighted else None)
    np.testing.assert_allclose(np.diag(fit._wald(None, "empirical").cov), SANDWICH[covariance][weighted], rtol=3e-4)


def test_small_sample_corrections_are_those_of_mmrm():
    """Snapshots of its tests, which hold CR2 and CR3 against clubSandwich; its optimum has four digits or five."""
    fit = fitted("FEV1 ~ ARMCD", "AR(1)", "REML", (("ARMCD", ("PBO", "TRT")),))
    theirs = {
        "empirical": (0.276669200825678, 0.681966674143019),
        "empirical-jackknife": (0.282126502688394, 0.696645916580453),
        "empirical-bias-reduced": (0.27938383855849, 0.689265455017577),
    }
    for kind, variances in theirs.items():
        np.testing.assert_allclose(np.diag(fit._wald(None, kind).cov), variances, rtol=5e-6)


def test_both_variants_agree_where_the_covariance_is_linear_and_only_there():
    for name, entry in ENTRIES.items():
        if name.endswith("_kr"):
            full, linear = (fit_of(entry).summary(df=df)["se"] for df in ("kenward-roger", "kenward-roger-linear"))
            apart = float(np.abs(full / linear - 1.0).max())
            assert apart == 0.0 if entry["covariance"] in ("CS", "UN") else apart > 1e-4


def test_aic_by_reml_counts_the_coefficients_and_those_of_mmrm_and_sas_do_not():
    """What mmrm prints of its first example: AIC 3406.4, BIC 3439.3 (docs, page on trials)."""
    fit = fitted("FEV1 ~ RACE + SEX + ARMCD * AVISIT", "UN", "REML", ())
    p, J = len(fit.beta), fit.n_subjects
    k = fit.n_parameters - p
    assert (p, k, J) == (11, 10, 197)
    assert f"{fit.aic:.1f}" == "3428.4" and f"{fit.aic - 2 * p:.1f}" == "3406.4"
    assert f"{fit.criterion + np.log(J) * k:.1f}" == "3439.3"
