"""Everything that a fit answers, to the last bit, as text: what must be the same after the way to disk and back."""

from __future__ import annotations

import hashlib
import inspect
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import hierlmm as hl

HEAVY = {"draws", "log_likelihood", "residual_at", "extend", "save", "to_datatree", "compare_marginal", "large_sample"}
HEAVY |= {"prior_predictive", "posterior_predictive", "bootstrap", "profile"}
"""Methods that are asked with arguments of their own."""
DERIVED = {
    "check",
    "test_covariance",
    "test_random_effects",
    "log_marginal_likelihood",
    "ppc",
    "influence",
    "interpret",
}
DERIVED |= {"rank_subjects", "implied_marginal", "heterogeneity"}
"""Methods that fit again, draw or put words to what other methods answer."""
COSTLY = DERIVED | {"bootstrap", "effects", "extend", "posterior_predictive", "prior_predictive", "slopes"}
"""These, and those that fit, sample or compile with arguments of their own."""
INNER = {"criterion_function", "design", "lacks", "solution"}


def exact(value: Any, depth: int = 0) -> Any:
    """A value as text or a tree of text, by which any two can be told apart."""
    if value is None or isinstance(value, bool | int | str | np.bool_ | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        return float(value).hex()
    if isinstance(value, np.ndarray):
        numeric = value.dtype.kind in "biufcmM"
        inside = np.ascontiguousarray(value).tobytes() if numeric else repr(value.ravel().tolist()).encode()
        return f"{value.dtype} {value.shape} {hashlib.sha256(inside).hexdigest()[:16]}"
    if isinstance(value, pd.DataFrame):
        columns = {f"column {c}": exact(value[c]) for c in value.columns}
        return {**columns, "index": exact(value.index), "attrs": exact(value.attrs, depth + 1)}
    if isinstance(value, pd.Series):
        values = value.array.categories if isinstance(value.dtype, pd.CategoricalDtype) else None
        return f"{value.name} {value.dtype} {exact(np.asarray(value))} {exact(value.index)} {values}"
    if isinstance(value, pd.Index):
        return f"{value.names} {value.dtype} {hashlib.sha256(repr(value.tolist()).encode()).hexdigest()[:16]}"
    if isinstance(value, xr.DataTree):
        return {node.path: exact(node.to_dataset(inherit=False)) for node in value.subtree}
    if isinstance(value, xr.Dataset):
        inside = {str(n): f"{v.dims} {n in value.coords} {exact(v.to_numpy())}" for n, v in value.variables.items()}
        return {**inside, "attrs": exact(dict(value.attrs))}
    if isinstance(value, xr.DataArray):
        return exact(value.to_dataset(name="values"))
    if isinstance(value, dict):
        return {str(k): exact(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [exact(v, depth + 1) for v in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if type(value).__module__.startswith("hierlmm") and depth < 2:
        names = [n for n in dir(value) if not n.startswith("_") and n not in INNER]
        asked = {n: ask(lambda n=n: getattr(value, n), depth + 1) for n in names}
        text = repr(value)
        # of its fields, also of those that are worked out again; or of its place in memory
        record = text.startswith(f"{type(value).__name__}(") or " object at 0x" in text
        return {"print": None if record else text, **{n: v for n, v in asked.items() if v is not None}}
    return None  # functions, and what is inside of a result


def ask(call: Any, depth: int = 0) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = exact(call(), depth)
        except hl.HierlmmError as error:
            found = f"{type(error).__name__}: {error}"
    said = [str(w.message) for w in caught if issubclass(w.category, hl.FitWarning)]
    return {"answer": found, "warned": said} if said else found


def with_arguments(fit: Any, rows: pd.DataFrame) -> dict[str, Any]:
    """Questions that need an argument, or that would differ from call to call; rows are those of the fit."""
    design = fit.design
    first, last = design.subjects[0], design.subjects[-1]
    term = fit.design.term[-1] if fit.design.term else None
    new = rows.iloc[[1, 3]]
    varying = [c for c in design.level1_variables() if pd.api.types.is_numeric_dtype(rows[c])][:1]
    asked = {
        "print": lambda: repr(fit),
        "html": lambda: fit._repr_html_(),
        "design": lambda: exact_design(design),
        "fitted(population)": lambda: fit.fitted("population"),
        "residuals(normalized)": lambda: fit.residuals("normalized", level="population"),
        "summary(0.8)": lambda: fit.summary(ci=0.8),
        "marginal_covariance(last)": lambda: fit.marginal_covariance(last),
        "predict": lambda: fit.predict(new, level="population", interval="confidence"),
        "predict(subject)": lambda: fit.predict(new, level="subject", interval="confidence"),
        "compare_subjects": lambda: fit.compare_subjects(first, last, term),
        "hypothesis": lambda: fit.hypothesis(f"`{design.coef[-1]}` = 0"),
        "compare": lambda: hl.compare(fit).table,
    }
    if not isinstance(fit, hl.GEEFit):
        asked["criterion"] = lambda: fit.to_datatree(draws=5, chains=1, seed=1) if not fit.has_draws else fit.datatree
    if varying:
        asked |= {"effects": lambda: fit.effects(varying[0], n=4), "slopes": lambda: fit.slopes(varying[0])}
    if fit.has_draws:
        names = list(fit.datatree["posterior"].data_vars)
        asked |= {f"draws({n})": lambda n=n: fit.draws(n) for n in [*names, "D", "corr_b", "nothing"]}
        asked |= {
            "log_likelihood(subject)": lambda: fit.log_likelihood("subject"),
            "extend": lambda: fit.extend(draws=10, seed=1).datatree,
            "posterior_predictive": lambda: fit.posterior_predictive(draws=5, seed=1),
            "prior_predictive": lambda: fit.prior_predictive(draws=5, seed=1),
            "variance_components(0.5)": lambda: fit.variance_components(0.5),
            "predict(draws)": lambda: fit.predict(new, "population", kind="draws"),
        }
    if fit.has_likelihood:
        asked |= {
            "criterion_function": lambda: fit.criterion_function(fit.optimum.lam * 0.9),
            "summary(satterthwaite)": lambda: fit.summary(df="satterthwaite"),
            "optimum": lambda: fit.optimum.others,
            "bootstrap": lambda: fit.bootstrap(2, seed=1, progressbar=False).draws,
            "search": lambda: vars(fit.optimum.search) if fit.optimum.search else None,
        }
    return asked


def exact_design(design: Any) -> Any:
    names = ("X", "Z", "X1", "W", "y", "offset", "subject_index", "coef_level1", "term_level1", "variance_fitted")
    names += () if design.is_gaussian else ("trials",)
    arrays = {name: exact(getattr(design, name)) for name in names}
    order = {name: str(getattr(design, name).flags.c_contiguous) for name in names[:4]}
    frame = {c: f"{design.frame[c].dtype} {exact(design.frame[c])}" for c in design.frame}
    said = [repr(design.hierarchy), repr(design.hierarchy.fixed_terms), repr(design.blocks), design.covariance]
    said += [repr(design.residual), repr(design.residual_variance), repr(design.coef), repr(design.level1)]
    said += [] if design.is_gaussian else [repr(design.outcome), design.rows.note, repr(design.rows.categories)]
    return {
        **arrays,
        **order,
        **frame,
        "said": said,
        "dtypes": repr(design.terms.dtypes),
        "n": str(design.n_dropped),
    } | {
        "subjects": exact(design.subjects),
        "levels": repr(design.levels),
    }


def answers(fit: Any, rows: pd.DataFrame | None = None, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Every public property, every method that can be called without arguments, and those of `with_arguments`."""
    asked = with_arguments(fit, fit.design.frame if rows is None else rows)
    found = {name: ask(call) for name, call in asked.items() if name not in without}
    for name in dir(fit):
        if name.startswith(("_", "plot")) or name in INNER | HEAVY | without:
            continue
        method = getattr(type(fit), name, None)
        if callable(method):
            needed = [p for p in list(inspect.signature(method).parameters.values())[1:] if p.default is p.empty]
            if any(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in needed):
                continue
            found[f"{name}()"] = ask(lambda name=name: getattr(fit, name)())
        else:
            found[name] = ask(lambda name=name: getattr(fit, name))
    return found


def differing(was, now, path=""):
    """Paths at which two trees of answers differ, with both."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [d for k in was.keys() | now.keys() for d in differing(was.get(k), now.get(k), f"{path}/{k}")]
    return [] if was == now else [f"{path}\n    was {str(was)[:300]}\n    now {str(now)[:300]}"]


if __name__ == "__main__":
    import json

    import saved_fits  # noqa: F401  the structure and the prior of a user

    folder, *left_out = sys.argv[1:]
    folder = Path(folder)
    loaded = {p.stem: answers(hl.load_fit(p), without=frozenset(left_out)) for p in sorted(folder.glob("*.nc"))}
    (folder / "answers.json").write_text(json.dumps(loaded), encoding="utf-8")
