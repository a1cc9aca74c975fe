"""The table of metrics, and the W&B run, read back from W&B's offline file."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
import yaml
from lightning.pytorch import LightningModule, Trainer
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.data_types._private import MEDIA_TMP
from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

from ser_lightning.cli.__main__ import main
from ser_lightning.cross_validation.wandb import log_summary_runs, report_to_agent
from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Change, Job, JobEvent
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.folder import code_version
from ser_lightning.runs.names import RunName, trial_row
from ser_lightning.runs.predictions import Predictions
from ser_lightning.runs.summary import OBJECTIVES, over_folds
from ser_lightning.training.callbacks import EpochSeed
from ser_lightning.training.experiment import resolve
from ser_lightning.training.fold import run_fold
from ser_lightning.training.loggers import LEARNING_RATE, SECONDS, SPEED, MetricsTable, build_loggers
from ser_lightning.training.wandb import FoldWandbLogger, run_options, wandb_mode, wandb_run_id

pytestmark = pytest.mark.usefixtures("small_pictures")

Arguments = Callable[..., list[str]]

NAME = RunName("huang2020", "netvlad_unigram", "ravdess", "default", seed=0, fold=3)

HEADER_BYTES, BLOCK_BYTES, RECORD_HEADER = 7, 32 * 1024, struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Record]:
    """The records of a `.wandb` file: LevelDB's log format after a header of seven bytes."""
    content = path.read_bytes()
    assert content[:4] == b":W&B", content[:4]
    position, payload = HEADER_BYTES, b""
    while position + RECORD_HEADER.size <= len(content):
        left_in_block = BLOCK_BYTES - position % BLOCK_BYTES
        if left_in_block < RECORD_HEADER.size:
            position += left_in_block
            continue
        _, length, kind = RECORD_HEADER.unpack_from(content, position)
        position += RECORD_HEADER.size
        if position + length > len(content):
            return
        payload = (b"" if kind in (FULL, FIRST) else payload) + content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(payload)
            yield record


class OfflineRun:
    """An offline run's folder; nested values have keys such as `test/confusion_picture/path`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (file,) = folder.glob("run-*.wandb")
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.step_metrics: dict[str, str] = {}
        self.summary: dict[str, Any] = {}
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self._configure(record.run.config)
            elif kind == "config":
                self._configure(record.config)
            elif kind == "history":
                self.history.append(_items(record.history.item))
            elif kind == "summary":
                self.summary |= _items(record.summary.update)
            elif kind == "request" and record.request.HasField("log_artifact"):
                self.artifact = record.request.log_artifact.artifact
            elif kind == "artifact" and record.artifact.type == "model":
                self.artifact = record.artifact
            elif kind == "exit":
                self.exit_code = record.exit.exit_code
            elif kind == "metric":
                self.step_metrics[record.metric.glob_name or record.metric.name] = record.metric.step_metric

    def _configure(self, config: Any) -> None:
        self.config |= _items(config.update)

    def of_epochs(self, key: str) -> dict[int, float]:
        """The value of `key` by epoch."""
        return {int(row["epoch"]): row[key] for row in self.history if key in row}


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def offline_runs(folder: Path) -> list[OfflineRun]:
    """The runs in `folder`, oldest first; W&B's process may still be writing the last records."""
    folders = sorted((folder / "wandb").glob("offline-run-*"))
    for path in folders:
        (file,) = path.glob("run-*.wandb")
        while "exit" not in [record.WhichOneof("record_type") for record in records(file)]:
            time.sleep(0.05)
    return [OfflineRun(path) for path in folders]


def steps(run: OfflineRun) -> list[int]:
    """W&B's step of each logged row."""
    return [row["_step"] for row in run.history]


