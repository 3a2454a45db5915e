"""The marginal likelihood in PyMC: against dense matrices, finite differences and the compiled posterior."""

from __future__ import annotations

import cloudpickle
import numpy as np
import pytest
from collapsed_cases import CASES, make
from differences import relative_central
from priors_by_definition import prior_of_beta
from residual_by_definition import where_ratio_is_one
from scipy import stats
from structures_by_definition import (
    CORRELATIONS,
    IN_NO_ORDER,
    VARIANCES,
    WITH_EFFECTS,
    build,
    second_definition,
)
from textbook import marginal_covariance

import hierlmm as hl
from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.collapsed_residual import posterior_of, residual_posterior
from hierlmm.bayes.distributions import ScaledBeta
from hierlmm.bayes.explicit import of_groups, pymc_module
from hierlmm.bayes.marginal_likelihood import marginal_likelihood
from hierlmm.bayes.marginalized import MarginalLogp, build_marginalized_model, marginal_logp
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.bayes.tree import corr_pairs
from hierlmm.errors import NotAvailableError, SpecificationError


def uncompiled(inputs, outputs):
    """A function of a graph by its operations' own Python code."""
    pymc_module()
    import pytensor
    from pytensor.compile.mode import Mode

    return pytensor.function(inputs, outputs, mode=Mode(linker="py", optimizer=None), on_unused_input="ignore")


def as_function(logp, with_beta, mode=uncompiled):
    """Value and gradients of (F, β, σ, natural residual parameters)."""
    pymc_module()
    import pytensor.tensor as pt

    design = logp.design
    F, beta, sigma, rest = pt.dmatrix(), pt.dvector(), pt.dscalar(), pt.dvector()
    names = [] if logp.rows is None else [p.name for p in logp.rows.parameters]
    value = logp(
        sigma,
        F if design.term else None,
        beta=beta if with_beta else None,
        residual={name: rest[k] for k, name in enumerate(names)},
    )
    wanted = [v for v, used in ((F, design.term), (beta, with_beta), (sigma, True), (rest, names)) if used]
    f = mode([F, beta, sigma, rest], [value, *pt.grad(value, wanted)])

    def evaluate(F, beta, sigma, rest):
        value, *slopes = f(F, beta, sigma, rest)
        return float(value), np.concatenate([np.ravel(s) for s in slopes])

    return evaluate


def check(evaluate, dense, parts, used):
    """Value against the definition and gradient against differences at one point: parts are F, β, σ and the rest."""
    value, slope = evaluate(*parts)
    assert value == pytest.approx(dense(*parts), rel=1e-9, abs=1e-7)
    sizes = [np.size(p) for p in parts]
    flat = np.concatenate([np.ravel(p) for p in parts])

    def at(x):
        F, beta, sigma, rest = np.split(x, np.cumsum(sizes)[:-1])
        return evaluate(F.reshape(parts[0].shape), beta, sigma[0], rest)[0]

    numeric = relative_central(at, flat, 3e-4)
    numeric = np.concatenate([g for g, u in zip(np.split(numeric, np.cumsum(sizes)[:-1]), used, strict=True) if u])
    np.testing.assert_allclose(slope, numeric, rtol=1e-5, atol=2e-6 * max(1.0, np.abs(slope).max()))


def dense_density(design, priors, residual=None):
    """log p(y | D, σ) with β given or integrated over its prior, N × N."""

    def of(F, beta, sigma):
        V = marginal_covariance(design, F @ F.T, sigma, residual)
        mean = design.offset + (design.X @ beta if len(beta) else 0.0)
        if not len(beta) and design.coef:
            m, covariance = prior_of_beta(design, priors)
            mean, V = mean + design.X @ m, V + design.X @ covariance @ design.X.T
        return stats.multivariate_normal(mean, V, allow_singular=False).logpdf(design.y)

    return of


WITHOUT_BETA = "nothing fixed"


