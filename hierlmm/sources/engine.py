"""What reads a table that is not in memory: questions in SQL, rows in batches, and work on whole subjects.

Questions are written in the SQL that DuckDB and Spark share, about a view named ``{rows}``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from hierlmm.errors import DataError

LARGE = "docs, page 'Large data'"
BATCH = 1_000_000
"""Rows that are looked at together."""

type Categories = Mapping[str, tuple[str, ...]]
"""Column -> its levels in their order, where the table declares them."""
type Batches = Generator[Any]
"""Arrow record batches."""


def quoted(name: str) -> str:
    """A column in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: Any) -> str:
    """A label in SQL."""
    import datetime

    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime.datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    if isinstance(value, datetime.date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, float):
        return f"CAST('{value!r}' AS DOUBLE)"
    return str(value)


class Engine(ABC):
    """A table and what reads it.

    Attributes
    ----------
    label : str
        Where the rows are and what reads them: ``rows.parquet, read by DuckDB``.
    types : dict
        Column -> Arrow type.
    categories : dict
        Column -> its levels in their order, where the table declares them.
    """

    label: str
    types: dict[str, Any]
    categories: dict[str, tuple[str, ...]]
    hash: str
    """The function of SQL that scatters text."""
    text: str
    """The type of text in SQL."""

    @abstractmethod
    def ask(self, question: str) -> Any:
        """Answer of a question in SQL about ``{rows}``, a ``pyarrow.Table``."""

    @abstractmethod
    def select(self, columns: Sequence[str], where: str) -> Engine:
        """The same table with these columns, and the rows for which a condition holds."""

    @abstractmethod
    def batches(self, order: str | None = None) -> Generator[Any]:
        """All rows as Arrow record batches, sorted by a column if one is named."""

    @abstractmethod
    def reduce[T](self, subject: str, work: Callable[[Callable[[bool], Batches]], T]) -> Iterator[T]:
        """What ``work`` makes of all rows, in one piece or in pieces of disjoint subjects.

        Parameters
        ----------
        subject : str
        work : callable
            It is given a function that reads the rows of the piece, sorted by subject if it is given True.
        """

    elsewhere = False
    """Whether rows are summed in other processes."""

    def table(self) -> Any:
        """All rows in memory, as pandas with the levels that are declared."""
        import pyarrow as pa

        return as_frame(pa.Table.from_batches(list(self.batches())), self.categories)

    def is_float(self, column: str) -> bool:
        """Whether a column holds floating-point numbers."""
        import pyarrow as pa

        return bool(pa.types.is_floating(self.types[column]))

    def is_number(self, column: str) -> bool:
        """Whether a column holds numbers."""
        import pyarrow as pa

        kind, api = self.types[column], pa.types
        return bool(api.is_integer(kind) or api.is_floating(kind) or api.is_decimal(kind))

    def missing(self, column: str) -> str:
        """The condition that a value is missing, in SQL."""
        own = quoted(column)
        return f"({own} IS NULL OR isnan({own}))" if self.is_float(column) else f"({own} IS NULL)"


def as_frame(rows: Any, categories: Categories) -> Any:
    """Arrow rows as pandas, with the levels that the table declares."""
    import pandas as pd

    frame = rows.to_pandas()
    for name, levels in categories.items():
        if name in frame:
            frame[name] = pd.Categorical(frame[name].astype(object), categories=list(levels))
    return frame


def refuse_file(path: Any, reason: str, remedy: str) -> DataError:
    """The error for a file that cannot be read."""
    return DataError(f"the file {str(path)!r}", reason, remedy, LARGE)
