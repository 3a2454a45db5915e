"""Random effects and fitted values of rows that stream by, written as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.design.design import LARGE, own_covariances, own_effects
from hierlmm.errors import SpecificationError
from hierlmm.likelihood.conditional import ConditionalEffects, conditional_effects
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr
from hierlmm.sources.coordinates import Coordinates
from hierlmm.sources.read import Piece, ahead, evaluated, whole_subjects


def write_random_effects(fit: Any, path: Any, *, overwrite: bool = False) -> Path:
    """See `LargeFit.write_random_effects`."""
    design, beta = fit.design, fit.beta.to_numpy()

    def table(piece: Piece, effects: ConditionalEffects) -> pd.DataFrame:
        labels = piece.frame[design.hierarchy.subject].iloc[piece.start[:-1]].reset_index(drop=True)
        own = replace(design, whole=None)
        b = own_effects(own, effects.mean(beta))
        sd = np.sqrt(np.einsum("jkk->jk", own_covariances(own, effects.covariance)))
        columns = {name: b[:, k] for k, name in enumerate(design.own_term)}
        columns |= {f"sd({name})": sd[:, k] for k, name in enumerate(design.own_term)}
        return pd.DataFrame({labels.name: labels, **columns})

    return _write(fit, path, table, overwrite)


def write_fitted(fit: Any, path: Any, *, overwrite: bool = False) -> Path:
    """See `LargeFit.write_fitted`."""
    beta = fit.beta.to_numpy()

    def table(piece: Piece, effects: ConditionalEffects) -> pd.DataFrame:
        line = piece.new.offset + piece.new.X @ beta
        b = np.repeat(effects.mean(beta), np.diff(piece.start), axis=0)
        own = line + np.einsum("ij,ij->i", piece.new.Z, b)
        found = {"fitted (population)": line, "fitted (subject)": own, "residual": piece.y + piece.new.offset - own}
        return piece.frame.assign(**found)

    return _write(fit, path, table, overwrite)


def _write(fit: Any, path: Any, table: Callable[[Piece, ConditionalEffects], pd.DataFrame], overwrite: bool) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = Path(path)
    if target.exists() and not overwrite:
        reason = "there is a file of this name"
        raise SpecificationError(f"the file {str(path)!r}", reason, "use another name, or overwrite=True", LARGE)
    beside = target.with_name(f".{target.name}.part")
    writer = None
    try:
        for piece, effects in _pieces(fit):
            rows = pa.Table.from_pandas(table(piece, effects), preserve_index=False)
            writer = pq.ParquetWriter(beside, rows.schema) if writer is None else writer
            writer.write_table(rows.cast(writer.schema))
        if writer is not None:
            writer.close()
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def _pieces(fit: Any) -> Iterator[tuple[Piece, ConditionalEffects]]:
    """Rows of whole subjects, and the distribution of their random effects."""
    design, solution = fit.design, fit.solution
    products = solution.products
    scaling = products.scaling
    coordinates = Coordinates(scaling.Bx, scaling.shift, scaling.y_scale, scaling.Bz)
    subject = design.hierarchy.subject
    rows = design.whole.batches(subject)
    for frame in ahead(whole_subjects(rows, design.whole.categories, subject, ordered=True)):
        piece = evaluated(frame, design)
        Z, XY = coordinates.working(piece.new.X, piece.y, piece.new.Z)
        R, C, _ = within_subject_qr(Z, XY, piece.start, RANK_TOLERANCE)
        own = replace(products, subject_R=R, subject_C=C)
        yield piece, conditional_effects(own, solution.Lambda, solution.whitened_sd)
