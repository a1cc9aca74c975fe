"""Building extractors from untrusted configurations."""

import re
from typing import Any

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import LogMelFilterbank, SilenceRemoval, build_extractor, spectra

LOG_MEL = "ser_lightning.features.LogMelFilterbank"


def test_the_short_public_path_is_understood_and_defaults_hold() -> None:
    extractor = build_extractor({"class_path": LOG_MEL, "init_args": {"num_mels": 26}})
    assert isinstance(extractor, LogMelFilterbank)
    assert (extractor.num_features, extractor.sample_rate_hz) == (26, 16000)


def test_a_configuration_is_read_after_the_class_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = SilenceRemoval(LogMelFilterbank(num_mels=26), 30.0).configuration()
    monkeypatch.setattr(LogMelFilterbank, "__module__", "ser_lightning.features.elsewhere")
    monkeypatch.delattr(spectra, "LogMelFilterbank")
    extractor = build_extractor(configuration)
    assert isinstance(extractor, SilenceRemoval)
    assert extractor.configuration() == configuration


def test_an_extractor_inside_another_is_built_too() -> None:
    extractor = build_extractor(
        {
            "class_path": "ser_lightning.features.SilenceRemoval",
            "init_args": {"extractor": {"class_path": LOG_MEL, "init_args": {"num_mels": 26}}, "top_db": 30.0},
        }
    )
    assert isinstance(extractor, SilenceRemoval)
    assert extractor.extractor.num_features == 26


@pytest.mark.parametrize("key", ["class_path", "extractor"])
def test_a_foreign_class_is_rejected_by_name_wherever_it_hides(key: str) -> None:
    foreign: dict[str, Any] = {"class_path": "os.system", "init_args": {"command": "true"}}
    if key == "extractor":
        foreign = {"class_path": "ser_lightning.features.SilenceRemoval", "init_args": {"extractor": foreign}}
    with pytest.raises(ConfigurationError, match=re.escape("os.system")):
        build_extractor(foreign)


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"init_args": {}}, "expected class_path"),
        ({"class_path": "LogMelFilterbank"}, "expected class_path"),
        ({"class_path": LOG_MEL, "init_args": [1]}, "init_args"),
        ({"class_path": "ser_lightning.features.LogMel"}, "'ser_lightning.features.LogMel'"),
        ({"class_path": "ser_lightning.nowhere.LogMel"}, "ser_lightning.nowhere"),
        ({"class_path": "ser_lightning.types.Split"}, "not a FeatureExtractor"),
        ({"class_path": "ser_lightning.features.FeatureExtractor"}, "not a FeatureExtractor"),
        ({"class_path": LOG_MEL, "init_args": {"num_mel": 3}}, "num_mel"),
        ({"class_path": "ser_lightning.features.spectra.LogMelFilterbank"}, f"write '{LOG_MEL}'"),
        ({"class_path": "ser_lightning.features.gone.LogMelFilterbank"}, f"write '{LOG_MEL}'"),
    ],
)
def test_a_configuration_that_does_not_fit_says_where(configuration: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        build_extractor(configuration)
