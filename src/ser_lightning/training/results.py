"""Results of a fold: predictions, confusion matrix, embeddings, cluster assignment and model card."""
# Shapes: N utterances of a set, B of a batch, C classes, E channels of an embedding, K clusters, G ghosts.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ser_lightning.data.corpora import CorpusData, source_of
from ser_lightning.data.targets import vote_distribution
from ser_lightning.files import write_atomically
from ser_lightning.reports.figures import confusion_figure, save
from ser_lightning.reports.model_card import model_card
from ser_lightning.runs.assignment import write_assignment
from ser_lightning.runs.folder import BEST, CARD, CHECKPOINTS, CONFUSION_PICTURE, EMBEDDINGS_PICTURE, FILES
from ser_lightning.runs.predictions import Predictions, confusion
from ser_lightning.runs.scores import SOFT_SCORES, fold_scores, write_embeddings, write_scores
from ser_lightning.systems.checkpoint import read_checkpoint
from ser_lightning.systems.classifier import CHECKPOINT_KEY, EmotionClassifier
from ser_lightning.training.wandb import FoldWandbLogger
from ser_lightning.types import split_corpus_name

# Of a system's steps; the last three are optional.
OUTPUTS = ("indices", "probabilities", "predicted", "embeddings", "assignments")


class ResultFiles(Callback):
    """Write the predictions of ``ser validate``, ``test`` and ``predict`` into the run's folder.

    A test also writes ``scores.json``, with scores of the probabilities, and a picture of the confusion matrix, and
    logs both to W&B. ``predictions.csv`` is written last and atomically: its presence means the fold is done.
    Validation inside ``fit`` writes nothing.

    Each step of a system returns ``indices`` [B] and ``probabilities`` [B, C]. It may return ``predicted`` [B], if the
    predicted classes need not be the most probable ones; ``embeddings`` [B, E], which a test writes to
    ``embeddings.safetensors`` and draws; and ``assignments`` [B, K + G] to clusters, whose means by class a test writes
    to ``assignment.csv``.
    """

    def __init__(self) -> None:
        self._outputs: list[dict[str, Tensor]] = []

    def _keep(self, outputs: Any) -> None:
        self._outputs.append(outputs)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        """Keep a batch's outputs, on their device, if this is ``ser validate``."""
        if trainer.state.fn == "validate":
            self._keep(outputs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any) -> None:
        """Keep a batch's outputs, on their device."""
        self._keep(outputs)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        """Keep a batch's outputs, on their device."""
        self._keep(outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``validation_predictions.csv`` if this is ``ser validate``."""
        if trainer.state.fn == "validate":
            self._write(trainer, "validation")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write pictures, embeddings and ``scores.json``, then ``predictions.csv``."""
        self._write(trainer, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``corpus_predictions.csv``."""
        self._write(trainer, "all")

    def _write(self, trainer: Trainer, name: str) -> None:
        kept = [key for key in OUTPUTS if key in self._outputs[0]]
        outputs = {key: torch.cat([output[key] for output in self._outputs]).cpu() for key in kept}
        self._outputs.clear()
        gathered = _gather_to_first(trainer, outputs)
        if gathered is None:
            return
        data_module = cast(CorpusData, trainer.datamodule)  # type: ignore[attr-defined]  # undeclared
        utterances = data_module.set_utterances(name)
        indices = torch.cat([part["indices"] for part in gathered])
        if len(indices) < len(utterances) and _is_limited(trainer, name):
            rank_zero_info(f"{FILES[name]} is not written: only {len(indices)} of {len(utterances)} were predicted")
            return
        if not torch.equal(indices.sort().values, torch.arange(len(utterances))):
            raise RuntimeError(f"{len(indices)} predictions for {len(utterances)} utterances: one is missing or twice")
        order = indices.argsort()
        found = {key: torch.cat([part[key] for part in gathered])[order] for key in gathered[0]}
        probabilities = found["probabilities"]
        position = {label: index for index, label in enumerate(data_module.class_names)}
        predictions = Predictions.collect(
            utterances=[u.name for u in utterances],
            speakers=[u.speaker for u in utterances],
            fold=data_module.fold,
            targets=torch.tensor([position[str(u.label)] for u in utterances]),
            predicted=found["predicted"] if "predicted" in found else probabilities.argmax(1),
            probabilities=probabilities,
            class_names=data_module.class_names,
            groups=[u.groups() for u in utterances],
        )
        folder = Path(trainer.default_root_dir)
        if name == "test":
            title = f"{data_module.corpus_name}, fold {data_module.fold}"
            counts = confusion(predictions, data_module.class_names)
            pictures = {
                "test/confusion_picture": save(
                    confusion_figure(counts, data_module.class_names, title), folder / CONFUSION_PICTURE
                )
            }
            if "embeddings" in found:
                pictures["test/embeddings_picture"] = _write_embeddings(folder, found["embeddings"], predictions, title)
            if "assignments" in found:
                pooling = cast(EmotionClassifier, trainer.lightning_module).time_pooling()
                ghosts = pooling.pooling.ghosts if pooling else 0
                write_assignment(folder, found["assignments"], ghosts, predictions)
            _log_pictures(trainer, predictions, data_module.class_names, pictures)
            for logger in trainer.loggers:
                if isinstance(logger, FoldWandbLogger):
                    logger.log_utterances(predictions.table, [u.path for u in utterances])
            no_votes = [0.0] * len(data_module.class_names)
            votes = [vote_distribution(u, data_module.class_names) or no_votes for u in utterances]
            scored = fold_scores(predictions, torch.tensor(votes))
            shown = SOFT_SCORES if any(u.votes for u in utterances) else ("ECE",)
            for logger in trainer.loggers:
                logger.log_metrics({f"test/{name}": scored[name] for name in shown if name in scored})
            write_scores(folder, scored)
        predictions.write(folder / FILES[name])


def _is_limited(trainer: Trainer, name: str) -> bool:
    limits = {
        "validation": trainer.limit_val_batches,
        "test": trainer.limit_test_batches,
        "all": trainer.limit_predict_batches,
    }
    # An integer is a number of batches, so 1 is one batch; a float is a share, so 1.0 is all of them.
    return isinstance(limits[name], int) or limits[name] != 1.0


def _gather_to_first(trainer: Trainer, part: dict[str, Tensor]) -> list[dict[str, Tensor]] | None:
    """Return all processes' parts, which may differ in size, in the first process; None in the others."""
    if trainer.world_size == 1:
        return [part]
    gathered: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(part, gathered)
    return gathered


def _write_embeddings(folder: Path, embeddings: Tensor, predictions: Predictions, title: str) -> Path:
    """Write ``embeddings`` [N, E] and their picture; return the picture's path."""
    # Imports scikit-learn, which only systems with embeddings need.
    from ser_lightning.reports.embedding_figure import embedding_figure, embedding_map

    write_embeddings(folder, embeddings)
    drawn = embedding_map(title, embeddings, predictions)
    return save(embedding_figure([drawn], "Embeddings of test utterances"), folder / EMBEDDINGS_PICTURE)


def _log_pictures(
    trainer: Trainer, predictions: Predictions, class_names: Sequence[str], pictures: Mapping[str, Path]
) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, FoldWandbLogger):
            import wandb

            index = {name: position for position, name in enumerate(class_names)}
            chart = wandb.plot.confusion_matrix(
                y_true=[index[name] for name in predictions.table["target"]],
                preds=[index[name] for name in predictions.table["predicted"]],
                class_names=list(class_names),
            )
            images = {name: wandb.Image(str(picture)) for name, picture in pictures.items()}
            logger.experiment.log({"test/confusion_matrix": chart, **images})


def write_model_card(folder: Path, allow: Sequence[str] = ()) -> Path | None:
    """Write ``checkpoints/best.md`` into a run's folder, if its content has changed.

    Args:
        folder: The run's folder.
        allow: Module prefixes that the user trusts.

    Returns:
        The card, or None if there is no best checkpoint.

    Raises:
        ConfigurationError: If a file of the run cannot be read.
    """
    checkpoints = folder / CHECKPOINTS
    if not (checkpoints / BEST).is_file():
        return None
    checkpoint = read_checkpoint(checkpoints / BEST, allow)
    corpus, _ = split_corpus_name(str(checkpoint[CHECKPOINT_KEY]["origin"]["corpus"]))
    source = source_of(corpus)
    card, content = checkpoints / CARD, model_card(folder, checkpoint, vars(source) if source else None).encode()
    if not card.is_file() or card.read_bytes() != content:
        write_atomically(card, content)
    return card
