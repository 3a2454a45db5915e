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
# # Hierarchical and marginal models: which implies which?
#
# A hierarchy of subjects and measurements implies a marginal model; a marginal model need not come from a hierarchy.
#
# A *hierarchical* model says how each subject behaves and how subjects differ. A *marginal* model says what the
# measurements look like over all subjects: their mean, and how the measurements of one subject are correlated. Every
# hierarchy has such a shadow. This page looks at the shadow, fits it directly, and asks what cannot be told from it.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import hierlmm as hl

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.6"
dental = hl.load_dataset("dental")
neighbours = hl.load_dataset("negative_icc")
MEAN = "distance ~ sex * time"

# %% [markdown]
# The data are those of the first example: the distance of two points of the skull, in millimetres, of 27 children at
# the ages of 8, 10, 12 and 14. `time` counts years since age 8.
#
# ## 1. From the hierarchy to its marginal model
#
# Level 1 is the child's own line. Level 2 says how lines differ between children: first in their level only.

# %%
intercept = hl.TwoLevelModel("distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental,
                             random=["Intercept"])  # fmt: skip
slope = hl.TwoLevelModel("distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental)
intercept.equations()

# %% [markdown]
# The last line is what the hierarchy implies for the measurements themselves: means $X_i \beta$ and covariance
# $V_i = Z_i D Z_i^\top + \sigma^2 I$. With a random intercept all variances are equal and all correlations are equal:
# *compound symmetry*.

# %%
intercept_reml, slope_reml = intercept.fit_reml(), slope.fit_reml()
intercept_reml.implied_marginal()

# %% [markdown]
# With a random slope the variance is a parabola in time, $\sigma_0^2 + 2 \sigma_{01} t + \sigma_1^2 t^2 + \sigma^2$,
# and correlations depend on both times. Nobody asked for this shape: it follows from straight lines.

# %%
D = slope_reml.D.to_numpy()
print(f"variance of distance = {D[0, 0] + slope_reml.sigma**2:.2f} {2 * D[0, 1]:+.3f} t {D[1, 1]:+.4f} t²")

# %% [markdown]
# In the children it is almost flat. In the reaction times of 18 people who slept three hours a night (`sleepstudy`) the
# lines fan out, and the two hierarchies say different things about the data. Curves and 95 % bands are what the models
# imply, points what the residuals show.

# %%
sleep = hl.load_dataset("sleepstudy")
fans = {
    name: hl.TwoLevelModel.from_formula(f"reaction ~ days + ({bar} | subject)", sleep).fit_reml()
    for name, bar in {"random intercept": "1", "random intercept and slope": "1 + days"}.items()
}
hl.compare_implied(*fans.values(), times=np.linspace(0, 9, 25), labels=list(fans)).plot_variance(
    figure_kwargs={"figsize": (7.5, 4.6)}
)

# %% [markdown]
# ## 2. Marginal models of the same data
#
# A marginal model starts at the other end: choose the mean, then the correlation of a subject's rows. Nothing in it
# belongs to a child.

# %%
correlations = {
    "independence": (None, None),
    "compound symmetry": (hl.CompoundSymmetry(), None),
    "AR(1)": (hl.AR1(), None),
    "unstructured": (hl.Unstructured("age"), hl.VarIdent("age")),
}
marginal = {
    name: hl.MarginalModel(MEAN, correlation=correlation, variance=variance, subject="subject", data=dental)
    for name, (correlation, variance) in correlations.items()
}
fits = {name: model.fit_reml() for name, model in marginal.items()}
fits["compound symmetry"]

# %%
slope_reml_label = "hierarchy: intercept, slope"
everything = {"hierarchy: intercept": intercept_reml, slope_reml_label: slope_reml, **fits}
models = {"hierarchy: intercept": intercept, slope_reml_label: slope, **marginal}
rows = {}
for name, fit in everything.items():
    growth = fit.summary().loc["sex[T.Male]:time"]
    rows[name] = {
        "parameters of V": fit.n_parameters - len(fit.beta),
        "loglik (REML)": fit.loglik,
        "AIC (ML)": models[name].fit_ml().aic,
        "boys' extra growth": growth["estimate"],
        "se": growth["se"],
    }
for working in ("independence", "exchangeable", "unstructured"):
    gee = intercept.fit_gee(working, time="time" if working == "unstructured" else None)
    rows[f"GEE, {working}"] = {
        "boys' extra growth": gee.beta["sex[T.Male]:time"],
        "se": gee.beta_se["sex[T.Male]:time"],
    }
table = pd.DataFrame(rows).T
table.round(3)

# %% [markdown]
# Three things to see:
#
# - *The random intercept and compound symmetry are the same marginal model*: same likelihood, same AIC, same
#   coefficients and standard errors. Only the words differ.
# - *The estimate hardly depends on V, its standard error does.* In these complete data every V of lines or levels
#   gives the least-squares estimate; AR(1) and the unstructured V weight the visits differently.
# - GEE has no likelihood, hence no AIC. Its standard errors here are robust: they do not believe the working
#   correlation.

# %%
figure, panel = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
for place, (name, row) in enumerate(table.iloc[::-1].iterrows()):
    color = BLUE if name.startswith("hier") else GREEN if name.startswith("GEE") else RED
    half = 1.96 * row["se"]
    panel.errorbar(row["boys' extra growth"], place, xerr=half, fmt="o", color=color, capsize=3, linewidth=2)
panel.set_yticks(range(len(table)), table.index[::-1])
panel.axvline(0, color=GREY, linewidth=1)
_ = panel.set(title="Do boys grow faster? One question, nine answers", xlabel="Extra growth of boys (mm a year)")

# %% [markdown]
# The parameters of the marginal models, with profile intervals: the values at which the likelihood is not yet too low,
# without pretending that it is symmetric.

# %%
pd.concat(
    {name: fit.variance_components(method="profile") for name, fit in fits.items() if name != "independence"}
).round(3)

# %%
hl.compare_implied(
    intercept_reml, slope_reml, fits["AR(1)"], fits["unstructured"], times=[0, 2, 4, 6],
    at={"age": [8, 10, 12, 14]},
    labels=["random intercept", "random intercept and slope", "AR(1)", "unstructured"],
).plot_heatmap(col_wrap=2)  # fmt: skip

# %% [markdown]
# AR(1) lets correlations fade with distance in time; children's do not fade: a large child stays large. The
# unstructured V has ten parameters for four ages, and with 27 children each is known only roughly.
#
# ## 3. How the fit is reached: two steps, in turn
#
# Step 1: given V, generalised least squares for $\beta$. Step 2: given $\beta$, new variances. In these complete data
# nothing is left after the first turn (the second finds nothing to change), because $\hat\beta$ is the same for
# every V of this hierarchy. Where visits were missed it takes more.

# %%
rng = np.random.default_rng(3)
missed = dental[(dental["age"] == 8) | (rng.random(len(dental)) > 0.5)]
gaps = hl.TwoLevelModel.from_formula(f"{MEAN} + (1 + time | subject)", missed)
steps = hl.gls_steps(gaps, reml=True)
print("turns, complete data:      ", hl.gls_steps(slope, reml=True).iterations)
print("turns, with missed visits: ", steps.iterations)
print("the same, with EM steps:   ", hl.gls_steps(gaps, reml=True, update="em").iterations)
steps.plot()

# %% [markdown]
# No turn lowers the likelihood, and the end is the REML fit. The last panel is what is still lacking, on a logarithmic
# scale.

# %%
print(f"difference from fit_reml(): {steps.loglik - gaps.fit_reml().loglik:.1e}")

# %% [markdown]
# ## 4. Does this V come from a hierarchy?
#
# The way back is a question with an answer. The unstructured V of these children has a closest hierarchy, but is none:

# %%
hl.is_hierarchical(fits["unstructured"].marginal_covariance(), ["Intercept", "time"], times=[0, 2, 4, 6])

# %% [markdown]
# Nor is compound symmetry with a negative correlation, for another reason: a variance between subjects would have to be
# negative.

# %%
hl.is_hierarchical(1.2 * np.eye(4) - 0.2 * np.ones((4, 4)), ["Intercept"])

# %% [markdown]
# ## 5. When measurements of a subject repel each other
#
# Litter mates that compete for milk are *less* alike than strangers. The simulated data `negative_icc` have 60 subjects
# with four rows each and a true correlation of −0.2 between the rows of a subject. Both models are fitted by REML:

# %%
repelled = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", neighbours)
free = hl.MarginalModel("y ~ time + x", correlation=hl.CompoundSymmetry(), subject="subject", data=neighbours)
repelled_reml, free_reml = repelled.fit_reml(), free.fit_reml()
print(f"random intercept:  variance {repelled_reml.sd_b.iloc[0] ** 2:.3f}, loglik {repelled_reml.loglik:.2f}")
print(f"compound symmetry: rho {free_reml.marginal_covariance().iloc[0, 1] / free_reml.sigma**2:.3f},"
      f" loglik {free_reml.loglik:.2f}")  # fmt: skip
pd.DataFrame({"random intercept": repelled_reml.beta_se, "compound symmetry": free_reml.beta_se}).T.round(3)

# %% [markdown]
# The random intercept stops at a variance of zero, the edge of what it can say, and the standard errors are those of
# independent rows: too large for `x`, which differs between subjects, too small for `time`, which differs within.
#
# The two parameter spaces in one picture. Compound symmetry needs a positive definite V only: $\sigma^2 > 0$ and
# $\sigma^2 + 4 \sigma_b^2 > 0$. The hierarchy needs $\sigma_b^2 \ge 0$ as well. To the right the two are the same.

# %%
figure, panel = plt.subplots(figsize=(7, 4.4), layout="constrained")
panel.fill([0, 4, 4, 0], [0, 0, 6, 6], color=BLUE, alpha=0.25)
panel.fill([0, -1.5, 0], [0, 6, 6], color=RED, alpha=0.25)
panel.text(2.0, 5.3, "a hierarchy,\nand a marginal model", ha="center", va="center", color=BLUE)
panel.text(-0.37, 3.1, "marginal\nmodel\nonly", ha="center", va="center", color=RED)
panel.text(-1.35, 1.5, "no covariance\nmatrix", ha="center", va="center", color="0.35")
between = {"dental": intercept_reml.D.iloc[0, 0], "negative_icc": free_reml.marginal_covariance().iloc[0, 1]}
within = {"dental": intercept_reml.sigma**2, "negative_icc": free_reml.sigma**2 - between["negative_icc"]}
for name in between:
    panel.plot(between[name], within[name], "o", color="black", markersize=7)
    panel.annotate(name, (between[name], within[name]), textcoords="offset points", xytext=(0, 9), ha="center")
panel.plot(0, repelled_reml.sigma**2, "o", markerfacecolor="white", color="black", markersize=8)
panel.annotate("negative_icc,\nrandom intercept", (0, repelled_reml.sigma**2), textcoords="offset points",
               xytext=(10, -22))  # fmt: skip
panel.axvline(0, color="black", linewidth=1)
_ = panel.set(
    title="Four measurements a subject: where the two models live",
    xlabel=r"$\sigma_b^2$: covariance between two measurements of a subject",
    ylabel=r"$\sigma^2$",
    xlim=(-2, 4),
    ylim=(0, 6),
)

# %% [markdown]
# What does each formulation *believe* about the correlation, once it has seen these data? The posterior of the
# hierarchy lives on positive values and leans against zero; that of the marginal model lies where the truth is.

# %%
repelled_nuts = repelled.fit(seed=1, progressbar=False)
free_nuts = free.fit(seed=1, progressbar=False)
believed = {
    "random intercept": repelled_nuts.draws("icc").ravel(),
    "compound symmetry": np.asarray(free_nuts.datatree["posterior"]["residual_correlation"]).ravel(),
}
pd.DataFrame(believed).quantile([0.025, 0.5, 0.975]).T.round(3)

# %%
figure, panel = plt.subplots(figsize=(7, 3.6), layout="constrained")
bins = np.linspace(-0.36, 0.16, 66)
for (name, draws), color in zip(believed.items(), (BLUE, RED), strict=True):
    panel.hist(draws, bins=bins, density=True, color=color, alpha=0.45, label=name)
panel.axvline(-0.2, color="black", linestyle="--", label="truth")
panel.axvline(-1 / 3, color=GREY, linewidth=1)
panel.text(-1 / 3, 0.5 * panel.get_ylim()[1], " least possible", rotation=90, ha="right", va="center", color="0.4")
panel.set(title="Posterior of the correlation within subjects", xlabel="Correlation", yticks=[])
_ = panel.legend(frameon=False)

# %% [markdown]
# ## 6. Two hierarchies, one marginal model
#
# Even on the right side of the picture the shadow does not determine the body. A: each child has its own level, errors
# are independent. B: children have no level of their own, the errors of a child (the same X-ray machine, the same
# reader) are correlated. Both imply the same $V_i$.

# %%
pair = hl.same_marginal(intercept)
pair

# %% [markdown]
# No likelihood, and no posterior probability of A against B, can choose: what the data say is the same. What differs is
# what follows about a child. If its next measurement is taken with new errors (another machine, another reader), A
# carries the child's level over and B does not:

# %%
order = pair.last["A new errors"].sort_values().index
last = pair.last.loc[order]
figure, panel = plt.subplots(figsize=(8, 4), layout="constrained")
place = np.arange(len(last))
panel.plot(place, last["observed"], "o", markerfacecolor="white", color="0.4", label="observed at 14")
panel.plot(place, last["A new errors"], "_", color=BLUE, markersize=11, markeredgewidth=3, label="A: own level")
panel.plot(place, last["B new errors"], "_", color=RED, markersize=11, markeredgewidth=3, label="B: no own level")
panel.set(title="Age 14 from ages 8, 10 and 12, with errors drawn anew", xlabel="27 children", ylabel="Distance (mm)",
          xticks=[])  # fmt: skip
_ = panel.legend(frameon=False, loc="upper left")

# %% [markdown]
# *Within* A the posterior answers questions about children; of the marginal model they cannot be asked.

# %%
A = intercept.fit(seed=1, progressbar=False)
B = marginal["compound symmetry"].fit(seed=1, progressbar=False)
correlation = {
    "A: ICC": A.draws("icc").ravel(),
    "B: rho": np.asarray(B.datatree["posterior"]["residual_correlation"]).ravel(),
}
print(pd.DataFrame(correlation).quantile([0.025, 0.5, 0.975]).T.round(2))
child = order[-1]
above, sd = A.b.loc[child].iloc[0], A.b_sd.loc[child].iloc[0]
print(f"A: child {child} lies {above:.1f} mm (sd {sd:.1f}) above what is typical of its sex")
try:
    print(B.b)
except hl.NotAvailableError as error:
    print(f"B: {error}")

# %% [markdown]
# The two posteriors of the correlation are alike but not equal: the priors are. A puts its prior on two standard
# deviations, B on the correlation itself.
#
# ## 7. Mixed model against GEE, and what each standard error assumes
#
# Memory scores of 400 people in a simulated trial of cognitive training, over up to ten years, with drop-out. The slope
# may change after year 3.

# %%
active = hl.load_dataset("active")
active["late"] = (active["years"] > 3).astype(int)
memory = hl.TwoLevelModel.from_formula("memory ~ years * late * intgrp + (1 | subject)", active)
against = memory.fit_ml().compare_marginal(scale="n")
columns = ["mixed", "gee", "mixed_se", "naive_se", "robust_se", "robust / naive"]
against.table[columns].round(3)

# %% [markdown]
# | standard error | takes for granted |
# |---|---|
# | mixed model | the whole model: means, normal random intercepts, equal correlations and variances |
# | GEE, naive | means, equal correlations and variances |
# | GEE, robust | means, and many subjects |
#
# A random intercept *is* an exchangeable correlation, so estimates and the first two standard errors nearly agree.
# The robust ones differ from them by chance and by what V leaves out. That people differ in their slopes shows little
# here, where each piece of the broken line is short and the errors of measurement dominate. Draw one straight line over
# the ten years, and it shows:

# %%
STRAIGHT = "memory ~ years * intgrp"
level = hl.TwoLevelModel.from_formula(f"{STRAIGHT} + (1 | subject)", active).fit_ml()
line = hl.TwoLevelModel.from_formula(f"{STRAIGHT} + (1 + years | subject)", active).fit_ml()
straight = level.compare_marginal(scale="n").table
errors = {
    "ML, random intercept": level.beta_se,
    "GEE, naive": straight["naive_se"],
    "ML, random intercept and slope": line.beta_se,
}
print(f"log-likelihood: {level.loglik:.1f} with random intercepts, {line.loglik:.1f} with random slopes as well")

# %%
figure, panel = plt.subplots(figsize=(8, 4.4), layout="constrained")
place = np.arange(len(straight))
for (name, se), color, marker in zip(errors.items(), (BLUE, RED, GREEN), "oxs", strict=True):
    panel.plot(se.loc[straight.index] / straight["robust_se"], place, marker, color=color, markersize=8, label=name)
panel.axvline(1, color="black", linewidth=1)
panel.set_yticks(place, [str(term).replace(" Training", "") for term in straight.index])
panel.invert_yaxis()
panel.set(title="Standard errors, in units of GEE's robust one", xlabel="Ratio")
_ = figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)

