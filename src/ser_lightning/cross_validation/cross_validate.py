"""All folds of an experiment, their summary and their report."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import torch
import yaml
from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape

from ser_lightning.cross_validation.audit import usage
from ser_lightning.cross_validation.wandb import log_summaries, told_to_agent
from ser_lightning.data.corpora import CorpusData
from ser_lightning.errors import ConfigurationError, ProtocolError, SerError
from ser_lightning.jobs.engine import Resources
from ser_lightning.jobs.plan import Job, parse_numbers, plan_folds, write_plan
from ser_lightning.jobs.progress import Form, show_plan
from ser_lightning.jobs.runner import run_jobs
from ser_lightning.published.lookup import EXPERIMENTS, publications, refuse_missing_stages
from ser_lightning.reports.figures import confusion_figure, save
from ser_lightning.reports.model_card import CARD
from ser_lightning.reports.report import write_report
from ser_lightning.reports.terminal import summary_table
from ser_lightning.runs.folder import CHECKPOINTS, CONFIG_FILE, DEFAULT_ROW, RUNS, claim_folder
from ser_lightning.runs.gathering import find_cross_validations
from ser_lightning.runs.summary import Summary, corpus_title, pooled_confusion, summarize, write_summary
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.training.experiment_file import chosen_strategy
from ser_lightning.training.results import write_model_card


def write_summaries(jobs: Sequence[Job], failures: Collection[Path]) -> dict[Path, Summary]:
    """Write ``summary.json`` and ``confusion.png`` of each seed, unless they say already what is on disk.

    Args:
        jobs: What was run.
        failures: Folders of the jobs that are missing.

    Returns:
        The summary by the seed's folder, where a fold of it is tested.

    Raises:
        ConfigurationError: If what lies in a seed's folder must not be averaged.
    """
    tested = {job.folder.parent for job in jobs if job.scored and job.tested and job.folder not in failures}
    return {folder: _write_summary(folder) for folder in sorted(tested)}


def write_missing_cards(jobs: Sequence[Job], failures: Collection[Path], console: Console) -> None:
    """Write the model card of each job that was stopped between its last predictions and its card.

    Args:
        jobs: What was run.
        failures: Folders of the jobs that are missing.
        console: Where to say which card could not be written.
    """
    for job in jobs:
        if job.folder not in failures and not (job.folder / CHECKPOINTS / CARD).exists():
            try:
                write_model_card(job.folder, job.allow)
            except SerError as error:
                console.print(f"{job.folder} has no model card: {error}", highlight=False, markup=False)


def _write_summary(folder: Path) -> Summary:
    runs = find_cross_validations([folder])
    summary = summarize(runs)
    picture, path = folder / "confusion.png", folder / "summary.json"
    # A table of a hundred rows of which one has changed draws one picture.
    if not picture.exists() or not _says(path, summary):
        title = f"{summary.experiment}, {corpus_title(summary)}"
        save(confusion_figure(pooled_confusion(runs[0]), summary.class_names, title), picture)
        write_summary(folder)
    return summary


def _says(path: Path, summary: Summary) -> bool:
    """Whether a ``summary.json`` is there and up to date; a damaged one is not: all of it can be computed again."""
    try:
        return bool(json.loads(path.read_bytes()) == json.loads(json.dumps(asdict(summary))))
    except (FileNotFoundError, ValueError):
        return False


_ANYWHERE = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto")


@dataclass(frozen=True)
class Choice:
    """What is run of an experiment, and where.

    Attributes:
        folds: Folds to run, such as ``0,3-5``; all if None.
        seeds: Seeds to run, such as ``0,1``.
        runs: Folder of all runs.
        allow: Module prefixes that the user trusts.
        resources: How many jobs at once, where, and what each gets.
        dry_run: Print the plan, in this form, and run nothing.
    """

    folds: str | None = None
    seeds: str = "0"
    runs: Path = RUNS
    allow: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    dry_run: Form | None = None


def cross_validate(arguments: Sequence[str], row: str, choice: Choice, console: Console) -> int:
    """Run the folds of an experiment that are not done, summarise all, and write the report.

    Args:
        arguments: LightningCLI's arguments: the experiment YAML, a trainer file, overrides.
        row: Row of a table.
        choice: What is run, and where.
        console: Where to show progress and the summary.

    Returns:
        Exit status: 0 if every asked fold is done.

    Raises:
        ConfigurationError: If a folder holds a run of another configuration; nothing is run then.
    """
    jobs = plan_experiment(arguments, row, choice, console)
    if choice.dry_run:
        show_plan(jobs, choice.resources, console, choice.dry_run)
        return 0
    with told_to_agent([job.folder for job in jobs]):
        failures = run_planned(jobs, console, choice.resources)
    for folder, summary in write_summaries(jobs, failures).items():
        console.print(summary_table(summary))
        page = write_report([folder], folder, publications(EXPERIMENTS))
        console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    log_summaries(sorted({job.folder.parent for job in jobs}), failures)
    return 1 if failures else 0


def plan_experiment(
    arguments: Sequence[str],
    row: str,
    choice: Choice,
    console: Console,
    needs: Mapping[str, Sequence[Job]] = MappingProxyType({}),
    once: bool = False,
) -> list[Job]:
    """Extract an experiment's features, plan its folds, and check the folders that are there already.

    Args:
        arguments: LightningCLI's arguments: the experiment YAML, a trainer file, overrides.
        row: Row of a table.
        choice: What is run, and where.
        console: Where to say what is done.
        needs: Jobs by argument: the argument gets the best checkpoint of the one of the same seed and fold, or of the
            same seed and of no fold.
        once: Plan one job for each seed that belongs to no fold.

    Raises:
        ConfigurationError: If a folder holds a run of another configuration, a stage's checkpoint is missing, or it is
            not said what share of a GPU each of several jobs gets.
        ProtocolError: If a fold does not exist, or the corpus cannot be divided.
    """
    _refuse_own_keys(arguments)
    seeds = parse_numbers(choice.seeds, "--seeds")  # a slip here is no reason to extract features first
    # Where each job is given GPUs, this machine need not have any.
    build = _build if choice.resources.gpus_per_job is None else build_anywhere
    cli = build(arguments, row, choice.allow)
    if not cli.config_files:
        raise ConfigurationError("no experiment is given; name its YAML: --config experiments/....yaml")
    _refuse_unshared_gpus(cli, choice.resources)
    refuse_missing_stages(cli.model, cli.config_files[0], needs)
    data = cli.data
    group = cli.run_name.folder(choice.runs).parent.parent
    # What is trained once has folds of its own, to which the caller's choice does not apply.
    asked = None if once else choice.folds
    chosen = _divide(data, asked)  # what cannot be divided is refused once, and before features are extracted
    # Unusable audio that is skipped changes the splits, with which runs that are there are compared.
    if not choice.dry_run or any(group.glob(f"seed-*/*/{CONFIG_FILE}")):
        console.print(f"{cli.run_name.experiment} on {data.corpus_name}: features", highlight=False, markup=False)
        data.extract()
        if data.skipped_audio:
            chosen = _divide(data, asked)  # again, without them: no fold is started that must fail
        console.print(usage(data), highlight=False, markup=False, soft_wrap=True)
    jobs = plan_folds(
        experiment=cli.config_files[0],
        overrides=_without_experiment(arguments, cli.config_files[0]),
        folds=chosen,
        seeds=seeds,
        group_folder=group,
        row=row,
        allow=choice.allow,
    )
    scored, max_epochs = not cli.model.is_pretraining, max(cli.trainer.max_epochs or 1, 1)
    keeps = chosen_strategy(arguments) is not None
    jobs = [replace(job, scored=scored, max_epochs=max_epochs, keeps_strategy=keeps) for job in jobs]
    if once:
        jobs = [replace(job, fold=None, folder=job.folder.with_name("once")) for job in jobs if job.fold == chosen[0]]
    jobs = [_with_needs(job, needs) for job in jobs]
    for job in jobs:
        if (job.folder / CONFIG_FILE).exists():
            expected = OmegaConf.create(yaml.safe_load(cli.config_text))
            own = {"seed_everything": job.seed, **dict(argument.lstrip("-").split("=", 1) for argument in job.own)}
            for key, value in own.items():
                OmegaConf.update(expected, key, value)
            if job.fold is not None:
                OmegaConf.update(expected, "data.init_args.fold", job.fold)
            claim_folder(job.folder, OmegaConf.to_yaml(expected), data.split(job.fold).hash)
    return jobs


def run_planned(jobs: Sequence[Job], console: Console, resources: Resources | None = None) -> dict[Path, str]:
    """Write each seed's plan, run what is not done, and say what is missing in the end.

    Args:
        jobs: The plan.
        console: Where to show progress.
        resources: How many at once, where, and what each gets; None: one after another.

    Returns:
        The reason by folder for every job that failed or could not start.
    """
    for folder in sorted({job.folder.parent for job in jobs}):
        write_plan([job for job in jobs if job.folder.parent == folder], folder / "plan.json")
    failures = run_jobs(jobs, console, resources)
    write_missing_cards(jobs, failures, console)
    same: dict[str, list[str]] = {}
    for failed, reason in failures.items():
        same.setdefault(reason, []).append(str(failed))
    for reason, missing in same.items():
        verb = "is" if len(missing) == 1 else "are"
        console.print(f"[red]{escape(', '.join(missing))} {verb} missing[/red]: {escape(reason)}", highlight=False)
    if failures:
        console.print(f"{len(failures)} of {len(jobs)} jobs are missing; the same command goes on with them")
    return failures


def build_anywhere(arguments: Sequence[str], row: str = DEFAULT_ROW, allow: Sequence[str] = ()) -> ExperimentCLI:
    """Build an experiment in order to know it, on a machine that need not have the devices it is trained on.

    Args:
        arguments: LightningCLI's arguments: the experiment YAML, a trainer file, overrides.
        row: Row of a table.
        allow: Module prefixes that the user trusts.
    """
    return _build([*arguments, *_ANYWHERE], row, allow)


def _build(arguments: Sequence[str], row: str, allow: Sequence[str]) -> ExperimentCLI:
    """Build an experiment in order to plan it: without loggers, which would be a run of their own."""
    return ExperimentCLI([*arguments, "--trainer.logger=false"], run=False, row=row, allow=allow)


def _refuse_unshared_gpus(cli: ExperimentCLI, resources: Resources) -> None:
    """Refuse several jobs at once that would each reach for every GPU, or on a cluster train without any."""
    accelerator = cli.config["trainer"]["accelerator"]
    alone = resources.at_once == 1 and not resources.address
    if alone or resources.gpus_per_job is not None or accelerator == "cpu":
        return
    if resources.address or torch.cuda.is_available():
        where = "on a cluster" if resources.address else "side by side"
        raise ConfigurationError(
            f"trainer.accelerator is {accelerator}, and jobs run {where}: say what each gets of the GPUs, such as "
            "--gpus-per-job 0.25 for four on one, or --trainer.accelerator cpu"
        )


def _with_needs(job: Job, needs: Mapping[str, Sequence[Job]]) -> Job:
    """Give a job the checkpoints of the jobs it needs."""
    found = {}
    for argument, others in needs.items():
        by_fold = {other.fold: other for other in others if other.seed == job.seed}
        found[argument] = by_fold.get(job.fold) or by_fold[None]
    return replace(
        job,
        own=tuple(f"--{argument}={other.folder / CHECKPOINTS / 'best.ckpt'}" for argument, other in found.items()),
        needs=tuple(other.folder for other in found.values()),
    )


def _refuse_own_keys(arguments: Sequence[str]) -> None:
    """Refuse what this command decides for each fold itself."""
    for argument in arguments:
        key = argument.split("=")[0]
        own = {
            "--data.init_args.fold": "--folds",
            "--seed_everything": "--seeds",
            "--trainer.default_root_dir": "--runs",
        }
        if key in own:
            raise ConfigurationError(f"{key} is decided for each fold; use {own[key]} instead")


def _divide(data: CorpusData, asked: str | None) -> list[int]:
    """Return the folds that are asked for, all if None, of a corpus that can be divided into them.

    Raises:
        ProtocolError: If a fold does not exist, or the corpus cannot be divided; where unusable audio is skipped, it
            says so.
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
        raise ProtocolError(f"{usage(data)}\nWhat is left cannot be divided: {error}") from error
    return chosen


def _without_experiment(arguments: Sequence[str], experiment: Path) -> list[str]:
    """Return ``arguments`` less the first ``--config``, which a job names itself."""
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument == f"--config={experiment}":
            return rest[:index] + rest[index + 1 :]
        if argument in ("-c", "--config"):
            return rest[:index] + rest[index + 2 :]
    return rest
