"""Comparisons of marginal means or slopes within families.

With the rows ``m_1 ... m_k`` of a family, a contrast is ``Σ c_i m_i``:

- ``pairwise``: m_i - m_j for i < j, the first minus the second;
- ``trt.vs.ctrl``: m_i - m_ref, the reference being the first row unless named;
- ``consecutive``: m_{i+1} - m_i;
- a dictionary of names and weights: the user's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.effects.judge import PosteriorDraws
from hierlmm.effects.means import check_multiplicity, marginal_means
from hierlmm.effects.table import Effects, check_rope
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.frames import shorten
from hierlmm.options import check_ci

__all__ = ["contrast_effects", "contrasts", "weights_of"]

FloatArray = NDArray[np.float64]
METHODS = ("pairwise", "trt.vs.ctrl", "consecutive")
DEFAULT_ADJUST = {"pairwise": "tukey", "trt.vs.ctrl": "mvt", "consecutive": "mvt"}
ROUNDING = {"marginal means": 1e-12, "slopes": 1e-8}
"""Rounding of what is compared, relative: rows of the design are exact, slopes are differences with a short step."""
SEE = "docs, page 'Contrasts'"


def contrasts(
    fit: Fit,
    variables: str | Sequence[str],
    method: str | Mapping[str, Any] = "pairwise",
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    weights: str = "equal",
    adjust: str | None = None,
    reference: Any = None,
    df: str | None = None,
    ci: float = 0.95,
    simultaneous: bool = False,
    rope: float | tuple[float, float] | None = None,
) -> Effects:
    """Compare marginal means; see `hierlmm.fits.base.Fit.contrasts`."""
    means = marginal_means(fit, variables, by, at, weights=weights, df=df, ci=ci)
    return contrast_effects(means, method, adjust=adjust, reference=reference, simultaneous=simultaneous, rope=rope)


def contrast_effects(
    effects: Effects,
    method: str | Mapping[str, Any] = "pairwise",
    *,
    adjust: str | None = None,
    reference: Any = None,
    simultaneous: bool = False,
    rope: float | tuple[float, float] | None = None,
    ci: float | None = None,
) -> Effects:
    """Compare the rows of a table within each of its families.

    Raises
    ------
    SpecificationError
        If the method is unknown, weights do not match the rows, or a family has a single row.
    """
    if effects.kind == "contrasts":
        raise SpecificationError(
            "contrasts of contrasts",
            "their families would no longer be clear",
            "give the weights of the means: method={'name': [...]}; or write it with fit.hypothesis(...)",
            SEE,
        )
    keys = effects.keys
    own = [c for c in keys.columns if c not in effects.by]
    labels = [", ".join(texts) for texts in effects.key_texts]
    tolerance = ROUNDING[effects.kind]
    pieces, row_names, rows, offsets, notes = [], [], [], [], []
    size = 0
    for family in effects.families:
        named = [labels[i] for i in family]
        if len(set(named)) != len(named) or len(named) < 2:
            raise SpecificationError(
                f"contrasts of {', '.join(own) or 'one mean'} with {len(set(named))} value",
                "there is nothing to compare",
                "name a factor, or give a numeric variable several values: at={'time': [0, 6]}",
                SEE,
            )
        names, W = weights_of(method, named, reference)
        pieces.append(keys.iloc[[family[0]] * len(names)][list(effects.by)])
        row_names.extend(names)
        rows.append(_without_rounding(W, effects.L[family], tolerance))
        offsets.append(_without_rounding(W, effects.offset[family], tolerance))
        size = max(size, _distinct(rows[-1], len(named)) if method == "pairwise" else len(named))
        if not np.allclose(W.sum(axis=1), 0.0, atol=1e-9):
            notes.append("some weights do not sum to zero, so these rows are no comparisons")
    is_pairwise = isinstance(method, str) and method == "pairwise"
    asked = adjust
    if adjust is None and not isinstance(effects.judge, PosteriorDraws):
        asked = DEFAULT_ADJUST.get(str(method), "none") if isinstance(method, str) else "none"
    return Effects(
        "contrasts",
        effects.response,
        effects.estimator,
        pd.concat(pieces, ignore_index=True),
        np.vstack(rows),
        np.concatenate(offsets),
        effects.by,
        effects.judge,
        effects.ci if ci is None else check_ci(ci),
        check_multiplicity(effects.judge, asked, simultaneous, pairwise=is_pairwise),
        n_means=size,
        simultaneous=simultaneous,
        rope=check_rope(rope, effects.judge),
        level=effects.level,
        averaged=effects.averaged,
        notes=tuple(dict.fromkeys([*effects.notes, *notes])),
        row_names=tuple(row_names),
        of=effects.kind,
    )


def _without_rounding(W: FloatArray, values: FloatArray, tolerance: float) -> FloatArray:
    """``W values``, with zero where terms cancel but for rounding: a t of what is left would be noise over noise."""
    made = W @ values
    return np.where(np.abs(made) <= tolerance * (np.abs(W) @ np.abs(values)), 0.0, made)


def _distinct(rows: FloatArray, k: int) -> int:
    """How many of k means differ, given all their pairwise differences: equal ones do not widen Tukey's range."""
    pairs = itertools.combinations(range(k), 2)
    return k - len({j for (_, j), row in zip(pairs, rows, strict=True) if not np.any(row)})