# %% [markdown]
# The random intercept takes slopes for equal, and so does the exchangeable correlation: their standard errors of the
# slopes are too small. Robust standard errors and the richer hierarchy repair it, each in its own way.
#
# ## 8. Three variances of one random effect
#
# "The variance of $\hat b_i$" has three meanings. In the data with missed visits, by the number of visits that a child
# has:

# %%
gaps_reml = hl.TwoLevelModel.from_formula(f"{MEAN} + (1 | subject)", missed).fit_reml()
variances = gaps_reml.blup_variances().droplevel("term")
variances["visits"] = missed.groupby("subject").size()
by_visits = variances.groupby("visits").mean()
by_visits.round(3)

# %%
figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
names = {
    "var_of_blup": "spread of the estimates",
    "conditional": r"uncertainty of $b_i$, $\beta$ known",
    "prediction_error": r"uncertainty of $b_i$, $\beta$ estimated",
}
for (column, label), color in zip(names.items(), (RED, BLUE, GREEN), strict=True):
    panel.plot(by_visits.index, by_visits[column], "o-", color=color, label=label)
panel.axhline(gaps_reml.D.iloc[0, 0], color="black", linestyle="--", label=r"variance between children, $\sigma_b^2$")
panel.set(title="Three variances of a random intercept", xlabel="Visits of the child", ylabel="mm²", ylim=(0, None),
          xticks=by_visits.index)  # fmt: skip
_ = panel.legend(frameon=False, fontsize=8, loc="center right")

# %% [markdown]
# The spread of the estimates goes *up* with information, because little information means strong shrinkage; it is
# no measure of uncertainty. The other two go down. First and third add up to $\sigma_b^2$.
#
# ## What to take home
#
# - The hierarchy implies the marginal model. For the mean and its standard errors, that shadow is all that counts.
# - A marginal model can be wider: negative and serial correlations. It then describes measurements, not subjects.
# - Two hierarchies can cast the same shadow. Which one holds is knowledge about how the measurements came about.
# - Questions about subjects (whose level, how different, the next one) need a hierarchy.
