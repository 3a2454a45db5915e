"""Rows that do not fit into memory: seconds and peak memory against the number of rows, in one run.

    make bench BENCH=large_data   or  .venv/bin/python benchmarks/large_data.py [--rows 5 6 7] [--balanced] [--folder DIR]

Irregular: 10 rows a subject at times of their own; balanced: 100 rows a subject at the same times. Each fit is a process
of its own, whose peak is that of all its threads. The files are made by DuckDB and stay in the folder.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

FORMULA = "y ~ time * arm + (time | subject)"


def make(path: Path, n_subjects: int, n_rows: int, *, irregular: bool) -> None:
    """Write a growth study to Parquet, sorted by subject."""
    import duckdb

    con = duckdb.connect()
    con.execute(f"SET temp_directory = '{path.parent}'")
    con.execute("SET memory_limit = '2GB'")
    normal = "(sqrt(-2 * ln(1 - {u})) * cos(2 * pi() * {v}))"  # Box and Muller

    def unit(salt: int, *of: str) -> str:
        return f"(hash({', '.join([*of, str(salt)])}) / 18446744073709551616.0)"

    def noise(salt: int, *of: str) -> str:
        return normal.format(u=unit(salt, *of), v=unit(salt + 1, *of))

    at = f"round({unit(9, 'subject', 'k')} * 10, 4)" if irregular else "CAST(k AS DOUBLE) / 10"
    con.execute(f"""
        COPY (
            SELECT subject, time, arm,
                   10 + 2 * b0 + (0.5 + 0.3 * b1 + 0.2 * (arm = 'treated')::INT) * time + {noise(1, "subject", "k")} AS y
            FROM (
                SELECT subject, k, {at} AS time, CASE WHEN subject % 2 = 0 THEN 'control' ELSE 'treated' END AS arm,
                       {noise(3, "subject")} AS b0, {noise(5, "subject")} AS b1
                FROM (SELECT range // {n_rows} AS subject, range % {n_rows} AS k FROM range({n_subjects * n_rows}))
            )
        ) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 1000000)
    """)


def fit(path: Path, memory: str) -> None:
    """One fit by REML, in this process."""
    import hierlmm as hl

    started = time.perf_counter()
    model = hl.TwoLevelModel.from_formula(FORMULA, hl.large_table(path, memory=memory))
    looked = time.perf_counter()
    found = model.fit_reml()
    ended = time.perf_counter()
    assert found.converged
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(looked - started, ended - looked, peak, found.criterion)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[5, 6, 7], help="powers of ten")
    parser.add_argument("--balanced", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("large-data"))
    parser.add_argument("--memory", default="2GB", help="what DuckDB may use")
    parser.add_argument("--child", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        fit(arguments.child, arguments.memory)
        return
    arguments.folder.mkdir(exist_ok=True)
    print(f"{'rows':>12} {'subjects':>11} {'file MB':>8} {'look s':>8} {'read and fit s':>15} {'peak GB':>8}")
    each = 100 if arguments.balanced else 10
    for power in arguments.rows:
        n = 10**power
        path = arguments.folder / f"{'balanced' if arguments.balanced else 'irregular'}_{power}.parquet"
        if not path.exists():
            make(path, n // each, each, irregular=not arguments.balanced)
        child = [sys.executable, __file__, "--child", str(path), "--memory", arguments.memory]
        done = subprocess.run(child, capture_output=True, text=True, check=True)
        look, read, peak, _ = map(float, done.stdout.split()[-4:])
        size = path.stat().st_size / 1e6
        print(f"{n:12,} {n // each:11,} {size:8,.0f} {look:8.1f} {read:15.1f} {peak:8.2f}", flush=True)


if __name__ == "__main__":
    main()
