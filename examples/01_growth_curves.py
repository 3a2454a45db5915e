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
# # Growth curves: do boys grow faster than girls?
#
# From the raw measurements of 27 children to the answers to three questions, by REML and by NUTS side by side.
#
# The distance between two points of the skull, the centre of the pituitary gland and the pterygomaxillary fissure, was
# measured on X-rays of 11 girls and 16 boys at the ages of 8, 10, 12 and 14 (Potthoff and Roy, 1964). Orthodontists
# want to know how it grows:
#
# 1. Is the average rate of growth the same for girls and boys?
# 2. How much do rates of growth vary between children of the same sex?
# 3. Do children who start out large grow faster, or slower?
#
# The second and third question are about how *children* differ. A model for the mean alone cannot answer them; a
# hierarchical model can.

# %%
import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import gaussian_kde, norm

import hierlmm as hl
from hierlmm.plots import plot_random_effects

dental = hl.load_dataset("dental")
dental.head(8)

# %% [markdown]
# One row per measurement. Time is counted in years since age 8, so that an intercept is a distance at age 8 and not at
# birth, where nobody was measured. Distances are in millimetres.

# %%
print(hl.describe_dataset("dental"))

# %%
dental.groupby(["sex", "age"], observed=True)["distance"].agg(["count", "mean", "std"]).round(2)

# %% [markdown]
# A line for each child shows what the table of means cannot: most children keep their place, large ones stay large.

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.6), sharex=True, sharey=True, layout="constrained")
for panel, (sex, children) in zip(panels, dental.groupby("sex", observed=True), strict=True):
    for _, child in children.groupby("subject"):
        panel.plot(child["time"], child["distance"], "o-", color="0.35", linewidth=0.8, markersize=3)
    panel.set(title=sex, xlabel="Years since age 8", xticks=[0, 2, 4, 6])
_ = panels[0].set_ylabel("Distance (mm)")

# %% [markdown]
# ## Boys: every boy his own level
#
# We begin with the boys. *Level 1* is the boy's own regression, a straight line in time. *Level 2* says how the lines
# differ between boys: here in their level only, the slope is common to all.

# %%
boys = dental[dental["sex"] == "Male"]
intercepts = hl.TwoLevelModel("distance ~ time", subject="subject", data=boys, random=["Intercept"])
print(intercepts)

# %% [markdown]
# The equations come as LaTeX too, for a handout or a paper.

# %%
print(intercepts.equations().latex)

# %% [markdown]
# ### By REML

# %%
intercepts_reml = intercepts.fit_reml()
print(intercepts_reml)

# %% [markdown]
# The fitted lines are parallel, because the model says so. The bold one is the population line, at $b_i = 0$.

# %%
AXES = {"xlabel": "Years since age 8", "ylabel": "Distance (mm)"}
intercepts_reml.plot_trajectories(**AXES)

# %% [markdown]
# Everything in one table. Intervals of the fixed effects are Wald intervals: estimate ± 1.96 standard errors.


# %%
def one_table(fit):
    """Fixed effects, then standard deviations and correlations, with 95 % intervals."""
    both = pd.concat([fit.summary(), fit.variance_components()])
    return both[["estimate", "lower", "upper"]].round(3)


one_table(intercepts_reml)

# %% [markdown]
# ### By NUTS
#
# The same model, now with priors, and with a distribution instead of a point for everything that is unknown.
# `model.fit()` samples the posterior; `model.compare()` does so and puts it beside other estimators.

# %%
intercepts_both = intercepts.compare("nuts", "reml", seed=1, progressbar=False)
intercepts_both

# %% [markdown]
# The print of the posterior says which priors it has, and whether the sampler can be trusted.

# %%
intercepts_nuts = intercepts_both.fits["NUTS"]
print(intercepts_nuts)

# %% [markdown]
# The fixed effects agree. The posterior mean of the standard deviation between boys lies above REML's estimate: with 16
# boys its distribution leans to the right, REML reports the peak and NUTS the mean. Neither is wrong, and the interval
# says more than either.
#
# ### What this model says about the data themselves
#
# Averaged over the boys, a random intercept gives every age the same variance, $\sigma_{b0}^2 + \sigma^2$, and every
# two ages the same correlation, $\sigma_{b0}^2 / (\sigma_{b0}^2 + \sigma^2)$: an *exchangeable* correlation, also
# called the intra-class correlation (ICC).

