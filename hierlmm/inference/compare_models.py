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

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.inference.conditional_aic import conditional_aic
from hierlmm.inference.maximum import PAGE, Maximum, labelled, maximum_of, model_text
from hierlmm.inference.nesting import same_fixed
from hierlmm.inference.rows import as_they_come, other_rows, same_subjects
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import align, sayer

SAY = sayer(__file__)
SEE = f"{PAGE}, section 'One table over different models'"
CRITERIA = ("loglik", "df", "aic", "aicc", "bic", "caic", "loo_subject", "stacking")
OF_MAXIMUM = ("loglik", "aic", "aicc", "bic")
LARGER_IS_BETTER = ("loglik", "loo_subject")


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
                *([""] if blank or self.notes else []),
                *(Paragraph(text, 110) for text in (*blank, *self.notes)),
            ],
        )

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
        mixture that predicts subjects best.
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
    criteria = CRITERIA if by is None else tuple(by)
    for name in criteria:
        if name not in CRITERIA:
            remedy = f"use {', '.join(map(repr, CRITERIA))}"
            raise SpecificationError(
                f"by={name!r}", f"there is no such criterion.{closest(name, CRITERIA)}", remedy, SEE
            )
    named = labelled(fits, labels, "compare_models")
    for label, fit in named.items():
        if not isinstance(fit, Fit):
            remedy = "fit the model first: model.fit_ml(), model.fit_reml(), model.fit() or model.fit_gee()"
            received = f"a {type(fit).__name__} as {label}"
            raise SpecificationError(received, "compare_models compares fits", remedy, SEE)
    board = _Board(named, criteria)
    board.maxima()
    board.posteriors()
    return board.result()


class _Board:
    """The table as it is filled."""

    def __init__(self, named: Mapping[str, Any], by: tuple[str, ...]) -> None:
        self.named, self.by = named, by
        self.values = pd.DataFrame(np.nan, index=pd.Index(list(named), name="model"), columns=list(by))
        self.units: dict[tuple[str, str], FloatArray] = {}  # what each subject adds, on the scale of the log-likelihood
        self.why: list[tuple[str, list[str], str]] = []
        self.notes: list[str] = []

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
                self.blank(label, ["loo_subject", "stacking"], SAY("compare_models.no_draws"))
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
                own = fit.subject_loglik().to_numpy()[as_they_come(fit.design)]
                self.units[name, label] = own * (1.0 if name == "loglik" else -2.0)

    def posteriors(self) -> None:
        """Leave-one-subject-out, and stacking weights."""
        of = {label: fit for label, fit in self.named.items() if fit.has_draws}
        if not of or not {"loo_subject", "stacking"} & set(self.by):
            return
        from hierlmm.diagnostics.loo import loo

        first, kept = next(iter(of)), {}
        for label, fit in of.items():
            if (reason := _other_data(of[first], fit)) is not None:
                own = SAY("compare_models.unlike", first=first, reason=reason)
                self.blank(label, ["loo_subject", "stacking"], own)
                continue
            if not same_subjects(of[first].design, fit.design):
                self.blank(label, ["loo_subject", "stacking"], SAY("compare_models.subjects", first=first))
                continue
            kept[label] = loo(fit, "subject")
            self.put(label, loo_subject=kept[label].elpd)
            if "loo_subject" in self.by:
                self.units["loo_subject", label] = _by_subject(kept[label], fit)
            if len(kept[label].unreliable):
                self.notes.append(SAY("compare_models.pareto", label=label, verdict=kept[label].verdict))
        if "stacking" not in self.by:
            return
        if len(kept) < 2:
            for label in kept:
                self.blank(label, ["stacking"], SAY("compare_models.alone"))
            return
        scores = [_by_subject(found, of[label]) for label, found in kept.items()]
        weights = stacking_weights(np.column_stack(scores))
        self.values.loc[list(kept), "stacking"] = weights

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
            sign = -1.0 if name in LARGER_IS_BETTER else 1.0
            best = str((sign * values).idxmin())
            for label, value in values.items():
                se, ends = np.nan, [self.units.get((name, m)) for m in (str(label), best)]
                if ends[0] is not None and ends[1] is not None:
                    gap = ends[0] - ends[1]
                    se = float(np.sqrt(len(gap)) * np.std(gap, ddof=1)) if len(gap) > 1 else np.nan
                difference = sign * (value - values[best])
                rows.append({"criterion": name, "model": label, "difference": difference, "se": se})
        return pd.DataFrame(rows, columns=["criterion", "model", "difference", "se"])


def _by_subject(found: Any, fit: Any) -> FloatArray:
    """Scores of the subjects in the order in which they come: their names may differ between fits."""
    return np.asarray(found.elpd_i.to_numpy()[as_they_come(fit.design)])


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
