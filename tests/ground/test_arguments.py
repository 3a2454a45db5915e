"""One vocabulary: every argument of every public callable has the name of its concept, and is described."""

import inspect
import re
from pathlib import Path

import pytest
from inventory import arguments_of, documented, public_callables, undescribed

import hierlmm as hl
from hierlmm import plots
from hierlmm.diagnostics.calibration import Calibration
from hierlmm.effects.curves import EffectCurves
from hierlmm.fit.verbs import Verbs

RENAMED = [
    (Verbs.effects, "focal", "variable"),
    (Verbs.plot_effects, "focal", "variable"),
    (hl.Comparison.plot_effects, "focal", "variable"),
    (hl.plot_effects, "focal", "variable"),
    (hl.plot_effects, "residuals", "residual_level"),
    (EffectCurves.points, "residuals", "residual_level"),
    (Verbs.marginal_means, "specs", "variables"),
    (Verbs.contrasts, "specs", "variables"),
    (hl.VarIdent, "covariate", "variable"),
    (hl.VarPower, "covariate", "variable"),
    (hl.VarExp, "covariate", "variable"),
    (hl.CurrentValue, "x", "variable"),
    (hl.LastValue, "x", "variable"),
    (hl.Lag, "x", "variable"),
    (hl.Lag, "by", "lag"),
    (hl.Interpolate, "x", "variable"),
    (hl.Cumulative, "x", "variable"),
    (hl.TimeSince, "x", "variable"),
    (hl.within_between, "x", "variables"),
    (hl.check_exogeneity, "covariate", "variable"),
    (hl.check_exogeneity, "level", "alpha"),
    (hl.check_exogeneity, "adjust", "adjust_for"),
    (plots.plot_trajectories, "x", "variable"),
    (plots.plot_forest, "inner", "inner_ci"),
    (plots.plot_shrinkage, "ellipse", "coverage"),
    (Calibration.plot, "prob", "ci"),
    (hl.calibrate, "n", "simulations"),
    (hl.calibrate, "method", "estimator"),
    (hl.design_analysis, "n", "simulations"),
    (hl.design_analysis, "method", "estimator"),
    (hl.design_analysis, "coef", "coefs"),
    (hl.design_analysis, "reference", "quantiles"),
    (hl.to_long, "id", "subject"),
    (hl.to_long, "names_to", "time"),
    (hl.to_long, "values_to", "response"),
    (hl.to_long, "drop_missing", "missing"),
]


@pytest.mark.parametrize(
    ("what", "earlier", "now"), RENAMED, ids=[f"{what.__qualname__}-{earlier}" for what, earlier, _ in RENAMED]
)
def test_an_earlier_name_is_refused_with_the_one_to_use(what, earlier, now):
    with pytest.raises(hl.SpecificationError, match=rf"use {now}\n") as caught:
        what(**{earlier: "value"})
    assert f"{what.__name__} with {earlier}='value'" in str(caught.value)


