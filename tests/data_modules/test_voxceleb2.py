"""VoxCeleb2: crops from disk, frames on the device, held-out clips, and bad files."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from data_modules import voxceleb2
from data_modules.voxceleb2 import VoxCeleb2
from ser_lightning.audio import read_audio
from ser_lightning.data.held_out import HeldOutClips, ListedClips
from ser_lightning.data.synthetic import is_synthetic
from ser_lightning.data.targets import mean_and_deviation
from ser_lightning.errors import AudioError, ConfigurationError, CorpusError, ProtocolError
from ser_lightning.features import FeatureExtractor, MagnitudeSpectrogram, SilenceRemoval
from ser_lightning.types import Batch, hash_splits

SPEAKERS = 4
CLIPS = 6
CROP_FRAMES = 50


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four speakers of six clips, for tests that only read."""
    root = tmp_path_factory.mktemp("voxceleb2") / "made"
    assert voxceleb2.write_synthetic(root, SPEAKERS, seed=0, clips_per_speaker=CLIPS) == SPEAKERS * CLIPS
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "corpus"))


@pytest.fixture
def make(made: Path, tmp_path: Path) -> Callable[..., VoxCeleb2]:
    """Make a small data module."""

    def module(root: Path = made, extractor: FeatureExtractor | None = None, **options: Any) -> VoxCeleb2:
        settled = {"crop_frames": CROP_FRAMES, "batch_size": 5, "workers": 0, "feature_folder": tmp_path / "cache"}
        return VoxCeleb2(root, extractor or MagnitudeSpectrogram(), **(settled | options))

    return module


def epoch(data: VoxCeleb2, number: int = 0) -> list[Batch]:
    """Return the training batches of an epoch, with frames."""
    data.setup("fit")
    loader = data.train_dataloader()
    sampler: Any = loader.batch_sampler
    sampler.sampler.set_epoch(number)
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


def equal(one: list[Batch], two: list[Batch]) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a.indices, b.indices) and a.inputs.shape == b.inputs.shape and torch.equal(a.inputs, b.inputs)
        for a, b in zip(one, two, strict=True)
    )


def test_the_synthetic_corpus_has_the_releases_layout(made: Path) -> None:
    files = sorted(path.relative_to(made) for path in made.rglob("*.wav"))
    assert len(files) == SPEAKERS * CLIPS
    assert {file.parts[0] for file in files} == {"id00001", "id00002", "id00003", "id00004"}
    assert all(len(file.parts) == 3 and len(file.parts[1]) == 11 for file in files)
    videos = {file.parent for file in files}
    assert len(videos) > SPEAKERS, "no speaker has several videos"
    assert len({made.joinpath(file).read_bytes() for file in files}) == len(files), "two clips are the same"
    assert is_synthetic(made)
    assert soundfile.info(made / files[0]).samplerate == 16000


def test_more_speakers_or_clips_than_the_layout_has_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"5995 speakers.*1 to 5994"):
        voxceleb2.write_synthetic(tmp_path / "a", 5995, seed=0)
    with pytest.raises(CorpusError, match="19 clips"):
        voxceleb2.write_synthetic(tmp_path / "b", 1, seed=0, clips_per_speaker=19)


def test_speakers_are_the_classes_before_setup(make: Callable[..., VoxCeleb2]) -> None:
    data = make()
    assert data.class_names == ("id00001", "id00002", "id00003", "id00004")
    assert (data.num_features, data.num_folds(), data.fold) == (257, 1, 0)
    assert data.corpus_name == "voxceleb2-synthetic"
    assert data.protocol.name == "held-out clips (1 of each speaker, seed 0)"
    assert len(data.all_utterances) == SPEAKERS * CLIPS


def test_a_real_corpus_is_not_called_synthetic(make: Callable[..., VoxCeleb2], root: Path) -> None:
    (root / "SYNTHETIC.json").unlink()
    assert make(root).corpus_name == "voxceleb2"


