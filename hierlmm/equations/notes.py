"""What lives in level 1, in level 2 and in the covariance of a model, in words."""

from __future__ import annotations

from hierlmm.design.design import Design
from hierlmm.design.formula import variables_of
from hierlmm.equations import notation as m
from hierlmm.equations.notation import Markup
from hierlmm.equations.residual_symbols import variance_words
from hierlmm.equations.symbols import Symbols


def note_covariance(design: Design) -> Markup:
    """How the rows of a subject of a marginal model are correlated."""
    says = _structure_words(design)
    if not says:
        return m.words("Rows of a subject are independent: an ordinary regression.")
    return m.words("Rows of a subject are ") + says + "; there are no random effects."


def note_level1(design: Design) -> Markup:
    """What each subject has of its own."""
    names = [m.code(v) for v in design.level1_variables()]
    if not names:
        return "Each subject's own mean of " + m.code(design.hierarchy.response) + "; its rows j vary around it."
    return "Each subject's own regression on " + m.enumerate_words(names) + ", over its rows j."


def note_residual(design: Design) -> Markup:
    """What the structure of the residuals says, as a further sentence."""
    says = _structure_words(design)
    return " Residuals of a subject are " + says + "." if says else m.words("")


def _structure_words(design: Design) -> Markup | None:
    parts = []
    if design.residual is not None:
        parts.append(design.residual.words())
    if design.residual_variance is not None:
        spec = design.residual_variance
        parts.append(variance_words(spec) if parts else variance_words(spec).replace("their SD", "independent; the SD"))
    return m.words(", and ".join(parts)) if parts else None


def note_level2(s: Symbols) -> Markup:
    """Which covariates explain what, what varies, and what does not."""
    explained: dict[tuple[str, ...], list[Markup]] = {}
    common: list[Markup] = []
    columns = list(s.design.frame.columns)
    for k, members in enumerate(s.members):
        factors = [factor for c in members for factor, _ in s.level2_parts[c]]
        names = tuple(dict.fromkeys(v for f in factors for v in variables_of(f, columns)))
        if names:
            explained.setdefault(names, []).append(s.beta_i(k))
        elif k not in s.design.own_level1:
            common.append(s.beta_i(k))
    sentences = []
    for names, coefficients in explained.items():
        verb = " explains " if len(names) == 1 else " explain "
        sentences.append(m.enumerate_words(list(map(m.code, names))) + verb + m.enumerate_words(coefficients))
    effects = [s.b(r) for r in range(s.q)]
    own = " is subject i's own deviation" if len(effects) == 1 else " are subject i's own deviations"
    by = " with a covariance of its own for each " + m.code(s.design.group) if s.design.group else ""
    sentences.append(m.enumerate_words(effects) + own + by)
    if common:
        verb = " is" if len(common) == 1 else " are"
        sentences.append(m.enumerate_words(common) + verb + " the same for all subjects")
    return m.join(sentences, "; ") + "."
