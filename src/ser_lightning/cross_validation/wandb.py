"""A cross-validation's summary run in W&B, and reports to a W&B sweep agent.

Examples of keys: ``cv/validation_UA_mean``, ``cv/test_WA_std`` (ddof 0); the table of folds is ``cv/folds``.
"""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from ser_lightning.files import write_atomically
from ser_lightning.jobs.plan import Change, JobEvent, Observer
from ser_lightning.metrics import scores
from ser_lightning.plain_files import read_mapping
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.folder import CONFUSION_PICTURE, FACTS_FILE, FILES, fold_folders, is_finished, read_config
from ser_lightning.runs.names import DEFAULT_ROW, RunName, trial_row
from ser_lightning.runs.predictions import Predictions, confusion, decision_scores
from ser_lightning.runs.summary import METRICS, OBJECTIVES, Scores, Statistics, validation_scores
from ser_lightning.training.wandb import PROJECT, run_options, wandb_mode, wandb_run_id, wandb_settings

_LOGGED_FILE = "wandb_summary.json"
AGENT_PARAMETERS = "WANDB_SWEEP_PARAM_PATH"  # set by W&B's agent: the file of a trial's parameters
_FOLD_COLUMNS = ("seed", "fold", "utterances", "best_epoch", "epochs", "seconds")


def log_summary_runs(seed_folders: Sequence[Path], failures: Collection[Path] = ()) -> None:
    """Write the summary run of each seed, unless W&B has it already or the folds were run without W&B.

    Under a W&B agent, one run holds the summary of all seeds. If folds failed, that run fails too and has no objective:
    a mean over the other folds is not comparable. If W&B does not start, there is a warning.

    Args:
        seed_folders: The seeds' folders; those without a validated fold are left out.
        failures: Folders of the jobs that did not finish.
    """
    by_seed = [folds for folder in seed_folders if (folds := _ValidatedFolds.read(folder))]
    found = [folds for folds in by_seed if not _is_turned_off(folds.first.folder)]
    if not found:
        return
    try:
        if AGENT_PARAMETERS in os.environ:
            together = _ValidatedFolds([fold for seed in found for fold in seed.folds])
            _log(together, None, failed=bool(failures))
            return
        for seed in found:
            numbers = json.dumps(seed.numbers())
            logged = seed.folder / _LOGGED_FILE
            if not logged.exists() or logged.read_text() != numbers:
                _log(seed, wandb_run_id(seed.folder))
                write_atomically(logged, numbers.encode())
    except Exception as error:  # W&B's own errors have no common base
        rank_zero_warn(f"the summary could not be written to W&B: {error}")


@dataclass(frozen=True)
class _Fold:
    """A validated fold; ``predictions`` holds the test set's, None if it is not tested."""

    folder: Path
    facts: RunFacts
    validation: Scores
    predictions: Predictions | None

    @property
    def test(self) -> Scores | None:
        return None if self.predictions is None else decision_scores(self.predictions)


@dataclass(frozen=True)
class _ValidatedFolds:
    """The validated folds of one seed or of several; at least one."""

    folds: list[_Fold]

    @classmethod
    def read(cls, seed_folder: Path) -> "_ValidatedFolds | None":
        found = []
        for folder in fold_folders(seed_folder):
            if is_finished(folder, tested=False):
                tested = folder / FILES["test"]
                predictions = Predictions.read(tested) if tested.exists() else None
                facts = RunFacts.read(folder / FACTS_FILE)
                found.append(_Fold(folder, facts, validation_scores(folder), predictions))
        return cls(found) if found else None

    @property
    def first(self) -> _Fold:
        """The first fold; its facts about the experiment hold for all."""
        return self.folds[0]

    @property
    def folder(self) -> Path:
        """The first seed's folder."""
        return self.first.folder.parent

    def numbers(self) -> dict[str, float]:
        """Return the numbers over all folds by W&B key."""
        found: dict[str, float] = {"cv/num_folds": len(self.folds)}
        found |= _statistics("validation", [fold.validation for fold in self.folds])
        if tested := [fold.test for fold in self.folds if fold.test is not None]:
            found["cv/num_folds_tested"] = len(tested)
            found |= _statistics("test", tested)
            names = self.first.facts.class_names
            matrices = [confusion(fold.predictions, names) for fold in self.folds if fold.predictions]
            pooled = torch.stack(matrices).sum(dim=0)
            found |= {f"cv/test_{name}_pooled": value.item() for name, value in scores(pooled).items()}
        return found

    def table(self) -> tuple[list[str | int], list[Iterable[Any]]]:
        """Return columns and rows of the table of folds."""
        columns: list[str | int] = [
            *_FOLD_COLUMNS,
            *(f"{stage}_{name}" for stage in ("validation", "test") for name in METRICS),
        ]
        rows: list[Iterable[Any]] = []
        for fold in self.folds:
            utterances = None if fold.predictions is None else len(fold.predictions.table)
            facts = fold.facts
            known = [facts.seed, facts.fold, utterances, facts.best_epoch, facts.epochs, facts.seconds]
            rows.append([*known, *fold.validation.values(), *(fold.test or dict.fromkeys(METRICS)).values()])
        return columns, rows


