"""One spelling of names, and cells that no spreadsheet runs."""

import csv
import io
import unicodedata
from pathlib import Path

import pytest

from ser_lightning.text import differing_in_case, from_cell, identity, to_cell
from ser_lightning.types import Utterance

SEEN_AS_JÖRG = [
    "jörg",
    unicodedata.normalize("NFD", "jörg"),
    "\ufeffjörg",
    " jö\u200brg\u00a0",
    "jo\u034f\u0308rg",  # a joiner between letter and dots keeps NFC from composing them
    "jö\u00adrg\u2060\t",
    "\u202ajörg\u202c\ufe0f",
]


@pytest.mark.parametrize("text", SEEN_AS_JÖRG, ids=ascii)
def test_names_that_look_the_same_are_the_same(text: str) -> None:
    assert identity(text) == "jörg"
    assert identity(identity(text)) == identity(text)


def test_different_names_stay_different() -> None:
    names = ["jorg", "jörg", "Jörg", "jörg 1", "jörg1", "怒り", "злость", "a_b", "01", "1", "-", "a b"]
    assert [identity(name) for name in names] == names
    assert identity("anna \u00a0 maria") == "anna maria"


def test_only_letter_case_groups_names() -> None:
    assert differing_in_case(["Bea", "bea", "BEA", "Ali", "ali2"]) == [("BEA", "Bea", "bea")]
    assert differing_in_case(["jörg", "JÖRG", "jorg"]) == [("JÖRG", "jörg")]
    assert differing_in_case(["01", "1", "a", "b"]) == []


def test_every_name_of_an_utterance_has_one_spelling(tmp_path: Path) -> None:
    odd = SEEN_AS_JÖRG[1]
    utterance = Utterance(odd, tmp_path / odd, odd, odd, session=odd, level=odd, votes=((odd,),), listed_set=odd)
    assert utterance == Utterance(
        "jörg", tmp_path / odd, "jörg", "jörg", session="jörg", level="jörg", votes=(("jörg",),), listed_set="jörg"
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "'=1+1", "''=1", "\uff1d1", "\t=1", "\n=1", '=a,b"c'])
def test_text_that_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    assert to_cell(text) == f"'{text}"
    written = io.StringIO()
    csv.writer(written).writerow([to_cell(text)])
    ((cell,),) = csv.reader(io.StringIO(written.getvalue()))
    assert from_cell(cell) == text


@pytest.mark.parametrize("text", ["", "'", "''", "'a", "a=1", "1", "jörg", "a-b", " =1"])
def test_other_text_is_written_as_it_is(text: str) -> None:
    assert to_cell(text) == from_cell(text) == text
