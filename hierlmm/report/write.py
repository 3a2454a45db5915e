"""Writing a comparison to a folder: tables, texts, draws and plots, one file for each thing a reader may want."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from hierlmm.design.factors import finest_first
from hierlmm.design.formula import unquoted
from hierlmm.errors import HierlmmError, SpecificationError
from hierlmm.storage.netcdf import write_netcdf

if TYPE_CHECKING:
    from hierlmm.bound import BoundModel
    from hierlmm.comparison.compare import Comparison
    from hierlmm.fits.base import Fit

SEE = "hierlmm fit --help; docs, page 'Command line'"
TABLES = ("model.txt", "comparison.*", "estimates.csv", "summary_*.txt", "random_effects_*.csv", "posterior*.nc")
OURS = (*TABLES, "forest.png", "trajectories.png", "random_effects.png")
"""Names of the files that a run may write."""

type Written = tuple[str, str]
"""Name of a file and what it holds."""

CSS = (
    "body{font-family:system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;line-height:1.4}"
    "pre{overflow-x:auto}"
)


def prepare_folder(out: str) -> Path:
    """Make the folder, and make sure that files can be written to it.

    Raises
    ------
    SpecificationError
        If ``out`` is a file, or the folder cannot be made or written to.
    """
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        reason = "this is a file, and the results need a folder"
        raise SpecificationError(f"--out {out}", reason, "name another folder; it is made if new", SEE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"it cannot be written to: {error.strerror or error}"
        raise SpecificationError(f"--out {out}", reason, "name a folder of your own", SEE) from error
    return folder


def write_tables(model: BoundModel, comparison: Comparison, folder: Path) -> Iterator[Written]:
    """Write the hierarchy, the estimates, every fit and its random effects, and the draws.

    Parameters
    ----------
    model : BoundModel
    comparison : Comparison
        Of one fit or several.
    folder : Path

    Yields
    ------
    (str, str)
        Name of a file that was written, and what it holds.
    """
    _text(folder / "model.txt", model_text(model))
    yield "model.txt", "the hierarchy and the data in use"
    if len(comparison.fits) > 1:
        comparison.table.to_csv(folder / "comparison.csv", index=False)
        yield "comparison.csv", "estimates side by side, one row for each parameter and estimator"
        _text(folder / "comparison.html", _page(model, comparison))
        yield "comparison.html", "the hierarchy and the comparison, for a browser"
    else:
        columns = ["parameter", "kind", "estimator", "estimate", "se", "lower", "upper"]
        comparison.table[columns].to_csv(folder / "estimates.csv", index=False)
        yield "estimates.csv", "fixed effects, standard deviations and correlations, one row each"
    for label, fit in comparison.fits.items():
        suffix = label.lower().replace(" ", "_")
        _text(folder / f"summary_{suffix}.txt", fit_text(fit, comparison.ci))
        yield f"summary_{suffix}.txt", f"the {label} fit as printed"
        if fit.has_random_effects:
            _random_effects(fit).to_csv(folder / f"random_effects_{suffix}.csv", index=False)
            what = "random effects and their uncertainty, one row for each subject (or group) and term"
            yield f"random_effects_{suffix}.csv", what
        if fit.has_draws:
            name = "posterior.nc" if label == "NUTS" else f"posterior_{suffix}.nc"
            write_netcdf(fit.to_datatree(), folder / name)
            yield name, "posterior draws: arviz.from_netcdf reads them"


def write_plots(comparison: Comparison, folder: Path, note: Callable[[str], None]) -> Iterator[Written]:
    """Draw the forest, the trajectories and the random effects as PNG, without a display.

    Parameters
    ----------
    comparison : Comparison
    folder : Path
    note : callable
        Is told why a plot cannot be drawn for this model.

    Yields
    ------
    (str, str)
        Name of a file that was written, and what it shows.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    lines = f"data, subject lines and population line ({comparison.reference})"
    plots: list[tuple[str, Callable[..., Any], str]] = [
        ("forest.png", comparison.plot_forest, "estimates with intervals"),
        ("trajectories.png", comparison.plot_trajectories, lines),
        ("random_effects.png", comparison.plot_random_effects, "random effects with intervals, sorted"),
    ]
    for name, draw, what in plots:
        try:
            collection = draw(backend="matplotlib")
        except HierlmmError as error:
            note(f"{name} was not drawn: {error.reason}.")
            continue
        collection.savefig(folder / name, dpi=150)
        plt.close(collection.get_viz("figure"))
        yield name, what


def model_text(model: BoundModel) -> str:
    """Print of the model, without the line that says how to go on in Python."""
    return repr(model).rsplit("\n\nFit with ", 1)[0]


def fit_text(fit: Fit, ci: float = 0.95) -> str:
    """Print of a fit, with intervals of probability ``ci``."""
    text = repr(fit)
    if ci == 0.95:
        return text
    tables = [fit.summary(ci)] + ([fit.variance_components(ci)] if fit.has_random_effects else [])
    table = pd.concat(tables)[["estimate", "se", "lower", "upper"]]
    return f"{text}\n\nIntervals at {100 * ci:g} %:\n{table.to_string(float_format=lambda v: f'{v:.4g}', na_rep='')}"


def _random_effects(fit: Fit) -> pd.DataFrame:
    """Subject (or factor and group), term, estimate, sd: one row for each random effect."""
    if not fit.design.has_several_factors:
        return _long(fit.b, fit.b_sd, fit.design.hierarchy.subject)
    b, sd = (cast("Mapping[str, pd.DataFrame]", values) for values in (fit.b, fit.b_sd))
    own = {name: _long(b[name], sd[name], "group") for name in b}
    return pd.concat(own, names=["factor"]).reset_index("factor").reset_index(drop=True)


def _long(b: pd.DataFrame, sd: pd.DataFrame, group: str) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([b.index, b.columns], names=[group, "term"])
    long = {"estimate": b, "sd": sd}
    return pd.DataFrame({name: frame.to_numpy().ravel() for name, frame in long.items()}, index=index).reset_index()


def _page(model: BoundModel, comparison: Comparison) -> str:
    title = f"{unquoted(model.design.hierarchy.response)} by {_groups(model)}: {', '.join(comparison.labels)}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{CSS}</style></head><body><h1>{html.escape(title)}</h1>"
        f"{model._repr_html_()}<h2>Side by side</h2>{comparison.to_html()}</body></html>\n"
    )


def _groups(model: BoundModel) -> str:
    design = model.design
    return ", ".join(finest_first(design)) if design.has_several_factors else model.subject


def _text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
