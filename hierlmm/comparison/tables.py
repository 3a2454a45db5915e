"""Comparisons as text (rich), HTML (great-tables, or plain) and LaTeX, all from the same cells.

Numbers have as many decimals as show three significant digits of the reference's standard error, the same in a row.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.drawing.style import percent
from hierlmm.errors import MissingPackageError
from hierlmm.fits.side_by_side import COLUMNS, SideBySide
from hierlmm.implied.coefficients import told
from hierlmm.results import Items, Page, Table

TITLES = {
    "fixed": "Fixed effects",
    "marginal": "Marginal coefficients (of the mean over subjects)",
    "sd": "Random effects, SD",
    "corr": "Random effects, correlation",
    "sigma": "Residual SD",
    "residual": "Residual correlation and variance",
    "other": "Other parameters",
}
MARK = "*"
MISSING = "–"
WORDS = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
TEX = {MISSING: "--"} | {letter: rf"\text{word}{{}}" for letter, word in WORDS.items()}


@dataclass(frozen=True, slots=True)
class Cell:
    """One estimator's answer for one parameter, written out; ``estimate`` ends in ``*`` if it is flagged."""

    estimate: str = MISSING
    se: str = MISSING
    interval: str = MISSING
    flag: bool = False


def titles_of(comparison: SideBySide) -> dict[str, str]:
    """Kind of parameter -> title of its block; fixed effects beside marginal ones say what they are given."""
    if not (comparison.table["kind"] == "marginal").any():
        return TITLES
    design = comparison.fits[comparison.reference].design
    link, marginal = design.family.link, TITLES["marginal"].replace("subjects", told(design)[2])
    own = {"fixed": f"Conditional coefficients (given the random effects), {link} scale"}
    return TITLES | own | {"marginal": f"{marginal}, {link} scale"}


def sections(
    comparison: SideBySide, decimals: Callable[[str], int | None] = lambda parameter: None
) -> list[tuple[str, list[tuple[str, list[Cell]]]]]:
    """Cells by kind of parameter, by parameter, by estimator (in the order of the labels).

    ``decimals`` of a parameter where they are asked for.
    """
    result: list[tuple[str, list[tuple[str, list[Cell]]]]] = []
    table = comparison.table
    for kind, title in titles_of(comparison).items():
        of_kind = table[table["kind"] == kind]
        rows = []
        for parameter in of_kind["parameter"].unique():
            own = of_kind[of_kind["parameter"] == parameter].set_index("estimator")
            asked = decimals(str(parameter))
            digits = _decimals(own, comparison.reference) if asked is None else asked
            cells = [_cell(own.loc[label], digits) if label in own.index else Cell() for label in comparison.labels]
            rows.append((str(parameter), cells))
        if rows:
            result.append((title, rows))
    return result


def _decimals(rows: pd.DataFrame, reference: str) -> int:
    se = rows["se"].reindex([reference, *rows.index]).dropna()
    scale = se.iloc[0] if len(se) and se.iloc[0] > 0 else 0.1 * float(rows["estimate"].abs().max())
    return int(np.clip(2 - np.floor(np.log10(scale)), 0, 8)) if np.isfinite(scale) and scale > 0 else 3


def _cell(row: pd.Series, digits: int) -> Cell:
    estimate, se, lower, upper = (_number(row[name], digits) for name in COLUMNS)
    interval = MISSING if MISSING in (lower, upper) else f"[{lower}, {upper}]"
    return Cell(estimate + (MARK if row["flag"] else ""), se, interval, bool(row["flag"]))


def _number(value: float, digits: int) -> str:
    if not np.isfinite(value):
        return MISSING
    text = f"{value:z.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def statistic_rows(comparison: SideBySide) -> list[tuple[str, list[str]]]:
    """Sizes, criteria and diagnostics written out."""
    table = comparison.statistics
    return [(str(n), [_statistic(v, digits=0 if "ESS" in str(n) else 3) for v in row]) for n, row in table.iterrows()]


def _statistic(value: Any, digits: int) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "NO"
    if isinstance(value, (int, np.integer)):
        return str(value)
    if value is None or not np.isfinite(value):
        return MISSING
    return f"{value:.{0 if abs(value) >= 1e5 else digits}f}"


