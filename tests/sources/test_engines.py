"""Dask and Spark: the same numbers, each by its own means."""

import os
import shutil
import sys

import numpy as np
import pytest

import hierlmm as hl

pytest.importorskip("duckdb")
FORMULA = "y ~ time * arm + (time | subject)"


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(11)
    J, n = 300, 5
    subject = np.repeat(np.arange(J), n)
    time = rng.uniform(0, 4, J * n)
    data = {"subject": subject, "time": time, "arm": np.repeat(rng.choice(["a", "b"], J), n)}
    import pandas as pd

    b = rng.normal(size=(J, 2))
    y = 5 + b[subject, 0] + (1 + 0.5 * b[subject, 1]) * time + rng.normal(size=J * n)
    return pd.DataFrame({**data, "y": y})


@pytest.fixture(scope="module")
def known(frame):
    return hl.TwoLevelModel.from_formula(FORMULA, frame).fit_reml()


def same(fit, known):
    assert abs(fit.criterion - known.criterion) <= 1e-10 * abs(known.criterion)
    for name in ("beta", "beta_se"):
        own, other = getattr(fit, name).to_numpy(), getattr(known, name).to_numpy()
        assert np.abs(own - other).max() <= 1e-10 * np.abs(other).max()
    assert np.abs(fit.D.to_numpy() - known.D.to_numpy()).max() <= 1e-9 * np.abs(known.D.to_numpy()).max()


@pytest.mark.slow
def test_dask(frame, known):
    dd = pytest.importorskip("dask.dataframe")
    table = dd.from_pandas(frame.sample(frac=1.0, random_state=2), npartitions=4)
    same(hl.TwoLevelModel.from_formula(FORMULA, hl.large_table(table)).fit_reml(), known)


@pytest.fixture(scope="module")
def spark():
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, and there is no java on this machine")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.shuffle.partitions", "3").config("spark.driver.bindAddress", "127.0.0.1")
    session = session.config("spark.driver.host", "127.0.0.1").getOrCreate()
    yield session
    session.stop()


@pytest.mark.slow
def test_spark(frame, known, spark, tmp_path):
    frame.sample(frac=1.0, random_state=4).to_parquet(tmp_path / "rows.parquet", index=False)
    table = spark.read.parquet(str(tmp_path / "rows.parquet"))
    fit = hl.TwoLevelModel.from_formula(FORMULA, hl.large_table(table)).fit_reml()
    same(fit, known)
