"""The card beside a checkpoint says what lies in the run's folder, and nothing else."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from ser_lightning.cli.main import main
from ser_lightning.errors import ConfigurationError
from ser_lightning.reports.model_card import write_model_card
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.predictions import Predictions

Save = Callable[..., Path]
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
    skipped_audio={"x.wav": "empty"},
    faulty_left_out=(),
)


def run_folder(save: Save, folder: Path, name: str = "huang_mean", corpus: str = "ravdess") -> Path:
    """Write what ``ser fit`` leaves."""
    save(folder / "checkpoints" / "best.ckpt", name, corpus=corpus)
    config = {"seed_everything": 1, "data": {"init_args": {"fold": 3}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def add_results(folder: Path) -> None:
    """Write what testing leaves: of each emotion as many utterances are right as its place says, of four."""
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


def test_a_tested_run_has_all_of_its_facts_and_scores(save: Save, tmp_path: Path) -> None:
    folder = run_folder(save, tmp_path / "run")
    add_results(folder)
    (folder / "scores.json").write_text('{"ECE": 0.123}')
    path = write_model_card(folder)
    assert path == folder / "checkpoints" / "best.md"
    text = path.read_text()
    for words in (
        "# PooledLSTM: huang2020/mean, ravdess, fold 3",
        "neutral, happy, sad, angry",
        "12,345 parameters",
        "LogMelFilterbank (sample_rate_hz 16000, num_mels 40",
        "Livingstone & Russo 2018",
        "CC BY-NC-SA 4.0",
        "Trained on 1 speakers: 01",
        "actor folds (paper, 10), fold 3 of 10 (from 0); no speaker is in two sets",
        "1 unusable recordings were left out",
        "| test | 16 | 2 | 81.2% | 81.2% |",
        "| validation | 16 | 2 |",
        "| happy | 4 | 50% |",
        "recognises happy least: 50%",
        "off by 12 points",
        "## Intended use",
        f"ser classify {folder / 'checkpoints' / 'best.ckpt'} RECORDING.wav",
        "Epoch 3 (from 0), seed 1",
        "Code 0.1.0+abc, 9 epochs in 2.0 minutes on 1 x cpu",
    ):
        assert words in text, words
    assert "synthetic" not in text
    write_model_card(folder)
    assert path.read_text() == text


def test_a_run_that_was_only_fitted_claims_no_test(save: Save, tmp_path: Path) -> None:
    folder = run_folder(save, tmp_path / "run")
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    state = {"monitor": "validation/UA", "best_model_score": torch.tensor(0.512)}
    torch.save(checkpoint | {"callbacks": {"BestCheckpoint{}": state}}, folder / "checkpoints" / "best.ckpt")
    path = write_model_card(folder)
    assert path is not None
    text = path.read_text()
    assert "# PooledLSTM, ravdess, fold 3" in text
    assert "validation/UA of the epoch that was kept: 51.2%. Nothing was tested." in text
    assert "| test |" not in text


def test_synthetic_speech_is_called_so_and_has_no_licence(save: Save, tmp_path: Path) -> None:
    path = write_model_card(run_folder(save, tmp_path, corpus="ravdess-synthetic"))
    assert path is not None
    text = path.read_text()
    assert "> Trained on synthetic speech" in text
    assert "Corpus: none; the speech was computed" in text
    assert "CC BY-NC-SA" not in text


def test_a_corpus_that_is_not_known_states_no_licence(save: Save, tmp_path: Path) -> None:
    path = write_model_card(run_folder(save, tmp_path, corpus="my_corpus"))
    assert path is not None
    assert "my_corpus does not state one here" in path.read_text()


def test_a_stage_for_others_is_not_recommended_for_recordings(save: Save, tmp_path: Path) -> None:
    path = write_model_card(run_folder(save, tmp_path, "speakers"))
    assert path is not None
    text = path.read_text()
    assert "Tells 4 speakers apart" in text
    assert "ser classify" not in text


@pytest.mark.parametrize("content", [None, "", "data: [", "data: {}", "seed_everything: 1\ndata: 3", b"\xff\xfe\x00"])
def test_a_configuration_that_is_none_is_refused_by_name(
    save: Save, tmp_path: Path, content: str | bytes | None
) -> None:
    folder = run_folder(save, tmp_path / "run")
    path = folder / "config.yaml"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(
        ConfigurationError, match=r"config\.yaml is not the configuration of a run \(.+\); put the file back"
    ):
        write_model_card(folder)


@pytest.mark.parametrize("content", ["", "[0.3]", '{"ECE": "low"}'])
def test_damaged_scores_are_refused_by_name(save: Save, tmp_path: Path, content: str) -> None:
    folder = run_folder(save, tmp_path / "run")
    (folder / "scores.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"scores\.json holds no scores"):
        write_model_card(folder)


def test_without_a_checkpoint_there_is_no_card(tmp_path: Path) -> None:
    assert write_model_card(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run-fold", "fit"])
def test_a_run_leaves_its_card(arguments: Callable[..., list[str]], tmp_path: Path, command: str) -> None:
    assert main([command, *arguments(tmp_path / "run", "--trainer.logger=false")]) == 0
    text = (tmp_path / "run" / "checkpoints" / "best.md").read_text()
    assert "# PooledLSTM" in text
    assert ("| test |" in text) == (command == "run-fold")
    (tmp_path / "run" / "checkpoints" / "best.md").unlink()
    if command == "run-fold":  # killed behind its predictions
        assert main([command, *arguments(tmp_path / "run", "--trainer.logger=false")]) == 0
        assert (tmp_path / "run" / "checkpoints" / "best.md").read_text() == text
