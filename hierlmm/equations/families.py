"""What a generalised model says of a row: its distribution, the link of its mean, and that mean averaged over subjects.

With ``η = x'β + z'b`` and ``v = z'Dz``, the mean over subjects is ``E_b g⁻¹(η)``: exp(x'β + v / 2) with the log link,
Φ(x'β / √(1 + v)) with probit, (x'β)² + v with the square root; no other link here has a closed form.
"""

from __future__ import annotations

from collections.abc import Sequence

from hierlmm.equations import notation as m
from hierlmm.equations.notation import EQUALS, SIMILAR, Addend, Equation, Markup
from hierlmm.equations.symbols import SIGMA2, Symbols
from hierlmm.families.family import Family

MEAN, ETA, SPREAD, THRESHOLD = m.symbol("μ", "ij"), m.symbol("η", "ij"), m.symbol("v", "ij"), m.symbol("τ", "k")
OVER_SUBJECTS = Markup("E_b ", r"\mathrm{E}_{b}\, ", "E<sub>b</sub> ")
QUADRATIC = m.join([m.symbol("z", "ij") + m.TRANSPOSED, m.symbol("D"), m.symbol("z", "ij")], m.BLANK)
NAMES = {
    "gaussian": "N",
    "poisson": "Poisson",
    "negative_binomial": "NegBinomial",
    "bernoulli": "Bernoulli",
    "binomial": "Binomial",
    "gamma": "Gamma",
    "beta": "Beta",
    "student_t": "t",
}
OPEN, CLOSE = Markup("(", "(", "("), Markup(")", ")", ")")
INVERSES: dict[str, tuple[Markup, Markup]] = {
    "log": (Markup("exp(", r"\exp(", "exp("), CLOSE),
    "logit": (Markup("logit⁻¹(", r"\mathrm{logit}^{-1}(", "logit<sup>−1</sup>("), CLOSE),
    "probit": (Markup("Φ(", r"\Phi(", "Φ("), CLOSE),
    "cloglog": (Markup("cloglog⁻¹(", r"\mathrm{cloglog}^{-1}(", "cloglog<sup>−1</sup>("), CLOSE),
    "inverse": (Markup("1 / (", "1 / (", "1 / ("), CLOSE),
    "sqrt": (OPEN, Markup(")²", ")^{2}", ")<sup>2</sup>")),
}
"""Link -> what stands before and after a linear predictor to make a mean of it."""
CLOSED = ("log", "probit", "sqrt")
"""Links whose mean over subjects has a closed form with v."""


def predictor(family: Family) -> Markup:
    """The link of the mean: ``log μᵢⱼ``; of an ordinal response ``ηᵢⱼ``."""
    link = family.link
    if family.name == "ordinal":
        return ETA
    if link == "identity":
        return MEAN
    if link == "sqrt":
        return Markup("√", "", "√") + Markup(MEAN.text, rf"\sqrt{{{MEAN.latex}}}", MEAN.html)
    if link == "inverse":
        return "1 / " + MEAN
    return Markup(f"{link} ", r"\log " if link == "log" else rf"\mathrm{{{link}}}\, ", f"{link} ") + MEAN


def response(s: Symbols) -> Equation:
    """Distribution of a row given its mean, with its dispersion as a name or as an estimate."""
    family, design = s.design.family, s.design
    if family.name == "ordinal":
        groups = _mean(family.link, [Addend.of(THRESHOLD + m.LESS + ETA)])
        return Equation(_at_most_k(s), EQUALS, groups)
    own = None if s.estimates is None else getattr(s.estimates, "dispersion", None)
    arguments = [MEAN] if design.outcome.trials is None else [m.name_symbol(design.outcome.trials, "ij"), MEAN]
    for name in family.dispersion:
        written = _dispersion(family, name)
        arguments.append(written if own is None else m.number(float(own[name]) ** (2 if written is SIGMA2 else 1)))
    name = NAMES.get(family.name, family.title or family.name)
    return Equation(s.y(), SIMILAR, ((m.function(name, *arguments),),))


def variance(s: Symbols) -> Equation:
    """Variance of a row as a function of its mean, up to a scale, of a model that says no more of it."""
    family, counted = s.design.family, s.design.outcome.trials
    left_over = MEAN + Markup("(1 − ", "(1 - ", "(1 − ") + MEAN + CLOSE
    square = MEAN + Markup("²", "^{2}", "<sup>2</sup>")
    of_mean = {
        "poisson": [MEAN],
        "negative_binomial": [OPEN + MEAN + " + " + square + " / " + m.code("shape") + CLOSE],
        "bernoulli": [left_over],
        "beta": [left_over],
        "binomial": [left_over] if counted is None else [m.name_symbol(counted, "ij"), left_over],
        "gamma": [square],
        "gaussian": [],
    }.get(family.name, [m.function("v", MEAN)])
    return Equation(m.function("Var", s.y()), EQUALS, ((m.join([m.code("scale"), *of_mean], m.DOT),),))


