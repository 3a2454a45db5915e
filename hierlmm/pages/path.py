"""Where a report may be written; asked before anything is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hierlmm.errors import SpecificationError

SEE = "docs, page 'Reports'"


def checked_path(path: Any) -> Path:
    """The file of a report.

    Raises
    ------
    SpecificationError
        If the name ends in something else than ``.html``, or its folder is not there.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() not in (".html", ".htm"):
        reason, remedy = "a report is a page for a browser", f"use a name like {file.stem or 'report'}.html"
        raise SpecificationError(f"report({str(path)!r})", reason, remedy, SEE)
    if not file.parent.is_dir():
        reason = f"there is no folder {str(file.parent)!r}"
        raise SpecificationError(f"report({str(path)!r})", reason, "make it first, or name another", SEE)
    return file
