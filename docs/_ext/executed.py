"""Pages that a build of the documentation has executed, with which text and which code.

The tests execute every cell as well; what was built from the same text and the same code just before, they need not.
A kernel of a build has their filters: a warning is an error, on pages those of a fit excepted, which are shown with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "docs" / "_build" / "executed.json"
FILTERS = """import warnings
from pathlib import Path

def strict(*_):
    warnings.resetwarnings()
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*could not link to a BLAS installation.*")
    warnings.filterwarnings("ignore", module="ipykernel")
    if Path.cwd().name != "gallery":
        import hierlmm
        warnings.simplefilter("ignore", hierlmm.FitWarning)

def back(*_):
    warnings.resetwarnings()
    warnings.simplefilter("ignore")

get_ipython().events.register("pre_run_cell", strict)
get_ipython().events.register("post_run_cell", back)
"""


def digest(*paths: Path) -> str:
    """Of the contents of files."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()


def code() -> str:
    """Digest of what the code on a page uses."""
    files = (p for p in (ROOT / "hierlmm").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return digest(*sorted(files), ROOT / "requirements" / "lock.txt")


def was_executed(page: Path) -> bool:
    """Whether the last build executed this very text with this very code."""
    if not RECORD.exists():
        return False
    said = json.loads(RECORD.read_text(encoding="utf-8"))
    return bool(said["code"] == code() and said["pages"].get(page.stem) == digest(page))


def setup(app: Any) -> dict[str, Any]:
    """Connect to a build of Sphinx."""
    pages: dict[str, str] = {}
    before = code()

    def note(app: Any, env: Any, names: list[str]) -> None:
        pages.update({Path(name).name: digest(Path(env.doc2path(name))) for name in names})
        # A process reads some thirty neighbours at a time: pages that compute are to be in every such part.
        names[:] = [name for k in range(8) for name in names[k::8]]

    def write(app: Any, exception: Exception | None) -> None:
        if exception is None and code() == before:
            said = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
            older = said["pages"] if said.get("code") == before else {}
            RECORD.write_text(json.dumps({"code": before, "pages": older | pages}), encoding="utf-8")

    folder = Path(tempfile.mkdtemp())
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "filters.py").write_text(FILTERS, encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(folder)
    os.environ.pop("HIERLMM_DATA", None)  # as a reader has it
    app.connect("env-before-read-docs", note)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
