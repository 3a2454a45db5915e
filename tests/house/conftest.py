"""What examples have in common when they are run."""

from __future__ import annotations

import warnings

import pytest

import hierlmm as hl


@pytest.fixture
def short_chains(monkeypatch):
    """Posteriors of 250 draws a chain, without the warnings that these are few: what runs does not depend on it.

    `make docs` samples as an example says, and shows what it warns of.
    """
    from hierlmm.bayes import route

    sampled = route.sample_posterior

    def short(*arguments, draws, tune, **options):
        return sampled(*arguments, draws=min(draws, 250), tune=min(tune or 300, 300), **options)

    monkeypatch.setattr(route, "sample_posterior", short)
    with warnings.catch_warnings():
        for few in ("R-hat", "effective", "diverge", "E-BFMI", "Pareto k"):
            warnings.filterwarnings("ignore", f"(?s).*{few}", hl.FitWarning)
        yield
