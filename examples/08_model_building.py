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
# # Building a model, from the first to the final one
#
# Which terms does the mean need, which random effects, and can the result be believed once it was chosen by looking?
#
# A trial of cognitive training followed older adults for ten years (the data here are simulated in its shape: 400
# people, four training groups, up to seven visits). The question is whether training changes how memory develops. We
# follow the path of many analyses: a first model, its cousin by estimating equations, tests of what may be left out,
# information criteria, and a look at the residuals. At the end we compare what we found with the truth.

# %%
import pandas as pd

import hierlmm as hl

active = hl.load_dataset("active")
active["late"] = (active["years"] > 3).astype(int)  # after the third year the mean may take another direction
active.groupby("years")["memory"].agg(["count", "mean", "std"]).round(1)

# %% [markdown]
# A third of the people are left after ten years. Whoever remembers badly may leave sooner; a likelihood can bear that
# (drop-out that depends on what was observed), estimating equations cannot.
#
# ## The first model: everyone has their own level
#
# The mean is a line before and another line after year three, different in every group. People differ in their level
# only. Models whose *means* will be compared are fitted by maximum likelihood: REML criteria of different means
# cannot be compared, and `hl.anova` would refit them.

# %%
MEAN = "memory ~ years * late * intgrp"
first = hl.TwoLevelModel.from_formula(f"{MEAN} + (1 | subject)", active)
level = first.fit_ml()
level.summary().round(2)

# %% [markdown]
# ## Beside it: estimating equations
#
# GEE with an exchangeable working correlation has the same mean and the same correlation as a random intercept, but
# estimates them from moments. The coefficients are nearly equal. The robust standard errors do not rest on the
# working correlation, so that where they differ from those of the mixed model, its covariance is in doubt.

# %%
gee = first.fit_gee("exchangeable")
pd.DataFrame({
    "mixed": level.beta, "GEE": gee.beta, "se, mixed": level.beta_se, "se, robust": gee.beta_se,
    "ratio": gee.beta_se / level.beta_se,
}).round(3)  # fmt: skip

# %% [markdown]
# ## Which random effects?
#
# Before the mean is simplified its standard errors must be right, and they follow from the covariance. So the random
# effects come first, with the largest mean in place. Does everyone have a slope of their own?

# %%
slopes = hl.TwoLevelModel.from_formula(f"{MEAN} + (1 + years | subject)", active).fit_ml()
hl.anova(level, slopes)

# %% [markdown]
# The smaller model is the larger one with a variance of zero, at the end of what a variance can be. A $\chi^2$ with
# two degrees of freedom would be too careful there; the table has the right mixture beside it. Here it hardly
# matters: people do differ in their slopes, and a correlation between two visits that falls with the time between
# them is what estimating equations with equal correlations left to their robust standard errors.

# %% [markdown]
# Are measurements that lie close in time more alike than straight lines make them? A serial term answers, with a
# correlation that decays with the years between two visits.

# %%
serial = hl.TwoLevelModel.from_formula(f"{MEAN} + (1 + years | subject)", active, residual=hl.CAR1("years")).fit_ml()
hl.anova(slopes, serial)

# %% [markdown]
# No. Intercepts, slopes and independent residuals it is.
#
# ## Which terms of the mean?
#
# From the top: what is complicated goes first (the change of direction that differs between groups), and a simpler
# term is not tested while a term that contains it is still there.

# %%
terms = {
    "no groups": "years * late",
    "level": "years * late + intgrp",
    "level and slope": "years * late + years * intgrp",
    "everything": "years * late * intgrp",
}
means = {
    name: hl.TwoLevelModel.from_formula(f"memory ~ {mean} + (1 + years | subject)", active).fit_ml()
    for name, mean in terms.items()
}
hl.anova(*means.values(), labels=list(means))

# %% [markdown]
# None of the steps is significant at 5 %.
#
# ## All models in one table

# %%
table = hl.compare_models(level, serial, *means.values(), labels=["levels only", "serial", *means])
table

# %% [markdown]
# AIC and BIC agree that the slopes matter, and by how much; among the means they prefer the smallest. BIC, whose
# penalty grows with the number of rows, does so clearly, AIC by a hair. That is no proof that training does nothing.

# %%
table.plot(by=["bic"])

# %% [markdown]
# ## Does it fit?
#
# Tests and criteria compare models with each other. Whether the best of them fits at all is another question: `check()`
# asks it at both levels, and measures what it sees against data simulated from the fit.

# %%
check = means["level and slope"].check()
check

# %%
check.plot()

# %% [markdown]
# Nothing stands out. Text books show these residuals by group, with a smoother, and the distribution of the predicted
# random effects; both are on the page.
#
# ## What was true
#
# The data were simulated, so we can look. In truth memory training adds 0.51 points a year for three years, and the
# gain fades later; the other two do less. None of this was found. That a test is not significant does not say that
# there is nothing. The interval says what the data leave open, and here that is much:

# %%
means["level and slope"].slopes("years", by="intgrp", at={"late": 0}).contrasts("trt.vs.ctrl")

# %% [markdown]
# In the trial itself, with seven times as many people, a step of the same kind is significant. Three things to take
# along:
#
# - Choose the covariance first, with the largest mean in place, and test variances by the null distribution that they
#   have.
# - Remove from the top, and say everything that was looked at. Intervals after a selection are too short; the page
#   "Tests and model building" shows by how much.
# - A smaller model is not a truer one. Report the comparison that the trial was made for, whatever AIC prefers.
