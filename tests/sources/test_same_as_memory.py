"""Data that are not in memory give what they give in memory, whoever reads them and in whatever order."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

pytest.importorskip("duckdb")

RELATIVE = 1e-10


@pytest.fixture(scope="module")
def rows():
    """Subjects with irregular times, a factor of each level, a covariate far from zero, missing values."""
    rng = np.random.default_rng(7)
    J = 900
    sizes = rng.integers(2, 9, J)
    subject = np.repeat(np.arange(J) * 3 + 11, sizes)
    n = len(subject)
    frame = pd.DataFrame({"subject": subject, "time": np.round(rng.uniform(0, 5, n), 3)})
    frame["year"] = 1990.0 + rng.integers(0, 30, n)
    frame["arm"] = np.repeat(rng.choice(["a", "b", "rare"], J, p=[0.5, 0.495, 0.005]), sizes)
    frame["site"] = rng.choice(["x", "y"], n)
    frame["dose"] = np.repeat(rng.normal(40.0, 3.0, J), sizes)
    frame["base"] = rng.normal(size=n)
    b = rng.multivariate_normal([0, 0], [[4.0, 0.6], [0.6, 0.5]], J)
    who = np.repeat(np.arange(J), sizes)
    line = 100.0 + 0.3 * frame["dose"] + b[who, 0] + (1.0 + b[who, 1]) * frame["time"] + frame["base"]
    frame["y"] = line + np.sin(frame["time"]) + (frame["site"] == "y") + rng.normal(0, 1.0, n)
    return frame


MODELS = {
    "factors": "y ~ arm + site + time + (time | subject)",
    "interactions": "y ~ arm * time + dose:time + (1 + time || subject)",
    "splines": "y ~ ns(time, 3) + center(dose) + (1 | subject)",
    "offset": "y ~ poly(time, 2) + I(year - 2000) + offset(base) + (time | subject)",
    "missing": "y ~ time + year + site + (time | subject)",
}


def with_gaps(frame):
    frame = frame.copy()
    frame.loc[frame.index[3::50], "year"] = np.nan
    frame.loc[frame.index[7::70], "y"] = np.nan
    return frame


def in_files(frame, folder, pieces):
    folder.mkdir()
    for k, part in enumerate(np.array_split(np.arange(len(frame)), pieces)):
        frame.iloc[part].to_parquet(folder / f"{k:03d}.parquet", index=False)
    frame.iloc[:0].to_parquet(folder / "999.parquet", index=False)
    return folder


def sources(frame, folder):
    import duckdb
    import polars as pl
    import pyarrow.dataset

    shuffled = frame.sample(frac=1.0, random_state=3)
    path = in_files(frame, folder / "sorted", 1)
    mixed = in_files(shuffled, folder / "mixed", 5)
    con = duckdb.connect()
    yield "file", str(path / "000.parquet")
    yield "folder, shuffled", mixed
    yield "pattern", f"{mixed}/*.parquet"
    yield "relation", con.sql(f"SELECT * FROM read_parquet('{mixed}/*.parquet')")
    yield "dataset", pyarrow.dataset.dataset(path)
    yield "polars", pl.scan_parquet(f"{mixed}/*.parquet")


@pytest.mark.parametrize("name", MODELS)
def test_same_numbers(name, rows, tmp_path):
    frame = with_gaps(rows) if name == "missing" else rows
    options = {"missing": "drop"} if name == "missing" else {}
    read = hl.TwoLevelModel.from_formula
    with pytest.warns(hl.FitWarning, match="dropped") if options else _nothing():
        memory = read(MODELS[name], frame, **options).fit_reml()
    for who, source in sources(frame, tmp_path):
        with pytest.warns(hl.FitWarning, match="dropped") if options else _nothing():
            model = read(MODELS[name], hl.large_table(source), **options)
        fit = model.fit_reml()
        _alike(fit.criterion, memory.criterion, who)
        _alike(fit.beta.to_numpy(), memory.beta.to_numpy(), who)
        _alike(fit.sigma, memory.sigma, who)
        _alike(fit.D.to_numpy(), memory.D.to_numpy(), who, 10.0)
        _alike(fit.beta_se.to_numpy(), memory.beta_se.to_numpy(), who)
        assert list(fit.beta.index) == list(memory.beta.index)
        own = memory.b.loc[fit.b.index].to_numpy()
        _alike(fit.b.to_numpy(), own, who, 100.0)


def _alike(own, known, who, times=1.0):
    own, known = np.asarray(own), np.asarray(known)
    assert own.shape == known.shape, who
    assert np.abs(own - known).max() <= times * RELATIVE * np.abs(known).max(), (who, np.abs(own - known).max())


def _nothing():
    import contextlib

    return contextlib.nullcontext()
