"""Zhou & Liu 2020, Table 2: every row trains with the numbers in its name."""

import re
from pathlib import Path

import pytest

from ser_lightning.losses import AMSoftmax, FocalLoss, WeightedCrossEntropy
from ser_lightning.published.table_file import Row, read_table, row_arguments
from ser_lightning.training.experiment import ExperimentCLI

pytestmark = pytest.mark.usefixtures("small_pictures")

TABLE = Path("experiments/zhou2020/table2.yaml")
# The first corpus of each row; on the others, rows differ in what tests of pairs look at.
ROWS = [
    pytest.param(row, id=f"{corpus}: {row.name}", marks=[] if corpus == "iemocap" else [pytest.mark.slow])
    for corpus in ("iemocap", "ravdess", "crema_d")
    for row in read_table(TABLE, [f"corpus={corpus}"]).rows
]
ATTRIBUTES = {"s": "scale", "m": "margin", "gamma": "gamma", "alpha": "alpha"}


@pytest.mark.parametrize("row", ROWS)
def test_a_rows_criterion_has_the_numbers_of_its_name(row: Row, tmp_path: Path) -> None:
    caller = [f"--data.init_args.root={tmp_path}", "--trainer.logger=false"]
    criterion = ExperimentCLI(row_arguments(TABLE, row, caller), run=False).model.criterion
    kind = {"AMS": AMSoftmax, "FL": FocalLoss}.get(row.name.split()[0], WeightedCrossEntropy)
    assert type(criterion) is kind
    numbers = {ATTRIBUTES[name]: float(value) for name, value in re.findall(r"(\w+)=([0-9.]+)", row.name)}
    assert len(numbers) == (0 if kind is WeightedCrossEntropy else 2)
    assert {name: getattr(criterion, name) for name in numbers} == numbers
