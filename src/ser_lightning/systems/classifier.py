"""The base class of systems: standardise, train, score, and save what prediction needs in the checkpoint."""
# Shapes: B utterances, T frames (padded), F features, C classes, K clusters, G ghost clusters.

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric

from ser_lightning.allow_list import public_path
from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import Criterion
from ser_lightning.metrics import EmotionScores, SpeakerScores
from ser_lightning.nn.standardisation import Standardisation, UtteranceStandardisation
from ser_lightning.nn.tensors import at_least_float32, frame_mask, weigh_share
from ser_lightning.systems.time_pooling import TimePooling, TimeWeights
from ser_lightning.types import Batch, FoldData, Statistics, TargetKind

CHECKPOINT_KEY = "ser_lightning"


@dataclass(frozen=True, slots=True)
class Decision:
    """Predictions of a batch.

    Attributes:
        logits: Input of the criterion [B, C].
        probabilities: Class probabilities [B, C] in float32; a row sums to one.
        predicted: Predicted class index [B].
        embeddings: Utterance embeddings [B, E], for systems that have them.
    """

    logits: Tensor
    probabilities: Tensor
    predicted: Tensor
    embeddings: Tensor | None = None

    def outputs(self, indices: Tensor) -> dict[str, Tensor]:
        """Return an evaluation step's outputs for callbacks, with the utterances' ``indices`` [B]."""
        found = {"indices": indices, "probabilities": self.probabilities, "predicted": self.predicted}
        return found if self.embeddings is None else found | {"embeddings": self.embeddings}