# %%
AGES = [8, 10, 12, 14]


def implied(fit):
    """Covariance of the four measurements of one child, by age."""
    V = fit.marginal_covariance()
    return pd.DataFrame(V.to_numpy(), index=pd.Index(AGES, name="age"), columns=AGES)


implied(intercepts_reml).round(2)

# %%
low, high = np.quantile(intercepts_nuts.draws("icc"), [0.025, 0.975])
print(f"variance at every age, REML    {intercepts_reml.D.iloc[0, 0] + intercepts_reml.sigma**2:.2f}")
print(f"correlation (ICC), REML        {intercepts_reml.icc:.2f}")
print(f"correlation (ICC), posterior   {intercepts_nuts.icc:.2f}, 95 % interval {low:.2f} to {high:.2f}")

# %% [markdown]
# Beside it, the correlations of the boys' measurements as observed. With 16 boys they scatter, and do not contradict
# one common value.

# %%
boys.pivot_table(index="subject", columns="age", values="distance").corr().round(2)

# %% [markdown]
# ## Boys: every boy his own level and his own growth
#
# Now the slope may differ between boys as well, and level and slope may be correlated. By default every level-1
# coefficient varies between subjects, so `random=` can go.

# %%
slopes = hl.TwoLevelModel("distance ~ time", subject="subject", data=boys)
slopes.equations()

# %%
slopes_reml = slopes.fit_reml()
print(slopes_reml)

# %%
slopes_reml.plot_trajectories(**AXES)

# %%
one_table(slopes_reml)

# %% [markdown]
# In words, with REML's numbers:
#
# - At age 8 the average distance of boys is 22.6 mm. Between boys it varies with a standard deviation of 1.75 mm.
# - It grows by 0.78 mm a year on average. Between boys, rates vary with a standard deviation of 0.19 mm a year.
# - The correlation between a boy's level at age 8 and his rate of growth is −0.34: boys who start larger seem to grow a
#   little slower.
# - Around his own line a boy's measurements scatter with a standard deviation of 1.61 mm.
#
# Variance and correlation of the data may now change with age. Here the variance hardly does, because larger boys grow
# a little slower; but measurements far apart in time are less alike than neighbours.

# %%
V = implied(slopes_reml)
sd = np.sqrt(np.diag(V))
print("standard deviation by age:", dict(zip(AGES, sd.round(2).tolist(), strict=True)))
(V / np.outer(sd, sd)).round(2)

# %% [markdown]
# ### What 16 boys can say about a correlation
#
# One of these numbers should not be taken at face value. The posterior shows which.

# %%
slopes_both = slopes.compare("nuts", "reml", seed=1, progressbar=False)
slopes_nuts = slopes_both.fits["NUTS"]
slopes_both

# %%
prior = slopes_nuts.prior_predictive(draws=4000, seed=1)["prior"]
posterior = slopes_nuts.datatree["posterior"]


def interval(draws, decimals=2):
    """Mean and equal-tailed 95 % interval of some draws, as text."""
    values = np.asarray(draws)
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{values.mean():.{decimals}f}, 95 % interval {low:.{decimals}f} to {high:.{decimals}f}"


pair = {"pair": "Intercept, time"}
print(f"correlation of level and growth, REML       {slopes_reml.corr_b.loc['Intercept', 'time']:.2f}")
print(f"correlation of level and growth, posterior  {interval(posterior['corr_b'].sel(pair))}")
print(f"correlation of level and growth, prior      {interval(prior['corr_b'].sel(pair))}")

# %%
slopes_both.plot_posterior(parameters=["sd", "corr"])

# %% [markdown]
# The posterior is hardly narrower than the prior. Sixteen boys with four measurements each say next to nothing about
# this correlation, and −0.34 printed alone, without an interval, hides that. The standard deviation of the growth rates
# is not much better known: values close to zero remain possible.
#
# ## Girls and boys
#
# Now all children, with sex on level 2: it may explain both the level at age 8 and the rate of growth.

# %%
growth = hl.TwoLevelModel("distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental)
growth.equations()

# %% [markdown]
# Put level 2 into level 1, and the effect of sex on the slope becomes a product: the interaction `sex:time`. So the
# same model can be written as one formula, in the way of lme4. Which covariate lives on which level is read off the
# data.

# %%
formula = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental)
print("level 1:", formula.level1)
print("level 2:", formula.level2)
print("same model:", formula.formula == growth.formula)
print(f"REML criterion: {growth.fit_reml().criterion:.6f} and {formula.fit_reml().criterion:.6f}")

