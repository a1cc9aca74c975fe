"""Start from an earlier stage's checkpoint: check it and load its weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from ser_lightning.allow_list import public_path
from ser_lightning.errors import ConfigurationError
from ser_lightning.systems.checkpoint import read_checkpoint_file
from ser_lightning.systems.classifier import CHECKPOINT_KEY, EmotionClassifier


def read_stage(path: Path | None, argument: str, *systems: type[EmotionClassifier]) -> dict[str, Any]:
    """Read the checkpoint of an earlier stage, without building its system.

    Args:
        path: The checkpoint, or None if it is not given.
        argument: Argument that holds the path, for errors.
        systems: Systems that the earlier stage may have trained.

    Raises:
        ConfigurationError: If it is not given, missing, damaged, not a checkpoint of this suite, or of another system.
        PermissionError: If the file may not be read.
    """
    if path is None:
        raise ConfigurationError(f"model.init_args.{argument} is missing; give the earlier stage's checkpoint")
    subject = f"model.init_args.{argument} is {path}, which"
    try:
        checkpoint = read_checkpoint_file(path, subject)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{subject} does not exist; train it first") from error
    found, wanted = checkpoint[CHECKPOINT_KEY]["system"], [public_path(system) for system in systems]
    if found not in wanted:
        raise ConfigurationError(f"{subject} holds a {found}; give one of a {' or a '.join(wanted)}")
    return checkpoint


def check_same_extractor(checkpoint: Mapping[str, Any], path: Path, extractor: Mapping[str, object]) -> None:
    """Reject a checkpoint trained on frames of another extractor.

    Args:
        checkpoint: The earlier stage's checkpoint.
        path: Its file.
        extractor: Configuration of this stage's extractor.

    Raises:
        ConfigurationError: Naming both extractors.
    """
    stored = checkpoint[CHECKPOINT_KEY]["origin"].get("extractor")
    if stored != extractor:
        raise ConfigurationError(
            f"{path} was trained on frames of {stored}, but this stage has {extractor}; configure the same extractor"
        )


def check_same_normalisation(checkpoint: Mapping[str, Any], path: Path, configuration: Mapping[str, Any]) -> None:
    """Reject a checkpoint trained on frames that were normalised in another way.

    Args:
        checkpoint: The earlier stage's checkpoint; not checked if its system was built in Python.
        path: Its file.
        configuration: Class path and arguments of this stage's system.

    Raises:
        ConfigurationError: Naming both normalisations.
    """
    earlier = checkpoint[CHECKPOINT_KEY]["configuration"]
    if not earlier or not configuration:
        return
    there, here = (one["init_args"].get("normalisation") for one in (earlier, configuration))
    if there != here:
        raise ConfigurationError(
            f"{path} was trained with model.init_args.normalisation {there or 'not given'}, but this stage has {here}; "
            "configure the same normalisation, or train the earlier stage again"
        )


def check_unseen_speakers(
    checkpoint: Mapping[str, Any], path: Path, corpus: str, evaluated: Mapping[str, Sequence[str]], split_hash: str
) -> None:
    """Reject a checkpoint trained on this fold's evaluation speakers.

    Test speakers must not have been its validation speakers either. A checkpoint of the same split is always accepted:
    where a protocol mixes speakers, no other one fits.

    Args:
        checkpoint: The earlier stage's checkpoint.
        path: Its file.
        corpus: This stage's corpus; speakers of other corpora are different people.
        evaluated: Speakers of each set to be evaluated, validation or test.
        split_hash: Hash of this fold's split.

    Raises:
        ConfigurationError: Naming the speakers.
    """
    origins = [
        origin
        for origin in _origins(checkpoint[CHECKPOINT_KEY]["origin"])
        if origin.get("corpus") == corpus and origin.get("split_hash") != split_hash
    ]
    uses = {"trained": "training_speakers", "validated": "validation_speakers"}
    for name, speakers in evaluated.items():
        for use, key in uses.items():
            known = {speaker for origin in origins for speaker in origin.get(key, [])}
            if (use, name) != ("validated", "validation") and (seen := sorted(known & set(speakers))):
                raise ConfigurationError(
                    f"{path} was {use} on {', '.join(seen)}, who are in this fold's {name} set; give the checkpoint of "
                    f"the same fold (split {split_hash}) or of another corpus, or rename different speakers of the "
                    "same name"
                )


def _origins(origin: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the origin of a checkpoint's weights, and of all its earlier stages."""
    yield origin
    for earlier in origin.get("earlier", []):
        yield from _origins(earlier)


