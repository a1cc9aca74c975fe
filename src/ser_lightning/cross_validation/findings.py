"""What the audit finds in audio and labels: unusable files, the same audio twice, classes that cannot be learnt."""

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ser_lightning.audio import duration_seconds, read_audio
from ser_lightning.data.corpora import CorpusData
from ser_lightning.data.split_checks import (
    classes_of_one_speaker,
    find_same_audio,
    pairs_across_sets,
    same_audio_in_words,
    untrained_classes,
)
from ser_lightning.errors import AudioError
from ser_lightning.types import STAGES, Split

_MAX_SAME_AUDIO = 20
_KEY_BYTES = 16  # of SHA-256: two of a million different files share a key with a chance of 1e-27


def listen(data: CorpusData, console: Console) -> tuple[dict[str, float], Mapping[Path, Hashable]]:
    """Decode the files whose features are not stored, and leave out unusable ones.

    Returns:
        Hours by utterance name, and by file a key that files with the same samples share.
    """
    hours: dict[str, float] = {}
    problems: dict[Path, str] = {}
    rate = data.extractor.sample_rate_hz
    stored = data.sounds()
    decoded: dict[Path, Hashable] = {}
    decoded_lengths: set[int] = set()

    def decode(path: Path) -> int:
        waveform = read_audio(path, rate)
        decoded[path] = hashlib.sha256(waveform.numpy().data).digest()[:_KEY_BYTES]
        return len(waveform)

    for utterance in track(data.all_utterances, "decoding", console=console, transient=True):
        path = utterance.path
        try:
            if path in stored:
                seconds = duration_seconds(path)
            else:
                num_samples = decode(path)
                decoded_lengths.add(num_samples)
                seconds = num_samples / rate
            hours[utterance.name] = seconds / 3600
        except AudioError as error:
            problems |= error.problems
    # Keys of stored and of decoded files cannot be compared, so stored files as long as a decoded one are decoded too.
    for utterance in data.all_utterances if decoded_lengths else ():
        path, seconds = utterance.path, 3600 * hours.get(utterance.name, 0.0)
        if path in stored and math.ceil(seconds * rate - 1e-6) in decoded_lengths:
            try:
                decode(path)
            except AudioError as error:
                problems |= error.problems
    data.leave_out(problems)
    return hours, {**stored, **decoded} if decoded else stored


def class_warnings(data: CorpusData, splits: Sequence[Split]) -> list[str]:
    """Return a line for each class that a fold tests and never trains on, and for each that only one speaker has."""
    if not data.protocol.has_test_set:
        return []
    folds: dict[str, list[str]] = {}
    for split in splits:
        for name, count in untrained_classes(split, data.class_names, data.target_kind).items():
            folds.setdefault(name, []).append(f"{split.fold} ({count} utterance{'s' * (count > 1)})")
    lines = [f"{name} is tested and never trained on in fold {', '.join(where)}." for name, where in folds.items()]
    usable = (utterance for split in splits[:1] for stage in STAGES for utterance in split.of(stage))
    alone = classes_of_one_speaker(usable, data.class_names)
    return [*lines, *(f"All utterances of {name} are of one speaker, {speaker}." for name, speaker in alone.items())]


def print_same_audio(
    data: CorpusData, splits: Sequence[Split], sounds: Mapping[Path, Hashable], console: Console
) -> bool:
    """Print the utterances with the same audio in two sets, or under different speakers or labels.

    Args:
        data: The data module.
        splits: The folds; without any, sets are not compared.
        sounds: A key by audio file that files with the same samples share.
        console: Console to print to.

    Returns:
        Whether any that the release is not known for are in two sets of a fold.
    """
    usable = [u for u in data.all_utterances if u.path not in data.skipped_audio] if sounds else []
    groups = find_same_audio(usable, sounds, data.known_same_audio)
    crossings = [pairs_across_sets(groups, split) for split in splits]
    leaks, lines = False, []
    for index, group in enumerate(groups):
        crossed = [str(split.fold) for split, numbers in zip(splits, crossings, strict=True) if numbers[index]]
        leaks = leaks or (bool(crossed) and not group.known)
        notes = [*group.contradictions, *[f"in two sets of fold {', '.join(crossed)}"] * bool(crossed)]
        if notes:
            known = " (known of the release)" * group.known
            lines.append(f"same audio{known}: {' = '.join(u.name for u in group.utterances)}: {'; '.join(notes)}")
    for line in lines[:_MAX_SAME_AUDIO]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(lines) > _MAX_SAME_AUDIO:
        console.print(f"same audio: and {len(lines) - _MAX_SAME_AUDIO} more", highlight=False)
    if groups:
        console.print(same_audio_in_words(groups, splits), highlight=False, soft_wrap=True)
    if leaks:
        console.print(
            "[red]The same audio is in two sets of a fold:[/red] its test scores are too good. Remove the copies.",
            highlight=False,
        )
    return leaks
