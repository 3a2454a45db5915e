"""Mathematics as MathML at build time: browsers draw it themselves, so pages need no script and no network.

LaTeX is translated by docutils (``docutils.utils.math.latex2mathml``), which Sphinx depends on anyway. An equation that
cannot be translated is a warning, and so an error under ``sphinx -W``.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import math, parse_latex_math, tex2mathml
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)
UNKNOWN_TO_DOCUTILS = {r"\textbf{": r"\text{"}
SHORT_FRACTION = re.compile(r"(\\[td]?frac)(\d)(\d)")  # \frac12: docutils would read a numerator of 12
# An accented letter with a subscript: the accent belongs to the letter, the subscript stands beside it.
ACCENT_AND_SUBSCRIPT = re.compile(
    r"<munderover>(<mi>[^<]*</mi>)((?:(?!<munderover>).)*?)(<mo stretchy=\"false\">[^<]</mo>)</munderover>"
)
SPACED = '<mo form="infix" lspace="0.2778em" rspace="0.2778em">∼</mo>'


def to_mathml(latex: str, *, block: bool) -> str:
    """Translate LaTeX without delimiters to a ``<math>`` element on one line."""
    for command, known in UNKNOWN_TO_DOCUTILS.items():
        latex = latex.replace(command, known)
    latex = SHORT_FRACTION.sub(r"\1{\2}{\3}", latex.strip())
    if block and latex.startswith(r"\begin{"):  # an environment of its own; docutils would wrap it in a second one
        tree = math(xmlns="http://www.w3.org/1998/Math/MathML", display="block")
        parse_latex_math(tree, latex)
        markup = tree.toxml().replace('class="ams-align"', 'class="ams-align" displaystyle="true"')
    else:
        markup = tex2mathml(latex, as_block=block)
    markup = "".join(line.strip() for line in markup.splitlines())
    markup = ACCENT_AND_SUBSCRIPT.sub(r'<msub><mover accent="true">\1\3</mover>\2</msub>', markup)
    return markup.replace("<mo>∼</mo>", SPACED)


def _translate(node: nodes.Element, *, block: bool) -> str:
    try:
        return to_mathml(node.astext(), block=block)
    except MathError as error:
        logger.warning("mathematics not understood: %s in %r", error, node.astext(), location=node)
        return f"<code>{node.astext()}</code>"


def visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(_translate(node, block=False))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math-block"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    self.body.append(_translate(node, block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.add_css_file("mathml.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
