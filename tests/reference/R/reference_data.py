"""Write the data of the reference results as R knows them: one CSV each, and the levels of every factor.

python reference_data.py FOLDER     (aids, pbc2, prothro, sim_active and fev only where HIERLMM_DATA has them)
"""

import json
import os
import sys
from pathlib import Path

import pandas as pd

from hierlmm import load_dataset

TESTS = Path(__file__).resolve().parents[2]


def shipped() -> dict[str, pd.DataFrame]:
    dental = load_dataset("dental")
    orthodont = dental.rename(columns={"subject": "id", "distance": "y"})
    orthodont["occ"] = (orthodont["age"] - 6) // 2
    gaps = ((orthodont["id"] % 3 == 0) & (orthodont["time"] == 2)) | (
        (orthodont["id"] % 5 == 0) & (orthodont["time"] == 6)
    )
    pbc = load_dataset("pbc").rename(columns={"subject": "id"})
    pbc["sex"] = pbc["sex"].cat.rename_categories(str.lower)
    pups = load_dataset("rat_pups")
    petri = load_dataset("petri")
    return {
        "dental": dental,
        "potthoffroy": orthodont,
        "dental_male": orthodont[orthodont["sex"] == "Male"],
        "dental_gaps": orthodont[~gaps].assign(wave=lambda d: d["occ"]),
        "sleepstudy": load_dataset("sleepstudy"),
        "sleepstudy_by_day": load_dataset("sleepstudy").assign(day=lambda d: d["days"].astype(str)),
        "pastes": load_dataset("pastes"),
        "penicillin": load_dataset("penicillin"),
        "dyestuff": load_dataset("dyestuff"),
        "dyestuff2": load_dataset("dyestuff2").assign(half=lambda d: d.index % 2),
        "esoph_new": load_dataset("esoph"),
        "esoph_old": load_dataset("esoph", coding="1980s"),
        "sim_rats": load_dataset("rats").rename(columns={"litter": "litterid"}),
        "sim_petri": petri.rename(columns={"dish": "dish_id"}),
        "petri": petri,
        "sim_negicc": load_dataset("negative_icc").rename(columns={"subject": "id"}),
        "ratpupweight": pups,
        "rat_pups": pups,
        "active": waves(load_dataset("active").rename(columns={"subject": "aid"})),
        "pbcseq": first(pbc, "protime"),
        "sim_seed003_clusters": pd.read_csv(TESTS / "data" / "text4_clusters.csv"),
        "generalized": pd.read_csv(TESTS / "data" / "generalized.csv"),
        "factor_families": pd.read_csv(TESTS / "data" / "factor_families.csv"),
    }


def elsewhere(folder: Path) -> dict[str, pd.DataFrame]:
    """Data that may not ship."""
    found = {name: pd.read_csv(folder / f"{name}.csv") for name in ("aids", "pbc2", "prothro", "sim_active", "fev")}
    aids, pbc2 = found["aids"], found["pbc2"]
    aids["year"] = aids["obstime"] / 12
    aids["obstime_int"] = aids["obstime"].rank(method="dense").astype(int)
    aids["drug"] = pd.Categorical(aids["drug"], ["ddC", "ddI"])
    areas = pd.read_csv(folder / "pbc2_cumprothrombin.csv")[["cum_trap", "cum_locf"]]
    pbc2 = pd.concat([pbc2, areas], axis=1)
    pbc2["sex"] = pd.Categorical(pbc2["sex"], ["male", "female"])
    pbc2["drug"] = pd.Categorical(pbc2["drug"], ["placebo", "D-penicil"])
    found["pbc2"] = first(pbc2, "prothrombin")
    found["prothro"]["treat"] = pd.Categorical(found["prothro"]["treat"], ["placebo", "prednisone"])
    found["sim_active"] = waves(found["sim_active"])
    return found


def first(data: pd.DataFrame, column: str) -> pd.DataFrame:
    return data.assign(basepro=data.groupby("id")[column].transform("first"))


def waves(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(late=(data["years"] > 3).astype(float), wave=data["years"].rank(method="dense").astype(int))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = os.environ.get("HIERLMM_DATA")
    tables = shipped() | (elsewhere(Path(source)) if source else {})
    levels = {}
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.17g")
        factors = table.select_dtypes(["category", "object", "string"])
        levels[name] = {
            column: [str(level) for level in factors[column].astype("category").cat.categories] for column in factors
        }
    (folder / "levels.json").write_text(json.dumps(levels))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
