"""Published tables in the terminal: our scores, the paper's, and notes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ser_lightning.reports.terminal import TableRow, caveats, comparison
from ser_lightning.runs.gathering import CrossValidation, finished_folds, gather
from ser_lightning.runs.summary import summarize


def averaged(*folders: Path) -> list[CrossValidation]:
    runs, left_out = gather([fold for folder in folders for fold in finished_folds(folder)])
    assert not left_out
    return runs


def shown(*rows: TableRow, title: str = "T") -> str:
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        for line in comparison(title, "iemocap", rows):
            console.print(line, highlight=False, markup=False)
    return capture.get()


def line_of(name: str, text: str) -> str:
    return next(line for line in text.splitlines() if f" {name} " in line)


def test_the_number_of_parameters_is_shown_with_the_papers(seed_folder: Path) -> None:
    ours = summarize(averaged(seed_folder))
    text = shown(
        TableRow("baseline", {"UA": 62.3}, ours, "", "fewer than 360K"),
        TableRow("AMS", {"UA": 66.7}, None, "", "383K"),
        TableRow("FL", {"UA": 66.3}, None, ""),
    )
    assert "baseline, trainable parameters: ours 1,234,567; paper fewer than 360K\n" in text
    assert "AMS, trainable parameters: ours not run; paper 383K\n" in text
    assert text.count("trainable parameters") == 2


def test_a_row_is_quoted_only_if_there_is_nothing_to_run() -> None:
    text = shown(
        TableRow("LSTM", {"UA": 57.1}, None, "of another paper", quoted=True),
        TableRow("FL", {"UA": 66.3}, None, "alpha hardly matters"),
    )
    assert "quoted" in line_of("LSTM", text)
    assert "not run" in line_of("FL", text)
    assert "FL: alpha hardly matters\n" in text


def test_brackets_are_not_markup() -> None:
    text = shown(TableRow("[red]LSTM", {"UA": 57.1}, None, "of [/another] paper"), title="Table [a] of [/b]")
    assert "Table [a] of [/b]" in text
    assert "[red]LSTM: of [/another] paper" in text
    assert "not run" in line_of("[red]LSTM", text)


def test_several_seeds_show_the_mean_of_their_means(tmp_path: Path, write_fold: Callable[..., Path]) -> None:
    right, neutral = ((4, 0, 0, 0), (0, 4, 0, 0), (0, 0, 4, 0), (0, 0, 0, 4)), ((4, 0, 0, 0),) * 4
    folders = [
        write_fold(tmp_path / f"seed-{seed}", fold, matrix)
        for seed, matrices in ((3, (right, right)), (5, (right, neutral)))
        for fold, matrix in enumerate(matrices)
    ]
    both = line_of("FL", shown(TableRow("FL", {}, summarize(averaged(*folders)), "")))
    assert both.split("│")[3].strip() == f"{(100 + 62.5) / 2:.1f} ± {(100 - 62.5) / 2:.1f}"
    assert [cell.strip() for cell in both.split("│")[-3:-1]] == ["2, 2 of 3", "3, 5"]
    one = line_of("FL", shown(TableRow("FL", {}, summarize(averaged(*folders[2:])), "")))
    assert one.split("│")[3].strip() == "62.5 ± 37.5"
    assert [cell.strip() for cell in one.split("│")[-3:-1]] == ["2 of 3", "5"]


def test_a_single_fold_is_shown_without_spread(tmp_path: Path, write_fold: Callable[..., Path]) -> None:
    folder = write_fold(tmp_path / "seed-0", 0, ((4, 0, 0, 0), (0, 4, 0, 0), (0, 0, 4, 0), (4, 0, 0, 0)))
    ours = summarize(averaged(folder))
    assert line_of("FL", shown(TableRow("FL", {}, ours, ""))).split("│")[3].strip() == "75.0"


def test_there_is_a_difference_only_on_the_same_corpus(tmp_path: Path, write_fold: Callable[..., Path]) -> None:
    for corpus, synthetic, difference in (("iemocap", False, "+25.0"), ("iemocap", True, ""), ("ravdess", False, "")):
        folder = tmp_path / f"{corpus}{synthetic}" / "seed-0"
        write_fold(folder, 0, ((4, 0, 0, 0),) * 4, corpus=corpus, synthetic=synthetic)
        ours = summarize(averaged(folder))
        row = line_of("FL", shown(TableRow("FL", {"UA": 0.0}, ours, "")))
        assert row.split("│")[4].strip() == difference


def test_different_protocols_name_their_rows(
    seed_folder: Path, tmp_path: Path, write_fold: Callable[..., Path]
) -> None:
    first = summarize(averaged(seed_folder))
    folder = write_fold(tmp_path / "other" / "seed-0", 0, ((1, 0), (0, 1)), class_names=("a", "b"), protocol_hash="fff")
    other = summarize(averaged(folder))
    text = shown(TableRow("A", {}, first, ""), TableRow("B", {}, other, ""), TableRow("C", {}, first, ""))
    assert "protocol hash 0123456789ab: A, C\n" in text
    assert "protocol hash fff: B\n" in text
    assert "protocol hash 0123456789ab\n" in shown(TableRow("A", {}, first, ""), TableRow("C", {}, first, ""))


@pytest.mark.parametrize(("number", "end"), [(5, "key4 1"), (7, "key4 1, and 2 more")])
def test_at_most_five_differing_keys_are_shown(seed_folder: Path, number: int, end: str) -> None:
    ours = summarize(averaged(seed_folder))
    unlike = [f"key{n} 1" for n in range(number)]
    text = shown(TableRow("FL", {}, ours, "", differences=unlike))
    assert f"FL: not as in the file: key0 1, key1 1, key2 1, key3 1, {end}\n" in text


def test_same_audio_and_unlearnt_classes_are_said(seed_folder: Path) -> None:
    for fold, facts in enumerate(({}, {"same_audio_across_sets": 3}, {"untrained_classes": ["sad"]})):
        path = seed_folder / f"fold-{fold:02d}" / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"one_speaker_classes": ["calm"]} | facts))
    said = caveats(summarize(averaged(seed_folder)))
    for line in (
        "the same audio is in two sets, by fold (pairs): 1 (3)",
        "tested and never trained on: fold 2: sad",
        "only one speaker has the classes calm",
    ):
        assert line in said
