"""Fits of this room made once, and what emmeans says of them."""

from __future__ import annotations

import json
from functools import cache

from references import references_of
from samples import DENTAL

import hierlmm as hl

EFFECTS = references_of("effects")
METHODS = {"satterthwaite": "satterthwaite", "kenward_roger": "kenward-roger"}
RATS = "weight ~ treatment * sex + lsize + (1 | litter)"
AT = {"time": [0, 6]}


@cache
def frozen(name):
    return json.loads((EFFECTS / f"{name}.json").read_text())


@cache
def fitted(name):
    formula = {"dental": DENTAL, "petri": "y ~ group + (1 | dish)", "rat_pups": RATS}.get(name.split("_reml")[0])
    if name.startswith("dental"):
        formula = formula or DENTAL.replace("|", "||" if "diagonal" in name else "|")
        model = hl.TwoLevelModel.from_formula(formula, hl.load_dataset("dental"))
        return model.fit_ml() if name.endswith("_ml") else model.fit_reml()
    if name.startswith("sleepstudy"):
        formula = "reaction ~ days + I(days ** 2) + (1 + days | subject)"
        return hl.TwoLevelModel.from_formula(formula, hl.load_dataset("sleepstudy")).fit_reml()
    return hl.TwoLevelModel.from_formula(formula, hl.load_dataset(name.removesuffix("_reml"))).fit_reml()


@cache
def additive():
    return hl.TwoLevelModel.from_formula("distance ~ sex + time + (1 | subject)", hl.load_dataset("dental")).fit_reml()
