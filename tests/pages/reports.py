"""What a browser and a reader who listens would find on a page: structure, names, colours, addresses."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "hr", "input", "link", "col"}
LOADS = ("src", "href", "srcset", "data", "poster", "action")


class Read(HTMLParser):
    """Headings, tables, pictures, ids and whatever is loaded, of one page."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.ids, self.refers, self.loads, self.unnamed, self.tables = [], [], [], [], [], []
        self.open, self.title, self.language, self.bare = [], "", None, 0
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, pairs):
        attrs = dict(pairs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.language = attrs.get("lang", self.language)
        for name in LOADS:
            value = attrs.get(name) or ""
            (self.refers if value.startswith("#") else self.loads).extend([value] if value else [])
        self.refers += [
            f"#{found}" for value in attrs.values() for found in re.findall(r"url\(#([^)]+)\)", value or "")
        ]
        self.loads += [found for value in attrs.values() for found in re.findall(r"url\(([^#)][^)]*)\)", value or "")]
        if tag in ("svg", "img") and not (attrs.get("aria-label") or attrs.get("alt")):
            self.unnamed.append(tag)
        if tag == "table" and "style" not in attrs:  # a matrix of an equation has one
            self.tables.append("")
        self.bare += tag == "th" and not attrs.get("scope")

    def handle_startendtag(self, tag, pairs):
        self.handle_starttag(tag, pairs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, (tag, self.open[-5:])

    def handle_data(self, data):
        if self.open[-1:] == ["title"]:
            self.title += data
        if self.headings and any(re.fullmatch("h[1-6]", tag) for tag in self.open):
            self.headings[-1][1] += data
        if self.open[-1:] == ["caption"]:
            self.tables[-1] += data


def check_page(text):
    """Structure that holds of every report; returns what was read."""
    page = Read(text)
    levels = [level for level, _ in page.headings]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(words.strip() for _, words in page.headings)
    assert page.language == "en" and page.title
    assert not page.unnamed and not page.bare
    assert all(page.tables)
    assert len(page.ids) == len(set(page.ids))
    assert {name.removeprefix("#") for name in page.refers} <= set(page.ids)
    assert all(name.startswith("data:") for name in page.loads)
    assert not re.search(r"https?://|@import|<script|<link|xmlns", text)
    assert len(text.encode()) < 3e6
    return page


def luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    """Of two colours, as WCAG defines it."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
