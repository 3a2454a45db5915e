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


def test_saved_and_added(rows, tmp_path):
    """Two files of disjoint subjects are one model; one subject in both is refused, and so are damaged files."""
    first, second = rows[rows["subject"] < 1500], rows[rows["subject"] >= 1500]
    for name in MODELS:
        if name == "missing":
            continue
        model = hl.TwoLevelModel.from_formula(MODELS[name], hl.large_table(_written(first, tmp_path / "a.parquet")))
        model.save_crossproducts(tmp_path / "a.nc", overwrite=True)
        one = hl.load_crossproducts(tmp_path / "a.nc").fit_reml()
        _alike(one.criterion, model.fit_reml().criterion, name)
        model.save_crossproducts(
            tmp_path / "b.nc", hl.large_table(_written(second, tmp_path / "b.parquet")), overwrite=True
        )
        both = hl.load_crossproducts(tmp_path / "a.nc", tmp_path / "b.nc").fit_reml()
        assert both.n_obs == len(rows)
        if name in ("factors", "interactions"):  # knots and polynomials are those of the first file
            whole = hl.TwoLevelModel.from_formula(MODELS[name], rows).fit_reml()
            _alike(both.criterion, whole.criterion, name)
            _alike(both.beta.to_numpy(), whole.beta.to_numpy(), name)
    with pytest.raises(hl.DataError, match="both"):
        hl.load_crossproducts(tmp_path / "a.nc", tmp_path / "a.nc")


def _written(frame, path):
    frame.to_parquet(path, index=False)
    return path


def test_a_marginal_model(rows, tmp_path):
    path = _written(rows, tmp_path / "a.parquet")
    fits = [
        hl.MarginalModel("y ~ time + arm", subject="subject", data=data).fit_reml()
        for data in (hl.large_table(path), rows)
    ]
    _alike(fits[0].criterion, fits[1].criterion, "")
    _alike(fits[0].beta.to_numpy(), fits[1].beta.to_numpy(), "")
    _alike(fits[0].beta_se.to_numpy(), fits[1].beta_se.to_numpy(), "")


def test_written_for_all_subjects(rows, tmp_path):
    path = _written(rows.sample(frac=1.0, random_state=1), tmp_path / "a.parquet")
    fit = hl.TwoLevelModel.from_formula(MODELS["factors"], hl.large_table(path)).fit_reml()
    known = hl.TwoLevelModel.from_formula(MODELS["factors"], rows).fit_reml()
    found = pd.read_parquet(fit.write_random_effects(tmp_path / "b.parquet")).set_index("subject")
    _alike(found[list(known.b.columns)].to_numpy(), known.b.to_numpy(), "", 100.0)
    _alike(found[[f"sd({name})" for name in known.b.columns]].to_numpy(), known.b_sd.to_numpy(), "", 100.0)
    lines = pd.read_parquet(fit.write_fitted(tmp_path / "f.parquet"))
    key = ["subject", "time", "y"]
    own = rows.assign(fitted=known.fitted(), line=known.fitted("population"))
    joined = lines.merge(own, on=key, validate="one_to_one")
    _alike(joined["fitted (subject)"].to_numpy(), joined["fitted"].to_numpy(), "", 100.0)
    _alike(joined["fitted (population)"].to_numpy(), joined["line"].to_numpy(), "", 100.0)
