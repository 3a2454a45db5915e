"""What cannot be read is refused, with the file, the column or the subject that is the reason."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

pytest.importorskip("duckdb")
FORMULA = "y ~ time * arm + (time | subject)"


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(5)
    J, n = 120, 6
    subject = np.repeat([f"s{k:03d}" for k in range(J)], n)
    time_, who = np.tile(np.arange(n, dtype=float), J), np.repeat(np.arange(J), n)
    b = rng.normal(size=(J, 2))
    y = 3 + b[who, 0] + (1 + 0.3 * b[who, 1]) * time_ + rng.normal(size=J * n)
    return pd.DataFrame({"subject": subject, "time": time_, "arm": np.where(who % 2, "a", "b"), "y": y})


def folder_of(tmp_path, *parts):
    for k, part in enumerate(parts):
        part.to_parquet(tmp_path / f"{k}.parquet", index=False)
    return tmp_path


def model(source, formula=FORMULA, **options):
    return hl.TwoLevelModel.from_formula(formula, hl.large_table(source), **options)


def test_subjects_over_files_and_an_empty_one(frame, tmp_path):
    """Every subject has rows in each file, and one file has no rows."""
    folder = folder_of(tmp_path, frame.iloc[::2], frame.iloc[1::2], frame.iloc[:0])
    known = hl.TwoLevelModel.from_formula(FORMULA, frame).fit_reml()
    assert model(folder).fit_reml().criterion == pytest.approx(known.criterion, rel=1e-11)


def test_a_level_in_the_last_file_only(frame, tmp_path):
    late = frame[frame["subject"] > "s115"].assign(arm="late")
    folder = folder_of(tmp_path, frame[frame["subject"] <= "s115"], late)
    fit = model(folder).fit_reml()
    assert "arm[T.late]" in fit.beta.index
    everything = pd.concat([frame[frame["subject"] <= "s115"], late])
    known = hl.TwoLevelModel.from_formula(FORMULA, everything).fit_reml()
    assert np.allclose(fit.beta, known.beta, rtol=1e-9)


def test_two_types_of_a_column(frame, tmp_path):
    folder = folder_of(tmp_path, frame, frame.assign(time=frame["time"].astype(str)))
    with pytest.raises(hl.DataError, match=r"(?s)1\.parquet.*'time' is .*string.*double"):
        model(folder)


def test_a_file_that_is_cut_off(frame, tmp_path):
    folder = folder_of(tmp_path, frame, frame)
    whole = (folder / "1.parquet").read_bytes()
    (folder / "1.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(hl.DataError, match=r"(?s)1\.parquet.*no complete Parquet file"):
        model(folder)


def test_no_such_file(tmp_path):
    for path in (tmp_path / "none.parquet", str(tmp_path / "*.parquet"), tmp_path):
        with pytest.raises(hl.DataError, match=r"(?s)no such file|no file whose name"):
            model(path)


def test_missing_values_are_counted(frame, tmp_path):
    holes = frame.copy()
    holes.loc[[3, 8], "y"] = np.nan
    holes.loc[holes["subject"] == "s004", "time"] = np.nan
    folder = folder_of(tmp_path, holes)
    with pytest.raises(hl.DataError, match=r"(?s)y \(2\), time \(6\)|time \(6\), y \(2\).*8 of 720 rows"):
        model(folder)
    with pytest.warns(hl.FitWarning, match=r"8 of 720 rows, and with them 1 of 120 subjects"):
        fit = model(folder, missing="drop").fit_reml()
    assert (fit.n_obs, fit.n_subjects) == (712, 119)


def test_the_same_refusals(frame, tmp_path):
    folder = folder_of(tmp_path, frame)
    with pytest.raises(hl.FormulaError, match="there is no column named 'tme'"):
        model(folder, "y ~ tme + (1 | subject)")
    varies = frame.copy()
    varies.loc[700, "arm"] = "c"
    with pytest.raises(hl.SpecificationError, match=r"varies within subject 's116'"):
        hl.TwoLevelModel(
            "y ~ time",
            {"Intercept": "arm", "time": "1"},
            subject="subject",
            data=hl.large_table(folder_of(tmp_path, varies)),
        )
    with pytest.raises(hl.NotAvailableError, match="residual structure"):
        model(folder, residual=hl.AR1())
    with pytest.raises(hl.NotAvailableError, match="Poisson"):
        model(folder, family="poisson")


def test_what_needs_all_rows_is_refused(frame, tmp_path):
    fit = model(folder_of(tmp_path, frame)).fit_reml()
    for ask in (
        fit.bootstrap,
        fit.check,
        fit.influence,
        fit.subject_loglik,
        lambda: fit.summary(df="satterthwaite"),
        lambda: fit.variance_components(method="profile"),
        lambda: fit.marginal_means("arm"),
        lambda: fit.save(tmp_path / "fit.nc"),
        lambda: hl.anova(fit, fit),
        lambda: hl.compare_models(fit, fit),
        lambda: hl.drop_terms(model(tmp_path)),
        lambda: model(tmp_path).to_pymc(),
        lambda: model(tmp_path).fit_gee(),
    ):
        with pytest.raises(hl.NotAvailableError, match="not in memory"):
            ask()


def test_a_changed_file_of_sums_is_refused(frame, tmp_path):
    own = model(folder_of(tmp_path, frame))
    path = own.save_crossproducts(tmp_path / "sums.nc")
    bytes_ = bytearray(path.read_bytes())
    value = np.float64(float(_a_number_of(path))).tobytes()
    at = bytes_.find(value)
    assert at > 0
    bytes_[at] ^= 1
    path.write_bytes(bytes_)
    with pytest.raises(hl.DataError, match="changed or damaged"):
        hl.load_crossproducts(path)
    path.write_bytes(bytes_[: len(bytes_) // 2])
    with pytest.raises(hl.DataError, match="no netCDF file, or damaged"):
        hl.load_crossproducts(path)


def _a_number_of(path):
    import h5py

    with h5py.File(path) as file:
        return file["hierlmm/arrays/sums.S"][0, 0]


@pytest.mark.slow
def test_a_pass_that_is_killed_leaves_nothing_or_a_whole_file(frame, tmp_path):
    """Killed at ten moments between start and end: the file is not there, or gives the criterion."""
    many = pd.concat([frame.assign(subject=frame["subject"] + f"-{k}") for k in range(150)])
    source = tmp_path / "rows.parquet"
    many.to_parquet(source, index=False)
    target = tmp_path / "sums.nc"
    program = textwrap.dedent(f"""
        import sys
        import hierlmm as hl
        model = hl.TwoLevelModel.from_formula({FORMULA!r}, hl.large_table({str(source)!r}))
        print("start", flush=True)
        model.save_crossproducts({str(target)!r}, overwrite=True)
        print("end", flush=True)
    """)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    _ = time.perf_counter() - started
    known = hl.load_crossproducts(target).fit_reml().criterion
    os.remove(target)
    process = None
    for moment in np.linspace(0.0, 1.2, 10):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "start\n"
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if target.exists():
            assert hl.load_crossproducts(target).fit_reml().criterion == pytest.approx(known, rel=1e-12)
            os.remove(target)
        for rest in tmp_path.glob(".hierlmm-*"):
            shutil.rmtree(rest)
