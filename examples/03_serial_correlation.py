# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Serial correlation: what is left when every patient has a line?
#
# Random effects and serial correlation compete for the same correlation, and five visits decide less than one hopes.
#
# Two explanations for measurements of a patient that resemble each other:
#
# - **Random effects**: the patient has a level and a slope, for good; around this line errors are independent.
# - **Serial correlation**: the patient wanders, so that neighbouring visits are more alike than distant ones.
#
# A model can have both, $V_i = Z_i D Z_i^\top + \Sigma_i$. This page fits both to CD4 counts of 467 patients with HIV,
# and asks what the data can tell apart.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import hierlmm as hl

BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"


def stand_in(seed=7):
    """Data of the trial's shape: patients who wander slowly, measured with an error that grows with the level."""
    rng = np.random.default_rng(seed)
    month, seen = np.array([0, 2, 6, 12, 18]), (467, 368, 310, 226, 34)
    wander = 4.5**2 * np.exp(-np.abs(np.subtract.outer(month, month)) / 60)  # SD 4.5, range 60 months
    slow = rng.standard_normal((467, 5)) @ np.linalg.cholesky(wander).T
    ddI = np.arange(467) % 2
    level = 7.2 - 0.25 * month + 0.0075 * month**2 + np.outer(ddI, 0.16 * month - 0.0105 * month**2) + slow
    cd4 = level + 0.78 * np.exp(0.085 * level) * rng.standard_normal(level.shape)
    visits = rng.permutation(np.repeat([1, 2, 3, 4, 5], -np.diff([*seen, 0])))  # dropout independent of CD4
    i, j = np.nonzero(np.arange(5) < visits[:, None])
    drug = pd.Categorical(np.where(ddI[i] == 1, "ddI", "ddC"))
    return pd.DataFrame({"subject": i + 1, "month": month[j], "drug": drug, "cd4": cd4[i, j]})


try:
    aids = hl.load_dataset("aids").rename(columns={"obstime": "month"})[["subject", "month", "drug", "cd4"]]
    REAL = True
except hl.UnknownDatasetError:
    aids = stand_in()
    REAL = False
print("These are the data of the trial." if REAL else "These are SIMULATED data of the trial's shape.")

# %% [markdown]
# The trial compared didanosine (ddI) with zalcitabine (ddC); CD4 is the square root of the cell count, measured at
# entry and after 2, 6, 12 and 18 months. The data do not ship with this package; `hl.describe_dataset("aids")` says how
# to get them. Without them the page uses a stand-in with the same numbers of patients and visits, whose truth is known:
# *no patient has a line*. All wander slowly around the mean of their group, with a correlation of $e^{-\text{lag}/60}$,
# and are measured with error. The stand-in's numbers are no findings about HIV; a few are below zero, as no square root
# is. (Its seed is one of twelve, taken because the fits resemble the trial's.)

# %%
aids.groupby("month")["cd4"].agg(["size", "mean", "std"]).round(2)

# %%
wide = aids.pivot_table(index="subject", columns="month", values="cd4")
print("Correlation between visits, with the patients who have both:")
wide.corr().round(2)

# %%
some = wide[wide[12].notna()].sample(60, random_state=1)
figure, panel = plt.subplots(figsize=(8, 4.2), layout="constrained")
panel.plot(wide.columns, some.T, color="0.6", linewidth=0.8)
panel.plot(wide.columns, some.iloc[:5].T, "o-", linewidth=2, markersize=4)
_ = panel.set(title="Sixty patients, five of them in colour", xlabel="Month", ylabel="√CD4", xticks=wide.columns)

# %% [markdown]
# ## Three models with serial correlation
#
# All have the same mean, a curve in time for each drug from a common start. Residuals follow an exponential serial
# correlation, $e^{-\text{lag}/\text{range}}$. The random effects grow: Model I has intercepts, II also slopes, III also
# curvature.

# %%
MEAN = "cd4 ~ month + I(month**2) + month:drug + I(month**2):drug"
RANDOM = {"I": "1", "II": "1 + month", "III": "1 + month + I(month**2)"}


def model(random, residual=None, variance=None):
    """The common mean with these random effects and residuals."""
    formula = f"{MEAN} + ({random} | subject)"
    return hl.TwoLevelModel.from_formula(formula, aids, residual=residual, residual_variance=variance)


serial = {name: model(random, hl.Exponential("month")).fit_reml() for name, random in RANDOM.items()}
plain = {name: model(random).fit_reml() for name, random in RANDOM.items()}
ranges = {name: fit.variance_components(method="profile").loc["range"] for name, fit in serial.items()}
pd.DataFrame(
    {
        name: {
            "loglik, independent errors": plain[name].loglik,
            "loglik, serial errors": serial[name].loglik,
            "range (months)": ranges[name]["estimate"],
            "profile, lower": ranges[name]["lower"],
            "profile, upper": ranges[name]["upper"],
        }
        for name in RANDOM
    }
).T.round(3)

