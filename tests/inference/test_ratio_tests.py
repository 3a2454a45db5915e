"""Likelihood-ratio tests against R's, their refusals, and when a mixture of χ² belongs there."""

import numpy as np
import pandas as pd
import pytest
from references import data_elsewhere
from scipy.stats import chi2

import hierlmm as hl
from hierlmm.inference.chibar import ChiBar

LMER_QUADRATIC = -3568.27056979673
"""lmer(cd4 ~ obstime + I(obstime^2) + (obstime + I(obstime^2)):drug + (obstime + I(obstime^2) | patient), aids)."""


def agrees(result, rows, p=None):
    table = result.table
    for (_, ours), theirs in zip(table.iterrows(), rows, strict=True):
        assert ours["npar"] == theirs["npar"]
        assert ours["loglik"] == pytest.approx(theirs["loglik"], abs=1e-4)
        assert ours["aic"] == pytest.approx(theirs["aic"], abs=2e-4)
        if theirs["p"] is not None:
            assert ours["chisq"] == pytest.approx(theirs["chisq"], abs=1e-4)
            assert ours["p"] == pytest.approx(theirs["p"], rel=1e-3, abs=1e-4)
    if p is not None:
        assert table["p_mixture"].iloc[-1] == pytest.approx(p, rel=1e-3, abs=1e-4)


def by_ml(formula, data):
    return hl.TwoLevelModel.from_formula(formula, data).fit_ml()


def test_growth_by_reml_by_ml_and_with_other_fixed_effects(growth, comparisons):
    ours, pr = growth, comparisons["pr"]
    agrees(hl.anova(ours["slope"], ours["intercept"]), pr["reml_ri_vs_rirs"], pr["mixture_p_reml"])
    both = hl.anova(ours["intercept"], ours["time only"], ours["slope"])  # fits by REML, of other fixed effects
    agrees(both, [*pr["ml_time_vs_sextime_ri"], pr["ml_ri_vs_rirs"][1]], pr["mixture_p_ml"])
    assert both.method == "ML"
    assert "fitted again by ML" in both.notes[0]
    assert list(both.table.index) == ["m2", "m1", "m3"]


def test_structures_of_marginal_models(growth, comparisons):
    for small, rows in (("cs", "lrt_cs_vs_un"), ("ar1", "lrt_ar1_vs_un")):
        agrees(hl.anova(growth[small], growth["un"]), comparisons["gls_reml"][rows])


def test_sleepstudy(sleepstudy, comparisons):
    formulas = [f"reaction ~ days + ({bar} subject)" for bar in ("1 |", "days ||", "days |")]
    for fit, rows in (("fit_reml", "reml_refit_false"), ("fit_ml", "ml_refit")):
        fits = [getattr(hl.TwoLevelModel.from_formula(f, sleepstudy), fit)() for f in formulas]
        agrees(hl.anova(*fits), comparisons["sleepstudy"][rows])
    null = by_ml("reaction ~ 1 + (days | subject)", sleepstudy)
    agrees(hl.anova(null, fits[2]), comparisons["sleepstudy"]["ml_days_effect"])
    one, two = (hl.TwoLevelModel.from_formula(formulas[k], sleepstudy).fit_reml() for k in (0, 2))
    mixture = hl.anova(one, two).table["p_mixture"].iloc[1]
    assert mixture == pytest.approx(comparisons["sleepstudy"]["mixture_p_ri_vs_rirs_reml"], rel=1e-4)


def test_negative_correlation(comparisons):
    data = hl.load_dataset("negative_icc")
    models = [
        hl.MarginalModel("y ~ time + x", subject="subject", data=data, correlation=c)
        for c in (None, hl.CompoundSymmetry())
    ]
    for name in ("ml", "reml"):
        result = hl.anova(*(getattr(m, f"fit_{name}")() for m in models))
        agrees(result, comparisons[f"negicc_{name}"])
        assert np.isnan(result.table["p_mixture"].iloc[1])  # a correlation of zero is inside


def test_aids(comparisons):
    data_elsewhere("aids")
    data, ours = hl.load_dataset("aids"), comparisons["aids"]
    linear = "cd4 ~ obstime + obstime:drug"
    square = "cd4 ~ obstime + I(obstime**2) + obstime:drug + I(obstime**2):drug"

    def fit(formula, how="reml", **options):
        return getattr(hl.TwoLevelModel.from_formula(formula, data, **options), f"fit_{how}")()

    one, slope = (fit(f"{linear} + ({bar} | subject)") for bar in ("1", "obstime"))
    agrees(hl.anova(one, slope), ours["ri_vs_rirs_reml"], ours["mixture_p_ri_vs_rirs_reml"])
    agrees(hl.anova(fit(f"{linear} + (obstime || subject)"), slope), ours["diag_vs_full_reml"])
    agrees(hl.anova(fit("cd4 ~ obstime + (obstime | subject)"), slope), ours["ml_time_vs_timedrug"])
    straight, curved = (fit(f"{square} + ({bar} | subject)") for bar in ("obstime", "obstime + I(obstime**2)"))
    # nlme stops 2.44 below the maximum, which lmer reaches too; the mixture at nlme's statistic is the published one.
    row, small = hl.anova(straight, curved).table.iloc[1], ours["quad_rirs_vs_rirsq_reml"][0]
    assert row["loglik"] == pytest.approx(LMER_QUADRATIC, abs=1e-4)
    statistic = 2.0 * (LMER_QUADRATIC - small["loglik"])
    expected = 0.5 * chi2.sf(statistic, 2) + 0.5 * chi2.sf(statistic, 3)
    assert row["p_mixture"] == pytest.approx(expected, abs=1e-5)
    early = ours["quad_rirs_vs_rirsq_reml"][1]["chisq"]
    assert ChiBar(2, (0.5, 0.5)).sf(early) == pytest.approx(ours["quad_mixture_p"], rel=1e-6)
    serial = fit(f"{square} + (1 | subject)", residual=hl.Exponential("obstime"))
    agrees(hl.anova(fit(f"{square} + (1 | subject)"), serial), ours["serial_model1_vs_none"])


