"""The model card of a checkpoint."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from markdown_it import MarkdownIt

from ser_lightning.cli.__main__ import main
from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.predictions import Predictions
from ser_lightning.training.results import write_model_card

pytestmark = pytest.mark.usefixtures("small_pictures")

EMOTIONS = ("neutral", "happy", "sad", "angry")
FACTS = RunFacts(
    paper="huang2020",
    experiment="mean",
    corpus="ravdess",
    synthetic=False,
    row="default",
    protocol="actor folds (paper, 10)",
    speakers_disjoint=True,
    protocol_hash="0123456789ab",
    split_hash="ba9876543210",
    fold=3,
    num_folds=10,
    seed=1,
    class_names=EMOTIONS,
    system="PooledLSTM",
    parameters=12345,
    best_epoch=3,
    epochs=9,
    seconds=120.0,
    code_version="0.1.0+abc",
    hardware="1 x cpu",
    precision="32-true",
    skipped_audio={"x.wav": "empty"},
    faulty_left_out=(),
    same_audio_across_sets=0,
    untrained_classes=(),
    one_speaker_classes=(),
    diverged="",
)


EXTRACTOR = {
    "class_path": "ser_lightning.features.LogMelFilterbank",
    "init_args": {"sample_rate_hz": 16000, "num_mels": 40, "fmax_hz": None},
}


def run_folder(folder: Path, corpus: str = "ravdess", callbacks: dict[str, Any] | None = None, **stored: Any) -> Path:
    """Write the files of ``ser fit`` that a card reads; ``stored`` is added to the checkpoint."""
    stored = {"system": "ser_lightning.systems.PooledLSTM", "is_pretraining": False, **stored}
    stored["class_names"] = list(EMOTIONS)
    stored["origin"] = {"corpus": corpus, "extractor": EXTRACTOR, "training_speakers": ["01"]}
    (folder / "checkpoints").mkdir(parents=True)
    checkpoint = {"state_dict": {}, "epoch": 3, "callbacks": callbacks or {}, "ser_lightning": stored}
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")
    config = {"seed_everything": 1, "data": {"init_args": {"fold": 3}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def card_of(folder: Path) -> str:
    """Write and return the card of a run."""
    path = write_model_card(folder)
    assert path == folder / "checkpoints" / "best.md"
    return path.read_text()


def add_results(folder: Path) -> None:
    """Write the files of a test; some utterances of each emotion are correct."""
    (folder / "run.json").write_text(json.dumps(asdict(FACTS)))
    targets = torch.arange(16) % 4
    predicted = torch.tensor([target if n // 4 <= target else 0 for n, target in enumerate(targets.tolist())])
    for file in ("predictions.csv", "validation_predictions.csv"):
        Predictions.collect(
            utterances=[f"u{n}" for n in range(16)],
            speakers=[f"{n % 2}" for n in range(16)],
            fold=3,
            targets=targets,
            predicted=predicted,
            probabilities=torch.full((16, 4), 0.25),
            class_names=EMOTIONS,
        ).write(folder / file)


def test_a_tested_run_has_all_facts_and_scores(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    add_results(folder)
    (folder / "scores.json").write_text('{"ECE": 0.123}')
    text = card_of(folder)
    for words in (
        "# PooledLSTM: huang2020/mean, ravdess, fold 3\n",
        "neutral, happy, sad, angry",
        "- System: `ser_lightning.systems.PooledLSTM`, 12,345 parameters\n",
        r"- Input: LogMelFilterbank (sample\_rate\_hz 16000, num\_mels 40)",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/",
        "Livingstone & Russo 2018",
        "CC BY-NC-SA 4.0",
        "- Trained on 1 speaker: 01\n- Protocol: ",
        "actor folds (paper, 10), fold 3 of 10 (from 0);\n  no speaker is in two sets\n",
        "- Left out: 1 unusable recording (see",
        "| test | 16 | 2 | 81.2% | 81.2% |",
        "| validation | 16 | 2 |",
        "|\n| happy | 4 | 50% |\n|",
        "Lowest recall on the test set: happy, 50%",
        "error on the test set: 12 points",
        "## Intended use",
        f"\nser classify {folder / 'checkpoints' / 'best.ckpt'} RECORDING.wav\n",
        "Epoch 3 (from 0), seed 1",
        "Code 0.1.0+abc, 9 epochs in 2.0 minutes on\n1 x cpu, 32-true.",
    ):
        assert words in text, words
    assert "synthetic" not in text
    assert "openSMILE" not in text
    assert card_of(folder) == text


def test_a_fitted_run_has_no_test_scores(tmp_path: Path) -> None:
    state = {"monitor": "validation/UA", "best_model_score": torch.tensor(0.512)}
    text = card_of(run_folder(tmp_path / "run", callbacks={"BestCheckpoint{}": state}))
    assert "# PooledLSTM, ravdess, fold 3" in text
    assert "validation/UA of the selected epoch: 51.2%. Not tested." in text
    assert "| test |" not in text


def test_synthetic_speech_is_named_and_has_no_licence(tmp_path: Path) -> None:
    text = card_of(run_folder(tmp_path, "ravdess-synthetic"))
    assert "> Trained on synthetic speech" in text
    assert "Corpus: none; " in text
    assert "CC BY-NC-SA" not in text


def test_an_unknown_corpus_has_no_licence(tmp_path: Path) -> None:
    assert r"no licence is known for my\_corpus" in card_of(run_folder(tmp_path, "my_corpus"))


def test_a_pretraining_stage_is_not_recommended_for_recordings(tmp_path: Path) -> None:
    text = card_of(run_folder(tmp_path, is_pretraining=True))
    assert "Classifies 4 speakers" in text
    assert "ser classify" not in text


def test_no_name_becomes_markup_on_a_card(tmp_path: Path) -> None:
    hostile = "a|b\n\n# c `d` <e> [f](g)"
    cards = []
    for name in ("plain", hostile):
        folder = run_folder(tmp_path / "x y" / str(len(name)), name, system=f"s.{name}", svm=name)
        facts = replace(FACTS, **dict.fromkeys(("paper", "experiment", "row", "protocol", "hardware"), name))
        (folder / "run.json").write_text(json.dumps(asdict(facts)))
        cards.append(MarkdownIt("gfm-like", {"linkify": False}).render(card_of(folder)))
    plain, escaped = (re.findall(r"</?\w+", card) for card in cards)
    assert escaped == plain
    assert f"ser classify '{tmp_path}/x y/" in cards[0].replace("&#x27;", "'")


@pytest.mark.parametrize("content", [None, "", "data: [", "data: {}", "seed_everything: 1\ndata: 3", b"\xff\xfe\x00"])
def test_a_malformed_configuration_is_named(tmp_path: Path, content: str | bytes | None) -> None:
    folder = run_folder(tmp_path / "run")
    path = folder / "config.yaml"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError, match=r"config\.yaml .*\(.+\)"):
        write_model_card(folder)


@pytest.mark.parametrize("content", ["", "[0.3]", '{"ECE": "low"}'])
def test_damaged_scores_are_named(tmp_path: Path, content: str) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "scores.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"scores\.json"):
        write_model_card(folder)


def test_without_a_checkpoint_there_is_no_card(tmp_path: Path) -> None:
    assert write_model_card(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run-fold", "fit"])
def test_a_run_writes_its_card(arguments: Callable[..., list[str]], tmp_path: Path, command: str) -> None:
    assert main([command, *arguments(tmp_path / "run", "--trainer.logger=false")]) == 0
    text = (tmp_path / "run" / "checkpoints" / "best.md").read_text()
    assert "# PooledLSTM" in text
    assert ("| test |" in text) == (command == "run-fold")
    (tmp_path / "run" / "checkpoints" / "best.md").unlink()
    if command == "run-fold":  # killed after its predictions
        assert main([command, *arguments(tmp_path / "run", "--trainer.logger=false")]) == 0
        assert (tmp_path / "run" / "checkpoints" / "best.md").read_text() == text
