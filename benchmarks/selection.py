"""What choosing a model by the data does to the intervals of the model that was chosen.

    python benchmarks/selection.py [data sets]

40 subjects in two groups, five occasions, random intercepts and slopes; the groups differ in slope by an amount that a
test at 5 % finds about half of the time. Coverage of 95 % intervals (Satterthwaite, REML) for the slope of the first
group, and for the difference in slopes, of models that were stated and of models that were chosen.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd

import hierlmm as hl

SLOPE, DIFFERENCE = 0.5, 0.25


def data_set(rng: np.random.Generator) -> pd.DataFrame:
    """Lines of 40 subjects."""
    frame = pd.DataFrame({"g": np.repeat(np.arange(40), 5), "t": np.tile(np.arange(5.0), 40)})
    frame["arm"] = np.where(frame["g"] % 2, "b", "a")
    b = rng.normal(size=(40, 2)) * [1.0, 0.3]
    slope = SLOPE + DIFFERENCE * (frame["arm"] == "b") + b[frame["g"], 1]
    return frame.assign(y=b[frame["g"], 0] + slope * frame["t"] + rng.normal(size=len(frame)))


def interval(model: hl.TwoLevelModel, name: str) -> tuple[float, float]:
    """Interval of a coefficient; zero without width where the model has none."""
    table = model.fit_reml().summary(df="satterthwaite")
    return (0.0, 0.0) if name not in table.index else tuple(table.loc[name, ["lower", "upper"]])


def main() -> None:
    """Coverage and width by procedure."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    warnings.simplefilter("ignore", hl.FitWarning)
    rng, rows = np.random.default_rng(1), []
    for _ in range(n):
        frame = data_set(rng)
        full = hl.TwoLevelModel.from_formula("y ~ arm * t + (t | g)", frame)
        simple = hl.TwoLevelModel.from_formula("y ~ arm * t + (1 | g)", frame)
        chosen = hl.build_random(simple)
        dropped = hl.drop_terms(full)
        models = {"as simulated": full, "random effects chosen (build_random)": chosen.model}
        models |= {"intercepts only": simple, "interaction tested (drop_terms)": dropped.model}
        for name, model in models.items():
            for coefficient, truth in (("t", SLOPE), ("arm[T.b]:t", DIFFERENCE)):
                low, high = interval(model, coefficient)
                there = high > low
                rows.append((name, coefficient, low <= truth <= high, high - low if there else np.nan, there))
    table = pd.DataFrame(rows, columns=["model", "coefficient", "coverage", "width", "in the model"])
    shown = table.groupby(["coefficient", "model"], sort=False)[["coverage", "width", "in the model"]].mean()
    kept = table[table["in the model"]].groupby(["coefficient", "model"], sort=False)["coverage"].mean()
    print(f"{n} data sets")
    print(shown.assign(coverage_where_kept=kept).round(3).to_string())


if __name__ == "__main__":
    main()
