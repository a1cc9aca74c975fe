"""Check a corpus and its folds before training, and extract its features."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import cast

from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ser_lightning.allow_list import check_class_paths, enforce_allow_list
from ser_lightning.cross_validation.findings import class_warnings, listen, print_same_audio
from ser_lightning.data.corpora import CorpusData, protocol_hash
from ser_lightning.data.protocols import speaker_overlap
from ser_lightning.data.targets import existence_ratios
from ser_lightning.features.extraction import find_device
from ser_lightning.training.arguments import config_files, corpus_argument, read_experiment_file
from ser_lightning.training.parser_errors import constructor_error, parser_error
from ser_lightning.types import STAGES, Split, Utterance

_MAX_NAMED = 3


def usage(data: CorpusData) -> str:
    """Return how many utterances were found, left out, skipped and are used, with the first names of each.

    Args:
        data: The data module; nothing counts as skipped before its audio was checked.
    """
    left_out = sorted(data.left_out.items())
    skipped = [(path.name, reason) for path, reason in sorted(data.skipped_audio.items())]
    parts = [f"{len(data.all_utterances) + len(left_out)} utterances found"]
    if left_out:
        parts.append(f"{len(left_out)} left out ({_first_reasons(left_out)})")
    if skipped:
        parts.append(f"{len(skipped)} skipped as unusable ({_first_reasons(skipped)})")
    used = sum(utterance.path not in data.skipped_audio for utterance in data.all_utterances)
    return ", ".join([*parts, f"{used} used"])


def _first_reasons(reasons: Sequence[tuple[str, str]]) -> str:
    more = len(reasons) - _MAX_NAMED
    named = [f"{name}: {reason}" for name, reason in reasons[:_MAX_NAMED]]
    return "; ".join([*named, f"and {more} more"] if more > 0 else named)


MAX_CLASS_COLUMNS = 16
"""With more classes, such as speakers, the table does not have a column per class."""


def audit(arguments: Sequence[str], allow: Sequence[str], console: Console) -> int:
    """Print every fold's sets: utterances by class, speakers, genders, hours and split hash.

    Each file is decoded first, unless its features are stored. Utterances and hours count labelled ones; unlabelled
    ones have a column if there are any.

    Args:
        arguments: LightningCLI's arguments.
        allow: Module prefixes that the user trusts.
        console: Console to print to.

    Returns:
        Exit status: 1 if a speaker is in two sets of a fold, even if the protocol allows it, or the same audio is and
        the release is not known for it.

    Raises:
        AudioError: If audio is unusable and ``on_bad_audio`` is ``stop``.
        ProtocolError: If the corpus does not fit the protocol, or a speaker-independent protocol shares a speaker.
    """
    data = _data_module(arguments, allow)
    hours, sounds = listen(data, console)
    _print_usage(data, console)
    overlaps: dict[int, tuple[str, ...]] = {}
    title = f"{data.corpus_name}: {data.protocol.name}, protocol hash {protocol_hash(data)}"
    table = Table(title=Text(title, "table.title"))
    for heading in ("fold", "split hash", "set", "utterances"):
        table.add_column(heading)
    unlabelled = any(u.label is None for u in data.all_utterances)
    for heading in (*_class_headings(data.class_names), "hours", *["without label"] * unlabelled):
        table.add_column(heading, justify="right")
    aged = any(u.age is not None for u in data.all_utterances)
    for heading in ("female / male", *["age"] * aged, "speakers"):
        table.add_column(heading)
    splits = [data.split(fold) for fold in range(data.num_folds())]
    for fold, split in enumerate(splits):
        if shared := speaker_overlap(split):
            overlaps[fold] = shared
        _add_fold(table, split, data.class_names, hours, unlabelled, aged)
    console.print(table, markup=False)  # names of classes and speakers may hold brackets
    if any(u.votes for u in data.all_utterances):
        console.print(_existence(data), markup=False)
    for fold, shared in overlaps.items():
        speakers = escape(_shorten(shared, 30))
        every = len({u.speaker for stage in STAGES for u in splits[fold].of(stage)})
        what = f"fold {fold}: {len(shared)} of {every} speakers are in more than one set:"
        console.print(f"[red]{what}[/red] {speakers}", highlight=False)
    if overlaps:
        console.print("This protocol mixes speakers by design: its scores do not hold for unseen speakers.")
    else:
        console.print("No speaker is in two sets of a fold.")
    lines = class_warnings(data, splits)
    if not data.protocol.uses_listed_sets and any(u.listed_set for u in data.all_utterances):
        lines.append(f"The table's split column is not used: the protocol is {data.protocol.name}, not ListedFolds.")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    leaks = print_same_audio(data, splits, sounds, console)
    return 1 if overlaps or leaks else 0


def prepare(arguments: Sequence[str], allow: Sequence[str], console: Console, device: str = "cpu") -> int:
    """Extract the features of an experiment's corpus into the store, with a progress bar.

    Args:
        arguments: LightningCLI's arguments.
        allow: Module prefixes that the user trusts.
        console: Console to print to.
        device: Torch's name of the device to extract on.

    Returns:
        Exit status: 0.

    Raises:
        AudioError: If audio is unusable and ``on_bad_audio`` is ``stop``.
        ConfigurationError: If the device is not available.
    """
    data = _data_module(arguments, allow)
    prepared = data.extract(device=str(find_device(device)))
    _print_usage(data, console)
    console.print(
        f"{data.corpus_name}: {prepared.extracted} files extracted, {prepared.reused} already stored, "
        f"{len(prepared.problems)} unusable; {prepared.seconds:.1f} s"
        + (f", {prepared.extracted / prepared.seconds:.0f} files/s" if prepared.extracted else ""),
        highlight=False,
    )
    print_same_audio(data, [], data.sounds(), console)
    return 0


def _print_usage(data: CorpusData, console: Console) -> None:
    """Print each unused file and utterance, then the numbers."""
    lines = [f"skipped: {path}: {reason}" for path, reason in sorted(data.skipped_audio.items())]
    lines += [f"left out: {name}: {reason}" for name, reason in sorted(data.left_out.items())]
    for line in (*lines, usage(data)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _data_module(arguments: Sequence[str], allow: Sequence[str]) -> CorpusData:
    """Build an experiment's data module, without system and trainer."""
    from ser_lightning.data.module import DataModule  # imported late: its base class depends on leave_out_lightning

    for path in config_files(arguments):
        check_class_paths(read_experiment_file(path), str(path), allow)
    enforce_allow_list(allow)
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="config")
    parser.add_argument("--seed_everything", type=int, default=0)
    parser.add_subclass_arguments(DataModule, "data", required=True)
    parser.link_arguments("seed_everything", "data.init_args.seed")
    for part in _NOT_DATA:
        parser.add_argument(f"--{part}", type=dict | str | None)  # with Any, its classes would be imported
    try:
        parsed = parser.parse_args([*corpus_argument(arguments), *_data_arguments(arguments)])
        return cast(CorpusData, parser.instantiate(parsed).data)
    except ArgumentError as error:
        raise parser_error(str(error), arguments, parser) from error
    except ValueError as error:
        raise constructor_error(error) from error


