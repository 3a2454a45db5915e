"""Different models of the same rows in one table; what may not be compared is blank, with the reason.

    aic = −2 log L + 2k        aicc = aic + 2k(k + 1)/(N − k − 1)        bic = −2 log L + k log N
    caic: `hierlmm.inference.conditional_aic`        loo_subject: expected log predictive density of a new subject

The standard error of a difference between two models is √J times the SD, over the J subjects, of the difference of what
each subject adds to both (Vuong 1989; Vehtari et al. 2017).

References
----------
Vuong, Q. H. (1989). Likelihood ratio tests for model selection and non-nested hypotheses. Econometrica 57, 307-333.

Yao, Y., Vehtari, A., Simpson, D., Gelman, A. (2018). Using stacking to average Bayesian predictive distributions.
Bayesian Analysis 13, 917-1007.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.inference.conditional_aic import conditional_aic
from hierlmm.inference.maximum import PAGE, Maximum, labelled, maximum_of, model_text
from hierlmm.inference.nesting import same_fixed
from hierlmm.inference.rows import as_they_come, groupings, other_rows, same_subjects
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import align, sayer

SAY = sayer(__file__)
SEE = f"{PAGE}, section 'One table over different models'"
CRITERIA = ("loglik", "df", "aic", "aicc", "bic", "caic", "loo_subject", "stacking")
BY_ROW = "loo_observation"
OF_MAXIMUM = ("loglik", "aic", "aicc", "bic")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ModelComparison(Result):
    """Models of the same rows side by side.

    Attributes
    ----------
    table : DataFrame
        A row for each model, with its estimator and a column for each criterion; NaN where it is blank.
    reasons : DataFrame
        ``model``, ``criteria`` and ``reason``: why a place is blank.
    differences : DataFrame
        ``criterion``, ``model``, ``difference`` from the best model (0 is the best, more is worse) and its standard
        error ``se`` over subjects (NaN where there is none).
    models : mapping of str to str
        Label -> model in one line.
    notes : tuple of str
        How criteria were worked out.
    """

    table: pd.DataFrame
    reasons: pd.DataFrame
    differences: pd.DataFrame
    models: Mapping[str, str]
    notes: tuple[str, ...]

    def _page(self) -> Page:
        shown = self.table.dropna(axis="columns", how="all")
        places = {"df": 1, "stacking": 3}
        cells = [["", *map(str, shown.columns)]]
        for label, row in shown.iterrows():
            cells.append([str(label), *(_text(v, places.get(str(c), 2)) for c, v in row.items())])
        together = self.reasons.groupby(["criteria", "reason"], sort=False)["model"].agg(", ".join)
        keys = ["criteria", "reason", "model"]
        blank = [
            SAY("compare_models.blank", **dict(zip(keys, row, strict=True)))
            for row in together.reset_index().to_numpy()
        ]
        return Page(
            "Models side by side",
            [
                *(f"{label}: {text}" for label, text in self.models.items()),
                "",
                Table(shown, align(cells, [0, 1]), "Models side by side", index=True, number=".6g"),
                *self._gaps(),
                *([""] if blank or self.notes else []),
                *(Paragraph(text, 110) for text in (*blank, *self.notes)),
            ],
        )

    def _gaps(self) -> list[Any]:
        """How much worse than the best each posterior predicts, with the standard error of the difference."""
        rows = self.differences[self.differences["criterion"].str.startswith("loo_")]
        if rows.empty:
            return []
        cells = [list(map(str, rows.columns)), *([c, m, _text(d, 2), _text(e, 2)] for c, m, d, e in rows.to_numpy())]
        caption = "Differences from the best, with their standard errors"
        return ["", caption, Table(rows, align(cells, [0, 1]), caption, number=".6g")]

    @pictured
    def plot(self, by: Sequence[str] | None = None, **figure: Unpack[Figure]) -> Any:
        """Draw the differences from the best model with their standard errors, a panel for each criterion.

        Parameters
        ----------
        by : sequence of str, optional
            Criteria to draw; by default all that two models or more have.

        Returns
        -------
        Picture
            Visuals ``interval`` and ``point_estimate`` over ``criterion``.
        """
        from hierlmm.drawing.differences import plot_differences

        known = list(dict.fromkeys(self.differences["criterion"]))
        wanted = known if by is None else list(by)
        for name in wanted:
            if name not in known:
                reason = f"no two models have it.{closest(name, known)}" if known else "no two models have a criterion"
                remedy = f"use {', '.join(map(repr, known))}" if known else "read `reasons` for why they are blank"
                raise SpecificationError(f"by={name!r}", reason, remedy, SEE)
        if not wanted:
            reason, remedy = "no two models have a criterion in common", "read `reasons` for why they are blank"
            raise SpecificationError("a picture of differences", reason, remedy, SEE)
        return plot_differences(self.differences, wanted, list(self.models), figure)


def _text(value: Any, places: int) -> str:
    if isinstance(value, str) or pd.isna(value):
        return value if isinstance(value, str) else ""
    return f"{value:z.0f}" if places == 1 and value == round(value) else f"{value:z.{places}f}"


@checked
def compare_models(*fits: Any, by: Sequence[str] | None = None, labels: Sequence[str] | None = None) -> ModelComparison:
    """Put different models of the same rows into one table.

    The first fit with a likelihood sets the scale of the likelihoods, the first posterior that of leave-one-out. What
    cannot be compared with it is blank, and the table says why: REML fits with other fixed effects, REML beside ML,
    other rows, a transformed response, an estimator that has no such thing.

    Parameters
    ----------
    *fits : Fit
        Two fits or more, by whatever estimator, of whatever family.
    by : sequence of str, optional
        Criteria, all by default: ``"loglik"``; ``"df"`` (parameters counted); ``"aic"``; ``"aicc"`` (with N rows);
        ``"bic"`` (with log N);
        ``"caic"``, the conditional AIC, for predictions of the subjects in the data; ``"loo_subject"``, the expected
        log predictive density of a subject left out, of a posterior; ``"stacking"``, weights of posteriors in the
        mixture that predicts subjects best. ``"loo_observation"`` leaves out a row, and ``"loo_batch"`` all rows of a
        group of the factor ``batch``, which a model of two levels answers where its subjects are these groups;
        stacking is then by what was asked for first. With several grouping factors, or other subjects than those of
        the first posterior, ``"loo_observation"`` stands for ``"loo_subject"`` by default.
    labels : sequence of str, optional
        Names of the models; ``m1``, ``m2``, ... by default.

    Returns
    -------
    ModelComparison
        ``.table``, ``.reasons``, ``.differences`` and ``.plot()``.

    Raises
    ------
    SpecificationError
        If fewer than two fits were given, or a criterion is unknown.

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental")
    >>> one = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_ml()
    >>> two = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_ml()
    >>> hl.compare_models(one, two, by=["aic", "caic"]).table["aic"].round(2).to_dict()
    {'m1': 451.39, 'm2': 440.64}
    """
    named = labelled(fits, labels, "compare_models")
    for label, fit in named.items():
        if not isinstance(fit, Fit):
            remedy = "fit the model first: model.fit_ml(), model.fit_reml(), model.fit() or model.fit_gee()"
            received = f"a {type(fit).__name__} as {label}"
            raise SpecificationError(received, "compare_models compares fits", remedy, SEE)
    criteria = _by_default(list(named.values())) if by is None else tuple(by)
    factors = (f"loo_{name}" for fit in named.values() if fit.has_draws for name in groupings(fit.design))
    known = list(dict.fromkeys((*CRITERIA, BY_ROW, *factors)))
    for name in criteria:
        if name not in known:
            remedy = f"use {', '.join(map(repr, known))}"
            raise SpecificationError(f"by={name!r}", f"there is no such criterion.{closest(name, known)}", remedy, SEE)
    board = _Board(named, criteria)
    board.maxima()
    board.posteriors()
    return board.result()


def _by_default(fits: Sequence[Fit]) -> tuple[str, ...]:
    """All criteria; by row instead of by subject where posteriors have no subjects in common."""
    of = [fit.design for fit in fits if fit.has_draws]
    alike = all(not d.has_several_factors and (d.n_obs != of[0].n_obs or same_subjects(of[0], d)) for d in of)
    return CRITERIA if alike else tuple(BY_ROW if name == "loo_subject" else name for name in CRITERIA)


class _Board:
    """The table as it is filled."""

    def __init__(self, named: Mapping[str, Any], by: tuple[str, ...]) -> None:
        self.named, self.by = named, by
        self.values = pd.DataFrame(np.nan, index=pd.Index(list(named), name="model"), columns=list(by))
        self.units: dict[tuple[str, str], FloatArray] = {}  # what each subject adds, on the scale of the log-likelihood
        self.why: list[tuple[str, list[str], str]] = []
        self.notes: list[str] = []
        self.left_out = [name for name in by if name.startswith("loo_")] or ["loo_subject"][: "stacking" in by]

    def blank(self, label: str, criteria: Sequence[str], reason: str) -> None:
        """Say why places are blank."""
        own = [c for c in criteria if c in self.by]
        if own:
            self.why.append((label, own, reason))

    def put(self, label: str, **values: float) -> None:
        """Fill places, those that were asked for."""
        for name, value in values.items():
            if name in self.by:
                self.values.loc[label, name] = value

    def maxima(self) -> None:
        """Criteria of likelihoods."""
        of = {label: fit for label, fit in self.named.items() if fit.has_likelihood and not fit.has_draws}
        all_of = [*OF_MAXIMUM, "df", "caic"]
        for label, fit in self.named.items():
            if label in of:
                self.blank(label, [*self.left_out, "stacking"], SAY("compare_models.no_draws"))
            elif not fit.has_draws:
                self.blank(label, self.by, SAY("compare_models.no_likelihood"))
            else:
                self.blank(label, all_of, SAY("compare_models.posterior"))
        if not of:
            return
        first = next(iter(of))
        methods: set[str] = set()
        for label, fit in of.items():
            if (reason := _other_data(of[first], fit)) is not None:
                self.blank(label, all_of, SAY("compare_models.unlike", first=first, reason=reason))
                continue
            found = maximum_of(fit)
            self.put(label, df=float(found.n_parameters))
            methods |= self._conditional(label, fit, found) if "caic" in self.by else set()
            if (reason := _other_likelihood(maximum_of(of[first]), found)) is not None:
                self.blank(label, OF_MAXIMUM, SAY("compare_models.unlike", first=first, reason=reason))
                continue
            self._likelihood(label, fit, found, by_subject=same_subjects(of[first].design, fit.design))
        if methods:
            self.notes.append(SAY("compare_models.caic", methods=" or ".join(sorted(methods))))

    def _conditional(self, label: str, fit: Any, found: Maximum) -> set[str]:
        """The conditional AIC, and by which method."""
        if not fit.has_random_effects or fit.design.has_several_factors:
            why = "several_factors" if fit.has_random_effects else "no_effects"
            self.blank(label, ["caic"], SAY(f"compare_models.{why}"))
            return set()
        conditional = conditional_aic(found)
        self.values.loc[label, "caic"] = conditional.value
        return {conditional.method}

    def _likelihood(self, label: str, fit: Any, found: Maximum, *, by_subject: bool) -> None:
        n, k = found.design.n_obs, found.n_parameters
        room = n - k - 1
        self.put(label, loglik=found.loglik, aic=found.aic, bic=found.bic)
        if room > 0:
            self.put(label, aicc=found.aic + 2.0 * k * (k + 1) / room)
        else:
            self.blank(label, ["aicc"], SAY("compare_models.no_room", k=k, n=n))
        for name in OF_MAXIMUM if by_subject and not found.design.has_several_factors else ():  # else no common sum
            if name in self.by:
                own = fit.subject_loglik().to_numpy()[as_they_come(fit.design.subject_index)]
                self.units[name, label] = own * (1.0 if name == "loglik" else -2.0)

    def posteriors(self) -> None:
        """Leave-one-out by each unit that was asked for, and stacking weights by the first of them."""
        of = {label: fit for label, fit in self.named.items() if fit.has_draws}
        if not of or not self.left_out:
            return
        first = next(iter(of))
        kept = dict(of)
        for label, fit in of.items():
            if (reason := _other_data(of[first], fit)) is not None:
                own = SAY("compare_models.unlike", first=first, reason=reason)
                self.blank(label, [*self.left_out, "stacking"], own)
                kept.pop(label)
        for name in self.left_out:
            scores = self._left_out(name, kept)
            if name != self.left_out[0] or "stacking" not in self.by:
                continue
            if len(scores) < 2:
                for label in scores:
                    self.blank(label, ["stacking"], SAY("compare_models.alone"))
                continue
            self.values.loc[list(scores), "stacking"] = stacking_weights(np.column_stack(list(scores.values())))

    def _left_out(self, name: str, of: Mapping[str, Any]) -> dict[str, FloatArray]:
        """Scores of the units, in the order in which they come in the rows, of the posteriors that have them."""
        from hierlmm.diagnostics.loo import loo

        first, scores = next(iter(of)), {}
        for label, fit in of.items():
            design, unit = fit.design, name.removeprefix("loo_")
            if not design.has_several_factors and unit == design.hierarchy.subject:
                unit = "subject"
            stacking = ["stacking"] if name == self.left_out[0] else []
            if unit == "subject" and not same_subjects(of[first].design, design):
                self.blank(label, [name, *stacking], SAY("compare_models.subjects", first=first))
                continue
            try:
                found = loo(fit, unit)
            except (NotAvailableError, SpecificationError) as refusal:
                reason = f"{refusal.received}: {refusal.reason} ({refusal.remedy})"
                self.blank(label, [name, *stacking], reason)
                continue
            index = np.arange(design.n_obs) if unit == "observation" else _unit_index(design, unit)
            scores[label] = found.elpd_i.to_numpy()[as_they_come(index)]
            self.put(label, **{name: found.elpd})
            if name in self.by:
                self.units[name, label] = scores[label]
            if len(found.unreliable):
                self.notes.append(SAY("compare_models.pareto", label=label, verdict=found.verdict))
        return scores

    def result(self) -> ModelComparison:
        """All of it."""
        table = self.values.copy()
        table.insert(0, "estimator", [fit.estimator for fit in self.named.values()])
        rows = [{"model": m, "criteria": ", ".join(c), "reason": r} for m, c, r in self.why]
        models = {label: model_text(fit.design) for label, fit in self.named.items()}
        reasons = pd.DataFrame(rows, columns=["model", "criteria", "reason"])
        return ModelComparison(table, reasons, self._differences(), models, tuple(self.notes))

    def _differences(self) -> pd.DataFrame:
        rows = []
        for name in self.by:
            values = self.values[name].dropna()
            if name in ("df", "stacking") or len(values) < 2:
                continue
            sign = -1.0 if name == "loglik" or name.startswith("loo_") else 1.0
            best = str((sign * values).idxmin())
            for label, value in values.items():
                se, ends = np.nan, [self.units.get((name, m)) for m in (str(label), best)]
                if ends[0] is not None and ends[1] is not None:
                    gap = ends[0] - ends[1]
                    se = float(np.sqrt(len(gap)) * np.std(gap, ddof=1)) if len(gap) > 1 else np.nan
                difference = sign * (value - values[best])
                rows.append({"criterion": name, "model": label, "difference": difference, "se": se})
        return pd.DataFrame(rows, columns=["criterion", "model", "difference", "se"])


def _unit_index(design: Design, unit: str) -> IntArray:
    """Position of each row's unit: its subject, or its group of a factor."""
    return design.subject_index if unit == "subject" else groupings(design)[unit].index


