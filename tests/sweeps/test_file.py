"""Sweep files: W&B takes every one that is here, and errors name file and key."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ser_lightning.errors import ConfigurationError
from ser_lightning.sweeps.file import Method, read_sweep, trial_arguments
from ser_lightning.training.arguments import config_files
from ser_lightning.training.experiment import resolve

FILES = sorted(Path("experiments/sweeps").glob("*.yaml"))
CONTENT: dict[str, Any] = {
    "program": "ser",
    "method": "grid",
    "metric": {"name": "cv/validation_UA_mean", "goal": "maximize"},
    "parameters": {
        "model.init_args.dropout": {"values": [0.1, 0.2]},
        "model.init_args.cells": {"value": 8},
    },
    "command": ["ser", "cv", "--config", "experiments/quickstart.yaml", "--folds=0,1", "${args}"],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}))
    return path


def test_there_is_a_sweep_for_each_paper_and_each_method() -> None:
    papers = {"huang2020", "zhou2020", "ando2019", "mocanu2021"}
    assert {path.stem.split("_")[0] for path in FILES} == papers | {"quickstart", "self"}
    assert {read_sweep(path).file.method for path in FILES} == set(Method)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sweep_files_pass_wandbs_validation(path: Path) -> None:
    from sweeps.config import schema_violations_from_proposed_config

    assert schema_violations_from_proposed_config(yaml.safe_load(path.read_text())) == []


@pytest.mark.slow  # importing W&B's agent takes 10 s
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_wandb_agent_runs_what_ser_sweep_runs(path: Path) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args  # a slow import

    sweep = read_sweep(path)
    values = dict.fromkeys(sweep.parameters, 0.25)
    content = yaml.safe_load(path.read_text())
    macros = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    agents = [
        argument
        for part in create_sweep_command(content["command"])
        for argument in (macros["args"] if part == "${args}" else [part])
    ]
    assert agents == ["ser", "cv", *trial_arguments(sweep.arguments, values)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_parameters_of_a_sweep_file_are_keys_of_its_experiment(path: Path) -> None:
    sweep = read_sweep(path)
    experiment = yaml.safe_load(config_files(sweep.arguments)[0].read_text())
    for name in sweep.parameters:
        node = experiment
        for part in name.split("."):
            assert part in node, f"{name}: no {part}"
            node = node[part]


@pytest.mark.slow
def test_a_group_of_wandbs_agent_reaches_the_system(synthetic_ravdess: Path) -> None:
    """The agent writes a group as one argument, a Python dictionary."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    handed = create_sweep_command_args({"args": {"model": {"value": {"init_args": {"dropout": 0.125, "cells": 4}}}}})
    arguments = ["--config=experiments/quickstart.yaml", f"--data.init_args.root={synthetic_ravdess}", *handed["args"]]
    model = resolve(arguments)["model"]
    assert (model["init_args"]["dropout"], model["init_args"]["cells"]) == (0.125, 4)
    assert model["class_path"].endswith("PooledLSTM")


def test_overrides_change_keys_and_parameters_with_dots(tmp_path: Path) -> None:
    overrides = ["method=random", "parameters.model.init_args.dropout.values=[0.3, 0.4]", "metric.target=0.9"]
    sweep = read_sweep(written(tmp_path), overrides)
    assert sweep.file.method is Method.random
    assert sweep.parameters["model.init_args.dropout"].values == (0.3, 0.4)  # type: ignore[union-attr]
    assert sweep.file.metric.target == 0.9


@pytest.mark.parametrize("macro", ["${envvar:WANDB_API_KEY}", "${oc.env:WANDB_API_KEY}", "${WANDB_API_KEY}"])
def test_a_command_does_not_read_the_environment(macro: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    command = ["${env}", ".venv/bin/ser", "cv", f"--run.row={macro}", "${args}"]
    with pytest.raises(ConfigurationError, match=re.escape(macro)) as raised:
        read_sweep(written(tmp_path, command=command))
    assert "secret" not in str(raised.value)


def test_the_program_may_be_separate_from_the_command(tmp_path: Path) -> None:
    command = ["${env}", "${program}", "cv", "--config", "x.yaml", "${args}"]
    named = read_sweep(written(tmp_path, program=".venv/bin/ser", command=command))
    assert named.arguments == read_sweep(written(tmp_path, command=["ser", *command[2:]])).arguments
    with pytest.raises(ConfigurationError, match="command"):
        read_sweep(written(tmp_path, program="train.py", command=command))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "hill"}, "method"),
        ({"methods": "grid"}, "methods"),
        ({"metric": {"name": "cv/test_UA_mean", "goal": "maximize"}}, "cv/test_UA_mean"),
        ({"metric": {"name": "cv/validation_UA_mean"}}, "metric.goal .*maximize"),
        ({"command": ["python", "x.py", "${args}"]}, "command"),
        ({"command": ["ser", "cv", "--config", "x.yaml"]}, "command"),
        ({"command": ["ser", "cv", "${args_json}", "${args}"]}, "args_json"),
        ({"command": ["ser", "cv", "--model.init_args.cells=3", "${args}"]}, "--model.init_args.cells"),
        ({"parameters": {"a": {"value": 1}}}, "parameters"),
        ({"parameters": {"a": {"min": 0.0, "max": 1.0}}}, "parameters.a"),
        ({"early_terminate": {"type": "median"}}, "early_terminate.type .*'median'"),
        ({"early_terminate": {"type": "hyperband"}}, "min_iter"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1.5}}, "eta is 1.5"),
        ({"early_terminate": {"type": "hyperband", "min_itr": 1}}, "min_itr"),
        ({"run_cap": "many"}, "run_cap"),
    ],
)
def test_an_error_names_the_file_and_the_key(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=named) as error:
        read_sweep(written(tmp_path, **changes))
    assert "sweep.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml"):
        read_sweep(tmp_path / "nothing.yaml")
    (tmp_path / "sweep.yaml").write_text("a: [")
    with pytest.raises(ConfigurationError, match=r"sweep\.yaml .*YAML"):
        read_sweep(tmp_path / "sweep.yaml")
    (tmp_path / "sweep.yaml").write_bytes(b"method: \xe4")
    with pytest.raises(ConfigurationError, match=r"sweep\.yaml .*UTF-8"):
        read_sweep(tmp_path / "sweep.yaml")
    with pytest.raises(ConfigurationError, match="folder"):
        read_sweep(tmp_path)


def test_early_termination_begins_where_wandbs_does(tmp_path: Path) -> None:
    by_end = {"type": "hyperband", "max_iter": 9, "s": 2, "eta": 3}
    for early, expected in (({"type": "hyperband", "min_iter": 2}, 2), (by_end, 1), ({**by_end, "s": 5}, 1)):
        found = read_sweep(written(tmp_path, early_terminate=early)).file.early_terminate
        assert found is not None
        assert found.first_rung() == expected, early


def test_reading_a_sweep_needs_no_optuna(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    read_sweep(written(tmp_path))


@pytest.mark.parametrize("option", [["--allow", "os"], ["--allow=os"], ["--address=elsewhere:6379"]])
def test_a_file_does_not_trust_modules_or_machines(option: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"command: {option[0]}"):
        read_sweep(written(tmp_path, command=["ser", "cv", "--config=x.yaml", *option, "${args}"]))
