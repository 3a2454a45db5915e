"""What a model may be given as ``data=`` that is not a table in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hierlmm.design.unread import Unread
from hierlmm.errors import DataError
from hierlmm.frames import to_pandas
from hierlmm.options import checked
from hierlmm.sources.engine import LARGE, Engine
from hierlmm.sources.table import LargeTable

IN_MEMORY = 2_000_000
"""Rows up to which a table is read into memory, where everything is available."""
VALUES = 50_000_000
"""Numbers, rows times columns, up to which it is."""


@checked
def large_table(data: Any, *, memory: str | None = None) -> LargeTable:
    """Give a model data that are not read into memory, however small they are.

    A model that is given the data themselves does the same where there are more than two million rows, and reads
    smaller ones.

    Parameters
    ----------
    data : path, pyarrow.dataset.Dataset, duckdb relation, polars.LazyFrame, dask or Spark DataFrame
        A Parquet file, a folder of them, or a pattern such as ``"rows/*.parquet"``.
    memory : str, optional
        What DuckDB may use, ``"2GB"``; by default its own limit, 80 % of the machine. It goes on on disk.

    Returns
    -------
    LargeTable
        For ``data=`` of `TwoLevelModel`.

    Raises
    ------
    DataError
        If there is no such file, it is damaged, or a column has two types.
    MissingPackageError
        If DuckDB is not installed.
    """
    engine = engine_of(data, memory)
    if engine is None:
        received, reason = f"data of type {type(data).__name__}", "it is in memory, or no table"
        raise DataError(received, reason, "give the model the table itself", LARGE)
    return LargeTable(engine)


def engine_of_any(data: Any) -> Engine:
    """What reads the data, whether they are in memory or not."""
    engine = data.engine if isinstance(data, LargeTable) else engine_of(data, None)
    if engine is None:
        import pyarrow as pa
        import pyarrow.dataset as ds

        engine = engine_of(ds.dataset(pa.Table.from_pandas(to_pandas(data), preserve_index=False)), None)
        assert engine is not None
    return engine


def readable(data: Any) -> Any:
    """The data themselves, or what reads them where they are not in memory and too many to be."""
    if isinstance(data, Unread):
        return data
    engine = engine_of(data, None)
    if engine is None:
        return data
    n = int(engine.ask("SELECT count(*) AS n FROM {rows}")["n"][0].as_py())
    if n <= IN_MEMORY and n * len(engine.types) <= VALUES:
        return engine.table()
    return LargeTable(engine)


def engine_of(data: Any, memory: str | None) -> Engine | None:
    """What reads the data; None where they are in memory."""
    if isinstance(data, (str, Path)):
        from hierlmm.sources.duck import of_files

        return of_files(data, memory)
    # No library is imported to find out whether something is of it.
    kind = f"{type(data).__module__.split('.')[0]}.{type(data).__name__}"
    if kind.endswith("DuckDBPyRelation"):
        from hierlmm.sources.duck import of_relation

        return of_relation(data, "a relation, read by DuckDB")
    if kind.startswith("pyarrow.") and kind.endswith("Dataset"):
        from hierlmm.sources.duck import of_dataset

        return of_dataset(data, memory)
    if kind == "polars.LazyFrame":
        from hierlmm.sources.duck import of_polars

        return of_polars(data, memory)
    if kind.startswith("dask") and hasattr(data, "npartitions"):
        from hierlmm.sources.duck import of_dask

        return of_dask(data, memory)
    if kind == "pyspark.DataFrame":
        from hierlmm.sources.spark import SparkEngine

        return SparkEngine(data)
    return None
