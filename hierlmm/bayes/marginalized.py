"""The marginal likelihood in PyMC: alone, for models of the user's own, and the whole model with its priors.

    y | D, σ, η ~ N(offset + X m, V + X P⁻¹ X'),    V = Z D Z' + Σ(σ, η),    β ~ N(m, P⁻¹)

b is integrated out, and β where its prior is normal. What a sampler meets are the covariance parameters, four of them
for an intercept and a slope, however many subjects there are; any prior of these will do, and any sampler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.distribution import Prior, as_pymc_variable
from hierlmm.bayes.distributions import ScaledBeta, Uniform
from hierlmm.bayes.explicit import fixed_effects, pymc_module, random_covariance_variables
from hierlmm.bayes.explicit_residual import log_ratio, sd_name, variable_name
from hierlmm.bayes.marginal_likelihood import marginal_likelihood
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import model_coords
from hierlmm.covariance.parameters import Decay, Parameter
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.likelihood.residual_rows import ResidualRows, residual_rows
from hierlmm.options import checked

if TYPE_CHECKING:
    import pymc as pm

SEE = "docs, page 'The collapsed posterior'"


@dataclass(frozen=True, eq=False)
class MarginalLogp:
    """Marginal log-likelihood of a model as a PyTensor expression of its covariance parameters.

    Called inside a PyMC model, or anywhere in a graph; compiled in every backend, with an exact gradient.

    Attributes
    ----------
    design : Design
    priors : ResolvedPriors
        Whose normal prior of β is integrated over.
    """

    design: Design
    priors: ResolvedPriors

    @cached_property
    def rows(self) -> ResidualRows | None:
        """The residual structure; None where residuals are independent with equal variance."""
        return residual_rows(self.design) if self.design.has_residual_structure else None

    @cached_property
    def integrated(self) -> Any:
        """The operation with β integrated out."""
        return density(self.design, self.priors)

    @cached_property
    def given(self) -> Any:
        """The operation with β given."""
        return density(self.design, None)

    def __call__(
        self, sigma: Any, factor: Any = None, *, beta: Any = None, residual: Mapping[str, Any] | None = None
    ) -> Any:
        """Log p(y | D, σ), for ``pm.Potential``.

        Parameters
        ----------
        sigma : variable
            Residual standard deviation, in units of the response.
        factor : variable, optional
            Of D, the covariance of the random effects in the order of ``design.term``: a matrix F (q, q) with
            D = F F', a Cholesky factor for example, or the standard deviations (q,) of uncorrelated effects. Absent for
            a model without random effects.
        beta : variable (p,), optional
            Fixed effects in the order of ``design.coef``; integrated over their normal prior by default.
        residual : mapping of str to variable, optional
            Parameters of the residual structure, by the names that ``model.priors`` shows.

        Returns
        -------
        variable
            The log-likelihood, a number.

        Raises
        ------
        SpecificationError
            If something is absent that the model has, or given that it has not.
        """
        import pytensor.tensor as pt

        values, sd = _residual_values(self.rows, residual or {}), sigma
        self._check(factor, beta)
        if self.rows is not None and self.rows.variance is not None and self.rows.variance.spec.centred:
            sd = sigma * pt.exp(_shift(self.rows, values))
        return expression(self.integrated if beta is None else self.given, self.rows, sd, factor, beta, values)

    def _check(self, factor: Any, beta: Any) -> None:
        if (factor is None) == bool(self.design.term):
            received = "no factor of D" if factor is None else "a factor of D"
            reason = f"the model has the random effects {', '.join(self.design.term)}"
            remedy = "give factor=, a matrix F with D = F F' or a vector of standard deviations"
            if factor is not None:
                reason, remedy = "the model has no random effects", "leave factor out"
            raise SpecificationError(received, reason, remedy, SEE)
        if beta is None and not self.priors.beta_is_normal:
            reason = "a fixed effect has a prior that is not normal, so beta cannot be integrated out"
            raise SpecificationError("no beta", reason, "give beta=, a variable of your model", SEE)


def density(design: Design, priors: ResolvedPriors | None, uncentering: FloatArray | None = None) -> Any:
    """Make the operation; see `marginal_likelihood`."""
    from hierlmm.bayes.marginal_op import MarginalDensity

    return MarginalDensity(marginal_likelihood(design, priors, uncentering))


def expression(operation: Any, rows: ResidualRows | None, sd: Any, factor: Any, beta: Any, values: list[Any]) -> Any:
    """The log-likelihood from the SD of the whitened rows and the residual parameters in order."""
    import pytensor.tensor as pt

    F = pt.atleast_1d(pt.as_tensor_variable(np.empty((0, 0)) if factor is None else factor))
    parameters = () if rows is None else rows.parameters
    eta = [_unconstrained(p, pt.as_tensor_variable(v)) for p, v in zip(parameters, values, strict=True)]
    nothing = np.empty(0)
    F = pt.diag(F) if F.ndim == 1 else F
    return operation(F, nothing if beta is None else beta, sd, pt.stack(eta) if eta else nothing)[0]


@checked
def marginal_logp(model: Any) -> MarginalLogp:
    """Marginal log-likelihood of a model, for PyMC models of one's own: b integrated out, and β unless it is given.

    Parameters
    ----------
    model : TwoLevelModel, MarginalModel or Design
        Its priors of β are used, the others are yours to state.

    Returns
    -------
    MarginalLogp
        To be called with variables; its result goes into ``pm.Potential``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (days || subject)", hl.load_dataset("sleepstudy"))
    >>> logp = hl.marginal_logp(model)
    >>> round(float(logp(sigma=25.6, factor=[24.7, 5.9]).eval()), 2)
    -882.54
    """
    design = model if isinstance(model, Design) else model.design
    return MarginalLogp(design, resolve_priors(None, design) if isinstance(model, Design) else model.priors)


def build_marginalized_model(design: Design, priors: ResolvedPriors) -> pm.Model:
    """The model in PyMC with b integrated out, and β where its prior is normal.

    Parameters
    ----------
    design : Design
    priors : ResolvedPriors

    Returns
    -------
    pymc.Model
        Its free variables are covariance parameters, with the names and dimensions of `build_pymc_model`; those of β
        beside them where their prior is not normal. The likelihood is a potential.
    """
    pm = pymc_module()
    left_out = ("subject", "obs", "level1")
    with pm.Model(coords={k: v for k, v in model_coords(design).items() if k not in left_out}) as model:
        rows = residual_rows(design) if design.has_residual_structure else None
        beta = None if priors.beta_is_normal else fixed_effects(design, priors)
        factor = random_covariance_variables(design, priors, fold=True) if design.term else None
        sd = as_pymc_variable(sd_name(design), [priors.sigma], None, ["sigma"])
        values = []
        if rows is not None:
            values = [_declare(p, prior) for p, prior in zip(rows.parameters, priors.residual, strict=True)]
            if sd_name(design) != "sigma" and _has_shift(rows):
                pm.Deterministic("sigma", sd * pm.math.exp(-_shift(rows, values)))
        operation = density(design, priors if beta is None else None, priors.random_uncentering)
        pm.Potential("marginal_likelihood", expression(operation, rows, sd, factor, beta, values))
    return model


def unit_of(parameter: Parameter, prior: Prior) -> str:
    """Name of the free variable of a residual parameter: its own, or that of its place between two ends."""
    return variable_name(parameter) + ("_unit" if isinstance(prior, ScaledBeta) else "")


def _declare(parameter: Parameter, prior: Prior) -> Any:
    """A residual parameter with its prior, cut off at the ends of its range."""
    import pymc as pm

    name, (low, high) = variable_name(parameter), prior.support
    lower, upper = max(low, parameter.lower), min(high, parameter.upper)
    if isinstance(prior, ScaledBeta):
        if (lower, upper) != (low, high):
            reason = f"its range is wider than that of {parameter.name}, {parameter.lower:g} to {parameter.upper:g}"
            remedy = "state it between these ends, or use another prior"
            raise NotAvailableError(f"{parameter.name} ~ {prior} in PyMC", reason, remedy, SEE)
        unit = as_pymc_variable(unit_of(parameter, prior), [prior], None, [parameter.name])
        return pm.Deterministic(name, low + (high - low) * unit)
    if (lower, upper) == (low, high):
        return as_pymc_variable(name, [prior], None, [parameter.name])
    if isinstance(prior, Uniform):
        return as_pymc_variable(name, [Uniform(lower, upper)], None, [parameter.name])
    family, values = prior.pymc()
    ends = {"lower": lower if lower > low else None, "upper": upper if upper < high else None}
    return pm.Truncated(name, getattr(pm, family).dist(**values), **ends)


def _residual_values(rows: ResidualRows | None, given: Mapping[str, Any]) -> list[Any]:
    """The residual parameters in order."""
    names = [] if rows is None else [p.name for p in rows.parameters]
    if set(names) != set(given):
        received = f"residual parameters {', '.join(given) or '(none)'}"
        reason = f"those of the model are {', '.join(names) or '(none)'}"
        remedy = "give residual={name: variable, ...} with these names" if names else "leave residual out"
        raise SpecificationError(received, reason, remedy, SEE)
    return [given[name] for name in names]


def _unconstrained(parameter: Parameter, value: Any) -> Any:
    """η of a value, as `Parameter.unconstrained` in a graph."""
    import pytensor.tensor as pt

    if isinstance(parameter, Decay):
        return -pt.log(-pt.log(value) * parameter.unit)
    if np.isinf(parameter.lower):
        return value / parameter.unit
    if np.isinf(parameter.upper):
        return pt.log((value - parameter.lower) / parameter.unit)
    return pt.log(value - parameter.lower) - pt.log(parameter.upper - value)


def _has_shift(rows: ResidualRows) -> bool:
    """Whether log(SD of the average row / σ) is written as a graph."""
    return rows.variance is None or rows.variance.spec._linear


def _shift(rows: ResidualRows, values: list[Any]) -> Any:
    if not _has_shift(rows):
        assert rows.variance is not None
        received = f"{rows.variance.spec} and sigma"
        reason = "its average over the rows is not linear in its parameters"
        remedy = "use model.to_pymc(marginalized=True), where the SD of the average row is the variable"
        raise NotAvailableError(received, reason, remedy, SEE)
    return log_ratio(rows, values[rows.n_correlation :])[1]
