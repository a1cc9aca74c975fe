import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import get_window
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser_lightning.data.synthetic import (
    MARKER,
    STYLES,
    Gender,
    Voice,
    Waveform,
    generator,
    is_synthetic,
    synthesise,
    write_clip,
    write_marker,
)
from ser_lightning.data.synthetic_corpus import Clip, write_corpus
from ser_lightning.errors import CorpusError


def voice(gender: Gender = "female", speaker: str = "a") -> Voice:
    return Voice.draw(gender, generator(0, speaker))


def speak(emotion: str, take: str = "1", intensity: float = 1.0, speaker: str = "a", sentence: int = 1) -> Waveform:
    gender: Gender = "female" if speaker < "c" else "male"
    rng = generator(0, speaker, emotion, take)
    return synthesise(voice(gender, speaker), emotion, intensity, sentence, rng)


def log_mel_like_statistics(waveform: Waveform) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 400)[::160] * get_window("hann", 400)
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    edges = np.unique(np.geomspace(2, 256, 33).astype(int))
    bands = np.log(np.add.reduceat(power, edges, axis=1) + 1e-10)
    return np.concatenate([bands.mean(0), bands.std(0)])


@pytest.mark.parametrize("emotion", STYLES)
@pytest.mark.parametrize("speaker", ["a", "d"])
def test_every_emotion_is_finite_audible_and_of_usual_length(emotion: str, speaker: str) -> None:
    for intensity in (0.7, 1.3):
        waveform = speak(emotion, intensity=intensity, speaker=speaker)
        assert waveform.dtype == np.float32
        assert waveform.ndim == 1
        assert np.isfinite(waveform).all()
        assert np.abs(waveform).max() < 1
        assert np.sqrt(np.mean(waveform**2)) > 1e-3
        assert 1.0 < len(waveform) / 16000 < 2.5


def test_the_ten_emotions_of_the_corpora_can_be_spoken() -> None:
    assert set(STYLES) == {
        *("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised", "excited", "frustrated")
    }


def test_speech_begins_and_ends_in_near_silence() -> None:
    waveform = speak("angry")
    assert np.sqrt(np.mean(waveform[:1500] ** 2)) < 0.003
    assert np.sqrt(np.mean(waveform[-1500:] ** 2)) < 0.003


def test_a_clip_depends_on_its_seed_only() -> None:
    first = speak("happy")
    speak("sad")
    np.testing.assert_array_equal(speak("happy"), first)


def test_another_take_voice_or_sentence_gives_another_clip() -> None:
    first = speak("happy")
    for other in (speak("happy", take="2"), speak("happy", speaker="d"), speak("happy", sentence=2)):
        assert other.shape != first.shape or not np.allclose(other, first)


@pytest.mark.parametrize(("sample_rate_hz"), [8000, 48000])
def test_other_sampling_rates_keep_the_duration(sample_rate_hz: int) -> None:
    other = synthesise(voice(), "sad", 1.0, 1, generator(3), sample_rate_hz)
    usual = synthesise(voice(), "sad", 1.0, 1, generator(3))
    assert np.isfinite(other).all()
    assert len(other) / sample_rate_hz == pytest.approx(len(usual) / 16000, abs=1e-3)


def mean_over_takes(emotion: str, intensity: float = 1.0) -> tuple[float, float, float]:
    """Mean level in dB, share of the power from 0.8 to 3 kHz in dB, and duration in seconds over voices and takes."""
    levels, shares, seconds = [], [], []
    for speaker in "abcdef":
        for take in "1234":
            waveform = speak(emotion, take, intensity, speaker)
            power = np.abs(np.fft.rfft(waveform)) ** 2
            high = np.abs(np.fft.rfftfreq(len(waveform), 1 / 16000) - 1900) < 1100
            levels.append(10 * np.log10(np.mean(waveform**2)))
            shares.append(10 * np.log10(power[high].sum() / power.sum()))
            seconds.append(len(waveform) / 16000)
    return float(np.mean(levels)), float(np.mean(shares)), float(np.mean(seconds))


def test_anger_is_loud_and_bright_and_sadness_soft_and_slow() -> None:
    neutral, angry, sad = (mean_over_takes(emotion) for emotion in ("neutral", "angry", "sad"))
    assert angry[0] > neutral[0] + 5
    assert angry[1] > neutral[1] + 0.5
    assert sad[0] < neutral[0] - 4
    assert sad[1] < neutral[1] - 1
    assert sad[2] > neutral[2] + 0.1


