"""Every phrase of hierlmm on the pages "Coming from ..." works: it is evaluated here, with the names the pages explain.

In the middle column of a table of phrases, a formula in quotes and ``name=value`` are arguments of a model, which is
made; all else is an expression of the names below.
"""

import ast
import io
import re
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cells import page_cells, run_cell

import hierlmm as hl

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("coming_from_*.md"))
QUICK = [page for page in PAGES if page.stem.endswith(("lme4", "nlme", "sas", "stata"))]
SHORT = {"draws": 200, "tune": 200, "chains": 2, "seed": 1, "progressbar": False}


def rows_of(page):
    """Cells of the table of phrases, whose pipes are escaped."""
    lines = re.search(r"^\|[^\n]*\| hierlmm \|[^\n]*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(encoding="utf-8"), re.M)
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[1].splitlines()]


def phrases_of(page):
    return [phrase.replace(r"\|", "|") for row in rows_of(page) for phrase in re.findall(r"`([^`]+)`", row[1])]


def made_up(subjects=30):
    """A study with the columns that the pages name."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"g": np.repeat(np.arange(subjects), 4), "visit": np.tile(np.arange(1, 5), subjects)})
    rows = len(data)
    data["time"] = data["visit"] - 1 + rng.uniform(0, 0.4, rows).round(2)
    data["x"] = rng.normal(size=rows).round(2)
    data["arm"] = np.where(data["g"] % 2, "drug", "placebo")
    data["school"], data["class"] = data["g"] // 5, data["g"] % 5
    data["item"], data["w"] = (np.arange(rows) * 7) % 10, rng.integers(1, 5, rows)
    data["n"] = rng.integers(5, 9, rows)
    b = rng.multivariate_normal([0, 0], [[1.5, 0.2], [0.2, 0.5]], subjects)[data["g"]]
    eta = 0.8 * b[:, 0] + 0.3 * data["time"]
    shared = 2 * np.arange(6)[data["school"]] + 0.8 * rng.normal(size=10)[data["item"]]
    data["y"] = 10 + shared + b[:, 0] + (0.7 + b[:, 1]) * data["time"] + 0.5 * data["x"] + rng.normal(size=rows)
    data["count"], data["yes"] = rng.poisson(np.exp(0.5 + 0.4 * eta)), rng.binomial(1, 1 / (1 + np.exp(-eta)))
    data["k"] = rng.binomial(data["n"], 1 / (1 + np.exp(-eta)))
    data["pain"] = pd.Categorical.from_codes(data["count"].clip(0, 2), ["none", "some", "much"], ordered=True)
    data["share"] = rng.beta(2, 3, rows)
    return data


@pytest.fixture(scope="module")
def names():
    data = made_up()
    model = hl.TwoLevelModel.from_formula("y ~ arm * time + x + (time | g)", data)
    counted = hl.TwoLevelModel.from_formula("count ~ x + (1 | g)", data, family="poisson")
    marginal = hl.MarginalModel("y ~ arm * time", correlation=hl.AR1("visit"), subject="g", data=data)
    one = hl.TwoLevelModel.from_formula("y ~ arm * time + x + (1 | g)", data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        return {
            **{"hl": hl, "np": np, "pd": pd, "data": data, "new": data.head(3), "model": model, "marginal": marginal},
            **{
                "fit": model.fit_reml(),
                "ml": model.fit_ml(),
                "smaller": one.fit_reml(),
                "counted": counted,
                "counts": counted.fit_ml(),
            },
            **{"posterior": model.fit(**SHORT), "other": one.fit(**SHORT)},
        }


def arguments(*formula, **options):
    return formula, options


def model_of(call, names):
    """The model that a formula in quotes or ``name=value`` belongs to."""
    (formula, options), data = eval(f"arguments({call})", {**names, "arguments": arguments}), names["data"]
    if {"correlation", "variance"} & set(options):
        return hl.MarginalModel(*(formula or ["y ~ arm * time"]), subject="g", data=data, **options)
    text = formula[0] if formula else "y ~ arm * time + (time | g)"
    groups = set(re.findall(r"\| *([\w:]+(?: */ *\w+)?)\)", text))
    door = hl.TwoLevelModel if groups == {"g"} else hl.MultilevelModel
    return door.from_formula(text, data, **options)


def is_expression(phrase):
    try:
        body = ast.parse(phrase, mode="eval").body
    except SyntaxError:
        return False
    return not isinstance(body, ast.Constant) and not (isinstance(body, ast.Tuple))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("as_a_reader_has_it")
def test_every_phrase_works(page, names):
    phrases = phrases_of(page)
    assert len(phrases) > 25
    failed = []
    for phrase in phrases:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            for few in ("R-hat", "effective", "diverge", "E-BFMI", "Pareto k"):
                warnings.filterwarnings("ignore", f"(?s).*{few}", hl.FitWarning)
            try:
                assert eval(phrase, dict(names)) is not None if is_expression(phrase) else model_of(phrase, names)
            except Exception as error:
                failed.append(f"{phrase}: {type(error).__name__} {error}")
    assert not failed, "\n".join(failed)


def test_tables_have_three_columns():
    for page in PAGES:
        assert {len(row) for row in rows_of(page)} == {3}, page.name


@pytest.mark.parametrize("page", QUICK, ids=lambda page: page.stem)
@pytest.mark.usefixtures("as_a_reader_has_it")
def test_numbers_side_by_side_are_the_same(page):
    """`beside` of a page: digits that the other package prints, and ours."""
    names = {"__name__": "__main__"}
    for number, cell in enumerate(page_cells(page), start=1):
        run_cell(cell, f"{page.name}, cell {number}", names)
    beside = names["beside"]
    assert len(beside) >= 5
    printed, ours = (beside[column] for column in beside.columns)
    for name in beside.index:
        unit = 10.0 ** -len(printed[name].partition(".")[2])
        assert float(printed[name]) == pytest.approx(ours[name], abs=0.51 * unit), name
