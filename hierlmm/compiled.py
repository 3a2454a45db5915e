"""Compiled functions, kept on disk in a folder that is named after their sources.

numba looks only at the file of the function that is called to see whether its machine code is out of date; functions of
other files are inlined into it, and an edit there goes unnoticed. Here the folder carries a hash of every file that has
a compiled function, so that one edit makes all of them new. The folder is the package's ``__pycache__``, or where that
cannot be written one of the user's, or ``NUMBA_CACHE_DIR``; other packages' caches are not touched.

What compiled code uses, functions and constants, lives in files that import from here: these are the ones hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba.core import sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.ccallback import CFunc
from numba.extending import register_jitable
from numba.misc.appdirs import AppDirs

PACKAGE = Path(__file__).parent
KEPT = 4
"""Folders of other versions that stay: going back to a branch does not compile anew."""


def compiled(*, keep: bool = True, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function without Python's lock, kept on disk: a decorator with the options of ``numba.njit``.

    What is not of this package must not be kept: an edit of it would go unnoticed.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        made = numba.njit(nogil=True, **options)(function)
        return _kept(made, function) if keep else made

    return decorate


def with_names(function: Callable[..., Any], version: str, **names: Any) -> Callable[..., Any]:
    """A function whose globals have these names besides: one text for several compiled functions.

    Parameters
    ----------
    function : callable
        Not compiled yet.
    version : str
        Tells what is made of it apart, on disk as well.
    **names
        What names in the function stand for.
    """
    own = FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__)
    own.__qualname__ = f"{function.__qualname__}_{version}"
    return own


def compiled_callback(signature: Any, function: Callable[..., Any], *, keep: bool = True) -> Any:
    """Compile a function to a C callback of a numba signature, kept on disk unless it is not of this package."""
    # As numba.cfunc does, which compiles at once and so leaves no moment to attach a cache.
    # Divisions by zero are infinite: an exception could not leave a function that is called from C.
    options = {"error_model": "numpy"}
    callback = CFunc(function, sigutils.normalize_signature(signature), locals={}, options=options)
    if keep:
        callback = _kept(callback, function)
    callback.compile()
    return callback


def cut(numbers: Any, rows: int, columns: int) -> tuple[Any, Any]:
    """The first numbers of a vector as a matrix, and those that follow; in compiled code too."""
    return numbers[: rows * columns].reshape((rows, columns)), numbers[rows * columns :]


def whole(numbers: Any, size: int) -> tuple[Any, Any]:
    """The first numbers of a vector as whole ones, which they are by their bits, and those that follow."""
    return numbers[:size].view(np.int64), numbers[size:]


register_jitable(cut)
register_jitable(whole)


@cache
def sources(package: Path = PACKAGE) -> tuple[Path, ...]:
    """Files with compiled functions."""
    found = (path for path in sorted(package.rglob("*.py")) if b"hierlmm.compiled import" in path.read_bytes())
    return tuple(found)


@cache
def fingerprint() -> str:
    """Hash of the files with compiled functions; empty where the sources are not on disk."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16] if sources() else ""


@cache
def cache_folder() -> Path | None:
    """Folder of this version's machine code, ready to be written to; None where there is no such place."""
    name = f"{PACKAGE.name}-{hashlib.sha256(str(PACKAGE).encode()).hexdigest()[:16]}"
    given = getattr(numba.config, "CACHE_DIR", "")
    if given:
        roots = [Path(given) / name]
    else:
        user = AppDirs(appname="hierlmm", appauthor=False).user_cache_dir
        roots = [PACKAGE / "__pycache__" / "compiled", Path(user) / name]
    for root in roots if fingerprint() else ():
        folder, marker = root / fingerprint(), root / fingerprint() / "last_used"
        with contextlib.suppress(OSError):
            new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            marker.touch()
            if new:
                _remove_old(root)
            return folder
    return None


def _remove_old(root: Path) -> None:
    """Keep the folders last used. A process that still works with one that goes compiles again: see `_DiskCache`."""
    with contextlib.suppress(OSError):
        used = sorted(root.glob("*/last_used"), key=lambda marker: marker.stat().st_mtime, reverse=True)
        for marker in used[KEPT + 1 :]:
            shutil.rmtree(marker.parent, ignore_errors=True)


class _Locator:
    """Where a function is kept: what numba asks a locator, answered by `cache_folder`."""

    def __init__(self, path: str, line: int):
        self._py_file, self._line = path, line

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator:
        return cls(py_file, py_func.__code__.co_firstlineno)

    def ensure_cache_path(self) -> None:
        Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return fingerprint()

    def get_disambiguator(self) -> str:
        """Tell functions of one name apart: files of all subpackages share the folder."""
        return f"{Path(self._py_file).parent.name}-{self._line}"


class _Files(CompileResultCacheImpl):
    _locator_classes: list[type[object]] = [_Locator]  # noqa: RUF012 (as numba declares it)


class _DiskCache(FunctionCache):
    """numba's cache with our folder, which another process may remove at any time."""

    _impl_class = _Files

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def _kept(function: Any, source: Callable[..., Any]) -> Any:
    """Attach the cache to what numba compiles."""
    if cache_folder() is not None:
        function._cache = _DiskCache(source)
    return function
