"""Columns, indexes and values of every kind come back as they were; fingerprints see what matters and nothing else."""

from __future__ import annotations

import datetime
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import hierlmm as hl
from hierlmm.storage.netcdf import arrays_as_tree, arrays_of, dataset_of, plan_of
from hierlmm.storage.table import fingerprint, pack_table, unpack_table
from hierlmm.storage.values import pack, unpack

TIMES = pd.date_range("2024-03-30 22:00", periods=4, freq="h")
COLUMNS = {
    "int8": np.array([1, -2, 3, 4], dtype="int8"),
    "uint64": np.array([1, 2**63 + 1, 3, 4], dtype="uint64"),
    "float32": np.array([0.1, np.inf, 3, -0.0], dtype="float32"),
    "float64": np.array([0.1, 1e-320, np.nan, -0.0]),
    "bool": np.array([True, False, True, True]),
    "complex": np.array([1j, 2, 3, 4]),
    "text": ["a", "é\n", "", "a b/c"],
    "object text": pd.Series(["a", "b", "a", "c"], dtype=object),
    "huge": pd.Series([2**70, 1, 2**70 + 1, -5], dtype=object),
    "category": pd.Categorical(["b", "a", "b", "b"], categories=["c", "b", "a"], ordered=True),
    "truth": pd.Categorical([True, False, True, True], categories=[True, False]),
    "numbers": pd.Categorical([1.5, 0.1, 1.5, 1.5]),
    "bins": pd.cut(pd.Series([1, 2, 3, 4]), [0, 2, 5]),
    "dates": TIMES.to_series().to_numpy(),
    "seconds": TIMES.to_series().to_numpy().astype("M8[s]"),
    "zone": TIMES.tz_localize("Europe/Brussels", ambiguous="NaT", nonexistent="shift_forward"),
    "days": pd.Series([datetime.date(2024, 1, d) for d in (3, 1, 2, 3)], dtype=object),
    "nullable": pd.array([1, 2, 3, 2**60 + 1], dtype="Int64"),
    "string": pd.array(["x", "y", "z", "x"], dtype="string"),
}
INDEXES = {
    "range": pd.RangeIndex(3, 11, 2, name="row"),
    "integers": pd.Index([5, 3, 9, 1]),
    "text": pd.Index(["a", "b", "c", "a"], name="é"),
    "dates": pd.DatetimeIndex(TIMES.to_numpy(), name="when"),
    "two levels": pd.MultiIndex.from_arrays([["a", "a", "b", "b"], [1, 2, 1, 2]], names=["g", None]),
}


def through_a_file(frame, path):
    arrays = {}
    text = json.dumps(pack_table(frame, arrays))
    dataset, plan = arrays_as_tree(arrays)
    kept = dataset.drop_vars([n for n in dataset.data_vars if 0 in dataset[n].shape])
    kept.to_netcdf(path, engine="h5netcdf")
    with xr.open_dataset(path, engine="h5netcdf") as stored:
        return unpack_table(json.loads(text), arrays_of(json.loads(json.dumps(plan)), stored.load()))


@pytest.mark.parametrize("name", COLUMNS)
def test_columns(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = pd.DataFrame({name: COLUMNS[name]})
        found = through_a_file(frame, tmp_path / "rows.nc")
    pd.testing.assert_frame_equal(found, frame, check_exact=True)
    assert found.dtypes.tolist() == frame.dtypes.tolist()
    if frame[name].dtype.kind == "f":  # to the sign of zero
        assert found[name].to_numpy().tobytes() == frame[name].to_numpy().tobytes()


@pytest.mark.parametrize("name", INDEXES)
def test_indexes(name, tmp_path):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]}, index=INDEXES[name])
    found = through_a_file(frame, tmp_path / "rows.nc")
    pd.testing.assert_frame_equal(found, frame, check_exact=True)
    assert type(found.index) is type(frame.index)
    assert found.index.names == frame.index.names


@pytest.mark.parametrize(
    "value",
    [
        (1, [2.5, None, "é\0"], {"a": (True, float("inf")), 3: np.float32(0.1), (1, "x"): np.int64(7)}),
        (frozenset({("a", "b")}), pd.Timestamp("2024-01-01 12:00:00.123456789"), datetime.datetime(2024, 1, 2, 3, 4)),
        pd.Interval(0, 1.5, closed="left"),
        hl.Priors().beta,
        hl.LKJ(3.5),
        hl.AR1("age", nugget=True),
        hl.VarIdent("sex"),
    ],
)
def test_values(value):
    arrays = {}
    found = unpack(json.loads(json.dumps(pack(value, "value", arrays))), arrays)
    assert found == value
    assert type(found) is type(value)
    assert repr(found) == repr(value)


def test_arrays_keep_their_order_in_memory():
    """The last digit of a sum depends on it."""
    values = np.random.default_rng(1).normal(size=(3, 4, 5))
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        given = np.ascontiguousarray(values.transpose(order)).transpose(np.argsort(order))
        dataset = xr.Dataset({"x": (("a", "b", "c"), given)})
        found = dataset_of(plan_of(dataset), dataset.copy(deep=True))["x"].to_numpy()
        assert found.strides == given.strides
        assert (found == given).all()


def test_what_no_file_holds():
    with pytest.raises(hl.SpecificationError, match=r"(?s)Received:.*object in x\.0.*Why not:.*To do:.*Read:"):
        pack((object(),), "x", {})


def test_fingerprints():
    frame = pd.DataFrame({"x": [1, 2, 3], "g": ["a", "b", "a"], "t": [0.1, 0.2, 0.3]})
    now = fingerprint(frame)
    same = frame.astype({"x": float}).assign(g=pd.Categorical(frame["g"]))
    assert fingerprint(same.set_axis(["p", "q", "r"])) == now
    for name, changed in {
        "x": frame.assign(x=[1, 2, 4]),
        "g": frame.assign(g=pd.Categorical(frame["g"], ["b", "a"])),
        "t": frame.assign(t=[0.1, 0.2, np.nextafter(0.3, 1)]),
    }.items():
        assert {k for k, v in fingerprint(changed).items() if v != now[k]} == {name}
    assert fingerprint(frame.iloc[::-1])["g"] == now["g"]  # a b a, from either end
    big = pd.DataFrame({"id": np.array([2**60, 2**60 + 1])})
    assert fingerprint(big) != fingerprint(big.iloc[::-1])