@pytest.fixture(scope="module")
def fold(arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fold, with W&B offline."""
    return run_fold(arguments(tmp_path_factory.mktemp("fold")))


@pytest.fixture(scope="module")
def run(fold: Path) -> OfflineRun:
    """The fold's only W&B run."""
    (run,) = offline_runs(fold)
    return run


def test_the_wandb_run_is_named_and_grouped_by_fold_and_seed(run: OfflineRun, fold: Path) -> None:
    assert run.run.project == "ser-lightning"
    assert (run.run.display_name, run.run.job_type) == ("quickstart/ravdess-synthetic/seed-0/fold-00", "fold")
    assert run.run.run_group == "quickstart/ravdess-synthetic/default/seed-0"
    assert list(run.run.tags) == ["ravdess-synthetic", "actor folds (even, 4)"]
    assert run.run.run_id == (fold / "wandb_id").read_text()


def test_the_wandb_run_of_a_papers_experiment_has_its_tag(tmp_path: Path, arguments: Arguments) -> None:
    experiment = tmp_path / "experiments" / "huang2020" / "tiny.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(Path("experiments/quickstart.yaml").read_text())
    folder = tmp_path / "run"
    assert main(["fit", f"--config={experiment}", *arguments(folder, "--trainer.max_epochs=1")[1:]]) == 0
    (run,) = offline_runs(folder)
    assert list(run.run.tags) == ["huang2020", "ravdess-synthetic", "actor folds (even, 4)"]
    assert run.run.run_group == "huang2020/tiny/ravdess-synthetic/default/seed-0"


def test_the_wandb_run_holds_the_epochs_of_the_metrics_table(run: OfflineRun, fold: Path) -> None:
    table = pd.read_csv(fold / "metrics.csv").set_index("epoch")
    assert table.index.tolist() == [0, 1]
    for key in set(table) - {"step"}:
        assert run.of_epochs(key) == pytest.approx(table[key].to_dict(), rel=1e-6), key
    assert run.of_epochs(LEARNING_RATE) == {0: 1.0, 1: 1.0}
    assert min(*run.of_epochs(SECONDS).values(), *run.of_epochs(SPEED).values()) > 0
    assert steps(run)[:2] == [0, 1]
    assert run.step_metrics["train/*"] == run.step_metrics["validation/*"] == "epoch"


def test_the_wandb_run_holds_test_scores_and_confusion_matrix(run: OfflineRun, fold: Path) -> None:
    predictions = Predictions.read(fold / "predictions.csv").table
    correct = predictions["target"] == predictions["predicted"]
    merged = {key: value for row in run.history for key, value in row.items()}
    assert merged["test/WA"] == pytest.approx(correct.mean())
    assert merged["test/UA"] == pytest.approx(correct.groupby(predictions["target"]).mean().mean())
    scores = json.loads((fold / "scores.json").read_text())
    assert merged["test/ECE"] == pytest.approx(scores["ECE"])
    assert not any("vote" in key for key in merged)  # RAVDESS has none
    assert merged["test/confusion_picture/_type"] == "image-file"
    picture = run.folder / "files" / merged["test/confusion_picture/path"]
    assert picture.read_bytes() == (fold / "confusion.png").read_bytes()
    assert any(key.startswith("_wandb/visualize/test/confusion_matrix") for key in run.config), list(run.config)
    assert merged["test/confusion_matrix_table/_type"] == "table-file"
    table = json.loads((run.folder / "files" / merged["test/confusion_matrix_table/path"]).read_text())
    counted = pd.DataFrame(table["data"], columns=table["columns"]).set_index(["Actual", "Predicted"])["nPredictions"]
    expected = predictions.groupby(["target", "predicted"]).size()
    assert counted[counted > 0].to_dict() == expected.to_dict()


def test_the_wandb_run_holds_the_yaml_split_and_code_version(run: OfflineRun, fold: Path) -> None:
    facts = json.loads((fold / "run.json").read_text())
    for key, value in yaml.safe_load((fold / "config.yaml").read_text()).items():
        assert run.config[key] == value, key
    assert run.config["split_hash"] == facts["split_hash"]
    assert run.config["protocol_hash"] == facts["protocol_hash"]
    assert run.config["code_version"] == facts["code_version"] == code_version()


def test_the_wandb_runs_summary_holds_the_best_epochs_scores(run: OfflineRun, fold: Path) -> None:
    best = RunFacts.read(fold / "run.json").best_epoch
    table = pd.read_csv(fold / "metrics.csv").set_index("epoch")
    assert run.summary["best_epoch"] == best
    for key in ("validation/UA", "validation/WA", "validation/macro_F1", "validation/loss"):
        assert run.summary[key] == pytest.approx(table.loc[best, key]), key


def test_an_interrupted_folds_last_wandb_run_has_every_epoch_once(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCutError(Exception):
        pass

    start = EpochSeed.on_train_epoch_start

    def fail_in_second_epoch(self: EpochSeed, trainer: Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise PowerCutError
        start(self, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(EpochSeed, "on_train_epoch_start", fail_in_second_epoch)
        with pytest.raises(PowerCutError):
            run_fold(arguments(tmp_path))
    (before,) = offline_runs(tmp_path)
    assert before.exit_code == 1  # in W&B an interrupted fold has failed until it resumes
    assert list(before.of_epochs("train/loss")) == [0]
    time.sleep(1.1)  # W&B names an offline run's folder by the second
    run_fold(arguments(tmp_path))
    (after,) = offline_runs(tmp_path)  # the one before holds nothing else
    assert before.run.run_id == after.run.run_id == (tmp_path / "wandb_id").read_text()
    assert after.exit_code == 0
    table = pd.read_csv(tmp_path / "metrics.csv").set_index("epoch")
    assert after.of_epochs("train/loss") == pytest.approx(table["train/loss"].to_dict())
    assert steps(after)[:2] == [0, 1]
    assert steps(after) == sorted(set(steps(after)))  # the test's rows follow


def test_names_of_wandb_runs_tell_folds_rows_and_trials_apart() -> None:
    of_fold = run_options(NAME, "fold", "actor folds")
    assert of_fold["name"] == "huang2020/netvlad_unigram/ravdess/seed-0/fold-03"
    identity = {"paper": "huang2020", "experiment": "netvlad_unigram", "corpus": "ravdess", "row": "default", "seed": 0}
    assert of_fold["config"] == {**identity, "protocol": "actor folds", "fold": 3}
    summary = run_options(replace(NAME, row="mean"), "summary", "actor folds")
    assert (summary["name"], summary["job_type"]) == ("huang2020/netvlad_unigram/ravdess/mean/seed-0", "summary")
    assert "fold" not in summary["config"]
    trial = run_options(replace(NAME, row=trial_row({"model.init_args.dropout": 0.25})), "summary", "actor folds")
    assert "dropout=0.25" in trial["name"]
    assert trial["job_type"] == "trial"


VARIABLES = {
    "PROJECT": ("project", "emotions", "emotions"),
    "NAME": ("name", "mine", "mine/huang2020/netvlad_unigram/ravdess/seed-0/fold-03"),
    "TAGS": ("tags", "a,b", ["huang2020", "ravdess", "actor folds", "a", "b"]),
    "RUN_GROUP": ("group", "ablation", "ablation"),
    "JOB_TYPE": ("job_type", "debug", "debug"),
    "NOTES": ("notes", "of the lab", "of the lab"),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_wandbs_variables_hold_and_yaml_wins_over_them(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, value, expected = VARIABLES[variable]
    monkeypatch.setenv(f"WANDB_{variable}", value)
    assert run_options(NAME, "fold", "actor folds")[key] == expected
    monkeypatch.setenv(f"WANDB_{variable}", "other")
    given = {key: value.split(",") if key == "tags" else value}
    assert run_options(NAME, "fold", "actor folds", given)[key] == expected


@pytest.mark.parametrize("key", ["id", "version", "resume", "experiment"])
def test_a_wandb_argument_that_joins_folds_is_rejected(key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"trainer\.logger: {key} is 'x'"):
        run_options(NAME, "fold", "actor folds", {key: "x"})


def test_a_yaml_names_any_loggers(tmp_path: Path) -> None:
    loggers = [
        {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "mine", "tags": ["a"]}},
        {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "."}},
        {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path / "all")}},
        {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "."}},
    ]
    loggers[2]["init_args"]["name"] = "lightning_logs"  # as the parser completes it
    configuration = {"trainer": {"logger": loggers}}
    of_wandb, in_fold, shared, of_tensorboard = build_loggers(
        configuration, tmp_path / "fold", NAME, "actor folds", "1.0"
    )
    assert isinstance(of_wandb, FoldWandbLogger)
    assert of_wandb._wandb_init["project"] == "mine"
    assert Path(str(in_fold.save_dir)) == tmp_path / "fold"
    assert Path(str(shared.log_dir)).parent == tmp_path / "all" / NAME.title / "fold-03"
    of_tensorboard.log_metrics({"validation/UA": 0.5}, step=1)
    of_tensorboard.finalize("success")
    assert list((tmp_path / "fold").rglob("events.out.tfevents.*"))


def test_a_yaml_logs_utterances_and_the_checkpoint_with_its_card(
    tmp_path: Path, arguments: Arguments, fold: Path
) -> None:
    shutil.copytree(fold, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("wandb"))
    logger = FoldWandbLogger(tmp_path, NAME, "actor folds", {}, {"log_utterances": True, "log_model": True})
    table = pd.read_csv(fold / "predictions.csv")
    logger.log_utterances(table, [])
    logger.finish()
    (run,) = offline_runs(tmp_path)
    (row,) = run.history
    logged = json.loads((run.folder / "files" / row["test/utterances/path"]).read_text())
    assert logged["columns"] == list(table)
    assert len(logged["data"]) == len(table)
    assert [file.path for file in run.artifact.manifest.contents] == ["best.ckpt", "best.md"]


def test_a_forked_job_has_a_media_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MEDIA_TMP, "name", str(tmp_path / "deleted by the fork server"))
    FoldWandbLogger(tmp_path, NAME, "actor folds", {})
    own = MEDIA_TMP.name
    assert Path(own).is_dir()
    FoldWandbLogger(tmp_path, NAME, "actor folds", {})
    assert MEDIA_TMP.name == own
    MEDIA_TMP.cleanup()  # as W&B does when the process ends
    assert not Path(own).exists()


