"""The section of folds, for several systems."""

from collections.abc import Callable
from pathlib import Path

from ser_lightning.reports.document import Picture
from ser_lightning.reports.sections.spread import folds
from ser_lightning.reports.systems import find_systems

WriteFold = Callable[..., Path]
RIGHT = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))


def _picture(tmp_path: Path, write_fold: WriteFold, **seeds: int) -> Picture:
    for name, number in seeds.items():
        for seed in range(number):
            for fold in range(3 - seed):
                write_fold(tmp_path / name / f"seed-{seed}", fold, RIGHT, experiment=name)
    (picture,) = (block for block in folds(find_systems([tmp_path])[0]).blocks if isinstance(block, Picture))
    return picture


def test_folds_of_one_seed_match_those_of_several(tmp_path: Path, write_fold: WriteFold) -> None:
    picture = _picture(tmp_path, write_fold, one=1, two=2)
    assert picture.numbers is not None
    rows = {name: set(part["fold"]) for name, part in picture.numbers.groupby("system")}
    assert rows["one"] == {f"fold {fold}, seed 0" for fold in range(3)} < rows["two"]
    assert picture.caption.startswith("5 folds, ")  # as many rows as are drawn


def test_with_one_seed_folds_are_named_by_index(tmp_path: Path, write_fold: WriteFold) -> None:
    picture = _picture(tmp_path, write_fold, one=1, two=1)
    assert picture.numbers is not None
    assert set(picture.numbers["fold"]) == {"fold 0", "fold 1", "fold 2"}
