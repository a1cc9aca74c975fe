"""New names of labels, for training and testing across corpora with other emotions."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from data_modules.discovery import Found
from ser_lightning.errors import ConfigurationError, CorpusWarning
from ser_lightning.text import identity
from ser_lightning.types import Utterance

LabelMap = Mapping[str, str | None]


def map_classes(class_names: Sequence[str], label_map: LabelMap) -> tuple[str, ...]:
    """Return the new classes in alphabetical order, so that corpora with the same emotions agree.

    Args:
        class_names: The corpus's classes.
        label_map: New name by label; None leaves a label out, and labels that are not named stay.

    Raises:
        ConfigurationError: If a label is none of the classes, or fewer than two are left.
    """
    names = _normalised(label_map)
    if unknown := sorted(set(names) - set(class_names)):
        raise ConfigurationError(
            f"data.init_args.label_map: {unknown[0]!r} is not a label of this corpus; its labels are "
            f"{', '.join(class_names)}"
        )
    new = sorted({name for old in class_names if (name := names.get(old, old)) is not None})
    if len(new) < 2:
        raise ConfigurationError(
            f"data.init_args.label_map leaves {', '.join(new) or 'no class'}; at least two classes are needed"
        )
    return tuple(new)


def map_labels(found: Found, label_map: LabelMap, corpus: str) -> Found:
    """Return the utterances with their new labels and votes, without those of labels that are left out.

    Args:
        found: The utterances.
        label_map: As in ``map_classes``.
        corpus: The corpus's name, for the warning.

    Warns:
        CorpusWarning: If utterances are left out, with their number.
    """
    names = _normalised(label_map)
    dropped = {old for old, new in names.items() if new is None}
    kept = [u for u in found.utterances if u.label not in dropped]
    if len(kept) < len(found.utterances):
        counts = Counter(str(u.label) for u in found.utterances if u.label in dropped)
        what = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
        warnings.warn(f"{corpus}: label_map leaves out utterances: {what}.", CorpusWarning, stacklevel=4)

    def renamed(label: str) -> str:
        return names.get(label) or label  # in votes, an emotion that is left out is none of the classes

    def mapped(utterance: Utterance) -> Utterance:
        label = None if utterance.label is None else renamed(utterance.label)
        return replace(utterance, label=label, votes=tuple(tuple(map(renamed, vote)) for vote in utterance.votes))

    return Found(tuple(map(mapped, kept)), found.left_out)


def _normalised(label_map: LabelMap) -> dict[str, str | None]:
    return {identity(old): None if new is None else identity(new) for old, new in label_map.items()}
