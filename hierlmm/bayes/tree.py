"""Draws under the names and dimensions that every estimator uses, as the groups of a DataTree that ArviZ reads.

No variable of a posterior has an entry that cannot vary, since a constant has no R-hat, effective sample size or
density: the correlations of the random effects are stored by pair of terms (``corr_b``, dimension ``pair``).
`matrices` gives back the matrix of correlations and D = diag(sd_b) corr_b diag(sd_b).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.errors import DataError
from hierlmm.frames import shorten
from hierlmm.likelihood.residual_rows import residual_names, residual_rows

DIMS: dict[str, tuple[str, ...]] = {
    "beta": ("coef",),
    "b": ("subject", "term"),
    "sd_b": ("term",),
    "corr_b": ("pair",),
    "sigma": (),
    "icc": (),
    "subject_coef": ("subject", "level1"),
    "mu": ("obs",),
    "residual_correlation": ("residual_correlation_parameter",),
    "residual_variance": ("residual_variance_parameter",),
}
"""Dimensions of every variable, after chain and draw; those that are not listed are rows (``obs``)."""
RESERVED = ("chain", "draw", "obs", "X", "Z", "offset", "parameter", "column", "model")
"""Names that no dimension of a grouping factor takes."""


def dim_of_D(design: Design) -> str:
    """Dimension of the random effects that D is of: ``term``, or ``term_by_group`` where D differs by group."""
    return "term_by_group" if design.group else "term"


def factor_dims(design: Design) -> list[tuple[str, str]]:
    """Dimensions of the random effects of each of several grouping factors: ``batch`` and ``batch_term``."""
    taken, found = {*RESERVED, *DIMS, *(d for dims in DIMS.values() for d in dims)}, list[tuple[str, str]]()
    for own in design.terms.random:
        name = own.group
        while {name, f"{name}_term"} & taken:
            name += "_group"
        taken |= {name, f"{name}_term"}
        found.append((name, f"{name}_term"))
    return found


def effects_names(design: Design) -> list[str]:
    """Variables of the random effects: ``b``, or ``b_batch`` of each of several grouping factors."""
    return [f"b_{own.group}" for own in design.terms.random] if design.has_several_factors else ["b"]


def first_effects(design: Design) -> str:
    """The variable of the random effects, or the first of several."""
    return effects_names(design)[0]


def of_groups(name: str, design: Design) -> list[str]:
    """Names of what is one for all random effects: one, or one for each group where D differs by group."""
    return [f"{name}[{level}]" for level in design.group_levels] or [name]


def dims_of(design: Design, name: str) -> tuple[str, ...] | None:
    """Dimensions of a variable, after chain and draw; None of one that is not listed in `DIMS`."""
    if design.has_several_factors and name in effects_names(design):
        return factor_dims(design)[effects_names(design).index(name)]
    return (dim_of_D(design),) if name == "sd_b" else DIMS.get(name)


def response_name(design: Design) -> str:
    """Name of the response in a tree: its own (``log(bili)``), or ``y`` where a tree allows no such name."""
    name = design.hierarchy.response
    return "y" if "/" in name or name in {*model_coords(design), *DIMS, "chain", "draw"} else name


def corr_pairs(design: Design) -> tuple[IntArray, IntArray]:
    """Rows and columns, below the diagonal, of the correlations that are not zero by definition."""
    return pairs_of([] if design.covariance == "identity" else design.blocks)


def pairs_of(blocks: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Rows and columns of the correlations below the diagonal, block by block and row by row."""
    pairs = [(block[i], block[j]) for block in blocks for i in range(len(block)) for j in range(i)]
    rows, cols = np.array(pairs, dtype=int).reshape(-1, 2).T
    return rows, cols


def pair_labels(term: Sequence[str], pairs: tuple[IntArray, IntArray]) -> list[str]:
    """Names of pairs: ``Intercept, time``."""
    return [f"{term[j]}, {term[i]}" for i, j in zip(*pairs, strict=True)]


