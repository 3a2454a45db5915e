"""Which rows two fits left out, where labels of rows do not tell them apart."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.inference.rows import other_kept, other_rows


def designs(frame, *formulas):
    with pytest.warns(UserWarning, match="missing"):
        return [hl.TwoLevelModel.from_formula(f, frame, missing="drop").design for f in formulas]


@pytest.fixture
def frame():
    """Two tables put together with their labels: rows 3 and 4 of the first have one response, and each lacks one."""
    rng = np.random.default_rng(2)
    half = pd.DataFrame({"id": np.repeat(np.arange(10), 4), "u": rng.normal(size=40), "v": rng.normal(size=40)})
    half["y"] = rng.normal(size=40)
    both = pd.concat([half, half.assign(id=half["id"] + 10, y=rng.normal(size=40))])
    y, u, v = (both.columns.get_loc(c) for c in "yuv")
    both.iloc[2, y] = both.iloc[1, y]
    both.iloc[1, u] = both.iloc[2, v] = np.nan
    return both


def test_rows_with_one_response_and_labels_that_come_twice(frame):
    u, v, again = designs(frame, "y ~ u + (1 | id)", "y ~ v + (1 | id)", "y ~ u + I(u**2) + (1 | id)")
    assert not u.frame.index.is_unique and np.array_equal(u.y, v.y)
    assert other_kept(u, v) and "dropped 1 rows, and 1 others" in other_rows(u, v)[0]
    assert not other_kept(u, again) and other_rows(u, again) is None
    assert list(u.rows.kept[:3]) == [0, 2, 3]


def test_an_index_that_was_reset_is_the_same_table(frame):
    named = frame.set_axis([f"row {k}" for k in range(len(frame))])
    (u,), (again,) = (designs(d, "y ~ u + (1 | id)") for d in (named, named.reset_index(drop=True)))
    assert other_rows(u, again) is None
    (v,) = designs(named.reset_index(drop=True), "y ~ v + (1 | id)")
    assert other_rows(u, v) is not None


def test_one_of_the_tables_is_a_part(frame):
    """Then places say nothing: labels do if they are unique, else the values of shared columns."""
    for index in (np.arange(80), np.arange(80) // 2):
        own = frame.set_axis(index)
        own.iloc[5, own.columns.get_loc("u")] = own.iloc[9, own.columns.get_loc("u")] = np.nan
        short = own.drop(own.index[60:])
        longer = pd.concat([short, own.iloc[[5]]])
        (whole,), (more,) = designs(short, "y ~ u + (1 | id)"), designs(longer, "y ~ u + (1 | id)")
        assert not other_kept(whole, more)
        filled = short.assign(u=short["u"].where(np.arange(60) != 5, 0.0)).drop(columns="v")
        filled.iloc[10, filled.columns.get_loc("u")] = np.nan
        (other,) = designs(pd.concat([filled, own.iloc[[5]]]), "y ~ u + (1 | id)")
        assert other.n_obs == whole.n_obs and other_kept(whole, other)
