"""What a structure of the residual correlation is, and what it may say of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.declared import difference, keep_together, refuse_fields, specification_error
from hierlmm.covariance.parameters import Parameter, natural_values
from hierlmm.errors import NotAvailableError

MOST_OCCASIONS = 60


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


class Writer(Protocol):
    """Writes the correlation of rows j and k of a subject, in text, LaTeX and HTML at once.

    Its pieces add up like strings, and with strings.
    """

    def parameter(self, name: str) -> Any:
        """A parameter by its name in tables: its letter, or its estimate."""

    def base(self, name: str) -> Any:
        """The same as the base of a power: a negative estimate stands in parentheses."""

    def lag(self) -> Any:
        """The distance of the two rows, ``|j - k|`` or ``|time_ij - time_ik|``."""

    def position(self, row: str) -> Any:
        """The position of row ``"j"`` or ``"k"``."""

    def letter(self, letter: str) -> Any:
        """A letter as it is."""

    def raised(self, base: Any, exponent: Any) -> Any:
        """A power."""

    def exponential(self, exponent: Any) -> Any:
        """``exp(-exponent)``."""

    def measured(self, body: Any) -> Any:
        """``(1 - nugget)`` times the body."""


class ResidualCorrelation(ABC):
    """Correlation of the level-1 residuals of one subject.

    To add a structure, write a frozen dataclass with `parameters` and `matrix`. It is fitted, sampled, printed and has
    default priors; all else is optional. What a class says of its matrix (`formula`, `symbols`, `words`, `notes`,
    `report`, `working`, ...) and how else it writes it (`markov`, `derivatives`, `kernel`) is not inherited by a class
    that replaces the matrix.

    Attributes
    ----------
    time : str or None
        Column of the positions; None takes the order of the rows.
    nugget : bool or None
        Whether a share of the residual variance is measurement error; None in a class that knows of no nugget.
    integer : bool
        Whether positions are whole numbers (a lag counts occasions).
    by_occasion : bool
        Whether positions are labels, the same for every subject.
    stationary : bool
        Whether only differences of positions matter.
    correlations : bool
        Whether what `report` shows are correlations rather than the parameters (intervals by Fisher's z).
    kernel : str
        Name of the compiled function that evaluates this matrix for NUTS; empty takes the Python route.
    explicit : bool
        Whether `explicit_form` exists.
    free : bool
        Whether all correlations that depend on pairs of occasions alone (stationary: on lags alone) are its own.
    independent_at : float or None
        Value of its first parameter, at the end of its range or inside, at which rows are independent.
    """

    time: str | None
    nugget: bool | None = None
    integer: ClassVar[bool] = False
    by_occasion: ClassVar[bool] = False
    stationary: ClassVar[bool] = True
    correlations: ClassVar[bool] = False
    kernel: ClassVar[str] = ""
    explicit: ClassVar[bool] = False
    free: ClassVar[bool] = False
    independent_at: ClassVar[float | None] = None
    _off_diagonal: ClassVar[bool] = False
    """Whether `symbols` are the correlation of two different rows only."""
    _working_hint: ClassVar[str] = ""
    """What GEE's refusal adds where `working` is None."""
    _pairs_words: ClassVar[str] = "for every pair of occasions"
    """Of a structure `by_occasion`: what has a correlation of its own."""
    _in_order: ClassVar[bool] = False
    """Of a structure `by_occasion`: whether the order of the occasions matters."""
    _definitions: ClassVar[tuple[str, ...]] = ("matrix",)
    """Methods that say what the matrix is; what is said of them goes with them."""
    _bounds: ClassVar[tuple[tuple[float, float], ...] | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_fields(cls, "kernel", "explicit")
        told = ("formula", "symbols", "_off_diagonal", "words", "_variance_words", "notes", "working", "_table")
        nested = ("free", "independent_at", "contains")
        written = ("report", "correlations", "markov", "derivatives")
        keep_together(cls, ResidualCorrelation, cls._definitions, told + written + nested)
        compiled = (*cls._definitions, "markov", "parameters")
        keep_together(cls, ResidualCorrelation, compiled, ("kernel", "explicit"))

    @property
    def has_nugget(self) -> bool:
        """Whether a share of the residual variance is measurement error."""
        return bool(self.nugget)

    @property
    def ties(self) -> bool:
        """Whether two rows of a subject may have the same position: replicates need a nugget."""
        return self.has_nugget

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
            step = self._step(j, float(value))
            # At the very end of the range the derivative by η is zero.
            zero = np.zeros((*t.shape, t.shape[-1]))
            found.append(difference(lambda shifted: self.matrix(t, shifted), values, j, step) if step else zero)
        return np.array(found)

    def contains(self, other: ResidualCorrelation) -> bool:
        """Whether every matrix of another structure is one of this, by its definition, at whatever positions.

        By default: a structure of this class with the same arguments, perhaps without the nugget. What a `free`
        structure contains besides is found from the positions.

        Parameters
        ----------
        other : ResidualCorrelation
            The structure that may be a special case.
        """
        if type(other) is not type(self) or (other.has_nugget and not self.has_nugget):
            return False
        return all(v == vars(other).get(k) for k, v in vars(self).items() if k not in ("start", "nugget", "_bounds"))

    def _step(self, j: int, value: float) -> float:
        """Step of the differences by parameter j."""
        if self._bounds is None or np.isinf(self._bounds[j][0]):
            step = 1e-3 * min(max(abs(value), 1e-3), 1.0)
            return min(step, 0.25 * abs(value)) if value else step  # a parameter may have to be positive
        lower, upper = self._bounds[j]
        room = max(min(value - lower, upper - value), 0.0)
        return 1e-3 * (room if np.isfinite(upper) else min(room, max(abs(value), 1.0)))

    def within(self, parameters: tuple[Parameter, ...]) -> Self:
        """Tell the bounds to a copy of this structure: its `derivatives` asks for no matrix outside of them.

        Parameters
        ----------
        parameters : tuple of Parameter
            What `parameters` gave for the data.
        """
        own = copy(self)
        object.__setattr__(own, "_bounds", tuple((p.lower, p.upper) for p in parameters))
        return own

    def _largest(self, t: FloatArray, start: NDArray[np.int64]) -> int:
        """Size of the largest matrix, ``Observed.largest``; by default most rows of any subject.

        Parameters
        ----------
        t : (N,)
            Positions, sorted within each subject.
        start : (J + 1,)
            Rows of subject j are ``start[j]:start[j+1]``.
        """
        return int(np.diff(start).max())

    def other_starts(self, observed: Observed) -> tuple[FloatArray, ...]:
        """More parameter values (k,) to begin at, for a structure whose likelihood can have several maxima.

        Parameters
        ----------
        observed : Observed
            As for `parameters`.
        """
        return ()

    def _own_pairs(self, m: int) -> tuple[IntArray, IntArray]:
        """Pairs of m occasions that have a correlation of their own, as rows and columns; by default all.

        Parameters
        ----------
        m : int
            Number of occasions.
        """
        return np.tril_indices(m, -1)

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

    def explicit_form(self, gaps: FloatArray, values: Sequence[Any], xp: Any) -> tuple[Any, Any]:
        """Share and decays of the O(n) form, written with the functions of an array module.

        A share of None is one; decays of None are equal correlations.

        Parameters
        ----------
        gaps : (N,)
            Distance of each row to the row before.
        values : sequence, length k
            Parameters, in the order of `parameters`.
        xp : module
            numpy, or what has its functions.
        """
        reason = "it says that it has an explicit form, and writes none"
        remedy = "write explicit_form (or explicit_decay), or leave out explicit = True"
        raise NotAvailableError(f"{self} in PyMC", reason, remedy, "docs, page 'Residual structures'")

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

    def _table(self, values: Sequence[float], labels: Sequence[str]) -> tuple[list[str], FloatArray] | None:
        """Labels and matrix of what `report` shows, where these are all correlations of the structure.

        Parameters
        ----------
        values : sequence of float
            What `report` shows.
        labels : sequence of str
            Names of the occasions; empty unless the structure is `by_occasion`.
        """
        return None

    def formula(self) -> str:
        """Entry of the matrix as text, for print and ``equations()``."""
        return f"{type(self).__name__}"

    def symbols(self, write: Writer) -> Any:
        """The correlation of rows j and k in symbols, for ``equations()``; None where it has no short form.

        Parameters
        ----------
        write : Writer
            Writes parameters, positions and powers.
        """
        return None

    def words(self) -> str:
        """What two rows of a subject are, for a sentence."""
        by = "the order of the rows" if self.time is None else self.time
        return f"correlated ({type(self).__name__}, by {by})"

    def _variance_words(self) -> str:
        """What must be known of its one variance; empty as a rule."""
        return ""

    def notes(self, gaps: FloatArray) -> list[str]:
        """What must be known of the estimates at these distances.

        Parameters
        ----------
        gaps : (N,)
            Distance of each row to the row before, 0 on the first.
        """
        return []

    def working(self) -> tuple[str, str | None] | None:
        """GEE's working correlation that is this one's counterpart, and its column of times."""
        return None


def lags(t: FloatArray) -> FloatArray:
    """Distances of positions: (..., n) -> (..., n, n)."""
    return np.abs(t[..., :, None] - t[..., None, :])


def select_occasions(R: FloatArray, t: FloatArray) -> FloatArray:
    """Rows and columns of matrices (..., m, m) at the occasions with codes t: (..., n) -> (..., n, n)."""
    index = t.astype(np.intp)
    return R[..., index[..., :, None], index[..., None, :]]


def check_time(name: str, time: str | None) -> None:
    """Refuse what is no name of a column."""
    if not isinstance(time, str) or not time:
        received = f"{name}({'' if isinstance(time, str) else repr(time)})"
        remedy = f"write {name}('time'); for the order of the rows use AR1() or Toeplitz()"
        raise specification_error(received, "its first argument is the name of the column that holds the times", remedy)


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
            raise specification_error(
                f"{type(spec).__name__}, whose `matrix`{f' at {at}' if at else ''} {wrong[0]}",
                "R_i is the correlation matrix of a subject's rows: symmetric, 1 on the diagonal, positive definite",
                wrong[1],
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