def test_a_loggers_missing_package_is_named(tmp_path: Path) -> None:
    logger = {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"save_dir": "."}}
    with pytest.raises(ConfigurationError, match=r"MLFlowLogger needs a package.*mlflow"):
        build_loggers({"trainer": {"logger": logger}}, tmp_path, NAME, "actor folds", "1.0")


def validated(folder: Path, epoch: int, loss: float, function: str = "fit", **more: object) -> None:
    """Call a new metrics table at the end of a validation."""
    metrics = {"validation/UA": torch.tensor(0.5), "train/loss": torch.tensor(loss)}
    state = {"current_epoch": epoch, "global_step": 10 * epoch, "logged_metrics": metrics} | more
    trainer = SimpleNamespace(
        **{"state": SimpleNamespace(fn=function), "sanity_checking": False, "is_global_zero": True} | state,
        default_root_dir=str(folder),
    )
    MetricsTable().on_validation_end(cast(Trainer, trainer), cast(LightningModule, None))


def test_the_metrics_table_drops_repeated_epochs_on_resume(tmp_path: Path) -> None:
    for epoch in range(4):
        validated(tmp_path, epoch, loss=1.0)
    validated(tmp_path, 2, loss=0.25)
    rows = pd.read_csv(tmp_path / "metrics.csv")
    assert list(rows) == ["epoch", "step", "validation/UA", "train/loss"]
    assert rows["epoch"].tolist() == [0, 1, 2]
    assert rows["train/loss"].tolist() == [1.0, 1.0, 0.25]
    assert rows["step"].tolist() == [0, 10, 20]


