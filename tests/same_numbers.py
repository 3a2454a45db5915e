"""Answers of the package that a redesign may not change: numbers, printed words, refusals, public names.

``tests/data/same_numbers.json`` holds them as they were before the package moved; ``tests/test_same_numbers.py`` asks
again and compares. Only the public interface is used: the test does not care where anything stands. To freeze anew,
which is right only if something has changed on purpose and the changelog says why:

    python tests/same_numbers.py --write                 # every entry
    python tests/same_numbers.py --write "fit: ml"       # only entries whose name begins so
    python tests/same_numbers.py --check                 # compare, and list the differences found, however small
    python tests/same_numbers.py --show "fit: ml"        # what the file says, in plain text

The file has one line for each answer within an entry; texts of more than 24 characters stand once, compressed, at its
end. An array is {"#shape": numbers}; one of more than 8 numbers is kept as its sum, norm, a weighted sum (which sees
an exchange of two entries), and its ends; NaN counts as zero in the sums, and how many there are stands in the shape.
How far an answer may move, and why, is in ``tests/freezing.py``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import os
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freezing import ask, compact, distance, flat
from same_answers import (
    everything,
    of_calibration,
    of_comparisons,
    of_data,
    of_effects,
    of_explicit,
    of_model,
    of_predictions,
    of_priors,
    of_serial,
    of_teaching,
    of_terms,
    of_time_varying,
    profile,
)
from same_models import ALIKE, FITS, MODELS
from same_names import of_names
from same_refusals import REFUSED

FILE = Path(__file__).parent / "data" / "same_numbers.json"
LONG, TEXT = 24, "~"  # texts longer than this are written once

ENTRIES: dict[str, Callable[[], Any]] = {
    "public names": of_names,
    **{f"fit: {name}": functools.partial(everything, name) for name in FITS},
    **{f"model: {name}": functools.partial(of_model, name) for name in MODELS if name not in ALIKE},
    **{
        f"profile: {name}": functools.partial(profile, name)
        for name in ("reml sleepstudy", "ml dental", "reml m ar1", "reml dental by sex", "ml dyestuff2")
    },
    **{
        f"effects: {name}": functools.partial(of_effects, name)
        for name in ("reml dental", "ml dental by sex", "reml m ar1", "gee dental", "nuts dental")
    },
    **{
        f"predictions: {name}": functools.partial(of_predictions, name)
        for name in ("reml dental", "reml dental by sex", "reml m ar1", "gee dental", "nuts dental")
    },
    "terms": of_terms,
    "comparisons": of_comparisons,
    "serial": of_serial,
    "time-varying": of_time_varying,
    "teaching": of_teaching,
    "data": of_data,
    "priors": of_priors,
    "refusals": lambda: {name: ask(call) for name, call in REFUSED.items()},
    "calibrate": of_calibration,
    "nuts explicit": of_explicit,
}


def answer(entry: str) -> dict[str, Any]:
    """The answers of one entry now, path by path."""
    os.environ.pop("HIERLMM_DATA", None)  # only what ships
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of an answer are kept with it
        return {path: value for path, value in flat(ENTRIES[entry]()) if value is not None}


def answers(begins: str = "") -> dict[str, dict[str, Any]]:
    """All answers, by entry and path."""
    return {entry: answer(entry) for entry in ENTRIES if entry.startswith(begins)}


@functools.cache
def frozen() -> dict[str, dict[str, Any]]:
    """What the file says, by entry and path."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    texts = json.loads(zlib.decompress(base64.b85decode("".join(kept.pop("texts")))))

    def filled(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(TEXT):
            return texts[value.removeprefix(TEXT)]
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else value

    return {entry: dict(flat(filled(inside))) for entry, inside in kept.items()}


def write(begins: str) -> None:
    """Freeze the entries whose name begins so."""
    kept = (frozen() if begins else {}) | answers(begins)
    texts: dict[str, str] = {}

    def short(value: Any) -> Any:
        if isinstance(value, str) and len(value) > LONG:
            key = hashlib.sha256(value.encode()).hexdigest()[:6]
            assert texts.setdefault(key, value) == value
            return TEXT + key
        return value

    def lines(inside: dict[str, Any]) -> str:
        return ",\n".join(f"{compact(k)}: {compact(v)}" for k, v in inside.items())

    entries = []
    for entry in (e for e in ENTRIES if e in kept):
        nested: dict[str, Any] = {}
        for path, value in kept[entry].items():  # a tree again, which repeats no path
            *above, last = path.split("/")
            where = nested
            for part in above:
                where = where.setdefault(part, {})
            where[last] = short(value)
        entries.append(f"{compact(entry)}: {{\n{lines(nested)}\n}}")
    packed = base64.b85encode(zlib.compress(compact(dict(sorted(texts.items()))).encode(), 9)).decode()
    packed = [compact(packed[i : i + 10_000]) for i in range(0, len(packed), 10_000)]
    entries.append('"texts": [\n' + ",\n".join(packed) + "\n]")
    FILE.write_text("{\n" + ",\n".join(entries) + "\n}\n", encoding="utf-8")


# At the command line.


def check(begins: str) -> None:
    old = frozen()
    for entry in (e for e in ENTRIES if e.startswith(begins)):
        now = answer(entry)
        for path, was in old[entry].items():
            d = distance(f"{entry}/{path}", was, now[path]) if path in now else math.inf
            if d > 1e-12:
                print(f"{d:8.1e}  {entry}/{path}")
                if d == math.inf:
                    print(f"      was {str(was)[:300]}\n      now {str(now.get(path))[:300]}")


def show(begins: str) -> None:
    for entry, inside in frozen().items():
        for path, value in inside.items() if entry.startswith(begins) else ():
            print(f"{entry}/{path}: {value}")


if __name__ == "__main__":
    rest = [a for a in sys.argv[1:] if not a.startswith("--")]
    {"--write": write, "--show": show}.get(sys.argv[1] if sys.argv[1:] else "", check)(rest[0] if rest else "")
