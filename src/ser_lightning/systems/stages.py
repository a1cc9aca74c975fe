"""Start from an earlier stage's checkpoint: check it, and load what fits of its weights."""

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
    """Read the checkpoint of an earlier stage; no system is built from it.

    Args:
        path: The checkpoint.
        argument: The argument that names it, for errors.
        systems: What the earlier stage may have trained.

    Raises:
        ConfigurationError: If it is not given, missing, damaged, not a checkpoint of this suite, or of another system.
        PermissionError: If it may not be read.
    """
    if path is None:
        raise ConfigurationError(f"model.init_args.{argument} is missing; give the checkpoint of the stage before")
    named = f"model.init_args.{argument} is {path}, which"
    try:
        checkpoint = read_checkpoint_file(path, named)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{named} is not there; train it first") from error
    found, wanted = checkpoint[CHECKPOINT_KEY]["system"], [public_path(system) for system in systems]
    if found not in wanted:
        raise ConfigurationError(f"{named} holds a {found}; give that of a {' or a '.join(wanted)}")
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
    there = checkpoint[CHECKPOINT_KEY]["origin"].get("extractor")
    if there != extractor:
        raise ConfigurationError(
            f"{path} was trained on frames of {there}, this stage's are of {extractor}; configure the same extractor"
        )


def check_unseen_speakers(
    checkpoint: Mapping[str, Any], path: Path, corpus: str, evaluated: Mapping[str, Sequence[str]], split_hash: str
) -> None:
    """Reject a checkpoint trained on this fold's evaluation speakers.

    Test speakers must not have chosen its epoch either; validation speakers may have. A checkpoint of the same split
    is accepted as it is, which is the only one that fits where a protocol mixes speakers.

    Args:
        checkpoint: The earlier stage's checkpoint.
        path: Its file.
        corpus: This stage's corpus; speakers of other corpora are other people.
        evaluated: Speakers by set, validation and test.
        split_hash: Hash of this fold's split.

    Raises:
        ConfigurationError: Naming the speakers.
    """
    every = _origins(checkpoint[CHECKPOINT_KEY]["origin"])
    origins = [one for one in every if one.get("corpus") == corpus and one.get("split_hash") != split_hash]
    uses = {"trained": "training_speakers", "validated": "validation_speakers"}
    for name, speakers in evaluated.items():
        for done, key in uses.items():
            known = {speaker for origin in origins for speaker in origin.get(key, [])}
            if (done, name) != ("validated", "validation") and (heard := sorted(known & set(speakers))):
                raise ConfigurationError(
                    f"{path} was {done} on {', '.join(heard)}, who are in this fold's {name} set; take the checkpoint "
                    f"of the same fold (of the split {split_hash}) or of another corpus, or rename speakers who are "
                    "other people of the same name"
                )


def _origins(origin: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the origin of a checkpoint's weights, and those of all stages before it."""
    yield origin
    for earlier in origin.get("earlier", []):
        yield from _origins(earlier)


def load_parts(module: nn.Module, checkpoint: Mapping[str, Any], prefixes: Mapping[str, str], path: Path) -> None:
    """Load parts of an earlier stage's weights into a module.

    Args:
        module: What is loaded into.
        checkpoint: The earlier stage's checkpoint.
        prefixes: For each part's prefix in the checkpoint, its prefix in ``module``.
        path: The checkpoint's file.

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


@dataclass(frozen=True, slots=True)
class Transfer:
    """Which weights of an earlier stage were loaded, and which were not.

    Attributes:
        loaded: Weights that were loaded.
        other_shape: Weights of layers that both have, in different shapes; newly initialised here.
        new: Weights that the earlier stage does not have; newly initialised here.
        unused: Weights of the earlier stage that this module does not have.
    """

    loaded: tuple[str, ...]
    other_shape: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return one line for each kind that occurs, weights named by their layers."""
        kinds = {
            "loaded": self.loaded,
            "newly initialised, because the checkpoint's layer has another shape": self.other_shape,
            "newly initialised, because the checkpoint lacks them": self.new,
            "of the checkpoint alone, and not used": self.unused,
        }
        return [f"  {len(keys)} {kind}: {', '.join(_layers(keys))}" for kind, keys in kinds.items() if keys]


def _layers(keys: Sequence[str], most: int = 8) -> list[str]:
    """Return the beginnings of ``keys``, as long as they can be without there being more than ``most`` of them."""
    for depth in range(max(key.count(".") for key in keys) + 1, 0, -1):
        names = list(dict.fromkeys(".".join(key.split(".")[:depth]) for key in keys))
        if len(names) <= most:
            return names
    return [*names[:most], "..."]


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def load_matching_layers(module: nn.Module, checkpoint: Mapping[str, Any], prefix: str, path: Path) -> Transfer:
    """Load those layers of an earlier stage that ``module`` has under the same name and in the same shape.

    A layer is loaded as a whole or not at all: a bias belongs to the weights it was trained with.

    Args:
        module: What is loaded into.
        checkpoint: The earlier stage's checkpoint.
        prefix: Of the weights in question, in the checkpoint.
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
            f"{path} ({checkpoint[CHECKPOINT_KEY]['system']}) has no weights that fit: it has {len(there)} under "
            f"'{prefix}', of {len(here)} here none has the same name and shape; configure encoder and widths as there"
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

    A run that resumes reads nothing: Lightning has restored its own checkpoint before ``on_fit_start``.

    Args:
        system: The system that is going to be trained.
        network: The part of it that the earlier stage has as ``network``.
        path: The earlier stage's checkpoint, ``pretrained_checkpoint`` in the YAML; nothing is done without.
        systems: What the earlier stage may have trained.

    Raises:
        ConfigurationError: If the checkpoint is missing, of another system, of other frames or trained on a speaker of
            this fold's validation or test set, or if none of its layers fits.
    """
    if path is None or system.trainer.ckpt_path is not None:
        return
    checkpoint = read_stage(path, "pretrained_checkpoint", *systems)
    check_same_extractor(checkpoint, path, system.origin["extractor"])
    data_module = system.data_module
    split = data_module.split()
    evaluated = {name: split.speakers(name) for name in ("validation", "test")}
    check_unseen_speakers(checkpoint, path, data_module.corpus_name, evaluated, split.hash)
    transfer = load_matching_layers(network, checkpoint, "network.", path)
    system.origin["earlier"] = [checkpoint[CHECKPOINT_KEY]["origin"]]
    rank_zero_info("\n".join([f"weights of {path}:", *transfer.lines()]))
