"""The figure of mean cluster assignments by class (Huang et al. 2020: clusters correspond to emotions)."""
# Shapes: C classes, K clusters, G ghost clusters.

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ser_lightning.reports.figures import DARK, GREY, luminance, plain
from ser_lightning.runs.assignment import CLUSTER, GHOST


def cluster_figure(assignment: pd.DataFrame, title: str) -> Figure:
    """Draw each class's mean assignment to clusters, and to ghosts in a panel of their own.

    Args:
        assignment: ``utterances``, ``cluster_1`` to ``cluster_K`` and ``ghost_1`` to ``ghost_G`` by class.
        title: Title.
    """
    kinds = (("cluster", CLUSTER, "Blues"), ("ghost", GHOST, "Oranges"))
    every = [(kind, assignment.filter(like=prefix), colours) for kind, prefix, colours in kinds]
    drawn = [part for part in every if part[1].shape[1]]
    widths = [shares.shape[1] for _, shares, _ in drawn]
    size = (1.9 + 0.62 * sum(widths), 1.5 + 0.46 * len(assignment))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False, width_ratios=widths)[0]
    # Equal shares are drawn in a middle tone, so that colours do not exaggerate small differences.
    largest = max(2 / sum(widths), *(float(shares.max().max()) for _, shares, _ in drawn))
    for axes, (kind, shares, colours) in zip(panels, drawn, strict=True):
        _draw(axes, shares, kind, colours, largest)
    labels = [f"{plain(str(name))}\nn = {int(count)}" for name, count in assignment["utterances"].items()]
    panels[0].set_yticks(range(len(labels)), labels, fontsize=11)
    figure.suptitle(f"{plain(title)}\nsoft assignment, %", fontsize=13)
    return figure


def _draw(axes: Axes, shares: pd.DataFrame, kind: str, colours: str, largest: float) -> None:
    """Draw ``shares`` [C, K or G], darkest at ``largest``."""
    colour_of = matplotlib.colormaps[colours]
    axes.imshow(shares.to_numpy(), cmap=colours, vmin=0, vmax=largest, aspect="auto")
    for row, values in enumerate(shares.to_numpy().tolist()):
        for column, share in enumerate(values):
            known = share == share  # a class without utterances is NaN
            ink = "white" if known and luminance(colour_of(share / largest)) < DARK else "black"
            text = f"{100 * share:.1f}" if known else "-"
            axes.text(column, row, text, ha="center", va="center", size=10, color=ink if known else GREY)
    axes.set_xticks(range(shares.shape[1]), [str(number + 1) for number in range(shares.shape[1])], fontsize=11)
    axes.set_xlabel(kind, fontsize=12)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