@pytest.mark.parametrize("more", [{"function": "validate"}, {"sanity_checking": True}, {"is_global_zero": False}])
def test_only_epochs_of_the_first_process_become_rows(tmp_path: Path, more: dict[str, Any]) -> None:
    validated(tmp_path, 0, 1.0, **more)
    assert list(tmp_path.iterdir()) == []


def test_the_metrics_table_is_written_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated(tmp_path, 0, loss=1.0)
    before = (tmp_path / "metrics.csv").read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="no space left"):
            validated(tmp_path, 1, loss=0.5)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("error", [wandb.errors.CommError("no service"), ServerResponseError("no service")])
def test_a_wandb_failure_does_not_stop_training(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def fail_unless_disabled(**arguments: object) -> object:
        starts.append(arguments["mode"])
        if arguments["mode"] != "disabled":
            raise error
        return start(**arguments)

    start = wandb.init
    monkeypatch.setattr(wandb, "init", fail_unless_disabled)
    logger = FoldWandbLogger(tmp_path, NAME, "actor folds", {})
    with pytest.warns(UserWarning, match="no service"):
        logger.log_metrics({"validation/UA": 0.5, "epoch": 0}, 1)
    assert starts == ["offline", "disabled"]
    logger.finish()


def add_fold(seed: Path, fold: Path, index: int) -> None:
    """Copy a finished fold as another one with other predictions."""
    copy = seed / f"fold-{index:02d}"
    shutil.copytree(fold, copy, ignore=shutil.ignore_patterns("wandb*", "checkpoints"))
    facts = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**facts, "fold": index}))
    for name in ("validation_predictions.csv", "predictions.csv"):
        table = pd.read_csv(copy / name, dtype={"speaker": str})
        table["fold"] = index
        table.loc[: 5 * index, "predicted"] = table.loc[: 5 * index, "target"]
        table.to_csv(copy / name, index=False)