def model_coords(design: Design) -> dict[str, Any]:
    """Coordinates of every dimension."""
    if design.has_several_factors:
        return _coords_of_factors(design)
    names = residual_names(residual_rows(design)) if design.has_residual_structure else {}
    return {
        **{f"{variable}_parameter": np.array(own, dtype=str) for variable, own in names.items() if own},
        "coef": np.array(design.coef, dtype=str),
        "term": np.array(design.own_term, dtype=str),
        **({dim_of_D(design): np.array(design.term, dtype=str)} if design.group else {}),
        "pair": np.array(pair_labels(design.term, corr_pairs(design)), dtype=str),
        "level1": np.array(design.level1, dtype=str),
        "subject": design.subjects.to_numpy(),
        "obs": np.arange(design.n_obs),
    }


def _coords_of_factors(design: Design) -> dict[str, Any]:
    found = {
        "coef": np.array(design.coef, dtype=str),
        "term": np.array(design.term, dtype=str),
        "pair": np.array(pair_labels(design.term, corr_pairs(design)), dtype=str),
        "obs": np.arange(design.n_obs),
    }
    for own, (groups, terms) in zip(design.random, factor_dims(design), strict=True):
        found |= {groups: own.group.labels.to_numpy(), terms: np.array(own.columns.names, dtype=str)}
    return found


def aligned(design: Design, posterior: Any, caller: str) -> dict[str, FloatArray]:
    """Draws by name, (chain, draw, ...), in the order of the model's coefficients, terms and subjects.

    Raises
    ------
    DataError
        If the tree has other ones.
    """
    found, coords = posterior.transpose("chain", "draw", ...), model_coords(design)
    first = dim_of_D(design)
    for dim in _second_dims(found, first):  # of a matrix: labels of its own, or those of the first
        coords[dim] = coords[first]
        if dim not in found.indexes and first in found.indexes:
            found = found.assign_coords({dim: found[first].to_numpy()})
    for dim, labels in coords.items():
        if dim not in found.indexes or dim == "obs":
            continue
        own, wanted = _as_text(found[dim].to_numpy()), _as_text(labels)
        if sorted(own) != sorted(wanted):
            received = f"{caller} with a posterior whose {dim} is {shorten(own)}"
            reason = f"in the model it is {shorten(wanted)}"
            raise DataError(
                received,
                reason,
                "pass the model that was sampled",
                "docs, page 'Saving fits', section 'A posterior from elsewhere'",
            )
        if own != wanted:
            found = found.isel({dim: [own.index(label) for label in wanted]})
    # sums depend on the order in memory to the last digit: it is that of our own draws
    return {str(name): np.ascontiguousarray(values.to_numpy()) for name, values in found.data_vars.items()}


def _second_dims(posterior: Any, first: str) -> list[str]:
    """The other dimension of matrices (term, term)."""
    found = [posterior[name].dims for name in ("corr_b", "D") if name in posterior]
    others = [[d for d in dims if d not in ("chain", "draw", first)] for dims in found if first in dims]
    return [str(own[0]) for own in others if len(own) == 1]


