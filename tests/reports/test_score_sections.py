"""What the sections about scores say beside the numbers: what they rest on, and what they cannot show."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ser_lightning.reports.document import Caveats, Paragraph, Picture, Section, Table
from ser_lightning.reports.sections.facts import opening
from ser_lightning.reports.sections.scores import beside_the_paper, hyper_parameters, which_differ
from ser_lightning.reports.sections.spread import classes
from ser_lightning.reports.systems import AbsentRow, Configured, Published, ReportedSystem, find_systems

WriteFold = Callable[..., Path]
RIGHT = ((2, 0), (0, 2))
HALF = ((1, 1), (1, 1))
NEUTRAL = ((2, 0), (2, 0))
NARROW = "are too narrow: of 5, 83 in 100 hold the truth instead of 95"


@pytest.fixture
def systems(tmp_path: Path, write_fold: WriteFold) -> Callable[..., list[ReportedSystem]]:
    """Write systems, for each seed the confusion matrices of its folds with two speakers each."""

    def write(**found: dict[int, Sequence[Sequence[Sequence[int]] | None]]) -> list[ReportedSystem]:
        for name, seeds in found.items():
            for seed, matrices in seeds.items():
                for fold, matrix in enumerate(matrices):
                    if matrix is not None:
                        said = {"class_names": ("a", "b"), "num_folds": len(matrices), "experiment": name}
                        write_fold(tmp_path / name / f"seed-{seed}", fold, matrix, **said)
        return find_systems([tmp_path / name for name in found])[0]

    return write


def _rows_of_netvlad(systems: Callable[..., list[ReportedSystem]], synthetic: bool) -> list[ReportedSystem]:
    """Return one experiment with 1, 2 and 3 clusters."""
    found = systems(**{f"K={k}": {0: [HALF, RIGHT, NEUTRAL]} for k in (1, 2, 3)})
    for clusters, system in enumerate(found, start=1):
        for fold in system.runs[0].folds:
            config = {"seed_everything": 0, "model": {"clusters": clusters}, "data": {"init_args": {"fold": 0}}}
            (fold.folder / "config.yaml").write_text(yaml.safe_dump(config))
            facts = json.loads((fold.folder / "run.json").read_text())
            facts |= {"experiment": "netvlad", "row": system.name, "synthetic": synthetic}
            (fold.folder / "run.json").write_text(json.dumps(facts))
    return find_systems([system.runs[0].folder for system in found])


def _text(section: Section) -> str:
    """Return all sentences of a section."""
    said = []
    for block in section.blocks:
        match block:
            case Paragraph(text):
                said.append(text)
            case Caveats(lines):
                said += lines
            case Table() | Picture():
                said.append(block.caption)
            case _:
                pass
    return "\n".join(said)


def _tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def test_the_page_says_where_no_difference_can_be_shown(systems: Callable[..., list[ReportedSystem]]) -> None:
    (section,) = which_differ(systems(one={0: [HALF] * 3}, two={0: [RIGHT] * 3}))
    assert "With 6 speakers and 2 tests no corrected p below 0.0625 is possible" in _text(section)
    assert [row[-1] for row in _tables(section)[0].rows] == ["cannot be shown"] * 2
    (section,) = which_differ(systems(three={0: [HALF] * 4}, four={0: [RIGHT] * 4}))
    assert "is possible" not in _text(section)
    assert [row[-1] for row in _tables(section)[0].rows] == ["differ"] * 2


def test_what_the_tests_know_of_training_again(systems: Callable[..., list[ReportedSystem]]) -> None:
    once, seeds = {0: [HALF, RIGHT, RIGHT]}, {0: [RIGHT] * 3, 1: [RIGHT] * 3}
    said = _text(which_differ(systems(a=once, b=once))[0])
    assert "One training of each fold stands behind each score" in said
    assert "Intervals are of each comparison by itself, not corrected." in said
    said = _text(which_differ(systems(c=seeds, d=seeds))[0])
    assert "One training" not in said
    assert "the mean over the seeds of a system (2)" in said
    assert "the mean over the seeds of a system (a: 1, d: 2)" in _text(which_differ(systems(a=once, d=seeds))[0])


def test_wherever_an_interval_rests_on_few_speakers_the_page_says_so(
    systems: Callable[..., list[ReportedSystem]],
) -> None:
    several = _rows_of_netvlad(systems, synthetic=True)
    assert hyper_parameters(several)
    for section in (
        opening(several[:1]),
        beside_the_paper(several[:1]),
        classes(several[:1]),
        *which_differ([*several[:1], *systems(x={0: [RIGHT] * 3})]),
        *hyper_parameters(several),
    ):
        assert NARROW in _text(section), section.title
    many = systems(y={0: [HALF, RIGHT] * 5}, z={0: [RIGHT, NEUTRAL] * 5})  # 20 speakers
    few = systems(v={0: [HALF, RIGHT]})  # 4 speakers have no interval that could be too narrow
    for section in (opening(many[:1]), beside_the_paper(many), classes(many), *which_differ(many), opening(few)):
        assert NARROW not in _text(section), section.title


def test_a_curve_has_what_was_run_and_what_the_paper_reports_besides(
    systems: Callable[..., list[ReportedSystem]],
) -> None:
    several = _rows_of_netvlad(systems, synthetic=False)
    several[0] = replace(several[0], published=[Published("Figure 3", "ravdess", {"UA": 60.0})])
    configured = Configured(("zhou2020", "netvlad", "ravdess"), {"model.clusters": 4})
    absent = [
        AbsentRow("K=4", Published("Figure 3", "ravdess", {"UA": 61.0}), "not run", configured),
        AbsentRow("another paper's", Published("Figure 3", "ravdess", {"UA": 62.0}), "quoted"),
    ]
    ((picture,),) = (section.blocks for section in hyper_parameters(several, absent))
    assert isinstance(picture, Picture)
    assert picture.name == "curve_clusters"
    assert picture.numbers is not None
    assert list(picture.numbers["value"]) == [1, 2, 3, 4]
    assert list(picture.numbers["paper"].fillna(0)) == [0.6, 0, 0, 0.61]
    assert list(picture.numbers["ours"].isna()) == [False] * 3 + [True]


def test_seeds_with_other_folds_are_pooled_over_what_all_have(systems: Callable[..., list[ReportedSystem]]) -> None:
    (system,) = systems(one={0: [RIGHT, HALF, NEUTRAL], 1: [HALF, None, NEUTRAL]})
    section = classes([system])
    table = next(iter(_tables(section)))
    assert "pooled over what all seeds have finished (fold 0, 2) and added up over 2 seeds" in table.caption
    assert [row[1:4] for row in table.rows] == [["8", "7", "87.50"], ["8", "3", "37.50"]]
    assert [row[3] for row in table.footer] == ["62.50", "62.50"]
    picture = next(block for block in section.blocks if isinstance(block, Picture) and block.name == "recall")
    assert picture.numbers is not None
    assert list(picture.numbers["recall"]) == [0.875, 0.375]
    assert "seeds have finished different folds" in _text(opening([system]))
    (pooled,) = (table for table in _tables(beside_the_paper([system])) if "pooled UA %" in table.headings)
    assert pooled.rows[0][1:3] == ["4", "62.50"]


def test_seeds_without_a_common_fold_show_the_mean_over_seeds_without_an_interval(
    systems: Callable[..., list[ReportedSystem]],
) -> None:
    (system,) = systems(one={0: [RIGHT, RIGHT, RIGHT, None], 1: [None, None, None, HALF]})
    (table,) = _tables(classes([system]))
    assert "the finished folds, which are others in each seed" in table.caption
    assert [row[3] for row in table.rows] == ["75.00", "75.00"]
    assert [row[3] for row in table.footer] == ["75.00", "75.00"]
    assert {row[4] for row in table.rows} == {"none: the seeds were not tested on the same utterances"}


def test_seeds_with_the_same_folds_need_no_warning(systems: Callable[..., list[ReportedSystem]]) -> None:
    (system,) = systems(one={0: [RIGHT, HALF, None], 1: [HALF, HALF, None]})
    assert "different folds" not in _text(opening([system]))
    assert system.pooled_over == "the finished folds and added up over 2 seeds"


def test_a_single_fold_has_no_spread(systems: Callable[..., list[ReportedSystem]]) -> None:
    (system,) = systems(one={0: [HALF]})
    assert _tables(beside_the_paper([system]))[0].rows[0][1] == "50.0"
