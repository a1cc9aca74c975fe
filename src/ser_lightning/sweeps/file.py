"""Sweep files in W&B's format, which ``wandb sweep`` and ``ser sweep`` both read.

A file such as `experiments/sweeps/huang2020_grid.yaml` is an OmegaConf structured config: merged with ``key=value``
overrides, with errors that name file and key. Its ``command`` is a whole cross-validation.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, OmegaConf

from ser_lightning.errors import ConfigurationError
from ser_lightning.plain_files import parse_yaml, read_mapping, schema_errors
from ser_lightning.runs.summary import OBJECTIVES
from ser_lightning.sweeps.space import Categorical, Parameter, as_arguments, read_parameters
from ser_lightning.training.experiment_files import check_kind

_COMMAND = "[ser, cv, --config, <system>.yaml, --config, <corpus>.yaml, '${args}']"
_ARGUMENTS = "${args}"
_CALLERS_OPTIONS = ("--allow", "--address")  # they run code, here or from another machine
# An override of a parameter: its name, which may hold dots, and the field to set.
_PARAMETER_KEY = re.compile(r"parameters\.(.+)\.(value|values|min|max|q|distribution|probabilities)=.*", re.DOTALL)


class Method(Enum):
    """How the next parameters are drawn."""

    grid = "grid"
    random = "random"
    bayes = "bayes"


class Goal(Enum):
    """The direction of optimisation."""

    minimize = "minimize"
    maximize = "maximize"


@dataclass
class Metric:
    """The objective of a sweep.

    Attributes:
        name: Key in the summary run of a cross-validation.
        goal: Direction; W&B minimises by default.
        target: Value that ends the sweep once a trial reaches it.
    """

    name: str = MISSING
    goal: Goal = Goal.minimize
    target: float | None = None


@dataclass
class EarlyTerminate:
    """W&B's early termination: after some folds only the best trials continue.

    Attributes:
        type: ``hyperband``, the only supported type.
        min_iter: Folds after which a trial may first be stopped; then after ``eta`` times as many, and so on.
        max_iter: Folds of a complete trial; it may stop after ``max_iter / eta``, and so on, ``s`` times.
        s: Number of times at which a trial may be stopped, with ``max_iter``.
        eta: One in ``eta`` trials continues.
    """

    type: str = MISSING
    min_iter: int | None = None
    max_iter: int | None = None
    s: int | None = None
    eta: float = 3.0

    def first_rung(self) -> int:
        """Return the number of folds after which a trial may first be stopped."""
        if self.min_iter is not None:
            return self.min_iter
        # W&B divides max_iter by eta s times, or until the result is below 1.
        rungs = [int(cast(int, self.max_iter) / self.eta**power) for power in range(1, cast(int, self.s) + 1)]
        return min(rung for rung in rungs if rung >= 1)


@dataclass
class SweepFile:
    """The content of a sweep file.

    Attributes:
        method: How the next parameters are drawn.
        metric: The objective.
        parameters: Parameters in W&B's format, by LightningCLI's key.
        command: Command of a trial, with W&B's macros.
        program: Value of ``${program}`` in ``command``.
        early_terminate: When trials are stopped before their last fold.
        run_cap: Largest number of trials.
        name: Name in W&B.
        description: Purpose of the sweep.
        project: W&B's project.
        entity: W&B's team or user.
    """

    method: Method = MISSING
    metric: Metric = MISSING
    parameters: dict[str, Any] = MISSING
    command: list[str] = MISSING
    program: str = ""
    early_terminate: EarlyTerminate | None = None
    run_cap: int | None = None
    name: str = ""
    description: str = ""
    project: str = ""
    entity: str = ""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked.

    Attributes:
        path: The file.
        file: Its content.
        parameters: The parameters by LightningCLI's key.
        arguments: Arguments of ``ser cv`` for every trial, without those of its parameters.
    """

    path: Path
    file: SweepFile
    parameters: Mapping[str, Parameter] = field(hash=False)
    arguments: tuple[str, ...]

    def trial_limit(self, asked: int | None) -> int:
        """Return the largest number of trials: the requested one, the file's ``run_cap``, or the size of the grid.

        Raises:
            ConfigurationError: If there is no limit.
        """
        caps = [cap for cap in (asked, self.file.run_cap) if cap is not None]
        if self.file.method is Method.grid:
            points = math.prod(len(parameter.grid(name)) for name, parameter in self.parameters.items())
            return min([points, *caps[:1]])
        if not caps:
            raise ConfigurationError(f"{self.path}: method {self.file.method.value} has no limit; give --trials N")
        return caps[0]

    def reject_swept_keys(self, arguments: Sequence[str]) -> None:
        """Reject arguments that would fix a parameter of the sweep.

        Raises:
            ConfigurationError: Naming the first one.
        """
        for argument in arguments:
            name = argument.split("=")[0].removeprefix("--")
            if name in self.parameters:
                raise ConfigurationError(
                    f"--{name} is a parameter of {self.path}; to fix it, give parameters.{name}.values=[...]"
                )


