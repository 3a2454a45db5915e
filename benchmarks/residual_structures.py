"""Residual structures: coverage of intervals by REML, calibration of NUTS, and speed.

    .venv/bin/python benchmarks/residual_structures.py [coverage|sbc|explicit|speed|all] [--n 500] [--quick] [--seed 1]
                                                      [--only TEXT]
    make bench BENCH=residual_structures

``coverage``: data sets from known parameters, fitted by REML; how often the 95 % interval of each residual parameter
holds the truth, by Wald and by profile likelihood. A data set whose fit gives no interval counts as not covered; the
number without one is shown (estimates next to the end of their range).
``sbc``: simulation-based calibration of NUTS with parameters drawn from the priors.
``explicit``: the collapsed posterior against the same model sampled in PyMC, differences in Monte-Carlo errors.
``speed``: wall times and ratios in one run; nlme through Rscript where it is installed, AIDS data where they are found
(``HIERLMM_DATA``).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from common import have, median_seconds, timed

import hierlmm as hl
from hierlmm.bayes.predictive import subject_lines
from hierlmm.diagnostics.replicate import binomial_interval, likelihood_of, replicate, streams
from hierlmm.likelihood.residual_rows import residual_rows

SECTIONS = ("coverage", "sbc", "explicit", "speed")
SD_B, SIGMA, BETA = 1.5, 1.0, np.array([20.0, 1.0, 0.5, 0.3])
METHODS = ("wald", "profile")


class Study(NamedTuple):
    """Rows of one planned study, its residual structure, and the true residual parameters."""

    title: str
    rows: pd.DataFrame
    structure: dict[str, Any]
    truth: dict[str, float]
    random: bool = False

    def model(self) -> Any:
        """The model, bound to rows whose response is not used."""
        if not self.random:
            return hl.MarginalModel("y ~ x * t", subject="id", data=self.rows, **self.structure)
        names = {"correlation": "residual", "variance": "residual_variance"}
        structure = {names[name]: value for name, value in self.structure.items()}
        return hl.TwoLevelModel.from_formula("y ~ x * t + (1 | id)", self.rows, **structure)


def planned(n_subjects: int, n_times: int, *, irregular: bool = False) -> pd.DataFrame:
    """A study of so many subjects and times; on irregular times everybody has times of their own."""
    rng = np.random.default_rng(1)
    times = np.tile(np.arange(float(n_times)), (n_subjects, 1))
    if irregular:
        times += rng.uniform(-0.4, 0.4, times.shape)
    subject = np.repeat(np.arange(n_subjects), n_times)
    frame = pd.DataFrame({"id": subject, "t": times.ravel(), "x": subject % 2})
    frame["group"] = np.where(frame["x"] == 1, "b", "a")
    frame["y"] = rng.standard_normal(len(frame))
    return frame


def studies() -> list[Study]:
    """The dental study's size (27 × 4) and a larger one (60 × 6)."""
    found = []
    for J, n in ((27, 4), (60, 6)):
        regular, irregular, size = planned(J, n), planned(J, n, irregular=True), f"{J} × {n}"
        negative = -0.6 / (n - 1)
        exponential = {"correlation": hl.Exponential("t")}
        groups = {"variance": hl.VarIdent("group")}
        ratio = "ratio(b/a)"
        found += [
            Study(f"AR1, {size}", regular, {"correlation": hl.AR1()}, {"rho": 0.5}),
            Study(f"AR1 negative, {size}", regular, {"correlation": hl.AR1()}, {"rho": -0.4}),
            Study(f"CompoundSymmetry, {size}", regular, {"correlation": hl.CompoundSymmetry()}, {"rho": 0.4}),
            Study(
                f"CompoundSymmetry negative, {size}", regular, {"correlation": hl.CompoundSymmetry()}, {"rho": negative}
            ),
            Study(f"Exponential, {size}, irregular", irregular, exponential, {"range": 2.0}),
            Study(f"CAR1, {size}, irregular", irregular, {"correlation": hl.CAR1("t")}, {"phi": 0.6}),
            Study(f"VarIdent, {size}", regular, groups, {ratio: 1.5}),
            Study(f"AR1 + VarIdent, {size}", regular, {"correlation": hl.AR1(), **groups}, {"rho": 0.5, ratio: 1.5}),
            Study(f"AR1 + (1 | id), {size}", regular, {"correlation": hl.AR1()}, {"rho": 0.4}, True),
            Study(f"CAR1 + (1 | id), {size}, irregular", irregular, {"correlation": hl.CAR1("t")}, {"phi": 0.4}, True),
            Study(f"Exponential + (1 | id), {size}, irregular", irregular, exponential, {"range": 1.0}, True),
            Study(f"VarIdent + (1 | id), {size}", regular, groups, {ratio: 1.5}, True),
        ]
    return found


