"""The planner."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Job, in_order, parse_numbers, plan_folds, write_plan

JOB = Job(Path("x.yaml"), (), 0, 0, Path("a"))


def test_a_plan_has_one_job_for_each_seed_and_fold_each_with_its_own_folder() -> None:
    jobs = plan_folds(Path("x.yaml"), ["--trainer.max_epochs=2"], [0, 3], [0, 1], Path("runs/x"))
    assert [job.folder.as_posix() for job in jobs] == [
        "runs/x/seed-0/fold-00",
        "runs/x/seed-0/fold-03",
        "runs/x/seed-1/fold-00",
        "runs/x/seed-1/fold-03",
    ]
    assert jobs[3].command() == [
        "run-fold",
        "--row",
        "default",
        "--config=x.yaml",
        "--trainer.max_epochs=2",
        "--data.init_args.fold=3",
        "--seed_everything=1",
        "--trainer.default_root_dir=runs/x/seed-1/fold-03",
    ]


def test_a_job_independent_of_folds_names_none() -> None:
    assert not [argument for argument in replace(JOB, fold=None).command() if "fold=" in argument]


def test_jobs_come_behind_those_they_need_and_else_keep_their_order() -> None:
    b, c = replace(JOB, folder=Path("b"), needs=(Path("c"),)), replace(JOB, folder=Path("c"))
    assert [job.folder.name for job in in_order([b, JOB, c])] in (["a", "c", "b"], ["c", "a", "b"])
    assert in_order([c, JOB]) == [c, JOB]


def test_a_need_outside_the_plan_and_a_circle_are_named() -> None:
    with pytest.raises(ConfigurationError, match="a needs z"):
        in_order([replace(JOB, needs=(Path("z"),))])
    with pytest.raises(ConfigurationError, match=r"circle.*a"):
        in_order([replace(JOB, needs=(Path("b"),)), replace(JOB, folder=Path("b"), needs=(Path("a"),))])


def test_the_plan_on_disk_keeps_what_was_planned_before(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    jobs = plan_folds(Path("x.yaml"), [], [0, 1, 2], [0], Path("runs/x"))
    write_plan(jobs[1:], path)
    write_plan([replace(jobs[1], max_epochs=7), jobs[0]], path)
    entries = json.loads(path.read_text())
    assert [(entry["fold"], entry["max_epochs"]) for entry in entries] == [(0, 1), (1, 7), (2, 1)]


@pytest.mark.parametrize("content", ['[{"folder": "ru', "3", "[3]", "[{}]"])
def test_a_damaged_plan_is_named_with_the_way_out(content: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"plan.json is no plan of jobs .*; delete it"):
        write_plan([Job(Path("x.yaml"), (), 0, 0, tmp_path)], path)
    assert path.read_text() == content


def test_lists_of_numbers_and_ranges_are_read() -> None:
    assert parse_numbers("0,3-5, 4", "--folds") == [0, 3, 4, 5]
    for wrong in ("a", "5-3", "1,", "-1"):
        with pytest.raises(ConfigurationError, match=f"^--seeds {wrong}: '.*' is neither a number nor a range"):
            parse_numbers(wrong, "--seeds")
