"""Structures of the residual correlation within a subject: R_i in ``Σ_i = σ² G_i R_i G_i``.

A structure is a small class: which column holds the positions, its parameters, and the correlation matrix at given
positions. Serial structures add `ResidualCorrelation.markov`, which whitens a subject in O(n_i); others are whitened
by a Cholesky factor for each distinct set of positions. Built-in structures have exact derivatives; those of a class
that gives none are central differences of fourth order.

With the off-diagonal share u and one decay d_r per step, every serial structure here has

    R[s, t] = u · Π_{r = s+1..t} d_r,   s < t;     R[t, t] = 1

References
----------
Pinheiro, J. C., Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS, section 5.3.
Barndorff-Nielsen, O., Schou, G. (1973). On the parametrization of autoregressive models by partial autocorrelations.
J. Multivariate Anal. 3, 408-419.
Lewandowski, D., Kurowicka, D., Joe, H. (2009). J. Multivariate Anal. 100, 1989-2001.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hierlmm.covariance.parameters import Decay, Parameter, check_start, natural_values
from hierlmm.errors import DataError, SpecificationError
from hierlmm.options import checked_constructor

__all__ = [
    "AR1",
    "CAR1",
    "CompoundSymmetry",
    "Exponential",
    "Gaussian",
    "Markov",
    "Observed",
    "ResidualCorrelation",
    "Toeplitz",
    "Unstructured",
    "check_matrix",
    "check_time",
]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Residual structures'"
SHORTEST, LONGEST = 1 / 300, 1e7
"""Ranges, in units of time, between which the correlation one unit apart is neither 0 nor 1 in floating point."""


class Observed(NamedTuple):
    """What a structure may look at to name its parameters and choose where to begin.

    Attributes
    ----------
    largest : int
        Most rows of any subject.
    step : float
        Median positive distance between neighbouring positions of a subject.
    neighbour : float
        Correlation of neighbouring residuals of an ordinary regression, kept inside (-0.9, 0.95).
    labels : tuple of str
        Names of the occasions; empty unless the structure is `by_occasion`.
    correlation : (m, m)
        Correlations of these residuals between occasions, shrunk towards independence; (0, 0) where not by occasion.
    mixed : bool
        Whether the model has random effects, which take a share of these correlations.
    """

    largest: int
    step: float
    neighbour: float
    labels: tuple[str, ...]
    correlation: FloatArray
    mixed: bool


class Markov(NamedTuple):
    """A serial structure in O(n) form: off-diagonal share u, decays (N,), and their derivatives by parameter."""

    u: float
    decay: FloatArray
    du: FloatArray
    d_decay: FloatArray


class ResidualCorrelation(ABC):
    """Correlation of the level-1 residuals of one subject.

    To add a structure, write a frozen dataclass with `parameters` and `matrix`.

    Attributes
    ----------
    time : str or None
        Column of the positions; None takes the order of the rows.
    integer : bool
        Whether positions are whole numbers (a lag counts occasions).
    by_occasion : bool
        Whether positions are labels, the same for every subject.
    stationary : bool
        Whether only differences of positions matter.
    """

    time: str | None
    integer: ClassVar[bool] = False
    by_occasion: ClassVar[bool] = False
    stationary: ClassVar[bool] = True
    _bounds: ClassVar[tuple[tuple[float, float], ...] | None] = None

    @property
    def ties(self) -> bool:
        """Whether two rows of a subject may have the same position: replicates need a nugget."""
        return bool(getattr(self, "nugget", False))

    @property
    def counts_rows(self) -> bool:
        """Whether positions are the places of a subject's rows, so that those of further rows have to be known."""
        return self.time is None

    @abstractmethod
    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """Names, bounds and starting values.

        Parameters
        ----------
        observed : Observed
            What the data show: number and distance of rows, labels, correlation of neighbours.
        """

    @abstractmethod
    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Correlation matrices at positions t, sorted within a subject: (..., n) and (k,) -> (..., n, n).

        Parameters
        ----------
        t : (..., n)
            Positions.
        values : (k,)
            Parameters, in the order of `parameters`.
        """

    def derivatives(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Derivatives of `matrix` by parameter: (k, ..., n, n). By default differences of fourth order.

        Within a model they stay inside the declared bounds.

        Parameters
        ----------
        t : (..., n)
            Positions.
        values : (k,)
            Parameters, in the order of `parameters`.
        """
        found = []
        for j, value in enumerate(values):
            if self._bounds is None or np.isinf(self._bounds[j][0]):
                step = 1e-3 * min(max(abs(value), 1e-3), 1.0)
                step = min(step, 0.25 * abs(value)) if value else step  # a parameter may have to be positive
            else:
                lower, upper = self._bounds[j]
                room = min(value - lower, upper - value)
                if room <= 0.0:  # at the very end of the range, where the derivative by η is zero
                    found.append(np.zeros((*t.shape, t.shape[-1])))
                    continue
                step = 1e-3 * (room if np.isfinite(upper) else min(room, max(abs(value), 1.0)))

            def moved(by: float, j: int = j, step: float = step) -> FloatArray:
                shifted = values.copy()
                shifted[j] += by * step
                return self.matrix(t, shifted)

            found.append((8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0))) / (12.0 * step))
        return np.array(found)

    def within(self, parameters: tuple[Parameter, ...]) -> ResidualCorrelation:
        """Tell the bounds to a copy of this structure: its `derivatives` asks for no matrix outside of them.

        Parameters
        ----------
        parameters : tuple of Parameter
            What `parameters` gave for the data.
        """
        own = copy(self)
        object.__setattr__(own, "_bounds", tuple((p.lower, p.upper) for p in parameters))
        return own

    def other_starts(self, observed: Observed) -> tuple[FloatArray, ...]:
        """More parameter values (k,) to begin at, for a structure whose likelihood can have several maxima.

        Parameters
        ----------
        observed : Observed
            As for `parameters`.
        """
        return ()

    def markov(self, gaps: FloatArray, values: FloatArray) -> Markov | None:
        """O(n) form at the distances to the previous row, if the structure has one: (N,) and (k,).

        Parameters
        ----------
        gaps : (N,)
            Distance of each row to the row before.
        values : (k,)
            Parameters, in the order of `parameters`.
        """
        return None

    def report(self, observed: Observed, values: FloatArray) -> dict[str, float]:
        """What a table shows, by name; by default the parameters themselves.

        Parameters
        ----------
        observed : Observed
            As for `parameters`.
        values : (k,)
            Parameters, in the order of `parameters`.
        """
        return {p.name: float(v) for p, v in zip(self.parameters(observed), values, strict=True)}

    @property
    def correlations(self) -> bool:
        """Whether what `report` shows are correlations rather than the parameters (intervals by Fisher's z)."""
        return False

    def formula(self) -> str:
        """Entry of the matrix as text, for ``equations()``."""
        return f"{type(self).__name__}"


