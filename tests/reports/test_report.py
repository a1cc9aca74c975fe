import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ser_lightning.cli.__main__ import main
from ser_lightning.errors import ConfigurationError
from ser_lightning.reports.figures import png, training_figure
from ser_lightning.reports.report import write_report
from ser_lightning.reports.systems import PaperResult, find_systems

pytestmark = pytest.mark.usefixtures("small_pictures")

WriteFold = Callable[..., Path]
EVIL = "<script>alert('1')</script>\"&amp;"
MATRIX_WITHOUT_ANGRY = ((1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 1, 1), (0, 0, 0, 0))
RIGHT = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
VOID = {"meta", "img", "link"}


class _Page(HTMLParser):
    """Collect tags, table rows and text; raise on a tag that is not closed properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f"{data}\n"
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def report_on(folders: Sequence[Path], out: Path, published: Sequence[PaperResult] = ()) -> Path:
    systems, left_out = find_systems(folders)
    systems = [replace(system, published=published) for system in systems]
    return write_report(systems, out, left_out=left_out)


def _page(*folders: Path, out: Path) -> _Page:
    return _Page(report_on(folders, out).read_text(encoding="utf-8"))


def _change(seed_folder: Path, **changes: object) -> None:
    for path in seed_folder.glob("fold-*/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_page_shows_folds_statistics_and_pooled(seed_folder: Path, tmp_path: Path) -> None:
    rows = {row[0]: row[1:] for row in _page(seed_folder, out=tmp_path / "report").rows}
    assert rows["fold 0"] == ["75.00", "75.00", "73.33", "8", "2", "2", "5", "1 min 02 s", "000000000000"]
    assert rows["mean over 3 folds"][0] == "80.56"
    assert rows["standard deviation (ddof 0)"][0] == "14.16"
    assert rows["minimum"][0] == "66.67"
    assert rows["maximum"][0] == "100.00"
    assert rows["pooled over utterances"][:4] == ["81.25", "81.82", "81.25", "22"]


def test_the_page_shows_the_recall_and_confusion_of_each_class(seed_folder: Path, tmp_path: Path) -> None:
    rows = {row[0]: row[1:] for row in _page(seed_folder, out=tmp_path / "report").rows}
    assert rows["neutral"][:3] == ["6", "5", "83.33"]
    assert re.fullmatch(r"\[\d+\.\d, 100\.0\]", rows["neutral"][3])
    assert rows["neutral"][4:] == ["6", "happy (1)"]
    assert rows["angry"] == ["4", "3", "75.00", "none: 4 speakers, at least 5 are needed", "4", "neutral (1)"]
    assert rows["all utterances (WA)"] == ["22", "18", "81.82", "", "", ""]


def test_the_page_says_what_was_run(seed_folder: Path, tmp_path: Path) -> None:
    _change(seed_folder, skipped_audio={"Actor_03/x.wav": "truncated"}, faulty_left_out=["1076_MTI_SAD_XX"])
    text = _page(seed_folder, out=tmp_path / "report").text
    for expected in (
        *("transfer", "zhou2020", "TransferResNet", "1,234,567", "actor folds (even, 3)", "0123456789ab"),
        *("0.1.0+abc1234", "2 cores", "3 min 04 s", "Actor_03/x.wav: truncated", "1076_MTI_SAD_XX"),
        *("ravdess, SYNTHETIC speech", "synthetic speech: these scores say nothing about real recordings"),
        *("no speaker occurs in two sets of a fold", "fold 1: no utterance of angry is tested"),
    ):
        assert expected in text, expected


def test_shared_speakers_are_named_on_the_page(seed_folder: Path, tmp_path: Path) -> None:
    _change(seed_folder, synthetic=False, speakers_disjoint=False)
    text = _page(seed_folder, out=tmp_path / "report").text
    assert "SYNTHETIC" not in text
    assert "synthetic" not in text
    assert text.count("speakers occur in training and test") == 2


def test_missing_folds_are_named_at_the_top_and_with_the_mean(seed_folder: Path, tmp_path: Path) -> None:
    (seed_folder / "fold-02" / "predictions.csv").unlink()
    text = _page(seed_folder, out=tmp_path / "report").text
    assert "only 2 of 3 folds are finished; missing: 2" in text
    assert "mean over 2 of 3 folds" in text
    assert "pooled over the finished folds" in text


def test_seeds_are_shown_each_and_together(seed_folder: Path, write_fold: WriteFold, tmp_path: Path) -> None:
    for fold in range(3):
        write_fold(seed_folder.parent / "seed-7", fold, RIGHT)
    page = _page(seed_folder.parent / "seed-7", seed_folder, out=tmp_path / "report")
    assert "Mean over 2 seeds, each the mean over its folds" in page.text
    assert "pooled over all folds and added up over 2 seeds" in page.text
    means, pooled = (row[1:] for row in page.rows if row[0] == "mean over 2 seeds")
    assert means == ["90.28", "90.28", "87.78"]
    assert pooled == ["90.62", "90.91", "90.62"]


def test_nothing_from_a_run_becomes_markup(tmp_path: Path, write_fold: WriteFold) -> None:
    hostile = dict.fromkeys(("paper", "experiment", "corpus", "row", "protocol", "protocol_hash", "split_hash"), EVIL)
    hostile |= dict.fromkeys(("system", "code_version", "hardware"), EVIL)
    folder = tmp_path / "seed-0"
    write_fold(
        folder,
        0,
        ((1, 1), (0, 1)),
        class_names=(EVIL, "b"),
        num_folds=1,
        skipped_audio={EVIL: EVIL},
        faulty_left_out=[EVIL],
        **hostile,
    )
    predictions = folder / "fold-00" / "predictions.csv"
    predictions.write_text(predictions.read_text().replace(",01,0,", ",<b>01</b>,0,"))
    page = _page(folder, out=tmp_path / "report")
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert page.text.count(EVIL) >= 15
    assert all(
        set(attributes) <= {"src", "alt", "width", "height", "class"} for tag, attributes in page.tags if tag == "img"
    )


def test_the_page_is_self_contained(seed_folder: Path, tmp_path: Path) -> None:
    path = report_on([seed_folder], tmp_path / "report")
    text = path.read_text()
    for tag, attributes in _Page(text).tags:
        assert tag not in {"script", "iframe", "object"}
        assert attributes.get("href") in (None, "data:,")  # no request for an icon
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not re.search(r"https?:|@import|url\(", text)


def test_every_picture_has_a_text_alternative(seed_folder: Path, tmp_path: Path) -> None:
    page = _page(seed_folder, out=tmp_path / "report")
    words = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert len(words) == 6
    assert "Confusion matrix. Recall: neutral 83%, happy 83%, sad 83%, angry 75%" in words
    assert any(text and "speaker 01: UA" in text for text in words)


def test_a_run_without_metrics_is_named_instead_of_curves(seed_folder: Path, tmp_path: Path) -> None:
    for path in seed_folder.glob("fold-*/metrics.csv"):
        path.unlink()
    page = _page(seed_folder, out=tmp_path / "report")
    assert "No readable metrics.csv in: seed 0, fold 0; seed 0, fold 1; seed 0, fold 2." in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 5


def test_the_same_runs_give_the_same_bytes(seed_folder: Path, tmp_path: Path) -> None:
    first = report_on([seed_folder], tmp_path / "one").read_bytes()
    assert report_on([seed_folder], tmp_path / "two").read_bytes() == first


def test_a_rejected_report_keeps_the_old_page(seed_folder: Path, tmp_path: Path) -> None:
    out = report_on([seed_folder], tmp_path / "report")
    before = out.read_bytes()
    for path in seed_folder.glob("fold-*/predictions.csv"):
        path.write_text("?")
    with pytest.raises(ConfigurationError, match=r"predictions\.csv"):
        report_on([seed_folder], out.parent)
    assert out.read_bytes() == before


def test_an_experiment_without_a_paper_has_no_empty_line(seed_folder: Path, tmp_path: Path) -> None:
    _change(seed_folder, paper="")
    path = report_on([seed_folder], tmp_path / "report")
    assert "<dt>paper</dt>" not in path.read_text()
    assert '<p class="soft">TransferResNet</p>' in path.read_text()


@pytest.fixture
def other_folder(seed_folder: Path, write_fold: WriteFold, tmp_path: Path) -> Path:
    """A worse system on the splits of ``seed_folder``."""
    folder = tmp_path / "zhou2020" / "baseline" / "ravdess-synthetic" / "default" / "seed-0"
    for fold in range(3):
        half = ((1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 1, 1), (1, 0, 0, 1))
        counts = MATRIX_WITHOUT_ANGRY if fold == 1 else half
        write_fold(folder, fold, counts, experiment="baseline", hardware="4 cores")
    return folder


def test_several_experiments_are_compared_on_one_page(seed_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    page = _page(seed_folder, other_folder, out=tmp_path / "report")
    assert "2 systems on ravdess, SYNTHETIC speech" in page.text
    assert ["transfer", "transfer", "2 cores, 32-true"] in page.rows
    assert ["baseline", "baseline", "4 cores, 32-true"] in page.rows
    tested = [row for row in page.rows if row[0] == "baseline less transfer"]
    assert [row[1] for row in tested] == ["UA", "WA"]
    assert [row[4] for row in tested] == ["6", "6"]
    assert all(float(row[2]) < 0 for row in tested)
    assert "corrected for all 2 tests on this page" in page.text
    words = [attributes["alt"] or "" for tag, attributes in page.tags if tag == "img"]
    assert sum("onfusion matrix" in text for text in words) == 2
    assert page.text.count("fold 1: no utterance of angry is tested") == 1  # the same holds for both


def test_systems_on_other_splits_are_not_compared(seed_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    _change(other_folder, protocol_hash="ba9876543210")
    page = _page(seed_folder, other_folder, out=tmp_path / "report")
    assert not [row for row in page.rows if row[0] == "baseline less transfer"]
    assert "transfer and baseline: the splits differ: 0123456789ab and ba9876543210" in page.text


def test_every_picture_is_a_file_next_to_its_numbers(seed_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    page = _page(seed_folder, other_folder, out=out)
    pictures = {path.stem: path for path in (out / "figures").glob("*.png")}
    assert len(pictures) == sum(tag == "img" for tag, _ in page.tags) == 11
    assert {path.stem for path in (out / "figures").glob("*.csv")} == set(pictures)
    markdown = (out / "report.md").read_text()
    for name, path in pictures.items():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert f"(figures/{name}.png)" in markdown
        assert f"(figures/{name}.csv)" in markdown
    counts = pd.read_csv(out / "figures" / "confusion_transfer.csv")
    assert counts["utterances"].sum() == 22
    assert counts.query("reference == 'neutral' and recognised == 'happy'")["share"].item() == pytest.approx(1 / 6)
    speakers = pd.read_csv(out / "figures" / "speakers.csv", dtype={"speaker": str})
    assert set(speakers["system"]) == {"transfer", "baseline"}
    assert set(speakers["speaker"]) == {"01", "02", "03", "04", "05", "06"}


def test_markdown_has_what_the_page_has(seed_folder: Path, tmp_path: Path) -> None:
    page = _page(seed_folder, out=tmp_path / "report")
    markdown = (tmp_path / "report" / "report.md").read_text()
    plain = re.sub(r"\\(.)", r"\1", markdown)
    for row in page.rows:
        for cell in row:
            assert cell in plain, cell
    assert "| fold 0 | 75.00 | 75.00 | 73.33 |" in markdown
    assert "- protocol hash: 0123456789ab" in markdown


def test_our_score_is_shown_with_the_papers(seed_folder: Path, tmp_path: Path) -> None:
    _change(seed_folder, synthetic=False)
    result = PaperResult("Table 2: proposed", "ravdess", {"UA": 70.0}, "a note", ["trainer.max_epochs 8 (file: 50)"])
    text = report_on([seed_folder], tmp_path / "report", [result]).read_text()
    page = _Page(text)
    (row,) = (row for row in page.rows if "Table 2: proposed" in row)
    assert row == ["transfer", "Table 2: proposed", "70.0", "80.6 ± 14.2", "+10.6", "3 of 3", "0"]
    assert "transfer: a note" in page.text
    assert "not as in the file: trainer.max_epochs 8 (file: 50)" in page.text


def test_scores_on_another_corpus_have_no_difference(seed_folder: Path, tmp_path: Path) -> None:
    result = PaperResult("Table 2", "iemocap", {"UA": 70.0})
    page = _Page(report_on([seed_folder], tmp_path / "report", [result]).read_text())
    (row,) = (row for row in page.rows if "Table 2" in row)
    assert row[4] == ""
    assert "the paper's scores are on iemocap, ours on ravdess, SYNTHETIC speech" in page.text


def test_pictures_in_run_folders_are_shown(seed_folder: Path, tmp_path: Path) -> None:
    picture = png(training_figure({}, "attention"))
    (seed_folder / "fold-01" / "attention.png").write_bytes(picture)
    (seed_folder / "fold-02" / "embeddings.png").write_bytes(b"no picture")
    page = _page(seed_folder, out=tmp_path / "report")
    assert "Attention: transfer, seed 0, fold 1" in page.text
    assert "Embeddings:" not in page.text
    assert (tmp_path / "report" / "figures" / "attention.png").read_bytes() == picture


def test_a_report_in_a_run_folder_does_not_change_the_next(seed_folder: Path) -> None:
    first = report_on([seed_folder], seed_folder).read_bytes()
    assert report_on([seed_folder.parent], seed_folder).read_bytes() == first


def test_a_report_deletes_the_pictures_of_the_one_before(seed_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    report_on([seed_folder], out)
    assert (out / "figures" / "confusion.png").is_file()
    (out / "figures" / "mine.png").write_bytes(b"not of the report")
    report_on([seed_folder, other_folder], out)
    markdown = (out / "report.md").read_text()
    left = {path.name for path in (out / "figures").iterdir()}
    assert {name for name in left if f"(figures/{name})" not in markdown} == {"mine.png"}


def test_only_recorded_pictures_are_deleted(seed_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    report_on([seed_folder], out)
    record = out / "figures.json"
    assert set(json.loads(record.read_text())) == {path.name for path in (out / "figures").iterdir()}
    record.write_text('["../report.md", "report.md", "gone.png"]')  # nothing outside figures/ is ever deleted
    report_on([seed_folder, other_folder], out)
    assert (out / "report.md").is_file()
    record.write_text("{")
    with pytest.raises(ConfigurationError, match=r"figures\.json"):
        report_on([seed_folder], out)


@pytest.mark.parametrize("there", ["report", "report/figures", "report/report.md/x"])
def test_an_unwritable_report_folder_is_named(seed_folder: Path, tmp_path: Path, there: str) -> None:
    path = tmp_path / there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    with pytest.raises(ConfigurationError, match=r"report .*--out"):
        report_on([seed_folder], tmp_path / "report")


def test_importing_the_package_is_light() -> None:
    code = "import sys, ser_lightning.reports; print(*{'pandas', 'torch', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_the_page_lists_the_settings_that_differ(write_fold: WriteFold, tmp_path: Path) -> None:
    folders = [tmp_path / "runs" / name / "seed-0" for name in ("one", "other")]
    for folder, epochs, pooling in zip(folders, (5, 9), ("NetVLAD", None), strict=True):
        model = {"class_path": "ser_lightning.systems.PooledLSTM", "init_args": {"cells": 64}}
        if pooling:
            model["init_args"] |= {"pooling": f"ser_lightning.nn.pooling.{pooling}"}  # type: ignore[operator]
        config = {
            "seed_everything": 0,
            "data": {"init_args": {"fold": 0}},
            "trainer": {"max_epochs": epochs, "accelerator": folder.parent.name},
            "model": model,
        }
        fold = write_fold(folder, 0, RIGHT, experiment=folder.parent.name, num_folds=1)
        (fold / "config.yaml").write_text(yaml.safe_dump(config))
    page = _page(*folders, out=tmp_path / "report")
    assert ["trainer.max_epochs", "5", "9"] in page.rows
    assert ["model.init_args.pooling", "nn.pooling.NetVLAD", "-"] in page.rows
    assert not [row for row in page.rows if row[:1] in (["trainer.accelerator"], ["model.init_args.cells"])]
    (folders[0] / "fold-00" / "config.yaml").write_text("{")
    assert "fold-00/config.yaml is not" in _page(*folders, out=tmp_path / "report").text


def test_broken_folds_are_named_on_page_and_terminal(
    seed_folder: Path, write_fold: WriteFold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fold without run.json, one with a damaged predictions.csv, and one with other classes."""
    broken = tmp_path / "zhou2020" / "broken" / "ravdess-synthetic" / "default" / "seed-0"
    for fold in range(4):
        write_fold(broken, fold, RIGHT, experiment="broken", num_folds=4)
    (broken / "fold-00" / "run.json").unlink()
    path = broken / "fold-01" / "predictions.csv"
    path.write_text(path.read_text()[:-20])
    write_fold(seed_folder.parent / "seed-1", 0, ((1, 0), (0, 1)), class_names=("happy", "sad"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["report", str(tmp_path / "zhou2020"), f"--out={tmp_path / 'report'}"]) == 0
    error = capsys.readouterr().err
    page = _Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    for folder, reason in (
        (broken / "fold-00", "run.json is missing"),
        (broken / "fold-01", "fold-01/predictions.csv, line 5"),
        (seed_folder.parent / "seed-1" / "fold-00", "class_names differs"),
    ):
        (line,) = [line for line in error.splitlines() if line.startswith(f"warning: {folder} ")]
        assert reason in line
        (line,) = [line for line in page.text.splitlines() if line.startswith(f"{folder}: ")]
        assert reason in line
    assert "3 folders left out" in page.text
    rows = {row[0]: row for row in page.rows if row}
    assert "transfer" in rows
    assert "broken: seed 0: only 2 of 4 folds are finished; missing: 0, 1" in page.text
    assert {path: path.read_bytes() for path in before} == before


def test_a_report_of_unreadable_folds_is_rejected(
    seed_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in range(3):
        (seed_folder / f"fold-0{fold}" / "run.json").write_text("[")
    assert main(["report", str(seed_folder), f"--out={tmp_path / 'report'}"]) == 1
    assert capsys.readouterr().err.count("run.json is not a JSON file") == 3
    assert not (tmp_path / "report").exists()
