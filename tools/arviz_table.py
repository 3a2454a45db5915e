"""What every function of arviz_plots and arviz_stats does on the tree of a fit: the tables of docs/arviz.md.

    .venv/bin/python tools/arviz_table.py          writes them
    .venv/bin/python tools/arviz_table.py --print  prints them

Each call has a process of its own, 10 s of processor time and 2 GB beyond what the fit takes. At the end the calls that
took most are printed.
"""

from __future__ import annotations

import argparse
import inspect
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import hierlmm as hl

PAGE = Path(__file__).parents[1] / "docs" / "arviz.md"
SECONDS, MEGABYTES = 10, 2000
AS_IT_IS, OURS, NOT = "works as it is", "works with", "does not apply"
MODELS = ("two-level", "marginal", "correlated residuals", "300 subjects", "sampled explicitly")
SAMPLING = {"draws": 250, "tune": 400, "chains": 4, "seed": 1, "progressbar": False}

NO_REASON = {
    "plot_ppc_pava": "for binary and ordinal responses",
    "plot_ppc_pava_residuals": "for binary and ordinal responses",
    "plot_loo_pava": "for binary and ordinal responses",
    "plot_ppc_rootogram": "for counts",
    "plot_ppc_censored": "for censored responses",
    "generate_survival_curves": "for censored responses",
    "kaplan_meier": "for censored responses",
    "loo_kfold": "needs a wrapper that refits",
    "reloo": "needs a wrapper that refits",
    "lfo_cv": "needs a wrapper that refits",
    "loo_moment_match": "needs functions of unconstrained parameters",
    "loo_approximate_posterior": "for approximations of a posterior",
    "rhat_nested": "for many short chains in groups",
}
"""Why a function does not apply to any of our models."""
TOO_LONG = {"wasserstein": "14 s for the joint distribution of two posteriors"}
"""Plain calls that are not tried."""


class Cost(NamedTuple):
    """What a call took: seconds of processor time, and megabytes beyond those of the fit."""

    seconds: float
    megabytes: float
    call: str


COSTS: list[Cost] = []


def fits(names: Sequence[str] = MODELS, rows: int | None = None, **sampling: Any) -> dict[str, Any]:
    """The five models, or some of them, with all groups that a tree can have; of the sleep study the first rows."""
    sleep = hl.load_dataset("sleepstudy").iloc[:rows]
    large = hl.simulate(
        beta={"Intercept": 10.0, "time": 2.0},
        D=[[4.0, 0.3], [0.3, 0.25]],
        sigma=1.0,
        random=["Intercept", "time"],
        n_subjects=300,
        times=np.arange(4.0),
        seed=1,
    )
    formula = "reaction ~ days + (days | subject)"
    models = {
        "two-level": hl.TwoLevelModel.from_formula(formula, sleep),
        "marginal": hl.MarginalModel("reaction ~ days", correlation=hl.AR1("days"), subject="subject", data=sleep),
        "correlated residuals": hl.TwoLevelModel.from_formula(
            "reaction ~ days + (1 | subject)", sleep, residual=hl.AR1("days")
        ),
        "300 subjects": hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", large),
        "sampled explicitly": hl.TwoLevelModel.from_formula(formula, sleep),
    }
    found = {}
    for name, model in ((name, models[name]) for name in names):
        how = {"sampler": "explicit"} if name == "sampled explicitly" else {}
        if name != "marginal":
            how["random_effects"] = "draws"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hl.FitWarning)
            found[name] = model.fit(**(SAMPLING | sampling), **how).extend("prior", "posterior_predictive", "mu")
    return found


def response(fit: Any) -> str:
    """Name of the response in the tree."""
    return str(next(iter(fit.datatree["observed_data"].data_vars)))


def elpd(fit: Any) -> Any:
    """ArviZ's leave-one-out result by subject."""
    return fit.loo().elpd_data


# What a function needs besides the tree, by name; the tree itself is the first argument.
ARGUMENTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "plot_bf": lambda fit: {"var_names": "sigma"},
    "plot_pair_focus": lambda fit: {"focus_var": "sigma"},
    "plot_ppc_pava_residuals": lambda fit: {"x_var": "days"},
    "plot_lm": lambda fit: {"x": covariate(fit), "y": response(fit), "plot_dim": "obs"},
    "bayes_factor": lambda fit: {"var_names": "sigma"},
    "bayesian_r2": lambda fit: {"pred_mean": "mu", "scale": "sigma"},
    "residual_r2": lambda fit: {"pred_mean": "mu", "obs_name": response(fit)},
    "loo_r2": lambda fit: {"var_name": response(fit)},
    "ci_in_rope": lambda fit: {"rope": (-1.0, 1.0)},
    "loo_subsample": lambda fit: {"observations": 50},
    "kl_divergence": lambda fit: {"data2": fit.datatree},
}
FIRST: dict[str, Callable[[Any], Any]] = {
    "plot_compare": lambda fit: compared(fit),
    "plot_khat": elpd,
    "compare": lambda fit: {"a": elpd(fit), "b": elpd(fit)},
    "weight_predictions": lambda fit: [fit.datatree, fit.datatree],
    "loo_i": lambda fit: 0,
}


