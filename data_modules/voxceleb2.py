"""VoxCeleb2's dev set: 5,994 speakers, 1,092,009 clips of interviews, 2,360 hours (Chung et al. 2018)."""

import base64
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_modules.voxceleb2_index import ClipIndex, find_release, open_index
from data_modules.voxceleb2_split import ClipDataset, ClipLoader, Clips, ClipSplit, Problems, held_out
from ser_lightning.data.batches import keep_batch, rank_and_world_size, training_device
from ser_lightning.data.corpora import CorpusSource
from ser_lightning.data.held_out import HeldOutClips, ListedClips
from ser_lightning.data.on_device import DeviceFrames
from ser_lightning.data.samplers import BucketBatchSampler, EvaluationBatchSampler, RandomCrops
from ser_lightning.data.synthetic import MARKER
from ser_lightning.data.synthetic_corpus import Clip, write_corpus
from ser_lightning.data.targets import TrainingStatistics
from ser_lightning.errors import AudioError, ConfigurationError
from ser_lightning.features import FeatureExtractor, Prepared
from ser_lightning.types import Batch, TargetKind, corpus_name

_VIDEOS = 3
_CLIPS = 6  # of a video


def clips_of(speaker: int) -> list[Clip]:
    """Return all clips of a speaker: three videos of six clips."""
    name = f"id{speaker:05d}"
    clips = []
    for number in range(_VIDEOS * _CLIPS):
        # As in the release, clip numbers continue from one video of a speaker to the next.
        digest = hashlib.sha256(f"{name}/{number // _CLIPS}".encode()).digest()
        video = base64.urlsafe_b64encode(digest).decode()[:11].replace("-", "_")
        clip = Clip(
            file=Path(name, video, f"{number + 1:05d}.wav"),
            speaker=name,
            gender="male" if speaker % 2 else "female",
            emotion=("neutral", "happy", "excited")[number % 3],
            intensity=0.5,
            sentence=number,
        )
        clips.append(clip)
    return clips


SOURCE = CorpusSource(
    title="VoxCeleb2, dev set (5994 speakers, 1092009 clips)",
    licence="CC BY 4.0; the videos' copyright remains with their owners",
    terms="You may share and adapt it with attribution. The speakers did not give individual consent.",
    licence_url="https://creativecommons.org/licenses/by/4.0/",
    home="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox2.html",
    citation="Chung, Nagrani & Zisserman 2018, Interspeech, https://doi.org/10.21437/Interspeech.2018-1929",
    speech="celebrities in YouTube interviews, in many languages and noises; emotions are not labelled",
    steps=(
        "Request access by the form on the page above; links to the parts of vox2_dev_aac come by mail.",
        "Join the parts into one ZIP file and unpack it into {folder}: <speaker>/<video>/<clip>.m4a.",
        "Convert the clips to FLAC with ffmpeg. ser audit with data.init_args.root {folder} prints the command.",
    ),
)

_LOG = logging.getLogger(__name__)
_SPEAKERS = 5994
_CLIPS_FOR_STATISTICS = 1000


if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule as DataModule
else:
    from ser_lightning.data.module import DataModule


