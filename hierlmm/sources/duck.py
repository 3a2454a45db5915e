"""DuckDB: Parquet files and folders, Arrow data sets, relations; other lazy tables are written to Parquet first."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from hierlmm.errors import MissingPackageError
from hierlmm.sources.engine import BATCH, LARGE, Batches, Engine, quoted, refuse_file

VIEW = "hierlmm_rows"


def connection(memory: str | None = None) -> Any:
    """A DuckDB of our own, in memory, that may use the disk for what does not fit."""
    try:
        import duckdb
        import pyarrow as pa  # noqa: F401  through which rows come
    except ImportError as error:
        reason, remedy = "files are read by DuckDB and Arrow", "install them: pip install 'hierlmm[duckdb]'"
        raise MissingPackageError("data that are not in memory", reason, remedy, LARGE) from error
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")
    con.execute("SET preserve_insertion_order = true")
    if memory:
        con.execute(f"SET memory_limit = '{memory}'")
    con.execute(f"SET temp_directory = '{scratch(con)}'")
    return con


def scratch(owner: Any) -> Path:
    """A folder that is there as long as its owner."""
    folder = tempfile.mkdtemp(prefix="hierlmm-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class DuckEngine(Engine):
    """A relation of DuckDB.

    Parameters
    ----------
    relation : duckdb.DuckDBPyRelation
    label : str
    categories : dict, optional
        Levels of columns in their order; those of ENUM columns are known.
    keep : object
        What must live as long as the relation.
    """

    hash, text = "hash", "VARCHAR"

    def __init__(
        self, relation: Any, label: str, categories: dict[str, tuple[str, ...]] | None = None, *keep: Any
    ) -> None:
        self.relation, self.label, self._keep = relation, label, keep
        schema = relation.limit(0).to_arrow_table().schema
        self.types = {field.name: field.type for field in schema}
        enums = {
            name: tuple(kind.children[0][1])
            for name, kind in zip(relation.columns, relation.types, strict=True)
            if kind.id == "enum"
        }
        self.categories = enums | (categories or {})

    def ask(self, question: str) -> Any:
        """See `Engine.ask`."""
        return self.relation.query(VIEW, question.format(rows=VIEW)).to_arrow_table()

    def select(self, columns: Sequence[str], where: str) -> DuckEngine:
        """See `Engine.select`."""
        chosen = self.relation.filter(where) if where else self.relation
        chosen = chosen.project(", ".join(map(quoted, columns)))
        known = {name: levels for name, levels in self.categories.items() if name in columns}
        return DuckEngine(chosen, self.label, known, self)

    def batches(self, order: str | None = None) -> Generator[Any]:
        """See `Engine.batches`."""
        rows = self.relation if order is None else self.relation.order(quoted(order))
        reader = rows.to_arrow_reader(BATCH)
        try:
            yield from reader
        finally:
            reader.close()  # a connection answers one question at a time

    def reduce[T](self, subject: str, work: Callable[[Callable[[bool], Batches]], T]) -> Iterator[T]:
        """See `Engine.reduce`."""
        yield work(lambda ordered: self.batches(subject if ordered else None))


def of_files(path: str | Path, memory: str | None) -> DuckEngine:
    """Parquet: a file, a folder with all that is in it, or a pattern with ``*``.

    Raises
    ------
    DataError
        If there is none, one is damaged, or a column has two types.
    """
    con = connection(memory)
    files = _parquet_files(path)
    _check_schemas(files)
    listed = ", ".join("'" + str(own).replace("'", "''") + "'" for own in files)
    relation = con.sql(f"SELECT * FROM read_parquet([{listed}])")
    return DuckEngine(relation, f"{Path(path).name}, read by DuckDB", _declared(files[0]), con)


def _parquet_files(path: str | Path) -> list[Path]:
    import glob

    path = Path(path)
    if path.is_dir():
        found = sorted(own for own in path.rglob("*.parquet") if own.is_file())
        if not found:
            raise refuse_file(path, "the folder has no file whose name ends in .parquet", "check the folder")
        return found
    found = sorted(Path(own) for own in glob.glob(str(path))) if any(c in str(path) for c in "*?[") else [path]
    if not found or not found[0].is_file():
        reason = "there is no such file or folder"
        raise refuse_file(path, reason, "check the name, and the folder from which Python was started")
    return found


def _check_schemas(files: Sequence[Path]) -> None:
    """Refuse files that are damaged, and columns with another type in another file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first: dict[str, Any] = {}
    for number, own in enumerate(files):
        try:
            meta = pq.ParquetFile(own)
            schema = {field.name: field.type for field in meta.schema_arrow}
        except (pa.ArrowInvalid, OSError) as error:
            reason = f"it is no complete Parquet file ({str(error).splitlines()[0].rstrip('.')})"
            remedy = "write it again; tables of other kinds can be read into memory first (pd.read_csv, ...)"
            raise refuse_file(own, reason, remedy) from error
        if number == 0:
            first = schema
            continue
        for name in first:
            if name not in schema:
                reason = f"it has no column {name!r}, which {files[0].name!r} has"
                raise refuse_file(own, reason, "write the files with the same columns")
            if _plain(schema[name]) != _plain(first[name]):
                reason = f"its column {name!r} is {schema[name]}, and in {files[0].name!r} it is {first[name]}"
                raise refuse_file(own, reason, f"write the files with one type of {name!r}")


