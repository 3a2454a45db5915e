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
# # A covariate that changes over time: prothrombin and bilirubin
#
# The present value, the value a year ago, everything up to now: one covariate, three questions, and a check of
# whether a mixed model may ask any of them.
#
# In the Mayo Clinic trial of primary biliary cirrhosis 312 patients were seen 1,945 times over up to 14 years
# (Murtaugh and others, 1994). At every visit both serum bilirubin and prothrombin time were measured. Both rise as
# the liver fails. How is bilirubin related to prothrombin time?
#
# 1. Which value of prothrombin time is meant: now, a year ago, or all of it so far?
# 2. Is the relation one within patients, or one between patients?
# 3. Does bilirubin come first?

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import hierlmm as hl

pbc = hl.load_dataset("pbc")
pbc["log_bili"] = np.log(pbc["bili"])
pbc[["subject", "year", "bili", "log_bili", "protime", "sex", "age"]].head(8).round(3)

# %% [markdown]
# Six patients with many visits. Bilirubin (mg/dl) has a logarithmic scale; prothrombin time is in seconds, about 10
# to 11 in health.

# %%
most = pbc["subject"].value_counts().index[:6]
figure, panels = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
for panel, column, title in zip(
    panels, ("bili", "protime"), ("Bilirubin (mg/dl)", "Prothrombin time (s)"), strict=True
):
    for patient in most:
        own = pbc[pbc["subject"] == patient]
        panel.plot(own["year"], own[column], "o-", linewidth=0.9, markersize=2.5)
    panel.set(title=title, xlabel="Years in the study")
panels[0].set_yscale("log")

# %% [markdown]
# ## Four covariates from one history
#
# A rule says what the covariate is at the time of each row. The printed result says where the values came from.

# %%
built = hl.time_varying(
    pbc,
    {
        "now": hl.CurrentValue("protime"),
        "year_ago": hl.Lag("protime", lag=1.0),
        "area": hl.Cumulative("protime"),
        "mean_so_far": hl.Cumulative("protime", average=True),
    },
    subject="subject",
    time="year",
)
data = built.data
built

# %% [markdown]
# The last sentence is the important one. For a row at time $t$ nothing was used that was measured after $t$; a value
# "a year ago" is missing in the first year, because there is none. Patient 2, visit by visit:

# %%
data.loc[data["subject"] == 2, ["year", "protime", "year_ago", "area", "mean_so_far"]].round(3)

# %% [markdown]
# The area is that of the trapezoids under the line through the measurements, from the first visit to $t$, in seconds
# × years.

# %%
own = data[data["subject"] == 2]
figure, panel = plt.subplots(figsize=(7, 3), layout="constrained")
until = own["year"] <= 5
panel.plot(own["year"], own["protime"], "o-", color="0.3", markersize=4)
panel.fill_between(own.loc[until, "year"], own.loc[until, "protime"], color="#0072B2", alpha=0.25)
_ = panel.set(
    title=f"Patient 2: area up to year {own.loc[until, 'year'].iloc[-1]:.1f} is {own.loc[until, 'area'].iloc[-1]:.1f}",
    xlabel="Years in the study",
    ylabel="Prothrombin time (s)",
    ylim=(0, 13),
)

# %% [markdown]
# If prothrombin had been measured at other times than bilirubin, in a laboratory table of its own, the same call
# would take it as `history=`. Half a year after each visit, for example, nothing was measured:

# %%
between = pbc.loc[pbc["subject"] == 2, ["subject", "year"]].assign(year=lambda d: d["year"] + 0.5)
hl.time_varying(
    between,
    {"carried": hl.LastValue("protime"), "line": hl.Interpolate("protime", future=True)},
    subject="subject",
    time="year",
    history=pbc,
)

# %% [markdown]
# ## One model, three answers
#
# Natural cubic splines in time for the mean and for each patient, with a diagonal $D$. The value a year ago is left
# out: without the 674 visits that have none, its model would be about other visits than the rest.

