"""Base of the data modules: from a folder and a protocol to the dataloaders of one fold."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch.utils.data import DataLoader

from data_modules.discovery import Found, check_spelling
from data_modules.label_map import map_classes, map_labels
from ser_lightning.data.batches import FrameDataset, keep_batch, rank_and_world_size, training_device
from ser_lightning.data.held_out import HeldOutClips
from ser_lightning.data.on_device import DeviceFrames, WaveformDataset
from ser_lightning.data.protocols import Protocol
from ser_lightning.data.samplers import (
    BatchSampler,
    BucketBatchSampler,
    ClassBatchSampler,
    EvaluationBatchSampler,
    RandomCrops,
)
from ser_lightning.data.synthetic import is_synthetic
from ser_lightning.data.targets import HardTargets, Targets, TrainingSet, TrainingStatistics
from ser_lightning.errors import AudioError, ConfigurationError, ProtocolError
from ser_lightning.features import FeatureExtractor, FeatureStore, Prepared, SpeedPerturbation
from ser_lightning.types import Batch, Split, TargetKind, Utterance, corpus_name

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule as DataModule
else:
    from ser_lightning.data.module import DataModule


class CorpusDataModule(DataModule):
    """One fold of one corpus.

    A corpus subclasses this with ``corpus``, ``class_names``, ``find`` and ``default_protocol``, and with
    ``known_same_audio`` if its release has utterances with the same audio.

    Attributes:
        held_gib: Frames of the sets in GiB, at most, that are held on the training device if that is not the CPU; a set
            that exceeds it is read from the store batch by batch. Batches are the same.

    Args:
        root: The corpus folder.
        extractor: The feature extractor.
        protocol: How utterances become folds; by default the corpus's protocol.
        fold: Fold to train and test, counted from 0.
        batch_size: Utterances of a global batch; every process takes its share.
        on_bad_audio: ``stop`` raises an error that names all unusable files; ``skip`` skips and records them.
        feature_folder: Where extracted features are stored; processes and machines may share it.
        workers: Processes that extract features.
        seed: Seed of the training order.
        targets: The training targets; by default hard ones, the dominant emotion.
        speeds: Further speeds of training utterances, such as 0.9 and 1.1.
        features: ``stored`` stores extracted frames; ``on_device`` stores waveforms, resampled and without silence if
            the extractor removes it, and extracts frames of each batch on the training device. The frames are equal to
            1e-5.
        crop_frames: Frames of a random crop of each training utterance, a new one each epoch; shorter utterances, and
            all in evaluation, stay whole. By default utterances stay whole.
        batches: ``length`` batches training utterances of similar length; ``class`` balances the classes.
        recognise: The classes: emotions, or speakers. For speakers the default protocol holds out a few clips of each.
        label_map: New names of labels, such as ``{calm: neutral, surprised: null}``: null leaves a label's utterances
            out, labels that are not named stay, and classes are in alphabetical order.
    """

    corpus: ClassVar[str]
    class_names: tuple[str, ...]
    known_same_audio: ClassVar[tuple[tuple[str, ...], ...]] = ()
    held_gib: float = 0.0

    def __init__(
        self,
        root: str | Path,
        extractor: FeatureExtractor,
        protocol: Protocol | None = None,
        fold: int = 0,
        batch_size: int = 32,
        on_bad_audio: Literal["stop", "skip"] = "stop",
        feature_folder: str | Path = Path(".cache/features"),
        workers: int = 1,
        seed: int = 0,
        targets: Targets | None = None,
        speeds: tuple[float, ...] = (),
        features: Literal["stored", "on_device"] = "stored",
        crop_frames: int | None = None,
        batches: Literal["length", "class"] = "length",
        recognise: Literal["emotion", "speaker"] = "emotion",
        label_map: dict[str, str | None] | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigurationError(f"data.init_args.batch_size is {batch_size}; a batch needs at least one utterance")
        if workers < 1:
            raise ConfigurationError(f"data.init_args.workers is {workers}; workers must be at least 1")
        if crop_frames is not None and crop_frames < 1:
            raise ConfigurationError(f"data.init_args.crop_frames is {crop_frames}; a crop needs at least one frame")
        self.root, feature_folder = Path(root).expanduser(), Path(feature_folder).expanduser()
        self.extractor = extractor
        self.protocol = protocol or (HeldOutClips() if recognise == "speaker" else self.default_protocol())
        self.fold = fold
        self.batch_size = batch_size
        self.on_bad_audio = on_bad_audio
        self.workers = workers
        self.seed = seed
        self.targets = targets or HardTargets()
        self.features = features
        self.crop_frames = crop_frames
        self.batches = batches
        self.recognise = recognise
        self.label_map = label_map or {}
        self.on_device = DeviceFrames(extractor) if features == "on_device" else None
        kept = self.on_device.stored if self.on_device else extractor
        self.store = FeatureStore(feature_folder, kept)
        self.speed_stores = [FeatureStore(feature_folder, SpeedPerturbation(kept, speed)) for speed in speeds]
        self.skipped_audio: Mapping[Path, str] = {}
        self._found: Found | None = None
        self._usable: tuple[Utterance, ...] | None = None
        self._splits: dict[int, Split] = {}
        self._datasets: dict[str, FrameDataset] = {}
        self._statistics: TrainingStatistics | None = None
        if recognise == "speaker":
            self.class_names = tuple(sorted({u.speaker for u in self.found.utterances}))
        elif self.label_map:
            self.class_names = map_classes(self.original_class_names(), self.label_map)

    def original_class_names(self) -> tuple[str, ...]:
        """Return the corpus's own emotions, before ``label_map``."""
        return self.class_names

    def find(self) -> Found:
        """Return the utterances below ``root``, and the release's faulty ones."""
        raise NotImplementedError

    @staticmethod
    def default_protocol() -> Protocol:
        """Return the corpus's usual protocol."""
        raise NotImplementedError

    @property
    def corpus_name(self) -> str:
        """The corpus's name, followed by ``-synthetic`` if the corpus is synthetic."""
        return corpus_name(self.corpus, is_synthetic(self.root))

    @property
    def published_existence(self) -> Mapping[TrainingSet, Mapping[str, float]]:
        """Percent of utterances in which each emotion exists, as Ando et al. 2019 state it for these utterances."""
        return {}

    @property
    def num_features(self) -> int:
        """Features per frame."""
        return self.extractor.num_features

    @property
    def target_kind(self) -> TargetKind:
        """Kind of training target."""
        return self.targets.kind

    @property
    def found(self) -> Found:
        """The content of the folder, cached."""
        if self._found is None:
            found = self.find()
            check_spelling(f"{self.corpus}: {self.root}", found.utterances)
            if self.recognise == "speaker":
                speakers = tuple(replace(u, label=u.speaker, votes=()) for u in found.utterances)
                found = Found(speakers, found.left_out)
            elif self.label_map:
                found = map_labels(found, self.label_map, self.corpus)
            self._found = found
        return self._found

    @property
    def all_utterances(self) -> tuple[Utterance, ...]:
        """Every utterance of the folder, including those with unusable audio."""
        return self.found.utterances

    @property
    def left_out(self) -> Mapping[str, str]:
        """Reason by utterance name, for faulty files of the release and labels without audio."""
        return self.found.left_out

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """The corpus's utterances, without those with skipped audio."""
        return self.found.utterances if self._usable is None else self._usable

    def num_folds(self) -> int:
        """Return the number of folds."""
        return self.protocol.num_folds(self.utterances)

    def split(self, fold: int | None = None) -> Split:
        """Return the split of ``fold``, by default this module's fold."""
        fold = self.fold if fold is None else fold
        if fold not in self._splits:
            self._splits[fold] = self.protocol.split(self.utterances, fold)
        return self._splits[fold]

    def extract(self, progress: bool = True, processes: int = 1, device: str = "cpu") -> Prepared:
        """Extract and store missing features.

        Args:
            progress: Whether to show progress.
            processes: Processes to extract with if there are more than ``workers``.
            device: Torch's name of the device to extract on.

        Raises:
            AudioError: If audio is unusable and ``on_bad_audio`` is ``stop``.
        """
        workers = max(self.workers, processes)
        prepared = self.store.prepare([u.path for u in self.found.utterances], workers, progress, device)
        usable = [u.path for u in self.found.utterances if u.path not in prepared.problems]
        problems = dict(prepared.problems)
        for store in self.speed_stores:
            problems |= store.prepare(usable, workers, progress, device).problems
        self.leave_out(problems)
        return prepared

    def sounds(self) -> Mapping[Path, str]:
        """Return a key for each file with up-to-date stored features, which files with the same samples share."""
        return self.store.sounds([u.path for u in self.found.utterances])

    def leave_out(self, problems: Mapping[Path, str]) -> None:
        """Skip unusable audio, ``problems`` by file, or raise, according to ``on_bad_audio``.

        Raises:
            AudioError: If there is any and ``on_bad_audio`` is ``stop``.
        """
        if problems and self.on_bad_audio == "stop":
            raise AudioError(problems)
        self.skipped_audio = problems
        self._usable = tuple(u for u in self.found.utterances if u.path not in problems)
        self._splits.clear()

    def prepare_data(self) -> None:
        """Extract missing features; Lightning calls this in one process per machine."""
        self.extract(progress=self._usable is None)  # the fold's lifecycle has usually shown it

    def setup(self, stage: str) -> None:
        """Split the corpus and load the features of the sets that ``stage`` needs."""
        if stage == "test":
            self.protocol.check_has_test_set()
        if self._usable is None:  # another process extracted the features
            self.extract(progress=False)
        split = self.split()
        needed = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",), "predict": ("all",)}
        for name in needed[stage]:
            if name not in self._datasets:
                self._datasets[name] = self._dataset(name)
        if stage == "fit" and self._statistics is None:
            dataset = self._datasets["train"]
            frames = self.on_device.make_each(dataset.frames) if self.on_device else dataset.frames
            self._statistics = TrainingStatistics(frames, dataset.targets.mean(0), split.speakers("train"))

    def set_utterances(self, name: str) -> tuple[Utterance, ...]:
        """Return the utterances of a set: ``train``, ``validation``, ``test``, or ``all`` of the corpus.

        Training utterances are those with a target, the others those with a dominant emotion.

        Raises:
            ProtocolError: If no utterance of a set remains.
        """
        split = self.split()
        sets = {"train": split.train, "validation": split.validation, "test": split.test, "all": self.utterances}
        if name == "train":
            chosen = tuple(u for u in split.train if self.targets.trains_on(u, self.class_names))
        else:
            chosen = tuple(u for u in sets[name] if u.label is not None)
        if sets[name] and not chosen:
            raise ProtocolError(
                f"{self.protocol.name}: none of the {len(sets[name])} utterances in the {name} set of fold "
                f"{split.fold} is labelled{' or voted' * (name == 'train')} as one of {', '.join(self.class_names)}; "
                "choose other classes or fewer folds, or add utterances."
            )
        return chosen

    def _dataset(self, name: str) -> FrameDataset:
        utterances = self.set_utterances(name)
        index = {name: position for position, name in enumerate(self.class_names)}
        labels = [-1 if u.label is None else index[u.label] for u in utterances]
        targets = torch.tensor([self.targets.of(u, self.class_names) for u in utterances])
        stores = [self.store, *self.speed_stores] if name == "train" else [self.store]
        frames = [frames for store in stores for frames in store.load([u.path for u in utterances])]
        labels, targets = labels * len(stores), targets.repeat(len(stores), 1)
        if self.on_device:
            return WaveformDataset(frames, labels, targets, self.on_device.device, self.crop_frames)
        return FrameDataset(frames, labels, targets, self.crop_frames)

    def training_statistics(self) -> TrainingStatistics:
        """Return statistics of this fold's training split, after ``setup('fit')``."""
        if self._statistics is None:
            raise RuntimeError("training statistics need setup('fit')")
        return self._statistics

    def _loader(self, dataset: FrameDataset, sampler: BatchSampler) -> DataLoader[Batch]:
        device = training_device(self)
        held_bytes = sum(other.num_bytes for other in self._datasets.values() if other.held)
        if device.type != "cpu" and not dataset.held and held_bytes + dataset.num_bytes <= self.held_gib * 2**30:
            dataset.hold(device)
        pinned = device.type == "cuda" and not dataset.held
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=keep_batch, pin_memory=pinned)

    def evaluation_dataloader(self, name: str) -> DataLoader[Batch]:
        """Return a loader of ``train``, ``validation``, ``test`` or ``all``: each utterance once, uncropped."""
        dataset = self._datasets[name]
        sampler = EvaluationBatchSampler(dataset.num_frames, self.batch_size, *rank_and_world_size(self))
        return self._loader(dataset, sampler)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches, by length or class-balanced, optionally cropped."""
        dataset = self._datasets["train"]
        sampler: BucketBatchSampler | ClassBatchSampler
        if self.batches == "class":
            labels, num_classes = dataset.labels.tolist(), len(self.class_names)
            sampler = ClassBatchSampler(labels, num_classes, self.batch_size, self.seed, *rank_and_world_size(self))
        else:
            lengths = [min(length, self.crop_frames or length) for length in dataset.num_frames]
            sampler = BucketBatchSampler(lengths, self.batch_size, self.seed, *rank_and_world_size(self))
        return self._loader(dataset, sampler if self.crop_frames is None else RandomCrops(sampler, self.seed))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation set, each utterance once."""
        return self.evaluation_dataloader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test set, each utterance once."""
        return self.evaluation_dataloader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the whole corpus, each utterance once."""
        return self.evaluation_dataloader("all")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Extract frames of a batch's waveforms on its device, if ``features`` is ``on_device``."""
        return self.on_device.make(batch) if self.on_device else batch
