"""Loggers of a run: ``metrics.csv`` in its folder, and Weights & Biases."""

import os
import re
import secrets
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import pandas as pd
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.runs.facts import METRICS_FILE, read_metrics

PROJECT = "ser-lightning"
Mode = Literal["online", "offline", "disabled", "shared"]
_WANDB_ID_FILE = "wandb_id"


class MetricsTable(Callback):
    """Write ``metrics.csv`` into the run's folder, with a row per validated epoch.

    Lightning's CSVLogger deletes the file on resume. Here a new row replaces those of the same and later epochs, which
    a killed run logged after its last checkpoint. Lightning calls checkpoint callbacks last, after the row is written.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's row while fitting."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.logged_metrics.items()}
        rows = pd.DataFrame([{"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics}])
        path = Path(trainer.default_root_dir) / METRICS_FILE
        earlier = read_metrics(path.parent)
        if earlier is None and path.exists():
            rank_zero_warn(f"{path} is damaged; its curves start again at epoch {trainer.current_epoch}")
        if earlier is not None:
            earlier = earlier[earlier["epoch"] < trainer.current_epoch]
            rows = pd.concat([earlier, rows], ignore_index=True) if len(earlier) else rows
        write_atomically(path, rows.to_csv(index=False).encode())


class FoldWandbLogger(WandbLogger):
    """A W&B run for one fold, with the epoch as x-axis.

    The run's id is stored in the fold's folder, so that a resumed fold continues its run. Without an API key the run is
    written offline into the fold's folder and can be synced later.

    Args:
        folder: The fold's folder.
        name: Name of the run, such as ``fold-03``.
        group: Group name, shared by the folds of one experiment and seed.
        tags: Paper, corpus and protocol.
        config: The run's configuration.
    """

    def __init__(self, folder: Path, name: str, group: str, tags: list[str], config: Mapping[str, Any]) -> None:
        import wandb

        super().__init__(
            name=name,
            save_dir=folder,
            project=PROJECT,
            group=group,
            tags=tags,
            config=dict(config),
            mode=wandb_mode(),
            settings=wandb.Settings(console="off", quiet=True),
        )
        self._folder = folder

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Do nothing: the run's configuration already holds the whole YAML."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started on first access."""
        is_new = self._experiment is None
        if is_new:
            self._wandb_init["id"] = self._id = wandb_run_id(self._folder)

        try:
            run = super().experiment
        except Exception as error:  # W&B's errors have no common base class
            # W&B must never fail a run: its files hold the same numbers.
            rank_zero_warn(f"W&B could not start and is disabled for this run: {error}")
            self._wandb_init["mode"] = "disabled"
            run = super().experiment
        if is_new:
            if self._wandb_init["mode"] == "offline":
                rank_zero_info(f"W&B is offline: sync this run with `wandb sync {self._folder}/wandb/offline-run-*`.")
            for pattern in ("train/*", "validation/*"):
                run.define_metric(pattern, step_metric="epoch")
        return run

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """End the run if it was started, so that the next fold in this process starts a new one.

        Args:
            exit_code: Exit code of the run; W&B shows any but 0 as failed.
        """
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None


def wandb_mode() -> Mode:
    """Return ``WANDB_MODE``, or ``online`` if W&B has an API key and ``offline`` if not."""
    import wandb

    chosen = os.environ.get("WANDB_MODE", "").strip().lower()
    if not chosen:
        return "online" if wandb.login(prompt=False) else "offline"
    chosen = {"dryrun": "offline", "run": "online"}.get(chosen, chosen)  # W&B's earlier names
    if chosen not in (modes := get_args(Mode)):
        raise ConfigurationError(f"WANDB_MODE is '{chosen}'; use {', '.join(modes)}")
    os.environ["WANDB_MODE"] = chosen  # W&B reads it too, and rejects Offline
    return cast(Mode, chosen)


def wandb_run_id(folder: Path) -> str:
    """Return the W&B run id stored in ``folder``, creating it if there is none or it is damaged."""
    path = folder / _WANDB_ID_FILE
    if not path.exists() or not re.fullmatch(rb"[0-9a-f]{8}", path.read_bytes()):
        write_atomically(path, secrets.token_hex(4).encode())
    return path.read_text()
