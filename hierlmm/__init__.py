"""Two-level hierarchical linear mixed models, written down once and fitted by NUTS, REML and ML side by side."""

# What is imported here has an underscore: only the names of `__all__` are public (tests/house/test_package.py).
import importlib as _importlib
import typing as _typing

from hierlmm._version import __version__

# Names are resolved on first use, so that ``import hierlmm`` stays fast and REML never loads PyTensor.
_EXPORTS = {
    "TwoLevelModel": "hierlmm.model",
    "MarginalModel": "hierlmm.marginal",
    "MarginalFit": "hierlmm.fit.likelihood",
    "AR1": "hierlmm.covariance.residual",
    "CAR1": "hierlmm.covariance.residual",
    "CompoundSymmetry": "hierlmm.covariance.residual",
    "Exponential": "hierlmm.covariance.residual",
    "Gaussian": "hierlmm.covariance.residual",
    "Toeplitz": "hierlmm.covariance.residual",
    "Unstructured": "hierlmm.covariance.residual",
    "UnstructuredHeterogeneous": "hierlmm.covariance.residual",
    "ResidualCorrelation": "hierlmm.covariance.residual",
    "VarIdent": "hierlmm.covariance.variance",
    "VarPower": "hierlmm.covariance.variance",
    "VarExp": "hierlmm.covariance.variance",
    "VarianceFunction": "hierlmm.covariance.variance",
    "Parameter": "hierlmm.covariance.parameters",
    "Priors": "hierlmm.bayes.priors",
    "Normal": "hierlmm.bayes.distributions",
    "StudentT": "hierlmm.bayes.distributions",
    "HalfNormal": "hierlmm.bayes.distributions",
    "HalfStudentT": "hierlmm.bayes.distributions",
    "HalfCauchy": "hierlmm.bayes.distributions",
    "Gamma": "hierlmm.bayes.distributions",
    "Uniform": "hierlmm.bayes.distributions",
    "LogNormal": "hierlmm.bayes.distributions",
    "LKJ": "hierlmm.bayes.distributions",
    "LikelihoodFit": "hierlmm.fit.likelihood",
    "PosteriorFit": "hierlmm.fit.posterior",
    "GEEFit": "hierlmm.fit.gee",
    "MarginalComparison": "hierlmm.comparison.against_gee",
    "compare": "hierlmm.comparison.compare",
    "plot_effects": "hierlmm.plots",
    "EffectCurves": "hierlmm.effects.curves",
    "Comparison": "hierlmm.comparison.compare",
    "semivariogram": "hierlmm.diagnostics.serial",
    "Semivariogram": "hierlmm.diagnostics.serial",
    "autocorrelation": "hierlmm.diagnostics.serial",
    "Autocorrelation": "hierlmm.diagnostics.serial",
    "calibrate": "hierlmm.diagnostics.calibrate",
    "design_analysis": "hierlmm.diagnostics.design_analysis",
    "gls_steps": "hierlmm.teaching.gls_steps",
    "GLSSteps": "hierlmm.teaching.gls_steps",
    "compare_implied": "hierlmm.implied.compare",
    "ImpliedComparison": "hierlmm.implied.compare",
    "ImpliedMarginal": "hierlmm.implied.marginal",
    "is_hierarchical": "hierlmm.teaching.is_hierarchical",
    "HierarchicalCheck": "hierlmm.teaching.is_hierarchical",
    "same_marginal": "hierlmm.teaching.same_marginal",
    "SameMarginal": "hierlmm.teaching.same_marginal",
    "subject_hierarchy": "hierlmm.teaching.same_marginal",
    "SubjectHierarchy": "hierlmm.teaching.same_marginal",
    "load_dataset": "hierlmm.datasets",
    "list_datasets": "hierlmm.datasets",
    "describe_dataset": "hierlmm.datasets",
    "simulate": "hierlmm.datasets",
    "to_long": "hierlmm.datasets",
    "time_varying": "hierlmm.timevarying",
    "TimeVarying": "hierlmm.timevarying",
    "CurrentValue": "hierlmm.timevarying",
    "LastValue": "hierlmm.timevarying",
    "Lag": "hierlmm.timevarying",
    "Interpolate": "hierlmm.timevarying",
    "Cumulative": "hierlmm.timevarying",
    "TimeSince": "hierlmm.timevarying",
    "within_between": "hierlmm.timevarying",
    "test_within_between": "hierlmm.timevarying",
    "WithinBetweenTest": "hierlmm.timevarying",
    "check_exogeneity": "hierlmm.timevarying",
    "ExogeneityCheck": "hierlmm.timevarying",
    "HierlmmError": "hierlmm.errors",
    "DataError": "hierlmm.errors",
    "FormulaError": "hierlmm.errors",
    "SpecificationError": "hierlmm.errors",
    "ArgumentError": "hierlmm.errors",
    "NotAvailableError": "hierlmm.errors",
    "MissingPackageError": "hierlmm.errors",
    "UnknownDatasetError": "hierlmm.errors",
    "FitWarning": "hierlmm.errors",
}

