"""Fits of generalised linear mixed models by R: the data, the model and the frozen numbers of each, by name.

`case(name)` gives one; NAMES lists them, GEE_NAMES the estimating equations of the same data (`gee_case`). The keys
of a reference are explained in ``reference/generalized/README.md``. The likelihoods written down a second time are in
``generalized_by_definition.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from references import HERE, reference, reference_data, references_of

NAMES = sorted(path.stem for path in references_of("generalized").glob("*.json"))
GEE_NAMES = sorted(path.stem for path in references_of("generalized_gee").glob("*.json"))


@dataclass(frozen=True)
class Case:
    """A model of the simulated data and what R found.

    formula: as lme4 writes it; two responses of a binomial are ``cbind(successes, trials - successes)``, an exposure is
    ``offset(log(exposure))``. method: "laplace" or "agq" (with `nodes`). fixed: degrees of freedom, if not estimated.
    """

    name: str
    formula: str
    family: str
    link: str
    method: str
    nodes: int
    data: pd.DataFrame = field(repr=False)
    reference: dict[str, Any] = field(repr=False)
    fixed: dict[str, float] = field(default_factory=dict)

    @property
    def group(self) -> str:
        return "agegp" if "agegp" in self.data else "group"

    @property
    def slope(self) -> str | None:
        """The covariate with random slopes beside the intercepts."""
        if len(self.reference.get("sd", [])) < 2:
            return None
        return "ncontrols" if "ncontrols" in self.data else "time"

    @property
    def diagonal(self) -> bool:
        """Random intercepts and slopes that are independent of each other."""
        return "(0 + time" in self.formula

    @property
    def modes(self) -> list[list[float]]:
        """Modes of the first groups' random effects given the data and the parameters."""
        return (self.reference if "modes" in self.reference else self.reference["check"])["modes"]

    @property
    def conditional_sd(self) -> list[list[float]]:
        """Standard deviations by the curvature at these modes."""
        return (self.reference if "modes" in self.reference else self.reference["check"])["conditional_sd"]

    @property
    def response(self) -> str:
        return "successes" if "cbind" in self.formula else self.formula.split(" ~ ")[0]

    @property
    def trials(self) -> str | None:
        return "trials" if "cbind" in self.formula else None

    @property
    def exposure(self) -> str | None:
        return "exposure" if "offset(log(exposure))" in self.formula else None


def generalized_data(name: str) -> pd.DataFrame:
    """The data of a reference, rows of a group together."""
    if name == "generalized":
        data = pd.read_csv(HERE / "data" / "generalized.csv")
        return data.astype({"group": "category", "treat": "category"})
    return reference_data({"data": name, "subset": None}).sort_values("agegp", kind="stable", ignore_index=True)


def case(name: str, what: str = "generalized") -> Case:
    ref = reference(name, what)
    fixed = {"df": ref["df"]} if "df" in ref else {}
    data = generalized_data(ref["data"])
    method = ref.get("method", "gee")
    return Case(name, ref["formula"], ref["family"], ref["link"], method, ref.get("nodes", 0), data, ref, fixed)


def gee_case(name: str) -> Case:
    """Estimating equations; the working correlation is ``reference["correlation"]``."""
    return case(name, "generalized_gee")
