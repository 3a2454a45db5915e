"""Priors of a hierarchy as the user chooses them, and every prior filled in for a design.

What they are priors of, and where they are stated, is in `hierlmm.bayes.resolved`; the defaults are in
`hierlmm.bayes.default_priors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.default_priors import bambi_priors, centre_of, default_priors
from hierlmm.bayes.distribution import Distribution, Prior, number
from hierlmm.bayes.distributions import LKJ
from hierlmm.bayes.family_priors import STEP
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.covariance.parameters import Parameter
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.errors import SpecificationError, closest
from hierlmm.frames import shorten
from hierlmm.likelihood.residual_rows import residual_rows
from hierlmm.options import checked_with_constructor
from hierlmm.results import Page, Table

SEE = "docs, page 'Priors'"
POSITIVE = "HalfNormal, HalfStudentT, HalfCauchy or Gamma"
REAL = "Normal or StudentT"
THRESHOLD = re.compile(r"threshold[ _](\d+)")
RESIDUAL = "Uniform or Normal, or LogNormal for a distance or ratio"


@checked_with_constructor
@dataclass(frozen=True)
class Priors:
    """Priors that replace the defaults; what is None keeps its default.

    Parameters
    ----------
    intercept : Prior, optional
        Of the intercept at the centred design (the expected response at average covariates), in units of the response.
    beta : Prior or mapping of str to Prior, optional
        One prior for all other fixed coefficients, or by coefficient name; of the coefficient as written, also where
        the default is stated at average covariates (sex beside sex:time).
    sd_b : Prior or mapping of str to Prior, optional
        One prior for all random-effect standard deviations, or by term name; with several grouping factors by factor,
        ``{"batch": HalfNormal(1)}``, or by both, ``{"Intercept | batch": HalfNormal(1)}``. The default of a random
        intercept that is correlated with slopes is stated at the average covariates, together with its correlations;
        one given here is of the intercept as written, where covariates are zero, and so are its correlations. Under
        ``covariance="identity"`` and ``"compound_symmetry"`` there is one standard deviation and so one prior.
    corr_b : LKJ, optional
        Of the correlation matrix of each block of correlated random effects, with the intercept at the average
        covariates unless its standard deviation is given. Under ``"compound_symmetry"`` the density
        of the one correlation r is that of LKJ on the line of equal correlations, ``(1 - r)^((q-1)(eta-1)) (1 +
        (q - 1) r)^(eta-1)``; the default there is ``LKJ(1)``, uniform between -1/(q - 1) and 1.
    sigma : Prior, optional
        Of the residual standard deviation.
    dispersion : Prior or mapping of str to Prior, optional
        Of the dispersion parameters of a generalised model, on their natural scale: one prior for all, or by name
        (``{"shape": ...}``; of ordered categories the steps between thresholds, ``{"step 2": ...}`` from the first,
        which is zero, to ``threshold 2``; ``"threshold 2"`` names the same prior, further thresholds have none of
        their own). The scale of Student's t is ``sigma``.
    residual : mapping of str to Prior, optional
        Of parameters of the residual structure, by name (``{"rho": Uniform(0, 1)}``); cut off at a parameter's range.

    Raises
    ------
    SpecificationError
        If something is not a prior, or a standard deviation gets a prior that allows negative values.

    Examples
    --------
    >>> import hierlmm as hl
    >>> priors = hl.Priors(beta={"time": hl.Normal(0, 1)}, sd_b=hl.HalfStudentT(4, 2), corr_b=hl.LKJ(1))
    >>> priors.corr_b
    LKJ(eta=1)
    """

    intercept: Prior | None = None
    beta: Prior | Mapping[str, Prior] | None = None
    sd_b: Prior | Mapping[str, Prior] | None = None
    corr_b: LKJ | None = None
    sigma: Prior | None = None
    residual: Any = None
    dispersion: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for own in fields(self):
            value = getattr(self, own.name)
            if isinstance(value, Mapping):
                if own.name not in ("beta", "sd_b", "residual", "dispersion"):
                    reason = f"{own.name!r} is one parameter and takes one prior"
                    remedy = f"write Priors({own.name}=...) with a single prior"
                    raise SpecificationError(f"{own.name}={value!r}", reason, remedy, SEE)
                for name, prior in value.items():
                    _check_kind(f"{own.name}[{name!r}]", own.name, prior)
            elif value is not None:
                if own.name == "residual":
                    reason = "the parameters of a residual structure have different ranges"
                    remedy = "name them: Priors(residual={'rho': Uniform(-1, 1)})"
                    raise SpecificationError(f"residual={value}", reason, remedy, SEE)
                _check_kind(own.name, own.name, value)

    def _repr_html_(self) -> str:
        rows = []
        for own in fields(self):
            value = getattr(self, own.name)
            named = value if isinstance(value, Mapping) else {} if value is None else {"": value}
            rows += [(f"{own.name}[{name}]" if name else own.name, str(prior)) for name, prior in named.items()]
        default = [own.name for own in fields(self) if getattr(self, own.name) is None]
        frame = pd.DataFrame(rows, columns=["parameter", "prior"]).set_index("parameter")
        chosen = [Table(frame, caption="Prior of each parameter", index=True)]
        others = [f"Defaults, scaled to the data of a model: {', '.join(default)}."] if default else []
        return Page("Priors, as chosen", [*(chosen if rows else []), *others]).html

    def resolve(self, design: Design) -> ResolvedPriors:
        """Fill in the defaults for a design and check the names.

        Parameters
        ----------
        design : Design
            Of the model: ``model.design``.

        Raises
        ------
        SpecificationError
            If a name is no coefficient or term of the model, or a prior is given for something the model lacks.
        """
        default = default_priors(design)
        if self.intercept is not None and design.intercept is None:
            remedy = "leave it out, or put the intercept back into the formula"
            raise SpecificationError(f"intercept={self.intercept}", "the model has no fixed intercept", remedy, SEE)
        slopes = [c for i, c in enumerate(design.coef) if i != design.intercept]
        chosen_beta = _spread(self.beta, slopes, "beta", "fixed coefficient")
        if self.sd_b is not None and not design.term:
            received = "sd_b for a marginal model" if not isinstance(self.sd_b, Distribution) else f"sd_b={self.sd_b}"
            reason = "a marginal model has no random effects"
            raise SpecificationError(received, reason, "leave sd_b out, or use hl.TwoLevelModel", SEE)
        chosen_sd = _by_group(design, self.sd_b)
        chosen_residual = _spread(self.residual, list(default.residual_names), "residual", "residual parameter")
        if default.common_sd and isinstance(self.sd_b, Mapping):
            received = f"sd_b={{{', '.join(map(repr, self.sd_b))}}}"
            reason = f"covariance={design.covariance!r} has one standard deviation common to all random effects"
            raise SpecificationError(received, reason, "give one prior, for example sd_b=HalfNormal(1)", SEE)
        if self.corr_b is not None and default.corr_b is None:
            received = f"corr_b={self.corr_b}"
            remedy = "leave it out, or use covariance='unstructured' (a single bar in the formula)"
            raise SpecificationError(received, "the random effects of this model are not correlated", remedy, SEE)
        chosen_dispersion = self._of_dispersion(default, design)
        if chosen_residual:
            _check_overlap(chosen_residual, residual_rows(design).parameters)
        beta = tuple(chosen_beta.get(c, p) for c, p in zip(design.coef, default.beta, strict=True))
        if design.intercept is not None and self.intercept is not None:
            beta = tuple(self.intercept if i == design.intercept else p for i, p in enumerate(beta))
        # What was given is about the coefficient as written.
        shift = default.shift * np.array([c not in chosen_beta for c in design.coef])[:, None]
        untouched = all(getattr(self, own.name) is None for own in fields(self))
        residual = zip(default.residual_names, default.residual, strict=True)
        dispersion = zip(default.dispersion_names, default.dispersion, strict=True)
        return replace(
            default,
            beta=beta,
            sd_b=tuple(chosen_sd.get(t, p) for t, p in zip(design.term, default.sd_b, strict=True)),
            corr_b=self.corr_b or default.corr_b,
            sigma=None if default.sigma is None else self.sigma or default.sigma,
            center=centre_of(design, shift),
            shift=shift,
            random_center=_center_of(default, chosen_sd),
            source="default" if untouched else "chosen",
            residual=tuple(chosen_residual.get(name, prior) for name, prior in residual),
            dispersion=tuple(chosen_dispersion.get(name, prior) for name, prior in dispersion),
        )

    def _of_dispersion(self, default: ResolvedPriors, design: Design) -> dict[str, Prior]:
        """Priors chosen for dispersion parameters, ``sigma`` among them where it is one."""
        names = list(default.dispersion_names)
        given = self.dispersion
        if isinstance(given, Mapping) and design.family.name == "ordinal":
            given = {_step_of(str(name), prior): prior for name, prior in given.items()}
        chosen = _spread(given, names, "dispersion", "dispersion parameter")
        if self.sigma is not None and default.sigma is None:
            if "sigma" not in names:
                reason = f"a {design.family.title} response has no residual SD"
                remedy = "leave it out" + (f"; its dispersion is given by name: {', '.join(names)}" if names else "")
                raise SpecificationError(f"sigma={self.sigma}", reason, remedy, SEE)
            chosen["sigma"] = self.sigma
        return chosen


def _step_of(name: str, prior: Any) -> str:
    """The step that a threshold is: the second one alone, since the first is zero."""
    if not (found := THRESHOLD.fullmatch(name)):
        return name
    if found[1] != "2":
        received, k = f"dispersion[{name!r}]={prior}", int(found[1])
        reason = "priors are of the steps between neighbouring thresholds, which keep them in order"
        remedy = f"give one of the step from threshold {k - 1} to {k}: dispersion={{'{STEP.format(k)}': ...}}"
        raise SpecificationError(received, reason, remedy, SEE)
    return STEP.format(2)


def resolve_priors(priors: Priors | str | ResolvedPriors | None, design: Design) -> ResolvedPriors:
    """Fill in every prior for a design (for a generalised model, on the scale of its link).

    Parameters
    ----------
    priors : None, Priors, "bambi" or ResolvedPriors
        None for the defaults; ``"bambi"`` for exactly the defaults of Bambi 0.21; priors already resolved are
        returned as they are.
    design : Design

    Raises
    ------
    SpecificationError
    """
    if isinstance(priors, ResolvedPriors):
        return priors
    if priors is None:
        return default_priors(design)
    if isinstance(priors, Priors):
        return priors.resolve(design)
    if isinstance(priors, str) and priors.lower() == "bambi":
        return bambi_priors(design)
    reason = f"this is not a set of priors.{closest(priors, ['bambi']) if isinstance(priors, str) else ''}"
    raise SpecificationError(f"priors={priors!r}", reason, "pass priors=None (defaults), Priors(...) or 'bambi'", SEE)


def _check_kind(what: str, role: str, prior: Any) -> None:
    if role == "corr_b":
        if not isinstance(prior, LKJ):
            raise SpecificationError(
                f"{what}={prior}", "correlations take an LKJ prior", "write corr_b=LKJ(2); LKJ(1) is uniform", SEE
            )
        return
    positive = role in ("sd_b", "sigma", "dispersion")
    choices = POSITIVE if positive else RESIDUAL if role == "residual" else REAL
    if not isinstance(prior, Prior):
        raise SpecificationError(f"{what}={prior!r}", "this is not a prior of one number", f"use {choices}", SEE)
    if positive and not prior.is_positive:
        of = "dispersion parameter" if role == "dispersion" else "standard deviation"
        half = {
            "Normal": "HalfNormal(sd)",
            "StudentT": "HalfStudentT(nu, scale)",
            "Uniform": "Uniform(0, upper), of hierlmm.bayes.distributions, or HalfNormal(sd)",
        }.get(type(prior).__name__, "HalfNormal(sd)")
        raise SpecificationError(
            f"{what}={prior}", f"a {of} cannot be negative, and this prior can", f"use {half}", SEE
        )


def _check_overlap(chosen: Mapping[str, Prior], parameters: tuple[Parameter, ...]) -> None:
    """Refuse a prior without mass inside its parameter's range."""
    for parameter in parameters:
        prior = chosen.get(parameter.name)
        if prior is not None and not max(prior.support[0], parameter.lower) < min(prior.support[1], parameter.upper):
            raise SpecificationError(
                f"residual[{parameter.name!r}]={prior}",
                f"the prior has no mass between {number(parameter.lower)} and {number(parameter.upper)}, the range of "
                f"{parameter.name}",
                "use a prior that overlaps with that range",
                SEE,
            )