@pytest.fixture
def seed(fold: Path, tmp_path: Path) -> Path:
    """A seed's folder with two finished folds."""
    for index in (0, 1):
        add_fold(tmp_path / "seed-0", fold, index)
    (tmp_path / "seed-0" / "confusion.png").write_bytes((fold / "confusion.png").read_bytes())
    return tmp_path / "seed-0"


@pytest.fixture
def summary(seed: Path) -> OfflineRun:
    """The folds' only summary run."""
    log_summary_runs([seed])
    (summary,) = offline_runs(seed)
    return summary


def test_a_cross_validation_has_a_summary_run_in_its_folds_group(
    summary: OfflineRun, seed: Path, run: OfflineRun
) -> None:
    assert summary.run.run_group == run.run.run_group == "quickstart/ravdess-synthetic/default/seed-0"
    assert summary.run.project == "ser-lightning"
    assert (summary.run.display_name, summary.run.job_type) == ("quickstart/ravdess-synthetic/seed-0", "summary")
    assert list(summary.run.tags) == list(run.run.tags)
    assert summary.run.run_id == (seed / "wandb_id").read_text() != run.run.run_id
    assert summary.config["model"] == run.config["model"]
    assert summary.config["protocol_hash"] == run.config["protocol_hash"]


def test_the_summary_run_has_the_settings_of_the_yaml(seed: Path) -> None:
    logger = "lightning.pytorch.loggers.WandbLogger"
    whole = resolve(["--config=experiments/quickstart.yaml", f"--trainer.logger={logger}", "--trainer.logger.tags=[a]"])
    path = seed / "fold-00" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["trainer"]["logger"] = whole["trainer"]["logger"]
    config["trainer"]["logger"]["init_args"]["project"] = "emotions"
    path.write_text(yaml.safe_dump(config))
    log_summary_runs([seed])
    (summary,) = offline_runs(seed)
    assert summary.run.project == "emotions"
    assert "a" in summary.run.tags


def test_the_summary_run_holds_scores_and_the_table_of_folds(summary: OfflineRun, seed: Path) -> None:
    (row,) = [row for row in summary.history if "cv/fold_count" in row]
    folds = [seed / "fold-00", seed / "fold-01"]
    for stage, name in (("validation", "validation_predictions.csv"), ("test", "predictions.csv")):
        tables = [Predictions.read(fold / name).table for fold in folds]
        ua = [(table["target"] == table["predicted"]).groupby(table["target"]).mean().mean() for table in tables]
        assert ua[0] != ua[1]
        for key, expected in (("mean", np.mean(ua)), ("std", np.std(ua)), ("min", min(ua)), ("max", max(ua))):
            assert row[f"cv/{stage}_UA_{key}"] == pytest.approx(expected), (stage, key)
    pooled = pd.concat([Predictions.read(fold / "predictions.csv").table for fold in folds])
    assert row["cv/test_WA_pooled"] == pytest.approx((pooled["target"] == pooled["predicted"]).mean())
    table = json.loads((summary.folder / "files" / row["cv/folds/path"]).read_text())
    shown = pd.DataFrame(table["data"], columns=table["columns"])
    assert shown["fold"].tolist() == [0, 1]
    assert shown["utterances"].sum() == len(pooled)
    assert shown["validation_UA"].mean() == pytest.approx(row["cv/validation_UA_mean"])
    matrix = json.loads((summary.folder / "files" / row["cv/confusion_matrix_table/path"]).read_text())
    counted = pd.DataFrame(matrix["data"], columns=matrix["columns"]).set_index(["Actual", "Predicted"])["nPredictions"]
    assert counted[counted > 0].to_dict() == pooled.groupby(["target", "predicted"]).size().to_dict()
    picture = summary.folder / "files" / row["cv/confusion_picture/path"]
    assert picture.read_bytes() == (seed / "confusion.png").read_bytes()


