"""Figures of several systems."""

import pytest
from matplotlib.figure import Figure

from ser_lightning.reports.figures import COLOURS, MARKS, MAX_SYSTEMS_PER_FIGURE, png, recall_figure, systems_figure
from ser_lightning.reports.uncertainty import Estimate


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_each_system_has_its_colour_and_mark() -> None:
    assert len(set(COLOURS)) == len(set(MARKS)) == len(COLOURS) == len(MARKS) == MAX_SYSTEMS_PER_FIGURE
    scores = {f"system {n}": {"01": 0.1 * n, "02": 0.5} for n in range(MAX_SYSTEMS_PER_FIGURE)}
    figure = systems_figure(scores, "Speakers", 1 / 8, "speakers")
    drawn = [line for line in figure.axes[0].lines if str(line.get_label()).startswith("system")]
    assert [(line.get_color(), line.get_marker()) for line in drawn] == list(zip(COLOURS, MARKS, strict=True))


def test_the_best_is_on_top_and_a_missing_fold_is_a_gap() -> None:
    scores = {"a": {"fold 0": 0.2, "fold 1": 0.8, "fold 2": 0.5}, "b": {"fold 1": 0.6}}
    figure = systems_figure(scores, "Folds", 0.25, "folds")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["fold 0", "fold 2", "fold 1"]
    assert {"a: mean 50.0% of 3 folds", "b: mean 60.0% of 1 fold", "chance 25%"} == set(_legend(figure))


def test_recalls_are_drawn_with_existing_intervals() -> None:
    known, unknown = Estimate(0.5, 0.4, 0.6, 9), Estimate(0.9, None, None, 3, "few")
    absent = Estimate(float("nan"), None, None, 0, "no utterance")
    figure = recall_figure({"a $x$": [known, unknown, absent], "b": [known] * 3}, ("sad", "calm", "happy"), "Recall")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["happy", "calm", "sad"]
    assert len(axes.collections) == 4
    assert sorted(line.get_xdata()[0] for line in axes.lines) == pytest.approx([50, 50, 50, 50, 90])
    assert len(_legend(figure)) == 2
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("systems", range(2, MAX_SYSTEMS_PER_FIGURE + 1))
def test_a_single_fold_leaves_room_for_the_legend(systems: int) -> None:
    figure = systems_figure({f"system {n}": {"fold 0": 0.5} for n in range(systems)}, "Folds", 0.25, "folds")
    assert png(figure).startswith(b"\x89PNG")
    assert figure.axes[0].get_window_extent().height > 20
