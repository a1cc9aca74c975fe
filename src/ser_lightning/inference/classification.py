"""Classify recordings with a trained checkpoint, in memory independent of their number and length."""
# Shapes: B stretches of a batch, T frames (padded), F features, C classes.

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ser_lightning.errors import AudioError, ConfigurationError
from ser_lightning.features.extraction import find_device
from ser_lightning.inference.ensemble import load_trained
from ser_lightning.inference.recordings import LONGEST_WHOLE_SECONDS, Recording, Stretch, Windowing
from ser_lightning.types import Batch, split_corpus_name

# A batch of windows needs no more memory than the longest recording that is classified whole.
BATCH_SECONDS = LONGEST_WHOLE_SECONDS
BATCH_SIZE = 64
POOL_SECONDS = 8 * BATCH_SECONDS  # stretches that are sorted by length together
MAX_PENDING_FILES = 8 * BATCH_SIZE  # unusable files add no seconds to the pool and would pile up


@dataclass(frozen=True)
class StretchDecision:
    """A system's decision on one stretch of a recording.

    Attributes:
        start_seconds: Start of the stretch.
        end_seconds: End of the stretch.
        emotion: The predicted class; None for digital silence.
        probabilities: Probability of each class; empty for digital silence.
    """

    start_seconds: float
    end_seconds: float
    emotion: str | None
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Classified:
    """A system's decision on a recording.

    Attributes:
        path: The file.
        seconds: Its duration.
        emotion: The predicted class; with several windows, the most probable class on average.
        probabilities: Probability of each class; with several windows, the mean weighted by their length.
        class_names: The classes, in the order of the probabilities.
        decisions: Decisions on the windows, or one on the whole recording.
        windowing: How the recording was cut; None if it was not.
    """

    path: Path
    seconds: float
    emotion: str
    probabilities: tuple[float, ...]
    class_names: tuple[str, ...]
    decisions: tuple[StretchDecision, ...]
    windowing: Windowing | None

    @property
    def by_emotion(self) -> dict[str, float]:
        """The probability of each class by its name."""
        return dict(zip(self.class_names, self.probabilities, strict=True))


@dataclass(frozen=True)
class Unusable:
    """A file that could not be classified.

    Attributes:
        path: The file.
        reason: Why, in one line.
    """

    path: Path
    reason: str


@dataclass(eq=False)
class _PendingFile:
    """A file that is partly read and classified."""

    path: Path
    recording: Recording | None = None
    decisions: list[StretchDecision] = field(default_factory=list)
    undecided: int = 0
    is_read: bool = False
    reason: str | None = None

    @property
    def is_done(self) -> bool:
        return self.is_read and not self.undecided


@dataclass(frozen=True, eq=False)
class _PendingStretch:
    """Frames [T, F] of a stretch to classify, and the position of its decision."""

    file: _PendingFile
    index: int
    stretch_seconds: tuple[float, float]
    frames: Tensor


