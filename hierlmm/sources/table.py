"""A table that is not in memory as ``data=`` of a model: what is asked of all its rows, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.columns import FactorColumns
from hierlmm.design.design import Design
from hierlmm.design.recipes import fit_recipe
from hierlmm.design.residual import Residual
from hierlmm.design.rows import Said
from hierlmm.design.unread import Sample, Unread, Whole
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.crossproducts import CrossProducts
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr
from hierlmm.notice import ProgressLine, elapsed_text, interactive
from hierlmm.sources.coordinates import Coordinates, final_coordinates, first_coordinates
from hierlmm.sources.engine import LARGE, Engine
from hierlmm.sources.facts import Facts, look_through, rows_of
from hierlmm.sources.read import columns_of, summed
from hierlmm.sources.sums import Sums


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


@dataclass
class StreamedRows(Whole):
    """All rows, through an engine; their cross-products, once they were read."""

    facts: Facts
    _known: dict[int, tuple[Any, CrossProducts]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.n_obs, self.n_subjects = self.facts.n_obs, self.facts.n_subjects
        self.n_dropped, self.label = self.facts.n_dropped, self.facts.rows.label
        self.sums: Sums | None = None
        self.coordinates: Coordinates | None = None

    def cross_products(self, design: Any) -> CrossProducts:
        """See `Whole.cross_products`."""
        key = id(design.terms)
        if key not in self._known:
            sums, coordinates = self.read(design)
            self._moments = sums.moments()
            self._known[key] = design.terms, finished(sums, coordinates, design)
        return self._known[key][1]

    def look_alike(self, design: Any) -> Design:
        """See `Whole.look_alike`."""
        self.cross_products(design)
        mean, covariance = self._moments
        own = columns_of(design)
        rows = recoloured(own, mean, covariance)
        p, k = design.X.shape[1], design.X1.shape[1]
        X, X1, Z, y = np.split(rows, [p, p + k, rows.shape[1] - 1], axis=1)
        random = tuple(replace(term, Z=np.ascontiguousarray(Z)) for term in design.random)
        arrays = {"X": X.copy(), "X1": X1.copy(), "y": y[:, 0].copy(), "offset": np.zeros(len(y))}
        return replace(design, rows=replace(design.rows, **arrays), random=random, whole=None)

    def read(self, design: Design) -> tuple[Sums, Coordinates]:
        """Read all rows once."""
        coordinates = first_coordinates(design)
        subject = design.hierarchy.subject
        with progress(self.n_obs, f"Reading {self.label}") as advance:
            states = list(
                self.facts.rows.reduce(
                    subject, lambda read: summed(read, self.facts.rows, design, coordinates, advance)
                )
            )
        total = states[0]
        for other in states[1:]:
            total.add(other)
        return total, coordinates


def recoloured(rows: FloatArray, mean: FloatArray, covariance: FloatArray) -> FloatArray:
    """Rows with these means and covariances, (n, k), from rows with the same linear dependencies."""
    scale = np.sqrt(np.diag(covariance))
    scale = np.where(scale > 0.0, scale, 1.0)
    own = (rows - rows.mean(axis=0)) / scale
    there = _root(own.T @ own / len(own), inverse=True) @ _root(covariance / np.outer(scale, scale))
    return mean + own @ there * scale


def _root(A: FloatArray, *, inverse: bool = False) -> FloatArray:
    """Symmetric square root of a positive semi-definite matrix, or of its pseudo-inverse."""
    values, vectors = np.linalg.eigh(A)
    kept = values > 1e-10 * values.max()
    powers = np.zeros_like(values)
    powers[kept] = values[kept] ** (-0.5 if inverse else 0.5)
    return (vectors * powers) @ vectors.T


def finished(sums: Sums, first: Coordinates, design: Design) -> CrossProducts:
    """Cross-products in the columns that all rows give; by subject those of the subjects of the design."""
    G, squares = sums.products()
    last = final_coordinates(first, G, squares, sums.n_rows, design, design.constant)
    W, B = first.to(last)
    R, C, weight = sums.kernel_rows(W, B)
    order, start = _by_subject(design)
    Z, XY = last.working(design.X[order], (design.y - design.offset)[order], design.Z[order])
    own_R, own_C, _ = within_subject_qr(Z, XY, start, RANK_TOLERANCE)
    return CrossProducts(
        R,
        C,
        weight,
        np.arange(len(own_R)),
        W.T @ sums.S @ W,
        own_R,
        own_C,
        sums.n_rows,
        len(design.coef),
        last.scaling(),
    )


def _by_subject(design: Design) -> Any:
    from hierlmm.likelihood.crossproducts import subject_rows

    return subject_rows(design)


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
