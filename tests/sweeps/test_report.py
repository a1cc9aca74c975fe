"""A sweep's trials as a table and as a picture."""

from rich.console import Console

from ser_lightning.sweeps.report import TrialRecord, parameter_figure, short_names, trials_table, varied_parameters

RATE, SIZE, KIND, FIXED = "model.init_args.optimizer.init_args.lr", "model.cells", "model.class_path", "data.batch_size"
RECORDS = [
    TrialRecord(0, {RATE: 1e-4, SIZE: 8, KIND: "a", FIXED: 1}, "complete", 0.5, "trial-0"),
    TrialRecord(1, {RATE: 1e-2, SIZE: 16, KIND: "b", FIXED: 1}, "complete", 0.75, "trial-1"),
    TrialRecord(2, {RATE: 1e-3, SIZE: 16, KIND: "b", FIXED: 1}, "stopped early", 0.9, "trial-2"),
    TrialRecord(3, {RATE: 2e-3, SIZE: 8, KIND: "a", FIXED: 1}, "failed", None, "trial-3", "fold-01: exit status 1"),
    TrialRecord(4, {}, "waiting", None),
]


def test_only_varied_parameters_are_shown_by_unique_names() -> None:
    assert varied_parameters(RECORDS) == [RATE, SIZE, KIND]
    assert short_names(["a.init_args.x", "b.init_args.x", "c.y"]) == {
        "a.init_args.x": "a.x",
        "b.init_args.x": "b.x",
        "c.y": "y",
    }


def test_the_table_shows_the_best_first_and_failure_reasons() -> None:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(trials_table("title", "score", RECORDS, 1))
    lines = [line.split("│") for line in captured.get().splitlines() if "│" in line]
    assert [line[1].strip() for line in lines] == ["1", "0", "2", "3", "4"]
    assert [line[5].strip() for line in lines] == ["75.00", "50.00", "90.00", "", ""]
    assert [line[6].strip() for line in lines] == [
        "best",
        "complete",
        "stopped early",
        "failed: fold-01: exit status 1",
        "waiting",
    ]


def test_brackets_are_not_markup() -> None:
    console = Console(width=160)
    record = TrialRecord(0, {RATE: 1.0, KIND: "[/b]"}, "failed", None, "row", "[/x] is missing")
    with console.capture() as captured:
        console.print(trials_table("sweep [a]", "score", [record, RECORDS[0]], None), markup=False)
    assert all(part in captured.get() for part in ("sweep [a]", "[/b]", "failed: [/x] is missing"))


def test_the_picture_has_an_axis_for_each_parameter() -> None:
    figure = parameter_figure("title", "score", RECORDS, 1, [RATE])
    rate, size, kind = [axes for axes in figure.axes if axes.get_visible()]
    assert (rate.get_xscale(), size.get_xscale()) == ("log", "linear")
    assert [label.get_text() for label in size.get_xticklabels()] == ["8", "16"]
    assert [label.get_text() for label in kind.get_xticklabels()] == ["a", "b"]
    drawn = {label: line.get_xydata().tolist() for line in rate.lines if (label := str(line.get_label()))}
    assert drawn["all folds"] == [[1e-4, 50.0], [1e-2, 75.0]]
    assert drawn["stopped early"] == [[1e-3, 90.0]]
    assert drawn["best"] == [[1e-2, 75.0]]
