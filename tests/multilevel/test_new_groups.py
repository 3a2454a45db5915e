"""Rows of groups that were not in the data: the mean over their random effects, those of known groups as they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from by_draws import OWN, covariance, flat
from references import HERE

import hierlmm as hl
from hierlmm.predict.generalised_factor_draws import category_means_of_factors

close = np.testing.assert_allclose


@pytest.fixture(scope="module")
def counts(count_model: hl.MultilevelModel) -> hl.GeneralisedMultilevelFit:
    return count_model.fit_ml()


@pytest.fixture(scope="module")
def graded() -> hl.GeneralisedMultilevelFit:
    rows = pd.read_csv(HERE / "data" / "factor_families.csv")
    rows = rows.assign(grade=np.minimum(rows["counts"], 2))
    return hl.MultilevelModel.from_formula("grade ~ x + (1 | pupil) + (1 | item)", rows, family="ordinal").fit_ml()


def asked(fit: Any) -> pd.DataFrame:
    """A known row, a new rater beside known others, a new school with its class."""
    rows = fit.design.frame[["x", "kind", "hours", "school", "class", "rater"]].iloc[[0, 0, 0]]
    return rows.assign(rater=[rows["rater"].iloc[0], 99, rows["rater"].iloc[0]], school=[*rows["school"][:2], 99])


def own_variance(rows: pd.DataFrame, D: np.ndarray) -> np.ndarray:
    """z'Dz of the new groups of `asked`, by D of all factors (..., 4, 4): (..., 3)."""
    Z = np.zeros((3, 4))
    Z[1, OWN["rater"]] = 1.0
    Z[2, :3] = 1.0, rows["x"].iloc[2], 1.0
    return np.einsum("ij,...jk,ik->...i", Z, D, Z)


def normal(eta: float, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """Fine nodes and weights of a normal distribution, by midpoints."""
    z = (np.arange(20_000) + 0.5) / 1000.0 - 10.0
    return eta + np.sqrt(variance) * z, np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi) / 1000.0


def test_a_likelihood_fit_has_the_closed_form_of_counts(counts):
    rows = asked(counts)
    link = counts.predict(rows, interval="confidence", scale="link", new_groups="allow")
    found = counts.predict(rows, interval="confidence", new_groups="allow")
    variance = own_variance(rows, counts.solution.D)
    close(found["estimate"], np.exp(link["estimate"] + 0.5 * variance), rtol=1e-12)
    assert found["estimate"].iloc[2] > 1.1 * np.exp(link["estimate"].iloc[2])
    close(counts.predict(rows, new_groups="allow")["estimate"], found["estimate"], rtol=1e-14)
    close(found[["lower", "upper"]], np.exp(link[["lower", "upper"]]), rtol=1e-12)
    total = link["se"].iloc[1:] ** 2
    spread = np.exp(link["estimate"].iloc[1:] + 0.5 * total) * np.sqrt(np.expm1(total))
    close(found["se"].iloc[1:], spread, rtol=1e-6)
    known = counts.predict(rows.iloc[[0]], interval="confidence")
    assert found.iloc[[0]].to_numpy().tolist() == known.to_numpy().tolist()
    assert "not in the data" not in known.attrs["estimate"]
    assert found.attrs["estimate"].endswith("; of groups that were not in the data the mean over their random effects")
    assert link.attrs["estimate"].endswith("groups that were not in the data in their middle, at b = 0")


def test_a_likelihood_fit_integrates_other_links_and_counts_trials():
    rows = pd.read_csv(HERE / "data" / "factor_families.csv")
    formula = "p(right, trials) ~ x + (1 | pupil) + (1 | item)"
    fit = hl.MultilevelModel.from_formula(formula, rows, family="binomial").fit_ml()
    new = rows.head(1).assign(item="new")
    link = fit.predict(new, scale="link", interval="confidence", new_groups="allow").iloc[0]
    found = fit.predict(new, interval="confidence", trials=7, new_groups="allow").iloc[0]
    nodes, weights = normal(link["estimate"], fit.D["item"].iloc[0, 0])
    assert found["estimate"] == pytest.approx(7.0 * weights @ (1.0 / (1.0 + np.exp(-nodes))), rel=1e-9)
    nodes, weights = normal(link["estimate"], link["se"] ** 2)
    share = 1.0 / (1.0 + np.exp(-nodes))
    assert found["se"] == pytest.approx(7.0 * np.sqrt(weights @ share**2 - (weights @ share) ** 2), rel=1e-6)