# The other sections of an experiment's files.
_NOT_DATA = ("model", "trainer", "best_checkpoint", "execution", "run")


def _data_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without those of the other sections, given as ``--key=value`` or ``--key value``."""
    kept: list[str] = []
    is_left_out = False
    for argument in arguments:
        if argument.startswith("--"):
            is_left_out = argument[2:].partition("=")[0].partition(".")[0] in _NOT_DATA
        if not is_left_out:
            kept.append(argument)
    return kept


def _add_fold(
    table: Table, split: Split, class_names: Sequence[str], hours: dict[str, float], unlabelled: bool, aged: bool
) -> None:
    def duration(utterances: Iterable[Utterance]) -> str:
        return f"{sum(hours[u.name] for u in utterances):.2f}"

    for stage in STAGES:
        utterances = [u for u in split.of(stage) if u.label is not None]
        others = [u for u in split.of(stage) if u.label is None]
        classes = Counter(u.label for u in utterances)
        first = stage == STAGES[0]
        table.add_row(
            str(split.fold) if first else "",
            split.hash if first else "",
            stage,
            str(len(utterances)),
            *_class_counts(classes, class_names),
            duration(utterances),
            *[f"{len(others)} ({duration(others)} hours)"] * unlabelled,
            _genders(split.of(stage)),
            *[_ages(split.of(stage))] * aged,
            _shorten(split.speakers(stage)),
            end_section=stage == STAGES[-1],
        )


def _class_headings(class_names: Sequence[str]) -> Sequence[str]:
    return class_names if len(class_names) <= MAX_CLASS_COLUMNS else (f"of each of {len(class_names)} classes",)


def _class_counts(counts: Counter[str | None], class_names: Sequence[str]) -> list[str]:
    numbers = [counts[name] for name in class_names]
    if len(numbers) <= MAX_CLASS_COLUMNS:
        return list(map(str, numbers))
    fewest, most = min(numbers), max(numbers)
    return [str(most) if fewest == most else f"{fewest} to {most}"]


def _genders(utterances: Sequence[Utterance]) -> str:
    genders = Counter({u.speaker: u.gender for u in utterances}.values())
    if set(genders) <= {None}:
        return "not stated" if utterances else ""
    return f"{genders['female']} / {genders['male']}"


def _ages(utterances: Sequence[Utterance]) -> str:
    ages = [u.age for u in utterances if u.age is not None]
    return f"{min(ages)} to {max(ages)}" if ages else ""


def _existence(data: CorpusData) -> Table:
    """Return the share of utterances in which at least one evaluator heard each emotion, next to a paper's."""
    used = [u for u in data.all_utterances if u.path not in data.skipped_audio]
    ratios = existence_ratios(used, data.class_names)
    if all(u.label is not None for u in used):
        del ratios["all"]  # the same utterances
    table = Table(title=Text("utterances in which an evaluator heard the emotion, percent", "table.title"))
    table.add_column("utterances")
    for name in data.class_names:
        table.add_column(name, justify="right")
    for name, shares in ratios.items():
        table.add_row(name, *(f"{100 * shares[emotion]:.1f}" for emotion in data.class_names))
        if published := data.published_existence.get(name):
            table.add_row("  Ando et al. 2019, table 1", *(f"{published[emotion]:.1f}" for emotion in data.class_names))
    return table


def _shorten(speakers: Sequence[str], most: int = 6) -> str:
    if len(speakers) <= most:
        return " ".join(speakers)
    return f"{len(speakers)}: {' '.join(speakers[: most // 2])} ... {' '.join(speakers[-(most // 2) :])}"
