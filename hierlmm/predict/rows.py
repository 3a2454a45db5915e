"""What is predicted: the rows, and the level at which they are looked at.

With w = (x, z) of a row, the linear predictor is x'β + z'b (plus an offset), and the levels differ in b:

    subject        b = b_i, estimated from the subject's own data
    population     b = 0
    new_subject    b ~ N(0, D), one subject that was not in the data
    marginal       averaged over b ~ N(0, D)

All levels are computed on the scale of the linear predictor. For a Gaussian response that is the response's own scale,
and the population line and the marginal mean coincide; they differ in what an interval for a measurement contains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.design.design import Design, own_columns
from hierlmm.design.questions import first_row_of_subjects
from hierlmm.errors import DataError
from hierlmm.fits.base import INTERVALS, check_level
from hierlmm.frames import quote, shorten
from hierlmm.options import check_ci, choose
from hierlmm.results import NotedTable

PredictionLevel = Literal["subject", "population", "new_subject", "marginal"]
Interval = Literal["confidence", "credible", "prediction"]
LEVELS = get_args(PredictionLevel)
SEE = "docs, page 'Predictions'"
MEMORY_BUDGET = 200_000_000
"""Bytes that the working arrays of one prediction may take together."""

LINES = {
    "subject": "the line of a subject in the data, with its own random effects",
    "population": "the line at b = 0: a subject exactly as level 2 predicts",
    "new_subject": "the line of one subject that was not in the data, its random effects drawn from N(0, D)",
    "marginal": "the mean over subjects (averaged over random effects, where the model has them)",
}
MEASUREMENTS = {
    "subject": "a new measurement of that subject",
    "population": "a new measurement of a subject with b = 0 (differences between subjects are not in it)",
    "new_subject": "a new measurement of one subject that was not in the data",
    "marginal": "a measurement of a subject drawn at random",
}


@dataclass(frozen=True)
class Rows:
    """Design matrices of the rows to predict.

    Attributes
    ----------
    X : (n, p), Z : (n, q), offset : (n,)
    subject : (n,)
        Positions of the subjects; -1 where the level has no use for them.
    frame : DataFrame
        The columns behind the matrices, for residual structures.
    """

    X: FloatArray
    Z: FloatArray
    offset: FloatArray
    subject: IntArray
    frame: pd.DataFrame

    def take(self, chosen: Any) -> Rows:
        """Some of the rows: positions, or a slice."""
        X, Z, offset, subject = (part[chosen] for part in (self.X, self.Z, self.offset, self.subject))
        return Rows(X, Z, offset, subject, self.frame.iloc[chosen])

    @property
    def index(self) -> pd.Index:
        """Index of the rows."""
        return self.frame.index

    def line(self, beta: FloatArray) -> FloatArray:
        """Linear predictor at b = 0, (n,)."""
        return self.offset + self.X @ beta


def random_columns(design: Design, rows: Rows, effects: FloatArray) -> FloatArray:
    """What random effects (..., q) of rows are multiplied by: Z of draws from D, own columns of the subjects' own b."""
    return rows.Z if effects.shape[-1] == rows.Z.shape[1] else own_columns(design, rows.Z)


def check_request(
    design: Design, level: str, interval: str | None, ci: float, levels: tuple[str, ...] = LEVELS
) -> None:
    """Refuse unknown levels and intervals, and probabilities outside (0, 1)."""
    check_level(design, level, levels)
    if interval is not None:
        choose("interval", interval, INTERVALS)
    check_ci(ci)


def rows_of(design: Design, newdata: Any, level: str) -> Rows:
    """Design matrices of new rows, or of the fitted rows.

    Parameters
    ----------
    design : Design
    newdata : table or None
    level : str
        At ``"subject"`` the subject column must be there, and hold subjects of the fitted data only.

    Raises
    ------
    DataError
        If a column is absent, a factor level is new, a value is missing, a subject is unknown, or (at level
        ``"subject"``) has another value of a level-2 covariate than in the fitted data.
    """
    if newdata is None:
        return Rows(design.X, design.Z, design.offset, design.subject_index, design.frame)
    new = design.new(newdata, need_subject=level == "subject")
    subject = new.subject_index if new.subject_index is not None else np.full(len(new.X), -1, dtype=np.intp)
    if level == "subject" and np.any(subject < 0):
        name = design.hierarchy.subject
        unknown = pd.unique(new.frame[name][subject < 0])
        refuse_other_types(design.subjects, name, unknown, "subject")
        raise DataError(
            f"{name} {shorten(map(quote, unknown))} at level='subject'",
            "not in the fitted data, so the random effects are unknown",
            "use level='new_subject' (a subject drawn from N(0, D)), level='population' (b = 0), or "
            "fit.predict_subject() if there are first measurements",
            SEE,
        )
    if level == "subject":
        _same_level2(design, new.frame, subject)
    return Rows(new.X, new.Z, new.offset, subject, new.frame)


