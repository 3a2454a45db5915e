"""The role ``{of}`` of the reference by purpose: where a method is there, each name a link to its full entry.

``{of}`fit.contrasts``` becomes "every fit", ``{of}`hl.compare``` "all arguments". What a class refuses stands in its
``lacks`` and is not listed, so that the pages say what is so.
"""

from __future__ import annotations

import inspect
from typing import Any

from docutils import nodes
from sphinx import addnodes

import hierlmm as hl

MODELS = (hl.TwoLevelModel, hl.MultilevelModel, hl.MarginalModel)
LIKELIHOOD = (hl.LikelihoodFit, hl.MultilevelFit, hl.MarginalFit, hl.GeneralisedFit, hl.GeneralisedMultilevelFit)
POSTERIORS = (hl.PosteriorFit, hl.MultilevelPosterior, hl.GeneralisedPosterior, hl.GeneralisedMultilevelPosterior)
FITS = (*LIKELIHOOD, *POSTERIORS, hl.GEEFit)
COMPARISONS = (hl.Comparison, hl.MarginalComparison)
CLASSES = (*MODELS, *FITS, *COMPARISONS)
TOGETHER = (("every model", MODELS), ("every fit", FITS), ("likelihood fits", LIKELIHOOD), ("posteriors", POSTERIORS))
"""Classes that are named by one word where all of them have it, the first of which is linked."""


def members(kind: type) -> set[str]:
    """Public names of a class that it does not refuse."""
    return {name for name in dir(kind) if not name.startswith("_")} - set(getattr(kind, "lacks", ()))


def where(name: str) -> list[tuple[str, str]]:
    """Words and targets: the classes that have a method, or the function itself."""
    of, _, own = name.rpartition(".")
    if of == "hl":
        return [("all arguments" if inspect.isfunction(getattr(hl, own)) else f"hl.{own}", f"hierlmm.{own}")]
    having = [kind for kind in CLASSES if own in members(kind)]
    found = []
    for word, kinds in TOGETHER:
        if set(kinds) <= set(having):
            found.append((word, f"hierlmm.{kinds[0].__name__}.{own}"))
            having = [kind for kind in having if kind not in kinds]
    return found + [(kind.__name__, f"hierlmm.{kind.__name__}.{own}") for kind in having]


def of(role: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()) -> Any:
    """The role."""
    shown: list[nodes.Node] = []
    for k, (word, target) in enumerate(where(text)):
        if k:
            shown.append(nodes.Text(", "))
        link = addnodes.pending_xref(
            rawtext, refdomain="py", reftype="obj", reftarget=target, refexplicit=True, refwarn=True
        )
        link += nodes.inline(word, word)
        shown.append(link)
    return [nodes.inline(rawtext, "", nodes.Text("("), *shown, nodes.Text(")"), classes=["of"])], []


def setup(app: Any) -> dict[str, bool]:
    app.add_role("of", of)
    return {"parallel_read_safe": True}