def _plain(kind: Any) -> Any:
    """The type of what a dictionary encodes."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _declared(file: Path) -> dict[str, tuple[str, ...]]:
    """Levels of the categorical columns of a file, in their order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pq.ParquetFile(file)
    names = [field.name for field in found.schema_arrow if pa.types.is_dictionary(field.type)]
    if not names or not found.num_row_groups:
        return {}
    table = found.read_row_group(0, columns=names).unify_dictionaries()
    return {name: tuple(table[name].chunk(0).dictionary.to_pylist()) for name in names if table[name].num_chunks}


def of_relation(relation: Any, label: str) -> DuckEngine:
    """A relation of the user's own connection."""
    return DuckEngine(relation, label)


def of_dataset(dataset: Any, memory: str | None) -> DuckEngine:
    """A ``pyarrow.dataset``, or anything else that Arrow scans again and again."""
    con = connection(memory)
    con.register("dataset", dataset)
    return DuckEngine(con.sql("SELECT * FROM dataset"), "an Arrow data set, read by DuckDB", None, con, dataset)


class Written(Engine):
    """A lazy table of another library: the columns in use are written to Parquet, which DuckDB reads.

    Parameters
    ----------
    write : callable
        Writes columns to a folder that is there.
    types : dict
    categories : dict
    label : str
    memory : str, optional
    """

    hash, text = "hash", "VARCHAR"

    def __init__(
        self,
        write: Callable[[Sequence[str], Path], None],
        types: dict[str, Any],
        categories: dict[str, tuple[str, ...]],
        label: str,
        memory: str | None,
    ) -> None:
        self._write, self.types, self.categories, self.label, self._memory = write, types, categories, label, memory

    def written(self, columns: Sequence[str]) -> DuckEngine:
        """These columns, on disk until the engine is gone."""
        con = connection(self._memory)
        folder = scratch(con)
        self._write(columns, folder)
        _check_schemas(sorted(folder.glob("*.parquet")))
        relation = con.sql(f"SELECT * FROM read_parquet('{folder}/*.parquet')")
        known = {name: levels for name, levels in self.categories.items() if name in columns}
        return DuckEngine(relation, self.label, known, con)

    def ask(self, question: str) -> Any:
        """See `Engine.ask`."""
        return self.written(list(self.types)).ask(question)

    def select(self, columns: Sequence[str], where: str) -> DuckEngine:
        """See `Engine.select`."""
        return self.written(columns).select(columns, where)

    def batches(self, order: str | None = None) -> Generator[Any]:
        """See `Engine.batches`."""
        return self.written(list(self.types)).batches(order)

    def reduce[T](self, subject: str, work: Callable[[Callable[[bool], Batches]], T]) -> Iterator[T]:
        """See `Engine.reduce`."""
        return self.written(list(self.types)).reduce(subject, work)


def of_polars(frame: Any, memory: str | None) -> Written:
    """A ``polars.LazyFrame``, whose plan runs once and streams."""
    import polars as pl

    schema = frame.collect_schema()
    types = {
        name: column.type for name, column in zip(schema, pl.DataFrame(schema=schema).to_arrow().schema, strict=True)
    }
    declared = {name: tuple(kind.categories) for name, kind in schema.items() if isinstance(kind, pl.Enum)}

    def write(columns: Sequence[str], folder: Path) -> None:
        frame.select(columns).sink_parquet(folder / "rows.parquet")

    return Written(write, types, declared, "a LazyFrame, read by Polars", memory)


def of_dask(frame: Any, memory: str | None) -> Written:
    """A Dask DataFrame, partition by partition."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = frame._meta
    schema = pa.Schema.from_pandas(meta, preserve_index=False)
    types = {field.name: field.type for field in schema}
    declared = {
        name: tuple(kind.categories)
        for name, kind in meta.dtypes.items()
        if hasattr(kind, "categories") and "UNKNOWN" not in str(list(kind.categories))
    }

    def write(columns: Sequence[str], folder: Path) -> None:
        chosen = frame[list(columns)]
        for k in range(chosen.npartitions):
            table = pa.Table.from_pandas(chosen.get_partition(k).compute(), preserve_index=False)
            pq.write_table(table, folder / f"{k:06d}.parquet")

    return Written(write, types, declared, "a Dask data frame, read by Dask", memory)
