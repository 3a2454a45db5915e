"""A report is whole, stands alone, can be listened to, and its code makes the fit again."""

import html
import re

import pytest
from reports import check_page, contrast

import hierlmm as hl
from hierlmm.pages.report import WIDE, _fitted_in
from hierlmm.pages.sections import COMMANDS, INTERVALS, SECTIONS, Asked, _side_by_side, _words, warnings_of

FEW = 399
OF_DRAWS = {"Convergence", "Chains", "Posterior predictive check"}


@pytest.fixture(scope="module")
def fit(sleepstudy):
    """With names that would be tags if they were not escaped."""
    arm = (sleepstudy["subject"].astype(str) > "335").map({True: "<script>a", False: "b"})
    data = sleepstudy.rename(columns={"days": "<b>x&y"}).assign(arm=arm)
    return hl.TwoLevelModel.from_formula("reaction ~ `<b>x&y` * arm + (1 | subject)", data).fit_reml()


@pytest.fixture(scope="module")
def text(fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "sleep.html"
    assert fit.report(path, title="<i>", simulations=FEW, source="table") == path
    return path.read_text(encoding="utf-8")


def test_a_report_of_reml_is_whole_and_loads_nothing(text):
    page = check_page(text)
    words = {words.strip() for _, words in page.headings}
    assert words >= {piece.heading for pieces in SECTIONS.values() for piece in pieces} - OF_DRAWS - {""}
    assert words >= {"Question and data", "Can the fit be believed?", "Code"} and "Priors" not in words
    assert text.count("<svg") == text.count('role="img"') >= 9
    assert "Read this first" not in text and "Not in this report" not in text


def test_names_of_the_user_are_escaped(text):
    assert "<b>" not in text and "&lt;b&gt;x&amp;y" in text and "<h1>&lt;i&gt;</h1>" in text


def test_the_code_on_the_page_makes_the_fit_again(text, fit):
    code = html.unescape(re.search(r"<code>(import hierlmm.*?)</code>", text, re.S)[1])
    names = {"table": fit.design.frame}
    exec(code.rsplit("\n", 1)[0], names)
    assert names["fit"].loglik == fit.loglik


def test_colours_can_be_read_in_light_and_dark(text):
    sets = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", text)]
    light, dark = sets[:2]
    for colours in (light, dark):
        for ink in ("ink", "soft", "link"):
            assert contrast(colours[ink], colours["paper"]) >= 4.5 <= contrast(colours[ink], colours["card"])
        assert (
            contrast(colours["alarm"], colours["alarm-card"]) >= 4.5 <= contrast(colours["ink"], colours["alarm-card"])
        )


def test_a_file_that_cannot_be_written_is_refused(fit, tmp_path):
    for path in (tmp_path / "report.pdf", tmp_path / "nowhere" / "report.html"):
        with pytest.raises(hl.errors.SpecificationError):
            fit.report(path)


def test_warnings_stand_at_the_top_and_not_again_in_the_words():
    data = hl.load_dataset("negative_icc")
    singular = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", data).fit_reml()
    told, known = _words(Asked(hl.compare(singular), singular, FEW, {})), warnings_of(singular)
    assert known and set(known) <= {s.text for s in singular.interpret().sentences}
    assert not set(known) & {s.text for s in told.sentences} and len(told.sentences) > 5


def test_tables_say_what_paper_must_know():
    """Many columns are set small on paper, and long cells keep a width on a telephone."""
    row, long = "<tr>{}</tr>", "a sentence that would be broken into one word a line"
    few, many = (f"<table>{row.format('<td>1</td>' * n)}</table>" for n in (WIDE, WIDE + 1))
    assert 'class="scroll"' in _fitted_in(few) and 'class="scroll wide"' in _fitted_in(many)
    assert f'<td class="long">{long}' in _fitted_in(few.replace("<td>1", f"<td>{long}", 1))


def test_paper_has_what_is_closed_on_a_screen_but_no_source_of_equations(text):
    """Opened where the browser can (`::details-content`); rows, small tables and pictures are not torn."""
    paper = text.partition("@media print")[2].partition("</style>")[0]
    assert "details::details-content { content-visibility: visible" in paper
    assert ".shown details { display: none" in paper
    assert re.search(r"\.picture, tr, table, li \{ break-inside: avoid", paper) and "filter: none" in paper


def test_two_kinds_of_intervals_are_explained(text, sleepstudy):
    assert INTERVALS in html.unescape(text) and COMMANDS in html.unescape(text)
    gee = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy).fit_gee()
    assert INTERVALS not in _side_by_side(Asked(hl.compare(gee), gee, FEW, {})).html