class VoxCeleb2(DataModule):
    """Speaker identification: crops are read from disk and frames extracted on the device; no features are stored.

    Clips are ``<speaker>/<video>/<clip>`` below ``root``, in ``AUDIO_ENDINGS``; the release's m4a must be converted
    first. An index of the clips is built once. Each training epoch uses a new crop of every clip, chosen by (seed,
    epoch, position) for any number of processes. Evaluation uses the middle of each held-out clip, of the same length.

    If the extractor removes silence, a crop has fewer frames than ``crop_frames``.

    Args:
        root: The folder of speakers, or one above.
        extractor: The feature extractor.
        crop_frames: Frames of a crop; shorter clips stay whole.
        protocol: Which clips validate; by default one of each speaker, drawn with seed 0. The list is written next to
            the index.
        fold: Index of the fold; there is only 0.
        batch_size: Clips of a global batch; every process takes its share.
        on_bad_audio: ``stop`` stops at the first unusable file; ``skip`` records it and takes another clip of the
            speaker.
        feature_folder: Folder of the index, shared with other corpora's features.
        workers: Dataloader workers per device, at most the number of cores; 0 reads in the training process.
        seed: Seed of the training order and of the crops.

    Raises:
        ConfigurationError: If a number is out of range.
    """

    corpus = "voxceleb2"
    batches: ClassVar[str] = "length"
    known_same_audio: ClassVar[tuple[tuple[str, ...], ...]] = ()
    target_kind: ClassVar[TargetKind] = "hard"
    held_gib: float = 0.0  # clips are read from disk

    def __init__(
        self,
        root: str | Path,
        extractor: FeatureExtractor,
        crop_frames: int,
        protocol: HeldOutClips | ListedClips | None = None,
        fold: int = 0,
        batch_size: int = 32,
        on_bad_audio: Literal["stop", "skip"] = "stop",
        feature_folder: str | Path = Path(".cache/features"),
        workers: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("crop_frames", crop_frames, 1),
            ("workers", workers, 0),
        ):
            if value < least:
                raise ConfigurationError(f"data.init_args.{name} is {value}; choose {least} or more")
        if fold:
            raise ConfigurationError(f"data.init_args.fold is {fold}, but VoxCeleb2 has one fold; choose 0")
        self.root = Path(root).expanduser()
        self.extractor = extractor
        self.crop_frames = crop_frames
        self.protocol = protocol or HeldOutClips()
        self.fold = fold
        self.batch_size = batch_size
        self.on_bad_audio = on_bad_audio
        self.feature_folder = Path(feature_folder).expanduser()
        self.workers = workers
        self.seed = seed
        self.frames = DeviceFrames(extractor)
        self.num_samples = self.frames.device.num_samples(crop_frames)
        self.skipped_audio: dict[Path, str] = {}
        self.left_out: Mapping[str, str] = {}
        self._opened: tuple[ClipIndex, bool] | None = None

    @cached_property
    def _cache(self) -> Path:
        path = os.path.realpath(find_release(self.root))
        return self.feature_folder / f"voxceleb2-{hashlib.sha256(path.encode()).hexdigest()[:12]}"

    def _index(self, progress: bool = True) -> ClipIndex:
        if self._opened is None:
            self._opened = open_index(self.root, self._cache, progress)
        return self._opened[0]

    @property
    def corpus_name(self) -> str:
        """The corpus's name, followed by ``-synthetic`` if the corpus is synthetic."""
        release = find_release(self.root).resolve()
        synthetic = any((folder / MARKER).is_file() for folder in (release, *release.parents))
        return corpus_name(self.corpus, synthetic)

    @property
    def num_features(self) -> int:
        """Features per frame."""
        return self.extractor.num_features

    @property
    def class_names(self) -> tuple[str, ...]:
        """The speakers, in the order of the logits."""
        return self._index().speakers

    @property
    def all_utterances(self) -> Clips:
        """Every clip, as lazily created utterances."""
        index = self._index()
        return Clips(index, np.arange(len(index)))

    @cached_property
    def _validation_clips(self) -> NDArray[np.int64]:
        rate = self.extractor.sample_rate_hz
        clips, skipped = held_out(self._index(), self.protocol, self._cache, rate, self.num_samples, self.on_bad_audio)
        self.skipped_audio |= skipped
        return clips

    def num_folds(self) -> int:
        """Return 1."""
        return 1

    def split(self, fold: int | None = None) -> ClipSplit:
        """Return the one split."""
        index = self._index()
        held = self._validation_clips
        train = np.delete(np.arange(len(index)), held)
        return ClipSplit(0, Clips(index, train), Clips(index, held), Clips(index, held[:0]))

    def set_utterances(self, name: str) -> Clips:
        """Return the clips of a set: ``train``, ``validation``, ``test`` (empty) or ``all``."""
        split = self.split()
        sets = {"train": split.train, "validation": split.validation, "all": self.all_utterances}
        return sets.get(name, split.test)

    def extract(self, progress: bool = True, processes: int = 1, device: str = "cpu") -> Prepared:
        """Update the index and the list of held-out clips; no features are stored.

        Args:
            progress: Whether to show progress.
            processes: Has no effect: the index is read by one process.
            device: Has no effect: nothing is extracted.

        Returns:
            Newly indexed clips as extracted, known ones as reused.

        Raises:
            CorpusError: If there is no readable clip.
            AudioError: If held-out clips are unusable and ``on_bad_audio`` is ``stop``.
            ProtocolError: If a speaker has too few clips.
        """
        started = time.monotonic()
        num_clips, is_new = len(self._index(progress)), bool(self._opened and self._opened[1])
        _ = self._validation_clips
        counts = (num_clips, 0) if is_new else (0, num_clips)
        return Prepared(*counts, time.monotonic() - started, dict(self.skipped_audio))

    def sounds(self) -> Mapping[Path, str]:
        """Return nothing: clips are not decoded in advance."""
        return {}

    def leave_out(self, problems: Problems) -> None:
        """Record unusable audio, ``problems`` by file, or raise, according to ``on_bad_audio``.

        Raises:
            AudioError: If there is any and ``on_bad_audio`` is ``stop``.
        """
        if problems and self.on_bad_audio == "stop":
            raise AudioError(problems)
        for path, reason in problems.items():
            if path not in self.skipped_audio:
                _LOG.warning("%s is unusable (%s); another clip of the same speaker is taken instead", path, reason)
        self.skipped_audio |= problems

    def prepare_data(self) -> None:
        """Build the index if it is missing; Lightning calls this in one process per machine."""
        self.extract()

    def setup(self, stage: str) -> None:
        """Read the index, which another process may have built."""
        if stage == "test":
            self.protocol.check_has_test_set()
        self.extract(progress=False)

    def training_statistics(self) -> TrainingStatistics:
        """Return the training clips' class prior and speakers.

        Mean and deviation are estimated from the middles of ``_CLIPS_FOR_STATISTICS`` random clips.
        """
        split = self.split()
        prior = torch.from_numpy(split.train.counts() / len(split.train)).float()
        return TrainingStatistics(self.frames.make_each(self._some_crops()), prior, split.speakers("train"))

    def _some_crops(self) -> Iterator[Tensor]:
        dataset = self._dataset("train")
        draw = np.random.default_rng(self.seed).permutation(len(dataset))[:_CLIPS_FOR_STATISTICS]
        for position in draw:
            item = dataset.__getitems__([int(position)])
            if item.batch is None:
                raise AudioError(item.problems)
            yield item.batch.inputs[0]

    def _dataset(self, name: str) -> ClipDataset:
        clips = self.set_utterances(name)
        replaces_bad = name == "train" and self.on_bad_audio == "skip"
        return ClipDataset(clips.source, clips.positions, self.frames.stored, self.num_samples, replaces_bad)

    def _loader(self, dataset: ClipDataset, sampler: RandomCrops | EvaluationBatchSampler) -> ClipLoader:
        workers = min(self.workers, len(os.sched_getaffinity(0)))
        loader = ClipLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=keep_batch,
            num_workers=workers,
            pin_memory=training_device(self).type == "cuda",
            persistent_workers=workers > 0,
        )
        loader.report = self.leave_out
        return loader

    def train_dataloader(self) -> ClipLoader:
        """Return shuffled batches of random crops."""
        dataset = self._dataset("train")
        lengths = [0] * len(dataset)  # all crops have the same length
        batches = BucketBatchSampler(lengths, self.batch_size, self.seed, *rank_and_world_size(self))
        return self._loader(dataset, RandomCrops(batches, self.seed))

    def evaluation_dataloader(self, name: str) -> ClipLoader:
        """Return the middle of each clip of a set."""
        dataset = self._dataset(name)
        sampler = EvaluationBatchSampler([0] * len(dataset), self.batch_size, *rank_and_world_size(self))
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> ClipLoader:
        """Return the middle of each held-out clip."""
        return self.evaluation_dataloader("validation")

    def predict_dataloader(self) -> ClipLoader:
        """Return the middle of each clip."""
        return self.evaluation_dataloader("all")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Extract frames of a batch's waveforms on its device."""
        return self.frames.make(batch)


def write_synthetic(
    folder: Path, speakers: int, seed: int, clips_per_speaker: int | None = None, progress: bool = False
) -> int:
    """Write a synthetic corpus in this release's layout, as 16-bit WAV.

    Args:
        folder: Target folder: empty, missing, or with (part of) the same synthetic corpus.
        speakers: Number of speakers, 1 to 5994.
        seed: Seed of voices and clips.
        clips_per_speaker: 1 to 18, over up to three videos; all 18 if None.
        progress: Whether to show a progress bar.

    Returns:
        Number of clips written now; existing clips are kept.

    Raises:
        CorpusError: If a number is out of range, or ``folder`` has other content.
    """
    # Listing the clips of all speakers would take seconds.
    listed = speakers if 1 <= speakers <= _SPEAKERS else _SPEAKERS
    clips = [clips_of(speaker) for speaker in range(1, listed + 1)]
    return write_corpus(folder, "voxceleb2", clips, speakers, seed, clips_per_speaker, progress)
