"""The gallery: a page for every example and, in front, a card for each with a picture of its own.

The picture is the first one that the executed example gives an alternative text to, in the line that begins the cell:
``# %% mystnb={"image": {"alt": "Lines of 27 children"}}``; without one, the first. Where nothing is executed, none.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from docutils import nodes
from notebooks import read_page

INDEX = "gallery/index"


def make_gallery(source: Path, target: Path) -> None:
    """Copy every example into the gallery and list them; unchanged files are left alone."""
    target.mkdir(exist_ok=True)
    examples = sorted(source.glob("*.py"))
    for stale in set(target.glob("*.py")) - {target / example.name for example in examples}:
        stale.unlink()
    for example in examples:
        _write(target / example.name, example.read_text(encoding="utf-8"))
    lines = ["# Gallery", ""]
    if examples:
        lines += [
            "Every example is a Python file in `examples/` that runs as it stands. It is executed when these pages are "
            "built, and by the tests.",
            "",
            "```{toctree}",
            ":hidden:",
            "",
            *(example.stem for example in examples),
            "```",
            "",
            "::::{container} gallery",
            *(_card(example) for example in examples),
            "::::",
        ]
    else:
        lines += ["There are no examples yet; the {doc}`quickstart </quickstart>` shows what the package does."]
    _write(target / "index.md", "\n".join(lines) + "\n")


def _card(example: Path) -> str:
    """Title and first paragraph."""
    title, text = f"{{doc}}`{example.stem}`", _first_paragraph(example)
    return f":::{{container}} gallery-card\n:name: {example.stem}\n\n{title}\n\n{text}\n:::"


def _first_paragraph(example: Path) -> str:
    """First paragraph of text below the title."""
    cells = [c.source for c in read_page(example).cells if c.cell_type == "markdown"]
    paragraphs = [p.strip() for p in "\n\n".join(cells).split("\n\n")]
    text = next((p for p in paragraphs if p and not p.startswith(("#", "-", "|", "$", "```"))), "")
    return " ".join(text.split())


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def picture_of(page: nodes.document) -> nodes.image | None:
    """The picture that an executed example is shown by."""
    pictures = [
        picture
        for cell in page.findall(nodes.container)
        if cell.get("nb_element") == "cell_code"
        for picture in cell.findall(nodes.image)
    ]
    return next((picture for picture in pictures if picture.get("alt")), pictures[0] if pictures else None)


def fill_cards(app: Any, doctree: nodes.document, docname: str) -> None:
    """Put picture and notebook on every card: now every example has been read, and executed."""
    if docname != INDEX or app.builder.format != "html":
        return
    for card in list(doctree.findall(nodes.container)):
        if "gallery-card" not in card["classes"]:
            continue
        name, link = card["names"][0], next(iter(card.findall(nodes.reference)))
        picture = picture_of(app.env.get_doctree(f"{INDEX.rpartition('/')[0]}/{name}"))
        if picture is not None:
            alt = picture.get("alt") or link.astext()
            shown = nodes.image(uri=picture["uri"], candidates=picture["candidates"], alt=alt)
            to_page = nodes.reference("", "", shown, refuri=link["refuri"], internal=True)
            card.insert(0, nodes.paragraph("", "", to_page, classes=["gallery-picture"]))
        label = html.escape(f"{link.astext()} as a notebook")
        download = f'<p class="gallery-notebook"><a href="{name}.ipynb" download aria-label="{label}">Notebook</a></p>'
        card.append(nodes.raw("", download, format="html"))


def setup(app: Any) -> dict[str, Any]:
    app.connect("doctree-resolved", fill_cards)
    app.connect("env-updated", lambda app, env: [INDEX])  # an example's picture may be a new one
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
