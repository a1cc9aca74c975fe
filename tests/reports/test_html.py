import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ser_lightning.reports
from ser_lightning.errors import ConfigurationError
from ser_lightning.reports.html import write_report

WriteFold = Callable[..., Path]
EVIL = "<script>alert('1')</script>\"&amp;"
RIGHT = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
VOID = {"meta", "img"}


class _Page(HTMLParser):
    """Collects tags, table rows and text, and refuses a tag that is not closed in its place."""

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


def _page(*folders: Path, out: Path) -> _Page:
    return _Page(write_report(folders, out).read_text(encoding="utf-8"))


def _change(seed_folder: Path, **changes: object) -> None:
    for path in seed_folder.glob("fold-*/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_page_shows_folds_statistics_and_pooled(seed_folder: Path, tmp_path: Path) -> None:
    rows = {row[0]: row[1:] for row in _page(seed_folder, out=tmp_path / "report.html").rows}
    assert rows["fold 0"] == ["75.00", "75.00", "73.33", "8", "2", "2", "5", "1 min 02 s", "000000000000"]
    assert rows["mean over 3 folds"][0] == "80.56"
    assert rows["standard deviation (ddof 0)"][0] == "14.16"
    assert rows["minimum"][0] == "66.67"
    assert rows["maximum"][0] == "100.00"
    assert rows["pooled over utterances"][:4] == ["81.25", "81.82", "81.25", "22"]


def test_the_page_shows_the_recall_and_confusion_of_each_class(seed_folder: Path, tmp_path: Path) -> None:
    rows = {row[0]: row[1:] for row in _page(seed_folder, out=tmp_path / "report.html").rows}
    assert rows["neutral"] == ["6", "5", "83.33", "happy (1)"]
    assert rows["angry"] == ["4", "3", "75.00", "neutral (1)"]
    assert rows["all utterances (WA)"] == ["22", "18", "81.82", ""]


def test_the_page_says_what_was_run(seed_folder: Path, tmp_path: Path) -> None:
    _change(seed_folder, skipped_audio={"Actor_03/x.wav": "truncated"}, faulty_left_out=["1076_MTI_SAD_XX"])
    text = _page(seed_folder, out=tmp_path / "report.html").text
    for expected in (
        *("transfer", "zhou2020", "TransferResNet", "1,234,567", "actor folds (even, 3)", "0123456789ab"),
        *("0.1.0+abc1234", "2 cores", "3 min 04 s", "Actor_03/x.wav: truncated", "1076_MTI_SAD_XX"),
        *("ravdess, SYNTHETIC speech", "synthetic speech: these scores say nothing about recordings of people"),
        *("no speaker occurs in two sets of a fold", "fold 1: no utterance of angry is tested"),
    ):
        assert expected in text, expected


def test_the_page_of_recordings_with_shared_speakers_says_so(seed_folder: Path, tmp_path: Path) -> None:
    _change(seed_folder, synthetic=False, speakers_disjoint=False)
    text = _page(seed_folder, out=tmp_path / "report.html").text
    assert "SYNTHETIC" not in text
    assert "synthetic" not in text
    assert text.count("speakers occur in training and test") == 2


def test_missing_folds_are_said_at_the_top_and_beside_the_mean(seed_folder: Path, tmp_path: Path) -> None:
    (seed_folder / "fold-02" / "predictions.csv").unlink()
    text = _page(seed_folder, out=tmp_path / "report.html").text
    assert "only 2 of 3 folds are finished; missing: 2" in text
    assert "mean over 2 of 3 folds" in text
    assert "pooled over the finished folds" in text


def test_seeds_are_shown_each_and_together(seed_folder: Path, write_fold: WriteFold, tmp_path: Path) -> None:
    for fold in range(3):
        write_fold(seed_folder.parent / "seed-7", fold, RIGHT)
    page = _page(seed_folder.parent / "seed-7", seed_folder, out=tmp_path / "report.html")
    assert "mean over 2 seeds, each the mean over its folds" in page.text
    assert "pooled over all folds and added up over 2 seeds" in page.text
    means, pooled = (row[1:] for row in page.rows if row[0] == "mean over 2 seeds")
    assert means == ["90.28", "90.28", "87.78"]
    assert pooled == ["90.62", "90.91", "90.62"]


def test_nothing_from_a_run_becomes_markup(tmp_path: Path, write_fold: WriteFold) -> None:
    said = dict.fromkeys(("paper", "experiment", "corpus", "row", "protocol", "protocol_hash", "split_hash"), EVIL)
    said |= dict.fromkeys(("system", "code_version", "hardware"), EVIL)
    folder = tmp_path / "seed-0"
    write_fold(
        folder,
        0,
        ((1, 1), (0, 1)),
        class_names=(EVIL, "b"),
        num_folds=1,
        skipped_audio={EVIL: EVIL},
        faulty_left_out=[EVIL],
        **said,
    )
    predictions = folder / "fold-00" / "predictions.csv"
    predictions.write_text(predictions.read_text().replace(",01,0,", ",<b>01</b>,0,"))
    page = _page(folder, out=tmp_path / "report.html")
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert page.text.count(EVIL) >= 15
    assert all(set(attributes) <= {"src", "alt", "width", "height"} for tag, attributes in page.tags if tag == "img")


def test_the_page_needs_nothing_from_outside(seed_folder: Path, tmp_path: Path) -> None:
    path = write_report([seed_folder], tmp_path / "report.html")
    text = path.read_text()
    for tag, attributes in _Page(text).tags:
        assert tag not in {"link", "script", "iframe", "object"}
        assert "href" not in attributes
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not re.search(r"https?:|@import|url\(", text)


def test_every_picture_has_words_for_who_does_not_see_it(seed_folder: Path, tmp_path: Path) -> None:
    page = _page(seed_folder, out=tmp_path / "report.html")
    words = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert len(words) == 4
    assert "Confusion matrix. Recall: neutral 83%, happy 83%, sad 83%, angry 75%" in words
    assert any(said and "speaker 01: UA" in said for said in words)


def test_a_run_without_metrics_says_so_instead_of_curves(seed_folder: Path, tmp_path: Path) -> None:
    for path in seed_folder.glob("fold-*/metrics.csv"):
        path.unlink()
    page = _page(seed_folder, out=tmp_path / "report.html")
    assert "No metrics.csv in: seed 0, fold 0; seed 0, fold 1; seed 0, fold 2." in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 3


def test_the_same_runs_give_the_same_bytes(seed_folder: Path, tmp_path: Path) -> None:
    first = write_report([seed_folder], tmp_path / "one.html").read_bytes()
    assert write_report([seed_folder], tmp_path / "two.html").read_bytes() == first


def test_a_refused_report_leaves_the_old_page(seed_folder: Path, write_fold: WriteFold, tmp_path: Path) -> None:
    out = write_report([seed_folder], tmp_path / "report.html")
    before = out.read_bytes()
    write_fold(seed_folder.parent / "seed-1", 0, RIGHT, protocol_hash="ba9876543210")
    with pytest.raises(ConfigurationError, match=r"protocol_hash differs: '0123456789ab' in .*'ba9876543210' in"):
        write_report([seed_folder.parent], out)
    assert out.read_bytes() == before


def test_an_experiment_without_a_paper_has_no_empty_line(seed_folder: Path, tmp_path: Path) -> None:
    _change(seed_folder, paper="")
    path = ser_lightning.reports.write_report([seed_folder], tmp_path / "report.html")
    assert "<dt>paper</dt>" not in path.read_text()
    assert '<p class="soft">TransferResNet</p>' in path.read_text()


def test_importing_the_package_does_not_wait_for_pandas_torch_or_matplotlib() -> None:
    code = "import sys, ser_lightning.reports; print(*{'pandas', 'torch', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
