import os
from pathlib import Path

import pytest
import sklearn.metrics
import torch

from ser_lightning import files as atomic_file
from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.predictions import Predictions, confusion

HEADER = "utterance,speaker,fold,target,predicted,probability_angry,probability_sad"
GOOD = "03-01-05,01,2,angry,sad,0.25,0.75"


def _collect(**changes: object) -> Predictions:
    arguments: dict[str, object] = {
        "utterances": ["03-01-05", "NA", "null"],
        "speakers": ["01", "01", "02"],
        "fold": 2,
        "targets": torch.tensor([0, 1, 1]),
        "predicted": torch.tensor([1, 1, 0]),
        "probabilities": torch.tensor([[0.25, 0.75], [1 / 3, 2 / 3], [0.9, 0.1]]),
        "class_names": ("angry", "sad"),
    }
    return Predictions.collect(**{**arguments, **changes})  # type: ignore[arg-type]


def _read(folder: Path, *lines: str) -> Predictions:
    path = folder / "predictions.csv"
    path.write_text("\n".join(lines) + "\n")
    return Predictions.read(path)


def test_predictions_are_read_back_exact_to_float32(tmp_path: Path) -> None:
    written = _collect()
    written.write(tmp_path / "predictions.csv")
    read = Predictions.read(tmp_path / "predictions.csv")
    assert read.class_names == ("angry", "sad")
    for column in ("utterance", "speaker", "fold", "target", "predicted"):
        assert read.table[column].tolist() == written.table[column].tolist(), column
    for column in ("probability_angry", "probability_sad"):
        assert (read.table[column].astype("float32") == written.table[column].astype("float32")).all(), column


def test_the_file_has_the_documented_columns(tmp_path: Path) -> None:
    _collect().write(tmp_path / "predictions.csv")
    assert (tmp_path / "predictions.csv").read_text().splitlines()[:2] == [HEADER, GOOD]


def test_groups_follow_the_probabilities(tmp_path: Path) -> None:
    groups = [{"gender": "female"}, {"gender": "male", "language": "de"}, {"gender": "male"}]
    _collect(groups=groups).write(tmp_path / "predictions.csv")
    assert (tmp_path / "predictions.csv").read_text().splitlines()[:2] == [
        f"{HEADER},group_gender,group_language",
        f"{GOOD},female,",
    ]
    read = Predictions.read(tmp_path / "predictions.csv")
    assert read.class_names == ("angry", "sad")
    assert read.table["group_language"].tolist() == ["", "de", ""]


def test_names_that_a_spreadsheet_would_run_are_quoted(tmp_path: Path) -> None:
    names = {"utterances": ["=1+1", "@a", "'=b"], "speakers": ["-1", "+2", "'3"], "class_names": ("=angry", "sad")}
    written = _collect(**names)
    written.write(tmp_path / "predictions.csv")
    first = (tmp_path / "predictions.csv").read_text().splitlines()[1]
    assert first == "'=1+1,'-1,2,'=angry,sad,0.25,0.75"
    read = Predictions.read(tmp_path / "predictions.csv")
    assert read.class_names == ("=angry", "sad")
    for column in ("utterance", "speaker", "target", "predicted"):
        assert read.table[column].tolist() == written.table[column].tolist(), column


