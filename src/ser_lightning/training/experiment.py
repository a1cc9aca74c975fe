"""An experiment YAML as trainer, system and data module: LightningCLI with this suite's defaults.

What forty YAMLs would otherwise repeat, and lists in YAML replace instead of extend, is installed here in code: the
checkpoints, seeds and files of every run, its folder and its loggers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ser_lightning.allow_list import enforce_allow_list, refuse_foreign_classes
from ser_lightning.data.corpora import CorpusData, protocol_hash
from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.folder import (
    CHECKPOINTS,
    CONFIG_FILE,
    DEFAULT_ROW,
    FACTS_FILE,
    FILES,
    RunName,
    claim_folder,
    claim_sources,
    code_version,
)
from ser_lightning.runs.scores import SCORES_FILE
from ser_lightning.systems.checkpoint import read_checkpoint
from ser_lightning.systems.stages import refuse_other_frames
from ser_lightning.training.callbacks import AtomicCheckpointIO, BestCheckpoint, EpochSeed, LastCheckpoint
from ser_lightning.training.checks import LINKED, refuse_other_system, refuse_unknown_scores, refuse_what_it_knows
from ser_lightning.training.experiment_file import (
    Execution,
    config_files,
    first_cause,
    place_of,
    read_experiment_file,
    readable,
    refuse_without_classes,
    threads_of_environment,
)
from ser_lightning.training.loggers import FoldWandbLogger, MetricsTable
from ser_lightning.training.results import ResultFiles, write_model_card
from ser_lightning.types import Stage

TRAINER_DEFAULTS = {
    # Ours share batches without repeating an utterance; Lightning's evaluated 31 of 61 in each of two processes.
    "use_distributed_sampler": False,
    # A dry run of validation would only delay the first epoch: our evaluation has no length to guess.
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
}

# Arguments of Lightning's methods, which are not the experiment's.
OF_SUBCOMMANDS = ("ckpt_path", "weights_only", "verbose", "return_predictions")


class ExperimentCLI(LightningCLI):
    """LightningCLI on one experiment YAML and at most one trainer file.

    Args:
        arguments: Command line, with the subcommand first if ``run``.
        run: Whether to run the subcommand; otherwise everything is only built.
        row: Row of a table that the run belongs to.
        allow: Module prefixes that the user trusts besides the allow-list.
    """

    def __init__(
        self, arguments: Sequence[str], run: bool = True, row: str = DEFAULT_ROW, allow: Sequence[str] = ()
    ) -> None:
        self.row = row
        self.allow = tuple(allow)
        self.config_files = config_files(arguments)
        for path in self.config_files:
            refuse_foreign_classes(read_experiment_file(path), str(path), self.allow)
        refuse_without_classes(arguments)
        enforce_allow_list(self.allow)
        quiet_errors = {"exit_on_error": False}
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={**quiet_errors, **{name: dict(quiet_errors) for name in self.subcommands()}},
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(arguments),
            run=run,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # checkpoints say how to build their system in our own, checked way
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the corpus decides into the system, and let YAML choose the best epoch's score."""
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_class_arguments(Execution, "execution")
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line; a wrong key or value is one error that names it."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise ConfigurationError(f"{place_of(str(error), args)}: {readable(str(error))}") from error

    def _parse_ckpt_path(self) -> None:
        """Leave YAML and command line as they are, where LightningCLI would let the checkpoint override them.

        A checkpoint that does not fit is refused once its place is known, see ``checkpoint_path``.
        """

    def refuse_other_checkpoint(self, path: Path) -> None:
        """Compare a checkpoint's system and its arguments with the configured ones.

        Raises:
            ConfigurationError: As ``refuse_other_system``.
        """
        refuse_other_system(path, yaml.safe_load(self.config_text)["model"], self.allow)

    def before_instantiate_classes(self) -> None:
        """Check what must hold for the whole suite."""
        trainer = self._get(self.config, "trainer")
        if trainer["use_distributed_sampler"]:
            raise ConfigurationError(
                "trainer.use_distributed_sampler is true, but Lightning's sampler repeats and loses utterances in "
                "evaluation; leave it out, the data modules share batches between devices themselves"
            )
        if self.subcommand:
            self.config[self.subcommand]["weights_only"] = True
        torch.set_num_threads(threads_of_environment())  # folds side by side use cores better

    def instantiate_classes(self) -> None:
        """Build everything, and tell the system how it was built; what a constructor refuses is one clear error."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise first_cause(error) from error
        refuse_unknown_scores(self.trainer, self.model.epoch_scores)
        configuration = yaml.safe_load(self.config_text)["model"]
        configuration["init_args"] |= {"num_features": self.model.num_features}
        configuration["init_args"] |= {"class_names": list(self.model.class_names)}
        self.model.configuration = configuration
        self._get(self.config_init, "execution").prepare(self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the folder, the loggers and the callbacks that every run has."""
        trainer = self._get(self.config_init, "trainer")
        seed = self._get(self.config, "seed_everything")
        data = self.data
        source = self.config_files[0] if self.config_files else Path("command_line")
        self.run_name = RunName.of(source, data.corpus_name, self.row, seed, data.fold)
        of_a_run = source.parent if source.name == CONFIG_FILE else self.run_name.folder()
        folder = Path(trainer["default_root_dir"] or of_a_run)
        if trainer["fast_dev_run"]:
            kwargs["logger"] = False
        elif trainer["logger"] in (None, True):
            kwargs["logger"] = self._wandb_logger(folder)
        kwargs["plugins"] = [*(trainer["plugins"] or []), AtomicCheckpointIO()]
        try:
            # Where there is a timer, Lightning leaves the limit to it.
            self._timer = Timer(trainer["max_time"])
            ours = [EpochSeed(seed), ResultFiles(), self._timer, *([] if trainer["fast_dev_run"] else [MetricsTable()])]
            trainer["callbacks"] = [*(trainer["callbacks"] or []), *ours]
            return super().instantiate_trainer(default_root_dir=folder, **kwargs)
        except MisconfigurationException as error:
            raise ConfigurationError(
                f"trainer: {error} (accelerator {trainer['accelerator']}, devices {trainer['devices']}, strategy "
                f"{trainer['strategy']}); choose what this machine has, such as --config experiments/trainer/cpu.yaml"
            ) from error

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Any]) -> Trainer:
        # Lightning keeps the order among checkpoints: the last one must be saved behind the best one.
        return super()._instantiate_trainer(config, [*callbacks, LastCheckpoint()])

    @property
    def data(self) -> CorpusData:
        """The data module, as what it is to this suite."""
        return cast(CorpusData, self.datamodule)

    @property
    def config_text(self) -> str:
        """The resolved configuration as YAML; every subcommand takes it as it is."""
        subcommand = self.config.get("subcommand")
        config = self.config[subcommand] if subcommand else self.config
        content = yaml.safe_load(self._parser(subcommand).dump(config, skip_none=False))
        return yaml.safe_dump({k: v for k, v in content.items() if k not in OF_SUBCOMMANDS}, sort_keys=False)

    @property
    def training_seconds(self) -> float:
        """Time spent in training, also before an interruption."""
        return float(self._timer.time_elapsed("train"))

    def finish_loggers(self, exit_code: int = 0) -> None:
        """Close the W&B run, so that the next one in this process is its own.

        Args:
            exit_code: What the run ends with; W&B shows all but 0 as failed.
        """
        for logger in self.trainer.loggers:
            if isinstance(logger, FoldWandbLogger):
                logger.finish(exit_code)

    def finish(self) -> None:
        """Close the W&B run, and leave the company of processes when all has gone well.

        Lightning leaves the process group open, and a process that ends so can be aborted by its own threads. Where
        something has failed, leaving could wait for the others for ever.
        """
        self.finish_loggers()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def _wandb_logger(self, folder: Path) -> FoldWandbLogger:
        config = yaml.safe_load(self.config_text) | {"code_version": code_version()}
        tags = [tag for tag in (self.run_name.paper, self.data.corpus_name, self.data.protocol.name) if tag]
        return FoldWandbLogger(folder, self.run_name.fold_name, self.run_name.group, tags, config)

    def claim_run(self) -> None:
        """Write ``config.yaml`` and the split hash into the run's folder, or refuse a folder of another run."""
        if not self.trainer.is_global_zero:
            return
        data = self.data
        data.split()  # what cannot be divided is refused before hours of extraction
        data.extract()  # audio that is skipped as unusable changes the split
        folder = Path(self.trainer.default_root_dir)
        claim_folder(folder, self.config_text, data.split().hash)
        claim_sources(folder, self.config_text)
        for logger in self.trainer.loggers:
            if isinstance(logger, FoldWandbLogger):
                hashes = {"split_hash": data.split().hash, "protocol_hash": protocol_hash(data)}
                logger.experiment.config.update(hashes, allow_val_change=True)

    def checkpoint_path(self) -> Path | None:
        """Return the checkpoint that the subcommand starts from; ``best`` and ``last`` are those of the run's folder.

        Raises:
            ConfigurationError: If it is missing, of another system, or of one with other arguments.
        """
        given = self.config_init[self.subcommand]["ckpt_path"]
        if given is None:
            return None
        in_run = Path(self.trainer.default_root_dir) / CHECKPOINTS / f"{given}.ckpt"
        path = in_run if given in ("best", "last") else Path(given)
        self.refuse_other_checkpoint(path)
        self.config_init[self.subcommand]["ckpt_path"] = path
        return path

    def before_fit(self) -> None:
        """Claim the run's folder before ``ser fit`` writes into it; what an earlier fit led to is no longer its own."""
        self.checkpoint_path()
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it, undeclared
            return
        self.claim_run()
        if self.trainer.is_global_zero:
            # The facts first: half of what is deleted must not look like a finished job.
            for name in (FACTS_FILE, SCORES_FILE, *FILES.values()):
                (Path(self.trainer.default_root_dir) / name).unlink(missing_ok=True)

    def after_fit(self) -> None:
        """Write the model card beside the best checkpoint."""
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]  # as above
            write_model_card(Path(self.trainer.default_root_dir), self.allow)

    def before_validate(self) -> None:
        """Check that the checkpoint can be scored on the validation set."""
        self._before_evaluation("validation")

    def before_test(self) -> None:
        """Check that the checkpoint can be scored on the test set."""
        self._before_evaluation("test")

    def before_predict(self) -> None:
        """Check that the checkpoint can predict the corpus."""
        if self.model.is_pretraining:
            raise ConfigurationError(
                f"{type(self.model).__name__} is trained for what other systems take from it and predicts no emotion; "
                "give a system that is trained on emotions"
            )
        self._before_evaluation(None)

    def _before_evaluation(self, evaluated: Stage | None) -> None:
        """Refuse to evaluate without a checkpoint, on other frames, or on what the checkpoint was trained on."""
        path = self.checkpoint_path()
        if path is None:
            raise ConfigurationError(
                f"ser {self.subcommand} needs a trained system: --ckpt_path best (of this run's folder, "
                f"{self.trainer.default_root_dir}), or the path of a checkpoint"
            )
        checkpoint = read_checkpoint(path, self.allow)
        refuse_other_frames(checkpoint, path, self.data.extractor.configuration())
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it, undeclared
            self.claim_run()
        if evaluated is not None:
            refuse_what_it_knows(checkpoint, path, self.data, evaluated)
