"""The command line: ``hierlmm fit``, ``hierlmm demo``, ``hierlmm datasets``, ``hierlmm app``.

This module reads arguments and turns what happens into messages and exit codes; the work is in `hierlmm.report`.
Nothing heavy is imported before the arguments are known, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import textwrap
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hierlmm.errors import FitWarning, HierlmmError, SpecificationError
from hierlmm.report.arguments import make_parser
from hierlmm.report.progress import Progress

SAME_FROM_PYTHON = """
The same from Python:
  import hierlmm as hl
  model = hl.TwoLevelModel("distance ~ time", {{"Intercept": "sex", "time": "sex"}},
                           subject="subject", data=hl.load_dataset("dental"))
  comparison = model.compare("nuts", "reml", {options})

Look at {first} and {second}.
Next: `hierlmm datasets` lists more data; `hierlmm fit --help` shows how to fit your own."""
OK, FAILED, BAD_INPUT, NOT_CONVERGED, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the name of the program; those of the process by default.

    Returns
    -------
    int
        Exit code: 0 done, 1 unexpected failure, 2 bad input, 3 not converged, 130 interrupted.
    """
    parser = make_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # --help, --version, usage errors
        return end.code if isinstance(end.code, int) else BAD_INPUT
    if arguments.command is None:
        parser.print_help()
        return OK
    _tolerant_output()
    with _interruptible() as interrupted, warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # shown by the fits themselves, or as notes
        if not arguments.debug:
            warnings.showwarning = _silent
        try:
            progress = Progress(quiet=getattr(arguments, "quiet", True), stopped=interrupted)
            code = COMMANDS[arguments.command](arguments, progress)
        except BaseException as error:
            code = _failure(error, interrupted, arguments.debug)
    return int(code)