def test_a_stronger_emotion_goes_further() -> None:
    assert mean_over_takes("angry", 1.3)[0] > mean_over_takes("angry", 0.7)[0] + 2


def test_without_intensity_every_emotion_is_neutral() -> None:
    np.testing.assert_array_equal(
        *(synthesise(voice(), emotion, 0.0, 1, generator(4)) for emotion in ("angry", "neutral"))
    )


def test_women_speak_higher_than_men() -> None:
    women, men = (
        np.median([Voice.draw(gender, generator(0, str(index))).pitch_hz for index in range(50)])
        for gender in ("female", "male")
    )
    assert 180 < women < 220
    assert 100 < men < 130


def test_an_unknown_emotion_is_rejected_by_name() -> None:
    with pytest.raises(ValueError, match=r"'bored'.*neutral, calm"):
        speak("bored")


def test_a_sampling_rate_that_is_too_low_is_rejected() -> None:
    with pytest.raises(ValueError, match="sample_rate_hz is 4000"):
        synthesise(voice(), "sad", 1.0, 1, generator(0), 4000)


def test_speech_is_synthesised_faster_than_real_time() -> None:
    speak("calm")
    started = time.process_time()
    seconds = sum(len(speak("calm", str(take))) / 16000 for take in range(10))
    assert seconds / (time.process_time() - started) > 60


def test_unseen_speakers_score_between_chance_and_perfect() -> None:
    emotions = [emotion for emotion in STYLES if emotion not in {"excited", "frustrated"}]
    made = [(speaker, emotion, take) for speaker in "abcdef" for emotion in emotions for take in "123"]
    features = np.array([
        log_mel_like_statistics(speak(emotion, take, 1.0, speaker, sentence=int(take)))
        for speaker, emotion, take in made
    ])  # fmt: skip
    labels = np.array([emotion for _, emotion, _ in made])
    shuffled = np.random.default_rng(0).permutation(labels)
    speakers = np.array([speaker for speaker, _, _ in made])

    def unweighted_accuracy(labels: np.ndarray) -> float:
        predicted = np.empty_like(labels)
        for pair in ("ad", "be", "cf"):
            unseen = np.isin(speakers, list(pair))
            model = make_pipeline(StandardScaler(), SVC(C=10)).fit(features[~unseen], labels[~unseen])
            predicted[unseen] = model.predict(features[unseen])
        return float(recall_score(labels, predicted, average="macro"))

    assert 0.35 < unweighted_accuracy(labels) < 0.9
    assert unweighted_accuracy(shuffled) < 0.25


def test_a_clip_is_written_as_16_bit_wav_and_leaves_nothing_else(tmp_path: Path) -> None:
    waveform = speak("calm")
    write_clip(tmp_path / "deep" / "clip.wav", waveform, 16000)
    info = soundfile.info(tmp_path / "deep" / "clip.wav")
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 16000, 1)
    read, _ = soundfile.read(tmp_path / "deep" / "clip.wav", dtype="float32")
    np.testing.assert_allclose(read, waveform, atol=1 / 32768)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["clip.wav"]


def test_a_marker_is_found_from_above_and_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "made" / "corpus"
    (tmp_path / "real").mkdir()
    write_marker(root, "ravdess", seed=3, speakers=2)
    (root / "Actor_01").mkdir()
    assert is_synthetic(root)
    assert is_synthetic(root / "Actor_01")
    assert is_synthetic(tmp_path / "made")
    assert not is_synthetic(tmp_path / "real")
    assert not is_synthetic(tmp_path / "nowhere")
    marker = json.loads((root / MARKER).read_text())
    assert {"corpus": "ravdess", "seed": 3, "speakers": 2}.items() <= marker.items()


EMOTIONS = ("angry", "neutral", "sad")
CLIPS = [
    [
        Clip(Path(speaker, f"{speaker}_{emotion}_{take}.wav"), speaker, "male", emotion, 1.0, take)
        for emotion in EMOTIONS
        for take in range(4 if emotion != "sad" else 2)
    ]
    for speaker in "abc"
]


def written(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted(folder.rglob("*.wav"))}


