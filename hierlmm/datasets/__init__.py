"""Data to learn and to test with: classic data sets, data drawn from a stated model, wide data made long.

``load_dataset``, ``list_datasets`` and ``describe_dataset`` give data sets in long format with their meaning, units and
sources; ``simulate`` draws data from a two-level model whose every parameter is known; ``to_long`` turns one row per
subject into one row per measurement.
"""

from __future__ import annotations

from hierlmm.datasets.catalogue import DatasetColumn, DatasetDescription, describe_dataset, list_datasets, load_dataset
from hierlmm.datasets.reshape import to_long
from hierlmm.datasets.simulate import SimulationTruth, simulate

__all__ = [
    "DatasetColumn",
    "DatasetDescription",
    "SimulationTruth",
    "describe_dataset",
    "list_datasets",
    "load_dataset",
    "simulate",
    "to_long",
]
