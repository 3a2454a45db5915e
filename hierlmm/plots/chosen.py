"""Which parameters a picture of diagnostics shows: all where they are few, else those that matter, and what it says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.convergence import diagnostics
from hierlmm.diagnostics.loo import log_likelihood_tree
from hierlmm.diagnostics.psense import parameters_dataset
from hierlmm.drawing.figure import NAMED, Figure, written_out
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.named_draws import named_draws, plain_draws
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.frames import shorten
from hierlmm.options import choose

type Choice = Literal["worst", "extremes", "random"]
CHOICES = ("worst", "extremes", "random")
WORDS = {"worst": "with the largest R-hat", "extremes": "farthest from zero", "random": "at random"}
SCREENED = 1000
"""Random effects whose R-hat is looked at; of more a random sample."""
SEE = "docs, page 'Posterior fits', section 'Pictures of convergence'"
PARAMETERS = """\
parameters : str or sequence of str, optional
        Names (``"sd(Intercept)"``, ``"b[308, days]"``) or kinds (``"fixed"``, ``"sd"``, ``"corr"``, ``"residual"``,
        ``"sigma"``, ``"b"``); {default} by default.
    choose : {{"worst", "extremes", "random"}}
        Which are drawn where there are more than ``max_panels``: with the largest R-hat, farthest from zero in
        posterior SDs, or at random; the title says it. Of more than 1,000 random effects 1,000 are looked at.
    max_panels : int
        Most parameters to draw.
    seed : int, optional
        Of a choice at random."""


class Asked(Figure, total=False):
    """Arguments of a picture of parameters, as `of_parameters` explains them."""

    choose: Choice
    max_panels: int
    seed: int | None


def of_parameters[F: Callable[..., Any]](
    max_panels: int = 12, default: str = "all but the random effects"
) -> Callable[[F], F]:
    """`hierlmm.drawing.figure.pictured` for a picture of parameters: it writes out how they are chosen, too.

    The docstring says ``parameters, choose, max_panels, seed`` in a line, and is given what is drawn by default.
    """
    kinds: dict[str, tuple[str, Any]] = {"choose": ('Literal["worst", "extremes", "random"]', "worst")}
    kinds |= {"max_panels": ("int", max_panels), "seed": ("int | None", 0)}
    more = [inspect.Parameter(name, NAMED, default=value, annotation=kind) for name, (kind, value) in kinds.items()]

    def decorate(plot: F) -> F:
        doc = (plot.__doc__ or "").replace(f"parameters, {', '.join(kinds)}", PARAMETERS.format(default=default))
        return written_out(plot, more, doc)

    return decorate


@dataclass(frozen=True)
class Chosen:
    """Draws by name (chain, draw), and which of how many they are, in words: empty where they are all.

    A verdict is about all that were looked at (``judged``), whichever of them are drawn.
    """

    draws: dict[str, FloatArray]
    note: str
    judged: dict[str, FloatArray]

    @property
    def names(self) -> list[str]:
        """Names of the parameters."""
        return list(self.draws)

    @property
    def table(self) -> Any:
        """``ess_bulk``, ``ess_tail``, ``r_hat``, ``mcse`` and ``sd`` by name, of all that were looked at."""
        values = np.stack(list(self.judged.values()), axis=-1)
        return diagnostics(values, list(self.judged)).assign(sd=values.std(axis=(0, 1)))

    def tree(self, fit: PosteriorNumbers) -> Any:
        """Tree for ArviZ: ``posterior`` with one variable over ``parameter``, and the sampler's statistics."""
        import xarray as xr

        groups = {"posterior": parameters_dataset(self.draws)}
        if "sample_stats" in fit.datatree.children:
            groups["sample_stats"] = fit.datatree["sample_stats"].to_dataset()
        return xr.DataTree.from_dict(groups)


def tree_for_arviz(fit: PosteriorNumbers, chosen: Chosen) -> Any:
    """The tree of the chosen parameters with all groups that the fit has; see `PosteriorFit.for_arviz`."""
    import xarray as xr

    tree = chosen.tree(fit)
    for name in fit.datatree.children:
        if name not in (*tree.children, "prior", "log_likelihood_subject"):
            tree[name] = fit.datatree[name]
    if "prior" in fit.datatree.children:
        prior = plain_draws(fit.design, fit.datatree["prior"].to_dataset())
        draws = {name: own for name, own in prior.items() if name in chosen.draws}
        if draws:
            tree["prior"] = xr.DataTree(parameters_dataset(draws))
    tree["log_likelihood"] = log_likelihood_tree(fit, "subject")["log_likelihood"]
    tree.attrs.update(fit.datatree.attrs)
    return tree


