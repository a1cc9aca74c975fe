"""Picture of emotions over time: how probable each is in every window of a recording."""
# Shapes: W windows, C classes.

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ser_lightning.reports.figures import GREY, ORANGE, plain, tidy

MOST_TIMELINES = 12  # more are no picture any more


@dataclass(frozen=True)
class Timeline:
    """What was heard in one recording.

    Attributes:
        name: What the recording is called.
        seconds: How long it lasts.
        starts: Where each window begins [W], in seconds.
        ends: Where each window ends [W].
        probabilities: Of each class in each window [W][C]; None of digital silence.
        decided: Class decided on in each window [W]; None of digital silence.
        windows: How the recording was cut, in words.
    """

    name: str
    seconds: float
    starts: Sequence[float]
    ends: Sequence[float]
    probabilities: Sequence[Sequence[float] | None]
    decided: Sequence[int | None]
    windows: str


def timeline_figure(timelines: Sequence[Timeline], class_names: Sequence[str]) -> Figure:
    """Draw a panel for each recording: a row for each emotion, darker where it is more probable.

    A window that overlaps its neighbours is drawn up to the middle of what they share with it. A line follows the
    emotion decided on. Where there is digital silence, there is nothing.

    Args:
        timelines: At least one.
        class_names: The emotions, C of them.
    """
    height = 1.0 + 0.28 * len(class_names)
    figure = Figure(figsize=(9.5, 0.9 + height * len(timelines)), layout="constrained")
    panels = figure.subplots(len(timelines), 1, squeeze=False)[:, 0]
    for axes, timeline in zip(panels, timelines, strict=True):
        _draw(axes, timeline, class_names)
    panels[-1].set_xlabel("seconds", fontsize=12)
    scale = ScalarMappable(Normalize(0, 1), matplotlib.colormaps["Blues"])
    bar = figure.colorbar(scale, ax=list(panels), shrink=min(1.0, 3 / (height * len(timelines))), aspect=14, pad=0.015)
    bar.set_label("probability", fontsize=11)
    bar.outline.set_visible(False)
    figure.supxlabel(
        f"Windows of {timelines[0].windows}; the line is what the system decides for.", size=11, color=GREY
    )
    return figure


def _draw(axes: Axes, timeline: Timeline, class_names: Sequence[str]) -> None:
    edges = _edges(timeline)
    shares = np.full((len(class_names), len(timeline.starts)), np.nan)
    for window, probabilities in enumerate(timeline.probabilities):
        if probabilities is not None:
            shares[:, window] = probabilities
    rows = np.arange(len(class_names) + 1) - 0.5
    axes.pcolormesh(edges, rows, np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1, rasterized=True)
    decided = np.array([np.nan if one is None else one for one in timeline.decided], dtype=float)
    axes.stairs(decided, edges, baseline=None, color=ORANGE, linewidth=2)
    axes.set_xlim(0, timeline.seconds)
    axes.set_ylim(len(class_names) - 0.5, -0.5)  # the first class on top
    axes.set_yticks(range(len(class_names)), [plain(name) for name in class_names])
    axes.set_title(plain(timeline.name), loc="left", fontsize=12)
    tidy(axes)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _edges(timeline: Timeline) -> list[float]:
    """Return W + 1 edges between the windows' drawn parts: in the middle of what two share, and the recording's ends.

    Windows that only touch are drawn as they are, also a last one that is shorter than the others.
    """
    between = [(end + start) / 2 for end, start in zip(timeline.ends[:-1], timeline.starts[1:], strict=True)]
    return [0.0, *between, timeline.seconds]
