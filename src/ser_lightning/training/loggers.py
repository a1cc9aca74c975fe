"""Where a run's numbers go: ``metrics.csv`` in its folder, and Weights & Biases."""

import os
import secrets
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from ser_lightning.files import write_atomically
from ser_lightning.runs.folder import METRICS_FILE

PROJECT = "ser-lightning"
Mode = Literal["online", "offline", "disabled", "shared"]
_WANDB_ID_FILE = "wandb_id"


class MetricsTable(Callback):
    """Write ``metrics.csv`` into the run's folder: a row for each epoch that ends with a validation.

    Lightning's CSVLogger deletes the file on resume. Here a row replaces those of its own and later epochs, and the
    file is written anew as a whole: what a killed run had logged beyond its last checkpoint disappears. Checkpoints are
    saved after the row, because Lightning calls them last.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's row if this is a validation within ``fit``."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.logged_metrics.items()}
        rows = pd.DataFrame([{"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics}])
        path = Path(trainer.default_root_dir) / METRICS_FILE
        if path.exists():
            earlier = pd.read_csv(path)
            earlier = earlier[earlier["epoch"] < trainer.current_epoch]
            rows = pd.concat([earlier, rows], ignore_index=True) if len(earlier) else rows
        write_atomically(path, rows.to_csv(index=False).encode())


class FoldWandbLogger(WandbLogger):
    """A W&B run for one fold, with the epoch as axis of its curves.

    The run's id is made once and kept in the fold's folder, so that a resumed fold continues its run. Without a key
    the run is written offline, beside the fold, and can be sent later.

    Args:
        folder: The fold's folder.
        name: Name of the run, such as ``fold-03``.
        group: What the folds of one experiment and seed share.
        tags: Paper, corpus and protocol.
        config: Everything that decides the run.
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
        """The run's configuration holds the whole YAML already."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started when first asked for."""
        is_new = self._experiment is None
        if is_new:
            self._wandb_init["id"] = self._id = wandb_run_id(self._folder)

        try:
            run = super().experiment
        except Exception as error:  # W&B's own errors have no common base: ServerResponseError is a bare Exception
            # A night of training is worth more than its curves in W&B; the files beside it hold the same numbers.
            rank_zero_warn(f"W&B could not be started and is left out of this run: {error}")
            self._wandb_init["mode"] = "disabled"
            run = super().experiment
        if is_new:
            if self._wandb_init["mode"] == "offline":
                rank_zero_info(f"W&B is offline: `wandb sync {self._folder}/wandb/offline-run-*` sends this run later.")
            for pattern in ("train/*", "validation/*"):
                run.define_metric(pattern, step_metric="epoch")
        return run

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """End the run if it was started; a later one in this process is then its own.

        Args:
            exit_code: What the run ends with; W&B shows all but 0 as failed.
        """
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None


def wandb_mode() -> Mode:
    """Return what the user has chosen by ``WANDB_MODE``, or offline where W&B has no key."""
    import wandb

    chosen = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    return cast(Mode, chosen)


def wandb_run_id(folder: Path) -> str:
    """Return the id of the W&B run whose files lie in ``folder``, made if there is none yet."""
    path = folder / _WANDB_ID_FILE
    if not path.exists():
        write_atomically(path, secrets.token_hex(4).encode())
    return path.read_text()