def load_parts(module: nn.Module, checkpoint: Mapping[str, Any], prefixes: Mapping[str, str], path: Path) -> None:
    """Load parts of an earlier stage's weights into a module.

    Args:
        module: The module to load into.
        checkpoint: The earlier stage's checkpoint.
        prefixes: Prefix of each part in the checkpoint, and in ``module``.
        path: The checkpoint's file.

    Raises:
        ConfigurationError: Naming the first weight that is missing, left over or of another shape.
    """
    stored: dict[str, Tensor] = checkpoint["state_dict"]
    loaded = {
        inner + key.removeprefix(outer): value
        for outer, inner in prefixes.items()
        for key, value in stored.items()
        if key.startswith(outer)
    }
    expected = module.state_dict()
    for key in sorted({*expected, *loaded}):
        here, there = expected.get(key), loaded.get(key)
        if here is None or there is None or here.shape != there.shape:
            shapes = " and ".join("absent" if value is None else str(tuple(value.shape)) for value in (there, here))
            system = checkpoint[CHECKPOINT_KEY]["system"]
            raise ConfigurationError(
                f"{path} ({system}) does not fit: {key} is {shapes}, there and here; configure the same encoder"
            )
    module.load_state_dict(loaded)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Which weights of an earlier stage were loaded, and which were not.

    Attributes:
        loaded: Weights that were loaded.
        other_shape: Weights of layers with different shapes; newly initialised here.
        new: Weights missing from the earlier stage; newly initialised here.
        unused: Weights of the earlier stage that are missing here.
    """

    loaded: tuple[str, ...]
    other_shape: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return one line per kind that occurs, naming the layers of its weights."""
        kinds = {
            "loaded": self.loaded,
            "newly initialised, because the checkpoint's layer has another shape": self.other_shape,
            "newly initialised, because the checkpoint lacks them": self.new,
            "only in the checkpoint, and not used": self.unused,
        }
        return [f"  {len(keys)} {kind}: {', '.join(_layers(keys))}" for kind, keys in kinds.items() if keys]


def _layers(keys: Sequence[str], most: int = 8) -> list[str]:
    """Return the longest common prefixes of ``keys`` that give at most ``most`` names."""
    for depth in range(max(key.count(".") for key in keys) + 1, 0, -1):
        names = list(dict.fromkeys(".".join(key.split(".")[:depth]) for key in keys))
        if len(names) <= most:
            return names
    return [*names[:most], "..."]


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def load_matching_layers(module: nn.Module, checkpoint: Mapping[str, Any], prefix: str, path: Path) -> Transfer:
    """Load the layers of an earlier stage that have the same name and shape in ``module``.

    A layer is loaded whole or not at all, because a bias belongs to the weights it was trained with.

    Args:
        module: The module to load into.
        checkpoint: The earlier stage's checkpoint.
        prefix: Prefix of the module's weights in the checkpoint.
        path: The checkpoint's file.

    Raises:
        ConfigurationError: If nothing fits.
    """
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    there = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    here = module.state_dict()
    others = {_layer(key) for key in here if key not in there or there[key].shape != here[key].shape}
    fitting = {key: there[key] for key in here if _layer(key) not in others}
    if not fitting:
        raise ConfigurationError(
            f"{path} ({checkpoint[CHECKPOINT_KEY]['system']}) has no weights that fit: of its {len(there)} under "
            f"'{prefix}', none has the name and shape of one of {len(here)} here; configure the same encoder and widths"
        )
    module.load_state_dict(here | fitting)
    return Transfer(
        loaded=tuple(fitting),
        other_shape=tuple(key for key in here if key in there and key not in fitting),
        new=tuple(key for key in here if key not in there),
        unused=tuple(key for key in there if key not in here),
    )


def start_from(
    system: EmotionClassifier, network: nn.Module, path: Path | None, *systems: type[EmotionClassifier]
) -> None:
    """Start training from the network of an earlier stage as far as it fits, and log what was loaded.

    A resumed run skips this: Lightning restores its own checkpoint before ``on_fit_start``.

    Args:
        system: The system to train.
        network: Its part that corresponds to the earlier stage's ``network``.
        path: The earlier stage's checkpoint, ``pretrained_checkpoint`` in the YAML; None trains from scratch.
        systems: Systems that the earlier stage may have trained.

    Raises:
        ConfigurationError: If the checkpoint is missing, of another system, extractor or normalisation, was trained on
            this fold's evaluation speakers, or has no layer that fits.
    """
    if path is None or system.trainer.ckpt_path is not None:
        return
    checkpoint = read_stage(path, "pretrained_checkpoint", *systems)
    check_same_extractor(checkpoint, path, system.origin["extractor"])
    check_same_normalisation(checkpoint, path, system.configuration)
    data_module = system.data_module
    split = data_module.split()
    evaluated = {name: split.speakers(name) for name in ("validation", "test")}
    check_unseen_speakers(checkpoint, path, data_module.corpus_name, evaluated, split.hash)
    transfer = load_matching_layers(network, checkpoint, "network.", path)
    system.origin["earlier"] = [checkpoint[CHECKPOINT_KEY]["origin"]]
    rank_zero_info("\n".join([f"weights of {path}:", *transfer.lines()]))
