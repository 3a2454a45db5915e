"""The same model in Bambi, with the same priors, where Bambi can express it.

Bambi has no correlations between random effects, so D must be diagonal (or have one random effect). Like this package
it puts the intercept's prior on the centred design, and fits without centring where there is no fixed intercept, so
that passing our priors over gives the same posterior.

The user's own formula is handed over if formulae, Bambi's formula package, reads it as exactly the same columns; this
is checked number by number. Otherwise (transformations that only formulaic knows, factors coded another way, priors
stated at average covariates, which Bambi's centring does not reach) Bambi gets our columns under plain names: ``y``,
``x1``, ``x2``, ..., ``z1``, ...
"""

from __future__ import annotations

import importlib
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.explicit import pymc_module
from hierlmm.bayes.nuts import Settings
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.bayes.record import PosteriorRecord, posterior_record
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import dispersion_variables
from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT, join_terms, term_name
from hierlmm.errors import MissingPackageError, SpecificationError
from hierlmm.notice import interactive

SEE = "docs, page 'Bambi'"
DISPERSION = {("negative_binomial", "shape"): "alpha", ("gamma", "shape"): "alpha", ("beta", "precision"): "kappa"}
"""Dispersion parameters that have another name in Bambi."""
WHOLE = ("poisson", "negative_binomial", "bernoulli", "binomial")
"""Families whose response Bambi wants as whole numbers."""


@dataclass(frozen=True)
class _Translation:
    """A formula and data for Bambi, and which of its terms holds which of our columns."""

    formula: str
    frame: pd.DataFrame
    subject: str
    common: tuple[tuple[str, tuple[int, ...]], ...]
    group: tuple[str, ...]


def build_bambi_model(design: Design, priors: ResolvedPriors | Priors | str | None = None) -> Any:
    """Build the model in Bambi with the same priors.

    Parameters
    ----------
    design : Design
    priors : ResolvedPriors, Priors, "bambi" or None
        As for `resolve_priors`; they are passed over explicitly.

    Returns
    -------
    bambi.Model

    Raises
    ------
    SpecificationError
        If Bambi cannot express the model (correlated random effects, one standard deviation for all of them).
    MissingPackageError
        If Bambi is not installed.
    """
    return _build(design, resolve_priors(priors, design))[0]


def fit_bambi(design: Design, priors: ResolvedPriors | Priors | str | None = None, **settings: Any) -> PosteriorRecord:
    """Sample Bambi's model with nutpie, and give the draws this package's names.

    Parameters
    ----------
    design, priors
        As in `build_bambi_model`.
    **settings
        Of `Settings`.

    Returns
    -------
    PosteriorRecord
        With ``estimator="Bambi"``.

    Raises
    ------
    SpecificationError, MissingPackageError
        As in `build_bambi_model`.
    """
    chosen, resolved = Settings(**settings), resolve_priors(priors, design)
    model, translation = _build(design, resolved)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Bambi and PyMC on their own dependencies
        warnings.simplefilter("ignore", DeprecationWarning)
        numbers, shown = dict(chosen.attrs), chosen.progressbar and interactive()
        seed = numbers.pop("seed")
        tree = model.fit(random_seed=seed, inference_method="nutpie", progressbar=shown, **numbers)
    attrs = {
        "estimator": "Bambi",
        "sampler": "explicit",
        "parametrization": "non-centred",
        **chosen.attrs,
        "sampling_seconds": round(time.perf_counter() - started, 3),
        "bambi_formula": translation.formula,
    }
    posterior = _rename(design, resolved, translation, tree["posterior"].to_dataset())
    return posterior_record(design, resolved, posterior, tree["sample_stats"].to_dataset(), attrs)


def _build(design: Design, priors: ResolvedPriors) -> tuple[Any, _Translation]:
    _check_expressible(design)
    bmb = _bambi()
    translation = _translation(design, priors)
    family = design.family
    if design.is_gaussian:
        given: dict[str, Any] = {"sigma": _prior(bmb, [priors.sigma])}
        options: dict[str, Any] = {}
    else:
        named = zip(priors.dispersion_names, priors.dispersion, strict=True)
        given = {DISPERSION.get((family.name, name), name): _prior(bmb, [prior]) for name, prior in named}
        options = {"family": family.elsewhere["bambi"], "link": family.link}
    for name, positions in translation.common:
        given[name] = _prior(bmb, [priors.beta[k] for k in positions])
    for name, sd in zip(translation.group, priors.sd_b, strict=True):
        given[name] = bmb.Prior("Normal", auto_scale=False, mu=0, sigma=_prior(bmb, [sd]))
    return bmb.Model(translation.formula, translation.frame, priors=given, **options), translation


