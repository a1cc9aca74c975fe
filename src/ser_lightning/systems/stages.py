"""What one stage of training hands to the next: weights, and whose voices they have heard."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ser_lightning.errors import ConfigurationError
from ser_lightning.systems.classifier import CHECKPOINT_KEY, EmotionClassifier


def read_stage(path: Path | None, argument: str, system: type[EmotionClassifier]) -> dict[str, Any]:
    """Read the checkpoint of an earlier stage; nothing of it is built.

    Args:
        path: The checkpoint.
        argument: The argument that names it, for errors.
        system: The system that the earlier stage trained.

    Raises:
        ConfigurationError: If it is not given, not there, no checkpoint of this suite, or another system's.
    """
    if path is None:
        raise ConfigurationError(f"model.init_args.{argument} is missing; give the checkpoint of the stage before")
    try:
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise ConfigurationError(f"model.init_args.{argument} is {path}, which is not there; train it first") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigurationError(f"model.init_args.{argument} is {path}, which is no checkpoint: {error}") from error
    if CHECKPOINT_KEY not in checkpoint:
        raise ConfigurationError(f"model.init_args.{argument} is {path}, which holds no system of this suite")
    found, wanted = checkpoint[CHECKPOINT_KEY]["system"], f"{system.__module__}.{system.__qualname__}"
    if found != wanted:
        raise ConfigurationError(
            f"model.init_args.{argument} is {path}, which holds a {found}; give that of a {wanted}"
        )
    return checkpoint


def refuse_other_frames(checkpoint: Mapping[str, Any], path: Path, extractor: Mapping[str, object]) -> None:
    """Refuse an earlier stage whose frames were made in another way: its layers would not know what they see.

    Args:
        checkpoint: The earlier stage's checkpoint.
        path: Where it lies.
        extractor: Configuration of this stage's extractor.

    Raises:
        ConfigurationError: Naming both extractors.
    """
    there = checkpoint[CHECKPOINT_KEY]["origin"].get("extractor")
    if there != extractor:
        raise ConfigurationError(
            f"{path} was trained on frames of {there}, this stage's are of {extractor}; configure the same extractor"
        )


def refuse_heard_speakers(
    checkpoint: Mapping[str, Any], path: Path, corpus: str, evaluated: Mapping[str, Sequence[str]]
) -> None:
    """Refuse an earlier stage that was trained on a speaker who validates or tests this one.

    Args:
        checkpoint: The earlier stage's checkpoint.
        path: Where it lies.
        corpus: This stage's corpus; speakers of other corpora are other people.
        evaluated: Speakers by set, validation and test.

    Raises:
        ConfigurationError: Naming the speakers.
    """
    origin = checkpoint[CHECKPOINT_KEY]["origin"]
    if origin.get("corpus") != corpus:
        return
    for name, speakers in evaluated.items():
        if heard := sorted(set(origin["training_speakers"]) & set(speakers)):
            raise ConfigurationError(
                f"{path} was trained on {', '.join(heard)}, who are in this fold's {name} set; take the checkpoint of "
                "the same fold, or one of another corpus"
            )


def load_parts(module: nn.Module, checkpoint: Mapping[str, Any], prefixes: Mapping[str, str], path: Path) -> None:
    """Load parts of an earlier stage's weights into a module.

    Args:
        module: What is loaded into.
        checkpoint: The earlier stage's checkpoint.
        prefixes: For each part's prefix in the checkpoint, its prefix in ``module``.
        path: Where the checkpoint lies.

    Raises:
        ConfigurationError: If weights are missing, left over or of another shape; it names the first.
    """
    stored: dict[str, Tensor] = checkpoint["state_dict"]
    chosen = {
        inner + key.removeprefix(outer): value
        for outer, inner in prefixes.items()
        for key, value in stored.items()
        if key.startswith(outer)
    }
    own = module.state_dict()
    for key in sorted({*own, *chosen}):
        here, there = own.get(key), chosen.get(key)
        if here is None or there is None or here.shape != there.shape:
            shapes = " and ".join("absent" if value is None else str(tuple(value.shape)) for value in (there, here))
            system = checkpoint[CHECKPOINT_KEY]["system"]
            raise ConfigurationError(
                f"{path} ({system}) does not fit: {key} is {shapes}, there and here; configure the encoder as there"
            )
    module.load_state_dict(chosen)
