"""Mocanu et al. 2021, section 3.3: embeddings that metric learning has arranged, and an SVM on them (S4 and S5)."""
# Shapes: B utterances, T frames (padded), F bins, E embedding dimensions, C classes, N utterances of a set.

from collections.abc import Callable, Sequence
from pathlib import Path

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
from ser_lightning.nn.standardisation import UtteranceStandardisation
from ser_lightning.nn.support_vectors import SupportVectorMachine
from ser_lightning.nn.tensors import at_least_float32, frame_mask, gather_batch, gather_to_first, without_autocast
from ser_lightning.systems.classifier import CHECKPOINT_KEY, Decision, EmotionClassifier
from ser_lightning.systems.mocanu2021 import SEResNetVLAD, SpeakerIdentification
from ser_lightning.systems.stages import start_from
from ser_lightning.systems.svm_fitting import fit_svm
from ser_lightning.types import Batch


class MetricLearning(EmotionClassifier):
    """S4 and S5: a metric loss arranges the embeddings, then an SVM with RBF kernel classifies them (section 3.3).

    There are no logits while the network trains. An epoch's score is that of the nearest class mean: of the cosines
    between an utterance's embedding and the mean of each class's normalised embeddings, as training saw them in this
    epoch. When training has ended, the best epoch's network embeds the training and the validation set once more, the
    SVM is fitted on the one, its C and gamma are chosen on the other, and both are kept in ``best.ckpt``, as tensors;
    from then on the SVM decides.

    Args:
        num_features: F; linked from the data module.
        class_names: The C emotions; linked from the data module.
        encoder: Makes the encoder of F bins, ``ThinSEResNet34``.
        pooling: Makes the aggregation over time, ``GhostVLAD``.
        metric_loss: Makes the loss of the emotions: ``TripletLoss`` (eqs. 2-3) or ``EmotionConstraint`` (eqs. 5-7).
        optimizer: Makes the optimiser of the parameters.
        scheduler: Makes the schedule of its learning rate; constant when absent.
        embedding_dim: E, neurons of the connected layer.
        pretrained_checkpoint: Checkpoint of an earlier stage, whose network it starts from as far as it fits; from
            scratch when absent. Nothing is frozen (section 4.3).
    """

    class_means: Tensor
    class_sums: Tensor
    class_counts: Tensor
    batches_without_terms: Tensor

    def __init__(
        self,
        num_features: int,
        class_names: Sequence[str],
        encoder: Callable[[int], Encoder],
        pooling: Callable[[int], Pooling],
        metric_loss: Callable[[Sequence[str]], MetricLoss],
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        embedding_dim: int = 512,
        pretrained_checkpoint: Path | None = None,
    ) -> None:
        # What is logged as the loss of validation: that of the class means, later of the SVM's probabilities.
        criterion = WeightedCrossEntropy("none")
        standardisation = UtteranceStandardisation(num_features)
        super().__init__(num_features, class_names, criterion, optimizer, scheduler, standardisation)
        self.pretrained_checkpoint = pretrained_checkpoint
        self.network = EmbeddingNetwork(num_features, encoder, pooling, embedding_dim, len(self.class_names))
        self.metric_loss = metric_loss(self.class_names)
        self.svm = SupportVectorMachine(len(self.class_names))
        self.register_buffer("class_means", torch.zeros(len(self.class_names), embedding_dim))
        self.register_buffer("class_sums", torch.zeros(len(self.class_names), embedding_dim), persistent=False)
        self.register_buffer("class_counts", torch.zeros(len(self.class_names)), persistent=False)
        self.register_buffer("batches_without_terms", torch.zeros(()), persistent=False)

    def on_fit_start(self) -> None:
        """Take the network of the stage before.

        Raises:
            ConfigurationError: If several processes would have unequal shares of a batch, which then cannot be joined.
        """
        if self.trainer.world_size > 1 and self.data_module.batches != "class":
            raise ConfigurationError(
                f"data.init_args.batches is {self.data_module.batches}, whose last batch {self.trainer.world_size} "
                "processes share unequally, and the metric loss needs it whole; set data.init_args.batches to class"
            )
        # Where a best checkpoint is trained on, its machine was fitted on embeddings that change from now on.
        self.svm = SupportVectorMachine(len(self.class_names)).to(self.device)  # the rest has been moved already
        stages = (SpeakerIdentification, SEResNetVLAD, MetricLearning)
        start_from(self, self.network, self.pretrained_checkpoint, *stages)

    def embed(self, batch: Batch) -> Tensor:
        """Return the embeddings [B, E] of ``batch``, in float32 where the network gives half precision."""
        mask = frame_mask(batch.lengths, batch.inputs.shape[1])
        return at_least_float32(self.network(self.standardisation(batch.inputs, mask), mask))

    def on_train_epoch_start(self) -> None:
        """Forget the class means of the epoch before."""
        for total in (self.class_sums, self.class_counts, self.batches_without_terms):
            total.zero_()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the metric loss of ``batch``, joined over processes: what is compared must meet."""
        embeddings, labels = gather_batch(self.embed(batch)), gather_batch(batch.labels)
        loss: Tensor
        loss, terms = self.metric_loss(embeddings, labels)
        with torch.no_grad():
            directions = F.normalize(embeddings.detach(), dim=1).to(self.class_sums.dtype)
            self.class_sums.index_add_(0, labels, directions)
            self.class_counts.index_add_(0, labels, torch.ones_like(directions[:, 0]))
            self.batches_without_terms += terms == 0
        self.train_loss.update(loss.detach().expand(len(labels)))
        return loss

    def on_validation_epoch_start(self) -> None:
        """While training, take the class means of the epoch that has just ended."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.class_means.copy_(self.class_sums / self.class_counts.clamp(min=1).unsqueeze(1))

    def on_validation_epoch_end(self) -> None:
        """Log the scores, and how many batches of the epoch had nothing to learn from."""
        super().on_validation_epoch_end()
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.log("train/batches_without_terms", self.batches_without_terms)

    def classify(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return what speaks for each class [B, C]: log-probabilities of the SVM, or cosines with the class means."""
        return self._evidence(at_least_float32(self.network(frames, mask)))[0]

    def _evidence(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return what speaks for each class [B, C] and the class decided for [B], of ``embeddings`` [B, E]."""
        if self.svm.is_fitted:
            predicted, probabilities = self.svm(embeddings)
            # A class that the training split lacks has no probability, and its logarithm no bound.
            return probabilities.to(embeddings.dtype).clamp(min=torch.finfo(torch.float32).tiny).log(), predicted
        means = self.class_means.to(embeddings.dtype)
        with without_autocast(embeddings.device):
            cosines = F.linear(F.normalize(embeddings, dim=1), F.normalize(means, dim=1))
        return cosines, cosines.argmax(1)

    def decide(self, batch: Batch) -> Decision:
        """Return the SVM's decision on ``batch``, or the nearest class mean while it is not fitted, and embeddings."""
        embeddings = self.embed(batch)
        evidence, predicted = self._evidence(embeddings)
        return Decision(evidence, self.criterion.probabilities(evidence), predicted, embeddings)

    def on_fit_end(self) -> None:
        """Fit the SVM on the best epoch's embeddings and keep it in its checkpoint."""
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        if not best or self.trainer.interrupted:  # nothing was kept, or training is to go on
            return
        checkpoint = torch.load(best, weights_only=True, map_location="cpu")
        self.load_state_dict(checkpoint["state_dict"])
        if self.svm.is_fitted:  # a run that had ended is run again
            return
        self.to(self.trainer.strategy.root_device)  # which Lightning has freed already
        data_module = self.data_module
        train = self._embed_set(data_module.evaluation_dataloader("train"))
        validation = self._embed_set(data_module.evaluation_dataloader("validation"))
        if train is not None and validation is not None:
            speakers = [utterance.speaker for utterance in data_module.set_utterances("train")]
            speakers *= len(train[1]) // len(speakers)  # heard at other speeds too
            self.svm, chosen = fit_svm(*train, speakers, *validation, len(self.class_names))
            shown = ", ".join(f"{key} {value}" for key, value in chosen.items() if key != "grid")
            rank_zero_info(f"support vector machine: {shown}")
            checkpoint["state_dict"] |= {f"svm.{key}": value for key, value in self.svm.state_dict().items()}
            checkpoint[CHECKPOINT_KEY]["svm"] = chosen
            self.trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, best)
        self.cpu()
        self.trainer.strategy.barrier("SVM")

    @torch.no_grad()
    def _embed_set(self, loader: DataLoader[Batch]) -> tuple[Tensor, Tensor] | None:
        """Return embeddings [N, E] and labels [N] of a set in its order, in the first process; None in the others."""
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