def _center_of(default: ResolvedPriors, chosen_sd: Mapping[str, Prior]) -> FloatArray:
    """Where the priors of D are stated: at zero where that of the intercept was given, which is of it as written."""
    center = default.random_center.copy()
    for k in default.intercepts:
        if default.term[k] in chosen_sd:
            center[default.beside(k)] = 0.0
    return center


def _by_group(design: Design, value: Prior | Mapping[str, Prior] | None) -> dict[str, Prior]:
    """Priors of SDs by the names in ``term``; one that is given as ``time`` is that of every group.

    With several grouping factors, one that is given as ``batch`` is that of all random effects of the factor.
    """
    if design.has_several_factors and isinstance(value, Mapping):
        factor = {name: own.group for own in design.terms.random for name in own.names_beside}
        given = _spread(value, [*dict.fromkeys(factor.values()), *design.term], "sd_b", "random effect or factor")
        of_factor = {name: given[own] for name, own in factor.items() if own in given}
        return of_factor | {name: prior for name, prior in given.items() if name in factor}
    if not design.group or not isinstance(value, Mapping):
        return _spread(value, list(design.term), "sd_b", "random effect")
    given = _spread(value, [*design.own_term, *design.term], "sd_b", "random effect")
    q = design.n_own
    of_all = {name: given.get(design.own_term[k % q]) for k, name in enumerate(design.term)}
    return {name: prior for name, own in of_all.items() if (prior := given.get(name, own)) is not None}


def _spread(value: Prior | Mapping[str, Prior] | None, names: list[str], role: str, kind: str) -> dict[str, Prior]:
    """One prior for all, or by name, as a mapping; unknown names raise."""
    if value is None:
        return {}
    if isinstance(value, Distribution):
        return dict.fromkeys(names, value)
    for name in value:
        if name in names:
            continue
        if role == "beta" and name == INTERCEPT:
            reason = "the intercept's prior is that of the centred design, and has an argument of its own"
            raise SpecificationError(f"beta[{name!r}]", reason, f"write Priors(intercept={value[name]})", SEE)
        received, remedy = f"{role}[{name!r}]", f"use one of: {shorten(names)}" if names else f"leave {role} out"
        raise SpecificationError(received, f"the model has no {kind} of this name.{closest(name, names)}", remedy, SEE)
    return dict(value)
