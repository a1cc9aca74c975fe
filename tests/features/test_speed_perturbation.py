"""Speech at another speed."""

import pytest
import torch

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureExtractor, LogMelFilterbank, MagnitudeSpectrogram, SpeedPerturbation


def tone(hertz: float, samples: int) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hertz * torch.arange(samples) / 16000)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_tone_gets_shorter_and_higher_by_the_factor(factor: float) -> None:
    inner = MagnitudeSpectrogram(window_seconds=0.032, hop_seconds=0.010, dft_length=512)
    frames, lengths = SpeedPerturbation(inner, factor)(tone(1000, 16000)[None], torch.tensor([16000]))
    assert (
        lengths.item() == inner(torch.zeros(1, round(16000 / factor)), torch.tensor([round(16000 / factor)]))[1].item()
    )
    loudest = frames[0, 10].argmax().item() * 16000 / 512
    assert loudest == pytest.approx(1000 * factor, abs=16)


def test_speed_one_changes_nothing() -> None:
    inner = LogMelFilterbank()
    wave, length = tone(300, 8000)[None], torch.tensor([8000])
    torch.testing.assert_close(SpeedPerturbation(inner, 1.0)(wave, length)[0], inner(wave, length)[0])


def test_padding_and_batch_mates_never_matter() -> None:
    extractor = SpeedPerturbation(LogMelFilterbank(), 1.1)
    waves = torch.randn(2, 16000)
    waves[1, 9000:] = 0
    together, lengths = extractor(waves, torch.tensor([16000, 9000]))
    alone, length = extractor(waves[1:, :9000], torch.tensor([9000]))
    assert lengths[1] == length[0]
    torch.testing.assert_close(together[1, : length[0]], alone[0], atol=1e-4, rtol=0)


class Waveforms(FeatureExtractor):
    """Return the samples themselves, each as a frame."""

    version = 1
    sample_rate_hz, num_features, hop_seconds = 16000, 1, 1 / 16000

    def forward(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return waveforms.unsqueeze(2), lengths


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_resampling_leaves_padding_silent(factor: float) -> None:
    waves = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    waves[1, 9000:] = 0
    samples, lengths = SpeedPerturbation(Waveforms(), factor)(waves, torch.tensor([16000, 9000]))
    assert lengths.tolist() == [samples.shape[1], pytest.approx(9000 / factor, abs=1)]
    assert samples[1, : lengths[1]].count_nonzero() > 0.99 * lengths[1]
    assert not samples[1, lengths[1] :].any()


def test_it_is_rebuilt_from_its_configuration_and_checks_speed() -> None:
    from ser_lightning.features import build_extractor

    again = build_extractor(SpeedPerturbation(LogMelFilterbank(num_mels=20), 0.9).configuration())
    assert isinstance(again, SpeedPerturbation)
    assert (again.factor, again.num_features) == (0.9, 20)
    with pytest.raises(ConfigurationError, match="factor is 0"):
        SpeedPerturbation(LogMelFilterbank(), 0)
