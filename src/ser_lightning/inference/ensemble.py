"""Load trained systems: one checkpoint, or the folds and seeds of a run, whose probabilities are averaged."""
# Shapes: B utterances, C classes.

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureExtractor
from ser_lightning.features.extraction import build_trusted_extractor
from ser_lightning.runs.folder import BEST, CHECKPOINTS
from ser_lightning.runs.gathering import finished_folds
from ser_lightning.systems import EmotionClassifier
from ser_lightning.systems.checkpoint import load_system
from ser_lightning.systems.classifier import Decision
from ser_lightning.types import Batch


class Ensemble(nn.Module):
    """Trainings of one configuration, as one system whose probabilities are the mean of theirs.

    Args:
        members: At least one system; all have the same class, arguments and emotions.
    """

    def __init__(self, members: Sequence[EmotionClassifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def first(self) -> EmotionClassifier:
        """The first member; what all share, such as the emotions, is read from it."""
        return cast(EmotionClassifier, self.members[0])

    @property
    def name(self) -> str:
        """The systems' class, and their number if there are several."""
        several = f"{len(self.members)} x " if len(self.members) > 1 else ""
        return f"{several}{type(self.first).__name__}"

    def decide(self, batch: Batch) -> Decision:
        """Return the mean probabilities [B, C] of ``batch`` and their largest class, or a single member's decision.

        A single member decides itself: a support vector machine need not choose the most probable class.
        """
        decisions = [cast(EmotionClassifier, member).decide(batch) for member in self.members]
        if len(decisions) == 1:
            return decisions[0]
        probabilities: Tensor = torch.stack([one.probabilities for one in decisions]).mean(0)
        return Decision(probabilities.log(), probabilities, probabilities.argmax(1))


def load_trained(path: Path, allow: Sequence[str] = ()) -> tuple[Ensemble, FeatureExtractor]:
    """Return the system of a checkpoint, or those of a run's finished folds, and the extractor, on the CPU.

    Args:
        path: A checkpoint, or the folder of a fold, a seed, or a row with its seeds.
        allow: Module prefixes to trust in addition to the allow-list.

    Raises:
        ConfigurationError: If a checkpoint cannot be read, has no extractor, or does not classify emotions, or if the
            folder has no finished fold, or folds of several configurations.
    """
    checkpoints = _checkpoints_of(path) if path.is_dir() else [path]
    members = [_load(checkpoint, allow) for checkpoint in checkpoints]
    for checkpoint, member in zip(checkpoints[1:], members[1:], strict=True):
        if (other := _described(member)) != (first := _described(members[0])):
            key = next(key for key in first if first[key] != other[key])
            raise ConfigurationError(
                f"{path} holds trainings of several configurations: {key} of {checkpoints[0]} and {checkpoint} differ; "
                "give the folder of one row"
            )
    # The checkpoint's classes were checked against the allow-list when it was read.
    return Ensemble(members).eval(), build_trusted_extractor(members[0].origin["extractor"]).eval()


def _checkpoints_of(folder: Path) -> list[Path]:
    folds = finished_folds(folder)
    rows = {fold.resolve().parents[1] for fold in folds}
    if len(rows) > 1:
        raise ConfigurationError(
            f"{folder} holds {len(rows)} systems, such as {' and '.join(map(str, sorted(rows)[:2]))}; give one of these"
        )
    return [fold / CHECKPOINTS / BEST for fold in folds]


def _load(checkpoint: Path, allow: Sequence[str]) -> EmotionClassifier:
    system = load_system(checkpoint, allow)
    if system.is_pretraining:
        raise ConfigurationError(
            f"{checkpoint} is a {type(system).__name__}, which classifies {len(system.class_names)} speakers, not "
            "emotions; give the checkpoint of a system that starts from it"
        )
    if "extractor" not in system.origin:
        raise ConfigurationError(f"{checkpoint} has no extractor: it was never trained; give a trained checkpoint")
    return system


def _described(system: EmotionClassifier) -> dict[str, Any]:
    """Return what members of an ensemble must share; earlier stages are of each fold."""
    arguments = system.configuration["init_args"]
    return {
        "the class": system.class_path,
        "the emotions": system.class_names,
        "the extractor": system.origin["extractor"],
        "the corpus": system.origin.get("corpus"),
        "the arguments": {key: value for key, value in arguments.items() if not key.endswith("checkpoint")},
    }
