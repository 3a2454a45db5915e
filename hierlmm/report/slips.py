"""What users of the command line trip over: names with blanks, quotes that let the shell in, and wide files."""

from __future__ import annotations

import re

import pandas as pd

from hierlmm.design.formula import parse_formula
from hierlmm.errors import DataError, FormulaError
from hierlmm.frames import shorten

__all__ = ["refuse_blanks", "refuse_wide"]

SEE = "docs, page 'Command line', section 'Names with blanks'"
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
            raise FormulaError(f"the column {name!r} in the formula {formula!r}", reason, how.format(name), SEE)
    compact = re.sub(r"\s", "", bare).replace("||", "|").replace("**", "*").replace("//", "/")
    if blank and EMPTY.search(compact):
        raise FormulaError(
            f"the formula {formula!r}, in which a place is empty, and columns with blanks in their names "
            f"({shorten(map(repr, blank), 3)})",
            "in double quotes the shell runs what stands between backticks, and puts its output in its place",
            how.format(blank[0]),
            SEE,
        )


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
    raise DataError(
        f"a wide file: {len(frame)} rows, and the measurements side by side ({shorten(names, 4)})",
        "a model needs one row for each measurement" + (f", and every {subject!r} has one row" if who else ""),
        f'make it long in Python: hl.to_long(data, {who}values=r"{pattern}", response={response!r}).to_csv("long.csv", '
        "index=False); it has the number at the end of each name as the column 'time'",
        "docs, page 'Data'",
    )
