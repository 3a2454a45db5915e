"""Every example runs, cell by cell, and what a notebook would show of a cell's last expression can be shown.

The cells are read by jupytext and executed in this process: no kernel, no ports, no standard input, and the warnings of
an example are errors like those of any other test. (The documentation runs the same files through a Jupyter kernel.)
"""

from pathlib import Path

import jupytext
import pytest
from cells import run_cell

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


pytestmark = pytest.mark.usefixtures("as_a_reader_has_it", "short_chains")


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path):
    names = {"__name__": "__main__"}
    for number, cell in enumerate(_cells(path)):
        if cell.cell_type == "code":
            run_cell(cell.source, f"{path.name}, cell {number}", names)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_a_notebook(path):
    """A kernel to run it with, one title, and below it the paragraph that the gallery shows."""
    notebook = jupytext.read(path, fmt="py:percent")
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    first, *others = notebook.cells
    paragraphs = first.source.split("\n\n")
    assert first.cell_type == "markdown"
    assert paragraphs[0].startswith("# ")
    assert paragraphs[1][:1].isalpha()
    titles = [line for cell in others if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    assert not [line for line in titles if line.startswith("# ")]


def _cells(path):
    return jupytext.read(path, fmt="py:percent").cells
