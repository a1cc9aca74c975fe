"""Which emotions: confusion matrices side by side, and the recall of each class with its interval."""
# Shapes: C classes.

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from ser_lightning.metrics import scores
from ser_lightning.reports.document import Block, Heading, Picture, Section, SideBySide, Table
from ser_lightning.reports.figures import confusion_figure, png, recall_sentence
from ser_lightning.reports.speakers import SpeakerCounts
from ser_lightning.reports.summary import corpus_title, pooled_confusion
from ser_lightning.reports.system_figures import MOST_TOGETHER, recall_figure
from ser_lightning.reports.systems import ReportedSystem, drawn_together
from ser_lightning.reports.uncertainty import Estimate, estimate_recall


def classes(systems: Sequence[ReportedSystem]) -> Section:
    """Return confusion matrices and recalls, pooled over folds and added up over seeds."""
    several = len(systems) > 1
    matrices = {
        system.name: torch.stack([pooled_confusion(run) for run in system.runs]).sum(dim=0) for system in systems
    }
    pictures = [_confusion(system, matrices[system.name], several) for system in systems]
    blocks: list[Block] = [SideBySide(pictures)] if several else [*pictures]
    estimates = {system.name: _estimates(system) for system in systems}
    parts = drawn_together(systems, lambda system: system.summary.class_names, MOST_TOGETHER)
    blocks += [_recalls("recall" if len(parts) == 1 else f"recall_{part[0].key}", part, estimates) for part in parts]
    for system in systems:
        if several:
            blocks.append(Heading(system.name))
        blocks.append(_table(system, matrices[system.name], estimates[system.name]))
    return Section("Classes", blocks)


def _confusion(system: ReportedSystem, counts: Tensor, several: bool) -> Picture:
    names = system.summary.class_names
    totals = counts.sum(dim=1)
    numbers = pd.DataFrame(
        [
            {
                "reference": reference,
                "recognised": recognised,
                "utterances": int(counts[row, column]),
                "share": counts[row, column].item() / max(1, int(totals[row])),
            }
            for row, reference in enumerate(names)
            for column, recognised in enumerate(names)
        ]
    )
    title = system.name if several else system.summary.system
    return Picture(
        f"confusion_{system.key}" if several else "confusion",
        png(confusion_figure(counts, names, f"{title}\n{corpus_title(system.summary)}")),
        f"{system.name + ': c' if several else 'C'}onfusion matrix. Recall: {recall_sentence(counts, names)}",
        f"{system.name + ', ' if several else 'Confusion matrix, '}{_pooled(system)}. Each row adds up to 100%; the "
        "counts are utterances.",
        numbers,
    )


def _pooled(system: ReportedSystem) -> str:
    seeds = system.summary.seeds
    folds = "all folds" if not any(seed.folds_missing for seed in seeds) else "the finished folds"
    return f"pooled over {folds}" + (f" and added up over {len(seeds)} seeds" if len(seeds) > 1 else "")


def _estimates(system: ReportedSystem) -> list[Estimate]:
    counts = SpeakerCounts.of(system.runs).counts
    return [estimate_recall(counts, index) for index in range(counts.shape[-1])]


def _recalls(name: str, systems: Sequence[ReportedSystem], estimates: dict[str, list[Estimate]]) -> Picture:
    class_names = systems[0].summary.class_names
    rows = [
        {"system": system.name, "class": class_name, "recall": one.value, "low": one.low, "high": one.high}
        | {"speakers": one.speakers, "no interval because": one.reason}
        for system in systems
        for class_name, one in zip(class_names, estimates[system.name], strict=True)
    ]
    numbers = sorted({one.speakers for system in systems for one in estimates[system.name] if one.speakers})
    speakers = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    without = any(one.low is None and one.speakers for system in systems for one in estimates[system.name])
    caption = f"Intervals by bootstrap over the {speakers} speakers who have an utterance of the class."
    if without:
        caption += " A dot without a line has no interval; the table says why."
    drawn = {system.name: estimates[system.name] for system in systems}
    corpora = ", ".join(dict.fromkeys(corpus_title(system.summary) for system in systems))
    figure = recall_figure(drawn, class_names, f"Recall of each class: {corpora}")
    words = "; ".join(
        f"{system.name}, {class_name}: {one.in_words()}"
        for system in systems
        for class_name, one in zip(class_names, estimates[system.name], strict=True)
        if one.speakers
    )
    return Picture(name, png(figure), words, caption, pd.DataFrame(rows))


def _table(system: ReportedSystem, counts: Tensor, estimates: Sequence[Estimate]) -> Table:
    names = system.summary.class_names
    rows = []
    for index, (name, recall) in enumerate(zip(names, estimates, strict=True)):
        row = counts[index].clone()
        total, recognised = int(row.sum()), int(row[index])
        row[index] = 0
        wrong = int(row.argmax())
        mistaken = f"{names[wrong]} ({int(row[wrong])})" if row[wrong] else "-"
        value = f"{100 * recognised / total:.2f}" if total else "-"
        interval = recall.interval() if recall.low is not None else f"none: {recall.reason}"
        rows.append([name, str(total), str(recognised), value, interval, str(recall.speakers), mistaken])
    headings = {"class": False, "utterances": True, "recognised": True, "recall %": True, "95% interval": True}
    headings |= {"speakers": True, "most often taken for": False}
    total, recognised = int(counts.sum()), int(counts.diagonal().sum())
    values = {name: value.item() for name, value in scores(counts).items()}
    footer = [
        ["mean recall (UA)", "", "", f"{100 * values['UA']:.2f}", "", "", ""],
        ["all utterances (WA)", str(total), str(recognised), f"{100 * values['WA']:.2f}", "", "", ""],
    ]
    return Table(f"Recall of each class, {_pooled(system)}", headings, rows, footer)
