"""What every fit can be asked: the verbs of `effects`, `subjects`, `checks`, `plots`, `pictures`, and saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hierlmm.fit.checks import CheckVerbs
from hierlmm.fit.effects import EffectVerbs
from hierlmm.fit.inference import ShareVerbs
from hierlmm.fit.pictures import DataPictures
from hierlmm.fit.plots import PlotVerbs
from hierlmm.fit.subjects import SubjectVerbs
from hierlmm.options import checked


@checked
class Verbs(EffectVerbs, SubjectVerbs, ShareVerbs, CheckVerbs, PlotVerbs, DataPictures):
    """The verbs of every fit; each imports its room when it is called and hands the fit over."""

    def save(self, path: Any, *, data: bool = True, overwrite: bool = False) -> Path:
        """Write the fit to a file, from which `hierlmm.load_fit` makes the same fit again, in any process.

        The file is netCDF: ArviZ and xarray read the draws of a posterior from it. Nothing in it is pickled. A residual
        structure, a family or a prior of your own is written by the name under which it can be imported, and has to be
        there (in a notebook: defined) when the fit is loaded.

        Parameters
        ----------
        path : str or path-like
            Name of the file, ending in ``.nc``, in a folder that there is.
        data : bool
            Whether the columns that the model used are written. Without them ``hl.load_fit(path)`` answers what
            needs no rows, and ``hl.load_fit(path, data=...)`` everything.
        overwrite : bool
            Whether a file of this name is replaced.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        SpecificationError
            If the file is there already, its folder is not, or a class of your own could not be found again.

        Examples
        --------
        >>> import tempfile
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", hl.load_dataset("sleepstudy"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = model.fit_reml().save(f"{folder}/sleep.nc")
        ...     hl.load_fit(path).beta.round(2).to_dict()
        {'Intercept': 251.41, 'days': 10.47}
        """
        from hierlmm.fit.record import answers_of, record_of
        from hierlmm.storage.file import write_record

        answers = None if data else answers_of(self)
        return write_record(record_of(self), path, answers=answers, overwrite=overwrite)

    def report(
        self,
        path: Any,
        *,
        title: str | None = None,
        source: str | None = None,
        ci: float = 0.95,
        simulations: int = 499,
    ) -> Path:
        """Write everything about the fit on one page, a file for any browser that needs no network.

        Data, equations, estimates, words, pictures, checks, priors, versions, and the code that makes the fit again.
        Several fits on one page: ``hl.compare(fit, other).report(path)``.

        Parameters
        ----------
        path : str or path-like
            Name of the file, ending in ``.html``; a file of this name is replaced.
        title : str, optional
            Of the page; response, subjects and estimator by default.
        source : str, optional
            Python code that reads the table, for the code on the page: ``"pd.read_csv('growth.csv')"``.
        ci : float
            Probability of the intervals.
        simulations : int
            Data sets simulated under the fit for the checks, as in ``fit.check()``.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        SpecificationError
            If the name does not end in ``.html``, or its folder is not there.
        """
        from hierlmm.comparison.compare import compare

        return compare(self, ci=ci).report(path, title=title, source=source, simulations=simulations)
