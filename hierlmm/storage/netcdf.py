"""Trees and arrays as groups of a netCDF file (HDF5), which ArviZ and every other program can read.

What the format has no type for stands in a plan beside it, so that the tree comes back as it was: types of text, the
order of an array's axes in memory (on which the last digit of a sum depends), attributes, mixed values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hierlmm.storage.values import Arrays, pack, unpack


def write_netcdf(tree: Any, path: Path) -> None:
    """Write a DataTree as netCDF, without what the format has no type for.

    Parameters
    ----------
    tree : xarray.DataTree
    path : Path
        Replaced if it exists.
    """
    import xarray as xr

    groups = {node.path: _storable(node.to_dataset(inherit=False)) for node in tree.subtree}
    xr.DataTree.from_dict(groups).to_netcdf(path, engine="h5netcdf")


def _storable(dataset: Any) -> Any:
    kept = dataset.drop_vars([name for name, variable in dataset.variables.items() if not _has_type(variable)])
    kept.attrs = {k: v if isinstance(v, (str, int, float)) else str(v) for k, v in kept.attrs.items()}
    return kept


def _has_type(variable: Any) -> bool:
    """Whether the format has a type for the values (and there are any)."""
    return variable.size > 0 and (
        variable.dtype != object or all(isinstance(v, str) for v in variable.to_numpy().ravel())
    )


def arrays_as_tree(arrays: Mapping[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
    """Arrays of any shape as a dataset, and the plan by which `arrays_of` gives them back."""
    import xarray as xr

    found = {name: ([f"{name}_{k}" for k in range(values.ndim)], values) for name, values in arrays.items()}
    dataset = xr.Dataset(found)
    return dataset, plan_of(dataset)


def plan_of(dataset: Any) -> dict[str, Any]:
    """What must be known beside the file: of every variable its dimensions, type, shape and order in memory."""
    plan = {}
    for name, variable in dataset.variables.items():
        values = variable.to_numpy()
        one: dict[str, Any] = {"dims": list(variable.dims), "dtype": values.dtype.str, "shape": list(values.shape)}
        if values.ndim > 1 and not values.flags.c_contiguous:
            one["order"] = np.argsort([-abs(s) for s in values.strides], kind="stable").tolist()
        if name in dataset.coords:
            one["coordinate"] = True
        if variable.attrs:
            one["attrs"] = pack(_plain(dict(variable.attrs)), "attrs", {})
        if values.size and not _has_type(variable):
            one["values"] = [_plain(v) for v in values.ravel().tolist()]
        plan[str(name)] = one
    return {"variables": plan, "attrs": pack(_plain(dict(dataset.attrs)), "attrs", {})}


def _plain(value: Any) -> Any:
    """What JSON has; text of what it has not."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    value = value.item() if isinstance(value, np.generic) else value
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


def dataset_of(plan: Mapping[str, Any], stored: Any) -> Any:
    """A dataset as it was before it was written.

    Parameters
    ----------
    plan : mapping
        From `plan_of`.
    stored : xarray.Dataset
        What the file has of it.

    Raises
    ------
    KeyError, ValueError
        If the file has less, or other shapes.
    """
    import xarray as xr

    found: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    for name, one in plan["variables"].items():
        values = _values(one, stored[name].to_numpy() if not ("values" in one or 0 in one["shape"]) else None)
        attrs = unpack(one["attrs"], {}) if "attrs" in one else {}
        found["coordinate" in one][name] = (tuple(one["dims"]), values, attrs)
    return xr.Dataset(found[False], coords=found[True], attrs=unpack(plan["attrs"], {}))


def _values(one: Mapping[str, Any], stored: np.ndarray | None) -> np.ndarray:
    if stored is None:
        values = np.empty(one["shape"], dtype=one["dtype"])
        if "values" in one:
            values.ravel()[:] = one["values"]
        return values
    values = stored.astype(one["dtype"]).reshape(one["shape"])
    if "order" not in one:
        return values
    order = one["order"]
    return np.ascontiguousarray(values.transpose(order)).transpose(np.argsort(order))


def arrays_of(plan: Mapping[str, Any], stored: Any) -> Arrays:
    """The arrays that were put into a dataset by `arrays_as_tree`."""
    return {str(name): variable.to_numpy() for name, variable in dataset_of(plan, stored).variables.items()}


def digest(text: str, datasets: Mapping[str, Any]) -> str:
    """A hash of all that a file says, by which damage is seen."""
    found = hashlib.sha256(text.encode())
    for path in sorted(datasets):
        for name, variable in sorted(datasets[path].variables.items(), key=lambda item: str(item[0])):
            values = variable.to_numpy()
            found.update(f"{path} {name}".encode())
            found.update(
                "\0".join(map(str, values.ravel().tolist())).encode()
                if values.dtype.kind in "UOT"
                else np.ascontiguousarray(values).tobytes()
            )
    return found.hexdigest()
