"""Comparisons of marginal means or slopes within families, as weights of their rows.

With the rows ``m_1 ... m_k`` of a family, a contrast is ``Σ c_i m_i``:

- ``pairwise``: m_i - m_j for i < j, the first minus the second;
- ``trt.vs.ctrl`` (or ``dunnett``): m_i - m_ref, the reference being the first row unless named;
- ``consecutive``: m_{i+1} - m_i;
- a dictionary of names and weights: the user's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.errors import SpecificationError, closest
from hierlmm.frames import shorten
from hierlmm.text import show

METHODS = ("pairwise", "trt.vs.ctrl", "consecutive")
DEFAULT_ADJUST = {"pairwise": "tukey", "trt.vs.ctrl": "mvt", "consecutive": "mvt"}
SYNONYMS = {"dunnett": "trt.vs.ctrl"}
SEE = "docs, page 'Contrasts'"


class Contrasts(NamedTuple):
    """Contrasts of all families, as functions of β."""

    names: tuple[str, ...]
    families: IntArray
    """First row of the family of each contrast."""
    L: FloatArray
    offset: FloatArray
    n_means: int
    """Means that differ in the largest family."""
    notes: tuple[str, ...]
    pairs: tuple[tuple[str, str] | None, ...]
    """The two rows that each contrast compares, where it is a difference of two."""


def in_own_words(method: Any, adjust: str | None) -> tuple[Any, str | None]:
    """A method and a correction by the names of this package: Dunnett's comparisons, and his test of them.

    Raises
    ------
    SpecificationError
        If Dunnett's test is asked for of other comparisons.
    """
    own = SYNONYMS.get(method.lower(), method) if isinstance(method, str) else method
    if str(adjust).lower() != "dunnett":
        return own, adjust
    if own != "trt.vs.ctrl":
        remedy = "use method='dunnett', or adjust='mvt', which is exact for any family"
        received, reason = (
            f"adjust='dunnett' with method={method!r}",
            "Dunnett's test is of comparisons with one control",
        )
        raise SpecificationError(received, reason, remedy, SEE)
    return own, "mvt"


def default_adjust(method: str | Mapping[str, Any]) -> str:
    """The correction of a method, unless one is named: none for one's own weights."""
    return DEFAULT_ADJUST.get(method, "none") if isinstance(method, str) else "none"


def contrast_rows(
    L: FloatArray,
    offset: FloatArray,
    families: Sequence[IntArray],
    labels: Sequence[str],
    what: str,
    method: str | Mapping[str, Any],
    reference: Any,
    rounding: float,
    sign: str = " - ",
) -> Contrasts:
    """Compare rows of ``L β + offset`` within each of their families.

    Parameters
    ----------
    L : (k, p), offset : (k,)
    families : sequence of arrays of int
        Positions of the rows of each family.
    labels : sequence of str
        Name of each row.
    what : str
        What the rows are, in words.
    method, reference
        As for ``fit.contrasts``.
    rounding : float
        Relative rounding of the rows.
    sign : str
        Between the names of two rows that are compared.

    Raises
    ------
    SpecificationError
        If the method is unknown, weights do not match the rows, or a family has a single row.
    """
    names, first, rows, shifts, pairs = [], [], [], [], []
    size, closed = 0, True
    for family in families:
        named = [labels[i] for i in family]
        if len(set(named)) != len(named) or len(named) < 2:
            received = f"contrasts of {what} with {len(set(named))} value"
            remedy = "name a factor, or give a numeric variable several values: at={'time': [0, 6]}"
            raise SpecificationError(received, "there is nothing to compare", remedy, SEE)
        own, W = weights_of(method, named, reference, sign)
        names += own
        pairs += [_pair(row, named) for row in W]
        first += [family[0]] * len(own)
        rows.append(_without_rounding(W, L[family], rounding))
        shifts.append(_without_rounding(W, offset[family], rounding))
        size = max(size, _distinct(rows[-1], len(named)) if method == "pairwise" else len(named))
        closed &= np.allclose(W.sum(axis=1), 0.0, atol=1e-9)
    notes = () if closed else ("some weights do not sum to zero, so these rows are no comparisons",)
    return Contrasts(tuple(names), np.array(first), np.vstack(rows), np.concatenate(shifts), size, notes, tuple(pairs))


