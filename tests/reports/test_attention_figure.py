"""The figure of attention over time."""

from dataclasses import replace

import pytest
import torch
from matplotlib.patches import StepPatch

from ser_lightning.reports.figures import png
from ser_lightning.reports.time_figures import SystemAttention, UtteranceAttention, attention_figure


def utterance(name: str, seconds: float) -> UtteranceAttention:
    return UtteranceAttention(
        name=name,
        seconds=seconds,
        power=torch.rand(int(100 * seconds), 20),
        max_frequency_hz=4000.0,
        attended=[
            SystemAttention("MLEE", "sad 61%", torch.tensor([0.1, 0.6, 0.2, 0.1]), seconds / 5),
            SystemAttention("costs $5 to $6", "happy 40%", torch.full((10,), 0.1), seconds / 10),
        ],
    )


def test_columns_are_utterances_and_rows_are_systems() -> None:
    figure = attention_figure([utterance("a", 1.5), utterance("b", 2.0)])
    titles = [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["a", "b", *["MLEE: sad 61%"] * 2, *[r"costs \$5 to \$6: happy 40%"] * 2]
    assert [axes.get_xlim()[1] for axes in figure.axes[:2]] == [1.5, 2.0]


def test_attention_is_a_multiple_of_uniform_attention() -> None:
    figure = attention_figure([utterance("a", 1.5)])
    _, peaked, even = figure.axes
    (_, line) = (patch for patch in peaked.patches if isinstance(patch, StepPatch))
    assert line.get_data().values.tolist() == pytest.approx([0.4, 2.4, 0.8, 0.4])
    assert line.get_data().edges.tolist() == pytest.approx([0, 0.3, 0.6, 0.9, 1.2])
    assert peaked.get_ylim()[1] > 2.4
    assert even.patches[-1].get_data().values.tolist() == pytest.approx([1.0] * 10)  # type: ignore[attr-defined]


def test_a_panel_gives_the_share_of_attention_on_padding() -> None:
    weights = torch.tensor([0.2, 0.1, 0.25, 0.4, 0.05])
    for step_seconds, share in ((0.3, ""), (0.4, "5%"), (0.5, "45%"), (0.75, "70%"), (3.2, "80%")):
        padded = SystemAttention("padded", "sad 61%", weights, step_seconds)
        panel = attention_figure([replace(utterance("a", 1.5), attended=[padded])]).axes[1]
        line = f"\n{share} of the attention is on padding after the end" if share else ""
        assert panel.get_title(loc="left") == f"padded: sad 61%{line}"
        assert panel.get_xlim()[1] == 1.5


def test_the_figure_is_a_png() -> None:
    content = png(attention_figure([utterance("a" * 60, 0.4)]))
    assert content.startswith(b"\x89PNG")


def test_clusters_have_a_row_each_and_ghosts_one_together() -> None:
    shares = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.0, 0.25, 0.5, 0.25]])
    attended = [SystemAttention("S3", "sad 61%", shares, 0.16, ghosts=2)]
    figure = attention_figure([replace(utterance("a", 0.3), attended=attended)])
    axes = figure.axes[1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "ghosts"]
    clusters, ghosts = axes.collections
    assert clusters.get_array().tolist() == [pytest.approx([0.5, 0.0]), pytest.approx([0.2, 0.25])]
    assert ghosts.get_array().tolist() == [pytest.approx([0.3, 0.75])]
    assert clusters.get_coordinates()[0, :, 0].tolist() == pytest.approx([0.0, 0.16, 0.32])
    assert axes.get_xlim() == (0, 0.3)  # the last step is longer than the utterance
