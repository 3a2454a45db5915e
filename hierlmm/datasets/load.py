"""Reading a data set: the file as it was published, then names, types and reference levels made ready for a formula.

The files under ``data/`` keep the columns of their sources. A :class:`Recipe` says what is renamed, which columns are
categorical and in which order their levels come (the first is the reference level of treatment coding). Columns come in
the order in which the catalogue describes them. Nothing else is changed: no row dropped, no missing value filled.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hierlmm.datasets.catalogue import CATALOGUE, describe_dataset
from hierlmm.errors import DataError, SpecificationError, UnknownDatasetError
from hierlmm.options import checked

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load_dataset"]

ENVIRONMENT_VARIABLE = "HIERLMM_DATA"

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Recipe:
    """How the file of a data set becomes its data frame."""

    rename: dict[str, str] = field(default_factory=dict)
    recode: dict[str, dict[object, str]] = field(default_factory=dict)
    levels: dict[str, list[str]] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()


RECIPES: dict[str, Recipe] = {
    "dental": Recipe(rename={"id": "subject", "y": "distance"}, levels={"sex": ["Female", "Male"]}),
    "sleepstudy": Recipe(),
    "esoph": Recipe(
        levels={
            "agegp": ["25-34", "35-44", "45-54", "55-64", "65-74", "75+"],
            "alcgp": ["0-39g/day", "40-79", "80-119", "120+"],
            "tobgp": ["0-9g/day", "10-19", "20-29", "30+"],
        }
    ),
    "pbc": Recipe(
        rename={"id": "subject"},
        recode={"sex": {"m": "Male", "f": "Female"}, "trt": {0: "placebo", 1: "D-penicillamine"}},
        levels={"sex": ["Male", "Female"], "trt": ["placebo", "D-penicillamine"]},
    ),
    "rats": Recipe(
        rename={"litterid": "litter"},
        levels={"activitylevel": ["low", "medium", "high"]},
        ordered=frozenset({"activitylevel"}),
    ),
    "petri": Recipe(rename={"dish_id": "dish"}, levels={"group": ["Control", "A", "B"]}),
    "pastes": Recipe(
        levels={
            "batch": list(LETTERS),
            "cask": ["a", "b", "c"],
            "sample": [f"{batch}:{cask}" for batch in LETTERS for cask in "abc"],
        }
    ),
    "penicillin": Recipe(levels={"plate": list("abcdefghijklmnopqrstuvwx"), "sample": list("ABCDEF")}),
    "dyestuff": Recipe(levels={"batch": list("ABCDEF")}),
    "dyestuff2": Recipe(levels={"batch": list("ABCDEF")}),
    "rat_pups": Recipe(levels={"sex": ["Male", "Female"], "treatment": ["Control", "Low", "High"]}),
    "negative_icc": Recipe(rename={"id": "subject"}),
    "active": Recipe(
        rename={"aid": "subject"},
        levels={
            "intgrp": ["Control", "Memory Training", "Reasoning Training", "Speed of Processing Training"],
        },
    ),
    "aids": Recipe(
        rename={"patient": "subject"},
        levels={
            "drug": ["ddC", "ddI"],
            "gender": ["female", "male"],
            "prevoi": ["noAIDS", "AIDS"],
            "azt": ["intolerance", "failure"],
        },
    ),
    "prothro": Recipe(rename={"id": "subject"}, levels={"treat": ["placebo", "prednisone"]}),
}

# JM's prothro has a column time (of the measurement) and a column Time (of the event): lower case would merge them.
EXPORT = {
    "aids": 'data(aids, package = "JM"); names(aids) <- tolower(names(aids)); '
    'write.csv(aids, "aids.csv", row.names = FALSE)',
    "prothro": 'data(prothro, package = "JM"); names(prothro)[names(prothro) == "Time"] <- "eventtime"; '
    'write.csv(prothro, "prothro.csv", row.names = FALSE)',
}


@checked
def load_dataset(name: str, *, coding: str | None = None) -> pd.DataFrame:
    """Load a data set in long format: one row per measurement.

    Parameters
    ----------
    name : str
        A name from :func:`list_datasets`; :func:`describe_dataset` says what its columns mean.
    coding : str, optional
        For a data set that exists in several codings. ``"esoph"`` is the corrected data (``"corrected"``, the default);
        ``coding="1980s"`` is the data as R shipped them before version 4.0.4, in which ``ncontrols`` holds
        cases + controls.

    Returns
    -------
    pandas.DataFrame
        A new data frame at every call, shape (rows, columns) as described. Categorical columns have their reference
        level first; missing values are kept as NaN.

    Raises
    ------
    UnknownDatasetError
        If no data set has this name, or if it does not ship with the package (``"aids"``, ``"prothro"``) and its file
        is not in the folder named by the environment variable ``HIERLMM_DATA``.
    DataError
        If the file found there does not have the expected columns and values.
    SpecificationError
        If the data set has no such coding.

    Examples
    --------
    >>> dental = load_dataset("dental")
    >>> list(dental.columns)
    ['subject', 'sex', 'age', 'time', 'distance']
    """
    import pandas as pd

    description = describe_dataset(name)
    if coding is not None and coding not in description.codings:
        known = [d.name for d in CATALOGUE.values() if d.codings]
        raise SpecificationError(
            received=f"coding={coding!r} for the data set {name!r}",
            reason=f"{name!r} exists in the codings {', '.join(map(repr, description.codings))}."
            if description.codings
            else f"{name!r} exists in one coding only (several exist for {', '.join(map(repr, known))}).",
            remedy="Use one of these codings, or leave coding out.",
            see=f"hierlmm.describe_dataset({name!r})",
        )
    if description.ships:
        stem = "esoph_1980s" if coding == "1980s" else name
        with (files("hierlmm.datasets") / "data" / f"{stem}.csv").open("rb") as source:
            raw = _read_csv(source)
    else:
        path = _external_file(name)
        try:
            raw = _read_csv(path)
        except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise _unusable(name, path, f"It cannot be read as CSV: {error}") from error
        raw = _as_exported(name, raw)
        _check_external(name, path, raw)
    return _prepare(name, raw)


def _read_csv(source: Path | IO[bytes]) -> pd.DataFrame:
    import pandas as pd

    # Only an empty field is missing: the words of the data ("NA", "None") are never guessed at, except R's own NA.
    return pd.read_csv(source, keep_default_na=False, na_values=["", "NA"])


def _prepare(name: str, raw: pd.DataFrame) -> pd.DataFrame:
    """Apply the recipe: rename, recode, order the levels, order the columns as described."""
    import pandas as pd

    recipe = RECIPES[name]
    data = raw.rename(columns=recipe.rename)
    for column, codes in recipe.recode.items():
        data[column] = data[column].map(codes)
    for column, levels in recipe.levels.items():
        data[column] = pd.Categorical(data[column], categories=levels, ordered=column in recipe.ordered)
    if name == "pbc":
        data["year"] = data["day"] / 365.25
    return data[[c.name for c in CATALOGUE[name].columns]]


def _external_file(name: str) -> Path:
    """Find the file of a data set that does not ship, or say where to get it."""
    folder = os.environ.get(ENVIRONMENT_VARIABLE, "")
    path = Path(folder).expanduser() / f"{name}.csv"
    if folder and path.is_file():
        return path
    if not folder:
        why = f"The environment variable {ENVIRONMENT_VARIABLE} is not set."
    elif not path.parent.is_dir():
        why = f"{ENVIRONMENT_VARIABLE} is {folder!r}, which is not a folder."
    else:
        why = f"{ENVIRONMENT_VARIABLE} is {folder!r}, and there is no file {name}.csv in it."
    raise UnknownDatasetError(
        received=f"load_dataset({name!r})",
        reason=f"This data set belongs to the R package JM and does not ship with hierlmm. {why}",
        remedy=f'Export it in R, after install.packages("JM"): {EXPORT[name]}; then set {ENVIRONMENT_VARIABLE} to the '
        "folder that holds the file.",
        see=f"hierlmm.describe_dataset({name!r}); https://cran.r-project.org/package=JM",
    )


def _as_exported(name: str, raw: pd.DataFrame) -> pd.DataFrame:
    """Accept the column names as R has them (CD4, prevOI, Time), beside the lower-case ones."""
    if name == "prothro" and "eventtime" not in raw.columns:
        raw = raw.rename(columns={"Time": "eventtime"})
    lower = {c: str(c).lower() for c in raw.columns}
    return raw.rename(columns=lower) if len(set(lower.values())) == len(lower) else raw


def _check_external(name: str, path: Path, raw: pd.DataFrame) -> None:
    """Refuse a file that is not the data set: columns, types, levels."""
    import pandas as pd

    recipe = RECIPES[name]
    original = {new: old for old, new in recipe.rename.items()}
    needed = [original.get(c.name, c.name) for c in CATALOGUE[name].columns]
    absent = [c for c in needed if c not in raw.columns]
    if absent:
        raise _unusable(name, path, f"Columns are missing: {', '.join(absent)}. It has: {', '.join(map(str, raw))}.")
    for column in needed:
        levels = recipe.levels.get(column)
        if levels is None:
            if not pd.api.types.is_numeric_dtype(raw[column]):
                raise _unusable(name, path, f"The column {column!r} is not numeric.")
            continue
        strange = [str(v) for v in raw[column].dropna().unique() if v not in levels]
        if strange:
            raise _unusable(
                name,
                path,
                f"The column {column!r} holds {', '.join(map(repr, strange[:5]))}; expected: {', '.join(levels)}.",
            )


def _unusable(name: str, path: Path, why: str) -> DataError:
    return DataError(
        received=f"the file {path} for the data set {name!r}",
        reason=why,
        remedy=f"Export the data set again in R: {EXPORT[name]}.",
        see=f"hierlmm.describe_dataset({name!r})",
    )
