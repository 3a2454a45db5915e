"""The studentised range against scipy's integral, and against Student's t, which it is for two means."""

import numpy as np
import pytest
from scipy import stats

from hierlmm.likelihood.studentized import range_quantile, range_sf


@pytest.mark.parametrize(("k", "df"), [(3, 1.0), (15, 8.0), (60, 27.5), (4, 5000.0), (15, np.inf)])
def test_it_is_scipys(k, df):
    q = np.array([0.5, 3.0, 6.0])
    np.testing.assert_allclose(range_sf(q, k, df), stats.studentized_range.sf(q, k, df), rtol=1e-7, atol=3e-9)
    assert range_quantile(0.95, k, df) == pytest.approx(stats.studentized_range.ppf(0.95, k, df), rel=1e-7)


@pytest.mark.parametrize("df", [1.0, 2.3, 27.0, 101.0, 1e6])
def test_two_means_are_a_t_test_however_far_out(df):
    q = np.array([0.0, 1.0, 5.0, 20.0])
    np.testing.assert_allclose(range_sf(q, 2, df), 2.0 * stats.t.sf(q / np.sqrt(2.0), df), rtol=1e-9)
    assert np.isnan(range_sf(np.nan, 2, df))


def test_far_tails_keep_their_digits():
    """One pair of the k is far apart, or no other way is left: Bonferroni's bound of the pairs is sharp."""
    for k in (3, 15):
        pairs = k * (k - 1) / 2
        np.testing.assert_allclose(
            range_sf(30.0, k, np.inf) / pairs, 2.0 * stats.norm.sf(30.0 / np.sqrt(2.0)), rtol=0.02
        )
