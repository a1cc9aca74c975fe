"""Picture of attention over time: where in an utterance each of several systems looks (Ando et al. 2019, figure 3)."""
# Shapes: T frames, K frequency bins, T' steps of a system.

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ser_lightning.reports.figures import BLUE, GREY, plain, tidy

DYNAMIC_RANGE = 8.0  # decades of power below the loudest that are drawn: 80 dB


@dataclass(frozen=True)
class Attended:
    """What one system does with one utterance.

    Attributes:
        system: What the system is called.
        decision: What it recognises.
        weights: Its attention [T'], adding up to one; also to steps behind the utterance's end, if padding counts.
        step_seconds: How long a step lasts.
    """

    system: str
    decision: str
    weights: Tensor
    step_seconds: float


@dataclass(frozen=True)
class Heard:
    """One utterance and what the systems do with it.

    Attributes:
        name: What the utterance is called.
        seconds: How long it lasts.
        power: Its spectrogram [T, K], as decadic logarithm of the power.
        max_frequency_hz: Where the spectrogram ends.
        attended: For each system.
    """

    name: str
    seconds: float
    power: Tensor
    max_frequency_hz: float
    attended: Sequence[Attended]


def attention_figure(utterances: Sequence[Heard]) -> Figure:
    """Draw a column for each utterance: its spectrogram, and below it the attention of each system.

    Attention is drawn in multiples of what every step would get if all got the same, so that systems with steps of
    different length, and utterances of different length, compare. Panels end where the utterance does; how much of the
    attention lies behind it, on padding that counts, is said above them.

    Args:
        utterances: At least one, all with the same systems in the same order.
    """
    systems = len(utterances[0].attended)
    figure = Figure(figsize=(0.8 + 4.8 * len(utterances), 2.3 + 1.55 * systems), layout="constrained")
    panels = figure.subplots(
        1 + systems, len(utterances), sharex="col", squeeze=False, height_ratios=[1.4, *[1.0] * systems]
    )
    for column, utterance in enumerate(utterances):
        _draw_spectrogram(panels[0, column], utterance)
        for axes, attended in zip(panels[1:, column], utterance.attended, strict=True):
            _draw_attention(axes, attended, utterance.seconds)
        panels[-1, column].set_xlabel("seconds", fontsize=12)
        panels[-1, column].set_xlim(0, utterance.seconds)
    panels[0, 0].set_ylabel("kHz", fontsize=12)
    for axes in panels[1:, 0]:
        axes.set_ylabel("attention", fontsize=12)
    figure.supxlabel("Attention as a multiple of an even spread (dotted).", fontsize=11, color=GREY)
    return figure


def _draw_spectrogram(axes: Axes, utterance: Heard) -> None:
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


def _draw_attention(axes: Axes, attended: Attended, seconds: float) -> None:
    multiples = (attended.weights * len(attended.weights)).tolist()
    edges = [step * attended.step_seconds for step in range(len(multiples) + 1)]
    axes.stairs(multiples, edges, fill=True, color=BLUE, alpha=0.25)
    axes.stairs(multiples, edges, color=BLUE, linewidth=1.6)
    axes.axhline(1, color=GREY, linestyle=":", linewidth=1.5)
    axes.set_ylim(0, 1.1 * max(*multiples, 1.5))
    title = plain(f"{attended.system}: {attended.decision}")
    behind = sum(weight for weight, start in zip(attended.weights.tolist(), edges, strict=False) if start >= seconds)
    if behind > 0:
        title += f"\n{100 * behind:.0f}% of the attention lies behind the end, on padding"
    axes.set_title(title, loc="left", fontsize=11)
    tidy(axes)
