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
# # More than two levels: pastes, penicillin, and the eyes of glaucoma patients
#
# Casks in batches, samples crossed with plates, tests of eyes of patients: which rows are alike, how much, and what
# is lost by leaving a level out.
#
# A two-level model knows rows and subjects. Here rows belong to several kinds of groups. Either these are *nested*,
# as casks lie in batches, or *crossed*, as every sample meets every plate. In both cases every factor has random
# effects of its own, and two rows are alike because of the groups that they *share*.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import hierlmm as hl

# %% [markdown]
# ## Nested: casks of a paste
#
# Ten batches of a chemical paste were delivered, three casks of each were opened, and the strength of each cask was
# measured twice (Davies and Goldsmith, 1972).

# %%
pastes = hl.load_dataset("pastes")
model = hl.MultilevelModel.from_formula("strength ~ 1 + (1 | batch / cask)", pastes)
model

# %% [markdown]
# An equation for each level: the row's measurement around the level of its cask, this around that of its batch. The
# casks of every batch are called a, b and c; `batch / cask` says that cask a of batch A is not cask a of batch B.

# %%
fit = model.fit_reml()
fit.interpret()

# %% [markdown]
# Most of the variance lies between casks of one batch, and hardly any between batches: knowing the batch helps
# little, knowing the cask a lot. Here are the measurements with both kinds of predictions.

# %%
figure, panel = plt.subplots(figsize=(8, 3.6), layout="constrained")
place = pastes["batch"].cat.codes if hasattr(pastes["batch"], "cat") else pd.factorize(pastes["batch"])[0]
inner = pd.factorize(pastes["cask"])[0]
panel.plot(place + 0.25 * (inner - 1), pastes["strength"], "o", color="0.35", markersize=4, label="measurements")
of_cask, of_batch = fit.fitted("all"), fit.fitted("batch")
panel.plot(place + 0.25 * (inner - 1), of_cask, "_", color="#D55E00", markersize=13, markeredgewidth=2, label="cask")
panel.hlines(of_batch, place - 0.4, place + 0.4, color="#0072B2", linewidth=1.5, label="batch")
panel.axhline(fit.beta["Intercept"], color="0.7", linewidth=0.8, zorder=0)
panel.set(title="Casks differ, batches hardly do", xlabel="batch", ylabel="strength", ylim=(52.5, 67))
panel.set_xticks(range(10), [str(b) for b in pd.unique(pastes["batch"])])
_ = panel.legend(ncols=3, loc="lower left", frameon=False)

# %% [markdown]
# Is there any difference between batches at all? Without them the likelihood is hardly worse. The variance under
# question lies at the end of its range, so half of the usual p belongs (`p_mixture`).

# %%
casks = hl.MultilevelModel.from_formula("strength ~ 1 + (1 | batch:cask)", pastes).fit_reml()
hl.anova(casks, fit)

# %% [markdown]
# That is no reason to drop the batches: ten of them cannot show that a variance is zero, and the casks were drawn
# from batches. The interval of the mean rests on 9 degrees of freedom with batches, and on 29 without.

# %%
both = {"with batches": fit.summary(df="kenward-roger"), "without": casks.summary(df="kenward-roger")}
pd.concat(both)[["estimate", "se", "df", "lower", "upper"]].round(2)

# %% [markdown]
# ## Crossed: plates and samples of penicillin
#
# Six samples of penicillin were put on each of 24 plates; the diameter of the zone in which they stop the growth of
# bacteria is measured. A zone belongs to a plate *and* to a sample.

