"""The file of a fit: groups of a posterior's tree, the rows, what the model and the estimator say.

    /posterior, /sample_stats, ...   the tree, as ArviZ reads it (a posterior)
    /hierlmm                         specification (JSON), format, versions, checksum
    /hierlmm/arrays                  columns of the data, the optimum, the solution of the equations

Reading makes the design anew from the rows, by the code that made it first, and holds its columns against those that
were fitted; estimates are not worked out again but taken from the file.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hierlmm._version import __version__
from hierlmm.errors import ArgumentError, DataError, FitWarning, SpecificationError
from hierlmm.storage.netcdf import arrays_as_tree, arrays_of, dataset_of, digest, plan_of, write_netcdf
from hierlmm.storage.parts import Record, pack_record, unpack_record
from hierlmm.storage.table import pack_table, same_rows, unpack_table
from hierlmm.storage.values import SEE, Arrays, pack, unpack

FORMAT = 1
GROUP, ARRAYS = "/hierlmm", "/hierlmm/arrays"
OF_ROWS = ("/observed_data", "/constant_data")
"""Groups of a tree that hold the rows themselves."""


def write_record(
    record: Record, path: Any, *, answers: Mapping[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Write what an estimator returned.

    Parameters
    ----------
    record : LikelihoodEstimate, GeneralisedEstimate, PosteriorRecord or GEERecord
    path : str or path-like
        Ending in ``.nc``.
    answers : mapping, optional
        Written in place of the rows: what a fit without them cannot work out.
    overwrite : bool
        Whether a file that is there is replaced.

    Raises
    ------
    ArgumentError, SpecificationError
        If the path cannot be written to, or a class in the model could not be found again.
    """
    target = target_of(path, overwrite)
    arrays: Arrays = {}
    said = pack_record(record, arrays, rowless=answers is not None)
    said["data"] = pack_table(record.design.frame, arrays) if answers is None else None
    said["answers"] = pack(answers, "answers", arrays)
    write_said(target, said, arrays, _groups(record, answers is None))
    return target


def write_said(target: Path, said: dict[str, Any], arrays: Arrays, groups: dict[str, Any]) -> None:
    """Write what is said, and arrays and groups beside it, with a checksum.

    Parameters
    ----------
    target : Path
        From `target_of`.
    said : dict
        As JSON has it.
    arrays : dict
    groups : dict
        Path -> Dataset.
    """
    import xarray as xr

    said["versions"] = {"hierlmm": __version__, "numpy": np.__version__}
    said["groups"] = {group: plan_of(dataset) for group, dataset in groups.items()}
    groups[ARRAYS], said["arrays"] = arrays_as_tree(arrays)
    text = json.dumps(said, ensure_ascii=False)
    plans = said["groups"] | {ARRAYS: said["arrays"]}
    checksum = digest(text, {group: dataset_of(plans[group], dataset) for group, dataset in groups.items()})
    attrs = {"format": FORMAT, **said["versions"], "checksum": checksum}
    groups[GROUP] = xr.Dataset({"specification": ((), text)}, attrs=attrs)
    _replace(target, xr.DataTree.from_dict(groups))


def _groups(record: Any, data: bool) -> dict[str, Any]:
    """Groups of the record's tree, if it has one."""
    tree = getattr(record, "datatree", None)
    if tree is None:
        return {}
    return {node.path: node.to_dataset(inherit=False) for node in tree.subtree if data or node.path not in OF_ROWS}


def path_of(path: Any) -> Path:
    """What was given as the name of a file."""
    try:
        found = Path(os.fspath(path)).expanduser()
    except TypeError:
        received, remedy = f"path={path!r}", "use text or a pathlib.Path that ends in '.nc', for example 'fit.nc'"
        raise ArgumentError(received, f"a {type(path).__name__} is no path of a file", remedy, SEE) from None
    if "\0" in str(found):
        raise ArgumentError(f"path={path!r}", "a name of a file has no null character", "leave it out", SEE)
    return found


def target_of(path: Any, overwrite: bool, call: str = "save") -> Path:
    """The path of a file that can be written.

    Parameters
    ----------
    path : str or path-like
    overwrite : bool
    call : str
        What writes it, for messages.

    Raises
    ------
    ArgumentError, SpecificationError
    """
    target = path_of(path)
    received = f"{call}({str(path)!r})"
    if target.suffix != ".nc":
        reason = "a fit is saved as netCDF, whose files end in '.nc'"
        raise SpecificationError(received, reason, f"use {target.name + '.nc'!r}", SEE)
    if target.is_dir():
        raise SpecificationError(received, "this is a folder", "name a file in it: 'folder/fit.nc'", SEE)
    if not target.parent.is_dir():
        remedy = f"make it first, pathlib.Path({str(target.parent)!r}).mkdir(parents=True), or name another"
        raise SpecificationError(received, f"there is no folder {str(target.parent)!r}", remedy, SEE)
    if target.exists() and not overwrite:
        reason = "there is a file of this name, and it may hold another fit"
        raise SpecificationError(received, reason, "use another name, or overwrite=True to replace it", SEE)
    return target


