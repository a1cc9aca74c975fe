"""A training epoch of each system with Lightning and callbacks against a bare PyTorch loop on its batches."""

import copy
import logging
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.row import Row, row_of
from data_modules.ravdess import write_synthetic
from ser_lightning.systems.classifier import EmotionClassifier
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.types import Batch

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
NUM_SPEAKERS = 6
RAVDESS = "--data=data_modules.ravdess.RAVDESS"


@dataclass(frozen=True)
class Measured:
    """A system to train.

    Attributes:
        file: Its experiment below ``experiments/``.
        epochs: Epochs to measure.
        clips: Clips of each speaker.
        overrides: Arguments that make it small enough for a CPU.
    """

    file: str
    epochs: int
    clips: int = 16
    overrides: tuple[str, ...] = ()


SYSTEMS = {
    "Huang 2020, NetVLAD": Measured("quickstart.yaml", 20, 60, ("--data.init_args.batch_size=32",)),
    "Zhou 2020, baseline": Measured("zhou2020/baseline.yaml", 5, overrides=("--model.init_args.max_frames=150",)),
    "Ando 2019, hard targets": Measured("ando2019/hard.yaml", 5, overrides=("--data.init_args.speeds=[]",)),
    "Mocanu 2021, S1 with a quarter of its width": Measured(
        "mocanu2021/s1_scratch.yaml", 5, overrides=("--model.init_args.encoder.init_args.channels=16",)
    ),
}


def rows() -> list[Row]:
    """Return a row of a training epoch for each system on 4 of 6 synthetic speakers, without W&B."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")  # between lightning and torch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for clips in {measured.clips for measured in SYSTEMS.values()}:
            write_synthetic(folder / str(clips), NUM_SPEAKERS, seed=0, clips_per_speaker=clips)
        return [training_row(name, measured, folder) for name, measured in SYSTEMS.items()]


def training_row(name: str, measured: Measured, folder: Path) -> Row:
    """Return the row of one system on its corpus in ``folder``."""
    arguments = [
        f"--config={EXPERIMENTS / measured.file}",
        RAVDESS,
        f"--data.init_args.root={folder / str(measured.clips)}",
        f"--data.init_args.feature_folder={folder}/features",
        "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
        "--data.init_args.protocol.init_args.blocks=even",
        "--data.init_args.protocol.init_args.num_folds=6",  # four speakers to train on
        *measured.overrides,
        "--trainer.accelerator=cpu",
        f"--trainer.default_root_dir={folder / name.replace(' ', '_')}",
        f"--trainer.max_epochs={measured.epochs + 1}",  # the first one warms up
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
    ]
    cli = ExperimentCLI(arguments, run=False)
    bare = BareEpochs()
    trainer: Any = cli.trainer
    trainer.callbacks.append(bare)  # after all others
    trainer.fit(cli.model, datamodule=cli.datamodule)
    measurement = f"training epoch with all callbacks (CPU time): {name}"
    return row_of(measurement, "bare PyTorch loop, batches in memory", bare.pairs[1:], 1.1)


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
