"""How to sample with NUTS: the settings, checked, and the one call of nutpie."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.trace import UNREADABLE, read_trace
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.notice import ProgressLine, elapsed_text, interactive

RATE = 200
"""Milliseconds between two reports of the sampler."""


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Parameters
    ----------
    draws, tune, chains : int
        Draws kept and warm-up draws of each chain, and the number of chains.
    seed : int or numpy.random.Generator, optional
        Drawn if not given.
    target_accept : float
        Between 0 and 1; larger is slower and safer.
    cores : int, optional
        Chains that run at the same time; all by default.
    progressbar : bool
        Show progress, in a terminal or notebook.

    Raises
    ------
    SpecificationError
        If a setting is out of range.
    """

    draws: int = 1000
    tune: int = 1000
    chains: int = 4
    target_accept: float = 0.9
    seed: Any = None
    cores: int | None = None
    progressbar: bool = True

    def __post_init__(self) -> None:
        check_settings(draws=self.draws, tune=self.tune, chains=self.chains, target_accept=self.target_accept)
        object.__setattr__(self, "seed", whole_seed(self.seed))

    @property
    def attrs(self) -> dict[str, Any]:
        """What is recorded with the draws, and what nutpie takes by these names."""
        return {name: value for name, value in asdict(self).items() if name not in ("cores", "progressbar")}


def run(model: Any, settings: Settings, **options: Any) -> Any:
    """Sample a model that nutpie compiled, and raise the KeyboardInterrupt that it turns into a shorter posterior.

    With ``return_raw_trace=True`` what nutpie recorded is returned as it is, however short.
    """
    import nutpie

    shown = settings.progressbar and interactive()
    given = {**settings.attrs, "cores": settings.cores, "save_warmup": False, "progress_bar": False, **options}
    with ProgressLine() if shown else nullcontext() as line:
        if line is not None:
            given |= {"progress_callback": _reporter(line, settings.tune), "progress_rate": RATE}
        try:
            tree = nutpie.sample(model, **given)
        except RuntimeError as error:
            if "initialization" not in str(error):
                raise
            received, reason = "sampling by NUTS", "the density is no number at any place where chains could begin"
            remedy = (
                "rescale covariates, or give priors that keep coefficients finite (hl.Priors(...)); the warnings of "
                "model.fit_ml() say whether columns separate the outcomes, which is the most common reason"
            )
            raise NotAvailableError(received, reason, remedy, "docs, page 'Posterior fits'") from error
    if not options.get("return_raw_trace") and tree["posterior"].sizes["draw"] < settings.draws:
        raise KeyboardInterrupt
    return tree


def draws_of(model: Any, name: str, settings: Settings) -> tuple[FloatArray, Any]:
    """Sample; return draws (chain, draw, n) of a vector and the sampler's statistics, without a tree around them."""
    trace = run(model, settings, return_raw_trace=True)
    try:
        draws, statistics = read_trace(trace, name, model.n_dim, settings.tune)
    except UNREADABLE:
        tree = run(model, settings)
        return tree["posterior"][name].to_numpy(), tree["sample_stats"].to_dataset()
    if draws.shape[1] < settings.draws:
        raise KeyboardInterrupt
    return draws, statistics


def _reporter(line: ProgressLine, tune: int) -> Callable[[Sequence[Any]], None]:
    """What nutpie calls every now and then with the state of its chains."""
    start = time.perf_counter()
    return lambda chains: line.show(progress_text(chains, tune, time.perf_counter() - start))


def progress_text(chains: Sequence[Any], tune: int, seconds: float) -> str:
    """How far chains are, in one line.

    Parameters
    ----------
    chains : sequence
        Of each: ``finished_draws`` and ``total_draws`` (with those of the warm-up), ``divergent_draws``.
    tune : int
        Draws of the warm-up, in which divergences say nothing.
    seconds : float
        Since the start.
    """
    done, total = sum(c.finished_draws for c in chains), sum(c.total_draws for c in chains)
    share = done / max(total, 1)
    bad = sum(draw >= tune for c in chains for draw in c.divergent_draws)
    text = f"Sampling by NUTS: {100 * share:.0f} % of {len(chains)} chain{'s' * (len(chains) != 1)}"
    text += f", {elapsed_text(share, seconds)}"
    return text + (f", {bad} divergence{'s' * (bad != 1)}" if bad else "")


def whole_seed(seed: Any) -> int:
    """Seed as a whole number; a random one for None, one drawn from a numpy generator.

    Raises
    ------
    SpecificationError
        If it is no whole number between 0 and 2^63.
    """
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**32))
    if not _is_whole(seed, 0) or int(seed) >= 2**63:
        raise SpecificationError(
            f"seed={seed!r}", "a seed is a whole number from 0 to 2^63 - 1", "use for example seed=1, or leave it out"
        )
    return int(seed)


def check_settings(*, draws: int, tune: int, chains: int, target_accept: float) -> None:
    """Refuse numbers of draws or chains below 1, and a target outside (0, 1)."""
    for name, value in (("draws", draws), ("tune", tune), ("chains", chains)):
        if not _is_whole(value, 1):
            reason = f"{name} is a whole number, at least 1"
            raise SpecificationError(f"{name}={value!r}", reason, f"use for example {name}=1")
    if not 0 < target_accept < 1:
        reason = "it is a probability strictly between 0 and 1"
        raise SpecificationError(f"target_accept={target_accept!r}", reason, "use 0.9, or 0.99 against divergences")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)