@pytest.mark.parametrize(
    ("case", "given"),
    [(c, g) for c in CASES if "=" not in c and "(" not in c for g in (False, True) if not (g and c == WITHOUT_BETA)],
)
def test_likelihood_and_gradient_are_those_of_the_definition(irregular, case, given):
    """At full, singular and vanishing factors of D, lower triangular or not."""
    design, priors = make(irregular, case)
    evaluate = as_function(MarginalLogp(design, priors), given)
    dense = dense_density(design, priors)
    rng, q, p = np.random.default_rng(3), len(design.term), len(design.coef)
    full = rng.normal(scale=3.0, size=(q, q))
    singular = np.tril(full) * (np.arange(q) < q - 1)  # its last column is zero
    zero_sd = full * (np.arange(q) > 0)[:, None]
    for F in (full, np.tril(full), np.diag(np.diag(full)), singular, zero_sd, np.zeros((q, q)), 40.0 * full):
        beta = rng.normal(size=p) if given else np.empty(0)
        parts = (F, beta, np.exp(rng.normal(1.0, 0.5)), np.empty(0))
        check(evaluate, lambda F, beta, sigma, _: dense(F, beta, sigma), parts, (True, given, True, False))


@IN_NO_ORDER
@pytest.mark.parametrize(("pair", "q"), WITH_EFFECTS)
def test_with_a_residual_structure(thirty, pair, q):
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], q).design
    logp, rng, given = marginal_logp(design), np.random.default_rng(5), q == 1
    parameters = () if logp.rows is None else logp.rows.parameters
    eta = np.array([p.unconstrained(p.start) for p in parameters]) + rng.normal(scale=0.2, size=len(parameters))
    residual = second_definition(pair, design, {} if logp.rows is None else logp.rows.report(eta))
    rest = np.array([p.natural(e) for p, e in zip(parameters, eta, strict=True)])
    evaluate = as_function(logp, given)
    F = np.tril(rng.normal(size=(len(design.term),) * 2))
    beta = np.r_[50.0, rng.normal(size=len(design.coef) - 1)] if given else np.empty(0)
    sigma = where_ratio_is_one(design, 2.3, residual)

    def dense(F, beta, sigma, _):
        return dense_density(design, logp.priors, residual)(F, beta, sigma)

    check(evaluate, dense, (F, beta, sigma, rest), (q > 0, given, True, len(rest) > 0))


@pytest.mark.parametrize("own", [False, True])
def test_compiled_code_gives_the_same_numbers(thirty, own):
    """numba's, through our compiled density, and through Python for a structure of one's own; also of a copy."""
    import pytensor
    from pytensor.compile.mode import get_mode

    design = build(thirty, CORRELATIONS["Damped" if own else "AR1, nugget"][0], None, 1).design
    logp = cloudpickle.loads(cloudpickle.dumps(marginal_logp(design)))

    def numba_mode(inputs, outputs):
        return pytensor.function(inputs, outputs, mode=get_mode("NUMBA"))

    rest = np.array([p.start for p in logp.rows.parameters])
    parts = (np.array([[1.3]]), np.linspace(-1.0, 50.0, len(design.coef))[::-1], 2.1, rest)
    in_numba = as_function(logp, True, numba_mode)
    python, compiled = as_function(logp, True, uncompiled)(*parts), in_numba(*parts)
    assert compiled[0] == pytest.approx(python[0], rel=1e-12)
    np.testing.assert_allclose(compiled[1], python[1], rtol=1e-10)
    value, slope = in_numba(*parts[:2], np.nan, rest)  # no density: no error
    assert not np.isfinite(value)
    assert not np.any(np.isfinite(slope[-3:-2]) & (slope[-3:-2] != 0.0))


# --- the whole model -------------------------------------------------------------------------------------------------


