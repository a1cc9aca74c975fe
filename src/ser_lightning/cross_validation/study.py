"""The study of a sweep in Optuna's database: how trials are drawn, when they are stopped, and where they are kept."""

import json
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from ser_lightning.cross_validation.sweep_file import Method, Sweep
from ser_lightning.errors import ConfigurationError

RANDOM_BEFORE_BAYES = 5
# Kept with a trial that repeats another: that one's number.
AGAIN = "again"
_SEED = 0
_ATTEMPTS_TO_OPEN = 4


class _ByNumber(BaseSampler):
    """Draw each trial from a sampler of its own, seeded with its place among the trials.

    A sampler that is seeded once repeats its first draws when a sweep goes on, and in every process that joins.

    Args:
        make: Makes a sampler of a seed.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._sampler = make(_SEED)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Take the sampler of this trial; one that is begun again keeps its parameters, and takes nobody's place."""
        earlier = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
        place = sum(AGAIN not in other.user_attrs for other in earlier)
        self._sampler = self._make(random.Random(f"{_SEED} {place}").getrandbits(32))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what the sampler draws together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw these together."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one by itself."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def open_study(sweep: Sweep, name: str, url: str) -> tuple[Study, str]:
    """Return the study of a sweep, made if it is not there, and the database's URL without a password.

    Args:
        sweep: What is swept.
        name: Names the sweep in the database.
        url: The database.

    Raises:
        ConfigurationError: If the database cannot be used.
    """
    try:
        # SQLAlchemy's own default for PostgreSQL is a driver that is not ours.
        address = make_url(re.sub("^postgres(ql)?:", "postgresql+psycopg:", url))
        storage = _storage(address.render_as_string(hide_password=False))
        with suppress(DuplicatedStudyError):
            optuna.create_study(storage=storage, study_name=name, direction="maximize")
        study = optuna.load_study(storage=storage, study_name=name, sampler=_sampler(sweep), pruner=_pruner(sweep))
        return study, address.render_as_string()
    except (ArgumentError, ModuleNotFoundError, SQLAlchemyError) as error:
        raise ConfigurationError(f"--storage cannot be used: {str(error).splitlines()[0]}") from error


def _sampler(sweep: Sweep) -> BaseSampler:
    if sweep.file.method is Method.random:
        return _ByNumber(lambda seed: RandomSampler(seed=seed))
    if sweep.file.method is Method.bayes:
        return _ByNumber(lambda seed: TPESampler(seed=seed, n_startup_trials=RANDOM_BEFORE_BAYES))
    # What Optuna draws for a parameter with several values is text.
    grids = {name: parameter.grid(name) for name, parameter in sweep.parameters.items()}
    space = {name: [json.dumps(value) for value in values] for name, values in grids.items() if len(values) > 1}
    return _ByNumber(lambda seed: GridSampler(space, seed=_SEED))


def _pruner(sweep: Sweep) -> BasePruner:
    early = sweep.file.early_terminate
    if early is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=early.first_rung(), reduction_factor=int(early.eta))


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Return a database with Optuna's tables in it; of processes that make them at once, all but one fail at first."""
    for _ in range(_ATTEMPTS_TO_OPEN - 1):
        with suppress(IntegrityError, OperationalError, ProgrammingError):
            return optuna.storages.RDBStorage(url)
        time.sleep(1.0)
    return optuna.storages.RDBStorage(url)
