"""Reading the data of the command line: a data set of the package, or a CSV, Parquet or Excel file."""

from __future__ import annotations

import csv
import io
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.datasets.catalogue import catalogue, load_dataset
from hierlmm.design.formula import parse_formula
from hierlmm.errors import DataError, FormulaError, MissingPackageError, UnknownDatasetError, closest
from hierlmm.frames import quote, require_columns, shorten

SEE = "hierlmm fit --help; docs, page 'Command line'"
TEXT = (".csv", ".tsv", ".tab", ".txt", "")
PARQUET = (".parquet", ".pq")
COMPRESSED = (".gz", ".bz2", ".xz")
EXCEL = (".xlsx",)
READABLE = ".csv, .tsv, .txt (each also with .gz, .bz2 or .xz), .parquet and .xlsx"
# Words that mean "missing" wherever they stand. Not among them: None, which is a level of many a treatment.
MISSING_WORDS = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]
CODE = re.compile(r"""(?<![^\s,;"])[+-]?(0\d+|\d{16,})(?![^\s,;"])""")  # a field that may be a label, not a number


@dataclass(frozen=True)
class Source:
    """A table, where it came from, and what a careful reader should know about how it was read."""

    frame: pd.DataFrame
    origin: str
    notes: tuple[str, ...] = ()
    code: str | None = None
    """Python code that reads it."""


def read_data(source: str, categorical: Sequence[str] = (), formula: str | None = None) -> Source:
    """Read a data set by name or a file by path.

    A file that exists, and anything with a folder or an extension in it, is a path; the rest is the name of a data set.

    Parameters
    ----------
    source : str
        ``"dental"``, ``"growth.csv"``, ``"data/growth.parquet"``.
    categorical : sequence of str
        Columns to take as categories whatever they hold; several in one string are separated by commas.
    formula : str, optional
        The model's formula: its grouping column holds labels, in which leading zeros and every digit count. Without it
        a column with leading zeros is text if numbers would make two of its entries one.

    Raises
    ------
    DataError
        If there is no such file or column, or the file cannot be read as a table.
    UnknownDatasetError
        If there is no data set of this name.
    MissingPackageError
        For Parquet without pyarrow, for Excel without openpyxl.
    """
    path = Path(source).expanduser()
    if path.is_file():
        read = _read_file(path, _label_columns(categorical, formula), known=formula is not None)
        if source in catalogue():
            note = f"{source!r} is a file here, so it was read instead of the data set of the same name."
            read = Source(read.frame, read.origin, (note, *read.notes))
    elif path.is_dir() and source not in catalogue():
        raise DataError(f"the folder {source}", "the data are one file, not a folder", _which_file(path), SEE)
    elif "/" in source or "\\" in source or path.suffix:
        raise _not_found(source, path)
    else:
        read = _read_dataset(source)
    reader = {".parquet": "read_parquet", ".xlsx": "read_excel"}.get(path.suffix.lower(), "read_csv")
    code = f"pd.{reader}({source!r})" if path.is_file() else f"hl.load_dataset({source!r})"
    return Source(_as_categories(read.frame, categorical), read.origin, read.notes, code)


def read_bytes(name: str, content: bytes) -> Source:
    """Read text that is in memory, as a file of this name would be; nothing is decompressed, nothing written.

    Parameters
    ----------
    name : str
        For messages.
    content : bytes

    Raises
    ------
    DataError
        If it cannot be read as a table.
    """
    return _read_file(Path(name), reader=partial(_read_text, labels=frozenset(), known=False, content=content))


def _read_dataset(name: str) -> Source:
    if name not in catalogue():
        reason = f"there is neither a file nor a data set of this name.{closest(name, catalogue())}"
        remedy = "name a file (with its extension) or one of the data sets that `hierlmm datasets` lists"
        raise UnknownDatasetError(repr(name), reason, remedy, SEE)
    return Source(load_dataset(name), f"data set {name!r} ({catalogue()[name].title})")


def _unusable(path: Path | str, reason: str, remedy: str) -> DataError:
    return DataError(f"the file {path}", reason, remedy, SEE)