def _dispersion(family: Family, name: str) -> Markup:
    if name != "sigma":
        return m.code(name)
    return SIGMA2 if family.name == "gaussian" else m.symbol("σ")


def _at_most_k(s: Symbols) -> Markup:
    return m.function("P", s.y() + Markup(" ≤ k", r" \leq k", " ≤ k"))


def _mean(link: str, addends: Sequence[Addend], before: Markup | str = "") -> tuple[tuple[Markup, ...], ...]:
    """g⁻¹ of a sum, in groups between which a line may break."""
    left, right = INVERSES[link]
    return _around(before + left if before else left, m.add_up(addends), right)


def _around(
    left: Markup | str, groups: tuple[tuple[Markup, ...], ...], right: Markup | str
) -> tuple[tuple[Markup, ...], ...]:
    """A text before the first piece of groups, and one after the last."""
    pieces = [list(group) for group in groups]
    pieces[0][0] = left + pieces[0][0]
    pieces[-1][-1] = pieces[-1][-1] + right
    return tuple(tuple(group) for group in pieces)


def needs_variance(family: Family) -> bool:
    """Whether the mean over subjects is written with ``v = z'Dz``."""
    return family.link in CLOSED and family.name != "ordinal"


def averaged(s: Symbols, whole: Sequence[Addend], fixed: Sequence[Addend]) -> Equation:
    """The mean over subjects: as an integral over b, and in closed form where there is one.

    Parameters
    ----------
    s : Symbols
    whole, fixed : sequence of Addend
        Linear predictor with the random effects, and at b = 0.
    """
    family, trials = s.design.family, s.design.outcome.trials
    fixed = fixed or [Addend.of(m.integer(0))]
    if family.name == "ordinal":
        inner = _around("(", m.add_up(whole), ")")
        left, right = INVERSES[family.link]
        groups = _around(OVER_SUBJECTS + left + THRESHOLD + m.LESS, inner, right)
        return Equation(_at_most_k(s), EQUALS, groups)
    counted = m.join([], "") if trials is None else m.name_symbol(trials, "ij") + m.DOT
    expected = m.function("E", s.y())
    if family.link == "identity":
        return Equation(expected, EQUALS, m.add_up(fixed))
    groups = _mean(family.link, whole, counted + OVER_SUBJECTS)
    if not needs_variance(family):
        return Equation(expected, EQUALS, groups)
    left, right = INVERSES[family.link]
    if family.link == "log":
        closed = _around(left, m.add_up([*fixed, Addend.of(m.half(SPREAD))]), right)
    elif family.link == "probit":
        root = Markup("√(1 + " + SPREAD.text + ")", rf"\sqrt{{1 + {SPREAD.latex}}}", f"√(1 + {SPREAD.html})")
        closed = _around(left + "(", m.add_up(fixed), ") / " + root + right)
    else:
        closed = _around(left, m.add_up(fixed), right + (" + " + SPREAD))
    return Equation(expected, EQUALS, (*groups, *_around(" = " + counted, closed, "")))


def note_response(family: Family) -> Markup:
    """Why there is no residual."""
    if family.name == "ordinal":
        return m.words(" Categories are cut from a line at the thresholds 0 = τ₁ < τ₂ < …; there is no residual e.")
    if family.name == "gaussian":
        return m.words(" A row varies around its mean with SD σ.")
    if family.name == "student_t":
        return m.words(" A row varies around its mean with scale σ; nu says how heavy the tails are.")
    own = "".join(f" and the {name}" for name in family.dispersion)
    return m.words(f" The variance of a row follows from its mean{own}: there is no residual e.")


def notes(family: Family) -> tuple[Markup, Markup]:
    """Sentences on the combined and on the marginal model."""
    combined = m.words("Level 2 put into level 1: fixed effects and random effects b, on the scale of the link.")
    if family.link == "identity" and family.name != "ordinal":
        return combined, m.words(
            "Averaged over the random effects b: coefficients of the mean over subjects are the same."
        )
    about = "Averaged over the random effects b: the mean over subjects is not that of the subject at b = 0"
    if family.link == "log":
        return combined, m.words(f"{about}, but exp(v / 2) times as large.")
    if needs_variance(family):
        return combined, m.words(f"{about}.")
    remedy = "no closed form; population-averaged coefficients: fit.marginal_coefficients()."
    if family.name == "ordinal":
        remedy = "no closed form; shares of all subjects: fit.probabilities(level='marginal')."
    return combined, m.words(f"{about}; {remedy}")