def check_matrix(spec: ResidualCorrelation, t: FloatArray, parameters: tuple[Parameter, ...]) -> None:
    """Refuse a structure whose matrices at positions t (..., n) are no correlation matrices.

    They are looked at where the search begins, and a little away from it.

    Raises
    ------
    SpecificationError
    """
    eta = np.array([p.unconstrained(float(p.start)) for p in parameters])
    for k, shift in enumerate((0.0, 0.4)):
        values = natural_values(parameters, eta + shift)
        with np.errstate(all="ignore" if k else None):
            R = spec.matrix(t, values.copy())
        wrong = _why_no_correlation(R, t, everything=k == 0)
        if wrong:
            at = ", ".join(f"{p.name} = {v:.4g}" for p, v in zip(parameters, values, strict=True))
            raise SpecificationError(
                f"{type(spec).__name__}, whose `matrix`{f' at {at}' if at else ''} {wrong[0]}",
                "R_i is the correlation matrix of a subject's rows: symmetric, 1 on the diagonal, positive definite",
                wrong[1],
                SEE,
            )


def _why_no_correlation(R: Any, t: FloatArray, *, everything: bool) -> tuple[str, str] | None:
    """What is wrong with matrices at positions t, and what to do; not everywhere need they exist."""
    shape = (*t.shape, t.shape[-1])
    if not isinstance(R, np.ndarray) or R.shape != shape or R.dtype.kind not in "fiu":
        got = f"shape {R.shape}" if isinstance(R, np.ndarray) else type(R).__name__
        return (
            f"returns {got} for positions of shape {t.shape}",
            f"return an array of numbers of shape {shape}: with lag = np.abs(t[..., :, None] - t[..., None, :]) it "
            "comes out so",
        )
    if not np.all(np.isfinite(R)):
        wrong = "has entries that are not finite", "check the formula, and let the search begin where it is defined"
        return wrong if everything else None
    diagonal = np.diagonal(R, axis1=-2, axis2=-1)
    if np.any(np.abs(diagonal - 1.0) > 1e-8):
        bad = float(diagonal.flat[int(np.argmax(np.abs(diagonal - 1.0)))])
        return (
            f"has {bad:.4g} on the diagonal, not 1",
            "divide by it: the size of the residuals is sigma, and unequal sizes are a residual variance",
        )
    if np.any(np.abs(R - np.swapaxes(R, -1, -2)) > 1e-8):
        return "is not symmetric", "let it depend on the distance, np.abs(t[..., :, None] - t[..., None, :])"
    if everything and float(np.linalg.eigvalsh(R)[..., 0].min(initial=1.0)) < -1e-8:
        return "is not positive definite", "let the search begin at other values, or narrow the bounds"
    return None


