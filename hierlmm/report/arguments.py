"""The arguments of the command line and what ``--help`` says; imports nothing heavy, so that help comes at once."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from hierlmm._version import __version__
from hierlmm.fit.registry import ESTIMATORS

CODES = """\
exit codes:
  0    done
  1    unexpected failure (--debug shows where)
  2    the arguments or the data cannot be used; the message says what to do
  3    fitted, but an estimator did not converge (results are written all the same)
  130  interrupted (Ctrl-C)"""

EXAMPLES = """\
examples:
  hierlmm demo                      fit the example, write tables and plots to demo-output/
  hierlmm datasets                  list the data sets that come with the package
  hierlmm fit dental 'distance ~ sex * time + (1 + time | subject)' --out growth
  hierlmm fit growth.csv 'height ~ age + (1 + age | child)' --estimators reml
"""

FIT_TEXT = """\
Fit a model and print the hierarchy, every fit, and the fits side by side.
With --out, write tables (CSV, HTML), posterior draws (netCDF) and plots (PNG) as well.
"""

FIT_EPILOG = """\
the formula, in single quotes:
  response ~ fixed effects + (random effects | subject), as in lme4.
    'y ~ time + (1 | id)'              every id has its own intercept
    'y ~ time + (1 + time | id)'       ... and its own slope, correlated with the intercept
    'y ~ time + (time || id)'          ... not correlated
    'y ~ group * time + (1 + time | id)'   the slope also depends on the group
    'y ~ x + (1 | school / class)'     several factors, nested; (1 | a) + (1 | b) crossed
    'y ~ `body weight` + (1 | id)'     a name with blanks (in double quotes the shell would run it)
  Columns of text are categories; --categorical makes categories of columns that hold numbers.

data:
  One row per measurement (of a wide file hl.to_long makes it, in Python). A file that exists, or anything with a
  folder or an extension in it, is a path; any other word is a data set that `hierlmm datasets` lists.
  Missing values are empty fields, NA, N/A, NaN and NULL.

examples:
  hierlmm fit sleepstudy 'reaction ~ days + (1 + days | subject)' --out sleep
  hierlmm fit growth.csv 'height ~ age + (1 + age | child)' --estimators reml --missing drop
  hierlmm fit esoph 'ncases ~ ncontrols + (ncontrols | agegp)' --family poisson --n-quadrature 25
  hierlmm fit trial.parquet 'bp ~ arm * week + (1 + week | patient)' --categorical arm --seed 1
"""

REPORT_TEXT = """\
Fit a model and write everything about it on one HTML page that needs no network: data, equations, estimates side by
side, sentences, pictures, checks, priors, versions, and the code that repeats it.
"""

REPORT_EPILOG = """\
The formula, the data and all options are those of hierlmm fit.

examples:
  hierlmm report dental 'distance ~ sex * time + (1 + time | subject)' --estimators reml --out growth.html
  hierlmm report dental 'distance ~ sex * time' --subject subject --residual car1:time --estimators reml,gee
"""

DEMO_TEXT = """\
Fit growth curves to the dental measurements of Potthoff and Roy (1964), 27 children at ages 8, 10, 12 and 14,
by NUTS and REML; print the hierarchy and the two fits side by side; write tables, draws and plots to a folder.
"""

DATASETS_EPILOG = """\
examples:
  hierlmm datasets
  hierlmm datasets sleepstudy
"""


APP_TEXT = """\
Open the teaching app in the browser: what a hierarchy implies, simulated studies, shrinkage, negative correlation,
conditional and population-averaged curves, and your own data. It is served to this machine only, and stores nothing.
"""

DATASETS_TEXT = "List the data sets that come with the package, or describe one and show how to fit it."

type Row = tuple[str, dict[str, Any]]
"""An option: its names, parted by blanks, and what argparse is told of it."""


class _Parser(argparse.ArgumentParser):
    """Usage errors that say where to read more."""

    def error(self, message: str) -> NoReturn:
        """Print the usage, the message and where to read more, and exit with 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\nSee {self.prog} --help.\n")


