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
# # Counts in groups: from separate lines to a Poisson hierarchy
#
# Six age groups, each with its own relation between two counts. How much may a group learn from the others, and what
# changes when the response is a count and not a measurement?
#
# The data are a case-control study of oesophageal cancer (Breslow & Day 1980): numbers of cases and of controls in 88
# combinations of age, alcohol and tobacco. The question of this page is a simple one: how does the number of cases go
# with the number of controls, in each age group?

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import hierlmm as hl

old = hl.load_dataset("esoph", coding="1980s")
new = hl.load_dataset("esoph")
pd.DataFrame({"1980s coding": old.ncontrols, "corrected": new.ncontrols}).agg(["sum", "max"])

# %% [markdown]
# Two codings are in circulation. In the older one, which many texts print, the column `ncontrols` holds cases *and*
# controls. Both are used below, since it matters: with the older column a group of few people has few cases by
# construction.
#
# ## Lines for each group
#
# Regressions of each group alone, in colour, beside those of a linear hierarchy, in which groups lean on each other.

# %%
FORMULA = "ncases ~ ncontrols + (ncontrols | agegp)"
linear = hl.TwoLevelModel.from_formula(FORMULA, old).fit_reml()
linear.plot_separate_lines()

# %%
linear.subject_coef.round(4)

# %% [markdown]
# The two youngest groups have almost no cases, and their lines are flat. A normal distribution around a line knows
# nothing of that: it gives the youngest group a standard deviation of 1.9 cases like any other, and its interval goes
# far below none.

# %%
rows = old.groupby("agegp", observed=True).head(1)[["agegp", "ncontrols", "ncases"]]
linear.predict(rows, interval="prediction").round(2).assign(agegp=rows["agegp"], ncases=rows["ncases"])

# %% [markdown]
# ## Why the grouping may not be ignored
#
# A common slope is a sensible average even if every group has its own. But its standard error is not the one that a
# regression reports, since rows of a group deviate together. In a simulation the truth is known: ten groups of ten, a
# slope of mean 1 that varies with a standard deviation of $\sqrt 2$. What a regression with a common slope *reports*,
# what its estimates *really* vary by, and what the hierarchy reports:

# %%
rng = np.random.default_rng(1000)
found = []
for _ in range(150):
    intercept = rng.normal(size=10)
    slope = 1 + intercept + rng.normal(size=10)
    group, x = np.repeat(np.arange(10), 10), rng.normal(size=100)
    y = intercept[group] + slope[group] * x + rng.normal(size=100)
    data = pd.DataFrame({"group": group, "x": x, "y": y})
    X = np.column_stack([x, np.eye(10)[group]])
    estimate, rss = np.linalg.lstsq(X, y, rcond=None)[:2]
    reported = np.sqrt(rss[0] / (100 - 11) * np.linalg.inv(X.T @ X)[0, 0])
    mixed = hl.TwoLevelModel.from_formula("y ~ x + (x | group)", data).fit_reml()
    found.append([estimate[0], reported, mixed.beta["x"], mixed.beta_se["x"]])
found = np.array(found)
pd.DataFrame(
    {"varies by": found[:, [0, 2]].std(axis=0, ddof=1), "reported": found[:, [1, 3]].mean(axis=0)},
    index=["regression with a common slope", "hierarchy"],
).round(3)

# %% [markdown]
# The regression claims to be more than twice as precise as it is. The hierarchy knows what it does not know.
#
# ## A Poisson hierarchy
#
# A count has a mean that is positive, and a variance that grows with it. The logarithm of the mean gets the regression,
# and its coefficients vary between groups:
#
# $$ y_{ij} \sim \text{Poisson}(\mu_{ij}), \qquad \log \mu_{ij} = (\beta_0 + b_{0i}) + (\beta_1 + b_{1i})\, x_{ij} $$

# %%
poisson = hl.TwoLevelModel.from_formula(FORMULA, old, family="poisson").fit_ml()
poisson

# %% [markdown]
# Every group's own coefficients, on the scale of the logarithm:

# %%
poisson.subject_coef.round(4)

# %% [markdown]
# The last digits differ from those in print (0.1355 and 0.00661 for the two fixed effects). The optimiser behind the
# printed numbers stopped early: its log-likelihood is lower, and a second program, with the tolerance of the first one
# made smaller, agrees with what is shown here. The gradient says which of two answers is the maximum.

# %%
print(f"log-likelihood {poisson.loglik:.5f}, gradient {poisson.gradient_norm:.0e}; in print -152.53618")

# %% [markdown]
# ## Mean curves of the groups
#
# What was a line is a curve on the scale of the counts, and it stays above zero.

# %%
grid = pd.DataFrame({"ncontrols": np.linspace(1, 60, 60)})
colors = plt.colormaps["viridis"](np.linspace(0.0, 0.9, 6))
figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
for panel, fit, title in zip(panels, (linear, poisson), ("Linear", "Poisson"), strict=True):
    for (name, own), color in zip(old.groupby("agegp", observed=True), colors, strict=True):
        inside = grid[grid.ncontrols <= own.ncontrols.max()].assign(agegp=name)
        panel.plot(inside.ncontrols, fit.predict(inside)["estimate"], color=color, label=name)
        panel.scatter(own.ncontrols, own.ncases, s=14, color=color, alpha=0.7)
    panel.axhline(0, color="0.7", linewidth=0.8)
    panel.set(title=title, xlabel="number of controls (1980s coding)")
panels[0].set_ylabel("number of cases")
_ = panels[1].legend(title="age", frameon=False)

# %% [markdown]
# ## A group that is known, and a group that is new
#
# For a known group its own coefficients count. For a new one there are only the fixed effects, and what is known of how
# groups differ. `level="population"` is a group with $b = 0$, in the middle; `"new_subject"` is the same line with the
# interval that holds a group drawn at random; `"marginal"` is the mean over all such groups, which lies above the curve
# of the middle group: the mean of an exponential is more than the exponential of the mean.

# %%
at = pd.DataFrame({"agegp": ["55-64"], "ncontrols": [10]})
levels = ["subject", "population", "new_subject", "marginal"]
pd.concat({level: poisson.predict(at, level=level, interval="confidence") for level in levels}).droplevel(1).round(2)

# %% [markdown]
# ## The corrected data
#
# With controls that are controls, slopes are lower in every group, and the average one changes its sign. Part of what
# the older column showed was cases counted on both sides.

# %%
corrected = hl.TwoLevelModel.from_formula(FORMULA, new, family="poisson").fit_ml()
pd.concat({"1980s coding": poisson.summary(), "corrected": corrected.summary()})[["estimate", "se", "z"]].round(4)

# %%
slopes = {"1980s coding": poisson.subject_coef["ncontrols"], "corrected": corrected.subject_coef["ncontrols"]}
pd.DataFrame(slopes).round(4)

# %% [markdown]
# Six groups say little about a distribution of groups, whichever column is taken: the standard deviations between
# groups have wide intervals.

# %%
corrected.variance_components().round(3)
