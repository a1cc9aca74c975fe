"""What is shown of jobs while they run."""

import os
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ser_lightning.cross_validation.plan import Job, plan_folds
from ser_lightning.cross_validation.runner import ProgressView, run_jobs


def test_a_title_says_what_tells_a_job_from_the_others_and_no_more() -> None:
    def titles(*jobs: object) -> list[str]:
        return list(ProgressView(jobs, 1, Console(quiet=True)).titles.values())  # type: ignore[arg-type]

    plain = plan_folds(Path("x/soft.yaml"), [], [0, 1], [0], Path("runs/ando2019/soft/iemocap/default"))
    row = plan_folds(Path("x/soft.yaml"), [], [0], [0, 1], Path("runs/ando2019/soft/iemocap/soft_all"), "soft_all")
    assert titles(*plain) == ["fold-00", "fold-01"]
    assert titles(*row) == ["seed 0 fold-00", "seed 1 fold-00"]
    assert titles(*plain, row[0]) == ["soft fold-00", "soft fold-01", "soft_all fold-00"]


def test_a_job_whose_source_was_trained_anew_is_named_and_not_taken_for_done(tmp_path: Path) -> None:
    source, dependant = (Job(Path("x.yaml"), (), 0, 0, tmp_path / name) for name in ("source", "dependant"))
    dependant = replace(dependant, needs=(source.folder,))
    best = source.folder / "checkpoints" / "best.ckpt"
    best.parent.mkdir(parents=True)
    best.touch()
    dependant.folder.mkdir()
    for job in (source, dependant):
        for name in ("config.yaml", "predictions.csv", "run.json"):
            (job.folder / name).touch()
    assert run_jobs([source, dependant], 1, Console(quiet=True)) == {}
    os.utime(best, ns=(time.time_ns() + 10**9,) * 2)
    failures = run_jobs([source, dependant], 1, Console(quiet=True))
    assert list(failures) == [dependant.folder]
    assert "trained anew" in failures[dependant.folder]
