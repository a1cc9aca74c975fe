"""The experiments in experiments/: one file, or a system's and a corpus's."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.choices import FILE, Choice, read_choices

FOLDER = Path("experiments")
CORPORA = {
    "ando2019": ("iemocap", "crema_d"),
    "huang2020": ("iemocap", "ravdess", "crema_d"),
    "mocanu2021": ("ravdess", "crema_d"),
    "zhou2020": ("iemocap", "ravdess", "crema_d"),
}
CHOICES_OF_ALL: list[Choice] = read_choices(FOLDER / FILE)
CHOICES = {paper: read_choices(FOLDER / paper / FILE) for paper in CORPORA}
OF_SPEAKERS = ("voxceleb2", "crema_d_speakers")


@cache
def content(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def class_path(path: Path, part: str) -> str:
    return str(content(path).get(part, {}).get("class_path", ""))


def files_of(system: Path, corpus: str) -> tuple[Path, ...]:
    """Return the files of an experiment; ``corpus`` is empty if the system's file names it."""
    return (system, system.with_name(f"{corpus}.yaml")) if corpus else (system,)


SYSTEMS = [path for paper in CORPORA for path in sorted((FOLDER / paper).glob("*.yaml")) if class_path(path, "model")]
PAIRS = [
    (system, system.with_name(f"{corpus}.yaml"))
    for system in SYSTEMS
    for corpus in (OF_SPEAKERS if system.stem.startswith("speaker_id") else CORPORA[system.parent.name])
]
EXPERIMENTS: list[tuple[Path, ...]] = [
    *((path,) for path in sorted(FOLDER.glob("*.yaml")) if class_path(path, "model")),
    *PAIRS,
]


def name(files: tuple[Path, ...]) -> str:
    return " ".join(str(path.relative_to(FOLDER).with_suffix("")) for path in files)


def with_repetitions(experiments: Iterable[tuple[Path, ...]]) -> list[Any]:
    """Return experiments as test parameters; one whose files are both part of earlier ones is slow."""
    parameters, seen = [], set[Path]()
    for files in experiments:
        marks = [pytest.mark.slow] if seen.issuperset(files) else []
        seen.update(files)
        parameters.append(pytest.param(files, marks=marks, id=name(files)))
    return parameters


ABSENT = "absent"


def at(config: Any, key: str) -> Any:
    """Return the value of a dotted key, or ABSENT."""
    for part in key.split("."):
        if isinstance(config, list) and part.isdecimal() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, dict) and part in config:
            config = config[part]
        else:
            return ABSENT
    return config
