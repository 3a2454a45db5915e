"""Checks of residuals: their mean and their spread along what they could depend on, normality, correlation, ranks."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.checks.material import Material
from hierlmm.checks.outcome import LeftOut, Outcome
from hierlmm.checks.places import Places, furthest, joint_band, places, spread_ratio
from hierlmm.design.questions import is_label
from hierlmm.diagnostics.curve_band import CurveBand, curve_band
from hierlmm.drawing.check_panels import CheckPanel
from hierlmm.text import p_text

CURVED, UNEQUAL, TAILS, SKEWED, SERIAL, RANKS, DISPERSED = 0.2, 1.3, 1.0, 0.5, 0.1, 0.05, 1.2
"""What matters: SDs of a mean, a ratio of SDs, excess kurtosis, skewness, correlation, shares, a ratio of variances."""
QUANTILES = 201
MOST_LAG = 10


def mean(material: Material) -> Outcome | LeftOut:
    """Whether residuals have a mean of zero along fitted values and along every numeric covariate."""
    found = material.simulated
    grid, (curve, _) = material.along_fitted
    curves = {"fitted values": (grid, curve)}
    points = {"fitted values": (found.forecast[:, 0], found.ahead[:, 0])}
    for place, _ in material.numeric:
        curves[place.name] = (place.x, place.weights @ found.ahead)
        points[place.name] = (place.values, found.ahead[:, 0])
    bands, p = joint_band(curves)
    name, size, where = furthest(bands)
    panels = _panels("mean", bands, points, "residual (SDs)", 0.0)
    slots = {"along": name, "size": f"{size:.2f}", "where": f"{where:.3g}"}
    return Outcome(slots, p, size=size, matters=size >= CURVED, panels=panels)


def spread(material: Material) -> Outcome | LeftOut:
    """Whether residuals spread alike along fitted values, covariates and levels of factors."""
    found = material.simulated
    root = material.roots
    grid, (_, curve) = material.along_fitted
    curves, points = {"fitted values": (grid, curve)}, {"fitted values": (found.forecast[:, 0], root[:, 0])}
    ticks: dict[str, tuple[str, ...]] = {}
    for place in _columns(material):
        curves[place.name] = (place.x, place.weights @ root)
        points[place.name] = (place.values, root[:, 0])
        ticks[place.name] = tuple(place.labels)
    bands, p = joint_band(curves)
    name, _, _ = furthest(bands)
    band = bands[name]
    ratio, low, high = spread_ratio(band)
    labels = ticks.get(name) or tuple(f"{v:.3g}" for v in band.x)
    slots = {"along": name, "ratio": f"{ratio:.2g}", "low": labels[low], "high": labels[high]}
    slots["remedy"] = _remedy(material, name)
    panels = _panels("spread", bands, points, "√|residual|", 1.0, ticks)
    return Outcome(slots, p, size=ratio, matters=ratio >= UNEQUAL, panels=panels)


def _remedy(material: Material, name: str) -> str:
    """What gives a model another residual variance along a variable."""
    design = material.fit.design
    if material.variant:
        return f"See first whether the mean bends along {name} (several factors have one residual variance)"
    marginal = not design.term
    if marginal and name in design.level2_variables() and is_label(design, name):
        return f"Give every {name} a residual covariance of its own (group={name!r})"
    argument = "variance" if marginal else "residual_variance"
    return f"Give the residual variance a structure ({argument}=hl.VarIdent, hl.VarPower or hl.VarExp of {name})"


def residual_normality(material: Material) -> Outcome | LeftOut:
    """Whether level-1 residuals look normal."""
    if not material.fit.design.is_gaussian:
        return LeftOut("this family's rows are not normal; their ranks are checked")
    values = material.simulated.normalised
    return _normal({"residuals": values}, "residuals")


def effect_normality(material: Material) -> Outcome | LeftOut:
    """Whether each random effect looks normal."""
    effects = material.simulated.evened
    if not effects:
        return LeftOut(no_effects(material))
    return _normal(effects, "random effects")


def serial(material: Material) -> Outcome | LeftOut:
    """Whether neighbouring residuals of a subject are alike."""
    if not material.fit.design.is_gaussian:
        return LeftOut("residuals of a row of this family share its subject's random effect")
    r, start = material.simulated.normalised, np.cumsum([0, *material.sizes])
    longest = int(material.sizes.max())
    if longest < 3:
        return LeftOut("no subject has three rows")
    curves = []
    place = np.arange(len(r)) - np.repeat(start[:-1], material.sizes)
    for lag in range(1, min(MOST_LAG, longest - 1) + 1):
        later = np.flatnonzero(place >= lag)
        if len(later) < 20:
            break
        one, two = r[later], r[later - lag]
        curves.append((one * two).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0)))
    if not curves:
        return LeftOut("there are fewer than 20 pairs of neighbours")
    stacked, lags = np.array(curves), np.arange(1.0, len(curves) + 1.0)
    band = curve_band(lags, stacked[:, 0], stacked[:, 1:], 0.95)
    gap = stacked[:, 0] - stacked[:, 1:].mean(axis=1)
    reach = np.abs(gap) / np.maximum(stacked[:, 1:].std(axis=1), 1e-12)
    worst = int(np.argmax(reach))
    size = float(abs(gap[worst]))
    slots = {
        "lag": worst + 1,
        "observed": f"{stacked[worst, 0]:z.2f}",
        "expected": f"{stacked[worst, 1:].mean():z.2f}",
        "alike": "more alike" if gap[worst] > 0 else "less alike",
    }
    points = np.vstack([lags, band.observed])
    title = f"serial: autocorrelation\n{p_text(band.p_value)}"
    limits = np.vstack([band.lower, band.upper])
    marked = np.flatnonzero(band.outside)
    panel = CheckPanel(title, "lag (rows in order)", points, points, limits, marked=marked, level=0.0)
    return Outcome(slots, band.p_value, size=size, matters=size >= SERIAL, panels=(panel,))


def ranks(material: Material) -> Outcome | LeftOut:
    """Whether rows rank evenly among rows of new subjects with the same covariates.

    Normal scores say the rank of a row: exact ones of a normal response, of another family those among simulated rows.
    """
    pit = ndtr(material.simulated.ahead)
    at = np.linspace(0.05, 0.95, 19)
    shares = np.array([np.mean(pit <= u, axis=0) - u for u in at])
    band = curve_band(at, shares[:, 0], shares[:, 1:], 0.95)
    worst = int(np.argmax(np.abs(shares[:, 0])))
    size = float(abs(shares[worst, 0]))
    slots = {"share": f"{100 * (shares[worst, 0] + at[worst]):.0f}", "expected": f"{100 * at[worst]:.0f}"}
    points = np.vstack([at, band.observed])
    title = f"ranks: share below − expected\n{p_text(band.p_value)}"
    limits = np.vstack([band.lower, band.upper])
    panel = CheckPanel(title, "rank among simulated rows", points, points, limits, level=0.0)
    return Outcome(slots, band.p_value, size=size, matters=size >= RANKS, panels=(panel,))


def dispersion(material: Material) -> Outcome | LeftOut:
    """Whether rows of a family vary within and between subjects as the family and its random effects have it."""
    if material.fit.design.is_gaussian:
        return LeftOut("the variances of a normal response are parameters of their own, and were fitted")
    score, sizes = material.simulated.ahead, material.sizes
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    mean = np.add.reduceat(score, start) / sizes[:, None]
    within = ((score - np.repeat(mean, sizes, axis=0)) ** 2).sum(axis=0) / max(len(score) - len(sizes), 1)
    parts = {"between": np.mean(mean**2, axis=0)} | ({"within": within} if sizes.max() > 1 else {})
    logs = np.log(np.array(list(parts.values())))
    band = curve_band(np.arange(float(len(logs))), logs[:, 0], logs[:, 1:], 0.95)
    ratio = np.exp(logs[:, 0] - logs[:, 1:].mean(axis=1))
    worst = int(np.argmax(np.abs(logs[:, 0] - logs[:, 1:].mean(axis=1)) / logs[:, 1:].std(axis=1)))
    name, size = list(parts)[worst], float(ratio[worst])
    slots = {"where": name, "ratio": f"{size:.2g}", "more": "more" if size > 1.0 else "less"}
    return Outcome(slots, band.p_value, size=size, matters=abs(np.log(size)) >= np.log(DISPERSED))


def _normal(values: dict[str, FloatArray], what: str) -> Outcome:
    """Quantiles of standardised numbers beside normal ones."""
    curves, points = {}, {}
    values = {name: own[np.any(own != 0.0, axis=1)] for name, own in values.items()}  # no effects of other groups
    for name, own in values.items():
        n = len(own)
        ordered = np.sort(own / np.sqrt(np.mean(own**2, axis=0)), axis=0)
        chosen = np.unique(np.linspace(0, n - 1, min(n, QUANTILES)).round().astype(int))
        expected = ndtri((np.arange(n) + 0.5) / n)
        curves[name] = (expected[chosen], ordered[chosen])
        points[name] = (expected, ordered[:, 0])
    bands, p = joint_band(curves)
    name, _, _ = furthest(bands)
    own = values[name][:, 0] - values[name][:, 0].mean()
    skew = float(np.mean(own**3) / np.mean(own**2) ** 1.5)
    tails = float(np.mean(own**4) / np.mean(own**2) ** 2 - 3.0)
    shape = (
        f"skewed to the {'right' if skew > 0 else 'left'} (skewness {skew:z.2f})"
        if abs(skew) >= SKEWED
        else f"{'heavier' if tails > 0 else 'lighter'} in the tails than normal (excess kurtosis {tails:z.2f})"
    )
    slots = {"name": name, "shape": shape, "skew": f"{skew:z.2f}", "tails": f"{tails:z.2f}"}
    panels = tuple(
        CheckPanel(
            f"normality: {part}\n{p_text(band.p_value)}",
            "normal quantile",
            np.vstack(points[part]),
            np.vstack([band.x, band.observed]),
            np.vstack([band.lower, band.upper]),
            marked=_beyond(points[part], band),
            diagonal=True,
        )
        for part, band in bands.items()
    )
    return Outcome(slots, p, size=abs(skew), matters=abs(skew) >= SKEWED or abs(tails) >= TAILS, panels=panels)


def _beyond(points: tuple[FloatArray, FloatArray], band: CurveBand) -> IntArray:
    """Points outside a band, straight between its places."""
    x, y = points
    low, high = np.interp(x, band.x, band.lower), np.interp(x, band.x, band.upper)
    return np.flatnonzero((y < low) | (y > high))


def no_effects(material: Material) -> str:
    """Why there are no random effects to look at."""
    if not material.fit.has_random_effects:
        return "the fit has no random effects"
    if not material.fit.design.is_gaussian:
        return "modes of random effects are no linear function of such a response"
    return "all variances of the random effects are estimated as zero"


def _columns(material: Material) -> list[Places]:
    """All covariates of the model."""
    design = material.fit.design
    names = dict.fromkeys([*design.level1_variables(), *design.level2_variables()])
    found = [places(material.frame[v]) for v in names if v in material.frame.columns]
    return [place for place in found if place is not None]


def _panels(
    check: str,
    bands: dict[str, CurveBand],
    points: dict[str, tuple[FloatArray, FloatArray]],
    what: str,
    level: float | None,
    ticks: dict[str, tuple[str, ...]] | None = None,
) -> tuple[CheckPanel, ...]:
    found = []
    for name, band in bands.items():
        limits = np.vstack([band.lower, band.upper])
        curve = np.vstack([band.x, band.observed])
        own = (ticks or {}).get(name, ())
        found.append(
            CheckPanel(
                f"{check}: {what}\n{p_text(band.p_value)}",
                name,
                np.vstack(points[name]),
                curve,
                limits,
                level=level,
                ticks=own,
            )
        )
    return tuple(found)