def choose_draws(
    fit: PosteriorNumbers,
    parameters: str | Sequence[str] | None,
    asked: Asked,
    *,
    effects: bool = False,
) -> Chosen:
    """Draws of the parameters asked for, by name or kind; ``"b"`` are the random effects.

    Parameters
    ----------
    fit : PosteriorNumbers
    parameters, asked
        As `of_parameters` explains them.
    effects : bool
        Whether the random effects, if their draws are there, are among the default.
    """
    how, most, seed = asked["choose"], asked["max_panels"], asked["seed"]
    choose("choose", how, CHOICES)
    if most < 1:
        raise SpecificationError(f"max_panels={most!r}", "at least one parameter is drawn", "use 1 or more", SEE)
    kinds = named_draws(fit.design, fit.datatree["posterior"].to_dataset())
    plain = {name: values for kind in kinds.values() for name, values in kind.items()}
    named = None if parameters is None else [parameters] if isinstance(parameters, str) else list(parameters)
    wanted = _asked(plain, {kind: list(own) for kind, own in kinds.items()}, named)
    draws, screened, total = {name: plain[name] for name in wanted}, "", len(wanted)
    of_b = [item for item in named or () if item not in plain]  # a covariate may be called b, too
    if any(item.startswith("b[") for item in of_b):
        b, index = _effects(fit)
        draws |= {name: b[..., k] for name, k in _named_effects(index, of_b).items()}
        total = len(draws)
    if "b" in of_b or (effects and named is None and fit.design.term and "b" in fit.datatree["posterior"]):
        b, index = _effects(fit)
        total += len(index)
        found = _few_effects(b, how, seed)
        if len(found) < len(index):
            screened = f" among {len(found):,} random effects at random"
        names = list(index)
        draws |= {names[k]: b[..., k] for k in found}
    if not draws:
        reason, remedy = (
            "this fit has no such parameter",
            f"use names ({shorten(list(plain))}), or leave parameters out",
        )
        raise SpecificationError(f"parameters={parameters!r}", reason, remedy, SEE)
    if len(draws) <= most and total == len(draws):
        return Chosen(draws, "", draws)
    kept = _ranked(draws, how, most, seed)
    what = "parameters and random effects" if total > len(plain) else "parameters"
    note = f"{len(kept):,} of {total:,} {what}, {WORDS[how]}{screened if how == 'worst' else ''}"
    return Chosen({name: draws[name] for name in kept}, note, draws)


def parameters_only(fit: PosteriorNumbers, chosen: Chosen, plot: str) -> Chosen:
    """The choice, refused where it has random effects, whose distribution N(0, D) is a level of the model."""
    known = plain_draws(fit.design, fit.datatree["posterior"].to_dataset())
    if others := [name for name in chosen.names if name not in known]:
        reason = "random effects have no prior of their own: N(0, D) is a level of the model"
        remedy = f"ask for D, parameters=['sd', 'corr'], or look at them with fit.plot_trace({others[0]!r})"
        raise SpecificationError(f"{plot} of {shorten(others)}", reason, remedy, SEE)
    return chosen


def _asked(plain: dict[str, FloatArray], kinds: dict[str, list[str]], asked: list[str] | None) -> list[str]:
    """Names of parameters, in the order of the tables."""
    if asked is None:
        return list(plain)
    for item in asked:
        if item not in plain and item not in kinds and item != "b" and not item.startswith("b["):
            known = [*plain, *(kind for kind, own in kinds.items() if own), "b"]
            reason = f"no parameter or kind of parameter has this name.{closest(item, known)}"
            remedy = f"use names ({shorten(list(plain))}) or kinds ({', '.join(known[len(plain) :])})"
            raise SpecificationError(f"parameters={item!r}", reason, remedy, SEE)
    return [name for kind, own in kinds.items() for name in own if name in asked or kind in asked]


def _effects(fit: PosteriorNumbers) -> tuple[FloatArray, dict[str, int]]:
    """Draws of b (chain, draw, J q), and the position of each name."""
    fit.need_effects("draws of the random effects", draws=True)
    b, term = fit.draws("b"), fit.design.own_term
    names = [f"b[{subject}, {t}]" for subject in fit.design.subjects for t in term]
    return b.reshape(*b.shape[:2], -1), {name: k for k, name in enumerate(names)}


def _named_effects(index: dict[str, int], asked: Sequence[str]) -> dict[str, int]:
    found = {item: index.get(item) for item in asked if item.startswith("b[")}
    for item, k in found.items():
        if k is None:
            first = next(iter(index))
            reason = f"no random effect has this name.{closest(item, list(index))}"
            raise SpecificationError(f"parameters={item!r}", reason, f"write it as {first!r}", SEE)
    return {item: k for item, k in found.items() if k is not None}


def _few_effects(b: FloatArray, how: str, seed: int | None) -> list[int]:
    """Positions among all random effects that are looked at: the extreme ones by their means, or a random sample."""
    n = b.shape[-1]
    if n <= SCREENED:
        return list(range(n))
    if how == "extremes":
        return sorted(np.argsort(-np.abs(b.mean(axis=(0, 1))), kind="stable")[:SCREENED].tolist())
    return sorted(np.random.default_rng(seed).choice(n, SCREENED, replace=False).tolist())


def _ranked(draws: dict[str, FloatArray], how: str, most: int, seed: int | None) -> list[str]:
    """Names of the ones to draw, in the order of the tables."""
    names = list(draws)
    if how == "random":
        order = np.random.default_rng(seed).permutation(len(names))
    else:
        values = np.stack(list(draws.values()), axis=-1)
        table = diagnostics(values, names)
        score = (
            table["r_hat"].fillna(-1.0)
            if how == "worst"
            else np.abs(values.mean(axis=(0, 1)) / values.std(axis=(0, 1)))
        )
        order = np.argsort(-np.asarray(score), kind="stable")
    return [names[k] for k in sorted(order[:most])]
