"""Table files: the baseline row."""

from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.published.table_file import read_table

ROWS = """
title: a table
corpus: ravdess
rows:
  - {name: quoted, paper: {UA: 50.0}}
  - {name: pretraining, experiment: a.yaml, once: true}
  - {name: plain, experiment: a.yaml}
  - {name: better, experiment: b.yaml}
"""


def test_the_baseline_is_the_first_row_that_is_run_per_fold(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(ROWS)
    assert read_table(path).baseline == "plain"
    assert read_table(path, ["baseline=better"]).baseline == "better"


@pytest.mark.parametrize("name", ["quoted", "pretraining", "unknown"])
def test_a_baseline_that_is_not_run_per_fold_is_rejected(name: str, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(f"baseline: {name}\n{ROWS}")
    with pytest.raises(ConfigurationError, match=rf"table\.yaml: baseline is '{name}'.*plain, better"):
        read_table(path)
