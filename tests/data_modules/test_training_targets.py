"""Training utterances at each speed keep their targets."""

from pathlib import Path

import pytest
import torch

from data_modules.iemocap import IEMOCAP
from ser_lightning.data.targets import ExistenceTargets, HardTargets, SoftTargets, Targets
from ser_lightning.features import LogPowerSpectrogram

EMOTIONS = ("neutral", "happy", "sad", "angry")
SPEEDS = (0.9, 1.1)
HOP_SECONDS, WINDOW_SECONDS = 0.010, 0.040


@pytest.mark.parametrize("targets", [HardTargets(), SoftTargets(), ExistenceTargets()], ids=["hard", "soft", "exists"])
def test_every_training_utterance_is_used_at_every_speed(
    targets: Targets, synthetic_iemocap: Path, feature_folder: Path
) -> None:
    data = IEMOCAP(
        root=synthetic_iemocap,
        extractor=LogPowerSpectrogram(
            window_seconds=WINDOW_SECONDS, hop_seconds=HOP_SECONDS, dft_length=1600, max_frequency_hz=1000
        ),
        dialogs="improvised",
        classes=EMOTIONS,
        merge_excited=False,
        others="keep",
        batch_size=4,
        feature_folder=feature_folder,
        targets=targets,
        speeds=SPEEDS,
    )
    data.prepare_data()
    data.setup("fit")
    utterances = data.set_utterances("train")
    number = len(utterances)
    assert number >= 5

    batches = list(data.train_dataloader())
    order = torch.cat([batch.indices for batch in batches]).argsort()
    found, labels, lengths = (
        torch.cat([getattr(batch, field) for batch in batches])[order] for field in ("targets", "labels", "lengths")
    )
    assert len(found) == (1 + len(SPEEDS)) * number
    own = [targets.of(utterance, EMOTIONS) for utterance in utterances]
    assert len(set(map(tuple, own))) > 2  # targets differ
    assert found.tolist() == [torch.tensor(own[entry % number]).tolist() for entry in range(len(found))]
    names = [None if label < 0 else EMOTIONS[label] for label in labels]
    assert names == [utterances[entry % number].label for entry in range(len(found))]

    plain, *changed = lengths.split(number)
    seconds = (plain - 1) * HOP_SECONDS + WINDOW_SECONDS
    for speed, heard in zip(SPEEDS, changed, strict=True):
        expected = (seconds / speed - WINDOW_SECONDS) / HOP_SECONDS + 1
        assert (heard - expected).abs().max() <= 2, speed
        assert not torch.equal(heard, plain)


def test_only_training_hears_other_speeds(synthetic_iemocap: Path, feature_folder: Path) -> None:
    data = IEMOCAP(
        synthetic_iemocap, LogPowerSpectrogram(max_frequency_hz=1000), feature_folder=feature_folder, speeds=SPEEDS
    )
    data.prepare_data()
    for stage, name in (("validate", "validation"), ("test", "test"), ("predict", "all")):
        data.setup(stage)
        batches = list(data.evaluation_dataloader(name))
        assert sum(batch.size for batch in batches) == len(data.set_utterances(name))
