"""Draw the street: the rooms of hierlmm in the layers of the contract, and the arrows between them, from the imports.

``python tools/street.py`` writes docs/_static/street.svg and says what was counted. Layers are those of
``[tool.importlinter]`` in pyproject.toml; imports are read by grimp, those inside functions and for types included.
An arrow that follows from others is not drawn. Arrows to one room are one line that others join. Colours are those of
the page in which the picture stands.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "_static" / "street.svg"
ROW, BOX, LETTER, GAP = 58, 26, 7.6, 18

type Node = tuple[int, str]  # a layer, and a room in it, or the room further down to which a line passes


class Street(NamedTuple):
    """Rooms by layer, layer by room, arrows between rooms, number of files, arrows that run up, files in circles."""

    layers: list[list[str]]
    depth: dict[str, int]
    arrows: set[tuple[str, str]]
    files: int
    up: list[tuple[str, str]]
    circles: list[str]


def read_street() -> Street:
    """Read layers from the contract and arrows from the code."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    graph = grimp.build_graph("hierlmm", cache_dir=None)
    named = [[room.strip(" ()") for room in layer.split("|")] for layer in contract["layers"]]
    there = {_room(module) for module in graph.modules}
    layers = [kept for layer in named if (kept := [room for room in layer if room in there])]
    depth = {room: i for i, layer in enumerate(layers) for room in layer}
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    pairs = {(_room(a), _room(b)) for a, found in imports.items() for b in found}
    arrows = {(a, b) for a, b in pairs if a != b and a in depth and b in depth}
    up = sorted((a, b) for a, b in arrows if depth[a] >= depth[b])
    while free := {module for module, found in imports.items() if not found & imports.keys()}:
        imports = {module: found for module, found in imports.items() if module not in free}
    return Street(layers, depth, arrows, len(graph.modules), up, sorted(imports))


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def drawn(arrows: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that do not follow from others: a to b where nothing else that a imports leads to b."""
    below = defaultdict(set)
    for a, b in arrows:
        below[a].add(b)

    @cache
    def reach(room: str) -> frozenset[str]:
        return frozenset().union(*({b} | reach(b) for b in below[room]))

    return sorted((a, b) for a, b in arrows if not any(b in reach(c) for c in below[a]))


def place(street: Street) -> tuple[dict[Node, float], set[tuple[Node, Node]]]:
    """Horizontal places of rooms and of lines that pass their layers, and the pieces of lines from layer to layer."""
    depth, pieces = street.depth, set()
    for a, b in drawn(street.arrows):
        pieces |= set(pairwise([(depth[a], a), *((i, b) for i in range(depth[a] + 1, depth[b] + 1))]))
    rows = [[(i, room) for room in layer] for i, layer in enumerate(street.layers)]
    for node in sorted({node for piece in pieces for node in piece}):
        rows[node[0]] += [node] if node not in rows[node[0]] else []
    near: dict[Node, list[Node]] = defaultdict(list)
    for a, b in sorted(pieces):
        straight = 5 if depth[a[1]] != a[0] else 1  # a line that passes a layer is to go on as it went
        near[a] += [b] * straight
        near[b] += [a] * straight
    x = {node: 40.0 * k - 20.0 * len(row) for row in rows for k, node in enumerate(row)}
    for sweep in range(240):
        for row in rows if sweep % 2 else rows[::-1]:
            wish = {node: sum(x[n] for n in near[node] or [node]) / max(len(near[node]), 1) for node in row}
            if sweep < 120:
                row.sort(key=lambda node: (wish[node], node))
            x |= _apart(row, wish, street)
    return x, pieces


def _width(node: Node, street: Street) -> float:
    return LETTER * len(node[1]) + 18 if street.depth[node[1]] == node[0] else 4.0


def _apart(row: list[Node], wish: dict[Node, float], street: Street) -> dict[Node, float]:
    """Places near those wished for, in the order of the row, with room between them."""
    steps = [(_width(a, street) + _width(b, street)) / 2 + GAP for a, b in pairwise(row)]
    right, left = [wish[row[0]]], [wish[row[-1]]]
    for k, step in enumerate(steps):
        right.append(max(wish[row[k + 1]], right[-1] + step))
        left.append(min(wish[row[-2 - k]], left[-1] - steps[-1 - k]))
    return {node: (r + s) / 2 for node, r, s in zip(row, right, left[::-1], strict=True)}


def picture(street: Street) -> str:
    """The street as SVG."""
    x, pieces = place(street)
    least = min(v - _width(n, street) / 2 for n, v in x.items()) - 8
    width = max(v + _width(n, street) / 2 for n, v in x.items()) - least + 8
    lines = []
    for a, b in sorted(pieces):  # from below one row to the top of the next, and past it unless it ends there
        start, end, u, v = ROW * a[0] + 20 + BOX, ROW * b[0] + 18, x[a] - least, x[b] - least
        middle = (start + end) // 2
        rest = '" marker-end="url(#tip)' if street.depth[b[1]] == b[0] else f"V{end + 2 + BOX}"
        lines.append(f'<path d="M{u:.0f} {start}C{u:.0f} {middle} {v:.0f} {middle} {v:.0f} {end}{rest}"/>')
    for room, i in street.depth.items():
        w, centre, top = _width((i, room), street), x[i, room] - least, ROW * i + 20
        lines.append(f'<rect x="{centre - w / 2:.0f}" y="{top}" width="{w:.0f}" height="{BOX}" rx="5"/>')
        lines.append(f'<text x="{centre:.0f}" y="{top + 17}">{room}</text>')
    title = f"{len(street.depth)} rooms of hierlmm in {len(street.layers)} layers; imports, drawn as arrows, point down"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {ROW * len(street.layers)}" role="img" \
aria-labelledby="street-title" style="max-width: {width:.0f}px; width: 100%; height: auto">
<title id="street-title">{title}</title>
<style>.street path {{ fill: none; stroke: currentColor; stroke-opacity: .45; stroke-width: 1.3 }}
.street rect {{ fill: currentColor; fill-opacity: .08; stroke: currentColor; stroke-opacity: .8 }}
.street text {{ fill: currentColor; font: 13px sans-serif; text-anchor: middle }}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>
<g class="street">
{"\n".join(lines)}
</g>
</svg>
"""


if __name__ == "__main__":
    found = read_street()
    PICTURE.write_text(picture(found), encoding="utf-8")
    arrows = f"{len(found.arrows)} pairs of rooms, of which {len(drawn(found.arrows))} are drawn"
    print(f"rooms: {len(found.depth)}   files: {found.files}   arrows: {arrows}")
    print(f"arrows up: {len(found.up)} {found.up or ''}\nfiles in circles: {len(found.circles)} {found.circles or ''}")