def test_one_clip_of_each_speaker_validates_and_the_rest_trains(make: Callable[..., VoxCeleb2]) -> None:
    data = make()
    split = data.split()
    assert [u.speaker for u in split.validation] == list(data.class_names)
    everyone = HeldOutClips().split(list(data.all_utterances), 0)
    assert tuple(split.validation) == everyone.validation
    assert tuple(split.train) == everyone.train
    assert tuple(split.test) == everyone.test == ()
    assert split.speakers("train") == split.speakers("validation") == data.class_names
    assert split.speakers("test") == ()
    assert tuple(data.set_utterances("validation")) == everyone.validation


def test_the_split_hash_follows_clips_and_held_out_ones(
    make: Callable[..., VoxCeleb2], root: Path, tmp_path: Path
) -> None:
    found = make(root).split().hash
    assert len(found) == 12
    assert make(root, feature_folder=tmp_path / "other").split().hash == found
    assert make(root, protocol=HeldOutClips(2)).split().hash != found
    min(root.rglob("*.wav")).unlink()
    assert make(root).split().hash != found
    assert len(hash_splits([make(root).split()])) == 12  # type: ignore[list-item]  # what audit and reports may ask


def test_the_list_of_held_out_clips_is_kept_next_to_the_index(make: Callable[..., VoxCeleb2], tmp_path: Path) -> None:
    drawn = [u.name for u in make().split().validation]
    file = next(tmp_path.rglob("validation_list-*.txt"))
    assert {path.name for path in file.parent.iterdir()} >= {"index.safetensors", file.name}
    assert [line.removesuffix(".wav") for line in file.read_text().splitlines()] == drawn
    stamp = file.stat().st_mtime_ns
    assert [u.name for u in make().split().validation] == drawn
    assert file.stat().st_mtime_ns == stamp


def test_a_list_of_ones_own_is_taken_and_a_foreign_one_rejected(make: Callable[..., VoxCeleb2], tmp_path: Path) -> None:
    names = [make().all_utterances[clip].name for clip in (3, 8)]
    own = tmp_path / "own.txt"
    own.write_text(f"{names[1]}.m4a 1\n\n{names[0]}\n")
    data = make(protocol=ListedClips(own))
    assert [u.name for u in data.split().validation] == names
    assert len(data.split().train) == SPEAKERS * CLIPS - 2
    own.write_text("id00001/nowhere/00001.wav\n")
    with pytest.raises(ProtocolError, match=r"own\.txt.*id00001/nowhere/00001\.wav"):
        make(protocol=ListedClips(own)).split()


def test_training_crops_have_the_set_frames_and_one_hot_targets(make: Callable[..., VoxCeleb2]) -> None:
    data = make()
    batches = epoch(data)
    assert [batch.size for batch in batches] == [5, 5, 5, 5]
    for batch in batches:
        assert batch.inputs.shape == (5, CROP_FRAMES, 257)
        assert batch.lengths.tolist() == [CROP_FRAMES] * 5
        speakers = [data.set_utterances("train")[int(position)].speaker for position in batch.indices]
        assert [data.class_names[int(label)] for label in batch.labels] == speakers
        assert torch.equal(batch.targets, torch.eye(SPEAKERS)[batch.labels])
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(SPEAKERS * (CLIPS - 1)))


def test_crops_are_stretches_of_their_clips(make: Callable[..., VoxCeleb2]) -> None:
    data = make()
    data.setup("fit")
    for batch in data.train_dataloader():
        for crop, position in zip(batch.inputs.squeeze(2), batch.indices, strict=True):
            whole = read_audio(data.set_utterances("train")[int(position)].path, 16000)
            starts = (whole[: len(whole) - len(crop) + 1] == crop[0]).nonzero().flatten().tolist()
            found = [start for start in starts if torch.equal(whole[start : start + len(crop)], crop)]
            assert found, f"the crop of clip {int(position)} is nowhere in it"


def test_an_epoch_is_reproducible_for_any_number_of_workers(
    make: Callable[..., VoxCeleb2],
) -> None:
    first = epoch(make())
    assert equal(first, epoch(make()))
    assert equal(first, epoch(make(workers=2)))
    assert equal(epoch(make(), 3), epoch(make(workers=1), 3))
    assert not equal(first, epoch(make(), 1))
    assert not equal(first, epoch(make(seed=1)))


