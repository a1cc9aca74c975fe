"""Stored features: correct, reused, shared, and written atomically."""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from ser_lightning.audio import read_audio
from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureStore, LogMelFilterbank, LogPowerSpectrogram, MagnitudeSpectrogram, extraction
from ser_lightning.features import SilenceRemoval as Silence
from ser_lightning.features import digests as digests_module
from ser_lightning.features import store as store_module


def write_clip(path: Path, seed: int, seconds: float = 0.3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=round(16000 * seconds) + 160 * seed)
    soundfile.write(path, noise, 16000)
    return path


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [write_clip(tmp_path / "audio" / f"{seed}.wav", seed) for seed in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def extract(extractor: LogMelFilterbank, path: Path) -> Tensor:
    waveform = read_audio(path, 16000)
    frames, _ = extractor(waveform[None], torch.tensor([len(waveform)]))
    result: Tensor = frames[0]
    return result


def test_loaded_frames_equal_extracted_ones_in_order(clips: list[Path], folder: Path) -> None:
    extractor = LogMelFilterbank()
    store = FeatureStore(folder, extractor)
    prepared = store.prepare(clips, progress=False)
    assert (prepared.extracted, prepared.reused, prepared.problems) == (6, 0, {})
    asked = [clips[4], clips[0], clips[4]]
    for path, frames in zip(asked, store.load(asked), strict=True):
        assert frames.dtype == torch.float32
        assert torch.equal(frames, extract(extractor, path))
    assert store.lengths(asked) == [len(frames) for frames in store.load(asked)]


def test_what_is_stored_is_not_extracted_again(
    clips: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeatureStore(folder, LogMelFilterbank()).prepare(clips[:4], progress=False)

    def fail(path: Path) -> str:
        assert path in clips[4:]
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(digests_module, "audio_digest", fail)  # nor is its digest computed again
    again = FeatureStore(folder, LogMelFilterbank())
    prepared = again.prepare(clips, progress=False)
    assert (prepared.extracted, prepared.reused) == (2, 4)
    prepared = again.prepare(clips, progress=False)
    assert (prepared.extracted, prepared.reused) == (0, 6)


def test_a_changed_file_and_nothing_else_is_extracted_anew(clips: list[Path], folder: Path) -> None:
    store = FeatureStore(folder, LogMelFilterbank())
    store.prepare(clips, progress=False)
    write_clip(clips[2], seed=99)
    prepared = store.prepare(clips, progress=False)
    assert (prepared.extracted, prepared.reused) == (1, 5)
    assert torch.equal(store.load([clips[2]])[0], extract(LogMelFilterbank(), clips[2]))


def test_only_files_that_have_not_changed_count_as_stored(clips: list[Path], folder: Path) -> None:
    FeatureStore(folder, LogMelFilterbank()).prepare(clips[1:], progress=False)
    write_clip(clips[1], seed=99, seconds=0.4)
    assert FeatureStore(folder, LogMelFilterbank()).sounds(clips).keys() == set(clips[2:])
    assert FeatureStore(folder, MagnitudeSpectrogram()).sounds(clips) == {}


def test_files_with_the_same_samples_have_one_sound(clips: list[Path], folder: Path, tmp_path: Path) -> None:
    same = [tmp_path / "copy.wav", tmp_path / "coded.flac"]
    shutil.copy(clips[0], same[0])
    samples, rate = soundfile.read(clips[0], dtype="int16")
    soundfile.write(same[1], samples, rate, subtype="PCM_16")
    store = FeatureStore(folder, LogMelFilterbank())
    store.prepare([*clips, *same], progress=False)
    for one in (store, FeatureStore(folder, LogMelFilterbank())):
        sounds = one.sounds([*clips, *same])
        assert sounds[clips[0]] == sounds[same[0]] == sounds[same[1]]
        assert len(set(sounds.values())) == len(clips)


@pytest.mark.parametrize("in_place", [True, False])
def test_audio_replaced_under_its_size_and_time_is_extracted_anew(
    clips: list[Path], folder: Path, in_place: bool
) -> None:
    FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False)
    before = clips[2].stat()
    samples, _ = soundfile.read(clips[2])
    soundfile.write(clips[2] if in_place else clips[2].with_name("new.wav"), samples[::-1], 16000)
    if not in_place:
        clips[2].with_name("new.wav").replace(clips[2])
    os.utime(clips[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = clips[2].stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    store = FeatureStore(folder, LogMelFilterbank())
    assert set(store.sounds(clips)) == set(clips) - {clips[2]}
    assert store.prepare(clips, progress=False).extracted == 1
    assert torch.equal(store.load([clips[2]])[0], extract(LogMelFilterbank(), clips[2]))


@pytest.mark.parametrize("field", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"])
def test_a_change_of_any_state_of_a_file_is_noticed(
    clips: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False)
    stat = Path.stat

    def changed(self: Path, **options: bool) -> Any:
        status = stat(self, **options)
        names = ("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
        values = {name: getattr(status, name) for name in names}
        return SimpleNamespace(**values | ({field: values[field] + 1} if self == clips[0] else {}))

    monkeypatch.setattr(Path, "stat", changed)
    assert set(FeatureStore(folder, LogMelFilterbank()).sounds(clips)) == set(clips[1:])


def test_digests_of_an_older_version_are_computed_again(clips: list[Path], folder: Path) -> None:
    FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False)
    status = clips[0].stat()
    old = {str(clips[0]): [status.st_size, status.st_mtime_ns, "0" * 64]}
    (folder / "digests.json").write_text(json.dumps({"version": 1, "files": old}))
    assert FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False).reused == 6


def test_digests_are_one_json_file_with_a_line_for_each_file(clips: list[Path], folder: Path) -> None:
    for some in (clips[:2], clips[1:]):  # two processes
        FeatureStore(folder, LogMelFilterbank()).prepare(some, progress=False)
    os.utime(clips[0])
    FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False)  # replaces a line
    text = (folder / "digests.json").read_text()
    files = json.loads(text)["files"]
    assert set(files) == set(map(str, clips))
    assert len(text.splitlines()) == len(clips) + 2
    assert all(entry.endswith(hashlib.sha256(Path(path).read_bytes()).hexdigest()) for path, entry in files.items())


def test_a_touched_or_moved_file_is_known_by_its_content(clips: list[Path], folder: Path, tmp_path: Path) -> None:
    FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False)
    os.utime(clips[0])
    moved = [Path(shutil.move(path, tmp_path / f"moved-{path.name}")) for path in clips[1:]]
    prepared = FeatureStore(folder, LogMelFilterbank()).prepare([clips[0], *moved], progress=False)
    assert (prepared.extracted, prepared.reused) == (0, 6)


def test_byte_identical_files_are_extracted_and_stored_once(clips: list[Path], folder: Path) -> None:
    twin = clips[0].with_name("twin.wav")
    shutil.copy(clips[0], twin)
    store = FeatureStore(folder, LogMelFilterbank())
    prepared = store.prepare([clips[0], twin], progress=False)
    assert (prepared.extracted, prepared.reused) == (1, 1)
    assert torch.equal(*store.load([clips[0], twin]))


def test_arguments_class_version_and_libraries_set_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = MagnitudeSpectrogram()
    extractors = [
        LogMelFilterbank(),
        LogMelFilterbank(num_mels=26),
        LogPowerSpectrogram(),
        inner,
        Silence(inner, 30.0),
        Silence(inner, 40.0),
    ]
    folders = [FeatureStore(folder, extractor).folder for extractor in extractors]
    monkeypatch.setattr(MagnitudeSpectrogram, "version", 2)
    folders += [FeatureStore(folder, extractor).folder for extractor in extractors[3:]]
    release = store_module._release
    monkeypatch.setattr(store_module, "_release", lambda name: "9.9" if name == "librosa" else release(name))
    folders += [FeatureStore(folder, extractor).folder for extractor in extractors[4:]]
    monkeypatch.setattr(store_module, "READING_VERSION", 0)
    folders.append(FeatureStore(folder, inner).folder)
    monkeypatch.undo()
    assert len(set(folders)) == 6 + 3 + 2 + 1
    assert FeatureStore(folder, extractors[0]).folder == folders[0]  # which does not use librosa


def test_a_store_is_found_after_its_class_has_moved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = FeatureStore(folder, LogMelFilterbank()).folder
    monkeypatch.setattr(LogMelFilterbank, "__module__", "ser_lightning.features.elsewhere")
    assert FeatureStore(folder, LogMelFilterbank()).folder == before


def test_an_integer_and_the_same_float_are_one_argument(folder: Path) -> None:
    stores = [FeatureStore(folder, LogPowerSpectrogram(max_frequency_hz=value)) for value in (4000, 4000.0)]
    assert stores[0].folder == stores[1].folder


def test_the_folder_says_what_its_frames_are(clips: list[Path], folder: Path) -> None:
    store = FeatureStore(folder, LogMelFilterbank(num_mels=26))
    store.prepare(clips[:1], progress=False)
    content = json.loads((store.folder / "extractor.json").read_text())
    assert content["extractor"]["init_args"]["num_mels"] == 26
    assert set(content["libraries"]) == {"soundfile", "torch", "torchaudio"}


def test_bad_audio_is_reported_and_the_rest_stored(clips: list[Path], folder: Path) -> None:
    zero, copy, gone = (clips[0].with_name(f"{name}.wav") for name in ("zero", "copy", "gone"))
    soundfile.write(zero, np.zeros(500), 16000)
    shutil.copy(zero, copy)
    store = FeatureStore(folder, LogMelFilterbank())
    prepared = store.prepare([zero, *clips, gone, copy], progress=False)
    assert (prepared.extracted, prepared.reused) == (6, 0)
    assert set(prepared.problems) == {zero, copy, gone}
    assert "all 500 samples are zero" in prepared.problems[zero]
    assert "all 500 samples are zero" in prepared.problems[copy]
    assert "missing" in prepared.problems[gone]
    assert len(store.load(clips)) == 6
    with pytest.raises(ConfigurationError, match=r"1 of 2 audio files .*zero\.wav"):
        store.load([clips[0], zero])


def test_a_complete_store_is_usable_read_only(clips: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero = clips[0].with_name("zero.wav")
    soundfile.write(zero, np.zeros(500), 16000)
    FeatureStore(folder, LogMelFilterbank()).prepare([zero, *clips], progress=False)
    later = write_clip(clips[0].with_name("later.wav"), 9)

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_module, "_sole_writer", refuse)
    monkeypatch.setattr(digests_module, "write_pieces_atomically", refuse)
    store = FeatureStore(folder, LogMelFilterbank())
    prepared = store.prepare([*clips, zero], progress=False)
    assert (prepared.extracted, prepared.reused, list(prepared.problems)) == (0, 6, [zero])
    assert "all 500 samples are zero" in prepared.problems[zero]
    with pytest.raises(ConfigurationError, match="Permission denied"):
        store.prepare([*clips, zero, later], progress=False)


def test_audio_that_cannot_be_reached_says_why(
    clips: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def guarded(self: Path, **options: bool) -> os.stat_result:
        if self == clips[0]:
            raise PermissionError(13, "Permission denied")
        return stat(self, **options)

    clips[1].unlink()
    clips[1].symlink_to("nowhere.wav")
    monkeypatch.setattr(Path, "stat", guarded)
    prepared = FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False)
    assert prepared.problems == {clips[0]: "cannot be read: Permission denied", clips[1]: "a broken symbolic link"}


class _Overflowing(LogMelFilterbank):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames, frame_lengths = super().forward(waveforms, lengths)
        frames[:, 0, :3] = torch.inf
        return frames, frame_lengths


def test_nan_frames_are_a_problem_of_the_file(clips: list[Path], folder: Path) -> None:
    prepared = FeatureStore(folder, _Overflowing()).prepare(clips[:1], progress=False)
    assert prepared.extracted == 0
    assert re.search("_Overflowing.* 3 .*infinite", prepared.problems[clips[0]])


def test_loading_unprepared_files_names_the_first(clips: list[Path], folder: Path) -> None:
    store = FeatureStore(folder, LogMelFilterbank())
    with pytest.raises(ConfigurationError, match=r"6 of 6 .*0\.wav"):
        store.load(clips)
    store.prepare(clips[:5], progress=False)
    with pytest.raises(ConfigurationError, match=r"1 of 6 .*5\.wav"):
        store.lengths(clips)


def test_a_store_finds_what_another_has_prepared_since(clips: list[Path], folder: Path) -> None:
    early = FeatureStore(folder, LogMelFilterbank())
    FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False)
    assert len(early.load(clips)) == 6


