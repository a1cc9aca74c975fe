"""Runs in Weights & Biases: their names and settings, and the logger of a fold."""

import os
import re
import secrets
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal, cast, get_args

import pandas as pd
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.runs.facts import read_metrics
from ser_lightning.runs.folder import BEST, CARD, CHECKPOINTS
from ser_lightning.runs.names import RunName, is_trial

PROJECT = "ser-lightning"
Mode = Literal["online", "offline", "disabled", "shared"]
JobType = Literal["fold", "summary"]
_WANDB_ID_FILE = "wandb_id"
# Arguments of Lightning's WandbLogger that would make one run of several folds, or a second run of a resumed one.
_SET_HERE = ("id", "version", "experiment", "resume", "resume_from", "fork_from", "reinit", "dir", "sync_tensorboard")


def run_options(
    name: RunName, job_type: JobType, protocol: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a run's settings for ``wandb.init``: what a YAML file gives, else W&B's environment variables, else ours.

    Args:
        name: The fold, or any fold of the cross-validation.
        job_type: Whether the run is a fold's or a cross-validation's; the latter is ``trial`` for a sweep's trial.
        protocol: How the corpus was split, in words.
        given: ``init_args`` of a ``WandbLogger`` in YAML.

    Raises:
        ConfigurationError: If an argument or a variable cannot hold for a run.
    """
    import wandb

    given = {key: value for key, value in (given or {}).items() if value not in (None, "", False)}
    if wrong := [key for key in _SET_HERE if key in given]:
        raise ConfigurationError(
            f"trainer.logger: {wrong[0]} is {given[wrong[0]]!r:.80}, but each fold and each summary has its own run "
            "in W&B; leave it out"
        )
    prefix = given.get("name") or os.environ.get("WANDB_NAME")
    own = f"{name.title}/{name.fold_name}" if job_type == "fold" else name.title
    of_environment = [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
    tags = [name.paper, name.corpus, protocol, *(given.get("tags") or of_environment)]
    identity: dict[str, Any] = {
        "paper": name.paper,
        "experiment": name.experiment,
        "corpus": name.corpus,
        "row": name.row,
        "seed": name.seed,
        "protocol": protocol,
    }
    return {key: value for key, value in given.items() if key in signature(wandb.init).parameters} | {
        "project": given.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT,
        "name": f"{prefix}/{own}" if prefix else own,
        "group": given.get("group") or os.environ.get("WANDB_RUN_GROUP") or name.group,
        "job_type": given.get("job_type")
        or os.environ.get("WANDB_JOB_TYPE")
        or ("trial" if job_type == "summary" and is_trial(name.row) else job_type),
        "notes": given.get("notes") or os.environ.get("WANDB_NOTES"),
        "tags": list(dict.fromkeys(tag for tag in tags if tag)),
        "mode": "offline" if given.get("offline") else wandb_mode(given.get("mode")),
        "config": dict(given.get("config") or {}) | identity | ({"fold": name.fold} if job_type == "fold" else {}),
        "resume": "allow",
    }


def wandb_settings(configuration: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings that a resolved configuration gives W&B's logger; None if W&B is turned off.

    Args:
        configuration: A run's configuration. ``trainer.logger`` true or null stands for W&B.
    """
    chosen = configuration["trainer"]["logger"]
    if chosen in (None, True):
        return {}
    several = chosen if isinstance(chosen, list) else [chosen]
    found = [one for one in several if isinstance(one, Mapping) and is_wandb(one)]
    return {**found[0].get("init_args", {}), **found[0].get("dict_kwargs", {})} if found else None


def is_wandb(logger: Mapping[str, Any]) -> bool:
    """Return whether a logger's configuration is that of W&B."""
    return str(logger["class_path"]).rpartition(".")[2] == LightningWandbLogger.__name__


class FoldWandbLogger(LightningWandbLogger):
    """The W&B run of one fold, with the epoch as x-axis and as W&B's step.

    The run's id is stored in the fold's folder, so that a resumed fold continues its run. Without an API key the run is
    written offline into the fold's folder and can be synced later. An offline run cannot be continued in its file: a
    resumed fold writes a new one, starting with the epochs of ``metrics.csv``, and deletes the one before.

    Args:
        folder: The fold's folder.
        name: The fold's name.
        protocol: How the corpus was split, in words.
        config: The run's configuration.
        given: ``init_args`` of the logger in YAML.

    Raises:
        ConfigurationError: As ``run_options``.
    """

    def __init__(
        self,
        folder: Path,
        name: RunName,
        protocol: str,
        config: Mapping[str, Any],
        given: Mapping[str, Any] | None = None,
    ) -> None:
        import wandb
        from wandb.sdk.data_types._private import MEDIA_TMP

        options = run_options(name, "fold", protocol, given)
        given = dict(given or {})
        whole = {**config, **options.pop("config")}
        if not os.path.isdir(MEDIA_TMP.name):  # deleted by the process that imported W&B and forked this one
            MEDIA_TMP.name = tempfile.mkdtemp(prefix="wandb-media")
        # W&B takes the process that imported it for the one whose use of the CPU it logs.
        settings = wandb.Settings(console="off", quiet=True, x_stats_pid=os.getpid())
        options = {"settings": settings, **options}
        super().__init__(save_dir=folder, prefix=given.get("prefix", ""), config=whole, **options)
        self._folder = folder
        self._given = given

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Do nothing: the run's configuration already holds the whole YAML."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log an epoch's metrics as one row, and a test's as a row after the last epoch."""
        row = {f"{self._prefix}{self.LOGGER_JOIN_CHAR}{key}": value for key, value in metrics.items()}
        row = row if self._prefix else dict(metrics)
        is_of_epoch = "epoch" in metrics and any(key.startswith(("train/", "validation/")) for key in metrics)
        steps = {} if step is None else {"trainer/global_step": step}
        self.experiment.log({**row, **steps}, step=int(metrics["epoch"]) if is_of_epoch else self._after_epochs())

    def _after_epochs(self) -> int:
        table = read_metrics(self._folder)
        last = -1 if table is None or table.empty else int(table["epoch"].iloc[-1])
        return max(last + 1, int(self.experiment.step))

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
    def resume(self, epoch: int) -> None:
        """Log the epochs of ``metrics.csv`` that this run lacks, and delete offline files that hold nothing else.

        Args:
            epoch: The last epoch of the checkpoint from which training resumes.
        """
        run, table = self.experiment, read_metrics(self._folder)
        if table is None or self._wandb_init["mode"] == "disabled":
            return
        for _, row in table[table["epoch"].between(run.step, epoch)].iterrows():
            values = {str(key): float(value) for key, value in row.dropna().items()}
            self.log_metrics(values, int(values.pop("step")))
        if self._wandb_init["mode"] == "offline":
            for folder in self._folder.glob(f"wandb/offline-run-*-{self._id}"):
                if folder.resolve() != Path(run.dir).resolve().parent:
                    shutil.rmtree(folder)

    @rank_zero_only
    def log_best(self, epoch: int) -> None:
        """Write the best epoch and its validation scores into the run's summary, where W&B has the last epoch's.

        Args:
            epoch: The epoch of the best checkpoint.
        """
        table = read_metrics(self._folder)
        if table is None or self._experiment is None:
            return
        rows = table[table["epoch"] == epoch].filter(like="validation/").to_dict("records")
        scores = {str(key): value for row in rows for key, value in row.items()}
        self._experiment.summary.update({**scores, "best_epoch": epoch})

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Do nothing: ``finish`` logs the best checkpoint, once its model card is written."""

    @rank_zero_only
    def log_utterances(self, table: pd.DataFrame, sounds: Sequence[Path]) -> None:
        """Log the table of a test's utterances if ``log_utterances`` is true, with audio if ``log_audio`` is too.

        Args:
            table: The test's predictions.
            sounds: The audio file of each.
        """
        import wandb

        if self._given.get("log_utterances"):
            shown = table.copy()
            if self._given.get("log_audio"):
                shown["audio"] = pd.Series([wandb.Audio(str(sound)) for sound in sounds], dtype=object)
            self.experiment.log({"test/utterances": wandb.Table(dataframe=shown)})

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """End the run if it was started, so that the next fold in this process starts a new one.

        Args:
            exit_code: Exit code of the run; W&B shows any but 0 as failed.
        """
        if self._experiment is not None:
            if exit_code == 0 and self._given.get("log_model"):
                self._log_checkpoint(self._experiment)
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None

    def _log_checkpoint(self, run: Any) -> None:
        """Log the best checkpoint and its model card as an artifact."""
        import wandb

        artifact = wandb.Artifact(self._given.get("checkpoint_name") or f"model-{run.id}", type="model")
        for path in (self._folder / CHECKPOINTS / BEST, self._folder / CHECKPOINTS / CARD):
            if path.is_file():
                artifact.add_file(str(path))
        run.log_artifact(artifact, aliases=["best"])


class WandbLogger(LightningWandbLogger):
    """Settings of W&B's runs in YAML: what Lightning's logger of this name takes, and two more.

    The suite builds ``FoldWandbLogger`` of them. A name is a prefix of the runs' names.

    Args:
        log_utterances: Log a table of each test's utterances with labels and probabilities.
        log_audio: Add their audio to the table. Look at the corpus's licence first: most forbid copies.
        kwargs: Arguments of Lightning's logger. With ``log_model``, the best checkpoint and its model card are logged.
    """

    def __init__(self, log_utterances: bool = False, log_audio: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)


def wandb_mode(given: str | None = None) -> Mode:
    """Return the mode that is given, or ``WANDB_MODE``, or ``online`` if W&B has an API key and ``offline`` if not.

    Raises:
        ConfigurationError: If W&B does not know it.
    """
    import wandb

    chosen = (given or os.environ.get("WANDB_MODE", "")).strip().lower()
    if not chosen:
        return "online" if wandb.login(prompt=False) else "offline"
    chosen = {"dryrun": "offline", "run": "online"}.get(chosen, chosen)  # W&B's earlier names
    if chosen not in (modes := get_args(Mode)):
        where = "trainer.logger: mode" if given else "WANDB_MODE"
        raise ConfigurationError(f"{where} is '{chosen}'; use {', '.join(modes)}")
    if not given:
        os.environ["WANDB_MODE"] = chosen  # W&B reads it too, and rejects Offline
    return cast(Mode, chosen)


def wandb_run_id(folder: Path) -> str:
    """Return the W&B run id stored in ``folder``, creating it if there is none or it is damaged."""
    path = folder / _WANDB_ID_FILE
    if not path.exists() or not re.fullmatch(rb"[0-9a-f]{8}", path.read_bytes()):
        write_atomically(path, secrets.token_hex(4).encode())
    return path.read_text()