def _not_found(source: str, path: Path) -> DataError:
    if "://" in source:
        return DataError(source, "only files on this machine are read", "download it first", SEE)
    folder = path.parent
    if not folder.is_dir():
        return _unusable(source, f"there is no folder {folder}", "check the path")
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    return _unusable(source, f"it does not exist.{closest(path.name, names)}", f"check the path; {_which_file(folder)}")


def _which_file(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if _format(entry)[0] in (*TEXT[:-1], *PARQUET, *EXCEL))
    if not names:
        return f"name a file of the kind {READABLE} (there is none in that folder)"
    return f"name one of its files: {', '.join(names[:5])}" + (", ..." if len(names) > 5 else "")


def _format(path: Path) -> tuple[str, str]:
    """Extension without the compression, and the compression."""
    suffix = path.suffix.lower()
    return (path.with_suffix("").suffix.lower(), suffix) if suffix in COMPRESSED else (suffix, "")


def _label_columns(categorical: Sequence[str], formula: str | None) -> frozenset[str]:
    """Columns that hold labels: the grouping of the formula and what --categorical names."""
    labels = {part.strip() for given in categorical for part in (given, *given.split(","))}
    if formula is not None:
        with suppress(FormulaError):  # refused with its reason when the model is set up
            labels |= {term.subject for term in parse_formula(formula).random}
    return frozenset(labels)


def _read_file(
    path: Path,
    labels: frozenset[str] = frozenset(),
    *,
    known: bool = False,
    reader: Callable[[Path], Source] | None = None,
) -> Source:
    kind, compression = _format(path)
    if reader is not None:
        read = reader
    elif kind in PARQUET and not compression:
        read = _read_parquet
    elif kind in EXCEL and not compression:
        read = _read_excel
    elif kind in TEXT:
        read = partial(_read_text, labels=labels, known=known)
    else:
        raise _unusable(path, f"files of type {path.suffix!r} are not read", f"save it as one of {READABLE}")
    try:
        result = read(path)
    except DataError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = f"it cannot be read: {getattr(error, 'strerror', None) or error}"
        raise _unusable(path, reason, "check that it is complete, and that you may read it") from error
    if result.frame.empty:
        raise _unusable(path, "it has column names and no rows", "check how it was made; one row per measurement")
    return result


