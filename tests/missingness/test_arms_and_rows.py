"""What is not shown is said: other arms of a tipping point, further rows that were dropped."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl


def test_other_arms_and_rows_are_named():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"id": np.repeat(np.arange(45), 3), "t": np.tile(np.arange(3.0), 45)})
    frame["arm"] = np.array(["a", "b", "c"])[frame["id"] % 3]
    frame["y"] = frame["t"] + rng.normal(size=45)[frame["id"]] + rng.normal(size=135)
    frame.loc[(frame["t"] == 2) & (frame["id"] < 15), "y"] = np.nan
    with pytest.warns(hl.FitWarning, match="15 of 135 rows"):
        model = hl.TwoLevelModel.from_formula("y ~ arm * t + (1 | id)", frame, missing="drop")
    dropped = " ".join(repr(hl.dropped_rows(model, frame)).split())
    assert "... and 5 more rows" in dropped
    fit = model.fit_reml()
    found = hl.tipping_point(fit, [0.0, -1.0], treatment="arm", n=5)
    assert found.others == ("c",) and "other arms: 'c'" in " ".join(repr(found).split())
    assert hl.tipping_point(fit, [0.0, -1.0], treatment="arm", arm="c", n=5).others == ("b",)