def _translation(design: Design, priors: ResolvedPriors) -> _Translation:
    return (None if np.any(priors.shift) or not design.is_gaussian else _users_names(design, priors)) or _plain_names(
        design, priors
    )


def draws_of_bambi(design: Design, priors: ResolvedPriors, posterior: Any) -> tuple[dict[str, FloatArray], str]:
    """Draws of Bambi's variables under this package's names, and Bambi's formula.

    Parameters
    ----------
    design, priors
        Those of the model that `build_bambi_model` made.
    posterior : xarray.Dataset
        Of Bambi's ``fit()``.
    """
    translation = _translation(design, priors)
    return _rename(design, priors, translation, posterior), translation.formula


def _bambi() -> Any:
    pymc_module()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            import bambi as bmb
    except ImportError as error:
        raise MissingPackageError(
            "a model for Bambi", "Bambi is not installed", 'run: pip install "hierlmm[bambi]"', SEE
        ) from error
    return bmb


def _check_expressible(design: Design) -> None:
    family = design.family
    if "bambi" not in family.elsewhere or family.name == "ordinal" or family.link == "sqrt":
        reason = "Bambi has no such family, or not this link"
        if family.name == "ordinal":
            reason = "Bambi's ordinal model has free thresholds in the place of an intercept, and so other priors"
        raise SpecificationError(f"{family} for Bambi", reason, "fit this model with model.fit()", SEE)
    if design.has_residual_structure:
        structure = design.residual or design.residual_variance
        reason = "Bambi's level-1 residuals are independent with one variance"
        raise SpecificationError(f"{structure} for Bambi", reason, "fit this model with model.fit()", SEE)
    if design.group:
        reason = "Bambi gives a random effect one standard deviation for all subjects"
        remedy = "leave group out, or fit this model with model.fit(); brms has it as gr(subject, by = ...)"
        raise SpecificationError(f"group={design.group!r} for Bambi", reason, remedy, SEE)
    if design.covariance in SPECTRAL:
        received = f"covariance={design.covariance!r} for Bambi"
        reason = "Bambi gives every random effect a standard deviation of its own and cannot share one"
        raise SpecificationError(received, reason, "use covariance='diagonal', or fit this model with model.fit()", SEE)
    if any(len(block) > 1 for block in design.blocks):
        correlated = next(block for block in design.blocks if len(block) > 1)
        names = " and ".join(design.term[k] for k in correlated)
        bar = f"({join_terms(design.hierarchy.blocks[0].terms)} | {design.hierarchy.subject})"
        raise SpecificationError(
            f"correlated random effects ({names}) for Bambi",
            f"Bambi has no correlations between random effects: '{bar}' is independent there (it removed them in "
            "version 0.10)",
            f"use covariance='diagonal' ('||' in the formula) for a model that both can fit, or keep the "
            f"correlation and use model.fit(); for these {len(design.term)} effects D has then no covariances",
            SEE,
        )


def _prior(bmb: Any, priors: list[Prior]) -> Any:
    """One Bambi prior for the columns of one term."""
    made = [p.pymc() for p in priors]
    family, first = made[0]
    values = {key: np.array([v[key] for _, v in made]) if len(made) > 1 else float(first[key]) for key in first}
    return bmb.Prior(family, auto_scale=False, **values)


def _users_names(design: Design, priors: ResolvedPriors) -> _Translation | None:
    """The user's formula, if formulae makes exactly our columns of it; else None."""
    formulae = importlib.import_module("formulae")
    hierarchy = design.hierarchy
    random = [term for block in hierarchy.blocks for term in block.terms]
    bars = ["1" if not t else f"0 + {term_name(t)}" for t in random]
    parts = [join_terms(hierarchy.fixed_terms) if hierarchy.fixed_terms else "0"]
    parts += [f"offset({o})" for o in hierarchy.offsets]
    subject = hierarchy.subject if hierarchy.subject.isidentifier() else f"`{hierarchy.subject}`"
    formula = f"{hierarchy.response} ~ {' + '.join([*parts, *(f'({b} | {subject})' for b in bars)])}"
    frame = design.frame.assign(**{hierarchy.subject: _subjects(design)})
    try:
        made = formulae.design_matrices(formula, frame)
        common = _match_common(design, made)
        group = _match_group(design, made)
        same_y = np.allclose(np.asarray(made.response.design_matrix).ravel(), design.y, rtol=1e-12)
    except Exception:  # whatever formulae cannot read goes over as plain columns
        return None
    if common is None or group is None or not same_y:
        return None
    if any(len({priors.beta[k].pymc()[0] for k in positions}) > 1 for _, positions in common):
        return None  # a term of Bambi has one family of priors
    return _Translation(formula, frame, hierarchy.subject, common, group)


