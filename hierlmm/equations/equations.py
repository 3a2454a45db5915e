"""The equations of a two-level model, as text, LaTeX and HTML, with symbols or with estimates.

level 1     y_ij = Σ_k β_ki x_ijk + e_ij,                 e_ij ~ N(0, σ²)
level 2     β_ki = β_k0 + Σ_m β_km w_im + b_ki,           b_i ~ N(0, D)
combined    y_ij = Σ_k (β_k0 + Σ_m β_km w_im + b_ki) x_ijk + e_ij
marginal    E(y_i) = X_i β,                               V_i = Z_i D Z_i' + σ² I

With a residual structure ``e_i ~ N(0, Σ_i)``, ``Σ_i = σ² G_i R_i G_i``. A marginal model has a mean and a covariance
``V_i = σ² G_i R_i G_i`` only. A generalised model has a distribution of the rows in the place of e (`families`):

level 1     y_ij ~ Poisson(μ_ij),   log μ_ij = Σ_k β_ki x_ijk
marginal    E(y_ij) = E_b exp(x_ij'β + z_ij'b_i) = exp(x_ij'β + v_ij / 2),   v_ij = z_ij'D z_ij
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierlmm.design.design import Design
from hierlmm.equations import families
from hierlmm.equations import notation as m
from hierlmm.equations.by_factor import FactorEquations, factor_equations
from hierlmm.equations.notation import EQUALS, Addend, Equation, Markup
from hierlmm.equations.notes import note_covariance, note_level1, note_level2, note_residual
from hierlmm.equations.residual_symbols import OTHER_ROW, ResidualSymbols, entry_of
from hierlmm.equations.sections import Section, Written
from hierlmm.equations.symbols import SIGMA2, Estimates, Symbols, check_estimates

RESIDUAL = m.symbol("e", "ij")
SIGMA_I = m.symbol("Σ", "i")
IDENTITY = m.symbol("I")
SPELLED_OUT = 3  # with more random effects than this, Var(y) is given by its matrix only
SHOWN_CORRELATIONS = 6


@dataclass(frozen=True, repr=False, kw_only=True)
class Equations(Written):
    """The equations of a model; every equation has ``.text``, ``.latex`` and ``.html``.

    Attributes
    ----------
    level1 : Equation or None
        The subject's own regression; None for a marginal model.
    level2 : tuple of Equation
        One for each level-1 coefficient.
    random : tuple of Equation
        Distribution of b (and its covariance D), and last of e; empty for a marginal model.
    combined : Equation or None
        Level 2 put into level 1; None for a marginal model.
    marginal : tuple of Equation
        Mean, variance and, where simple, covariance or correlation of two measurements of a subject; V_i.
    notes : tuple of Markup
        What lives in level 1, level 2, the combined and the marginal model, in words; of a marginal model, in the mean
        and in the covariance.
    residual : tuple of Equation
        Residual structure: Σ_i (in a hierarchy), correlation of two rows and SD of a row; empty without one.
    response : Equation or None
        Generalised models: distribution of a row given its mean, in the place of e.
    estimator : str or None
        Where the estimates come from, if there are any.
    """

    level1: Equation | None = None
    level2: tuple[Equation, ...] = ()
    random: tuple[Equation, ...] = ()
    combined: Equation | None = None
    marginal: tuple[Equation, ...]
    notes: tuple[Markup, ...]
    estimator: str | None = None
    residual: tuple[Equation, ...] = ()
    response: Equation | None = None

    @property
    def _source(self) -> str | None:
        return self.estimator

    @property
    def sections(self) -> tuple[Section, ...]:
        """Level 1, level 2, the combined and the marginal model; mean and covariance of a marginal model."""
        if self.level1 is None or self.combined is None:
            return (
                Section("Mean: average over subjects", self.marginal[:1], self.notes[0]),
                Section("Covariance: rows of one subject", (*self.marginal[1:], *self.residual), self.notes[1]),
            )
        within, effects = (self.level1, *self.random[-1:], *self.residual), self.random[:-1]
        if self.response is not None:
            within, effects = (self.response, self.level1), self.random
        return (
            Section("Level 1: within subject", within, self.notes[0]),
            Section("Level 2: between subjects", (*self.level2, *effects), self.notes[1]),
            Section("Combined model", (self.combined,), self.notes[2]),
            Section("Marginal model", self.marginal, self.notes[3]),
        )


def equations(design: Design, estimates: Estimates | None = None) -> Equations | FactorEquations:
    """Write down a model.

    Parameters
    ----------
    design : Design
        The model, with the names of its coefficients.
    estimates : Fit, optional
        Puts its ``beta``, ``D`` (``sd_b``, ``corr_b``) and ``sigma`` in the place of the symbols.

    Returns
    -------
    Equations, or FactorEquations of several grouping factors

    Raises
    ------
    SpecificationError
        If the estimates belong to another model.
    """
    if estimates is not None:
        check_estimates(design, estimates)
    if design.has_several_factors:
        return factor_equations(design, estimates)
    s, structure = Symbols(design, estimates), ResidualSymbols(design, estimates)
    estimator = getattr(estimates, "estimator", None)
    if not design.term:
        return _marginal_model(s, structure, estimator)
    if not design.is_gaussian:
        return _generalised_model(s, estimator)
    sigma = [_sigma_is(s)] if design.has_residual_structure else []
    errors = Equation(m.symbol("e", "i"), m.SIMILAR, ((m.normal(SIGMA_I),),)) if sigma else _residual(s)
    return Equations(
        level1=_level1(s),
        level2=_level2(s),
        random=(*_random_effects(s), errors),
        combined=Equation(s.y(), EQUALS, m.add_up([*_predictor(s, random=True), Addend.of(RESIDUAL)])),
        marginal=tuple(_marginal(s, structure)),
        notes=(
            note_level1(design) + note_residual(design),
            note_level2(s),
            m.words("Level 2 put into level 1: fixed effects, random effects b and residual e in one line."),
            m.words("Averaged over the random effects b: mean, variance and correlation of the data themselves."),
        ),
        estimator=estimator,
        residual=(*(Equation(SIGMA_I, EQUALS, ((structure.covariance(), e),)) for e in sigma), *structure.equations()),
    )


def _generalised_model(s: Symbols, estimator: str | None) -> Equations:
    """A distribution in level 1, everything else on the scale of the link."""
    family, subject = s.design.family, [Addend.of(m.times(s.beta_i(k), s.x(k))) for k in range(len(s.numbers))]
    predictor = families.predictor(family)
    marginal = [families.averaged(s, _predictor(s, random=True), _predictor(s, random=False))]
    if families.needs_variance(family):
        spelled = s.q <= SPELLED_OUT and not s.design.group
        addends = _random_variance(s) if spelled else [Addend.of(families.QUADRATIC)]
        marginal.append(Equation(families.SPREAD, EQUALS, m.add_up(addends)))
    combined, averaged = families.notes(family)
    return Equations(
        level1=Equation(predictor, EQUALS, m.add_up([*subject, *s.offsets()])),
        level2=_level2(s),
        random=tuple(_random_effects(s)),
        combined=Equation(predictor, EQUALS, m.add_up(_predictor(s, random=True))),
        marginal=tuple(marginal),
        notes=(note_level1(s.design) + families.note_response(family), note_level2(s), combined, averaged),
        estimator=estimator,
        response=families.response(s),
    )


def _level2(s: Symbols) -> tuple[Equation, ...]:
    ranges = range(len(s.numbers))
    return tuple(Equation(s.beta_i(k), EQUALS, m.add_up(_explained(s, k, random=True))) for k in ranges)


def _marginal_model(s: Symbols, structure: ResidualSymbols, estimator: str | None) -> Equations:
    """Mean and covariance; there are no levels."""
    design = s.design
    if not design.is_gaussian:
        return _estimated_mean(s, structure, estimator)
    whole = m.name_symbol(design.hierarchy.response, "i")
    V = m.symbol("V", "i")
    mean = Equation(m.function("E", s.y()), EQUALS, m.add_up([*s.terms(), *s.offsets()] or [Addend.of(m.integer(0))]))
    normal = Equation(whole, m.SIMILAR, (("N(" + m.function("E", whole) + ", " + V + ")",),))
    covariance = Equation(V, EQUALS, ((structure.covariance(), _sigma_is(s)),))
    return Equations(
        marginal=(mean, normal, covariance),
        notes=(m.words("There is one mean for all subjects with the same covariates."), note_covariance(design)),
        estimator=estimator,
        residual=tuple(structure.equations()),
    )


def _estimated_mean(s: Symbols, structure: ResidualSymbols, estimator: str | None) -> Equations:
    """Link of the mean, variance and correlation of another response, which estimating equations need and no more."""
    family = s.design.family
    linear = m.add_up([*s.terms(), *s.offsets()] or [Addend.of(m.integer(0))])
    return Equations(
        marginal=(Equation(families.predictor(family), EQUALS, linear), families.variance(s)),
        notes=(
            m.words("There is one mean for all subjects with the same covariates."),
            m.words("No distribution is assumed, and no likelihood: the mean is fitted by estimating equations."),
        ),
        estimator=estimator,
        residual=tuple(structure.equations()),
    )


def _sigma_is(s: Symbols) -> Markup:
    """``, σ = 0.79``, where there is an estimate."""
    if s.estimates is None:
        return m.join([], "")
    return Markup(",  ", r",\quad ", ", &nbsp;") + m.symbol("σ") + " = " + m.number(s.estimates.sigma)


def _level1(s: Symbols) -> Equation:
    addends = [Addend.of(m.times(s.beta_i(k), s.x(k))) for k in range(len(s.numbers))]
    return Equation(s.y(), EQUALS, m.add_up([*addends, *s.offsets(), Addend.of(RESIDUAL)]))


def _explained(s: Symbols, k: int, *, random: bool) -> list[Addend]:
    """What level-1 coefficient k is made of."""
    effects = [Addend.of(s.b(int(r))) for r in np.flatnonzero(s.design.own_level1 == k)] if random else []
    return [*(s.fixed(c) for c in s.members[k]), *effects]


def _predictor(s: Symbols, *, random: bool) -> list[Addend]:
    """Level 2 put into level 1: one addend for every level-1 coefficient, and the offsets."""
    addends = []
    for k in range(len(s.numbers)):
        inner, x = _explained(s, k, random=random), s.x(k)
        if len(inner) == 1:
            addends.append(Addend.of(m.times(inner[0].pieces[0], x), negative=inner[0].negative))
        elif inner:
            pieces = [piece for group in m.add_up(inner) for piece in group]
            pieces[0] = "(" + pieces[0]
            pieces[-1] = m.times(pieces[-1] + ")", x)
            addends.append(Addend(tuple(pieces)))
    return addends + s.offsets()


def _residual(s: Symbols) -> Equation:
    sd = [m.words(", sd ") + m.number(s.estimates.sigma)] if s.estimates is not None else []
    return Equation(RESIDUAL, m.SIMILAR, ((m.normal(SIGMA2), *sd),))


def _random_effects(s: Symbols) -> list[Equation]:
    if s.design.group and s.group is None:
        return [equation for own in s.groups() for equation in _random_effects(own)]
    effects = [s.b(r) for r in range(s.q)]
    if len(effects) == 1:
        return [Equation(effects[0], m.SIMILAR, ((m.normal(s.variance(0)) + s.where() + _spread(s)[0],),))]
    first, *others = _spread(s)
    joint = (m.normal(s.D()) + s.where() + first, *others)
    D = Equation(s.D(), EQUALS, ((_covariance_matrix(s),),))
    return [Equation(m.parenthesise(m.join(effects, ", ")), m.SIMILAR, (joint,)), D]


def _spread(s: Symbols) -> list[Markup]:
    """``, sd 1.80 and 0.18, corr −0.09``, in pieces; nothing without estimates."""
    if s.estimates is None:
        return [m.join([], "")]
    terms, sd = [s.term(r) for r in range(s.q)], s.estimates.sd_b
    if s.design.covariance == "identity":
        return [m.words(", sd ") + m.number(float(sd[terms[0]])) + m.words(" each")]
    if s.design.covariance == "compound_symmetry":
        corr = m.two_decimals(float(s.estimates.corr_b[terms[1]][terms[0]]))
        return [m.words(", sd ") + m.number(float(sd[terms[0]])) + m.words(" each,"), m.words(" corr ") + corr]
    found = [m.words(", sd ") + m.enumerate_words([m.number(float(sd[t])) for t in terms], limit=len(terms))]
    pairs = [(r, c) for r in range(s.q) for c in range(r + 1, s.q) if s.correlated(r, c)]
    for r, c in pairs if len(pairs) <= SHOWN_CORRELATIONS else []:
        pair = m.words(" corr ")
        if len(terms) > 2:
            pair = m.words(" corr") + m.parenthesise(s.b(r) + ", " + s.b(c)) + m.BLANK
        found[-1] += ","
        found.append(pair + m.two_decimals(float(s.estimates.corr_b[terms[c]][terms[r]])))
    return found


def _covariance_matrix(s: Symbols) -> Markup:
    q = range(s.q)
    if s.design.covariance == "identity":
        return (s.variance(0) if s.estimates is None else m.number(s.covariance_value(0, 0))) + m.BLANK + IDENTITY
    if s.design.covariance == "diagonal":
        return m.function("diag", *(s.covariance_entry(r, r) for r in q))
    if len(q) <= m.SHOWN_MATRIX:
        return m.matrix([[s.covariance_entry(r, c) for c in q] for r in q])
    size = Markup(f"{len(q)} × {len(q)}", rf"{len(q)} \times {len(q)}", f"{len(q)} × {len(q)}")
    if s.design.covariance == "compound_symmetry":
        variance, covariance = s.covariance_entry(0, 0), s.covariance_entry(0, 1)
        return size + m.words(" with variance ") + variance + m.words(" and covariance ") + covariance
    return size + m.words(" with variances ") + m.enumerate_words([s.covariance_entry(r, r) for r in q])


def _marginal(s: Symbols, structure: ResidualSymbols) -> list[Equation]:
    q, structured, grouped = s.q, s.design.has_residual_structure, bool(s.design.group)
    mean = _predictor(s, random=False)
    if len(mean) == 1:
        mean = [a for k in range(len(s.numbers)) if s.x(k) is None for a in _explained(s, k, random=False)] or mean
    found = [Equation(m.function("E", s.y()), EQUALS, m.add_up(mean or [Addend.of(m.integer(0))]))]
    noise = _noise(s, structure)
    if q <= SPELLED_OUT and noise is not None and not grouped:
        found.append(Equation(m.function("Var", s.y()), EQUALS, _total_variance(s, noise)))
    if q == 1 and s.z(0) is None and not structured and not grouped:
        found.append(Equation(m.function("Corr", s.y(), s.y("k")), EQUALS, ((*_exchangeable(s), OTHER_ROW),)))
    elif q <= 2 and noise is not None and not grouped:
        groups = _covariance(s, _shared_noise(s, structure))
        found.append(Equation(m.function("Cov", s.y(), s.y("k")), EQUALS, (*groups, (OTHER_ROW,))))
    if q > 1 or structured or grouped:
        Z = m.symbol("Z", "i")
        product = m.join([Z, s.D(), Z + m.TRANSPOSED], m.BLANK)
        rest = SIGMA_I if structured else s.residual_variance() + ("" if s.estimates is None else m.BLANK) + IDENTITY
        found.append(Equation(m.symbol("V", "i"), EQUALS, m.add_up([Addend.of(product), Addend.of(rest)])))
    return found


def _noise(s: Symbols, structure: ResidualSymbols) -> Markup | None:
    """Residual variance of a row; None where it depends on b, over which the marginal model averages."""
    spec = s.design.residual_variance
    if spec is None:
        return s.residual_variance()
    if spec.variable is None:
        return None
    ratio = structure.g(power=2)
    return m.times(s.residual_variance(), entry_of("G", "jj") + m.symbol("", power=2) if ratio is None else ratio)


def _shared_noise(s: Symbols, structure: ResidualSymbols) -> list[Addend]:
    """Residual covariance of rows j and k: nothing, or ``σ² g_j g_k r_jk``."""
    if s.design.residual is None:
        return []
    r = structure.r() or entry_of("R", "jk")
    if s.design.residual_variance is None:
        return [Addend.of(m.times(s.residual_variance(), r))]
    if structure.g() is None:
        sizes: list[Markup | None] = [entry_of("G", "jj"), entry_of("G", "kk")]
    elif structure.sizes.varies_within():
        sizes = [structure.g("j"), structure.g("k")]
    else:
        sizes = [structure.g(power=2)]
    factors = [f for f in (*sizes, r) if f is not None]
    return [Addend((s.residual_variance(), *(m.DOT + f for f in factors)))]


def _total_variance(s: Symbols, noise: Markup) -> tuple[tuple[Markup, ...], ...]:
    q = s.q
    groups = m.add_up([*_random_variance(s), Addend.of(noise)])
    if s.estimates is not None and q == 1 and s.z(0) is None and s.design.residual_variance is None:
        groups = (*groups, (" = " + m.number(s.covariance_value(0, 0) + s.estimates.sigma**2),))
    return groups


def _random_variance(s: Symbols) -> list[Addend]:
    """Variance of ``z'b``."""
    q, addends = s.q, []
    for r in range(q):
        addends.append(s.covariance_addend(r, r, 1, s.z(r, power=2)))
        addends += [s.covariance_addend(r, c, 2, s.z(r), s.z(c)) for c in range(r + 1, q) if s.correlated(r, c)]
    return addends


def _exchangeable(s: Symbols) -> list[Markup]:
    """Correlation of two rows of a subject when only the intercept varies."""
    if s.estimates is None:
        return [m.fraction(s.variance(0), s.variance(0) + " + " + SIGMA2)]
    variance, noise = s.covariance_value(0, 0), s.estimates.sigma**2
    written = m.fraction(m.number(variance), m.number(variance) + " + " + m.number(noise))
    return [written, " = " + m.two_decimals(variance / (variance + noise))]


def _covariance(s: Symbols, noise: list[Addend]) -> tuple[tuple[Markup, ...], ...]:
    """Covariance of two rows of a subject with one or two random effects."""
    q = s.q
    addends = []
    for r in range(q):
        addends.append(s.covariance_addend(r, r, 1, s.z(r), s.z(r, "k")))
        for c in range(r + 1, q):
            if s.correlated(r, c):
                rows = ("k", "j") if s.z(r) is None else ("j", "k")
                crossed = [m.times(s.z(r, a), s.z(c, b)) for a, b in (rows, rows[::-1])]
                addends.append(s.covariance_addend(r, c, 1, m.parenthesise(m.join(crossed, " + "))))
    return m.add_up([*addends, *noise])
