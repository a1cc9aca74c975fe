"""What a fold leaves behind: its predictions and its confusion matrix."""
# Shapes: N utterances of a set, B of a batch, C classes.

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ser_lightning.data.corpus_data import CorpusData
from ser_lightning.data.targets import vote_distribution
from ser_lightning.reports.figures import confusion_figure, save
from ser_lightning.reports.predictions import Predictions, confusion
from ser_lightning.reports.soft_scores import SOFT_SCORES, fold_scores, write_scores

FILES = {
    "validation": "validation_predictions.csv",
    "test": "predictions.csv",
    "all": "corpus_predictions.csv",
}


class ResultFiles(Callback):
    """Write the predictions of ``ser validate``, ``test`` and ``predict`` into the run's folder.

    For a test there are ``scores.json``, with scores of the probabilities, and a picture of the confusion matrix too;
    they go to W&B as well. ``predictions.csv`` is written last and whole: where it is, the fold is done. Validation
    inside ``fit`` writes nothing.
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
        """Write the confusion matrix's picture and ``scores.json``, then ``predictions.csv``."""
        self._write(trainer, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``corpus_predictions.csv``."""
        self._write(trainer, "all")

    def _write(self, trainer: Trainer, name: str) -> None:
        indices = torch.cat([output["indices"] for output in self._outputs]).cpu()
        probabilities = torch.cat([output["probabilities"] for output in self._outputs]).cpu()
        self._outputs.clear()
        gathered = _gather_to_first(trainer, (indices, probabilities))
        if gathered is None:
            return
        data_module = cast(CorpusData, trainer.datamodule)  # type: ignore[attr-defined]  # Lightning sets it, undeclared
        utterances = data_module.set_utterances(name)
        indices = torch.cat([part[0] for part in gathered])
        probabilities = torch.cat([part[1] for part in gathered])[indices.argsort()]
        if len(indices) < len(utterances) and _is_limited(trainer, name):
            rank_zero_info(f"{FILES[name]} is not written: only {len(indices)} of {len(utterances)} were predicted")
            return
        if not torch.equal(indices.sort().values, torch.arange(len(utterances))):
            raise RuntimeError(f"{len(indices)} predictions for {len(utterances)} utterances: one is missing or double")
        position = {label: index for index, label in enumerate(data_module.class_names)}
        predictions = Predictions.collect(
            utterances=[u.name for u in utterances],
            speakers=[u.speaker for u in utterances],
            fold=data_module.fold,
            targets=torch.tensor([position[str(u.label)] for u in utterances]),
            predicted=probabilities.argmax(1),
            probabilities=probabilities,
            class_names=data_module.class_names,
        )
        folder = Path(trainer.default_root_dir)
        if name == "test":
            picture = folder / "confusion.png"
            title = f"{data_module.corpus_name}, fold {data_module.fold}"
            counts = confusion(predictions, data_module.class_names)
            save(confusion_figure(counts, data_module.class_names, title), picture)
            _log_confusion(trainer, predictions, data_module.class_names, picture)
            nothing = [0.0] * len(data_module.class_names)
            votes = [vote_distribution(u, data_module.class_names) or nothing for u in utterances]
            found = fold_scores(predictions, torch.tensor(votes))
            for logger in trainer.loggers:
                logger.log_metrics({f"test/{name}": found[name] for name in SOFT_SCORES if name in found})
            write_scores(folder, found)
        predictions.write(folder / FILES[name])


def _is_limited(trainer: Trainer, name: str) -> bool:
    limits = {
        "validation": trainer.limit_val_batches,
        "test": trainer.limit_test_batches,
        "all": trainer.limit_predict_batches,
    }
    # A number of batches is an integer, and 1 is one batch; a share is a float, and 1.0 is all of them.
    return isinstance(limits[name], int) or limits[name] != 1.0


def _gather_to_first(trainer: Trainer, part: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]] | None:
    """Return every process's part in the first process, None in the others; the parts may differ in size."""
    if trainer.world_size == 1:
        return [part]
    gathered: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(part, gathered)
    return gathered


def _log_confusion(trainer: Trainer, predictions: Predictions, class_names: Sequence[str], picture: Path) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            index = {name: position for position, name in enumerate(class_names)}
            chart = wandb.plot.confusion_matrix(
                y_true=[index[name] for name in predictions.table["target"]],
                preds=[index[name] for name in predictions.table["predicted"]],
                class_names=list(class_names),
            )
            logger.experiment.log({"test/confusion_matrix": chart, "test/confusion_picture": wandb.Image(str(picture))})
