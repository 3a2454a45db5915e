"""Predictions of any fit with random effects, for rooms that do not know which kind they hold."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hierlmm.predict.dynamic import predict_new_subject, predict_new_subject_draws
from hierlmm.predict.likelihood import predict_rows as predict_by_likelihood
from hierlmm.predict.posterior import predict_rows as predict_by_draws


def predict(fit: Any, newdata: Any, level: str, interval: str | None, ci: float) -> pd.DataFrame:
    """Predict rows; see ``predict`` of the kind of fit."""
    if fit.has_draws:
        return predict_by_draws(fit, newdata, level, interval, ci, 0)
    return predict_by_likelihood(fit, newdata, level, interval, ci)


def predict_subject(fit: Any, history: Any, times: Any, **options: Any) -> pd.DataFrame:
    """Predict a new subject from its first measurements; see ``predict_subject`` of the kind of fit."""
    fit.require("predict_subject")
    return (predict_new_subject_draws if fit.has_draws else predict_new_subject)(fit, history, times, **options)
