"""What a fit would be without each subject: Cook's distance, DFBETAS, changes of the variances.

With β_(j) and Cov(β)_(j) of the fit without subject j (`hierlmm.likelihood.deletion`; of another family
`hierlmm.likelihood.generalised_deletion`), p coefficients

    Cook's distance   (β̂ - β_(j))' Cov(β̂)⁻¹ (β̂ - β_(j)) / p,      DFBETAS   (β̂_k - β_k(j)) / se(β̂_k),
    covariance ratio  |Cov(β)_(j)| / |Cov(β̂)|

and the move of the covariance parameters in standard errors. A posterior is a distribution of β and θ: its means and
covariance stand for estimates and Cov(β̂), and those without subject j are of its draws with the weights

    w_s ∝ 1 / p(y_j | β_s, θ_s),

random effects integrated out, Pareto-smoothed. The move of the covariance parameters is the Mahalanobis distance of the
means of standard deviations, correlations and σ.

References
----------
Banerjee, M., Frees, E. W. (1997). Influence diagnostics for linear longitudinal models. J. Amer. Statist. Assoc. 92,
999-1005.

Demidenko, E., Stukel, T. A. (2005). Influence analysis for linear mixed-effects models. Statistics in Medicine 24,
893-909.

Vehtari, A., Simpson, D., Gelman, A., Yao, Y., Gabry, J. (2024). Pareto smoothed importance sampling. Journal of Machine
Learning Research 25 (72).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.convergence import GOOD_K, smoothed_weights
from hierlmm.checks.group_influence import without_groups
from hierlmm.design.factors import unknown_factor
from hierlmm.design.rows import Grouping
from hierlmm.diagnostics.loo import log_likelihood_pieces
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import NotAvailableError, warn
from hierlmm.fits.base import Fit
from hierlmm.fits.components import component_labels, component_values, family_components
from hierlmm.fits.named_draws import plain_draws
from hierlmm.frames import apart, shorten
from hierlmm.likelihood.deletion import Deletion, delete_subjects
from hierlmm.likelihood.generalised_deletion import delete_subjects_generalised
from hierlmm.options import checked, choose
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import count, number, sayer, table_lines

THETAS = ("updated", "fixed")
SHOWN = 10
SEE = "docs, page 'Checks'"
SAY = sayer(__file__)


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Influence(Result):
    """What the fit would be without each subject, made by ``fit.influence()``. Frozen.

    Attributes
    ----------
    table : DataFrame by subject
        ``rows``; ``cook``, Cook's distance of all coefficients; ``dfbetas``, the largest one in size, and ``coef``,
        whose it is; ``theta``, how far the covariance parameters move, in standard errors (relative ones, given σ; 0 if
        they are held); ``covratio``, the determinant of the covariance of the coefficients over that of the fit (above
        1: the subject makes them more precise). NaN where the other subjects do not determine all coefficients. Of a
        posterior means and SDs stand for estimates and standard errors, and ``pareto_k`` says how well its draws can be
        weighted.
    beta, dfbetas : DataFrame, subject × coef
        Coefficients without the subject, and by how many of the fit's standard errors the subject moves each.
    components : DataFrame, subject × component
        Standard deviations, correlations, residual parameters and σ without the subject.
    theta : {"updated", "fixed"}
    estimator, subject : str
    how : str
        How it was found, in words.
    good_k : float
        Largest Pareto k at which the numbers of a subject can be relied on; infinite where nothing was weighted.
    """

    table: pd.DataFrame
    beta: pd.DataFrame
    dfbetas: pd.DataFrame
    components: pd.DataFrame
    theta: str
    estimator: str
    subject: str
    how: str
    good_k: float
    _units: str = "subjects"

    @property
    def _groups(self) -> str:
        """End of the names of sentences that speak of groups."""
        return "" if self._units == "subjects" else "_groups"

    @property
    def verdict(self) -> str:
        """Which subject moves the coefficients most, and whom they cannot do without."""
        lost = self.table.index[self.table["cook"].isna()]
        said = (
            [SAY(f"influence.lost{self._groups}", subjects=", ".join(map(str, lost[:5])), n=len(lost))]
            if len(lost)
            else []
        )
        if len(lost) < len(self.table):
            first = self.table.sort_values("cook", ascending=False).iloc[0]
            said.append(
                SAY(
                    f"influence.most{self._groups}",
                    subject=f"{self.subject} {first.name}",
                    cook=number(first["cook"]),
                    coef=first["coef"],
                    se=f"{abs(first['dfbetas']):.2f}",
                    way="up" if first["dfbetas"] > 0 else "down",
                )
            )
        return " ".join([*said, *([self.unreliable] if self.unreliable else [])])

    @property
    def unreliable(self) -> str:
        """Which subjects the draws of a posterior cannot do without, in words; empty if none."""
        k = self.table["pareto_k"] if "pareto_k" in self.table else pd.Series(dtype=float)
        bad = k[~(k <= self.good_k)].sort_values(ascending=False)
        named = shorten(f"{who} ({value:z.2f})" for who, value in bad.items())
        return (
            SAY("influence.unreliable", named=named, n=count(len(bad), "subject"), good=self.good_k) if len(bad) else ""
        )

    @pictured
    def plot(self, *, max_labels: int = 5, **figure: Unpack[Figure]) -> Any:
        """Draw Cook's distance of every subject beside the move of the covariance parameters.

        Parameters
        ----------
        max_labels : int
            Subjects that are named, those with the largest values.

        Returns
        -------
        Picture
            Visuals ``points`` and ``standing_out``.
        """
        from hierlmm.drawing.influence import plot_influence

        return plot_influence(self, max_labels=max_labels, **figure)

    def _page(self) -> Page:
        shown = self.table.sort_values("cook", ascending=False).head(SHOWN).reset_index()
        who = shown.columns[0]
        shown = shown.astype({who: str, "rows": str})
        many = f"{len(self.table)} {self._units}" if self._groups else count(len(self.table), "subject")
        title = f"Influence of {many} on the fit by {self.estimator}"
        table = Table(
            shown, table_lines(shown, [who, "rows", "coef"]), f"{self._units.capitalize()} by Cook's distance"
        )
        return Page(title, ["", table, "", Paragraph(self.verdict, 110), Paragraph(self.how, 110)])


@checked
def influence(fit: Fit, theta: Literal["updated", "fixed"] = "updated", factor: str | None = None) -> Influence:
    """What a fit would be without each subject in turn; see `CheckVerbs.influence`.

    Parameters
    ----------
    fit : LikelihoodFit, GeneralisedFit or posterior
    theta : {"updated", "fixed"}
    factor : str, optional
        Of a fit with several grouping factors: the one whose groups are left out.
    """
    choose("theta", theta, THETAS)
    design, closed = fit.design, fit.has_likelihood and fit.design.is_gaussian
    if not design.coef:
        received, reason = "influence() of a model without fixed effects", "no coefficient moves without a subject"
        raise NotAvailableError(received, reason, "fit the other subjects and compare fit.variance_components()", SEE)
    if theta == "fixed" and not closed:
        reason = "only those of a normal response, by REML or ML, have a closed form at held covariance parameters"
        raise NotAvailableError(f"influence('fixed') of a fit by {fit.estimator}", reason, "leave theta out", SEE)
    if not np.all(np.isfinite(fit.beta_cov)):
        received, reason = "influence() of a fit", "already all subjects together do not determine all coefficients"
        raise NotAvailableError(received, reason, "see fit.warnings, and fit a simpler model", SEE)
    found, units = _found(fit, theta, factor)
    change = fit.beta.to_numpy() - found.beta
    cov, se = fit.beta_cov.to_numpy(), fit.beta_se.to_numpy()
    dfbetas = change / se
    known = np.isfinite(found.moved)
    largest = np.where(known, np.argmax(np.abs(np.where(known[:, None], dfbetas, 0.0)), axis=1), 0)
    own = np.where(known[:, None, None], found.beta_cov, cov)
    rows = {
        "rows": units.sizes,
        "cook": np.einsum("ja,ab,jb->j", change, np.linalg.inv(cov), change) / len(se),
        "dfbetas": dfbetas[np.arange(len(known)), largest],
        "coef": np.where(known, np.array(design.coef, dtype=object)[largest], ""),
        "theta": found.moved,
        "covratio": np.where(known, np.exp(np.linalg.slogdet(own)[1] - np.linalg.slogdet(cov)[1]), np.nan),
    } | ({"pareto_k": found.k} if found.k is not None else {})
    name = str(units.labels.name)
    subjects = units.labels.rename(apart([name], rows)[name])
    by_groups = "groups" if design.has_several_factors else theta
    how = SAY(f"influence.{'draws' if fit.has_draws else by_groups if closed else 'family'}", good=found.good_k)
    if near := _near_zero(fit) if by_groups == "updated" else []:
        how += " " + SAY("influence.zero", names=" and ".join(near))
    result = Influence(
        pd.DataFrame(rows, index=subjects),
        pd.DataFrame(found.beta, index=subjects, columns=list(design.coef)),
        pd.DataFrame(dfbetas, index=subjects, columns=list(design.coef)),
        found.components.set_axis(subjects),
        theta,
        fit.estimator,
        name,
        how,
        found.good_k,
        f"groups of {name}" if design.has_several_factors else "subjects",
    )
    if said := result.unreliable:
        warn(said)
    return result


def _found(fit: Any, theta: str, factor: str | None) -> tuple[_Without, Grouping]:
    """Estimates without each subject, or group of a factor, and what these are."""
    design = fit.design
    if not design.has_several_factors:
        found = _of_draws(fit) if fit.has_draws else _of_likelihood(fit, update=theta == "updated")
        return found, design.rows.subject
    groups = {term.columns.group: term.group for term in design.random}
    if factor not in groups:
        raise unknown_factor(factor, list(groups))
    return _Without(*without_groups(fit, groups[factor])), groups[factor]


def _near_zero(fit: Any) -> list[str]:
    """Standard deviations of random effects that are zero, or smaller than their standard errors."""
    if fit.has_draws or not fit.has_random_effects:
        return []
    table = fit.variance_components()
    sd = table[table.index.str.startswith("sd(")]
    return list(sd.index[~(sd["estimate"] > sd["se"])])


class _Without(NamedTuple):
    """Without each subject: β (J, p), Cov(β) (J, p, p), covariance parameters by name and their move (J,).

    Of a posterior Pareto k (J,), and how large it may be.
    """

    beta: FloatArray
    beta_cov: FloatArray
    components: pd.DataFrame
    moved: FloatArray
    k: FloatArray | None = None
    good_k: float = np.inf


def _of_likelihood(fit: Any, *, update: bool) -> _Without:
    """Of a maximum of the likelihood."""
    found = deletion_of(fit, update=update)
    names = list(_components(fit, fit.optimum.lam, np.nan))
    each = zip(found.psi, found.sd, found.known, strict=True)
    rows = [_components(fit, psi, float(sd)) if known else {} for psi, sd, known in each]
    return _Without(found.beta, found.beta_cov, pd.DataFrame(rows, columns=names), found.moved)


def deletion_of(fit: Any, *, update: bool = True) -> Deletion:
    """Estimates without each subject in turn."""
    if not fit.design.is_gaussian:
        return delete_subjects_generalised(fit.record)
    psi, sd = fit.optimum.lam, fit.solution.working_sd
    return delete_subjects(fit.design, fit.criterion_function, psi, sd, update=update)


def _components(fit: Any, psi: FloatArray, sd: float) -> dict[str, float]:
    """Covariance parameters by name, at other parameters of the likelihood."""
    design = fit.design
    if not design.is_gaussian:
        return family_components(design, fit.record.at(psi))
    at = fit.criterion_function.solution(psi, sd)
    values = component_values(design, at.D, at.sigma) if design.term else [at.sigma]
    names = component_labels(design) if design.term else ["sigma"]
    return dict(zip(names, values, strict=True)) | at.residual_parameters


def _of_draws(fit: Any) -> _Without:
    """Of a posterior: means and covariances of its draws, weighted by one over the likelihood of the subject."""
    draws = plain_draws(fit.design, fit.datatree["posterior"].to_dataset())
    values = np.column_stack([own.ravel() for own in draws.values()])
    centre, scale = values.mean(axis=0), values.std(axis=0)
    z = (values - centre) / np.where(scale > 0.0, scale, 1.0)
    p, J = len(fit.design.coef), fit.n_subjects
    mean, cov, k = np.empty((J, values.shape[1])), np.empty((J, p, p)), np.empty(J)
    for places, logs in log_likelihood_pieces(fit, "subject"):
        for j, own in zip(places, logs.T, strict=True):
            weight, k[j] = smoothed_weights(-own)
            mean[j] = weight @ z
            apart = values[:, :p] - (weight @ values[:, :p])
            cov[j] = (apart * weight[:, None]).T @ apart
    theta = mean[:, p:]
    inner = np.linalg.pinv(np.atleast_2d(np.cov(z[:, p:], rowvar=False)), hermitian=True)
    moved = np.sqrt(np.maximum(np.einsum("ja,ab,jb->j", theta, inner, theta), 0.0))
    without = pd.DataFrame(centre + mean * scale, columns=list(draws))
    good_k = min(1.0 - 1.0 / np.log10(len(z)), GOOD_K)  # Vehtari et al. (2024)
    return _Without(without.iloc[:, :p].to_numpy(), cov, without.iloc[:, p:], moved, k, good_k)