def footnotes(
    comparison: SideBySide,
    shown: Mapping[str, str] | None = None,
    *,
    statistics: bool = True,
) -> list[str]:
    """Explain the marks, the flagged differences, the notes and the fits' own warnings.

    Parameters
    ----------
    comparison : SideBySide
    shown : mapping of str to str, optional
        The parameters in the table, and what they are called there; all of them by default.
    statistics : bool
        Whether the rows about the fits are in the table.
    """
    interval = f"{percent(comparison.ci)} intervals are equal-tailed for a posterior (se: its SD)"
    notes = [f"{interval} and Wald intervals for a likelihood fit (log scale for SDs, Fisher's z for correlations)."]
    above = f"{comparison.flag_above:g} standard errors of {comparison.reference}"
    flagged = comparison.flagged
    names = {name: name for name in flagged["parameter"]} if shown is None else shown
    flagged = flagged[flagged["parameter"].isin(list(names))]
    if len(comparison.fits) > 1 and flagged.empty:
        none = "No estimate" if shown is None else "None of these estimates"
        notes.append(f"{none} differs from {comparison.reference} by more than {above}.")
    elif not flagged.empty:
        listing = ", ".join(
            f"{names[str(r.parameter)]} {r.estimator} ({r.difference:+.2f})" for r in flagged.itertuples()
        )
        notes.append(f"{MARK} differs by more than {above}: {listing}.")
    estimators = {fit.estimator for fit in comparison.fits.values()}
    if statistics and {"REML", "ML"} <= estimators:
        notes.append("logLik, AIC and BIC of REML are of the restricted likelihood: not comparable with those of ML.")
    fits = comparison.fits
    posteriors = [label for label, fit in fits.items() if fit.has_draws]
    if statistics and posteriors:
        notes.append(f"logLik of {' and '.join(posteriors)} is the marginal one at the posterior means.")
        among = ", random effects among them" if any(fits[k].design.term for k in posteriors) else ""
        notes.append(f"R-hat and ESS are the worst of all quantities that were sampled{among}.")
    for label, fit in comparison.fits.items():
        if fit.has_working_correlation:
            kind = str(getattr(fit, "se", "robust")).replace("_", "-")
            dropped = "; the random effects are not estimated" if fit.design.term else ""
            notes.append(f"{label}: {kind} standard errors, Wald intervals{dropped}.")
    notes += list(comparison.notes)
    warned: dict[str, list[str]] = {}
    for label, fit in comparison.fits.items():
        for warning in fit.warnings:
            warned.setdefault(warning, []).append(label)
    return notes + [f"{', '.join(labels)}: {warning}" for warning, labels in warned.items()]


def _formula(comparison: SideBySide) -> str:
    return str(comparison.fits[comparison.reference].design.hierarchy.formula)


def _title(comparison: SideBySide) -> str:
    return f"Comparison of estimators: {_formula(comparison)}"


def reference_label(comparison: SideBySide, label: str) -> str:
    """A label, with a word where it is that of the reference."""
    return f"{label} (reference)" if label == comparison.reference and len(comparison.fits) > 1 else label


def comparison_rich(comparison: SideBySide) -> Any:
    """Table, diagnostics and notes as a rich renderable; each cell is 'estimate (se)' over the interval."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    title = Text(_title(comparison), style="bold")
    notes = [Padding(Text(note), (0, 0, 0, 2)) for note in footnotes(comparison)]
    return Group(title, _rich_table(comparison), *notes)


def _rich_table(comparison: SideBySide) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for label in comparison.labels:
        table.add_column(Text(reference_label(comparison, label)), justify="right", no_wrap=True)
    for heading, rows in sections(comparison):
        table.add_row(Text(heading, style="italic"))
        for parameter, cells in rows:
            table.add_row(Text(f"  {parameter}"), *(_rich_cell(cell) for cell in cells))
        table.add_section()
    for name, values in statistic_rows(comparison):
        table.add_row(Text(f"  {name}"), *(Text(v, style="bold red" if v == "NO" else "") for v in values))
    return table


def _rich_cell(cell: Cell) -> Any:
    from rich.text import Text

    if cell.estimate == MISSING:
        return Text(MISSING)
    text = Text(f"{cell.estimate} ({cell.se})", style="bold" if cell.flag else "")
    if cell.interval != MISSING:
        text.append("\n" + cell.interval, style="not bold dim")
    return text


def comparison_page(comparison: SideBySide) -> Page:
    """`comparison_rich` as plain text, as wide as the table needs, and the same cells as a plain table."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(
        force_jupyter=False, file=buffer, width=10_000, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.width = max(100, console.measure(_rich_table(comparison)).maximum)
    console.print(comparison_rich(comparison))
    text = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).strip("\n")
    frame, _ = _string_frame(comparison)
    body = frame.set_index(["section", "parameter"]).rename_axis([None, None])
    labels = [(comparison.labels[int(c.split(":")[0])], _heading(c, comparison)) for c in body.columns]
    body.columns = pd.MultiIndex.from_tuples(labels)
    table = Table(body, text.splitlines(), _title(comparison), index=True)
    return Page("", [table, Items("", footnotes(comparison))])


def comparison_gt(comparison: SideBySide) -> Any:
    """Return a ``great_tables.GT`` with a spanner for each estimator.

    Raises
    ------
    MissingPackageError
        If great-tables is not installed.
    """
    frame, flags = _string_frame(comparison)
    labels = [reference_label(comparison, label) for label in comparison.labels]
    headings = {"estimate": "estimate", "se": "se", "interval": interval_heading(comparison)}
    title = f"Comparison of estimators\n{_formula(comparison)}"
    return plain_gt(frame, labels, headings, flags, footnotes(comparison), title)


