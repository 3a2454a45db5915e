"""Any result of the package as numbers and words that a file can hold, and the distance of two such answers."""

from __future__ import annotations

import ast
import collections
import html
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import hierlmm as hl

FEW = 8  # numbers that are kept one by one
RELATIVE = 1e-9

# Where less than nine digits are promised, by path of the answer, with the reason. The first pattern that fits counts.
# "Moved by" is what a rounding of 2e-16 in the responses did, the largest seen.
LOOSE: list[tuple[str, float, str]] = [
    (r"first draws", 1e-6, "a chain amplifies rounding"),
    (r"nuts.*(r_hat|ess|pareto|unreliable|efficien)", 2e-2, "ranks and tails of draws jump; moved by 8e-4"),
    (r"nuts.*(energy|error|accept|step_size|distance)", 1e-3, "differences of nearly equal numbers; moved by 3e-6"),
    (r"nuts", 1e-4, "a chain amplifies rounding; moved by 2e-6"),
    (r"curves all/", 2e-3, "directions in a space of lower dimension, whose basis is arbitrary; moved by 2e-4"),
    (r"rank_subjects.*/rank$", 0.1, "subjects who are equal are ranked by rounding; moved by 2e-2"),
    (r"compare_subjects|profile|petri (mvt|tukey)", 1e-7, "a search or an integral behind it; moved by 1e-8"),
    (r"/(p|df|df1|df2|F|t)$", 1e-7, "second derivatives, and tails of distributions; moved by 4e-9"),
    (r"(variance_components.*|corr_b.*)/(se|lower|upper)$", 1e-8, "second derivatives; moved by 3e-10"),
]
NOTHING = 1e-11  # numbers below this are differences of equal ones

# What a result carries for its own use: other objects, which have entries of their own, or the way to the numbers.
INNER = {"design", "fit", "fits", "judge", "grid", "criterion_function", "optimum", "estimate", "hierarchy", "implied"}
INNER |= {"source", "data", "model", "mixed", "gee", "datatree", "first", "second", "draws", "gradient_norm"}
INNER |= {"large_sample", "rows", "trial", "seconds"}
INNER |= {"ARRAYS"}  # names of the arrays that a result copied and froze itself, before there was one base of results


# Freezing.


def number(x: Any) -> float | int | str:
    """A number as JSON has it: eleven digits, and words for what is not finite."""
    if isinstance(x, bool | np.bool_):
        return int(x)
    if isinstance(x, int | np.integer):
        return int(x)
    return float(f"{float(x):.11g}") if math.isfinite(x) else str(float(x))


def numbers(values: Any) -> dict[str, Any]:
    """An array: all of it if it is small, else what tells it from others."""
    a = np.asarray(values, dtype=float)
    flat, shape = a.ravel(), "#" + "x".join(str(n) for n in a.shape)
    if not np.isfinite(flat).all():
        shape += f", {int(np.sum(~np.isfinite(flat)))} not finite"
    if flat.size <= FEW:
        return {shape: [number(x) for x in flat]}
    finite = np.where(np.isfinite(flat), flat, 0.0)
    wave = np.cos(0.7 * np.arange(flat.size) ** 1.3)
    return {shape: [number(x) for x in (finite.sum(), np.linalg.norm(finite), wave @ finite, flat[0], flat[-1])]}


def is_array(value: Any) -> bool:
    """Whether this is an array as `numbers` makes it."""
    return isinstance(value, dict) and [k[:1] for k in value] == ["#"] and isinstance(*value.values(), list)


def same_words(text: str) -> str:
    """Without what is rounding, or time: the size of a gradient that is zero, evaluations, seconds."""
    text = re.sub(r"; \d+\.\d s\n", "; ... s\n", text)
    text = re.sub(r"(largest difference of .*?) +(0\.0e\+00|[\d.]+e-1\d) ", r"\1 ... ", text)
    return re.sub(r"(gradient norm|norm of the equations) [\d.e+-]+ after \d+", r"\1 ... after ...", text)


def words(values: list[str]) -> str:
    return " | ".join(values if len(values) <= FEW else [str(len(values)), *values[:3], "...", *values[-3:]])


