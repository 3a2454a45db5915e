"""What pictures look like: letters, greys and colours from matplotlib's settings, and four ready-made styles.

Colour is for estimators, grey for data, the ink of the text for what all share (a population line, a pooled fit).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from hierlmm.errors import SpecificationError, closest
from hierlmm.options import choose

# Okabe and Ito (2008): distinct under every common colour-vision deficiency. The seventh colour is that of the text.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DARK = ("#56B4E9", "#F5824A", "#2FC79A", "#E39CC4", "#F0C04A", "#A7C8F2")
ESTIMATORS = ("REML", "NUTS", "ML", "GEE", "Bambi")
"""Their colours are the first of the palette, in this order."""
SEE = "docs, page 'Pictures'"
GRID = 0.14


@dataclass(frozen=True)
class Theme:
    """Colours and size of the letters; everything else follows from them."""

    ink: str
    paper: str
    size: float

    @property
    def scale(self) -> float:
        """Size of the letters relative to matplotlib's own."""
        return self.size / 10.0

    @property
    def dark(self) -> bool:
        """Whether the paper is darker than the ink."""
        return _lightness(self.paper) < _lightness(self.ink)

    @property
    def palette(self) -> tuple[str, ...]:
        """Seven colours that can be told apart on this paper."""
        return (*(DARK if self.dark else LIGHT), self.ink)

    @property
    def grey(self) -> str:
        """Grey of lines that measure or belong to data."""
        return self.mix(0.5)

    @property
    def data(self) -> str:
        """Grey of the points of data."""
        return self.mix(0.72)

    def mix(self, share: float) -> str:
        """Ink thinned with paper: 1 is ink, 0 is paper."""
        return blend(self.paper, self.ink, share)

    def colour_of(self, estimator: str) -> str:
        """The colour that an estimator has in every picture."""
        return self.palette[ESTIMATORS.index(estimator) if estimator in ESTIMATORS else 5]

    def beside(self, colour: str) -> str:
        """A colour that stands out beside this one."""
        return self.palette[0 if colour == self.palette[1] else 1]

    def colours_of(self, estimators: Sequence[str]) -> list[str]:
        """Colours of fits: the own one for the first of an estimator, for others those of no estimator first."""
        taken: list[str] = []
        wanted = {name: self.colour_of(name) for name in estimators}
        free = dict.fromkeys((*self.palette[len(ESTIMATORS) :], *self.palette))
        spare = [c for c in free if c not in wanted.values()]
        for k, name in enumerate(estimators):
            own = wanted[name]
            if own in taken:
                own = spare.pop(0) if spare else self.palette[k % len(self.palette)]
            taken.append(own)
        return taken


def matplotlib_settings(*, default: bool = False) -> Any:
    """``matplotlib.rcParams``, or those that matplotlib comes with."""
    import matplotlib

    return matplotlib.rcParamsDefault if default else matplotlib.rcParams


def theme() -> Theme:
    """What matplotlib is set to now; plotly and bokeh follow it."""
    from matplotlib.colors import to_hex, to_rgba

    now = matplotlib_settings()
    papers = [now["axes.facecolor"], now["figure.facecolor"], "white"]
    paper = next(p for p in papers if to_rgba(p)[3] > 0.5)
    return Theme(to_hex(now["text.color"]), to_hex(paper), float(now["font.size"]))


def blend(start: str, end: str, share: float) -> str:
    """A colour on the way from one to another."""
    a, b = (_rgb(c) for c in (start, end))
    return "#" + "".join(f"{round(255 * (u + (v - u) * share)):02x}" for u, v in zip(a, b, strict=True))


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def _lightness(colour: str) -> float:
    red, green, blue = _rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def axes_settings(ink: str, paper: str, size: float) -> dict[str, Any]:
    """Spines below and on the left only, and a light grid behind the marks."""
    own = Theme(ink, paper, size)
    line = 0.7 * own.scale
    # The box of a number at the lower end of the left axis reaches 0.7 letters below it, that of a number at the left
    # end of the lower axis begins a tick and a pad below: they grow with the letters, or the two meet in the corner.
    ticks = {f"{axis}tick.major.{part}": 0.35 * size for axis in "xy" for part in ("size", "pad")}
    ticks["xtick.major.pad"] = 0.5 * size
    return {
        **ticks,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": own.mix(0.45),
        "axes.linewidth": line,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": own.mix(GRID),
        "grid.linewidth": line,
        "xtick.color": own.mix(0.45),
        "ytick.color": own.mix(0.45),
        "xtick.labelcolor": own.mix(0.85),
        "ytick.labelcolor": own.mix(0.85),
        "xtick.major.width": line,
        "ytick.major.width": line,
        "axes.titlesize": "medium",
        "figure.titlesize": "large",
        "axes.labelsize": "medium",
        "legend.fontsize": "medium",
        "legend.frameon": False,
    }


