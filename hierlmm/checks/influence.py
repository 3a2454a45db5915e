"""What a likelihood fit would be without each subject: Cook's distance, DFBETAS, changes of the variances.

With β_(j) and Cov(β)_(j) of the fit without subject j (`hierlmm.likelihood.deletion`), p coefficients

    Cook's distance   (β̂ - β_(j))' Cov(β̂)⁻¹ (β̂ - β_(j)) / p,      DFBETAS   (β̂_k - β_k(j)) / se(β̂_k),
    covariance ratio  |Cov(β)_(j)| / |Cov(β̂)|

and the move of the covariance parameters in standard errors.

References
----------
Banerjee, M., Frees, E. W. (1997). Influence diagnostics for linear longitudinal models. J. Amer. Statist. Assoc. 92,
999-1005.

Demidenko, E., Stukel, T. A. (2005). Influence analysis for linear mixed-effects models. Statistics in Medicine 24,
893-909.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import NotAvailableError
from hierlmm.fits.components import component_labels, component_values
from hierlmm.fits.likelihood import LikelihoodEstimates
from hierlmm.likelihood.deletion import Deletion, delete_subjects
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
        1: the subject makes them more precise). NaN where the other subjects do not determine all coefficients.
    beta, dfbetas : DataFrame, subject × coef
        Coefficients without the subject, and by how many of the fit's standard errors the subject moves each.
    components : DataFrame, subject × component
        Standard deviations, correlations, residual parameters and σ without the subject.
    theta : {"updated", "fixed"}
    estimator, subject : str
    """

    table: pd.DataFrame
    beta: pd.DataFrame
    dfbetas: pd.DataFrame
    components: pd.DataFrame
    theta: str
    estimator: str
    subject: str

    @property
    def verdict(self) -> str:
        """Which subject moves the coefficients most, and whom they cannot do without."""
        lost = self.table.index[self.table["cook"].isna()]
        said = [SAY("influence.lost", subjects=", ".join(map(str, lost[:5])), n=len(lost))] if len(lost) else []
        if len(lost) < len(self.table):
            first = self.table.sort_values("cook", ascending=False).iloc[0]
            said.append(
                SAY(
                    "influence.most",
                    subject=f"{self.subject} {first.name}",
                    cook=number(first["cook"]),
                    coef=first["coef"],
                    se=f"{abs(first['dfbetas']):.2f}",
                    way="up" if first["dfbetas"] > 0 else "down",
                )
            )
        return " ".join(said)

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
            Visual ``points``.
        """
        from hierlmm.drawing.influence import plot_influence

        return plot_influence(self, max_labels=max_labels, **figure)

    def _page(self) -> Page:
        shown = self.table.sort_values("cook", ascending=False).head(SHOWN).reset_index()
        shown.columns = [self.subject, *shown.columns[1:]]
        shown = shown.astype({self.subject: str, "rows": str})
        title = f"Influence of {count(len(self.table), 'subject')} on the fit by {self.estimator}"
        table = Table(shown, table_lines(shown, [self.subject, "rows", "coef"]), "Subjects by Cook's distance")
        told = SAY(f"influence.{self.theta}")
        return Page(title, ["", table, "", Paragraph(self.verdict, 110), Paragraph(told, 110)])


@checked
def influence(fit: LikelihoodEstimates, theta: Literal["updated", "fixed"] = "updated") -> Influence:
    """Fit without each subject in turn, from cross-products; see `LikelihoodFit.influence`.

    Parameters
    ----------
    fit : LikelihoodFit
    theta : {"updated", "fixed"}
    """
    choose("theta", theta, THETAS)
    design = fit.design
    if not design.coef:
        received, reason = "influence() of a model without fixed effects", "no coefficient moves without a subject"
        raise NotAvailableError(received, reason, "fit the other subjects and compare fit.variance_components()", SEE)
    found = deletion_of(fit, update=theta == "updated")
    change = fit.beta.to_numpy() - found.beta
    cov, se = fit.beta_cov.to_numpy(), fit.beta_se.to_numpy()
    dfbetas = change / se
    known = found.known
    largest = np.where(known, np.argmax(np.abs(np.where(known[:, None], dfbetas, 0.0)), axis=1), 0)
    own = np.where(known[:, None, None], found.beta_cov, cov)
    rows = {
        "rows": design.rows_per_subject,
        "cook": np.einsum("ja,ab,jb->j", change, np.linalg.inv(cov), change) / len(se),
        "dfbetas": dfbetas[np.arange(len(known)), largest],
        "coef": np.where(known, np.array(design.coef, dtype=object)[largest], ""),
        "theta": found.moved,
        "covratio": np.where(known, np.exp(np.linalg.slogdet(own)[1] - np.linalg.slogdet(cov)[1]), np.nan),
    }
    subjects = pd.Index(design.subjects, name=design.hierarchy.subject)
    return Influence(
        pd.DataFrame(rows, index=subjects),
        pd.DataFrame(found.beta, index=subjects, columns=list(design.coef)),
        pd.DataFrame(dfbetas, index=subjects, columns=list(design.coef)),
        _components(fit, found, subjects),
        theta,
        fit.estimator,
        design.hierarchy.subject,
    )


def deletion_of(fit: LikelihoodEstimates, *, update: bool) -> Deletion:
    """Estimates without each subject in turn."""
    psi, sd = fit.optimum.lam, fit.solution.working_sd
    return delete_subjects(fit.design, fit.criterion_function, psi, sd, update=update)


def _components(fit: LikelihoodEstimates, found: Deletion, subjects: pd.Index) -> pd.DataFrame:
    """Covariance parameters without each subject."""
    rows, design = [], fit.design
    names = component_labels(design) if design.term else ["sigma"]
    reported = list(fit.solution.residual_parameters)
    for psi, sd, known in zip(found.psi, found.sd, found.known, strict=True):
        if not known:
            rows.append([np.nan] * (len(names) + len(reported)))
            continue
        at = fit.criterion_function.solution(psi, float(sd))
        values = component_values(design, at.D, at.sigma) if design.term else np.array([at.sigma])
        rows.append([*values, *at.residual_parameters.values()])
    return pd.DataFrame(rows, index=subjects, columns=[*names, *reported])