def test_only_a_resumed_cross_validation_updates_its_run(summary: OfflineRun, seed: Path, fold: Path) -> None:
    log_summary_runs([seed])
    assert len(offline_runs(seed)) == 1
    time.sleep(1.1)  # W&B names an offline run's folder by the second
    add_fold(seed, fold, 2)
    log_summary_runs([seed])
    before, after = offline_runs(seed)
    assert before.run.run_id == after.run.run_id == summary.run.run_id
    assert [row["cv/num_folds"] for row in after.history if "cv/num_folds" in row] == [3]


def test_untested_folds_have_a_summary_of_their_validation_sets(seed: Path) -> None:
    for fold in ("fold-00", "fold-01"):
        (seed / fold / "predictions.csv").unlink()
    log_summary_runs([seed])
    (summary,) = offline_runs(seed)
    (row,) = [row for row in summary.history if "cv/fold_count" in row]
    assert row["cv/validation_UA_mean"] == pytest.approx(over_folds([seed / "fold-00", seed / "fold-01"]).mean["UA"])
    assert not [key for key in row if key.startswith("cv/test")]


def test_without_a_logger_there_is_no_summary_run(seed: Path) -> None:
    path = seed / "fold-00" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["trainer"]["logger"] = False
    path.write_text(yaml.safe_dump(config))
    log_summary_runs([seed])
    assert not (seed / "wandb").exists()


