"""Tables that say under themselves how they were made: data frames, with the same cells in print and in a notebook."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest

from hierlmm.results import NotedTable
from hierlmm.text import probability_text

CALLS = {
    "summary": lambda fit: fit.summary(df="kenward-roger"),
    "anova": lambda fit: fit.anova(),
    "predict": lambda fit: fit.predict(fit.design.frame.iloc[:3], interval="confidence"),
}


@pytest.mark.parametrize("name", CALLS)
def test_notes_and_cells_in_print_and_notebook(name, dental_reml):
    table = CALLS[name](dental_reml)
    table.attrs["notes"] = ["something <odd>"]
    text, page = repr(table), table._repr_html_()
    told = table.attrs.get("description", table.attrs.get("interval"))
    assert told in " ".join(text.split()) and told.replace("'", "&#x27;") in page
    assert "Note: something <odd>" in text and "Note: something &lt;odd&gt;" in page
    printed = text.split("\n\n")[0].replace("<", "&lt;")
    cells = re.findall(r"<td>(.+?)</td>", page)  # not the empty corner
    assert len(cells) == table.size and all(cell.strip() in printed for cell in cells)
    if "p" in table:
        assert all(probability_text(p) in text for p in table["p"])
        assert "0.000000" not in text


def test_it_is_a_frame(dental_reml):
    table = dental_reml.summary(df="satterthwaite")
    assert isinstance(table, pd.DataFrame) and isinstance(pickle.loads(pickle.dumps(table)), NotedTable)
    assert type(table.iloc[:2]) is pd.DataFrame and table.iloc[:2].attrs == table.attrs
    np.testing.assert_array_equal(table["estimate"], dental_reml.beta)
    table.columns = list("aabbaab")
    assert repr(table).count("\n") > len(table) and repr(table.iloc[:0])


def test_many_rows_are_cut(dental_reml):
    table = dental_reml.predict()
    with pd.option_context("display.max_rows", 8, "display.min_rows", 6):
        assert repr(table).split("\n\n")[0].count("\n") == 7
        assert table._repr_html_().count("<tr") == 10
    assert repr(NotedTable(table.iloc[:0]))
