"""What is measured: the family of the response, how many trials a row counts, and what the counts are per.

``p(successes, trials) ~ ...`` says the trials in the formula, as Bambi does; ``exposure`` is an offset by another name,
``log(exposure)``, for counts in unequal times, areas or numbers of people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import quoted, unquoted
from hierlmm.design.recipes import OF_FAMILY, evaluate_vector
from hierlmm.errors import DataError, SpecificationError
from hierlmm.families.family import SEE, Family, is_own
from hierlmm.families.gaussian import Gaussian
from hierlmm.families.names import family_of
from hierlmm.families.rows import check_derivatives
from hierlmm.frames import quote

NORMAL = Gaussian()
specification_error = partial(SpecificationError, see=SEE)
WITH_TRIALS = re.compile(r"^(?:p|prop|proportion)\(\s*(`[^`]+`|\w+)\s*,\s*(`[^`]+`|\w+)\s*\)$")


@dataclass(frozen=True)
class Outcome:
    """The family of a response, and the columns of its trials and its exposure."""

    family: Family = NORMAL
    trials: str | None = None
    exposure: str | None = None

    @property
    def is_gaussian(self) -> bool:
        """Whether it is the normal distribution around the linear predictor, whose fits are exact."""
        return self.family.name == "gaussian" and self.family.link == "identity"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that it needs besides the response."""
        return tuple(c for c in (self.trials, self.exposure) if c is not None)

    @property
    def offsets(self) -> tuple[str, ...]:
        """Offsets of the linear predictor that the exposure makes."""
        return () if self.exposure is None else (f"log({quoted(self.exposure)})",)

    def categories(self, response: str, frame: pd.DataFrame) -> tuple[Any, ...]:
        """Labels of the ordered categories, lowest first; empty where the response has none."""
        name = unquoted(response)
        return tuple(self.family.categories(frame[name], name)) if name in frame.columns else ()

    def values(self, response: str, frame: pd.DataFrame) -> tuple[FloatArray, FloatArray, str]:
        """Response and trials as numbers, (N,) each, and what the print says of them.

        Raises
        ------
        DataError
            If the family cannot have such a response.
        """
        name, note = unquoted(response), ""
        coded = type(self.family).response is not Family.response  # labels are read by the family itself
        if not coded or name not in frame.columns:
            y = np.array(
                evaluate_vector(response, frame, "response" if self.is_gaussian else OF_FAMILY)
            )  # not the frame's own memory
        else:
            y, note = self.family.response(frame[name], name)
        n = np.ones(len(y)) if self.trials is None else np.array(evaluate_vector(quoted(self.trials), frame, "trials"))
        self.family.check(y, n, name)
        if not is_own(type(self.family)):
            check_derivatives(self.family, y, n)
        if self.exposure is not None and np.any(
            bad := ~(evaluate_vector(quoted(self.exposure), frame, "exposure") > 0)
        ):
            row = frame.index[np.flatnonzero(bad)[0]]
            received = f"exposure={quote(self.exposure)} with {bad.sum()} values that are not positive (row {row})"
            raise DataError(received, "no rate belongs to no exposure", "correct or drop these rows", SEE)
        return np.array(y, dtype=np.float64), n, note


GAUSSIAN = Outcome()


def outcome_of(family: Any, trials: str | None, exposure: str | None) -> Outcome:
    """What is measured, checked for what does not fit together.

    Raises
    ------
    SpecificationError
    """
    made = family_of(family)
    if trials is not None and not made.has_trials:
        reason = f"a {made.title} response counts no trials"
        raise specification_error(f"trials={trials!r}", reason, "use family='binomial', or leave trials out")
    if exposure is not None and made.link != "log":
        reason = f"an exposure multiplies a mean, which needs a log link, and here the link is {made.link}"
        remedy = "use family='poisson' or 'negative_binomial' with the log link, or make exposure a covariate"
        raise specification_error(f"exposure={exposure!r} with {made}", reason, remedy)
    return Outcome(made, trials, exposure)


def with_trials(response: str, outcome: Outcome) -> tuple[str, Outcome]:
    """Take ``p(successes, trials)`` apart.

    Raises
    ------
    SpecificationError
        If a binomial response has no trials, or has them twice.
    """
    found = WITH_TRIALS.match(response.strip())
    if found and not outcome.family.has_trials and found[0].startswith("p("):
        reason = f"successes among trials are binomial, and the family is {outcome.family.name}"
        raise specification_error(f"{response!r}", reason, "add family='binomial'")
    if response.strip().startswith("cbind("):
        reason = "cbind(successes, failures) is how R says it"
        raise specification_error(
            f"{response!r}", reason, "make a column of the trials, and write p(successes, n) ~ ..."
        )
    if found and outcome.family.has_trials:
        if outcome.trials is not None:
            received = f"{response!r} and trials={outcome.trials!r}"
            raise specification_error(received, "the trials are said twice", "say them once")
        return found[1], Outcome(outcome.family, unquoted(found[2]), outcome.exposure)
    if outcome.family.has_trials and outcome.trials is None:
        reason = "a number of successes says nothing without the number of trials"
        remedy = f"add trials='n', or write p({response}, n) ~ ...; for 0 and 1 use family='bernoulli'"
        raise specification_error(f"family='binomial' for {response!r}", reason, remedy)
    return response, outcome
