"""A posterior that was sampled elsewhere, on the explicit model or on Bambi's, as the record of an estimator.

Draws of the named variables are taken where the tree has them; what is absent is computed from the free variables, as
the model's Deterministics do. Labels of coefficients, terms and subjects decide what belongs where, not their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.bambi import draws_of_bambi
from hierlmm.bayes.explicit import draws_of_model
from hierlmm.bayes.explicit_residual import residual_draws, sd_name
from hierlmm.bayes.given import refuse_impossible, refuse_other_data, refuse_other_statistics
from hierlmm.bayes.record import PosteriorRecord, posterior_record
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.route import family_conflicts, prior_conflicts, refuse_fitted_values
from hierlmm.bayes.tree import aligned, corr_pairs, dim_of_D, dispersion_variables, matrices
from hierlmm.design.bound import distance_notes
from hierlmm.design.design import Design
from hierlmm.design.questions import row_order_messages
from hierlmm.errors import ArgumentError, DataError, HierlmmError
from hierlmm.frames import shorten

SEE = "docs, page 'Saving fits', section 'A posterior from elsewhere'"
MADE = ("posterior", "sample_stats", "observed_data", "constant_data", "log_likelihood", "log_prior", "residual")
"""Groups that a record makes itself, or that are taken over in their own way."""


def record_of_tree(design: Design, priors: ResolvedPriors, tree: Any) -> PosteriorRecord:
    """Make the record of a posterior that was sampled elsewhere; see `hierlmm.fit.saved.from_datatree`.

    Raises
    ------
    ArgumentError, DataError
        If it is no tree, or not one of this model.
    """
    import xarray as xr

    if not isinstance(tree, xr.DataTree) or "posterior" not in tree.children:
        has = f"with groups {shorten(tree.children) or '(none)'}" if isinstance(tree, xr.DataTree) else ""
        received = f"from_datatree with a tree {has or f'of type {type(tree).__name__}'}"
        remedy = "pass what pm.sample(), nutpie.sample() or Bambi's fit() returned (from a file: arviz.from_netcdf)"
        raise ArgumentError(received, "it has no group 'posterior'", remedy, SEE)
    refuse_fitted_values(design) if design.is_gaussian else None
    posterior = tree["posterior"].to_dataset()
    if not {"chain", "draw"} <= set(posterior.dims):
        reason, remedy = "its draws have no dimensions 'chain' and 'draw'", "pass the tree as the sampler returned it"
        raise DataError("from_datatree", reason, remedy, SEE)
    refuse_other_data(design, tree, "from_datatree")
    statistics = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else None
    if statistics is not None:
        refuse_other_statistics(posterior, statistics, "from_datatree")
    own = tree.attrs.get("library") == "hierlmm"
    attrs = {str(k): v for k, v in {**({} if own else posterior.attrs), **tree.attrs}.items()}
    if any("|" in str(name) and str(name).endswith("_sigma") for name in posterior):
        draws, formula = _of_model(lambda: draws_of_bambi(design, priors, posterior), posterior)
        refuse_impossible(draws, "from_datatree", dispersion_variables(design))
        told = {"estimator": "Bambi", "bambi_formula": formula, **_told(attrs, posterior, "non-centred")}
        return posterior_record(design, priors, draws, statistics, told)
    draws, residual = _of_model(
        lambda: _draws(design, priors, tree, aligned(design, posterior, "from_datatree")), posterior
    )
    refuse_impossible(draws, "from_datatree", dispersion_variables(design))
    _refuse_disorder(design, draws)
    groups = {name: node.to_dataset() for name, node in tree.children.items() if own and name not in MADE}
    centred = any(name in posterior for name in ("random_coef", "random_coef_centered")) or (
        bool(design.term) and "z" not in posterior
    )
    told = attrs if own else _told(attrs, posterior, "centred" if centred else "non-centred")
    conflicts = prior_conflicts if design.is_gaussian else family_conflicts
    notes = (*conflicts(design, priors), *row_order_messages(design), *distance_notes(design))
    return posterior_record(
        design, priors, draws, statistics, {"estimator": "NUTS", **told}, groups=groups | residual, notes=notes
    )


def _refuse_disorder(design: Design, draws: Mapping[str, FloatArray]) -> None:
    """Refuse thresholds that do not ascend from zero."""
    names = dispersion_variables(design)
    if design.family.name == "ordinal" and np.any(np.diff([draws[name] for name in names], axis=0) <= 0.0):
        reason = "thresholds ascend, and not all draws of these do"
        raise DataError(
            f"from_datatree with draws of {', '.join(names)}", reason, "pass the tree as it was sampled", SEE
        )


def _told(attrs: Mapping[str, Any], posterior: Any, parametrization: str) -> dict[str, Any]:
    """What is known of the sampler, in the words of the other records."""
    sizes = {"draws": int(posterior.sizes["draw"]), "chains": int(posterior.sizes["chain"])}
    tune = {"tune": int(attrs["tuning_steps"])} if "tuning_steps" in attrs else {}
    library = {"sampled_by": str(attrs["inference_library"])} if "inference_library" in attrs else {}
    return {"sampler": "explicit", "parametrization": parametrization, **sizes, **tune, **library}


def _of_model(make: Any, posterior: Any) -> Any:
    """What ``make`` makes; a variable that it misses, or of another shape, is refused."""
    try:
        return make()
    except HierlmmError:
        raise
    except KeyError as error:
        reason = f"it has no variable {error.args[0]!r}, nor what it follows from"
    except (ValueError, IndexError, TypeError) as error:
        reason = f"its variables have other shapes than those of the model: {str(error)[:200]}"
    received = f"from_datatree with a posterior of {shorten(map(str, posterior.data_vars))}"
    remedy = "pass the model that was sampled, and a tree with all its free variables (do not leave out var_names); "
    remedy += "of model.to_pymc(marginalized=True) use hl.recover(model, tree)"
    raise DataError(received, reason, remedy, SEE)


def _draws(
    design: Design, priors: ResolvedPriors, tree: Any, raw: dict[str, FloatArray]
) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    """Draws under the package's names, and the group of the residual parameters."""
    refuse_impossible(raw, "from_datatree")
    without_b = "b" not in raw and tree.attrs.get("library") == "hierlmm"  # a summary of b, or nothing of it
    level1 = dispersion_variables(design)
    asked = {
        "beta": bool(design.coef),
        **dict.fromkeys(level1, True),
        "sd_b": bool(design.term),
        "corr_b": bool(len(corr_pairs(design)[0])),
        "b": bool(design.term) and not without_b,
    }
    wanted = {name for name, is_asked in asked.items() if is_asked}
    found = {name: raw[name] for name in wanted if name in raw}
    if "corr_b" in found and found["corr_b"].ndim == 4:  # a matrix
        found["corr_b"] = found["corr_b"][(..., *corr_pairs(design))]
    if design.term and {"sd_b", "corr_b"} & wanted <= found.keys():
        found["corr_b"], found["D"] = matrices(design, _by_pair(design, found))
    if missing := sorted(wanted - found.keys()):
        if design.is_gaussian and not {"sigma", sd_name(design)} & raw.keys():
            raise KeyError(sd_name(design))
        try:
            found = draws_of_model(design, priors, raw) | found
        except KeyError as error:
            if not found.keys() - set(level1):
                raise
            # Named variables but some: those are missing, not the free ones that they could be made of.
            raise KeyError(", ".join(missing)) from error
    if not design.has_residual_structure:
        return found, {}
    if "residual" in tree.children:  # a tree of this package
        own = {name: raw[name] for name in ("residual_correlation", "residual_variance") if name in raw}
        return found | own, {"residual": tree["residual"].to_dataset()}
    extra, group = residual_draws(design, raw)
    return found | extra, {"residual": group}


def _by_pair(design: Design, found: Mapping[str, FloatArray]) -> Any:
    """The SDs, and the correlations by pair, as a dataset."""
    import xarray as xr

    dims = {"sd_b": dim_of_D(design), "corr_b": "pair"}
    return xr.Dataset({name: (("chain", "draw", dims[name]), found[name]) for name in dims if name in found})
