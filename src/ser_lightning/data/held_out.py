"""Protocols for speaker identification: a few clips of every speaker are held out for validation."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ser_lightning.data.protocols import Protocol
from ser_lightning.errors import ProtocolError
from ser_lightning.text import identity
from ser_lightning.types import Stage, Utterance


class HeldOutClips(Protocol):
    """One fold: a few clips of each speaker validate, the others train, and nothing is tested.

    Clips are drawn regardless of their recording session or video, so training clips may share room and microphone with
    held-out ones: scores are higher than on new recordings. A speaker's draw depends only on the seed and the names of
    their clips.

    Args:
        clips_per_speaker: Validation clips of each speaker.
        seed: Seed of the draw.

    Raises:
        ProtocolError: If ``clips_per_speaker`` is less than 1, or ``seed`` less than 0.
    """

    speakers_disjoint = False
    has_test_set = False

    def __init__(self, clips_per_speaker: int = 1, seed: int = 0) -> None:
        if clips_per_speaker < 1:
            raise ProtocolError(f"clips_per_speaker is {clips_per_speaker}; hold out at least 1 clip of each speaker.")
        if seed < 0:
            raise ProtocolError(f"seed is {seed}; choose 0 or more.")
        self.clips_per_speaker = clips_per_speaker
        self.seed = seed

    @property
    def name(self) -> str:
        """Name of the protocol in reports."""
        return f"held-out clips ({self.clips_per_speaker} of each speaker, seed {self.seed})"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return 1."""
        return 1

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to.

        Raises:
            ProtocolError: If a speaker has no clip left to train on.
        """
        positions: defaultdict[str, list[int]] = defaultdict(list)
        for position, utterance in enumerate(utterances):
            positions[utterance.speaker].append(position)
        stages: list[Stage] = ["train"] * len(utterances)
        for speaker, clips in positions.items():
            order = self.draw(speaker, [utterances[position].name for position in clips])
            for index in order[: self.clips_per_speaker]:
                stages[clips[index]] = "validation"
        return stages

    def draw(self, speaker: str, names: Sequence[str]) -> list[int]:
        """Return the positions of a speaker's clips in random order; the first ones are held out.

        Args:
            speaker: The speaker.
            names: Names of their clips, in any order.

        Raises:
            ProtocolError: If no clip is left to train on.
        """
        if len(names) <= self.clips_per_speaker:
            lower = f"set clips_per_speaker to {len(names) - 1} or less, " if len(names) > 1 else ""
            raise ProtocolError(
                f"{self.name}: speaker {speaker} has {len(names)} clip{'s' * (len(names) > 1)}, which leaves none to "
                f"train on; {lower}add clips of {speaker}, or leave the speaker out."
            )

        def random_key(position: int) -> bytes:
            return hashlib.sha256(f"{self.seed}\n{names[position]}".encode()).digest()

        return sorted(range(len(names)), key=random_key)


class ListedClips(Protocol):
    """One fold: the clips listed in a file validate, the others train, and nothing is tested.

    Args:
        file: One clip per line: its name, with or without extension; text after a blank is ignored.
    """

    speakers_disjoint = False
    has_test_set = False

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def name(self) -> str:
        """Name of the protocol in reports."""
        return f"listed clips ({self.file.name})"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return 1."""
        return 1

    def listed(self) -> list[str]:
        """Return the names in the file, with extensions if it has them.

        Raises:
            ProtocolError: If it cannot be read, or lists nothing.
        """
        try:
            lines = [identity(line) for line in self.file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ProtocolError(f"{self.name}: {self.file} cannot be read ({error}); name a list of clips.") from error
        if not any(lines):
            raise ProtocolError(f"{self.name}: {self.file} lists no clip; write one per line.")
        return [line.split()[0] for line in lines if line]

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to.

        Raises:
            ProtocolError: If the file lists a clip that the corpus does not have.
        """
        known = {utterance.name for utterance in utterances}
        held_out: set[str] = set()
        for line in self.listed():
            name = line if line in known else line.rpartition(".")[0]
            if name not in known:
                raise self.unknown(line)
            held_out.add(name)
        return ["validation" if utterance.name in held_out else "train" for utterance in utterances]

    def unknown(self, line: str) -> ProtocolError:
        """Return the error for a clip that the corpus does not have."""
        return ProtocolError(
            f"{self.name}: {self.file} lists {line}, which the corpus does not have; fix the list, or add the clip."
        )
