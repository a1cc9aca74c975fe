"""Reliability: how often a system is right when it says that it is sure to some degree."""

import pandas as pd
from matplotlib.figure import Figure

from ser_lightning.metrics import Calibration
from ser_lightning.reports.figures import BLUE, GREY, ORANGE, plain, tidy


def reliability_table(found: Calibration) -> pd.DataFrame:
    """Return a row for each bin of confidence.

    Its columns are ``from``, ``to``, ``utterances``, and the means ``confidence`` and ``accuracy`` of the bin's
    utterances, NaN in a bin without any.
    """
    columns = {
        "from": found.edges[:-1].numpy(),
        "to": found.edges[1:].numpy(),
        "utterances": found.utterances.long().numpy(),
        "confidence": found.confidence.numpy(),
        "accuracy": found.accuracy.numpy(),
    }
    return pd.DataFrame(columns)


def reliability_figure(found: Calibration, title: str) -> Figure:
    """Draw accuracy over confidence, and below it how many utterances each bin has.

    Args:
        found: Confidence and accuracy in bins.
        title: Whose probabilities they are; the expected calibration error is added.
    """
    table = reliability_table(found)
    present = table[table["utterances"] > 0]
    figure = Figure(figsize=(5, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1.5, label="as sure as right")
    confidence, accuracy = 100 * present["confidence"], 100 * present["accuracy"]
    above.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=2, label="distance")
    above.plot(confidence, accuracy, "o-", color=BLUE, markersize=7, linewidth=1.5, label="accuracy")
    above.set_xlim(0, 100)
    above.set_ylim(0, 100)
    above.set_ylabel("accuracy (%)", fontsize=12)
    above.legend(frameon=False, fontsize=11, loc="upper left")
    edges = [*(100 * table["from"]), 100 * table["to"].iloc[-1]]
    below.stairs(table["utterances"], edges, fill=True, color=BLUE, alpha=0.35)
    below.set_ylabel("utterances", fontsize=12)
    below.set_xlabel("confidence (%)", fontsize=12)
    for axes in (above, below):
        tidy(axes)
    figure.suptitle(f"{plain(title)}\nexpected calibration error {100 * found.error.item():.1f}%", fontsize=13)
    return figure