def _as_text(labels: Any) -> list[str]:
    """Labels as text, 1.0 like 1: a file or a sampler may have changed the type."""
    return [str(int(v)) if isinstance(v, (float, np.floating)) and v == v // 1 else str(v) for v in labels]


def dataset(design: Design, draws: Mapping[str, FloatArray]) -> Any:
    """Dataset of draws (chain, draw, ...): matrices of correlations by pair, D left out, since it follows.

    Parameters
    ----------
    design : Design
    draws : mapping of str to (chain, draw, ...)
        The response and what else is known by row under names of their own.
    """
    import xarray as xr

    coords, kept = model_coords(design), {}
    for name, given in draws.items():
        values = given
        if name == "corr_b":
            values = given[(..., *corr_pairs(design))]
        if name != "D" and (name != "corr_b" or values.shape[-1]):
            dims = dims_of(design, name)
            dims = (("obs",) if values.ndim > 2 else ()) if dims is None else dims
            kept[name] = (("chain", "draw", *dims), values)
    used = {d for dims, _ in kept.values() for d in dims}
    first = next(iter(draws.values()))
    sample = {"chain": np.arange(first.shape[0]), "draw": np.arange(first.shape[1])}
    return xr.Dataset(kept, coords={**sample, **{k: v for k, v in coords.items() if k in used}})


def matrices(design: Design, posterior: Any) -> tuple[FloatArray, FloatArray]:
    """Correlations of the random effects and their covariance D, each (chain, draw, q, q), from a dataset of draws."""
    sd = posterior["sd_b"].transpose("chain", "draw", dim_of_D(design)).to_numpy()
    corr = np.zeros((*sd.shape, sd.shape[-1]))
    corr[..., np.arange(sd.shape[-1]), np.arange(sd.shape[-1])] = 1.0
    rows, cols = corr_pairs(design)
    if len(rows):
        corr[..., rows, cols] = posterior["corr_b"].transpose("chain", "draw", "pair").to_numpy()
        corr[..., cols, rows] = corr[..., rows, cols]
    return corr, corr * (sd[..., None] * sd[..., None, :])


def icc(design: Design, draws: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """``icc``, D₀₀ / (D₀₀ + σ²) at every draw; nothing without a random intercept."""
    if INTERCEPT not in design.term:
        return {}
    variance = draws["sd_b"][..., design.term.index(INTERCEPT)] ** 2
    return {"icc": variance / (variance + draws["sigma"] ** 2)}


def dispersion_variables(design: Design) -> tuple[str, ...]:
    """Variables of a tree that are dispersion parameters: ``sigma`` of a Gaussian response, those of a family."""
    return tuple(name.replace(" ", "_") for name in dispersion_labels(design))


def dispersion_labels(design: Design) -> tuple[str, ...]:
    """Their names in tables: ``threshold 2`` is ``threshold_2`` in a tree."""
    if design.is_gaussian:
        return ("sigma",)
    return tuple(design.family.natural(np.zeros(len(design.family.first_psi(design.y, design.trials)))))


def observed_data(design: Design) -> Any:
    """Group ``observed_data``: the response under its own name."""
    import xarray as xr

    found = {response_name(design): ("obs", as_response(design, design.y))}
    return xr.Dataset(found, coords={"obs": np.arange(design.n_obs)})


def as_response(design: Design, y: FloatArray) -> Any:
    """Responses as a tree has them: whole numbers where the family is discrete, by which ArviZ tells counts."""
    return y.astype(np.int64) if design.family.discrete else y


def constant_data(design: Design) -> Any:
    """Group ``constant_data``: covariates by name, the design's X and Z, and who the rows belong to."""
    import xarray as xr

    coords = model_coords(design)
    found = {
        "X": (("obs", "coef"), design.X),
        "Z": (("obs", dim_of_D(design)), design.Z),
        "offset": ("obs", design.offset),
        **_index_of_rows(design),
        **({"trials": ("obs", design.trials)} if design.family.has_trials else {}),
    }
    taken = {*coords, *found, "chain", "draw"}
    left_out = {design.hierarchy.response, *(() if design.has_several_factors else (design.hierarchy.subject,))}
    for column in design.frame.columns:
        name = str(column)
        if "/" not in name and name not in left_out:
            found[f"{name}_column" if name in taken else name] = ("obs", _plain(design.frame[column]))
    groups = [own for own, _ in factor_dims(design)] if design.has_several_factors else ["subject"]
    return xr.Dataset(found, coords={k: coords[k] for k in ("obs", "coef", dim_of_D(design), *groups)})


def _index_of_rows(design: Design) -> dict[str, Any]:
    """Who each row belongs to, by grouping factor where there are several."""
    if not design.has_several_factors:
        return {"subject_index": ("obs", design.subject_index)}
    each = zip(design.random, factor_dims(design), strict=True)
    return {f"{groups}_index": ("obs", own.group.index) for own, (groups, _) in each}


def _plain(column: pd.Series) -> Any:
    """Numbers, truth values and dates as they are, everything else as text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return np.array(column.cat.categories.astype(str), dtype=str)[column.cat.codes]
    values = column.to_numpy()
    return values if values.dtype.kind in "biufM" else np.array(column.astype(str), dtype=str)
