"""Code cells, executed as a notebook would."""

import ast


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