def stacking_weights(elpd: FloatArray) -> FloatArray:
    """Weights w ≥ 0 with sum 1 that maximise ``Σ_j log Σ_m w_m exp(elpd_jm)``: (J, M) -> (M,).

    By the EM algorithm of a mixture, which raises the sum at every step; the sum is concave in w.
    """
    density = np.exp(elpd - elpd.max(axis=1, keepdims=True))
    w = np.full(elpd.shape[1], 1.0 / elpd.shape[1])
    for _ in range(100_000):
        share = density * w
        new = np.mean(share / share.sum(axis=1, keepdims=True), axis=0)
        if np.max(np.abs(new - w)) < 1e-10:
            return new
        w = new
    return w


def _other_data(first: Fit, fit: Fit) -> str | None:
    """Why a fit is about other numbers than the first; None where it is not."""
    a, b = first.design, fit.design
    ours, theirs = a.hierarchy.response, b.hierarchy.response
    if ours != theirs:
        return SAY("compare_models.response", ours=ours, theirs=theirs)
    if a.family.discrete != b.family.discrete:
        return SAY("compare_models.discrete", ours=str(a.family), theirs=str(b.family))
    rows = other_rows(a, b)
    return None if rows is None else SAY("compare_models.rows", problem=rows[0])


def _other_likelihood(first: Maximum, found: Maximum) -> str | None:
    """Why likelihoods cannot be compared."""
    if first.reml != found.reml:
        return SAY("compare_models.reml_beside_ml")
    if first.reml and not same_fixed(first.design, found.design):
        return SAY("compare_models.other_x")
    if first.points != found.points:
        return SAY("compare_models.points", ours=first.points, theirs=found.points)
    return None
