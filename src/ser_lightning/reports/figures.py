"""Figures of results: confusion matrix, training curves, scores of folds and speakers.

Figures are created without pyplot: no global state, no window, no leak. Colours are distinct to colour-blind readers;
text is legible at half size.
"""
# Shapes: C classes.

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from ser_lightning.files import write_atomically
from ser_lightning.metrics import recalls, unweighted_accuracy, weighted_accuracy
from ser_lightning.reports.fonts import use_fonts_for_all_names
from ser_lightning.reports.uncertainty import Estimate

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#767676"  # of Okabe and Ito's palette, distinct to colour-blind readers
DOTS_PER_INCH = 150
DARK = 0.25  # below this luminance white text is easier to read: contrast at least 3.5 (WCAG 2)


def png(figure: Figure) -> bytes:
    """Return the figure as PNG, cropped to its content; equal figures give equal bytes."""
    content = io.BytesIO()
    FigureCanvasAgg(figure)
    use_fonts_for_all_names(figure)
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight", pad_inches=0.15)
    return content.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG, atomically; return ``path``."""
    write_atomically(path, png(figure))
    return path


def confusion_figure(confusion: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix: percentages of the reference class, and counts.

    Args:
        confusion: Counts [C, C], reference classes in rows; rows may be empty.
        class_names: Names of the C classes.
        title: Title; UA and WA are added.
    """
    num_classes = len(class_names)
    totals = confusion.sum(dim=1)
    shares = confusion.double() / totals.clamp(min=1).unsqueeze(1)
    side = 1.9 + 0.85 * num_classes
    figure = Figure(figsize=(side + 0.5, side), layout="constrained")
    axes = figure.add_subplot()
    colours = matplotlib.colormaps["Blues"]
    axes.imshow(shares.numpy(), cmap=colours, vmin=0, vmax=1)
    for row in range(num_classes):
        if not totals[row]:
            empty = axes.text((num_classes - 1) / 2, row, "no utterance", ha="center", va="center", color=GREY, size=12)
            empty.set_bbox({"facecolor": colours(0.0), "edgecolor": "none"})
            continue
        for column in range(num_classes):
            share, count = shares[row, column].item(), int(confusion[row, column])
            ink = "white" if luminance(colours(share)) < DARK else "black"
            weight = "bold" if row == column else "normal"
            for height, text, size in ((-0.1, f"{100 * share:.0f}%", 14), (0.24, str(count), 10)):
                colour = ink if count else GREY
                axes.text(column, row + height, text, ha="center", va="center", size=size, color=colour, weight=weight)
    labels = [f"{plain(name)}\nn = {int(total)}" for name, total in zip(class_names, totals, strict=True)]
    axes.set_xticks(range(num_classes), [plain(name) for name in class_names], fontsize=12)
    if max(len(name) for name in class_names) > 8:
        for label in axes.get_xticklabels():
            label.set(rotation=35, horizontalalignment="right", rotation_mode="anchor")
    axes.set_yticks(range(num_classes), labels, fontsize=12)
    axes.set_xticks([edge - 0.5 for edge in range(num_classes + 1)], minor=True)
    axes.set_yticks([edge - 0.5 for edge in range(num_classes + 1)], minor=True)
    axes.grid(which="minor", color="#d0d0d0", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("recognised as", fontsize=12)
    axes.set_ylabel("reference", fontsize=12)
    ua, wa = unweighted_accuracy(confusion).item(), weighted_accuracy(confusion).item()
    figure.suptitle(f"{plain(title)}\nUA {100 * ua:.1f}%   WA {100 * wa:.1f}%", fontsize=13)
    return figure


def training_figure(histories: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Draw loss and UA per epoch: thin lines for folds, a thick line for their mean.

    The mean ends where the first fold stops, so that it is always over all folds.

    Args:
        histories: By name of the fold, one row per epoch with any of ``train/loss``, ``validation/loss``, ``train/UA``
            and ``validation/UA``.
        title: Title.
    """
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    for axes, metric, label, scale in zip(
        figure.subplots(1, 2), ("loss", "UA"), ("loss", "UA (%)"), (1.0, 100.0), strict=True
    ):
        drawn = [
            _draw_curves(axes, [scale * table[name] for table in histories.values() if name in table], stage, colour)
            for stage, colour in (("train", ORANGE), ("validation", BLUE))
            for name in [f"{stage}/{metric}"]
        ]
        axes.set_xlabel("epoch", fontsize=12)
        axes.set_ylabel(label, fontsize=12)
        axes.xaxis.get_major_locator().set_params(integer=True)
        tidy(axes)
        if any(drawn):
            axes.legend(frameon=False, fontsize=11)
        else:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GREY, fontsize=12)
    figure.suptitle(plain(title), fontsize=13)
    return figure


def score_figure(scores: Mapping[str, Mapping[str, float]], title: str, chance: float) -> Figure:
    """Draw UA and WA of each fold or speaker as dots, best UA on top, and the mean UA as a line.

    Args:
        scores: ``UA`` and ``WA`` by name of the fold or speaker.
        title: Title.
        chance: UA of guessing, between 0 and 1.
    """
    ranked = sorted(scores, key=lambda name: (scores[name]["UA"], name))
    ua = [100 * scores[name]["UA"] for name in ranked]
    wa = [100 * scores[name]["WA"] for name in ranked]
    places = range(len(ranked))
    figure = Figure(figsize=(7, 1.7 + 0.27 * len(ranked)), layout="constrained")
    axes = figure.add_subplot()
    mean = sum(ua) / len(ua)
    axes.axvline(100 * chance, color=GREY, linestyle=":", linewidth=1.5, label=f"chance {100 * chance:.3g}%")
    axes.axvline(mean, color=BLUE, linewidth=1.2, label=f"mean UA {mean:.1f}%")
    axes.hlines(places, ua, wa, color="#c4c4c4", linewidth=1.5, zorder=1)
    rings = axes.plot(wa, places, "o", markersize=10, label="WA", clip_on=False)  # visible around UA
    rings[0].set(markerfacecolor="white", markeredgecolor=ORANGE, markeredgewidth=1.6)
    axes.plot(ua, places, "o", markersize=6, label="UA", clip_on=False, color=BLUE)
    axes.set_yticks(places, [plain(name) for name in ranked], fontsize=11)
    axes.set_ylim(-0.7, len(ranked) - 0.3)
    axes.set_xlim(0, 100)
    axes.set_xlabel("%", fontsize=12)
    axes.grid(axis="y", color="#eeeeee")
    tidy(axes)
    figure.suptitle(plain(title), fontsize=13)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=11)
    return figure


def recall_sentence(confusion: Tensor, class_names: Sequence[str]) -> str:
    """Return the recalls of a confusion matrix [C, C] in words, as a text alternative."""
    found = zip(class_names, recalls(confusion).tolist(), strict=True)
    return ", ".join(f"{name} {100 * recall:.0f}%" for name, recall in found if not math.isnan(recall))


def _draw_curves(axes: Axes, curves: Sequence["pd.Series[float]"], stage: str, colour: str) -> bool:
    """Draw the curves of the folds and their mean; return whether there was any."""
    present = [curve.dropna() for curve in curves if curve.notna().any()]
    for curve in present:
        axes.plot(curve.index, curve, color=colour, linewidth=0.7, alpha=0.45 if len(present) > 1 else 1)
    if len(present) > 1:
        mean = pd.concat(present, axis="columns", join="inner").mean(axis="columns")
        axes.plot(mean.index, mean, color=colour, linewidth=2.4, label=f"{stage}, mean of {len(present)}")
    elif present:
        axes.lines[-1].set_label(stage)
    return bool(present)


def tidy(axes: Axes) -> None:
    """Hide the top and right spines, and set the size of tick labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11)


def luminance(colour: tuple[float, ...]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2), from 0 (black) to 1 (white)."""
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def plain(text: str) -> str:
    """Escape dollar signs, which matplotlib would parse as mathematics."""
    return text.replace("$", r"\$")


# Okabe and Ito's palette without the pale colours: distinct to colour-blind readers.
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P")
MAX_SYSTEMS_PER_FIGURE = len(COLOURS)  # more systems are split over several pictures


def systems_figure(scores: Mapping[str, Mapping[str, float]], title: str, chance: float, kind: str) -> Figure:
    """Draw the UA of each fold or speaker for several systems, the best mean on top.

    Args:
        scores: UA by fold or speaker, for each of at most ``MAX_SYSTEMS_PER_FIGURE`` systems; some may be missing.
        title: Title.
        chance: UA of guessing, between 0 and 1.
        kind: "folds" or "speakers".
    """
    names = list(dict.fromkeys(name for found in scores.values() for name in found))

    def mean(name: str) -> float:
        present = [found[name] for found in scores.values() if name in found]
        return sum(present) / len(present)

    ranked = sorted(names, key=lambda name: (mean(name), name))
    # The legend has one line per system and one for chance; make room for it.
    figure = Figure(figsize=(7, 1.2 + 0.3 * len(ranked) + 0.25 * (1 + len(scores))), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(100 * chance, color=GREY, linestyle=":", linewidth=1.5, label=f"chance {100 * chance:.3g}%")
    for place, name in enumerate(ranked):
        present = [100 * found[name] for found in scores.values() if name in found]
        axes.hlines(place, min(present), max(present), color="#c4c4c4", linewidth=1.5, zorder=1)
    for (system, found), colour, mark in zip(scores.items(), COLOURS, MARKS, strict=False):
        places = [place for place, name in enumerate(ranked) if name in found]
        values = [100 * found[ranked[place]] for place in places]
        number = f"{len(values)} {kind if len(values) > 1 else kind[:-1]}"
        label = f"{plain(system)}: mean {sum(values) / len(values):.1f}% of {number}"
        axes.plot(values, places, mark, markersize=7, color=colour, label=label, clip_on=False, alpha=0.9)
    axes.set_yticks(range(len(ranked)), [plain(name) for name in ranked], fontsize=11)
    axes.set_ylim(-0.7, len(ranked) - 0.3)
    axes.set_xlim(0, 100)
    axes.set_xlabel("UA (%)", fontsize=12)
    axes.grid(axis="y", color="#eeeeee")
    tidy(axes)
    figure.suptitle(plain(title), fontsize=13)
    figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=11)
    return figure


def recall_figure(recalls: Mapping[str, Sequence[Estimate]], class_names: Sequence[str], title: str) -> Figure:
    """Draw the recall of each class with its 95% interval, one row per system.

    Args:
        recalls: The recall of each class, for each of at most ``MAX_SYSTEMS_PER_FIGURE`` systems.
        class_names: The classes.
        title: Title.
    """
    gap = 0.75 / len(recalls)
    height = 1.8 + (0.26 + 0.16 * len(recalls)) * len(class_names)
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    for index, ((system, found), colour, mark) in enumerate(zip(recalls.items(), COLOURS, MARKS, strict=False)):
        # The first class is on top, and in it the first system.
        offset = gap * ((len(recalls) - 1) / 2 - index)
        label = plain(system)
        for place, one in enumerate(reversed(found)):
            if one.low is not None and one.high is not None:
                axes.hlines(place + offset, 100 * one.low, 100 * one.high, color=colour, linewidth=2)
            if one.speakers:
                axes.plot(100 * one.value, place + offset, mark, markersize=7, color=colour, label=label, clip_on=False)
                label = "_"  # one legend entry per system
    axes.set_yticks(range(len(class_names)), [plain(name) for name in reversed(class_names)], fontsize=12)
    axes.set_ylim(-0.6, len(class_names) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel("recall (%), line: 95% interval over speakers", fontsize=12)
    axes.set_yticks([edge + 0.5 for edge in range(len(class_names) - 1)], minor=True)
    axes.grid(axis="y", which="minor", color="#e0e0e0")
    axes.tick_params(axis="y", which="minor", length=0)
    tidy(axes)
    figure.suptitle(plain(title), fontsize=13)
    if len(recalls) > 1:
        figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=11)
    return figure