def _need(package: str, path: Path, what: str, extra: str, part: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        reason = f"reading {what} needs the package {package}, which is not installed"
        remedy = f'run: pip install "hierlmm[{extra}]", or save the {part} as CSV'
        raise MissingPackageError(f"the file {path}", reason, remedy, SEE) from error


def _read_parquet(path: Path) -> Source:
    _need("pyarrow", path, "Parquet", "parquet", "table")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        frame = pq.read_table(path).to_pandas()
    except pa.ArrowException as error:
        reason = f"it is not a Parquet file: {_first_line(error)}"
        raise _unusable(path, reason, "write it again, or use CSV") from error
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    return Source(frame, f"Parquet file {path}")


def _read_excel(path: Path) -> Source:
    """Read the first sheet: a line of names, and a row for each measurement."""
    _need("openpyxl", path, "Excel files", "excel", "sheet")  # what pandas reads it with
    try:
        with pd.ExcelFile(path, engine="openpyxl") as book:
            sheets = [str(name) for name in book.sheet_names]
            # As objects, a label 01 that is text in the sheet stays text.
            frame = pd.read_excel(book, dtype=object, keep_default_na=False, na_values=MISSING_WORDS).infer_objects()
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise _unusable(path, f"it is not an Excel file: {_first_line(error)}", "save it again, or use CSV") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    notes = (f"the first of {len(sheets)} sheets is read, {sheets[0]!r}.",) if len(sheets) > 1 else ()
    return Source(frame, f"Excel file {path}", (*notes, *_nearly_numeric(frame)))


def _read_text(path: Path, labels: frozenset[str], *, known: bool, content: bytes | None = None) -> Source:
    in_memory = None if content is None else io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    try:
        with in_memory or _open_text(path) as handle:
            separator, decimal = _dialect(path, handle.read(65536))
            handle.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                # pandas would make row names of a first column without a name
                options: dict[str, Any] = {"sep": separator, "index_col": False, "skipinitialspace": True}
                options |= {"keep_default_na": False, "na_values": MISSING_WORDS, "low_memory": False}
                frame = pd.read_csv(handle, decimal=decimal, **options)
                handle.seek(0)
                texts = None
                if any(CODE.search(line) for line in handle):
                    handle.seek(0)
                    texts = pd.read_csv(handle, dtype="str", **options)
    except UnicodeDecodeError as error:
        remedy = f"save it as 'CSV UTF-8'; the formats that can be read are {READABLE}"
        raise _unusable(path, f"it is not text in UTF-8 (byte {error.start:,})", remedy) from error
    except pd.errors.ParserWarning as error:
        remedy = "name every column (from R: write.csv(data, row.names = FALSE))"
        raise _unusable(path, "its rows have more fields than its first line has column names", remedy) from error
    except (pd.errors.ParserError, csv.Error) as error:
        remedy = "every line needs as many fields as the first, and text that contains the separator needs quotes"
        raise _unusable(path, f"it is not a table: {_first_line(error)}", remedy) from error
    frame.columns = [str(name).strip() for name in frame.columns]
    notes = [] if texts is None else _keep_labels(frame, texts, labels, known=known)
    kind = {",": "comma", ";": "semicolon", "\t": "tab"}[separator] + "-separated"
    how = kind + (", decimal comma" if decimal == "," else "")
    return Source(frame, f"file {path} ({how})", (*notes, *_nearly_numeric(frame)))


def _keep_labels(frame: pd.DataFrame, texts: pd.DataFrame, labels: frozenset[str], *, known: bool) -> list[str]:
    """Restore, in place, the whole numbers that lost leading zeros or digits when they were read as numbers."""
    notes = []
    for position, name in enumerate(frame.columns):
        text = texts.iloc[:, position].str.strip()
        different = pd.Series(text.dropna().unique(), dtype="str")
        if different.empty or not different.str.fullmatch(r"[+-]?\d+").all():
            continue
        padded = different[different.str.match(r"[+-]?0\d")]
        long = different[different.str.len() > 15]
        merged = len({int(value) for value in different}) < len(different)
        if (name in labels and (len(padded) or len(long))) or (not known and len(padded) and merged):
            frame[name] = text
            example = (padded if len(padded) else long).iloc[0]
            why = "leading zeros" if len(padded) else "more than 15 digits"
            notes.append(f"column {name!r} is read as text, because it holds labels with {why} (such as {example}).")
        elif len(long) and not pd.api.types.is_integer_dtype(frame[name].dtype):
            frame[name] = pd.Series([None if pd.isna(v) else int(v) for v in text], frame.index, dtype=object)
    return notes


def _open_text(path: Path) -> Any:
    import bz2
    import gzip

    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers.get(_format(path)[1], open)(path, "rt", encoding="utf-8-sig", newline="")


def _dialect(path: Path, head: str) -> tuple[str, str]:
    """Find the separator from the line of names, and the decimal sign from the lines below it."""
    if not head.strip():
        raise _unusable(path, "it is empty", "check how it was made")
    if "\0" in head:
        raise _unusable(path, "it holds binary data, not text", f"save it as one of {READABLE}")
    first, _, below = head.lstrip("\r\n").partition("\n")
    separator = max(",;\t", key=first.count)
    names = [name.strip() for name in next(csv.reader([first.strip("\r")], delimiter=separator))]
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if twice:
        raise _unusable(path, f"two columns are named {twice[0]!r}", "give every column a name of its own")
    if all(_is_number(name) for name in names):
        reason = f"its first line holds numbers ({', '.join(names[:3])}), where the names of the columns are expected"
        raise _unusable(path, reason, "put a line of names above the data")
    if len(names) == 1:
        reason = f"its first line makes one column only, {names[0]!r}: no comma, semicolon or tab was found"
        remedy = "separate the columns by commas; a model needs at least a response and a grouping column"
        raise _unusable(path, reason, remedy)
    comma = separator == ";" and re.search(r"\d,\d", below) and not re.search(r"\d\.\d", below)
    return separator, "," if comma else "."


def _nearly_numeric(frame: pd.DataFrame) -> list[str]:
    """Columns that are text, and would be categories, only because of a few entries."""
    notes = []
    for name in frame.columns:
        column = frame[name].dropna()
        numbers = pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
        if numbers or all(isinstance(value, int) for value in column):
            continue
        other = column[pd.to_numeric(column, errors="coerce").isna()]
        if 0 < len(other) < 0.5 * len(column):
            row = int(frame.index.get_indexer(other.index[:1])[0])
            notes.append(
                f"column {name!r} is text, because {len(other)} of its {len(column)} entries are not numbers "
                f"(the first: {quote(other.iloc[0])} in row {row + 1}). In a formula it stands for categories."
            )
    return notes


def _as_categories(frame: pd.DataFrame, categorical: Sequence[str]) -> pd.DataFrame:
    columns = [str(c) for c in frame.columns]
    wanted: list[str] = []
    for given in categorical:
        wanted += [given] if given in columns else [part.strip() for part in given.split(",") if part.strip()]
    require_columns(wanted, columns, "--categorical")
    return frame.astype(dict.fromkeys(wanted, "category")) if wanted else frame


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].removeprefix("Error tokenizing data. ")


