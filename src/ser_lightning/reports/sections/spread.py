"""Scores of folds, speakers and classes."""

from collections.abc import Mapping, Sequence

import pandas as pd
from torch import Tensor

from ser_lightning.reports.document import Block, Heading, Paragraph, Picture, Section, SideBySide, Table
from ser_lightning.reports.figures import (
    MAX_SYSTEMS_PER_FIGURE,
    confusion_figure,
    png,
    recall_figure,
    recall_sentence,
    score_figure,
    systems_figure,
)
from ser_lightning.reports.sections.overview import duration
from ser_lightning.reports.systems import ReportedSystem, picture_groups
from ser_lightning.reports.terminal import folds_in_words, percentages, soft_scores_lines, statistics_rows
from ser_lightning.reports.uncertainty import SCORES, Estimate, SpeakerCounts, estimate_recall
from ser_lightning.runs.summary import METRICS, SeedSummary, corpus_title


def folds(systems: Sequence[ReportedSystem]) -> Section:
    """Return the section of scores per fold."""
    # Pictures match rows by name: either all names contain the seed or none does.
    with_seed = any(len(system.runs) > 1 for system in systems)
    tables = {system.name: _fold_scores(system, with_seed) for system in systems}
    blocks: list[Block] = list(_pictures("folds", "Folds", systems, tables))
    for system in systems:
        if len(systems) > 1:
            blocks.append(Heading(system.name))
        blocks += _fold_tables(system)
        blocks += [Paragraph(f"{line[0].upper()}{line[1:]}.") for line in soft_scores_lines(system.summary)]
    return Section("Folds", blocks)


def speakers(systems: Sequence[ReportedSystem]) -> Section:
    """Return the section of scores per speaker: over all folds that test the speaker, then averaged over seeds."""
    tables = {system.name: SpeakerCounts.of(system.runs).scores() for system in systems}
    return Section("Speakers", _pictures("speakers", "Speakers", systems, tables))


def _pictures(
    stem: str, title: str, systems: Sequence[ReportedSystem], tables: Mapping[str, pd.DataFrame]
) -> list[Picture]:
    """Draw systems on the same split together, in groups of at most ``MAX_SYSTEMS_PER_FIGURE``.

    Args:
        stem: Stem of the files.
        title: "Folds" or "Speakers".
        systems: The systems.
        tables: ``UA`` and ``WA`` by fold or speaker, for each system.
    """
    parts = picture_groups(systems, lambda system: system.split, MAX_SYSTEMS_PER_FIGURE)
    return [_picture(stem if len(parts) == 1 else f"{stem}_{part[0].key}", title, part, tables) for part in parts]


def _picture(name: str, title: str, systems: Sequence[ReportedSystem], tables: Mapping[str, pd.DataFrame]) -> Picture:
    summary = systems[0].summary
    chance = 1 / len(summary.class_names)
    heading = f"{title}: {corpus_title(summary)}"
    numbers = pd.concat([tables[system.name].reset_index().assign(system=system.name) for system in systems])
    kind = title.lower()
    count = len({label for system in systems for label in tables[system.name].index})
    caption = f"{count} {kind}, best UA on top; UA over the classes in the {kind[:-1]}'s test utterances."
    if any(len(system.runs) > 1 for system in systems) and kind == "speakers":
        caption += " Means over seeds."
    drawn: dict[str, dict[str, dict[str, float]]] = {
        system.name: {
            str(label): {"UA": float(row["UA"]), "WA": float(row["WA"])}
            for label, row in tables[system.name].iterrows()
        }
        for system in systems
    }
    if len(systems) == 1:
        (found,) = drawn.values()
        figure = score_figure(found, heading, chance)
        prefix = "speaker " if kind == "speakers" else ""
        words = "; ".join(f"{prefix}{label}: UA {100 * score['UA']:.1f}%" for label, score in found.items())
    else:
        only = {system: {label: score["UA"] for label, score in found.items()} for system, found in drawn.items()}
        figure = systems_figure(only, heading, chance, kind)
        words = "; ".join(
            f"{system}: UA from {100 * min(found.values()):.1f}% to {100 * max(found.values()):.1f}%"
            for system, found in only.items()
        )
    return Picture(name, png(figure), words, f"{caption} Chance: all classes equally often.", numbers)


def _fold_scores(system: ReportedSystem, with_seed: bool) -> pd.DataFrame:
    rows = [
        {"fold": f"fold {fold.fold}" + (f", seed {seed.seed}" if with_seed else ""), "utterances": fold.utterances}
        | fold.scores
        for seed in system.summary.seeds
        for fold in seed.folds
    ]
    return pd.DataFrame(rows).set_index("fold")


def _fold_tables(system: ReportedSystem) -> list[Table]:
    summary = system.summary
    tables = [_fold_table(seed, summary.num_folds) for seed in summary.seeds]
    headings = {"": False} | dict.fromkeys(METRICS.values(), True)
    for what, statistics in (
        ("Over seeds: mean over folds", summary.over_seeds_of_the_mean_over_folds),
        ("Over seeds: pooled", summary.over_seeds_of_pooled),
    ):
        if statistics:
            named = statistics_rows(statistics, f"{len(summary.seeds)} seeds")
            tables.append(Table(what, headings, [[name, *percentages(values)] for name, values in named]))
    return tables


def _fold_table(seed: SeedSummary, num_folds: int) -> Table:
    headings = {
        "fold": False,
        **dict.fromkeys(METRICS.values(), True),
        **dict.fromkeys(("utterances", "speakers", "best epoch", "epochs", "time"), True),
        "split hash": False,
    }
    rows = [
        [
            f"fold {fold.fold}",
            *percentages(fold.scores),
            str(fold.utterances),
            str(len(fold.speakers)),
            str(fold.best_epoch),
            str(fold.epochs),
            duration(fold.seconds),
            fold.split_hash,
        ]
        for fold in seed.folds
    ]
    empty = [""] * 5  # columns of folds only
    named = statistics_rows(seed.over_folds, folds_in_words(seed, num_folds))
    footer = [[name, *percentages(values), "", *empty] for name, values in named]
    footer.append(["pooled over utterances", *percentages(seed.pooled), str(seed.utterances), *empty])
    return Table(f"Seed {seed.seed}, test set of each fold; epochs count from 0", headings, rows, footer)


def classes(systems: Sequence[ReportedSystem]) -> Section:
    """Return the section of confusion matrices and recalls, pooled over folds and seeds."""
    several = len(systems) > 1
    counts = {system.name: SpeakerCounts.of(system.runs).counts for system in systems}
    pictures = [_confusion(system, counts[system.name].sum(dim=(0, 1)), several) for system in systems]
    blocks: list[Block] = [SideBySide(pictures)] if several else [*pictures]
    estimates = {
        name: [estimate_recall(found, index) for index in range(found.shape[-1])] for name, found in counts.items()
    }
    parts = picture_groups(systems, lambda system: system.summary.class_names, MAX_SYSTEMS_PER_FIGURE)
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
        f"{system.name if several else 'Confusion matrix'}, pooled over {system.pooled_over}. Rows sum to 100%; "
        "counts are utterances.",
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
    span = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    speakers = "speaker" if numbers == [1] else f"{span} speakers"
    without = any(one.low is None and one.speakers for system in systems for one in estimates[system.name])
    caption = f"Bootstrap intervals over the {speakers} with an utterance of the class."
    if without:
        caption += " A dot without a line has no interval; the table gives the reason."
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
