"""How often the page of checks finds the seven faults of the example, and how often it shouts at the clean twin.

    .venv/bin/python benchmarks/planted_faults.py [data sets]

The study is that of `examples/09_can_i_believe_it.py`, drawn anew with every seed.
"""

import sys
import warnings
from pathlib import Path

import pandas as pd

import hierlmm as hl

EXAMPLE = Path(__file__).parents[1] / "examples" / "09_can_i_believe_it.py"
FAULTS = {
    "outlying_rows": "row 500",
    "influential_subjects": "41",
    "mean": "month",
    "spread": "arm",
    "serial": "more alike",
    "level2": "severity",
    "collinearity": "bmi",
}


def main(n: int) -> None:
    """Print the shares of data sets in which a fault is called out by its name, and of clean pages with an alarm."""
    names: dict = {}
    first = EXAMPLE.read_text(encoding="utf-8").split("# %%")[2]
    exec(compile(first.split("FORMULA")[0], EXAMPLE.name, "exec"), names)
    formula = "metres ~ month * arm + age + weight + bmi + (month | patient)"
    found, alarms = [], []
    for seed in range(n):
        pages = []
        for faults in (True, False):
            data = names["study"](faults, seed)
            pages.append(hl.TwoLevelModel.from_formula(formula, data).fit_reml().check(data, seed=seed))
        page, twin = pages
        found.append(
            {
                k: page[k].severity == "act" and (word in page[k].seen or k == "collinearity")
                for k, word in FAULTS.items()
            }
        )
        alarms.append(not twin.ok)
    table = pd.DataFrame(found)
    print(f"{n} data sets; found and called by its name (%):")
    print((100 * table.mean()).round(1).to_string())
    print(f"all seven {100 * table.all(axis=1).mean():.1f} %; clean twin with something to act on", end=" ")
    print(f"{100 * sum(alarms) / n:.1f} %")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
