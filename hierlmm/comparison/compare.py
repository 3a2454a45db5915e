"""Fits of one model side by side: one tidy table, differences in units of standard error, and the plots.

With the reference estimator's estimate ``θ̂₀`` and standard error ``s₀``, the difference of an estimator is
``(θ̂ − θ̂₀) / s₀``. It is not a test (all fits saw the same data); it says whether the choice of estimator matters
against the uncertainty that any of them reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

from hierlmm import plots
from hierlmm.comparison.tables import comparison_html, comparison_latex, comparison_page, comparison_rich
from hierlmm.drawing.figure import as_verb
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide, known_label, label_fits, measure, same_question
from hierlmm.implied.meanings import notes_on_meanings, stacked
from hierlmm.options import checked
from hierlmm.results import Page

SEE = "docs, page 'Comparing estimators'"
GEE_OPTIONS = ("correlation", "time", "scale", "ar_pairs", "se", "max_iterations", "shape")


def _led_by(comparison: Comparison, estimator: str | None) -> Comparison:
    """The same with another reference, which is the fit that a picture of one fit shows."""
    label = comparison.reference if estimator is None else known_label("estimator", estimator, comparison.labels)
    return replace(comparison, reference=label)


ONE = "estimator : str, optional\n    Label of the fit to draw; the reference by default."


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Comparison(SideBySide):
    """Several fits of the same two-level model, side by side (made by `compare`).

    Attributes
    ----------
    fits : mapping of str to Fit
        The fits by label, in the order given.
    table : pandas.DataFrame
        One row per parameter and estimator: ``parameter``, ``kind`` ("fixed", "marginal", "sd", "corr", "sigma",
        "residual", "other"), ``estimator``, ``estimate``, ``se``, ``lower``, ``upper``, ``difference`` (from the
        reference estimator, in units of its standard error; of the estimator's own where the reference has none) and
        ``flag`` (whether it is large). A copy.
    reference : str
        Label of the reference estimator.
    ci : float
        Probability of the intervals.
    flag_above : float
        Differences larger than this, in absolute value, are flagged.
    notes : tuple of str
        What could not be compared, and why.
    """

    def _page(self) -> Page:
        return comparison_page(self)

    def __rich__(self) -> Any:
        return comparison_rich(self)

    def print_rich(self) -> None:
        """Print the table through rich, with colour where the terminal has it."""
        from rich.console import Console

        Console().print(self)

    def _repr_html_(self) -> str:
        return comparison_html(self)

    def to_html(self) -> str:
        """HTML without any network address: through great-tables if it is installed, else plain."""
        return self._repr_html_()

    def to_gt(
        self,
        *,
        rename: Mapping[str, str] | None = None,
        digits: int | Mapping[str, int] | None = None,
        parameters: str | Sequence[str] | None = None,
        p_values: bool = False,
        title: str | None = None,
    ) -> Any:
        """Return the table for print as a ``great_tables.GT``, which can be styled further and saved.

        The coefficients of a factor stand below its name, with a row for its reference level.

        Parameters
        ----------
        rename : mapping of str to str, optional
            Names for print, of parameters (``"sex[T.Male]"``), variables (``"time"``, wherever it occurs), levels, fits
            and headings.
        digits : int or mapping of str to int, optional
            Decimals, of all parameters or by name; by default as many as show three digits of the standard error.
        parameters : str or sequence of str, optional
            Names of parameters, or of their kinds ("fixed", "sd", "corr", "sigma", "residual", "fit"); all by default.
        p_values : bool
            Add p values of the fixed effects: t tests with Satterthwaite's degrees of freedom of a likelihood fit,
            normal ones of GEE; a posterior has none. The intervals of the table use normal quantiles.
        title : str, optional
            A second line is smaller.

        Raises
        ------
        MissingPackageError
            If great-tables is not installed.
        SpecificationError
            If a name is not in the table.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", hl.load_dataset("dental"))
        >>> both = hl.compare(model.fit_reml(), model.fit_ml())
        >>> table = both.to_gt(rename={"time": "Years"}, digits=2, parameters="fixed", title="Growth")
        """
        from hierlmm.comparison.print_table import comparison_print

        return comparison_print(self, rename or {}, digits, parameters, p_values, title).gt()

    def to_markdown(
        self,
        *,
        rename: Mapping[str, str] | None = None,
        digits: int | Mapping[str, int] | None = None,
        parameters: str | Sequence[str] | None = None,
        p_values: bool = False,
        title: str | None = None,
    ) -> str:
        """Return the table for print as a pipe table of Markdown, with its title and notes.

        Parameters
        ----------
        rename, digits, parameters, p_values, title
            As in `to_gt`.
        """
        from hierlmm.comparison.paper import as_markdown
        from hierlmm.comparison.print_table import comparison_print

        return as_markdown(comparison_print(self, rename or {}, digits, parameters, p_values, title))

    def to_docx(
        self,
        path: Any,
        *,
        rename: Mapping[str, str] | None = None,
        digits: int | Mapping[str, int] | None = None,
        parameters: str | Sequence[str] | None = None,
        p_values: bool = False,
        title: str | None = None,
    ) -> Path:
        """Write the table for print to a Word document, from which it can be copied into a paper.

        Parameters
        ----------
        path : str or path-like
            Name of the file, ending in ``.docx``; a file of this name is replaced.
        rename, digits, parameters, p_values, title
            As in `to_gt`.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        MissingPackageError
            If python-docx is not installed.
        SpecificationError
            If the name does not end in ``.docx``, or a name is not in the table.
        """
        from hierlmm.comparison.paper import write_docx
        from hierlmm.comparison.print_table import comparison_print

        return write_docx(comparison_print(self, rename or {}, digits, parameters, p_values, title), path)

    def to_latex(self, caption: str | None = None) -> str:
        """LaTeX ``tabular`` (packages booktabs), in a ``table`` if a caption is given.

        Parameters
        ----------
        caption : str, optional
            Of the table; without it there is no ``table`` around the ``tabular``.
        """
        return comparison_latex(self, caption)

    def report(self, path: Any, *, title: str | None = None, source: str | None = None, simulations: int = 499) -> Path:
        """Write everything about the fits on one page, a file for any browser that needs no network.

        Data, equations, estimates side by side, words, pictures, checks, priors, versions, and the code that makes the
        fits again. What is about one fit is about the reference.

        Parameters
        ----------
        path : str or path-like
            Name of the file, ending in ``.html``; a file of this name is replaced.
        title : str, optional
            Of the page; response, subjects and estimators by default.
        source : str, optional
            Python code that reads the table, for the code on the page: ``"pd.read_csv('growth.csv')"``.
        simulations : int
            Data sets simulated under the fit for the checks, as in ``fit.check()``.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        SpecificationError
            If the name does not end in ``.html``, or its folder is not there.
        """
        from hierlmm.pages.report import write_report

        return write_report(self, path, title=title, source=source, simulations=simulations)

    plot_conditional_vs_marginal = as_verb(plots.plot_conditional_vs_marginal, "variable", "by")
    plot_forest = as_verb(plots.plot_forest)
    plot_effects = as_verb(plots.plot_effects, "variable", "by", "at")
    plot_random_effects = as_verb(plots.plot_random_effects)
    plot_posterior = as_verb(plots.plot_posterior)
    plot_trajectories = as_verb(plots.plot_trajectories, chosen=_led_by, choice=ONE)
    plot_shrinkage = as_verb(plots.plot_shrinkage, chosen=_led_by, choice=ONE)


def estimator_names(estimators: Sequence[str], known: tuple[str, ...]) -> list[str]:
    """Estimators by name, NUTS and REML if none is named.

    Raises
    ------
    SpecificationError
        If one is unknown.
    """
    names = [str(e).lower() for e in estimators] or ["nuts", "reml"]
    for name in names:
        if name not in known:
            received, reason = f"estimator {name!r}", f"this version does not know it.{closest(name, known)}"
            raise SpecificationError(received, reason, f"use {', '.join(map(repr, known))}", "docs, page 'Limitations'")
    return names


def check_options(names: Sequence[str], options: Mapping[str, Any], fit: Callable[..., Any]) -> None:
    """Refuse options of `model.compare` that none of the estimators named would look at.

    Parameters
    ----------
    names : sequence of str
        Estimators to fit by.
    options : mapping
        What was given beside them.
    fit : callable
        The model's ``fit``, whose arguments are the options of the samplers.

    Raises
    ------
    SpecificationError
    """
    known = [name for name in signature(fit).parameters if name not in ("self", "seed", "progressbar")]
    gee = [name for name in options if name in GEE_OPTIONS]
    if gee:
        received = f"compare with {', '.join(f'{name}={options[name]!r}' for name in gee)}"
        reason = "options here are those of the sampler; GEE is fitted with its defaults"
        remedy = f"fit on its own and compare the fits: hl.compare(model.fit_reml(), model.fit_gee({gee[0]}=...))"
        raise SpecificationError(received, reason, remedy, SEE)
    for name in options:
        if name not in known:
            reason = f"there is no such option.{closest(name, [*known, 'seed', 'progressbar', 'ci'])}"
            remedy = f"use options of model.fit: {', '.join(known)}; or fit one by one and call hl.compare(fit, other)"
            raise SpecificationError(f"compare with {name}={options[name]!r}", reason, remedy, SEE)
    if options and not {"nuts", "bambi"} & set(names):
        received = f"compare({', '.join(map(repr, names))}) with {', '.join(f'{k}={v!r}' for k, v in options.items())}"
        reason = "these options are of a sampler, and none of these estimators samples"
        raise SpecificationError(received, reason, "leave them out, or add 'nuts'", SEE)


@checked
def compare(
    *fits: Fit,
    labels: Sequence[str] | None = None,
    reference: str | None = None,
    ci: float = 0.95,
    flag_above: float = 0.5,
    notes: Sequence[str] = (),
) -> Comparison:
    """Put fits of the same model side by side.

    Parameters
    ----------
    *fits : Fit
        Fits of one model to the same rows, by whatever estimator. A marginal model or GEE may stand beside a hierarchy
        with the same fixed effects: covariance parameters have rows where they exist, and the notes say what differs.
        With another link than the identity, coefficients given the random effects and those of the mean over subjects
        are different numbers: the second are rows of kind "marginal", named ``time (marginal)``.
    labels : sequence of str, optional
        Names of the fits; by default their estimators, numbered where two are alike.
    reference : str, optional
        Label of the fit that the others are measured against; by default the first.
    ci : float
        Probability of the intervals (equal-tailed for a posterior, Wald for a likelihood fit).
    flag_above : float
        Flag differences from the reference beyond this many of its standard errors. The default of half a standard
        error is about where a reader's conclusion could change.
    notes : sequence of str
        Remarks to carry along, for example why an estimator is absent.

    Returns
    -------
    Comparison

    Raises
    ------
    SpecificationError
        If the fits have different fixed effects, random effects, responses or links.
    DataError
        If they were made from different rows (their order may differ), whether in the response, the offset, a
        covariate, or in which subject a row belongs to.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula(
    ...     "distance ~ sex * time + (1 + time | subject)", hl.load_dataset("dental")
    ... )
    >>> both = hl.compare(model.fit_reml(), model.fit_ml())
    >>> both.wide().loc["sigma", ("ML", "estimate")].round(4)
    np.float64(1.31)
    """
    named = label_fits(fits, labels)
    base = next(iter(named)) if reference is None else known_label("reference", reference, list(named))
    extra = same_question(named, base)
    table = measure(stacked(named, ci, base), base, flag_above)
    return Comparison(named, table, base, ci, flag_above, (*notes, *notes_on_meanings(named), *extra))
