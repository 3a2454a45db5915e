"""The lectures run, cell by cell, and each has what a lecture has."""

import re
from pathlib import Path

import pytest
from cells import run_page

COURSE = Path(__file__).parents[2] / "docs" / "course"
LECTURES = sorted(COURSE.glob("[1-9]_*.md"))

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_a_reader_has_it", "short_chains")]


@pytest.mark.parametrize("page", LECTURES, ids=lambda page: page.stem)
def test_lecture_runs(page):
    run_page(page)


@pytest.mark.parametrize("page", LECTURES, ids=lambda page: page.stem)
def test_lecture_has_exercises_with_folded_solutions(page):
    text = page.read_text(encoding="utf-8")
    exercises = re.split(r"^## Exercises$", text, flags=re.M)[-1]
    assert exercises != text
    asked = re.findall(r"^\*\*(\d+)\.\*\*", exercises, re.M)
    assert len(asked) >= 4
    assert asked == [str(n + 1) for n in range(len(asked))]
    assert exercises.count("<details>") == exercises.count("</details>") == len(asked)


def test_every_lecture_is_in_the_syllabus():
    listed = re.findall(r"^([1-9]_\w+)$", (COURSE / "index.md").read_text(encoding="utf-8"), re.M)
    assert listed == [page.stem for page in LECTURES]