def random_values(model, n):
    """Log densities (no Jacobians) and all named variables at random points."""
    variables = [*model.free_RVs, *model.deterministics]
    inputs = [model.rvs_to_values[v] for v in model.free_RVs]
    f = uncompiled(inputs, [model.logp(jacobian=False), *model.replace_rvs_by_values(variables)])
    rng, start = np.random.default_rng(1), model.initial_point(0)
    for _ in range(n):
        logp, *values = f(*(start[v.name] + rng.normal(scale=0.3, size=np.shape(start[v.name])) for v in inputs))
        yield float(logp), {v.name: np.asarray(x) for v, x in zip(variables, values, strict=True)}


def theta_of(posterior, priors, values):
    """θ of the compiled posterior from named values, and the log Jacobian of the values by θ."""
    terms, by_group = posterior.design.term, of_groups("sd_b_common", posterior.design)
    names = by_group if by_group[0] in values else [n for n in ("sd_b_centered", "sd_b") if n in values][:1]
    sd = np.concatenate([np.ravel(values[n]) for n in names]) if terms else np.empty(0)
    places = ["corr_b_partial", *of_groups("corr_b_unit", posterior.design)]
    p = np.concatenate([np.ravel(values[n]) for n in places if n in values] or [[]])
    z = np.log(p) - np.log1p(-p)
    log_jacobian = np.sum(np.log(p * (1.0 - p)))
    if "corr_b_partial" in values:
        z, log_jacobian = z / 2.0, log_jacobian + len(p) * np.log(2.0)
    sigma = values["sigma_average_row"] if "sigma_average_row" in values else values["sigma"]
    theta = [*np.log(sd), *z, np.log(sigma / posterior.products.scaling.y_scale)]
    log_jacobian += np.sum(np.log(sd)) + np.log(sigma)
    for parameter, prior in getattr(posterior, "residual", ()):
        value = float(values["residual_" + parameter.name.replace("/", ":")])
        theta.append(parameter.unconstrained(value))
        log_jacobian += np.log(parameter.slope(theta[-1]))
        if isinstance(prior, ScaledBeta):
            log_jacobian -= np.log(prior.upper - prior.lower)
    return np.array(theta), log_jacobian


def check_density(design, priors, exact=True):
    model = build_marginalized_model(design, priors)
    structured = design.has_residual_structure or not design.term
    posterior = (residual_posterior if structured else collapsed_posterior)(design, priors, signed=False)
    differences = []
    for logp, values in random_values(model, 3):
        theta, log_jacobian = theta_of(posterior, priors, values)
        differences.append(posterior.log_density(theta)[0] - logp - log_jacobian)
    assert np.ptp(differences) < 1e-9 * abs(logp)
    if exact:
        np.testing.assert_allclose(differences, 0.0, atol=1e-9 * abs(logp))
    return model


@pytest.mark.parametrize("case", CASES)
def test_the_model_has_the_density_of_the_compiled_posterior(irregular, case):
    design, priors = make(irregular, case)
    model = check_density(design, priors)
    free = {v.name.split("[")[0] for v in model.free_RVs}
    assert free <= {"sd_b", "sd_b_centered", "sd_b_common", "corr_b_partial", "corr_b_unit", "sigma"}
    (pairs,) = {len(model.coords["pair"]), len(corr_pairs(design)[0])}
    assert ("corr_b" in model.named_vars) == (pairs > 0)


@pytest.mark.parametrize(
    ("pair", "chosen", "exact"),
    [
        (("AR1", "equal"), {}, True),
        (("AR1", "equal"), {"rho": ScaledBeta(3.0, -1, 1)}, True),
        (("AR1", "equal"), {"rho": hl.Normal(0.2, 0.3)}, False),
        (("CompoundSymmetry", "equal"), {"rho": hl.Uniform(-0.3, 0.2)}, True),
        (("CAR1", "equal"), {"phi": hl.Uniform(0.1, 0.7)}, True),
        (("Exponential, nugget", "equal"), {"range": hl.Gamma(2, 1)}, True),
        (("Toeplitz", "VarPower"), {}, True),
        (("Unstructured", "VarIdent"), {}, True),
        (("independent", "VarIdent"), {"ratio(b/a)": hl.Uniform(0.5, 3)}, True),
        (("independent", "VarConstPower"), {}, True),
    ],
)
def test_the_model_with_a_residual_structure(thirty, pair, chosen, exact):
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], 1).design
    check_density(design, resolve_priors(Priors(residual=chosen or None), design), exact)


