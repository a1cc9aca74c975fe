"""Jobs and their order."""

from dataclasses import replace
from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.jobs.plan import Job, parse_numbers, sort_by_dependency, write_configurations

JOB = Job(Path("a"), {"seed_everything": 3}, "x", "default", fold=0, seed=0)


def test_a_job_runs_the_file_in_its_folder() -> None:
    assert JOB.command() == ["run-fold", "--config=a/config.yaml"]
    assert replace(JOB, tested=False, allow=("mine", "ours")).command() == [
        *("run-fold", "--config=a/config.yaml", "--no-test", "--allow=mine", "--allow=ours")
    ]


def test_unfinished_jobs_get_their_configuration(tmp_path: Path) -> None:
    done, other = (replace(JOB, folder=tmp_path / name) for name in ("done", "other"))
    done.folder.mkdir()
    for name in ("predictions.csv", "run.json"):
        (done.folder / name).touch()
    write_configurations([done, other])
    assert not (done.folder / "config.yaml").exists()
    assert (other.folder / "config.yaml").read_text() == "seed_everything: 3\n"


def test_jobs_follow_their_dependencies_and_keep_their_order() -> None:
    b, c = replace(JOB, folder=Path("b"), needs=(Path("c"),)), replace(JOB, folder=Path("c"))
    assert [job.folder.name for job in sort_by_dependency([b, JOB, c])] in (["a", "c", "b"], ["c", "a", "b"])
    assert sort_by_dependency([c, JOB]) == [c, JOB]


def test_an_unplanned_dependency_and_a_cycle_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"a .*z"):
        sort_by_dependency([replace(JOB, needs=(Path("z"),))])
    with pytest.raises(ConfigurationError, match=r"a -> b|b -> a"):
        sort_by_dependency([replace(JOB, needs=(Path("b"),)), replace(JOB, folder=Path("b"), needs=(Path("a"),))])


def test_lists_of_numbers_and_ranges_are_read() -> None:
    assert parse_numbers("0,3-5, 4", "--folds") == [0, 3, 4, 5]
    assert parse_numbers("4294967295", "--seeds", 4294967295) == [4294967295]
    for wrong in ("a", "5-3", "1,", "-1", "\u00b2", "9" * 5000, "4294967296", "0-4294967295"):
        with pytest.raises(ConfigurationError, match=f"^--seeds {wrong}: "):
            parse_numbers(wrong, "--seeds", 4294967295)
