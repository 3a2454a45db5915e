"""How often the bands of `plot_residuals` and `plot_qq` are left where the fitted model is true.

    python benchmarks/residual_pictures.py [300]

30 subjects with 6 occasions, random intercept and slope, REML fitted anew to every data set. Prints the share of
p <= 0.05 of the smoother (both levels), of the residuals and of the random effects; it should be 0.05 or below.
"""

from __future__ import annotations

import sys

import numpy as np

import hierlmm as hl
from hierlmm.diagnostics.normality import normality
from hierlmm.diagnostics.residual_curve import residual_curve


def p_values(seed: int) -> dict[str, float]:
    """One data set."""
    data = hl.simulate(
        beta={"Intercept": 10, "time": -1},
        D=np.array([[4.0, 0.3], [0.3, 0.4]]),
        sigma=1.5,
        random=["Intercept", "time"],
        n_subjects=30,
        times=(0, 1, 2, 3, 4, 5),
        seed=seed,
    )
    fit = hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", data).fit_reml()
    found = {part: band.p_value for part, band in normality(fit, (1, 2), 0.95, 400, seed).bands.items()}
    for level in ("subject", "population"):
        curve = residual_curve(fit, "pearson", level, 0.95, 199, seed=seed)
        assert curve is not None
        found[f"smoother, {level}"] = curve.p_value
    return found


def main() -> None:
    """Print the shares."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    rows = [p_values(seed) for seed in range(n)]
    for part in rows[0]:
        p = np.array([row[part] for row in rows if part in row])
        print(f"{part:22} share of p <= 0.05: {np.mean(p <= 0.05):.3f} of {len(p)}")


if __name__ == "__main__":
    main()