def freeze(value: Any, depth: int = 0) -> Any:
    """What a value says, as strings, numbers, arrays and dictionaries of them."""
    if isinstance(value, str):
        return same_words(value)
    if value is None or is_array(value):
        return value
    if isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
        return number(value)
    if isinstance(value, pd.DataFrame):
        numeric = all(pd.api.types.is_numeric_dtype(t) for t in value.dtypes)
        if numeric and list(value.index) == list(value.columns):  # a matrix
            return {"index": words([str(i) for i in value.index]), "matrix": numbers(value.to_numpy())}
        columns = {str(c): freeze(value[c].to_numpy()) for c in value.columns}
        attrs = {
            f"attrs[{k}]": freeze(v, depth + 1) for k, v in value.attrs.items() if isinstance(v, str | int | float)
        }
        rows = {} if isinstance(value.index, pd.RangeIndex) else {"index": words([str(i) for i in value.index])}
        return {**rows, **columns, **attrs}
    if isinstance(value, pd.Series):
        return {"index": words([str(i) for i in value.index]), "values": freeze(value.to_numpy())}
    if isinstance(value, pd.Index):
        return words([str(i) for i in value])
    if isinstance(value, xr.DataTree):
        found = {f"{group.path}/{v}": group[v].to_numpy() for group in value.subtree for v in group.data_vars}
        return {name: numbers(v) for name, v in sorted(found.items()) if np.issubdtype(v.dtype, np.number)}
    if isinstance(value, xr.DataArray):
        return numbers(value.to_numpy())
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "fiub":
            return numbers(value)
        return words([str(number(v) if isinstance(v, float) else v) for v in value.ravel()])
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return words([str(v) for v in value])
    if isinstance(value, Mapping):
        return {str(k): freeze(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        if value and all(isinstance(v, int | float | np.number) for v in value):
            return numbers(value)
        return words(list(value)) if all(isinstance(v, str) for v in value) else [freeze(v, depth + 1) for v in value]
    if type(value).__module__.startswith("hierlmm") and depth < 3:
        return result(value, depth)
    return None


def result(value: Any, depth: int = 0) -> dict[str, Any]:
    """A result: its public attributes, and its text."""
    text = repr(value)
    record = text.startswith(
        f"{type(value).__name__}("
    )  # the text of a plain record is no print: its numbers are asked
    out: dict[str, Any] = {"print": None if record else freeze(text)}
    for name in public(value):
        if name not in INNER:
            try:
                attribute = getattr(value, name)
            except hl.HierlmmError as error:
                attribute = f"{type(error).__name__}: {error}"
            if not callable(attribute) and not (isinstance(attribute, str) and attribute == text):
                out[name] = freeze(attribute, depth + 1)
    return out


def public(value: Any) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_")]


def html_numbers(value: Any) -> str:
    """The numbers that a reader sees in a notebook, sorted: the markup around them may change."""
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", value._repr_html_(), flags=re.DOTALL)
    text = same_words(html.unescape(re.sub(r"<[^>]*>", " ", text)).replace("−", "-"))
    return " ".join(sorted(re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", text)))


def ask(call: Callable[[], Any]) -> Any:
    """The answer, or the refusal in words; with what was warned of on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = freeze(call())
        except (hl.HierlmmError, TypeError) as error:
            answer = f"{type(error).__name__}: {error}"
    said = [str(w.message) for w in caught if issubclass(w.category, hl.FitWarning)]
    return {"answer": answer, "warned": said} if said else answer


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and leaf; arrays, strings, numbers and None are leaves."""
    if isinstance(value, dict) and not is_array(value) and "errors" not in value:
        for key, v in value.items():
            yield from flat(v, f"{path}/{key}" if path else key)
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from flat(v, f"{path}/{i}")
    else:
        yield path, value


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# Comparing.


def tolerance(where: str) -> float:
    return next((size for pattern, size, _ in LOOSE if re.search(pattern, where)), RELATIVE)


def gap(old: Any, now: Any, scale: float = 0.0) -> float:
    """Distance of two numbers in units of the larger one, or of the scale of their array; infinite for other words."""
    if isinstance(old, int | float) and isinstance(now, int | float) and max(abs(old), abs(now)) < NOTHING:
        return 0.0
    if not isinstance(old, int | float) or not isinstance(now, int | float):
        return 0.0 if old == now else math.inf
    size = max(abs(old), abs(now), scale)
    return abs(old - now) / size if size > 0 else 0.0


def distance(where: str, old: Any, now: Any) -> float:
    """How far an answer is from what it was: relative for numbers, 0 or infinite for words."""
    if isinstance(old, dict) and "errors" in old:
        pairs = zip(old["means"], now["means"], old["errors"], strict=True)
        return 0.0 if all(abs(a - b) <= 6 * e for a, b, e in pairs) else math.inf
    if is_array(old):
        return between_arrays(old, now)
    if isinstance(old, str) and isinstance(now, str) and old != (now := without_new_arguments(old, now)):
        return 0.0 if where.startswith("public names/") and has_grown(old, now) else between_texts(old, now, where)
    return gap(old, now)


def has_grown(old: str, now: str) -> bool:
    """Whether a signature has all the arguments that it had, in their order, and new ones with defaults only.

    What was ``**options`` may be written out, as arguments that are given by name;
    what had to be given may be left out.
    """
    was, has = (list(arguments_in(text)) for text in (old, now))
    has = [(kind, name, "" if (kind, name, "") in was else default) for kind, name, default in has]
    added = [argument for argument in has if argument not in was]
    if any(kind == "named" for kind, *_ in added):
        was = [argument for argument in was if argument[0] != "kwarg" or argument in has]
    return [argument for argument in has if argument in was] == was and all(default for *_, default in added)


def without_new_arguments(old: str, now: str) -> str:
    """A refusal whose listing of arguments has the names it had: it may gain some, as a signature may."""
    was, has = (re.search(r"its arguments are ([\w, ]+)", text) for text in (old, now))
    if not was or not has:
        return now
    kept = [name for name in has[1].split(", ") if name in was[1].split(", ")]
    return now.replace(has[1], ", ".join(kept))


def arguments_in(signature: str) -> Iterator[tuple[str, str, str]]:
    """Kind, name and default of every argument (no default: empty)."""
    found = ast.parse(f"def f{signature}: pass").body[0].args
    plain = [*found.posonlyargs, *found.args]
    defaults = [*[None] * (len(plain) - len(found.defaults)), *found.defaults]
    for argument, default in zip(plain, defaults, strict=True):
        yield "plain", argument.arg, ast.unparse(default) if default else ""
    for argument, default in zip(found.kwonlyargs, found.kw_defaults, strict=True):
        yield "named", argument.arg, ast.unparse(default) if default else ""
    for kind in ("vararg", "kwarg"):
        if rest := getattr(found, kind):
            yield kind, rest.arg, ""


def between_texts(old: str, now: str, where: str) -> float:
    """Nothing may differ; where numbers are loose, printed ones may by a digit, and spaces with them."""
    was, has = old.split(), now.split()
    loose = tolerance(where) > 1e-5
    if "html" in where:  # sorted numbers: none is lost, a caption may add some
        lost = collections.Counter(was) - collections.Counter(has)
        return math.inf if any(not loose or not any(close(a, b) for b in has) for a in lost) else 0.0
    if not loose or len(was) != len(has):
        return math.inf
    return 0.0 if all(close(a, b) for a, b in zip(was, has, strict=True)) else math.inf


def close(a: str, b: str) -> bool:
    """Whether two printed words are the same, or the same number but for the last digits."""
    try:
        return a == b or math.isclose(float(a.strip("();,")), float(b.strip("();,")), rel_tol=5e-3, abs_tol=5e-3)
    except ValueError:
        return False


def between_arrays(old: dict[str, list[Any]], now: Any) -> float:
    """The largest distance of two numbers, in units of the larger or of the largest number of the array."""
    if not is_array(now) or old.keys() != now.keys():
        return math.inf
    ((shape, was),) = old.items()
    size = math.prod(int(n) for n in shape[1:].split(",")[0].split("x") if n)
    if size <= FEW:
        scale = max((abs(x) for x in was if not isinstance(x, str)), default=0.0)
        scales = [scale] * len(was)
    else:
        scales = [was[1], 0.0, was[1], *[was[1] / math.sqrt(size)] * 2]  # the norm is what a sum can lose by rounding
    return max((gap(a, b, c) for a, b, c in zip(was, now[shape], scales, strict=True)), default=0.0)


def differences(entry: str, old: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What has changed, in words; a public name may be added, and nothing else."""
    out = []
    for path, was in old.items():
        where = f"{entry}/{path}"
        if path.rpartition("/")[2] in INNER:
            continue
        if path not in now:
            out.append(f"{where}: is gone; it was {was!r}")
        elif (d := distance(where, was, now[path])) > tolerance(where):
            out.append(f"{where}: differs by {d:.2g}\n    was {was!r}\n    now {now[path]!r}")
    return out
