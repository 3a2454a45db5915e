"""Effect plots: the mean along a covariate with bands, at stated values of the others, for one fit or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Literal, Unpack

from hierlmm.drawing.curves import DATA, SEE, draw_curves, refuse_with_curves
from hierlmm.drawing.effect_rows import plot_effects as draw_rows
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.effects.curves import EffectCurves, effect_curves
from hierlmm.effects.grid import plain_name, reference_grid
from hierlmm.effects.table import Effects
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.frames import shorten
from hierlmm.options import checked, choose, renamed
from hierlmm.plots.fits import pick_fits

DEFAULTS = {name: p.default for name, p in signature(effect_curves).parameters.items()}


@renamed(focal="variable", residuals="residual_level")
@checked
@pictured
def plot_effects(
    *fits: Any,
    variable: str | None = None,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    data: Literal["none", "points", "partial"] = "none",
    residual_level: Literal["subject", "population"] | None = None,
    labels: Sequence[str] | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    col_wrap: int | None = None,
    n: int = 101,
    ci: float = 0.95,
    simultaneous: bool | Literal["curve", "all"] = False,
    level: Literal["population", "marginal"] = "population",
    weights: Literal["equal", "proportional"] = "equal",
    df: str | None = None,
    se: str | None = None,
    transform: Literal["exp"] | None = None,
    seed: int = 0,
    scale: Literal["response", "link"] = "response",
    **figure: Unpack[Figure],
) -> Any:
    """Draw the mean along a covariate with its bands, at stated values of the other covariates.

    One fit: the first variable of ``by`` has the colours, the second and variables with several values in ``at`` have
    the panels. Several fits: each fit has a colour, all variables have panels, and every fit is asked at the same
    values. The dark band is pointwise; the light one, if asked for, holds for the whole curve. Curves are dashed where
    they are extrapolated. With ``backend="plotly"`` variables with several values in ``at`` get a slider each.

    Parameters
    ----------
    *fits : Fit, Comparison, mapping of fits, or EffectCurves
        What to draw; the name of the covariate may follow as the last one.
    variable : str, optional
        The covariate on the horizontal axis; by default the first numeric one of level 1.
    by : str or sequence of str, optional
        Up to two variables that tell curves apart.
    at : mapping, optional
        Variable -> the value or values at which it is held.
    data : {"none", "points", "partial"}
        Draw the measurements, or partial residuals (`EffectCurves.points`), behind the curves.
    residual_level : {"subject", "population"}, optional
        Which residuals partial residuals are made of; the subject's own where there are random effects.
    labels : sequence of str, optional
        Names of the fits; their estimators otherwise.
    xlabel, ylabel : str, optional
        Labels of the axes; the names of the covariate and of the response otherwise.
    col_wrap : int, optional
        Panels in a row.
    n, ci, simultaneous, level, weights, df, se, transform, seed, scale
        As for ``fit.effects``.

    Returns
    -------
    Picture
        Visuals ``points``, ``simultaneous``, ``band``, ``curve``, ``extrapolated`` over ``panel`` and ``line``.

    Raises
    ------
    SpecificationError
        If there are more than 7 colours or 24 panels, or the fits have different responses.

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental")
    >>> fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    >>> collection = fit.plot_effects("time", by="sex", data="partial")  # doctest: +SKIP
    """
    choose("data", data, DATA)
    if len(fits) == 1 and isinstance(fits[0], Effects):
        return draw_rows(fits[0], col_wrap=col_wrap, **figure)
    given: dict[str, Any] = {"n": n, "ci": ci, "simultaneous": simultaneous, "level": level, "weights": weights}
    given |= {"df": df, "se": se, "transform": transform, "seed": seed, "scale": scale}
    options = {name: value for name, value in given.items() if value != DEFAULTS[name]}
    return draw_curves(
        _curves(fits, labels, {"variable": variable, "by": by, "at": at}, options),
        data=data,
        residual_level=residual_level,
        xlabel=xlabel,
        ylabel=ylabel,
        col_wrap=col_wrap,
        **figure,
    )


def _curves(
    given: tuple[Any, ...], labels: Sequence[str] | None, question: dict[str, Any], options: Mapping[str, Any]
) -> dict[str, EffectCurves]:
    """Label -> curves, every fit at the values of the first."""
    if given and isinstance(given[-1], str):
        question["variable"], given = given[-1], given[:-1]
    variable = question["variable"]
    if not given:
        raise SpecificationError(
            "plot_effects() without a fit" if variable is None else f"plot_effects({variable!r}) without a fit",
            "there is nothing to draw the curves of",
            f"pass the fit first: plot_effects(fit, {variable or 'time'!r}), "
            f"or fit.plot_effects({variable or 'time'!r})",
            SEE,
        )
    ready = [g for g in given if isinstance(g, EffectCurves)]
    if ready:
        if len(ready) < len(given) or options or any(v is not None for v in question.values()):
            raise refuse_with_curves()
        curves = dict(zip(pick_fits([c.fit for c in ready], labels), ready, strict=True))
    else:
        one = len(given) == 1 and isinstance(given[0], (SideBySide, Mapping, Sequence))
        fits = pick_fits(given[0] if one else list(given), labels)
        curves = _same_question(fits, options, **question)
    first = next(iter(curves.values()))
    for label, own in curves.items():
        if (own.ylabel, own.variable, own.by, own.panels) != (first.ylabel, first.variable, first.by, first.panels):
            raise SpecificationError(
                f"curves of {first.ylabel!r} along {first.variable!r} and, for {label!r}, of {own.ylabel!r} along "
                f"{own.variable!r}",
                "one picture has one response, one covariate on the axis, and one set of variables for its curves",
                "draw them apart",
                SEE,
            )
    _one_meaning(curves)
    return curves


def _one_meaning(curves: Mapping[str, EffectCurves]) -> None:
    """Refuse curves of the subject in the middle beside such of the mean over subjects, where these differ."""
    own = {label: c.fit.has_random_effects and c.level == "population" for label, c in curves.items()}
    if next(iter(curves.values())).fit.design.family.link == "identity" or len(set(own.values())) == 1:
        return
    middle, mean = (shorten([label for label, m in own.items() if m is which]) for which in (True, False))
    received = f"curves of a subject in the middle, b = 0 ({middle}), and of the mean over subjects ({mean})"
    reason = "on a curved scale these are different curves, and one picture has one meaning"
    raise SpecificationError(received, reason, "use level='marginal', the mean over subjects by all fits", SEE)


def _same_question(
    fits: dict[str, Fit], options: Mapping[str, Any], variable: str | None, by: Any, at: Mapping[str, Any] | None
) -> dict[str, EffectCurves]:
    responses = list(dict.fromkeys(fit.design.hierarchy.response for fit in fits.values()))
    if len(responses) > 1:
        received = f"fits of {' and '.join(map(repr, responses))}"
        raise SpecificationError(received, "one picture has one response on its vertical axis", "draw them apart", SEE)
    wanted = {plain_name(v): x for v, x in (at or {}).items()}
    known = {label: set(reference_grid(fit.design).points) for label, fit in fits.items()}
    anywhere = set().union(*known.values())
    curves: dict[str, EffectCurves] = {}
    for label, fit in fits.items():
        # What no fit knows stays in, to be refused with the names of what there is.
        own = {v: x for v, x in wanted.items() if v in known[label] or v not in anywhere}
        made = effect_curves(fit, variable, by, own, **options)
        curves[label] = made
        variable, by = made.variable, made.by
        fixed = {v: x for v, x in made.grid.points.items() if v not in made.averaged}
        wanted |= {v: list(x) for v, x in fixed.items() if v not in wanted or v == variable}
    return curves
