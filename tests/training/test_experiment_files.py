"""Files of ``experiments/``: descriptions, copies, and the command that takes each kind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.published.lookup import table_files
from ser_lightning.published.table_file import read_table
from ser_lightning.sweeps.file import read_sweep
from ser_lightning.training.arguments import read_experiment_file
from ser_lightning.training.experiment_files import INSTALLED, copy_files, describe_files, experiments_folder

SWEEP = INSTALLED / "sweeps" / "quickstart_grid.yaml"
TABLE = INSTALLED / "huang2020" / "table1.yaml"
EXPERIMENT = INSTALLED / "quickstart.yaml"


def test_every_file_is_described_in_a_sentence() -> None:
    found = describe_files(INSTALLED)
    assert {"quickstart.yaml", "huang2020/table1.yaml", "trainer/gpu.yaml"} <= set(found)
    assert found["trainer/gpu.yaml"] == "One GPU."
    assert found["huang2020/ravdess.yaml"].endswith("chosen here; Huang et al. 2020 do not use it.")
    assert all(5 < len(text) < 270 for text in found.values())
    assert not any(name.endswith("choices.yaml") for name in found)


def test_copies_keep_files_that_exist(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("# mine")
    copied = copy_files(tmp_path)
    assert copied == len(list(INSTALLED.rglob("*.yaml"))) - 1
    assert (tmp_path / "quickstart.yaml").read_text() == "# mine"
    assert (tmp_path / "huang2020/table1.yaml").read_bytes() == TABLE.read_bytes()
    assert copy_files(tmp_path) == 0


def test_copies_do_not_replace_a_file_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "experiments").write_text("")
    with pytest.raises(ConfigurationError, match="experiments is a file"):
        copy_files(tmp_path / "experiments")


def test_reports_know_papers_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert experiments_folder() == Path("experiments")
    monkeypatch.chdir(tmp_path)
    assert {path.name for path in table_files(experiments_folder())} >= {"table1.yaml", "figure3.yaml"}


@pytest.mark.parametrize(
    ("read", "given", "way_out"),
    [
        (read_sweep, EXPERIMENT, "an experiment file, not a sweep file; for it: ser cv --config"),
        (read_sweep, TABLE, "a table file, not a sweep file; for it: ser table run"),
        (read_table, SWEEP, "a sweep file, not a table file; for it: ser sweep"),
        (read_table, EXPERIMENT, "an experiment file, not a table file; for it: ser cv"),
        (read_experiment_file, TABLE, "a table file, not an experiment file; for it: ser table run"),
        (read_experiment_file, SWEEP, "a sweep file, not an experiment file; for it: ser sweep"),
        (read_experiment_file, INSTALLED / "choices.yaml", "a choices file, not an experiment file"),
    ],
)
def test_a_file_of_another_kind_is_named_with_its_command(
    read: Callable[[Path], object], given: Path, way_out: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        read(given)
    assert str(given) in str(error.value)
    assert way_out in str(error.value)