def test_two_processes_share_each_batch_without_overlap(
    make: Callable[..., VoxCeleb2], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = epoch(make())
    shares = []
    for process in range(2):
        monkeypatch.setattr(voxceleb2, "rank_and_world_size", lambda _, process=process: (process, 2))
        shares.append(epoch(make()))
    for whole, one, two in zip(together, *shares, strict=True):
        assert sorted([*one.indices.tolist(), *two.indices.tolist()]) == sorted(whole.indices.tolist())
        crops = dict(zip(whole.indices.tolist(), whole.inputs, strict=True))
        for share in (one, two):
            for position, crop in zip(share.indices.tolist(), share.inputs, strict=True):
                assert torch.equal(crop, crops[position])


def test_evaluation_hears_the_middle_of_each_held_out_clip_once(make: Callable[..., VoxCeleb2]) -> None:
    data = make()
    data.setup("validate")
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(SPEAKERS))
    for batch in batches:
        for frames, position in zip(batch.inputs, batch.indices, strict=True):
            whole = read_audio(data.set_utterances("validation")[int(position)].path, 16000)
            start = (len(whole) - data.num_samples + 1) // 2
            crop = whole[None, start : start + data.num_samples]
            expected, _ = MagnitudeSpectrogram()(crop, torch.tensor([data.num_samples]))
            torch.testing.assert_close(frames, expected[0], atol=1e-5, rtol=0)
    data.setup("predict")
    assert sum(batch.size for batch in data.predict_dataloader()) == SPEAKERS * CLIPS


def test_short_clips_are_taken_whole(make: Callable[..., VoxCeleb2], root: Path) -> None:
    for path in root.rglob("*.wav"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples[6000:10000] if "id00001" in str(path) else samples, rate)
    data = make(root)
    for batch in epoch(data):
        short = batch.labels == 0
        assert (batch.lengths[short] == int(MagnitudeSpectrogram().num_frames(torch.tensor(4000)))).all()
        assert (batch.lengths[~short] == CROP_FRAMES).all()
        assert not batch.inputs[short, int(batch.lengths[short].max()) if short.any() else 0 :].any()


