"""What a notebook shows: tables with headings that say what they name, in colours that no background swallows."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.bayes import nuts
from hierlmm.diagnostics.replicate import replicate
from hierlmm.notice import ProgressLine


@pytest.fixture(scope="module")
def shown(dental, dental_reml, dental_like_nuts):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental)
    one = model.fit_reml()
    return {
        "REML": dental_reml,
        "GEE": model.fit_gee(),
        "posterior": dental_like_nuts,
        "check": hl.is_hierarchical(0.7 * np.eye(4) + 0.3, ["Intercept"]),
        "no hierarchy": hl.is_hierarchical(1.2 * np.eye(4) - 0.2, ["Intercept"]),
        "same marginal": hl.same_marginal(model),
        "steps": hl.gls_steps(model),
        "implied": hl.compare_implied(dental_reml, one, draws=0),
        "priors": model.priors,
        "chosen priors": hl.Priors(beta={"time": hl.Normal(0, 1)}, sigma=hl.HalfNormal(2)),
        "comparison": hl.compare(one, model.fit_ml()),
        "for print": Printed(hl.compare(one).to_gt(title="Growth")),
    }


class Printed:
    def __init__(self, table):
        self._repr_html_ = table.as_raw_html


KINDS = ["REML", "GEE", "posterior", "check", "no hierarchy", "same marginal", "steps", "implied", "priors"]
KINDS += ["chosen priors", "comparison", "for print"]


class Structure(HTMLParser):
    """Open elements, captions, headings without scope, and styles."""

    VOID = ("br", "hr", "img", "meta", "col")

    def __init__(self, page):
        super().__init__()
        self.open, self.count, self.unscoped, self.styles = [], {}, [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag == "th" and attrs.get("scope") is None:
            self.unscoped.append(attrs)
        self.styles.append(attrs.get("style") or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_table_whose_headings_name_rows_and_columns(kind, shown):
    page = shown[kind]._repr_html_()
    found = Structure(page)
    assert not found.open and not found.unscoped
    assert found.count["table"] >= 1 and found.count["th"] >= 2 and "pre" not in found.count
    titled = found.count.get("caption", 0) or page.count("gt_title")
    assert titled >= 1


def fixed_letters(css):
    """Rules that fix the colour of letters and leave the ground to others."""
    rules = re.findall(r"([^{}]*)\{([^{}]*)\}", css)
    pattern = r"(?<![-\w]){}:\s*(#|rgb|black|white|grey|gray)"
    return [
        name.strip()
        for name, body in rules
        if re.search(pattern.format("color"), body) and not re.search(pattern.format("background(?:-color)?"), body)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_letters_are_seen_on_black_and_on_white(kind, shown):
    """No rule sets the colour of letters without that of the ground behind them."""
    page = shown[kind]._repr_html_()
    sheets = re.findall(r"<style[^>]*>(.*?)</style>", page, re.S)
    own = [f"own {{{style}}}" for style in Structure(page).styles if style]
    assert not [name for sheet in [*sheets, *own] for name in fixed_letters(sheet)]


def test_the_check_of_colours_sees_fixed_ones():
    assert fixed_letters(".a { color: #333333; } .b { color: #333; background-color: #fff; }") == [".a"]
    assert not fixed_letters(".a { border-top-color: #333333; color: inherit }")


def test_priors_say_what_they_said(dental):
    priors = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).priors
    lines = str(priors).splitlines()
    assert lines[0] == "Priors (defaults, scaled to the data)" and repr(priors) == str(priors)
    assert [line.split("  ")[-1].strip() for line in lines[1:]] == list(priors.to_frame()["prior"])
    assert "Normal" in priors._repr_html_() and priors.table.equals(priors.to_frame())


# Progress.


class Terminal:
    """Standard error of a terminal, as a reader sees it."""

    def __init__(self):
        self.screen, self.seen, self.position = [], [], 0

    def write(self, text):
        for letter in text:
            if letter == "\r":
                self.position = 0
            else:
                self.screen[self.position : self.position + 1] = [letter]
                self.position += 1

    def flush(self):
        self.seen.append("".join(self.screen).rstrip())

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("hierlmm.notice.sys", SimpleNamespace(stderr=screen, modules={}))
    monkeypatch.setattr(nuts, "interactive", lambda: True)
    return screen


def test_progress_is_one_line_that_disappears(terminal):
    with ProgressLine() as line:
        line.show("a long line of text")
        line.show("short")
        assert terminal.seen == ["a long line of text", "short"]
    line.show("too late")
    assert terminal.seen[-1] == "" and "".join(terminal.screen).strip() == ""


def test_a_silent_line_writes_nothing(terminal):
    with ProgressLine():
        pass
    assert terminal.seen == []


class Chain:
    finished_draws, total_draws, divergent_draws = 750, 1500, [3, 600, 1200]


def test_work_on_many_data_sets_shows_a_bar_that_disappears(terminal, monkeypatch):
    monkeypatch.setattr("hierlmm.notice.RATE", 0.0)
    monkeypatch.setattr("hierlmm.diagnostics.replicate.interactive", lambda: True)
    results, failures = replicate(lambda k: k, 48, cores=2, progressbar=True, label="Refits")
    assert results == list(range(48)) and not failures
    assert any(text.startswith(f"Refits [{'#' * 12}{'.' * 12}] 24 of 48, 0 s") for text in terminal.seen)
    assert terminal.seen[-1] == "" and "".join(terminal.screen).strip() == ""


def test_a_profile_shows_how_far_it_is(terminal, monkeypatch, sleep_reml):
    monkeypatch.setattr("hierlmm.notice.RATE", 0.0)
    monkeypatch.setattr("hierlmm.inference.profile.interactive", lambda: True)
    sleep_reml.profile(["days", "sigma"])
    assert any(text.startswith("Profile likelihood [") and "1 of 2" in text for text in terminal.seen)
    assert terminal.seen[-1] == ""
    seen = len(terminal.seen)
    sleep_reml.profile("days", progressbar=False)
    assert len(terminal.seen) == seen


def test_progress_in_words():
    text = nuts.progress_text([Chain, Chain], 1000, 6.0)
    assert text == "Sampling by NUTS: 50 % of 2 chains, 6 s, about 6 s left, 2 divergences"


@pytest.mark.parametrize("shown", [True, False])
def test_sampling_shows_its_line_and_leaves_nothing(terminal, shown, dental, monkeypatch):
    monkeypatch.setattr(nuts, "RATE", 1)
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)
    model.fit(draws=400, tune=400, chains=2, seed=1, progressbar=shown)
    assert any("Sampling by NUTS" in text for text in terminal.seen) == shown
    assert "Sampling" not in "".join(terminal.screen)