def _statistics(stage: str, several: Sequence[Scores]) -> dict[str, float]:
    """Return mean, standard deviation (ddof 0), minimum and maximum of scores over folds, by W&B key.

    Args:
        stage: ``validation`` or ``test``.
        several: The scores of each fold, at least one.
    """
    over = Statistics.over(several)
    spread = over.standard_deviation_ddof_0 or dict.fromkeys(METRICS, 0.0)
    kinds = {"mean": over.mean, "std": spread, "min": over.minimum, "max": over.maximum}
    return {f"cv/{stage}_{name}_{kind}": values[name] for name in METRICS for kind, values in kinds.items()}


def _is_turned_off(fold: Path) -> bool:
    """Whether a fold was run without W&B's logger."""
    return wandb_settings(read_config(fold, ("trainer.logger",))) is None


def _log(summary: _ValidatedFolds, run_id: str | None, failed: bool = False) -> None:
    """Write a summary into a W&B run.

    Args:
        summary: The folds.
        run_id: The run's id; None for the agent's run.
        failed: Whether folds are missing; the agent's run then has no objective.
    """
    facts = summary.first.facts
    name = RunName(facts.paper, facts.experiment, facts.corpus_name, facts.row, facts.seed, facts.fold)
    versions = {"protocol_hash": facts.protocol_hash, "code_version": facts.code_version}
    configuration = read_config(summary.first.folder)
    options = run_options(name, "summary", facts.protocol, wandb_settings(configuration))
    run = _start_run(
        **{**options, "config": {**configuration, **versions, **options["config"]}}, id=run_id, dir=summary.folder
    )
    exit_code = 1
    try:
        left_out = OBJECTIVES if failed else ()
        numbers = {key: value for key, value in summary.numbers().items() if key not in left_out}
        run.log({"cv/fold_count": len(summary.folds), **numbers, **_media(summary)})
        for key in set(left_out) & set(run.summary.keys()):  # logged after earlier folds
            del run.summary[key]
        exit_code = int(failed)
    finally:
        run.finish(exit_code=exit_code)


def _start_run(**options: Any) -> Any:
    """Start or resume a W&B run with the number of folds as its axis.

    Args:
        options: Further options of ``wandb.init``.
    """
    import wandb

    run = wandb.init(**{"settings": wandb.Settings(console="off", quiet=True), **options})
    run.define_metric("cv/fold_count")
    run.define_metric("cv/*", step_metric="cv/fold_count")
    return run


def _media(summary: _ValidatedFolds) -> dict[str, Any]:
    """Return the table of folds, and the pooled confusion matrix as chart and picture."""
    import wandb

    columns, rows = summary.table()
    found: dict[str, Any] = {"cv/folds": wandb.Table(columns=columns, data=rows)}
    class_names = list(summary.first.facts.class_names)
    index = {name: position for position, name in enumerate(class_names)}
    tables = [fold.predictions.table for fold in summary.folds if fold.predictions]
    if not tables:
        return found
    found["cv/confusion_matrix"] = wandb.plot.confusion_matrix(
        y_true=[index[name] for table in tables for name in table["target"]],
        preds=[index[name] for table in tables for name in table["predicted"]],
        class_names=class_names,
    )
    folders = list(dict.fromkeys(fold.folder.parent for fold in summary.folds))
    pictures = [wandb.Image(str(path)) for folder in folders if (path := folder / CONFUSION_PICTURE).exists()]
    if pictures:
        found["cv/confusion_picture"] = pictures if len(pictures) > 1 else pictures[0]
    return found


def agent_row(row: str | None) -> str | None:
    """Return the row of a W&B agent's trial, so that trials have separate folders; without an agent, ``row``.

    Args:
        row: The row that the user names, or None.
    """
    path = os.environ.get(AGENT_PARAMETERS)
    if path is None:
        return row
    content = read_mapping(Path(path), "file of W&B's parameters")
    parameters = {name: entry["value"] for name, entry in content.items() if isinstance(entry, dict)}
    return trial_row(parameters, row or DEFAULT_ROW)


@contextmanager
def report_to_agent(folds: Sequence[Path]) -> Iterator[Sequence[Observer]]:
    """Yield an observer that logs the mean validation scores to a W&B agent's trial after each fold.

    W&B may then terminate the trial early. Without an agent there is no observer. If W&B fails, there is a warning.

    Args:
        folds: Folders of the trial's folds.
    """
    run = _start_agents_run(folds[0].parent) if AGENT_PARAMETERS in os.environ else None
    if run is None:
        yield ()
        return
    found: dict[Path, Scores] = {}

    def log_fold(event: JobEvent) -> None:
        folder = event.job.folder
        if event.change not in (Change.FINISHED, Change.FOUND_DONE) or not is_finished(folder, tested=False):
            return
        try:
            found[folder] = validation_scores(folder)
            # The mean over all folds is logged at the end, with the other numbers.
            if event.change is Change.FINISHED and len(found) < len(folds):
                run.log({"cv/fold_count": len(found), **_statistics("validation", list(found.values()))})
        except Exception as error:  # W&B's own errors have no common base
            rank_zero_warn(f"{folder} could not be reported to W&B's agent: {error}")

    try:
        yield (log_fold,)
    finally:
        run.finish(exit_code=0 if all(is_finished(fold, tested=False) for fold in folds) else 1)


def _start_agents_run(folder: Path) -> Any:
    """Start the agent's run; return None, with a warning, if W&B does not start."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        project = os.environ.get("WANDB_PROJECT") or PROJECT
        return _start_run(project=project, mode=wandb_mode(), resume="allow", dir=folder)
    except Exception as error:  # W&B's own errors have no common base
        rank_zero_warn(f"W&B's agent does not get scores of single folds: {error}")
        return None
