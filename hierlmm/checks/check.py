"""`fit.check()`: all checks of the registry on one page, the most severe first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.checks.factor_material import FactorMaterial
from hierlmm.checks.material import Material
from hierlmm.checks.outcome import ACT, Finding, LeftOut, Outcome, judge
from hierlmm.checks.registry import checks_of
from hierlmm.design.formula import unquoted
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import DataError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.frames import quote, shorten, to_pandas
from hierlmm.options import checked
from hierlmm.results import Items, Page, Paragraph, Result
from hierlmm.text import count, sayer

SAY = sayer(__file__)
SEE = "docs, page 'Checks'"
SHOWN = 5
MARKS = {"act": "ACT ", "look": "LOOK"}


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Checkup(Result):
    """What all checks of a fit say, made by ``fit.check()``. Frozen.

    Attributes
    ----------
    findings : tuple of Finding
        The most severe first: ``check``, ``severity`` ("act", "look" or "fine"), ``seen``, ``why``, ``do``, ``read``,
        ``p``, ``p_page`` (corrected for all checks of the page), ``size``.
    left_out : dict of str to str
        Checks that do not apply, and why.
    title, note : str
    simulations : int
        Data sets simulated under the fit.
    """

    findings: tuple[Finding, ...]
    left_out: dict[str, str]
    title: str
    note: str
    simulations: int

    @property
    def table(self) -> pd.DataFrame:
        """One line for a check: ``severity``, ``p``, ``p_page``, ``size``, ``seen``."""
        names = ("severity", "p", "p_page", "size", "seen")
        rows = {f.check: [getattr(f, name) for name in names] for f in self.findings}
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(names)).rename_axis("check")

    @property
    def ok(self) -> bool:
        """Whether nothing is to act on."""
        return not any(f.severity == "act" for f in self.findings)

    def __getitem__(self, name: str) -> Finding:
        """What one check says, by its name."""
        for finding in self.findings:
            if finding.check == name:
                return finding
        known = [f.check for f in self.findings]
        reason = self.left_out.get(name, f"there is no check of this name{closest(name, known)}")
        raise SpecificationError(f"check {name!r}", reason, f"use one of {', '.join(known)}", SEE)

    @pictured
    def plot(
        self,
        checks: str | Sequence[str] | None = None,
        *,
        max_panels: int = 9,
        col_wrap: int | None = None,
        **figure: Unpack[Figure],
    ) -> Any:
        """Draw what the checks looked at: points, curves, and where the model expects them.

        Parameters
        ----------
        checks : str or sequence of str, optional
            Names of checks; by default the most severe, as many as ``max_panels`` shows.
        max_panels : int
            Panels at most; every check has one in turn before any has its second.
        col_wrap : int, optional
            Panels in a row.

        Returns
        -------
        Picture
            Visuals ``points``, ``standing_out`` and ``curve`` over ``check``.
        """
        from hierlmm.drawing.check_panels import plot_check_panels

        asked = [checks] if isinstance(checks, str) else checks
        chosen = [f for f in self.findings if f.panels] if asked is None else [self[name] for name in asked]
        turns = [f.panels[k] for k in range(max_panels) for f in chosen if k < len(f.panels)]
        if not turns:
            received = "no check that has a picture" if asked is None else f"checks={asked!r}"
            drawn = ", ".join(f.check for f in self.findings if f.panels) or "fit.plot_residuals()"
            raise SpecificationError(received, "there is nothing to draw", f"use {drawn}", SEE)
        limits = [
            *(["grey band: where the model expects the line"] if any(p.band.size for p in turns) else []),
            *(["dashed: passed by the largest of all in 5 %"] if any(p.limit is not None for p in turns) else []),
        ]
        caption = "; ".join([self.title, *limits])
        return plot_check_panels(turns[:max_panels], f"Checks: {self._heading}", caption, col_wrap, figure)

    @property
    def _heading(self) -> str:
        counts = {key: sum(f.severity == key for f in self.findings) for key in ("act", "look", "fine")}
        said = [SAY(f"page.{key}", n=n) for key, n in counts.items() if n]
        return ", ".join([*said, *([SAY("page.left_out", n=len(self.left_out))] if self.left_out else [])])

    def _page(self) -> Page:
        parts: list[Any] = [self._heading, ""]
        shown = [f for f in self.findings if f.severity != "fine"]
        for f in shown:
            parts.append(Paragraph(f"{MARKS[f.severity]} {f.check}: {f.sentence}", 100, rest=" " * 5))
        fine = [f for f in self.findings if f.severity == "fine"]
        if fine:
            sentences = [f"{f.check}: {f.seen}" for f in fine]
            parts.append(
                Items(
                    "Fine",
                    sentences,
                    ["", "Fine", *(f"  {s}" for s in sentences)] if shown else [f"  {s}" for s in sentences],
                )
            )
        if self.left_out:
            sentences = [f"{name}: {reason}" for name, reason in self.left_out.items()]
            parts.append(Items("Left out", sentences, ["", "Left out", *(f"  {s}" for s in sentences)]))
        return Page(self.title, [*parts, "", Paragraph(self.note)])


@checked
def check(
    fit: Fit, data: Any = None, *, simulations: int = 499, seed: int | None = 0, time: str | None = None
) -> Checkup:
    """Check a fit; see ``fit.check``."""
    _refuse_too_few(simulations, 1)
    several = fit.design.has_several_factors
    others = data if data is None or several else _others(fit, data)
    material = (FactorMaterial if several else Material)(fit, simulations, seed, others, time)
    outcomes: dict[str, Outcome] = {}
    left_out: dict[str, str] = {}
    plain, simulated = checks_of(material)
    for name, look in (plain | simulated).items():
        found = LeftOut(material.obstacle) if name in simulated and material.obstacle else look(material)
        if isinstance(found, LeftOut):
            left_out[name] = found.reason
        else:
            outcomes[name] = replace(found, variant=found.variant or material.variant)
    n = sum(not np.isnan(outcome.p) for outcome in outcomes.values())
    _refuse_too_few(simulations, n)
    findings = judge(outcomes)
    note = [SAY("page.chance", simulations=simulations, n=n, many=material.many)] if n else []
    note += material.order if n else []
    if n and not several and len(material.kept) < fit.n_subjects:
        note.append(SAY("page.subset", shown=f"{len(material.kept):,}", total=f"{fit.n_subjects:,}"))
    if others is not None and len(absent := fit.design.subjects.difference(others.index)):
        who = shorten(map(quote, absent), SHOWN)
        note.append(SAY("page.unmatched", n=len(absent), total=count(fit.n_subjects, "subject"), who=who))
    response = unquoted(fit.design.hierarchy.response)
    title = f"Checks of a fit by {fit.estimator}: {response}, {material.size}"
    return Checkup(findings, left_out, title, " ".join(note), simulations)


def _refuse_too_few(simulations: int, n: int) -> None:
    """Refuse fewer simulations than let one of n checks call for action: Holm multiplies 1/(simulations + 1) by n.

    Raises
    ------
    SpecificationError
    """
    least = round(n / ACT) - 1
    if simulations < least:
        reason = (
            f"the smallest p-value is then 1/{simulations + 1}, and corrected for {count(n, 'check')} of this page "
            f"{n / (simulations + 1):.2g}: nothing could be found, whatever the data"
        )
        remedy = f"use at least {least}, better 499"
        raise SpecificationError(f"simulations={simulations!r}", reason, remedy, SEE)


def _others(fit: Fit, data: Any) -> pd.DataFrame:
    """Columns of a table that are constant within subjects and not in the model, by those subjects of the fit it has.

    Raises
    ------
    DataError
        If the table has no column of subjects, or none of the fit's subjects.
    """
    frame, name = to_pandas(data), fit.design.hierarchy.subject
    if name not in frame.columns:
        reason, remedy = "covariates belong to subjects", f"pass a table with the column {quote(name)}"
        raise DataError(f"data= without the column {name!r}", reason, remedy, SEE)
    grouped = frame.groupby(frame[name].astype(object))
    new = frame.columns.difference(fit.design.frame.columns, sort=False)
    found = grouped[[c for c in new if grouped[c].nunique(dropna=False).max() <= 1]].first()
    of_fit = found[found.index.isin(fit.design.subjects)]
    if not len(of_fit):
        theirs, own = (shorten(map(quote, labels), SHOWN) for labels in (found.index, fit.design.subjects))
        received = f"data= with {count(len(found), 'subject')} in {name!r}, none of them in the fit: {theirs}"
        reason = f"columns are joined to the fit's {count(fit.n_subjects, 'subject')} by their labels, which are {own}"
        remedy = "give labels as in the data of the model, and of the same kind: numbers, or text"
        raise DataError(received, reason, remedy, SEE)
    return of_fit
