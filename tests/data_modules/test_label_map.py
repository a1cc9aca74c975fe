"""Labels that are renamed, merged and left out, and systems that are tested on another corpus."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_modules.audio_files import AudioFiles
from data_modules.crema_d import CremaD, write_synthetic
from data_modules.discovery import Found
from data_modules.label_map import map_classes, map_labels
from data_modules.ravdess import RAVDESS
from ser_lightning.cli.__main__ import main
from ser_lightning.data.protocols import ActorFolds
from ser_lightning.errors import ConfigurationError, CorpusWarning
from ser_lightning.features import LogMelFilterbank
from ser_lightning.runs.predictions import Predictions
from ser_lightning.types import Utterance

pytestmark = pytest.mark.usefixtures("small_pictures")
TO_CREMA_D = {"calm": "neutral", "surprised": None}


def test_classes_merge_and_are_sorted() -> None:
    found = map_classes(["neutral", "calm", "happy", "sad"], {"calm": "neutral", "sad": "unhappy"})
    assert found == ("happy", "neutral", "unhappy")


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ({"clam": None}, "'clam' is not a label of this corpus; its labels are neutral, calm, happy"),
        ({"calm": "happy", "neutral": None}, "leaves happy; at least two"),
        (dict.fromkeys(("neutral", "calm", "happy")), "leaves no class"),
    ],
)
def test_a_map_that_does_not_fit_is_named(label_map: dict[str, str | None], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"data.init_args.label_map:? ?{message}"):
        map_classes(["neutral", "calm", "happy"], label_map)


def test_votes_follow_and_utterances_without_label_stay() -> None:
    votes = (("calm",), ("surprised", "happy"))
    found = Found(
        (
            Utterance("a", Path("a.wav"), "1", "calm", votes=votes),
            Utterance("b", Path("b.wav"), "1", None, votes=votes),
            Utterance("c", Path("c.wav"), "1", "surprised"),
        ),
        {},
    )
    with pytest.warns(CorpusWarning, match=r"mine: label_map leaves out utterances: 1 surprised\."):
        mapped = map_labels(found, TO_CREMA_D, "mine")
    assert [(u.name, u.label) for u in mapped.utterances] == [("a", "neutral"), ("b", None)]
    assert mapped.utterances[0].votes == (("neutral",), ("surprised", "happy"))


def test_ravdess_has_the_classes_of_crema_d(synthetic_ravdess: Path, feature_folder: Path) -> None:
    more: dict[str, Any] = {"protocol": ActorFolds("even", 3), "feature_folder": feature_folder}
    data = RAVDESS(synthetic_ravdess, LogMelFilterbank(), label_map=TO_CREMA_D, **more)
    assert data.class_names == CremaD.class_names
    with pytest.warns(CorpusWarning, match="leaves out"):
        labels = {u.label for u in data.all_utterances}
    assert labels == set(data.class_names)
    whole = RAVDESS(synthetic_ravdess, LogMelFilterbank(), **more)
    assert data.split().hash != whole.split().hash


def test_own_recordings_take_a_map_too(tmp_path: Path) -> None:
    for speaker in "abc":
        for label in ("joy", "anger", "other"):
            path = tmp_path / label / speaker / "1.wav"
            path.parent.mkdir(parents=True)
            path.touch()
    with pytest.warns(CorpusWarning, match="3 other"):
        data = AudioFiles(tmp_path, LogMelFilterbank(), label_map={"joy": "happy", "other": None})
    assert data.class_names == ("anger", "happy")
    with pytest.raises(ConfigurationError, match="'fun' is not a label"):
        AudioFiles(tmp_path, LogMelFilterbank(), label_map={"fun": None})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*label_map leaves out:")
def test_a_system_is_tested_on_another_corpus(
    tmp_path: Path, arguments: Callable[..., list[str]], feature_folder: Path
) -> None:
    classes = 'data.init_args.label_map={"calm": "neutral", "surprised": null}'
    own = [*arguments(tmp_path / "own", "--trainer.logger=false", "--trainer.max_epochs=1"), f"--{classes}"]
    assert main(["fit", *own]) == 0
    write_synthetic(tmp_path / "crema_d", speakers=4, seed=0, clips_per_speaker=6)
    other = [
        *own[:1],
        "--model.init_args.cells=8",
        "--trainer.logger=false",
        "--data.class_path=data_modules.crema_d.CremaD",
        f"--data.init_args.root={tmp_path / 'crema_d'}",
        f"--data.init_args.feature_folder={feature_folder}",
        "--data.init_args.label_map=null",
        f"--trainer.default_root_dir={tmp_path / 'other'}",
        f"--ckpt_path={tmp_path / 'own' / 'checkpoints' / 'best.ckpt'}",
    ]
    assert main(["predict", *other]) == 0
    found = Predictions.read(tmp_path / "other" / "corpus_predictions.csv")
    assert len(found.table) == 24
    assert set(found.table["target"]) == set(CremaD.class_names)
