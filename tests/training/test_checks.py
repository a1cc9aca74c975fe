"""What is refused before training: no validation, and what would not resume exactly."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from ser_lightning.cli.__main__ import main
from ser_lightning.errors import ConfigurationError
from ser_lightning.training.experiment import ExperimentCLI

pytestmark = pytest.mark.usefixtures("small_pictures")

Arguments = Callable[..., list[str]]
LIGHTNING = "lightning.pytorch.callbacks"


@pytest.mark.parametrize(
    ("callback", "named"),
    [
        ({"EarlyStopping": ["monitor=validation/UA"]}, "use ser_lightning.callbacks.EarlyStopping"),
        ({"ModelCheckpoint": []}, "best_checkpoint.monitor"),
        ({"Timer": []}, "trainer.max_time"),
        ({"StochasticWeightAveraging": ["swa_lrs=0.1"]}, "ser_lightning.callbacks.EarlyStopping, .*TQDMProgressBar"),
    ],
)
def test_a_callback_that_may_not_resume_exactly_is_refused(
    callback: dict[str, list[str]], named: str, tmp_path: Path, arguments: Arguments
) -> None:
    ((name, given),) = callback.items()
    more = [f"--trainer.callbacks+={LIGHTNING}.{name}", *(f"--trainer.callbacks.{argument}" for argument in given)]
    with pytest.raises(ConfigurationError, match=rf"{name} is not known to resume exactly.*{named}"):
        ExperimentCLI(arguments(tmp_path, "--trainer.logger=false", *more), run=False)


def test_progress_bars_and_trusted_callbacks_are_accepted(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_callbacks.py").write_text(
        textwrap.dedent("""
        from lightning.pytorch import Callback
        class Mine(Callback): ...
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    more = ["--trainer.logger=false", "--trainer.enable_progress_bar=true"]
    both = [f"--trainer.callbacks+={LIGHTNING}.TQDMProgressBar", "--trainer.callbacks+=my_callbacks.Mine"]
    cli = ExperimentCLI(arguments(tmp_path, *more, *both), run=False, allow=["my_callbacks"])
    assert {"TQDMProgressBar", "Mine"} <= {type(callback).__name__ for callback in cli.trainer.callbacks}
    sys.modules.pop("my_callbacks")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--trainer.val_check_interval=2"], "val_check_interval is 2,.*limit_train_batches"),
        (["--trainer.val_check_interval=1"], "val_check_interval is 1,"),  # a batch; 1.0 is an epoch
        (["--trainer.val_check_interval=0.5"], "val_check_interval is 0.5,"),
        (["--trainer.min_steps=3"], "min_steps is 3.*min_epochs"),
        (["--trainer.limit_val_batches=0"], "limit_val_batches is 0"),
        (["--trainer.limit_val_batches=0.0"], "limit_val_batches is 0.0"),
        (["--trainer.limit_train_batches=0"], "limit_train_batches is 0"),
        (["--trainer.check_val_every_n_epoch=5"], "check_val_every_n_epoch is 5.*max_epochs, 2"),
        (["--trainer.max_epochs=0"], "max_epochs is 0"),
        (["--trainer.max_steps=0"], "max_steps is 0"),
        (["--trainer.max_epochs=-1"], "max_epochs is -1.*not end"),
        (["--trainer.max_epochs=null"], "max_epochs is None.*not end"),
    ],
)
def test_settings_without_validation_or_exact_resume_are_refused(
    more: list[str], named: str, tmp_path: Path, arguments: Arguments
) -> None:
    with pytest.raises(ConfigurationError, match=rf"trainer\.{named}"):
        ExperimentCLI(arguments(tmp_path, "--trainer.logger=false", *more), run=False)


def test_evaluation_may_leave_out_validation(tmp_path: Path, arguments: Arguments) -> None:
    more = ("--trainer.logger=false", "--trainer.limit_val_batches=0", "--trainer.max_epochs=null")
    ExperimentCLI(["test", *arguments(tmp_path, *more)])
    ExperimentCLI(arguments(tmp_path, "--trainer.val_check_interval=1.0", "--trainer.fast_dev_run=true"), run=False)


def test_steps_that_end_before_the_first_validation_are_refused_before_training(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    few = arguments(tmp_path, "--trainer.logger=false", "--data.init_args.batch_size=8")
    assert main(["run-fold", *few, "--trainer.max_steps=3"]) == 1
    assert "max_steps is 3, but the first validation comes after 4 steps" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()
    accumulated = ["--trainer.max_steps=2", "--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=-1"]
    assert (
        main(["run-fold", *few[:-1], f"--trainer.default_root_dir={tmp_path / 'other'}", *few[-1:], *accumulated]) == 0
    )


def test_a_share_of_batches_below_one_is_one_error(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run-fold", *arguments(tmp_path, "--trainer.logger=false", "--trainer.limit_val_batches=0.001")]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: trainer: ")
    assert "0.001" in said


def test_time_that_ends_before_the_first_validation_keeps_the_last_checkpoint(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, "--trainer.logger=false", "--trainer.max_time=00:00:00:01")
    more = ["--trainer.check_val_every_n_epoch=100000", "--trainer.max_epochs=100000"]
    for _ in range(2):  # the same command says the same again
        assert main(["run-fold", *given, *more]) == 1
        said = capsys.readouterr().err
        assert f"{tmp_path}: training ended before an epoch was validated" in said
        assert "max_time 00:00:00:01" in said
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