__all__ = ["__version__", *_EXPORTS]

if _typing.TYPE_CHECKING:
    from hierlmm.bayes.distributions import (
        LKJ,
        Gamma,
        HalfCauchy,
        HalfNormal,
        HalfStudentT,
        LogNormal,
        Normal,
        StudentT,
        Uniform,
    )
    from hierlmm.bayes.priors import Priors
    from hierlmm.comparison.against_gee import MarginalComparison
    from hierlmm.comparison.compare import Comparison, compare
    from hierlmm.covariance.parameters import Parameter
    from hierlmm.covariance.residual import (
        AR1,
        CAR1,
        CompoundSymmetry,
        Exponential,
        Gaussian,
        ResidualCorrelation,
        Toeplitz,
        Unstructured,
        UnstructuredHeterogeneous,
    )
    from hierlmm.covariance.variance import VarExp, VarianceFunction, VarIdent, VarPower
    from hierlmm.datasets import describe_dataset, list_datasets, load_dataset, simulate, to_long
    from hierlmm.diagnostics.calibrate import calibrate
    from hierlmm.diagnostics.design_analysis import design_analysis
    from hierlmm.diagnostics.serial import Autocorrelation, Semivariogram, autocorrelation, semivariogram
    from hierlmm.effects.curves import EffectCurves
    from hierlmm.errors import (
        ArgumentError,
        DataError,
        FitWarning,
        FormulaError,
        HierlmmError,
        MissingPackageError,
        NotAvailableError,
        SpecificationError,
        UnknownDatasetError,
    )
    from hierlmm.fit.gee import GEEFit
    from hierlmm.fit.likelihood import LikelihoodFit, MarginalFit
    from hierlmm.fit.posterior import PosteriorFit
    from hierlmm.implied.compare import ImpliedComparison, compare_implied
    from hierlmm.implied.marginal import ImpliedMarginal
    from hierlmm.marginal import MarginalModel
    from hierlmm.model import TwoLevelModel
    from hierlmm.plots import plot_effects
    from hierlmm.teaching.gls_steps import GLSSteps, gls_steps
    from hierlmm.teaching.is_hierarchical import HierarchicalCheck, is_hierarchical
    from hierlmm.teaching.same_marginal import SameMarginal, SubjectHierarchy, same_marginal, subject_hierarchy
    from hierlmm.timevarying import (
        Cumulative,
        CurrentValue,
        ExogeneityCheck,
        Interpolate,
        Lag,
        LastValue,
        TimeSince,
        TimeVarying,
        WithinBetweenTest,
        check_exogeneity,
        test_within_between,
        time_varying,
        within_between,
    )


def __getattr__(name: str) -> _typing.Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'hierlmm' has no attribute {name!r}")
    value = getattr(_importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
