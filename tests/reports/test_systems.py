"""Finding the systems of a report on disk."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.reports.systems import find_systems, picture_groups

WriteFold = Callable[..., Path]
RIGHT = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))


def _write(write_fold: WriteFold, folder: Path, *folds: int, **facts: object) -> Path:
    for fold in folds:
        write_fold(folder, fold, RIGHT, **facts)
    return folder


def test_experiments_are_separate_systems_and_seeds_are_not(tmp_path: Path, write_fold: WriteFold) -> None:
    for name in ("b", "a"):
        for seed in (1, 0):
            _write(write_fold, tmp_path / name / f"seed-{seed}", 0, experiment=name)
    systems = find_systems([tmp_path / "b", tmp_path])[0]
    assert [system.name for system in systems] == ["b", "a"]  # as asked, then by path
    assert [[run.facts.seed for run in system.runs] for system in systems] == [[0, 1], [0, 1]]


def test_only_the_given_folds_count(tmp_path: Path, write_fold: WriteFold) -> None:
    folder = _write(write_fold, tmp_path / "a" / "seed-0", 0, 1, 2)
    (system,) = find_systems([folder / "fold-01"])[0]
    assert [fold.fold for fold in system.summary.seeds[0].folds] == [1]


def test_equal_names_get_what_differs(tmp_path: Path, write_fold: WriteFold) -> None:
    _write(write_fold, tmp_path / "a" / "seed-0", 0, corpus="ravdess", synthetic=False)
    _write(write_fold, tmp_path / "b" / "seed-0", 0, corpus="crema_d", synthetic=False)
    assert [system.name for system in find_systems([tmp_path])[0]] == ["transfer (ravdess)", "transfer (crema_d)"]
    _write(write_fold, tmp_path / "c" / "seed-0", 0, corpus="crema_d", synthetic=False)
    names = [system.name for system in find_systems([tmp_path])[0]]
    assert len(set(names)) == 3
    assert all(system.key.isascii() and " " not in system.key for system in find_systems([tmp_path])[0])


def test_nothing_redundant_is_added_to_a_name(tmp_path: Path, write_fold: WriteFold) -> None:
    for place in ("one", "two"):
        _write(write_fold, tmp_path / place / "x" / "seed-0", 0, paper="", experiment="x")
    assert [system.name for system in find_systems([tmp_path])[0]] == ["x (one/x)", "x (two/x)"]
    _write(write_fold, tmp_path / "three" / "x" / "seed-0", 0, paper="zhou2020", experiment="x")
    names = {system.name for system in find_systems([tmp_path])[0]}
    assert names == {"x (one/x)", "x (two/x)", "x (zhou2020)"}


def test_a_long_name_is_shortened_but_stays_unique(tmp_path: Path, write_fold: WriteFold) -> None:
    _write(write_fold, tmp_path / "a" / "seed-0", 0)
    (system,) = find_systems([tmp_path])[0]
    keys = [replace(system, name=f"{'ü' * 200} {end}").key for end in "ab"]
    assert keys[0] != keys[1]
    assert all(20 < len(key.encode()) <= 100 for key in keys)
    assert replace(system, name="FL alpha=0.1 (x)").key == "FL_alpha=0.1_x"


def test_picture_groups_have_equal_keys_and_even_sizes(tmp_path: Path, write_fold: WriteFold) -> None:
    for n in range(9):
        _write(write_fold, tmp_path / str(n) / "seed-0", 0, experiment=str(n), protocol_hash="ab"[n // 7])
    systems = find_systems([tmp_path])[0]
    parts = picture_groups(systems, lambda system: system.summary.protocol_hash, 6)
    assert [[system.name for system in part] for part in parts] == [list("012"), list("3456"), list("78")]


def test_unreadable_folds_are_left_out_with_the_reason(tmp_path: Path, write_fold: WriteFold) -> None:
    good = _write(write_fold, tmp_path / "good" / "seed-0", 0, 1, 2, experiment="good")
    for name, content in (("scores.json", "{"), ("embeddings.safetensors", "?")):
        folder = _write(write_fold, tmp_path / name / "seed-0", 0, 1, experiment=name)
        (folder / "fold-01" / name).write_text(content)
    unfinished = write_fold(tmp_path / "unfinished" / "seed-0", 0, RIGHT)
    (unfinished / "predictions.csv").unlink()
    systems, left_out = find_systems([good, tmp_path, unfinished])
    assert [len(system.summary.seeds[0].folds) for system in systems] == [3, 1, 1]
    reasons = {one.folder: one.reason for one in left_out}
    assert "no finished fold" in reasons.pop(unfinished)
    assert {folder.parents[1].name: folder.name for folder in reasons} == dict.fromkeys(
        ("scores.json", "embeddings.safetensors"), "fold-01"
    )
    assert all(str(folder / folder.parents[1].name) in reason for folder, reason in reasons.items())


def test_if_no_fold_is_readable_all_reasons_are_given(tmp_path: Path, write_fold: WriteFold) -> None:
    folder = _write(write_fold, tmp_path / "seed-0", 0, 1)
    for name in ("run.json", "predictions.csv"):
        (folder / "fold-00" / name).write_text("?")
        (folder / "fold-01" / name).write_text("?")
    with pytest.raises(ConfigurationError, match=r"fold-00[\s\S]*fold-01"):
        find_systems([tmp_path])
    with pytest.raises(ConfigurationError, match="nowhere"):
        find_systems([tmp_path, tmp_path / "nowhere"])
