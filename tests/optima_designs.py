"""Small random two-level Gaussian designs, many of them with more than one optimum; the same numbers on every machine.

The draws come from the raw bits of PCG64, which numpy keeps for ever (unlike those of its distributions), and the
data are rounded to four decimals, so that R reads exactly what Python fits:

    python tests/optima_designs.py FOLDER     # designs.csv and rows.csv, for likelihood/reference/optima/optima.R
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtri

from hierlmm import load_dataset

DATA = Path(__file__).parent / "data"
N_FREE = 2000
N_DESIGNS = N_FREE + 200
DECIMALS = 4
# Random parts and how often each is drawn; those without an intercept, or of independent terms, more often.
RANDOM = {
    "(0 + x | g)": 20,
    "(1 | g)": 4,
    "(1 + x | g)": 16,
    "(1 + x || g)": 26,
    "(0 + x + z || g)": 12,
    "(1 + x + z || g)": 17,
    "(1 + x + z | g)": 5,
}


@dataclass(frozen=True)
class RandomDesign:
    """A formula, an estimator and the rows."""

    id: int | str
    formula: str
    reml: bool
    data: pd.DataFrame


class Stream:
    """Uniform and normal numbers from the raw bits of one PCG64."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, n: int) -> np.ndarray:
        """Strictly between 0 and 1."""
        raw = np.asarray(self._bits.random_raw(n), dtype=np.uint64)
        return ((raw >> np.uint64(11)).astype(float) + 0.5) * 2.0**-53

    def normal(self, n: int) -> np.ndarray:
        return ndtri(self.uniform(n))

    def number(self) -> float:
        return float(self.uniform(1)[0])

    def chance(self, probability: float) -> bool:
        return self.number() < probability

    def integers(self, low: int, high: int, n: int) -> np.ndarray:
        """From low to high, both included."""
        return low + np.floor(self.uniform(n) * (high - low + 1)).astype(int)

    def choice(self, options: Sequence, weights: Sequence[float] | None = None):
        edges = np.cumsum(weights if weights is not None else np.ones(len(options)))
        return options[int(np.searchsorted(edges, self.number() * edges[-1]))]


def named_designs() -> list[RandomDesign]:
    """Known cases with two optima: the dental growth data, and two simulated sets."""
    dental = load_dataset("dental").rename(columns={"subject": "g", "distance": "y", "age": "x"})
    a, b = (pd.read_csv(DATA / f"two_minima_{name}.csv").rename(columns={"subject": "g"}) for name in "ab")
    return [
        RandomDesign("dental_reml", "y ~ sex + (0 + x | g)", True, dental),
        RandomDesign("dental_ml", "y ~ sex + (0 + x | g)", False, dental),
        RandomDesign("two_minima_a", "y ~ 1 + f + z + (1 + x || g)", False, a),
        RandomDesign("two_minima_b", "y ~ 1 + sex + (1 + x + z || g)", True, b),
    ]


def random_design(id: int) -> RandomDesign:
    """The design with this number; from N_FREE on, every random term has its fixed one.

    It is drawn again until its columns are of full rank and leave residual variance.
    """
    stream, paired = Stream(id), id >= N_FREE
    while True:
        random = stream.choice(list(RANDOM), list(RANDOM.values()))
        data = _covariates(stream)
        fixed = _fixed_part(stream, random, paired)
        if _usable(data, fixed, random):
            break
    data.insert(1, "y", np.round(_response(stream, data, random), DECIMALS))
    return RandomDesign(id, f"y ~ {' + '.join(fixed)} + {random}", stream.chance(0.5), data)


def checksum(design: RandomDesign) -> str:
    """Of formula and rows: if it changes, the frozen optimum belongs to other data."""
    text = f"{design.formula} {design.reml} {list(design.data)}"
    for _, column in design.data.items():
        text += str([str(value) for value in column] if column.dtype.kind not in "if" else _integers(column))
    return f"{zlib.crc32(text.encode()):08x}"


def _integers(column: pd.Series) -> list[int]:
    return np.rint(column.to_numpy() * 10.0**DECIMALS).astype(np.int64).tolist()


def _covariates(stream: Stream) -> pd.DataFrame:
    """Subjects g; x and z within them; w, sex and f between them."""
    n_subjects = 5 + int(26 * stream.number() ** 1.5)
    if stream.chance(0.5):
        size = np.repeat(stream.integers(2, 8, 1), n_subjects)
    else:
        low, high = np.sort(stream.integers(2, 8, 2))
        size = stream.integers(int(low), int(high), n_subjects)
    g = np.repeat(np.arange(n_subjects), size)
    occasion = np.concatenate([np.arange(n) for n in size])
    z = stream.normal(len(g)) if stream.chance(0.7) else (stream.uniform(len(g)) < 0.5).astype(float)
    x = _time(stream, occasion)
    sex = np.where(stream.uniform(n_subjects) < 0.5, "F", "M")
    f = np.array(["a", "b", "c"])[stream.integers(0, 2, n_subjects)]
    columns = {"g": g, "x": x, "z": z, "w": stream.normal(n_subjects)[g], "sex": sex[g], "f": f[g]}
    return pd.DataFrame(columns).round(DECIMALS)


