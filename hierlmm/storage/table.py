"""The rows of a model as arrays and labels, column by column, and a fingerprint by which changed data are known.

A column comes back with its type: categories in their order, text, dates with their zone, whole numbers of any size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.errors import DataError
from hierlmm.frames import column_names, complete_rows, is_number, levels_in_use, require_columns, shorten, to_pandas
from hierlmm.storage.values import SEE, Arrays, pack, unpack


def pack_table(frame: pd.DataFrame, arrays: Arrays) -> dict[str, Any]:
    """Columns and index of a table as JSON, their numbers put aside in ``arrays``."""
    columns = [[name, _pack_column(frame[name], f"data.{k}", arrays)] for k, name in enumerate(frame.columns)]
    return {"columns": columns, "index": pack_index(frame.index, "index", arrays)}


def unpack_table(packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The table."""
    columns = {name: _unpack_column(column, arrays) for name, column in packed["columns"]}
    return pd.DataFrame(columns).set_axis(unpack_index(packed["index"], arrays), axis=0)


def _pack_column(column: pd.Series, where: str, arrays: Arrays) -> dict[str, Any]:
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        codes = pack(column.cat.codes.to_numpy(), where, arrays)
        categories = _pack_column(dtype.categories.to_series(), f"{where}.categories", arrays)
        return {"codes": codes, "categories": categories, "ordered": bool(dtype.ordered)}
    if isinstance(dtype, np.dtype) and dtype.kind in "biufcM":
        return {"values": pack(column.to_numpy(), where, arrays)}
    if isinstance(dtype, pd.DatetimeTZDtype):
        naive = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
        return {"values": pack(naive, where, arrays), "zone": str(dtype.tz)}
    codes, labels = pd.factorize(column)
    known = [pack(label, where, arrays) for label in labels.tolist()]
    return {"codes": pack(codes, where, arrays), "labels": known, "dtype": str(dtype)}


def _unpack_column(packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> pd.Series:
    if "categories" in packed:
        categories = pd.Index(_unpack_column(packed["categories"], arrays))
        codes = unpack(packed["codes"], arrays)
        return pd.Series(pd.Categorical.from_codes(codes, categories=categories, ordered=packed["ordered"]))
    if "values" in packed:
        values = pd.Series(unpack(packed["values"], arrays))
        return values.dt.tz_localize("UTC").dt.tz_convert(packed["zone"]) if "zone" in packed else values
    labels = np.empty(len(packed["labels"]), dtype=object)
    labels[:] = [unpack(label, arrays) for label in packed["labels"]]
    if packed["dtype"].startswith("interval"):
        return pd.Series(pd.Index(labels[unpack(packed["codes"], arrays)]))
    return pd.Series(labels[unpack(packed["codes"], arrays)], dtype=packed["dtype"])


def pack_index(index: pd.Index, where: str, arrays: Arrays) -> dict[str, Any]:
    """An index as JSON, its numbers put aside under ``where``."""
    names = [pack(name, where, arrays) for name in index.names]
    if isinstance(index, pd.RangeIndex):
        return {"names": names, "range": [index.start, index.stop, index.step]}
    levels = [index.get_level_values(k).to_series() for k in range(index.nlevels)]
    return {"names": names, "levels": [_pack_column(v, f"{where}.{k}", arrays) for k, v in enumerate(levels)]}


def unpack_index(packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> pd.Index:
    """The index."""
    names = [unpack(name, arrays) for name in packed["names"]]
    if "range" in packed:
        start, stop, step = packed["range"]
        return pd.RangeIndex(start, stop, step, name=names[0])
    levels = [_unpack_column(column, arrays) for column in packed["levels"]]
    return pd.Index(levels[0], name=names[0]) if len(levels) == 1 else pd.MultiIndex.from_arrays(levels, names=names)


def fingerprint(frame: pd.DataFrame) -> dict[str, str]:
    """A hash of every column: of its numbers, or of its labels and their order.

    What a file of the same data would give is the same: 1 and 1.0, text and categories. The index is not looked at.
    """
    found = {}
    for name in frame.columns:
        column, digest = frame[name], hashlib.sha256()
        if is_number(column) and column.dtype != object:
            exact = column.dtype.kind == "f" or column.abs().max() <= 2**53
            digest.update(np.ascontiguousarray(column.to_numpy(np.float64 if exact else None)).tobytes())
        else:
            labels = [str(v) for v in _sorted(column)]
            codes = pd.Index(labels).get_indexer(pd.Index([str(v) for v in column]))
            digest.update("\0".join(labels).encode() + codes.astype("<i8").tobytes())
        found[str(name)] = digest.hexdigest()[:32]
    return found


def _sorted(column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return levels_in_use(column)
    return sorted(column.unique(), key=str)


def same_rows(data: Any, columns: Mapping[str, str], n_rows: int, subject: str, what: str) -> pd.DataFrame:
    """The complete rows of data that a saved fit is given again.

    Parameters
    ----------
    data : table
    columns : mapping
        Names of the columns in use, and their fingerprints.
    n_rows : int
        How many rows the fit has.
    subject : str
        The grouping column.
    what : str
        The call, for messages.

    Raises
    ------
    DataError
        If a column is absent, or the rows are not those that were fitted.
    """
    require_columns(columns, column_names(data), "a column of the fitted data,", add=True)
    frame, _ = complete_rows(to_pandas(data, list(columns)), "drop", [subject])
    remedy = "pass the data that were fitted, all rows in their order, or fit the model to these"
    if len(frame) != n_rows:
        reason = f"the fit was made of {n_rows} rows, and these have {len(frame)} complete ones"
        raise DataError(f"other data for {what}", reason, remedy, SEE)
    now = fingerprint(frame)
    changed = [name for name, was in columns.items() if now[name] != was]
    if changed:
        reason = f"the values (or the order of the levels) of {shorten(changed)} are not those that were fitted"
        raise DataError(f"other data for {what}", reason, remedy, SEE)
    return frame
