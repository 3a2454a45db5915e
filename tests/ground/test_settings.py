"""Settings of the samplers that cannot be used are refused before anything is sampled."""

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.bayes.nuts import whole_seed


@pytest.fixture(scope="module")
def model(dental):
    return hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)


@pytest.mark.parametrize("seed", [-1, 2**70, 1.5, "a", True])
@pytest.mark.parametrize("sampler", ["collapsed", "explicit"])
def test_a_seed_is_a_whole_number(model, sampler, seed):
    with pytest.raises(hl.SpecificationError, match="whole number from 0"):
        model.fit(seed=seed, sampler=sampler, progressbar=False)


def test_a_generator_is_a_seed():
    first, second = (whole_seed(np.random.default_rng(3)) for _ in range(2))
    assert first == second
    assert whole_seed(np.int64(7)) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": 0}, "at least 1"),
        ({"draws": 0}, "at least 1"),
        ({"chains": 0}, "at least 1"),
        ({"target_accept": 1.0}, "strictly between 0 and 1"),
        ({"sampler": "gibbs"}, "this is not one of the choices"),
        ({"random_effects": "some"}, "this is not one of the choices"),
        ({"sampler": "collapsed", "centered": True}, "integrated out"),
        ({"sampler": "explicit", "random_effects": "none"}, "on the explicit route"),
    ],
)
def test_settings_that_cannot_be_used(model, options, message):
    with pytest.raises(hl.SpecificationError, match=message):
        model.fit(progressbar=False, **options)