def test_a_wandb_failure_does_not_stop_a_cross_validation(seed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> object:
        raise wandb.errors.CommError("no service")

    monkeypatch.setattr(wandb, "init", fail)
    with pytest.warns(UserWarning, match="no service"):
        log_summary_runs([seed])
    assert not (seed / "wandb_summary.json").exists()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `wandb agent` sets for a trial."""
    (tmp_path / "parameters.yaml").write_text("wandb_version: 1\n\nmodel.init_args.dropout:\n  value: 0.25\n")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "parameters.yaml"))


@pytest.mark.usefixtures("agent")
def test_an_agents_trial_with_a_failed_fold_has_no_score(seed: Path) -> None:
    log_summary_runs([seed], [seed / "fold-02"])
    (trial,) = offline_runs(seed)
    assert trial.exit_code == 1
    keys = {key for row in trial.history for key in row}
    assert "cv/validation_UA_max" in keys
    assert not keys & set(OBJECTIVES)


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(("folds", "exit_code"), [(("fold-00", "fold-01"), 0), (("fold-00", "fold-02"), 1)])
def test_an_agents_trial_fails_if_a_fold_wrote_nothing(folds: tuple[str, ...], exit_code: int, seed: Path) -> None:
    with report_to_agent([seed / fold for fold in folds]):
        pass
    (trial,) = offline_runs(seed)
    assert trial.exit_code == exit_code


def ended(fold: Path, change: Change) -> JobEvent:
    return JobEvent(Job(fold, {}, "quickstart", "default", fold=0, seed=0), change)


@pytest.mark.usefixtures("agent")
def test_an_agent_gets_the_mean_over_folds_when_a_fold_is_done(seed: Path, fold: Path) -> None:
    add_fold(seed, fold, 2)
    folds = [seed / f"fold-{index:02d}" for index in range(4)]
    with report_to_agent(folds) as (observer,):
        observer(ended(folds[0], Change.FOUND_DONE))
        observer(ended(folds[1], Change.STARTED))
        observer(ended(folds[1], Change.RETRIED))
        observer(ended(folds[1], Change.FINISHED))
        observer(ended(folds[3], Change.FAILED))
        observer(ended(folds[2], Change.FINISHED))
    (trial,) = offline_runs(seed)
    logged = {row["cv/fold_count"]: row["cv/validation_UA_mean"] for row in trial.history}
    expected = {count: over_folds(folds[:count]).mean["UA"] for count in (2, 3)}
    assert logged == pytest.approx(expected)
    assert trial.exit_code == 1


@pytest.mark.usefixtures("agent")
def test_a_fold_that_cannot_be_reported_is_a_warning(seed: Path) -> None:
    folds = [seed / "fold-00", seed / "fold-01"]
    (folds[0] / "validation_predictions.csv").write_text("damaged")
    with report_to_agent(folds) as (observer,), pytest.warns(UserWarning, match="fold-00"):
        observer(ended(folds[0], Change.FINISHED))


@pytest.mark.usefixtures("agent")
def test_an_agent_that_does_not_start_is_a_warning(seed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> object:
        raise wandb.errors.CommError("no service")

    monkeypatch.setattr(wandb, "init", fail)
    with pytest.warns(UserWarning, match="no service"), report_to_agent([seed / "fold-00"]) as observers:
        assert observers == ()


@pytest.mark.slow
def test_a_wandb_agents_trials_have_own_summaries_and_folders(arguments: Arguments, tmp_path: Path) -> None:
    """The variables and the file of parameters are those that `wandb agent` sets and writes."""
    of_a_run = [argument for argument in arguments(tmp_path) if not argument.startswith("--trainer.default_root_dir")]
    command = [sys.executable, "-m", "ser_lightning.cli", "cv", f"--runs={tmp_path}", "--folds=0,1", *of_a_run]
    for run_id, dropout in (("first", 0.25), ("second", 0.125)):
        parameters = tmp_path / f"{run_id}.yaml"
        parameters.write_text(f"wandb_version: 1\n\nmodel.init_args.dropout:\n  desc: null\n  value: {dropout}\n")
        of_agent = {"WANDB_SWEEP_ID": "sweep", "WANDB_RUN_ID": run_id, "WANDB_SWEEP_PARAM_PATH": str(parameters)}
        subprocess.run([*command, f"--model.init_args.dropout={dropout}"], env=os.environ | of_agent, check=True)
        row = trial_row({"model.init_args.dropout": dropout})
        folder = tmp_path / "quickstart" / "ravdess-synthetic" / row / "seed-0"
        runs = offline_runs(folder)
        assert {run.run.run_id for run in runs} == {run_id}
        assert {run.run.sweep_id for run in runs} == {"sweep"}
        assert runs[-1].config["model.init_args.dropout"] == dropout
        objective = {row["cv/fold_count"]: row["cv/validation_UA_mean"] for run in runs for row in run.history}
        assert list(objective) == [1, 2]
        assert objective[2] == pytest.approx(over_folds([folder / "fold-00", folder / "fold-01"]).mean["UA"])
        for fold in ("fold-00", "fold-01"):
            (own,) = offline_runs(folder / fold)
            assert own.run.run_id not in ("first", "second")
            assert own.run.sweep_id == ""


@pytest.mark.parametrize(
    ("given", "mode"), [("Offline", "offline"), ("ONLINE ", "online"), ("dryrun", "offline"), ("disabled", "disabled")]
)
def test_wandbs_mode_is_read_in_any_case(given: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", given)
    assert wandb_mode() == os.environ["WANDB_MODE"] == mode


def test_an_unknown_mode_of_wandb_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(ConfigurationError, match=r"WANDB_MODE is 'offlin'.*offline"):
        wandb_mode()


@pytest.mark.parametrize("content", [b"\x00" * 50, b'epoch\n"', b"", b"epoch,step\n\xff\xfe", b"step\n1\n"])
def test_a_damaged_metrics_file_is_started_again(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn="fit"),
        sanity_checking=False,
        is_global_zero=True,
        logged_metrics={"validation/UA": 0.5},
        current_epoch=3,
        global_step=12,
        default_root_dir=str(tmp_path),
    )
    with pytest.warns(UserWarning, match="metrics.csv is damaged"):
        MetricsTable().on_validation_end(cast(Trainer, trainer), LightningModule())
    assert (tmp_path / "metrics.csv").read_text() == "epoch,step,validation/UA\n3,12,0.5\n"


def test_a_damaged_run_id_is_made_anew(tmp_path: Path) -> None:
    kept = wandb_run_id(tmp_path)
    assert wandb_run_id(tmp_path) == kept
    (tmp_path / "wandb_id").write_bytes(b"\xff/..")
    made = wandb_run_id(tmp_path)
    assert len(made) == 8
    assert wandb_run_id(tmp_path) == made
