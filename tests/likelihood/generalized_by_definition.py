"""Likelihoods of generalised linear mixed models, written down a second time with the densities of scipy.

The integral over a group's random effects b is taken by Gauss and Hermite, with nodes about the mode of f(y, b), scaled
by the curvature there: one node is Laplace's approximation, 101 (61 x 61 for two random effects) is the integral for
every digit we compare. The curvature is the observed one; derivatives by the linear predictor are differences of eighth
order.

python generalized_by_definition.py     write "check" of every reference (PYTHONPATH is the folder of the tests)
"""

from __future__ import annotations

import json

import numpy as np
from generalized_references import NAMES, Case, case
from references import references_of
from scipy import special, stats

DENSE = {1: 101, 2: 61}
STEP = 0.02
OFFSETS = np.arange(-4, 5)
FIRST = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280]) / STEP
SECOND = np.array([-1 / 560, 8 / 315, -1 / 5, 8 / 5, -205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560]) / STEP**2

INVERSE_LINKS = {
    "log": np.exp,
    "sqrt": np.square,
    "identity": lambda eta: eta,
    "inverse": lambda eta: 1 / np.maximum(eta, 1e-300),  # a mean below zero has no density
    "logit": special.expit,
    "probit": special.ndtr,
    "cloglog": lambda eta: -np.expm1(-np.exp(eta)),
}


def log_density(model: Case, eta, y, trials, extra):
    """log f(y given eta), with all constants; `extra` is the dispersion or the thresholds on their natural scale."""
    inverse = INVERSE_LINKS[model.link]
    if model.family == "cumulative":
        cuts = np.concatenate([[-np.inf], extra, [np.inf]])
        upper, lower = cuts[y.astype(int)], cuts[y.astype(int) - 1]
        return np.log(inverse(upper - eta) - inverse(lower - eta))
    mu = inverse(eta)
    match model.family:
        case "poisson":
            return stats.poisson.logpmf(y, mu)
        case "negative_binomial":
            return stats.nbinom.logpmf(y, extra[0], extra[0] / (extra[0] + mu))
        case "bernoulli" | "binomial":
            return stats.binom.logpmf(y, trials, mu)
        case "gamma":
            return stats.gamma.logpdf(y, extra[0], scale=mu / extra[0])
        case "beta":
            return stats.beta.logpdf(y, mu * extra[0], (1 - mu) * extra[0])
        case "student_t":
            return stats.t.logpdf(y, extra[1], loc=mu, scale=extra[0])
        case _:
            return stats.norm.logpdf(y, mu, extra[0])