def _lag(t: FloatArray) -> FloatArray:
    return np.abs(t[..., :, None] - t[..., None, :])


def _nugget_parameter(mixed: bool) -> Parameter:
    return Parameter("nugget", 0.1 if mixed else 0.2, 0.0, 1.0)


@checked_constructor
@dataclass(frozen=True)
class AR1(ResidualCorrelation):
    """First-order autoregression by order: ``R[s, t] = ρ^|s - t|``, ``-1 < ρ < 1``.

    ```
    1    ρ    ρ²   ρ³
    ρ    1    ρ    ρ²
    ρ²   ρ    1    ρ
    ρ³   ρ²   ρ    1
    ```

    Parameters
    ----------
    time : str, optional
        Column of whole numbers that count the occasions (a missed occasion leaves a lag of 2). Left out: the order of
        the rows within a subject. For times that are no whole numbers use `Exponential` or `CAR1`.
    nugget : bool
        Multiply all correlations by ``1 - nugget``: a share of the residual variance that is measurement error.
    start : float, optional
        Where the search for ρ begins.
    """

    time: str | None = None
    nugget: bool = False
    start: float | None = None
    integer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.time is not None:
            check_time("AR1", self.time)
        _check_nugget("AR1", self.nugget)
        check_start("AR1", "rho", self.start, -1.0, 1.0)

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """``rho`` and, if asked for, ``nugget``."""
        start = observed.neighbour * (0.5 if observed.mixed else 1.0) if self.start is None else self.start
        rho = Parameter("rho", start, -1.0, 1.0)
        return (rho, _nugget_parameter(observed.mixed)) if self.nugget else (rho,)

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """``ρ^lag``, times ``1 - nugget`` off the diagonal."""
        return _with_nugget(np.power(values[0], _lag(t)), values[1:])

    def markov(self, gaps: FloatArray, values: FloatArray) -> Markov:
        """Decay ``ρ^gap``."""
        rho = values[0]
        decay = np.power(rho, gaps)
        slope = np.where(gaps > 0, gaps * np.power(rho, np.maximum(gaps - 1.0, 0.0)), 0.0)
        return _markov(decay, slope, values[1:])

    def formula(self) -> str:
        """As in the docstring."""
        return _formula_text("rho^|s - t|", self.nugget)


def _with_nugget(R: FloatArray, nugget: FloatArray) -> FloatArray:
    if not len(nugget):
        return R
    eye = np.eye(R.shape[-1])
    return (1.0 - nugget[0]) * R + nugget[0] * eye


def _markov(decay: FloatArray, slope: FloatArray, nugget: FloatArray) -> Markov:
    if len(nugget):
        zero = np.zeros_like(decay)
        return Markov(1.0 - nugget[0], decay, np.array([0.0, -1.0]), np.array([slope, zero]))
    return Markov(1.0, decay, np.zeros(1), slope[None])


