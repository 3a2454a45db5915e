"""A report is whole, stands alone, can be listened to, and its code makes the fit again."""

import html
import re

import pytest
from reports import check_page, contrast

import hierlmm as hl
from hierlmm.pages.sections import SECTIONS

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
