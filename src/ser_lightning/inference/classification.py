"""Recordings to emotions by the system of a checkpoint, in memory that depends on neither their number nor length."""
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
from ser_lightning.features import FeatureExtractor
from ser_lightning.features.extraction import build_trusted_extractor
from ser_lightning.inference.recordings import LONGEST_WHOLE_SECONDS, Recording, Stretch, Windowing
from ser_lightning.systems import EmotionClassifier
from ser_lightning.systems.checkpoint import load_system
from ser_lightning.types import Batch, split_corpus_name

# No batch is larger than the longest recording that is taken whole: windows need no more memory than that.
BATCH_SECONDS = LONGEST_WHOLE_SECONDS
BATCH_SIZE = 64
POOL_SECONDS = 8 * BATCH_SECONDS  # of stretches that are sorted by length together
MOST_WAITING = 8 * BATCH_SIZE  # files, or else unusable ones, which add no seconds, would pile up behind a usable one


@dataclass(frozen=True)
class Heard:
    """What a system says of a stretch of a recording.

    Attributes:
        start_seconds: Where the stretch begins.
        end_seconds: Where it ends.
        emotion: What it decides for; None of digital silence, in which there is nothing to hear.
        probabilities: Of each class, in the order of the system's; empty for digital silence.
    """

    start_seconds: float
    end_seconds: float
    emotion: str | None
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Classified:
    """What a system says of a recording.

    Attributes:
        path: The file.
        seconds: Its length.
        emotion: What the system decides for; of several windows, the class that is the most probable on average.
        probabilities: Of each class, in the order of the system's; of windows the mean, weighted by their length.
        heard: The windows, or the recording as a whole.
        windowing: How it was cut, if it was.
    """

    path: Path
    seconds: float
    emotion: str
    probabilities: tuple[float, ...]
    heard: tuple[Heard, ...]
    windowing: Windowing | None


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
class _Open:
    """A file on its way: read in part, decided in part."""

    path: Path
    recording: Recording | None = None
    heard: list[Heard] = field(default_factory=list)
    undecided: int = 0
    is_read: bool = False
    reason: str | None = None

    @property
    def is_done(self) -> bool:
        return self.is_read and not self.undecided


@dataclass(frozen=True, eq=False)
class _Piece:
    """Frames [T, F] of a stretch that waits for its decision, and where that belongs."""

    file: _Open
    place: int
    stretch_seconds: tuple[float, float]
    frames: Tensor