def _match_common(design: Design, made: Any) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
    terms = {} if made.common is None else dict(made.common.terms)
    offset, found, free = np.zeros(design.n_obs), [], list(range(len(design.coef)))
    for name, term in terms.items():
        columns = np.asarray(term.data, dtype=float).reshape(design.n_obs, -1)
        if term.kind == "offset":
            offset = offset + columns[:, 0]
            continue
        positions = []
        for column in columns.T:
            match = next((k for k in free if np.allclose(design.X[:, k], column, rtol=1e-10, atol=1e-12)), None)
            if match is None:
                return None
            free.remove(match)
            positions.append(match)
        found.append((str(name), tuple(positions)))
    return None if free or not np.allclose(offset, design.offset) else tuple(found)


def _match_group(design: Design, made: Any) -> tuple[str, ...] | None:
    terms = [] if made.group is None else list(made.group.terms.values())
    if len(terms) != len(design.term):
        return None
    names: list[str] = []
    for k in range(len(design.term)):
        for term in terms:
            column = np.asarray(term.expr.data, dtype=float).reshape(design.n_obs, -1)
            same = column.shape[1] == 1 and np.allclose(column[:, 0], design.Z[:, k], rtol=1e-10)
            if same and term.name not in names:
                names.append(str(term.name))
                break
    return tuple(names) if len(names) == len(terms) else None


def _plain_names(design: Design, priors: ResolvedPriors) -> _Translation:
    X = design.X - design.X @ priors.shift  # columns whose coefficients have the priors
    response, frame = "y", pd.DataFrame({"y": design.y, "subject": _subjects(design)})
    if design.family.has_trials:
        response, frame["n"] = "p(y, n)", design.trials.astype(int)
    if design.family.name in WHOLE:
        frame["y"] = design.y.astype(int)
    fixed, common, bars, group = [], [], [], []
    for k in range(len(design.coef)):
        if k == design.intercept:
            common.append((INTERCEPT, (k,)))
            continue
        column = f"x{k + (design.intercept is None)}"
        frame[column] = X[:, k]
        fixed.append(column)
        common.append((column, (k,)))
    for k, name in enumerate(design.term):
        if name == INTERCEPT:
            bars.append("(1 | subject)")
            group.append("1|subject")
        else:
            frame[f"z{k}"] = design.Z[:, k]
            bars.append(f"(0 + z{k} | subject)")
            group.append(f"z{k}|subject")
    if np.any(design.offset):
        frame["o"] = design.offset
        bars.insert(0, "offset(o)")
    head = "0" if design.intercept is None else "1"
    return _Translation(
        f"{response} ~ {' + '.join([head, *fixed, *bars])}", frame, "subject", tuple(common), tuple(group)
    )


def _subjects(design: Design) -> pd.Categorical:
    return pd.Categorical.from_codes(design.subject_index, categories=design.subjects)


def _rename(design: Design, priors: ResolvedPriors, translation: _Translation, posterior: Any) -> dict[str, FloatArray]:
    """Draws of Bambi's variables under this package's names."""
    C, S = posterior.sizes["chain"], posterior.sizes["draw"]
    q, family = len(design.term), design.family.name
    beta = np.empty((C, S, len(design.coef)))
    for name, positions in translation.common:
        beta[..., list(positions)] = posterior[name].to_numpy().reshape(C, S, -1)
    beta -= beta @ priors.shift.T
    sd = np.stack([posterior[f"{name}_sigma"].to_numpy().reshape(C, S) for name in translation.group], axis=-1)
    b = np.empty((C, S, design.n_subjects, q))
    for k, name in enumerate(translation.group):
        variable = posterior[name].squeeze()
        dim = next(d for d in variable.dims if str(d).endswith("__factor_dim"))
        where = {str(label): i for i, label in enumerate(variable[dim].to_numpy())}
        order = [where[str(label)] for label in design.subjects]
        b[..., k] = variable.transpose("chain", "draw", dim).to_numpy()[..., order]
    out = {
        "sd_b": sd,
        "corr_b": np.broadcast_to(np.eye(q), (C, S, q, q)),
        "D": np.eye(q) * sd[..., None] ** 2,
        "b": b,
        **{name: posterior[DISPERSION.get((family, name), name)].to_numpy() for name in dispersion_variables(design)},
    }
    return {"beta": beta, **out} if design.coef else out
