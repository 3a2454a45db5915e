"""Fits that were made before, or elsewhere: from a file, and from draws of another sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierlmm.design.design import design_of
from hierlmm.fit.make import fit_of
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.fit.posterior import PosteriorFit


@checked
def load_fit(path: Any, data: Any = None) -> Any:
    """Load a fit that ``fit.save(path)`` wrote; every method gives the same numbers.

    Nothing is fitted again: the estimates are those in the file, and the design is made anew from the rows.

    Parameters
    ----------
    path : str or path-like
        The file.
    data : table, optional
        The data that were fitted, where the file was written without them (``data=False``). All rows, also those that
        were dropped for missing values; other data are refused.

    Returns
    -------
    LikelihoodFit, MultilevelFit, MarginalFit, GeneralisedFit, PosteriorFit or GEEFit
        As it was saved.

    Raises
    ------
    DataError
        If there is no such file, it is damaged, of another kind or of a newer format, or the data are other ones.
    SpecificationError
        If a structure, family or prior of your own cannot be imported.
    """
    from hierlmm.fit.record import put_back
    from hierlmm.storage.file import read_record

    record, answers = read_record(path, data)
    fit = fit_of(record)
    put_back(fit, answers)
    return fit


@checked
def from_datatree(model: Any, tree: Any) -> PosteriorFit:
    """Make a fit of a posterior that was sampled elsewhere.

    Parameters
    ----------
    model : TwoLevelModel or MarginalModel
        The model that was sampled.
    tree : xarray.DataTree
        With a group ``posterior``: from ``pm.sample()`` or nutpie on ``model.to_pymc()``, from ``.fit()`` of
        ``model.to_bambi()``, or ``fit.datatree``. Variables that follow from others may be left out. Sampler statistics
        are taken over.

    Returns
    -------
    PosteriorFit or GeneralisedPosterior
        Which answers every question that ``model.fit()`` answers.

    Raises
    ------
    DataError
        If the tree is not of this model.

    Warns
    -----
    FitWarning
        For everything about convergence that looks wrong.
    """
    from hierlmm.bayes.elsewhere import record_of_tree

    design = design_of(model, "from_datatree")
    return fit_of(record_of_tree(design, model.priors, tree))
