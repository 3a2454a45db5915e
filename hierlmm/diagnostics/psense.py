"""Power-scaling: how much the posterior changes when the prior, or the likelihood, counts a little more or less.

The prior (or the likelihood) is raised to a power near 1, and the draws are reweighted (Pareto-smoothed importance
sampling), without a new fit. The sensitivity is the change of a parameter's distribution per doubling of the power, as
cumulative Jensen-Shannon distance; above 0.05 it is worth a look (Kallioinen et al. 2024).

A prior that is as narrow as what the data say changes the posterior, too, without contradicting it: it makes it
narrower. A contradiction shows in the place and not in the width, so a conflict is named only where twice the prior
would move the mean by 0.7 posterior SDs,

    shift = ln 2 Cov(θ, log p(θ, ...)) / sd(θ)

the derivative of the posterior mean with respect to the prior's power. For a normal prior with the share w of the
posterior's precision, and data z predictive SDs away from it, |shift| = ln 2 |z| sqrt(w (1 - w)): above 0.7
only where |z| > 2, whatever w (`benchmarks/psense.py` counts false and true alarms).

In a hierarchy there is a choice that decides the answer. N(0, D) is part of the model and not of the prior, and the
likelihood is that of the parameters, random effects integrated out. With the likelihood of the rows given b the
standard deviations look several times as sensitive: the draws of b are given, and what they say of D is scaled away.

References
----------
Kallioinen, N., Paananen, T., Bürkner, P.-C., Vehtari, A. (2024). Detecting and diagnosing prior and likelihood
sensitivity with power-scaling. Statistics and Computing 34, 57.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.diagnostics.loo import Unit, total_log_likelihood
from hierlmm.errors import NotAvailableError
from hierlmm.fits.named_draws import plain_draws
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import align, sayer

THRESHOLD = 0.05
SHIFT = 0.7
"""Posterior SDs per doubling of the prior beyond which prior and data contradict each other."""
CONFLICT, INFORMATIVE, WEAK = "prior-data conflict", "informative prior", "strong prior or weak data"
SAY = sayer(__file__)
SEE = "docs, page 'Posterior fits', section 'Prior and data'"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class PowerScaling(Result):
    """Sensitivity of every parameter's posterior to the prior and to the likelihood.

    Attributes
    ----------
    table : DataFrame by parameter
        ``prior`` and ``likelihood`` (sensitivities), ``shift`` (of the mean in posterior SDs, with twice the prior) and
        ``diagnosis``: empty, or where the prior's sensitivity is above the threshold ``"prior-data conflict"`` (the
        shift is beyond 0.7), ``"strong prior or weak data"`` (the likelihood's is below the threshold) or
        ``"informative prior"``.
    unit : {"subject", "observation"}
        Of the likelihood that was scaled: random effects integrated out, or given.
    threshold : float
        Above it a sensitivity counts, 0.05.
    verdict : str
    """

    sensitivities: pd.DataFrame
    unit: str
    threshold: float

    @property
    def table(self) -> pd.DataFrame:
        """``prior``, ``likelihood``, ``shift`` and ``diagnosis`` of every parameter."""
        return self.sensitivities.copy()

    @property
    def ok(self) -> bool:
        """Whether prior and data contradict each other nowhere."""
        return not (self.sensitivities["diagnosis"] == CONFLICT).any()

    @property
    def verdict(self) -> str:
        """What the table says, in words, and what to do."""
        table, said = self.sensitivities, []
        if not table["diagnosis"].any():
            return SAY("psense.good", worst=table["prior"].max(), name=table["prior"].idxmax(), limit=self.threshold)
        keys = {CONFLICT: "psense.conflict", WEAK: "psense.weak", INFORMATIVE: "psense.informative"}
        for diagnosis, key in keys.items():
            found = table[table["diagnosis"] == diagnosis].sort_values("prior", ascending=False)
            if len(found):
                said.append(SAY(key, named=_named(found), limit=self.threshold))
        return " ".join(said)

    def _page(self) -> Page:
        title, shown = SAY(f"psense.title_{self.unit}"), self.table
        cells = [[f"{v:z.3f}" for v in shown[c]] for c in ("prior", "likelihood")] + [
            [f"{v:z.2f}" for v in shown["shift"]]
        ]
        rows = list(zip(map(str, shown.index), *cells, shown["diagnosis"], strict=True))
        printed = align([("parameter", *shown.columns), *rows], left=(0, 4))
        table = Table(shown, printed, "Change of the posterior per doubling", index=True, number="z.3f")
        return Page(title, ["", table, "", Paragraph(self.verdict, 110)])


def _named(found: pd.DataFrame) -> str:
    return ", ".join(f"{name} ({row.prior:z.2f})" for name, row in found.iterrows())


def psense(fit: PosteriorNumbers, unit: Unit = "subject") -> PowerScaling:
    """Power-scaling sensitivity of prior and likelihood; see `PosteriorFit.psense`."""
    import arviz as az

    tree = power_scaling_tree(fit, unit)
    names = [str(v) for v in tree["posterior"]["parameter"].to_numpy()]
    found = {group: az.psense(tree, group=group)["draws"].to_numpy() for group in ("prior", "likelihood")}
    table = pd.DataFrame(found, index=pd.Index(names, name="parameter", dtype=object))
    table["shift"] = _shift(tree)
    high, counts = table[["prior", "likelihood"]] > THRESHOLD, table["shift"].abs() > SHIFT
    cases = [high["prior"] & counts, high["prior"] & ~high["likelihood"], high["prior"]]
    table["diagnosis"] = np.select(cases, [CONFLICT, WEAK, INFORMATIVE], "")
    return PowerScaling(table, unit, THRESHOLD)


def _shift(tree: Any) -> FloatArray:
    """Change of every mean in posterior SDs, to first order, if the prior counted twice."""
    log_prior = tree["log_prior"].to_dataset()
    total = sum(v.sum([d for d in v.dims if d not in ("chain", "draw")]) for v in log_prior.data_vars.values())
    draws = tree["posterior"]["draws"].to_numpy().reshape(-1, tree["posterior"].sizes["parameter"])
    centred = draws - draws.mean(axis=0)
    found: FloatArray = np.log(2.0) * centred.T @ total.to_numpy().ravel() / len(draws) / draws.std(axis=0)
    return found


def power_scaling_tree(fit: PosteriorNumbers, unit: Unit, names: list[str] | None = None) -> Any:
    """Tree with what power-scaling needs: draws of the parameters by name, log prior, and the sum of the likelihood."""
    import xarray as xr

    if "log_prior" not in fit.datatree.children:
        reason = "the tree has no group log_prior: the priors are not known"
        raise NotAvailableError("psense", reason, "fit with model.fit(), which knows its priors", SEE)
    tree = xr.DataTree.from_dict({"log_prior": fit.datatree["log_prior"].to_dataset()})
    draws = plain_draws(fit.design, fit.datatree["posterior"].to_dataset())
    tree["posterior"] = xr.DataTree(parameters_dataset(draws if names is None else {n: draws[n] for n in names}))
    total = (("chain", "draw"), total_log_likelihood(fit, unit))
    tree["log_likelihood"] = xr.DataTree(xr.Dataset({"total": total}))
    return tree


def parameters_dataset(draws: dict[str, Any]) -> Any:
    """Draws by name as one variable ``draws`` (chain, draw, parameter): a panel or a row each, in any plot of ArviZ."""
    import xarray as xr

    values = np.stack(list(draws.values()), axis=-1)
    chains, length = values.shape[:2]
    coords = {"chain": np.arange(chains), "draw": np.arange(length), "parameter": list(draws)}
    return xr.Dataset({"draws": (("chain", "draw", "parameter"), values)}, coords=coords)
