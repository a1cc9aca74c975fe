"""Which emotions: confusion matrices side by side, and the recall of each class with its interval."""
# Shapes: C classes.

from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from ser_lightning.reports.document import Block, Heading, Picture, Section, SideBySide, Table
from ser_lightning.reports.figures import confusion_figure, png, recall_sentence
from ser_lightning.reports.speakers import SCORES, SpeakerCounts
from ser_lightning.reports.summary import corpus_title
from ser_lightning.reports.system_figures import MOST_TOGETHER, recall_figure
from ser_lightning.reports.systems import ReportedSystem, drawn_together
from ser_lightning.reports.uncertainty import Estimate, estimate_recall, too_narrow


def classes(systems: Sequence[ReportedSystem]) -> Section:
    """Return confusion matrices and recalls, pooled over folds and added up over seeds."""
    several = len(systems) > 1
    counts = {system.name: SpeakerCounts.of(system.runs).counts for system in systems}
    pictures = [_confusion(system, counts[system.name].sum(dim=(0, 1)), several) for system in systems]
    blocks: list[Block] = [SideBySide(pictures)] if several else [*pictures]
    estimates = {
        name: [estimate_recall(found, index) for index in range(found.shape[-1])] for name, found in counts.items()
    }
    parts = drawn_together(systems, lambda system: system.summary.class_names, MOST_TOGETHER)
    blocks += [_recalls("recall" if len(parts) == 1 else f"recall_{part[0].key}", part, estimates) for part in parts]
    for system in systems:
        if several:
            blocks.append(Heading(system.name))
        blocks.append(_table(system, counts[system.name], estimates[system.name]))
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
        f"{system.name if several else 'Confusion matrix'}, pooled over {system.pooled_over}. Each row adds up to "
        "100%; the counts are utterances.",
        numbers,
    )


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
    found = (one for system in systems for one in estimates[system.name])
    caption = f"{caption} {too_narrow(one.speakers for one in found if one.low is not None)}".strip()
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


def _table(system: ReportedSystem, of_speakers: Tensor, estimates: Sequence[Estimate]) -> Table:
    names = system.summary.class_names
    counts = of_speakers.sum(dim=(0, 1))
    rows = []
    for index, (name, recall) in enumerate(zip(names, estimates, strict=True)):
        row = counts[index].clone()
        total, recognised = int(row.sum()), int(row[index])
        row[index] = 0
        wrong = int(row.argmax())
        mistaken = f"{names[wrong]} ({int(row[wrong])})" if row[wrong] else "-"
        value = f"{100 * recall.value:.2f}" if total else "-"
        interval = recall.interval() if recall.low is not None else f"none: {recall.reason}"
        rows.append([name, str(total), str(recognised), value, interval, str(recall.speakers), mistaken])
    headings = {"class": False, "utterances": True, "recognised": True, "recall %": True, "95% interval": True}
    headings |= {"speakers": True, "most often taken for": False}
    total, recognised = int(counts.sum()), int(counts.diagonal().sum())
    values = {name: score(of_speakers.sum(dim=1)).nanmean().item() for name, score in SCORES.items()}
    footer = [
        ["mean recall (UA)", "", "", f"{100 * values['UA']:.2f}", "", "", ""],
        ["all utterances (WA)", str(total), str(recognised), f"{100 * values['WA']:.2f}", "", "", ""],
    ]
    return Table(f"Recall of each class, pooled over {system.pooled_over}", headings, rows, footer)
