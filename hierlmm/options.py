"""What a public function was called with: its arguments exist, and each is of a kind that its annotation names.

`checked` stands above the doors of the package. It knows the plain kinds only (numbers, text, truth values, sequences
and mappings of them) and lets everything else through: tables, fits and structures are checked where they are used, and
so are ranges and choices, which need words of their own.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from typing import Any, Literal, TypeAliasType, get_args, get_origin

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.errors import ArgumentError, SpecificationError, closest

SEE = "docs, page 'Arguments'"
MOST = 1_000_000
"""Largest number of anything: draws, simulations, points. Seeds may be larger."""
WORDS: dict[Any, str] = {float: "a number", int: "a whole number", str: "text", bool: "True or False", None: "None"}
NUMBERS: dict[Any, tuple[type, ...]] = {bool: (bool, np.bool_), int: (int, np.integer)}
NUMBERS |= {float: (int, float, np.integer, np.floating)}
EMPTY = inspect.Parameter.empty


def checked[T: Callable[..., Any]](door: T) -> T:
    """Refuse unknown arguments and arguments of the wrong kind before a function, or the methods of a class, see them.

    The constructor is left alone: most classes are results, which the package makes.

    Raises
    ------
    ArgumentError
        When the function is called so.
    """
    if isinstance(door, type):
        for name, value in list(vars(door).items()):
            if name.startswith("_"):
                continue
            if isinstance(value, classmethod):
                setattr(door, name, classmethod(_checked(value.__func__, method=True)))
            elif isinstance(value, types.FunctionType):
                setattr(door, name, _checked(value, method=True))
        return door
    return _checked(door, method="." in door.__qualname__)


def _checked[T: Callable[..., Any]](door: T, *, method: bool) -> T:
    rules, own = cache(lambda: _rules(door)), int(method)  # a method knows what it is of

    @wraps(door)
    def wrapper(*args: Any, **named: Any) -> Any:
        signature, kinds = rules()
        _refuse_strangers(door, (*args[own:], *named.values()))
        for name, value in _bound(door, signature, args, named).items():
            if name in kinds and value is not signature.parameters[name].default:
                _check(signature.parameters[name], value, kinds[name])
        return door(*args, **named)

    return wrapper  # type: ignore[return-value]


def _refuse_strangers(door: Callable[..., Any], values: Iterable[Any]) -> None:
    """Refuse a fit or model whose kind names the functions made for it (``_answered_by``), where this is another.

    What it names may depend on the model itself.

    Fits side by side are looked at one by one.
    """
    for value in (own for v in values for own in (v, *_side_by_side(v))):
        known = getattr(type(value), "_answered_by", None)
        known = known(value) if callable(known) else known
        if known is not None and door.__name__ not in known:
            raise type(value)._unanswered(door.__name__)


def _side_by_side(value: Any) -> Iterable[Any]:
    """Fits that a value holds by their labels."""
    fits = getattr(type(value), "__dataclass_fields__", {}).get("fits") and value.fits
    return fits.values() if isinstance(fits, Mapping) else ()


def check_counts(**counts: int) -> None:
    """Refuse numbers of draws or chains below 1."""
    for name, value in counts.items():
        if value < 1:
            raise ArgumentError(f"{name}={_short(value)}", "nothing would be drawn", "use 1 or more")


def check_ci(ci: float) -> float:
    """Refuse a probability of intervals outside (0, 1); `checked` asks this of every argument named ``ci``."""
    if not 0.0 < ci < 1.0:
        reason = "the probability of an interval or a band lies between 0 and 1"
        raise SpecificationError(f"ci={ci!r}", reason, "use ci=0.95 for 95 %", SEE)
    return float(ci)


def choose(name: str, value: str, allowed: tuple[str, ...], *see: str) -> None:
    """Raise a `SpecificationError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        choices = f"use one of {', '.join(map(repr, allowed))}"
        reason = f"this is not one of the choices.{closest(value, allowed)}"
        raise SpecificationError(f"{name}={value!r}", reason.removesuffix("."), choices, *see)


def as_point(values: Any, size: int) -> FloatArray:
    """Return the point at which a criterion is asked for, (size,); what the optimiser passes is looked at only briefly.

    Raises
    ------
    ArgumentError
        If it is not that many real numbers.
    """
    if type(values) is np.ndarray and values.shape == (size,) and values.dtype == np.float64:
        return values
    try:
        found = np.asarray(values)
    except ValueError:  # a list of lists of different lengths
        found = np.array(None)
    if found.dtype.kind not in "fiu" or found.shape != (size,):
        raise _no_point(values, size, f"it is a function of {size} number{'' if size == 1 else 's'}")
    return found.astype(np.float64)


def refuse_missing(values: FloatArray) -> None:
    """Refuse a point with NaN, where a criterion has no value.

    Raises
    ------
    ArgumentError
    """
    if np.isnan(values).any():
        raise _no_point(values, len(values), "some of the numbers are NaN")


def _no_point(values: Any, size: int, reason: str) -> ArgumentError:
    parameters = "relative covariance parameters, then those of the residual structure, as in fit.optimum.lam"
    see = "docs, page 'Estimators', section 'ML and REML'"
    return ArgumentError(f"criterion_function({_short(values)})", reason, f"pass an array of {size}: {parameters}", see)


def checked_with_constructor[T: type](kind: T) -> T:
    """`checked` for a class that users make themselves, such as a set of priors."""
    kind.__init__ = checked(kind.__init__)  # type: ignore[misc]
    return checked(kind)


def checked_constructor[T: type](kind: T) -> T:
    """Refuse unknown arguments of a constructor that looks at the kinds of the others itself, such as a structure's."""
    made: Any = kind.__init__  # type: ignore[misc]
    signature = inspect.signature(made)

    @wraps(made)
    def wrapper(*args: Any, **named: Any) -> None:
        _bound(made, signature, args, named)
        made(*args, **named)

    kind.__init__ = wrapper  # type: ignore[misc]
    return kind


def _bound(
    door: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, Any]:
    """Arguments by name; none where the function itself says which name took the place of an earlier one."""
    try:
        return signature.bind(*args, **named).arguments
    except TypeError as problem:
        if not named.keys().isdisjoint(getattr(door, "earlier_names", ())):
            return {}
        raise _misfit(door, args, signature, named, str(problem)) from None


def _rules(door: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, tuple[Any, ...]]]:
    signature = inspect.signature(door)
    namespace = getattr(inspect.unwrap(door), "__globals__", {})
    found = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or parameter.annotation is EMPTY:
            continue
        kinds = _kinds(str(parameter.annotation), namespace)
        if kinds is not None:
            found[name] = kinds
    return signature, found


def _kinds(annotation: str, namespace: dict[str, Any]) -> tuple[Any, ...] | None:
    """Kinds that an annotation allows; None if one of them is not plain."""
    try:
        return _members(eval(annotation, dict(namespace)))
    except (NameError, TypeError, AttributeError, SyntaxError):  # a name that exists for the type checker only
        return None


def _members(annotation: Any) -> tuple[Any, ...] | None:
    if isinstance(annotation, TypeAliasType):
        return _members(annotation.__value__)
    if get_origin(annotation) is types.UnionType or str(get_origin(annotation)) == "typing.Union":
        parts = [_members(part) for part in get_args(annotation)]
        return None if None in parts else tuple(kind for part in parts for kind in part or ())
    if annotation in (None, type(None)):
        return (None,)
    if annotation in (float, int, str, bool):
        return (annotation,)
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return tuple({None if value is None else type(value) for value in get_args(annotation)})
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return (Mapping,)
    if origin in (collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable, list, tuple):
        return ((Iterable, _members(next(iter(get_args(annotation)), Any))),)
    return None


def _check(parameter: inspect.Parameter, value: Any, kinds: tuple[Any, ...]) -> None:
    name = parameter.name
    if name == "seed":
        _check_seed(value)
        return
    if name == "ci" and _is_kind(value, float):
        check_ci(value)
    if not any(_is_kind(value, kind) for kind in kinds):
        wanted = " or ".join(dict.fromkeys(_words(kind) for kind in kinds if kind is not None)) or "None"
        remedy = f"use {wanted} for {name}" + ("" if parameter.default is EMPTY else ", or leave it out")
        if wanted == WORDS[str] and hasattr(value, "__array__") and getattr(value, "ndim", 1) == 1:
            label = getattr(value, "name", None)
            column = label if isinstance(label, str) and label else name
            remedy += f"; values of rows are a column of the data, which is named: data[{column!r}] = ..., then "
            remedy += f"{name}={column!r}"
        raise ArgumentError(f"{name}={_short(value)}", f"{_what(value)} was given where {wanted} is needed", remedy)
    if int in kinds and isinstance(value, (int, np.integer)) and value > MOST:
        received = f"{name}={_short(value)}"
        raise ArgumentError(received, f"the largest number that is taken here is {MOST:,}", "use a smaller number")


def _check_seed(value: Any) -> None:
    whole = _is_kind(value, int) and 0 <= value < 2**63
    if not (whole or value is None or isinstance(value, np.random.Generator)):
        reason = "a seed is a whole number from 0 to 2^63 - 1"
        raise ArgumentError(f"seed={_short(value)}", reason, "use for example seed=1, or leave it out")


def _is_kind(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind in NUMBERS:
        return isinstance(value, NUMBERS[kind]) and (kind is bool or not isinstance(value, bool))
    if isinstance(kind, tuple):
        if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
            return False
        inner = kind[1]
        return inner is None or all(any(_is_kind(item, k) for k in inner) for item in list(value))
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    if isinstance(kind, tuple):
        inner = kind[1]
        names = {str: "names", float: "numbers", int: "whole numbers"}
        return f"a list of {names.get(inner[0], 'values') if inner else 'values'}"
    return "a mapping (a dict)" if kind is Mapping else WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _what(value: Any) -> str:
    if isinstance(value, (list, tuple)) and value:
        return f"a {type(value).__name__} that holds {_what(value[0])}"
    name = type(value).__name__
    return WORDS.get(type(value), "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}")


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def unknown_argument(door: Callable[..., Any], name: str, value: Any, of: tuple[Any, ...] = ()) -> ArgumentError:
    """Make the error for an argument that a function does not have, with the nearest that it has."""
    known = _names(inspect.signature(door))
    received = f"{_title(door, of)} with {name}={_short(value)}"
    if of and (lack := getattr(type(of[0]), "lacks", {}).get(f"{door.__name__}({name})")):
        return ArgumentError(received, lack.reason, lack.remedy, lack.see)
    return ArgumentError(received, f"it has no argument of this name.{closest(name, known)}", _listing(known))


def _misfit(
    door: Any, of: tuple[Any, ...], signature: inspect.Signature, named: Mapping[str, Any], problem: str
) -> ArgumentError:
    known = _names(signature)
    strange = [name for name in named if name not in known]
    if strange and "unexpected keyword" in problem:
        return unknown_argument(door, strange[0], named[strange[0]], of)
    return ArgumentError(f"a call of {_title(door, of)}", problem, _listing(known))


def _title(door: Any, of: tuple[Any, ...]) -> str:
    """The call as users write it: a method with the class of the object that it was called on."""
    own = "." in door.__qualname__ and door.__name__ != "__init__"
    if of and own and isinstance(getattr(type(of[0]), door.__name__, None), types.FunctionType):
        return f"{type(of[0]).__name__}.{door.__name__}()"
    return f"{door.__qualname__.removesuffix('.__init__')}()"


def _names(signature: inspect.Signature) -> list[str]:
    unnamed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = (p.name for p in signature.parameters.values() if p.kind not in unnamed)
    return [name for name in named if name != "self" and not name.startswith("_")]


def _listing(known: list[str]) -> str:
    return f"its arguments are {', '.join(known)}" if known else "it takes no arguments"


def arguments_of(door: Callable[..., Any]) -> list[str]:
    """Names of the arguments that a function or a constructor has."""
    return _names(inspect.signature(door))


ONE_NAME = "an argument has one name in all functions, and for this one it is another"


def refuse_arguments(
    what: str,
    given: Mapping[str, Any],
    slips: Mapping[str, str],
    why: str = ONE_NAME,
    see: str = SEE,
    known: Sequence[str] = (),
) -> None:
    """Refuse arguments that a callable does not have, with the name to use where a known other one was written.

    Parameters
    ----------
    what : str
        The callable, as users write it.
    given : mapping
        The arguments that it does not have.
    slips : mapping
        Known wrong name -> what to use.
    why, see : str
        The reason, and where to read more.
    known : sequence of str
        The arguments that it has.

    Raises
    ------
    SpecificationError
        For a name in ``slips``.
    ArgumentError
        For any other name; it is a TypeError, too.
    """
    for name, value in given.items():
        if name not in slips:
            reason = f"it has no argument of this name.{closest(name, known)}"
            raise ArgumentError(f"{what} with {name}={_short(value)}", reason, _listing(list(known)), see)
        raise SpecificationError(f"{what} with {name}={_short(value)}", why, f"use {slips[name]}", see)


def renamed[C: Callable[..., Any]](**names: str) -> Callable[[C], C]:
    """Decorate a function, or a class for its constructor, so that earlier names of arguments are refused.

    Parameters
    ----------
    **names : str
        Earlier name -> the name that the argument has.
    """

    def decorate(what: C) -> C:
        function: Any = vars(what)["__init__"] if isinstance(what, type) else what
        name = what.__name__

        @wraps(function)
        def checked(*args: Any, **given: Any) -> Any:
            refuse_arguments(name, {k: v for k, v in given.items() if k in names}, names)
            return function(*args, **given)

        if isinstance(what, type):
            setattr(what, "__init__", checked)  # noqa: B010
            return what
        checked.earlier_names = names  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return decorate
