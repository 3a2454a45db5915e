"""The main job: fit one model by several estimators, print the answers side by side, write them to a folder."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierlmm.errors import MissingPackageError, NotAvailableError, SpecificationError, closest
from hierlmm.fit.estimators import fit_by, not_shown
from hierlmm.fit.registry import ESTIMATORS, Estimator
from hierlmm.report.progress import Progress, duration
from hierlmm.report.write import OURS, fit_text, model_text, write_plots, write_tables

if TYPE_CHECKING:
    from hierlmm.bound import BoundModel
    from hierlmm.comparison.compare import Comparison
    from hierlmm.fits.base import Fit


def parse_methods(text: str) -> list[str]:
    """Split ``"nuts,reml"`` into known estimators, each once.

    Raises
    ------
    SpecificationError
        If one is unknown, naming the nearest, or if there is none.
    """
    names = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    see = "hierlmm fit --help"
    if not names:
        raise SpecificationError(f"--estimators {text!r}", "it names no estimator", "use --estimators nuts,reml", see)
    for name in names:
        if name not in ESTIMATORS:
            reason = f"there is no estimator of this name.{closest(name, ESTIMATORS)}"
            remedy = f"choose from {', '.join(ESTIMATORS)}; several are separated by commas"
            raise SpecificationError(f"--estimators {name}", reason, remedy, see)
    return names


def run(
    model: BoundModel,
    methods: Sequence[str],
    *,
    sampling: Mapping[str, Any],
    n_quadrature: int = 1,
    ci: float,
    folder: Path | None,
    plots: bool,
    progress: Progress,
    page: Path | None = None,
    source: str | None = None,
) -> list[str]:
    """Print the model, fit it, print and write the results.

    Parameters
    ----------
    model : BoundModel
    methods : sequence of str
        Names of `ESTIMATORS`; the first is what the others are compared with.
    sampling : mapping
        Options of the samplers: ``draws``, ``tune``, ``chains``, ``seed``, ``target_accept``.
    n_quadrature : int
        Points of quadrature of a generalised model by ML.
    ci : float
        Probability of the intervals.
    folder : Path or None
        Where to write; None writes nothing.
    plots : bool
        Draw the plots as well.
    progress : Progress
    page : Path, optional
        Where to write a report.
    source : str, optional
        Python code that reads the table, for the report.

    Returns
    -------
    list of str
        Labels of the fits that did not converge.
    """
    from hierlmm.comparison.compare import compare

    say(model_text(model))
    fits: dict[str, Fit] = {}
    notes: list[str] = []
    # Those that sample come last: a problem with the data shows before.
    for method in sorted(methods, key=lambda name: ESTIMATORS[name].samples):
        options = sampling if ESTIMATORS[method].samples else {"n_quadrature": n_quadrature} if method == "ml" else {}
        fit = _fit(model, ESTIMATORS[method], options, progress, notes)
        if fit is not None:
            fits[method] = fit
            say(f"\n{heading(ESTIMATORS[method].label)}\n{fit_text(fit, ci)}")
    if not fits:
        raise NotAvailableError(f"--estimators {','.join(methods)}", " ".join(notes), "use --estimators nuts,reml")
    comparison = compare(*(fits[m] for m in methods if m in fits), ci=ci, notes=tuple(notes))
    if len(fits) > 1:
        say(f"\n{heading('Side by side')}\n{comparison}")
    else:
        for note in notes:
            progress.note(note)
    if folder is not None:
        _write(model, comparison, folder, plots, progress)
    if page is not None:
        with progress.step("Writing the report: pictures and checks"):
            comparison.report(page, source=source)
        say(f"\nReport: {page}")
    progress.line(f"Finished after {duration(progress.elapsed)}")
    return [label for label, fit in comparison.fits.items() if not fit.converged]


def _fit(
    model: BoundModel, estimator: Estimator, options: Mapping[str, Any], progress: Progress, notes: list[str]
) -> Fit | None:
    """Fit by one estimator; None, and a note, if an optional one cannot express the model or is not installed."""
    if not estimator.samples:
        with progress.step(f"Fitting by {estimator.label}"):
            return fit_by(estimator.name, model, **options)
    text = f"Sampling by {estimator.label}: compiling the model first, which can take a minute the first time"
    if estimator.optional:
        logging.disable(logging.INFO)  # PyMC lists the sampled variables on standard error
    try:
        with progress.step(text, animate=False):
            fit = fit_by(estimator.name, model, **options, progressbar=progress.interactive)
    except (SpecificationError, MissingPackageError) as error:
        if not estimator.optional:
            raise
        notes.append(not_shown(estimator, error))
        return None
    finally:
        logging.disable(logging.NOTSET)
    attrs = fit.datatree.attrs
    times = [f"{k} {duration(attrs[f'{k}_seconds'])}" for k in ("compile", "sampling") if f"{k}_seconds" in attrs]
    seed = f"seed {attrs.get('seed')} (--seed makes the same draws again)"
    progress.line(f"{estimator.label} done: {', '.join(times)}; {seed}")
    return fit


def _write(model: BoundModel, comparison: Comparison, folder: Path, plots: bool, progress: Progress) -> None:
    before = {path.name for pattern in OURS for path in folder.glob(pattern)}
    with progress.step("Writing tables"):
        written = list(write_tables(model, comparison, folder))
    if plots:
        with progress.step("Drawing plots"):
            written += write_plots(comparison, folder, progress.note)
    width = max(len(name) for name, _ in written)
    say(f"\nWritten to {folder}:\n" + "\n".join(f"  {name:<{width}}  {what}" for name, what in written))
    left = sorted(before - {name for name, _ in written})
    if left:
        progress.note(f"left from an earlier run in {folder}: {', '.join(left)}.")


def heading(text: str) -> str:
    """Underline a title."""
    return f"{text}\n{'=' * len(text)}"


def say(text: str) -> None:
    """Print a result; if nobody reads standard output any more (``| head``), go on without it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