def read_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file.

    Args:
        path: The YAML file.
        overrides: ``key=value`` for keys of the file, such as ``method=random`` or
            ``parameters.model.init_args.dropout.values=[0.1,0.2]``.

    Raises:
        ConfigurationError: Naming file and key, if a key is unknown, missing, of the wrong type, or one of W&B's that
            is not supported.
    """
    content = read_mapping(path, "sweep file; `ser experiments` lists and copies them")
    check_kind(path, content, "a sweep")
    with schema_errors(path):
        schema = OmegaConf.structured(SweepFile)
        # W&B's macros look like OmegaConf's interpolations, which sweep files do not use.
        merged = OmegaConf.merge(schema, OmegaConf.create(_escaped(_overridden(content, overrides))))
        file = cast(SweepFile, OmegaConf.to_object(merged))
    try:
        _check(file)
        parameters = read_parameters(file.parameters)
        if file.method is Method.grid:
            parameters = {name: Categorical(tuple(parameter.grid(name))) for name, parameter in parameters.items()}
        if all(isinstance(parameter, Categorical) and len(parameter.values) == 1 for parameter in parameters.values()):
            raise ConfigurationError("parameters: none has more than one value")
        sweep = Sweep(path, file, parameters, tuple(_cv_arguments(file.command, file.program)))
        sweep.reject_swept_keys(sweep.arguments)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return sweep


def _overridden(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` to a file's content; dots in names of parameters are not levels."""
    others = {}
    for override in overrides:
        key, _, value = override.partition("=")
        try:
            parsed = parse_yaml(value)
        except ValueError as error:
            raise ConfigurationError(f"{override}: the value is not YAML: {error}") from error
        if found := _PARAMETER_KEY.fullmatch(override):
            name, key = found.groups()
            parameters = content.setdefault("parameters", {})
            if not isinstance(parameters, dict):
                raise ConfigurationError(f"parameters: {parameters!r} does not fit; give keys with values")
            # value and values replace the whole parameter; other fields change a range.
            earlier = parameters.get(name) if key not in ("value", "values") else None
            parameters[name] = {**(earlier if isinstance(earlier, dict) else {}), key: parsed}
        else:
            others[key] = parsed
    config = OmegaConf.create(_escaped(content))
    for key, parsed in others.items():
        OmegaConf.update(config, key, _escaped(parsed))
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def _check(file: SweepFile) -> None:
    metric = file.metric
    if metric.name not in OBJECTIVES:
        raise ConfigurationError(
            f"metric.name is '{metric.name}'; it must be a validation score, not a test score: {', '.join(OBJECTIVES)}"
        )
    if metric.goal is not Goal.maximize:
        raise ConfigurationError(f"metric.goal must be maximize for {metric.name} (W&B's default is minimize)")
    early = file.early_terminate
    if early is None:
        return
    if early.type != "hyperband":
        raise ConfigurationError(f"early_terminate.type is '{early.type}'; only hyperband is supported")
    if early.min_iter is None and (early.max_iter is None or early.s is None):
        raise ConfigurationError("early_terminate needs min_iter, or max_iter and s; each counts folds")
    if early.eta != int(early.eta) or early.eta < 2:
        raise ConfigurationError(f"early_terminate.eta is {early.eta}; it must be an integer above 1")
    if early.min_iter is None and cast(int, early.max_iter) / early.eta < 1:
        raise ConfigurationError(f"early_terminate.max_iter is {early.max_iter}; it must be at least eta {early.eta:g}")


def _cv_arguments(command: Sequence[str], program: str) -> list[str]:
    """Return the arguments of ``ser cv`` in a sweep's command."""
    parts = [program if part == "${program}" else part for part in command if part != "${env}"]
    if len(parts) < 2 or Path(parts[0]).name != "ser" or parts[1] != "cv" or parts.count(_ARGUMENTS) != 1:
        raise ConfigurationError(f"command is {list(command)}; it must be of the form {_COMMAND}")
    fixed = parts[2:]
    fixed.remove(_ARGUMENTS)
    if odd := next((part for part in fixed if "${" in part), None):
        raise ConfigurationError(
            f"command: {odd} is not supported, because a shared file must not read the environment; use {_ARGUMENTS}, "
            "and give other values on the command line"
        )
    if untrusted := next((part for part in fixed if part.split("=")[0] in _CALLERS_OPTIONS), None):
        raise ConfigurationError(
            f"command: {untrusted} is for the caller of ser sweep, not for a shared file; remove it"
        )
    return fixed


def trial_arguments(arguments: Sequence[str], parameters: Mapping[str, Any]) -> list[str]:
    """Return LightningCLI's arguments for a trial: shared arguments, then parameters."""
    return [*arguments, *as_arguments(parameters)]