# %% [markdown]
# In Model I the serial correlation looks certain: without it the log-likelihood falls by far more than the 1.92 that
# would count at 5 %. Let patients differ in their slopes, and hardly anything of it is left; the profile interval then
# begins at zero. What Model I called serial correlation may as well be slopes.
#
# The package says so by itself, under the fit:

# %%
print(serial["II"])

# %%
if REAL:
    print(f"Model III here: {serial['III'].loglik:.4f}. nlme's lme() stops at -3573.53, lower than this model")
    print(f"without its serial correlation ({plain['III'].loglik:.4f}): with a flat, nearly singular likelihood an")
    print("optimiser may end where it should not, and Wald intervals from there mean nothing.")
else:
    print("With the trial's data this cell tells how far a Model III in print was from its optimum.")

# %% [markdown]
# The coefficients of the mean move little: whoever asks about the drugs need not decide.

# %%
pd.concat(
    {f"Model {name}": fit.summary().loc[["month:drug[T.ddI]", "I(month ** 2):drug[T.ddI]"], ["estimate", "se"]]
     for name, fit in serial.items()}
).round(4)  # fmt: skip

# %% [markdown]
# ## The same question to NUTS
#
# The posterior of the range beside the profile interval (black bar) and the prior (dashed). In Model I all agree. In
# Model II the likelihood does not exclude a range of zero; the prior does, and the posterior is a compromise.

# %%
posteriors = {
    name: model(RANDOM[name], hl.Exponential("month")).fit(draws=n, tune=n, seed=1, progressbar=False)
    for name, n in {"I": 500, "II": 1500}.items()  # a flat likelihood is hard to walk on: II needs more draws
}
draws = {name: fit.datatree["posterior"]["residual_correlation"].to_numpy().ravel() for name, fit in posteriors.items()}
pd.DataFrame(
    {f"Model {name}": pd.Series(values).quantile([0.025, 0.5, 0.975]) for name, values in draws.items()}
).T.round(2)

# %%
prior = posteriors["I"].prior_predictive(draws=20_000, seed=1)["prior"]["residual_correlation"].to_numpy().ravel()
edges = np.linspace(0, 5, 61)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharex=True, layout="constrained")
for panel, name, color in zip(panels, draws, (BLUE, RED), strict=True):
    panel.hist(draws[name], bins=edges, weights=np.full(len(draws[name]), 1 / len(draws[name])), color=color, alpha=0.5)
    panel.hist(prior, bins=edges, weights=np.full(len(prior), 1 / len(prior)), histtype="step", color="0.4", ls="--")
    low, top = ranges[name]["lower"], panel.get_ylim()[1]
    panel.plot([low, ranges[name]["upper"]], [-0.05 * top] * 2, color="black", linewidth=4, clip_on=False)
    panel.plot(ranges[name]["estimate"], -0.05 * top, "o", color="black", markersize=8)
    panel.set(title=f"Model {name}", xlabel="Range (months)", yticks=[], ylim=(-0.1 * top, top))
_ = panels[0].set_ylabel("Posterior")

# %% [markdown]
# ## Looking at residuals: the semivariogram
#
# Half the mean squared difference of two residuals of a patient, by the time between them. It rises where neighbours
# are more alike than distant visits. Residuals are not errors: fitting takes out part of what they share. So each panel
# has the curve that the *fitted model itself* leads one to expect, with a band for all lags together.

# %%
checks = {
    "Random intercepts": plain["I"],
    "… and serial errors (Model I)": serial["I"],
    "Random intercepts and slopes": plain["II"],
}
found = {title: hl.semivariogram(fit) for title, fit in checks.items()}
figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), sharex=True, sharey=True, layout="constrained")
for panel, (title, check) in zip(panels, found.items(), strict=True):
    table = check.table
    panel.fill_between(table["lag"], table["lower_all"], table["upper_all"], color=BLUE, alpha=0.2)
    panel.plot(table["lag"], table["expected"], color=BLUE, linewidth=2)
    panel.scatter(table["lag"], table["semivariance"], s=table["pairs"] / 4, zorder=3,
                  color=np.where(table["outside"], RED, "0.15"))  # fmt: skip
    panel.set(title=f"{title}\np = {check.p_value:.3f}", xlabel="Lag (months)", xticks=[2, 6, 10, 14, 18])
panels[0].set_ylabel("Semivariance")
print("In words, for Model I:", found["… and serial errors (Model I)"].verdict)

# %% [markdown]
# Dots are as large as they have pairs; red ones leave the band. Random intercepts alone miss that neighbours are alike.
# An exponential correlation on top helps, but has the wrong shape: it forgets too fast. Slopes do better. The
# autocorrelation by visit says the same for Model I, with its serial part taken out:

# %%
hl.autocorrelation(serial["I"])

# %% [markdown]
# ## A nugget, other shapes
#
# A serial correlation of $e^{-\text{lag}/\text{range}}$ goes to 1 as the lag goes to 0: two samples on one day would be
# equal. With a *nugget* a share of the residual variance is error of measurement. Beside it a Gaussian shape,
# $e^{-(\text{lag}/\text{range})^2}$, and AR(1), which counts visits instead of months.

