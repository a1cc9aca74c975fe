import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ser_lightning.reports.terminal import summary_table
from ser_lightning.runs.gathering import CrossValidation, finished_folds, gather
from ser_lightning.runs.summary import Summary, summarize, write_summary

WriteFold = Callable[..., Path]


def averaged(*folders: Path) -> list[CrossValidation]:
    runs, left_out = gather([fold for folder in folders for fold in finished_folds(folder)])
    assert not left_out
    return runs


def _summary(folder: Path) -> Summary:
    return summarize(averaged(folder))


def _render(summary: Summary, width: int = 160) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(summary_table(summary))
    return capture.get()


def test_scores_per_fold_match_values_by_hand(seed_folder: Path) -> None:
    first, second, third = (fold.scores for fold in _summary(seed_folder).seeds[0].folds)
    assert first == pytest.approx({"UA": 3 / 4, "WA": 6 / 8, "macro_F1": (4 / 5 + 2 / 3 + 4 / 5 + 2 / 3) / 4})
    assert second == pytest.approx({"UA": 2 / 3, "WA": 4 / 6, "macro_F1": (2 / 3 + 4 / 5 + 2 / 3 + 0) / 4})
    assert third == {"UA": 1, "WA": 1, "macro_F1": 1}


def test_statistics_over_folds_match_values_by_hand(seed_folder: Path) -> None:
    over = _summary(seed_folder).seeds[0].over_folds
    mean = (3 / 4 + 2 / 3 + 1) / 3
    deviation = math.sqrt(((3 / 4 - mean) ** 2 + (2 / 3 - mean) ** 2 + (1 - mean) ** 2) / 3)
    assert over.mean["UA"] == pytest.approx(mean)
    assert over.standard_deviation_ddof_0 is not None
    assert over.standard_deviation_ddof_0["UA"] == pytest.approx(deviation)
    assert deviation == pytest.approx(0.14164, abs=1e-5)
    assert (over.minimum["UA"], over.maximum["UA"]) == pytest.approx((2 / 3, 1))


def test_pooled_scores_count_every_utterance_once(seed_folder: Path) -> None:
    seed = _summary(seed_folder).seeds[0]
    assert seed.confusion == ((5, 1, 0, 0), (0, 5, 1, 0), (0, 0, 5, 1), (1, 0, 0, 3))
    assert seed.utterances == 22
    assert seed.pooled["UA"] == pytest.approx((5 / 6 + 5 / 6 + 5 / 6 + 3 / 4) / 4)
    assert seed.pooled["WA"] == pytest.approx(18 / 22)
    assert seed.pooled["UA"] != pytest.approx(seed.over_folds.mean["UA"])


def test_a_class_absent_from_a_fold_is_named(seed_folder: Path) -> None:
    summary = _summary(seed_folder)
    assert [fold.absent_classes for fold in summary.seeds[0].folds] == [(), ("angry",), ()]
    assert "fold 1: no utterance of angry is tested" in _render(summary)


def test_seeds_are_summarized_each_and_together(seed_folder: Path, write_fold: WriteFold) -> None:
    right = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    for fold in range(3):
        write_fold(seed_folder.parent / "seed-7", fold, right)
    summary = _summary(seed_folder.parent)
    assert [seed.seed for seed in summary.seeds] == [0, 7]
    first = (3 / 4 + 2 / 3 + 1) / 3
    means, pooled = summary.over_seeds_of_the_mean_over_folds, summary.over_seeds_of_pooled
    assert means is not None
    assert pooled is not None
    assert means.mean["UA"] == pytest.approx((first + 1) / 2)
    assert means.standard_deviation_ddof_0 is not None
    assert means.standard_deviation_ddof_0["UA"] == pytest.approx((1 - first) / 2)
    assert pooled.mean["WA"] == pytest.approx((18 / 22 + 1) / 2)
    text = _render(summary)
    assert "seed 7, pooled" in text
    assert "pooled: mean over 2 seeds" in text


def test_one_fold_has_no_standard_deviation(seed_folder: Path) -> None:
    summary = _summary(seed_folder / "fold-00")
    assert summary.seeds[0].over_folds.standard_deviation_ddof_0 is None
    assert summary.seeds[0].folds_missing == (1, 2)


def test_the_file_names_the_run_and_missing_folds(seed_folder: Path) -> None:
    (seed_folder / "fold-01" / "predictions.csv").unlink()
    path = write_summary(seed_folder, summarize(averaged(seed_folder)))
    assert path == seed_folder / "summary.json"
    content = json.loads(path.read_text())
    assert content["corpus"] == "ravdess"
    assert content["synthetic"] is True
    assert content["protocol_hash"] == "0123456789ab"
    assert content["code_versions"] == ["0.1.0+abc1234"]
    assert content["seconds"] == 123
    (seed,) = content["seeds"]
    assert [fold["fold"] for fold in seed["folds"]] == [0, 2]
    assert [fold["split_hash"] for fold in seed["folds"]] == ["000000000000", "000000000002"]
    assert seed["folds_missing"] == [1]
    assert seed["over_folds"]["mean"]["UA"] == pytest.approx(7 / 8)
    assert seed["over_folds"]["standard_deviation_ddof_0"]["UA"] == pytest.approx(1 / 8)


def test_writing_a_summary_twice_gives_the_same_bytes(seed_folder: Path) -> None:
    first = write_summary(seed_folder, summarize(averaged(seed_folder))).read_bytes()
    assert write_summary(seed_folder, summarize(averaged(seed_folder))).read_bytes() == first
    assert not list(seed_folder.glob(".*.tmp"))


def test_the_table_shows_folds_statistics_and_pooled(seed_folder: Path) -> None:
    rows = {
        cells[0].strip(): [cell.strip() for cell in cells[1:]]
        for line in _render(_summary(seed_folder)).splitlines()
        if len(cells := line.strip("│┃ ").replace("┃", "│").split("│")) == 5
    }
    assert rows["fold 0"] == ["8", "75.00", "75.00", "73.33"]
    assert rows["mean over 3 folds"][1] == "80.56"
    assert rows["standard deviation (ddof 0)"][1] == "14.16"
    assert rows["minimum"][1] == "66.67"
    assert rows["maximum"][1] == "100.00"
    assert rows["pooled"][:3] == ["22", "81.25", "81.82"]


def test_the_table_names_its_caveats(seed_folder: Path, write_fold: WriteFold) -> None:
    assert "SYNTHETIC" in _render(_summary(seed_folder))
    other = seed_folder.parent.parent / "shared" / "seed-0"
    write_fold(other, 1, ((1, 0), (0, 1)), class_names=("a", "b"), speakers_disjoint=False, synthetic=False)
    text = _render(_summary(other))
    assert "speakers occur in training and test" in text
    assert "only 1 of 3 folds are finished; missing: 0, 2" in text
    assert "mean over 1 of 3 folds" in text
    assert "SYNTHETIC" not in text


def test_names_are_not_markup_in_the_terminal(tmp_path: Path, write_fold: WriteFold) -> None:
    write_fold(tmp_path / "seed-0", 0, ((1, 0), (0, 1)), class_names=("a", "b"), experiment="[red]x[/red]", num_folds=1)
    assert "[red]x[/red]" in _render(_summary(tmp_path))
