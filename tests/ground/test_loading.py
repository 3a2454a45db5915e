"""The collector rests while packages are loaded, and only then."""

import gc

import pytest

from hierlmm.loading import loading


def test_the_collector_rests_and_comes_back():
    assert gc.isenabled()
    with pytest.raises(ImportError, match="no_such"), loading():
        assert not gc.isenabled()
        import no_such_module  # noqa: F401
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with loading():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
