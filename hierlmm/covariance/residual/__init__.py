"""Structures of the residual correlation within a subject: R_i in ``Σ_i = σ² G_i R_i G_i``.

A structure is a small class in a file of its own: which column holds the positions, its parameters, the correlation
matrix at given positions, and what is said of it: symbols, words, its counterpart in GEE, the name of its compiled
kernel. Serial structures add `ResidualCorrelation.markov`, which whitens a subject in O(n_i); others are whitened
by a Cholesky factor for each distinct set of positions. Built-in structures have exact derivatives; those of a class
that gives none are central differences of fourth order.

References
----------
Pinheiro, J. C., Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS, section 5.3.
"""

from hierlmm.covariance.residual.ante import AnteDependence
from hierlmm.covariance.residual.ar1 import AR1
from hierlmm.covariance.residual.base import Markov, Observed, ResidualCorrelation
from hierlmm.covariance.residual.car1 import CAR1
from hierlmm.covariance.residual.compound_symmetry import CompoundSymmetry
from hierlmm.covariance.residual.exponential import Exponential
from hierlmm.covariance.residual.gaussian import Gaussian
from hierlmm.covariance.residual.toeplitz import Toeplitz
from hierlmm.covariance.residual.unstructured import Unstructured, UnstructuredHeterogeneous

__all__ = [
    "AR1",
    "CAR1",
    "AnteDependence",
    "CompoundSymmetry",
    "Exponential",
    "Gaussian",
    "Markov",
    "Observed",
    "ResidualCorrelation",
    "Toeplitz",
    "Unstructured",
    "UnstructuredHeterogeneous",
]