def _formula_text(body: str, nugget: bool) -> str:
    return f"(1 - nugget) {body} for s ≠ t" if nugget else body


@checked_constructor
@dataclass(frozen=True)
class Exponential(ResidualCorrelation):
    """Exponential decay in time: ``R[s, t] = exp(-|t_s - t_t| / range)``, ``range > 0``.

    The continuous-time autoregression of nlme's ``corExp``; `CAR1` is the same model by ``phi = exp(-1 / range)``.

    Parameters
    ----------
    time : str
        Column of the times, in any unit; ``range`` has the same unit.
    nugget : bool
        Multiply all correlations by ``1 - nugget``: a share of the residual variance that is measurement error.
    start : float, optional
        Where the search for the range begins.
    """

    time: str = ""
    nugget: bool = False
    start: float | None = None

    def __post_init__(self) -> None:
        check_time("Exponential", self.time)
        _check_nugget("Exponential", self.nugget)
        check_start("Exponential", "range", self.start, 0.0, np.inf)

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """``range`` and, if asked for, ``nugget``."""
        found = Parameter("range", _range(observed, self.start), 0.0, spread=1.5, unit=observed.step)
        return (found, _nugget_parameter(observed.mixed)) if self.nugget else (found,)

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """``exp(-lag / range)``, times ``1 - nugget`` off the diagonal."""
        return _with_nugget(np.exp(-_lag(t) / values[0]), values[1:])

    def markov(self, gaps: FloatArray, values: FloatArray) -> Markov:
        """Decay ``exp(-gap / range)``."""
        decay = np.exp(-gaps / values[0])
        return _markov(decay, decay * gaps / values[0] ** 2, values[1:])

    def formula(self) -> str:
        """As in the docstring."""
        return _formula_text(f"exp(-|{self.time}_s - {self.time}_t| / range)", self.nugget)


@checked_constructor
@dataclass(frozen=True)
class CAR1(ResidualCorrelation):
    """Continuous-time first-order autoregression: ``R[s, t] = φ^|t_s - t_t|``, ``0 < φ < 1``.

    φ is the correlation one unit of time apart; ``φ = exp(-1 / range)`` of `Exponential`.

    Parameters
    ----------
    time : str
        Column of the times.
    nugget : bool
        Multiply all correlations by ``1 - nugget``.
    start : float, optional
        Where the search for φ begins.
    """

    time: str = ""
    nugget: bool = False
    start: float | None = None

    def __post_init__(self) -> None:
        check_time("CAR1", self.time)
        _check_nugget("CAR1", self.nugget)
        check_start("CAR1", "phi", self.start, 0.0, 1.0)

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """``phi`` and, if asked for, ``nugget``."""
        distance = _range(observed, None)
        if not SHORTEST < distance < LONGEST:
            raise DataError(
                f"CAR1({self.time!r}) and neighbouring times {observed.step:.3g} apart",
                f"phi is the correlation one unit of time apart, here {'0' if distance < 1 else '1'} to many digits",
                f"measure time in units of about that distance, or use Exponential({self.time!r})",
                SEE,
            )
        start = float(np.exp(-1.0 / distance)) if self.start is None else float(self.start)
        found = Decay("phi", start, 0.0, 1.0, unit=observed.step)
        return (found, _nugget_parameter(observed.mixed)) if self.nugget else (found,)

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """``φ^lag``, times ``1 - nugget`` off the diagonal."""
        return _with_nugget(np.power(values[0], _lag(t)), values[1:])

    def markov(self, gaps: FloatArray, values: FloatArray) -> Markov:
        """Decay ``φ^gap``."""
        decay = np.power(values[0], gaps)
        slope = (
            gaps * np.power(values[0], np.maximum(gaps - 1.0, 0.0)) if values[0] == 0.0 else decay * gaps / values[0]
        )
        return _markov(decay, slope, values[1:])

    def formula(self) -> str:
        """As in the docstring."""
        return _formula_text(f"phi^|{self.time}_s - {self.time}_t|", self.nugget)


