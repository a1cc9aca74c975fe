"""The figure of emotions over time."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.patches import StepPatch

from ser_lightning.reports.figures import png
from ser_lightning.reports.time_figures import Timeline, timeline_figure

NAMES = ("neutral", "happy", "sad")
PAUSE = Timeline(
    name="talk.wav",
    seconds=5.0,
    starts=[0, 1, 2, 3],
    ends=[2, 3, 4, 5],
    probabilities=[(0.7, 0.2, 0.1), (0.1, 0.6, 0.3), None, (0.2, 0.3, 0.5)],
    decided=[0, 1, None, 2],
    windows="2 s, 1 s apart",
)


def test_rows_are_emotions_and_columns_windows() -> None:
    figure = timeline_figure([PAUSE], NAMES)
    axes = figure.axes[0]
    (mesh,) = (child for child in axes.get_children() if isinstance(child, QuadMesh))
    shares = np.ma.getdata(mesh.get_array())
    assert shares[:, 1].tolist() == [0.1, 0.6, 0.3]
    assert np.ma.getmaskarray(mesh.get_array()).all(axis=0).tolist() == [False, False, True, False]
    assert mesh.get_coordinates()[0, :, 0].tolist() == [0, 1.5, 2.5, 3.5, 5]  # type: ignore[attr-defined]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(NAMES)
    assert axes.get_ylim() == (2.5, -0.5)
    (line,) = (child for child in axes.get_children() if isinstance(child, StepPatch))
    np.testing.assert_array_equal(line.get_data().values, [0, 1, np.nan, 2])


def test_adjacent_windows_are_drawn_unchanged() -> None:
    talk = replace(PAUSE, seconds=8.1, starts=[0, 4, 8], ends=[4, 8, 8.1], probabilities=[None] * 3, decided=[0, 1, 2])
    (axes, _) = timeline_figure([talk], NAMES).axes
    (line,) = (child for child in axes.get_children() if isinstance(child, StepPatch))
    assert line.get_data().edges.tolist() == pytest.approx([0, 4, 8, 8.1])


def test_the_edge_of_the_last_window_is_the_middle_of_the_overlap() -> None:
    talk = replace(PAUSE, seconds=4.2, ends=[2, 3, 4, 4.2])
    (axes, _) = timeline_figure([talk], NAMES).axes
    (line,) = (child for child in axes.get_children() if isinstance(child, StepPatch))
    assert line.get_data().edges.tolist() == pytest.approx([0, 1.5, 2.5, 3.5, 4.2])


@pytest.mark.parametrize("count", [1, 3])
def test_every_recording_has_a_panel(count: int) -> None:
    figure = timeline_figure([PAUSE] * count, NAMES)
    assert [axes.get_title(loc="left") for axes in figure.axes[:count]] == ["talk.wav"] * count
    assert len(figure.axes) == count + 1  # and the scale
    assert png(figure).startswith(b"\x89PNG")
