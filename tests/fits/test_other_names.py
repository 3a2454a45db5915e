"""Names that lme4, nlme and emmeans have for what a fit answers, and fits without the random effects of their model."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hierlmm.errors import NotAvailableError
from hierlmm.fit.likelihood import LikelihoodFit
from hierlmm.fits.capabilities import LME4


@pytest.mark.parametrize("name", LME4)
def test_names_of_r_say_which_is_meant(name, dental_reml):
    with pytest.raises(NotAvailableError) as refused:
        getattr(dental_reml, name)
    used = re.findall(r"fit\.(\w+)", refused.value.remedy)
    assert used and all(hasattr(dental_reml, other) for other in used)
    assert not hasattr(dental_reml, name)


def test_any_other_name_is_an_attribute_error(dental_reml):
    with pytest.raises(AttributeError, match="has no attribute 'ranova'"):
        dental_reml.ranova  # noqa: B018


def test_a_fit_without_the_random_effects_of_its_model(dental_reml):
    """What is asked of every fit asks the fit, not its design."""

    class Pooled(LikelihoodFit):
        has_random_effects = False

        @property
        def b(self):
            raise AssertionError

        D = b

    fit = Pooled(dental_reml.design, dental_reml.criterion_function, dental_reml.optimum, ())
    assert fit.fitted().equals(dental_reml.fitted("population"))
    pearson = dental_reml.residuals("response", "population") / dental_reml.sigma
    for level in ("subject", "population"):
        for kind in ("pearson", "normalized"):
            np.testing.assert_allclose(fit.residuals(kind, level), pearson, rtol=1e-12)
    np.testing.assert_allclose(fit.marginal_covariance(1), fit.sigma**2 * np.eye(4), rtol=1e-12)


@pytest.mark.parametrize("name", ["plot_ppc", "ppc", "posterior_predictive", "extend", "for_arviz"])
def test_what_is_made_of_draws_says_so(dental_reml, name):
    with pytest.raises(NotAvailableError, match="plot_residuals"):
        getattr(dental_reml, name)()