@checked_constructor
@dataclass(frozen=True)
class Gaussian(ResidualCorrelation):
    """Gaussian decay in time: ``R[s, t] = exp(-(|t_s - t_t| / range)²)``, a smooth process (nlme's ``corGaus``).

    Parameters
    ----------
    time : str
        Column of the times, in any unit; ``range`` has the same unit.
    nugget : bool
        Multiply all correlations by ``1 - nugget``.
    start : float, optional
        Where the search for the range begins.
    """

    time: str = ""
    nugget: bool = False
    start: float | None = None

    def __post_init__(self) -> None:
        check_time("Gaussian", self.time)
        _check_nugget("Gaussian", self.nugget)
        check_start("Gaussian", "range", self.start, 0.0, np.inf)

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """``range`` and, if asked for, ``nugget``."""
        found = Parameter("range", _range(observed, self.start, 2.0), 0.0, spread=1.5, unit=observed.step)
        return (found, _nugget_parameter(observed.mixed)) if self.nugget else (found,)

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """``exp(-(lag / range)²)``, times ``1 - nugget`` off the diagonal."""
        return _with_nugget(np.exp(-((_lag(t) / values[0]) ** 2)), values[1:])

    def derivatives(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Exact."""
        square = (_lag(t) / values[0]) ** 2
        R = np.exp(-square)
        slope = R * 2.0 * square / values[0]
        if not self.nugget:
            return slope[None]
        return np.array([(1.0 - values[1]) * slope, np.eye(R.shape[-1]) - R])

    def formula(self) -> str:
        """As in the docstring."""
        return _formula_text(f"exp(-(|{self.time}_s - {self.time}_t| / range)²)", self.nugget)


def _range(observed: Observed, start: float | None, power: float = 1.0) -> float:
    """Range at which neighbouring residuals have their observed correlation (less, beside random effects)."""
    if start is not None:
        return float(start)
    rho = min(max(observed.neighbour, 0.05), 0.95)
    found = observed.step * (-np.log(rho)) ** (-1.0 / power)
    return float(found * (0.3 if observed.mixed else 1.0))


def check_time(name: str, time: str) -> None:
    """Refuse what is no name of a column."""
    if not isinstance(time, str) or not time:
        raise SpecificationError(
            f"{name}({'' if isinstance(time, str) else repr(time)})",
            "its first argument is the name of the column that holds the times",
            f"write {name}('time'); for the order of the rows use AR1() or Toeplitz()",
            SEE,
        )


def _check_nugget(name: str, nugget: Any) -> None:
    if not isinstance(nugget, bool):
        raise SpecificationError(
            f"{name} with nugget={nugget!r}",
            "nugget says whether there is one; its share is estimated",
            "write nugget=True or nugget=False",
            SEE,
        )


@checked_constructor
@dataclass(frozen=True)
class CompoundSymmetry(ResidualCorrelation):
    """Equal correlation of any two rows of a subject: ``R[s, t] = ρ``, ``-1/(n - 1) < ρ < 1``, n the largest n_i.

    ```
    1    ρ    ρ    ρ
    ρ    1    ρ    ρ
    ρ    ρ    1    ρ
    ρ    ρ    ρ    1
    ```

    With ρ > 0 this is the marginal model of a random intercept with ICC ρ; a negative ρ is no random intercept's.

    Parameters
    ----------
    start : float, optional
        Where the search for ρ begins.
    """

    start: float | None = None
    time: ClassVar[None] = None  # type: ignore[misc]
    ties: ClassVar[bool] = True
    counts_rows: ClassVar[bool] = False

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """``rho``, with the bound that the largest subject sets."""
        if observed.largest < 2:
            raise DataError(
                "one row for each subject, and compound symmetry",
                "there is no pair of rows within a subject to correlate",
                "check the subject column, or leave the correlation out",
                SEE,
            )
        lower = -1.0 / (observed.largest - 1)
        check_start(f"CompoundSymmetry with up to {observed.largest} rows for a subject", "rho", self.start, lower, 1.0)
        start = observed.neighbour * (0.3 if observed.mixed else 1.0) if self.start is None else self.start
        return (Parameter("rho", float(np.clip(start, 0.6 * lower, 0.95)), lower, 1.0),)

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Ones on the diagonal, ρ elsewhere."""
        n = t.shape[-1]
        R = (1.0 - values[0]) * np.eye(n) + values[0]
        return np.broadcast_to(R, (*t.shape[:-1], n, n)).copy()

    def markov(self, gaps: FloatArray, values: FloatArray) -> Markov:
        """Share ρ without decay."""
        return Markov(values[0], np.ones_like(gaps), np.ones(1), np.zeros((1, len(gaps))))

    def formula(self) -> str:
        """As in the docstring."""
        return "rho for s ≠ t"


@checked_constructor
@dataclass(frozen=True)
class Toeplitz(ResidualCorrelation):
    """One correlation for each lag: ``R[s, t] = ρ_|s - t|``, any positive definite sequence.

    ```
    1    ρ1   ρ2   ρ3
    ρ1   1    ρ1   ρ2
    ρ2   ρ1   1    ρ1
    ρ3   ρ2   ρ1   1
    ```

    The parameters that move freely are the partial autocorrelations, each between -1 and 1 (Barndorff-Nielsen & Schou
    1973); tables show the correlations.

    Parameters
    ----------
    time : str, optional
        Column of whole numbers that count the occasions; left out: the order of the rows within a subject.
    """

    time: str | None = None
    integer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.time is not None:
            check_time("Toeplitz", self.time)

    @property
    def correlations(self) -> bool:
        """True."""
        return True

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """Partial autocorrelations of lag 1, 2, ..."""
        lags = max(observed.largest - 1, 1)
        first = observed.neighbour * (0.5 if observed.mixed else 1.0)
        return tuple(Parameter(f"partial({k + 1})", first if k == 0 else 0.0, -1.0, 1.0) for k in range(lags))

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Autocorrelations at the lags."""
        return _autocorrelations(values)[0][_lag(t).astype(np.intp)]

    def derivatives(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Exact, through the Durbin-Levinson recursion."""
        slopes = _autocorrelations(values)[1]
        return np.array([s[_lag(t).astype(np.intp)] for s in slopes])

    def report(self, observed: Observed, values: FloatArray) -> dict[str, float]:
        """Correlations by lag."""
        return {f"rho({k + 1})": float(r) for k, r in enumerate(_autocorrelations(values)[0][1:])}

    def formula(self) -> str:
        """As in the docstring."""
        return "rho_|s - t|"


def _autocorrelations(partial: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Autocorrelations (k + 1,) of partial autocorrelations (k,), and their derivatives (k, k + 1).

    Durbin-Levinson: ``ρ_m = π_m (1 - Σ φ_j ρ_j) + Σ φ_j ρ_{m-j}``, with φ the coefficients of order m - 1.
    """
    k = len(partial)
    rho, d_rho = np.zeros(k + 1), np.zeros((k, k + 1))
    rho[0] = 1.0
    phi, d_phi = np.zeros(0), np.zeros((k, 0))
    for m in range(1, k + 1):
        p = partial[m - 1]
        back = rho[m - 1 : 0 : -1]
        d_back = d_rho[:, m - 1 : 0 : -1]
        ahead, d_ahead = rho[1:m], d_rho[:, 1:m]
        rest = 1.0 - phi @ ahead
        d_rest = -(d_phi @ ahead + d_ahead @ phi)
        rho[m] = p * rest + phi @ back
        d_rho[:, m] = p * d_rest + d_phi @ back + d_back @ phi
        d_rho[m - 1, m] += rest
        last = np.zeros(k)
        last[m - 1] = 1.0
        new = np.append(phi - p * phi[::-1], p)
        d_phi = np.column_stack([d_phi - p * d_phi[:, ::-1] - np.outer(last, phi[::-1]), last])
        phi = new
    return rho, d_rho


@checked_constructor
@dataclass(frozen=True)
class Unstructured(ResidualCorrelation):
    """A correlation of its own for every pair of occasions, and one variance for all of them (nlme's ``corSymm``).

    This is not the unstructured covariance of a repeated-measures analysis (``UN`` in SAS, ``us`` in R's mmrm), which
    has a variance for every occasion as well: that is `UnstructuredHeterogeneous`, or this and `VarIdent` of the same
    column.

    The parameters that move freely are canonical partial correlations, each between -1 and 1; tables show correlations.

    Parameters
    ----------
    time : str
        Column of the occasions, labels that all subjects share. A subject may miss some.
    """

    time: str = ""
    by_occasion: ClassVar[bool] = True
    stationary: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_time("Unstructured", self.time)

    @property
    def correlations(self) -> bool:
        """True."""
        return True

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """Canonical partial correlations; the default prior on them is LKJ(1), uniform over correlation matrices."""
        labels = observed.labels
        m = len(labels)
        starts = _partial_correlations(observed.correlation) if len(observed.correlation) else np.zeros((m, m))
        return tuple(
            Parameter(f"partial({labels[j]}, {labels[i]})", float(starts[i, j]), -1.0, 1.0, shape=1 + (m - 2 - j) / 2)
            for i in range(m)
            for j in range(i)
        )

    def other_starts(self, observed: Observed) -> tuple[FloatArray, ...]:
        """Autoregressive, equal and weak correlations: with missing rows there can be several maxima."""
        m = len(observed.labels)
        rho = float(np.clip(observed.neighbour * (0.5 if observed.mixed else 1.0), -0.9 / max(m - 1, 1), 0.9))
        lag = np.abs(np.subtract.outer(np.arange(m), np.arange(m)))
        below = np.tril_indices(m, -1)
        shapes = (rho**lag, np.where(lag > 0, rho, 1.0), np.where(lag > 0, 0.1 * rho, 1.0))
        return tuple(_partial_correlations(R)[below] for R in shapes)

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Rows and columns of the correlation matrix at the occasions present."""
        L = _factor(values)
        return _select(L @ L.T, t)

    def derivatives(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Exact: with ``R = L L'``, ``dR = dL L' + L dL'``."""
        L = _factor(values)
        m = len(L)
        rows, cols = np.tril_indices(m, -1)
        k = np.arange(len(values))
        P = np.zeros((m, m))
        P[rows, cols] = values
        rest = np.cumprod(np.sqrt(1.0 - P**2), axis=1)
        before = np.column_stack([np.ones(m), rest[:, :-1]])
        # L[i, j] = c Π_{m<j} √(1 - c_m²): its own c is a factor, entries to its right carry √(1 - c²).
        dL = np.where(np.arange(m) > cols[:, None], L[rows] * (-values / (1.0 - values**2))[:, None], 0.0)
        dL[k, cols] = before[rows, cols]
        half = np.zeros((len(values), m, m))
        half[k, rows] = dL @ L.T
        return _select(half + np.swapaxes(half, 1, 2), t)

    def report(self, observed: Observed, values: FloatArray) -> dict[str, float]:
        """Correlations by pair of occasions."""
        L = _factor(values)
        R, labels = L @ L.T, observed.labels
        return {f"rho({labels[j]}, {labels[i]})": float(R[i, j]) for i in range(len(labels)) for j in range(i)}

    def formula(self) -> str:
        """As in the docstring."""
        return "rho_st, one for each pair of occasions"


def _select(R: FloatArray, t: FloatArray) -> FloatArray:
    index = t.astype(np.intp)
    return R[..., index[..., :, None], index[..., None, :]]


def _factor(partial: FloatArray) -> FloatArray:
    """Cholesky factor of a correlation matrix from canonical partial correlations, row by row: (m(m-1)/2,)."""
    m = round((1 + np.sqrt(1 + 8 * len(partial))) / 2)
    P = np.zeros((m, m))
    P[np.tril_indices(m, -1)] = partial
    rest = np.cumprod(np.sqrt(1.0 - P**2), axis=1)
    before = np.column_stack([np.ones(m), rest[:, :-1]])
    return np.tril((P + np.eye(m)) * before)


def _partial_correlations(R: FloatArray) -> FloatArray:
    """Canonical partial correlations (m, m, below the diagonal) of a positive definite correlation matrix."""
    L = np.linalg.cholesky(R)
    m = len(L)
    P = np.zeros((m, m))
    for i in range(1, m):
        rest = 1.0
        for j in range(i):
            P[i, j] = L[i, j] / rest
            rest *= np.sqrt(max(1.0 - P[i, j] ** 2, 1e-12))
    return np.clip(P, -0.98, 0.98)