def covariate(fit: Any) -> str:
    """The covariate of the fixed effects."""
    return str(fit.design.coef[1])


def compared(fit: Any) -> Any:
    """ArviZ's table of two fits."""
    import arviz as az

    return az.compare({"a": elpd(fit), "b": elpd(fit)})


# Where the plain call fails: our method, or the smaller tree.
METHODS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    f"plot_{name}": (f"`fit.plot_{own}()`", lambda fit, own=own: getattr(fit, f"plot_{own}")(backend="none"))
    for name, own in {
        **{k: k for k in ("trace", "rank", "energy", "ess", "mcse", "autocorr", "pair", "prior_posterior", "khat")},
        **{"loo_pit": "loo_pit", "ecdf_pit": "loo_pit", "psense_dist": "psense", "forest": "forest"},
        **{"dist": "posterior"},
    }.items()
}
METHODS |= {
    "ecdf": ('`fit.datatree["posterior"].dataset`', lambda fit: _arviz("ecdf")(fit.datatree["posterior"].dataset)),
    "plot_psense_quantities": (
        '`fit.plot_psense(kind="quantities")`',
        lambda fit: fit.plot_psense(kind="quantities", backend="none"),
    ),
    "plot_loo_interval": (
        '`fit.plot_loo_pit(kind="interval")`',
        lambda fit: fit.plot_loo_pit(kind="interval", backend="none"),
    ),
    "combine_plots": ("`fit.plot_diagnostics()`", lambda fit: fit.plot_diagnostics(backend="none")),
    "psense": ("`fit.psense()`", lambda fit: fit.psense()),
    "psense_summary": ("`fit.psense()`", lambda fit: fit.psense()),
    "loo": ("`fit.loo()`", lambda fit: fit.loo()),
    "plot_pair_focus": (
        "`fit.for_arviz()`",
        lambda fit: _arviz("plot_pair_focus")(
            fit.for_arviz(), focus_var="draws", focus_var_coords={"parameter": "sigma"}, backend="none"
        ),
    ),
    "plot_bf": (
        "`fit.for_arviz()`",
        lambda fit: _arviz("plot_bf")(fit.for_arviz("sigma"), var_names="draws", backend="none"),
    ),
    "wasserstein": (
        "`joint=False`",
        lambda fit: _arviz("wasserstein")(fit.datatree, fit.datatree, joint=False),
    ),
    "bayes_factor": ("`fit.for_arviz()`", lambda fit: _arviz("bayes_factor")(fit.for_arviz("sigma"), "draws")),
}


def _arviz(name: str) -> Callable[..., Any]:
    import arviz_plots
    import arviz_stats

    return getattr(arviz_plots, name, None) or getattr(arviz_stats, name)


def functions() -> dict[str, list[str]]:
    """Names of the functions that take a tree, or what is made of one: of arviz_plots and of arviz_stats."""
    import arviz_plots
    import arviz_stats

    plots = [n for n in dir(arviz_plots) if n.startswith("plot_") and callable(getattr(arviz_plots, n))]
    tree_names = {"data", "dt", "dts", "compare_dict", "data1", "wrapper"}
    stats = []
    for name in dir(arviz_stats):
        own = getattr(arviz_stats, name)
        if name.startswith("_") or not inspect.isfunction(own) or name in ("get_function", "update_subsample"):
            continue
        if tree_names & set(inspect.signature(own).parameters):
            stats.append(name)
    return {"arviz_plots": sorted([*plots, "combine_plots"]), "arviz_stats": sorted(stats)}


def as_anybody(name: str, fit: Any) -> None:
    """The call as anybody would write it."""
    function, given = _arviz(name), ARGUMENTS.get(name, lambda fit: {})(fit)
    if name.startswith("plot_") or name == "combine_plots":
        given["backend"] = "none"
    if name == "combine_plots":
        given["plots"] = [(_arviz("plot_trace"), {}), (_arviz("plot_rank"), {})]
    if name == "loo_i":
        function(0, fit.datatree)
        return
    first = FIRST[name](fit) if name in FIRST else fit.datatree
    result = function(first, **given)
    if isinstance(result, type(None)):
        raise TypeError("nothing came back")


