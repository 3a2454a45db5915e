"""Arguments under a name that they do not have here: refused, with the name to use.

A concept has one name in all public functions (docs, page 'Arguments'). Who writes an earlier name, or that of the
other kind of model, is told which one to use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from hierlmm.errors import ArgumentError, SpecificationError

__all__ = ["refuse_arguments", "renamed"]

ONE_NAME = "an argument has one name in all functions, and for this one it is another"


def refuse_arguments(
    what: str,
    given: Mapping[str, Any],
    slips: Mapping[str, str],
    why: str = ONE_NAME,
    see: str = "docs, page 'Arguments'",
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

    Raises
    ------
    SpecificationError
        For a name in ``slips``.
    ArgumentError
        For any other name; it is a TypeError, too.
    """
    for name, value in given.items():
        if name not in slips:
            raise ArgumentError(
                f"{what} with {name}={value!r}",
                f"it got an unexpected keyword argument {name!r}",
                f"see help(hl.{what}) for its arguments",
                see,
            )
        raise SpecificationError(f"{what} with {name}={value!r}", why, f"use {slips[name]}", see)


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
            earlier = {k: v for k, v in given.items() if k in names}
            refuse_arguments(name, earlier, names)
            return function(*args, **given)

        if isinstance(what, type):
            setattr(what, "__init__", checked)  # noqa: B010
            return what
        checked.earlier_names = names  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return decorate
