"""LightningCLI with this suite's defaults: builds trainer, system and data module from an experiment's YAML.

Callbacks, loggers and the folder of every run are installed here in code: lists in YAML replace instead of extend, so
every YAML would have to repeat them.
"""

import argparse
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ser_lightning.allow_list import check_class_paths, enforce_allow_list, shortest_path
from ser_lightning.data.corpora import CorpusData
from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.folder import CONFIG_FILE, code_version
from ser_lightning.runs.names import ExperimentName, RunName, name_from_path
from ser_lightning.training.arguments import (
    Execution,
    check_seed,
    config_files,
    corpus_argument,
    read_experiment_file,
    threads_of_environment,
)
from ser_lightning.training.callbacks import BackgroundCheckpointIO, BestCheckpoint, EpochSeed, LastCheckpoint
from ser_lightning.training.checks import (
    LINKED,
    check_monitored_scores,
    check_resumes_exactly,
    check_same_system,
    check_will_validate,
)
from ser_lightning.training.divergence import DivergenceGuard
from ser_lightning.training.loggers import MetricsTable, TrainingSpeed, build_loggers
from ser_lightning.training.parser_errors import constructor_error, parser_error, prefer_own_classes
from ser_lightning.training.results import ResultFiles

TRAINER_DEFAULTS = {
    # Lightning's sampler evaluated 31 of 61 utterances in each of two processes; ours never repeats one.
    "use_distributed_sampler": False,
    # A sanity check of validation would only delay the first epoch.
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
}

# Environment variables from which Lightning takes the processes of a training.
SLURM_TASKS = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES")

# Arguments of Lightning's methods, not of the experiment.
SUBCOMMAND_OPTIONS = ("ckpt_path", "weights_only", "verbose", "return_predictions")


