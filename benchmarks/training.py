"""A training epoch of the quick start with Lightning and callbacks against a bare PyTorch loop on its batches."""

import copy
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.row import Row, row_of
from data_modules.ravdess import write_synthetic
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.types import Batch

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"
NUM_SPEAKERS, CLIPS_PER_SPEAKER = 6, 60
EPOCHS = 20


def rows() -> list[Row]:
    """Return the row of a training epoch on 4 of 6 synthetic speakers with 60 clips each, without W&B."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")  # between lightning and torch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_synthetic(folder / "corpus", NUM_SPEAKERS, seed=0, clips_per_speaker=CLIPS_PER_SPEAKER)
        arguments = [
            f"--config={EXPERIMENT}",
            f"--data.init_args.root={folder}/corpus",
            f"--data.init_args.feature_folder={folder}/features",
            "--data.init_args.protocol.init_args.num_folds=6",  # four speakers to train on
            "--data.init_args.batch_size=32",
            f"--trainer.default_root_dir={folder}/run",
            f"--trainer.max_epochs={EPOCHS + 1}",  # the first one warms up
            "--trainer.logger=false",
            "--trainer.enable_progress_bar=false",
        ]
        cli = ExperimentCLI(arguments, run=False)
        bare = BareEpochs()
        trainer: Any = cli.trainer
        trainer.callbacks.append(bare)  # after all others
        trainer.fit(cli.model, datamodule=cli.datamodule)
    return [
        row_of(
            "training epoch, 240 clips, all callbacks (CPU time)",
            "bare PyTorch loop, batches in memory",
            bare.pairs[1:],
            1.15,
        )
    ]


class BareEpochs(Callback):
    """Repeats each of Lightning's training epochs as a bare loop on a copy of the system, and times both.

    Lightning's time runs from the end of the last epoch to the start of validation, so it includes work between epochs.
    Both are CPU times of the process: other processes easily double the wall time of an epoch of 0.1 s.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[float, float]] = []
        self._started = 0.0
        self._lightning_seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the untrained system."""
        if not isinstance(pl_module, EmotionClassifier):
            raise TypeError(f"{type(pl_module).__name__} is not an EmotionClassifier")
        self.system = copy.deepcopy(pl_module)
        self.optimizer = self.system.optimizer(self.system.parameters())
        self._started = time.process_time()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._lightning_seconds = time.process_time() - self._started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the bare epoch."""
        data_module: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning does not declare it
        loader = data_module.train_dataloader()
        loader.batch_sampler.set_epoch(trainer.current_epoch)
        batches = list(loader)
        started = time.process_time()
        bare_epoch(self.system, self.optimizer, batches)
        self.pairs.append((self._lightning_seconds, time.process_time() - started))
        self._started = time.process_time()


def bare_epoch(system: EmotionClassifier, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> float:
    """Train ``system`` on ``batches`` without a framework; return their mean loss."""
    system.train()
    total, count = 0.0, 0
    for batch in batches:
        loss = system.criterion(system(batch.inputs, batch.lengths), batch.targets, system.class_prior)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        total += loss.item() * batch.size
        count += batch.size
    return total / count
