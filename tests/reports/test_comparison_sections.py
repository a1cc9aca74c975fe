"""Sections of comparisons: numbers, captions and warnings."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ser_lightning.reports.document import (
    Caveats,
    Folded,
    Headline,
    Paragraph,
    Picture,
    Section,
    Table,
    markdown_page,
)
from ser_lightning.reports.report import compose
from ser_lightning.reports.sections.comparison import (
    class_changes,
    hyper_parameters,
    significance,
)
from ser_lightning.reports.sections.overview import opening
from ser_lightning.reports.sections.spread import classes
from ser_lightning.reports.systems import AbsentRow, Configured, PaperResult, ReportedSystem, find_systems

pytestmark = pytest.mark.usefixtures("small_pictures")

WriteFold = Callable[..., Path]
RIGHT = ((2, 0), (0, 2))
HALF = ((1, 1), (1, 1))
NEUTRAL = ((2, 0), (2, 0))
NARROW = "are too narrow: the coverage is 83% with 5 speakers"


@pytest.fixture
def systems(tmp_path: Path, write_fold: WriteFold) -> Callable[..., list[ReportedSystem]]:
    """Write systems, for each seed the confusion matrices of its folds with two speakers each."""

    def write(**found: dict[int, Sequence[Sequence[Sequence[int]] | None]]) -> list[ReportedSystem]:
        for name, seeds in found.items():
            for seed, matrices in seeds.items():
                for fold, matrix in enumerate(matrices):
                    if matrix is not None:
                        fields = {"class_names": ("a", "b"), "num_folds": len(matrices), "experiment": name}
                        write_fold(tmp_path / name / f"seed-{seed}", fold, matrix, **fields)
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
    return find_systems([system.runs[0].folder for system in found])[0]


def _headline(section: Section) -> Mapping[str, tuple[str, str]]:
    (found,) = (block for block in section.blocks if isinstance(block, Headline))
    return found.numbers


def _text(section: Section) -> str:
    """Return the text of a section."""
    lines = []
    for block in section.blocks:
        match block:
            case Paragraph(text):
                lines.append(text)
            case Caveats(caveats):
                lines += caveats
            case Table() | Picture():
                lines.append(block.caption)
            case _:
                pass
    return "\n".join(lines)


def _tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def test_too_few_speakers_for_a_difference_are_named(systems: Callable[..., list[ReportedSystem]]) -> None:
    (section,) = significance(systems(one={0: [HALF] * 3}, two={0: [RIGHT] * 3}))
    assert "With 6 speakers and 2 tests no corrected p below 0.0625 is possible" in _text(section)
    assert [row[-1] for row in _tables(section)[0].rows] == ["cannot be shown"] * 2
    (section,) = significance(systems(three={0: [HALF] * 4}, four={0: [RIGHT] * 4}))
    assert "is possible" not in _text(section)
    assert [row[-1] for row in _tables(section)[0].rows] == ["differ"] * 2


def test_the_variation_between_trainings_is_explained(systems: Callable[..., list[ReportedSystem]]) -> None:
    once, seeds = {0: [HALF, RIGHT, RIGHT]}, {0: [RIGHT] * 3, 1: [RIGHT] * 3}
    text = _text(significance(systems(a=once, b=once))[0])
    assert "one training per fold" in text
    assert "Intervals are not corrected." in text
    text = _text(significance(systems(c=seeds, d=seeds))[0])
    assert "one training" not in text
    assert "the mean over the seeds of a system (2)" in text
    assert "the mean over the seeds of a system (a: 1, d: 2)" in _text(significance(systems(a=once, d=seeds))[0])


def test_intervals_over_few_speakers_have_one_warning(
    systems: Callable[..., list[ReportedSystem]],
) -> None:
    several = _rows_of_netvlad(systems, synthetic=True)
    assert hyper_parameters(several)
    assert markdown_page(compose(several), "figures").count(NARROW) == 1
    assert NARROW in _text(opening(several[:1]))
    many = systems(y={0: [HALF, RIGHT] * 5}, z={0: [RIGHT, NEUTRAL] * 5})  # 20 speakers
    few = systems(v={0: [HALF, RIGHT]})  # 4 speakers have no interval that could be too narrow
    for shown in (many, few):
        assert NARROW not in markdown_page(compose(shown), "figures")


def test_systems_are_ranked_by_pooled_ua(systems: Callable[..., list[ReportedSystem]]) -> None:
    found = systems(half={0: [HALF] * 3}, right={0: [RIGHT, RIGHT, HALF]}, neutral={0: [NEUTRAL, RIGHT, HALF]})
    section = opening(found)
    (table,) = _tables(section)
    assert [row[0] for row in table.rows] == ["right", "neutral", "half"]
    assert table.rows[0][1].startswith("83.3")
    assert table.rows[0][5:] == ["3 of 3", "0", "6"]
    (picture,) = (block for block in section.blocks if isinstance(block, Picture))
    assert picture.numbers is not None
    assert list(picture.numbers["system"]) == ["right", "neutral", "half"]


def test_systems_on_other_splits_are_ranked_apart(
    systems: Callable[..., list[ReportedSystem]], tmp_path: Path, write_fold: WriteFold
) -> None:
    found = systems(one={0: [HALF] * 3}, two={0: [RIGHT] * 3})
    write_fold(tmp_path / "other" / "seed-0", 0, RIGHT, class_names=("a", "b"), experiment="x", protocol_hash="y")
    section = opening([*found, *find_systems([tmp_path / "other"])[0]])
    assert [[row[0] for row in table.rows] for table in _tables(section)] == [["two", "one"], ["x"]]


@pytest.mark.parametrize(("matrix", "guesses"), [(HALF, True), (NEUTRAL, True), (RIGHT, False)])
def test_a_system_that_may_only_guess_is_named(
    matrix: Sequence[Sequence[int]], guesses: bool, systems: Callable[..., list[ReportedSystem]]
) -> None:
    (caveats, *_) = opening(systems(one={0: [matrix] * 3})).blocks
    assert isinstance(caveats, Caveats)
    assert any("UA is at chance, 50%: 50.0" in line for line in caveats.lines) == guesses


def test_the_settings_are_the_last_section_on_good_runs(systems: Callable[..., list[ReportedSystem]]) -> None:
    for found in (systems(one={0: [HALF] * 3}), systems(two={0: [HALF] * 3}, three={0: [RIGHT] * 3})):
        titles = [section.title for section in compose(found).sections]
        assert titles[0] == ""
        assert titles[-1] == "Settings"


def test_a_curve_has_our_scores_and_the_papers(
    systems: Callable[..., list[ReportedSystem]],
) -> None:
    several = _rows_of_netvlad(systems, synthetic=False)
    several[0] = replace(several[0], published=[PaperResult("Figure 3", "ravdess", {"UA": 60.0})])
    configured = Configured(("zhou2020", "netvlad", "ravdess"), {"model.clusters": 4})
    absent = [
        AbsentRow("K=4", PaperResult("Figure 3", "ravdess", {"UA": 61.0}), "not run", configured),
        AbsentRow("another paper's", PaperResult("Figure 3", "ravdess", {"UA": 62.0}), "quoted"),
    ]
    ((picture,),) = (section.blocks for section in hyper_parameters(several, absent))
    assert isinstance(picture, Picture)
    assert picture.name == "curve_clusters"
    assert picture.numbers is not None
    assert list(picture.numbers["value"]) == [1, 2, 3, 4]
    assert list(picture.numbers["paper"].fillna(0)) == [0.6, 0, 0, 0.61]
    assert list(picture.numbers["ours"].isna()) == [False] * 3 + [True]


def test_seeds_are_pooled_over_their_common_folds(systems: Callable[..., list[ReportedSystem]]) -> None:
    (system,) = systems(one={0: [RIGHT, HALF, NEUTRAL], 1: [HALF, None, NEUTRAL]})
    section = classes([system])
    table = next(iter(_tables(section)))
    assert "pooled over the folds finished in all seeds (fold 0, 2) and added up over 2 seeds" in table.caption
    assert [row[1:4] for row in table.rows] == [["8", "7", "87.50"], ["8", "3", "37.50"]]
    assert [row[3] for row in table.footer] == ["62.50", "62.50"]
    picture = next(block for block in section.blocks if isinstance(block, Picture) and block.name == "recall")
    assert picture.numbers is not None
    assert list(picture.numbers["recall"]) == [0.875, 0.375]
    assert "seeds have finished different folds" in _text(opening([system]))
    assert "pooled 62.5 (no interval: 4 speakers" in _headline(opening([system]))["UA"][1]


def test_seeds_without_a_common_fold_have_no_interval(
    systems: Callable[..., list[ReportedSystem]],
) -> None:
    (system,) = systems(one={0: [RIGHT, RIGHT, RIGHT, None], 1: [None, None, None, HALF]})
    (table,) = _tables(classes([system]))
    assert "the finished folds, which differ between seeds" in table.caption
    assert [row[3] for row in table.rows] == ["75.00", "75.00"]
    assert [row[3] for row in table.footer] == ["75.00", "75.00"]
    assert {row[4] for row in table.rows} == {"none: the seeds were not tested on the same utterances"}


def test_seeds_with_the_same_folds_need_no_warning(systems: Callable[..., list[ReportedSystem]]) -> None:
    (system,) = systems(one={0: [RIGHT, HALF, None], 1: [HALF, HALF, None]})
    assert "different folds" not in _text(opening([system]))
    assert system.pooled_over == "the finished folds and added up over 2 seeds"


def test_a_single_fold_has_no_spread(systems: Callable[..., list[ReportedSystem]]) -> None:
    (system,) = systems(one={0: [HALF]})
    number, meaning = _headline(opening([system]))["UA"]
    assert number == "50.0%"
    assert "standard deviation" not in meaning


def test_classes_are_compared_with_the_baseline_row(systems: Callable[..., list[ReportedSystem]]) -> None:
    found = systems(plain={0: [HALF] * 3}, better={0: [RIGHT, HALF, RIGHT]}, fewer={0: [RIGHT, None, HALF]})
    (section,) = class_changes(found, "plain")
    (table,) = _tables(section)
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    assert set(rows) == {(name, label) for name in ("better", "fewer") for label in ("a", "b")}
    assert rows["better", "a"][:3] == ["50.00", "83.33", "+33.3"]
    assert rows["better", "a"][4] == "+66.7"
    assert rows["fewer", "a"][:3] == ["50.00", "75.00", "+25.0"]  # over the two folds of both


def test_without_runs_of_the_baseline_no_change_is_shown(
    systems: Callable[..., list[ReportedSystem]], tmp_path: Path, write_fold: WriteFold
) -> None:
    found = systems(plain={0: [HALF] * 3}, other={0: [RIGHT] * 3})
    for shown, baseline in ((found, ""), (found, "another"), (found[:1], "plain")):
        assert class_changes(shown, baseline) == []
    write_fold(tmp_path / "elsewhere" / "seed-0", 0, RIGHT, class_names=("a", "b"), experiment="x", protocol_hash="y")
    (section,) = class_changes([found[0], *find_systems([tmp_path / "elsewhere"])[0]], "plain")
    (block,) = section.blocks
    assert isinstance(block, Folded)
    assert "the splits differ" in block.lines[0]
