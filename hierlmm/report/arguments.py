"""The arguments of the command line and what ``--help`` says; imports nothing heavy, so that help comes at once."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from hierlmm._version import __version__

__all__ = ["make_parser"]

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
Fit a two-level model and print the hierarchy, every fit, and the fits side by side.
With --out, write tables (CSV, HTML), posterior draws (netCDF) and plots (PNG) as well.
"""

FIT_EPILOG = """\
the formula, in single quotes:
  response ~ fixed effects + (random effects | subject), as in lme4.
    'y ~ time + (1 | id)'              every id has its own intercept
    'y ~ time + (1 + time | id)'       ... and its own slope, correlated with the intercept
    'y ~ time + (time || id)'          ... not correlated
    'y ~ group * time + (1 + time | id)'   the slope also depends on the group
    'y ~ `body weight` + (1 | id)'     a name with blanks (in double quotes the shell would run it)
  Columns of text are categories; --categorical makes categories of columns that hold numbers.

data:
  One row per measurement (of a wide file hl.to_long makes it, in Python). A file that exists, or anything with a
  folder or an extension in it, is a path; any other word is a data set that `hierlmm datasets` lists.
  Missing values are empty fields, NA, N/A, NaN and NULL.

examples:
  hierlmm fit sleepstudy 'reaction ~ days + (1 + days | subject)' --out sleep
  hierlmm fit growth.csv 'height ~ age + (1 + age | child)' --estimators reml --missing drop
  hierlmm fit trial.parquet 'bp ~ arm * week + (1 + week | patient)' --categorical arm --seed 1
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


def make_parser() -> argparse.ArgumentParser:
    """Make the parser; ``command`` of what it returns is "fit", "demo", "datasets" or None."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="hierlmm",
        description="Two-level linear mixed models: one hierarchy, fitted by NUTS and REML side by side.",
        epilog=f"{EXAMPLES}\n{CODES}",
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"hierlmm {__version__}")
    parser.set_defaults(command=None)
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of errors, and warnings of libraries")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    fit = commands.add_parser(
        "fit",
        help="fit a model to a data set or a file",
        description=FIT_TEXT,
        epilog=f"{FIT_EPILOG}\n{CODES}",
        formatter_class=raw,
        parents=[common],
    )
    fit.set_defaults(command="fit")
    fit.add_argument("data", metavar="DATA_OR_FILE", help="a data set by name, or a CSV, Parquet or Excel file")
    fit.add_argument("formula", metavar="FORMULA", help="'distance ~ sex * time + (1 + time | subject)'")
    fit.add_argument("rest", nargs="*", default=[], help=argparse.SUPPRESS)  # a formula that the shell has split
    fit.add_argument(
        "--estimators",
        default="nuts,reml",
        metavar="LIST",
        help="any of nuts, reml, ml, gee, bambi, with commas; the first is the reference (default: %(default)s)",
    )
    fit.add_argument("--method", action=_Renamed, new="--estimators", help=argparse.SUPPRESS)
    _output_options(fit, None)
    fit.add_argument(
        "--ci", type=float, default=0.95, metavar="P", help="probability of the intervals (default: %(default)s)"
    )
    model = fit.add_argument_group("model and data")
    model.add_argument(
        "--covariance",
        metavar="KIND",
        help="of the random effects: unstructured, diagonal, identity, compound_symmetry (default: as in the formula)",
    )
    model.add_argument(
        "--missing",
        default="raise",
        metavar="raise|drop",
        help="refuse rows with missing values, or drop them and say how many (default: %(default)s)",
    )
    model.add_argument(
        "--categorical",
        action="append",
        default=[],
        metavar="COL[,COL...]",
        help="columns of numbers that are categories (their first value in order is the reference)",
    )
    sampler = fit.add_argument_group("sampler (nuts, bambi)")
    sampler.add_argument("--draws", type=int, metavar="N", help="draws kept of each chain (default: 1000)")
    sampler.add_argument("--tune", type=int, metavar="N", help="warm-up steps of each chain (default: 1000)")
    sampler.add_argument("--chains", type=int, metavar="N", help="number of chains (default: 4)")
    sampler.add_argument(
        "--seed", type=int, metavar="N", help="makes the draws reproducible (default: drawn and shown)"
    )
    sampler.add_argument(
        "--target-accept",
        type=float,
        metavar="P",
        help="closer to 1: slower, fewer divergences (by default chosen by the sampler: 0.9)",
    )

    demo = commands.add_parser(
        "demo",
        help="fit the example and write tables and plots",
        description=DEMO_TEXT,
        epilog=CODES,
        formatter_class=raw,
        parents=[common],
    )
    demo.set_defaults(command="demo")
    _output_options(demo, "demo-output")
    demo.add_argument("--quick", action="store_true", help="fewer draws")

    datasets = commands.add_parser(
        "datasets",
        help="list the data sets, or describe one",
        description="List the data sets that come with the package, or describe one and show how to fit it.",
        epilog=DATASETS_EPILOG,
        formatter_class=raw,
        parents=[common],
    )
    datasets.set_defaults(command="datasets")
    datasets.add_argument("name", nargs="?", metavar="NAME", help="the data set to describe")
    return parser


def _output_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--out",
        metavar="DIR",
        default=default,
        help="folder for the results; files of the same names are replaced (default: "
        + ("nothing is written)" if default is None else "%(default)s)"),
    )
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="write no plots")
    parser.add_argument(
        "-q", "--quiet", "--no-progress", dest="quiet", action="store_true", help="no progress on standard error"
    )
