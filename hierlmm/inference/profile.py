"""Profile likelihood of every parameter of a fit: ζ over its values, the intervals that follow, and the density.

    ζ(v) = sign(v - v̂) √(rise of −2 log-likelihood when the parameter is held at v and all others are fitted again)

Fixed effects are held at values on a grid (`likelihood.profile_beta`); of covariance parameters the likelihood region
of every height ζ² has two ends (`likelihood.profile`). ζ is close to standard normal at the true value, so that
``φ(ζ(v)) ζ'(v)`` is the density of a confidence distribution: what a histogram of a bootstrap would show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.stats import chi2, norm

from hierlmm.arrays import FloatArray
from hierlmm.diagnostics.replicate import refuse_unknown
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.covariance_table import CovarianceProfiles, quantile
from hierlmm.fits.likelihood import LikelihoodEstimates
from hierlmm.fits.profile_table import FixedProfiles
from hierlmm.inference.refits import SEE, require_gaussian
from hierlmm.notice import counted, interactive
from hierlmm.options import checked, choose
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import sayer, table_text

SAY = sayer(__file__)
MOST = 3.0
"""Largest |ζ| of the curves: 99.7 %."""
POINTS, LEVELS = 12, 10
"""Points of a curve on each side: of fixed effects, of covariance parameters."""
HALVINGS, NEAR_END = 9, 0.4
AT_END = 1e-7


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Profile(Result):
    """Profile likelihoods of the parameters of a fit.

    Attributes
    ----------
    fit : fit
        What was profiled.
    curves : pandas.DataFrame
        ``parameter``, ``value``, ``zeta``: by parameter, in the order of the values.
    """

    fit: Any
    curves: pd.DataFrame

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters that were profiled."""
        return [str(name) for name in self.curves["parameter"].unique()]

    def table(self, ci: float = 0.95) -> pd.DataFrame:
        """Estimate, lower and upper of every parameter that was profiled.

        Parameters
        ----------
        ci : float
            Probability of the intervals.

        Notes
        -----
        The limits are sought, not read off the curves: those of ``fit.summary(method="profile")`` and
        ``fit.variance_components(method="profile")``.
        """
        z, drop = quantile(ci), float(chi2.ppf(ci, 1))
        fixed, covariance = self._profiles
        rows = {}
        for name in self.parameters:
            k = self._place(name)
            ends = fixed.ends(k, z) if k < len(self._coef) else covariance.ends(k - len(self._coef), drop)
            rows[name] = (self._estimates[name], *ends)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "lower", "upper"])

    @property
    def frame(self) -> pd.DataFrame:
        """The table of 95 % intervals."""
        return self.table()

    @cached_property
    def _profiles(self) -> tuple[FixedProfiles, CovarianceProfiles]:
        return FixedProfiles(self.fit), CovarianceProfiles(self.fit)

    @property
    def _coef(self) -> tuple[str, ...]:
        return tuple(self.fit.design.coef)

    def _place(self, name: str) -> int:
        return [*self._coef, *self._profiles[1].found.labels].index(name)

    @property
    def _estimates(self) -> dict[str, float]:
        covariance = self._profiles[1]
        own = dict(zip(covariance.found.labels, covariance.estimate, strict=True))
        return {**{str(name): float(v) for name, v in self.fit.beta.items()}, **own}

    def curve(self, parameter: str) -> tuple[FloatArray, FloatArray]:
        """Values of a parameter and ζ there.

        Parameters
        ----------
        parameter : str
            A name in ``parameters``.
        """
        refuse_unknown(
            f"parameter={parameter!r}", parameter, self.parameters, "it was not profiled.", "use one of {}", SEE
        )
        own = self.curves[self.curves["parameter"] == parameter]
        return own["value"].to_numpy(), own["zeta"].to_numpy()

    def density(self, parameter: str, n: int = 201) -> tuple[FloatArray, FloatArray]:
        """Values of a parameter and the density ``φ(ζ) ζ'`` there.

        Parameters
        ----------
        parameter : str
            A name in ``parameters``.
        n : int
            Number of values.
        """
        values, zeta = self.curve(parameter)
        smooth: Any = CubicSpline(values, zeta)
        x = np.linspace(values[0], values[-1], n)
        if np.any(smooth(x, 1) < 0.0):
            smooth = PchipInterpolator(values, zeta)
        return x, norm.pdf(smooth(x)) * np.maximum(smooth(x, 1), 0.0)

    def _page(self) -> Page:
        table = self.table()
        shown = Table(table, table_text(table, 5).splitlines(), "Profile intervals", index=True)
        parts: list[Any] = ["", shown, "", Paragraph(SAY("profile.how"))]
        if self.fit.reml:
            parts.append(Paragraph(SAY("profile.reml")))
        held = [name for name, row in table.iterrows() if str(name).startswith("sd(") and row["lower"] == 0.0]
        if held:
            parts.append(Paragraph(SAY("profile.zero", names=", ".join(map(str, held)))))
        return Page(f"Profile likelihood ({self.fit.estimator} fit), 95 % intervals", parts)

    @pictured
    def plot(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        kind: Literal["zeta", "density"] = "zeta",
        ci: float = 0.95,
        **figure: Unpack[Figure],
    ) -> Any:
        """Draw ζ over the values of each parameter, or the density that follows from it.

        A straight ζ is a likelihood of normal shape, on which Wald's interval is right; a bent one, an interval that
        is longer on one side.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Which; all of them by default.
        kind : {"zeta", "density"}
            ζ with Wald's line and the interval, or the density.
        ci : float
            Probability of the interval that is marked.

        Returns
        -------
        Picture
        """
        from hierlmm.drawing.profile import plot_profile

        choose("kind", kind, ("zeta", "density"))
        return plot_profile(self, names_of(parameters, self.parameters), kind, ci, figure)


