"""The live progress of jobs."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from ser_lightning.jobs import progress as job_progress
from ser_lightning.jobs.live_table import JobTable
from ser_lightning.jobs.plan import Change, Job, JobEvent
from ser_lightning.jobs.progress import seconds_left


def planned(folder: Path, rows: int = 2, folds: int = 3, max_epochs: int = 10) -> list[Job]:
    return [
        replace(job, max_epochs=max_epochs)
        for row in range(rows)
        for job in jobs_of(folder / f"row{row}", folds, row=f"row{row}")
    ]


def jobs_of(row_folder: Path, folds: int, seeds: int = 1, row: str = "default") -> list[Job]:
    return [
        Job(row_folder / f"seed-{seed}" / f"fold-{fold:02d}", {}, "soft", row, fold, seed)
        for seed in range(seeds)
        for fold in range(folds)
    ]


def write_epochs(job: Job, *scores: float) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{epoch},{epoch},{score}\n" for epoch, score in enumerate(scores))
    (job.folder / "metrics.csv").write_text(f"epoch,step,validation/UA\n{rows}")
    with (job.folder / "log.txt").open("a") as log:
        log.write("something\n")


def write_test_score(job: Job, score: float) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "scores.json").write_text(json.dumps({"UA": score}))


def terminal(width: int = 160, height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height)


def shown(table: JobTable, console: Console) -> list[str]:
    """Return the table's lines in a terminal."""
    table.poll()
    with console.capture() as capture:
        console.print(table.progress)
    return capture.get().splitlines()


def left(table: JobTable) -> float | None:
    return seconds_left(table._jobs.values())


def start(table: JobTable, *jobs: Job) -> None:
    for job in jobs:
        table(JobEvent(job, Change.STARTED))