# %%
reml = growth.fit_reml()
print(reml)

# %%
reml.plot_trajectories(show="subject", **AXES)

# %%
one_table(reml)

# %% [markdown]
# ### NUTS, REML and ML side by side

# %%
comparison = growth.compare("nuts", "reml", "ml", seed=1, progressbar=False)
nuts = comparison.fits["NUTS"]
comparison

# %%
print(nuts)

# %%
comparison.plot_forest()

# %% [markdown]
# The fixed effects agree to a small part of a standard error: whoever asks about them can use any of the three. The
# standard deviations and above all the correlation are where a distribution says more than a point. ML makes no
# allowance for having estimated the fixed effects; its standard deviations between children are a little too small, and
# so are its standard errors.

# %%
comparison.plot_posterior()

# %% [markdown]
# The population line of each sex, in bold: first over the data as they were measured, then with each child's fitted
# line.

# %%
reml.plot_trajectories(show="population", **AXES)

# %%
nuts.plot_trajectories(**AXES)

# %% [markdown]
# Which child differs from the average of its sex, and in what? Levels differ clearly, growth rates hardly. NUTS mostly
# gives longer intervals than REML, which takes the variances as known.

# %%
plot_random_effects([nuts, reml])

# %% [markdown]
# A child's line borrows from the other children. Fitted to four measurements alone (grey), slopes scatter widely; the
# model pulls them towards what is typical of the sex (blue). The boy with the steepest line of his own, whose first
# measurement lies far below all others, is pulled the most.

# %%
nuts.plot_shrinkage()

# %% [markdown]
# ## The three questions
#
# ### Is the average rate of growth the same?
#
# The coefficient of `time` is the rate of girls; `sex[T.Male]:time` is what boys have in addition.

# %%
posterior = nuts.datatree["posterior"]
girls = posterior["beta"].sel(coef="time", drop=True)
more = posterior["beta"].sel(coef="sex[T.Male]:time", drop=True)
wald = reml.summary().loc["sex[T.Male]:time"]
print(f"girls, mm a year       {interval(girls)}")
print(f"boys, mm a year        {interval(girls + more)}")
print(f"difference, posterior  {interval(more)}")
print(f"difference, REML       {wald['estimate']:.2f}, Wald interval {wald['lower']:.2f} to {wald['upper']:.2f}")
print(f"probability that boys grow faster on average: {float((more > 0).mean()):.3f}")

# %% [markdown]
# Most probably it is not: boys grow faster. How much faster is less certain; anything from next to nothing to almost
# twice the estimate is compatible with these 11 girls and 16 boys.
#
# ### How much do rates of growth vary within a sex?
#
# With REML's estimates a quick statement is at hand. Girls grow by 0.48 mm a year on average, with a standard deviation
# of 0.18 between girls, so 95 % of them lie within $0.48 \pm 1.96 \cdot 0.18$; and likewise the boys.

# %%
spread = round(reml.sd_b["time"], 2)
plug_in = {}
for sex, mean in {"girls": reml.beta["time"], "boys": reml.beta["time"] + reml.beta["sex[T.Male]:time"]}.items():
    plug_in[sex] = round(mean, 2) - 1.96 * spread, round(mean, 2) + 1.96 * spread
    print(f"95 % of {sex} have a growth rate between {plug_in[sex][0]:.2f} and {plug_in[sex][1]:.2f} (plug-in)")

# %% [markdown]
# This is a *plug-in* statement: it takes 0.48 and 0.18 as if they were known. They are not. The posterior gives three
# statements that carry this uncertainty, and each answers a question of its own.
#
# **Where are the ends of that interval?** Every draw of the posterior has its own mean and standard deviation, and so
# its own two ends.

# %%
rates = {"girls": girls, "boys": girls + more}
sd_slope = posterior["sd_b"].sel(term="time", drop=True)
ends = {sex: (mean - 1.96 * sd_slope, mean + 1.96 * sd_slope) for sex, mean in rates.items()}
for sex, (lower, upper) in ends.items():
    print(f"{sex}, lower end  {interval(lower)}")
    print(f"{sex}, upper end  {interval(upper)}")

