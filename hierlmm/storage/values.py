"""Values as JSON and arrays: numbers, text, dates, tuples, and dataclasses by name and fields.

`pack` takes a value apart: what JSON has stays as it is, arrays are put aside under the path at which they were found,
and everything else is an object with one key that says what it is. `unpack` puts it together again, to the last bit.
Classes of this package have a name in `OWN`; those of a user (a structure, a family, a prior) are named by where they
are imported from, ``module:Class``.
"""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from hierlmm.bayes import distributions
from hierlmm.bayes.distribution import Distribution
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.covariance import residual as structures
from hierlmm.covariance.composed import Composed
from hierlmm.covariance.residual import ResidualCorrelation
from hierlmm.covariance.variance import VarExp, VarianceFunction, VarIdent, VarPower
from hierlmm.design.columns import Column
from hierlmm.design.factors import FactorHierarchy
from hierlmm.design.formula import Bar
from hierlmm.design.hierarchy import Hierarchy, RandomBlock
from hierlmm.design.outcome import Outcome
from hierlmm.design.terms import RandomColumns
from hierlmm.errors import DataError, SpecificationError
from hierlmm.families.family import Family
from hierlmm.families.names import FAMILIES
from hierlmm.gee.correlation import (
    AutoregressiveMoments,
    ExchangeableMoments,
    Independent,
    Rows,
    UnstructuredMoments,
)
from hierlmm.gee.estimate import GEEEstimate
from hierlmm.likelihood.crossproducts import CrossProducts, Scaling
from hierlmm.likelihood.maximise import Optimum
from hierlmm.likelihood.search import Search

SEE = "docs, page 'Saving fits'"
USERS = (ResidualCorrelation, VarianceFunction, Distribution, Family)
"""Kinds of classes that a user may write."""
OWN: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(getattr(structures, name) for name in ("AR1", "CAR1", "CompoundSymmetry", "Exponential", "Gaussian")),
        *(getattr(structures, name) for name in ("AnteDependence", "Toeplitz", "Unstructured")),
        *(VarIdent, VarPower, VarExp, Composed),
        *(k for k in vars(distributions).values() if isinstance(k, type) and issubclass(k, Distribution)),
        *(AutoregressiveMoments, ExchangeableMoments, Independent, UnstructuredMoments, Rows, GEEEstimate),
        *(CrossProducts, RandomColumns, Scaling),
        *(Bar, Column, FactorHierarchy, Hierarchy, Outcome, RandomBlock, Optimum, Search, ResolvedPriors),
    )
} | {f"family {name}": kind for name, kind in FAMILIES.items()}  # some have the name of a structure or a prior
NAMES = {kind: name for name, kind in OWN.items()}
type Arrays = dict[str, np.ndarray]


