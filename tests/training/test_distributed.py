"""Two processes on one machine: no utterance lost or repeated, and the numbers of one process."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from ser_lightning.runs.predictions import Predictions
from ser_lightning.training.fold import run_fold

Arguments = Callable[..., list[str]]
Ser = Callable[..., tuple[int, str]]

pytestmark = pytest.mark.slow  # gradients of joint batches are in tests/systems, in seconds

TWO_PROCESSES = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")


@pytest.fixture(scope="module")
def odd_ravdess(synthetic_ravdess: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic corpus without one clip each of fold 0's validation and test set, so that both are odd.

    Its training set stays even, so that both processes have equal shares of every batch.
    """
    root = tmp_path_factory.mktemp("odd") / "ravdess"
    shutil.copytree(synthetic_ravdess, root)
    for actor in ("01", "03"):
        sorted(root.rglob(f"*-{actor}.wav"))[0].unlink()
    return root


@pytest.fixture(scope="module")
def odd_arguments(odd_ravdess: Path, arguments: Arguments) -> Arguments:
    """Arguments for a run on that corpus with only the initial weights random."""

    def make(folder: Path, *more: str) -> list[str]:
        settled = ("--model.init_args.dropout=0", "--model.init_args.input_noise=0")
        return arguments(folder, f"--data.init_args.root={odd_ravdess}", *settled, *more)

    return make


LOOPBACK = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture(scope="module")
def alone(odd_arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fold run by one process."""
    return run_fold(odd_arguments(tmp_path_factory.mktemp("alone"), "--trainer.logger=false"))


@pytest.fixture(scope="module")
def together(odd_arguments: Arguments, ser: Ser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same fold, run by two processes, with W&B offline."""
    folder = tmp_path_factory.mktemp("together")
    status, output = ser("run-fold", *odd_arguments(folder, *TWO_PROCESSES), **LOOPBACK)
    assert status == 0, output
    return folder


def test_two_processes_predict_from_a_checkpoint_as_one_does(
    alone: Path, tmp_path: Path, odd_arguments: Arguments, ser: Ser
) -> None:
    best = f"--ckpt_path={alone}/checkpoints/best.ckpt"
    status, output = ser("test", *odd_arguments(tmp_path, best, "--trainer.logger=false", *TWO_PROCESSES), **LOOPBACK)
    assert status == 0, output
    one, two = (Predictions.read(folder / "predictions.csv").table for folder in (alone, tmp_path))
    assert len(one) % 2 == 1, len(one)
    labels = ["utterance", "speaker", "fold", "target"]
    pd.testing.assert_frame_equal(one[labels], two[labels])
    probabilities = [column for column in one if column.startswith("probability_")]
    torch.testing.assert_close(
        torch.from_numpy(two[probabilities].to_numpy(copy=True)),
        torch.from_numpy(one[probabilities].to_numpy(copy=True)),
        atol=1e-6,
        rtol=0,
    )


def test_two_processes_write_a_folds_files_and_one_wandb_run(together: Path, alone: Path) -> None:
    names = {path.name for path in together.iterdir()}
    assert names == {path.name for path in alone.iterdir()} | {"metrics.csv", "wandb", "wandb_id"}
    assert {path.name for path in (together / "checkpoints").iterdir()} == {"best.ckpt", "best.md", "last.ckpt"}
    assert len(list((together / "wandb").glob("offline-run-*"))) == 1
    assert pd.read_csv(together / "metrics.csv")["epoch"].tolist() == [0, 1]


def test_a_fold_of_two_processes_scores_every_utterance_once(together: Path, alone: Path) -> None:
    for file in ("predictions.csv", "validation_predictions.csv"):
        one, two = (Predictions.read(folder / file).table for folder in (alone, together))
        assert two["utterance"].tolist() == one["utterance"].tolist()
        assert not two["utterance"].duplicated().any()
    validation = Predictions.read(together / "validation_predictions.csv").table
    correct = validation["target"] == validation["predicted"]
    best = pd.read_csv(together / "metrics.csv")["validation/UA"].max()
    assert best == pytest.approx(correct.groupby(validation["target"]).mean().mean())


def test_two_processes_train_the_weights_that_one_trains(together: Path, alone: Path) -> None:
    """Holds only if each training utterance is in the same batch as with one process, once per epoch."""
    one, two = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (alone, together)
    )
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(
            two[name], one[name], atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
    columns = ["train/loss", "validation/loss", "validation/UA"]
    tables = [pd.read_csv(folder / "metrics.csv")[columns] for folder in (alone, together)]
    pd.testing.assert_frame_equal(*tables, atol=1e-6, rtol=0)
