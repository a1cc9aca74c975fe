"""What is shown of jobs while they run."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ser_lightning.jobs import progress as job_progress
from ser_lightning.jobs.plan import Job
from ser_lightning.jobs.progress import ProgressView, seconds_left


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
    (job.folder / "scores.json").write_text(json.dumps({"UA": score}))


def shown(view: ProgressView, width: int, height: int = 40) -> str:
    view.console = console = Console(file=io.StringIO(), width=width, height=height)
    with console.capture() as capture:
        console.print(view.render())
    return capture.get()


def left(view: ProgressView) -> float | None:
    return seconds_left(view._cells.values())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(job_progress.time, "monotonic", lambda: now[0])
    return now


def test_a_title_says_what_tells_a_job_from_the_others_and_no_more() -> None:
    def titles(*jobs: object) -> list[str]:
        return list(ProgressView(jobs, Console(quiet=True)).titles.values())  # type: ignore[arg-type]

    plain = jobs_of(Path("runs/ando2019/soft/iemocap/default"), 2)
    row = jobs_of(Path("runs/ando2019/soft/iemocap/soft_all"), 1, seeds=2, row="soft_all")
    assert titles(*plain) == ["fold-00", "fold-01"]
    assert titles(*row) == ["seed 0 fold-00", "seed 1 fold-00"]
    assert titles(*plain, row[0]) == ["soft fold-00", "soft fold-01", "soft_all fold-00"]


def test_the_table_has_a_cell_for_each_job_and_the_mean_test_score_of_each_rows_finished_folds(
    tmp_path: Path, clock: list[float]
) -> None:
    jobs = planned(tmp_path)
    view = ProgressView(jobs, Console(quiet=True))
    for job, score in ((jobs[0], 0.5), (jobs[1], 0.6)):
        view.begin(job)
        write_epochs(job, 0.1, 0.4)
        write_test_score(job, score)
        view.update()
        view.finish(job, "done")
    view.begin(jobs[2])
    view.update()
    assert "running" not in view.tally()  # handed over, but its process has not begun
    write_epochs(jobs[2], 0.3, 0.35, 0.2)
    clock[0] += 1
    view.update()
    view.finish(jobs[3], "failed")
    wide = shown(view, 120)
    first, second = (next(line for line in wide.splitlines() if name in line) for name in ("row0", "row1"))
    assert first.split() == ["row0", "50.0", "60.0", "3/10", "35.0", "55.0%"]
    assert second.split()[1:] == ["\N{MULTIPLICATION X}", "\N{MIDDLE DOT}", "\N{MIDDLE DOT}"]
    assert "2 of 6 done, 1 running, 1 failed" in wide
    short = next(line for line in shown(view, 40).splitlines() if "row0" in line)
    assert short.split() == ["row0", "50.0", "60.0", "30%", "55.0%"]
    marks = next(line for line in shown(view, 28).splitlines() if "row0" in line)
    assert marks.split() == ["row0", "\N{CHECK MARK}", "\N{CHECK MARK}", "\N{BLACK RIGHT-POINTING POINTER}", "55.0%"]
    assert "30 " not in marks


def test_the_table_never_outgrows_the_console_and_says_how_many_rows_it_hides(tmp_path: Path) -> None:
    jobs = planned(tmp_path, rows=30)
    view = ProgressView(jobs, Console(quiet=True))
    view.begin(jobs[-1])
    write_epochs(jobs[-1], 0.5)
    view.update()
    lines = shown(view, 80, height=16).splitlines()
    assert len(lines) <= 16
    assert any("row29" in line for line in lines), "the row at work is hidden"
    assert "18 more rows" in lines[-1]


def test_time_left_goes_by_the_pace_of_a_rows_epochs_and_by_how_many_its_finished_folds_took(
    tmp_path: Path, clock: list[float]
) -> None:
    jobs = planned(tmp_path, rows=1, folds=4)
    view = ProgressView(jobs, Console(quiet=True))
    assert left(view) is None
    view.begin(jobs[0])
    write_epochs(jobs[0])
    view.update()
    clock[0] += 20
    write_epochs(jobs[0], 0.1, 0.2, 0.3, 0.4)
    view.update()
    assert left(view) == pytest.approx(5 * (6 + 3 * 10))  # 5 s an epoch, ten epochs each as far as is known
    view.finish(jobs[0], "done")
    assert left(view) == pytest.approx(5 * 3 * 4)  # it stopped early at four
    for job in jobs[1:3]:
        view.begin(job)
        write_epochs(job, 0.1, 0.2, 0.3)
        view.update()
    clock[0] += 5
    rest = left(view)
    assert rest is not None
    assert rest < 5 * 3 * 4 / 2 + 5  # two at once


def test_jobs_of_one_plan_may_have_unlike_numbers_of_epochs(tmp_path: Path, clock: list[float]) -> None:
    short, long = planned(tmp_path, rows=2, folds=1)
    long = replace(long, max_epochs=40)
    view = ProgressView([short, long], Console(quiet=True))
    for job in (short, long):
        view.begin(job)
        write_epochs(job)
    view.update()
    clock[0] += 10
    for job in (short, long):
        write_epochs(job, *[0.1] * 5)
    view.update()
    lines = [line.split() for line in shown(view, 120).splitlines()]
    assert [line[1] for line in lines if line[0].startswith("row")] == ["5/10", "5/40"]
    assert left(view) == pytest.approx(2 * 35)  # the longer one's, at two seconds an epoch


def test_a_long_title_is_cut_before_a_number_is(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path / "row", 10, row="a row of which much can be said")
    view = ProgressView(jobs, Console(quiet=True))
    write_epochs(jobs[0], 0.5)
    write_test_score(jobs[0], 1.0)
    view.finish(jobs[0], "done")
    line = next(line for line in shown(view, 60).splitlines() if "a row" in line)
    assert "\N{HORIZONTAL ELLIPSIS}" in line
    assert line.rstrip().endswith("100.0%")


def test_a_resumed_job_is_not_taken_for_a_fast_one(tmp_path: Path, clock: list[float]) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    write_epochs(job, *[0.1] * 8)
    view = ProgressView([job], Console(quiet=True))
    view.begin(job)
    write_epochs(job, *[0.1] * 8)
    view.update()
    clock[0] += 30
    write_epochs(job, *[0.1] * 9, 0.2)
    view.finish(job, "failed")
    view.begin(job)
    assert view._cells[job.folder].epochs_before == 10


def test_brackets_in_a_rows_name_are_no_markup(tmp_path: Path) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    assert "[/x] [red]" in shown(ProgressView([replace(job, row="[/x] [red]")], Console(quiet=True)), 120)


def test_without_a_terminal_there_is_a_line_now_and_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1, max_epochs=100)
    with ProgressView([job], Console(width=160)) as view:
        view.begin(job)
        write_epochs(job)
        view.update()
        for epoch in range(1, 31):
            write_epochs(job, *[0.25] * epoch)
            view.update()
        write_test_score(job, 0.5)
        view.finish(job, "done")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "fold-00: starting"
    assert said[1] == "fold-00: epoch 10 of 100, validation UA 25.0% at best"
    assert [line.split()[2] for line in said[1:-1]] == ["10", "20", "30"]
    assert said[-1] == "fold-00: done, UA 50.0% (1 of 1 done)"


def test_pre_training_has_no_score_and_is_shown_all_the_same(tmp_path: Path) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    job.folder.mkdir(parents=True)
    view = ProgressView([job], Console(quiet=True))
    view.begin(job)
    (job.folder / "metrics.csv").write_text("epoch,step,train/loss\n0,1,0.5\n")
    (job.folder / "log.txt").touch()
    view.finish(job, "done")
    assert "\N{CHECK MARK}" in shown(view, 80)


def test_a_plan_of_nothing_is_shown_and_the_terminal_given_back(tmp_path: Path) -> None:
    file = io.StringIO()
    with ProgressView([], Console(file=file, force_terminal=True)) as view:
        view.update()
    assert "0 of 0 done" in file.getvalue()
    assert file.getvalue().rstrip().endswith("\x1b[?25h"), "the cursor is still hidden"


def test_the_terminal_is_given_back_where_the_last_drawing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    view = ProgressView(planned(tmp_path), Console(file=file, force_terminal=True))
    monkeypatch.setattr(view, "_draw", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError), view:
        pass
    assert file.getvalue().rstrip().endswith("\x1b[?25h")


@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), ValueError("half a line")])
def test_a_file_that_cannot_be_read_now_is_read_at_the_next_look(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    view = ProgressView([job], Console(quiet=True))
    view.begin(job)
    write_epochs(job, 0.1, 0.2)

    def fail(path: Path) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(job_progress.pd, "read_csv", fail)
        view.update()
    assert view._cells[job.folder].epochs == 0
    view.update()
    assert view._cells[job.folder].epochs == 2


@pytest.mark.parametrize("content", ['{"UA": 0.', "{}", "[]", '{"UA": null}'])
def test_scores_that_cannot_be_read_leave_a_job_done(content: str, tmp_path: Path) -> None:
    (job,) = planned(tmp_path, rows=1, folds=1)
    view = ProgressView([job], Console(quiet=True))
    write_epochs(job, 0.1)
    (job.folder / "scores.json").write_text(content)
    view.finish(job, "done")
    assert "1 of 1 done" in view.tally()
