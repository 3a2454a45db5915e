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
# # Two meanings of a coefficient: a patient, or the mean over patients
#
# Two correct analyses of the same yes-or-no data give effects that differ by a factor of two. This page shows why, and
# what each of them is about.
#
# The data are simulated, so that the truth is known: 150 patients, six monthly visits, "well" or not. Patients differ a
# lot: on the scale of the logit, their levels have a standard deviation of 2.2. On placebo the log odds of being well
# rise by 0.15 a month, on the drug by 0.35 more.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import hierlmm as hl

SD = 2.2
rng = np.random.default_rng(11)
patient, month = np.repeat(np.arange(150), 6), np.tile(np.arange(6), 150)
drug = (patient % 2).astype(bool)
eta = -1.0 + (0.15 + 0.35 * drug) * month + SD * rng.normal(size=150)[patient]
data = pd.DataFrame(
    {
        "patient": patient,
        "month": month,
        "arm": pd.Categorical(np.where(drug, "drug", "placebo"), ["placebo", "drug"]),
        "well": np.where(rng.random(900) < 1 / (1 + np.exp(-eta)), "yes", "no"),
    }
)
well = data.assign(share=data["well"] == "yes")
well.pivot_table(index="arm", columns="month", values="share", observed=True).round(2)

# %% [markdown]
# ## The hierarchy, and the marginal model
#
# The hierarchy says how one patient's chances develop, and that patients differ. GEE says how the share of patients who
# are well develops, and has no patients in it beyond a correlation of their rows.

# %%
model = hl.TwoLevelModel.from_formula("well ~ month * arm + (1 | patient)", data, family="bernoulli")
hierarchy = model.fit_ml(n_quadrature=25)
gee = model.fit_gee()
pd.DataFrame({"hierarchy": hierarchy.beta, "GEE": gee.beta, "ratio": hierarchy.beta / gee.beta}).round(3)

# %% [markdown]
# Nothing is wrong with either. The coefficients are answers to two questions:
#
# - **conditional** (hierarchy): how do the odds change *for a patient*, whose own level stays what it is?
# - **marginal** (GEE): how do the odds of *the share of patients who are well* change?
#
# ## Why the second is smaller
#
# Averages of curves are flatter than the curves. Each thin line below is a patient of the model, all with the same
# slope on the scale of the logit. Where one of them is steep, most others are close to 0 or 1 and hardly move; the mean
# over all of them climbs slowly, from the first who change to the last.

# %%
x = np.linspace(-12, 12, 241)
levels = SD * rng.normal(size=2000)
curves = 1 / (1 + np.exp(-(0.5 * x[:, None] + levels)))
figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
panel.plot(x, curves[:, :60], color="0.8", linewidth=0.7)
panel.plot(x, 1 / (1 + np.exp(-0.5 * x)), color="#0072B2", linewidth=2.5, label="the patient in the middle")
panel.plot(x, curves.mean(axis=1), color="#D55E00", linewidth=2.5, label="the mean over patients")
panel.set(xlabel="x", ylabel="probability")
_ = panel.legend(frameon=False)

# %% [markdown]
# For the logit there is no exact formula, but a good rule of thumb (Zeger, Liang & Albert 1988): a coefficient shrinks
# by $1 / \sqrt{1 + 0.346\,\sigma_b^2}$. With the probit link the shrinkage is exactly $1 / \sqrt{1 + \sigma_b^2}$, with
# the identity link there is none, and with the log link a random intercept moves the intercept only.

# %%
print(f"rule of thumb: {1 / np.sqrt(1 + 0.346 * hierarchy.D.iloc[0, 0]):.3f}")

# %% [markdown]
# ## From one to the other
#
# The hierarchy knows both: its random effects can be integrated out. The way back does not exist, since GEE does not
# know how much patients differ.

# %%
hierarchy.marginal_coefficients()

# %% [markdown]
# Side by side, the two kinds stand in blocks of their own; a difference within a block is one of estimators, a
# difference between blocks is one of meaning.

# %%
comparison = hl.compare(hierarchy, gee)
comparison

# %%
comparison.plot_conditional_vs_marginal(variable="month", by="arm")

# %% [markdown]
# ## Which one to report
#
# To a patient who asks what the drug will do for her, the conditional effect: her odds rise by this factor each month,
# beyond what they would on placebo. To whoever plans for a population, the marginal one. In predictions the difference
# is one of level:

# %%
at = pd.DataFrame({"patient": 0, "month": 5, "arm": ["placebo", "drug"]})
levels = {"the patient in the middle": "population", "the share of patients": "marginal"}
pd.concat({title: hierarchy.predict(at, level=level, interval="confidence") for title, level in levels.items()}).round(
    3
)
