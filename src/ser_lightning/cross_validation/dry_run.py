"""A plan in print: which commands it means, what they get, what is done, and what waits for what."""

import json
import shlex
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from ser_lightning.cross_validation.plan import Job, in_order
from ser_lightning.cross_validation.resources import Resources
from ser_lightning.cross_validation.run_state import is_done, is_outdated

Form = Literal["text", "json"]


def show_plan(jobs: Sequence[Job], resources: Resources, console: Console, form: Form) -> None:
    """Print a plan; nothing is run or written.

    Args:
        jobs: The plan.
        resources: How many jobs at once, where, and what each gets.
        console: Where to print text; JSON goes to standard output.
        form: ``text`` to read, or ``json`` for programs.
    """
    content = describe(jobs, resources)
    if form == "json":
        print(json.dumps(content, indent=2))
        return
    where = f"on the cluster at {resources.address}" if resources.address else "on this machine"
    at_once = "as many at once as fit" if resources.at_once is None else f"{resources.at_once} at once"
    waiting = sum(job["state"] != "done" for job in content["jobs"])
    lines = [
        f"{waiting} of {len(jobs)} jobs to run {where}, {at_once}, each with {resources}; retries: {resources.retries}"
    ]
    for job in content["jobs"]:
        behind = f", waits for {', '.join(job['waits_for'])}" if job["waits_for"] else ""
        lines.append(f"\n{job['folder']}: {job['state']}{behind}")
        variables = " ".join(f"{name}={value}" for name, value in job["environment"].items())
        lines += [f"  {variables} {shlex.join(job[command])}" for command in ("run_fold", "fit")]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def describe(jobs: Sequence[Job], resources: Resources) -> dict[str, Any]:
    """Return a plan as JSON's types: each job's commands, resources and state, and the folders it waits for.

    Args:
        jobs: The plan.
        resources: How many jobs at once, where, and what each gets.
    """
    more = resources.arguments()
    unfinished = {job.folder for job in jobs if not is_done(job)}
    return {
        "at_once": resources.at_once,
        "address": resources.address,
        "retries": resources.retries,
        "jobs": [
            {
                "folder": str(job.folder),
                "experiment": str(job.experiment),
                "row": job.row,
                "seed": job.seed,
                "fold": job.fold,
                "state": _state(job, unfinished),
                "waits_for": [str(need) for need in job.needs if need in unfinished],
                "resources": {"cpus": resources.cpus_per_job, "gpus": resources.gpus_per_job},
                "environment": resources.environment(),
                "run_fold": ["ser", *job.command(more)],
                "fit": ["ser", *job.fit_command(more)],
            }
            for job in in_order(jobs)
        ],
    }


def _state(job: Job, unfinished: Set[Path]) -> str:
    if is_outdated(job):
        return "outdated: a stage it started from was trained anew since; delete its folder"
    if job.folder not in unfinished:
        return "done"
    return "waiting" if any(need in unfinished for need in job.needs) else "ready"
