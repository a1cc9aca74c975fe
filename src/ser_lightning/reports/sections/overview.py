"""Overview: caveats, headline scores or a ranking, and at the end the facts of the runs and what was left out."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ser_lightning.reports.document import (
    Block,
    Caveats,
    Definitions,
    Folded,
    Headline,
    Paragraph,
    Picture,
    Section,
    Table,
)
from ser_lightning.reports.figures import png
from ser_lightning.reports.forest_figure import forest_figure
from ser_lightning.reports.systems import ReportedSystem, picture_groups
from ser_lightning.reports.terminal import (
    SPEAKERS_SHARED,
    caveats,
    folds_in_words,
    mean_and_spread,
    mean_and_spread_in_words,
)
from ser_lightning.reports.uncertainty import (
    MIN_SPEAKERS,
    SCORES,
    Estimate,
    SpeakerCounts,
    at_chance,
    estimate,
    too_narrow,
)
from ser_lightning.runs.gathering import LeftOut
from ser_lightning.runs.summary import Summary, corpus_title

MAX_CONFIGURATIONS = 5  # columns of the table of settings
MAX_RANKED = 40  # systems in a picture


def opening(systems: Sequence[ReportedSystem], unread: Sequence[LeftOut] = ()) -> Section:
    """Return the caveats, the scores of a single system or the ranking of several, and how to read intervals.

    Args:
        systems: The systems shown.
        unread: Folders left out.
    """
    counts = {system.name: SpeakerCounts.of(system.runs) for system in systems}
    pooled = {name: {key: estimate(one.counts, score) for key, score in SCORES.items()} for name, one in counts.items()}
    found: dict[str, list[str]] = {}
    for system in systems:
        for line in [*caveats(system.summary), *_folds_of_seeds(system), *_chance(system, pooled[system.name]["UA"])]:
            found.setdefault(line, []).append(system.name)
    lines = [f"{len(unread)} folder{'s' * (len(unread) > 1)} left out, with the reasons at the end"] if unread else []
    lines += [line if len(names) == len(systems) else f"{'; '.join(names)}: {line}" for line, names in found.items()]
    blocks: list[Block] = [Caveats(lines)] if lines else []
    if len(systems) == 1:
        blocks.append(_headline(systems[0], counts[systems[0].name], pooled[systems[0].name]))
    else:
        blocks += _ranking(systems, counts, pooled)
    return Section("", [*blocks, Paragraph(_reading(list(counts.values())))])


def _reading(counts: Sequence[SpeakerCounts]) -> str:
    """Return what intervals on the page mean, with the one warning that applies to them."""
    # Intervals of a class are over the speakers who have it.
    have = [one.counts.sum(dim=(0, 3)) > 0 for one in counts]  # [S, C]
    numbers = {number for one in have for number in [len(one), *one.sum(0).tolist()] if number >= MIN_SPEAKERS}
    return (
        "Intervals are 95% bootstrap intervals over speakers, not utterances, of the score pooled over folds; they do "
        f"not cover variation between trainings. {too_narrow(numbers)}"
    ).strip()


def run_facts(systems: Sequence[ReportedSystem]) -> Section:
    """Return the facts of the runs: shared ones as a list, others as a table."""
    facts = [_facts(system.summary) for system in systems]
    shared = {name: value for name, value in facts[0].items() if all(other[name] == value for other in facts)}
    blocks: list[Block] = [Definitions({name: value for name, value in shared.items() if value})]
    if differing := [name for name in facts[0] if name not in shared]:
        rows = [[system.name, *(own[name] for name in differing)] for system, own in zip(systems, facts, strict=True)]
        blocks.append(Table("What differs", dict.fromkeys(["", *differing], False), rows))
    if 1 < len(systems) <= MAX_CONFIGURATIONS and (settings := _unlike_settings(systems)):
        caption = "Settings that differ (-: not set)"
        blocks.append(Table(caption, dict.fromkeys(["", *(system.name for system in systems)], False), settings))
    return Section("Settings", blocks)


def left_out_section(systems: Sequence[ReportedSystem], unread: Sequence[LeftOut] = ()) -> list[Section]:
    """Return a section on folders and audio that were left out, if there are any."""
    skipped = dict.fromkeys(
        f"{path}: {reason}" for system in systems for path, reason in system.summary.skipped_audio.items()
    )
    faulty = dict.fromkeys(name for system in systems for name in system.summary.faulty_left_out)
    blocks = [
        Folded(f"{what}: {len(lines)}", list(lines))
        for what, lines in (
            ("Folders that cannot be shown", [f"{one.folder}: {one.reason}" for one in unread]),
            ("Audio files skipped as unusable", skipped),
            ("Utterances left out: faulty in the release, or without audio", faulty),
        )
        if lines
    ]
    return [Section("Left out", blocks)] if blocks else []


def number_of_folds(summary: Summary) -> str:
    """Return, for example, "9 of 10", or "10, 9 of 10" if seeds differ."""
    numbers = dict.fromkeys(len(seed.folds) for seed in summary.seeds)
    return f"{', '.join(map(str, numbers))} of {summary.num_folds}"


def duration(seconds: float) -> str:
    """Return a duration in words."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _unlike_settings(systems: Sequence[ReportedSystem]) -> list[list[str]]:
    """Return a row for each setting that differs between systems: the key, then the values."""
    configurations = [system.configured.settings for system in systems]
    keys = dict.fromkeys(key for one in configurations for key in one)
    rows = [[key, *(_in_words(one.get(key)) for one in configurations)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _in_words(value: object) -> str:
    return "-" if value is None else str(value).removeprefix("ser_lightning.")


def _folds_of_seeds(system: ReportedSystem) -> list[str]:
    """Return a caveat if the seeds have finished different folds."""
    if len({tuple(fold.facts.fold for fold in run.folds) for run in system.runs}) == 1:
        return []
    return [f"seeds have finished different folds; scores of speakers and classes are pooled over {system.pooled_over}"]


def _headline(system: ReportedSystem, counts: SpeakerCounts, pooled: Mapping[str, Estimate]) -> Headline:
    """Return UA and WA with their meaning, and what guessing gives."""
    summary, statistics = system.summary, system.summary.statistics
    folds = folds_in_words(summary.seeds[0], summary.num_folds)
    over = f"{len(summary.seeds)} seeds, each the mean over its folds" if len(summary.seeds) > 1 else folds
    totals = counts.counts.sum(dim=(0, 1, 3))
    classes = len(summary.class_names)
    meanings = {
        "UA": f"unweighted accuracy, mean recall of {classes} emotions; chance is {100 / classes:.3g}%",
        "WA": f"weighted accuracy, share of utterances recognised; always the most frequent emotion gives "
        f"{100 * totals.max().item() / totals.sum().item():.3g}%",
    }
    numbers = {}
    for name in SCORES:
        deviation = statistics.standard_deviation_ddof_0
        spread = f", standard deviation {100 * deviation[name]:.1f} (ddof 0)" if deviation else ""
        numbers[name] = (
            f"{100 * statistics.mean[name]:.1f}%",
            f"{meanings[name]}. Mean over {over}{spread}; pooled {pooled[name].in_words()}",
        )
    return Headline(numbers)


def _ranking(
    systems: Sequence[ReportedSystem],
    counts: Mapping[str, SpeakerCounts],
    scores: Mapping[str, Mapping[str, Estimate]],
) -> list[Block]:
    """Return a table and pictures of the systems, the best pooled UA first, by corpus and split."""
    summaries = [system.summary for system in systems]
    headings = {"": False, "UA %": True, "pooled UA %, interval": True, "WA %": True, "pooled WA %, interval": True}
    headings |= {"folds": True, "seeds": True, "speakers": True}
    groups = picture_groups(systems, lambda system: system.split, MAX_RANKED)
    blocks: list[Block] = []
    for group in groups:
        ranked = sorted(group, key=lambda system: (-scores[system.name]["UA"].value, system.name))
        summary = ranked[0].summary
        title = corpus_title(summary) if len(groups) == 1 else f"{corpus_title(summary)}, {summary.protocol}"
        rows = []
        for system in ranked:
            means = [mean_and_spread(system.summary, name) for name in ("UA", "WA")]
            pooled = [_with_interval(scores[system.name][name]) for name in SCORES]
            rows.append([system.name, *(cell for pair in zip(means, pooled, strict=True) for cell in pair)])
            seeds = ", ".join(str(seed.seed) for seed in system.summary.seeds)
            rows[-1] += [number_of_folds(system.summary), seeds, str(len(counts[system.name].speakers))]
        caption = f"Systems on {title}, best first; UA and WA: {mean_and_spread_in_words(summaries)}"
        blocks.append(Table(caption, headings, rows))
        chance = 1 / len(summary.class_names)
        drawn = {system.name: scores[system.name]["UA"] for system in ranked}
        numbers = pd.DataFrame(
            [{"system": name, "UA": one.value, "low": one.low, "high": one.high} for name, one in drawn.items()]
        )
        figure = forest_figure(
            drawn, f"Systems: {title}", "pooled UA (%), line: 95% interval", chance, f"chance {100 * chance:.3g}%"
        )
        words = "; ".join(f"{name}: UA {one.in_words()}" for name, one in drawn.items())
        name = "systems" if len(groups) == 1 else f"systems_{ranked[0].key}"
        blocks.append(Picture(name, png(figure), words, f"Pooled UA of each system on {title}, best first.", numbers))
    return blocks


def _with_interval(one: Estimate) -> str:
    return f"{100 * one.value:.1f} {one.interval()}" if one.low is not None else f"{100 * one.value:.1f}"


def _chance(system: ReportedSystem, pooled: Estimate) -> list[str]:
    """Return a caveat if the system may only guess."""
    classes = len(system.summary.class_names)
    return [f"UA is at chance, {100 / classes:.3g}%: {pooled.in_words()}"] if at_chance(pooled, 1 / classes) else []


def _facts(summary: Summary) -> dict[str, str]:
    parameters = sorted({fold.parameters for seed in summary.seeds for fold in seed.folds})
    return {
        "experiment": summary.experiment,
        "paper": summary.paper,  # empty for an experiment without a paper
        "row": summary.row,
        "system": summary.system,
        "trainable parameters": ", ".join(f"{number:,}" for number in parameters),
        "corpus": corpus_title(summary),
        "classes": ", ".join(summary.class_names),
        "protocol": summary.protocol,
        "speakers": "no speaker occurs in two sets of a fold" if summary.speakers_disjoint else SPEAKERS_SHARED,
        "protocol hash": summary.protocol_hash,
        "seeds": ", ".join(str(seed.seed) for seed in summary.seeds),
        "finished": "; ".join(
            f"{folds_in_words(seed, summary.num_folds)} (seed {seed.seed})" for seed in summary.seeds
        ),
        "code": ", ".join(summary.code_versions),
        "hardware": ", ".join(summary.hardware),
        "time of all folds": duration(summary.seconds),
        "audio": f"skipped as unusable: {len(summary.skipped_audio)}; left out as faulty or without audio: "
        f"{len(summary.faulty_left_out)}",
    }
