"""Run all folds of an experiment, and write summary and report."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ser_lightning.cross_validation.planner import RunOptions, plan_experiment
from ser_lightning.cross_validation.wandb import log_summary_runs, report_to_agent
from ser_lightning.errors import SerError
from ser_lightning.jobs.plan import Job, Observer, Resources, show_plan, write_configurations
from ser_lightning.jobs.runner import run_jobs
from ser_lightning.plain_files import read_json
from ser_lightning.published.lookup import with_published
from ser_lightning.reports.figures import confusion_figure, save
from ser_lightning.reports.report import write_report
from ser_lightning.reports.systems import find_systems
from ser_lightning.reports.terminal import summary_table, warn_of_left_out
from ser_lightning.runs.folder import CARD, CHECKPOINTS, CONFUSION_PICTURE
from ser_lightning.runs.gathering import CrossValidation, finished_folds, gather
from ser_lightning.runs.summary import SUMMARY_FILE, Summary, corpus_title, pooled_confusion, summarize, write_summary
from ser_lightning.training.results import write_model_card


def write_summaries(
    jobs: Sequence[Job], failures: Collection[Path], console: Console
) -> tuple[dict[Path, Summary], dict[Path, str]]:
    """Write ``summary.json`` and ``confusion.png`` of each seed, unless they are up to date.

    A seed with a fold that cannot be read, or must not be averaged with the others, gets no summary.

    Args:
        jobs: The plan that was run.
        failures: Folders of the jobs that did not finish.
        console: Console for errors.

    Returns:
        The summary by seed folder, for seeds with a tested fold; and by seed folder, why it has none.
    """
    tested = {job.folder.parent for job in jobs if job.scored and job.tested and job.folder not in failures}
    summaries: dict[Path, Summary] = {}
    faulty: dict[Path, str] = {}
    for folder in sorted(tested):
        runs, left_out = gather(finished_folds(folder))
        if left_out:
            faulty[folder] = left_out[0].reason
            console.print(f"{folder}: no summary: {faulty[folder]}", highlight=False, markup=False, soft_wrap=True)
        else:
            summaries[folder] = _write_summary(folder, runs)
    return summaries, faulty


def write_missing_cards(jobs: Sequence[Job], failures: Collection[Path], console: Console) -> None:
    """Write the model card of each job that was stopped after its predictions and before its card.

    Args:
        jobs: The plan that was run.
        failures: Folders of the jobs that did not finish.
        console: Console for errors.
    """
    for job in jobs:
        if job.folder not in failures and not (job.folder / CHECKPOINTS / CARD).exists():
            try:
                write_model_card(job.folder, job.allow)
            except SerError as error:
                console.print(f"{job.folder}: no model card: {error}", highlight=False, markup=False)


def _write_summary(folder: Path, runs: Sequence[CrossValidation]) -> Summary:
    summary = summarize(runs)
    picture, path = folder / CONFUSION_PICTURE, folder / SUMMARY_FILE
    # Drawing is slow: a table of a hundred rows redraws only those that have changed.
    if not picture.exists() or not _is_up_to_date(path, summary):
        title = f"{summary.experiment}, {corpus_title(summary)}"
        save(confusion_figure(pooled_confusion(runs[0]), summary.class_names, title), picture)
        write_summary(folder, summary)
    return summary


def _is_up_to_date(path: Path, summary: Summary) -> bool:
    """Whether ``summary.json`` exists and is up to date; a damaged one is rewritten."""
    try:
        return bool(read_json(path) == json.loads(json.dumps(asdict(summary))))
    except (FileNotFoundError, ValueError):
        return False


def cross_validate(arguments: Sequence[str], options: RunOptions, console: Console) -> int:
    """Run the unfinished folds of an experiment, summarise all, and write the report.

    Args:
        arguments: LightningCLI's arguments: the experiment YAML, a trainer file, overrides.
        options: Folds, seeds, folders and resources.
        console: Console for progress and summary.

    Returns:
        Exit status: 0 if every requested fold is done.

    Raises:
        ConfigurationError: If a folder holds a run of another configuration; nothing is run then.
    """
    jobs = plan_experiment(arguments, options, console)
    if options.dry_run:
        show_plan(jobs, options.resources, console, options.dry_run)
        return 0
    with report_to_agent([job.folder for job in jobs]) as observers:
        failures = run_planned(jobs, console, options.resources, observers)
    summaries, faulty = write_summaries(jobs, failures, console)
    for folder, summary in summaries.items():
        console.print(summary_table(summary))
        systems, left_out = find_systems([folder])
        page = write_report(with_published(systems), folder, left_out=left_out)
        console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
        warn_of_left_out(left_out)
    log_summary_runs(sorted({job.folder.parent for job in jobs} - set(faulty)), failures)
    return 1 if failures or faulty else 0


def run_planned(
    jobs: Sequence[Job], console: Console, resources: Resources | None = None, observers: Sequence[Observer] = ()
) -> dict[Path, str]:
    """Write the jobs' configurations, run the unfinished jobs, and list those that failed.

    Args:
        jobs: The plan.
        console: Console for progress.
        resources: Resources of the plan and of each job; None: one job after another.
        observers: Called with each change of a job's state.

    Returns:
        The reason, by folder, for each job that failed or could not start.
    """
    write_configurations(jobs)
    failures = run_jobs(jobs, console, resources, observers)
    write_missing_cards(jobs, failures, console)
    by_reason: dict[str, list[str]] = {}
    for failed, reason in failures.items():
        by_reason.setdefault(reason, []).append(str(failed))
    for reason, missing in by_reason.items():
        verb = "is" if len(missing) == 1 else "are"
        console.print(f"[red]{escape(', '.join(missing))} {verb} missing[/red]: {escape(reason)}", highlight=False)
    if failures:
        console.print(f"{len(failures)} of {len(jobs)} jobs are missing; the same command resumes them")
    return failures
