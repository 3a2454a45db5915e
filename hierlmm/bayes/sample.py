"""The explicit hierarchy as a posterior, and NUTS on it: compile the graph of `explicit`, sample, rename.

The density is that of all parameters together, ``p(y | β, b, σ) p(b | D) p(β) p(D) p(σ)``, b or its standardised z.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hierlmm.arrays import FloatArray
from hierlmm.bayes.explicit import build_pymc_model, draws_of_model
from hierlmm.bayes.explicit_factors import build_factor_model, determined_factors, factor_draws_of_model
from hierlmm.bayes.explicit_residual import residual_draws
from hierlmm.bayes.nuts import Settings, run
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.bayes.record import PosteriorRecord, posterior_record
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design


@dataclass(frozen=True, eq=False)
class ExplicitPosterior:
    """The posterior of everything at once, as PyMC writes it: a `Posterior`.

    Attributes
    ----------
    design : Design
    priors : ResolvedPriors
    centered : bool
        See `build_pymc_model`.
    """

    design: Design
    priors: ResolvedPriors
    centered: bool = False

    @cached_property
    def model(self) -> Any:
        """The PyMC model."""
        if self.design.has_several_factors:
            return build_factor_model(self.design, self.priors, self.centred_factors)
        return build_pymc_model(self.design, self.priors, centered=self.centered)

    @cached_property
    def centred_factors(self) -> tuple[str, ...]:
        """Of several grouping factors those whose random effects are sampled as they are."""
        return determined_factors(self.design) if self.design.has_several_factors else ()

    @property
    def names(self) -> tuple[str, ...]:
        """The free variables."""
        return tuple(v.name for v in self.model.free_RVs)

    @cached_property
    def _function(self) -> Any:
        function = self.model.logp_dlogp_function(ravel_inputs=True)
        function.set_extra_values({})
        return function

    def log_density(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Log density of PyMC's unconstrained values, one after the other, and its gradient."""
        value, gradient = self._function(theta)
        return float(value), gradient

    def recover(
        self, draws: Mapping[str, FloatArray], rng: Any = None, random_effects: str = "draws"
    ) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """See `Posterior.recover`; draws are those of the free variables, by name, and nothing is left to chance."""
        if self.design.has_several_factors:
            return factor_draws_of_model(self.design, self.priors, draws), {}
        groups = {"residual": residual_draws(self.design, draws)[1]} if self.design.has_residual_structure else {}
        return draws_of_model(self.design, self.priors, draws), groups


def sample_explicit(
    design: Design,
    priors: ResolvedPriors | Priors | str | None = None,
    *,
    centered: bool = False,
    max_treedepth: int = 10,
    log_likelihood: bool | None = None,
    notes: tuple[str, ...] = (),
    why: str = "",
    **settings: Any,
) -> PosteriorRecord:
    """Sample the posterior of the explicit hierarchy with NUTS (nutpie).

    Parameters
    ----------
    design : Design
    priors : ResolvedPriors, Priors, "bambi" or None
    centered : bool
        See `build_pymc_model`.
    max_treedepth : int
        A trajectory has at most ``2**max_treedepth`` steps.
    log_likelihood : bool, optional
        Whether to store the pointwise conditional log-likelihood; by default if it has at most 5 million values.
    notes : tuple of str
        What else must be known before the fit is used.
    why : str
        Why the explicit hierarchy is sampled, where there are several grouping factors.
    **settings
        Of `Settings`.

    Raises
    ------
    SpecificationError
        If a setting is out of range.

    Warns
    -----
    FitWarning
        For everything about convergence that looks wrong.
    """
    chosen = Settings(**settings)
    resolved = resolve_priors(priors, design)
    started = time.perf_counter()
    posterior = ExplicitPosterior(design, resolved, centered)
    model = posterior.model
    import nutpie

    compiled = nutpie.compile_pymc_model(model, var_names=list(posterior.names))
    ready = time.perf_counter()
    # draw_diag has twice the effective draws of the default here for the smallest SDs
    tree = run(compiled, chosen, adaptation="draw_diag", maxdepth=max_treedepth)
    done = time.perf_counter()
    raw = {str(name): values.to_numpy() for name, values in tree["posterior"].to_dataset().data_vars.items()}
    attrs = {
        "estimator": "NUTS",
        "sampler": "explicit",
        "parametrization": "by factor" if design.has_several_factors else "centred" if centered else "non-centred",
        **chosen.attrs,
        "compile_seconds": round(ready - started, 3),
        "sampling_seconds": round(done - ready, 3),
    }
    if design.has_several_factors:
        attrs |= {"centred": ", ".join(posterior.centred_factors), "why": why}
    draws, groups = posterior.recover(raw)
    statistics = tree["sample_stats"].to_dataset()
    return posterior_record(
        design, resolved, draws, statistics, attrs, log_likelihood=log_likelihood, groups=groups, notes=notes
    )
