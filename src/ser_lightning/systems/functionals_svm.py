"""A baseline that trains in a minute: functionals of an utterance's frames, and a support vector machine."""
# Shapes: B utterances, T frames (padded), F features, D functionals, C classes, N training utterances.

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import WeightedCrossEntropy
from ser_lightning.nn.support_vectors import SupportVectorMachine
from ser_lightning.nn.tensors import at_least_float32, frame_mask, without_autocast
from ser_lightning.systems.classifier import Decision, EmotionClassifier
from ser_lightning.systems.svm_fitting import COSTS, GAMMAS, check_parts, fit_svm
from ser_lightning.types import Batch

Statistic = Literal["mean", "deviation"]


class FunctionalsSVM(EmotionClassifier):
    """Mean and standard deviation of each feature over time, and an SVM with RBF kernel on them.

    One epoch collects the functionals of the training set; at its end they are standardised, and the SVM is fitted.
    C and gamma are chosen by cross-validation over groups of training speakers (``svm_fitting.fit_svm``). Nothing is
    learned by gradients: the loss is that of one idle parameter, because Lightning counts epochs, saves checkpoints and
    resumes by steps of an optimiser.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        statistics: Functionals of each feature; ``mean`` alone for an extractor that gives one frame an utterance.
        costs: Candidates for C.
        gammas: Candidates for gamma, as multiples of scikit-learn's "scale".

    Raises:
        ConfigurationError: If there is no statistic, or one occurs twice.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        statistics: Sequence[Statistic] = ("mean", "deviation"),
        costs: Sequence[float] = COSTS,
        gammas: Sequence[float] = GAMMAS,
    ) -> None:
        super().__init__(num_features, class_names, WeightedCrossEntropy("none"), torch.optim.SGD)
        if not statistics or len(set(statistics)) < len(statistics):
            raise ConfigurationError(f"statistics are {list(statistics)}; give mean, deviation, or both once")
        self.statistics = tuple(statistics)
        self.costs, self.gammas = tuple(costs), tuple(gammas)
        self.svm = SupportVectorMachine(len(self.class_names))
        self.idle = nn.Parameter(torch.zeros(()))
        self.register_buffer("centre", torch.zeros(len(self.statistics) * num_features))
        self.register_buffer("scale", torch.ones(len(self.statistics) * num_features))
        self._collected: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_fit_start(self) -> None:
        """Check that the SVM can be fitted.

        Raises:
            ConfigurationError: If there are several processes, which would each collect a part, or the training
                speakers are too few to choose C and gamma.
        """
        if self.trainer.world_size > 1:
            raise ConfigurationError(
                f"FunctionalsSVM fits in one process, not in {self.trainer.world_size}; set trainer.devices to 1"
            )
        if len(self.costs) * len(self.gammas) > 1:
            utterances = self.data_module.set_utterances("train")
            way_out = "give one each of model.init_args.costs and gammas"
            check_parts([u.speaker for u in utterances], [u.label for u in utterances], way_out)

    def functionals(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return functionals [B, D] of ``frames`` [B, T, F] under ``mask`` [B, T]."""
        frames = at_least_float32(frames)
        weights = mask.to(frames.dtype) / mask.sum(1, keepdim=True)
        with without_autocast(frames.device):
            mean = torch.einsum("bt,btf->bf", weights, frames)
            squares = torch.einsum("bt,btf->bf", weights, (frames - mean[:, None]).square())
        found = {"mean": mean, "deviation": squares.sqrt()}
        return torch.cat([found[name] for name in self.statistics], 1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Collect the functionals of ``batch``, and return a loss of zero."""
        mask = frame_mask(batch.lengths, batch.inputs.shape[1])
        with torch.no_grad():
            functionals = self.functionals(self.standardisation(batch.inputs, mask), mask)
        self._collected.append((batch.indices, functionals, batch.labels))
        return self.idle * 0

    def on_validation_epoch_start(self) -> None:
        """While fitting, standardise the functionals of the epoch that has just ended, and fit the SVM."""
        if self.trainer.state.fn != "fit" or self.trainer.sanity_checking:
            return
        indices, functionals, labels = (torch.cat(column) for column in zip(*self._collected, strict=True))
        self._collected.clear()
        order = indices.argsort()  # so that the order of batches changes nothing
        functionals, labels = functionals[order], labels[order]
        self.centre.copy_(functionals.mean(0))
        deviation = functionals.std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))
        utterances = self.data_module.set_utterances("train")
        speakers = [utterances[index % len(utterances)].speaker for index in indices[order].tolist()]
        points = (functionals - self.centre) / self.scale
        self.svm, _ = fit_svm(points, labels, speakers, len(self.class_names), costs=self.costs, gammas=self.gammas)
        targets = nn.functional.one_hot(labels, len(self.class_names)).to(points.dtype)
        loss = self.criterion(self._log_probabilities(points)[0], targets, self.class_prior)
        self.train_loss.update(loss.expand(len(labels)))

    def _log_probabilities(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities [B, C] and predicted classes [B] of standardised functionals [B, D]."""
        if not self.svm.is_fitted:  # before the end of the epoch all emotions are alike
            even = points.new_zeros(len(points), len(self.class_names))
            return even, even.argmax(1)
        predicted, probabilities = self.svm(points)
        # A class missing from the training split has probability zero, whose logarithm is not finite.
        return probabilities.to(points.dtype).clamp(min=torch.finfo(torch.float32).tiny).log(), predicted

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return log-probabilities [B, C] of standardised ``frames`` [B, T, F] under ``mask`` [B, T]."""
        return self._log_probabilities((self.functionals(frames, mask) - self.centre) / self.scale)[0]

    def decide(self, batch: Batch) -> Decision:
        """Classify ``batch`` by the SVM, whose votes need not choose the most probable class."""
        mask = frame_mask(batch.lengths, batch.inputs.shape[1])
        functionals = self.functionals(self.standardisation(batch.inputs, mask), mask)
        logits, predicted = self._log_probabilities((functionals - self.centre) / self.scale)
        return Decision(logits, self.criterion.probabilities(logits), predicted)