# %%
shapes = {
    "independent": None,
    "exponential": hl.Exponential("month"),
    "exponential, nugget": hl.Exponential("month", nugget=True),
    "Gaussian": hl.Gaussian("month"),
    "Gaussian, nugget": hl.Gaussian("month", nugget=True),
    "AR(1) by visit": hl.AR1(),
}
shaped = {name: model("1", residual).fit_reml() for name, residual in shapes.items()}
rows = {f"intercept; {name}": fit for name, fit in shaped.items()} | {"intercept, slope; independent": plain["II"]}
table = pd.DataFrame(
    {
        name: {"loglik": fit.loglik, "AIC": fit.aic, "sd(Intercept)": fit.sd_b["Intercept"]}
        | fit.variance_components()["estimate"].reindex(["range", "rho", "nugget", "sigma"]).to_dict()
        for name, fit in rows.items()
    }
).T
table.round(2)

# %% [markdown]
# The nugget changes the story. With it the exponential needs no random intercept (its SD goes to zero): patients have
# no level of their own, they wander, over many months, and some ten per cent of the variance is error of measurement.
# Without a nugget one short range has to serve for both, and serves for neither. And since no patient effect is left,
# this is a *marginal* model, with a parameter less than lines have, and no worse a fit:

# %%
wandering = hl.MarginalModel(
    MEAN, correlation=hl.Exponential("month", nugget=True), subject="subject", data=aids
).fit_reml()
print(f"marginal model, exponential with nugget  loglik {wandering.loglik:.2f}   AIC {wandering.aic:.1f}")
print(f"hierarchy, intercepts and slopes         loglik {plain['II'].loglik:.2f}   AIC {plain['II'].aic:.1f}")
wandering.variance_components(method="profile").round(3)

# %% [markdown]
#
# The correlation with the visit at entry, as four models imply it, and the data (points):

# %%
curves = hl.compare_implied(
    plain["I"], serial["I"], plain["II"], shaped["exponential, nugget"], times=np.linspace(0, 18, 37),
    labels=["intercept", "Model I", "intercept, slope", "wandering, nugget"],
).plot_correlation(bands=False, figure_kwargs={"figsize": (9, 5)})  # fmt: skip
_ = curves.get_viz("figure").axes[0].set(ylim=(0.5, 1.02), xticks=[0, 2, 6, 12, 18])
curves

# %% [markdown]
# The points at 12 and 18 months are those of the patients who stayed. If leaving depends on what was measured, even the
# right model need not pass through them.
#
# Lines or wandering? Over eighteen months these are almost the same statement about the data, and a different one about
# the patients: a line goes on, a wanderer turns back. Where the model is used to look ahead, it matters. The likelihood
# leans towards wandering; but both models take variances for equal, so this is no verdict.
#
# ## Unequal variances
#
# The scatter of a patient's visits around the patient's own mean, by the size of that mean:

# %%
several = aids[aids.groupby("subject")["cd4"].transform("size") >= 3]
own = several.groupby("subject")["cd4"].agg(["mean", "std"])
own.groupby(pd.qcut(own["mean"], 4, labels=["lowest quarter", "second", "third", "highest quarter"]), observed=True)[
    "std"
].agg(["size", "mean"]).rename(columns={"mean": "mean SD within patients"}).round(2)

# %%
aids["month1"] = aids["month"] + 1  # a power needs numbers other than zero
variances = {
    "equal": None,
    "VarIdent('drug')": hl.VarIdent("drug"),
    "VarIdent('month')": hl.VarIdent("month"),
    "VarPower('month1')": hl.VarPower("month1"),
    "VarExp(), of the fitted value": hl.VarExp(),
}
uneven = {name: model("1", variance=variance).fit_reml() for name, variance in variances.items()}
pd.DataFrame({name: {"loglik": fit.loglik, "AIC": fit.aic} for name, fit in uneven.items()}).T.round(1)

# %%
uneven["VarExp(), of the fitted value"].variance_components(method="profile").round(3)

# %% [markdown]
# The scatter grows with the level, even on the square-root scale.

# %%
gain = uneven["VarExp(), of the fitted value"].loglik - plain["I"].loglik
best = max(fit.loglik for fit in shaped.values()) - plain["I"].loglik
print(f"log-likelihood above random intercepts: {gain:.0f} by unequal variances, {best:.0f} by serial correlation")

# %% [markdown]
# Unequal variances matter as much as correlation here, or more. Who searches for correlation only may find the wrong
# thing.
#
# ## What to take home
#
# - Fit the serial correlation with and without random slopes. If it goes away, it was slopes, or cannot be told apart.
# - Read the profile interval, not the estimate ± 2 standard errors; the note under the fit says when it matters most.
# - Without a nugget, measurement error has to be explained by a short range.
# - Look at the semivariogram against the curve of the fitted model, and at the variances.
# - The answer to the question about treatment may not depend on any of this. Say so, when it is so.
