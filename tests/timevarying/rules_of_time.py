"""Rules for time-varying columns, a column made by one of them, and what rules give for a small table by hand."""

import re

import numpy as np

import hierlmm as hl

NAN = np.nan


def build(rows, rule, **options):
    """The column that one rule gives."""
    return hl.time_varying(rows, {"new": rule}, subject="id", time="t", **options)


def values(rows, rule, **options):
    return build(rows, rule, **options).data["new"].to_numpy()


def below_11(x):
    return x < 11


def above_11(x):
    return x > 11


def rule_id(rule):
    """The rule as it is written, so that a test has the same id in every process."""
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", repr(rule))


BY_HAND = [
    (hl.CurrentValue("x"), [NAN, NAN, 10, NAN, NAN, NAN, NAN, NAN]),
    (hl.LastValue("x"), [14, NAN, 10, 10, 8, NAN, 7, NAN]),
    (hl.LastValue("x", within=1.0), [NAN, NAN, 10, 10, 8, NAN, NAN, NAN]),
    (hl.LastValue("x", strict=True), [14, NAN, NAN, 10, 8, NAN, 7, NAN]),
    (hl.Lag("x", 1.0), [14, NAN, NAN, 10, 8, NAN, 7, NAN]),
    (hl.Lag("x", 3.0, how="linear"), [12, NAN, NAN, NAN, 12, NAN, NAN, NAN]),
    (hl.Interpolate("x", future=True), [10, NAN, 10, 12, 8, NAN, 7, NAN]),
    (hl.Cumulative("x"), [24 + 28, NAN, 0, 10, 24 + 33 + 8, NAN, 14, NAN]),
    (hl.Cumulative("x", rule="step"), [20 + 28, NAN, 0, 10, 20 + 42 + 8, NAN, 14, NAN]),
    (hl.Cumulative("x", future=True), [24 + 24, NAN, 0, 11, 24 + 33 + 8, NAN, 14, NAN]),
    (hl.Cumulative("x", average=True), [52 / 4, NAN, 10, 10, 65 / 6, NAN, 7, NAN]),
    (hl.Cumulative("x", origin=-1, extend_back=True), [62, NAN, 10, 20, 75, NAN, 28, NAN]),
    (hl.TimeSince("x"), [2, NAN, 0, 1, 1, NAN, 2, NAN]),
    (hl.TimeSince("x", which="first"), [4, NAN, 0, 1, 6, NAN, 2, NAN]),
    (hl.TimeSince("x", when=14.0), [2, NAN, NAN, NAN, 4, NAN, NAN, NAN]),
    (hl.TimeSince("x", when=below_11, which="last"), [4, NAN, 0, 1, 1, NAN, 2, NAN]),
]
ALL_RULES = [
    hl.CurrentValue("x"),
    hl.LastValue("x"),
    hl.LastValue("x", within=0.3),
    hl.LastValue("x", strict=True),
    hl.Lag("x", 0.3),
    hl.Lag("x", 0.7, how="linear"),
    hl.Cumulative("x"),
    hl.Cumulative("x", rule="step"),
    hl.Cumulative("x", average=True),
    hl.Cumulative("x", origin=-1.0, extend_back=True),
    hl.Cumulative("x", origin=-1.0, extend_back=True, rule="step"),
    hl.Cumulative("x", origin=-1.0, extend_back=True, average=True),
    hl.TimeSince("x", when=above_11),
    hl.TimeSince("x", when=above_11, which="first"),
]
FUTURE_RULES = [
    hl.Interpolate("x", future=True),
    hl.Cumulative("x", future=True),
    hl.Cumulative("x", future=True, origin=-1.0, extend_back=True),
]
