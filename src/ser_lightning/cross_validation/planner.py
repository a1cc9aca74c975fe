"""The planner: resolves an experiment once into jobs, each with its whole configuration."""

import copy
import functools
import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich.console import Console

from ser_lightning.cross_validation.audit import usage
from ser_lightning.data.corpora import CorpusData
from ser_lightning.data.split_checks import find_same_audio, same_audio_in_words
from ser_lightning.errors import ConfigurationError, ProtocolError
from ser_lightning.jobs.plan import Form, Job, Resources, parse_numbers
from ser_lightning.published.lookup import check_earlier_stages
from ser_lightning.runs.folder import CHECKPOINTS, has_begun, reject_other_run
from ser_lightning.runs.names import LARGEST_SEED, RUNS, fold_name, seed_name
from ser_lightning.training.experiment import ExperimentCLI


@dataclass(frozen=True)
class RunOptions:
    """Folds, seeds, folders and resources of a plan.

    Attributes:
        folds: Folds to run, such as ``0,3-5``; all if None.
        seeds: Seeds to run, such as ``0,1``; the experiment's ``seed_everything`` if None.
        runs: Folder of all runs.
        allow: Module prefixes that the user trusts.
        resources: Resources of the plan and of each job.
        dry_run: Print the plan in this form, and run nothing.
        tested: Whether the test set is evaluated.
    """

    folds: str | None = None
    seeds: str | None = None
    runs: Path = RUNS
    allow: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    dry_run: Form | None = None
    tested: bool = True

    def chosen_seeds(self, configuration: Mapping[str, Any]) -> list[int]:
        """Return the seeds of an experiment with this configuration."""
        if self.seeds is None:
            return [configuration["seed_everything"]]
        return parse_numbers(self.seeds, "--seeds", LARGEST_SEED)


def build_on_cpu(arguments: Sequence[str], allow: Sequence[str] = ()) -> ExperimentCLI:
    """Build an experiment to inspect it, on any machine: without logger and accelerator.

    Args:
        arguments: LightningCLI's arguments: the experiment YAML, a trainer file, overrides.
        allow: Module prefixes that the user trusts.
    """
    trainer = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "logger": False}
    return ExperimentCLI(arguments, run=False, allow=allow, trainer_overrides=trainer)


def plan_experiment(
    arguments: Sequence[str],
    options: RunOptions,
    console: Console,
    needs: Mapping[str, Sequence[Job]] = MappingProxyType({}),
    without_folds: bool = False,
) -> list[Job]:
    """Resolve an experiment, extract its features, plan its folds, and check existing run folders.

    Args:
        arguments: LightningCLI's arguments: the experiment YAML, a trainer file, overrides.
        options: Folds, seeds, folders and resources.
        console: Console for progress.
        needs: Jobs by key: the key gets the best checkpoint of the job with the same seed and fold, or with the same
            seed and no fold.
        without_folds: Plan one job per seed, without a fold.

    Raises:
        ConfigurationError: If a folder holds a run of another configuration, a stage's checkpoint is missing, or
            several jobs would share GPUs without ``gpus_per_job``.
        ProtocolError: If a fold does not exist, or the corpus cannot be divided.
    """
    _reject_planned_keys(arguments)
    if options.resources.gpus_per_job is None:
        cli = ExperimentCLI(arguments, run=False, allow=options.allow, trainer_overrides={"logger": False})
    else:  # jobs get their GPUs from Ray: this machine may have none
        cli = build_on_cpu(arguments, options.allow)
    if not cli.config_files:
        raise ConfigurationError("no experiment given; name its YAML: --config experiments/....yaml")
    resolved = cli.configuration
    if folder := resolved["trainer"]["default_root_dir"]:
        raise ConfigurationError(
            f"trainer.default_root_dir is {folder}, but each fold has a folder of its own below --runs; leave it out"
        )
    seeds = options.chosen_seeds(resolved)  # checked before features are extracted
    _check_gpu_shares(resolved["trainer"]["accelerator"], options.resources)
    check_earlier_stages(cli.model, cli.config_files[0], cli.data.corpus_name, needs)
    data, name = cli.data, cli.run_name
    row_folder = name.row_folder(options.runs)
    asked = None if without_folds else options.folds  # --folds does not apply to pre-training on another corpus
    folds = _chosen_folds(data, asked)  # checked before features are extracted
    # Skipped audio changes the splits, which existing runs are compared with.
    if not options.dry_run or any(map(has_begun, row_folder.glob("seed-*/*"))):
        console.print(f"{name.experiment} on {data.corpus_name}: features", highlight=False, markup=False)
        data.extract(processes=options.resources.at_once or 1)  # no job runs yet
        if data.skipped_audio:
            folds = _chosen_folds(data, asked)  # checked again without the skipped audio
        console.print(usage(data), highlight=False, markup=False, soft_wrap=True)
        if same := find_same_audio(data.all_utterances, data.sounds(), data.known_same_audio):
            said = same_audio_in_words(same, [data.split(fold) for fold in folds])
            console.print(f"{said}; ser audit names them", highlight=False, markup=False, soft_wrap=True)
    jobs = []
    for seed, fold in itertools.product(seeds, [None] if without_folds else folds):
        sources = {key: _of_same_fold(others, seed, fold) for key, others in needs.items()}
        folder = row_folder / seed_name(seed) / ("once" if fold is None else fold_name(fold))
        configuration = _configuration(resolved, seed, fold, options.resources, sources)
        if has_begun(folder):  # only then: hashing the split of a large corpus takes seconds
            reject_other_run(folder, configuration, data.split(fold).hash)
        jobs.append(
            Job(
                folder=folder,
                configuration=configuration,
                experiment=name.experiment,
                row=name.row,
                fold=fold,
                seed=seed,
                needs=tuple(sources.values()),
                allow=options.allow,
                scored=not cli.model.is_pretraining,
                tested=options.tested,
                max_epochs=max(cli.trainer.max_epochs or 1, 1),
            )
        )
    return jobs


