"""Errors of the command line, and classes named without their module."""

from collections.abc import Mapping
from typing import Any

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.training.experiment import resolve

QUICKSTART = "--config=experiments/quickstart.yaml"

# Argument, what the error says of its value, and the name it proposes.
MISSPELT = {
    "pooling": ("--model.init_args.pooling=NetVlad", "'NetVlad'", "ser_lightning.nn.pooling.NetVLAD?"),
    "path": (
        "--model.init_args.pooling.class_path=ser_lightning.nn.pooling.NetVlad",
        "'NetVlad'",
        "ser_lightning.nn.pooling.NetVLAD?",
    ),
    "system": ("--model=PooledLSTMs", "'PooledLSTMs'", "ser_lightning.systems.PooledLSTM?"),
    "criterion": ("--model.init_args.criterion=LabelSmooth", "'LabelSmooth'", "ser_lightning.losses.LabelSmoothing?"),
    "optimizer": ("--model.init_args.optimizer=Adem", "'Adem'", "torch.optim.Adam?"),
    "corpus": ("--data=Ravdess", "'Ravdess'", "data_modules.ravdess.RAVDESS?"),
    "callback": ("--trainer.callbacks+=EarlyStoping", "'EarlyStoping'", "EarlyStopping?"),
    "system's argument": ("--model.init_args.cell=3", "'cell'", "did you mean cells?"),
    "corpus's argument": ("--data.init_args.batchsize=3", "'batchsize'", "did you mean batch_size?"),
    "extractor's argument": ("--data.init_args.extractor.init_args.num_mel=3", "'num_mel'", "did you mean num_mels?"),
    "trainer's argument": ("--trainer.max_epoch=3", "--trainer.max_epoch", "--trainer.max_epochs"),
}


@pytest.mark.parametrize("kind", MISSPELT)
def test_a_misspelt_name_gets_the_nearest_one(kind: str) -> None:
    argument, wrong, near = MISSPELT[kind]
    with pytest.raises(ConfigurationError) as error:
        resolve([QUICKSTART, argument])
    message = str(error.value)
    assert message.startswith("command line")
    assert wrong in message
    assert near in message
    assert "\n" not in message


def test_a_name_like_no_class_gets_an_example() -> None:
    with pytest.raises(ConfigurationError, match=r"'Qwxyz' is not a class; give a path such as ser_lightning"):
        resolve([QUICKSTART, "--model.init_args.pooling=Qwxyz"])


@pytest.mark.parametrize(
    ("arguments", "key", "path"),
    [
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=validation/UA"],
            "callbacks",
            "ser_lightning.callbacks.EarlyStopping",
        ),
        (["--trainer.logger=WandbLogger"], "logger", "ser_lightning.loggers.WandbLogger"),
        (
            ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=."],
            "logger",
            "lightning.pytorch.loggers.CSVLogger",
        ),
    ],
)
def test_a_short_class_name_means_ours_where_both_have_it(arguments: list[str], key: str, path: str) -> None:
    more = ["--trainer.callbacks.mode=max"] if key == "callbacks" else []
    found: Any = resolve([QUICKSTART, *arguments, *more])["trainer"][key]
    (chosen,) = found if isinstance(found, list) else [found]
    assert isinstance(chosen, Mapping)
    assert chosen["class_path"] == path
