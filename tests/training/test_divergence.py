"""A training that diverges ends at once, names where, and leaves no result of that epoch."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ser_lightning.cli.__main__ import main
from ser_lightning.errors import DivergenceError
from ser_lightning.reports.systems import find_systems
from ser_lightning.runs.folder import is_finished
from ser_lightning.training.divergence import DivergenceGuard

Arguments = Callable[..., list[str]]


class Training:
    """A trainer's surface that the guard uses, with utterances ``train-0`` and so on."""

    def __init__(self, device: str = "cpu") -> None:
        self.state = SimpleNamespace(fn="fit")
        self.sanity_checking, self.world_size, self.current_epoch = False, 1, 2
        self.strategy = SimpleNamespace(
            root_device=torch.device(device), reduce_boolean_decision=lambda decision, all: decision
        )
        self.fit_loop = SimpleNamespace(total_batch_idx=0)
        self.datamodule = SimpleNamespace(
            set_utterances=lambda stage: [SimpleNamespace(name=f"{stage}-{index}") for index in range(10)]
        )
        self.checkpoint_callback = SimpleNamespace(monitor="validation/UA")
        self.callback_metrics: dict[str, Tensor] = {}
        self.guard, self.system = DivergenceGuard(), nn.Linear(2, 2)

    def step(self, loss: float, *indices: int) -> None:
        batch: Any = SimpleNamespace(indices=torch.tensor(indices or (0,)))
        trainer: Any = self
        system: Any = self.system
        self.guard.on_train_batch_end(trainer, system, {"loss": torch.tensor(loss)}, batch, 0)
        self.fit_loop.total_batch_idx += 1

    def validate(self, *probabilities: float, **scores: float) -> None:
        trainer: Any = self
        system: Any = self.system
        self.guard.on_validation_start(trainer, system)
        for index, value in enumerate(probabilities):
            batch: Any = SimpleNamespace(indices=torch.tensor([index]))
            outputs = {"probabilities": torch.tensor([[value, 0.5]])}
            self.guard.on_validation_batch_end(trainer, system, outputs, batch, index)
        self.callback_metrics = {f"validation/{name}": torch.tensor(score) for name, score in scores.items()}
        self.guard.on_validation_end(trainer, system)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_the_first_loss_that_is_not_finite_is_named(loss: float) -> None:
    training = Training()
    training.step(1.0, 0, 1)
    with pytest.raises(DivergenceError, match=r"epoch 2, step 1: loss .*\(utterances train-4, train-7\)"):
        training.step(loss, 4, 7)


def test_weights_that_are_not_finite_under_a_finite_loss_are_named() -> None:
    training = Training()
    training.step(1.0)
    with torch.no_grad():
        training.system.weight[1, 0] = math.nan
    with pytest.raises(DivergenceError, match=r"epoch 2, step 1: norm of the weights .*\(utterances train-2\)"):
        training.step(1.0, 12)  # the second copy of utterance 2, at another speed


def test_a_device_is_read_every_so_many_steps_and_before_validation() -> None:
    training = Training("cuda")  # only its name: the tensors are here
    for _ in range(DivergenceGuard.INTERVAL):
        training.step(1.0)
    training.step(math.nan, 3)
    training.step(math.nan, 4)
    with pytest.raises(DivergenceError, match=rf"step {DivergenceGuard.INTERVAL}: loss .*train-3\)"):
        training.validate(0.5, UA=0.5, loss=1.0)
    training = Training("cuda")
    for _ in range(DivergenceGuard.INTERVAL - 1):
        training.step(math.nan, 5)
    with pytest.raises(DivergenceError, match=r"step 0: loss .*train-5\)"):
        training.step(math.nan, 6)


def test_an_epoch_whose_outputs_or_scores_are_not_finite_is_not_chosen() -> None:
    Training().validate(0.5, 0.5, UA=0.5, loss=1.0)
    with pytest.raises(DivergenceError, match=r"epoch 2, .*validation.* \(utterances validation-1\)"):
        Training().validate(0.5, math.nan, UA=0.5, loss=1.0)
    for scores in ({"UA": math.nan, "loss": 1.0}, {"UA": 0.5, "loss": math.inf}):
        with pytest.raises(DivergenceError, match=r"epoch 2, validation/(UA is nan|loss is inf)"):
            Training().validate(0.5, **scores)


def test_a_diverged_fold_is_failed_and_named_by_the_report(
    tmp_path: Path, arguments: Arguments, seed_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = seed_folder / "fold-03"
    hot = ("--model.init_args.optimizer=torch.optim.SGD", "--model.init_args.optimizer.init_args.lr=1e36")
    assert main(["run-fold", *arguments(folder, "--trainer.logger=false", *hot)]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: training diverged in epoch 0, step ")
    assert "learning rate" in said
    facts = json.loads((folder / "run.json").read_text())
    assert facts["diverged"] == said.removeprefix("error: ")
    assert facts["best_epoch"] == -1
    assert not list((folder / "checkpoints").glob("*.ckpt"))
    assert not is_finished(folder, scored=False)
    systems, left_out = find_systems([seed_folder, seed_folder.parent])
    assert [(one.folder, one.reason) for one in left_out] == [(folder.resolve(), facts["diverged"])]
    assert len(systems[0].runs[0].folds) == 3
