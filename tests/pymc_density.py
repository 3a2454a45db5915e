"""The density of a PyMC model, evaluated without compiling it."""

from __future__ import annotations

import numpy as np

from hierlmm.bayes.explicit import pymc_module


def evaluate(model, seed, design=None):
    """Log density and every named variable at a random point, by PyTensor's slow but uncompiled route.

    Of a design with random effects also their matrix of correlations and D, as on paper.
    """
    pm = pymc_module()
    from pytensor.compile.mode import Mode

    mode = Mode(linker="py", optimizer=None)
    rng = np.random.default_rng(seed)
    point = {k: np.asarray(v + rng.normal(size=np.shape(v)) * 0.3) for k, v in model.initial_point(0).items()}
    variables = [*model.free_RVs, *model.deterministics]
    outputs = [model.logp(jacobian=False), *model.replace_rvs_by_values(variables)]
    with model:
        function = pm.compile([model.rvs_to_values[v] for v in model.free_RVs], outputs, mode=mode)
    logp, *values = function(*(point[model.rvs_to_values[v].name] for v in model.free_RVs))
    at = {v.name: np.asarray(x) for v, x in zip(variables, values, strict=True)}
    if design is not None:
        corr = np.eye(len(design.term))
        pairs = [(block[j], block[i]) for block in design.blocks for i in range(len(block)) for j in range(i)]
        for (i, j), r in zip(pairs, at.get("corr_b", []), strict=design.covariance != "identity"):
            corr[i, j] = corr[j, i] = r
        at |= {"corr_b": corr, "D": corr * np.outer(at["sd_b"], at["sd_b"])}
    return float(logp), at


def log_density_of(graph):
    """PyMC's log density of a model as a function of its free variables, without Jacobians or compilation."""
    from pytensor.compile.mode import Mode

    pm = pymc_module()
    own = {v.name: graph.rvs_to_values[v] for v in graph.free_RVs}
    mode = Mode(linker="py", optimizer=None)
    with graph:
        function = pm.compile(list(own.values()), graph.logp(jacobian=False), mode=mode)

    def density(point):
        values = []
        for name, value in own.items():
            x = np.asarray(point[name], dtype=np.float64)
            if value.name.endswith("_log__"):
                x = np.log(x)
            elif value.name.endswith(("_logodds__", "_interval__")):
                x = np.log(x / (1.0 - x))
            values.append(x)
        return float(function(*values))

    return density
