"""The settings of mutation testing name what exists; `make mutants` itself takes minutes."""

import tomllib
from pathlib import Path


def test_mutated_modules_and_the_tests_that_judge_them_exist(repository: Path) -> None:
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["mutmut"]
    for pattern in settings["only_mutate"] + settings["pytest_add_cli_args_test_selection"] + settings["also_copy"]:
        assert list(repository.glob(pattern)), pattern
