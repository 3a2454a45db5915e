"""Cross-products of data that are not in memory to disk and back; several files of disjoint subjects are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.design.build import design_again
from hierlmm.design.design import LARGE, Design
from hierlmm.design.residual import INDEPENDENT
from hierlmm.design.splines import PolynomialBasis, SplineBasis
from hierlmm.errors import DataError, SpecificationError
from hierlmm.sources.coordinates import Coordinates, first_coordinates
from hierlmm.sources.kept import KeptRows, KeptTable
from hierlmm.sources.sums import Sums
from hierlmm.sources.table import read_others
from hierlmm.storage.file import path_of, read_said, target_of, write_said
from hierlmm.storage.table import pack_table, unpack_table
from hierlmm.storage.values import Arrays, pack, unpack

KIND = "cross-products"
BASES: dict[str, Any] = {kind.__name__: kind for kind in (SplineBasis, PolynomialBasis)}


def write_products(design: Design, path: Any, engine: Any = None, *, overwrite: bool = False) -> Path:
    """Write the cross-products of all rows of a design, and what its columns are made by.

    Raises
    ------
    SpecificationError
        If the rows are in memory, or the path cannot be written to.
    """
    if design.whole is None:
        reason = "its rows are in memory, and a fit of them takes no longer than reading a file"
        raise SpecificationError("save_crossproducts() of a model", reason, "give it hl.large_table(data)", LARGE)
    target = target_of(path, overwrite, "save_crossproducts")
    whole: Any = design.whole
    n_dropped = whole.n_dropped
    if engine is None:
        sums, coordinates = whole.read_once(design)
    else:
        coordinates = first_coordinates(design)
        sums, n_dropped = read_others(design, engine, coordinates, "raise")
    arrays: Arrays = {f"coordinates.{name}": np.asarray(value) for name, value in vars(coordinates).items()}
    arrays |= {f"sums.{name}": getattr(sums, name) for name in ("about", "S", "total", "squares", "sketch")}
    alone = [np.concatenate([own[k] for own in sums.alone], axis=2) for k in (0, 1)] if sums.alone else []
    arrays |= dict(zip(("alone.R", "alone.C"), alone, strict=False))
    for k, (R, size, rows) in enumerate(sums.patterns.values()):
        arrays |= {f"pattern{k}.R": R, f"pattern{k}.size": np.array(size), f"pattern{k}.rows": rows}
    said = {
        "kind": KIND,
        "hierarchy": pack(design.hierarchy, "hierarchy", arrays),
        "coef": list(design.coef),
        "term": list(design.term),
        "states": {call: _pack_state(state) for call, state in states_of(design).items()},
        "data": pack_table(design.frame, arrays),
        "numbers": {name: getattr(sums, name) for name in ("q", "P", "unit", "n_rows", "n_subjects")},
        "n_patterns": len(sums.patterns),
        "n_dropped": n_dropped,
        "label": whole.label,
    }
    write_said(target, said, arrays, {})
    return target


def states_of(design: Design) -> dict[str, Any]:
    """What functions of the formula have learnt, by their calls."""
    return {call: state for recipe in design.factors.recipes for call, state in recipe.transform_state.items()}


def _pack_state(state: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in state.items():
        kind = type(value).__name__
        if kind in BASES:
            found[name] = {"basis": kind, **{f: getattr(value, f) for f in value.__slots__}}
        elif isinstance(value, np.ndarray):
            found[name] = {"list": value.tolist()}
        else:
            found[name] = value.item() if isinstance(value, np.generic) else value
    return found


def _unpack_state(said: Mapping[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, dict) and "basis" in value:
            own = {f: tuple(v) if isinstance(v, list) else v for f, v in value.items() if f != "basis"}
            return BASES[value["basis"]](**own)
        return np.array(value["list"]) if isinstance(value, dict) and "list" in value else value

    return {name: one(value) for name, value in said.items()}


def read_products(paths: Sequence[Any]) -> Design:
    """The design of all subjects of several files.

    Raises
    ------
    DataError
        If a file is not there, damaged or something else; if files are of different models or columns; or if they
        share subjects.
    """
    found = [_read(path) for path in paths]
    (first, sums, coordinates, frame), others = found[0], found[1:]
    for (said, own, theirs, rows), path in zip(others, paths[1:], strict=True):
        _refuse_other(first, said, paths[0], path)
        sums.refuse_shared(own, f"the files {str(paths[0])!r} and {str(path)!r}")
        sums.add(own, *theirs.to(coordinates))
        frame = pd.concat([frame, rows], ignore_index=True)
    whole = KeptRows(sums, coordinates, sum(said["n_dropped"] for said, *_ in found), first["label"])
    states = {call: _unpack_state(state) for call, state in first["states"].items()}
    hierarchy = unpack(first["hierarchy"], {})
    return design_again(hierarchy, KeptTable(frame, whole, states), residual=INDEPENDENT)


def _read(path: Any) -> tuple[dict[str, Any], Sums, Coordinates, pd.DataFrame]:
    stored = read_said(path_of(path), "load_crossproducts", "model.save_crossproducts(path)")
    said, arrays = stored.said, stored.arrays
    if said.get("kind") != KIND:
        received, reason = f"hl.load_crossproducts({str(path)!r})", "the file holds a fit"
        raise DataError(received, reason, "use hl.load_fit(path)", LARGE)
    numbers = said["numbers"]
    sums = Sums(numbers["q"], numbers["P"], arrays["sums.about"], numbers["unit"])
    sums.n_rows, sums.n_subjects = numbers["n_rows"], numbers["n_subjects"]
    for name in ("S", "total", "squares", "sketch"):
        setattr(sums, name, arrays[f"sums.{name}"])
    if "alone.R" in arrays:
        sums.alone = [(arrays["alone.R"], arrays["alone.C"])]
    for k in range(said["n_patterns"]):
        R, size, rows = (arrays[f"pattern{k}.{name}"] for name in ("R", "size", "rows"))
        sums.put_pattern(R, int(size), rows)
    own = {name: arrays[f"coordinates.{name}"] for name in ("M", "shift", "B")}
    coordinates = Coordinates(**own, scale=float(arrays["coordinates.scale"]))
    return said, sums, coordinates, unpack_table(said["data"], arrays)


def _refuse_other(first: Mapping[str, Any], other: Mapping[str, Any], path: Any, its: Any) -> None:
    """Refuse files whose columns do not mean the same."""
    for what, name in (
        ("model", "hierarchy"),
        ("fixed effects", "coef"),
        ("random effects", "term"),
        ("knots", "states"),
    ):
        if first[name] != other[name]:
            received = f"the files {str(path)!r} and {str(its)!r}, with different {what}"
            reason = "only sums of products of the same columns can be added (levels, centres and knots, too)"
            remedy = "write the second file by the model of the first: model.save_crossproducts(path, data=new_data)"
            raise DataError(received, reason, remedy, LARGE)