def test_speakers_keep_leading_zeros_and_na_stays_a_name(tmp_path: Path) -> None:
    read = _read(tmp_path, HEADER, GOOD, "NA,02,2,sad,sad,0,1")
    assert read.table["speaker"].tolist() == ["01", "02"]
    assert read.table["utterance"].tolist() == ["03-01-05", "NA"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("x,01,2,angry,calm,0.25,0.75", "predicted 'calm' is not one of the classes angry, sad"),
        ("x,01,2,Angry,sad,0.25,0.75", "target 'Angry' is not one of the classes angry, sad"),
        ("x,01,2,angry,sad,nan,0.75", "probability_angry 'nan' is not a probability"),
        ("x,01,2,angry,sad,0.25,inf", "probability_sad 'inf' is not a probability"),
        ("x,01,2,angry,sad,-0.5,1.5", "probability_angry '-0.5' is not a probability"),
        ("x,01,2,angry,sad,0.25,much", "probability_sad 'much' is not a probability"),
        ("x,01,2,angry,sad,0.25", "probability_sad '' is not a probability"),
        ("x,01,2,angry,sad,0.25,0.752", "the probabilities sum to 1.002, not to 1"),
        ("x,01,two,angry,sad,0.25,0.75", "fold 'two' is not the index of a fold"),
        ("x,01,1.5,angry,sad,0.25,0.75", "fold '1.5' is not the index of a fold"),
        ("x,,2,angry,sad,0.25,0.75", "speaker '' is not a name"),
        ("03-01-05,01,2,angry,sad,0.25,0.75", "utterance '03-01-05' occurs a second time"),
    ],
)
def test_a_faulty_line_is_named_with_file_and_value(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        _read(tmp_path, HEADER, GOOD, line)
    assert f"{tmp_path / 'predictions.csv'}, line 3: {complaint}" in str(error.value)


def test_probability_sums_have_a_tolerance(tmp_path: Path) -> None:
    assert len(_read(tmp_path, HEADER, "x,01,2,angry,sad,0.25,0.7509").table) == 1


@pytest.mark.parametrize(
    "header",
    [
        HEADER.replace("speaker,", ""),
        HEADER.replace("probability_sad", "sad"),
        HEADER.replace("probability_sad", "probability_angry"),
        "utterance,speaker,fold,target,predicted",
        HEADER.replace("utterance,speaker", "speaker,utterance"),
        HEADER.replace("probability_sad", "group_gender,probability_sad"),
        f"{HEADER},group_gender,group_gender",
    ],
)
def test_a_wrong_header_is_quoted_with_the_right_one(tmp_path: Path, header: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        _read(tmp_path, header, ",".join(GOOD.split(",")[: header.count(",") + 1]))
    assert f"predictions.csv, line 1: the columns are {header}; expected utterance,speaker,fold" in str(error.value)


@pytest.mark.parametrize("lines", [(), (HEADER,), (HEADER, GOOD + ",1")])
def test_an_empty_or_ragged_file_is_rejected(tmp_path: Path, lines: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"predictions\.csv.* run the fold again"):
        _read(tmp_path, *lines)


def test_a_missing_file_means_an_unfinished_fold(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"predictions\.csv is missing"):
        Predictions.read(tmp_path / "predictions.csv")


def test_probabilities_must_be_finite(tmp_path: Path) -> None:
    diverged = torch.tensor([[0.25, 0.75], [float("nan"), 0.5], [0.9, 0.1]])
    with pytest.raises(ConfigurationError, match=r"fold 2, row 1: probability_angry 'nan'"):
        _collect(probabilities=diverged)


def test_the_confusion_matrix_is_scikit_learns() -> None:
    predictions = _collect()
    for names in (["angry", "sad"], ["sad", "angry"]):
        table = predictions.table
        expected = sklearn.metrics.confusion_matrix(table["target"], table["predicted"], labels=names)
        assert confusion(predictions, names).tolist() == expected.tolist()
    with pytest.raises(ConfigurationError, match=r"\['angry', 'sad'\].*\['angry', 'calm'\]"):
        confusion(predictions, ["angry", "calm"])


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "predictions.csv"
    atomic_file.write_atomically(path, b"old")
    seen: list[bytes] = []

    def full_disk(descriptor: int) -> None:
        seen.append(path.read_bytes())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        _collect().write(path)
    assert seen == [b"old"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["predictions.csv"]
    assert path.read_bytes() == b"old"


def test_a_killed_write_leaves_no_predictions_file(tmp_path: Path) -> None:
    (tmp_path / ".predictions.csv.123.tmp").write_text(HEADER)
    with pytest.raises(ConfigurationError, match="is missing"):
        Predictions.read(tmp_path / "predictions.csv")
    _collect().write(tmp_path / "predictions.csv")
    assert len(Predictions.read(tmp_path / "predictions.csv").table) == 3