def test_silence_is_cut_from_the_crop_before_the_device_sees_it(make: Callable[..., VoxCeleb2]) -> None:
    extractor = SilenceRemoval(MagnitudeSpectrogram(), top_db=20.0)
    data = make(extractor=extractor, crop_frames=100)
    data.setup("fit")
    crops = [
        (frames, length, position)
        for batch in data.val_dataloader()
        for frames, length, position in zip(*frames_of(data, batch), batch.indices, strict=True)
    ]
    for frames, length, position in crops:
        whole = read_audio(data.set_utterances("validation")[int(position)].path, 16000)
        start = max(0, (len(whole) - data.num_samples + 1) // 2)
        expected, _ = extractor(whole[None, start : start + data.num_samples], torch.tensor([data.num_samples]))
        torch.testing.assert_close(frames[: int(length)], expected[0], atol=1e-5, rtol=0)
    assert any(int(length) < 100 for _, length, _ in crops), "no silence was cut"


def frames_of(data: VoxCeleb2, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    batch = data.on_after_batch_transfer(batch, 0)
    return batch.inputs, batch.lengths


def test_statistics_are_speaker_shares_and_moments_of_crops(make: Callable[..., VoxCeleb2], root: Path) -> None:
    for path in sorted((root / "id00002").rglob("*.wav"))[:3]:
        path.unlink()
    data = make(root)
    data.setup("fit")
    statistics = data.training_statistics()
    counts = np.array([5, 2, 5, 5])
    np.testing.assert_allclose(statistics.class_prior, counts / counts.sum(), rtol=1e-6)
    assert statistics.speakers == data.class_names
    dataset = data._dataset("train")
    waveforms = [dataset.crop(int(clip), 0.5) for clip in dataset.clips]
    mean, deviation = mean_and_deviation(list(data.frames.make_each(waveforms)))
    torch.testing.assert_close(statistics.mean, mean, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(statistics.deviation, deviation, rtol=1e-4, atol=1e-7)


def spoil_training_clip(data: VoxCeleb2, content: bytes) -> Path:
    path = data.set_utterances("train")[7].path
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull")]
)
def test_a_bad_file_stops_training_with_its_name_and_the_way_out(
    make: Callable[..., VoxCeleb2], root: Path, content: bytes, message: str, workers: int
) -> None:
    data = make(root, workers=workers)
    path = spoil_training_clip(data, content)
    with pytest.raises(AudioError, match=message) as caught:
        epoch(data)
    problems = list(caught.value.problems)
    del caught  # its traceback holds the loader; garbage collection would wait five seconds for each worker
    assert problems == [path]


@pytest.mark.parametrize("workers", [0, 1])
def test_another_clip_of_the_speaker_replaces_a_bad_one(
    make: Callable[..., VoxCeleb2], root: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    data = make(root, on_bad_audio="skip", workers=workers)
    path = spoil_training_clip(data, b"")
    whole = epoch(make())
    with caplog.at_level(logging.WARNING):
        batches = epoch(data)
    assert list(data.skipped_audio) == [path]
    assert f"{path} is unusable (empty" in caplog.text
    for batch, other in zip(batches, whole, strict=True):
        assert torch.equal(batch.labels, other.labels)
        assert torch.equal(batch.indices, other.indices)
        same = torch.tensor([torch.equal(a, b) for a, b in zip(batch.inputs, other.inputs, strict=True)])
        assert torch.equal(same, batch.indices != 7)
    caplog.clear()
    epoch(data, 1)
    assert not caplog.text, "the same file is reported again"


def test_a_speaker_without_any_usable_clip_stops_training(make: Callable[..., VoxCeleb2], root: Path) -> None:
    data = make(root, on_bad_audio="skip")
    data.setup("fit")
    paths = [u.path for u in data.set_utterances("train") if u.speaker == "id00003"]
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(AudioError, match="5 audio files") as caught:
        epoch(data)
    assert sorted(caught.value.problems) == sorted(paths)


def test_a_bad_clip_is_not_held_out(make: Callable[..., VoxCeleb2], root: Path, tmp_path: Path) -> None:
    drawn = make(root).split().validation[1].path
    drawn.write_bytes(b"")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(AudioError, match="empty") as caught:
        make(root).prepare_data()
    assert list(caught.value.problems) == [drawn]
    data = make(root, on_bad_audio="skip")
    data.prepare_data()
    assert data.split().validation[1].speaker == "id00002"
    assert data.split().validation[1].path != drawn
    assert list(data.skipped_audio) == [drawn]


def test_a_held_out_clip_that_breaks_later_is_never_replaced(make: Callable[..., VoxCeleb2], root: Path) -> None:
    data = make(root, on_bad_audio="skip")
    data.setup("validate")
    path = data.set_utterances("validation")[2].path
    path.write_bytes(b"")
    with pytest.raises(AudioError, match="empty") as caught:
        list(data.val_dataloader())
    assert list(caught.value.problems) == [path]


def test_preparing_counts_what_was_looked_up(make: Callable[..., VoxCeleb2]) -> None:
    first, second = make().extract(progress=False), make().extract(progress=False)
    assert (first.extracted, first.reused) == (SPEAKERS * CLIPS, 0)
    assert (second.extracted, second.reused) == (0, SPEAKERS * CLIPS)


def test_nothing_is_tested(make: Callable[..., VoxCeleb2]) -> None:
    with pytest.raises(ProtocolError, match=r"held-out clips .*ser validate"):
        make().setup("test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0.*1"),
        ({"crop_frames": 0}, "crop_frames is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"fold": 1}, "fold is 1"),
    ],
)
def test_numbers_that_do_not_fit_are_rejected(
    make: Callable[..., VoxCeleb2], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(**options)
