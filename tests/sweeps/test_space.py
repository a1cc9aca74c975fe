"""Parameters in W&B's format: what is drawn stays within them, as W&B draws it, and what is not supported is named."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from sweeps.params import HyperParameter

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.configuration import flatten
from ser_lightning.runs.names import in_words, is_trial, trial_row
from ser_lightning.sweeps.space import Categorical, Parameter, as_arguments, read_parameters

DRAWS = 300


def draws(entry: dict[str, Any]) -> list[Any]:
    parameter = read_parameters({"x": entry})["x"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [parameter.draw(study.ask(), "x") for _ in range(DRAWS)]


@pytest.mark.parametrize(
    "entry",
    [
        {"min": 0.5, "max": 2.5},
        {"min": 2, "max": 7},
        {"distribution": "int_uniform", "min": -3, "max": 3},
        {"distribution": "uniform", "min": 0, "max": 1},
        {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2},
        {"distribution": "q_uniform", "min": 0.05, "max": 0.5, "q": 0.1},
        {"distribution": "q_uniform", "min": 3, "max": 30, "q": 5},
        {"distribution": "q_log_uniform_values", "min": 8, "max": 512, "q": 8},
        {"values": [0.1, 0.2, 0.5], "probabilities": [0.2, 0.5, 0.3]},
    ],
)
def test_a_parameter_has_wandbs_distribution(entry: dict[str, Any]) -> None:
    reference = HyperParameter("x", dict(entry))
    ours = np.sort(np.array(draws(entry), dtype=float))
    theirs = np.array([reference.ppf((index + 0.5) / DRAWS) for index in range(DRAWS)], dtype=float)
    # Two samples of one distribution have similar quantiles, relative to its range.
    assert np.abs(ours - theirs).mean() < 0.06 * np.ptp(theirs), (ours[::30], theirs[::30])
    assert set(np.round(ours, 9)) <= set(np.round(theirs, 9)) or len(set(theirs)) > 20


def test_two_integers_without_a_distribution_mean_integers() -> None:
    assert set(draws({"min": 1, "max": 3})) == {1, 2, 3}
    assert all(isinstance(value, float) for value in draws({"min": 1, "max": 3.5}))


def test_values_that_are_equal_to_optuna_keep_their_types() -> None:
    found = Counter(map(repr, draws({"values": [1, 1.0, True, None, "1", [0.9, 0.98]]})))
    assert set(found) == {"1", "1.0", "True", "None", "'1'", "[0.9, 0.98]"}


def test_groups_are_flattened_into_lightnings_keys() -> None:
    content = {"model": {"parameters": {"init_args": {"parameters": {"dropout": {"value": 0.3}}}}}, "lr": {"value": 1}}
    assert read_parameters(content) == {"model.init_args.dropout": Categorical((0.3,)), "lr": Categorical((1,))}


def test_a_grid_counts_as_wandbs_does() -> None:
    parameters: dict[str, Parameter] = read_parameters(
        {
            "a": {"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0.1},
            "b": {"min": 2, "max": 4},
            "c": {"values": ["x", 1]},
        }
    )
    # numpy.arange(0.1, 0.5, 0.1), as in W&B's search.
    assert list(parameters["a"].grid("a")) == [0.1, 0.2, 0.3, 0.4]
    assert list(parameters["b"].grid("b")) == [2, 3, 4]
    assert list(parameters["c"].grid("c")) == ["x", 1]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"distribution": "normal", "mu": 0.0, "sigma": 1.0}, "distribution 'normal'"),
        ({"distribution": "log_uniform", "min": -3.0, "max": 0.0}, "log_uniform_values"),
        ({"values": []}, r"values is \[\]"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "probabilities"),
        ({"min": 3, "max": 2}, "min 3 .*max 2"),
        ({"min": 1}, r"x\.max"),
        ({"min": "a", "max": 2}, "min is 'a'"),
        ({"min": 0.0, "max": 1.0, "distribution": "log_uniform_values"}, "min is 0.0"),
        ({"min": 0.0, "max": 1.0, "distribution": "q_uniform", "q": 0}, "q is 0"),
        ({"value": 1, "valu": 2}, "x.valu "),
        ({"min": 0.0, "max": math.inf}, "max is inf"),
        ({"min": math.nan, "max": 1.0}, "min is nan"),
        ({"min": 0.0, "max": 1.0, "distribution": "q_uniform", "q": math.nan}, "q is nan"),
        ({"min": 0.6, "max": 0.9, "distribution": "q_uniform", "q": 0.5}, "no multiple"),
        ({"values": [1, 2], "probabilities": [1.5, -0.5]}, "probabilities"),
        ({"values": [1, 2], "probabilities": ["a", 1]}, "probabilities"),
        ({"values": [1, 2], "probabilities": 1}, "probabilities is 1"),
        ({"parameters": 5}, "5 is not a group"),
        (3, r"x: 3 "),
    ],
)
def test_an_invalid_parameter_is_named(entry: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        read_parameters({"x": entry})


@pytest.mark.parametrize("entry", [{"min": 0.0, "max": 1.0}, {"values": [1, 2], "probabilities": [0.5, 0.5]}])
def test_a_parameter_unfit_for_a_grid_is_named(entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"parameters\.x"):
        read_parameters({"x": entry})["x"].grid("x")


def test_a_trials_row_depends_on_its_parameters_alone() -> None:
    def with_groups(dropout: float) -> dict[str, Any]:
        return {"b": 1, "model": {"init_args": {"dropout": dropout}}}

    assert trial_row({"model.init_args.dropout": 0.3, "b": 1}) == trial_row(with_groups(0.3))
    assert trial_row(with_groups(0.3)) != trial_row(with_groups(0.31))
    assert trial_row(with_groups(0.3), "quick").startswith("quick-")
    assert dict(flatten(with_groups(0.3))) == {"b": 1, "model.init_args.dropout": 0.3}


def test_a_class_is_shown_by_its_name_and_arguments() -> None:
    ghosts = "{class_path: ser_lightning.nn.pooling.GhostVLAD, init_args: {ghosts: 2, clusters: 8}}"
    shown = {
        "ser_lightning.nn.pooling.MeanPooling": "MeanPooling",
        ghosts: "GhostVLAD ghosts=2 clusters=8",
        "{class_path: 3}": "{class_path: 3}",
        "{torn": "{torn",
        "a b.c": "a b.c",
        0.25: "0.25",
        8: "8",
    }
    assert {value: in_words(value) for value in shown} == shown
    row = trial_row({"model.init_args.pooling": ghosts})
    assert row.startswith("trial-pooling=GhostVLAD-ghosts=2-clusters=8-")
    assert is_trial(row)


@pytest.mark.parametrize(
    ("value", "text"), [(0.1, "0.1"), ("relu", "relu"), (None, "null"), (True, "true"), ([1], "[1]")]
)
def test_parameters_become_arguments_of_equal_yaml_value(value: Any, text: str) -> None:
    assert as_arguments({"a.b": value}) == [f"--a.b={text}"]


@pytest.fixture(autouse=True)
def _quiet() -> Callable[[], None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return lambda: None


@pytest.mark.parametrize("kind", ["q_uniform", "q_log_uniform_values"])
@pytest.mark.parametrize(("low", "high", "q"), [(0.3, 0.95, 0.2), (1, 9, 4), (0.01, 0.99, 0.1)])
def test_rounded_numbers_stay_within_their_range(kind: str, low: float, high: float, q: float) -> None:
    drawn = read_parameters({"x": {"distribution": kind, "min": low, "max": high, "q": q}})["x"]
    for number in (low, high, (low + high) / 2):
        value = drawn.draw(optuna.trial.FixedTrial({"x": number}), "x")
        assert low <= value <= high
        assert value / q == pytest.approx(round(value / q))


def test_a_grid_too_large_to_list_is_named() -> None:
    for entry in ({"min": 0, "max": 10**12}, {"min": 0.0, "max": 1.0, "q": 1e-9, "distribution": "q_uniform"}):
        with pytest.raises(ConfigurationError, match=r"parameters\.x: a grid of"):
            read_parameters({"x": entry})["x"].grid("x")
