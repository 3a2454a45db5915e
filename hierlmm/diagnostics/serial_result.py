"""What `semivariogram` and `autocorrelation` find, and its words (the mathematics is in `diagnostics.serial`)."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.frames import shorten
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import sayer

SAY = sayer(__file__)
LINES = {"subject": "around the subjects' own lines", "population": "around the population line"}


@checked
@dataclass(frozen=True, eq=False, repr=False)
class SerialCheck(Result):
    """What residuals of one subject have in common by lag, beside what the fitted model expects of them.

    Attributes
    ----------
    table : DataFrame
        By lag: ``lag`` (mean of the bin), ``pairs`` (number of pairs), the observed mean, ``expected`` under the fitted
        model, ``lower`` and ``upper`` (pointwise band), ``lower_all`` and ``upper_all`` (band for all lags together),
        ``outside`` (whether the observed mean leaves the latter).
    p_value : float
        Of the largest deviation among all lags, by simulation under the fitted model.
    mean_square, expected_mean_square : float
        Mean of all squared residuals, and what the model expects of it.
    scale_ratio, scale_p_value : float
        Of a semivariogram: its mean over all pairs, relative to the mean square of the residuals, over what is expected
        of it, and how unusual that is under the fitted model (near 1 where the model was free to fit it); NaN for an
        autocorrelation, and with ``refit``.
    level, kind : str
        Which residuals.
    time : str
        What the lag is measured in.
    ci : float
        Probability of the bands.
    simulations : int
    refit : bool
        Whether the covariance parameters were estimated anew in every simulated data set.
    estimator, response : str
    correlation : str
        The residual correlation of the model, in words.
    serial : bool
        Whether the model has a residual correlation.
    note : str
        What must be known about the band.
    """

    table: pd.DataFrame
    p_value: float
    mean_square: float
    expected_mean_square: float
    scale_ratio: float
    scale_p_value: float
    level: str
    kind: str
    time: str
    ci: float
    simulations: int
    refit: bool
    estimator: str
    response: str
    correlation: str
    serial: bool
    note: str

    name = ""
    column = ""

    @property
    def stands_out(self) -> bool:
        """Whether the observed means leave the model's by more than chance, at 1 - ``ci`` for all lags together."""
        return bool(min(self.p_value, np.nan_to_num(self.scale_p_value, nan=1.0)) <= 1.0 - self.ci)

    @property
    def verdict(self) -> str:
        """The answer in words."""
        return " ".join(part for part in (_scale_words(self), _lag_words(self)) if part)

    @abstractmethod
    def _alike(self) -> FloatArray:
        """+1 where pairs are more alike than expected, -1 where less."""

    def _page(self) -> Page:
        of = f"{self.name} of {self.kind} residuals {LINES[self.level]}"
        shown = self.table.drop(columns=["from", "to"], errors="ignore").rename(columns={"lag": f"lag ({self.time})"})
        text = shown.to_string(index=False, float_format=lambda v: f"{v:.4g}")
        return Page(
            f"{of}: {self.response}, {self.estimator} ({self.correlation})",
            [Table(shown, [text], f"{self.name} by lag"), Paragraph(self.verdict, 110), Paragraph(self.note, 110)],
        )

    @pictured
    def plot(self, **figure: Unpack[Figure]) -> Any:
        """Draw the observed means, the curve that the fitted model implies, and the bands.

        Returns
        -------
        Picture
            Visuals ``expected`` and ``observed``.
        """
        from hierlmm.drawing.results import plot_serial

        return plot_serial(self, figure)


@checked
class Semivariogram(SerialCheck):
    """Semivariogram of residuals, made by `semivariogram`; see `SerialCheck` for what it holds."""

    name, column = "Semivariogram", "semivariance"

    def _alike(self) -> FloatArray:
        observed, expected, pairs = (self.table[c].to_numpy() for c in ("semivariance", "expected", "pairs"))
        scale = 1.0 if self.refit else (observed @ pairs) / (expected @ pairs)
        return np.sign(scale * expected - observed)


@checked
class Autocorrelation(SerialCheck):
    """Autocorrelation of residuals, made by `autocorrelation`; see `SerialCheck` for what it holds."""

    name, column = "Autocorrelation", "autocorrelation"

    def _alike(self) -> FloatArray:
        return np.sign((self.table["autocorrelation"] - self.table["expected"]).to_numpy())


def _p(value: float) -> str:
    return f"p = {value:.3g}" if value >= 0.001 else "p < 0.001"


def _scale_words(check: SerialCheck) -> str:
    """On the level of a semivariogram, where the model could not fit it."""
    if not check.scale_p_value <= 1.0 - check.ci:
        return ""
    way, less = ("more", "") if check.scale_ratio < 1.0 else ("less", SAY("serial.less"))
    return SAY("serial.scale", way=way, ratio=check.scale_ratio, p=_p(check.scale_p_value), less=less)


def _lag_words(check: SerialCheck) -> str:
    """On single lags, where they stand out of all of them."""
    p, table = _p(check.p_value), check.table
    said = bool(_scale_words(check))
    if len(table) == 1 and not math.isnan(check.scale_ratio):
        return "" if said else SAY("serial.one_lag")
    if not table["outside"].any():
        return SAY("serial.beyond" if said else "serial.nothing", p=p)
    sign = check._alike()
    parts: list[str] = []
    for value, way in ((1.0, "more"), (-1.0, "less")):
        chosen = table[table["outside"] & (sign == value)]
        if not len(chosen):
            continue
        worst = chosen.iloc[int(np.argmax(np.abs(chosen[check.column] - chosen["expected"])))]
        slots = {"pairs": "pairs" if parts else "Pairs", "lags": shorten([f"{v:.3g}" for v in chosen["lag"]])}
        slots |= {"time": check.time, "way": way, "column": check.column, "observed": worst[check.column]}
        parts.append(SAY("serial.lags", lag=worst["lag"], expected=worst["expected"], **slots))
    words = "; ".join(parts) + f"; {p} for all lags together."
    if check.serial:
        return f"{words} {SAY('serial.shape')}"
    early = table["outside"].iloc[0] and sign[0] > 0 and check.estimator != "GEE"
    return f"{words} {SAY('serial.candidate')}" if early else words
