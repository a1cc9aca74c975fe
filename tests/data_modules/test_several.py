"""Several corpora as one: speakers apart, own folds or one corpus left out, scores of each corpus."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from data_modules import crema_d, ravdess
from data_modules.several import SeveralCorpora
from ser_lightning.cli.__main__ import main
from ser_lightning.data.protocols import LeaveOneSessionOut
from ser_lightning.errors import ConfigurationError, ProtocolError
from ser_lightning.features import LogMelFilterbank
from ser_lightning.training.fold import run_fold

pytestmark = pytest.mark.usefixtures("small_pictures")

SIX = {"calm": "neutral", "surprised": None}
EMOTIONS = ("angry", "disgust", "fearful", "happy", "neutral", "sad")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("corpora")
    ravdess.write_synthetic(folder / "ravdess", speakers=4, seed=0, clips_per_speaker=8)
    crema_d.write_synthetic(folder / "crema_d", speakers=6, seed=0, clips_per_speaker=6)
    return {name: folder / name for name in ("ravdess", "crema_d")}


def even(num_folds: int) -> dict[str, Any]:
    arguments = {"blocks": "even", "num_folds": num_folds}
    return {"class_path": "ser_lightning.data.protocols.ActorFolds", "init_args": arguments}


def parts(roots: dict[str, Path], folds: tuple[int, int] = (3, 3), **changed: Any) -> list[dict[str, Any]]:
    """Return the corpora's configurations; ``changed`` overrides RAVDESS's arguments."""
    arguments = {"root": str(roots["ravdess"]), "label_map": SIX, "protocol": even(folds[0])} | changed
    other = {"root": str(roots["crema_d"]), "protocol": even(folds[1])}
    return [
        {"class_path": "data_modules.ravdess.RAVDESS", "init_args": arguments},
        {"class_path": "data_modules.crema_d.CremaD", "init_args": other},
    ]


def module(roots: dict[str, Path], feature_folder: Path, **changed: Any) -> SeveralCorpora:
    given: dict[str, Any] = {"corpora": parts(roots), "feature_folder": feature_folder}
    return SeveralCorpora(extractor=LogMelFilterbank(), **given | changed)


@pytest.mark.filterwarnings("ignore:.*label_map leaves out")
def test_a_fold_is_that_fold_of_each_corpus(roots: dict[str, Path], feature_folder: Path) -> None:
    data = module(roots, feature_folder)
    assert (data.corpus_name, data.class_names, data.num_folds()) == ("crema_d+ravdess-synthetic", EMOTIONS, 3)
    alone = ravdess.RAVDESS(roots["ravdess"], LogMelFilterbank(), label_map=SIX, feature_folder=feature_folder)
    assert {u.speaker for u in data.utterances} == {
        *(f"ravdess/{u.speaker}" for u in alone.utterances),
        *(f"crema_d/{1001 + number}" for number in range(6)),
    }
    tested: list[str] = []
    for fold in range(3):
        split = data.split(fold)
        sets = [split.speakers(name) for name in ("train", "validation", "test")]
        assert sum(map(len, sets)) == 10
        for speakers in sets:  # both corpora are in every set
            assert {speaker.partition("/")[0] for speaker in speakers} == {"crema_d", "ravdess"}
        tested += split.speakers("test")
    assert len(tested) == len(set(tested)) == 10


@pytest.mark.filterwarnings("ignore:.*label_map leaves out")
def test_one_corpus_is_left_out_and_tested(roots: dict[str, Path], feature_folder: Path) -> None:
    data = module(roots, feature_folder, protocol=LeaveOneSessionOut(validation_speakers=2))
    assert data.num_folds() == 2
    for fold, (tested, trained) in enumerate((("crema_d", "ravdess"), ("ravdess", "crema_d"))):
        split = data.split(fold)
        assert {u.session for u in split.test} == {tested}
        assert {u.session for u in split.train} == {u.session for u in split.validation} == {trained}
        assert len(split.speakers("validation")) == 2


@pytest.mark.filterwarnings("ignore:.*label_map leaves out")
def test_what_does_not_fit_together_is_named(roots: dict[str, Path], feature_folder: Path) -> None:
    both = parts(roots)
    for corpora, said in (
        (both[:1], "ravdess; name two corpora or more, each once"),
        ([both[0], both[0]], "ravdess, ravdess; name two"),
        (parts(roots, label_map=None), "crema_d angry, disgust.* label_map"),
        (parts(roots, colour="red"), r"data.init_args.corpora\[0\]: .*colour"),
        ([{"class_path": "data_modules.ravdess.Ravdes"}, both[1]], r"corpora\[0\]: .*Ravdes"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            module(roots, feature_folder, corpora=corpora)
    with pytest.raises(ProtocolError, match="crema_d 3, ravdess 4"):
        module(roots, feature_folder, corpora=parts(roots, folds=(4, 3))).num_folds()


@pytest.mark.filterwarnings("ignore:.*label_map leaves out")
def test_a_fold_trains_and_has_scores_of_each_corpus(
    roots: dict[str, Path], feature_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "--config=experiments/several_corpora.yaml",
        f"--data.init_args.corpora={json.dumps(parts(roots))}",
        f"--data.init_args.feature_folder={feature_folder}",
    ]
    assert main(["audit", *given]) == 0
    assert "crema_d+ravdess" in capsys.readouterr().out
    training = ["--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    fold = run_fold([*given, *training, "--model.init_args.cells=4", f"--trainer.default_root_dir={tmp_path}"])
    table = pd.read_csv(fold / "predictions.csv")
    assert set(table["group_corpus"]) == {"crema_d", "ravdess"}
    assert set(table["speaker"]) == set(module(roots, feature_folder).split(0).speakers("test"))
