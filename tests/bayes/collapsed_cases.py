"""Models of irregular data with every structure of D and every prior, and points around their mode."""

from __future__ import annotations

import numpy as np

from hierlmm.bayes.distributions import (
    LKJ,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    Normal,
)
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula

POSITIVE = (HalfNormal(3.0), HalfStudentT(4.0, 2.0), HalfCauchy(1.5), Exponential(2.0), Gamma(2.5, 0.4))
CASES = {
    "intercept": ("y ~ 1 + (1 | subject)", None, None),
    "p = 6": ("y ~ group * t + (1 | subject)", None, None),
    "slope": ("y ~ group + t + (1 + t | subject)", None, None),
    "three effects": ("y ~ t + u + w + (1 + t + u | subject)", None, None),
    "diagonal": ("y ~ t + u + (1 + t + u || subject)", None, None),
    "identity": ("y ~ t + (1 + t | subject)", "identity", None),
    "compound symmetry": ("y ~ t + (1 + t | subject)", "compound_symmetry", None),
    "three equal": ("y ~ t + u + (1 + t + u | subject)", "compound_symmetry", Priors(corr_b=LKJ(1.7))),
    "blocks": ("y ~ t + u + (1 + t | subject) + (0 + u | subject)", None, None),
    "by group": ("y ~ group + t + (1 + t | gr(subject, by = group))", None, None),
    "diagonal by group": ("y ~ t + (1 + t || gr(subject, by = group))", None, None),
    "identity by group": ("y ~ group + t + (1 + t | gr(subject, by = group))", "identity", None),
    "compound symmetry by group": ("y ~ t + u + (1 + t + u | gr(subject, by = group))", "compound_symmetry", None),
    "no intercept": ("y ~ 0 + group + t + (1 + t | subject)", None, None),
    "nothing fixed": ("y ~ 0 + (1 + t | subject)", None, None),
    "offset": ("y ~ t + offset(start) + (1 + t | subject)", None, None),
    "slope alone": ("y ~ t + (0 + t | subject)", None, None),
    "bambi": ("y ~ t + (1 + t | subject)", None, "bambi"),
    "chosen": (
        "y ~ t + (1 + t | subject)",
        None,
        Priors(
            intercept=Normal(70, 9), beta={"t": Normal(1, 0.5)}, sd_b={"t": Gamma(3, 2)}, sigma=Exponential(5),
            corr_b=LKJ(0.7),
        ),
    ),
    **{
        f"{prior}": ("y ~ t + (1 + t | subject)", None, Priors(sd_b=prior, sigma=POSITIVE[k - 1], corr_b=LKJ(1.0)))
        for k, prior in enumerate(POSITIVE)
    },
}  # fmt: skip


def make(frame, case):
    formula, covariance, priors = CASES[case]
    design = design_from_formula(parse_formula(formula), frame, covariance=covariance)
    return design, resolve_priors(priors, design)


def random_points(posterior, n, seed=0):
    """Points around the mode, and wild ones: standard deviations over orders of magnitude, |correlation| up to 0.99."""
    rng = np.random.default_rng(seed)
    near = posterior.mode + rng.normal(scale=0.5, size=(n, len(posterior.mode)))
    far = posterior.mode + rng.normal(scale=1.5, size=(n, len(posterior.mode)))
    return np.vstack([near, far])
