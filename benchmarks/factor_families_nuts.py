"""Posteriors of other families with several grouping factors: effective draws a second beside Bambi's.

    .venv/bin/python benchmarks/factor_families_nuts.py [--persons 100] [--items 20]

Yes or no of persons to items, a random intercept for each. Bambi's model has the same formula and its own default
priors, which ``priors="bambi"`` gives ours, and is sampled by nutpie too. Seconds are wall time: of a repeated fit, all
it takes; of Bambi's sampling alone, and with the compilation that each of its fits begins with. ESS is the smallest
bulk ESS over fixed effects and standard deviations; distances are of their posterior means, in Monte-Carlo standard
errors.
"""

from __future__ import annotations

import argparse
import time

import arviz as az
import numpy as np
from generalised_factors import answers

import hierlmm as hl

FORMULA = "correct ~ age + (1 | person) + (1 | item)"
SAMPLING = {"draws": 1000, "tune": 1000, "chains": 4, "seed": 1}


def main() -> None:
    import bambi as bmb
    import nutpie

    parser = argparse.ArgumentParser(description="Crossed yes-or-no answers by NUTS, beside Bambi.")
    parser.add_argument("--persons", type=int, default=100)
    parser.add_argument("--items", type=int, default=20)
    options = parser.parse_args()
    data = answers(options.persons, options.items)
    model = hl.MultilevelModel.from_formula(FORMULA, data, family="bernoulli", priors="bambi")
    model.fit(**SAMPLING, progressbar=False)
    start = time.perf_counter()
    fit = model.fit(**SAMPLING, progressbar=False)
    seconds = time.perf_counter() - start
    ours = {f"{name} {k}": fit.draws(name)[..., k] for name in ("beta", "sd_b") for k in range(2)}
    ess = min(float(az.ess(own, method="bulk")) for own in ours.values())
    print(f"hierlmm {seconds:7.1f} s, smallest ESS {ess:.0f}, {ess / seconds:.0f} a second")
    start = time.perf_counter()
    peer = bmb.Model(FORMULA, data, family="bernoulli")
    peer.build()
    compiled = nutpie.compile_pymc_model(peer.backend.model)
    built = time.perf_counter()
    draws, tune = (SAMPLING[name] for name in ("draws", "tune"))
    tree = nutpie.sample(compiled, draws=draws, tune=tune, chains=4, seed=1, save_warmup=False, progress_bar=False)
    done, posterior = time.perf_counter(), tree["posterior"]
    theirs = {"beta 1": posterior["age"].to_numpy()}
    theirs |= {f"sd_b {k}": posterior[f"1|{name}_sigma"].to_numpy() for k, name in enumerate(("person", "item"))}
    names = {"intercept": posterior["Intercept"].to_numpy(), **theirs}
    ess = min(float(az.ess(own, method="bulk")) for own in names.values())
    sampling, whole = done - built, done - start
    rates = f"{ess / sampling:.0f} a second of sampling, {ess / whole:.0f} of all"
    print(f"Bambi   {sampling:7.1f} s of sampling, {whole:.1f} s in all, smallest ESS {ess:.0f}, {rates}")
    for name, own in theirs.items():
        error = np.hypot(az.mcse(ours[name]), az.mcse(own))
        print(f"{name:8} distance {abs(ours[name].mean() - own.mean()) / error:.1f}")


if __name__ == "__main__":
    main()