def coverage(n: int, seed: int, only: str) -> None:
    print(f"== Coverage of 95 % intervals by REML, {n} data sets each (Monte-Carlo 95 % interval in brackets) ==")
    lines = []
    for study in [s for s in studies() if only in s.title]:
        design = study.model().design
        rows = residual_rows(design)
        eta = np.array([p.unconstrained(study.truth[p.name]) for p in rows.parameters])
        _, seeds = streams(seed, n)

        def work(
            k: int, study: Study = study, design: Any = design, rows: Any = rows, eta: Any = eta, seeds: Any = seeds
        ) -> Any:
            rng = np.random.default_rng(seeds[k])
            b = SD_B * rng.standard_normal((design.n_subjects, int(study.random)))
            noise = rows.colour(eta, rng.standard_normal(design.n_obs))
            fit = likelihood_of(design.with_response(subject_lines(design, BETA, b) + SIGMA * noise), reml=True)
            found = [fit.variance_components(method=m).loc[list(study.truth)] for m in METHODS]
            return found

        started = time.perf_counter()
        results, failures = replicate(work, n, cores=None, progressbar=True, label=study.title)
        seconds = time.perf_counter() - started
        good = [r for r in results if r is not None]
        for j, (name, value) in enumerate(study.truth.items()):
            line: dict[str, Any] = {"study": study.title, "parameter": f"{name} = {value:.3g}"}
            estimates = np.array([r[0]["estimate"].iloc[j] for r in good])
            line["median"] = f"{np.median(estimates):.3f}"
            for i, method in enumerate(METHODS):
                lower, upper = (np.array([r[i][side].iloc[j] for r in good]) for side in ("lower", "upper"))
                held = int(((lower <= value) & (value <= upper)).sum())
                low, high = binomial_interval(np.array(held), np.array(n))
                line[method] = f"{100 * held / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                line[f"no {method}"] = int((np.isnan(lower) | np.isnan(upper)).sum())
            line |= {
                "failed": len(failures),
                "ms a data set": round(1000 * seconds / n),
            }
            lines.append(line)
            print(pd.DataFrame([line]).to_string(index=False, header=len(lines) == 1), flush=True)
    print("\n" + pd.DataFrame(lines).to_string(index=False) + "\n")


def sbc(n: int, seed: int, only: str) -> None:
    print(f"== Simulation-based calibration of NUTS, {n} data sets each ==")
    dental = hl.load_dataset("dental")
    irregular = planned(30, 5, irregular=True)
    marginal = {"formula": "distance ~ sex * time", "subject": "subject", "data": dental}
    models = {
        "dental, AR1": hl.MarginalModel(**marginal, correlation=hl.AR1()),
        "dental, CompoundSymmetry": hl.MarginalModel(**marginal, correlation=hl.CompoundSymmetry()),
        "dental, AR1 + VarIdent + (1 | subject)": hl.TwoLevelModel.from_formula(
            "distance ~ time + (1 | subject)", dental, residual=hl.AR1(), residual_variance=hl.VarIdent("sex")
        ),
        "30 × 5, Exponential with nugget": hl.MarginalModel(
            "y ~ t", subject="id", data=irregular, correlation=hl.Exponential("t", nugget=True)
        ),
    }
    for title, model in models.items():
        if only not in title:
            continue
        result = hl.calibrate(model, n, seed=seed)
        table = result.summary()
        covered = table["cover95"].between(0.92, 0.98)
        print(f"-- {title} --\n{result}")
        print(
            f"{int(table['in_band'].sum())} of {len(table)} ECDFs inside the band; 95 % intervals cover 92 to 98 % for "
            f"{int(covered.sum())} of {len(table)}; {1000 * result.seconds / n:.0f} ms a data set\n",
            flush=True,
        )


