"""A look at a corpus: what is scored is counted apart from what only targets made of votes can use."""

from pathlib import Path

import pytest
from rich.console import Console

from data_modules.iemocap_synthetic import Turn, recordings
from ser_lightning.audio import read_audio
from ser_lightning.cross_validation.audit import audit

EMOTIONS = ("neutral", "happy", "sad", "angry")


@pytest.mark.parametrize("others", ["leave_out", "keep"])
def test_utterances_and_hours_are_of_what_has_a_label_and_the_others_have_a_column(
    others: str, synthetic_iemocap: Path
) -> None:
    console = Console(record=True, width=250)
    config = "--config=experiments/ando2019/iemocap/soft.yaml"
    root = f"--data.init_args.root={synthetic_iemocap}"
    assert audit([config, root, f"--data.init_args.others={others}"], [], console) == 0
    shown = console.export_text()
    row = [cell.strip() for cell in next(line for line in shown.splitlines() if "│ test" in line).split("│")[1:-1]]
    tested = [t for t in recordings(4, 0, 16) if t.evaluation.improvised and t.evaluation.speaker == "Ses01F"]
    counts = [sum(t.evaluation.label == emotion for t in tested) for emotion in EMOTIONS]
    scored = [t for t in tested if t.evaluation.label in EMOTIONS]
    unlabelled = [t for t in tested if t.evaluation.label not in EMOTIONS]
    assert len(scored) == sum(counts) < len(tested)

    def hours(turns: list[Turn]) -> str:
        return f"{sum(len(read_audio(synthetic_iemocap / t.clip.file, 16000)) for t in turns) / 16000 / 3600:.2f}"

    assert row[2:9] == ["test", str(len(scored)), *map(str, counts), hours(scored)]
    assert ("without label" in shown) == (others == "keep")
    if others == "keep":
        assert row[9] == f"{len(unlabelled)} ({hours(unlabelled)} hours)"
