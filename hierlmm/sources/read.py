"""Rows of whole subjects, piece by piece, as the columns of a model."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.terms import NewData, check_finite
from hierlmm.frames import complete_rows, to_pandas
from hierlmm.sources.coordinates import Coordinates
from hierlmm.sources.engine import Categories, as_frame
from hierlmm.sources.sums import Sums


class NotSorted(Exception):
    """The rows of a subject are not together."""


class Piece(NamedTuple):
    """Rows of whole subjects: as a table, as columns of the model, response and where subjects start (J + 1,)."""

    frame: pd.DataFrame
    new: NewData
    y: FloatArray
    start: Any


def whole_subjects(
    batches: Generator[Any], categories: Categories, subject: str, *, ordered: bool
) -> Iterator[pd.DataFrame]:
    """Tables of whole subjects, where the rows of a subject are together and labels grow.

    Raises
    ------
    NotSorted
        Without ``ordered``, where labels do not grow.
    """
    with closing(batches) as each:
        yield from _whole(each, categories, subject, ordered=ordered)


def _whole(batches: Iterator[Any], categories: Categories, subject: str, *, ordered: bool) -> Iterator[pd.DataFrame]:
    rest: pd.DataFrame | None = None
    last: Any = None
    for batch in batches:
        frame = as_frame(batch, categories)
        if not len(frame):
            continue
        labels = frame[subject].to_numpy()
        if not ordered:
            grows = labels[1:] >= labels[:-1]
            if not np.all(grows) or (last is not None and labels[0] < last):
                raise NotSorted
        last = labels[-1]
        if rest is not None:
            frame = pd.concat([rest, frame], ignore_index=True)
            labels = frame[subject].to_numpy()
        cut = int(np.flatnonzero(labels != last)[-1]) + 1 if labels[0] != last else 0
        rest = frame.iloc[cut:]
        if cut:
            yield frame.iloc[:cut]
    if rest is not None and len(rest):
        yield rest


def evaluated(frame: pd.DataFrame, design: Design) -> Piece:
    """Rows as the columns of a model."""
    subject = design.hierarchy.subject
    plain, _ = complete_rows(to_pandas(frame), "raise")
    new = design.terms.apply(plain)
    response = design.hierarchy.response
    y, _, _ = design.outcome.values(response, design.levels.apply(plain))
    check_finite(y, response, response, plain)
    labels = plain[subject].to_numpy()
    start = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1, [len(labels)]]).astype(np.int64)
    return Piece(plain, new, y - new.offset, start)


def side_by_side(own: Any, y: FloatArray) -> FloatArray:
    """Columns of X, X1, Z and y of a design or of rows, (n, k)."""
    return np.column_stack([own.X, own.X1, own.Z, y])


def columns_of(design: Design) -> FloatArray:
    """The same of the rows of a design."""
    return side_by_side(design, design.y - design.offset)


def summed(
    read: Callable[[bool], Generator[Any]],
    categories: Categories,
    design: Design,
    coordinates: Coordinates,
    advance: Callable[[int], None] | None,
) -> Sums:
    """Cross-products of all rows that are read, sorted by the engine only where they are not sorted already.

    Parameters
    ----------
    read : callable
        Batches of the rows; sorted by subject where it is given True.
    categories : mapping
        Column -> its levels, where the table declares them.
    design : Design
    coordinates : Coordinates
    advance : callable, optional
        Called with the number of rows after each piece.
    """
    step = advance or (lambda _: None)
    for ordered in (False, True):
        sums = Sums(coordinates.B.shape[0], len(design.coef) + 1, columns_of(design).mean(axis=0))
        try:
            pieces = whole_subjects(read(ordered), categories, design.hierarchy.subject, ordered=ordered)
            for frame in ahead(pieces):
                piece = evaluated(frame, design)
                sums.add_subjects(piece.frame[design.hierarchy.subject].to_numpy()[piece.start[:-1]])
                sums.add_moments(side_by_side(piece.new, piece.y))
                Z, XY = coordinates.working(piece.new.X, piece.y, piece.new.Z)
                sums.add_rows(Z, XY, piece.start)
                step(len(frame))
        except NotSorted:
            step(-sums.n_rows)
            continue
        return sums
    raise AssertionError("rows that were sorted are not")


def ahead[T](items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """The same items, the next of which is made in another thread while one is used."""
    line: queue.Queue[Any] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                line.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # handed to whoever waits for the item
            put((None, error))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item, error = line.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        thread.join()
