"""Data to learn and to test with: classic data sets, data drawn from a stated model, wide data made long.

``load_dataset``, ``list_datasets`` and ``describe_dataset`` give data sets in long format with their meaning, units and
sources; ``simulate`` draws data from a two-level model whose every parameter is known; ``to_long`` turns one row per
subject into one row per measurement.
"""

from hierlmm.datasets.catalogue import describe_dataset as describe_dataset
from hierlmm.datasets.catalogue import list_datasets as list_datasets
from hierlmm.datasets.catalogue import load_dataset as load_dataset
from hierlmm.datasets.reshape import to_long as to_long
from hierlmm.datasets.simulate import simulate as simulate
