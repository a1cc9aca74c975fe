"""All folds of an experiment, their summary and their report."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from ser_lightning.cross_validation.plan import parse_numbers, plan_folds, write_plan
from ser_lightning.cross_validation.runner import run_jobs
from ser_lightning.errors import ConfigurationError, ProtocolError
from ser_lightning.experiment import ExperimentCLI
from ser_lightning.reports import write_report
from ser_lightning.reports.runs import find_cross_validations
from ser_lightning.reports.summary import summarize, summary_table, write_summary
from ser_lightning.run_record import CONFIG_FILE, claim_folder


def cross_validate(
    arguments: Sequence[str],
    folds: str | None,
    seeds: str,
    row: str,
    runs: Path,
    allow: Sequence[str],
    console: Console,
) -> int:
    """Run the folds of an experiment that are not done, summarise all, and write the report.

    Args:
        arguments: LightningCLI's arguments: the experiment YAML, a trainer file, overrides.
        folds: Folds to run, such as ``0,3-5``; all if None.
        seeds: Seeds to run, such as ``0,1``.
        row: Row of a table.
        runs: Folder of all runs.
        allow: Module prefixes that the user trusts.
        console: Where to show progress and the summary.

    Returns:
        Exit status: 0 if every asked fold is done.

    Raises:
        ConfigurationError: If a folder holds a run of another configuration; nothing is run then.
    """
    _refuse_own_keys(arguments)
    # The loggers of this process would be a run of their own.
    cli = ExperimentCLI([*arguments, "--trainer.logger=false"], run=False, row=row, allow=allow)
    data = cli.data
    console.print(f"{cli.run_name.experiment} on {data.corpus_name}: features", highlight=False)
    data.extract()
    if data.skipped_audio:
        console.print(f"{len(data.skipped_audio)} unusable audio files are skipped; run.json lists them")
    chosen = list(range(data.num_folds())) if folds is None else parse_numbers(folds)
    if beyond := [fold for fold in chosen if fold >= data.num_folds()]:
        raise ProtocolError(
            f"--folds {folds}: {data.protocol.name} has folds 0 to {data.num_folds() - 1}, not {beyond[0]}"
        )
    group_folder = cli.run_name.folder(runs).parent.parent
    jobs = plan_folds(
        experiment=cli.config_files[0],
        overrides=_without_experiment(arguments, cli.config_files[0]),
        folds=chosen,
        seeds=parse_numbers(seeds),
        group_folder=group_folder,
        row=row,
        allow=allow,
    )
    resolved = yaml.safe_load(cli.config_text)
    for job in jobs:
        if (job.folder / CONFIG_FILE).exists():
            resolved["seed_everything"] = job.seed
            resolved["data"]["init_args"]["fold"] = job.fold
            claim_folder(job.folder, yaml.safe_dump(resolved), data.split(job.fold).hash)
    seed_folders = sorted({job.folder.parent for job in jobs})
    for folder in seed_folders:
        write_plan([job for job in jobs if job.folder.parent == folder], folder / "plan.json")
    failures = run_jobs(jobs, cli.trainer.max_epochs or 1, console)
    for failed, reason in failures.items():
        console.print(f"[red]{failed} is missing[/red]: {reason}", highlight=False)
    for folder in seed_folders:
        if any(job.folder not in failures for job in jobs if job.folder.parent == folder):
            write_summary(folder)
            console.print(summary_table(summarize(find_cross_validations([folder]))))
            console.print(f"report: {write_report([folder], folder / 'report.html')}", highlight=False, soft_wrap=True)
    return 1 if failures else 0


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


def _without_experiment(arguments: Sequence[str], experiment: Path) -> list[str]:
    """Return ``arguments`` less the first ``--config``, which a job names itself."""
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument == f"--config={experiment}":
            return rest[:index] + rest[index + 1 :]
        if argument in ("-c", "--config"):
            return rest[:index] + rest[index + 2 :]
    return rest
