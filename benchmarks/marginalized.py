"""The marginalised PyMC model beside the explicit one: building, compiling the log density, effective draws a second.

    .venv/bin/python benchmarks/marginalized.py [--draws 1000] [--explicit-draws 200] [--only sleepstudy]

Both are the same posterior, sampled by nutpie: `sleepstudy`, and 10,000 subjects with 10 rows each at times of their
own. Compiling is ``nutpie.compile_pymc_model`` for the free variables, the second time in a process, when PyTensor's
own pieces are on disk. Seconds are those of the processor, all threads together, so that other work on the machine does
not count. ESS is the smallest bulk ESS over the standard deviations and σ, for a second of sampling; that of the
marginalised model includes drawing β and b (`hl.recover`). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import arviz as az
import nutpie
from common import growth

import hierlmm as hl


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Processor time of one call, and what it returned."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def smallest_ess(tree: object) -> float:
    posterior = tree["posterior"].to_dataset()  # type: ignore[index]
    names = [n for n in posterior.data_vars if n.startswith("sd_b") or n == "sigma"]
    return min(float(az.ess(posterior[[n]], method="bulk")[n].min()) for n in names)


def row(name: str, model: hl.TwoLevelModel, marginalized: bool, draws: int, tune: int, chains: int) -> str:
    build, pymc_model = timed(lambda: model.to_pymc(marginalized=marginalized))
    free = [v.name for v in pymc_model.free_RVs]
    nutpie.compile_pymc_model(pymc_model, var_names=free)
    seconds, compiled = timed(lambda: nutpie.compile_pymc_model(pymc_model, var_names=free))
    options = {"draws": draws, "tune": tune, "chains": chains, "seed": 1, "progress_bar": False}
    sampling, tree = timed(lambda: nutpie.sample(compiled, target_accept=0.9, save_warmup=False, **options))
    recovery = timed(lambda: hl.recover(model, tree, seed=1))[0] if marginalized else 0.0
    ess, total = smallest_ess(tree), sampling + recovery
    kind = "marginalised" if marginalized else "explicit"
    size = f"{chains} × ({tune} + {draws})"
    return (
        f"| {name} | {kind} | {build:.2f} | {seconds:.1f} | {size} | {sampling:.2f} + {recovery:.2f} | {ess:.0f} | "
        f"{ess / total:.3g} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--explicit-draws", type=int, default=200, help="of each chain, for the 10,000 subjects")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    models = {
        "sleepstudy": hl.TwoLevelModel.from_formula(
            "reaction ~ days + (days | subject)", hl.load_dataset("sleepstudy")
        ),
        "10,000 × 10": hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", growth(10_000, irregular=True)),
    }
    print("| data | model | build, s | compile, s | draws | sampling + recovery, s | ESS | ESS/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, model in models.items():
        if arguments.only in name:
            large = name != "sleepstudy"
            few = arguments.explicit_draws if large else arguments.draws
            print(row(name, model, True, arguments.draws, arguments.draws, 4), flush=True)
            print(row(name, model, False, few, few, 2 if large else 4), flush=True)


if __name__ == "__main__":
    main()