class Classifier:
    """The system and extractor of a checkpoint, or the systems of a run's folds, averaged.

    Args:
        checkpoint: The checkpoint file, or a folder as ``load_trained`` takes it.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for the GPU if there is one.
        allow: Module prefixes to trust in addition to the allow-list.

    Raises:
        ConfigurationError: If the checkpoint cannot be read or classifies speakers, or the device is not available.
    """

    def __init__(self, checkpoint: str | Path, device: str = "auto", allow: Sequence[str] = ()) -> None:
        self.ensemble, self.extractor = load_trained(Path(checkpoint), allow)
        self.device = find_device(device)
        self.ensemble.to(self.device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The emotions."""
        return self.ensemble.first.class_names

    @property
    def trained_on_recordings(self) -> bool:
        """Whether the system was trained on real recordings."""
        return not split_corpus_name(str(self.ensemble.first.origin.get("corpus", "")))[1]

    @property
    def used_seconds(self) -> float:
        """Duration that the system uses of a recording or window, from its start."""
        return (
            inf
            if self.ensemble.first.max_frames is None
            else self.ensemble.first.max_frames * self.extractor.hop_seconds
        )

    @property
    def frame_seconds(self) -> float:
        """Duration of a frame, which a window needs at least."""
        try:
            return self.extractor.num_samples(1) / self.extractor.sample_rate_hz
        except ConfigurationError:  # silence is removed, so that frames do not follow from a duration
            return self.extractor.hop_seconds

    def classify(self, path: str | Path, windowing: Windowing | None = None) -> Classified:
        """Return the result of one recording.

        Args:
            path: The file.
            windowing: How to cut it; None: as ``default_windowing``.

        Raises:
            AudioError: If the file cannot be classified.
        """
        (result,) = self.classify_all([Path(path)], windowing)
        if isinstance(result, Unusable):
            raise AudioError({result.path: result.reason})
        return result

    def classify_all(
        self,
        paths: Iterable[Path],
        windowing: Windowing | None = None,
        advance: Callable[[float], None] = lambda share: None,
    ) -> Iterator[Classified | Unusable]:
        """Yield the result of each of ``paths``, in order.

        Args:
            paths: The files, consumed lazily.
            windowing: How to cut recordings; None: as ``default_windowing``.
            advance: Called with the fraction of a file just read; the fractions of a file sum to 1.
        """
        waiting: deque[_PendingFile] = deque()
        pool: list[_PendingStretch] = []
        pooled_seconds = 0.0
        for path in paths:
            file = _PendingFile(path)
            waiting.append(file)
            for pending in self._read(file, windowing, advance):
                pool.append(pending)
                file.undecided += 1
                pooled_seconds += pending.stretch_seconds[1] - pending.stretch_seconds[0]
                if pooled_seconds >= POOL_SECONDS:
                    self._decide(pool)
                    pooled_seconds = 0.0
            if len(waiting) >= MAX_PENDING_FILES:
                self._decide(pool)
                pooled_seconds = 0.0
            while waiting and waiting[0].is_done:
                yield self._result(waiting.popleft())
        self._decide(pool)
        yield from map(self._result, waiting)

    def _read(
        self, file: _PendingFile, windowing: Windowing | None, advance: Callable[[float], None]
    ) -> Iterator[_PendingStretch]:
        """Yield the stretches of ``file`` as frames; store an audio error in ``file.reason``."""
        done = 0.0
        try:
            file.recording = Recording.open(file.path, windowing, self.used_seconds)
            for stretch in file.recording.stretches(self.extractor.sample_rate_hz):
                seconds = (stretch.start_seconds, stretch.end_seconds)
                file.decisions.append(StretchDecision(*seconds, None, ()))
                if stretch.waveform.any():
                    yield _PendingStretch(file, len(file.decisions) - 1, seconds, self._frames(file.path, stretch))
                share = min(1.0, stretch.end_seconds / file.recording.seconds)
                advance(share - done)
                done = share
        except AudioError as error:
            file.reason = error.problems[file.path]
        advance(1.0 - done)
        file.is_read = True

    @torch.inference_mode()
    def _frames(self, path: Path, stretch: Stretch) -> Tensor:
        """Return the frames [T, F] of a stretch.

        Raises:
            AudioError: If a value is NaN or infinite.
        """
        batch, lengths = self.extractor(stretch.waveform[None], torch.tensor([len(stretch.waveform)]))
        frames: Tensor = batch[0, : int(lengths[0])].float()
        if not frames.isfinite().all():
            name = type(self.extractor).__name__
            raise AudioError({path: f"{name} gives {int((~frames.isfinite()).sum())} values that are NaN or infinite"})
        return frames

    @torch.inference_mode()
    def _decide(self, pool: list[_PendingStretch]) -> None:
        """Classify ``pool`` in batches of similar length, and empty it."""
        pool.sort(key=lambda pending: len(pending.frames))
        most_frames = BATCH_SECONDS / self.extractor.hop_seconds
        while pool:
            size = 1
            while size < min(BATCH_SIZE, len(pool)) and (size + 1) * len(pool[-1].frames) <= most_frames:
                size += 1
            batch, pool[-size:] = pool[-size:], []
            decision = self.ensemble.decide(batch_of([pending.frames for pending in batch], self.device))
            decided = zip(batch, decision.predicted.tolist(), decision.probabilities.tolist(), strict=True)
            for pending, predicted, probabilities in decided:
                emotion = self.class_names[predicted]
                pending.file.decisions[pending.index] = StretchDecision(
                    *pending.stretch_seconds, emotion, tuple(probabilities)
                )
                pending.file.undecided -= 1

    def _result(self, file: _PendingFile) -> Classified | Unusable:
        audible = [one for one in file.decisions if one.emotion is not None]
        if file.recording is None or file.reason is not None or not audible:
            return Unusable(file.path, file.reason or "digital silence")
        emotion, probabilities = audible[0].emotion, torch.tensor([one.probabilities for one in audible]).double()
        seconds = torch.tensor([one.end_seconds - one.start_seconds for one in audible]).double().clamp(min=1e-9)
        mean = (seconds / seconds.sum()) @ probabilities
        if not mean.isfinite().all():
            return Unusable(file.path, f"{self.ensemble.name} gives probabilities that are NaN")
        if len(audible) > 1 or emotion is None:
            emotion = self.class_names[int(mean.argmax())]
        recording = file.recording
        return Classified(
            recording.path,
            recording.seconds,
            emotion,
            tuple(mean.tolist()),
            self.class_names,
            tuple(file.decisions),
            recording.windowing,
        )


def batch_of(frames: Sequence[Tensor], device: torch.device) -> Batch:
    """Pad ``frames`` [T, F] of several utterances to a batch without labels, on ``device``."""
    size = len(frames)
    batch = Batch(
        inputs=pad_sequence(list(frames), batch_first=True),
        lengths=torch.tensor([len(one) for one in frames]),
        labels=torch.full((size,), -1),
        targets=torch.zeros(size, 0),
        indices=torch.arange(size),
    )
    return batch.to(device)
