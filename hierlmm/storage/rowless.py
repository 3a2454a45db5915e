"""A design without its rows: names and counts are there, and whatever needs the rows says how to load them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hierlmm.design.design import Design
from hierlmm.design.hierarchy import Hierarchy
from hierlmm.design.levels import Levels
from hierlmm.design.outcome import GAUSSIAN
from hierlmm.design.terms import Terms
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.generalised_criterion import GeneralisedCriterion
from hierlmm.storage.table import pack_index, unpack_index
from hierlmm.storage.values import SEE, Arrays, pack, unpack

NAMES = ("fixed", "level1_columns", "coef_level1", "random")


class NoRows:
    """Stands where rows were, or what is worked out of them; what is known without them is an attribute.

    Parameters
    ----------
    call : str
        How the fit is loaded with its rows.
    **known
        What is known.
    """

    def __init__(self, call: str, **known: Any) -> None:
        vars(self).update(known, call=call)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and printing look for these
            raise AttributeError(name)
        reason = "it was saved with data=False, and this needs the rows"
        raise NotAvailableError("a fit that was loaded without its rows", reason, f"use {vars(self)['call']}", SEE)

    def __call__(self, *arguments: Any) -> Any:
        """Refuse: a function of the rows."""
        return self.rows


def pack_names(design: Design, arrays: Arrays) -> dict[str, Any]:
    """What is known of a design without rows, as JSON."""
    said = {name: pack(getattr(design.terms, name), f"terms.{name}", arrays) for name in NAMES}
    said["levels"] = pack(design.levels.categories, "terms.levels", arrays)
    said["categories"] = pack(design.rows.categories, "rows.categories", arrays)
    said["note"] = design.rows.note
    return said | {"subjects": pack_index(design.subjects, "subjects", arrays)}


def rowless_design(said: Mapping[str, Any], names: Mapping[str, Any], arrays: Arrays, call: str) -> Design:
    """The design of a fit whose rows are elsewhere.

    Parameters
    ----------
    said : mapping
        What a file says of the design.
    names : mapping
        From `pack_names`.
    arrays : mapping
        What was put aside.
    call : str
        How the fit is loaded with its rows, for messages.
    """
    hierarchy: Hierarchy = unpack(said["hierarchy"], arrays)
    known = {name: unpack(names[name], arrays) for name in NAMES}
    absent: Any = NoRows(call)
    levels = Levels(unpack(names["levels"], arrays))
    terms = Terms(hierarchy, levels, absent, **known, dtypes=dict.fromkeys(said["columns"], object))
    subject = NoRows(call, labels=unpack_index(names["subjects"], arrays))
    own = {name: said[name] for name in ("n_obs", "n_dropped")}
    own["categories"] = unpack(names["categories"], arrays) if "categories" in names else ()
    own["note"] = names.get("note", "")
    rows: Any = NoRows(call, subject=subject, units=said.get("units", {}), **own)
    correlation, variance = (unpack(said[name], arrays) for name in ("residual", "residual_variance"))
    outcome = unpack(said["outcome"], arrays) if "outcome" in said else GAUSSIAN
    return Design(terms, rows, (), correlation, variance, outcome=outcome)


def rowless_criterion(design: Design, said: Mapping[str, Any], arrays: Arrays, call: str) -> Any:
    """The criterion: on its cross-products, which are no rows, or, where it whitens rows, its name only."""
    structure = design.random_structure
    if said["products"] is not None:
        return Criterion(unpack(said["products"], arrays), structure, said["reml"])
    return NoRows(call, structure=structure, reml=said["reml"], whitens=True)


def rowless_generalised(design: Design, said: Mapping[str, Any], call: str) -> GeneralisedCriterion:
    """The criterion of a generalised model: what its parameters are, without the rows."""
    rows: Any = NoRows(call, scaling=said["scaling"], family=design.family)
    structure = design.random_structure
    return GeneralisedCriterion(rows, structure, said["points"], said["n_psi"], first=said["first"])
