"""A table that is not in memory as ``data=`` of a model: what is asked of all its rows, and when."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from hierlmm.design.columns import FactorColumns
from hierlmm.design.design import Design
from hierlmm.design.recipes import fit_recipe
from hierlmm.design.residual import Residual
from hierlmm.design.rows import Said
from hierlmm.design.unread import Sample, Unread
from hierlmm.errors import NotAvailableError
from hierlmm.notice import ProgressLine, elapsed_text, interactive
from hierlmm.sources.coordinates import Coordinates, first_coordinates
from hierlmm.sources.engine import LARGE, Engine
from hierlmm.sources.facts import Facts, complete_rows_of, look_through, rows_of
from hierlmm.sources.read import summed
from hierlmm.sources.sums import Sums
from hierlmm.sources.whole import SummedRows


class LargeTable(Unread):
    """A table that an engine reads.

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._facts: Facts | None = None

    @property
    def columns(self) -> list[str]:
        """Names of its columns."""
        return list(self.engine.types)

    def sample(self, said: Said, residual: Residual, missing: str) -> Sample:
        """See `Unread.sample`."""
        refuse_models(said, residual, self.engine.label)
        self._facts = facts = look_through(self.engine, said, residual, missing)
        return Sample(rows_of(facts, said.subject), StreamedRows(facts))

    def states(self, factors: FactorColumns) -> Mapping[str, Any]:
        """See `Unread.states`."""
        calls = dict.fromkeys(call for recipe in factors.recipes for call in recipe.transform_state)
        if not calls:
            return {}
        assert self._facts is not None
        return {call: learn_state(call, self._facts.rows) for call in calls}


def learn_state(call: str, rows: Engine) -> Any:
    """What a function of the formula learns of all rows: its variable is read into memory."""
    import pyarrow as pa

    from hierlmm.design.formula import variables_of

    names = list(variables_of(call, list(rows.types)))
    table = pa.Table.from_batches(list(rows.select(names, "").batches()))
    frame = table.to_pandas().astype(np.float64)
    return fit_recipe(f"0 + {call}", frame, {})[0].transform_state[call]


def refuse_models(said: Said, residual: Residual, label: str) -> None:
    """Refuse models whose likelihood needs the rows again and again.

    Raises
    ------
    NotAvailableError
    """
    what = ""
    if not said.outcome.is_gaussian:
        what = f"a {said.outcome.family.title} response"
    elif said.groupings:
        what = "several grouping factors"
    elif residual.columns or residual.correlation is not None or residual.variance is not None:
        what = "a residual structure or weights"
    if what:
        reason = "its likelihood reads all rows at every step, and only sums of products of them are kept"
        remedy = "use independent residuals, or read the rows into memory (or those of some hundred subjects)"
        raise NotAvailableError(f"{what} with data that are not in memory ({label})", reason, remedy, LARGE)


class StreamedRows(SummedRows):
    """All rows, through an engine."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts.n_obs, facts.n_subjects, facts.n_dropped, facts.rows.label)
        self.rows, self.categories = facts.rows, facts.rows.categories

    def read(self, design: Design) -> tuple[Sums, Coordinates]:
        """See `SummedRows.read`."""
        coordinates = first_coordinates(design)
        return read_rows(self.rows, self.n_obs, design, coordinates), coordinates

    def batches(self, subject: str) -> Generator[Any]:
        """See `SummedRows.batches`."""
        return self.rows.batches(subject)


def read_rows(rows: Engine, n: int, design: Design, coordinates: Coordinates) -> Sums:
    """Sums of all rows that an engine has, in these coordinates.

    Parameters
    ----------
    rows : Engine
        Complete rows.
    n : int
        How many there are, for the line that says how far it is.
    design : Design
    coordinates : Coordinates
    """
    alone = replace(design, whole=None)  # what executors of a cluster get
    with progress(n, f"Reading {rows.label}") as advance:
        step = None if rows.elsewhere else advance
        work = partial(summed, categories=rows.categories, design=alone, coordinates=coordinates, advance=step)
        found = rows.reduce(design.hierarchy.subject, work)
        total = next(found)
        for other in found:
            total.add(other)
    return total


def read_others(design: Design, engine: Engine, coordinates: Coordinates, missing: str) -> tuple[Sums, int]:
    """Sums of another table, in the columns of a design, and how many rows of it were dropped."""
    h = design.hierarchy
    said = Said(h.response, h.subject, h.fixed_terms, h.blocks, h.offsets, h.level1_terms, design.outcome, h.group)
    rows, n_obs, n_dropped = complete_rows_of(engine, said, missing)
    return read_rows(rows, n_obs, design, coordinates), n_dropped


class progress:
    """A line with rows done and time left, where somebody watches."""

    def __init__(self, n: int, label: str) -> None:
        self.n, self.label, self.done = n, label, 0

    def __enter__(self) -> Callable[[int], None]:
        import time

        self.line, self.started = ProgressLine(), time.perf_counter()
        show = interactive()
        if show:
            self.line.__enter__()

        def advance(rows: int) -> None:
            self.done += rows
            if show:
                share, seconds = self.done / max(self.n, 1), time.perf_counter() - self.started
                self.line.show(f"{self.label}: {self.done:,} of {self.n:,} rows, {elapsed_text(share, seconds)}")

        return advance

    def __exit__(self, *error: object) -> None:
        self.line.__exit__(*error)
