"""What the database keeps with a trial, in the words of the suite."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from ser_lightning.cross_validation.search_space import flatten, trial_row
from ser_lightning.reports.trials import COMPLETE, TrialRecord

# Names of what is kept.
PARAMETERS, REASON = "parameters", "reason"
FAILED = "failed"
_STATES = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: FAILED,
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def same(trial: FrozenTrial, parameters: Mapping[str, Any]) -> bool:
    """Whether a trial has these parameters."""
    theirs = trial.user_attrs.get(PARAMETERS)
    return theirs is not None and trial_row(theirs) == trial_row(parameters)


def parameters_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's parameters: value by LightningCLI's key; none of one that has not begun."""
    return dict(flatten(trial.user_attrs.get(PARAMETERS, {})))


def record_of(trial: FrozenTrial, row: str) -> TrialRecord:
    """Return a trial as reports show it.

    Args:
        trial: The trial.
        row: What the user calls the sweep, or the default.
    """
    parameters = parameters_of(trial)
    objective = trial.value if trial.state is TrialState.COMPLETE else None
    if trial.state is TrialState.PRUNED and trial.intermediate_values:
        objective = trial.intermediate_values[max(trial.intermediate_values)]
    return TrialRecord(
        number=trial.number,
        parameters=parameters,
        state=_STATES[trial.state],
        objective=objective,
        row=trial_row(parameters, row) if parameters else "",
        note=str(trial.user_attrs.get(REASON, "")),
    )
