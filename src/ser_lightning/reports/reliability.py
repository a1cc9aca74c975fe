"""Reliability: how often a system is right when it says that it is sure to some degree."""
# Shapes: N utterances, C classes.

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ser_lightning.metrics import CALIBRATION_BINS
from ser_lightning.reports.figures import BLUE, GREY, ORANGE, plain, tidy


def reliability_table(probabilities: Tensor, labels: Tensor) -> pd.DataFrame:
    """Return confidence and accuracy in bins of confidence, as `metrics.calibration_error` has them.

    Args:
        probabilities: Of each class [N, C].
        labels: Reference class of each utterance [N].

    Returns:
        A row for each of 15 bins of equal width: ``from``, ``to``, ``utterances``, and the means ``confidence`` and
        ``accuracy`` of its utterances, NaN in a bin without any.
    """
    confidence, decided = probabilities.double().max(dim=1)
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, dtype=torch.float64)
    bins = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, CALIBRATION_BINS - 1)
    table = pd.DataFrame({"from": edges[:-1].numpy(), "to": edges[1:].numpy()})
    counts = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    table["utterances"] = counts.index_add(0, bins, torch.ones_like(confidence)).numpy().astype(int)
    for name, values in (("confidence", confidence), ("accuracy", (decided == labels).double())):
        table[name] = counts.index_add(0, bins, values).numpy() / table["utterances"].where(table["utterances"] > 0)
    return table


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Return the mean distance between confidence and accuracy over bins, each weighted with its utterances."""
    distance = (table["confidence"] - table["accuracy"]).abs().fillna(0)
    return float((distance * table["utterances"]).sum() / table["utterances"].sum())


def reliability_figure(table: pd.DataFrame, title: str) -> Figure:
    """Draw accuracy over confidence, and below it how many utterances each bin has.

    Args:
        table: What ``reliability_table`` returns.
        title: Whose probabilities they are; the expected calibration error is added.
    """
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
    error = 100 * expected_calibration_error(table)
    figure.suptitle(f"{plain(title)}\nexpected calibration error {error:.1f}%", fontsize=13)
    return figure