def test_an_interrupted_corpus_is_completed(tmp_path: Path) -> None:
    assert write_corpus(tmp_path / "made", "toy", CLIPS, speakers=2, seed=1) == 20
    whole = written(tmp_path / "made")
    assert len(whole) == 20
    for name in ("a/a_sad_1.wav", "b/b_angry_0.wav"):
        (tmp_path / "made" / name).unlink()
    assert write_corpus(tmp_path / "made", "toy", CLIPS, speakers=2, seed=1) == 2
    assert written(tmp_path / "made") == whole
    assert write_corpus(tmp_path / "made", "toy", CLIPS, speakers=2, seed=1) == 0


def test_every_clip_is_distinct_and_in_its_speakers_voice(tmp_path: Path) -> None:
    write_corpus(tmp_path, "toy", CLIPS, speakers=2, seed=1)
    for clip in (CLIPS[0][0], CLIPS[0][1], CLIPS[1][-1]):
        own_voice = Voice.draw(clip.gender, generator(1, "toy", clip.speaker))
        reading = generator(1, "toy", clip.speaker, clip.file.stem)
        read, _ = soundfile.read(tmp_path / clip.file, dtype="float32")
        expected = synthesise(own_voice, clip.emotion, clip.intensity, clip.sentence, reading)
        np.testing.assert_allclose(read, expected, atol=1 / 32768)


def test_a_clip_does_not_depend_on_the_others_that_are_written(tmp_path: Path) -> None:
    write_corpus(tmp_path / "all", "toy", CLIPS, speakers=3, seed=1)
    write_corpus(tmp_path / "few", "toy", CLIPS, speakers=2, seed=1, clips_per_speaker=3)
    few = written(tmp_path / "few")
    assert few.items() <= written(tmp_path / "all").items()
    write_corpus(tmp_path / "other", "toy", CLIPS, speakers=2, seed=2, clips_per_speaker=3)
    assert all(clip != few[name] for name, clip in written(tmp_path / "other").items())


@pytest.mark.parametrize(("count", "largest_difference"), [(3, 0), (6, 0), (4, 1), (2, 1)])
def test_a_part_of_the_clips_has_the_same_number_of_each_emotion(
    tmp_path: Path, count: int, largest_difference: int
) -> None:
    write_corpus(tmp_path, "toy", CLIPS, speakers=3, seed=1, clips_per_speaker=count)
    names = list(written(tmp_path))
    for speaker in "abc":
        counts = [sum(name.startswith(f"{speaker}_{emotion}") for name in names) for emotion in EMOTIONS]
        assert sum(counts) == count
        assert max(counts) - min(counts) <= largest_difference
    overall = [sum(emotion in name for name in names) for emotion in EMOTIONS]
    assert max(overall) == min(overall), f"{overall} clips of {EMOTIONS} over all speakers"


@pytest.mark.parametrize(
    ("speakers", "clips", "message"),
    [
        (4, None, "4 speakers.*toy.*1 to 3"),
        (0, None, "0 speakers.*toy"),
        (2, 11, "11 clips.*toy.*1 to 10"),
        (2, 0, "0 clips.*toy"),
    ],
)
def test_numbers_out_of_range_write_nothing(tmp_path: Path, speakers: int, clips: int | None, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        write_corpus(tmp_path / "made", "toy", CLIPS, speakers, seed=0, clips_per_speaker=clips)
    assert not (tmp_path / "made").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(CorpusError, match="not empty"):
        write_corpus(tmp_path, "toy", CLIPS, speakers=1, seed=0)
    with pytest.raises(CorpusError, match=r"thesis\.txt"):
        write_corpus(tmp_path / "thesis.txt", "toy", CLIPS, speakers=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("other", [{"seed": 2}, {"speakers": 2}, {"corpus": "toy2"}, {"clips_per_speaker": 3}])
def test_another_synthetic_corpus_is_left_alone(tmp_path: Path, other: dict[str, int | str]) -> None:
    asked: dict[str, object] = {"corpus": "toy", "speakers": 1, "seed": 1, "clips_per_speaker": 1}
    write_corpus(tmp_path, clips=CLIPS, **asked)  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match="another synthetic corpus"):
        write_corpus(tmp_path, clips=CLIPS, **asked | other)  # type: ignore[arg-type]
    assert len(written(tmp_path)) == 1


def test_a_marker_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(CorpusError, match=MARKER):
        write_corpus(tmp_path, "toy", CLIPS, speakers=1, seed=0)