class Classifier:
    """A system out of a checkpoint, with the extractor it was trained on.

    Args:
        checkpoint: The file; nothing else is needed.
        device: Where to compute: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for the GPU if there is one.
        allow: Module prefixes that the user trusts besides the allow-list.

    Raises:
        ConfigurationError: If the checkpoint cannot be read, recognises speakers, or the device is not there.
    """

    def __init__(self, checkpoint: Path, device: str = "auto", allow: Sequence[str] = ()) -> None:
        self.system, self.extractor = load_trained(checkpoint, allow)
        self.device = _device(device)
        self.system.to(self.device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The emotions."""
        return self.system.class_names

    @property
    def learned_from_people(self) -> bool:
        """Whether the system has heard recordings, or only synthetic speech."""
        return not split_corpus_name(str(self.system.origin.get("corpus", "")))[1]

    @property
    def heard_seconds(self) -> float:
        """How much of a recording, or of a window, the system hears: its beginning."""
        return inf if self.system.max_frames is None else self.system.max_frames * self.extractor.hop_seconds

    def classify(
        self,
        paths: Iterable[Path],
        windowing: Windowing | None = None,
        advance: Callable[[float], None] = lambda share: None,
    ) -> Iterator[Classified | Unusable]:
        """Yield what the system says of each of ``paths``, in their order.

        Args:
            paths: The files; asked for one by one.
            windowing: How to cut recordings; if None, those above a minute are, in windows of 4 s, and if the system
                hears less than a minute, those it does not hear whole, in windows that it does.
            advance: Told which share of a file has been read; the shares of a file add up to 1.
        """
        waiting: deque[_Open] = deque()
        pool: list[_Piece] = []
        pooled_seconds = 0.0
        for path in paths:
            file = _Open(path)
            waiting.append(file)
            for piece in self._read(file, windowing, advance):
                pool.append(piece)
                file.undecided += 1
                pooled_seconds += piece.stretch_seconds[1] - piece.stretch_seconds[0]
                if pooled_seconds >= POOL_SECONDS:
                    self._decide(pool)
                    pooled_seconds = 0.0
            if len(waiting) >= MOST_WAITING:
                self._decide(pool)
                pooled_seconds = 0.0
            while waiting and waiting[0].is_done:
                yield self._result(waiting.popleft())
        self._decide(pool)
        yield from map(self._result, waiting)

    def _read(self, file: _Open, windowing: Windowing | None, advance: Callable[[float], None]) -> Iterator[_Piece]:
        """Yield the stretches of ``file`` as frames; what is wrong with it is written into it."""
        known = 0.0
        try:
            file.recording = Recording.open(file.path, windowing, self.heard_seconds)
            for stretch in file.recording.stretches(self.extractor.sample_rate_hz):
                seconds = (stretch.start_seconds, stretch.end_seconds)
                file.heard.append(Heard(*seconds, None, ()))
                if stretch.waveform.any():
                    yield _Piece(file, len(file.heard) - 1, seconds, self._frames(file.path, stretch))
                share = min(1.0, stretch.end_seconds / file.recording.seconds)
                advance(share - known)
                known = share
        except AudioError as error:
            file.reason = error.problems[file.path]
        advance(1.0 - known)
        file.is_read = True

    @torch.inference_mode()
    def _frames(self, path: Path, stretch: Stretch) -> Tensor:
        """Return the frames [T, F] of a stretch.

        Raises:
            AudioError: If there is a value among them that is no number.
        """
        batch, lengths = self.extractor(stretch.waveform[None], torch.tensor([len(stretch.waveform)]))
        frames: Tensor = batch[0, : int(lengths[0])].float()
        if not frames.isfinite().all():
            name = type(self.extractor).__name__
            raise AudioError({path: f"{name} gives {int((~frames.isfinite()).sum())} values that are NaN or infinite"})
        return frames

    @torch.inference_mode()
    def _decide(self, pool: list[_Piece]) -> None:
        """Decide on all of ``pool`` in batches of similar length, and empty it."""
        pool.sort(key=lambda piece: len(piece.frames))
        most_frames = BATCH_SECONDS / self.extractor.hop_seconds
        while pool:
            size = 1
            while size < min(BATCH_SIZE, len(pool)) and (size + 1) * len(pool[-1].frames) <= most_frames:
                size += 1
            batch, pool[-size:] = pool[-size:], []
            decision = self.system.decide(batch_of([piece.frames for piece in batch], self.device))
            decided = zip(batch, decision.predicted.tolist(), decision.probabilities.tolist(), strict=True)
            for piece, predicted, probabilities in decided:
                emotion = self.class_names[predicted]
                piece.file.heard[piece.place] = Heard(*piece.stretch_seconds, emotion, tuple(probabilities))
                piece.file.undecided -= 1

    def _result(self, file: _Open) -> Classified | Unusable:
        heard = [one for one in file.heard if one.emotion is not None]
        if file.recording is None or file.reason is not None or not heard:
            return Unusable(file.path, file.reason or "nothing can be heard in it")
        emotion, probabilities = heard[0].emotion, torch.tensor([one.probabilities for one in heard]).double()
        seconds = torch.tensor([one.end_seconds - one.start_seconds for one in heard]).double().clamp(min=1e-9)
        mean = (seconds / seconds.sum()) @ probabilities
        if not mean.isfinite().all():
            return Unusable(file.path, f"{type(self.system).__name__} gives probabilities that are NaN")
        if len(heard) > 1 or emotion is None:
            emotion = self.class_names[int(mean.argmax())]
        recording = file.recording
        return Classified(
            recording.path, recording.seconds, emotion, tuple(mean.tolist()), tuple(file.heard), recording.windowing
        )


def load_trained(checkpoint: Path, allow: Sequence[str] = ()) -> tuple[EmotionClassifier, FeatureExtractor]:
    """Return the system of a checkpoint and the extractor of its frames, both in evaluation mode, on the CPU.

    Raises:
        ConfigurationError: If it cannot be read, does not know its extractor, or recognises no emotions.
    """
    system = load_system(checkpoint, allow)
    if system.is_pretraining:
        raise ConfigurationError(
            f"{checkpoint} holds a {type(system).__name__}, which tells {len(system.class_names)} speakers apart and "
            "knows no emotions: other systems start from it; give the checkpoint of one of those"
        )
    if "extractor" not in system.origin:
        raise ConfigurationError(f"{checkpoint} does not say what frames its system takes: it was never trained")
    # The classes that the checkpoint names were held against the allow-list when it was read.
    return system, build_trusted_extractor(system.origin["extractor"]).eval()


def batch_of(frames: Sequence[Tensor], device: torch.device) -> Batch:
    """Return ``frames`` [T, F] of several utterances as a batch without labels, on ``device``."""
    size = len(frames)
    batch = Batch(
        inputs=pad_sequence(list(frames), batch_first=True),
        lengths=torch.tensor([len(one) for one in frames]),
        labels=torch.full((size,), -1),
        targets=torch.zeros(size, 0),
        indices=torch.arange(size),
    )
    return batch.to(device)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).splitlines()[0]
        raise ConfigurationError(f"--device {name}: {cause}; cpu is always there, cuda with a GPU") from error
    return device
