"""Gradients by differences of fourth order."""

import numpy as np


def central(function, x, step=1e-4):
    """Gradient at ``x``; ``step`` for all coordinates or for each."""
    steps = np.broadcast_to(step, len(x))
    gradient = np.empty(len(x))
    for k, h in enumerate(steps):
        e = np.zeros(len(x))
        e[k] = h
        near, far = function(x + e) - function(x - e), function(x + 2 * e) - function(x - 2 * e)
        gradient[k] = (8 * near - far) / (12 * h)
    return gradient


def relative_central(function, x, step=1e-3):
    """Gradient at ``x`` by steps relative to coordinates beyond one: truncation stays below 1e-9."""
    return central(function, x, step * np.maximum(1.0, np.abs(x)))
