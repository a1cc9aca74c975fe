"""What of a corpus is used, in one line: what was found, what is left out or skipped and why, what remains."""

from collections.abc import Sequence

from ser_lightning.data.corpus_data import CorpusData

_MOST_NAMED = 3


def usage(data: CorpusData) -> str:
    """Return how many utterances were found, left out, skipped and are used, the first few of each by name.

    Args:
        data: Its audio has been looked at; until then nothing is skipped.
    """
    left_out = sorted(data.left_out.items())
    skipped = [(path.name, reason) for path, reason in sorted(data.skipped_audio.items())]
    parts = [f"{len(data.all_utterances) + len(left_out)} utterances found"]
    if left_out:
        parts.append(f"{len(left_out)} left out ({_some(left_out)})")
    if skipped:
        parts.append(f"{len(skipped)} skipped as unusable ({_some(skipped)})")
    used = sum(utterance.path not in data.skipped_audio for utterance in data.all_utterances)
    return ", ".join([*parts, f"{used} used"])


def _some(reasons: Sequence[tuple[str, str]]) -> str:
    more = len(reasons) - _MOST_NAMED
    named = [f"{name}: {reason}" for name, reason in reasons[:_MOST_NAMED]]
    return "; ".join([*named, f"and {more} more"] if more > 0 else named)
