"""What a check hands over, and how all of a page are judged together.

A check compares a statistic with its distribution over data sets simulated under the fitted model, and so has a p-value
that allows for all places, rows or subjects that it looked at. A page has many checks, so that these p-values are
adjusted by Holm's method over the page. A check calls for action where its adjusted p-value is at most `ACT` and what
it saw is large enough to matter; it is worth a look where it saw something small with such a p-value, or where its own
p-value is at most `LOOK`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hierlmm.checks.material import Material
from hierlmm.diagnostics.curve_band import EVEN, LOOK
from hierlmm.drawing.check_panels import CheckPanel
from hierlmm.text import fill, p_text, templates

type Severity = Literal["act", "look", "fine"]
ACT = 0.05
ORDER: dict[Severity, int] = {"act": 0, "look": 1, "fine": 2}


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a check saw.

    Attributes
    ----------
    slots : mapping
        For the sentences of the check in ``sentences.toml``.
    p : float
        Under the fitted model; NaN of what is no matter of chance, which says its ``severity`` itself.
    severity : str
    size : float
        How large it is, in units that the sentences name.
    matters : bool
        Whether it is large enough to matter if it is there.
    panels : tuple of CheckPanel
    variant : str
        Which of the sentences, where there are several.
    """

    slots: Mapping[str, Any]
    p: float = math.nan
    severity: Severity = "fine"
    size: float = math.nan
    matters: bool = True
    panels: tuple[CheckPanel, ...] = ()
    variant: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Why a check does not apply."""

    reason: str


class Check(Protocol):
    """A check: a function of what all checks look at. Its name in the registry names its sentences."""

    def __call__(self, material: Material, /) -> Outcome | LeftOut:
        """Look, and hand over what was seen, or why nothing can be."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What a check says.

    Attributes
    ----------
    check : str
        Its name.
    severity : {"act", "look", "fine"}
    seen, why, do, read : str
        What was seen; why it may matter, what to do and what to read (empty where all is fine).
    p, p_page : float
        Under the fitted model; adjusted for all checks of the page. NaN of what is no matter of chance.
    size : float
        In the units that ``seen`` names.
    """

    check: str
    severity: Severity
    seen: str
    why: str
    do: str
    read: str
    p: float
    p_page: float
    size: float
    panels: tuple[CheckPanel, ...] = field(default=(), repr=False)

    @property
    def sentence(self) -> str:
        """All of it."""
        if not self.do:
            return self.seen
        do = f"{self.do[0].lower()}{self.do[1:]}"
        return f"{self.seen} {self.why} {self.do if 'To do:' in self.seen else f'To do: {do}'} Read: {self.read}."


def judge(outcomes: Mapping[str, Outcome]) -> tuple[Finding, ...]:
    """Judge all checks of a page together, and put the most severe first.

    Among equally severe ones p-values are told apart to two decimals, which is what simulation can tell, and what is
    equal then stays in the order of the registry.
    """
    from statsmodels.stats.multitest import multipletests

    chance = {name: o.p for name, o in outcomes.items() if not math.isnan(o.p)}
    page = multipletests(list(chance.values()), method="holm")[1] if chance else []
    adjusted = dict.fromkeys(outcomes, math.nan) | dict(zip(chance, map(float, page), strict=True))
    findings = [_finding(name, outcome, adjusted[name]) for name, outcome in outcomes.items()]
    return tuple(sorted(findings, key=lambda f: (ORDER[f.severity], -1.0 if math.isnan(f.p) else round(f.p, 2))))


def _finding(name: str, outcome: Outcome, p_page: float) -> Finding:
    severity = outcome.severity
    if not math.isnan(outcome.p):
        small, own = p_page <= ACT * EVEN, min(p_page / 5, outcome.p) <= LOOK * EVEN
        severity = "act" if small and outcome.matters else "look" if own else "fine"
    kind, _, factor = name.partition("(")
    words = templates(__file__)[f"{kind}_groups" if factor else kind]
    p = "" if math.isnan(outcome.p) else p_text(outcome.p)
    slots = {**outcome.slots, "p": p}
    key = "fine" if severity == "fine" else "seen"

    def part(name: str) -> str:
        return "" if severity == "fine" else fill(words.get(f"{name}{outcome.variant}", words[name]), **slots)

    seen = words.get(f"{key}{outcome.variant}", words[key])
    said = (fill(seen, **slots), part("why"), part("do"), part("read"))
    return Finding(name, severity, *said, p=outcome.p, p_page=p_page, size=outcome.size, panels=outcome.panels)
