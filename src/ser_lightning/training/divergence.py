"""Stop a training that has diverged, before its epoch can be chosen."""
# Shapes: B utterances of a batch, C classes.

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm

from ser_lightning.data.corpora import CorpusData
from ser_lightning.errors import DivergenceError
from ser_lightning.types import Batch

_MOST_NAMED = 64
_WAYS_OUT = (
    "lower the learning rate (lr of model.init_args.optimizer), set trainer.gradient_clip_val, or check the features "
    "of these utterances"
)


class DivergenceGuard(Callback):
    """End training at the first loss, weight or validation output that is not a finite number.

    Without it, training would run to the end: the argmax of NaN is class 0, and such an epoch could become the best.
    Losses and weights are tested on their device and read every ``INTERVAL`` steps and before each validation, because
    reading waits for the device. One process on a CPU reads them in every step.
    """

    INTERVAL = 50

    def __init__(self) -> None:
        # Of each step not read yet: its number, the utterances' indices [B], and whether loss and weights are finite.
        self._steps: list[tuple[int, Tensor, Tensor]] = []
        # Of each batch of this validation: the utterances' indices [B], and whether each one's outputs are finite [B].
        self._outputs: list[tuple[Tensor, Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Test a step's loss, and the weights after it."""
        norm = get_total_norm([weight.detach() for weight in pl_module.parameters() if weight.requires_grad])
        finite = torch.stack([outputs["loss"].detach().isfinite(), norm.isfinite()])
        self._steps.append((trainer.fit_loop.total_batch_idx, batch.indices, finite))
        at_once = trainer.strategy.root_device.type == "cpu" and trainer.world_size == 1
        if at_once or len(self._steps) >= self.INTERVAL:
            self._read_steps(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the steps before their epoch is scored."""
        self._outputs.clear()
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._read_steps(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the steps of an epoch that is not validated."""
        self._read_steps(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, *_: Any, **__: Any
    ) -> None:
        """Test a validation batch's probabilities."""
        if trainer.state.fn == "fit":
            self._outputs.append((batch.indices, outputs["probabilities"].isfinite().all(1)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the outputs and the monitored score before Lightning compares the score and saves checkpoints."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        indices, finite = (torch.cat(column).cpu() for column in zip(*self._outputs, strict=True))
        self._outputs.clear()
        names = self._names(trainer, "validation", indices[~finite])
        if trainer.strategy.reduce_boolean_decision(bool(names), all=False):
            found = [name for part in _of_all_processes(trainer, names) for name in part]
            self._stop(trainer, "outputs of the validation set are not finite", found)
        monitor = getattr(trainer.checkpoint_callback, "monitor", None)
        for name in ("validation/loss", monitor):
            if name in trainer.callback_metrics and not trainer.callback_metrics[name].isfinite():
                self._stop(trainer, f"{name} is {trainer.callback_metrics[name].item()}", [])

    def _read_steps(self, trainer: Trainer) -> None:
        """Raise if a step that was not read yet has diverged, in all processes alike."""
        if not self._steps:
            return
        finite = torch.stack([flags for _, _, flags in self._steps]).cpu()
        bad = (~finite.all(1)).nonzero().flatten().tolist()
        if trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
            mine = []
            if bad:
                step, indices, _ = self._steps[bad[0]]
                mine.append((step, bool(finite[bad[0], 0]), self._names(trainer, "train", indices.cpu())))
            found = [one for part in _of_all_processes(trainer, mine) for one in part]
            first = min(step for step, _, _ in found)
            culprits = [(finite_loss, names) for step, finite_loss, names in found if step == first]
            what = "norm of the weights is" if all(finite_loss for finite_loss, _ in culprits) else "loss is"
            self._stop(trainer, f"step {first}: {what} not finite", [name for _, names in culprits for name in names])
        self._steps.clear()

    @staticmethod
    def _names(trainer: Trainer, stage: str, indices: Tensor) -> list[str]:
        utterances = cast(CorpusData, trainer.datamodule).set_utterances(stage)  # type: ignore[attr-defined]
        return [utterances[index % len(utterances)].name for index in indices.tolist()]  # copies at other speeds follow

    @staticmethod
    def _stop(trainer: Trainer, what: str, names: list[str]) -> None:
        shown = ", ".join(names[:_MOST_NAMED]) + (f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED))
        utterances = f" (utterances {shown})" if names else ""
        raise DivergenceError(f"training diverged in epoch {trainer.current_epoch}, {what}{utterances}; {_WAYS_OUT}")


def _of_all_processes(trainer: Trainer, own: list[Any]) -> list[list[Any]]:
    """Return ``own`` of every process, in the order of ranks."""
    if trainer.world_size == 1:
        return [own]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, own)
    return gathered
