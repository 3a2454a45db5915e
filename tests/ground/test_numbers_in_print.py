"""Numbers in prints: no minus before zero, zero for what is zero, no false 1, and ends of an interval alike."""

import re

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.fits.text import correlation_lines, correlation_text
from hierlmm.text import probability_text, span, table_lines, table_text

NEGATIVE_ZERO = re.compile(r"-0\.?0*(?![\d.])")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (19.9, 22.52, "19.90 to 22.52"),
        (19.9, 22.5, "19.9 to 22.5"),
        (8.0, 14.0, "8 to 14"),
        (0.041234, 0.57123, "0.0412 to 0.5712"),
        (-0.0034, 12.3456, "-0.0034 to 12.3456"),
        (-1234.56, 98765.4, "-1235 to 98765"),
        (0.0, 2.5, "0 to 2.5"),
        (1e-17, 2.5, "1e-17 to 2.5"),
        (-2.5e10, 3.0e10, "-2.5e+10 to 3e+10"),
        (-np.inf, 1.0, "-inf to 1"),
        (100.0, 2000.0, "100 to 2000"),
    ],
)
def test_both_ends_have_the_same_number_of_decimals(low, high, text):
    assert span(low, high) == text
    ends = text.split(" to ")
    assert all(float(end) == pytest.approx(v, rel=5e-2) for end, v in zip(ends, (low, high), strict=True))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.99999, ">0.9999"),
        (1 - 1e-12, ">0.9999"),
        (0.9999, "0.9999"),
        (1.0, "1.0000"),
        (0.0, "0.0000"),
        (1e-12, "<0.0001"),
        (0.5, "0.5000"),
        (np.nan, ""),
    ],
)
def test_a_share_reads_as_one_only_if_it_is(value, text):
    assert probability_text(value) == text


def test_a_share_that_is_nearly_one_in_the_print_of_a_fit():
    dental = hl.load_dataset("dental")
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    for above in (-0.3, -0.25):
        found = fit.heterogeneity("time", above=above)
        share = found.table["share"].max()
        assert 0.9999 < share < 1.0
        exact = int((found.table[["share", "share_lower", "share_upper"]] == 1.0).to_numpy().sum())
        assert ">0.9999" in repr(found) and repr(found).count(" 1.0000") == exact
        assert "&gt;0.9999" in found._repr_html_() and "<td>1</td>" not in found._repr_html_()


def test_no_minus_before_a_zero():
    table = pd.DataFrame({"estimate": [12.3456, -1e-9], "t": [3.2, -0.0004]}, index=["a", "b"])
    cov = pd.DataFrame([[1.0, -1e-5], [-1e-5, 1.0]], index=["a", "b"], columns=["a", "b"])
    keyed = table.assign(term=["x", "y"])
    for text in (table_text(table, 5), correlation_text(cov), "\n".join(table_lines(keyed, ["term"]))):
        assert not NEGATIVE_ZERO.search(text), text


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_variance_of_zero_is_zero(scale):
    """Noise without subjects: what is left on the boundary is 0, neither 5.1e-23 nor -0."""
    rng = np.random.default_rng(1)
    dental = hl.load_dataset("dental")
    seen = 0
    for _ in range(6):
        data = dental.assign(y=scale * rng.normal(size=len(dental)))
        for bars, more in (
            ("(1 | subject)", {}),
            ("(1 + time || subject)", {}),
            ("(1 | subject)", {"residual": hl.AR1("time")}),
            ("(1 + time || subject)", {"residual_variance": hl.VarIdent("sex")}),
        ):
            fit = hl.TwoLevelModel.from_formula(f"y ~ time + {bars}", data, **more).fit_reml()
            lam = fit.optimum.lam[: fit.criterion_function.structure.n_parameters]
            small = np.abs(lam) < 1e-9
            seen += int(small.sum())
            assert not np.signbit(lam[small]).any() and np.all(lam[small] == 0.0)
            assert np.all(np.diag(fit.D)[small] == 0.0)
            printed = repr(fit).split("Converged")[0]
            assert not re.search(r"e-(1[2-9]|[2-9]\d)", printed) and not NEGATIVE_ZERO.search(printed)
    assert seen > 5


@pytest.mark.parametrize(("n", "shown"), [(12, True), (13, False)])
def test_correlations_that_do_not_fit_a_page_are_left_out_and_said_where(n, shown):
    names = [f"coefficient {k}" for k in range(n)]
    lines = correlation_lines("coefficients", pd.DataFrame(np.eye(n), names, names))
    assert shown or all(len(line) <= 110 for line in lines)
    assert ("0.000" in lines[-1]) == shown == ("fit.beta_cov" not in " ".join(lines))