def _failure(error: BaseException, interrupted: threading.Event, debug: bool) -> int:
    """Say what went wrong, on standard error, and return the exit code."""
    if debug and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if interrupted.is_set() or isinstance(error, KeyboardInterrupt):
        print("\nhierlmm: interrupted; the results that had not been printed are lost.", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # nobody reads the messages any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        return FAILED
    if isinstance(error, HierlmmError):
        print(f"hierlmm: this cannot be done.{_as_options(str(error))}", file=sys.stderr)
        return BAD_INPUT
    if not isinstance(error, Exception):
        raise error
    text = " ".join(str(error).split())
    print(
        f"hierlmm: unexpected failure, {type(error).__name__}: {textwrap.shorten(text, 300) or 'no message'}\n"
        "This should not happen. Run the same command with --debug to see where; please report it with that output.",
        file=sys.stderr,
    )
    return FAILED


def _as_options(text: str) -> str:
    """Write Python arguments as options: ``missing='drop'`` is ``--missing drop`` here."""
    names = "missing|covariance|group|residual_group|weights|draws|tune|chains|seed|target_accept|ci"
    names += "|family|trials|exposure|n_quadrature"
    text = re.sub(r"\b(trials|exposure)=(?=[\s,;.)]|$)", r"--\1", text)  # "with trials=", of no value
    return re.sub(rf"\b({names})=(['\"]?)([\w.+-]*\w)\2", lambda m: f"--{m[1].replace('_', '-')} {m[3]}", text)


def _fit(arguments: argparse.Namespace, progress: Progress) -> int:
    from hierlmm.fit.registry import ESTIMATORS
    from hierlmm.pages.path import checked_path
    from hierlmm.report.run import parse_methods, run, say
    from hierlmm.report.write import prepare_folder

    several = _has_several_factors(arguments.formula)
    methods = parse_methods(arguments.estimators or ("nuts,reml" if arguments.family is None else "ml"))
    _check_arguments(arguments, several)
    out = getattr(arguments, "out", None)
    folder = None if out is None else prepare_folder(out)
    page = None if arguments.report is None else checked_path(arguments.report)
    with progress.step("Reading the data"):
        from hierlmm.likelihood.checks import check_quadrature
        from hierlmm.report.read import read_data, refuse_blanks, refuse_wide

        source = read_data(arguments.data, arguments.categorical, arguments.formula)
    refuse_blanks(arguments.formula, list(map(str, source.frame.columns)))
    refuse_wide(arguments.formula, source.frame)
    say(f"Data: {source.origin}\n")
    for note in source.notes:
        progress.note(note)
    with progress.step("Setting up the model"):
        model = _with_notes(progress.note, *_model(arguments, several), source.frame)
    points = arguments.n_quadrature
    if points is not None and "ml" not in methods:
        received, reason = (
            f"--n-quadrature {points}",
            "only ML integrates by quadrature, and it is not among --estimators",
        )
        raise SpecificationError(received, reason, "use --estimators ml, or leave it out", "hierlmm fit --help")
    if points is not None:
        check_quadrature(points, model.design)
    options = {name: getattr(arguments, name) for name in ("draws", "tune", "chains", "seed", "target_accept")}
    sampling = {name: value for name, value in options.items() if value is not None}
    shown: dict[str, Any] = {"ci": arguments.ci, "folder": folder, "progress": progress}
    shown |= {"plots": getattr(arguments, "plots", False), "page": page, "source": source.code}
    failed = run(model, methods, sampling=sampling, n_quadrature=points or 1, **shown)
    if folder is None and page is None:
        labels = ", ".join(ESTIMATORS[m].label for m in methods)
        progress.line(f"Nothing was written; --out DIR writes the results of {labels}")
    return _verdict(failed, folder is not None or page is not None)


def _model(arguments: argparse.Namespace, several: bool) -> tuple[Callable[..., Any], str, dict[str, Any]]:
    """What makes the model, its formula, and its options."""
    from hierlmm import MarginalModel, MultilevelModel, TwoLevelModel
    from hierlmm.families.names import family_named
    from hierlmm.report.structures import correlation_named, variance_named

    said = {name: getattr(arguments, name) for name in ("missing", "trials", "exposure")}
    said["family"] = family_named(arguments.family or "gaussian", arguments.link)
    if several:
        return MultilevelModel.from_formula, arguments.formula, said
    correlation, variance = correlation_named(arguments.residual), variance_named(arguments.residual_variance)
    said |= {"weights": arguments.weights}
    if arguments.subject is not None:
        own = {"correlation": correlation, "variance": variance, "group": arguments.residual_group}
        return MarginalModel, arguments.formula, said | own | {"subject": arguments.subject}
    own = {name: getattr(arguments, name) for name in ("covariance", "group", "residual_group")}
    return (
        TwoLevelModel.from_formula,
        arguments.formula,
        said | own | {"residual": correlation, "residual_variance": variance},
    )


def _has_several_factors(formula: str) -> bool:
    """Whether a formula has several grouping factors; one that cannot be read is refused later."""
    from hierlmm.design.formula import parse_formula

    try:
        return len({bar.subject for bar in parse_formula(formula, several=True).random}) > 1
    except HierlmmError:
        return False


def _with_notes(
    note: Callable[[str], None], make: Callable[..., Any], formula: str, options: dict[str, Any], data: Any
) -> Any:
    """Make the model; what it warns of (rows dropped) becomes notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", FitWarning)
        shown = warnings.showwarning

        def show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
            if issubclass(category, FitWarning):
                note(str(message))
            else:
                shown(message, category, *rest, **more)

        warnings.showwarning = show
        return make(formula, data=data, **options)


def _demo(arguments: argparse.Namespace, progress: Progress) -> int:
    from hierlmm.report.run import run, say
    from hierlmm.report.write import prepare_folder

    folder = prepare_folder(arguments.out)
    with progress.step("Loading hierlmm and the data set 'dental'"):
        from hierlmm import TwoLevelModel, load_dataset

        dental = load_dataset("dental")
        model = TwoLevelModel("distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental)
    # More draws and smaller steps than the defaults, so that the example converges on every machine.
    sampling: dict[str, Any] = {"draws": 2000, "tune": 1000, "chains": 4, "seed": 1, "target_accept": 0.99}
    if arguments.quick:
        sampling |= {"draws": 1000, "tune": 500}
    failed = run(
        model, ["nuts", "reml"], sampling=sampling, ci=0.95, folder=folder, plots=arguments.plots, progress=progress
    )
    options = ", ".join(f"{name}={value}" for name, value in sampling.items())
    first = folder / ("trajectories.png" if arguments.plots else "comparison.csv")
    say(SAME_FROM_PYTHON.format(options=options, first=first, second=folder / "comparison.html"))
    return _verdict(failed, True)


def _datasets(arguments: argparse.Namespace, progress: Progress) -> int:
    from hierlmm.datasets.catalogue import catalogue, describe_dataset
    from hierlmm.report.run import say

    if arguments.name is not None:
        description = describe_dataset(arguments.name)
        say(f"{description!r}\n\n{_how_to_fit(description)}")
        return OK
    width = max(map(len, catalogue()))
    lines = [f"{'name':<{width}}  {'rows':>5}  {'subjects':>8}  title"]
    for entry in catalogue().values():
        title = entry.title if entry.ships else f"{entry.title} (not shipped)"
        lines.append(f"{entry.name:<{width}}  {entry.rows:>5}  {entry.subjects:>8}  {title}")
    say("\n".join(lines) + "\n\n`hierlmm datasets NAME` describes one and shows how to fit it.")
    return OK


def _how_to_fit(description: Any) -> str:
    """Command that fits the formula of a data set, to be copied, or why there is none."""
    from hierlmm.design.formula import parse_formula

    try:
        parse_formula(description.formula, several=True)
    except HierlmmError as error:
        return f"This formula cannot be fitted here: {error.reason}."
    quoted = shlex.quote(description.formula)  # single quotes, in which the shell changes nothing
    return f"Fit it:  hierlmm fit {description.name} {quoted} --out {description.name}-output"


def _verdict(failed: list[str], written: bool) -> int:
    if not failed:
        return OK
    names = " and ".join(failed)
    print(
        f"hierlmm: {names} did not converge; what to change stands under the fit above (draws, tune and target_accept "
        "are --draws, --tune and --target-accept here)."
        + (" The results were written all the same." if written else ""),
        file=sys.stderr,
    )
    return NOT_CONVERGED


OF_SUBJECTS = ("covariance", "group", "residual", "residual_variance", "residual_group", "weights", "subject")
"""Options that a model with several grouping factors has not."""


def _check_arguments(arguments: argparse.Namespace, several: bool) -> None:
    """Refuse before anything is fitted what would be refused afterwards."""
    see = "hierlmm fit --help"
    if arguments.rest:
        received = f"a formula in pieces: {' '.join([arguments.formula, *arguments.rest])}"
        remedy = "put it in single quotes: hierlmm fit DATA 'y ~ x + (1 | subject)'"
        raise SpecificationError(received, "the shell split it at its spaces, and may have changed it", remedy, see)
    if arguments.link is not None and arguments.family is None:
        reason = "a link belongs to a family"
        raise SpecificationError(f"--link {arguments.link}", reason, "name it too, for example --family bernoulli", see)
    for name in ("covariance", "group") if arguments.subject is not None else ():
        if getattr(arguments, name) is not None:
            received, reason = f"--{name} with --subject", "a marginal model has no random effects"
            raise SpecificationError(received, reason, "leave one of them out", see)
    for name in OF_SUBJECTS if several else ():
        if getattr(arguments, name) is not None:
            received, reason = f"--{name.replace('_', '-')} with several grouping factors", "it is of two levels"
            raise SpecificationError(received, reason, "leave it out, or keep one factor", see)
    for name, least in (("draws", 4), ("tune", 0), ("chains", 1), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise SpecificationError(f"--{name} {value}", f"it must be at least {least}", "use a larger number", see)
    for name, example in (("ci", 0.95), ("target_accept", 0.9)):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < 1:
            option = name.replace("_", "-")
            reason = "it is a probability, between 0 and 1"
            raise SpecificationError(f"--{option} {value:g}", reason, f"use for example {example}", see)


def _app(arguments: argparse.Namespace, progress: Progress) -> int:
    from hierlmm.app.serve import serve

    serve(arguments.port, browser=arguments.browser)
    return OK


COMMANDS: dict[str, Callable[[argparse.Namespace, Progress], int]] = {
    "fit": _fit,
    "report": _fit,
    "demo": _demo,
    "datasets": _datasets,
}
COMMANDS["app"] = _app


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Remember Ctrl-C even where a library takes it for a wish to stop early and returns what it has."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def stop(signum: int, frame: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _tolerant_output() -> None:
    """Let a terminal without Greek letters show question marks, not a failure."""
    for stream in (sys.stdout, sys.stderr):
        encoding = str(getattr(stream, "encoding", "") or "").lower().replace("-", "")
        if hasattr(stream, "reconfigure") and not encoding.startswith("utf"):
            stream.reconfigure(errors="replace")


def _silent(*message: Any, **more: Any) -> None:
    """Show nothing: warnings of libraries are for developers (``--debug``)."""
