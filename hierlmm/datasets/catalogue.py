"""What every data set is: what was measured, in which units, by whom, and a formula to start from.

The catalogue is data, not code: one :class:`DatasetDescription` for each name that
:func:`~hierlmm.datasets.load_dataset` knows. Facts that no source states (a unit, say) are said to be unknown.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from hierlmm.errors import UnknownDatasetError
from hierlmm.options import checked

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CATALOGUE", "DatasetColumn", "DatasetDescription", "describe_dataset", "list_datasets"]

PUBLISHED = "Published data, shipped with the package; cite the source."
SIMULATED = "Simulated, shipped with the package under its licence."
NOT_SHIPPED = "Not shipped: the data set belongs to the R package JM (GPL). Export it once and set HIERLMM_DATA."


@dataclass(frozen=True)
class DatasetColumn:
    """One column of a data set: its name, its meaning, and its unit or levels (the reference level first)."""

    name: str
    meaning: str
    unit: str = ""


@dataclass(frozen=True, repr=False)
class DatasetDescription:
    """What a data set holds and where it comes from; prints as a page of text and renders in a notebook.

    Attributes
    ----------
    name : str
        The name that :func:`load_dataset` takes.
    title : str
        One line.
    about : str
        What was measured, on whom, when.
    columns : tuple of DatasetColumn
        In the order of the data frame.
    rows, subjects : int
        Numbers of rows and of subjects (for nested or crossed data: levels of the column ``subject``).
    subject, response : str
        Names of the grouping column and of the response.
    formula : str
        A formula to start from, not the only sensible one.
    source : str
        Publication of the data.
    status : str
        Whether the data ship with the package, and on which terms.
    ships : bool
        False if the file must be supplied through the environment variable ``HIERLMM_DATA``.
    notes : tuple of str
        What a careful analyst should know before fitting.
    codings : tuple of str
        Alternative codings that ``load_dataset(name, coding=...)`` accepts.
    """

    name: str
    title: str
    about: str
    columns: tuple[DatasetColumn, ...]
    rows: int
    subjects: int
    subject: str
    response: str
    formula: str
    source: str
    status: str = PUBLISHED
    ships: bool = True
    notes: tuple[str, ...] = ()
    codings: tuple[str, ...] = ()

    @property
    def _size(self) -> str:
        return f"{self.rows} rows, {self.subjects} subjects (column {self.subject!r}), response {self.response!r}"

    @property
    def _paragraphs(self) -> list[tuple[str, str]]:
        pairs = [("Formula", self.formula), ("Source", self.source), ("Status", self.status)]
        if self.codings:
            pairs.append(("Codings", ", ".join(f"coding={c!r}" for c in self.codings)))
        return pairs + [("Note", note) for note in self.notes]

    def __repr__(self) -> str:
        """Return the description as text, 100 characters wide."""
        width = max(len(c.name) for c in self.columns)
        lines = [f"{self.name}: {self.title}", self._size, "", *textwrap.wrap(self.about, 100), ""]
        for c in self.columns:
            text = c.meaning + (f" [{c.unit}]" if c.unit else "")
            lines += textwrap.wrap(
                text, 100, initial_indent=f"  {c.name:<{width}}  ", subsequent_indent=" " * (width + 4)
            )
        lines.append("")
        for head, text in self._paragraphs:
            label = f"{head + ':':<9}"
            # A formula is to be copied: it stays on one line.
            lines += (
                [label + text]
                if head == "Formula"
                else textwrap.wrap(text, 100, initial_indent=label, subsequent_indent=" " * len(label))
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{escape(c.name)}</code></td><td style='text-align:left'>{escape(c.meaning)}</td>"
            f"<td style='text-align:left'>{escape(c.unit)}</td></tr>"
            for c in self.columns
        )
        paragraphs = "".join(
            f"<p><b>{head}:</b> {f'<code>{escape(text)}</code>' if head == 'Formula' else escape(text)}</p>"
            for head, text in self._paragraphs
        )
        return (
            f"<div><h4>{escape(self.name)}: {escape(self.title)}</h4><p>{escape(self._size)}</p>"
            f"<p>{escape(self.about)}</p><table><thead><tr><th>column</th><th>meaning</th><th>unit or levels</th></tr>"
            f"</thead><tbody>{rows}</tbody></table>{paragraphs}</div>"
        )


C = DatasetColumn

_ALL = (
    DatasetDescription(
        name="dental",
        title="growth of the distance pituitary - pterygomaxillary fissure in 27 children",
        about="The distance from the centre of the pituitary gland to the pterygomaxillary fissure of 11 girls and 16 "
        "boys, measured at ages 8, 10, 12 and 14: balanced and complete, the standard first growth curve.",
        columns=(
            C("subject", "child, 1 to 27"),
            C("sex", "sex of the child", "Female (reference), Male"),
            C("age", "age at the measurement", "years"),
            C("time", "age - 8, so that the intercept is the distance at age 8", "years"),
            C("distance", "distance pituitary - pterygomaxillary fissure", "mm"),
        ),
        rows=108,
        subjects=27,
        subject="subject",
        response="distance",
        formula="distance ~ sex * time + (1 + time | subject)",
        source="Potthoff, R. F. and Roy, S. N. (1964). A generalized multivariate analysis of variance model useful "
        "especially for growth curve problems. Biometrika 51, 313-326. Also in R: mice::potthoffroy, nlme::Orthodont.",
    ),
    DatasetDescription(
        name="sleepstudy",
        title="reaction times of 18 people restricted to three hours in bed",
        about="Average reaction time per day over the first ten days (0 to 9) of a study of sleep restriction, for the "
        "group that spent three hours in bed each night.",
        columns=(
            C("subject", "person, numbered 308 to 372 as in the study"),
            C("days", "day of the study, 0 to 9", "days"),
            C("reaction", "average reaction time on that day", "ms"),
        ),
        rows=180,
        subjects=18,
        subject="subject",
        response="reaction",
        formula="reaction ~ days + (1 + days | subject)",
        source="Belenky, G. et al. (2003). Patterns of performance degradation and restoration during sleep "
        "restriction and subsequent recovery: a sleep dose-response study. Journal of Sleep Research 12, 1-12. "
        "Also in R: lme4::sleepstudy.",
        notes=(
            "Days 0 and 1 were adaptation and training, day 2 the baseline; sleep restriction began after day 2. Most "
            "published analyses nevertheless fit a line to all ten days.",
        ),
    ),
    DatasetDescription(
        name="esoph",
        title="oesophageal cancer, alcohol and tobacco: a case-control study in Ille-et-Vilaine",
        about="Numbers of cases and of controls in 88 combinations of age group, alcohol consumption and tobacco "
        "consumption. The six age groups serve as the clusters.",
        columns=(
            C("agegp", "age group (the cluster)", "25-34 (reference), 35-44, 45-54, 55-64, 65-74, 75+ years"),
            C("alcgp", "alcohol consumption", "0-39g/day (reference), 40-79, 80-119, 120+ g/day"),
            C("tobgp", "tobacco consumption", "0-9g/day (reference), 10-19, 20-29, 30+ g/day"),
            C("ncases", "number of cases", "people"),
            C("ncontrols", "number of controls", "people"),
        ),
        rows=88,
        subjects=6,
        subject="agegp",
        response="ncases",
        formula="ncases ~ ncontrols + (1 + ncontrols | agegp)",
        source="Breslow, N. E. and Day, N. E. (1980). Statistical Methods in Cancer Research, Volume 1: The Analysis "
        "of Case-Control Studies. IARC, Lyon. Also in R: datasets::esoph.",
        notes=(
            "Two codings are in circulation. The default is the corrected data (775 controls). coding='1980s' is the "
            "data as R shipped them before version 4.0.4, in which the column ncontrols holds cases + controls "
            "(975 in all; 59 of the 88 rows differ). Results published with the old data need the old coding.",
            "Six clusters say little about a 2 x 2 covariance matrix, and counts are not Gaussian: a Poisson model is "
            "the more natural one. hierlmm has Gaussian models only; Bambi and lme4's glmer fit it.",
        ),
        codings=("corrected", "1980s"),
    ),
    DatasetDescription(
        name="pbc",
        title="primary biliary cirrhosis: repeated laboratory measurements of 312 patients",
        about="Laboratory values at every visit of the 312 randomised patients of the Mayo Clinic trial of "
        "D-penicillamine in primary biliary cirrhosis (pbcseq in the R package survival).",
        columns=(
            C("subject", "patient, 1 to 312"),
            C("trt", "randomised treatment", "placebo (reference), D-penicillamine"),
            C("sex", "sex of the patient", "Male (reference), Female"),
            C("age", "age at entry", "years"),
            C("day", "days from enrolment to this visit", "days"),
            C("year", "day / 365.25", "years"),
            C("bili", "serum bilirubin", "mg/dl"),
            C("chol", "serum cholesterol; missing in 821 rows", "mg/dl"),
            C("albumin", "serum albumin", "g/dl"),
            C("alk_phos", "alkaline phosphatase; missing in 60 rows", "U/litre"),
            C("ast", "aspartate aminotransferase (SGOT)", "U/ml"),
            C("platelet", "platelet count; missing in 73 rows"),
            C("protime", "prothrombin time (standardised blood clotting time)", "s"),
            C("stage", "histologic stage of disease, 1 to 4"),
            C("ascites", "presence of ascites; missing in 60 rows", "0, 1"),
            C("hepato", "presence of an enlarged liver; missing in 61 rows", "0, 1"),
            C("spiders", "blood vessel malformations in the skin; missing in 58 rows", "0, 1"),
            C("edema", "0 none, 0.5 untreated or successfully treated, 1 despite diuretics", "0, 0.5, 1"),
            C("futime", "days from registration to death, transplantation or end of follow-up", "days"),
            C("status", "status at futime: 0 censored, 1 transplanted, 2 dead", "0, 1, 2"),
        ),
        rows=1945,
        subjects=312,
        subject="subject",
        response="bili",
        formula="log(bili) ~ year * trt + (1 + year | subject)",
        source="Murtaugh, P. A., Dickson, E. R. et al. (1994). Primary biliary cirrhosis: prediction of short-term "
        "survival based on repeated patient visits. Hepatology 20, 126-134. Also in R: survival::pbcseq.",
        notes=(
            "The last visit before death or transplantation has many more missing values than other visits, so missing "
            "values may be informative.",
            "The file codes treatment as 1 and 0; 1 is D-penicillamine (every patient checked against the labelled "
            "copy of the same trial, pbc2 in the R package JM).",
        ),
    ),
    DatasetDescription(
        name="rats",
        title="body weights of 89 rats from 15 litters (simulated)",
        about="Simulated for teaching: body weight of rats that share litters, with food intake and activity level.",
        columns=(
            C("litter", "litter, 1 to 15"),
            C("age", "age, 8 to 16; the unit is not stated"),
            C("bodyweight", "body weight", "g"),
            C("foodintake", "food intake, arbitrary units"),
            C("activitylevel", "activity level, an ordered factor", "low < medium < high"),
        ),
        rows=89,
        subjects=15,
        subject="litter",
        response="bodyweight",
        formula="bodyweight ~ foodintake + (1 | litter)",
        source="Simulated from a random-intercept model.",
        status=SIMULATED,
    ),
    DatasetDescription(
        name="petri",
        title="bacterial growth in 30 petri dishes under three treatments (simulated)",
        about="Simulated for teaching: ten dishes in each of three groups, five measurements of growth in each dish. "
        "The treatment belongs to the dish (level 2), the measurements lie within the dish (level 1).",
        columns=(
            C("dish", "petri dish, 1 to 30"),
            C("group", "treatment of the dish", "Control (reference), A, B"),
            C("obs", "number of the measurement within the dish, 1 to 5"),
            C("y", "measured growth, arbitrary units"),
        ),
        rows=150,
        subjects=30,
        subject="dish",
        response="y",
        formula="y ~ group + (1 | dish)",
        source="Simulated from a random-intercept model.",
        status=SIMULATED,
    ),
    DatasetDescription(
        name="pastes",
        title="strength of a chemical paste: casks nested in delivery batches",
        about="Ten delivery batches, three casks sampled from each, two assays of every cask.",
        columns=(
            C("strength", "paste strength; the unit is not stated"),
            C("batch", "delivery batch", "A to J"),
            C("cask", "cask within the batch (a, b, c are different casks in every batch)", "a, b, c"),
            C("sample", "the cask with its batch, a label of its own", "A:a to J:c"),
        ),
        rows=60,
        subjects=10,
        subject="batch",
        response="strength",
        formula="strength ~ 1 + (1 | batch / cask)",
        source="Davies, O. L. and Goldsmith, P. L. (eds) (1972). Statistical Methods in Research and Production, 4th "
        "ed., section 6.5. Oliver and Boyd. Also in R: lme4::Pastes.",
    ),
    DatasetDescription(
        name="penicillin",
        title="variation in penicillin testing: six samples crossed with 24 plates",
        about="Each of six samples of penicillin was tested on each of 24 plates of B. subtilis; the response is the "
        "zone in which the organism did not grow.",
        columns=(
            C("diameter", "diameter of the zone of inhibition", "mm"),
            C("plate", "assay plate", "a to x"),
            C("sample", "penicillin sample", "A to F"),
        ),
        rows=144,
        subjects=24,
        subject="plate",
        response="diameter",
        formula="diameter ~ 1 + (1 | plate) + (1 | sample)",
        source="Davies, O. L. and Goldsmith, P. L. (eds) (1972). Statistical Methods in Research and Production, 4th "
        "ed., section 6.6. Oliver and Boyd. Also in R: lme4::Penicillin.",
    ),
    DatasetDescription(
        name="dyestuff",
        title="yield of dyestuff from six batches",
        about="Five preparations of the dyestuff Naphthalene Black 12B from each of six batches of an intermediate "
        "product: how much of the variation in yield comes from the batches?",
        columns=(
            C("batch", "batch of the intermediate product", "A to F"),
            C("yield", "yield of the preparation", "grams of standard colour"),
        ),
        rows=30,
        subjects=6,
        subject="batch",
        response="yield",
        formula="yield ~ 1 + (1 | batch)",
        source="Davies, O. L. and Goldsmith, P. L. (eds) (1972). Statistical Methods in Research and Production, 4th "
        "ed., section 6.4. Oliver and Boyd. Also in R: lme4::Dyestuff.",
    ),
    DatasetDescription(
        name="dyestuff2",
        title="constructed yields whose batch variance is estimated as zero",
        about="Data constructed in the layout of 'dyestuff' so that the mean square between batches is smaller than "
        "the one within: the estimate of the batch variance lies on the boundary.",
        columns=(C("batch", "batch", "A to F"), C("yield", "constructed yield, arbitrary units")),
        rows=30,
        subjects=6,
        subject="batch",
        response="yield",
        formula="yield ~ 1 + (1 | batch)",
        source="Box, G. E. P. and Tiao, G. C. (1973). Bayesian Inference in Statistical Analysis, section 5.1.2. "
        "Addison-Wesley. Also in R: lme4::Dyestuff2.",
        notes=("REML and ML estimate a batch variance of exactly zero: a singular fit is the right answer here.",),
    ),
    DatasetDescription(
        name="rat_pups",
        title="birth weights of 322 rat pups in 27 litters under three doses",
        about="Weights of rat pups from litters whose mothers received a control, a low or a high dose of a compound. "
        "Sex varies within the litter (level 1); dose and litter size belong to the litter (level 2).",
        columns=(
            C("weight", "weight of the pup", "g"),
            C("sex", "sex of the pup", "Male (reference), Female"),
            C("litter", "litter, 1 to 27"),
            C("lsize", "litter size", "pups"),
            C("treatment", "dose given to the mother", "Control (reference), Low, High"),
        ),
        rows=322,
        subjects=27,
        subject="litter",
        response="weight",
        formula="weight ~ treatment + sex + lsize + (1 | litter)",
        source="Pinheiro, J. C. and Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS. Springer, New York. "
        "Also in R: nlme::RatPupWeight.",
    ),
    DatasetDescription(
        name="negative_icc",
        title="60 subjects whose measurements are negatively correlated (simulated)",
        about="Four measurements of each of 60 subjects, simulated with compound symmetry and a correlation of -0.2 "
        "within subjects, as when litter mates compete: a marginal model can express it, a random intercept cannot.",
        columns=(
            C("subject", "subject, 1 to 60"),
            C("time", "occasion, 0 to 3"),
            C("x", "group of the subject", "0, 1"),
            C("y", "response, arbitrary units"),
        ),
        rows=240,
        subjects=60,
        subject="subject",
        response="y",
        formula="y ~ time + x + (1 | subject)",
        source="Simulated; residual correlation -0.2 between any two measurements of a subject.",
        status=SIMULATED,
        notes=(
            "The random-intercept model estimates a variance of zero here. MarginalModel('y ~ time + x', "
            "correlation=CompoundSymmetry()) estimates the negative correlation.",
        ),
    ),
    DatasetDescription(
        name="active",
        title="memory of 400 people under four kinds of cognitive training (simulated)",
        about="A memory score at up to seven visits over ten years, simulated from the estimates of a piecewise linear "
        "mixed model fitted to a trial of cognitive training in older adults (ACTIVE); no real participant is in it. "
        "Participants miss visits and drop out.",
        columns=(
            C("subject", "participant, 1 to 400"),
            C("intgrp", "training", "Control (reference), Memory, Reasoning, Speed of Processing Training"),
            C("years", "time since baseline: 0, 0.25, 1, 2, 3, 5, 10", "years"),
            C("memory", "memory score, arbitrary units"),
        ),
        rows=2037,
        subjects=400,
        subject="subject",
        response="memory",
        formula="memory ~ years * intgrp + (1 + years | subject)",
        source="Simulated: the first 400 of 2800 simulated participants. The truth: standard deviations of intercept "
        "and slope 15.46 and 1.12, correlation 0.31, residual standard deviation 6.95.",
        status=SIMULATED,
        notes=(
            "The true mean is a line before and another line after year 3, with a jump, and differs by training group.",
        ),
    ),
    DatasetDescription(
        name="aids",
        title="CD4 counts of 467 HIV-infected patients under didanosine or zalcitabine",
        about="A randomised trial of didanosine (ddI) against zalcitabine (ddC) in patients in whom zidovudine (AZT) "
        "had failed or was not tolerated. CD4 was measured at entry and at months 2, 6, 12 and 18.",
        columns=(
            C("subject", "patient, 1 to 467"),
            C("time", "time to death or censoring", "months"),
            C("death", "1 death, 0 censored", "0, 1"),
            C("cd4", "square root of the CD4 cell count"),
            C("obstime", "time of the CD4 measurement: 0, 2, 6, 12, 18", "months"),
            C("drug", "randomised treatment", "ddC (reference), ddI"),
            C("gender", "gender", "female (reference), male"),
            C("prevoi", "AIDS diagnosis at entry", "noAIDS (reference), AIDS"),
            C("azt", "why AZT was stopped", "intolerance (reference), failure"),
            C("start", "start of the interval that begins with this measurement", "months"),
            C("stop", "end of that interval", "months"),
            C("event", "1 if the patient died at the end of that interval", "0, 1"),
        ),
        rows=1405,
        subjects=467,
        subject="subject",
        response="cd4",
        formula="cd4 ~ obstime + obstime:drug + (1 + obstime | subject)",
        source="Goldman, A. I. et al. (1996). Journal of Acquired Immune Deficiency Syndromes and Human Retrovirology "
        "11, 161-169. In R: JM::aids.",
        status=NOT_SHIPPED,
        ships=False,
        notes=(
            "Patients die or leave. A mixed model remains valid if that depends on what was observed of them, not on "
            "what was not (missing at random).",
        ),
    ),
    DatasetDescription(
        name="prothro",
        title="prothrombin index of 488 patients with liver cirrhosis, prednisone against placebo",
        about="A randomised trial of prednisone in liver cirrhosis, with the prothrombin index measured repeatedly at "
        "irregular times until death or censoring.",
        columns=(
            C("subject", "patient, numbered 1 to 561 with gaps"),
            C("pro", "prothrombin index"),
            C("time", "time of the measurement", "years"),
            C("treat", "randomised treatment", "placebo (reference), prednisone"),
            C("eventtime", "time to death or censoring", "years"),
            C("start", "start of the interval that begins with this measurement", "years"),
            C("stop", "end of that interval", "years"),
            C("death", "1 if the patient died, 0 censored", "0, 1"),
            C("event", "1 if the patient died at the end of this interval", "0, 1"),
        ),
        rows=2968,
        subjects=488,
        subject="subject",
        response="pro",
        formula="pro ~ time * treat + (1 + time | subject)",
        source="Andersen, P. K., Borgan, O., Gill, R. D. and Keiding, N. (1993). Statistical Models Based on Counting "
        "Processes. Springer, New York. In R: JM::prothro.",
        status=NOT_SHIPPED,
        ships=False,
        notes=(
            "JM labels 251 patients placebo and 237 prednisone; the documentation of the same data in the R package "
            "JSM says 251 prednisone and 237 placebo. Settle which label is which before you interpret the treatment.",
        ),
    ),
)

CATALOGUE: dict[str, DatasetDescription] = {d.name: d for d in _ALL}
"""Every description, by name."""


@checked
def describe_dataset(name: str) -> DatasetDescription:
    """Describe a data set: what was measured, columns and units, source, status, and a formula to start from.

    Parameters
    ----------
    name : str
        A name from :func:`list_datasets`.

    Returns
    -------
    DatasetDescription
        Prints as text and renders in a notebook.

    Raises
    ------
    UnknownDatasetError
        If no data set has this name; close matches are suggested.

    Examples
    --------
    >>> describe_dataset("dental").formula
    'distance ~ sex * time + (1 + time | subject)'
    """
    if isinstance(name, str) and name in CATALOGUE:
        return CATALOGUE[name]
    from difflib import get_close_matches

    near = get_close_matches(str(name).lower(), CATALOGUE, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise UnknownDatasetError(
        received=f"the data set name {name!r}",
        reason="No data set has this name.",
        remedy=f"{hint}The names are: {', '.join(CATALOGUE)}.",
        see="hierlmm.list_datasets()",
    )


def list_datasets() -> pd.DataFrame:
    """List the data sets.

    Returns
    -------
    pandas.DataFrame
        One row per data set: ``name``, ``rows``, ``subjects``, ``subject`` (name of the grouping column), ``response``,
        ``ships`` (False: the file must be supplied through ``HIERLMM_DATA``) and ``title``.
    """
    import pandas as pd

    fields = ["name", "rows", "subjects", "subject", "response", "ships", "title"]
    return pd.DataFrame([{f: getattr(d, f) for f in fields} for d in CATALOGUE.values()], columns=fields)
