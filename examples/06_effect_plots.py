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
# # Effect plots: bilirubin over time, at the age and prothrombin time of your choice
#
# A model with splines and interactions has coefficients that nobody can read. Its curves, with bands, can be read by
# everybody.
#
# In the Mayo Clinic trial of primary biliary cirrhosis 36 men and 276 women were seen 1,945 times over up to 14 years
# (Murtaugh and others, 1994). Serum bilirubin (mg/dl) rises as the liver fails. How does it rise in men and in women,
# and how much does it matter how old they are, and how well their blood clotted at the start?

# %%
import importlib.util
import warnings

import numpy as np

import hierlmm as hl

pbc = hl.load_dataset("pbc")
pbc["basepro"] = pbc.groupby("subject")["protime"].transform("first")
pbc[["subject", "sex", "age", "basepro", "year", "bili"]].head(6).round(2)

# %% [markdown]
# `basepro` is the prothrombin time (seconds) at the first visit. Log bilirubin follows a natural cubic spline in time;
# the curve, the effect of age and that of prothrombin time may differ between the sexes. Every patient has a curve of
# their own around the mean.

# %%
model = hl.TwoLevelModel.from_formula(
    "log(bili) ~ ns(year, 2) * sex + (age + basepro) * sex + (ns(year, 2) | subject)", pbc
)
reml = model.fit_reml()
reml.summary().round(3)

# %% [markdown]
# Is bilirubin higher in men, and when? The table holds the answer, but well hidden: the coefficient of sex is the
# difference between a woman and a man of age zero whose prothrombin time is zero.
#
# ## The curves
#
# An effect plot asks the model for its mean along one covariate while the others stand still. At which values they
# stand is part of the answer, so the plot says it.

# %%
reml.plot_effects("year", by="sex", at={"age": 49, "basepro": 10.6}, xlabel="Years in the study")
# %% [markdown]
# The numbers behind the picture:

# %%
reml.effects("year", by="sex", at={"age": 49, "basepro": 10.6, "year": [0, 5, 10]})

# %% [markdown]
# The bands are about the *mean* of patients of that age and prothrombin time. Single patients lie in a far wider range.
#
# ## A band for the whole curve
#
# A pointwise band holds at one time at a time: at each year it covers the true mean with probability 95 %, but the true
# curve as a whole leaves it somewhere far more often. To say anything about the *shape*, for instance "no straight line
# fits into this band", a simultaneous band is needed. It is a quarter wider here.

# %%
curves = reml.effects("year", by="sex", at={"age": 49, "basepro": 10.6}, simultaneous=True)
print(f"half-width in standard errors: pointwise about 2, simultaneous {curves.critical.max():.2f}")
curves.plot(xlabel="Years in the study")
# %% [markdown]
# A straight line fits into both bands. That the men's curve bends is not shown by these data, however clear it looks.
#
# ## The data behind
#
# Measurements behind a curve at age 49 are not what the curve is about: they come from patients of all ages. Partial
# residuals are moved to where the curve is. Each is the curve at the time of the visit plus the residual of the visit
# around the patient's own line (or, with `residual_level="population"`, around the population line).

# %%
curves.plot(data="partial", xlabel="Years in the study")
# %% [markdown]
# They follow the curves, without a bend that the spline would have missed. They also show where there is little: few
# men, and almost none after ten years.
#
# ## Other ages, other prothrombin times
#
# Several values of a covariate in `at` make a panel each.

# %%
values = {"age": [40, 50, 60], "basepro": [10, 11, 12]}
reml.plot_effects("year", by="sex", at=values, xlabel="Years in the study")
# %% [markdown]
# In women bilirubin rises steeply with the prothrombin time at the start; in men there is no such relation, or too few
# men to see it. Age matters little in either.
#
# On a screen, sliders are better than nine panels. With plotly every variable with several values gets one, and the
# page needs no network:

# %%
if importlib.util.find_spec("plotly") and importlib.util.find_spec("webcolors"):
    finer = {"age": [30, 40, 50, 60, 70], "basepro": [9, 10, 11, 12, 13]}
    page = reml.plot_effects("year", by="sex", at=finer, backend="plotly", n=31)
    page.savefig("bilirubin.html")

# %% [markdown]
# ## In mg/dl
#
# Clinicians think in mg/dl. The exponential of a mean of logarithms is the *median* of bilirubin, not its mean, which a
# few very high values pull up; the plot says so.

# %%
reml.plot_effects("year", by="sex", at={"age": 49, "basepro": 10.6}, transform="exp", xlabel="Years in the study")
# %%
table = reml.effects("year", by="sex", at={"age": 49, "basepro": [10, 12], "year": [5, 10]}, transform="exp").table
table[["basepro", "sex", "year", "estimate", "lower", "upper"]].round(1)

# %% [markdown]
# ## Several estimators
#
# REML, NUTS and GEE on one picture. All are asked at the same values.

# %%
nuts = model.fit(draws=500, tune=500, chains=2, seed=1, progressbar=False)
gee = model.fit_gee()
hl.plot_effects(nuts, reml, gee, "year", by="sex", at={"age": 49, "basepro": 10.6}, xlabel="Years in the study")
# %% [markdown]
# REML and NUTS agree. GEE sees bilirubin level off. Both kinds of curve are means, but of whom? Of the 312 patients 140
# died, and those with the steepest rise most likely first. GEE takes the visits that are there. The mixed model
# knows each patient's own course so far and follows it beyond the last visit: its curve is the mean had all been
# followed, provided that what is missing can be predicted from what was seen. A table of coefficients would hardly have
# shown this.
#
# ## Beyond the data
#
# Curves can be asked for anywhere. Where nothing was seen they are dashed, and a warning says so: what is drawn
# there is the form of the model (a natural spline goes on as a straight line), not the data.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    far = reml.plot_effects("year", by="sex", at={"age": 49, "basepro": 10.6, "year": np.linspace(0, 20, 101)})
print(caught[0].message)
far
