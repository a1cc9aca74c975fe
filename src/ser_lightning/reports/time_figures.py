"""Figures over time: attention of systems (Ando et al. 2019, figure 3), cluster assignment, and emotions per window."""
# Shapes: T frames, N frequency bins, T' steps of a system, K clusters, G ghost clusters, W windows, C classes.

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from ser_lightning.reports.figures import BLUE, GREY, ORANGE, plain, tidy

DYNAMIC_RANGE = 8.0  # decades of power below the maximum: 80 dB


@dataclass(frozen=True)
class SystemAttention:
    """Attention and decision of one system for one utterance.

    Attributes:
        system: Name of the system.
        decision: Predicted emotion and probability.
        weights: Attention [T'], sums to 1; includes padding after the utterance if padding counts. Or soft assignment
            [T', K + G] to clusters, ghosts last.
        step_seconds: Duration of a step.
        ghosts: G.
    """

    system: str
    decision: str
    weights: Tensor
    step_seconds: float
    ghosts: int = 0


@dataclass(frozen=True)
class UtteranceAttention:
    """One utterance with the attention of each system.

    Attributes:
        name: Name of the utterance.
        seconds: Duration of what the systems hear of it.
        power: Its log10 power spectrogram [T, N].
        max_frequency_hz: Highest frequency of the spectrogram.
        attended: Attention of each system.
    """

    name: str
    seconds: float
    power: Tensor
    max_frequency_hz: float
    attended: Sequence[SystemAttention]


def attention_figure(utterances: Sequence[UtteranceAttention]) -> Figure:
    """Draw a column per utterance: its spectrogram, and below it a panel per system.

    Attention is drawn as a multiple of uniform attention, so that different steps and durations compare. Clusters have
    a row each, darker the larger their share of a step; ghosts have one row for the sum of their shares. A panel ends
    with the utterance; its title gives the share of attention on padding.

    Args:
        utterances: At least one, all with the same systems in the same order.
    """
    systems = utterances[0].attended
    heights = [1.4, *(0.22 * len(_cluster_rows(one)) if one.weights.dim() == 2 else 1.0 for one in systems)]
    size = (0.8 + 4.8 * len(utterances), 0.7 + 1.55 * sum(heights))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(heights), len(utterances), sharex="col", squeeze=False, height_ratios=heights)
    for column, utterance in enumerate(utterances):
        _draw_spectrogram(panels[0, column], utterance)
        for axes, attended in zip(panels[1:, column], utterance.attended, strict=True):
            draw = _draw_clusters if attended.weights.dim() == 2 else _draw_attention
            draw(axes, attended, utterance.seconds)
        panels[-1, column].set_xlabel("seconds", fontsize=12)
        panels[-1, column].set_xlim(0, utterance.seconds)
    panels[0, 0].set_ylabel("kHz", fontsize=12)
    for axes, attended in zip(panels[1:, 0], systems, strict=True):
        axes.set_ylabel("cluster" if attended.weights.dim() == 2 else "attention", fontsize=12)
    explained = {
        1: "Attention as a multiple of uniform attention (dotted).",
        2: "Clusters: share of a step's soft assignment.",
    }
    kinds = sorted({one.weights.dim() for one in systems})
    figure.supxlabel(" ".join(explained[kind] for kind in kinds), fontsize=11, color=GREY)
    return figure


def _draw_spectrogram(axes: Axes, utterance: UtteranceAttention) -> None:
    loudest = utterance.power.max().item()
    axes.imshow(
        utterance.power.T.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="bilinear",
        cmap="magma",
        vmin=loudest - DYNAMIC_RANGE,
        vmax=loudest,
        extent=(0.0, utterance.seconds, 0.0, utterance.max_frequency_hz / 1000),
    )
    axes.set_title(plain(utterance.name), fontsize=13)
    axes.tick_params(labelsize=11)


