"""Mocanu et al. 2021, section 3.3: metric learning, and an SVM on the embeddings (S4 and S5)."""
# Shapes: B utterances, T frames (padded), F bins, E embedding dimensions, C classes, N utterances of a set.

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ser_lightning.errors import ConfigurationError
from ser_lightning.losses import MetricLoss, WeightedCrossEntropy
from ser_lightning.nn.encoders import Encoder
from ser_lightning.nn.heads import EmbeddingNetwork
from ser_lightning.nn.pooling import Pooling
from ser_lightning.nn.standardisation import Normalisation, UtteranceStandardisation
from ser_lightning.nn.support_vectors import SupportVectorMachine
from ser_lightning.nn.tensors import at_least_float32, frame_mask, gather_batch, gather_to_first, without_autocast
from ser_lightning.systems.checkpoint import read_checkpoint_file
from ser_lightning.systems.classifier import CHECKPOINT_KEY, Decision, EmotionClassifier
from ser_lightning.systems.mocanu2021 import SEResNetVLAD, SpeakerIdentification
from ser_lightning.systems.stages import start_from
from ser_lightning.systems.svm_fitting import check_parts, fit_svm
from ser_lightning.systems.time_pooling import TimePooling
from ser_lightning.types import Batch


class MetricLearning(EmotionClassifier):
    """S4 and S5: embeddings trained with a metric loss, classified by an SVM with RBF kernel (section 3.3).

    There are no logits while the network trains. Validation classifies by the nearest class mean: the largest cosine
    between an utterance's embedding and the mean of each class's normalised training embeddings of this epoch. After
    training, the best epoch's network embeds the training set; the SVM is fitted on it, and stored in ``best.ckpt`` as
    tensors. From then on the SVM classifies.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        encoder: Makes the encoder of F bins, ``ThinSEResNet34``.
        pooling: Makes the aggregation over time, ``GhostVLAD``.
        metric_loss: Makes the loss of the class names, ``TripletLoss`` (eqs. 2-3) or ``EmotionConstraint`` (eqs. 5-7).
        normalisation: What of a spectrogram has zero mean and unit deviation: ``per_frame``, ``per_spectrogram`` or
            ``per_bin``; in training over the crop, if utterances are cropped. ``none`` leaves magnitudes as they are.
        optimizer: Makes the optimiser.
        scheduler: Makes the learning-rate schedule; None keeps the rate constant.
        embedding_dim: E, neurons of the fully connected layer.
        pretrained_checkpoint: Checkpoint of an earlier stage; layers that fit are loaded, none is frozen (section 4.3).
            None trains from scratch.
        svm_selection: What chooses the SVM's C and gamma: ``training_speakers`` cross-validation over groups of them,
            with the network that has trained on all; ``validation_set`` the validation set's WA.
    """

    class_means: Tensor
    class_sums: Tensor
    class_counts: Tensor
    batches_without_terms: Tensor
    violations: Tensor

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        encoder: Callable[[int], Encoder],
        pooling: Callable[[int], Pooling],
        metric_loss: Callable[[Sequence[str]], MetricLoss],
        normalisation: Normalisation,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        embedding_dim: int = 512,
        pretrained_checkpoint: str | Path | None = None,
        svm_selection: Literal["training_speakers", "validation_set"] = "training_speakers",
    ) -> None:
        # The logged validation loss: of the class means' cosines, later of the SVM's probabilities.
        criterion = WeightedCrossEntropy("none")
        standardisation = UtteranceStandardisation(normalisation)
        super().__init__(num_features, class_names, criterion, optimizer, scheduler, standardisation)
        self.pretrained_checkpoint = None if pretrained_checkpoint is None else Path(pretrained_checkpoint)
        self.svm_selection = svm_selection
        self.network = EmbeddingNetwork(num_features, encoder, pooling, embedding_dim, len(self.class_names))
        self.metric_loss = metric_loss(self.class_names)
        self.svm = SupportVectorMachine(len(self.class_names))
        self.register_buffer("class_means", torch.zeros(len(self.class_names), embedding_dim))
        self.register_buffer("class_sums", torch.zeros(len(self.class_names), embedding_dim), persistent=False)
        self.register_buffer("class_counts", torch.zeros(len(self.class_names)), persistent=False)
        self.register_buffer("batches_without_terms", torch.zeros(()), persistent=False)
        self.register_buffer("violations", torch.zeros(3, dtype=torch.int64), persistent=False)

    def on_fit_start(self) -> None:
        """Load the network of the earlier stage.

        Raises:
            ConfigurationError: If several processes would have unequal shares of a batch, which cannot be gathered, or
                the training speakers are too few to choose the SVM.
        """
        if self.trainer.world_size > 1 and self.data_module.batches != "class":
            raise ConfigurationError(
                f"data.init_args.batches is {self.data_module.batches}: {self.trainer.world_size} processes would have "
                "unequal shares of its last batch; set data.init_args.batches to class"
            )
        if self.svm_selection == "training_speakers":
            utterances = self.data_module.set_utterances("train")
            check_parts([u.speaker for u in utterances], [u.label for u in utterances])
        # A resumed best checkpoint holds an SVM fitted on embeddings that are about to change.
        self.svm = SupportVectorMachine(len(self.class_names)).to(self.device)  # other modules are already there
        stages = (SpeakerIdentification, SEResNetVLAD, MetricLearning)
        start_from(self, self.network, self.pretrained_checkpoint, *stages)

    def embed(self, batch: Batch) -> Tensor:
        """Return embeddings [B, E] of ``batch``, at least in float32."""
        mask = frame_mask(batch.lengths, batch.inputs.shape[1])
        return at_least_float32(self.network(self.standardisation(batch.inputs, mask), mask))

    def on_train_epoch_start(self) -> None:
        """Reset the sums of the previous epoch."""
        for total in (self.class_sums, self.class_counts, self.batches_without_terms, self.violations):
            total.zero_()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the metric loss of ``batch``, gathered over processes so that all its utterances are compared."""
        embeddings, labels = gather_batch(self.embed(batch)), gather_batch(batch.labels)
        loss: Tensor
        loss, terms = self.metric_loss(embeddings, labels)
        with torch.no_grad():
            directions = F.normalize(embeddings.detach(), dim=1).to(self.class_sums.dtype)
            self.class_sums.index_add_(0, labels, directions)
            self.class_counts.index_add_(0, labels, torch.ones_like(directions[:, 0]))
            self.batches_without_terms += terms == 0
            self.violations += self.metric_loss.violations(embeddings, labels)
        self.train_loss.update(loss.detach().expand(len(labels)))
        return loss

    def on_validation_epoch_start(self) -> None:
        """While fitting, compute the class means of the epoch that has just ended."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.class_means.copy_(self.class_sums / self.class_counts.clamp(min=1).unsqueeze(1))

    def on_validation_epoch_end(self) -> None:
        """Log the scores, how many batches had no loss terms, and the shares of violated and of seen constraints.

        ``train/violated_share`` is the share of the epoch's constraints on negatives that were violated, and
        ``train/seen_share`` the share of these that contributed to the loss.
        """
        super().on_validation_epoch_end()
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.log("train/batches_without_terms", self.batches_without_terms)
            shares = self.violations[1:] / self.violations[:2].clamp(min=1)
            self.log("train/violated_share", shares[0])
            self.log("train/seen_share", shares[1])

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return class scores [B, C]: log-probabilities of the SVM, or cosines with the class means."""
        return self._class_scores(at_least_float32(self.network(frames, mask)))[0]

    def time_pooling(self) -> TimePooling:
        """Return the network's aggregation over time."""
        network = self.network
        return TimePooling(
            self.standardisation, network.descriptors, network.pooling, network.encoder.reduction_in_time
        )

    def _class_scores(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return class scores [B, C] and predicted classes [B] of ``embeddings`` [B, E]."""
        if self.svm.is_fitted:
            predicted, probabilities = self.svm(embeddings)
            # A class missing from the training split has probability zero, whose logarithm is not finite.
            return probabilities.to(embeddings.dtype).clamp(min=torch.finfo(torch.float32).tiny).log(), predicted
        means = self.class_means.to(embeddings.dtype)
        with without_autocast(embeddings.device):
            cosines = F.linear(F.normalize(embeddings, dim=1), F.normalize(means, dim=1))
        return cosines, cosines.argmax(1)

    def decide(self, batch: Batch) -> Decision:
        """Classify ``batch`` by the SVM, or by the nearest class mean while there is none."""
        embeddings = self.embed(batch)
        scores, predicted = self._class_scores(embeddings)
        return Decision(scores, self.criterion.probabilities(scores), predicted, embeddings)

    def on_fit_end(self) -> None:
        """Fit the SVM on the best epoch's embeddings and store it in its checkpoint."""
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        if not best or self.trainer.interrupted:  # no checkpoint, or training will resume
            return
        self._wait_for_checkpoints()
        checkpoint = read_checkpoint_file(Path(best), best, mapped=False)
        self.load_state_dict(checkpoint["state_dict"])
        if self.svm.is_fitted:  # a finished run was started again
            return
        self.to(self.trainer.strategy.root_device)  # Lightning has moved it to the CPU
        data_module = self.data_module
        train = self._embed_set(data_module.evaluation_dataloader("train"))
        validation = None
        if self.svm_selection == "validation_set":
            validation = self._embed_set(data_module.evaluation_dataloader("validation"))
        if train is not None:
            speakers = [utterance.speaker for utterance in data_module.set_utterances("train")]
            speakers *= len(train[1]) // len(speakers)  # copies at other speeds follow
            self.svm, chosen = fit_svm(*train, speakers, len(self.class_names), validation)
            shown = ", ".join(f"{key} {value}" for key, value in chosen.items() if key != "grid")
            rank_zero_info(f"support vector machine: {shown}")
            checkpoint["state_dict"] |= {f"svm.{key}": value for key, value in self.svm.state_dict().items()}
            checkpoint[CHECKPOINT_KEY]["svm"] = chosen
            self.trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, best)
        self.cpu()
        self._wait_for_checkpoints()

    def _wait_for_checkpoints(self) -> None:
        """Wait until the first process has written what it saved, so that all read the same."""
        self.trainer.strategy.checkpoint_io.teardown()
        self.trainer.strategy.barrier("checkpoints")

    @torch.no_grad()
    def _embed_set(self, loader: DataLoader[Batch]) -> tuple[Tensor, Tensor] | None:
        """Return embeddings [N, E] and labels [N] of a set, in order, in the first process; None in the others."""
        self.eval()
        parts = []
        for share in loader:
            batch = self.trainer.strategy.batch_to_device(self.trainer.precision_plugin.convert_input(share))
            with self.trainer.precision_plugin.forward_context():
                parts.append((batch.indices, self.embed(batch), batch.labels))
        rows = gather_to_first(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))
        if rows is None:
            return None
        order = rows[0].argsort()
        return rows[1][order], rows[2][order]
