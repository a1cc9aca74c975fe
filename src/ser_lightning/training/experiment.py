"""An experiment YAML as trainer, system and data module: LightningCLI with this suite's defaults.

What forty YAMLs would otherwise repeat, and lists in YAML replace instead of extend, is installed here in code: the
checkpoints, seeds and files of every run, its folder and its loggers.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ser_lightning.allow_list import enforce_allow_list, refuse_foreign_classes, with_public_paths
from ser_lightning.data.corpora import CorpusData
from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.folder import CONFIG_FILE, code_version
from ser_lightning.runs.names import ExperimentName, RunName, name_from_path
from ser_lightning.training.callbacks import AtomicCheckpointIO, BestCheckpoint, EpochSeed, LastCheckpoint
from ser_lightning.training.checks import LINKED, refuse_other_system, refuse_unknown_scores
from ser_lightning.training.experiment_file import (
    Execution,
    config_files,
    first_cause,
    place_of,
    read_experiment_file,
    readable,
    threads_of_environment,
    with_corpus_first,
)
from ser_lightning.training.loggers import FoldWandbLogger, MetricsTable
from ser_lightning.training.results import ResultFiles

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
    """LightningCLI on a system's YAML, a corpus's, and at most one trainer file; one YAML may hold both.

    Args:
        arguments: Command line, with the subcommand first if ``run``.
        run: Whether the arguments start with a subcommand; it is parsed, and everything is only built.
        allow: Module prefixes that the user trusts besides the allow-list.
        build: Whether to build trainer, system and data module; otherwise the configuration is only resolved.
        in_this_process: Arguments of the trainer that hold here alone, and are not part of the configuration.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        run: bool = True,
        allow: Sequence[str] = (),
        build: bool = True,
        in_this_process: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.allow = tuple(allow)
        self._build = build
        self._in_this_process = in_this_process
        self.config_files = config_files(arguments)
        for path in self.config_files:
            refuse_foreign_classes(read_experiment_file(path), str(path), self.allow)
        self._arguments = tuple(arguments)
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
            args=with_corpus_first(arguments),
            run=run,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # checkpoints say how to build their system in our own, checked way
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the corpus decides into the system, and let YAML choose the best epoch's score."""
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_class_arguments(ExperimentName, "run")
        parser.add_class_arguments(Execution, "execution")
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line; a wrong key or value is one error that names it."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise ConfigurationError(f"{place_of(str(error), self._arguments)}: {readable(str(error))}") from error

    def _parse_ckpt_path(self) -> None:
        """Leave YAML and command line as they are, where LightningCLI would let the checkpoint override them.

        A checkpoint that does not fit is refused once its place is known, see ``refuse_other_checkpoint``.
        """

    def refuse_other_checkpoint(self, path: Path) -> None:
        """Compare a checkpoint's system and its arguments with the configured ones.

        Raises:
            ConfigurationError: As ``refuse_other_system``.
        """
        refuse_other_system(path, self.configuration["model"], self.allow)

    def _run_subcommand(self, subcommand: str) -> None:
        """Only build: the fold's lifecycle, in ``fold``, runs the subcommand."""

    def subcommand_options(self) -> dict[str, Any]:
        """Return the arguments of Lightning's method that the subcommand takes from the command line."""
        given = self.config_init[self.subcommand]
        return {name: given[name] for name in OF_SUBCOMMANDS if name in given and name != "weights_only"}

    def before_instantiate_classes(self) -> None:
        """Name the run, and check what must hold for the whole suite."""
        name = self._get(self.config, "run")
        paper, experiment = name_from_path(self.config_files[0] if self.config_files else Path("command_line"))
        name["paper"] = paper if name["paper"] is None else name["paper"]
        name["experiment"] = name["experiment"] or experiment
        trainer = self._get(self.config, "trainer")
        if trainer["use_distributed_sampler"]:
            raise ConfigurationError(
                "trainer.use_distributed_sampler is true, but Lightning's sampler repeats and loses utterances in "
                "evaluation; leave it out, the data modules share batches between devices themselves"
            )
        torch.set_num_threads(threads_of_environment())  # folds side by side use cores better

    def instantiate_classes(self) -> None:
        """Build everything, and tell the system how it was built; what a constructor refuses is one clear error."""
        if not self._build:
            return
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise first_cause(error) from error
        refuse_unknown_scores(self.trainer, self.model.epoch_scores)
        self.model.refuse_targets(self.data.target_kind)  # before hours of extraction
        system = self.configuration["model"]
        linked = {"num_features": self.model.num_features, "class_names": list(self.model.class_names)}
        self.model.configuration = {**system, "init_args": {**system["init_args"], **linked}}
        self._get(self.config_init, "execution").prepare(self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the folder, the loggers and the callbacks that every run has."""
        trainer = self._get(self.config_init, "trainer")
        for key, value in self._in_this_process.items():
            trainer[key] = value
        seed = self._get(self.config, "seed_everything")
        self.run_name = RunName(
            **self._get(self.config, "run").as_dict(),
            corpus=self.data.corpus_name,
            seed=seed,
            fold=self.data.fold,
        )
        source = self.config_files[0] if self.config_files else Path()
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

    @functools.cached_property
    def configuration(self) -> dict[str, Any]:
        """The resolved configuration, with public class paths; every subcommand takes it, written as YAML, as it is."""
        subcommand = self.config.get("subcommand")
        config = self.config[subcommand] if subcommand else self.config
        content = with_public_paths(yaml.safe_load(self._parser(subcommand).dump(config, skip_none=False)))
        return {key: value for key, value in content.items() if key not in OF_SUBCOMMANDS}

    @property
    def training_seconds(self) -> float:
        """Time spent in training, also before an interruption."""
        return float(self._timer.time_elapsed("train"))

    def _wandb_logger(self, folder: Path) -> FoldWandbLogger:
        config = self.configuration | {"code_version": code_version()}
        tags = [tag for tag in (self.run_name.paper, self.data.corpus_name, self.data.protocol.name) if tag]
        return FoldWandbLogger(folder, self.run_name.fold_name, self.run_name.group, tags, config)


def resolve(arguments: Sequence[str], allow: Sequence[str] = ()) -> dict[str, Any]:
    """Return the resolved configuration of an experiment; neither its corpus nor its system is built.

    Args:
        arguments: LightningCLI's arguments, without a subcommand.
        allow: Module prefixes that the user trusts besides the allow-list.

    Raises:
        ConfigurationError: If a file or an argument does not fit; it names it.
    """
    return ExperimentCLI(arguments, run=False, allow=allow, build=False).configuration
