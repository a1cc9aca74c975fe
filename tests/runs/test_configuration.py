"""Comparing configurations."""

import yaml

from ser_lightning.runs.configuration import differing_keys, relevant

CONFIG = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 5, "devices": 1, "logger": None},
    "data": {"class_path": "data_modules.ravdess.RAVDESS", "init_args": {"root": "here", "batch_size": 32}},
}


def test_paths_and_hardware_do_not_make_another_run() -> None:
    elsewhere = yaml.safe_load(yaml.safe_dump(CONFIG))
    elsewhere["trainer"] |= {"devices": 8, "logger": False}
    elsewhere["data"]["init_args"]["root"] = "there"
    assert differing_keys(CONFIG, elsewhere) == []


def test_stating_the_default_precision_changes_nothing() -> None:
    silent, stated = ({**CONFIG, "trainer": {"precision": precision}} for precision in (None, "32-true"))
    assert differing_keys(silent, stated) == []
    assert len(differing_keys(silent, {**CONFIG, "trainer": {"precision": "bf16-mixed"}})) == 1


def test_relevant_values_have_full_keys() -> None:
    assert relevant(CONFIG) == {
        "seed_everything": 0,
        "trainer.max_epochs": 5,
        "data.class_path": "data_modules.ravdess.RAVDESS",
        "data.init_args.batch_size": 32,
    }
