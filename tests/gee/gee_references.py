"""What geepack and gee in R gave, and the data they were given."""

import json

import numpy as np
import pandas as pd
from references import data_elsewhere, references_of

import hierlmm as hl

FOLDER = references_of("gee")


IDS = sorted(path.stem for path in FOLDER.glob("*_gee_*.json"))


def read(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def data_of(name):
    """The data of a reference, and the column that R took as waves."""
    if name.startswith("dental"):
        data = hl.load_dataset("dental").rename(columns={"subject": "id", "distance": "y"})
        if name == "dental_male":
            data = data[data["sex"] == "Male"]
        if name == "dental_gaps":
            data = data[~((data["id"] % 3 == 0) & (data["time"] == 2)) & ~((data["id"] % 5 == 0) & (data["time"] == 6))]
        return data, "id", "time"
    if name == "negative_icc":
        return hl.load_dataset(name), "subject", "time"
    if name == "active":
        data, subject = hl.load_dataset(name), "subject"
    else:
        data, subject = pd.read_csv(data_elsewhere("sim_active")), "aid"
        data["intgrp"] = pd.Categorical(data["intgrp"], sorted(data["intgrp"].unique()))
    wave = np.unique(data["years"], return_inverse=True)[1]
    return data.assign(late=(data["years"] > 3).astype(float)), subject, wave
