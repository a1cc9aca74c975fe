"""Results do not depend on batching, and hardly on sample rate; windows are averaged."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_lightning.audio import read_audio
from ser_lightning.errors import ConfigurationError
from ser_lightning.features import LogMelFilterbank, MagnitudeSpectrogram, SilenceRemoval
from ser_lightning.inference import classification
from ser_lightning.inference.classification import Classified, Classifier, Unusable, batch_of
from ser_lightning.inference.recordings import Windowing

Save = Callable[..., Path]


def speech(seconds: float, rate_hz: int = 16000, pitch_hz: float = 150.0, channels: int = 1) -> np.ndarray:  # type: ignore[type-arg]
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    voice = sum(np.sin(2 * np.pi * pitch_hz * n * time) / n for n in range(1, 9)) * (1.1 + np.sin(2 * np.pi * 3 * time))
    return np.repeat(0.1 * voice[:, None], channels, axis=1)


@pytest.fixture(scope="module")
def checkpoint(save: Save, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("checkpoint") / "best.ckpt", "huang_weighted")


def probabilities(result: Classified | Unusable) -> torch.Tensor:
    assert isinstance(result, Classified), result
    return torch.tensor(result.probabilities)


def one(classifier: Classifier, path: Path, windowing: Windowing | None = None) -> Classified:
    (result,) = classifier.classify_all([path], windowing)
    assert isinstance(result, Classified), result
    return result


def test_a_file_is_classified_as_its_frames_are(save: Save, tmp_path: Path, system_name: str) -> None:
    classifier = Classifier(save(tmp_path / "best.ckpt", system_name), "cpu")
    path = tmp_path / "speech.wav"
    soundfile.write(path, speech(1.3, 48000, channels=2), 48000)
    result = one(classifier, path)
    waveform = read_audio(path, 16000)
    frames, lengths = LogMelFilterbank()(waveform[None], torch.tensor([len(waveform)]))
    with torch.inference_mode():
        decision = classifier.ensemble.decide(batch_of([frames[0, : lengths[0]]], torch.device("cpu")))
    torch.testing.assert_close(torch.tensor(result.probabilities), decision.probabilities[0], atol=1e-6, rtol=0)
    assert result.emotion == classifier.class_names[int(decision.predicted[0])]
    assert result.seconds == pytest.approx(1.3)


def test_rate_and_channels_hardly_matter(checkpoint: Path, tmp_path: Path) -> None:
    found = []
    for rate_hz, channels in ((16000, 1), (48000, 2), (44100, 1), (22050, 6)):
        soundfile.write(tmp_path / "speech.flac", speech(2.0, rate_hz, channels=channels), rate_hz)
        found.append(probabilities(one(Classifier(checkpoint, "cpu"), tmp_path / "speech.flac")))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=0.02, rtol=0)
    assert found[0].std() > 0.02  # not uniform


@pytest.mark.parametrize("seconds", [1 / 16000, 0.01, 0.2])
def test_the_shortest_recordings_are_classified(save: Save, tmp_path: Path, system_name: str, seconds: float) -> None:
    soundfile.write(tmp_path / "short.wav", 0.01 + speech(seconds), 16000)
    result = one(Classifier(save(tmp_path / "best.ckpt", system_name), "cpu"), tmp_path / "short.wav")
    assert sum(result.probabilities) == pytest.approx(1, abs=1e-5)


def test_batching_and_order_change_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{n}.wav" for n in range(9)]
    for n, path in enumerate(paths):
        soundfile.write(path, speech(0.3 + 0.37 * (n * 5 % 9), pitch_hz=90 + 20 * n), 16000)
    classifier = Classifier(checkpoint, "cpu")
    alone = [one(classifier, path) for path in paths]
    for pool_seconds, batch_seconds in ((1000.0, 1000.0), (3.0, 2.0), (0.1, 0.1)):
        monkeypatch.setattr(classification, "POOL_SECONDS", pool_seconds)
        monkeypatch.setattr(classification, "BATCH_SECONDS", batch_seconds)
        together = list(classifier.classify_all(paths))
        assert [result.path for result in together] == paths
        for lonely, result in zip(alone, together, strict=True):
            torch.testing.assert_close(probabilities(result), torch.tensor(lonely.probabilities), atol=1e-5, rtol=0)


def test_results_are_yielded_while_files_are_read(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "POOL_SECONDS", 2.0)
    soundfile.write(tmp_path / "speech.wav", speech(1.0), 16000)
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield tmp_path / "speech.wav"

    results = Classifier(checkpoint, "cpu").classify_all(endless())
    for _ in range(7):
        next(results)
    assert asked == 8


def test_unusable_files_do_not_pile_up_behind_a_usable_one(checkpoint: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "speech.wav", speech(1.0), 16000)
    asked = 0

    def many() -> Iterator[Path]:
        nonlocal asked
        yield tmp_path / "speech.wav"
        for _ in range(4 * classification.MAX_PENDING_FILES):
            asked += 1
            yield tmp_path / "gone.wav"

    results = Classifier(checkpoint, "cpu").classify_all(many())
    assert isinstance(next(results), Classified)
    assert asked < classification.MAX_PENDING_FILES
    assert all(isinstance(next(results), Unusable) for _ in range(2 * classification.MAX_PENDING_FILES))


def test_windows_are_classified_like_recordings(checkpoint: Path, tmp_path: Path) -> None:
    parts = [speech(1.0, pitch_hz=pitch) for pitch in (100, 300, 220)]
    classifier = Classifier(checkpoint, "cpu")
    alone = []
    for part in parts:
        soundfile.write(tmp_path / "part.wav", part, 16000, subtype="FLOAT")
        alone.append(one(classifier, tmp_path / "part.wav"))
    soundfile.write(tmp_path / "joined.wav", np.concatenate([*parts, parts[0][:8000]]), 16000, subtype="FLOAT")
    joined = one(classifier, tmp_path / "joined.wav", Windowing(1.0, 1.0))
    assert [(h.start_seconds, h.end_seconds) for h in joined.decisions] == [(0, 1), (1, 2), (2, 3), (3, 3.5)]
    for decision, whole in zip(joined.decisions, alone, strict=False):
        assert decision.emotion == whole.emotion
        assert decision.probabilities == pytest.approx(whole.probabilities, abs=1e-5)
    weights = torch.tensor([1, 1, 1, 0.5]) / 3.5
    mean = weights @ torch.tensor([decision.probabilities for decision in joined.decisions])
    torch.testing.assert_close(probabilities(joined), mean, atol=1e-6, rtol=0)
    assert joined.emotion == classifier.class_names[int(mean.argmax())]


@pytest.mark.parametrize("name", ["zhou_trimmed", "zhou_padded"])
def test_a_system_that_trims_gets_the_whole_recording_in_windows(save: Save, tmp_path: Path, name: str) -> None:
    classifier = Classifier(save(tmp_path / "best.ckpt", name), "cpu")
    path = tmp_path / "speech.wav"
    for seconds, ends in ((1.5, [1.5]), (4.0, [1.5, 3.0, 4.0]), (61.0, [*(1.5 * n for n in range(1, 41)), 61.0])):
        soundfile.write(path, speech(seconds), 16000)
        result = one(classifier, path)
        assert [decision.end_seconds for decision in result.decisions] == ends
        assert result.windowing == (None if seconds == 1.5 else Windowing(1.5, 1.5))
    quiet = speech(4.0)
    soundfile.write(path, quiet, 16000)
    before = probabilities(one(classifier, path))
    quiet[3 * 16000 :] *= 0.001
    soundfile.write(path, quiet, 16000)
    assert (probabilities(one(classifier, path)) - before).abs().max() > 1e-6


def test_windows_of_digital_silence_do_not_count(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "pause.wav"
    voice = speech(1.0)
    soundfile.write(path, np.concatenate([voice, np.zeros((32000, 1)), voice]), 16000)
    classifier = Classifier(checkpoint, "cpu")
    result = one(classifier, path, Windowing(1.0, 1.0))
    assert [decision.emotion is None for decision in result.decisions] == [False, True, True, False]
    assert result.probabilities == pytest.approx(result.decisions[0].probabilities, abs=1e-5)


def test_unusable_files_have_reasons_and_the_others_results(checkpoint: Path, tmp_path: Path) -> None:
    good, silent, corrupt, text = (tmp_path / name for name in ("good.wav", "silent.wav", "corrupt.wav", "notes.txt"))
    soundfile.write(good, speech(1.0), 16000)
    soundfile.write(silent, np.zeros(16000), 16000)
    corrupt.write_bytes(good.read_bytes()[:20000])
    text.write_text("hello")
    long_silent, nan = tmp_path / "long_silent.wav", tmp_path / "nan.wav"
    soundfile.write(long_silent, np.zeros(8000 * 65), 8000)
    soundfile.write(nan, np.concatenate([speech(70.0, 8000)[:, 0], [np.nan]]), 8000, subtype="FLOAT")
    paths = [silent, good, corrupt, text, tmp_path / "gone.wav", tmp_path, long_silent, nan, good]
    shares: list[float] = []
    results = list(Classifier(checkpoint, "cpu").classify_all(paths, None, shares.append))
    assert [result.path for result in results] == paths
    reasons = [result.reason if isinstance(result, Unusable) else "" for result in results]
    words = ["16000 samples are zero", "", "truncated", "cannot be decoded", "missing", "a folder", "zero", "NaN", ""]
    for reason, word in zip(reasons, words, strict=True):
        assert word in reason
        assert bool(word) == bool(reason)
        assert "\n" not in reason
    assert sum(shares) == pytest.approx(len(paths))
    assert min(shares) >= 0


def test_silence_is_removed_as_in_training(save: Save, tmp_path: Path) -> None:
    extractor = SilenceRemoval(MagnitudeSpectrogram(dft_length=512), top_db=30)
    classifier = Classifier(save(tmp_path / "best.ckpt", "mocanu_svm", extractor=extractor), "cpu")
    voice = speech(1.0)
    found = []
    for pause in (0, 16000):
        soundfile.write(tmp_path / "speech.wav", np.concatenate([voice, np.zeros((pause, 1)), voice]), 16000)
        found.append(one(classifier, tmp_path / "speech.wav"))
    assert found[0].probabilities == pytest.approx(found[1].probabilities, abs=0.05)


def test_a_system_that_classifies_speakers_is_rejected(save: Save, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"SpeakerIdentification.* 4 speakers"):
        Classifier(save(tmp_path / "speakers.ckpt", "speakers"))


def test_an_unavailable_device_is_named(checkpoint: Path) -> None:
    for device in ("nothing", "cuda:99"):
        with pytest.raises(ConfigurationError, match=f"--device {device}"):
            Classifier(checkpoint, device)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_results(save: Save, tmp_path: Path, system_name: str) -> None:
    paths = [tmp_path / f"{n}.wav" for n in range(5)]
    for n, path in enumerate(paths):
        soundfile.write(path, speech(0.3 + 0.7 * n, pitch_hz=90 + 20 * n), 16000)
    checkpoint = save(tmp_path / "best.ckpt", system_name)
    for ours, theirs in zip(
        Classifier(checkpoint, "cpu").classify_all(paths),
        Classifier(checkpoint, "cuda").classify_all(paths),
        strict=True,
    ):
        torch.testing.assert_close(probabilities(ours), probabilities(theirs), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_memory_does_not_grow_with_duration(checkpoint: Path, tmp_path: Path) -> None:
    code = (
        "import sys, resource; from ser_lightning.cli.__main__ import main\n"
        "main(['classify', *sys.argv[1:], '--device=cpu'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for minutes in (3, 30):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 48000, 2) as file:
            for _ in range(minutes):
                file.write(speech(60.0, 48000, channels=2))
        run = subprocess.run([sys.executable, "-c", code, checkpoint, path], capture_output=True, text=True, check=True)
        assert f"mean of {minutes * 15} windows of 4 s" in run.stdout
        peaks.append(int(run.stdout.split()[-1]))
    assert peaks[1] <= 1.5 * peaks[0], peaks
