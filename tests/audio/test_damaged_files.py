"""Damaged audio files: every reader gives the same samples or the same reason, in little time and memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ser_lightning.audio import audio_digest, duration_seconds, read_audio, read_blocks, read_crop
from ser_lightning.audio.decoding import MOST_SAMPLES, MOST_SAMPLES_PER_BYTE
from ser_lightning.errors import AudioError
from tools.damaged_audio import ALWAYS_UNUSABLE, DAMAGES, FORMATS, write_damaged

RATES_HZ = (16000, 8000, 22050)


def whole(path: Path, rate_hz: int) -> Tensor | str:
    try:
        return read_audio(path, rate_hz)
    except AudioError as error:
        return error.problems[path]


def in_blocks(path: Path, rate_hz: int, size: int) -> Tensor | str:
    try:
        return torch.cat(list(read_blocks(path, rate_hz, size)))
    except AudioError as error:
        return error.problems[path]


@pytest.mark.parametrize("form", range(len(FORMATS)), ids=lambda form: "-".join(FORMATS[form]))
def test_readers_of_a_damaged_file_agree(tmp_path: Path, form: int, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(form * len(DAMAGES), (form + 1) * len(DAMAGES)):
        damage, rng = DAMAGES[number % len(DAMAGES)], np.random.default_rng(number)
        path = write_damaged(tmp_path, 1, number)
        rate_hz = RATES_HZ[number % len(RATES_HZ)]
        found = whole(path, rate_hz)
        again = in_blocks(path, rate_hz, int(rng.integers(500, 50_000)))
        if isinstance(found, str):
            assert again == found
            assert "\n" not in found
            with pytest.raises(AudioError):
                read_crop(path, rate_hz, 1 << 40, 0.0)
            continue
        assert damage not in ALWAYS_UNUSABLE, path
        assert isinstance(again, Tensor), again
        torch.testing.assert_close(again, found, atol=1e-5, rtol=1e-5)
        size = path.stat().st_size
        assert duration_seconds(path) * 4000 <= MOST_SAMPLES + MOST_SAMPLES_PER_BYTE * size
        assert len(audio_digest(path)) == 64
        crop = read_crop(path, rate_hz, 1000, 0.5)
        start = int(0.5 * max(0, len(found) - 1000 + 1))
        torch.testing.assert_close(crop, found[start : start + 1000], atol=1e-5, rtol=1e-5)
    assert capfd.readouterr().err == ""  # libmpg123's, for example


def test_a_seed_and_a_number_determine_the_damage(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    for number in range(0, len(DAMAGES) * len(FORMATS), 13):
        first, again = (write_damaged(folder, 3, number) for folder in (tmp_path, tmp_path / "again"))
        assert first.name == again.name
        if first.is_file() and first.suffix not in (".ogg", ".opus"):
            assert first.read_bytes() == again.read_bytes()


def test_every_damage_and_format_is_in_the_series(tmp_path: Path) -> None:
    paths = [write_damaged(tmp_path, 0, number) for number in range(len(DAMAGES) * len(FORMATS))]
    found = {(path.stem.partition("-")[2], path.suffix) for path in paths}
    assert found == {(damage, f".{ending}") for damage in DAMAGES for ending, _, _ in FORMATS}
