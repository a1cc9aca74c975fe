"""Helpers that write a copy of IEMOCAP's release; under pytest's importlib mode a conftest cannot be imported."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules.emo_evaluation import CODES
from data_modules.iemocap import write_synthetic
from data_modules.iemocap_synthetic import Turn, recordings

FIRST = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"


def block(name: str = "Ses01F_impro01_F000", code: str = "neu", *votes: str) -> str:
    """Return an utterance's annotation, by default with one evaluator's vote for neutral."""
    lines = [f"[0.5000 - 1.5000]\t{name}\t{code}\t[2.5000, 2.5000, 2.5000]"]
    return "\n".join([*lines, *(f"C-E{n}:\t{vote}\t()" for n, vote in enumerate(votes or ["Neutral;"], start=2)), ""])


@pytest.fixture(name="block")
def block_fixture() -> Callable[..., str]:
    """Return ``block``."""
    return block


def annotate(root: Path, dialog: str, *blocks: str, audio: bool = True) -> Path:
    """Add a dialog to a copy of the release, with an empty file for the audio of each utterance."""
    session = root / f"Session{dialog[4]}"
    file = session / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join((FIRST, "", *blocks)))
    (session / "sentences" / "wav" / dialog).mkdir(parents=True)
    for match in re.finditer(rf"{dialog}_[FM]\d+", "".join(blocks)) if audio else ():
        (session / "sentences" / "wav" / dialog / f"{match[0]}.wav").touch()
    return file


@pytest.fixture(name="annotate")
def annotate_fixture() -> Callable[..., Path]:
    """Return ``annotate``."""
    return annotate


def every_label(root: Path) -> Path:
    """One utterance of each label, improvised by the woman and scripted for the man."""
    for dialog, letter in (("Ses01F_impro01", "F"), ("Ses01F_script01_1", "M")):
        names = [f"{dialog}_{letter}{n:03d}" for n in range(len(CODES))]
        annotate(root, dialog, *(block(name, code) for name, code in zip(names, CODES, strict=True)))
    return root


@pytest.fixture(name="every_label")
def every_label_fixture() -> Callable[[Path], Path]:
    """Return ``every_label``."""
    return every_label


@pytest.fixture(scope="session")
def spoken_iemocap(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Turn]]:
    """Two sessions, 24 clips of each speaker, and their turns."""
    root = tmp_path_factory.mktemp("iemocap")
    assert write_synthetic(root, speakers=4, seed=7, clips_per_speaker=24) == 96
    return root, recordings(4, 7, 24)
