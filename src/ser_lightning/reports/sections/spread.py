"""How scores spread: over folds and over speakers, as pictures, and a table of folds."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ser_lightning.reports.document import Block, Heading, Paragraph, Picture, Section, Table
from ser_lightning.reports.figures import png, score_figure
from ser_lightning.reports.sections.facts import duration
from ser_lightning.reports.speakers import SpeakerCounts
from ser_lightning.reports.summary import METRICS, SeedSummary, corpus_title
from ser_lightning.reports.summary_table import folds_in_words, percentages, soft_scores_lines, statistics_rows
from ser_lightning.reports.system_figures import MOST_TOGETHER, systems_figure
from ser_lightning.reports.systems import ReportedSystem, drawn_together


def folds(systems: Sequence[ReportedSystem]) -> Section:
    """Return the scores of each fold."""
    # Rows that are called alike stand side by side, so that all have the seed in their name or none has.
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
    """Return the scores of each speaker: over all folds that test the speaker, then the mean over seeds."""
    tables = {system.name: SpeakerCounts.of(system.runs).scores() for system in systems}
    return Section("Speakers", _pictures("speakers", "Speakers", systems, tables))


def _pictures(
    stem: str, title: str, systems: Sequence[ReportedSystem], tables: Mapping[str, pd.DataFrame]
) -> list[Picture]:
    """Draw systems on the same split together, those that are alone or too many each by itself.

    Args:
        stem: What the files are called.
        title: What the scores are of.
        systems: The systems.
        tables: For each system a table by fold or speaker with ``UA`` and ``WA``.
    """
    parts = drawn_together(systems, lambda system: system.split, MOST_TOGETHER)
    return [_picture(stem if len(parts) == 1 else f"{stem}_{part[0].key}", title, part, tables) for part in parts]


def _picture(name: str, title: str, systems: Sequence[ReportedSystem], tables: Mapping[str, pd.DataFrame]) -> Picture:
    summary = systems[0].summary
    chance = 1 / len(summary.class_names)
    heading = f"{title}: {corpus_title(summary)}"
    numbers = pd.concat([tables[system.name].reset_index().assign(system=system.name) for system in systems])
    kind = title.lower()
    count = len({label for system in systems for label in tables[system.name].index})
    caption = f"{count} {kind}, the best UA on top; UA over the classes that the {kind[:-1]}'s test utterances have."
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
    return Picture(name, png(figure), words, f"{caption} Chance is guessing every class equally often.", numbers)


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
    empty = [""] * 5  # what the folds alone have
    named = statistics_rows(seed.over_folds, folds_in_words(seed, num_folds))
    footer = [[name, *percentages(values), "", *empty] for name, values in named]
    footer.append(["pooled over utterances", *percentages(seed.pooled), str(seed.utterances), *empty])
    return Table(f"Seed {seed.seed}, test set of each fold; the best epoch counts from 0", headings, rows, footer)
