"""The lifecycle of one fold, from its experiment's YAML to its results.

``ser run-fold --config X`` is ``Fold.run``; ``ser fit --config X`` is its first half and
``ser test --config X --ckpt_path best`` its second. Together they write the same files.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from ser_lightning.data.corpora import protocol_hash
from ser_lightning.data.split_checks import (
    classes_of_one_speaker,
    find_same_audio,
    pairs_across_sets,
    untrained_classes,
)
from ser_lightning.errors import ConfigurationError, DivergenceError
from ser_lightning.files import locked, write_atomically
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.folder import (
    BEST,
    CHECKPOINTS,
    FACTS_FILE,
    LAST,
    RESULTS,
    claim_folder,
    claim_sources,
    code_version,
    hardware,
    is_finished,
)
from ser_lightning.systems.checkpoint import read_checkpoint, weight_errors
from ser_lightning.systems.stages import check_same_extractor
from ser_lightning.training.callbacks import BEST_STEP, BestCheckpoint
from ser_lightning.training.checks import check_unseen_split
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.training.results import write_model_card
from ser_lightning.training.wandb import FoldWandbLogger
from ser_lightning.types import STAGES, Stage, split_corpus_name


def run_fold(arguments: Sequence[str], allow: Sequence[str] = (), tested: bool = True, wait_seconds: float = 0) -> Path:
    """Run or resume one fold: ``ser run-fold``.

    Args:
        arguments: LightningCLI's arguments, without a subcommand.
        allow: Module prefixes that the user trusts.
        tested: Whether to evaluate the test set.
        wait_seconds: How long to wait for the folder's lock: after a machine dies, a network file system releases its
            locks only after a while.

    Returns:
        The run's folder.

    Raises:
        ConfigurationError: If another process runs this fold, or the folder belongs to another configuration.
    """
    fold = Fold(ExperimentCLI(arguments, run=False, allow=allow), wait_seconds)
    fold.run(tested)
    return fold.folder


class Fold:
    """The lifecycle of one fold; its methods are in order of execution.

    A lock lets one process at a time work in a fold's folder. In distributed training, all processes call the same
    methods, but only the first one holds the lock and writes. ``trainer.fast_dev_run`` writes nothing.

    Args:
        cli: The built experiment.
        wait_seconds: How long to wait for the folder's lock.

    Attributes:
        writes: Whether this process writes files.
    """

    def __init__(self, cli: ExperimentCLI, wait_seconds: float = 0) -> None:
        self.cli = cli
        self.trainer: Trainer = cli.trainer
        self.folder = Path(cli.trainer.default_root_dir)
        self._wait_seconds = wait_seconds
        self._is_dry = bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]  # undeclared
        self.writes = cli.trainer.is_global_zero and not self._is_dry
        # Lightning's handler ends a process with status 0 on SIGTERM, and in several processes may wait forever. Under
        # SLURM, another one saves checkpoints inside an epoch. The process's own handlers stay.
        self.trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def run(self, tested: bool = True) -> None:
        """Fit or resume, validate, record the facts, test, and write the model card; a finished fold is skipped.

        Pre-training ends after the facts, because it does not predict emotions.

        Args:
            tested: Whether to evaluate the test set.
        """
        with self._locked():
            self._claim()
            is_scored = not self.cli.model.is_pretraining
            last, is_done = self._checkpoint("last"), is_finished(self.folder, is_scored, tested)
            if last.exists() and self.writes and (not is_done or self._checkpoint("best").exists()):
                self._restore_best(last)
            if not is_done:
                if last.exists():
                    self.cli.check_checkpoint(last)
                self._train(last if last.exists() else None)
                if is_scored and tested and not self._is_dry:
                    self._evaluate("test", self._checkpoint("best"), verbose=False)
            self._describe()

    def fit(self, given: str | None = None) -> None:
        """Fit from scratch or a checkpoint, validate and record the facts: the part of ``run`` before the test.

        Args:
            given: Checkpoint to resume from: a path, ``best`` or ``last``.
        """
        start = None if given is None else self._checkpoint(given)
        if start is not None:
            self.cli.check_checkpoint(start)
        with self._locked():
            self._claim()
            self._delete_results()
            self._train(start)
            self._describe()

    def evaluate(self, subcommand: str, given: str | None, **options: Any) -> None:
        """Predict the validation set, the test set or the whole corpus with a checkpoint of this or another run.

        Args:
            subcommand: ``validate``, ``test`` or ``predict``.
            given: Checkpoint: a path, ``best`` or ``last``.
            options: Options of the trainer's method.

        Raises:
            ConfigurationError: If there is no checkpoint, if its system, arguments or extractor differ, or if it was
                trained on the data to be evaluated.
        """
        system = self.cli.model
        if subcommand == "predict" and system.is_pretraining:
            raise ConfigurationError(
                f"{type(system).__name__} is pre-training for other systems and does not predict emotions; "
                "give a system trained on emotions"
            )
        if given is None:
            raise ConfigurationError(
                f"ser {subcommand} needs a checkpoint: --ckpt_path best (in the run's folder, {self.folder}) or a path"
            )
        path = self._checkpoint(given)
        self.cli.check_checkpoint(path)
        checkpoint = read_checkpoint(path, self.cli.allow)
        check_same_extractor(checkpoint, path, self.cli.data.extractor.configuration())
        with self._locked():
            self._claim()
            evaluated: dict[str, Stage] = {"validate": "validation", "test": "test"}
            if subcommand in evaluated:
                check_unseen_split(checkpoint, path, self.cli.data, evaluated[subcommand])
            self._evaluate(subcommand, path, **options)
            if path.resolve() == self._checkpoint("best").resolve():
                self._describe()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock; at the end close the W&B run and, on success, destroy the process group."""
        stack = ExitStack()
        if self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(self.folder / ".lock", self._wait_seconds))
            except Timeout as error:
                raise ConfigurationError(f"another process is running {self.folder}; wait for it or stop it") from error
        try:
            yield
        except BaseException:  # also an interruption: W&B must not show the run as finished
            self._close_loggers(exit_code=1)
            raise
        else:
            self._close_loggers(exit_code=0)
        finally:
            stack.close()
        # Lightning leaves the process group open, and its threads can abort a process that exits. After a failure this
        # call could wait for the other processes forever.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def _close_loggers(self, exit_code: int) -> None:
        """Close the W&B run; any exit code but 0 is shown as failed."""
        for logger in self._wandb_loggers():
            if exit_code == 0 and (self.folder / FACTS_FILE).exists():
                logger.log_best(RunFacts.read(self.folder / FACTS_FILE).best_epoch)
            logger.finish(exit_code)

    def _wandb_loggers(self) -> list[FoldWandbLogger]:
        return [logger for logger in self.trainer.loggers if isinstance(logger, FoldWandbLogger)]

    def _claim(self) -> None:
        """Write ``config.yaml`` and the split hash into the folder, or reject the folder of another run."""
        if not self.writes:
            return
        data, configuration = self.cli.data, self.cli.configuration
        data.split()  # fail before hours of extraction if there is no valid split
        data.extract()  # skipped audio changes the split
        split_hash = data.split().hash
        claim_folder(self.folder, configuration, split_hash)
        claim_sources(self.folder, configuration)
        for logger in self._wandb_loggers():
            hashes = {"split_hash": split_hash, "protocol_hash": protocol_hash(data)}
            logger.experiment.config.update(hashes, allow_val_change=True)

    def _restore_best(self, last: Path) -> None:
        """Write a missing or damaged ``best.ckpt`` again from ``last.ckpt``, if that is of the best epoch.

        Raises:
            ConfigurationError: If it is not, or if ``last.ckpt`` is damaged too.
        """
        best = self._checkpoint("best")
        try:
            read_checkpoint(best, self.cli.allow)
        except ConfigurationError as error:
            checkpoint = read_checkpoint(last, self.cli.allow)
            states = checkpoint.get("callbacks", {}).items()
            kept: dict[str, Any] = next((state for key, state in states if key.startswith(BestCheckpoint.__name__)), {})
            if not kept.get("best_model_path"):  # no epoch was the best one yet
                return
            if kept.get(BEST_STEP) != checkpoint.get("global_step"):
                raise ConfigurationError(
                    f"{error}. {LAST} cannot replace it: it is of a later epoch ({checkpoint['epoch']}); delete "
                    f"{self.folder / CHECKPOINTS} and run the fold again, to train it anew"
                ) from error
            write_atomically(best, last.read_bytes())
            rank_zero_info(f"{error}. It was written again from {LAST}, which is of the same epoch")

    def _delete_results(self) -> None:
        """Delete the results of an earlier fit, facts first: a partly deleted fold must not look finished."""
        if self.writes:
            for name in RESULTS:
                (self.folder / name).unlink(missing_ok=True)

    def _train(self, start: Path | None) -> None:
        """Fit or resume, predict the validation set with the best epoch, and record the facts."""
        trainer, system, data = self.trainer, self.cli.model, self.cli.datamodule
        version = code_version()  # of the loaded code; the working tree may change during training
        best = self._checkpoint("best")
        if start is not None:
            for logger in self._wandb_loggers():
                logger.resume(int(read_checkpoint(start, self.cli.allow)["epoch"]))
        try:
            with _clear_errors(), weight_errors(start):
                trainer.fit(system, datamodule=data, ckpt_path=start, weights_only=True)
            trainer.strategy.barrier("checkpoints")  # the first process has written its last one
        except DivergenceError as error:
            self._write_facts(self._facts(best, version, diverged=str(error)))
            raise
        if self._is_dry:
            return
        if not best.exists():
            trainer_settings = self.cli.configuration["trainer"]
            limits = ", ".join(f"{key} {trainer_settings[key]}" for key in ("max_epochs", "max_steps", "max_time"))
            kept = f"; {CHECKPOINTS}/{LAST} is kept" if self._checkpoint("last").exists() else ""
            raise ConfigurationError(
                f"{self.folder}: training ended before an epoch was validated ({limits}), so there is no best "
                f"checkpoint{kept}. Raise the limit, and delete the folder or use --row NAME"
            )
        facts = self._facts(best, version)
        if not system.is_pretraining:
            loggers, trainer.loggers = trainer.loggers, []  # already logged during fit
            self._evaluate("validate", best, verbose=False)
            trainer.loggers = loggers
        self._write_facts(facts)

    def _write_facts(self, facts: RunFacts) -> None:
        if self.writes:
            write_atomically(self.folder / FACTS_FILE, json.dumps(asdict(facts), indent=2).encode())

    def _evaluate(self, subcommand: str, path: Path, **options: Any) -> None:
        method = getattr(self.trainer, subcommand)
        with _clear_errors(), weight_errors(path):
            method(self.cli.model, datamodule=self.cli.datamodule, ckpt_path=path, weights_only=True, **options)

    def _describe(self) -> None:
        """Write the best checkpoint's model card."""
        if self.writes:
            write_model_card(self.folder, self.cli.allow)

    def _checkpoint(self, given: str) -> Path:
        """Return a checkpoint's path; ``best`` and ``last`` are in the run's folder."""
        names = {"best": BEST, "last": LAST}
        return self.folder / CHECKPOINTS / names[given] if given in names else Path(given)

    def _facts(self, best: Path, version: str, diverged: str = "") -> RunFacts:
        cli, data, trainer = self.cli, self.cli.data, self.trainer
        name = cli.run_name
        corpus, synthetic = split_corpus_name(data.corpus_name)
        split = data.split()
        utterances = [u for stage in STAGES for u in split.of(stage)] if data.protocol.has_test_set else []
        same_audio = find_same_audio(utterances, data.sounds())
        return RunFacts(
            paper=name.paper,
            experiment=name.experiment,
            corpus=corpus,
            synthetic=synthetic,
            row=name.row,
            protocol=data.protocol.name,
            speakers_disjoint=data.protocol.speakers_disjoint,
            protocol_hash=protocol_hash(data),
            split_hash=split.hash,
            fold=data.fold,
            num_folds=data.num_folds(),
            seed=name.seed,
            class_names=tuple(data.class_names),
            system=type(cli.model).__name__,
            parameters=sum(p.numel() for p in cli.model.parameters() if p.requires_grad),
            best_epoch=int(read_checkpoint(best, cli.allow)["epoch"]) if best.exists() else -1,
            epochs=trainer.current_epoch,
            seconds=round(cli.training_seconds, 1),
            code_version=version,
            hardware=hardware(trainer.strategy.root_device, trainer.world_size),
            precision=cli.execution.precision(str(trainer.precision), trainer.strategy.root_device),
            skipped_audio={str(path): reason for path, reason in data.skipped_audio.items()},
            faulty_left_out=tuple(sorted(data.left_out)),
            same_audio_across_sets=sum(pairs_across_sets(same_audio, split)),
            untrained_classes=tuple(untrained_classes(split, data.class_names, data.target_kind)),
            one_speaker_classes=tuple(classes_of_one_speaker(utterances, data.class_names)),
            diverged=diverged,
        )


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Raise Ctrl-C and SIGTERM again, for which Lightning exits with status 1; make Lightning's own errors clear ones.

    Raises:
        ConfigurationError: If Lightning finds that settings do not fit each other or the data.
    """
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    except MisconfigurationException as error:
        raise ConfigurationError(f"trainer: {' '.join(str(error).split())}") from error
