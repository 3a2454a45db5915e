"""The marginal likelihood as an operation of PyTensor: value and gradient by the compiled density, in every backend.

Imported only where PyTensor is in use already.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, grad_not_implemented
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_funcify, numba_njit

from hierlmm.bayes.posterior import Collapsed

# The data go by their address, so that no graph and no compiled code holds a copy of them.
_ENTRY = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
)


class MarginalDensity(Op):
    """(F (q, q), β (p,) or (0,), σ (), η (k,)) -> log density () and its gradient by each, in the user's units.

    σ is the SD of the whitened rows; see `marginal_likelihood`. Several inputs and outputs, so that no graph around it
    joins or splits vectors, which takes longer to compile than everything else.
    """

    def __init__(self, likelihood: Collapsed):
        scaling = likelihood.products.scaling
        self.likelihood = likelihood
        self.to_working, self.shift, self.y_scale = scaling.Bx / scaling.y_scale, scaling.shift, scaling.y_scale

    def make_node(self, *inputs: Any) -> Apply:
        """See PyTensor."""
        given = [pt.as_tensor_variable(value).astype("float64") for value in inputs]
        return Apply(self, given, [pt.dscalar(), *(value.type() for value in given)])

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """See PyTensor."""
        F, beta, sigma, eta = inputs
        q, p = F.size, beta.size
        working = self.to_working @ (beta - self.shift) if p else beta
        theta = np.concatenate([F.ravel(), working, [np.log(sigma / self.y_scale)], eta])
        value, slope = self.likelihood.evaluator()(theta)
        by_beta = self.to_working.T @ slope[q : q + p] if p else slope[:0]
        found = (value, slope[:q].reshape(F.shape), by_beta, slope[q + p] / sigma, slope[q + p + 1 :])
        for storage, result in zip(outputs, found, strict=True):
            storage[0] = np.array(result)

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """See PyTensor. The gradient has no derivative: there are no second derivatives."""
        if any(not isinstance(c.type, DisconnectedType) for c in cotangents[1:]):
            reason = "the marginal likelihood has first derivatives only"
            return [grad_not_implemented(self, k, given, reason) for k, given in enumerate(inputs)]
        return [cotangents[0] * slope for slope in outputs[1:]]


@numba_funcify.register(MarginalDensity)
def _compiled(op: MarginalDensity, node: Any = None, **_: Any) -> Callable[..., Any]:
    found = op.likelihood.compiled()
    evaluate = _through_python(op) if found is None else _through_pointer(*found)
    to_working, shift, y_scale = np.ascontiguousarray(op.to_working), op.shift, op.y_scale

    @numba_njit
    def density(F, beta, sigma, eta):  # type: ignore[no-untyped-def]
        q, p, k, sd = F.shape[0], beta.size, eta.size, sigma.item()
        theta = np.zeros(q * q + p + 1 + k)
        for i in range(q):
            for j in range(q):
                theta[i * q + j] = F[i, j]
        for a in range(p):
            for b in range(p):
                theta[q * q + a] += to_working[a, b] * (beta[b] - shift[b])
        theta[q * q + p] = np.log(sd / y_scale)
        for j in range(k):
            theta[q * q + p + 1 + j] = eta[j]
        value, slope = evaluate(theta)
        by_F, by_beta, by_eta = np.empty((q, q)), np.zeros(p), np.empty(k)
        for i in range(q):
            for j in range(q):
                by_F[i, j] = slope[i * q + j]
        for a in range(p):
            for b in range(p):
                by_beta[a] += to_working[b, a] * slope[q * q + b]
        for j in range(k):
            by_eta[j] = slope[q * q + p + 1 + j]
        return np.asarray(value), by_F, by_beta, np.asarray(slope[q * q + p] / sd), by_eta

    return density


def _through_pointer(function: Any, data: Any) -> Any:
    """θ -> value and gradient by the compiled density."""
    call, address = _ENTRY(function.address), data.ctypes.data

    @numba_njit
    def evaluate(theta: Any) -> Any:
        gradient, value = np.empty(theta.size), np.empty(1)
        status = call(theta.size, theta.ctypes, gradient.ctypes, value.ctypes, address)
        if status != 0:
            value[0] = -np.inf
            gradient[:] = 0.0
        return value[0], gradient

    made: Any = evaluate
    made.py_func.data = data  # lives as long as the code that has its address
    return made


def _through_python(op: MarginalDensity) -> Callable[..., Any]:
    """The same for a residual structure of the user's own, which is not compiled."""
    likelihood = op.likelihood

    def by_python(theta: Any) -> tuple[Any, Any]:
        value, gradient = likelihood.evaluator()(theta)
        return float(value), gradient

    @numba_njit
    def evaluate(theta: Any) -> Any:
        with numba.objmode(value="float64", gradient="float64[::1]"):
            value, gradient = by_python(theta)
        return value, gradient

    return evaluate
