"""What cannot be saved or loaded is refused: paths, files that are damaged, newer or of another kind, classes."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
import saved_fits
import xarray as xr
from four_parts import refused

import hierlmm as hl

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fit():
    return hl.TwoLevelModel.from_formula(
        "distance ~ sex * time + (time | subject)", hl.load_dataset("dental")
    ).fit_reml()


def test_paths(fit, tmp_path, monkeypatch):
    for name in ("fit", "fit.csv", "fit.v2", "fit.NC"):
        refused(lambda name=name: fit.save(tmp_path / name), hl.SpecificationError, "'.nc'", f"{name}.nc")
    refused(lambda: fit.save(tmp_path / "no" / "such" / "fit.nc"), hl.SpecificationError, "no folder", "mkdir")
    (tmp_path / "folder.nc").mkdir()
    refused(lambda: fit.save(tmp_path / "folder.nc"), hl.SpecificationError, "a folder")
    for strange in (3, None, b"fit.nc", ["fit.nc"]):
        refused(lambda strange=strange: fit.save(strange), hl.ArgumentError, "pathlib.Path")
        refused(lambda strange=strange: hl.load_fit(strange), hl.ArgumentError, "pathlib.Path")
    monkeypatch.chdir(tmp_path)
    assert fit.save("fit.nc") == Path("fit.nc")
    assert fit.save(tmp_path / "other.nc") == tmp_path / "other.nc"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit.nc", "folder.nc", "other.nc"]
    refused(lambda: fit.save("fit.nc", data="no"), hl.ArgumentError, "True or False")


def test_nothing_is_overwritten_unless_asked(fit, tmp_path):
    path = fit.save(tmp_path / "fit.nc")
    before = path.read_bytes()
    refused(lambda: fit.save(path), hl.SpecificationError, "overwrite=True")
    assert path.read_bytes() == before
    fit.save(path, data=False, overwrite=True)
    assert path.read_bytes() != before
    path.write_text("no fit at all")
    fit.save(path, overwrite=True)
    assert repr(hl.load_fit(path)) == repr(fit)


def test_a_file_that_cannot_be_written(fit, tmp_path, monkeypatch):
    """It leaves nothing behind."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hierlmm.storage.file.write_netcdf", full)
    refused(lambda: fit.save(tmp_path / "fit.nc"), hl.SpecificationError, "No space left")
    assert not list(tmp_path.iterdir())


def test_no_file_and_no_netcdf(tmp_path):
    refused(lambda: hl.load_fit(tmp_path / "none.nc"), hl.DataError, "no such file")
    (tmp_path / "text.nc").write_text("a,b\n1,2\n")
    refused(lambda: hl.load_fit(tmp_path / "text.nc"), hl.DataError, "no netCDF file, or damaged")
    refused(lambda: hl.load_fit(tmp_path), hl.DataError, "no netCDF file, or damaged")


def test_damage_is_seen(fit, tmp_path):
    path = fit.save(tmp_path / "fit.nc")
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:size])
        refused(lambda: hl.load_fit(path), hl.DataError, "damaged")
    bits = fit.design.y.tobytes()
    for wanted in (bits, fit.optimum.lam.tobytes()):
        at = whole.index(wanted) + 6
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(lambda: hl.load_fit(path), hl.DataError, "changed or damaged")
    at = whole.index(b'"reml": true')
    path.write_bytes(whole[:at] + b'"reml": 1   ' + whole[at + 12 :])
    refused(lambda: hl.load_fit(path), hl.DataError, "changed or damaged")


def test_files_of_another_kind_and_of_a_newer_format(fit, tmp_path):
    draws = xr.DataTree.from_dict({"posterior": xr.Dataset({"beta": (("chain", "draw"), np.zeros((2, 3)))})})
    draws.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    refused(lambda: hl.load_fit(tmp_path / "draws.nc"), hl.DataError, "did not write", "from_datatree")
    path = fit.save(tmp_path / "fit.nc")
    with h5netcdf.File(path, "a") as file:
        file["hierlmm"].attrs["format"] = 2
        file["hierlmm"].attrs["hierlmm"] = "9.1"
    refused(lambda: hl.load_fit(path), hl.DataError, "hierlmm 9.1", "format 2", "upgrade")
    with h5netcdf.File(path, "a") as file:
        file["hierlmm"].attrs["format"] = "two"
    refused(lambda: hl.load_fit(path), hl.DataError, "changed or damaged")
    for call in (hl.load_fit, fit.save):
        refused(lambda call=call: call("a\0b.nc"), hl.errors.ArgumentError, "null character")


