"""What is shown of jobs while they run."""

from pathlib import Path

from rich.console import Console

from ser_lightning.cross_validation.plan import plan_folds
from ser_lightning.cross_validation.runner import ProgressView


def test_a_title_says_what_tells_a_job_from_the_others_and_no_more() -> None:
    def titles(*jobs: object) -> list[str]:
        return list(ProgressView(jobs, 1, Console(quiet=True)).titles.values())  # type: ignore[arg-type]

    plain = plan_folds(Path("x/soft.yaml"), [], [0, 1], [0], Path("runs/ando2019/soft/iemocap/default"))
    row = plan_folds(Path("x/soft.yaml"), [], [0], [0, 1], Path("runs/ando2019/soft/iemocap/soft_all"), "soft_all")
    assert titles(*plain) == ["fold-00", "fold-01"]
    assert titles(*row) == ["seed 0 fold-00", "seed 1 fold-00"]
    assert titles(*plain, row[0]) == ["soft fold-00", "soft fold-01", "soft_all fold-00"]