class EmotionClassifier(LightningModule):
    """Base class of all systems: frames in, one logit per emotion out.

    A system adds its layers and ``classify``. ``setup('fit')`` takes standardisation, class prior and speakers of the
    training split from the data module. The checkpoint holds them and the extractor's configuration, so that it is
    all that inference needs.

    Attributes:
        is_pretraining: Whether the system only provides weights for other systems, and is not tested.
        max_frames: Longer utterances are trimmed to this many frames; None keeps all frames.
        sources: Checkpoints of earlier stages that training requires, by argument; None if not given.
        configuration: Class path and arguments, set when the system is built from a YAML or a checkpoint.
        origin: Facts about the training data, saved in the checkpoint.

    Args:
        num_features: F; linked from the data module.
        class_names: The emotions, in the order of the logits; linked from the data module.
        criterion: Training criterion; it makes the head and turns logits into probabilities.
        optimizer: Makes the optimiser.
        scheduler: Makes the learning-rate schedule, stepped once per epoch; None keeps the rate constant.
        standardisation: Standardisation of the features; None uses the training split's mean and deviation.
    """

    is_pretraining: ClassVar[bool] = False
    max_frames: int | None = None

    class_prior: Tensor

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        criterion: Criterion,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | None = None,
        standardisation: UtteranceStandardisation | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.class_names = tuple(class_names)
        self.criterion = criterion
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.standardisation = standardisation or Standardisation(num_features)
        self.register_buffer("class_prior", torch.full((len(self.class_names),), 1.0 / len(self.class_names)))
        self.sources: dict[str, Path | None] = {}
        self.configuration: dict[str, Any] = {}
        self.origin: dict[str, Any] = {}
        # torchmetrics' NaN check synchronises with the device in every step. Disabling it also disables weights (1.9),
        # so a batch's mean is passed once for each of its utterances.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.evaluation_loss = MeanMetric(nan_strategy="disable")
        self.evaluation_scores: EmotionScores | SpeakerScores = EmotionScores(len(self.class_names))

    @abstractmethod
    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T], True for real frames."""

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [B, C] of ``frames`` [B, T, F] with ``lengths`` [B]."""
        mask = frame_mask(lengths, frames.shape[1])
        return self.classify(self.standardisation(frames, mask), mask)

    def _logits(self, batch: Batch) -> Tensor:
        # Under autocast, logits in half precision would round targets and class weights too.
        return at_least_float32(self(batch.inputs, batch.lengths))

    def time_pooling(self) -> TimePooling | None:
        """Return the pooling over time with what comes before it; None without one."""
        return None

    def attention(self, frames: Tensor, lengths: Tensor) -> TimeWeights:
        """Return attention, or soft assignment to clusters, over time.

        Args:
            frames: Frames [B, T, F].
            lengths: Real frames of each utterance [B].

        Raises:
            ConfigurationError: If the system has neither.
        """
        found = self.time_pooling()
        weights = None if found is None else found.weights(frames, lengths)
        if weights is None:
            raise ConfigurationError(
                f"{type(self).__name__} as configured has neither attention nor clusters over time"
            )
        return weights

    @property
    def data_module(self) -> FoldData:
        """The trainer's data module.

        Raises:
            ConfigurationError: If there is none.
        """
        data_module: FoldData | None = getattr(self.trainer, "datamodule", None)
        if data_module is None:
            raise ConfigurationError(
                f"{type(self).__name__} needs a corpus's data module for the training split's statistics; "
                "pass one to trainer.fit(model, datamodule=...)"
            )
        return data_module

    def check_targets(self, kind: TargetKind) -> None:
        """Check that the criterion accepts the data module's targets.

        Raises:
            ConfigurationError: Naming the criterion, the targets, and the targets that it reads.
        """
        if kind not in self.criterion.reads:
            raise ConfigurationError(
                f"{type(self.criterion).__name__} reads {' or '.join(self.criterion.reads)} targets, but "
                f"data.init_args.targets makes {kind} ones; choose other targets or another model.init_args.criterion"
            )

    def setup(self, stage: str) -> None:
        """Take over statistics of the training split, and record their origin."""
        if stage != "fit":
            return
        data_module = self.data_module
        self.check_targets(data_module.target_kind)
        statistics = data_module.training_statistics()
        self.fit_standardisation(statistics)
        self.class_prior.copy_(statistics.class_prior)
        split = data_module.split()
        self.origin = {
            "corpus": data_module.corpus_name,
            "extractor": data_module.extractor.configuration(),
            "training_speakers": list(statistics.speakers),
            "validation_speakers": list(split.speakers("validation")),
            "split_hash": split.hash,
        }

    def fit_standardisation(self, statistics: Statistics) -> None:
        """Fit the standardisation on statistics of the training split."""
        self.standardisation.fit(statistics)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the criterion's mean over ``batch``, weighted by the batch's share of the global batch."""
        loss: Tensor = self.criterion(self._logits(batch), batch.targets, self.class_prior)
        self.train_loss.update(loss.detach().expand(batch.size))
        return weigh_share(loss, batch.size)

    def decide(self, batch: Batch) -> Decision:
        """Return logits, probabilities and predicted classes of ``batch``."""
        logits = self._logits(batch)
        return Decision(logits, self.criterion.probabilities(logits), logits.argmax(1))

    def _evaluation_step(self, batch: Batch) -> dict[str, Tensor]:
        decision = self.decide(batch)
        loss = self.criterion(decision.logits, batch.targets, self.class_prior)
        self.evaluation_loss.update(loss.expand(batch.size))
        self._update_scores(decision, batch)
        return decision.outputs(batch.indices)

    def _update_scores(self, decision: Decision, batch: Batch) -> None:
        self.evaluation_scores.update(decision.predicted, batch.labels)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the decision on ``batch``, and its ``indices`` [B]."""
        return self._evaluation_step(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the decision on ``batch``, its ``indices`` [B] and, with clusters, ``assignments`` [B, K + G]."""
        outputs, found = self._evaluation_step(batch), self.time_pooling()
        assignments = None if found is None else found.mean_assignment(batch.inputs, batch.lengths)
        return outputs if assignments is None else outputs | {"assignments": assignments}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the decision on ``batch``, and its ``indices`` [B]."""
        return self.decide(batch).outputs(batch.indices)

    @property
    def epoch_scores(self) -> tuple[str, ...]:
        """Names of the scores logged in every epoch, which checkpoints and early stopping can monitor."""
        return (*(f"validation/{name}" for name in (*self.evaluation_scores.names, "loss")), "train/loss")

    def _log_evaluation(self, stage: str) -> None:
        for name, score in self.evaluation_scores.scores(self.evaluation_scores.compute()).items():
            self.log(f"{stage}/{name}", score.float(), prog_bar=name == "UA")
        self.log(f"{stage}/loss", self.evaluation_loss.compute())
        self.evaluation_scores.reset()
        self.evaluation_loss.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation set and, while fitting, the epoch's training loss.

        This is the last hook before a checkpoint is saved: a run killed right after saving has logged its whole epoch.
        """
        self._log_evaluation("validation")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.log("train/loss", self.train_loss.compute())
            self.train_loss.reset()

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test set."""
        self._log_evaluation("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser of all trainable parameters, and its schedule if there is one."""
        optimizer = self.optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        return optimizer if self.scheduler is None else ([optimizer], [self.scheduler(optimizer)])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the system: its configuration and classes, and the origin of its training data."""
        checkpoint[CHECKPOINT_KEY] = {
            "system": self.class_path,
            "is_pretraining": self.is_pretraining,
            "class_names": list(self.class_names),
            "configuration": self.configuration,
            "origin": self.origin,
        }

    @property
    def class_path(self) -> str:
        """The public path of the system's class."""
        return public_path(type(self))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the origin; reject a checkpoint of another system or of other classes.

        Raises:
            ConfigurationError: Naming the checkpoint's and the expected system or classes.
        """
        stored = checkpoint.get(CHECKPOINT_KEY)
        if stored is None or stored["system"] != self.class_path:
            found = "a system that is not of this suite" if stored is None else f"a {stored['system']}"
            raise ConfigurationError(f"the checkpoint holds {found}, but the experiment configures a {self.class_path}")
        if stored["class_names"] != list(self.class_names):
            raise ConfigurationError(
                f"the checkpoint distinguishes {', '.join(stored['class_names'])}; "
                f"the experiment's corpus has {', '.join(self.class_names)}"
            )
        self.origin = stored["origin"]