class ExperimentCLI(LightningCLI):
    """LightningCLI on a system's and a corpus's YAML, or one that holds both, and at most one trainer file.

    Args:
        arguments: Command line, with the subcommand first if ``run``.
        run: Whether the arguments start with a subcommand; it is parsed but not run.
        allow: Module prefixes that the user trusts besides the allow-list.
        build: Whether to build trainer, system and data module, or only to resolve the configuration.
        trainer_overrides: Trainer arguments of this process only, not part of the configuration.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        run: bool = True,
        allow: Sequence[str] = (),
        build: bool = True,
        trainer_overrides: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.allow = tuple(allow)
        self._build = build
        self._has_subcommand = run
        self._arguments = tuple(arguments)
        self._trainer_overrides = trainer_overrides
        self.config_files = config_files(arguments)
        for path in self.config_files:
            check_class_paths(read_experiment_file(path), str(path), self.allow)
        check_seed(arguments)
        enforce_allow_list(self.allow)
        prefer_own_classes()
        quiet_errors = {"exit_on_error": False, "allow_abbrev": False, "prog": "ser"}
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={
                **quiet_errors,
                **{name: {**quiet_errors, "usage": argparse.SUPPRESS} for name in self.subcommands()},
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=[*arguments[:run], *corpus_argument(arguments), *arguments[run:]],  # after the subcommand, if any
            run=run,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # systems.checkpoint does it, checked
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in Lightning
        """Return only the subcommand of this command line: the parser of each takes a fifth of a second."""
        known = LightningCLI.subcommands()
        asked = self._arguments[0] if self._has_subcommand and self._arguments else ""
        return {asked: known[asked]} if asked in known else known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the suite's sections, and link the data module's properties to the system."""
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_class_arguments(ExperimentName, "run")
        parser.add_class_arguments(Execution, "execution")
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments; an invalid key or value is one clear error."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            read_by = self._subcommand_parsers.get(args[0], parser) if self._has_subcommand and args else parser
            raise parser_error(str(error), self._arguments, read_by) from error
        except (IndexError, ValueError) as error:  # PyYAML's, of values such as !!int ''
            raise ConfigurationError(f"command line: a value is not YAML: {error}") from error

    def _parse_ckpt_path(self) -> None:
        """Do nothing, where LightningCLI would let the checkpoint override the configuration.

        ``check_checkpoint`` rejects a checkpoint that differs.
        """

    def check_checkpoint(self, path: Path) -> None:
        """Check that a checkpoint's system and arguments are the configured ones.

        Raises:
            ConfigurationError: As ``check_same_system``.
        """
        check_same_system(path, self.configuration["model"], self.allow)

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing: ``subcommands`` does it."""

    def subcommand_options(self) -> dict[str, Any]:
        """Return the command line's arguments for Lightning's method."""
        options = self.config_init[self.subcommand]
        return {name: options[name] for name in SUBCOMMAND_OPTIONS if name in options and name != "weights_only"}

    def before_instantiate_classes(self) -> None:
        """Name the run, check the sampler and set the number of threads."""
        for section in ("trainer", "best_checkpoint", "run", "execution"):
            if not isinstance(value := self._get(self.config, section), Namespace):
                raise ConfigurationError(f"{section} is {value!r:.100}; give keys with values")
        name = self._get(self.config, "run")
        paper, experiment = name_from_path(self.config_files[0] if self.config_files else Path("command_line"))
        name["paper"] = paper if name["paper"] is None else name["paper"]
        name["experiment"] = name["experiment"] or experiment
        trainer = self._get(self.config, "trainer")
        if trainer["use_distributed_sampler"]:
            raise ConfigurationError(
                "trainer.use_distributed_sampler is true, but Lightning's sampler repeats and loses utterances in "
                "evaluation; leave it out, the data modules distribute batches themselves"
            )
        torch.set_num_threads(threads_of_environment())  # parallel folds use cores better
        self._resolved = self.config.clone()
        trainer["logger"] = False  # loggers are built once the fold is known

    def instantiate_classes(self) -> None:
        """Build everything and check it; an error in a constructor is one clear error."""
        if not self._build:
            return
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise constructor_error(error) from error
        check_monitored_scores(self.trainer, self.model.epoch_scores)
        self.model.check_targets(self.data.target_kind)  # before hours of extraction
        try:
            self.model.configure_optimizers()
        except (TypeError, ValueError) as error:
            given = {key: self.configuration["model"]["init_args"].get(key) for key in ("optimizer", "scheduler")}
            raise ConfigurationError(f"model.init_args: {given} cannot be built: {error}") from error
        system = self.configuration["model"]
        linked = {"num_features": self.model.num_features, "class_names": list(self.model.class_names)}
        self.model.configuration = {**system, "init_args": {**system["init_args"], **linked}}
        self.execution.prepare(self.model)
        self.data.held_gib = self.execution.held_gib

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the folder, loggers and callbacks of every run."""
        trainer = self._get(self.config_init, "trainer")
        for key, value in self._trainer_overrides.items():
            trainer[key] = value
        seed = self._get(self.config, "seed_everything")
        self.run_name = RunName(
            **self._get(self.config, "run").as_dict(),
            corpus=self.data.corpus_name,
            seed=seed,
            fold=self.data.fold,
        )
        source = self.config_files[0] if self.config_files else Path()
        default_folder = source.parent if source.name == CONFIG_FILE else self.run_name.folder()
        folder = Path(trainer["default_root_dir"] or default_folder).expanduser()
        if self.subcommand in (None, "fit"):
            check_resumes_exactly(trainer, self.allow)
            check_will_validate(trainer)
        if not trainer["fast_dev_run"]:
            kwargs["logger"] = build_loggers(
                self.configuration, folder, self.run_name, self.data.protocol.name, code_version()
            )
        if _has_one_device(trainer):  # SLURM's other tasks are not processes of this training
            for name in SLURM_TASKS:
                os.environ.pop(name, None)
        kwargs["plugins"] = [*(trainer["plugins"] or []), BackgroundCheckpointIO()]
        try:
            # Lightning uses this timer for the limit.
            self._timer = Timer(trainer["max_time"])
            ours = [DivergenceGuard(), EpochSeed(seed), ResultFiles(), TrainingSpeed(), self._timer]
            if not trainer["fast_dev_run"]:
                ours.append(MetricsTable())
            trainer["callbacks"] = [*(trainer["callbacks"] or []), *ours]
            return super().instantiate_trainer(default_root_dir=folder, **kwargs)
        except (RuntimeError, ValueError) as error:
            if "SLURM" not in str(error):
                raise
            raise ConfigurationError(
                f"trainer.devices is {trainer['devices']}, which does not fit SLURM's tasks: {error} Or set "
                "trainer.devices=1"
            ) from error
        except (MisconfigurationException, TypeError) as error:
            raise ConfigurationError(
                f"trainer: {error} (accelerator {trainer['accelerator']}, devices {trainer['devices']}, strategy "
                f"{trainer['strategy']}); choose what this machine has, such as --config experiments/trainer/cpu.yaml"
            ) from error

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Any]) -> Trainer:
        # Lightning keeps the order of checkpoint callbacks; the last one must save after the best one.
        return super()._instantiate_trainer(config, [*callbacks, LastCheckpoint()])

    @property
    def execution(self) -> Execution:
        """The execution options."""
        return cast(Execution, self._get(self.config_init, "execution"))

    @property
    def data(self) -> CorpusData:
        """The data module, as a corpus."""
        return cast(CorpusData, self.datamodule)

    @functools.cached_property
    def configuration(self) -> dict[str, Any]:
        """The resolved configuration with public class paths; as YAML, it is valid for every subcommand."""
        subcommand = self._resolved.get("subcommand")
        config = self._resolved[subcommand] if subcommand else self._resolved
        dumped = self._parser(subcommand).dump(config, format="json", skip_unset=False, skip_validation=True)
        content = with_public_paths(json.loads(dumped))
        return {key: value for key, value in content.items() if key not in SUBCOMMAND_OPTIONS}

    @property
    def training_seconds(self) -> float:
        """Time spent in training, including before an interruption."""
        return float(self._timer.time_elapsed("train"))


def with_public_paths(configuration: Any) -> Any:
    """Return a nested configuration with every class path shortened by ``shortest_path``."""
    if isinstance(configuration, Mapping):
        return {
            key: shortest_path(value) if key == "class_path" and isinstance(value, str) else with_public_paths(value)
            for key, value in configuration.items()
        }
    return [with_public_paths(value) for value in configuration] if isinstance(configuration, list) else configuration


def _has_one_device(trainer: Any) -> bool:
    """Whether a trainer's configuration trains on one device of one node."""
    on_cpu = trainer["accelerator"] == "cpu" or (trainer["accelerator"] == "auto" and not torch.cuda.is_available())
    return str(trainer["devices"]) in ("1", *(["auto"] if on_cpu else [])) and trainer["num_nodes"] == 1


def resolve(arguments: Sequence[str], allow: Sequence[str] = ()) -> dict[str, Any]:
    """Return the resolved configuration of an experiment, without building its corpus or system.

    Args:
        arguments: LightningCLI's arguments, without a subcommand.
        allow: Module prefixes that the user trusts besides the allow-list.

    Raises:
        ConfigurationError: Naming the file or argument that does not fit.
    """
    return ExperimentCLI(arguments, run=False, allow=allow, build=False).configuration
