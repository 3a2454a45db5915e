"""Errors and warnings: what was received, why it cannot be used, what to do, where to read more."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

LONGEST = 300
"""Characters of what was received that a message shows."""


class HierlmmError(ValueError):
    """Base class of every error the package raises on purpose.

    Parameters
    ----------
    received : str
        What the function was given.
    reason : str
        Why it cannot be used.
    remedy : str
        What to do instead.
    see : str
        Where to read more.
    """

    def __init__(self, received: str, reason: str, remedy: str, see: str = "the documentation, page 'Errors'") -> None:
        received = " ".join(received.split())  # a fit or a table in it has many lines
        received = received if len(received) <= LONGEST else f"{received[: LONGEST - 3]}..."
        self.received, self.reason, self.remedy, self.see = received, reason, remedy, see
        super().__init__(f"\n  Received: {received}\n  Why not:  {reason}\n  To do:    {remedy}\n  Read:     {see}")


class FormulaError(HierlmmError):
    """The formula cannot be read, or names something that does not exist."""


class SpecificationError(HierlmmError):
    """The hierarchy, the covariance or the priors do not fit together."""


class ArgumentError(SpecificationError, TypeError):
    """A function was given an argument that it does not have, or of a kind that it cannot use."""


class DataError(HierlmmError):
    """The data cannot be used as they are."""


class UnknownDatasetError(HierlmmError):
    """No data set has this name, or its file is not at hand."""


class NotAvailableError(HierlmmError):
    """The quantity does not exist for this estimator."""


class OtherNameError(NotAvailableError, AttributeError):
    """A fit has this under another name."""


class MissingPackageError(HierlmmError, ImportError):
    """An optional package is needed and not installed."""


class FitWarning(UserWarning):
    """A fit was made, and something about it must be known before it is used."""


def warn(message: str) -> None:
    """Warn with a `FitWarning` that points at the line outside this package from which it was called."""
    warnings.warn(message, FitWarning, skip_file_prefixes=(str(Path(__file__).parent),))


def closest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or an empty string."""
    found = get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else ""