def test_an_earlier_name_is_refused_through_the_doors_that_pass_options_on(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    for draw, earlier, now in (
        (fit.plot_forest, {"inner": 0.8}, "inner_ci"),
        (fit.plot_shrinkage, {"ellipse": 0.9}, "coverage"),
        (fit.plot_trajectories, {"x": "time"}, "variable"),
        (fit.plot_effects, {"residuals": "subject"}, "residual_level"),
        (hl.compare(fit, labels=["REML"]).plot_effects, {"focal": "time"}, "variable"),
    ):
        with pytest.raises(hl.SpecificationError, match=f"use {now}"):
            draw(backend="none", **earlier)


def test_other_unknown_names_are_a_type_error_too():
    with pytest.raises(TypeError, match="Did you mean 'variable'"):
        hl.VarIdent(vriable="sex")


# The vocabulary.

PAGE = Path(__file__).parents[2] / "docs" / "arguments.md"
LINES = ("subject", "population", "new_subject", "marginal")

# Name of a concept -> other words for it, which no public callable may use.
OTHER_WORDS = {
    "ci": "prob probability confidence conf_level cred_mass hdi hdi_prob ci_prob width",
    "alpha": "significance sig_level size_of_test",
    "seed": "random_state random_seed rng",
    "cores": "jobs n_jobs workers processes threads n_cores parallel",
    "progressbar": "progress verbose quiet show_progress",
    "draws": "samples n_draws n_samples num_samples",
    "simulations": "n_sim nsim reps replications n_simulations",
    "variable": "focal covariate predictor column col x specs feature",
    "coefs": "coef coefficient coefficients",
    "parameters": "params pars var_names",
    "by": "group_by groupby split hue",
    "at": "given fixed_at held",
    "estimator": "engine approach method",
    "subject": "id cluster",
    "subjects": "ids clusters",
    "time": "names_to date",
    "response": "values_to outcome",
    "newdata": "new_data data_new",
    "missing": "drop_missing dropna na_action",
    "residual_level": "residuals",
    "coverage": "ellipse",
    "inner_ci": "inner",
}
# What the same word means elsewhere: the name at the end of a callable, and its argument.
ELSEWHERE = {
    ("contrasts", "method"),  # which comparisons
    ("variance_components", "method"),  # Wald or profile
    ("summary", "method"),
    ("intraclass_correlation", "method"),
    ("r_squared", "method"),
    ("Bootstrap.table", "method"),  # percentile, basic or BCa
    ("Bootstrap.plot", "method"),
    ("delta_adjusted", "method"),  # by imputation or by draws
    ("reference_based", "method"),
    ("tipping_point", "method"),
    ("sample", "rng"),  # a generator, from which many draws of one study come
    ("sample_cholesky", "rng"),
    ("draw", "rng"),
    ("logpdf", "x"),  # a number, not a name
    ("prepare", "column"),  # the values of the column
    ("apply", "column"),
}
MAKES_NEW_DRAWS = {
    "fit",
    "compare",
    "bootstrap",
    "intraclass_correlation",
    "r_squared",
    "calibrate",
    "design_analysis",
    "multilevel_design_analysis",
    "simulate_multilevel",
    "simulate",
    "prior_predictive",
    "posterior_predictive",
}


@pytest.fixture(scope="module")
def public():
    return public_callables()


@pytest.fixture(scope="module")
def asked(public):
    """Arguments that users give: (name of the callable, argument) -> its parameter; results are made by functions."""
    return {
        (name, argument): parameter
        for name, (item, _) in public.items()
        if not inspect.isclass(item) or documented(item.__doc__)
        for argument, parameter in arguments_of(item).items()
    }


def test_the_inventory_sees_methods_and_what_they_return(public):
    names = {name.split("hierlmm.")[1] for name in public}
    assert {
        "model.TwoLevelModel",
        "model.TwoLevelModel.fit",
        "fit.effects.EffectVerbs.effects",
        "plots.forest.plot_forest",
        "effects.table.Effects.contrasts",
        "diagnostics.calibration.Calibration.plot",
        "interpret.ranking.Ranking.plot",
        "bayes.distributions.Normal.sample",
    } <= names


def test_every_argument_is_described(public):
    absent = {name: left for name, (item, owner) in public.items() if (left := undescribed(item, owner))}
    assert not absent


def test_a_concept_has_one_name(asked):
    concept = {word: name for name, words in OTHER_WORDS.items() for word in words.split()}
    wrong = [
        f"{name}({argument}): use {concept[argument]}"
        for name, argument in asked
        if argument in concept
        and not {(name.rpartition(".")[2], argument), (".".join(name.split(".")[-2:]), argument)} & ELSEWHERE
    ]
    assert not wrong


def test_the_page_has_every_name_of_a_concept_and_no_other(asked):
    rows = [line.split("|")[1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    listed = [word for row in rows for word in re.findall(r"`(\w+)`", row)]
    assert len(listed) == len(set(listed))
    assert set(OTHER_WORDS) <= set(listed) <= {argument for _, argument in asked}


def test_a_name_has_one_default(asked):
    empty = inspect.Parameter.empty
    expected = {
        "ci": (0.95, None),  # None: that of what is drawn or compared
        "alpha": (0.05,),
        "cores": (None,),
        "progressbar": (True,),
        "at": (None,),
        "by": (None,),
        "df": (None,),
        "interval": (None,),
        "newdata": (None,),
        "simultaneous": (False,),
        "missing": ("raise", "keep"),
        "level": (*LINES, None, "all"),  # of several grouping factors
    }
    assert {*expected, "seed"} <= {argument for _, argument in asked}
    for (name, argument), parameter in asked.items():
        if argument in expected and parameter.default is not empty:
            assert parameter.default in expected[argument], (name, argument)
        if argument == "seed":
            new = name.rpartition(".")[2] in MAKES_NEW_DRAWS
            assert parameter.default is None if new else parameter.default == 0, name


def test_warnings_of_callables_with_renamed_arguments_point_to_the_line_that_called_them(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    single = dental.drop(dental.index[1:4])
    for call in (
        lambda: fit.effects("time", at={"time": [0, 20]}),
        lambda: hl.within_between(single, "time", subject="subject"),
    ):
        with pytest.warns(hl.FitWarning) as caught:
            call()
        assert {w.filename for w in caught} == {__file__}