class _Renamed(argparse.Action):
    """An earlier name of an option: refused, with the name to use."""

    def __init__(self, *args: Any, new: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.new = new

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        parser.error(f"{option} is called {self.new} now: {self.new} {values}")


NOT_REPORTED = ("--no-plots", "--report")
HIDDEN = {"help": argparse.SUPPRESS}


def _output(default: str | None) -> tuple[Row, ...]:
    text = "folder for the results; files of the same names are replaced (default: "
    text += "nothing is written)" if default is None else "%(default)s)"
    quiet = {"dest": "quiet", "action": "store_true", "help": "no progress on standard error"}
    return (
        ("--out", {"metavar": "DIR", "default": default, "help": text}),
        ("--no-plots", {"dest": "plots", "action": "store_false", "help": "write no plots"}),
        ("-q --quiet --no-progress", quiet),
    )


REPORT = "also write everything on one HTML page that needs no network"
PAGE = "name of the page, ending in .html; a file of this name is replaced (default: %(default)s)"
RESIDUAL = "correlation of a subject's residuals: car1:COL, ar1[:COL], exponential:COL, gaussian:COL, toeplitz:COL, "
RESIDUAL += "antedependence:COL, unstructured:COL, unstructuredheterogeneous:COL, compoundsymmetry (COL: the times)"
VARIANCE = "variance of the residuals: varident:COL (groups), varpower[:COL], varexp[:COL]"
SUBJECT = "a marginal model of the rows of each value of this column: a formula without random effects, and --residual"
DATA = "a data set by name, or a CSV, Parquet or Excel file"
LIST = f"any of {', '.join(ESTIMATORS)}, with commas; the first is the reference "
LIST += "(default: nuts,reml; with --family ml)"
SAMPLERS = ", ".join(estimator.name for estimator in ESTIMATORS.values() if estimator.samples)
CI = "probability of the intervals (default: %(default)s)"
COVARIANCE = "of the random effects: unstructured, diagonal, identity, compound_symmetry (default: as in the formula)"
GROUP = "level-2 column, each of whose levels has a covariance of the random effects of its own"
RESIDUAL_GROUP = "level-2 column, each of whose levels has a residual SD of its own"
WEIGHTS = "column of known weights: the residual variance of a row is divided by its weight"
MISSING = "refuse rows with missing values, or drop them and say how many (default: %(default)s)"
CATEGORICAL = "columns of numbers that are categories (their first value in order is the reference)"
FAMILIES = "gaussian, poisson, negative_binomial, bernoulli, binomial, gamma, beta, ordinal, student_t"
"""Written out, since the families themselves load numba."""
FAMILY = f"distribution of the response: {FAMILIES} (default: gaussian)"
LINK = "link of the mean: log, logit, probit, cloglog, identity, inverse, sqrt, where the family has it"
TRIALS = "column of the numbers of trials (binomial; or write 'p(successes, n) ~ ...' as the response)"
EXPOSURE = "column of what counts are per: time, area or people (an offset of its logarithm)"
POINTS = "points of adaptive Gauss-Hermite quadrature by ML, up to three random effects (default: 1, Laplace's method)"
ACCEPT = "closer to 1: slower, fewer divergences (default: 0.9; families 0.95, from 2,000 random effects on 0.65)"
FIT: dict[str, tuple[Row, ...]] = {
    "": (
        ("data", {"metavar": "DATA_OR_FILE", "help": DATA}),
        ("formula", {"metavar": "FORMULA", "help": "'distance ~ sex * time + (1 + time | subject)'"}),
        ("rest", {"nargs": "*", "default": []} | HIDDEN),  # a formula that the shell has split
        ("--estimators", {"metavar": "LIST", "help": LIST}),
        ("--method", {"action": _Renamed, "new": "--estimators"} | HIDDEN),
        *_output(None),
        ("--report", {"metavar": "FILE.html", "help": REPORT}),
        ("--ci", {"type": float, "default": 0.95, "metavar": "P", "help": CI}),
    ),
    "model and data": (
        ("--covariance", {"metavar": "KIND", "help": COVARIANCE}),
        ("--group", {"metavar": "COL", "help": GROUP}),
        ("--residual", {"metavar": "NAME[:COL]", "help": RESIDUAL}),
        ("--residual-variance", {"metavar": "NAME[:COL]", "help": VARIANCE}),
        ("--subject", {"metavar": "COL", "help": SUBJECT}),
        ("--residual-group", {"metavar": "COL", "help": RESIDUAL_GROUP}),
        ("--weights", {"metavar": "COL", "help": WEIGHTS}),
        ("--missing", {"default": "raise", "metavar": "raise|drop", "help": MISSING}),
        ("--categorical", {"action": "append", "default": [], "metavar": "COL[,COL...]", "help": CATEGORICAL}),
    ),
    "family (responses that are not normal)": (
        ("--family", {"metavar": "NAME", "help": FAMILY}),
        ("--link", {"metavar": "NAME", "help": LINK}),
        ("--trials", {"metavar": "COL", "help": TRIALS}),
        ("--exposure", {"metavar": "COL", "help": EXPOSURE}),
        ("--n-quadrature", {"type": int, "metavar": "N", "help": POINTS}),
    ),
    f"sampler ({SAMPLERS})": (
        ("--draws", {"type": int, "metavar": "N", "help": "draws kept of each chain (default: 1000)"}),
        ("--tune", {"type": int, "metavar": "N", "help": "warm-up steps of each chain (default: 1000)"}),
        ("--chains", {"type": int, "metavar": "N", "help": "number of chains (default: 4)"}),
        ("--seed", {"type": int, "metavar": "N", "help": "makes the draws reproducible (default: drawn and shown)"}),
        ("--target-accept", {"type": float, "metavar": "P", "help": ACCEPT}),
    ),
}
TO_PAGE = ("--out", {"dest": "report", "metavar": "FILE.html", "default": "report.html", "help": PAGE})
REPORTED = FIT | {"": (*(TO_PAGE if row[0] == "--out" else row for row in FIT[""] if row[0] not in NOT_REPORTED),)}
NAME = ("name", {"nargs": "?", "metavar": "NAME", "help": "the data set to describe"})
DEMO = (*_output("demo-output"), ("--quick", {"action": "store_true", "help": "fewer draws"}))
APP = (
    (
        "--port",
        {"type": int, "default": 8000, "metavar": "N", "help": "port of the page; 0: any free one (default: 8000)"},
    ),
    ("--no-browser", {"dest": "browser", "action": "store_false", "help": "open no browser; the address is printed"}),
)
COMMANDS: dict[str, tuple[str, str, str, dict[str, tuple[Row, ...]]]] = {
    "fit": ("fit a model to a data set or a file", FIT_TEXT, f"{FIT_EPILOG}\n{CODES}", FIT),
    "report": ("fit a model and write one page about it", REPORT_TEXT, f"{REPORT_EPILOG}\n{CODES}", REPORTED),
    "demo": ("fit the example and write tables and plots", DEMO_TEXT, CODES, {"": DEMO}),
    "datasets": ("list the data sets, or describe one", DATASETS_TEXT, DATASETS_EPILOG, {"": (NAME,)}),
    "app": ("open the teaching app in the browser", APP_TEXT, CODES, {"": APP}),
}


def make_parser() -> argparse.ArgumentParser:
    """Make the parser; ``command`` of what it returns is "fit", "demo", "datasets", "app" or None."""
    raw = argparse.RawDescriptionHelpFormatter
    purpose = "Two-level linear mixed models: one hierarchy, fitted by NUTS and REML side by side."
    parser = _Parser(prog="hierlmm", description=purpose, epilog=f"{EXAMPLES}\n{CODES}", formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"hierlmm {__version__}")
    parser.set_defaults(command=None)
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of errors, and warnings of libraries")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (summary, description, epilog, groups) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=description, epilog=epilog, formatter_class=raw, parents=[common]
        )
        command.set_defaults(command=name)
        for title, rows in groups.items():
            group = command.add_argument_group(title) if title else command
            for names, options in rows:
                group.add_argument(*names.split(), **options)
    return parser
