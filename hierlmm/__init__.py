"""Two-level hierarchical linear mixed models, written down once and fitted by NUTS, REML and ML side by side."""

# What is imported here has an underscore: only the names of `__all__` are public (tests/house/test_package.py).
import importlib as _importlib
import re as _re
import typing as _typing
from pathlib import Path as _Path

from hierlmm._version import __version__
from hierlmm.loading import loading as _loading

# Names are resolved on first use, so that ``import hierlmm`` stays fast and REML never loads PyTensor. The stub says
# where each of them is.
_STUB = _Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_EXPORTS = {name: module for module, name in _re.findall(r"^from (\S+) import (\w+) as", _STUB, _re.M)}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> _typing.Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'hierlmm' has no attribute {name!r}")
    module = _EXPORTS[name]
    inside = module == __name__  # a part of the package, such as `families`
    with _loading():
        found = _importlib.import_module(f"{module}.{name}" if inside else module)
    value = globals()[name] = found if inside else getattr(found, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
