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


@pytest.mark.parametrize("package", ["arviz_plots", "arviz_stats"])
def test_every_function_is_in_the_table(package):
    found = rows(package)
    assert sorted(found) == tool.functions()[package]
    for answers in found.values():
        assert len(answers) == len(tool.MODELS)
        for answer in answers:
            assert answer.startswith((tool.AS_IT_IS, tool.OURS, f"{tool.NOT}: "))


def test_at_least_34_of_39_plots_work():
    found = rows("arviz_plots")
    assert len(found) == 39
    for k, model in enumerate(tool.MODELS):
        assert sum(not answers[k].startswith(tool.NOT) for answers in found.values()) >= 34, model


@pytest.mark.slow
@pytest.mark.parametrize("package", ["arviz_plots", "arviz_stats"])
def test_what_the_table_says_is_so(package):
    """Every call anew, for the first and the second model: as it is, with our method, or not."""
    fits, found = tool.fits(("two-level", "marginal")), rows(package)
    said = {(name, m): found[name][tool.MODELS.index(m)] for name in found for m in fits}
    now = {(name, m): tool.cell(tool.verdict(name, fit)) for m, fit in fits.items() for name in found}
    different = {k: (v, now[k]) for k, v in said.items() if v.split(":")[0] != now[k].split(":")[0]}
    assert not different