# %% [markdown]
# **Where will the growth rate of a new girl lie?** For every draw we imagine ten girls whom nobody has measured: each
# gets a random slope from that draw's $N(0, \sigma_{b1}^2)$ on top of that draw's average.

# %%
rng = np.random.default_rng(1)
new = {
    sex: mean.to_numpy() + sd_slope.to_numpy() * rng.standard_normal((10, *mean.shape)) for sex, mean in rates.items()
}
predicted = {sex: np.quantile(values, [0.025, 0.975]) for sex, values in new.items()}
for sex, (low, high) in predicted.items():
    print(f"With probability 0.95, a new {sex[:-1]} grows by {low:.2f} to {high:.2f} mm a year.")

# %% [markdown]
# **How many of them grow at all?** Within a draw the share is $\Phi(\text{mean} / \text{sd})$. Over the draws the
# share has a distribution, and its mean is the probability that a new child grows.

# %%
for sex, mean in rates.items():
    share = norm.cdf((mean / sd_slope).to_numpy())
    print(f"share of {sex} with positive growth, in %: {interval(100 * share, 1)}")
    print(f"probability that a new {sex[:-1]} grows: {share.mean():.3f} (imagined above: {(new[sex] > 0).mean():.3f})")

# %%
grid = np.linspace(-1.2, 1.7, 400)
figure, panel = plt.subplots(figsize=(7, 3.4), layout="constrained")
for values, side, color in zip(ends["girls"], ("lower", "upper"), ("#0072B2", "#009E73"), strict=True):
    density = gaussian_kde(values.to_numpy().ravel())(grid)
    panel.fill_between(grid, density, color=color, alpha=0.3, label=f"{side} end, posterior")
for k, end in enumerate(plug_in["girls"]):
    panel.axvline(end, color="#D55E00", linestyle="--", label=None if k else "plug-in, REML")
panel.plot(predicted["girls"], [-0.15, -0.15], color="black", linewidth=3, label="95 % of new girls, predictive")
panel.set(title="Girls: where 95 % of the growth rates lie", xlabel="Growth rate (mm a year)", yticks=[])
_ = panel.legend(loc="upper left", fontsize=8, frameon=False)

# %% [markdown]
# The dashed lines are all that the plug-in statement shows. Each end may lie in a wide range around its line, and the
# interval for a new girl, which has to allow for that, is wider than the plug-in one.
#
# ### Is growth related to the size at age 8?

# %%
rho = posterior["corr_b"].sel(pair="Intercept, time", drop=True)
print(f"correlation of level at age 8 and growth, REML       {reml.corr_b.loc['Intercept', 'time']:.2f}")
print(f"correlation of level at age 8 and growth, posterior  {interval(rho)}")
print(f"probability that it is negative: {float((rho < 0).mean()):.2f}")

# %% [markdown]
# This is the correlation between a child's level at age 8 and its rate of growth, not between two measurements. REML
# says −0.09, little correlation. The posterior says that we do not know: a clearly positive and a clearly negative
# correlation are both compatible with these children. "Close to zero" and "unknown" are different answers, and only an
# interval tells them apart.
#
# ## What was assumed
#
# The model gives girls and boys one covariance $D$ and one residual standard deviation. Fitted to each sex alone:

# %%
fits = {
    sex: hl.TwoLevelModel("distance ~ time", subject="subject", data=dental[dental["sex"] == sex]).fit_reml()
    for sex in ("Female", "Male")
}
table = pd.DataFrame({sex: fit.variance_components()["estimate"] for sex, fit in fits.items()})
table["Both"] = reml.variance_components()["estimate"]
table.round(2)

# %%
pd.DataFrame({sex: fit.summary().loc["time", ["estimate", "se"]] for sex, fit in fits.items()}).round(3)

# %% [markdown]
# Boys scatter around their lines far more than girls do. The average rates are those of the joint model all the same,
# as the data are balanced; but the girls' is known better, and the boys' less well, than a common $\sigma$ makes
# believe. And the estimated correlations of level and growth have opposite signs, one more reason to trust neither. A
# residual variance for each sex is the first thing to add; this version fits one $\sigma$, nlme's `varIdent` has
# several.
#
# The posterior is an ordinary `xarray.DataTree`, and every function of ArviZ takes it from here:

# %%
az.summary(nuts.datatree, var_names=["beta", "sd_b", "sigma"], ci_prob=0.95)