def _pair(row: FloatArray, labels: Sequence[str]) -> tuple[str, str] | None:
    """The two rows whose difference a contrast is."""
    if np.count_nonzero(row) != 2 or row.max() != 1.0 or row.min() != -1.0:
        return None
    return labels[int(np.argmax(row))], labels[int(np.argmin(row))]


def _without_rounding(W: FloatArray, values: FloatArray, tolerance: float) -> FloatArray:
    """``W values``, with zero where terms cancel but for rounding: a t of what is left would be noise over noise."""
    made = W @ values
    return np.where(np.abs(made) <= tolerance * (np.abs(W) @ np.abs(values)), 0.0, made)


def _distinct(rows: FloatArray, k: int) -> int:
    """How many of k means differ, given all their pairwise differences: equal ones do not widen Tukey's range."""
    pairs = itertools.combinations(range(k), 2)
    return k - len({j for (_, j), row in zip(pairs, rows, strict=True) if not np.any(row)})


def weights_of(
    method: str | Mapping[str, Any], labels: list[str], reference: Any, sign: str = " - "
) -> tuple[list[str], FloatArray]:
    """Names and weights (m, k) of the contrasts of k rows."""
    k, unit = len(labels), np.eye(len(labels))
    if isinstance(method, Mapping):
        return _custom(method, labels)
    if method not in METHODS:
        remedy = f"use one of {', '.join(map(repr, METHODS))}, or a dictionary of names and weights"
        raise SpecificationError(f"method={method!r}", "this is not one of the choices", remedy, SEE)
    if reference is not None and method != "trt.vs.ctrl":
        received, remedy = f"reference={reference!r} with method={method!r}", "use method='trt.vs.ctrl'"
        raise SpecificationError(received, "only comparisons with a control have a reference", remedy, SEE)
    if method == "pairwise":
        pairs = list(itertools.combinations(range(k), 2))
    elif method == "consecutive":
        pairs = [(i + 1, i) for i in range(k - 1)]
    else:
        base = 0 if reference is None else _position(reference, labels)
        pairs = [(i, base) for i in range(k) if i != base]
    names = [f"{_bracket(labels[i], sign)}{sign}{_bracket(labels[j], sign)}" for i, j in pairs]
    return names, np.array([unit[i] - unit[j] for i, j in pairs])


def _bracket(label: str, sign: str) -> str:
    return f"({label})" if sign in label or ", " in label else label


def _position(label: Any, labels: list[str]) -> int:
    text = show(label)
    if text not in labels:
        reason = f"no row has this name.{closest(text, labels)}"
        raise SpecificationError(f"{label!r}", reason, f"use one of {shorten(map(repr, labels))}", SEE)
    return labels.index(text)


def _weights(name: str, given: Any) -> FloatArray:
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        reason, remedy = "they are not numbers", "give one weight for each row, or a dictionary of labels and weights"
        raise SpecificationError(f"{name!r} with the weights {shorten([repr(given)])}", reason, remedy, SEE) from None


def _custom(method: Mapping[str, Any], labels: list[str]) -> tuple[list[str], FloatArray]:
    rows = []
    for name, given in method.items():
        by_label = isinstance(given, Mapping)
        row = numbers = _weights(name, list(given.values()) if by_label else given)
        if by_label:
            row = np.zeros(len(labels))
            row[[_position(label, labels) for label in given]] = numbers
        elif numbers.shape != (len(labels),):
            received = f"{name!r} with {numbers.size} weights"
            remedy = "give one weight for each, or a dictionary of labels and weights"
            raise SpecificationError(received, f"there are {len(labels)} rows: {shorten(labels)}", remedy, SEE)
        if not np.all(np.isfinite(row)) or not np.any(row):
            received = f"the weights of {name!r}"
            raise SpecificationError(received, "they are all zero, or not finite", "give finite weights", SEE)
        rows.append(row)
    if not rows:
        raise SpecificationError("method={}", "no contrast is named", "give {'name': weights}", SEE)
    return [str(name) for name in method], np.array(rows)
