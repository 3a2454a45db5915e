"""Tables for papers: Markdown and Word have the cells of the table for print."""

import re

import pytest

import hierlmm as hl

ASKED = {"rename": {"time": "Years"}, "digits": 2, "parameters": ["fixed", "sigma"], "title": "Growth | of_27"}


@pytest.fixture(scope="module")
def both(dental_reml):
    return hl.compare(dental_reml, dental_reml, labels=["one", "two"])


def test_markdown_has_every_row_and_column(both):
    text = both.to_markdown(**ASKED)
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {7}
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert cells["Years"] == ["0.48", "0.10", r"\[0.28, 0.68\]"] * 2
    assert text.startswith(r"**Growth \| of\_27**") and "95 % intervals" in text


def test_a_word_document_has_the_same_cells(both, tmp_path):
    docx = pytest.importorskip("docx")
    document = docx.Document(both.to_docx(tmp_path / "table.docx", **ASKED))
    (table,) = document.tables
    rows = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in table.rows[2:]}
    assert rows["Years"] == ["0.48", "0.10", "[0.28, 0.68]"] * 2
    assert [cell.text for cell in table.rows[0].cells[1:]] == ["one (reference)"] * 3 + ["two"] * 3
    assert document.paragraphs[0].text == "Growth | of_27"


def test_a_word_document_ends_in_docx(both, tmp_path):
    with pytest.raises(hl.errors.SpecificationError, match=r"table\.docx"):
        both.to_docx(tmp_path / "table.doc")
