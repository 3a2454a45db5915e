"""Labels of a tree's variables for ArviZ: ``sd(Intercept)`` and not ``sd_b[Intercept]``, as in the package's tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from arviz_base.labels import BaseLabeller

from hierlmm.bayes.convergence import LABELS

PLAIN = {**LABELS, "residual_correlation": "{}", "residual_variance": "{}", "draws": "{}"}
NUMBERED = ("chain", "draw")
LONG = 26
"""Letters of a line."""
OUTSIDE = (*NUMBERED, "model", "column", "group", "alpha", "component_group")
"""Dimensions that are not part of a parameter's name."""


class Labeller(BaseLabeller):
    """Names of parameters as the tables of a fit write them; pass it as ``labeller=`` to a function of ArviZ."""

    def make_label_flat(self, var_name: str | None, sel: Mapping[Any, Any], isel: Mapping[Any, Any]) -> str:
        """``time``, ``sd(Intercept)``, ``corr(Intercept, time)``, ``b[12, Intercept]``."""
        own = {dim: v for dim, v in sel.items() if dim not in OUTSIDE}
        if var_name not in PLAIN or not own:
            return str(super().make_label_flat(var_name, sel, isel))
        name = PLAIN[str(var_name)].format(", ".join(str(v) for v in own.values()))
        rest = [str(v) if dim not in NUMBERED else f"{dim} {v}" for dim, v in sel.items() if dim not in own]
        return ": ".join([name, *rest])

    def make_label_vert(self, var_name: str | None, sel: Mapping[Any, Any], isel: Mapping[Any, Any]) -> str:
        """The same, broken after commas and colons where it is long."""
        lines = [""]
        for piece in re.split(r"(?<=[,:] )", self.make_label_flat(var_name, sel, isel)):
            if lines[-1] and len(lines[-1]) + len(piece) > LONG:
                lines.append("")
            lines[-1] += piece
        return "\n".join(line.strip() for line in lines)