def test_columns_that_come_out_otherwise(fit, tmp_path, monkeypatch):
    """Another version of formulaic that codes a term in another way is noticed."""
    path = fit.save(tmp_path / "fit.nc")
    import hierlmm.storage.parts as parts

    monkeypatch.setattr(parts, "_size", lambda design, name: np.abs(getattr(design, name)).sum(axis=0) + 1e-6)
    refused(lambda: hl.load_fit(path), hl.DataError, "the columns of X", "formulaic")


def test_a_structure_of_ones_own(tmp_path, monkeypatch):
    path = saved_fits.own_structure().fit_reml().save(tmp_path / "fit.nc")
    assert hl.load_fit(path).design.residual == saved_fits.Linear("age", 9.0)
    with monkeypatch.context() as patch:
        patch.delattr(saved_fits, "Linear")
        refused(lambda: hl.load_fit(path), hl.SpecificationError, "saved_fits:Linear", "importable")
    with monkeypatch.context() as patch:
        patch.setattr(saved_fits, "Linear", dict)
        refused(lambda: hl.load_fit(path), hl.SpecificationError, "no residual structure")
    with monkeypatch.context() as patch:
        patch.setattr(saved_fits, "Linear", hl.AR1)
        refused(lambda: hl.load_fit(path), hl.SpecificationError, "takes other arguments now")


def test_a_structure_that_could_not_be_found_again(tmp_path):
    @dataclass(frozen=True)
    class Inside(saved_fits.Linear):
        pass

    class Bare(saved_fits.Linear):
        def __init__(self, time):
            object.__setattr__(self, "time", time)
            object.__setattr__(self, "reach", 5.0)

    def fitted(structure):
        data = hl.load_dataset("dental")
        return hl.MarginalModel("distance ~ time", subject="subject", data=data, correlation=structure).fit_reml()

    refused(lambda: fitted(Inside("age")).save(tmp_path / "a.nc"), hl.SpecificationError, "inside a function")
    Bare.__qualname__ = "Bare"
    globals()["Bare"] = Bare
    refused(lambda: fitted(Bare("age")).save(tmp_path / "a.nc"), hl.SpecificationError, "Bare", "dataclass")
    assert not list(tmp_path.iterdir())


SCRIPT = """
from dataclasses import dataclass
import sys
import numpy as np
import hierlmm as hl

if "define" in sys.argv:
    @dataclass(frozen=True)
    class Mine(hl.ResidualCorrelation):
        time: str

        def parameters(self, observed):
            return (hl.Parameter("rho", 0.4, 0.0, 1.0),)

        def matrix(self, t, values):
            return np.where(t[..., :, None] != t[..., None, :], values[0], 1.0)

if "save" in sys.argv:
    data = hl.load_dataset("dental")
    model = hl.MarginalModel("distance ~ time", subject="subject", data=data, correlation=Mine("age"))
    model.fit_reml().save("fit.nc")
print(hl.load_fit("fit.nc").beta.to_dict())
"""


def test_a_structure_of_a_notebook(tmp_path):
    """A class of ``__main__`` is found where the loading session has it, and asked for where it has not."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def run(*words):
        return subprocess.run(
            [sys.executable, "-W", "ignore", "script.py", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    saved, loaded, without = run("define", "save"), run("define"), run()
    assert saved.returncode == loaded.returncode == 0, saved.stderr + loaded.stderr
    assert loaded.stdout == saved.stdout
    for part in ("__main__:Mine", "run the cell or script that defines it first", "Received:", "Read:"):
        assert part in without.stderr


def test_reml_is_saved_and_loaded_without_pymc(tmp_path):
    code = """
import sys
import hierlmm as hl
model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", hl.load_dataset("dental"))
hl.load_fit(model.fit_reml().save(sys.argv[1])).summary()
print(sorted({"pymc", "pytensor", "nutpie", "arviz", "bambi"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "fit.nc")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_arviz_reads_the_file(tmp_path):
    import arviz as az

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        fit = saved_fits.SAMPLED["nuts dental"]()
    tree = az.from_netcdf(fit.save(tmp_path / "fit.nc"))
    np.testing.assert_array_equal(tree["posterior"]["beta"].to_numpy(), fit.draws("beta"))
    assert list(tree["posterior"]["coef"].to_numpy()) == list(fit.design.coef)
