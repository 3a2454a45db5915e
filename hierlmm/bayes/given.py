"""What is asked of draws that somebody else made, before a fit is made of them: that they can be draws of this model.

A negative σ or a correlation of 1.5 would go through every formula after it and come out as a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.tree import response_name
from hierlmm.design.design import Design
from hierlmm.errors import DataError
from hierlmm.frames import shorten

SEE = "docs, page 'Saving fits', section 'A posterior from elsewhere'"
NAMED = ("beta", "sd_b", "corr_b", "D", "sigma", "b")
ROUNDING = 1e-6
"""Relative difference of numbers that went through single precision."""


def refuse_impossible(draws: Mapping[str, FloatArray], caller: str, dispersion: Sequence[str] = ()) -> None:
    """Refuse draws (chain, draw, ...) by name that cannot be of a posterior; ``dispersion`` names those of a family.

    Raises
    ------
    DataError
        If there are none, or if they are no finite numbers or out of their range.
    """
    for name in dict.fromkeys((*NAMED, *dispersion)):
        values = draws.get(name)
        if values is None or not (reason := _impossible(name, values, name in dispersion)):
            continue
        remedy = "pass the posterior as it was sampled; leave out the draws concerned: tree.isel(draw=...)"
        raise DataError(f"{caller} with draws of {name!r}", reason, remedy, SEE)


def _impossible(name: str, values: FloatArray, positive: bool) -> str:
    """Why these are no draws; empty if they may be."""
    if 0 in values.shape[:2]:
        return "there are none"
    if values.dtype.kind not in "fiu":
        return f"they are of type {values.dtype}, and draws are numbers"
    if not np.isfinite(values).all():
        chain, draw = np.argwhere(~np.isfinite(values))[0][:2]
        return f"not all of them are finite (first in chain {chain}, draw {draw})"
    if name == "sigma" and np.any(values <= 0.0):
        return f"a standard deviation is above zero, and the smallest here is {values.min():g}"
    if positive and np.any(values <= 0.0):
        return f"it is above zero, and the smallest here is {values.min():g}"
    if name == "sd_b" and np.any(values < 0.0):
        return f"a standard deviation is not below zero, and the smallest here is {values.min():g}"
    if name == "corr_b" and np.any(np.abs(values) > 1.0 + ROUNDING):
        return f"a correlation lies between -1 and 1, and the largest here is {values.flat[np.abs(values).argmax()]:g}"
    return ""


def refuse_other_data(design: Design, tree: Any, caller: str) -> None:
    """Refuse a tree whose observed response is not that of the model, in whatever order of the rows.

    Raises
    ------
    DataError
        If it is another one.
    """
    if "observed_data" not in tree.children:
        return
    observed = tree["observed_data"].to_dataset()
    for name in {response_name(design), design.hierarchy.response} & set(map(str, observed.data_vars)):
        theirs, own = np.sort(observed[name].to_numpy().ravel()), np.sort(design.y)
        if theirs.shape != own.shape or not np.allclose(theirs, own, rtol=ROUNDING, atol=ROUNDING * np.ptp(own)):
            received = f"{caller} with a tree of which the response {name!r} is {shorten(f'{v:g}' for v in theirs)}"
            reason = f"sorted likewise, it is {shorten(f'{v:g}' for v in own)} in the model: the data are other ones"
            raise DataError(received, reason, "pass the model that was sampled, with its data", SEE)


def refuse_other_statistics(posterior: Any, statistics: Any, caller: str) -> None:
    """Refuse sampler statistics that are not of these draws.

    Raises
    ------
    DataError
        If their number is another one.
    """
    sizes = [{dim: int(found.sizes.get(dim, 0)) for dim in ("chain", "draw")} for found in (posterior, statistics)]
    if sizes[0] != sizes[1]:
        own, theirs = (f"{s['chain']} chains of {s['draw']}" for s in sizes)
        reason = "divergences would be counted among draws that are not there"
        remedy = "thin or cut both: tree.map_over_datasets(lambda d: d.isel(draw=...)), or leave sample_stats out"
        raise DataError(f"{caller} with {own} draws and sampler statistics of {theirs}", reason, remedy, SEE)