def test_a_posterior_has_the_mean_over_draws_of_new_groups(count_posterior):
    """By hand, with normal numbers of our own; six standard errors of the difference of two such means."""
    fit, rows, rng = count_posterior, asked(count_posterior), np.random.default_rng(5)
    kept = fit.predict(rows.iloc[[0]], interval="credible")
    found = {kind: fit.predict(rows, interval=kind, new_groups="allow") for kind in (None, "credible", "prediction")}
    middle = fit.predict(rows, scale="link", new_groups="allow")["estimate"].to_numpy()
    assert found["credible"].iloc[[0]].to_numpy().tolist() == kept.to_numpy().tolist()
    offset = np.log(rows["hours"].iloc[0])
    X = np.array([1.0, rows["x"].iloc[0], float(rows["kind"].iloc[0] == "q")])
    line = (offset + flat(fit, "beta") @ X)[:, None] + np.zeros(3)
    for term in fit.design.random:
        name = term.columns.group
        b = flat(fit, f"b_{name}")[:, term.group.index[0]] @ term.Z[0]
        for row in {"rater": (0, 2)}.get(name, (0, 1)):
            line[:, row] += b
    close(line.mean(axis=0), middle, rtol=1e-9)
    means = np.exp(line + np.sqrt(own_variance(rows, covariance(fit))) * rng.standard_normal(line.shape))
    error = means.std(axis=0) * np.sqrt(2.0 / len(means))
    for table in found.values():
        assert np.all(np.abs(table["estimate"] - means.mean(axis=0)) < 6.0 * error)
        assert table["estimate"].tolist() == found[None]["estimate"].tolist()
    assert found[None]["estimate"].iloc[2] > 1.1 * np.exp(line[:, 2]).mean()
    assert "the mean over their random effects" in found[None].attrs["estimate"]


def test_categories_of_new_groups_are_averaged(graded):
    rows = graded.design.frame[["x", "pupil", "item"]].iloc[[0, 0]].assign(item=lambda d: [d["item"].iloc[0], "new"])
    found = graded.probabilities(rows, new_groups="allow")
    assert found.iloc[0].tolist() == graded.probabilities(rows.iloc[[0]]).iloc[0].tolist()
    nodes, weights = normal(graded.fitted("pupil", "link").iloc[0], graded.D["item"].iloc[0, 0])
    bounds = graded.thresholds.to_numpy()[:, None] - nodes
    expected = np.diff([0.0, *((1.0 / (1.0 + np.exp(-bounds))) @ weights), 1.0])
    close(found.iloc[1], expected, rtol=1e-9)
    close(posterior_of(graded, 4000).iloc[1], expected, atol=6.0 * 0.5 / np.sqrt(4000))
    assert np.abs(graded.probabilities(level="pupil").iloc[0] - expected).max() > 1e-3


def posterior_of(fit: Any, n: int) -> pd.DataFrame:
    """Probabilities of the same rows by a posterior of which all draws are the estimates."""
    values = {"beta": fit.beta, "D": fit.solution.D} | {f"b_{name}": b for name, b in fit.b.items()}
    draws = {name: np.broadcast_to(value, (1, n, *np.shape(value))) for name, value in values.items()}
    psi = np.broadcast_to(fit.solution.psi, (1, n, len(fit.solution.psi)))
    stub = SimpleNamespace(design=fit.design, family=fit.family, draws=draws.__getitem__, psi_draws=lambda: psi)
    stub.need_effects = lambda *_, **__: None
    rows = fit.design.frame[["x", "pupil", "item"]].iloc[[0, 0]].assign(item=lambda d: [d["item"].iloc[0], "new"])
    return category_means_of_factors(stub, rows, "all", "allow")


@pytest.mark.parametrize("allowed", ["refuse", "allow"])
def test_labels_of_another_type_are_no_new_groups(fit, allowed):
    rows = fit.design.frame.head(2)
    with pytest.raises(hl.DataError, match=r"(?s)rater '\d' \(str\).*labels of another type.*astype\('int64'\)"):
        fit.predict(rows.assign(rater=rows["rater"].astype(str)), new_groups=allowed)
    with pytest.raises(hl.DataError, match=r"class '\d' \(str\)"):
        fit.predict(rows.assign(**{"class": rows["class"].astype(str)}), new_groups=allowed)
    assert len(fit.predict(rows.assign(rater=[98, 99]), new_groups="allow")) == 2
