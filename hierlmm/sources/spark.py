"""Spark: questions by its SQL, and one pass in which every executor sums the subjects of its partition."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hierlmm.sources.engine import Batches, Engine, quoted

VIEW = "hierlmm_rows"


class SparkEngine(Engine):
    """A data frame of Spark.

    Parameters
    ----------
    frame : pyspark.sql.DataFrame
    """

    hash, text, elsewhere = "xxhash64", "STRING", True
    label = "a Spark data frame"
    categories: dict[str, tuple[str, ...]]

    def __init__(self, frame: Any) -> None:
        from pyspark.sql.pandas.types import to_arrow_schema

        self.frame, self.categories = frame, {}
        self.types = {field.name: field.type for field in to_arrow_schema(frame.schema)}

    def ask(self, question: str) -> Any:
        """See `Engine.ask`."""
        self.frame.createOrReplaceTempView(VIEW)
        try:
            with _only_arrow():
                return self._session.sql(_in_sparks_words(question.format(rows=VIEW))).toArrow()
        finally:
            self._session.catalog.dropTempView(VIEW)

    @property
    def _session(self) -> Any:
        return self.frame.sparkSession

    def select(self, columns: Sequence[str], where: str) -> SparkEngine:
        """See `Engine.select`."""
        chosen = self.frame.filter(_in_sparks_words(where)) if where else self.frame
        return SparkEngine(chosen.select(*(f"`{name.replace('`', '``')}`" for name in columns)))

    def batches(self, order: str | None = None) -> Generator[Any]:
        """See `Engine.batches`."""
        import pyarrow as pa

        rows = self.frame if order is None else self.frame.orderBy(order)
        names = list(self.types)
        part: list[Any] = []
        schema = pa.schema(list(self.types.items()))
        for row in rows.toLocalIterator(prefetchPartitions=True):
            part.append(tuple(row))
            if len(part) == 100_000:
                yield _batch(part, names, schema)
                part = []
        if part:
            yield _batch(part, names, schema)

    def reduce[T](self, subject: str, work: Callable[[Callable[[bool], Batches]], T]) -> Iterator[T]:
        """See `Engine.reduce`: subjects are partitioned by Spark, and sorted within partitions."""
        import pyarrow as pa

        def of_partition(batches: Iterator[Any]) -> Iterator[Any]:
            first = next(iter(batches), None)
            if first is None:
                return

            def read(ordered: bool) -> Generator[Any]:
                yield first
                yield from batches

            found = pickle.dumps(work(read))
            yield pa.RecordBatch.from_pydict({"sums": pa.array([found], type=pa.large_binary())})

        shuffled = self.frame.repartition(quoted(subject).replace('"', "`")).sortWithinPartitions(subject)
        with _only_arrow():
            mapped = shuffled.mapInArrow(of_partition, "sums binary")
        for row in mapped.toLocalIterator():
            yield pickle.loads(row["sums"])


@contextmanager
def _only_arrow() -> Generator[None]:
    """What Spark says of the version of pandas concerns its own conversions, and here rows pass as Arrow."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield


def _batch(rows: list[Any], names: list[str], schema: Any) -> Any:
    import pyarrow as pa

    columns = [
        pa.array(values, type=schema.field(name).type)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _in_sparks_words(question: str) -> str:
    """Names in backticks: double quotes are text there."""
    return question.replace('"', "`")
