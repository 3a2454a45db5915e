"""Posteriors with several grouping factors side by side: what they predict of a row, or a group, left out."""

import numpy as np
import pytest
from draws import posterior_like

import hierlmm as hl

pytestmark = pytest.mark.filterwarnings("ignore::hierlmm.errors.FitWarning")  # of few draws, which do not matter here


@pytest.fixture(scope="module")
def sampled(pastes):
    """Two factors, the coarser of them alone, and the latter of fewer rows."""
    both = hl.MultilevelModel.from_formula("strength ~ 1 + (1 | batch / cask)", pastes)
    tables = pastes, pastes.drop(index=0)
    alone = [hl.TwoLevelModel.from_formula("strength ~ 1 + (1 | batch)", rows).fit_reml() for rows in tables]
    return [both.fit(draws=50, tune=100, chains=2, seed=1, progressbar=False), *map(posterior_like, alone)]


def test_differences_are_those_of_the_units_left_out(sampled):
    both, batch, fewer = sampled
    found = hl.compare_models(both, batch, fewer, by=["loo_observation", "loo_batch", "stacking"])
    own = (both.loo(), batch.loo("observation")), (both.loo("batch"), batch.loo("subject"))
    for name, (a, b) in zip(("loo_observation", "loo_batch"), own, strict=True):
        gap = b.elpd_i.to_numpy() - a.elpd_i.to_numpy()
        assert found.table[name].tolist()[:2] == pytest.approx([a.elpd, b.elpd]) and np.isnan(found.table[name]["m3"])
        rows = found.differences.query("criterion == @name").set_index("model")
        assert abs(rows["difference"]).max() == pytest.approx(abs(gap.sum()))
        assert rows["se"].max() == pytest.approx(np.sqrt(len(gap)) * gap.std(ddof=1))
    assert found.table["stacking"].sum() == pytest.approx(1.0)
    assert "60 rows, and 59 rows" in " ".join(found.reasons["reason"])
    assert "Differences from the best" in str(found)


def test_by_default_rows_are_left_out_where_subjects_differ(sampled):
    both, batch, _ = sampled
    table = hl.compare_models(both, batch).table
    assert "loo_subject" not in table and table["loo_observation"].notna().all()
    refused = hl.compare_models(both, batch, by=["loo_subject", "loo_batch:cask"])
    assert refused.table.iloc[:, 1:].notna().sum().tolist() == [1, 1]  # batches are the subjects of one
    assert "no such factor" in str(refused)
    with pytest.raises(hl.SpecificationError, match="loo_batch"):
        hl.compare_models(both, batch, by=["loo_bach"])
