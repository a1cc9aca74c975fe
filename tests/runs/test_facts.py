import json
import math
from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.facts import RunFacts


def _change(seed_folder: Path, **changes: object) -> Path:
    path = seed_folder / "fold-00" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_facts_are_read_and_unknown_keys_are_ignored(seed_folder: Path) -> None:
    facts = RunFacts.read(_change(seed_folder, seconds=3, skipped_audio={"a.wav": "empty"}, added_next_year=[1]))
    assert facts.class_names == ("neutral", "happy", "sad", "angry")
    assert facts.seconds == 3
    assert facts.skipped_audio == {"a.wav": "empty"}
    assert facts.synthetic is True


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fold", "0"),
        ("num_folds", True),
        ("synthetic", "yes"),
        ("seconds", None),
        ("class_names", "neutral"),
        ("class_names", ["neutral", 2]),
        ("skipped_audio", ["a.wav"]),
        ("skipped_audio", {"a.wav": 1}),
        ("num_folds", 10**9),
        ("num_folds", 0),
        ("parameters", 10**20),
        ("epochs", -1),
        ("seconds", math.inf),
        ("seconds", math.nan),
    ],
)
def test_a_value_of_the_wrong_type_is_named(seed_folder: Path, key: str, value: object) -> None:
    path = _change(seed_folder, **{key: value})
    with pytest.raises(ConfigurationError) as error:
        RunFacts.read(path)
    assert f"{path}: {key} is {value!r}" in str(error.value)


def test_a_missing_key_is_named(seed_folder: Path) -> None:
    path = seed_folder / "fold-00" / "run.json"
    content = json.loads(path.read_text())
    del content["split_hash"]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=r"fold-00/run\.json.*'split_hash'"):
        RunFacts.read(path)


@pytest.mark.parametrize(
    ("text", "complaint"), [("{", "JSON file"), ("[]", "JSON object"), ("[" * 100_000, "JSON file")]
)
def test_a_file_that_is_not_a_json_object_is_rejected(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigurationError, match=rf"run\.json.*{complaint}"):
        RunFacts.read(tmp_path / "run.json")


def test_the_title_is_the_experiment_and_the_row(seed_folder: Path) -> None:
    assert RunFacts.read(_change(seed_folder)).title == "transfer"
    assert RunFacts.read(_change(seed_folder, row="alpha_0.1")).title == "transfer, alpha 0.1"