def pack(value: Any, where: str, arrays: Arrays) -> Any:
    """Return a value as JSON has it, and put its arrays aside.

    Parameters
    ----------
    value
        Numbers, text, dates, intervals, arrays, and tuples, lists, mappings and dataclasses of these.
    where : str
        Its name, which those of its arrays begin with.
    arrays : dict
        Filled.

    Raises
    ------
    SpecificationError
        For anything else, and for classes that could not be found again.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray):
        return _pack_array(value, where, arrays)
    if type(value) in NAMES or isinstance(value, USERS):
        return {"class": name_of(type(value)), "fields": _pack_fields(value, where, arrays)}
    if isinstance(value, (tuple, list, frozenset)):
        items = [pack(v, f"{where}.{k}", arrays) for k, v in enumerate(value)]
        return items if isinstance(value, list) else {type(value).__name__: items}
    if isinstance(value, Mapping):
        keys, values = list(value), list(value.values())
        return {"mapping": [pack(keys, f"{where}.keys", arrays), pack(values, where, arrays)]}
    if isinstance(value, np.generic):
        plain = value.view("i8") if value.dtype.kind in "mM" else value
        return {"number": [value.dtype.str, pack(plain.item(), where, arrays)]}
    if isinstance(value, pd.Interval):
        return {"interval": [pack(v, where, arrays) for v in (value.left, value.right, value.closed)]}
    if isinstance(value, (datetime.date, datetime.time)):  # a Timestamp and a datetime are dates
        return {type(value).__name__: value.isoformat()}
    received, reason = f"a {type(value).__name__} in {where}", "the file holds numbers, text, dates and arrays"
    remedy = "use numbers or text in its place (labels: data[...].astype(str))"
    raise SpecificationError(received, reason, remedy, SEE)


def _pack_array(value: np.ndarray, where: str, arrays: Arrays) -> Any:
    if value.dtype.kind not in "biufcmM":
        return {"labels": [pack(v, where, arrays) for v in value.ravel().tolist()], "shape": list(value.shape)} | {
            "dtype": value.dtype.str
        }
    arrays[where] = value
    return {"array": where}


def _pack_fields(value: Any, where: str, arrays: Arrays) -> dict[str, Any]:
    kind = type(value)
    if not is_dataclass(value) and not hasattr(value, "_asdict"):
        reason = "it is no dataclass, so what it is made of is not known"
        _refuse_class(kind, reason, f"write @dataclass(frozen=True) above class {kind.__name__}")
    found = value._asdict() if hasattr(value, "_asdict") else _fields(value)
    packed = {name: pack(v, f"{where}.{name}", arrays) for name, v in found.items()}
    if isinstance(value, USERS) and not _same(kind, found, value):
        reason = "made again from its fields it is another one"
        _refuse_class(kind, reason, "let everything that it depends on be a field of the dataclass, and nothing else")
    return packed


def _same(kind: type, given: dict[str, Any], value: Any) -> bool:
    try:
        return bool(kind(**given) == value)
    except TypeError:  # it takes other arguments
        return False


def _fields(value: Any) -> dict[str, Any]:
    """What the constructor takes; what begins with an underscore is worked out again."""
    return {f.name: getattr(value, f.name) for f in fields(value) if f.init and not f.name.startswith("_")}


def name_of(kind: type) -> str:
    """Name under which a class is found again.

    Raises
    ------
    SpecificationError
        If there is none: it was defined inside a function, or its module has another one of this name.
    """
    if kind in NAMES:
        return NAMES[kind]
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        found = _imported(name)
    except (ImportError, AttributeError):
        found = None
    if found is not kind:
        inside = "<locals>" in kind.__qualname__
        reason = f"{'it was defined inside a function and ' if inside else ''}cannot be imported as {name!r}"
        _refuse_class(kind, reason, "define it at the top of a module (of the script or notebook will do)")
    return name


def _refuse_class(kind: type, reason: str, remedy: str) -> NoReturn:
    raise SpecificationError(f"a fit with a {kind.__name__} of your own, to be saved", reason, remedy, SEE)


def _imported(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def class_of(name: str) -> Any:
    """The class of a name.

    Raises
    ------
    SpecificationError
        If it cannot be imported, or is no structure, family or prior.
    """
    if ":" not in name:
        if name not in OWN:
            reason = "this version of hierlmm has no such class"
            raise DataError(f"a file with a {name}", reason, "use the version that wrote the file", SEE)
        return OWN[name]
    module = name.partition(":")[0]
    received, see = f"a saved fit with {name!r}, a class of your own", SEE
    place = "run the cell or script that defines it first" if module == "__main__" else f"make {module!r} importable"
    try:
        kind = _imported(name)
    except (ImportError, AttributeError) as error:
        reason = f"it cannot be imported here ({error})"
        raise SpecificationError(received, reason, f"{place}, then load the file again", see) from error
    if not (isinstance(kind, type) and issubclass(kind, USERS)):
        reason = "what has this name here is no residual structure, variance function, family or prior"
        raise SpecificationError(received, reason, f"{place} as it was when the fit was saved", see)
    return kind


def unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Put a value together again.

    Parameters
    ----------
    value
        What `pack` returned.
    arrays : mapping
        What it put aside.

    Raises
    ------
    SpecificationError, DataError
        If a class cannot be found, or takes other fields.
    """
    if isinstance(value, list):
        return [unpack(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if "class" in value:
        return _made(value["class"], {k: unpack(v, arrays) for k, v in value["fields"].items()})
    if "labels" in value:
        flat = np.empty(len(value["labels"]), dtype=object)
        flat[:] = [unpack(v, arrays) for v in value["labels"]]
        return flat.reshape(value["shape"]).astype(value["dtype"])
    ((what, inside),) = value.items()
    return KINDS[what](inside, arrays)


def _made(name: str, given: dict[str, Any]) -> Any:
    kind = class_of(name)
    try:
        return kind(**given)
    except TypeError as error:
        received, reason = f"a saved {name}({', '.join(given)})", f"the class takes other arguments now ({error})"
        raise SpecificationError(received, reason, "use the class as it was when the fit was saved", SEE) from error


KINDS: dict[str, Callable[[Any, Mapping[str, np.ndarray]], Any]] = {
    "array": lambda name, arrays: arrays[name],
    "number": lambda inside, _: np.array(inside[1]).astype(inside[0])[()],
    "tuple": lambda inside, arrays: tuple(unpack(inside, arrays)),
    "frozenset": lambda inside, arrays: frozenset(unpack(inside, arrays)),
    "mapping": lambda inside, arrays: dict(zip(*unpack(inside, arrays), strict=True)),
    "interval": lambda inside, arrays: pd.Interval(*unpack(inside, arrays)),
    "Timestamp": lambda text, _: pd.Timestamp(text),
    "datetime": lambda text, _: datetime.datetime.fromisoformat(text),
    "date": lambda text, _: datetime.date.fromisoformat(text),
    "time": lambda text, _: datetime.time.fromisoformat(text),
}
