"""Records of estimators and their designs, taken apart for a file and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.record import PosteriorRecord
from hierlmm.bayes.tree import constant_data, observed_data
from hierlmm.design.build import design_again
from hierlmm.design.design import Design
from hierlmm.design.factors import FactorHierarchy, design_from_factors
from hierlmm.design.formula import parse_formula
from hierlmm.design.outcome import GAUSSIAN
from hierlmm.design.residual import Residual
from hierlmm.errors import DataError
from hierlmm.gee.record import GEERecord
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.estimate import LikelihoodEstimate, make_criterion
from hierlmm.likelihood.generalised import GeneralisedEstimate
from hierlmm.likelihood.generalised_criterion import generalised_criterion
from hierlmm.likelihood.generalised_factors import factor_laplace
from hierlmm.storage.rowless import pack_names, rowless_criterion, rowless_design, rowless_generalised
from hierlmm.storage.table import fingerprint
from hierlmm.storage.values import SEE, Arrays, pack, unpack

type Record = LikelihoodEstimate | GeneralisedEstimate | PosteriorRecord | GEERecord
SAME_COLUMNS = 1e-9
"""Relative difference of the columns' sizes, below which they are the columns that were fitted."""
MATRICES = ("X", "Z", "X1", "y")
KEPT: dict[str, tuple[str, ...]] = {
    "likelihood": ("optimum", "warnings"),
    "generalised": ("optimum", "warnings", "information", "distance"),
    "posterior": ("priors", "estimator", "warnings"),
    "gee": ("estimate", "time", "se", "warnings"),
}
"""Fields of a record that are written as they are, by kind."""
KINDS: dict[type, str] = {
    LikelihoodEstimate: "likelihood",
    GeneralisedEstimate: "generalised",
    PosteriorRecord: "posterior",
    GEERecord: "gee",
}
OF_CRITERION = ("points", "n_psi", "first", "scaling")
"""What is written of the criterion of a generalised model."""


def pack_record(record: Record, arrays: Arrays, *, rowless: bool) -> dict[str, Any]:
    """A record as JSON, without the rows and without its tree; arrays are put aside.

    Parameters
    ----------
    record : LikelihoodEstimate, GeneralisedEstimate, PosteriorRecord or GEERecord
    arrays : dict
        Filled.
    rowless : bool
        Whether the record is to be used without its rows.

    Raises
    ------
    SpecificationError
        If a class in it could not be found again.
    """
    kind = KINDS[type(record)]
    said = {name: pack(getattr(record, name), name, arrays) for name in KEPT[kind]}
    if isinstance(record, LikelihoodEstimate):
        said["reml"] = record.criterion.reml
        own = record.criterion.products if rowless and isinstance(record.criterion, Criterion) else None
        said["products"] = pack(own, "products", arrays)
    if isinstance(record, GeneralisedEstimate):
        said["criterion"] = pack({name: getattr(record.criterion, name) for name in OF_CRITERION}, "criterion", arrays)
    if isinstance(record, PosteriorRecord):
        said["root"] = list(record.datatree.children)
    names = pack_names(record.design, arrays) if rowless else None
    return {"kind": kind, "record": said, "design": _pack_design(record.design, arrays), "names": names}


def _pack_design(design: Design, arrays: Arrays) -> dict[str, Any]:
    parts = ("hierarchy", "residual", "residual_variance", "variance_fitted", "outcome")
    said = {name: pack(getattr(design, name), f"design.{name}", arrays) for name in parts}
    sizes = {f"size of {name}": pack(_size(design, name), f"design.size_of_{name}", arrays) for name in MATRICES}
    return {
        **said,
        **sizes,
        "columns": list(design.frame.columns),
        "fingerprint": fingerprint(design.frame),
        "subject": design.hierarchy.subject,
        "units": {str(name): str(unit) for name, unit in design.units.items()},
        "n_obs": design.n_obs,
        "n_dropped": design.n_dropped,
    }


def _size(design: Design, name: str) -> FloatArray:
    return np.abs(getattr(design, name)).sum(axis=0)