# %%
penicillin = hl.load_dataset("penicillin")
crossed = hl.MultilevelModel.from_formula("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin).fit_reml()
crossed.variance_components(method="profile").round(3)

# %% [markdown]
# Samples differ most. Six of them say little about how much, which the interval shows.

# %%
crossed.plot_random_effects("sample")

# %% [markdown]
# Two zones on one plate share the plate, two of one sample the sample, others nothing. That is all there is in their
# covariance: a sum over the groups in common. Sorted by samples, it is a matrix of blocks with the plates as stripes.

# %%
shared = crossed.implied_marginal()
shared

# %%
shared.plot_heatmap()

# %% [markdown]
# ## Four levels: the eyes of glaucoma patients
#
# In glaucoma, sensitivity to light is lost, place by place in the visual field. Studies measure it (in dB) at many
# *locations* in one *test*, test an *eye* every year, and both eyes of a *patient*. Rows are locations in tests in
# eyes in patients. We simulate 40 patients with four tests of each eye; one eye of each gets drops.

# %%
sizes = {"patient": 40, "eye": 2, "test": 4}
truth = {
    "beta": {"Intercept": 25.0, "year": -0.6, "drops[T.yes]": 1.0, "age": -0.1},
    "D": {"patient": 6.0, "patient:eye": 4.0, "patient:eye:test": 1.5},
    "sigma": 3.0,
    "covariates": {
        "patient": {"age": ("normal", 0.0, 8.0)},
        "patient:eye": {"drops": ["no", "yes"]},
        "patient:eye:test": {"year": [0, 1, 2, 3]},
    },
}
FORMULA = "sensitivity ~ year + drops + age + (1 | patient / eye / test)"
field = hl.simulate_multilevel(FORMULA, sizes=sizes, rows=8, seed=11, **truth)
field.head()

# %% [markdown]
# Age (in years around 65) belongs to the patient, drops to the eye, the year to the test. Each stands in the equation
# of its level.

# %%
four = hl.MultilevelModel.from_formula(FORMULA, field)
glaucoma = four.fit_reml()
four.equations(glaucoma)

# %% [markdown]
# Two locations of one test share the test, the eye and the patient; the fellow eyes share the patient alone.

# %%
glaucoma.implied_marginal()

# %% [markdown]
# What is known of a patient says what to expect of a test that has not been made: of the same eye, of the fellow eye
# of somebody of whom one eye was tested, of a new patient. The less is shared, the wider is the interval of a
# location.

# %%
rows = pd.DataFrame(
    {
        "patient": [1, 1, 99],
        "eye": [1, 3, 1],
        "test": [9, 9, 9],
        "year": 3,
        "drops": "no",
        "age": field["age"].iloc[0],
    },
    index=["an eye that was tested", "an eye that was not", "a new patient"],
)
glaucoma.predict(rows, interval="prediction", new_groups="allow").round(2)

# %% [markdown]
# ## What is lost by ignoring a level
#
# A model without a level takes what its groups have in common for something else. What then goes wrong depends on
# where a covariate lives. Each line is a model; its standard errors are those that it prints.

# %%
FIXED = "sensitivity ~ year + drops + age + "
MODELS = {
    "all levels": "(1 | patient / eye / test)",
    "without tests": "(1 | patient / eye)",
    "without eyes": "(1 | patient) + (1 | patient:eye:test)",
    "patients only": "(1 | patient)",
}


def fitted(random, data):
    """A fit by REML of the fixed effects with some levels."""
    return hl.MultilevelModel.from_formula(FIXED + random, data).fit_reml()


printed = {name: fitted(random, field).beta_se for name, random in MODELS.items()}
pd.DataFrame(printed).T.drop(columns="Intercept").round(3)

# %% [markdown]
# Drops are given to eyes. Without eyes, the tests of an eye count as so many independent results beside what the
# patient explains, and the standard error of drops comes out at half of what it should be; with patients alone it is a
# third. The same holds for the year, which varies between tests, without tests. Age lives above the eyes; the
# patient's random effect takes over, and its standard error hardly moves. What must not be missing is the level at
# which a covariate varies.
#
# Is the larger standard error the right one? Data drawn from the full model, and fitted again, say how much the
# estimate varies. Here every model has the same estimate of drops, the mean difference between the eyes, so that these
# estimates are those of the model without eyes, too.

# %%
again = glaucoma.bootstrap(200, seed=1, progressbar=False).draws["drops[T.yes]"]
error = again - glaucoma.beta["drops[T.yes]"]
se = {name: printed[name]["drops[T.yes]"] for name in ("all levels", "without eyes")}
outside = {name: float((error.abs() > 1.96 * own).mean()) for name, own in se.items()}
pd.DataFrame({"SD of the estimates": again.std(), "printed": se, "outside 1.96 of it": outside}).round(3)

# %%
figure, panel = plt.subplots(figsize=(7, 3.2), layout="constrained")
panel.hist(error, bins=24, density=True, color="0.85")
x = np.linspace(-1.6, 1.6, 200)
for (name, own), colour in zip(se.items(), ("#0072B2", "#D55E00"), strict=True):
    panel.plot(x, np.exp(-0.5 * (x / own) ** 2) / (own * np.sqrt(2 * np.pi)), color=colour, label=f"printed, {name}")
panel.set(title="Errors of the effect of drops in 200 studies", xlabel="estimate - truth (dB)", yticks=[])
_ = panel.legend(frameon=False)

# %% [markdown]
# An interval of 95 % from the model without eyes misses the truth in more than a quarter of these studies.
#
# ## More patients, or more tests?
#
# Before a study is made, the same model says what it can find. For the drops, more locations do not help: what eyes
# have of their own stays. Patients do.

# %%
sizes["patient"] = [20, 40, 80]
hl.multilevel_design_analysis(FORMULA, sizes=sizes, rows=[8, 32], coefs="drops[T.yes]", seed=1, **truth)

# %% [markdown]
# ## What to remember
#
# - Write a level for every way in which rows are alike, and look where the covariates vary.
# - `/` nests, `+` crosses; `print(model)` says which of both the data show.
# - The covariance of two rows is the sum over what they share: `fit.implied_marginal()`.
# - A level without variance costs little; a level that is missing costs the standard errors of what varies there.
