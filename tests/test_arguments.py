"""One vocabulary: every argument of every public callable has the name of its concept, and is described."""

import pytest

import hierlmm as hl
from hierlmm import plots
from hierlmm.diagnostics.calibration import Calibration
from hierlmm.effects.curves import EffectCurves
from hierlmm.fits.base import Fit

RENAMED = [
    (Fit.effects, "focal", "variable"),
    (Fit.plot_effects, "focal", "variable"),
    (hl.Comparison.plot_effects, "focal", "variable"),
    (hl.plot_effects, "focal", "variable"),
    (hl.plot_effects, "residuals", "residual_level"),
    (EffectCurves.points, "residuals", "residual_level"),
    (Fit.marginal_means, "specs", "variables"),
    (Fit.contrasts, "specs", "variables"),
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


def test_other_unknown_names_stay_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'vriable'"):
        hl.VarIdent(vriable="sex")
