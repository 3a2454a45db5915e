"""What the mean of a response, its link and a difference on the scale of the link are called."""

from __future__ import annotations

from hierlmm.design.design import Design
from hierlmm.design.formula import unquoted

YES_OR_NO = ("bernoulli", "binomial")


def mean_name(design: Design) -> str:
    """``mean of count``, ``probability of yes``."""
    what = unquoted(design.hierarchy.response)
    if design.family.name in YES_OR_NO:
        return f"probability of {design.rows.note.removeprefix('success: ') or what}"
    return f"mean of {what}"


def link_name(design: Design) -> str:
    """``log of the mean of count``; with the identity link the mean."""
    if design.family.name == "ordinal":
        return f"latent {unquoted(design.hierarchy.response)} ({design.family.link} scale)"
    link = {"inverse": "inverse", "sqrt": "square root"}.get(design.family.link, design.family.link)
    return mean_name(design) if link == "identity" else f"{link} of the {mean_name(design)}"


def scale_text(design: Design) -> str:
    """`` (log scale)`` where coefficients are on that of a link."""
    return "" if design.is_gaussian or design.family.link == "identity" else f" ({design.family.link} scale)"


def ratio_name(design: Design) -> str:
    """What exp of a difference on the scale of the link is: ``odds ratio``, ``rate ratio``; empty if nothing."""
    family = design.family
    if family.link != "log":
        return family.function.words
    if family.name in YES_OR_NO:
        return "ratio of probabilities"
    return "rate ratio" if design.outcome.exposure is not None else "ratio of means"


def several(ratio: str) -> str:
    """``odds ratios``, ``ratios of means``."""
    return ratio.replace("ratio", "ratios", 1)
