"""IEMOCAP: its utterances under each option, and its data module."""

import inspect
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from data_modules import iemocap
from data_modules.base import CorpusDataModule
from data_modules.emo_evaluation import CODES
from data_modules.iemocap import IEMOCAP, find_utterances
from data_modules.iemocap_release import ReleaseWarning
from data_modules.iemocap_synthetic import Turn
from ser_lightning.data.protocols import LeaveOneSpeakerOut
from ser_lightning.data.targets import existence_ratios
from ser_lightning.errors import ConfigurationError, CorpusError
from ser_lightning.features import LogMelFilterbank
from ser_lightning.types import Utterance


def module(root: Path, **options: object) -> IEMOCAP:
    parser = ArgumentParser()
    parser.add_subclass_arguments(IEMOCAP, "data")
    extractor = {"class_path": "ser_lightning.features.LogMelFilterbank"}
    values = {"root": str(root), "extractor": extractor, "feature_folder": str(root / ".features"), **options}
    parsed = parser.parse_object({"data": {"class_path": "data_modules.iemocap.IEMOCAP", "init_args": values}})
    made = parser.instantiate_classes(parsed).data
    assert isinstance(made, IEMOCAP)
    return made


def test_an_utterance_is_found_with_all_that_is_known_of_it(
    tmp_path: Path, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
    annotate(tmp_path, "Ses02F_impro03", block("Ses02F_impro03_M007", "ang", "Anger;", "Anger; Excited; Happiness;"))
    (utterance,) = find_utterances(tmp_path).utterances
    assert utterance == Utterance(
        name="Ses02F_impro03_M007",
        path=tmp_path / "Session2/sentences/wav/Ses02F_impro03/Ses02F_impro03_M007.wav",
        speaker="Ses02M",
        label="angry",
        gender="male",
        session="Ses02",
        votes=(("angry",), ("angry", "happy")),
    )
    (unmerged,) = find_utterances(tmp_path, merge_excited=False).utterances
    assert unmerged.votes == (("angry",), ("angry", "excited", "happy"))


@pytest.mark.parametrize(
    ("dialogs", "speakers"),
    [("all", {"Ses01F": 11, "Ses01M": 11}), ("improvised", {"Ses01F": 11}), ("scripted", {"Ses01M": 11})],
)
def test_dialogs_choose_utterances(
    tmp_path: Path, dialogs: iemocap.Dialogs, speakers: dict[str, int], every_label: Callable[[Path], Path]
) -> None:
    found = find_utterances(every_label(tmp_path), dialogs, others="keep").utterances
    assert Counter(u.speaker for u in found) == speakers
    assert [u.name for u in found] == sorted(u.name for u in found)


@pytest.mark.parametrize(
    ("classes", "merge", "labels"),
    [
        (iemocap.CLASS_NAMES, True, {"neutral": 1, "happy": 2, "sad": 1, "angry": 1}),
        (iemocap.CLASS_NAMES, False, {"neutral": 1, "happy": 1, "sad": 1, "angry": 1}),
        (("excited", "frustrated"), False, {"excited": 1, "frustrated": 1}),
        (("fearful", "sad"), True, {"fearful": 1, "sad": 1}),
    ],
)
def test_others_are_dropped_or_kept_unlabelled(
    tmp_path: Path, classes: tuple[str, ...], merge: bool, labels: dict[str, int], every_label: Callable[[Path], Path]
) -> None:
    every_label(tmp_path)
    found = find_utterances(tmp_path, "improvised", classes, merge).utterances
    assert Counter(u.label for u in found) == labels
    kept = find_utterances(tmp_path, "improvised", classes, merge, others="keep").utterances
    assert Counter(u.label for u in kept if u.label) == labels
    assert len(kept) == len(CODES)
    assert [u for u in kept if u.label] == list(found)


def test_classes_without_utterances_are_rejected(
    tmp_path: Path, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
    annotate(tmp_path, "Ses01F_impro01", block())
    with pytest.raises(CorpusError, match=r"1 utterances, 0 of them.*\(scripted\).*angry or sad"):
        find_utterances(tmp_path, "scripted", ("angry", "sad"))


def test_labels_without_audio_are_named_or_skipped(
    tmp_path: Path, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
    names = [f"Ses01F_impro01_F{n:03d}" for n in range(8)]
    file = annotate(tmp_path, "Ses01F_impro01", *map(block, names), audio=False)
    (tmp_path / f"Session1/sentences/wav/Ses01F_impro01/{names[0]}.flac").touch()
    with pytest.raises(CorpusError, match=rf"7 of the 8 .*: {', '.join(names[1:])}\. .*on_bad_audio: skip"):
        find_utterances(tmp_path)
    found = find_utterances(tmp_path, on_bad_audio="skip")
    assert [u.name for u in found.utterances] == names[:1]
    assert found.left_out == dict.fromkeys(names[1:], f"labelled in {file}, but has no audio")
    data = module(tmp_path, on_bad_audio="skip")
    assert data.utterances == found.utterances
    assert data.left_out == found.left_out


def test_without_any_audio_skipping_is_an_error(
    tmp_path: Path, block: Callable[..., str], annotate: Callable[..., Path]
) -> None:
    annotate(tmp_path, "Ses01F_impro01", block(), audio=False)
    (tmp_path / "Session1/sentences/wav/Ses01F_script01_1_F000.wav").touch()
    with pytest.raises(CorpusError, match=r"1 of the 1 .*no audio: Ses01F_impro01_F000"):
        find_utterances(tmp_path, "improvised", on_bad_audio="skip")


def test_audio_may_be_missing_of_what_is_not_used(tmp_path: Path, every_label: Callable[[Path], Path]) -> None:
    every_label(tmp_path)
    for file in (tmp_path / "Session1/sentences/wav/Ses01F_script01_1").iterdir():
        file.unlink()
    (tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F010.wav").unlink()  # xxx
    assert len(find_utterances(tmp_path, "improvised").utterances) == 5
    with pytest.raises(CorpusError, match="5 of the 10 utterances"):
        find_utterances(tmp_path)
    with pytest.raises(CorpusError, match=r"1 of the 11 utterances .*: Ses01F_impro01_F010"):
        find_utterances(tmp_path, "improvised", others="keep")


def test_the_configured_data_module_validates_on_the_partner(
    spoken_iemocap: tuple[Path, list[Turn]],
) -> None:
    data = module(
        spoken_iemocap[0], classes=["neutral", "happy", "sad", "angry"], dialogs="improvised", merge_excited=False
    )
    assert data.class_names == ("neutral", "happy", "sad", "angry")
    assert isinstance(data.protocol, LeaveOneSpeakerOut)
    assert isinstance(data.extractor, LogMelFilterbank)
    assert data.corpus_name == "iemocap-synthetic"
    assert data.num_folds() == 4
    split = data.split(2)
    assert (split.speakers("test"), split.speakers("validation")) == (("Ses02F",), ("Ses02M",))
    assert split.speakers("train") == ("Ses01F", "Ses01M")
    codes = Counter(t.evaluation.code for t in spoken_iemocap[1] if t.evaluation.improvised)
    assert Counter(u.label for u in data.utterances) == {
        CODES[code]: codes[code] for code in ("neu", "hap", "sad", "ang")
    }
    assert len(module(spoken_iemocap[0], dialogs="improvised", others="keep").utterances) == 48


@pytest.mark.parametrize("targets", ["HardTargets", "SoftTargets", "ExistenceTargets"])
def test_targets_choose_training_utterances_not_scored_ones(
    spoken_iemocap: tuple[Path, list[Turn]], targets: str
) -> None:
    options = {
        "classes": ["neutral", "happy", "sad", "angry"],
        "dialogs": "improvised",
        "merge_excited": False,
        "targets": {"class_path": f"ser_lightning.data.targets.{targets}"},
    }
    dominant, everything = (module(spoken_iemocap[0], others=others, **options) for others in ("leave_out", "keep"))
    evaluations = [t.evaluation for t in spoken_iemocap[1] if t.evaluation.improvised and t.evaluation.session == 2]
    names = {e.name for e in evaluations}
    voted = {e.name for e in evaluations if {v for vote in e.votes for v in vote} & set(dominant.class_names)}
    agreed = {e.name for e in evaluations if e.label in dominant.class_names}
    assert agreed < voted < names
    learned = {"HardTargets": agreed, "SoftTargets": voted, "ExistenceTargets": names}[targets]
    assert {u.name for u in dominant.set_utterances("train")} == agreed
    assert {u.name for u in everything.set_utterances("train")} == learned
    for stage in ("validation", "test"):
        assert dominant.set_utterances(stage) == everything.set_utterances(stage)


def test_the_constructor_takes_all_arguments_of_other_corpora() -> None:
    mine, base = (inspect.signature(kind).parameters for kind in (IEMOCAP, CorpusDataModule))
    assert {name: mine[name].default for name in base} == {name: base[name].default for name in base}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["angry", "bored"], "unknown 'bored'; choose from neutral, happy, sad, angry, excited"),
        (["angry"], r"\['angry'\]; choose two or more"),
        (["angry", "sad", "angry"], r".* choose two or more, each once"),
        (["angry", "excited"], "'excited', which is counted as happy; set merge_excited to false"),
    ],
)
def test_classes_that_make_no_sense_are_rejected(tmp_path: Path, classes: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"data.init_args.classes holds {message}"):
        IEMOCAP(tmp_path, LogMelFilterbank(), classes=tuple(classes))


@pytest.fixture(scope="module")
def licensed_root() -> Path:
    """The corpus on disk, in the folder named by SER_IEMOCAP_ROOT; else a skipped test."""
    if not (folder := os.environ.get("SER_IEMOCAP_ROOT")):
        pytest.skip("IEMOCAP is licensed; name its folder in SER_IEMOCAP_ROOT")
    return Path(folder)


@pytest.mark.corpus
def test_the_release_has_the_papers_counts_and_existence_table(licensed_root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReleaseWarning)
        four = find_utterances(licensed_root).utterances
    assert Counter(u.label for u in four) == {"angry": 1103, "happy": 595 + 1041, "sad": 1084, "neutral": 1708}
    order = ("neutral", "happy", "sad", "angry")
    improvised = find_utterances(licensed_root, "improvised", order, merge_excited=False, others="keep").utterances
    assert len(improvised) == 4784
    ratios = existence_ratios(improvised, order)
    percent = {name: [round(100 * ratio, 1) for ratio in table.values()] for name, table in ratios.items()}
    assert percent == {"dominant": [58.2, 15.4, 30.5, 15.9], "all": [45.2, 24.0, 19.8, 17.8]}