def test_a_model_without_random_effects(thirty):
    design = build(thirty, CORRELATIONS["Gaussian"][0], None, 0).design
    model = check_density(design, resolve_priors(None, design))
    assert [v.name for v in model.free_RVs] == ["sigma", "residual_range"]


def test_a_beta_that_is_not_normal_stays(irregular):
    """Its prior and the likelihood given β add up."""
    design, _ = make(irregular, "slope")
    priors = resolve_priors(Priors(beta={"t": hl.StudentT(4, 0, 3)}), design)
    model = build_marginalized_model(design, priors)
    assert {"beta_centered[Intercept]", "beta_centered[t]"} <= {v.name for v in model.free_RVs}
    for logp, values in random_values(model, 2):
        sd, corr = values["sd_b"], np.eye(2)
        corr[0, 1] = corr[1, 0] = values["corr_b"][0]
        expected = dense_density(design, priors)(
            np.diag(sd) @ np.linalg.cholesky(corr), values["beta"], float(values["sigma"])
        )
        expected += priors.logpdf(values["beta"], sd, corr, float(values["sigma"]), design.blocks)
        # p in (0, 1) has twice the density of 2p - 1; the SDs and correlations are those at average covariates there.
        expected -= np.log(values["sd_b"][0] / values["sd_b_centered"][0]) * 2.0
        assert logp == pytest.approx(expected + np.log(2.0), rel=1e-9)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_refusals(irregular, thirty, dental):
    design, _ = make(irregular, "slope")
    logp = marginal_logp(design)
    with pytest.raises(SpecificationError, match="random effects Intercept, t"):
        logp(1.0)
    with pytest.raises(SpecificationError, match="those of the model are \\(none\\)"):
        logp(1.0, np.eye(2), residual={"rho": 0.1})
    serial = marginal_logp(build(thirty, hl.AR1("occasion"), None, 0))
    with pytest.raises(SpecificationError, match="are rho"):
        serial(1.0)
    with pytest.raises(SpecificationError, match="no random effects"):
        serial(1.0, np.eye(1), residual={"rho": 0.1})
    chosen = resolve_priors(Priors(beta=hl.StudentT(4, 0, 3)), design)
    with pytest.raises(SpecificationError, match="give beta="):
        MarginalLogp(design, chosen)(1.0, np.eye(2))
    with pytest.raises(SpecificationError, match="centered=True with marginalized"):
        hl.TwoLevelModel("distance ~ time", subject="subject", data=dental).to_pymc(centered=True, marginalized=True)
    wide = build(thirty, hl.AR1("occasion"), None, 1).design
    with pytest.raises(NotAvailableError, match="range is wider"):
        build_marginalized_model(wide, resolve_priors(Priors(residual={"rho": ScaledBeta(2.0, -2, 2)}), wide))


def test_there_are_no_second_derivatives(irregular):
    pymc_module()
    import pytensor.tensor as pt
    from pytensor.gradient import NullTypeGradError

    design, _ = make(irregular, "intercept")
    sigma = pt.dscalar()
    slope = pt.grad(marginal_logp(design)(sigma, [1.0]), sigma)
    with pytest.raises(NullTypeGradError, match="first derivatives only"):
        pt.grad(slope, sigma)


def test_the_likelihood_names_what_it_takes(irregular):
    design, _ = make(irregular, "slope")
    names = marginal_likelihood(design, None).names
    assert names[:5] == ("factor of D[Intercept, 0]", "factor of D[Intercept, 1]", "factor of D[t, 0]",
                         "factor of D[t, 1]", "working Intercept")  # fmt: skip
    assert names[-1] == "log sigma"
    assert len(names) == len(marginal_likelihood(design, None).mode)
    assert posterior_of(*make(irregular, "compound symmetry")).names[1] == "logit corr(all random effects)"
