"""Scores of groups: which utterances count, and the largest gap."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ser_lightning.reports.document import Paragraph, Picture, Table
from ser_lightning.reports.sections.groups import groups
from ser_lightning.reports.systems import ReportedSystem, find_systems

pytestmark = pytest.mark.usefixtures("small_pictures")
WriteFold = Callable[..., Path]
MATRIX = ((3, 1), (0, 4))  # utterances alternate between two speakers


@pytest.fixture
def system(tmp_path: Path, write_fold: WriteFold) -> Callable[..., ReportedSystem]:
    def write(*given: Sequence[Mapping[str, str]]) -> ReportedSystem:
        for fold, of_utterances in enumerate(given):
            more = {"class_names": ("a", "b"), "groups": of_utterances, "num_folds": len(given)}
            write_fold(tmp_path / "seed-0", fold, MATRIX, **more)
        ((found,), _) = find_systems([tmp_path / "seed-0"])
        return found

    return write


def test_each_group_has_its_scores_and_the_largest_gap_is_named(system: Callable[..., ReportedSystem]) -> None:
    # The second, fourth, ... utterance is male; of the class a, one of his two is taken for b.
    found = system(*[[{"gender": "female", "level": "all"}, {"gender": "male", "level": "all"}]] * 3)
    (section,) = groups([found])
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["gender: female", "gender: male"]  # one level is no group
    assert rows["gender: female"][:3] == ["12", "3", "100.0"]
    assert rows["gender: male"][:3] == ["12", "3", "75.0"]
    assert rows["gender: male"][3] == "-"  # three speakers have no interval
    (paragraph,) = (block for block in section.blocks if isinstance(block, Paragraph))
    assert paragraph.text == "Largest gap of gender: UA of female is 25.0 points above male."
    (picture,) = (block for block in section.blocks if isinstance(block, Picture))
    assert picture.numbers is not None
    assert picture.numbers["UA"].tolist() == [1.0, 0.75]


def test_groups_that_not_all_folds_have_are_not_compared(system: Callable[..., ReportedSystem]) -> None:
    gender = [{"gender": "female"}, {"gender": "male"}]
    assert groups([system(gender, [])]) == []


def test_unknown_groups_are_left_out(system: Callable[..., ReportedSystem]) -> None:
    (section,) = groups([system([{"language": "de"}, {"language": "en"}, {}, {}])])
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [(row[0], row[1]) for row in table.rows] == [("language: de", "2"), ("language: en", "2")]