def _draw_attention(axes: Axes, attended: SystemAttention, seconds: float) -> None:
    multiples = (attended.weights * len(attended.weights)).tolist()
    edges = [step * attended.step_seconds for step in range(len(multiples) + 1)]
    axes.stairs(multiples, edges, fill=True, color=BLUE, alpha=0.25)
    axes.stairs(multiples, edges, color=BLUE, linewidth=1.6)
    axes.axhline(1, color=GREY, linestyle=":", linewidth=1.5)
    axes.set_ylim(0, 1.1 * max(*multiples, 1.5))
    title = plain(f"{attended.system}: {attended.decision}")
    padding = sum(weight for weight, start in zip(attended.weights.tolist(), edges, strict=False) if start >= seconds)
    if padding > 0:
        title += f"\n{100 * padding:.0f}% of the attention is on padding after the end"
    axes.set_title(title, loc="left", fontsize=11)
    tidy(axes)


def _cluster_rows(attended: SystemAttention) -> list[str]:
    """Return the names of a cluster panel's rows: the clusters, counted from 1, and the ghosts together."""
    clusters = attended.weights.shape[1] - attended.ghosts
    return [*(str(k + 1) for k in range(clusters)), *(["ghosts"] if attended.ghosts else [])]


def _draw_clusters(axes: Axes, attended: SystemAttention, seconds: float) -> None:
    names = _cluster_rows(attended)
    clusters = attended.weights.shape[1] - attended.ghosts
    shares = attended.weights[:, :clusters]
    edges = [step * attended.step_seconds for step in range(len(shares) + 1)]
    ghosts = attended.weights[:, clusters:].sum(1)
    # Equal shares are drawn in a middle tone: on a scale up to 100%, clusters that share steps would look alike.
    largest = max(2 / attended.weights.shape[1], shares.max().item(), ghosts.max().item())
    rows = np.arange(clusters + 1) - 0.5
    axes.pcolormesh(edges, rows, shares.T.numpy(), cmap="Blues", vmin=0, vmax=largest, rasterized=True)
    if attended.ghosts:
        below = np.array([clusters - 0.5, clusters + 0.5])
        axes.pcolormesh(edges, below, ghosts[None].numpy(), cmap="Oranges", vmin=0, vmax=largest, rasterized=True)
        axes.axhline(clusters - 0.5, color=GREY, linewidth=1)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the first cluster on top
    axes.set_yticks(range(len(names)), names)
    axes.set_title(plain(f"{attended.system}: {attended.decision}"), loc="left", fontsize=11)
    axes.set_title(f"darkest: {100 * largest:.0f}%", loc="right", fontsize=10, color=GREY)
    tidy(axes)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=10)


MAX_TIMELINES = 12  # more are not legible


@dataclass(frozen=True)
class Timeline:
    """Decisions on the windows of one recording.

    Attributes:
        name: Name of the recording.
        seconds: Its duration.
        starts: Start of each window [W] in seconds.
        ends: End of each window [W] in seconds.
        probabilities: Class probabilities of each window [W][C]; None for digital silence.
        decided: Predicted class of each window [W]; None for digital silence.
        windows: Description of the windows.
    """

    name: str
    seconds: float
    starts: Sequence[float]
    ends: Sequence[float]
    probabilities: Sequence[Sequence[float] | None]
    decided: Sequence[int | None]
    windows: str


def timeline_figure(timelines: Sequence[Timeline], class_names: Sequence[str]) -> Figure:
    """Draw a panel per recording: a row per emotion, darker where it is more probable.

    Overlapping windows are drawn up to the middle of the overlap. A line follows the predicted emotion. Digital silence
    is left blank.

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
    figure.supxlabel(f"Windows of {timelines[0].windows}; the line is the predicted emotion.", size=11, color=GREY)
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
    """Return the W + 1 edges of the drawn windows: the middle of each overlap, and the recording's ends."""
    between = [(end + start) / 2 for end, start in zip(timeline.ends[:-1], timeline.starts[1:], strict=True)]
    return [0.0, *between, timeline.seconds]