def test_writing_into_loaded_frames_never_reaches_the_disk(clips: list[Path], folder: Path) -> None:
    store = FeatureStore(folder, LogMelFilterbank())
    store.prepare(clips, progress=False)
    store.load(clips)[0].zero_()
    assert torch.equal(store.load(clips)[0], extract(LogMelFilterbank(), clips[0]))


@pytest.mark.parametrize("kept", [4, 0.5, -1])
def test_a_damaged_shard_is_named_and_rebuilt_alone(clips: list[Path], folder: Path, kept: float) -> None:
    store = FeatureStore(folder, LogMelFilterbank())
    store.prepare(clips[:4], progress=False)
    (shard,) = store.folder.glob("*.safetensors")
    store.prepare(clips, progress=False)
    content = shard.read_bytes()
    shard.write_bytes(content[: int(len(content) * kept) if kept == 0.5 else int(kept)])
    damaged = FeatureStore(folder, LogMelFilterbank())
    for action in (damaged.load, damaged.lengths, lambda paths: damaged.prepare(paths, progress=False)):
        with pytest.raises(ConfigurationError, match=rf"{shard}.*Delete"):
            action(clips)
    shard.unlink()
    prepared = damaged.prepare(clips, progress=False)
    assert (prepared.extracted, prepared.reused) == (4, 2)


