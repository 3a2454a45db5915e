"""What nutpie recorded, read as it lies in memory: the way through ArviZ takes longer than to sample small data."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.loading import loading

NOT_KEPT = ("chain", "draw")
UNREADABLE = (AttributeError, ImportError, KeyError, TypeError)
"""How it shows that another nutpie records otherwise."""


def read_trace(trace: Any, name: str, size: int, tune: int) -> tuple[FloatArray, Any]:
    """Draws of a vector after the warm-up, and the sampler's statistics of each.

    Parameters
    ----------
    trace : object
        What ``nutpie.sample(..., return_raw_trace=True)`` returns.
    name : str
        Of the vector.
    size : int
        Its length.
    tune : int
        Draws of the warm-up.

    Returns
    -------
    draws : (chain, draw, size)
        As many of each chain as the shortest has.
    statistics : xarray.Dataset
        Numbers and texts (chain, draw); vectors are left out.
    """
    with loading():
        import nutpie
        import pyarrow as pa
        import xarray as xr

    draws, statistics = trace.get_arrow_trace()
    kept = max(0, min(batch.num_rows for batch in draws) - tune)
    found = np.empty((len(draws), kept, size))
    for own, batch in zip(found, draws, strict=True):
        own[:] = pa.array(batch.column(name)).slice(tune, kept).flatten().to_numpy().reshape(kept, size)
    columns: dict[str, Any] = {}
    for column in statistics[0].column_names:
        parts = [pa.array(batch.column(column)).slice(tune, kept) for batch in statistics]
        if column not in NOT_KEPT and not hasattr(parts[0], "flatten"):
            columns[column] = (("chain", "draw"), np.stack([_values(part) for part in parts]))
    attrs = {"sample_dims": ["chain", "draw"], "inference_library": "nutpie"}
    attrs["inference_library_version"] = nutpie.__version__
    coords = {"chain": np.arange(len(draws)), "draw": np.arange(kept)}
    return found, xr.Dataset(columns, coords=coords, attrs=attrs)


def _values(part: Any) -> Any:
    """A column as numpy has it; what is missing is NaN, 0 or None."""
    import pyarrow as pa

    if part.null_count and not (pa.types.is_floating(part.type) or pa.types.is_string(part.type)):
        part = part.fill_null(0)
    return part.to_numpy(zero_copy_only=False)