def _of_same_fold(jobs: Sequence[Job], seed: int, fold: int | None) -> Path:
    """Return the folder of the job with this seed and fold, or with this seed and no fold."""
    by_fold = {job.fold: job.folder for job in jobs if job.seed == seed}
    if not by_fold:
        raise ConfigurationError(
            f"{jobs[0].experiment} is planned with seed {jobs[0].seed}, and what needs it with seed {seed}: their "
            "files' seed_everything differ; give --seeds"
        )
    return by_fold.get(fold) or by_fold[None]


def _configuration(
    resolved: Mapping[str, Any], seed: int, fold: int | None, resources: Resources, sources: Mapping[str, Path]
) -> dict[str, Any]:
    """Return the whole configuration of one job.

    Args:
        resolved: The experiment's resolved configuration.
        seed: Seed of the job.
        fold: Fold of the job; None: as configured.
        resources: Resources of the job.
        sources: Folder by key: the key gets the best checkpoint in the folder.

    Raises:
        ConfigurationError: If the experiment does not have a key of ``sources``.
    """
    configuration = copy.deepcopy(dict(resolved))
    trainer, given = configuration["trainer"], resources.trainer()
    if trainer["strategy"] != "auto":  # the user's choice, such as DDP with unused parameters
        given.pop("strategy", None)
    trainer |= {"default_root_dir": None, **given}  # a job runs in the folder of its config.yaml
    configuration["seed_everything"] = seed
    if fold is not None:
        configuration["data"]["init_args"]["fold"] = fold
    for key, source in sources.items():
        *parents, last = key.split(".")
        try:
            holder = functools.reduce(operator.getitem, parents, configuration)
            holder[last]  # assigning to an unknown key would add it
        except (KeyError, TypeError) as error:
            raise ConfigurationError(
                f"needs: {key} is not a key of {configuration['run']['experiment']}; give the full key, such as "
                "model.init_args.encoder_checkpoint"
            ) from error
        holder[last] = str(source / CHECKPOINTS / "best.ckpt")
    return configuration


def _check_gpu_shares(accelerator: Any, resources: Resources) -> None:
    """Reject parallel jobs that would each use all GPUs, or on a cluster none."""
    is_sequential = resources.at_once == 1 and not resources.address
    if is_sequential or resources.gpus_per_job is not None or accelerator == "cpu":
        return
    if resources.address or torch.cuda.is_available():
        where = "on a cluster" if resources.address else "in parallel"
        raise ConfigurationError(
            f"trainer.accelerator is {accelerator}, and jobs run {where}: give each job's share of a GPU, such as "
            "--gpus-per-job 0.25 for four jobs on one GPU, or --trainer.accelerator cpu"
        )


_PLANNED_KEYS = {
    "--data.init_args.fold": "--folds",
    "--seed_everything": "--seeds",
    "--trainer.default_root_dir": "--runs",
}


def _reject_planned_keys(arguments: Sequence[str]) -> None:
    """Reject arguments that the planner sets for each fold."""
    for argument in arguments:
        if option := _PLANNED_KEYS.get(key := argument.partition("=")[0]):
            raise ConfigurationError(f"{key} is set for each fold; use {option} instead")


def _chosen_folds(data: CorpusData, asked: str | None) -> list[int]:
    """Return the requested folds, all if None, after splitting the corpus into each.

    Raises:
        ProtocolError: If a fold does not exist, or the corpus cannot be divided; it names skipped audio.
    """
    try:
        chosen = list(range(data.num_folds())) if asked is None else parse_numbers(asked, "--folds")
        if beyond := [fold for fold in chosen if fold >= data.num_folds()]:
            raise ProtocolError(
                f"--folds {asked}: {data.protocol.name} has folds 0 to {data.num_folds() - 1}, not {beyond[0]}"
            )
        for fold in chosen:
            data.split(fold)
    except ProtocolError as error:
        if not data.skipped_audio:
            raise
        raise ProtocolError(f"{usage(data)}\nThe used utterances cannot be divided: {error}") from error
    return chosen