@pytest.mark.parametrize("size", [0, 4, 5000])
def test_a_shard_truncated_after_it_was_indexed_is_named(clips: list[Path], folder: Path, size: int) -> None:
    store = FeatureStore(folder, LogMelFilterbank())
    store.prepare(clips, progress=False)
    (shard,) = store.folder.glob("*.safetensors")
    os.truncate(shard, size)
    with pytest.raises(ConfigurationError, match=rf"{shard}.*Delete"):
        store.load(clips)


def test_changed_frames_are_reported_and_others_load(clips: list[Path], folder: Path) -> None:
    store = FeatureStore(folder, LogMelFilterbank())
    store.prepare(clips, progress=False)
    (shard,) = store.folder.glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-2000:-1000] = b"\xff" * 1000
    shard.write_bytes(content)
    again = FeatureStore(folder, LogMelFilterbank())
    with pytest.raises(ConfigurationError, match=rf"{shard}.*1 of 6.*Delete"):
        again.load(clips)
    loaded = 0
    for clip in clips:
        with contextlib.suppress(ConfigurationError):
            assert torch.equal(again.load([clip])[0], extract(LogMelFilterbank(), clip))
            loaded += 1
    assert loaded == 5


def test_shards_without_checksums_are_loaded(clips: list[Path], folder: Path) -> None:
    store = FeatureStore(folder, LogMelFilterbank())
    store.prepare(clips, progress=False)
    (shard,) = store.folder.glob("*.safetensors")
    save_file(load_file(shard), shard)
    assert len(FeatureStore(folder, LogMelFilterbank()).load(clips)) == 6