def explicit(draws: int, seed: int, only: str) -> None:
    import arviz as az

    print(f"== Collapsed against explicit, 4 × ({draws} + 1000): largest difference in Monte-Carlo errors ==")
    dental = hl.load_dataset("dental")
    irregular = planned(40, 5, irregular=True)
    rng = np.random.default_rng(2)
    design = hl.MarginalModel("y ~ t", subject="id", data=irregular, correlation=hl.Exponential("t")).design
    noise = residual_rows(design).colour(np.array([0.7]), rng.standard_normal(design.n_obs))
    irregular["y"] = 10 + irregular["t"] + 1.2 * rng.standard_normal(40)[irregular["id"]] + noise
    frame = {"formula": "distance ~ time", "subject": "subject", "data": dental}
    mixed = "distance ~ time + (1 | subject)"
    models = {
        "AR1": hl.MarginalModel(**frame, correlation=hl.AR1()),
        "CompoundSymmetry": hl.MarginalModel(**frame, correlation=hl.CompoundSymmetry()),
        "CAR1": hl.MarginalModel("y ~ t", subject="id", data=irregular, correlation=hl.CAR1("t")),
        "Exponential + (1 | id)": hl.TwoLevelModel.from_formula(
            "y ~ t + (1 | id)", irregular, residual=hl.Exponential("t")
        ),
        "VarIdent + (1 | subject)": hl.TwoLevelModel.from_formula(mixed, dental, residual_variance=hl.VarIdent("sex")),
        "VarPower + (1 | subject)": hl.TwoLevelModel.from_formula(mixed, dental, residual_variance=hl.VarPower("age")),
        "AR1 with nugget + VarIdent": hl.MarginalModel(
            **frame, correlation=hl.AR1(nugget=True), variance=hl.VarIdent("sex")
        ),
    }
    for title, model in models.items():
        if only not in title:
            continue
        options = {"draws": draws, "tune": 1000, "progressbar": False}
        fits = [model.fit(seed=seed + k, sampler=s, **options) for k, s in enumerate(("collapsed", "explicit"))]
        worst = {"mean": 0.0, "sd": 0.0}
        posteriors = [f.datatree["posterior"].to_dataset() for f in fits]
        for name in set(posteriors[0]) & {"beta", "sd_b", "sigma", "residual_correlation", "residual_variance"}:
            for what in worst:
                values = [
                    np.asarray(getattr(p[name], {"sd": "std"}.get(what, what))(("chain", "draw"))) for p in posteriors
                ]
                errors = [az.mcse(p[[name]], method=what)[name].to_numpy() for p in posteriors]
                worst[what] = max(worst[what], float(np.max(np.abs(values[0] - values[1]) / np.hypot(*errors))))
        seconds = [f.datatree.attrs["sampling_seconds"] for f in fits]
        print(
            f"{title:28} means {worst['mean']:.2f}, SDs {worst['sd']:.2f};  sampling {seconds[0]:.2f} s and "
            f"{seconds[1]:.2f} s; divergences {[f.convergence().divergences for f in fits]}",
            flush=True,
        )
    print()


FIXED = "cd4 ~ obstime + I(obstime**2) + obstime:drug + I(obstime**2):drug"
MODEL_1 = f"{FIXED} + (1 | subject)"
R_LME = """
suppressMessages(library(nlme))
d <- read.csv("{path}"); d$drug <- relevel(factor(d$drug), ref = "{reference}")
run <- function() lme(cd4 ~ obstime + I(obstime^2) + (obstime + I(obstime^2)):drug, random = ~1 | subject,
                      correlation = corExp(form = ~ obstime | subject), data = d, method = "REML")
fit <- run(); t <- sapply(1:{repeats}, function(i) system.time(run())[["elapsed"]])
cat(median(t), format(as.numeric(logLik(fit)), digits = 12))
"""


