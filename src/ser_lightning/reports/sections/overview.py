"""Overview: caveats, headline scores, the facts of the runs, and what was left out."""

from collections.abc import Sequence

from ser_lightning.reports.document import Block, Caveats, Definitions, Folded, Headline, Paragraph, Section, Table
from ser_lightning.reports.systems import ReportedSystem
from ser_lightning.reports.terminal import SPEAKERS_SHARED, caveats, folds_in_words, percentages
from ser_lightning.reports.uncertainty import SCORES, SpeakerCounts, estimate, too_narrow
from ser_lightning.runs.gathering import LeftOut
from ser_lightning.runs.summary import METRICS, Summary, corpus_title

MAX_CONFIGURATIONS = 5  # columns of the table of settings


def opening(systems: Sequence[ReportedSystem], unread: Sequence[LeftOut] = ()) -> Section:
    """Return the caveats, and for a single system its scores.

    Args:
        systems: The systems shown.
        unread: Folders left out.
    """
    found: dict[str, list[str]] = {}
    for system in systems:
        for line in [*caveats(system.summary), *_folds_of_seeds(system)]:
            found.setdefault(line, []).append(system.name)
    lines = [f"{len(unread)} folder{'s' * (len(unread) > 1)} left out, with the reasons at the end"] if unread else []
    lines += [line if len(names) == len(systems) else f"{', '.join(names)}: {line}" for line, names in found.items()]
    blocks: list[Block] = [Caveats(lines)] if lines else []
    if len(systems) == 1:
        blocks += _headline(systems[0])
    return Section("", blocks)


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
    return Section("What was run", blocks)


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


def _headline(system: ReportedSystem) -> list[Block]:
    summary, statistics = system.summary, system.summary.statistics
    folds = folds_in_words(summary.seeds[0], summary.num_folds)
    over = f"{len(summary.seeds)} seeds, each the mean over its folds" if len(summary.seeds) > 1 else folds
    deviations = percentages(statistics.standard_deviation_ddof_0)
    counts = SpeakerCounts.of(system.runs).counts
    pooled = {name: estimate(counts, score) for name, score in SCORES.items()}
    numbers = {}
    for name, mean, deviation in zip(METRICS, percentages(statistics.mean), deviations, strict=True):
        spread = f"standard deviation {deviation} (ddof 0)" if statistics.standard_deviation_ddof_0 else "no spread"
        also = f"; pooled {pooled[name].in_words()}" if name in pooled else ""
        numbers[name.replace("_", " ")] = (f"{mean}%", f"mean over {over}; {spread}{also}")
    warning = too_narrow(one.speakers for one in pooled.values() if one.low is not None)
    return [Headline(numbers), *([Paragraph(warning)] if warning else [])]


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
