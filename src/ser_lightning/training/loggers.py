"""Loggers of a run: ``metrics.csv`` in its folder, Weights & Biases, and Lightning's others."""

import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.runs.facts import METRICS_FILE, read_metrics
from ser_lightning.runs.names import RunName
from ser_lightning.training.wandb import FoldWandbLogger, is_wandb, wandb_settings

LEARNING_RATE, SECONDS, SPEED = "train/learning_rate", "train/seconds", "train/utterances_per_second"
_LIGHTNINGS_NAME = "lightning_logs"


class MetricsTable(Callback):
    """Write ``metrics.csv`` into the run's folder, with a row per validated epoch.

    Lightning's CSVLogger deletes the file on resume. Here a new row replaces those of the same and later epochs, which
    a killed run logged after its last checkpoint. ``TrainingSpeed`` is left out, so that equal runs write equal files.
    Lightning calls checkpoint callbacks last, after the row is written.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's row while fitting."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        logged = trainer.logged_metrics.items()
        metrics = {name: float(value) for name, value in logged if name not in (LEARNING_RATE, SECONDS, SPEED)}
        rows = pd.DataFrame([{"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics}])
        path = Path(trainer.default_root_dir) / METRICS_FILE
        earlier = read_metrics(path.parent)
        if earlier is None and path.exists():
            rank_zero_warn(f"{path} is damaged; its curves start again at epoch {trainer.current_epoch}")
        if earlier is not None:
            earlier = earlier[earlier["epoch"] < trainer.current_epoch]
            rows = pd.concat([earlier, rows], ignore_index=True) if len(earlier) else rows
        write_atomically(path, rows.to_csv(index=False).encode())


class TrainingSpeed(Callback):
    """Send learning rate, seconds and utterances a second of each epoch's training to the loggers, as ``train/...``."""

    def __init__(self) -> None:
        self._began = 0.0
        self._utterances = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self._began, self._utterances = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Count the batch's utterances."""
        self._utterances += len(batch.indices)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's values; in distributed training the mean over processes, and the sum of utterances."""
        if trainer.state.fn != "fit":
            return
        seconds = time.perf_counter() - self._began
        (group, *_) = trainer.optimizers[0].param_groups
        pl_module.log(LEARNING_RATE, group["lr"], sync_dist=True)
        pl_module.log(SECONDS, seconds, sync_dist=True)
        pl_module.log(SPEED, self._utterances / seconds, sync_dist=True, reduce_fx="sum")


def build_loggers(
    configuration: Mapping[str, Any], folder: Path, name: RunName, protocol: str, code_version: str
) -> list[Logger]:
    """Return a fold's loggers: W&B's, unless the configuration names others.

    Args:
        configuration: The resolved configuration. Its ``trainer.logger`` is true or null (W&B), false (none), or
            loggers as class path and arguments.
        folder: The fold's folder; a ``save_dir`` is relative to it.
        name: The fold's name.
        protocol: How the corpus was split, in words.
        code_version: Version of the code.

    Raises:
        ConfigurationError: If a logger cannot be built.
    """
    chosen = configuration["trainer"]["logger"]
    if chosen is False:
        return []
    logged = {**configuration, "code_version": code_version}
    if chosen in (None, True):
        return [FoldWandbLogger(folder, name, protocol, logged)]
    return [
        FoldWandbLogger(folder, name, protocol, logged, wandb_settings({"trainer": {"logger": one}}))
        if is_wandb(one)
        else _build(one, folder, name)
        for one in (chosen if isinstance(chosen, list) else [chosen])
    ]


def _build(chosen: Mapping[str, Any], folder: Path, name: RunName) -> Logger:
    """Return a logger of another kind, which writes below the fold's folder and whose names tell folds apart."""
    module, _, kind = chosen["class_path"].rpartition(".")
    arguments = {**chosen.get("init_args", {}), **chosen.get("dict_kwargs", {})}
    if "save_dir" in arguments:
        arguments["save_dir"] = str(folder / (arguments["save_dir"] or ""))
        if not Path(arguments["save_dir"]).is_relative_to(folder) and arguments.get("name") == _LIGHTNINGS_NAME:
            arguments["name"] = f"{name.title}/{name.fold_name}"
    if arguments.get("experiment_name") == _LIGHTNINGS_NAME:  # MLflow's
        arguments["experiment_name"] = str(Path(name.title).parent)
    if "run_name" in arguments:
        arguments["run_name"] = arguments["run_name"] or f"{name.title}/{name.fold_name}"
    try:
        built = getattr(import_module(module), kind)(**arguments)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"trainer.logger: {kind} needs a package: {' '.join(str(error).split())}") from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"trainer.logger: {kind} cannot be built: {error}") from error
    return cast(Logger, built)