def _replace(target: Path, tree: Any) -> None:
    """Write beside the target and move it there, so that nothing half written has its name."""
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".hierlmm-") as folder:
            written = Path(folder) / target.name
            write_netcdf(tree, written)
            os.replace(written, target)
    except OSError as error:
        reason = f"it cannot be written: {error.strerror or error}"
        raise SpecificationError(f"save({str(target)!r})", reason, "name a folder of your own", SEE) from error


@dataclass(frozen=True)
class Stored:
    """What a file says."""

    said: dict[str, Any]
    arrays: Arrays
    groups: dict[str, Any]


def read_record(path: Any, data: Any = None) -> tuple[Record, Mapping[str, Any]]:
    """Read what an estimator returned, and the answers that stand in place of the rows where these are absent.

    Parameters
    ----------
    path : str or path-like
    data : table, optional
        The rows that were fitted; needed where the file was written without them, and held against the fingerprint.

    Raises
    ------
    ArgumentError, DataError, SpecificationError
        If there is no such file, it is damaged, of another kind or of a newer format, the data are not those that were
        fitted, or a class of the user cannot be imported.
    """
    stored = read_said(path_of(path), "load_fit", "fit.save(path)")
    said, call = stored.said, f"hl.load_fit({str(path)!r}, data=...)"
    frame = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # what was said when the model was made
        if data is not None:
            of = said["design"]
            frame = same_rows(data, of["fingerprint"], of["n_obs"], of["subject"], call)
        elif said["data"] is not None:
            frame = unpack_table(said["data"], stored.arrays)
        record = unpack_record(said, stored.arrays, stored.groups, frame, call)
    return record, {} if frame is not None else unpack(said["answers"], stored.arrays)


def read_said(path: Path, call: str, wrote: str) -> Stored:
    """What `write_said` wrote.

    Parameters
    ----------
    path : Path
    call, wrote : str
        What reads it, and what should have written it, for messages.

    Raises
    ------
    DataError
        If it is not there, damaged, or something else.
    """
    import xarray as xr

    received = f"hl.{call}({str(path)!r})"
    if not path.exists():
        raise DataError(received, "there is no such file", "check the name, and the folder that Python works in", SEE)
    try:
        with xr.open_datatree(path, engine="h5netcdf", decode_timedelta=True) as file:
            tree = file.load()
    except Exception as error:  # whatever HDF5 and its readers raise
        reason = "it is no netCDF file, or damaged"
        raise DataError(received, reason, f"name a file that {wrote} wrote, or write it again", SEE) from error
    found = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    attrs = found[GROUP].attrs if GROUP in found else {}
    if "format" not in attrs or "specification" not in found[GROUP]:
        remedy = "use hl.from_datatree(model, arviz.from_netcdf(path)) for draws that were written otherwise"
        raise DataError(received, f"it is a netCDF file that {wrote} did not write", remedy, SEE)
    try:
        newer = int(attrs["format"]) > FORMAT
    except (ValueError, TypeError) as error:
        _damaged(received, error)
    if newer:
        wrote = f"hierlmm {attrs.get('hierlmm', '?')} wrote it in format {attrs['format']}"
        reason = f"{wrote}, and version {__version__} reads formats up to {FORMAT}"
        raise DataError(received, reason, "update hierlmm: pip install --upgrade hierlmm", SEE)
    try:
        return _checked(found, str(attrs["checksum"]))
    except (KeyError, ValueError, TypeError) as error:
        _damaged(received, error)


def _checked(found: Mapping[str, Any], checksum: str) -> Stored:
    """What the groups say, which is what was written.

    Raises
    ------
    KeyError, ValueError, TypeError
        If it is not.
    """
    text = str(found[GROUP]["specification"].item())
    said = json.loads(text)
    groups = {group: dataset_of(plan, found[group]) for group, plan in said["groups"].items()}
    stored = dataset_of(said["arrays"], found[ARRAYS])
    if digest(text, groups | {ARRAYS: stored}) != checksum:
        raise ValueError("the checksum is another one")
    return Stored(said, arrays_of(said["arrays"], found[ARRAYS]), groups)


def _damaged(received: str, error: Exception) -> NoReturn:
    remedy = "write it again, or use a copy of the file"
    raise DataError(received, "the file was changed or damaged since it was written", remedy, SEE) from error
