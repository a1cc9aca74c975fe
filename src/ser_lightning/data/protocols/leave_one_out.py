"""One fold for each speaker, or for each session."""

from collections.abc import Sequence

from ser_lightning.data.protocols.protocol import Protocol, by_speaker, first_few, speakers_of
from ser_lightning.errors import ProtocolError
from ser_lightning.types import Stage, Utterance


class LeaveOneSpeakerOut(Protocol):
    """One fold for each speaker, in sorted order (Huang et al. 2020, section 3.1; Ando et al. 2019, section 4.1).

    The other speakers of the session validate, or, in a corpus without sessions, the next speaker (cyclic).
    """

    @property
    def name(self) -> str:
        """Name of the protocol in reports."""
        return "leave one speaker out"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of speakers.

        Raises:
            ProtocolError: If there are fewer than three.
        """
        speakers = speakers_of(utterances)
        if len(speakers) < 3:
            raise ProtocolError(
                f"{self.name}: at least 3 speakers are needed, one each for test, validation and training, but the "
                f"corpus has {len(speakers)}: {first_few(speakers)}. Add speakers."
            )
        return len(speakers)

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to in ``fold``.

        Raises:
            ProtocolError: If only some utterances have a session, or a session has one speaker.
        """
        speakers = speakers_of(utterances)
        tested = speakers[fold]
        without = [u.name for u in utterances if u.session is None]
        if len(without) == len(utterances):
            return by_speaker(utterances, validation=[speakers[(fold + 1) % len(speakers)]], test=[tested])
        if without:
            raise ProtocolError(
                f"{self.name}: {len(without)} of {len(utterances)} utterances have no session: {first_few(without)}. "
                "Give every utterance its session, or none."
            )
        sessions = {u.session for u in utterances if u.speaker == tested}
        partners = {u.speaker for u in utterances if u.session in sessions} - {tested}
        if not partners:
            raise ProtocolError(
                f"{self.name}: speaker {tested} is alone in session {', '.join(sorted(map(str, sessions)))}, so the "
                "validation set is empty. Add the session's other speaker, or omit sessions."
            )
        return by_speaker(utterances, validation=partners, test=[tested])


class LeaveOneSessionOut(Protocol):
    """One fold for each session, in sorted order: the five folds of IEMOCAP that most papers quote.

    Of the next session (cyclic) the first speakers validate; its other speakers train, as all other sessions do.

    Args:
        validation_speakers: Number of speakers of the next session who validate; None: all, so that no session is in
            two sets.

    Raises:
        ProtocolError: If ``validation_speakers`` is less than 1.
    """

    def __init__(self, validation_speakers: int | None = 1) -> None:
        if validation_speakers is not None and validation_speakers < 1:
            raise ProtocolError(f"validation_speakers is {validation_speakers}; choose 1 or more, or null for all.")
        self._validation_speakers = validation_speakers

    @property
    def name(self) -> str:
        """Name of the protocol in reports."""
        number = "a session" if self._validation_speakers is None else f"{self._validation_speakers} of the next"
        return f"leave one session out (validation: {number})"

    def _speakers_of_sessions(self, utterances: Sequence[Utterance]) -> list[list[str]]:
        """Return the speakers of each session.

        Raises:
            ProtocolError: If an utterance has no session, a speaker is in two, or there are fewer than three.
        """
        if without := [u.name for u in utterances if u.session is None]:
            raise ProtocolError(
                f"{self.name}: {len(without)} of {len(utterances)} utterances have no session: {first_few(without)}. "
                "Give every utterance its session, or use LeaveOneSpeakerOut."
            )
        sessions = sorted({str(u.session) for u in utterances})
        found = [speakers_of([u for u in utterances if u.session == session]) for session in sessions]
        speakers = [speaker for session in found for speaker in session]
        if repeated := sorted({speaker for speaker in speakers if speakers.count(speaker) > 1}):
            raise ProtocolError(
                f"{self.name}: {first_few(repeated)} in more than one session; use LeaveOneSpeakerOut or ActorFolds."
            )
        fewest = 3 if self._validation_speakers is None else 2
        if len(found) < fewest:
            raise ProtocolError(
                f"{self.name}: at least {fewest} sessions are needed for training, validation and test, but the corpus "
                f"has {len(found)}: {', '.join(sessions)}."
            )
        return found

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of sessions."""
        return len(self._speakers_of_sessions(utterances))

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage]:
        """Return the set that each of ``utterances`` belongs to in ``fold``."""
        sessions = self._speakers_of_sessions(utterances)
        following = sessions[(fold + 1) % len(sessions)]
        return by_speaker(utterances, validation=following[: self._validation_speakers], test=sessions[fold])