def refuse_other_types(fitted: pd.Index, name: str, unknown: Any, level: str) -> None:
    """Say that labels differ from those fitted in their type only: '1' and 1."""
    known = {str(label): label for label in fitted}
    same = [label for label in unknown if str(label) in known and label != known[str(label)]]
    if same:
        own = known[str(same[0])]
        raise DataError(
            f"{name} {quote(same[0])} ({type(same[0]).__name__}) at level={level!r}",
            f"those of the fitted data are labels of another type, such as {quote(own)} ({type(own).__name__})",
            f"convert the column: data[{name!r}] = data[{name!r}].astype({str(fitted.dtype)!r})",
            SEE,
        )


def differing(fitted: pd.Series, given: pd.Series) -> BoolArray:
    """Which values of a column, row by row, are not what they were."""
    if pd.api.types.is_numeric_dtype(given.dtype) and pd.api.types.is_numeric_dtype(fitted.dtype):
        return ~np.isclose(given.to_numpy(np.float64), fitted.to_numpy(np.float64), rtol=1e-9, atol=0.0)
    return np.asarray(given.to_numpy(object) != fitted.to_numpy(object), dtype=bool)


def _same_level2(design: Design, frame: pd.DataFrame, subject: IntArray) -> None:
    """Refuse a level-2 covariate that is not what it was: b̂ is the subject's departure from its own expectation."""
    first = first_row_of_subjects(design)
    for variable in design.constant_variables():
        fitted, given = design.frame[variable].iloc[first[subject]], frame[variable]
        other = np.flatnonzero(differing(fitted, given))
        if len(other):
            k = int(other[0])
            who = f"{design.hierarchy.subject} {quote(design.subjects[subject[k]])}"
            raise DataError(
                f"{variable!r} = {quote(given.iloc[k])} for {who} at level='subject'",
                f"in the fitted data it is {quote(fitted.iloc[k])}, and the random effects of {who} are its departure "
                "from what that predicts",
                f"give {who} its own value, or use level='new_subject' (or 'population') for a subject with these "
                "covariates",
                SEE,
            )


def asked_rows(fit: Any, newdata: Any, level: str) -> tuple[Rows, FloatArray]:
    """The rows, and their estimates (n,): a subject's own line, or that at b = 0."""
    rows = rows_of(fit.design, newdata, level)
    estimate = rows.line(fit.beta.to_numpy())
    if level == "subject":
        estimate = estimate + np.einsum("ij,ij->i", own_columns(fit.design, rows.Z), fit.b.to_numpy()[rows.subject])
    return rows, estimate


def described(
    table: pd.DataFrame, level: str, interval: str | None, ci: float, contains: str, quantile: str, effects: bool = True
) -> pd.DataFrame:
    """The table of predictions, with what it holds in words in its ``attrs``.

    Without random effects (``effects=False``) all levels are the mean over subjects.
    """
    words, table = level if effects else "marginal", NotedTable(table)
    table.attrs |= {"level": level, "scale": "response", "estimate": LINES[words]}
    if interval is not None:
        about = MEASUREMENTS[words] if interval == "prediction" else LINES[words]
        interval = f"{100 * ci:g} % for {about}; contains {contains}"
        table.attrs |= {"ci": ci, "interval": interval, "quantile": quantile}
    return table


def pieces(n: int, values: float) -> list[slice]:
    """Pieces of n rows or draws whose arrays of ``values`` numbers each stay below the memory budget."""
    step = max(1, int(MEMORY_BUDGET // (8 * max(1, values))))
    return [slice(start, min(n, start + step)) for start in range(0, n, step)]
