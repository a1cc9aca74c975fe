"""What W&B's sweep agent is told of the trial that it has started ``ser cv`` for."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from lightning.pytorch.utilities import rank_zero_warn

from ser_lightning.cross_validation.objective import validation_scores
from ser_lightning.cross_validation.run_state import is_validated
from ser_lightning.cross_validation.search_space import trial_row
from ser_lightning.cross_validation.summary_run import AGENT_PARAMETERS, start_run, statistics

_LOOK_SECONDS = 5.0


def agents_row(row: str) -> str:
    """Return the row of a W&B agent's trial, so that trials do not share folders; without an agent, ``row`` itself.

    Args:
        row: What the user calls the row.
    """
    path = os.environ.get(AGENT_PARAMETERS)
    if path is None:
        return row
    content = yaml.safe_load(Path(path).read_text())
    return trial_row({name: entry["value"] for name, entry in content.items() if isinstance(entry, dict)}, row)


@contextmanager
def told_to_agent(folds: Sequence[Path]) -> Iterator[None]:
    """Tell the run of a W&B agent's trial what the folds score on average, whenever one of them ends.

    W&B may then terminate the trial early. Without an agent nothing is done.

    Args:
        folds: Folders of the trial's folds.
    """
    if AGENT_PARAMETERS not in os.environ:
        yield
        return
    try:
        folds[0].parent.mkdir(parents=True, exist_ok=True)
        run = start_run(dir=folds[0].parent)
    except Exception as error:  # W&B's own errors have no common base
        rank_zero_warn(f"W&B's agent is told nothing before the end: {error}")
        yield
        return
    ended = threading.Event()

    def tell() -> None:
        told = 0
        going_on = True
        while going_on:
            going_on = not ended.wait(_LOOK_SECONDS)
            validated = [validation_scores(fold) for fold in folds if is_validated(fold)]
            if told < len(validated) < len(folds):  # the whole is told at the end, with everything else
                told = len(validated)
                run.log({"cv/fold_count": told, **statistics("validation", validated)})

    thread = threading.Thread(target=tell, name="tells W&B's agent", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        run.finish(exit_code=0 if all(map(is_validated, folds)) else 1)
