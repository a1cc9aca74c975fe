"""Names that become folders."""

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.names import RunName


@pytest.mark.parametrize("name", ["dropout=0.3", "a b", "0", "é", "-x", "..a", "seed-0", "a" * 200])
def test_a_name_of_one_folder_is_accepted(name: str) -> None:
    assert RunName("", "e", "c", name, 0, 0).folder().parts == ("runs", "e", "c", name, "seed-0", "fold-00")


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "../x", "a/b", "/a", "a\\b", " a", "a ", "a\n", "a\0", "a\u200bb", "fold-1", "é" * 101]
)
@pytest.mark.parametrize("part", ["run.paper", "run.experiment", "the corpus", "--row"])
def test_a_name_that_leaves_its_place_is_refused(part: str, name: str) -> None:
    parts = dict.fromkeys(("run.paper", "run.experiment", "the corpus", "--row"), "x") | {part: name}
    if part == "run.paper" and not name:  # outside experiments/
        assert RunName(*parts.values(), seed=0, fold=0).group == "x/x/x/seed-0"
        return
    with pytest.raises(ConfigurationError) as refused:
        RunName(*parts.values(), seed=0, fold=0)
    assert str(refused.value).startswith(part)
    assert f"'{name}'" in str(refused.value)