def names_of(asked: str | Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The parameters that were asked for, all by default.

    Raises
    ------
    SpecificationError
        If one is not known.
    """
    names = list(known) if asked is None else [asked] if isinstance(asked, str) else list(asked)
    if not names:
        remedy = f"leave parameters out, or use one of {', '.join(known)}"
        raise SpecificationError("parameters=[]", "nothing would be profiled", remedy, SEE)
    for name in names:
        if name not in known:
            reason = f"there is no such parameter.{closest(name, known)}"
            raise SpecificationError(f"parameters={name!r}", reason, f"use one of {', '.join(known)}", SEE)
    return names


def profile_fit(
    fit: LikelihoodEstimates, parameters: str | Sequence[str] | None = None, *, progressbar: bool = True
) -> Profile:
    """Profile the likelihood of a fit; see `hierlmm.LikelihoodFit.profile`."""
    require_gaussian(fit, "a profile likelihood")
    covariance = CovarianceProfiles(fit)
    coef, labels = [str(name) for name in fit.design.coef], covariance.found.labels
    names = names_of(parameters, [*coef, *labels])
    fixed = FixedProfiles(fit)
    parts = []
    with counted(len(names), "Profile likelihood", progressbar and interactive()) as advance:
        for name in names:
            if name in coef:
                values, zeta = fixed.curve(coef.index(name), MOST, POINTS)
            else:
                values, zeta = _covariance_curve(covariance, labels.index(name))
            parts.append(pd.DataFrame({"parameter": name, "value": values, "zeta": zeta}))
            advance()
    found = Profile(fit, pd.concat(parts, ignore_index=True))
    vars(found)["_profiles"] = (fixed, covariance)  # what the table of intervals would make once more
    return found


def _covariance_curve(profiles: CovarianceProfiles, k: int) -> tuple[FloatArray, FloatArray]:
    """Ends of the likelihood regions of several heights; a side stops at the end of the parameter's range."""
    found, levels = profiles.found, np.linspace(0.0, MOST, LEVELS + 1)[1:]
    range_ends = (found.lower[k], found.upper[k])
    points: list[tuple[float, float]] = [(float(profiles.estimate[k]), 0.0)]
    ends = [profiles.ends(k, z * z) for z in levels]
    for side, sign in ((0, -1.0), (1, 1.0)):
        if abs(points[0][0] - range_ends[side]) < AT_END * max(1.0, points[0][0]):
            points[0] = (float(range_ends[side]), 0.0)
            continue
        inside = 0.0
        for z, both in zip(levels, ends, strict=True):
            value = both[side]
            if not np.isfinite(value):
                break
            if abs(value - range_ends[side]) < AT_END * max(1.0, abs(value)):
                points += [(v, sign * height) for v, height in _up_to_the_end(profiles, k, side, inside, float(z))]
                break
            points.append((value, sign * float(z)))
            inside = float(z)
    values, zeta = np.array(sorted(points)).T
    apart = np.concatenate([[True], np.diff(values) > 1e-12 * np.abs(values).max()])
    return values[apart], zeta[apart]


def _up_to_the_end(
    profiles: CovarianceProfiles, k: int, side: int, inside: float, beyond: float
) -> list[tuple[float, float]]:
    """Values and abs(ζ) up to the end of a parameter's range, from a height at which the region is inside of it on."""
    at, points = (profiles.found.lower[k], profiles.found.upper[k])[side], []
    for _ in range(HALVINGS):
        middle = 0.5 * (inside + beyond)
        value = profiles.ends(k, middle * middle)[side]
        if abs(value - at) < AT_END * max(1.0, abs(value)):
            beyond = middle
        else:
            inside = middle
            points.append((value, middle))
    # Heights are known to the last halving: points that are hardly apart would have a slope of rounding.
    apart = [point for point in points if abs(point[0] - at) > NEAR_END * abs(points[0][0] - at)]
    return [*apart, (float(at), 0.5 * (inside + beyond))]
