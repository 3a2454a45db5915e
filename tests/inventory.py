"""Every public callable: the names of `hierlmm` and `hierlmm.plots`, their methods, and those of what they return."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from functools import cached_property

import hierlmm as hl
from hierlmm import plots

# Parts of a design or a kernel that a fit gives access to: made by the package, not by users.
INSIDE = {"Design", "Hierarchy", "NewData", "Markov", "ResolvedPriors", "ResidualEstimate", "EcdfBand"}
INSIDE |= {"GeneralisedCriterion", "GeneralisedSolution", "GeneralisedEstimate", "Scaling", "Evaluation", "Marginal"}


def known_classes():
    """Classes of the package by name."""
    found = {}
    for module in pkgutil.walk_packages(hl.__path__, "hierlmm."):
        if not module.name.endswith("__main__"):
            loaded = importlib.import_module(module.name)
            found |= {n: c for n, c in vars(loaded).items() if inspect.isclass(c) and c.__module__ == loaded.__name__}
    return found


def public_callables():
    """Name -> callable and the class it was reached by: functions, constructors and methods that a user can reach."""
    classes = known_classes()
    public = [getattr(hl, n) for n in hl.__all__ if n != "__version__"] + [getattr(plots, n) for n in plots.__all__]
    waiting = [item for item in public if not inspect.ismodule(item)]
    found, seen = {}, set()

    def returned(function):
        annotation = str(getattr(function, "__annotations__", {}).get("return", ""))
        waiting.extend(classes[w] for w in re.findall(r"\w+", annotation) if w in classes and w not in INSIDE)

    while waiting:
        item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        found[f"{item.__module__}.{item.__name__}"] = (item, None)
        if not inspect.isclass(item):
            returned(item)
            continue
        for name, member in inspect.getmembers(item):
            raw = inspect.getattr_static(item, name)
            if name.startswith("_") or isinstance(raw, cached_property):  # from Python 3.13 on a routine to inspect
                continue
            if isinstance(raw, property):
                returned(raw.fget)
            elif inspect.isroutine(member) and str(getattr(member, "__module__", "")).startswith("hierlmm"):
                owner = next(c for c in item.__mro__ if name in vars(c))
                found[f"{owner.__module__}.{owner.__name__}.{name}"] = (member, item)
                returned(member)
    return dict(sorted(found.items()))


def arguments_of(item):
    """Parameters of a callable by name, without ``self``."""
    try:
        signature = inspect.signature(item)
    except (TypeError, ValueError):
        return {}
    return {n: p for n, p in signature.parameters.items() if n not in ("self", "cls")}


def documented(text, section="Parameters"):
    """Names in a section of a numpydoc docstring."""
    found = re.search(rf"^{section}\n-+\n(.*?)(?=^\S[^\n]*\n---|\Z)", inspect.cleandoc(text or ""), re.M | re.S)
    if not found:
        return set()
    heads = re.findall(r"^(\S.*?)(?: : .*)?$", found[1], re.M)
    return {name.strip(" *`") for head in heads for name in head.split(",")}


def docstrings(item, owner):
    """The docstrings that describe its arguments: its own, and those of what it overrides or inherits."""
    if inspect.isclass(item):
        return [c.__doc__ for c in item.__mro__ if c.__module__.startswith("hierlmm")]
    if owner is None:
        return [item.__doc__]
    name = item.__name__
    return [getattr(vars(c)[name], "__doc__", None) for c in owner.__mro__ if name in vars(c)]


def undescribed(item, owner):
    """Arguments that no Parameters section names; ``**unknown`` is there to be refused.

    What functions return, and users do not make, has a section Attributes instead.
    """
    texts = docstrings(item, owner)
    if inspect.isclass(item) and not documented(texts[0]) and any(documented(text, "Attributes") for text in texts):
        return set()
    return set(arguments_of(item)) - {"unknown"} - set().union(*map(documented, texts))
