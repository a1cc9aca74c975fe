from pathlib import Path

from ser_lightning.errors import AudioError


def test_unusable_audio_is_listed_with_what_to_do_last() -> None:
    lines = str(AudioError({Path("b.wav"): "empty", Path("a.wav"): "truncated"})).splitlines()
    assert lines[:3] == ["2 audio files are unusable:", "  a.wav: truncated", "  b.wav: empty"]
    assert "--data.init_args.on_bad_audio skip" in lines[3]
    assert len(lines) == 4


def test_of_thousands_fifty_are_shown_and_the_rest_counted() -> None:
    error = AudioError({Path(f"{number:04d}.wav"): "empty" for number in range(7442)})
    lines = str(error).splitlines()
    assert lines[0] == "7442 audio files are unusable:"
    assert lines[50:52] == ["  0049.wav: empty", "  and 7392 more"]
    assert "on_bad_audio skip" in lines[52]
    assert len(lines) == 53
    assert len(error.problems) == 7442