@contextmanager
def quiet_axes() -> Iterator[None]:
    """`axes_settings` where matplotlib is left as it comes: a user's own settings and styles win.

    A backend is loaded with the first figure. That of a notebook turns the interactive mode on, by which plain figures
    are shown as well: it stays as it was left.
    """
    import matplotlib

    now, current, default = theme(), matplotlib_settings(), matplotlib_settings(default=True)
    wanted = axes_settings(now.ink, now.paper, now.size)
    # A dark style sheet sets the colour of spines to that of the text, and that is an own setting, too.
    own: Any = {key: value for key, value in wanted.items() if current[key] == default[key]}
    with matplotlib.rc_context(own):
        try:
            yield
        finally:
            interactive = matplotlib.is_interactive()
    matplotlib.interactive(interactive)


type StyleName = Literal["lecture", "paper", "notebook", "dark"]
STYLES: dict[str, tuple[str, str, float, float, float]] = {
    "paper": ("#000000", "#ffffff", 9.0, 100.0, 300.0),
    "notebook": ("#1a1a1a", "#ffffff", 10.5, 100.0, 150.0),
    "lecture": ("#000000", "#ffffff", 20.0, 75.0, 150.0),
    "dark": ("#e6e6e6", "#15181c", 11.0, 100.0, 150.0),
}
"""Colours of ink and paper, points of the letters, dots per inch on the screen and in a file."""


class style:
    """Set how pictures look, from here on, or inside a ``with``.

    Everything follows from the size of the letters and the colours of text and paper: lines, points, margins, greys,
    how titles are broken. matplotlib's other pictures (ArviZ's, your own) get the same letters and colours; plotly and
    bokeh follow. Without a call the pictures take what matplotlib is set to.

    Parameters
    ----------
    name : {"paper", "notebook", "lecture", "dark"}
        ``"paper"``: letters of 9 points, 300 dots per inch in files. ``"notebook"``: 10.5 points. ``"lecture"``: 20
        points, for a projector. ``"dark"``: light letters on a dark ground.
    **settings
        Further settings of matplotlib, with ``_`` for the dots: ``font_size=14``, ``figure_dpi=120``.

    Raises
    ------
    SpecificationError
        If there is no such style, or matplotlib has no such setting.

    Examples
    --------
    >>> import hierlmm as hl
    >>> with hl.style("lecture"):
    ...     pass  # pictures made here have large letters
    """

    def __init__(self, name: StyleName, **settings: Any) -> None:
        choose("style", name, tuple(STYLES), SEE)
        self.name = name
        self._before = dict(matplotlib_settings())
        matplotlib_settings().update(_settings(name, settings))

    def __enter__(self) -> style:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def undo(self) -> None:
        """Set matplotlib back to what it was before."""
        backend = "backend"  # a backend that was chosen meanwhile stays
        matplotlib_settings().update({key: value for key, value in self._before.items() if key != backend})

    def __repr__(self) -> str:
        return f"hl.style({self.name!r})"


def _settings(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Settings of matplotlib for a style, and those that were given by name."""
    from matplotlib.rcsetup import cycler

    known = {key.replace(".", "_"): key for key in matplotlib_settings(default=True)}
    for key in given:
        if key not in known:
            reason = f"matplotlib has no setting of this name.{closest(key, known)}"
            raise SpecificationError(f"style({name!r}, {key}=...)", reason, "use for example font_size=14", SEE)
    own = {known[key]: value for key, value in given.items()}
    ink, paper, size, screen, file = STYLES[name]
    ink, paper = own.get("text.color", ink), own.get("axes.facecolor", paper)
    size = float(own.get("font.size", size))
    return {
        **axes_settings(ink, paper, size),
        "font.size": size,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.titlecolor": ink,
        "axes.facecolor": paper,
        "figure.facecolor": paper,
        "savefig.facecolor": paper,
        "legend.labelcolor": ink,
        "figure.dpi": screen,
        "savefig.dpi": file,
        "lines.linewidth": 1.5 * size / 10.0,
        "lines.markersize": 6.0 * size / 10.0,
        "axes.prop_cycle": cycler(color=Theme(ink, paper, size).palette),
        **own,
    }
