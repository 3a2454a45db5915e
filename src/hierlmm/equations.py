"""The equations of a two-level model, as text, LaTeX and HTML, with symbols or with estimates.

level 1     y_ij = Σ_k β_ki x_ijk + e_ij,                 e_ij ~ N(0, σ²)
level 2     β_ki = β_k0 + Σ_m β_km w_im + b_ki,           b_i ~ N(0, D)
combined    y_ij = Σ_k (β_k0 + Σ_m β_km w_im + b_ki) x_ijk + e_ij
marginal    E(y_i) = X_i β,                               V_i = Z_i D Z_i' + σ² I
"""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass

import numpy as np

from hierlmm.design import Design
from hierlmm.errors import SpecificationError
from hierlmm.formula import variables_of
from hierlmm.frames import shorten
from hierlmm.notation import (
    EQUALS,
    SIMILAR,
    WIDTH,
    Addend,
    Equation,
    Markup,
    add_up,
    code,
    enumerate_words,
    fraction,
    function,
    integer,
    join,
    matrix,
    number,
    parenthesise,
    symbol,
    times,
    two_decimals,
    words,
)
from hierlmm.symbols import SIGMA2, Estimates, Symbols

__all__ = ["Equations", "Section", "equations"]

RESIDUAL = symbol("e", "ij")
IDENTITY = symbol("I")
BLANK = Markup(" ", r"\,", " ")
OTHER_ROW = Markup(",  j ≠ k", r",\quad j \neq k", ", &nbsp;j ≠ k")
SPELLED_OUT = 3  # with more random effects than this, Var(y) is given by its matrix only
SHOWN_MATRIX = 4
SHOWN_CORRELATIONS = 6


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the model: its heading, its equations, and a sentence on what lives there."""

    title: str
    equations: tuple[Equation, ...]
    note: Markup


@dataclass(frozen=True, repr=False)
class Equations:
    """The equations of a model; every equation has ``.text``, ``.latex`` and ``.html``.

    Attributes
    ----------
    level1 : Equation
        The subject's own regression.
    level2 : tuple of Equation
        One for each level-1 coefficient.
    random : tuple of Equation
        Distribution of b (and its covariance D), and last of e.
    combined : Equation
        Level 2 put into level 1.
    marginal : tuple of Equation
        Mean, variance and, where simple, covariance or correlation of two measurements of a subject; V_i.
    notes : tuple of Markup
        What lives in level 1, level 2, the combined and the marginal model, in words.
    estimator : str or None
        Where the estimates come from, if there are any.
    """

    level1: Equation
    level2: tuple[Equation, ...]
    random: tuple[Equation, ...]
    combined: Equation
    marginal: tuple[Equation, ...]
    notes: tuple[Markup, Markup, Markup, Markup]
    estimator: str | None = None

    @property
    def sections(self) -> tuple[Section, Section, Section, Section]:
        """Level 1, level 2, the combined and the marginal model."""
        return (
            Section("Level 1: within subject", (self.level1, self.random[-1]), self.notes[0]),
            Section("Level 2: between subjects", (*self.level2, *self.random[:-1]), self.notes[1]),
            Section("Combined model", (self.combined,), self.notes[2]),
            Section("Marginal model", self.marginal, self.notes[3]),
        )

    @property
    def text(self) -> str:
        """All parts as Unicode text; long equations wrap."""
        parts = [] if self.estimator is None else [f"Estimates: {self.estimator}"]
        for section in self.sections:
            lines = [equation.wrapped(WIDTH - 2) for equation in section.equations]
            lines.append(textwrap.fill(section.note.text, WIDTH - 2))
            parts.append(section.title + "\n" + textwrap.indent("\n".join(lines), "  "))
        return "\n\n".join(parts)

    @property
    def latex(self) -> str:
        r"""All parts as one ``aligned`` block, for ``$$ ... $$`` or ``\[ ... \]``."""
        rows = [[rf"& \textbf{{{s.title}}}", *(e.aligned() for e in s.equations)] for s in self.sections]
        body = " \\\\[1ex]\n".join(" \\\\\n".join(section) for section in rows)
        return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"

    @property
    def html(self) -> str:
        """All parts as HTML that needs no MathJax."""
        parts = [] if self.estimator is None else [f"<div>Estimates: {html.escape(self.estimator)}</div>"]
        for section in self.sections:
            lines = "".join(f'<div style="padding-left:1.5em">{e.html}</div>' for e in section.equations)
            note = f'<div style="padding-left:1.5em;opacity:0.7"><em>{section.note.html}</em></div>'
            title = f'<div style="margin-top:0.5em"><strong>{html.escape(section.title)}</strong></div>'
            parts.append(title + lines + note)
        return f'<div style="line-height:1.7">{"".join(parts)}</div>'

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex}\n$$"

    def _repr_html_(self) -> str:
        source = html.escape(self.latex, quote=False)
        return f"{self.html}<details><summary>LaTeX</summary><pre>{source}</pre></details>"


def equations(design: Design, estimates: Estimates | None = None) -> Equations:
    """Write down a model.

    Parameters
    ----------
    design : Design
        The model, with the names of its coefficients.
    estimates : Fit, optional
        Puts its ``beta``, ``D`` (``sd_b``, ``corr_b``) and ``sigma`` in the place of the symbols.

    Returns
    -------
    Equations

    Raises
    ------
    SpecificationError
        If the estimates belong to another model.
    """
    if estimates is not None:
        _check_estimates(design, estimates)
    s = Symbols(design, estimates)
    return Equations(
        level1=_level1(s),
        level2=tuple(_level2(s, k) for k in range(len(design.level1))),
        random=(*_random_effects(s), _residual(s)),
        combined=Equation(s.y(), EQUALS, add_up([*_predictor(s, random=True), Addend.of(RESIDUAL)])),
        marginal=tuple(_marginal(s)),
        notes=(
            _note_level1(design),
            _note_level2(s),
            words("Level 2 put into level 1: fixed effects, random effects b and residual e in one line."),
            words("Averaged over the random effects b: mean, variance and correlation of the data themselves."),
        ),
        estimator=getattr(estimates, "estimator", None),
    )


def _check_estimates(design: Design, estimates: Estimates) -> None:
    for what, known, wanted in (
        ("fixed effects", estimates.beta.index, design.coef),
        ("random effects", estimates.D.index, design.term),
    ):
        if sorted(known) != sorted(wanted):
            raise SpecificationError(
                f"estimates of the {what} {shorten(known) or '(none)'}",
                f"the model has the {what} {shorten(wanted) or '(none)'}",
                "pass a fit of the same model",
            )


def _level1(s: Symbols) -> Equation:
    addends = [Addend.of(times(s.beta_i(k), s.x(k))) for k in range(len(s.numbers))]
    return Equation(s.y(), EQUALS, add_up([*addends, *s.offsets(), Addend.of(RESIDUAL)]))


def _level2(s: Symbols, k: int) -> Equation:
    return Equation(s.beta_i(k), EQUALS, add_up(_explained(s, k, random=True)))


def _explained(s: Symbols, k: int, *, random: bool) -> list[Addend]:
    """What level-1 coefficient k is made of."""
    effects = [Addend.of(s.b(int(r))) for r in np.flatnonzero(s.design.term_level1 == k)] if random else []
    return [*(s.fixed(c) for c in s.members[k]), *effects]


def _predictor(s: Symbols, *, random: bool) -> list[Addend]:
    """Level 2 put into level 1: one addend for every level-1 coefficient, and the offsets."""
    addends = []
    for k in range(len(s.numbers)):
        inner, x = _explained(s, k, random=random), s.x(k)
        if len(inner) == 1:
            addends.append(Addend.of(times(inner[0].pieces[0], x), negative=inner[0].negative))
        elif inner:
            pieces = [piece for group in add_up(inner) for piece in group]
            pieces[0] = "(" + pieces[0]
            pieces[-1] = times(pieces[-1] + ")", x)
            addends.append(Addend(tuple(pieces)))
    return addends + s.offsets()


def _residual(s: Symbols) -> Equation:
    sd = [words(", sd ") + number(s.estimates.sigma)] if s.estimates is not None else []
    return Equation(RESIDUAL, SIMILAR, ((_normal(SIGMA2), *sd),))


def _random_effects(s: Symbols) -> list[Equation]:
    effects = [s.b(r) for r in range(len(s.design.term))]
    if len(effects) == 1:
        return [Equation(effects[0], SIMILAR, ((_normal(s.variance(0)) + _spread(s)[0],),))]
    first, *others = _spread(s)
    joint = (_normal(symbol("D")) + first, *others)
    return [
        Equation(parenthesise(join(effects, ", ")), SIMILAR, (joint,)),
        Equation(symbol("D"), EQUALS, ((_covariance_matrix(s),),)),
    ]


def _spread(s: Symbols) -> list[Markup]:
    """``, sd 1.80 and 0.18, corr −0.09``, in pieces; nothing without estimates."""
    if s.estimates is None:
        return [join([], "")]
    terms, sd = s.design.term, s.estimates.sd_b
    if s.design.covariance == "identity":
        return [words(", sd ") + number(float(sd[terms[0]])) + words(" each")]
    if s.design.covariance == "compound_symmetry":
        corr = float(s.estimates.corr_b[terms[1]][terms[0]])
        return [words(", sd ") + number(float(sd[terms[0]])) + words(" each,"), words(" corr ") + two_decimals(corr)]
    found = [words(", sd ") + enumerate_words([number(float(sd[t])) for t in terms], limit=len(terms))]
    pairs = [(r, c) for block in s.design.blocks for r in block for c in block if r < c]
    for r, c in pairs if len(pairs) <= SHOWN_CORRELATIONS else []:
        pair = words(" corr ")
        if len(terms) > 2:
            pair = words(" corr") + parenthesise(s.b(r) + ", " + s.b(c)) + BLANK
        found[-1] += ","
        found.append(pair + two_decimals(float(s.estimates.corr_b[terms[c]][terms[r]])))
    return found


def _covariance_matrix(s: Symbols) -> Markup:
    q = range(len(s.design.term))
    if s.design.covariance == "identity":
        return (s.variance(0) if s.estimates is None else number(s.covariance_value(0, 0))) + BLANK + IDENTITY
    if s.design.covariance == "diagonal":
        return function("diag", *(s.covariance_entry(r, r) for r in q))
    if len(q) <= SHOWN_MATRIX:
        return matrix([[s.covariance_entry(r, c) for c in q] for r in q])
    size = Markup(f"{len(q)} × {len(q)}", rf"{len(q)} \times {len(q)}", f"{len(q)} × {len(q)}")
    if s.design.covariance == "compound_symmetry":
        variance, covariance = s.covariance_entry(0, 0), s.covariance_entry(0, 1)
        return size + words(" with variance ") + variance + words(" and covariance ") + covariance
    return size + words(" with variances ") + enumerate_words([s.covariance_entry(r, r) for r in q])


def _marginal(s: Symbols) -> list[Equation]:
    q = len(s.design.term)
    mean = _predictor(s, random=False)
    if len(mean) == 1:
        mean = [a for k in range(len(s.numbers)) if s.x(k) is None for a in _explained(s, k, random=False)] or mean
    found = [Equation(function("E", s.y()), EQUALS, add_up(mean or [Addend.of(integer(0))]))]
    if q <= SPELLED_OUT:
        found.append(Equation(function("Var", s.y()), EQUALS, _total_variance(s)))
    if q == 1 and s.z(0) is None:
        found.append(Equation(function("Corr", s.y(), s.y("k")), EQUALS, ((*_exchangeable(s), OTHER_ROW),)))
    elif q <= 2:
        found.append(Equation(function("Cov", s.y(), s.y("k")), EQUALS, (*_covariance(s), (OTHER_ROW,))))
    if q > 1:
        Z = symbol("Z", "i")
        product = join([Z, symbol("D"), Z + Markup("ᵀ", r"^{\top}", "<sup>T</sup>")], BLANK)
        noise = s.residual_variance() + ("" if s.estimates is None else BLANK) + IDENTITY
        found.append(Equation(symbol("V", "i"), EQUALS, add_up([Addend.of(product), Addend.of(noise)])))
    return found


def _total_variance(s: Symbols) -> tuple[tuple[Markup, ...], ...]:
    q = len(s.design.term)
    addends = []
    for r in range(q):
        addends.append(s.covariance_addend(r, r, 1, s.z(r, power=2)))
        addends += [s.covariance_addend(r, c, 2, s.z(r), s.z(c)) for c in range(r + 1, q) if s.correlated(r, c)]
    groups = add_up([*addends, Addend.of(s.residual_variance())])
    if s.estimates is not None and q == 1 and s.z(0) is None:
        groups = (*groups, (" = " + number(s.covariance_value(0, 0) + s.estimates.sigma**2),))
    return groups


def _exchangeable(s: Symbols) -> list[Markup]:
    """Correlation of two rows of a subject when only the intercept varies."""
    if s.estimates is None:
        return [fraction(s.variance(0), s.variance(0) + " + " + SIGMA2)]
    variance, noise = s.covariance_value(0, 0), s.estimates.sigma**2
    written = fraction(number(variance), number(variance) + " + " + number(noise))
    return [written, " = " + two_decimals(variance / (variance + noise))]


def _covariance(s: Symbols) -> tuple[tuple[Markup, ...], ...]:
    """Covariance of two rows of a subject with one or two random effects."""
    q = len(s.design.term)
    addends = []
    for r in range(q):
        addends.append(s.covariance_addend(r, r, 1, s.z(r), s.z(r, "k")))
        for c in range(r + 1, q):
            if s.correlated(r, c):
                rows = ("k", "j") if s.z(r) is None else ("j", "k")
                crossed = [times(s.z(r, a), s.z(c, b)) for a, b in (rows, rows[::-1])]
                addends.append(s.covariance_addend(r, c, 1, parenthesise(join(crossed, " + "))))
    return add_up(addends)


def _normal(variance: Markup) -> Markup:
    return "N(0, " + variance + ")"


def _note_level1(design: Design) -> Markup:
    names = [code(v) for v in design.level1_variables()]
    if not names:
        return "Each subject's own mean of " + code(design.hierarchy.response) + "; its rows j vary around it."
    return "Each subject's own regression on " + enumerate_words(names) + ", over its rows j."


def _note_level2(s: Symbols) -> Markup:
    """Which covariates explain what, what varies, and what does not."""
    explained: dict[tuple[str, ...], list[Markup]] = {}
    common: list[Markup] = []
    columns = list(s.design.frame.columns)
    for k, members in enumerate(s.members):
        factors = [factor for c in members for factor, _ in s.level2_parts[c]]
        names = tuple(dict.fromkeys(v for f in factors for v in variables_of(f, columns)))
        if names:
            explained.setdefault(names, []).append(s.beta_i(k))
        elif k not in s.design.term_level1:
            common.append(s.beta_i(k))
    sentences = [
        enumerate_words([code(n) for n in names])
        + (" explains " if len(names) == 1 else " explain ")
        + enumerate_words(coefficients)
        for names, coefficients in explained.items()
    ]
    effects = [s.b(r) for r in range(len(s.design.term))]
    own = " is subject i's own deviation" if len(effects) == 1 else " are subject i's own deviations"
    sentences.append(enumerate_words(effects) + own)
    if common:
        sentences.append(
            enumerate_words(common) + (" is" if len(common) == 1 else " are") + " the same for all subjects"
        )
    return join(sentences, "; ") + "."