def with_ours(name: str, fit: Any) -> str:
    """What to write instead of a plain call that failed; raises where nothing helps."""
    if name in METHODS:
        text, call = METHODS[name]
        call(fit)
        return text
    options = {} if not name.startswith("plot_") else {"backend": "none"}
    _arviz(name)(fit.for_arviz(), **options)
    return "`fit.for_arviz()`"


def in_a_process(call: Callable[[], str | None], name: str = "", seconds: int = SECONDS) -> tuple[bool, str]:
    """Whether a call came back within its bounds, and what it said; its cost goes to `COSTS`."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the parent are idle
        child = os.fork()
    if child == 0:
        os.close(read)
        said = "ended by force"
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEGABYTES * 2**20,) * 2)
            now = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
            resource.setrlimit(resource.RLIMIT_CPU, (now + seconds, now + seconds))
            signal.alarm(20 * seconds)  # a child that waits uses no time
            warnings.simplefilter("ignore")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            said = "1" + (call() or "")
        except BaseException as problem:
            said = f"0{type(problem).__name__}: {' '.join(str(problem).split())[:150]}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    used = os.wait4(child, 0)[2]
    most = (used.ru_maxrss - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024
    COSTS.append(Cost(used.ru_utime + used.ru_stime, max(0.0, most), name))
    return said[:1] == "1", said[1:] or f"more than {seconds} s"


def works(name: str, fit: Any, *, plainly: bool, seconds: int = SECONDS) -> tuple[bool, str]:
    """Whether a function works, called as anybody would or with ours; and what to write, or what went wrong."""
    if plainly:
        return in_a_process(lambda: as_anybody(name, fit), name, seconds)
    return in_a_process(lambda: with_ours(name, fit), f"{name} with ours", seconds)


def verdict(name: str, fit: Any) -> tuple[str, str]:
    """One of the three answers, with the method or the reason."""
    if name in NO_REASON:
        return NOT, NO_REASON[name]
    fine, said = (False, TOO_LONG[name]) if name in TOO_LONG else works(name, fit, plainly=True)
    if fine:
        return AS_IT_IS, ""
    helped, text = works(name, fit, plainly=False)
    if helped:
        return OURS, text
    return NOT, _reason(name, fit, said, text)


def _reason(name: str, fit: Any, *said: str) -> str:
    if fit.design.residual is not None and "loo" in name:
        return "rows have no likelihoods of their own; `fit.loo()` has subjects"
    return "; ".join(said)


def table(models: dict[str, Any], names: list[str]) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """Each function with its answers by model."""
    for name in names:
        yield name, {model: verdict(name, fit) for model, fit in models.items()}


def cell(answer: tuple[str, str]) -> str:
    """One answer as text."""
    kind, what = answer
    return kind if kind == AS_IT_IS else f"{kind} {what}" if kind == OURS else f"{kind}: {what}"


def markdown(rows: list[tuple[str, dict[str, tuple[str, str]]]]) -> str:
    """The table, and how many functions work."""
    lines = [f"| function | {' | '.join(MODELS)} |", f"|---|{'---|' * len(MODELS)}"]
    for name, answers in rows:
        lines.append(f"| `{name}` | {' | '.join(cell(answers[m]) for m in MODELS)} |")
    return "\n".join(lines)


def sections(models: dict[str, Any]) -> dict[str, str]:
    """The two tables with their sums."""
    out = {}
    for package, names in functions().items():
        rows = list(table(models, names))
        works = {m: sum(a[m][0] != NOT for _, a in rows) for m in MODELS}
        counts = ", ".join(f"{n} ({m})" for m, n in works.items())
        out[package] = f"Of {len(rows)} functions work: {counts}.\n\n{markdown(rows)}"
    return out


def main() -> None:
    """Write the tables between their marks in the page, or print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--print", action="store_true", dest="show")
    found = sections(fits())
    for cost in sorted(COSTS, reverse=True)[:10] + sorted(COSTS, key=lambda cost: -cost.megabytes)[:5]:
        print(f"{cost.seconds:5.1f} s {cost.megabytes:6.0f} MB  {cost.call}", file=sys.stderr)
    if parser.parse_args().show:
        print("\n\n".join(found.values()))
        return
    text = PAGE.read_text(encoding="utf-8")
    for package, own in found.items():
        start, end = f"<!-- {package} -->", f"<!-- end of {package} -->"
        head, rest = text.split(start)
        text = f"{head}{start}\n\n{own}\n\n{end}{rest.split(end)[1]}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
