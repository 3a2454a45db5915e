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
# # A clinical trial, from the protocol to the tipping point
#
# Two hundred patients, two arms, four visits, and a fifth of the patients gone before the end.
#
# The mixed model for repeated measurements (MMRM) is the usual primary analysis of such trials. It is a marginal
# model: a mean for every arm at every visit, and a covariance of the visits about which nothing is assumed. This page
# follows one trial from its protocol to the question that a reviewer will ask: what if the patients who left did
# worse than the model thinks? The trial is simulated, so that the truth is known.
#
# ## The protocol
#
# - Outcome: change from baseline of FEV1 (the air breathed out in the first second, here in percent of what is
#   normal) at weeks 4, 8, 12 and 16; the primary comparison is at week 16.
# - Model: change by arm and visit, with the baseline at every visit; unstructured covariance; REML; Kenward and
#   Roger's degrees of freedom.
# - Measurements after a patient leaves are missing, and taken to be missing at random. How much depends on that is
#   looked at afterwards.

# %%
import numpy as np
import pandas as pd

import hierlmm as hl

VISITS = ["week 4", "week 8", "week 12", "week 16"]
MEANS = {"placebo": [0.5, 0.8, 1.0, 1.0], "active": [2.0, 3.2, 4.2, 4.6]}
SD = np.array([4.0, 4.6, 5.2, 6.0])
R = np.array([[1.0, 0.65, 0.5, 0.45], [0.65, 1.0, 0.7, 0.6], [0.5, 0.7, 1.0, 0.75], [0.45, 0.6, 0.75, 1.0]])


def simulate_trial(seed, patients=200):
    """Patients leave after a visit, the sooner the worse they were there: missing at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(patients):
        arm = ("placebo", "active")[i % 2]
        baseline, still_here = rng.normal(40.0, 6.0), True
        change = rng.multivariate_normal(np.array(MEANS[arm]) - 0.25 * (baseline - 40.0), np.outer(SD, SD) * R)
        for visit, value in zip(VISITS, change, strict=True):
            rows.append((f"P{i + 1:03d}", arm, visit, baseline, value if still_here else np.nan))
            still_here = still_here and rng.random() > 1.0 / (1.0 + np.exp(2.6 + 0.22 * value))
    data = pd.DataFrame(rows, columns=["patient", "arm", "visit", "baseline", "change"])
    return data.astype({"arm": pd.CategoricalDtype(["placebo", "active"]), "visit": pd.CategoricalDtype(VISITS)})


trial = simulate_trial(2026)
patterns = hl.missing_patterns(trial, response="change", subject="patient", time="visit", by="arm")
patterns

# %%
patterns.plot()

# %% [markdown]
# ## Does leaving depend on how a patient was doing?

# %%
measured = trial.dropna(subset=["change"])
asked = {"response": "change", "subject": "patient", "time": "visit"}
hl.check_dropout(measured, **asked, by="arm", covariates="baseline")

# %% [markdown]
# It does. Simple summaries are then wrong: the patients who are left at week 16 are those who did well. In truth the
# placebo arm is 1.0 better than at baseline, and the active arm 4.6. The raw means say this:

# %%
measured.groupby(["arm", "visit"], observed=True)["change"].agg(["count", "mean", "std"]).round(2)

# %% [markdown]
# ## The primary analysis

# %%
model = hl.MarginalModel(
    "change ~ baseline * visit + arm * visit",
    correlation=hl.UnstructuredHeterogeneous("visit"),  # SAS: type=un
    subject="patient",
    data=measured,
)
mmrm = model.fit_reml()
mmrm.anova(df="kenward-roger")

# %% [markdown]
# Least-squares means of every arm at every visit, and their differences. One comparison is primary; for all four
# together the p-values and intervals are corrected as one family.

# %%
means = mmrm.marginal_means("arm", by="visit", df="kenward-roger")
means

# %%
means.plot()

# %%
differences = mmrm.contrasts("arm", "trt.vs.ctrl", by="visit", df="kenward-roger", together=True)
differences

# %%
differences.plot()

# %% [markdown]
# The placebo arm is at 1.0, as in truth: the model knows from those who stayed how week 16 follows from the weeks
# before, and expects of those who left what it expects of others with the same past. Nothing was imputed for that.
#
# Do the standard errors rest on the covariance? The sandwich does not use it:

# %%
pd.DataFrame({
    "Kenward-Roger": mmrm.summary(df="kenward-roger")["se"],
    "empirical": mmrm.summary(se="empirical-jackknife")["se"],
}).round(3)  # fmt: skip

# %% [markdown]
# ## The same model by NUTS
#
# With the mean integrated out, ten covariance parameters are left to sample. The posterior answers what a p-value
# cannot: how probable is it that the effect at week 16 is larger than two?

# %%
posterior = model.fit(seed=1, progressbar=False)
effects = posterior.contrasts("arm", "trt.vs.ctrl", by="visit")
effects

# %%
week16 = effects.draws[:, -1]
print(f"P(effect at week 16 > 2) = {np.mean(week16 > 2.0):.2f}")

# %% [markdown]
# ## What if those who left did worse?
#
# *Missing at random* means: a patient who left would have gone on as others of the same arm with the same past. A
# patient who stops an active treatment may rather go on as the placebo arm does. *Jump to reference* computes the
# effect for that case, by multiple imputation and Rubin's rules:

# %%
hl.reference_based(mmrm, "jump to reference", treatment="arm", reference="placebo", data=trial)

# %% [markdown]
# Or we ask how much worse they must have done before the result is lost.

# %%
tipping = hl.tipping_point(mmrm, treatment="arm", reference="placebo", data=trial)
tipping

# %%
tipping.plot()

# %% [markdown]
# The patients in the active arm who left would have to lie more than nine points below what the model expects of
# them, while those of the placebo arm are as it says. Whether that can be is a question for physicians. The same from
# the posterior needs no imputations and no rules for pooling them: the effect is a function of the draws.

# %%
hl.delta_adjusted(posterior, -4.0, treatment="arm", reference="placebo", data=trial)
