"""Parameters of simulated data that differ by group: one value for each level of a level-2 covariate.

b_i ~ N(0, D_g(i)),     e_ij ~ N(0, σ²_g(i))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from hierlmm.datasets.covariates import Array, Columns, refuse
from hierlmm.families.family import Family
from hierlmm.families.gaussian import Gaussian


def by_level(value: Any, name: str, group: str | None, argument: str) -> dict[str | None, Any]:
    """Values by level: what was said for each of them, or one value for all (under None).

    Parameters
    ----------
    value : object
        A mapping of levels, or anything else for one value.
    name : str
        What it is called.
    group : str or None
        Name of the level-2 covariate.
    argument : str
        The argument that holds this name.

    Raises
    ------
    SpecificationError
        If there is a mapping and no covariate.
    """
    if not isinstance(value, Mapping) and not (isinstance(value, pd.Series) and group is not None):
        return {None: value}
    if group is None:
        received = f"{name} as a mapping of {', '.join(map(str, value))}"
        reason = "It is not clear what these levels are of."
        raise refuse(received, reason, f"Name the level-2 covariate: {argument}='sex'.")
    return {str(level): own for level, own in value.items()}


def places(
    values: Mapping[str | None, Any], name: str, group: str | None, argument: str, between: Columns
) -> list[Any]:
    """Indices of the subjects that have each of the values, in their order.

    Raises
    ------
    SpecificationError
        If the covariate does not exist, is no category, or has other levels.
    """
    if group is None:
        return [slice(None)]
    column = between.get(group)
    if column is None or column.labels is None:
        received, reason = f"{argument}={group!r}", "It names no level-2 covariate with labels."
        raise refuse(received, reason, f"Describe it: level2={{{group!r}: ['a', 'b']}}.")
    if None in values:
        return [slice(None)]
    if sorted(map(str, values)) != sorted(column.labels):
        received = f"{name} for {', '.join(map(str, values))} and {argument}={group!r}"
        reason = f"Every level needs one, and they are {', '.join(column.labels)}."
        raise refuse(received, reason, "Give one for each, by these names.")
    return [np.flatnonzero(column.data == column.labels.index(str(level))) for level in values]


def blocks(matrices: Mapping[str | None, Array], names: Sequence[str]) -> pd.DataFrame:
    """D of all levels, block by block, under the names that a fit gives them: ``Intercept[Female]``, ..."""
    term = [name if level is None else f"{name}[{level}]" for level in matrices for name in names]
    index = pd.Index(term, name="term")
    return pd.DataFrame(block_diag(*matrices.values()), index=index, columns=index)


def sigmas_of_rows(
    family: Family,
    natural: dict[str, float],
    sigmas: Mapping[str | None, float],
    group: str | None,
    between: Columns,
    who: Array,
) -> tuple[Any, dict[str, float]]:
    """Dispersion with the σ of every row, of subjects ``who`` (N,), and the numbers behind it: ``sigma[Male]``, ...

    Without groups both are what was stated.

    Raises
    ------
    SpecificationError
        For a response that is not Gaussian.
    """
    if group is None:
        return natural, natural
    if family != Gaussian():
        received = f"sigma by group with {family}"
        raise refuse(received, "Only a Gaussian response has it.", "Give one sigma, or leave the family out.")
    sd = np.empty(int(who[-1]) + 1)
    members = places(sigmas, "sigma", group, "residual_group", between)
    for own, value in zip(members, sigmas.values(), strict=True):
        sd[own] = value
    return {"sigma": sd[who]}, {"sigma" if level is None else f"sigma[{level}]": v for level, v in sigmas.items()}