def nlme(aids: pd.DataFrame, repeats: int) -> tuple[float, float] | None:
    """Median seconds of nlme's lme for Model I and its log-likelihood; None without R and nlme."""
    if not have("Rscript"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aids.csv"
        aids.to_csv(path, index=False)
        reference = aids["drug"].cat.categories[0] if hasattr(aids["drug"], "cat") else sorted(set(aids["drug"]))[0]
        script = R_LME.format(path=path, reference=reference, repeats=repeats)
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    seconds, loglik = done.stdout.split()
    return float(seconds), float(loglik)


def serial_growth(n_subjects: int, n_times: int) -> pd.DataFrame:
    """A random intercept and exponentially correlated residuals (range 2) at times of everybody's own."""
    rng = np.random.default_rng(1)
    t = np.sort(rng.uniform(0.0, 10.0, (n_subjects, n_times)), axis=1)
    e = rng.standard_normal(t.shape)
    for j in range(1, n_times):
        d = np.exp(-(t[:, j] - t[:, j - 1]) / 2.0)
        e[:, j] = d * e[:, j - 1] + np.sqrt(1 - d**2) * e[:, j]
    y = 10.0 + 0.5 * t + rng.standard_normal((n_subjects, 1)) + e
    return pd.DataFrame({"id": np.repeat(np.arange(n_subjects), n_times), "t": t.ravel(), "y": y.ravel()})


def report(label: str, seconds: float, limit: float | None = None, more: str = "") -> None:
    verdict = "" if limit is None else f"   (limit {limit:g} s: {'held' if seconds <= limit else 'NOT HELD'})"
    print(f"{label:64} {seconds:8.3f} s{verdict}{more}", flush=True)


def speed(quick: bool, seed: int) -> None:
    print("== Speed ==")
    repeats = 3 if quick else 5
    try:
        aids = hl.load_dataset("aids")
    except hl.HierlmmError as error:
        print(f"AIDS data not found, skipped: {error.reason}")
    else:
        model = hl.TwoLevelModel.from_formula(MODEL_1, aids, residual=hl.Exponential("obstime"))
        ours = median_seconds(model.fit_reml, repeats)
        report("AIDS Model I, REML, fit_reml()", ours, more=f"   loglik {model.fit_reml().loglik:.4f}")
        build: Callable[[], Any] = lambda: hl.TwoLevelModel.from_formula(  # noqa: E731
            MODEL_1, aids, residual=hl.Exponential("obstime")
        ).fit_reml()
        report("AIDS Model I, REML, formula and data to fit", median_seconds(build, repeats))
        peer = nlme(aids, repeats)
        if peer is None:
            print("nlme: R with nlme not found, skipped")
        else:
            report("AIDS Model I, REML, nlme's lme", peer[0], more=f"   loglik {peer[1]:.4f}")
            verdict = "held" if ours <= peer[0] / 3 else "NOT HELD"
            print(f"{'ours / nlme':64} {ours / peer[0]:8.3f}     (limit 0.333: {verdict})")
        draws = 250 if quick else 1000
        model.fit(draws=20, tune=20, chains=2, seed=0, progressbar=False)  # compiles
        seconds, fit = timed(lambda: model.fit(draws=draws, tune=draws, chains=4, seed=seed, progressbar=False))
        attrs = fit.datatree.attrs  # type: ignore[attr-defined]
        own = f"   sampling {attrs['sampling_seconds']:.2f}, recovery {attrs['recovery_seconds']:.2f}, {attrs['route']}"
        report(f"AIDS Model I, NUTS 4 × ({draws} + {draws})", seconds, 15.0, own)
    J = 1000 if quick else 10_000
    rows = serial_growth(J, 10)
    mixed = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", rows, residual=hl.Exponential("t"))
    marginal = hl.MarginalModel("y ~ t", subject="id", data=rows, correlation=hl.Exponential("t"))
    for label, own_model in (("Exponential + (1 | id)", mixed), ("Exponential, marginal", marginal)):
        own_model.fit_reml()
        seconds, fit = timed(own_model.fit_reml)
        found = fit.residual_estimate.parameters["range"]  # type: ignore[attr-defined]
        report(f"{J} × 10 irregular times, {label}, REML", seconds, 5.0, f"   range {found:.3f} (truth 2)")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description="Residual structures: coverage, calibration, speed.")
    parser.add_argument("section", nargs="?", default="all", choices=[*SECTIONS, "all"])
    parser.add_argument("--n", type=int, default=None, help="data sets of each study (500)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data sets and draws")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="studies of which the title has this text (all but speed)")
    options = parser.parse_args()
    n = options.n or (50 if options.quick else 500)
    chosen = SECTIONS if options.section == "all" else (options.section,)
    warnings.simplefilter("ignore", hl.FitWarning)
    for section in chosen:
        if section == "coverage":
            coverage(n, options.seed, options.only)
        elif section == "sbc":
            sbc(n, options.seed, options.only)
        elif section == "explicit":
            explicit(500 if options.quick else 2000, options.seed, options.only)
        else:
            speed(options.quick, options.seed)


if __name__ == "__main__":
    main()
