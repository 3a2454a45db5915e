"""The tables of docs/arviz.md: every function of the ArviZ that is installed, and what the page says of it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "arviz.md").read_text(encoding="utf-8")
spec = importlib.util.spec_from_file_location("arviz_table", ROOT / "tools" / "arviz_table.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def rows(package):
    """Answers by function, from the page."""
    text = PAGE.split(f"<!-- {package} -->")[1].split(f"<!-- end of {package} -->")[0]
    found = re.findall(r"^\| `(\w+)` \|(.*)\|$", text, re.M)
    return {name: [cell.strip() for cell in cells.split(" | ")] for name, cells in found}


LARGE = "300 subjects"
SMALL = [model for model in tool.MODELS if model != LARGE]


@pytest.mark.parametrize("package", ["arviz_plots", "arviz_stats"])
def test_every_function_is_in_the_table(package):
    found = rows(package)
    assert sorted(found) == tool.functions()[package]
    for answers in found.values():
        assert len(answers) == len(tool.MODELS)
        for answer in answers:
            assert answer.startswith((tool.AS_IT_IS, tool.OURS, f"{tool.NOT}: "))


@pytest.fixture(scope="module")
def fits():
    """The five models, with few draws and eight subjects: what works does not depend on how many."""
    return tool.fits(rows=80, draws=150, tune=200)


def test_at_least_34_of_39_plots_work():
    found = rows("arviz_plots")
    assert len(found) == 39
    for k, model in enumerate(tool.MODELS):
        assert sum(not answers[k].startswith(tool.NOT) for answers in found.values()) >= 34, model


@pytest.mark.slow
@pytest.mark.parametrize("model", tool.MODELS)
def test_what_the_table_says_is_so(fits, model):
    """What the page says of a function is done, or shown to fail, for one model of four; where they differ, for all.

    The model with 300 subjects is asked where no other has its answer. (The tool calls every function for every model,
    and lets what is too large plainly run into its limits. Here the limit of time is only there to end what hangs: how
    fast a machine is decides nothing.)
    """
    k, wrong = tool.MODELS.index(model), {}
    for package in ("arviz_plots", "arviz_stats"):
        for n, (name, answers) in enumerate(rows(package).items()):
            kinds = [answer.split(":")[0] for answer in answers]
            others = [kind for other, kind in zip(tool.MODELS, kinds, strict=True) if other != LARGE]
            asked = kinds[k] not in others if model == LARGE else len(set(kinds)) > 1 or model == SMALL[n % 4]
            if name in tool.NO_REASON or not asked:
                continue
            works, said = tool.works(name, fits[model], plainly=answers[k] == tool.AS_IT_IS, seconds=300)
            if works == answers[k].startswith(tool.NOT):
                wrong[name] = (answers[k], said)
    assert not wrong
