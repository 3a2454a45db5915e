"""Posteriors of several grouping factors: agreement with PyMC, and effective draws a second beside Bambi's.

    .venv/bin/python benchmarks/several_factors_nuts.py [--only penicillin] [--no-bambi]

For every quantity the posterior mean of ``model.fit()`` is compared with that of nutpie on ``model.to_pymc()``, in
units of the Monte-Carlo standard error of the difference. Bambi's model has the same formula and the same priors and is
sampled by nutpie too. Seconds are wall time: of a repeated fit, all it takes; of Bambi's for sampling alone, and with
the compilation that each of its fits begins with. ESS is the smallest bulk ESS over fixed effects, standard deviations
and σ.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import arviz as az
import numpy as np

import hierlmm as hl
from hierlmm.bayes.tree import effects_names

FORMULAS = {
    "penicillin": "diameter ~ 1 + (1 | plate) + (1 | sample)",
    "pastes": "strength ~ 1 + (1 | batch / cask)",
}
BAMBI = FORMULAS | {"pastes": "strength ~ 1 + (1 | batch) + (1 | batch_cask)"}
SAMPLING = {"draws": 1000, "tune": 1000, "chains": 4, "seed": 1}


def furthest(fit: hl.MultilevelPosterior, tree: Any) -> float:
    """Largest difference of posterior means, in Monte-Carlo standard errors."""
    worst = 0.0
    for name in ("beta", "sd_b", "sigma", *effects_names(fit.design)):
        ours, theirs = fit.draws(name), tree["posterior"][name].to_numpy()
        pairs = zip(ours.reshape(*ours.shape[:2], -1).T, theirs.reshape(*theirs.shape[:2], -1).T, strict=True)
        for u, v in pairs:
            error = np.hypot(az.mcse(u.T), az.mcse(v.T))
            worst = max(worst, abs(u.mean() - v.mean()) / error)
    return worst


def smallest(draws: list[np.ndarray]) -> float:
    """Smallest bulk ESS of scalars, (chain, draw) each."""
    return min(float(az.ess(own, method="bulk")) for own in draws)


def ours(model: hl.MultilevelModel) -> tuple[hl.MultilevelPosterior, float, float]:
    """A fit, the seconds of a repeated one, and its smallest ESS."""
    model.fit(**SAMPLING, progressbar=False)
    start = time.perf_counter()
    fit = model.fit(**SAMPLING, progressbar=False)
    seconds = time.perf_counter() - start
    scalars = [fit.draws(name).reshape(*fit.draw_shape, -1) for name in ("beta", "sd_b", "sigma")]
    return fit, seconds, smallest([own[..., k] for own in scalars for k in range(own.shape[-1])])


def by_pymc(model: hl.MultilevelModel) -> Any:
    """Draws of the explicit hierarchy."""
    import nutpie

    names = ["beta", "sd_b", "sigma", *effects_names(model.design)]
    compiled = nutpie.compile_pymc_model(model.to_pymc(), var_names=names)
    return nutpie.sample(
        compiled, draws=2000, tune=1000, chains=4, seed=2, target_accept=0.95, save_warmup=False, progress_bar=False
    )


def by_bambi(name: str, model: hl.MultilevelModel) -> tuple[float, float, float]:
    """Seconds of sampling, seconds of all, and smallest ESS of Bambi's model."""
    import bambi as bmb
    import nutpie

    frame, priors = hl.load_dataset(name), model.priors
    if name == "pastes":
        frame["batch_cask"] = frame["batch"].astype(str) + ":" + frame["cask"].astype(str)
    wanted = {
        f"1|{term.columns.group.replace(':', '_')}": bmb.Prior(
            "Normal", mu=0, sigma=bmb.Prior("HalfNormal", sigma=p.sd)
        )
        for term, p in zip(model.design.random, priors.sd_b, strict=True)
    }
    wanted["Intercept"] = bmb.Prior("Normal", mu=priors.beta[0].mean, sigma=priors.beta[0].sd)
    wanted["sigma"] = bmb.Prior("HalfStudentT", nu=priors.sigma.nu, sigma=priors.sigma.scale)
    made = bmb.Model(BAMBI[name], frame, priors=wanted)
    begin = time.perf_counter()
    made.build()
    compiled = nutpie.compile_pymc_model(made.backend.model)
    start = time.perf_counter()
    tree = nutpie.sample(
        compiled, draws=1000, tune=1000, chains=4, seed=1, target_accept=0.9, save_warmup=False, progress_bar=False
    )
    end = time.perf_counter()
    posterior = tree["posterior"].to_dataset()
    names = [str(n) for n, v in posterior.data_vars.items() if v.ndim == 2]
    return end - start, end - begin, smallest([posterior[n].to_numpy() for n in names])


def main() -> None:
    parser = argparse.ArgumentParser(description="Posteriors of several grouping factors.")
    parser.add_argument("--only", choices=list(FORMULAS))
    parser.add_argument("--no-bambi", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    bambi = "Bambi: ESS | seconds (all) | ratio (all)"
    print(f"| data | seconds | smallest ESS | ESS/s | largest difference from PyMC (MCSE) | {bambi} |")
    print("|---|---|---|---|---|---|---|---|")
    for name, formula in FORMULAS.items():
        if options.only not in (None, name):
            continue
        model = hl.MultilevelModel.from_formula(formula, hl.load_dataset(name))
        fit, seconds, ess = ours(model)
        line = f"| {name} | {seconds:.2f} | {ess:.0f} | {ess / seconds:.0f} | {furthest(fit, by_pymc(model)):.1f} |"
        if not options.no_bambi:
            sampling, everything, their_ess = by_bambi(name, model)
            ratios = [ess / seconds / (their_ess / own) for own in (sampling, everything)]
            line += f" {their_ess:.0f} | {sampling:.1f} ({everything:.1f}) | {ratios[0]:.1f} ({ratios[1]:.0f}) |"
        print(line, flush=True)


if __name__ == "__main__":
    main()
