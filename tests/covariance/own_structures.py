"""Structures as a user writes them, and a model with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import hierlmm as hl

RHO = hl.Parameter("rho", 0.5, 0.0, 1.0)


def lag(t):
    return np.abs(t[..., :, None] - t[..., None, :])


def structure(matrix, parameters=(RHO,)):
    """A structure of the given matrix function and parameters."""

    @dataclass(frozen=True)
    class Own(hl.ResidualCorrelation):
        time: str

        def parameters(self, observed):
            return parameters

        def matrix(self, t, values):
            return matrix(t, values)

    return Own("age")


def decay(t, values):
    return values[0] ** (lag(t) / 2)


def model(correlation, variance=None):
    return hl.MarginalModel(
        "distance ~ sex * time",
        subject="subject",
        data=hl.load_dataset("dental"),
        correlation=correlation,
        variance=variance,
    )
