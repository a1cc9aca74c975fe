"""How to run one job, whole: fit, validate, test, and what a fold leaves behind."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Trainer

from ser_lightning.data.corpora import protocol_hash
from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.reports.model_card import write_model_card
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.folder import CHECKPOINTS, FACTS_FILE, code_version, hardware, is_finished
from ser_lightning.training.experiment import ExperimentCLI


def run_fold(
    arguments: Sequence[str], row: str, allow: Sequence[str] = (), tested: bool = True, wait_seconds: float = 0
) -> Path:
    """Fit, validate and test one fold, from wherever an earlier process left it.

    Training goes on from ``checkpoints/last.ckpt`` where there is one. The best checkpoint then predicts the
    validation and the test set. Behind ``predictions.csv`` only the model card is written: where the former is, nothing
    is computed again. Pre-training is for other systems to start from, and ends with its ``run.json``; so does a fold
    that is not tested (yet).

    Args:
        arguments: LightningCLI's arguments, without a subcommand.
        row: Row of a table.
        allow: Module prefixes that the user trusts.
        tested: Whether to go on to the test set.
        wait_seconds: How long to wait for another process that runs this fold: one on a machine that is gone holds its
            lock until a network file system takes it away.

    Returns:
        The run's folder.

    Raises:
        ConfigurationError: If another process runs this fold, or the folder belongs to another configuration.
    """
    cli = ExperimentCLI(arguments, run=False, row=row, allow=allow)
    folder = Path(cli.trainer.default_root_dir)
    # The first process holds the lock for all of the job's processes.
    lock = FileLock(folder / ".lock", timeout=wait_seconds) if cli.trainer.is_global_zero else nullcontext()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock:
            _run(cli, folder, tested)
            if cli.trainer.is_global_zero:
                write_model_card(folder, allow)
    except Timeout as error:
        raise ConfigurationError(f"another process is running {folder}; wait for it, or stop it") from error
    except BaseException:  # an interruption too: W&B must not show as finished what is not
        cli.finish_loggers(exit_code=1)
        raise
    cli.finish()
    return folder


def _run(cli: ExperimentCLI, folder: Path, tested: bool) -> None:
    cli.claim_run()
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    if is_finished(folder, not model.is_pretraining, tested):
        return
    version = code_version()  # of the code that is loaded, not of what the folder holds hours later
    last = folder / CHECKPOINTS / "last.ckpt"
    if last.exists():
        cli.refuse_other_checkpoint(last)
    trainer.fit(model, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    best = folder / CHECKPOINTS / "best.ckpt"
    facts = _facts(cli, best, version)
    if model.is_pretraining:
        _write_facts(trainer, facts, folder)
        return
    loggers, trainer.loggers = trainer.loggers, []  # the best epoch's validation scores are on record already
    trainer.validate(model, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
    trainer.loggers = loggers
    _write_facts(trainer, facts, folder)
    if not tested:
        return
    trainer.test(model, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)


def _write_facts(trainer: Trainer, facts: RunFacts, folder: Path) -> None:
    if trainer.is_global_zero:
        write_atomically(folder / FACTS_FILE, json.dumps(asdict(facts), indent=2).encode())


def _facts(cli: ExperimentCLI, best: Path, version: str) -> RunFacts:
    data = cli.data
    trainer: Trainer = cli.trainer
    name = cli.run_name
    return RunFacts(
        paper=name.paper,
        experiment=name.experiment,
        corpus=data.corpus,
        synthetic=data.corpus_name != data.corpus,
        row=name.row,
        protocol=data.protocol.name,
        speakers_disjoint=data.protocol.speakers_disjoint,
        protocol_hash=protocol_hash(data),
        split_hash=data.split().hash,
        fold=data.fold,
        num_folds=data.num_folds(),
        seed=name.seed,
        class_names=tuple(data.class_names),
        system=type(cli.model).__name__,
        parameters=sum(p.numel() for p in cli.model.parameters() if p.requires_grad),
        best_epoch=int(torch.load(best, weights_only=True, map_location="cpu", mmap=True)["epoch"]),
        epochs=trainer.current_epoch,
        seconds=round(cli.training_seconds, 1),
        code_version=version,
        hardware=hardware(trainer.strategy.root_device, trainer.world_size),
        skipped_audio={str(path): reason for path, reason in data.skipped_audio.items()},
        faulty_left_out=tuple(sorted(data.left_out)),
    )
