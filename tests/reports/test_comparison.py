"""A published table: ours beside the paper's, and what is said below it."""

from pathlib import Path

from rich.console import Console

from ser_lightning.reports.comparison import TableRow, comparison
from ser_lightning.reports.runs import find_cross_validations
from ser_lightning.reports.summary import summarize


def shown(*rows: TableRow) -> str:
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        for line in comparison("T", "iemocap", rows):
            console.print(line, highlight=False)
    return capture.get()


def line_of(name: str, text: str) -> str:
    return next(line for line in text.splitlines() if f" {name} " in line)


def test_the_number_of_parameters_stands_beside_what_the_paper_says_of_it(seed_folder: Path) -> None:
    ours = summarize(find_cross_validations([seed_folder]))
    text = shown(
        TableRow("baseline", {"UA": 62.3}, ours, "", "fewer than 360K"),
        TableRow("AMS", {"UA": 66.7}, None, "", "383K"),
        TableRow("FL", {"UA": 66.3}, None, ""),
    )
    assert "baseline, trainable parameters: ours 1,234,567; paper fewer than 360K\n" in text
    assert "AMS, trainable parameters: ours not run; paper 383K\n" in text
    assert text.count("trainable parameters") == 2


def test_a_row_is_quoted_only_if_there_is_nothing_to_run() -> None:
    text = shown(
        TableRow("LSTM", {"UA": 57.1}, None, "of another paper", quoted=True),
        TableRow("FL", {"UA": 66.3}, None, "alpha hardly matters"),
    )
    assert "quoted" in line_of("LSTM", text)
    assert "not run" in line_of("FL", text)
    assert "FL: alpha hardly matters\n" in text
