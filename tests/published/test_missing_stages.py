"""A later stage without the earlier one's checkpoint is one error before anything runs, with the way out."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ser_lightning.cli.__main__ import main, parser
from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import WeightedCrossEntropy
from ser_lightning.published.lookup import check_earlier_stages
from ser_lightning.systems import DominantEmotionRecognition, ExistencePretraining

ANDO = Path("experiments/ando2019")
WIDTHS: dict[str, Any] = {"channels": (2, 2, 2), "cells": 3, "attention_dim": 4}
EXISTENCE, DOMINANT = "model.init_args.existence_checkpoint", "model.init_args.dominant_checkpoint"


def later_stage(**given: Any) -> ExistencePretraining:
    return ExistencePretraining(34, ("neutral", "happy"), WeightedCrossEntropy(), **given, **WIDTHS)


@pytest.mark.parametrize("name", ["pretraining_hard", "pretraining_soft", "fusion_hard", "fusion_soft"])
def test_a_missing_checkpoint_is_named_with_the_tables_command(name: str) -> None:
    path = ANDO / f"{name}.yaml"
    row = name.replace("pretraining", "pre-training").replace("_", " ")
    command = f"ser table run experiments/ando2019/table3.yaml --rows '{row}, dominant'"
    with pytest.raises(ConfigurationError, match=f"^{path}: {EXISTENCE} .*{command} "):
        check_earlier_stages(later_stage(fusion=name.startswith("fusion")), path, "iemocap", [])
    parser().parse_args(["table", "run", "experiments/ando2019/table3.yaml", "--rows", f"{row}, dominant"])


def test_given_or_planned_checkpoints_are_not_missing() -> None:
    path = ANDO / "fusion_hard.yaml"
    check_earlier_stages(
        DominantEmotionRecognition(34, ("a", "b"), WeightedCrossEntropy(), **WIDTHS), path, "iemocap", []
    )
    check_earlier_stages(later_stage(existence_checkpoint=Path("x")), path, "iemocap", [])
    check_earlier_stages(later_stage(fusion=True), path, "iemocap", [EXISTENCE, DOMINANT])
    with pytest.raises(ConfigurationError, match=f"{DOMINANT}.* --rows 'fusion hard, dominant' "):
        check_earlier_stages(later_stage(fusion=True), path, "iemocap", [EXISTENCE])


def test_the_tables_command_names_the_corpus_if_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("experiments/mine/late.yaml")
    path.parent.mkdir(parents=True)
    (path.parent / "crema_d.yaml").touch()
    with pytest.raises(ConfigurationError, match=f"give --{EXISTENCE}$"):
        check_earlier_stages(later_stage(), path, "crema_d", [])
    rows = [
        {"name": "early", "experiment": "early.yaml"},
        {"name": "other", "experiment": "late.yaml", "overrides": ["--a=1"], "needs": {EXISTENCE: "early"}},
        {"name": "late", "experiment": "late.yaml", "needs": {EXISTENCE: "early"}},
    ]
    table = {"title": "T", "corpus": "ravdess", "rows": rows}
    (path.parent / "table1.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(
        ConfigurationError, match=r"ser table run experiments/mine/table1.yaml corpus=crema_d --rows late"
    ):
        check_earlier_stages(later_stage(), path, "crema_d-synthetic", [])
    with pytest.raises(ConfigurationError, match=f"give --{EXISTENCE}$"):
        check_earlier_stages(later_stage(), path, "recordings", [])


def test_cross_validation_stops_before_features_are_extracted(
    synthetic_iemocap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [f"--data.init_args.root={synthetic_iemocap}", f"--data.init_args.feature_folder={tmp_path / 'features'}"]
    files = [f"--config={ANDO / 'pretraining_hard.yaml'}", f"--config={ANDO / 'iemocap.yaml'}"]
    assert main(["cv", *files, f"--runs={tmp_path / 'runs'}", *where]) != 0
    assert f"{EXISTENCE} is missing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