def plain_gt(
    frame: pd.DataFrame,
    labels: Sequence[str],
    headings: Mapping[str, str],
    flags: Sequence[tuple[int, str]],
    notes: Sequence[str],
    title: str,
) -> Any:
    """Return a ``great_tables.GT`` in the colours of where it stands, of cells that are texts.

    Parameters
    ----------
    frame : DataFrame
        ``section``, ``parameter``, and for the fit at position i the columns ``i:estimate``, ``i:se``, ...
    labels : sequence of str
        Over the columns of each fit.
    headings : mapping of str to str
        Over the columns, without the position.
    flags : sequence of (int, str)
        Row and column of what is bold.
    notes : sequence of str
    title : str
        A second line is smaller.
    """
    try:
        from great_tables import GT, loc, style
    except ImportError as error:
        received, reason = "a request for a great_tables.GT", "the package great-tables is not installed"
        remedy = 'pip install "hierlmm[html]"; plain HTML needs no package: comparison.to_html()'
        raise MissingPackageError(received, reason, remedy, "docs, page 'Installation'") from error
    names = [c for c in frame.columns if c not in ("section", "parameter")]
    gt = GT(frame, rowname_col="parameter", groupname_col="section", id="hierlmm-comparison")
    first, _, second = title.partition("\n")
    gt = gt.tab_header(title=first, subtitle=second or None)
    for i, label in enumerate(labels):
        gt = gt.tab_spanner(label, [name for name in names if name.startswith(f"{i}:")], id=f"fit-{i}")
    shown: dict[str, Any] = {name: headings[name.split(":", 1)[1]] for name in names}
    gt = gt.cols_label(**shown).cols_align("right", names)
    for row, column in flags:
        gt = gt.tab_style(style.text(weight="bold"), loc.body(columns=column, rows=[row]))
    for note in notes:
        gt = gt.tab_source_note(note)
    # A notebook in the dark paints rows, and great-tables' own dark grey letters would vanish on them.
    return gt.tab_options(table_font_size="90%", data_row_padding="3px", table_background_color="inherit")


def interval_heading(comparison: SideBySide) -> str:
    """Heading of the column of intervals."""
    return f"{percent(comparison.ci)} interval"


def _heading(column: str, comparison: SideBySide) -> str:
    name = column.split(":", 1)[1]
    return interval_heading(comparison) if name == "interval" else name


def _string_frame(comparison: SideBySide) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    records: list[dict[str, str]] = []
    flags: list[tuple[int, str]] = []
    statistics = [(name, [Cell(v, "", "") for v in values]) for name, values in statistic_rows(comparison)]
    for title, rows in (*sections(comparison), ("Fit", statistics)):
        for parameter, cells in rows:
            record = {"section": title, "parameter": parameter}
            for i, cell in enumerate(cells):
                record |= {f"{i}:estimate": cell.estimate, f"{i}:se": cell.se, f"{i}:interval": cell.interval}
                if cell.flag:
                    flags.append((len(records), f"{i}:estimate"))
            records.append(record)
    return pd.DataFrame(records), flags


def comparison_html(comparison: SideBySide) -> str:
    """HTML through great-tables if it is installed, else a plain table; names are escaped, nothing is loaded."""
    try:
        return str(comparison_gt(comparison).as_raw_html())
    except MissingPackageError:
        return comparison_page(comparison).html


def comparison_latex(comparison: SideBySide, caption: str | None = None) -> str:
    """Write a booktabs ``tabular``: a row for each parameter, estimate, se and interval for each estimator."""
    n = len(comparison.labels)
    heads = " & ".join(rf"\multicolumn{{3}}{{c}}{{{_tex(label)}}}" for label in comparison.labels)
    rules = " ".join(rf"\cmidrule(lr){{{2 + 3 * i}-{4 + 3 * i}}}" for i in range(n))
    columns = " & ".join(["Estimate", "SE", _tex(f"{percent(comparison.ci)} interval")] * n)
    lines = [rf"\begin{{tabular}}{{l{'rrr' * n}}}", r"\toprule", rf" & {heads} \\", rules, rf" & {columns} \\"]
    lines += list(_latex_body(comparison, n))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if caption is not None:
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}", *lines, r"\end{table}"]
    lines += [f"% {note}" for note in footnotes(comparison)]
    return "\n".join(lines) + "\n"


def _latex_body(comparison: SideBySide, n: int) -> Iterator[str]:
    for title, rows in sections(comparison):
        yield r"\midrule"
        yield rf"\multicolumn{{{1 + 3 * n}}}{{l}}{{\textit{{{_tex(title)}}}}} \\"
        for parameter, cells in rows:
            values = [_tex_number(v) for cell in cells for v in (cell.estimate, cell.se, cell.interval)]
            yield rf"\quad {' & '.join([_tex(parameter), *values])} \\"
    yield r"\midrule"
    for name, values in statistic_rows(comparison):
        yield rf"{_tex(name)} & " + " & ".join(rf"{_tex_number(v)} & & " for v in values).rstrip() + r" \\"


def _tex_number(text: str) -> str:
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", _tex(text))


def _tex(text: str) -> str:
    return "".join(TEX.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
