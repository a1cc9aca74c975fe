"""Pictures of several systems in one: scores of folds or speakers, and recalls with their intervals.

Each system has a colour and a mark of its own, so that neither alone has to be told apart.
"""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ser_lightning.reports.figures import BLUE, GREY, ORANGE, plain, tidy
from ser_lightning.reports.uncertainty import Estimate

# Okabe and Ito's palette, less what is pale on white: distinct to colour-blind readers.
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P")
MOST_TOGETHER = len(COLOURS)  # more systems have a picture each


def systems_figure(scores: Mapping[str, Mapping[str, float]], title: str, chance: float, kind: str) -> Figure:
    """Draw the UA of each fold or speaker for several systems, the best mean on top.

    Args:
        scores: UA by fold or speaker, for each of at most ``MOST_TOGETHER`` systems.
        title: Whose scores they are.
        chance: UA of guessing, between 0 and 1.
        kind: What there is a score of, "folds" or "speakers"; a system need not have all of them.
    """
    names = list(dict.fromkeys(name for found in scores.values() for name in found))

    def mean(name: str) -> float:
        present = [found[name] for found in scores.values() if name in found]
        return sum(present) / len(present)

    ranked = sorted(names, key=lambda name: (mean(name), name))
    # Chance and each system have a line below the axes, which would be squeezed to nothing.
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
    """Draw each class's recall with its 95% interval, systems below each other.

    Args:
        recalls: The recall of each class, for each of at most ``MOST_TOGETHER`` systems.
        class_names: The classes.
        title: Whose recalls they are.
    """
    gap = 0.75 / len(recalls)
    height = 1.8 + (0.26 + 0.16 * len(recalls)) * len(class_names)
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    for index, ((system, found), colour, mark) in enumerate(zip(recalls.items(), COLOURS, MARKS, strict=False)):
        # The first class on top, and in it the first system.
        offset = gap * ((len(recalls) - 1) / 2 - index)
        label = plain(system)
        for place, one in enumerate(reversed(found)):
            if one.low is not None and one.high is not None:
                axes.hlines(place + offset, 100 * one.low, 100 * one.high, color=colour, linewidth=2)
            if one.speakers:
                axes.plot(100 * one.value, place + offset, mark, markersize=7, color=colour, label=label, clip_on=False)
                label = "_"  # in the legend once
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
