"""Pictures in a notebook, beside figures of the user's own."""

import nbformat
import pytest
from nbclient import NotebookClient

AFTER = "from matplotlib import pyplot\nfigure, panel = pyplot.subplots()\n_ = panel.plot([1, 2])"
FIT = """
import hierlmm as hl
fit = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", hl.load_dataset("sleepstudy")).fit_reml()
fit.plot_shrinkage()
"""


@pytest.mark.slow
def test_plain_figures_are_shown_after_a_picture(monkeypatch):
    """The backend of a notebook turns the interactive mode on with the first figure, and the picture leaves it so."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    cells = [nbformat.v4.new_code_cell(source) for source in (FIT, AFTER)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    for cell in notebook.cells:
        assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source