def _time(stream: Stream, occasion: np.ndarray) -> np.ndarray:
    """x: occasions from 0, centred, or far from 0; or irregular."""
    n = len(occasion)
    kind = stream.choice(["from 0", "centred", "ages", "normal", "skew", "far", "very far"], [3, 2, 4, 3, 2, 3, 1])
    match kind:
        case "from 0":
            return 1.0 * occasion
        case "centred":
            return occasion - occasion.mean()
        case "ages":
            return 8.0 + 2.0 * occasion
        case "normal":
            return stream.normal(n)
        case "skew":
            return -np.log(stream.uniform(n))
        case "far":
            return 20.0 + 2.0 * stream.normal(n)
        case _:
            return 100.0 + 3.0 * stream.normal(n)


def _fixed_part(stream: Stream, random: str, paired: bool) -> list[str]:
    """Fixed terms; unless paired, a covariate with a random slope has a fixed one about half the time."""
    terms = ["1"]
    for name, probability in {"x": 0.3, "z": 0.3, "w": 0.3, "sex": 0.4, "f": 0.3}.items():
        if stream.chance(probability) or (paired and name in random):
            terms.append(name)
    if {"x", "sex"} <= set(terms) and stream.chance(0.3):
        terms.append("x:sex")
    return terms


def _random_terms(data: pd.DataFrame, random: str) -> dict[str, np.ndarray]:
    columns = {"1": np.ones(len(data)), "x": data["x"].to_numpy(), "z": data["z"].to_numpy()}
    return {name: column for name, column in columns.items() if name in random.split("|")[0]}


def _usable(data: pd.DataFrame, fixed: list[str], random: str) -> bool:
    """Fixed columns well apart, more subjects than random terms, and rows left over when every subject has its own."""
    X = [np.ones(len(data))]
    for name in fixed[1:]:
        if name == "x:sex":
            X.append(data["x"].to_numpy() * (data["sex"] == "M"))
        elif name in ("sex", "f"):
            levels = sorted(set(data[name]))
            X += [1.0 * (data[name] == level).to_numpy() for level in levels[1:]]
            if len(levels) < 2 or data.groupby(name)["g"].nunique().min() < 2:
                return False
        else:
            X.append(data[name].to_numpy())
    size, q = np.bincount(data["g"]), len(_random_terms(data, random))
    left = len(data) - np.column_stack(X).shape[1] - int(np.minimum(size, q).sum())
    spread = np.linalg.svd(np.column_stack([column / np.linalg.norm(column) for column in X]), compute_uv=False)
    return left >= 3 and len(data) > q * len(size) and float(spread[-1]) > 1e-3


def _response(stream: Stream, data: pd.DataFrame, random: str) -> np.ndarray:
    """A response whose mean has slopes, fitted or not, and with random effects from none to a hundred times σ."""
    g = data["g"].to_numpy()
    n, n_subjects = len(g), int(g.max()) + 1
    sigma = 10.0 ** (-1.0 + 2.0 * stream.number())
    y = stream.choice([0.0, 10.0, 100.0]) * stream.normal(1)[0] + sigma * stream.normal(n)
    y += stream.choice([0.0, 1.0, 5.0]) * sigma * ((data["sex"] == "M") + stream.normal(1)[0] * data["w"]).to_numpy()
    common = stream.normal(n_subjects)
    for name, column in {"1": np.ones(n), "x": data["x"].to_numpy(), "z": data["z"].to_numpy()}.items():
        spread = float(column.std()) if name != "1" else 1.0
        size = float(np.sqrt(np.mean(column**2))) if stream.chance(0.5) else spread
        absent = stream.chance(0.2 if name in random else 0.6)
        sd = 0.0 if absent else sigma / size * 10.0 ** (-2.0 + 3.5 * stream.number())
        correlation = stream.choice([0.0, 0.5, -0.8, 0.98])
        b = correlation * common + np.sqrt(1.0 - correlation**2) * stream.normal(n_subjects)
        mean = stream.choice([0.0, 0.5, 2.0, 5.0]) * stream.normal(1)[0] * max(sd, sigma / spread)
        if stream.chance(0.2):
            b[0] += 6.0
        y += (mean + sd * b)[g] * column
    return y


def main(folder: Path) -> None:
    designs = named_designs() + [random_design(id) for id in range(N_DESIGNS)]
    listed = [(d.id, d.formula, str(d.reml).upper(), checksum(d)) for d in designs]
    pd.DataFrame(listed, columns=["id", "formula", "reml", "rows"]).to_csv(folder / "designs.csv", index=False)
    columns = ["id", "g", "y", "x", "z", "w", "sex", "f"]
    rows = pd.concat([d.data.assign(id=d.id).reindex(columns=columns) for d in designs])
    rows.to_csv(folder / "rows.csv", index=False, float_format="%.17g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