@pytest.mark.parametrize("content", ["", "[]", '{"files": {"a": [1]}}', '{"files": {"/a": [1, 2, "x'])
def test_damaged_digests_are_named_and_cost_no_extraction(clips: list[Path], folder: Path, content: str) -> None:
    FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False)
    (folder / "digests.json").write_text(content)
    store = FeatureStore(folder, LogMelFilterbank())
    with pytest.raises(ConfigurationError, match=r"digests\.json.*Delete"):
        store.prepare(clips, progress=False)
    (folder / "digests.json").unlink()
    assert store.prepare(clips, progress=False).reused == 6


def test_a_folder_that_cannot_be_written_is_named(clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FeatureStore(tmp_path / "file" / "store", LogMelFilterbank())
    with pytest.raises(ConfigurationError, match=rf"{tmp_path}/file/store/LogMel.*Not a dir"):
        store.prepare(clips, progress=False)


def test_a_finished_store_serves_readers_who_may_not_write(
    clips: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=False)
    os.utime(clips[0])  # its digest would be stored again

    def refuse(path: Path, pieces: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(digests_module, "write_pieces_atomically", refuse)
    store = FeatureStore(folder, LogMelFilterbank())
    assert store.prepare(clips, progress=False).reused == 6
    assert len(store.load(clips)) == 6


def test_frames_are_written_as_they_come(clips: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatureStore, "flush_bytes", 2 * 30 * 40 * 4)
    store = FeatureStore(folder, LogMelFilterbank())
    store.prepare(clips, progress=False)
    assert len(list(store.folder.glob("*.safetensors"))) == 3
    assert len(FeatureStore(folder, LogMelFilterbank()).load(clips)) == 6


def test_no_bar_is_shown_unless_asked_for(
    clips: list[Path], folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "Console", functools.partial(Console, force_terminal=True))
    FeatureStore(folder, LogMelFilterbank()).prepare(clips[:1], progress=False)
    assert capfd.readouterr() == ("", "")
    FeatureStore(folder, LogMelFilterbank()).prepare(clips, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "files/s" in err


def test_a_log_file_gets_a_line_a_tenth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = itertools.count(step=2.0)
    monkeypatch.setattr(extraction, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert list(extraction.show_progress(range(40), 40, "LogMel", shown=True)) == list(range(40))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "LogMel: 4 of 40 files, 0.5 files/s, about 1 min left"
    assert lines[-1] == "LogMel: 40 of 40 files, 0.5 files/s"
    monkeypatch.undo()
    assert list(extraction.show_progress(range(40), 40, "quick", shown=True)) == list(range(40))
    assert capsys.readouterr().err == "", "nothing takes a second"