# %%
FORMULA = "log_bili ~ ns(year, 2) + sex + age + {x} + (ns(year, 2) || subject)"
models = {x: hl.TwoLevelModel.from_formula(FORMULA.format(x=x), data) for x in ("now", "area", "mean_so_far")}
fits = {x: model.fit_reml() for x, model in models.items()}
fits["now"]

# %%
table = pd.DataFrame(
    {x: {**fit.beta.iloc[1:3], "x": fit.beta[x], "se of x": fit.beta_se[x]} for x, fit in fits.items()}
)
table.T.round(4)

# %% [markdown]
# One second more now goes with log bilirubin 0.036 higher at the same visit, that is bilirubin 3.7 % higher. One
# second × year more of area goes with 0.028. The two are not comparable, as their units differ; and the area has
# another trouble. It grows as long as the patient is seen, whatever prothrombin does:

# %%
data[["now", "area", "mean_so_far"]].corrwith(data["year"]).round(3)

# %% [markdown]
# Beside the area the curve in time means something else: bilirubin at a *fixed* area, which no patient can have at
# two times. That is why its coefficients turn negative. The mean so far is free of this.
#
# A published analysis of the same data reports a cumulative effect of 0.009 (standard error 0.004). Its code passes
# time and prothrombin to the area function in the wrong order, and so computes the area under *time* as a function of
# prothrombin, up to the highest prothrombin time that the patient ever reached, at whatever visit. The area that its
# words describe gives 0.028 (0.007), in nlme as here. A number that looks plausible does not show that the covariate
# is what it is called; look at the column, for one patient, by hand.
#
# ## Within or between patients?
#
# The patient's mean of all visits stands for the patient (level 2), the deviation from it for the visit (level 1).

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore", hl.FitWarning)  # patients with a single visit: the second note
    split = hl.within_between(data, "protime", subject="subject")
split.attrs["within_between"]

# %%
levels = hl.TwoLevelModel.from_formula(FORMULA.format(x="protime_within + protime_between"), split)
reml = levels.fit_reml()
hl.test_within_between(reml, "protime_within", "protime_between")

# %% [markdown]
# Patients whose mean is a second higher have log bilirubin about 0.48 higher, bilirubin 62 % higher; the same patient
# with a second more has it 0.03 higher. The 0.036 above mixed the two. The posterior says the same:

# %%
nuts = levels.fit(draws=1000, tune=1000, chains=4, seed=1, progressbar=False)
hl.test_within_between(nuts, "protime_within", "protime_between")

# %% [markdown]
# ## Does bilirubin come first?
#
# All models so far take prothrombin as given. If earlier bilirubin predicts prothrombin, given prothrombin's own
# past, it is not: it is *endogenous*.

# %%
hl.check_exogeneity(
    pbc, response="log_bili", variable="protime", subject="subject", time="year", adjust_for=["sex", "age", "trt"]
)

# %% [markdown]
# It is, as one would expect of two signs of one disease. A symptom of this is that estimators which should agree do
# not:

# %%
estimates = {"mixed model, REML": (fits["now"].beta["now"], fits["now"].beta_se["now"])}
for working in ("independence", "exchangeable"):
    gee = models["now"].fit_gee(correlation=working)
    estimates[f"GEE, {working}"] = (gee.beta["now"], gee.beta_se["now"])
pd.DataFrame(estimates, index=["coefficient of prothrombin now", "se"]).T.round(3)

# %% [markdown]
# Only the independence working correlation estimates the association of mean bilirubin with prothrombin time at the
# same visit, whatever else prothrombin depends on (Pepe and Anderson, 1994). The others weight visits by what
# surrounds them.
#
# ## What to report
#
# - The relation exists, and most of it is one *between* patients: the sicker have more of both.
# - None of these coefficients is the effect of changing prothrombin time. The two markers develop together; a model
#   that takes one as given cannot say which moves which. Joint models of both processes can describe them (in R: JM,
#   JMbayes2).
# - Visits end at death or transplantation, and the sickest patients leave first. What is said here is about patients
#   while they are under observation.