class Likelihood:
    """Log-likelihood of a case as a function of its parameters.

    Parameters, in this order: thresholds, beta, log sd, arctanh of the correlation, log dispersion (if any).
    """

    def __init__(self, model: Case):
        self.model = model
        data, ref = model.data, model.reference
        one = np.ones(len(data))
        columns = {"(Intercept)": one, "treatb": (data["treat"] == "b").to_numpy(float) if "treat" in data else one}
        self.X = np.column_stack([columns.get(name, data.get(name)) for name in ref["coef"]])
        self.Z = np.column_stack([one, data[model.slope]] if model.slope else [one])
        self.offset = np.log(data[model.exposure].to_numpy()) if model.exposure else 0 * one
        self.y = data[model.response].to_numpy(float)
        self.trials = data[model.trials].to_numpy() if model.trials else one
        self.rows = data[model.group].cat.codes.to_numpy()
        self.starts = np.flatnonzero(np.diff(self.rows, prepend=-1))
        self.q = self.Z.shape[1]
        self.free_corr = self.q == 2 and not model.diagonal
        self.cuts = np.array(list(ref.get("thresholds", {}).values()))
        dispersion = {k: v for k, v in ref.get("dispersion", {}).items() if k not in model.fixed}
        parts = [self.cuts, list(ref["coef"].values()), np.log(ref["sd"])]
        parts += [[np.arctanh(ref["corr"])]] if self.free_corr else []
        self.optimum = np.concatenate([*parts, np.log(list(dispersion.values()))])

    def unpack(self, parameters):
        cuts, rest = np.split(parameters, [len(self.cuts)])
        beta, sd, corr, dispersion = np.split(rest, np.cumsum([self.X.shape[1], self.q, self.free_corr]))
        R = np.eye(self.q)
        R[~np.eye(self.q, dtype=bool)] = np.tanh(corr[0]) if self.free_corr else 0.0
        extra = cuts if len(cuts) else np.concatenate([np.exp(dispersion), list(self.model.fixed.values())])
        return beta, np.outer(np.exp(sd), np.exp(sd)) * R, extra

    def joint(self, b, fixed, D, extra):
        """log f(y, b) of every group; b has shape (groups, ..., q)."""
        eta = np.einsum("n...q,nq->n...", b[self.rows], self.Z)
        more = (...,) + (None,) * (eta.ndim - 1)
        density = log_density(self.model, fixed[more] + eta, self.y[more], self.trials[more], extra)
        prior = -0.5 * (np.einsum("...p,pq,...q->...", b, np.linalg.inv(D), b) + np.linalg.slogdet(2 * np.pi * D)[1])
        return np.add.reduceat(density, self.starts) + prior

    def modes(self, fixed, D, extra):
        """Mode of f(y, b) in b and -d²log f/db² there, for every group."""
        inverse = np.linalg.inv(D)
        b = np.zeros((len(self.starts), self.q))
        for _ in range(100):
            eta = fixed + (b[self.rows] * self.Z).sum(axis=1)
            near = eta[:, None] + STEP * OFFSETS
            density = log_density(self.model, near, self.y[:, None], self.trials[:, None], extra)
            slope = np.add.reduceat((density @ FIRST)[:, None] * self.Z, self.starts) - b @ inverse
            curved = (density @ -SECOND)[:, None, None] * self.Z[:, :, None] * self.Z[:, None, :]
            H = np.add.reduceat(curved, self.starts) + inverse
            # A density that is not log-concave (t): uphill all the same, by the part of the curvature that bends down.
            bowl = np.add.reduceat(curved * (curved[:, :1, :1] > 0), self.starts)
            convex = (np.linalg.eigvalsh(H) > 0).all(axis=1)[:, None, None]
            step = np.linalg.solve(np.where(convex, H, bowl + inverse), slope[..., None])[..., 0]
            if np.abs(step).max() < 1e-9:
                break
            here = self.joint(b, fixed, D, extra)
            for _ in range(30):
                worse = ~(self.joint(b + step, fixed, D, extra) >= here - 1e-10)
                step[worse] /= 2
                if not worse.any():
                    break
            b = b + step
        return b, H

    @np.errstate(all="ignore")  # where a density is zero its logarithm is -inf
    def __call__(self, parameters, nodes: int) -> float:
        beta, D, extra = self.unpack(np.asarray(parameters))
        fixed = self.X @ beta + self.offset
        mode, H = self.modes(fixed, D, extra)
        x, w = np.polynomial.hermite.hermgauss(nodes)
        grid, weight = (
            np.stack(np.meshgrid(*[values] * self.q, indexing="ij"), axis=-1).reshape(-1, self.q)
            for values in (x, np.log(w) + x**2)
        )
        root = np.linalg.cholesky(np.linalg.inv(H))
        b = mode[:, None, :] + np.sqrt(2) * np.einsum("gpq,kq->gkp", root, grid)
        volume = np.linalg.slogdet(root)[1] + self.q / 2 * np.log(2)
        return float(np.sum(special.logsumexp(self.joint(b, fixed, D, extra) + weight.sum(axis=1), axis=1) + volume))

    def gradient(self, nodes: int, step: float = 1e-3) -> np.ndarray:
        """Gradient at R's optimum, by differences of fourth order, of covariates that are scaled to at most 1."""
        scale = np.ones(len(self.optimum))
        scale[len(self.cuts) :][: self.X.shape[1]] /= np.maximum(np.abs(self.X).max(axis=0), 1)
        by = [
            8 * (self(self.optimum + s, nodes) - self(self.optimum - s, nodes))
            - (self(self.optimum + 2 * s, nodes) - self(self.optimum - 2 * s, nodes))
            for s in step * np.diag(scale)
        ]
        return np.array(by) / (12 * step)

    def modes_at_optimum(self, n: int) -> dict[str, list]:
        beta, D, extra = self.unpack(self.optimum)
        mode, H = self.modes(self.X @ beta + self.offset, D, extra)
        sd = np.sqrt(np.diagonal(np.linalg.inv(H), axis1=1, axis2=2))
        return {"modes": mode[:n].tolist(), "conditional_sd": sd[:n].tolist()}

    def marginal_coefs(self) -> dict[str, float]:
        """Least squares of link(E y), averaged over the random effects, on the columns of the model."""
        beta, D, _ = self.unpack(self.optimum)
        x, w = np.polynomial.hermite_e.hermegauss(101)
        spread = np.sqrt(np.einsum("np,pq,nq->n", self.Z, D, self.Z))
        mean = INVERSE_LINKS[self.model.link]((self.X @ beta)[:, None] + spread[:, None] * x) @ w / w.sum()
        link = {"log": np.log, "logit": special.logit}[self.model.link]
        found = np.linalg.lstsq(self.X, link(mean), rcond=None)[0]
        return dict(zip(self.model.reference["coef"], found.tolist(), strict=True))


def check(model: Case) -> dict:
    likelihood = Likelihood(model)
    dense = DENSE[likelihood.q]
    found = {
        "loglik": likelihood(likelihood.optimum, model.nodes),
        "max_abs_gradient": float(f"{np.abs(likelihood.gradient(model.nodes)).max():.1e}"),
        "loglik_exact_at_optimum": likelihood(likelihood.optimum, dense),
        "exact_nodes": dense,
    }
    if "modes" not in model.reference:
        found |= likelihood.modes_at_optimum(8)
    if "marginal_coefs" in model.reference:
        found["marginal_coefs"] = likelihood.marginal_coefs()
    return found


def main() -> None:
    for name in NAMES:
        model = case(name)
        model.reference["check"] = check(model)
        path = references_of("generalized") / f"{name}.json"
        path.write_text(json.dumps(model.reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
