"""What makes two configurations different."""

import yaml

from ser_lightning.runs.configuration import differing_keys, relevant, unlike_file

CONFIG = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 5, "devices": 1, "logger": None},
    "data": {"class_path": "data_modules.ravdess.RAVDESS", "init_args": {"root": "here", "batch_size": 32}},
}


def test_where_things_lie_and_what_computes_do_not_make_another_run() -> None:
    elsewhere = yaml.safe_load(yaml.safe_dump(CONFIG))
    elsewhere["trainer"] |= {"devices": 8, "logger": False}
    elsewhere["data"]["init_args"]["root"] = "there"
    assert differing_keys(CONFIG, elsewhere) == []


def test_what_runs_have_otherwise_than_a_file_is_said_with_values_of_any_kind() -> None:
    filed = {"a": "there, now", "b": 1, "fold": 0}
    runs = [{"a": "x: y there, z", "b": 1, "fold": 1}, {"a": "c", "b": 2, "fold": 2}]
    assert unlike_file(runs, filed, lambda difference: difference.key == "fold") == {
        "a": "a 'x: y there, z' (file: 'there, now')",
        "b": "b 2 (file: 1)",
    }


def test_what_matters_is_told_by_key_from_the_top() -> None:
    assert relevant(CONFIG) == {
        "seed_everything": 0,
        "trainer.max_epochs": 5,
        "data.class_path": "data_modules.ravdess.RAVDESS",
        "data.init_args.batch_size": 32,
    }
