"""Code cells, executed as a notebook would."""

import ast
import contextlib
import io
import re
import warnings


def page_cells(page):
    """Sources of the code cells of a page of the documentation, without their options."""
    blocks = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
    return [re.sub(r"\A(:\w+:[^\n]*\n)+", "", block) for block in blocks]


def run_page(page):
    """Every cell in order, as in a notebook, and what it would show can be shown."""
    import hierlmm as hl

    names = {"__name__": "__main__"}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", hl.FitWarning)  # shown on the page, or printed with the fit
        for number, cell in enumerate(page_cells(page), start=1):
            run_cell(cell, f"{page.name}, cell {number}", names)


def run_cell(source, where, names):
    """Execute a cell and display its last expression as a notebook would."""
    import matplotlib.pyplot as plt

    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], None
    exec(compile(ast.Module(body, []), where, "exec"), names)
    if last is not None:
        _display(eval(compile(ast.Expression(last.value), where, "eval"), names))
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


def _display(value):
    if value is not None:
        assert repr(value)
        for kind in ("_repr_html_", "_repr_latex_"):
            getattr(value, kind, str)()  # may answer None: "not in this form"