def unpack_design(said: Mapping[str, Any], arrays: Arrays, frame: pd.DataFrame, call: str) -> Design:
    """The design of these rows, which is the one that was fitted.

    Raises
    ------
    DataError
        If other columns come of them.
    """
    correlation, variance = (unpack(said[name], arrays) for name in ("residual", "residual_variance"))
    frame.attrs = {"units": said.get("units", {})}
    outcome = unpack(said["outcome"], arrays) if "outcome" in said else GAUSSIAN
    residual = Residual(correlation, variance)
    hierarchy = unpack(said["hierarchy"], arrays)
    if isinstance(hierarchy, FactorHierarchy) and hierarchy.has_several_factors:
        of_rows = replace(outcome, exposure=None)  # its offset is in the formula
        design = design_from_factors(parse_formula(hierarchy.formula, several=True), frame, outcome=of_rows)
        design = replace(design, outcome=outcome)
    else:
        design = design_again(hierarchy, frame, residual=residual, outcome=outcome)
    for name in MATRICES:
        was, now = unpack(said[f"size of {name}"], arrays), _size(design, name)
        if np.shape(was) != np.shape(now) or not np.allclose(now, was, rtol=SAME_COLUMNS, atol=0.0):
            reason = f"the columns of {name} that come of the rows now are not those that were fitted"
            remedy = "use the versions of hierlmm and formulaic that saved the fit, or fit the model again"
            raise DataError(call, reason, remedy, SEE)
    parts = {c: frame[c].to_numpy() for c in said["columns"] if c not in design.frame}  # of combined groups
    rows = replace(design.rows, frame=design.frame.assign(**parts)[said["columns"]], n_dropped=said["n_dropped"])
    terms = replace(design.terms, dtypes=dict(rows.frame.dtypes))
    fitted = unpack(said["variance_fitted"], arrays)
    return replace(design, rows=rows, terms=terms, variance_fitted=fitted)


def unpack_record(
    said: Mapping[str, Any], arrays: Arrays, groups: Mapping[str, Any], frame: pd.DataFrame | None, call: str
) -> Record:
    """The record that was packed.

    Parameters
    ----------
    said : mapping
        From `pack_record`.
    arrays : mapping
        What it put aside.
    groups : mapping
        Groups of the tree, by path.
    frame : DataFrame or None
        The rows that were fitted.
    call : str
        How the fit is loaded with its rows, for messages.
    """
    of, record = said["design"], {name: unpack(said["record"][name], arrays) for name in KEPT[said["kind"]]}
    if frame is None:
        design = rowless_design(of, said["names"], arrays, call)
    else:
        design = unpack_design(of, arrays, frame, call)
    if said["kind"] == "gee":
        return GEERecord(design, **record)
    if said["kind"] == "posterior":
        return _posterior(design, record, said["record"]["root"], groups, rowless=frame is None)
    if said["kind"] == "generalised":
        return _generalised(design, record, unpack(said["record"]["criterion"], arrays), call, rowless=frame is None)
    if frame is None:
        criterion = rowless_criterion(design, said["record"], arrays, call)
    else:
        criterion = make_criterion(design, reml=said["record"]["reml"])
    found = LikelihoodEstimate(design, criterion, record["optimum"])
    vars(found)["warnings"] = record["warnings"]  # not worked out again, which may take further fits
    return found


def _generalised(
    design: Design, record: dict[str, Any], own: dict[str, Any], call: str, *, rowless: bool
) -> GeneralisedEstimate:
    if rowless:
        criterion = rowless_generalised(design, own, call)
    else:
        made = factor_laplace(design) if design.has_several_factors else generalised_criterion(design, own["points"])
        criterion = replace(made, first=own["first"])
    found = GeneralisedEstimate(design, criterion, record["optimum"])
    vars(found).update({name: record[name] for name in ("warnings", "information", "distance")})
    return found


def _posterior(
    design: Design, record: dict[str, Any], root: list[str], groups: Mapping[str, Any], *, rowless: bool
) -> PosteriorRecord:
    import xarray as xr

    tree = dict(groups)
    for name, make in (("observed_data", observed_data), ("constant_data", constant_data)):
        if name in root and f"/{name}" not in tree and not rowless:
            tree[f"/{name}"] = make(design)
    order = ["/", *(f"/{name}" for name in root)]
    first = {path: tree[path] for path in order if path in tree}
    return PosteriorRecord(design, xr.DataTree.from_dict(first | tree), **record)
