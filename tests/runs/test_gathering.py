import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.facts import read_history
from ser_lightning.runs.gathering import CrossValidation, FoldRun, finished_folds, gather

WriteFold = Callable[..., Path]
RIGHT = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))


def _change(fold_folder: Path, **changes: object) -> None:
    path = fold_folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def averaged(*folders: Path) -> list[CrossValidation]:
    runs, left_out = gather([fold for folder in folders for fold in finished_folds(folder)])
    assert not left_out
    return runs


def reason(folder: Path) -> str:
    """Return why the one fold below a folder that must be left out is."""
    _, (left_out,) = gather(finished_folds(folder))
    return left_out.reason


def test_all_folds_of_a_seed_are_found_in_order(seed_folder: Path) -> None:
    (run,) = averaged(seed_folder)
    assert [fold.facts.fold for fold in run.folds] == [0, 1, 2]
    assert run.missing == ()
    assert [len(fold.predictions.table) for fold in run.folds] == [8, 6, 8]


@pytest.mark.parametrize("levels", range(5))
def test_runs_are_found_from_any_parent_folder(seed_folder: Path, levels: int) -> None:
    folder = [seed_folder, *seed_folder.parents][levels]
    (run,) = averaged(folder)
    assert run.folder == seed_folder.resolve()
    assert len(run.folds) == 3


def test_a_fold_without_predictions_is_missing_not_faulty(seed_folder: Path) -> None:
    (seed_folder / "fold-01" / "predictions.csv").rename(seed_folder / "fold-01" / ".predictions.csv.7.tmp")
    (run,) = averaged(seed_folder)
    assert [fold.facts.fold for fold in run.folds] == [0, 2]
    assert run.missing == (1,)


def test_of_a_single_fold_the_others_are_missing(seed_folder: Path) -> None:
    (run,) = averaged(seed_folder / "fold-02")
    assert [fold.facts.fold for fold in run.folds] == [2]
    assert run.missing == (0, 1)


def test_seeds_are_found_in_order(seed_folder: Path, write_fold: WriteFold) -> None:
    for seed in (10, 2):
        write_fold(seed_folder.parent / f"seed-{seed}", 0, RIGHT)
    assert [run.facts.seed for run in averaged(seed_folder.parent)] == [0, 2, 10]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("protocol_hash", "ba9876543210"),
        ("corpus", "crema_d"),
        ("experiment", "other"),
        ("synthetic", False),
        ("num_folds", 10),
        ("row", "lambda=0.1"),
        ("seed", 1),
    ],
)
def test_folds_that_differ_are_not_averaged(seed_folder: Path, key: str, value: object) -> None:
    first = json.loads((seed_folder / "fold-00" / "run.json").read_text())[key]
    _change(seed_folder / "fold-02", **{key: value})
    said = f"{key} differs: {first!r} in {seed_folder / 'fold-00'}, {value!r} in {seed_folder / 'fold-02'}"
    assert said in reason(seed_folder)


def test_seeds_with_other_classes_are_not_averaged(seed_folder: Path, write_fold: WriteFold) -> None:
    other = ("neutral", "happy", "sad", "calm")
    write_fold(seed_folder.parent / "seed-1", 0, RIGHT, class_names=other)
    assert re.search(r"class_names differs: .*'angry'.*seed-0.*'calm'.*seed-1", reason(seed_folder.parent))


def test_the_same_seed_twice_is_rejected(seed_folder: Path) -> None:
    shutil.copytree(seed_folder, seed_folder.parent / "copy")
    assert re.search(r"copy .*seed-0 .*seed 0", reason(seed_folder.parent))


def test_a_copied_fold_is_rejected(seed_folder: Path) -> None:
    shutil.copytree(seed_folder / "fold-00", seed_folder / "fold-000")
    assert re.search(r"fold-00 .*fold-000 .*fold 0", reason(seed_folder))


def test_an_utterance_tested_in_two_folds_is_named(seed_folder: Path) -> None:
    path = seed_folder / "fold-02" / "predictions.csv"
    path.write_text(path.read_text().replace("fold2-003", "fold0-003"))
    assert re.search(r"'fold0-003' .*fold-00 .*fold-02", reason(seed_folder))


@pytest.mark.parametrize(("key", "value"), [("fold", 1), ("fold", 7)])
def test_a_fold_whose_files_disagree_is_rejected(seed_folder: Path, key: str, value: int) -> None:
    _change(seed_folder / "fold-00", **{key: value})
    with pytest.raises(ConfigurationError, match=r"fold-00.*\[0\] in predictions\.csv.*fold . of . in run\.json"):
        FoldRun.read(seed_folder / "fold-00")


def test_predictions_of_other_classes_are_rejected(seed_folder: Path) -> None:
    _change(seed_folder / "fold-00", class_names=["neutral", "happy", "angry", "sad"])
    with pytest.raises(ConfigurationError, match=r"\['neutral', 'happy', 'sad', 'angry'\] in predictions\.csv"):
        FoldRun.read(seed_folder / "fold-00")


def test_predictions_without_facts_are_rejected(seed_folder: Path) -> None:
    (seed_folder / "fold-00" / "run.json").unlink()
    assert re.search(r"run\.json.*run-fold --config .*fold-00/config\.yaml", reason(seed_folder))


def test_folds_that_disagree_with_most_are_left_out(seed_folder: Path, write_fold: WriteFold) -> None:
    write_fold(seed_folder.parent / "seed-1", 0, RIGHT)
    _change(seed_folder / "fold-00", protocol_hash="ba9876543210")
    (seed_folder / "fold-01" / "run.json").unlink()
    shutil.copytree(seed_folder / "fold-02", seed_folder / "fold-002")
    runs, left_out = gather([*seed_folder.glob("fold-*"), seed_folder.parent / "seed-1" / "fold-00"])
    assert [[fold.folder.name for fold in run.folds] for run in runs] == [["fold-002"], ["fold-00"]]
    reasons = {str(one.folder.relative_to(seed_folder)): one.reason for one in left_out}
    assert set(reasons) == {"fold-00", "fold-01", "fold-02"}
    assert "protocol_hash differs: '0123456789ab'" in reasons["fold-00"]
    assert "'ba9876543210'" in reasons["fold-00"]
    assert "run.json" in reasons["fold-01"]
    assert "fold 2" in reasons["fold-02"]


def test_folders_without_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no finished fold"):
        finished_folds(tmp_path)
    with pytest.raises(ConfigurationError, match=r"nowhere is not a folder"):
        finished_folds(tmp_path / "nowhere")


def test_the_history_keeps_the_last_repetition_of_an_epoch(seed_folder: Path) -> None:
    folder = seed_folder / "fold-00"
    (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,5,2.0\n1,10,1.5\n1,10,1.4\n")
    history = read_history(folder)
    assert history is not None
    assert history["train/loss"].to_dict() == {0: 2.0, 1: 1.4}


def test_a_fold_without_metrics_has_no_history(seed_folder: Path) -> None:
    (seed_folder / "fold-00" / "metrics.csv").unlink()
    assert read_history(seed_folder / "fold-00") is None


@pytest.mark.parametrize(
    "content", ['epoch\n"', "\0\0", "", "step,loss\n0,1\n", "epoch,loss\nnan,1\n", "epoch\n1e400\n"]
)
def test_a_damaged_metrics_file_is_no_history(content: str, seed_folder: Path) -> None:
    (seed_folder / "fold-00" / "metrics.csv").write_text(content)
    assert read_history(seed_folder / "fold-00") is None
