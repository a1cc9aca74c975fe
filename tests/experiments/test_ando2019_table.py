"""A small version of Ando et al. 2019, Table 3: rows run the stages they need, for each fold."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from ser_lightning.cli.__main__ import main
from ser_lightning.runs.folder import file_hash, recorded_sources

NARROW = ["channels=[2,2,2]", "cells=3", "attention_dim=4", "hidden_dim=4"]


@pytest.mark.slow
def test_two_rows_run_their_stages_and_start_from_the_same_folds(
    synthetic_iemocap: Path, feature_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ["experiments/ando2019/table3.yaml", "--rows=pre-training hard, dominant", "--rows=fusion soft, all"]
    given = [
        f"--runs={tmp_path}",
        "--folds=0",
        f"--data.init_args.root={synthetic_iemocap}",
        f"--data.init_args.feature_folder={feature_folder}",
        "--trainer.max_epochs=1",
        "--trainer.logger=false",
        "--trainer.accelerator=cpu",
        *(f"--model.init_args.{argument}" for argument in NARROW),
    ]
    assert main(["table", "run", *table, *given]) == 0
    printed = capsys.readouterr().out
    assert printed.count("not run") == 14 - 5
    assert "SYNTHETIC" in printed

    def fold(experiment: str, row: str) -> Path:
        return tmp_path / "ando2019" / experiment / "iemocap-synthetic" / row / "seed-0" / "fold-00"

    stages = {
        fold("pretraining_hard", "pre-training_hard_dominant"): [fold("mlee", "default")],
        fold("fusion_soft", "fusion_soft_all"): [fold("mlee", "MLEE_only_all"), fold("soft", "soft_all")],
    }
    done = set(tmp_path.rglob("predictions.csv"))
    assert done == {folder / "predictions.csv" for needing, needed in stages.items() for folder in (needing, *needed)}
    for needing, needed in stages.items():
        arguments = yaml.safe_load((needing / "config.yaml").read_text())["model"]["init_args"]
        given_checkpoints = [arguments["existence_checkpoint"], arguments["dominant_checkpoint"]]
        paths = [folder / "checkpoints" / "best.ckpt" for folder in needed]
        assert [Path(path) for path in given_checkpoints if path] == paths
        assert sorted(recorded_sources(needing).values()) == sorted(map(file_hash, paths))
        weights = torch.load(needing / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for place, path in enumerate(paths):
            source = torch.load(path, weights_only=True)["state_dict"]
            for key in (key for key in source if key.startswith(("encoder.", "standardisation."))):
                assert torch.equal(weights[f"encoders.{place}.{key}"], source[key]), (path, key)
    for file in done:
        scores = json.loads((file.parent / "scores.json").read_text())
        assert scores["vote_cross_entropy"] > scores["vote_KL"] > 0  # evaluators disagree, so votes have entropy

    before = {file: file.stat().st_mtime_ns for file in done}
    assert main(["table", "run", *table, *given]) == 0  # nothing is run again or rejected
    assert {file: file.stat().st_mtime_ns for file in done} == before