def finish(table: JobTable, job: Job) -> None:
    table(JobEvent(job, Change.FINISHED, "done"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(job_progress.time, "monotonic", lambda: now[0])
    return now


def test_titles_hold_only_what_differs_between_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    def titles(*jobs: Job) -> list[str]:
        table = JobTable(jobs, Console(width=100))
        for job in jobs:
            table(JobEvent(job, Change.NOT_STARTED, "refused"))
        return [line.removesuffix(": refused") for line in capsys.readouterr().out.splitlines()]

    plain = jobs_of(Path("runs/ando2019/soft/iemocap/default"), 2)
    row = jobs_of(Path("runs/ando2019/soft/iemocap/soft_all"), 1, seeds=2, row="soft_all")
    assert titles(*plain) == ["fold-00", "fold-01"]
    assert titles(*row) == ["seed 0 fold-00", "seed 1 fold-00"]
    assert titles(*plain, row[0]) == ["soft fold-00", "soft fold-01", "soft_all fold-00"]


def test_a_row_shows_its_folds_epochs_scores_and_failures(tmp_path: Path, clock: list[float]) -> None:
    jobs = planned(tmp_path)
    console = terminal()
    table = JobTable(jobs, console)
    for job, score in ((jobs[0], 0.5), (jobs[1], 0.6)):
        start(table, job)
        write_epochs(job, 0.1, 0.4)
        write_test_score(job, score)
        finish(table, job)
    start(table, jobs[2])
    assert "running" not in table.tally()  # handed to the engine, but its process has not started
    assert "fold 2" not in "".join(shown(table, console))
    write_epochs(jobs[2], 0.3, 0.35, 0.2)
    clock[0] += 1
    table(JobEvent(jobs[3], Change.FAILED, "failed"))
    first, second, total = shown(table, console)
    assert first.startswith("row0")
    for part in ("2/3 done", "fold 2: 3/10 35.0%", "UA 55.0%"):
        assert part in first
    assert "0/3 done 1 failed" in second
    assert total.startswith("all 2 rows")
    assert "2/6 done 1 failed" in total
    assert "1 running" in total


def test_found_folds_count_in_the_rows_score(tmp_path: Path) -> None:
    jobs = planned(tmp_path, rows=1)
    console = terminal()
    table = JobTable(jobs, console)
    write_test_score(jobs[0], 0.5)
    table(JobEvent(jobs[0], Change.FOUND_DONE, "already done"))
    (line,) = shown(table, console)
    assert "1/3 done" in line
    assert "UA 50.0%" in line


def test_the_table_never_outgrows_the_console(tmp_path: Path) -> None:
    jobs = planned(tmp_path, rows=30)
    console = terminal(80, height=16)
    table = JobTable(jobs, console)
    start(table, jobs[-1])
    write_epochs(jobs[-1], 0.5)
    lines = shown(table, console)
    assert len(lines) <= 16
    assert any("row29" in line for line in lines), "the running row is hidden"
    assert lines[-1].startswith("all 30 rows")


def test_time_left_follows_a_rows_pace_and_finished_folds(tmp_path: Path, clock: list[float]) -> None:
    jobs = planned(tmp_path, rows=1, folds=4)
    table = JobTable(jobs, Console(quiet=True))
    assert left(table) is None
    start(table, jobs[0])
    write_epochs(jobs[0])
    table.poll()
    clock[0] += 20
    write_epochs(jobs[0], 0.1, 0.2, 0.3, 0.4)
    table.poll()
    assert left(table) == pytest.approx(5 * (6 + 3 * 10))  # 5 s per epoch, at most ten epochs per job
    finish(table, jobs[0])
    assert left(table) == pytest.approx(5 * 3 * 4)  # it stopped early after four epochs
    for job in jobs[1:3]:
        start(table, job)
        write_epochs(job, 0.1, 0.2, 0.3)
        table.poll()
    clock[0] += 5
    rest = left(table)
    assert rest is not None
    assert rest < 5 * 3 * 4 / 2 + 5  # two at once


def test_rows_may_differ_in_their_number_of_epochs(tmp_path: Path, clock: list[float]) -> None:
    short, long = planned(tmp_path, rows=2, folds=1)
    long = replace(long, max_epochs=40)
    console = terminal()
    table = JobTable([short, long], console)
    start(table, short, long)
    for job in (short, long):
        write_epochs(job)
    table.poll()
    clock[0] += 10
    for job in (short, long):
        write_epochs(job, *[0.1] * 5)
    first, second, total = shown(table, console)
    assert "5/10" in first
    assert "5/40" in second
    assert left(table) == pytest.approx(2 * 35)  # the longer job's epochs, at 2 s each
    assert [line.split()[-3:] for line in (first, second, total)] == [[t, "s", "left"] for t in ("10", "70", "70")]


def test_a_long_title_is_cut_before_a_number_is(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path / "row", 10, row="a row with a very long name, " * 2)
    console = terminal(60)
    table = JobTable(jobs, console)
    write_test_score(jobs[0], 1.0)
    finish(table, jobs[0])
    (line,) = shown(table, console)
    assert line.startswith("a row")
    assert "\N{HORIZONTAL ELLIPSIS}" in line
    assert "1/10 done" in line
    assert line.rstrip().endswith("100.0%")


def test_epochs_before_a_resume_do_not_count_as_fast(tmp_path: Path, clock: list[float]) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    write_epochs(job, *[0.1] * 4)
    table = JobTable([job], Console(quiet=True))
    start(table, job)
    write_epochs(job, *[0.1] * 4)
    table.poll()
    clock[0] += 30
    write_epochs(job, *[0.1] * 5)
    table.poll()
    assert left(table) == pytest.approx(30 * 5)
    table(JobEvent(job, Change.RETRIED, "failed, will be retried"))
    start(table, job)
    write_epochs(job, *[0.1] * 5)
    table.poll()
    assert left(table) is None, "no epoch of the second attempt was measured"


def test_brackets_in_a_rows_name_are_not_markup(tmp_path: Path) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    console = terminal()
    assert "[/x] [red]" in shown(JobTable([replace(job, row="[/x] [red]")], console), console)[0]


def test_without_a_terminal_there_are_ten_lines_per_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1, max_epochs=100)
    with JobTable([job], Console(width=160)) as table:
        start(table, job)
        write_epochs(job)
        table.poll()
        for epoch in range(1, 31):
            write_epochs(job, *[0.25] * epoch)
            table.poll()
        write_test_score(job, 0.5)
        finish(table, job)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "fold-00: starting: imports, features, epoch 1"
    assert said[1] == "fold-00: epoch 10 of 100, best validation UA 25.0%"
    assert [line.split()[2] for line in said[1:-1]] == ["10", "20", "30"]
    assert said[-1] == "fold-00: done, UA 50.0% (1 of 1 done)"


def test_retries_and_resumes_are_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    table = JobTable([job], Console(width=160))
    start(table, job)
    write_epochs(job, 0.1, 0.2)
    table(JobEvent(job, Change.RETRIED, "failed (exit status 3), will be retried"))
    start(table, job)
    write_epochs(job, 0.1, 0.2)
    table.poll()
    table(JobEvent(job, Change.FAILED, "failed"))
    assert capsys.readouterr().out.splitlines() == [
        "fold-00: failed (exit status 3), will be retried",
        "fold-00: resumes after epoch 2",
        "fold-00: failed, best validation UA 20.0% (0 of 1 done, 1 failed)",
    ]


def test_pre_training_is_shown_without_a_score(tmp_path: Path) -> None:
    (fold,) = planned(tmp_path, rows=1, folds=1)
    job = replace(fold, fold=None, folder=fold.folder.with_name("once"))
    job.folder.mkdir(parents=True)
    console = terminal()
    table = JobTable([job], console)
    start(table, job)
    (job.folder / "metrics.csv").write_text("epoch,step,train/loss\n0,1,0.5\n")
    (job.folder / "log.txt").write_text("something")
    table.poll()
    assert "once: 1/10" in shown(table, console)[0]
    finish(table, job)
    (line,) = shown(table, console)
    assert "1/1 done" in line
    assert "UA" not in line


def test_an_empty_plan_restores_the_terminal() -> None:
    file = io.StringIO()
    with JobTable([], Console(file=file, force_terminal=True)) as table:
        table.poll()
    assert "0/0 done" in file.getvalue()
    assert file.getvalue().rstrip().endswith("\x1b[?25h"), "the cursor is still hidden"


def test_a_failing_last_draw_restores_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    table = JobTable(planned(tmp_path), Console(file=file, force_terminal=True))
    monkeypatch.setattr(table, "_draw", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError), table:
        pass
    assert file.getvalue().rstrip().endswith("\x1b[?25h")


@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), ValueError("half a line")])
def test_an_unreadable_metrics_file_is_read_at_the_next_poll(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    console = terminal()
    table = JobTable([job], console)
    start(table, job)
    write_epochs(job, 0.1, 0.2)

    def fail(path: Path) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(pd, "read_csv", fail)
        assert "0/10" in shown(table, console)[0]
    assert "2/10" in shown(table, console)[0]


@pytest.mark.parametrize("content", ['{"UA": 0.', "{}", "[]", '{"UA": null}'])
def test_unreadable_scores_leave_a_job_done(content: str, tmp_path: Path) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    table = JobTable([job], Console(quiet=True))
    write_epochs(job, 0.1)
    (job.folder / "scores.json").write_text(content)
    finish(table, job)
    assert "1 of 1 done" in table.tally()
