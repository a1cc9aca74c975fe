"""Names of runs, and the folders they claim."""

import copy
from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.folder import (
    claim_folder,
    claim_sources,
    code_version,
    is_finished,
    read_config,
    recorded_sources,
    reject_other_run,
    write_config,
)
from ser_lightning.runs.names import RunName, name_from_path

CONFIG = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 5, "devices": 1, "logger": None},
    "data": {"class_path": "data_modules.ravdess.RAVDESS", "init_args": {"root": "here", "batch_size": 32}},
}


def test_the_run_folder_follows_from_the_name() -> None:
    name = RunName("huang2020", "netvlad", "ravdess-synthetic", "default", seed=1, fold=3)
    assert name.folder() == Path("runs/huang2020/netvlad/ravdess-synthetic/default/seed-1/fold-03")
    assert name.group == "huang2020/netvlad/ravdess-synthetic/default/seed-1"
    assert name.row_folder(Path("x")) == Path("x/huang2020/netvlad/ravdess-synthetic/default")
    assert RunName("", "mine", "c", "default", 0, 0).group == "mine/c/default/seed-0"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("some/experiments/huang2020/ravdess/netvlad.yaml", ("huang2020", "netvlad")),
        ("some/experiments/huang2020/netvlad.yaml", ("huang2020", "netvlad")),
        ("experiments/quickstart.yaml", ("", "quickstart")),
        ("/nowhere/mine.yaml", ("", "mine")),
    ],
)
def test_the_path_of_a_yaml_gives_paper_and_experiment(path: str, name: tuple[str, str]) -> None:
    assert name_from_path(Path(path)) == name


def test_a_planned_folder_can_be_claimed_by_another_run(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG)
    other = {**CONFIG, "seed_everything": 1}
    reject_other_run(tmp_path, other, "abc")
    claim_folder(tmp_path, other, "abc")
    assert read_config(tmp_path) == other
    with pytest.raises(ConfigurationError, match="seed_everything: 1 there, 0 now"):
        reject_other_run(tmp_path, CONFIG, "abc")


def test_a_folder_of_another_run_is_rejected_key_by_key(tmp_path: Path) -> None:
    claim_folder(tmp_path, CONFIG, "abc")
    claim_folder(tmp_path, CONFIG, "abc")  # the same run may claim it again
    other = copy.deepcopy(CONFIG)
    other["trainer"]["max_epochs"] = 6
    del other["data"]["init_args"]["batch_size"]
    with pytest.raises(ConfigurationError) as caught:
        claim_folder(tmp_path, other, "def")
    message = str(caught.value)
    assert "trainer.max_epochs: 5 there, 6 now" in message
    assert "data.init_args.batch_size: 32 there, absent now" in message
    assert "split_hash: 'abc' there, 'def' now" in message
    assert "--row" in message


@pytest.mark.parametrize(
    ("content", "cause"), [(b"trainer: [", "while parsing"), (b"\xff\xfet\x00", "codec can't decode"), (b"", "no keys")]
)
def test_a_damaged_configuration_is_named_with_the_way_out(content: bytes, cause: str, tmp_path: Path) -> None:
    claim_folder(tmp_path, CONFIG, "abc")
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"config.yaml.*\(.*{cause}.*\).*delete"):
        claim_folder(tmp_path, CONFIG, "abc")


def test_a_damaged_split_hash_is_named_and_shown_in_part(tmp_path: Path) -> None:
    claim_folder(tmp_path, CONFIG, "abc")
    (tmp_path / "split_hash").write_text("abc" + "\n# x" * 1000)
    with pytest.raises(ConfigurationError, match=r"split_hash: 'abc\\n# x.* there") as caught:
        claim_folder(tmp_path, CONFIG, "abc")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "7"])
def test_a_damaged_run_json_does_not_hide_that_a_fold_is_finished(tmp_path: Path, content: str) -> None:
    (tmp_path / "predictions.csv").touch()
    (tmp_path / "run.json").write_text(content)
    assert is_finished(tmp_path)


def test_a_missing_split_hash_is_named(tmp_path: Path) -> None:
    claim_folder(tmp_path, CONFIG, "abc")
    (tmp_path / "split_hash").rename(tmp_path / "predictions.csv")
    with pytest.raises(ConfigurationError, match=r"split_hash is missing.*delete"):
        claim_folder(tmp_path, CONFIG, "abc")


@pytest.mark.parametrize("content", ['{"model.init_args', "[]"])
def test_a_damaged_record_of_checkpoints_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "source_hashes.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"source_hashes\.json.*delete the folder"):
        recorded_sources(tmp_path)


def test_a_changed_source_checkpoint_is_rejected(tmp_path: Path) -> None:
    stage, run = tmp_path / "stage.ckpt", tmp_path / "run"
    stage.write_text("weights")
    config = {"model": {"init_args": {"encoder_checkpoint": str(stage), "other_checkpoint": None}}}
    claim_sources(run, config)
    assert list(recorded_sources(run)) == ["model.init_args.encoder_checkpoint"]
    (tmp_path / "copy.ckpt").write_text("weights")
    claim_sources(run, {"model": {"init_args": {"encoder_checkpoint": str(tmp_path / "copy.ckpt")}}})
    stage.write_text("others")
    with pytest.raises(ConfigurationError, match=r"run .*model\.init_args\.encoder_checkpoint"):
        claim_sources(run, config)
    stage.unlink()
    claim_sources(run, config)  # to evaluate, the run's own checkpoint is enough
    assert list(recorded_sources(run)) == ["model.init_args.encoder_checkpoint"]


def test_the_code_version_begins_with_the_packages() -> None:
    assert code_version().startswith("0.")
