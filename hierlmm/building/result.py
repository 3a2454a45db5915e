"""What building a model looked at, and where it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import pandas as pd

from hierlmm.drawing.figure import Figure, pictured
from hierlmm.inference.anova import RatioTest, ratio_test
from hierlmm.inference.exact import exact_p, null_draws, spectrum
from hierlmm.inference.maximum import PAGE, Maximum, model_text
from hierlmm.inference.random_effects import has_exact_null
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import align, probability_text, sayer

SAY = sayer(__file__)
SEE = f"{PAGE}, section 'Building a model'"
PLACES = {"npar": 0, "loglik": 3, "aic": 2, "bic": 2, "chisq": 4, "df": 0}


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ModelBuilding(Result):
    """The steps from one model to another.

    Attributes
    ----------
    path : DataFrame
        A row for each step, in order: ``question``; ``smaller`` and ``larger``, the models compared; ``chisq``, ``df``,
        ``p`` and its ``method``; ``decision`` and the ``reason`` for it.
    table : DataFrame
        Every model that was fitted, by its name: ``model``, ``npar``, ``loglik``, ``aic``, ``bic``, ``singular``
        and ``chosen``.
    model : TwoLevelModel or MarginalModel
        Where it ended, a model to be fitted, of the class of the one that came in.
    title : str
    estimator : {"REML", "ML"}
        By which models were compared.
    alpha : float
        Level of the tests.
    notes : tuple of str
        What has to be known of the result.
    """

    path: pd.DataFrame
    table: pd.DataFrame
    model: Any
    title: str
    estimator: str
    alpha: float
    notes: tuple[str, ...]

    def _page(self) -> Page:
        path, models = self.path, self.table.drop(columns="model")
        steps = []
        for number, row in enumerate(path.to_dict("records"), 1):
            steps.append(Paragraph(f"{number}. {row['question']} {row['decision']}: {row['reason']}", 110, rest="   "))
        names = [f"{name}: {row['model']}" for name, row in self.table.iterrows()]
        shown = path.drop(columns=["question", "reason"])
        return Page(
            f"{self.title} ({self.estimator}, tests at {self.alpha:g})",
            [
                *(Paragraph(text, 110, rest="  ") for text in names),
                "",
                Table(models, _lines(models, True), "Models that were fitted", index=True, number=".6g"),
                "",
                Table(shown, _lines(shown, False), "Steps", number=".4g"),
                "",
                *steps,
                "",
                *(Paragraph(note, 110) for note in self.notes),
            ],
        )

    @pictured
    def plot(self, **figure: Unpack[Figure]) -> Any:
        """Draw AIC and BIC of every model that was fitted, as differences from the lowest, with the one chosen marked.

        Returns
        -------
        Picture
            Visuals ``fitted`` and ``chosen`` over ``criterion``.
        """
        from hierlmm.drawing.differences import plot_path

        return plot_path(self.table, self.title, figure)


def _lines(frame: pd.DataFrame, index: bool) -> list[str]:
    heads = [*([""] if index else []), *map(str, frame.columns)]
    cells = [heads]
    for label, row in frame.iterrows():
        texts = [_cell(str(c), v) for c, v in row.items()]
        cells.append([str(label), *texts] if index else texts)
    texts_left = [i for i, c in enumerate(heads) if c in ("", "smaller", "larger", "method", "decision")]
    return align(cells, texts_left)


def _cell(column: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    return f"{value:z.{PLACES[column]}f}" if column in PLACES else probability_text(float(value))


def verdict(small: Maximum, large: Maximum, test: RatioTest) -> tuple[float, str]:
    """A p-value that is not too small, and its method: exact, by a mixture, or by χ² where neither holds."""
    if has_exact_null(small, large):
        return exact_p(test.statistic, null_draws(spectrum(large.design), reml=large.reml, seed=0))[0], "exact"
    if test.at_boundary and (test.mixture is None or small.is_singular):
        return test.p, f"χ²({test.df}), conservative"
    return test.best_p, str(test.mixture) if test.mixture is not None else f"χ²({test.df})"


def compared(small: Maximum, large: Maximum) -> tuple[RatioTest, float, str]:
    """A test of two models with its p-value and method."""
    test = ratio_test(small, large)
    return (test, *verdict(small, large, test))


def row_of_model(maximum: Maximum) -> dict[str, Any]:
    """What the table says of a model."""
    return {
        "model": model_text(maximum.design),
        "npar": maximum.n_parameters,
        "loglik": maximum.loglik,
        "aic": maximum.aic,
        "bic": maximum.bic,
        "singular": bool(maximum.is_singular),
        "chosen": False,
    }