def test_prothro_and_active(comparisons):
    data = hl.load_dataset("prothro") if data_elsewhere("prothro") else None
    fits = [by_ml(f"pro ~ {f} + (ns(time, 3) || subject)", data) for f in ("ns(time, 3)", "ns(time, 3) * treat")]
    agrees(hl.anova(*fits), comparisons["prothro"])
    active = pd.read_csv(data_elsewhere("sim_active")).assign(mem=lambda d: d["intgrp"].eq("Memory Training") * 1.0)
    time = "memory ~ years * I(years > 3)"
    full, memory, parallel = (by_ml(f"{time} {g} + (1 | aid)", active) for g in ("* intgrp", "* mem", "+ intgrp"))
    agrees(hl.anova(parallel, full), comparisons["simactive"]["mod4_vs_mod1"])
    # `mem` is no name among the columns of the larger model, but a combination of them.
    agrees(hl.anova(memory, full), comparisons["simactive"]["mod3_vs_mod1"])


def test_families(patients):
    def fit(formula, family="poisson", **options):
        return hl.TwoLevelModel.from_formula(formula, patients, family=family).fit_ml(**options)

    two = fit("seizures ~ week * arm + (1 | patient)"), fit("seizures ~ week + (1 | patient)")
    table = hl.anova(*two).table
    assert table["chisq"].iloc[1] == pytest.approx(2.0 * (two[0].loglik - two[1].loglik), abs=1e-12)
    assert table["df"].iloc[1] == 2
    with pytest.raises(hl.SpecificationError, match="other accuracy"):
        hl.anova(two[0], fit("seizures ~ week + (1 | patient)", n_quadrature=5))
    with pytest.raises(hl.SpecificationError, match="no test of one within the other"):
        hl.anova(two[1], fit("seizures ~ week + (1 | patient)", "negative_binomial"))


def four_parts(error):
    text = str(error.value)
    return all(part in text for part in ("Received:", "Why not:", "To do:", "Read:"))


def test_what_cannot_be_tested_is_refused(growth, dental, dental_like_nuts):
    two, other = growth["intercept"], hl.TwoLevelModel.from_formula

    def refused(match, *fits, kind=hl.SpecificationError):
        with pytest.raises(kind, match=match) as error:
            hl.anova(*fits)
        assert four_parts(error)

    model = other("distance ~ sex * time + (1 | subject)", dental)
    refused("no maximum", two, dental_like_nuts)
    refused("no likelihood", two, model.fit_gee())
    refused("restricted likelihood is of other numbers", two, growth["slope"].design and model.fit_ml())
    refused("transformed responses", two, other("log(distance) ~ sex * time + (time | subject)", dental).fit_reml())
    refused("nothing to compare", two)
    refused("compares fits", two, model)
    fewer = other("distance ~ sex * time + (time | subject)", dental[dental["age"] < 14]).fit_reml()
    refused("not about the same rows", two, fewer, kind=hl.DataError)
    turned = other("distance ~ sex * time + (time | subject)", dental[::-1]).fit_reml()
    refused("not in the same order", two, turned, kind=hl.DataError)
    shuffled = dental.assign(subject=np.roll(dental["subject"].to_numpy(), 2))
    assert not shuffled["subject"].equals(dental["subject"])
    refused("other subjects", two, other("distance ~ time + (time | subject)", shuffled).fit_reml(), kind=hl.DataError)
    refused("none has more to test", growth["cs"], growth["ar1"])
    refused(
        "not among those of the larger",
        other("distance ~ I(age == 8) + (1 | subject)", dental).fit_ml(),
        model.fit_ml(),
    )
    refused("no special case of CompoundSymmetry", growth["ar1"], _csh(dental))
    refused(
        "may not in the larger",
        other("distance ~ sex * time + (0 + time | subject)", dental).fit_reml(),
        _serial(dental),
    )


def _csh(dental):
    structure = {"correlation": hl.CompoundSymmetry(), "variance": hl.VarIdent("age")}
    return hl.MarginalModel("distance ~ sex * time", subject="subject", data=dental, **structure).fit_reml()


def _serial(dental):
    formula = "distance ~ sex * time + (1 | subject)"
    return hl.TwoLevelModel.from_formula(formula, dental, residual=hl.AR1()).fit_reml()


def test_a_bootstrap_of_the_table(growth):
    found = hl.anova(growth["slope"], growth["intercept"], test="bootstrap", n=60, seed=1, progressbar=False).table
    row = found.loc["m1"]
    assert row["p_bootstrap"] == pytest.approx(row["p_mixture"], abs=4.0 * np.sqrt(0.25 / 60))
    assert (row["p_bootstrap"] * 61) % 1.0 == pytest.approx(0.0, abs=1e-9)


def test_the_page_says_what_was_tested(growth):
    result = hl.anova(growth["independent"], growth["exponential"], labels=["none", "serial"])
    text = repr(result)
    assert "none is serial with independent residuals" in text
    assert "½χ²(0) + ½χ²(1)" in text
    assert "<table>" in result._repr_html_()
    row = result.table.loc["serial"]
    assert row["p_mixture"] == pytest.approx(0.5 * row["p"])