def weights_of(method: str | Mapping[str, Any], labels: list[str], reference: Any) -> tuple[list[str], FloatArray]:
    """Names and weights (m, k) of the contrasts of k rows."""
    k, unit = len(labels), np.eye(len(labels))
    if isinstance(method, Mapping):
        return _custom(method, labels)
    if method not in METHODS:
        raise SpecificationError(
            f"method={method!r}",
            "this is not one of the choices",
            f"use one of {', '.join(map(repr, METHODS))}, or a dictionary of names and weights",
            SEE,
        )
    if reference is not None and method != "trt.vs.ctrl":
        raise SpecificationError(
            f"reference={reference!r} with method={method!r}",
            "only comparisons with a control have a reference",
            "use method='trt.vs.ctrl'",
            SEE,
        )
    if method == "pairwise":
        pairs = list(itertools.combinations(range(k), 2))
    elif method == "consecutive":
        pairs = [(i + 1, i) for i in range(k - 1)]
    else:
        base = 0 if reference is None else _position(reference, labels)
        pairs = [(i, base) for i in range(k) if i != base]
    return [f"{_bracket(labels[i])} - {_bracket(labels[j])}" for i, j in pairs], np.array(
        [unit[i] - unit[j] for i, j in pairs]
    )


def _bracket(label: str) -> str:
    return f"({label})" if " - " in label or ", " in label else label


def _position(label: Any, labels: list[str]) -> int:
    from hierlmm.text import show

    text = show(label)
    if text not in labels:
        raise SpecificationError(
            f"{label!r}",
            f"no row has this name.{closest(text, labels)}",
            f"use one of {shorten(map(repr, labels))}",
            SEE,
        )
    return labels.index(text)


def _weights(name: str, given: Any) -> FloatArray:
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise SpecificationError(
            f"{name!r} with the weights {shorten([repr(given)])}",
            "they are not numbers",
            "give one weight for each row, or a dictionary of labels and weights",
            SEE,
        ) from None


def _custom(method: Mapping[str, Any], labels: list[str]) -> tuple[list[str], FloatArray]:
    rows = []
    for name, given in method.items():
        row = np.zeros(len(labels))
        if isinstance(given, Mapping):
            numbers = _weights(name, list(given.values()))
            for label, weight in zip(given, numbers, strict=True):
                row[_position(label, labels)] = weight
        else:
            values = _weights(name, given)
            if values.shape != (len(labels),):
                raise SpecificationError(
                    f"{name!r} with {values.size} weights",
                    f"there are {len(labels)} rows: {shorten(labels)}",
                    "give one weight for each, or a dictionary of labels and weights",
                    SEE,
                )
            row = values
        if not np.all(np.isfinite(row)) or not np.any(row):
            raise SpecificationError(
                f"the weights of {name!r}", "they are all zero, or not finite", "give finite weights", SEE
            )
        rows.append(row)
    if not rows:
        raise SpecificationError("method={}", "no contrast is named", "give {'name': weights}", SEE)
    return [str(name) for name in method], np.array(rows)