BLANKS = "docs, page 'Command line', section 'Names with blanks'"
EMPTY = re.compile(r"[~+*:/|(](?=[+*:/|)]|$)")
NUMBERED = re.compile(r"(.*?\D)[ ._-]?(\d+)")


def refuse_blanks(formula: str, columns: list[str]) -> None:
    """Refuse a formula in which a name with blanks stands without backticks, or from which the shell took it away.

    Parameters
    ----------
    formula : str
    columns : list of str
        Names of the columns of the file.

    Raises
    ------
    FormulaError
    """
    blank = [name for name in columns if re.search(r"\s", name)]
    bare = re.sub(r"`[^`]*`", "`", formula)
    how = "put the name into backticks and the formula into single quotes: hierlmm fit DATA 'y ~ `{}` + (1 | subject)'"
    for name in sorted(blank, key=len, reverse=True):
        words = r"\s+".join(map(re.escape, name.split()))
        if re.search(rf"(?<!\w){words}(?!\w)", bare):
            reason = "a blank ends a name in a formula, unless the name stands in backticks"
            raise FormulaError(f"the column {name!r} in the formula {formula!r}", reason, how.format(name), BLANKS)
    compact = re.sub(r"\s", "", bare).replace("||", "|").replace("**", "*").replace("//", "/")
    if blank and EMPTY.search(compact):
        names = f"columns with blanks in their names ({shorten(map(repr, blank), 3)})"
        received = f"the formula {formula!r}, in which a place is empty, and {names}"
        reason = "in double quotes the shell runs what stands between backticks, and puts its output in its place"
        raise FormulaError(received, reason, how.format(blank[0]), BLANKS)


def refuse_wide(formula: str, frame: pd.DataFrame) -> None:
    """Refuse a file with one row for each subject and its measurements side by side.

    Parameters
    ----------
    formula : str
    frame : DataFrame

    Raises
    ------
    DataError
    """
    try:
        parsed = parse_formula(formula)
    except FormulaError:  # refused with its reason when the model is set up
        return
    families: dict[str, list[str]] = {}
    for name in frame.select_dtypes("number").columns:
        if found := NUMBERED.fullmatch(str(name)):
            families.setdefault(found[1], []).append(str(name))
    side_by_side = {stem: names for stem, names in families.items() if len(names) > 1}
    subject = parsed.random[0].subject if parsed.random else ""
    once = frame[subject].is_unique if subject in frame else parsed.response not in frame
    if not side_by_side or not once:
        return
    stem, names = max(side_by_side.items(), key=lambda family: len(family[1]))
    response = stem.strip(" ._-")
    pattern = re.escape(stem).replace(r"\_", "_") + r"[ ._-]?(\d+)"
    who = f"subject={subject!r}, " if subject in frame else ""
    received = f"a wide file: {len(frame)} rows, and the measurements side by side ({shorten(names, 4)})"
    reason = "a model needs one row for each measurement" + (f", and every {subject!r} has one row" if who else "")
    call = f'hl.to_long(data, {who}values=r"{pattern}", response={response!r}).to_csv("long.csv", index=False)'
    remedy = f"make it long in Python: {call}; it has the number at the end of each name as the column 'time'"
    raise DataError(received, reason, remedy, "docs, page 'Data'")
