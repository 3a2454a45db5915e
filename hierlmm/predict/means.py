"""Means of the response at given rows, of any fit with random effects: at its estimates, or averaged over its draws."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import own_columns
from hierlmm.predict.averages import mean_over_subjects
from hierlmm.predict.generalised import random_variance
from hierlmm.predict.posterior_generalised import posterior_means
from hierlmm.predict.rows import Rows


def means_of_rows(fit: Any, rows: Rows, level: Literal["subject", "population", "marginal"]) -> FloatArray:
    """Mean (of one trial) of every row, (n,): of its subject, at b = 0, or over subjects.

    Of a Gaussian response the mean at the estimates is the average over draws, and needs no draws. Of a posterior that
    kept only means of the random effects, subjects have the mean at the posterior means.
    """
    family = fit.design.family
    summarised = level == "subject" and fit.has_draws and "b" not in fit.datatree["posterior"]
    if fit.has_draws and not fit.design.is_gaussian and not summarised:
        return posterior_means(fit, rows, level)
    eta = rows.line(fit.beta.to_numpy())
    if level == "subject":
        eta = eta + np.einsum("ij,ij->i", own_columns(fit.design, rows.Z), fit.b.to_numpy()[rows.subject])
    if level == "marginal":
        return mean_over_subjects(family, eta, random_variance(rows.Z, fit.D.to_numpy()))
    return np.asarray(family.mean(eta))
