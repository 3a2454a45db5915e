"""What every plot takes besides what it draws: axes, a size, a title, a backend."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypedDict, Unpack

from hierlmm.errors import ArgumentError, SpecificationError

SEE = "docs, page 'Pictures'"
DPI = 100


class Figure(TypedDict, total=False):
    """Arguments that all plots share, as `pictured` explains them."""

    ax: Any
    figsize: Sequence[float] | None
    title: str | None
    backend: str | None
    figure_kwargs: Mapping[str, Any] | None


PARAMETERS = """\
ax : matplotlib.axes.Axes, optional
    Draw into these axes, where the picture has one panel; of matplotlib only.
figsize : (width, height), optional
    Inches. By default from the number of panels and the size of the letters.
title : str, optional
    In place of the title that says what is seen; ``""`` for none.
backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
    ArviZ's default otherwise.
figure_kwargs : mapping, optional
    More options of the backend's figure, passed to ArviZ."""
KINDS = {"ax": "Any", "figsize": "Sequence[float] | None", "title": "str | None", "backend": "str | None"}
KINDS["figure_kwargs"] = "Mapping[str, Any] | None"
PLACE, NAMED = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
SHARED = [inspect.Parameter(name, NAMED, default=None, annotation=kind) for name, kind in KINDS.items()]


def pictured[F: Callable[..., Any]](plot: F) -> F:
    """Write the shared arguments out in the signature and the docstring of a plot, which takes them as ``**figure``.

    Type checkers know them from ``**figure: Unpack[Figure]``.
    """
    return written_out(plot, (), plot.__doc__ or "")


def written_out[F: Callable[..., Any]](plot: F, more: Sequence[inspect.Parameter], doc: str) -> F:
    """`pictured` with more arguments, which the plot gets with their defaults; ``doc`` explains them."""
    signature = inspect.signature(plot)
    *own, last = signature.parameters.values()
    if last.kind is not last.VAR_KEYWORD:
        raise TypeError(f"{plot.__name__} takes no **figure")
    defaults = {p.name: p.default for p in more}

    @wraps(plot)
    def wrapper(*args: Any, **named: Any) -> Any:
        return plot(*args, **(defaults | named))

    wrapper.__signature__ = signature.replace(parameters=[*own, *more, *SHARED])  # type: ignore[attr-defined]
    wrapper.__doc__ = _documented(doc)
    return wrapper  # type: ignore[return-value]


def as_verb[F: Callable[..., Any]](
    plot: F, *leading: str, chosen: Callable[..., Any] | None = None, choice: str = "", name: str = ""
) -> F:
    """A plot as a method of what is its first argument, with the plot's own signature and docstring.

    Parameters
    ----------
    plot : callable
    *leading : str
        Arguments that may be given by position.
    chosen : callable, optional
        What is drawn of ``self``, and of an argument that the method has beside those of the plot.
    choice : str
        Name and docstring of that argument.
    name : str
        Name of the method, where it is another than that of the plot.
    """
    first, *others = inspect.signature(plot).parameters.values()
    more = [choice.partition(" : ")[0]] if choice else []
    names = [*more, *leading]

    @wraps(plot)
    def method(*args: Any, **named: Any) -> Any:
        self, *given = args or (None,)
        named |= dict(zip(names, given, strict=False))
        asked = [named.pop(name, None) for name in more]
        return plot(chosen(self, *asked) if chosen else self, **named)

    own = [inspect.Parameter("self", PLACE)]
    own += [inspect.Parameter(name, PLACE, default=None, annotation="str | None") for name in more]
    by_name = {p.name: p for p in others}
    own += [by_name.pop(name).replace(kind=PLACE) for name in leading]
    method.__signature__ = inspect.Signature([*own, *by_name.values()])  # type: ignore[attr-defined]
    entry = rf"^[*]*{re.escape(first.name)}(?: :.*)?\n(?:    .*\n)*"
    doc = inspect.cleandoc(plot.__doc__ or "")
    method.__doc__ = re.sub(entry, lambda _: choice and f"{choice}\n", doc, count=1, flags=re.MULTILINE)
    method.__name__ = name or plot.__name__
    return method  # type: ignore[return-value]


def _documented(doc: str) -> str:
    """The docstring with the shared arguments as the last of its parameters."""
    doc = inspect.cleandoc(doc)
    if "\nParameters\n-----" not in doc:
        head, mark, tail = doc.partition("\nReturns\n-----")
        return f"{head.rstrip()}\n\nParameters\n----------\n{PARAMETERS}\n\n{mark.lstrip()}{tail}"
    head, mark, tail = doc.partition("\nParameters\n----------\n")
    own, end, rest = tail.partition("\n\n")
    return f"{head}{mark}{own}\n{PARAMETERS}{end}{rest}"


ONE_PANEL = "choose what makes one panel (parameters=, terms=, by=[], subjects=[...], at=...)"


def check_figure(figure: Figure, backend: str, n_panels: int, one: str = ONE_PANEL) -> None:
    """Refuse what cannot be honoured: axes for several panels or of another backend, no size.

    ``one`` says how to ask for one panel; empty where nothing makes one.

    Raises
    ------
    SpecificationError, ArgumentError
    """
    ax, size = figure.get("ax"), figure.get("figsize")
    if size is not None and (len(size) != 2 or not all(0.0 < float(v) < 1000.0 for v in size)):
        received, reason = f"figsize={tuple(size)!r}", "a figure has a width and a height in inches"
        raise SpecificationError(received, reason, "use for example figsize=(9, 4)", SEE)
    if ax is None:
        return
    from matplotlib.axes import Axes

    if backend != "matplotlib":
        received, reason = f"ax= with backend={backend!r}", "axes are of matplotlib"
        raise SpecificationError(received, reason, "leave ax or backend out", SEE)
    if not isinstance(ax, Axes):
        received, reason = f"ax={type(ax).__name__}", "it is not an Axes of matplotlib"
        raise ArgumentError(received, reason, "use for example figure, ax = plt.subplots()", SEE)
    given = [name for name in ("figsize", "figure_kwargs") if figure.get(name) is not None]
    if given:
        received, reason = f"ax= with {given[0]}=", "the figure of these axes is there already"
        raise SpecificationError(received, reason, f"leave {given[0]} out, and give it to plt.subplots()", SEE)
    if n_panels > 1:
        received, reason = f"ax= for a picture of {n_panels} panels", "axes hold one panel"
        raise SpecificationError(received, reason, ", or ".join(filter(None, ("leave ax out", one))), SEE)


def figure_options(backend: str, size: Sequence[float], figure: Figure, **more: Any) -> dict[str, Any]:
    """Options of the backend's figure, which has this size in inches unless the user gave another."""
    given_size = figure.get("figsize")
    size = size if given_size is None else [float(v) for v in given_size]
    options: dict[str, Any] = {"figsize": (size[0] * DPI, size[1] * DPI), "figsize_units": "dots"}
    if backend == "matplotlib":
        # Constrained layout keeps titles, labels and the legend inside the figure, also without bbox_inches="tight".
        options = {"figsize": tuple(size), "figsize_units": "inches", "layout": "constrained"}
    given = dict(figure.get("figure_kwargs") or {})
    if "figsize" in given and backend != "matplotlib":
        given.setdefault("figsize_units", "inches")
    options |= more | given
    if backend != "matplotlib" and options["figsize_units"] == "inches":
        options |= {"figsize": tuple(DPI * v for v in options["figsize"]), "figsize_units": "dots"}
    return options


__all__ = ["Figure", "Unpack", "check_figure", "figure_options", "pictured", "written_out"]
