"""Every experiment in experiments/ is built, and trains on a synthetic corpus."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ser_lightning.published.lookup import table_files
from ser_lightning.published.table_file import Row, experiment_file, read_table, row_arguments
from ser_lightning.runs.facts import RunFacts
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.training.fold import run_fold
from tests.experiments.conftest import Built, arguments
from tests.experiments.pairs import (
    ABSENT,
    CHOICES,
    CHOICES_OF_ALL,
    EXPERIMENTS,
    FOLDER,
    PAIRS,
    SYSTEMS,
    at,
    content,
    files_of,
    name,
    with_repetitions,
)
from tools.choices import Choice

pytestmark = [
    pytest.mark.usefixtures("small_pictures"),
    pytest.mark.filterwarnings("ignore:.*label_map leaves out"),
]

Build = Callable[[tuple[Path, ...]], Built]
TRAINERS = sorted((FOLDER / "trainer").glob("*.yaml"))
TABLES = table_files(FOLDER)
ROWS = [(path, row) for path in TABLES for row in read_table(path).rows if row.experiment]
EVEN = (
    "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
    "--data.init_args.protocol.init_args.blocks=even",
    "--data.init_args.protocol.init_args.num_folds=3",
)
# Narrow, to be fast: one step of Zhou's whole network takes some seconds on one core.
NARROW = {
    "PooledLSTM": ("cells=8",),
    "ConvBLSTMAttention": ("channels=[4,4,4,4,4,4]", "cells=4"),
    "DominantEmotionRecognition": ("channels=[2,3,4]", "cells=4", "attention_dim=4", "hidden_dim=4"),
    "MultiLabelEmotionExistence": ("channels=[2,3,4]", "cells=4", "attention_dim=4", "hidden_dim=4"),
    "ExistencePretraining": ("channels=[2,3,4]", "cells=4", "attention_dim=4", "hidden_dim=4"),
    "SEResNetVLAD": ("encoder.init_args.channels=2", "embedding_dim=8"),
    # One actor trains, whose utterances cannot be divided by speaker.
    "MetricLearning": ("encoder.init_args.channels=2", "embedding_dim=8", "svm_selection=validation_set"),
    "PooledFrames": ("projection=8",),
    "FineTunedEncoder": ("projection=8",),
    "FunctionalsSVM": ("costs=[1.0]", "gammas=[1.0]"),  # too few speakers to choose
    "SpeakerIdentification": ("encoder.init_args.channels=2", "embedding_dim=8"),
}
# Two of each emotion, for batches that need all of them.
BATCH_SIZE = {"MetricLearning": 16}
Train = Callable[..., Path]


def files_of_row(table: Path, row: Row) -> tuple[Path, ...]:
    return files_of(experiment_file(table, row), Path(row.corpus).name)


def is_the_experiment_itself(table: Path, row: Row) -> bool:
    """Whether a row overrides nothing that differs from the experiment's file."""

    def said(key: str) -> object:
        value: object = content(table.parent / str(row.experiment))
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    pairs = (override.removeprefix("--").split("=", 1) for override in row.overrides)
    return all(said(key) == yaml.safe_load(value) for key, value in pairs)


def needed_by(files: tuple[Path, ...]) -> dict[str, tuple[Path, ...]]:
    """Return the experiments whose checkpoints an experiment needs, by argument, from its paper's tables."""
    for table in (table for table in TABLES if len(files) > 1 and table.parent == files[0].parent):
        rows = {row.name: row for row in read_table(table, [f"corpus={files[1].stem}"]).rows}
        for row in rows.values():
            if row.needs and files_of_row(table, row) == files:
                return {argument: files_of_row(table, rows[name]) for argument, name in row.needs.items()}
    return {}


@pytest.fixture(scope="session")
def trained(
    synthetic_corpora: dict[str, Path], feature_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Train:
    """Trains a narrow experiment for two batches, after the stages it needs; returns the run."""

    @cache
    def train(files: tuple[Path, ...], *overrides: str) -> Path:
        system = content(files[0])["model"]["class_path"].rpartition(".")[2]
        checkpoints = {argument: train(other) / "checkpoints/best.ckpt" for argument, other in needed_by(files).items()}
        has_folds = any("protocol:" in path.read_text() for path in files) or system == "SpeakerIdentification"
        more = (
            "--config=experiments/trainer/smoke.yaml",
            f"--data.init_args.feature_folder={feature_folder}",
            f"--trainer.default_root_dir={tmp_path_factory.mktemp(files[0].stem)}",
            f"--data.init_args.batch_size={BATCH_SIZE.get(system, 4)}",
            *(f"--model.init_args.{narrow}" for narrow in NARROW[system]),
            *(f"--{argument}={checkpoint}" for argument, checkpoint in checkpoints.items()),
            *(() if has_folds else EVEN),
            *overrides,
        )
        return run_fold([*arguments(files, synthetic_corpora), *more])

    return train


# Keys that systems and corpora set in their pairs; K, the clusters of a VLAD, follows the number of classes.
SYSTEM = {
    "ando2019/fusion_hard": ("ExistencePretraining", "WeightedCrossEntropy", 5e-5, 100, 16, "HardTargets"),
    "ando2019/fusion_soft": ("ExistencePretraining", "WeightedCrossEntropy", 5e-5, 100, 16, "SoftTargets"),
    "ando2019/hard": ("DominantEmotionRecognition", "WeightedCrossEntropy", 5e-4, 100, 16, "HardTargets"),
    "ando2019/mlee": ("MultiLabelEmotionExistence", "ExistenceLoss", 2e-4, 100, 16, "ExistenceTargets"),
    "ando2019/pretraining_hard": ("ExistencePretraining", "WeightedCrossEntropy", 1e-4, 100, 16, "HardTargets"),
    "ando2019/pretraining_soft": ("ExistencePretraining", "WeightedCrossEntropy", 1e-4, 100, 16, "SoftTargets"),
    "ando2019/soft": ("DominantEmotionRecognition", "WeightedCrossEntropy", 5e-4, 100, 16, "SoftTargets"),
    "huang2020/final": ("PooledLSTM", "LabelSmoothing", 1.0, 50, 32, "FinalPooling"),
    "huang2020/max": ("PooledLSTM", "LabelSmoothing", 1.0, 50, 32, "MaxPooling"),
    "huang2020/mean": ("PooledLSTM", "LabelSmoothing", 1.0, 50, 32, "MeanPooling"),
    "huang2020/mean_uniform": ("PooledLSTM", "LabelSmoothing", 1.0, 50, 32, "MeanPooling"),
    "huang2020/mean_unigram": ("PooledLSTM", "LabelSmoothing", 1.0, 50, 32, "MeanPooling"),
    "huang2020/netvlad": ("PooledLSTM", "LabelSmoothing", 1.0, 50, 32, "NetVLAD"),
    "huang2020/netvlad_unigram": ("PooledLSTM", "LabelSmoothing", 1.0, 50, 32, "NetVLAD"),
    "huang2020/weighted": ("PooledLSTM", "LabelSmoothing", 1.0, 50, 32, "WeightedPooling"),
    "mocanu2021/s1_scratch": ("SEResNetVLAD", "WeightedCrossEntropy", 1e-3, 60, 32, "NetVLAD"),
    "mocanu2021/s2_pretrained": ("SEResNetVLAD", "WeightedCrossEntropy", 1e-3, 60, 32, "NetVLAD"),
    "mocanu2021/s3_ghostvlad": ("SEResNetVLAD", "WeightedCrossEntropy", 1e-3, 60, 32, "GhostVLAD"),
    "mocanu2021/s4_triplet": ("MetricLearning", "TripletLoss", 1e-3, 60, 32, "GhostVLAD"),
    "mocanu2021/s5_emotion_constraint": ("MetricLearning", "EmotionConstraint", 1e-3, 60, 32, "GhostVLAD"),
    "mocanu2021/speaker_id": ("SpeakerIdentification", "WeightedCrossEntropy", 1e-3, None, None, "NetVLAD"),
    "mocanu2021/speaker_id_ghostvlad": ("SpeakerIdentification", "WeightedCrossEntropy", 1e-3, None, None, "GhostVLAD"),
    "zhou2020/am_softmax": ("ConvBLSTMAttention", "AMSoftmax", 1e-4, 100, 32, "WeightedPooling"),
    "zhou2020/baseline": ("ConvBLSTMAttention", "WeightedCrossEntropy", 1e-4, 100, 32, "WeightedPooling"),
    "zhou2020/combined_pooling": (
        "ConvBLSTMAttention",
        "WeightedCrossEntropy",
        1e-4,
        100,
        32,
        "AttentiveStatisticsPooling",
    ),
    "zhou2020/focal": ("ConvBLSTMAttention", "FocalLoss", 1e-4, 100, 32, "WeightedPooling"),
}
EXTRACTOR = {
    "ando2019": "LogPowerSpectrogram",
    "huang2020": "ComParE147",
    "mocanu2021": "SilenceRemoval",
    "zhou2020": "LogMelFilterbank",
}
CORPUS = {
    "ando2019/iemocap": ("IEMOCAP", "LeaveOneSpeakerOut", ["neutral", "happy", "sad", "angry"], {}),
    "ando2019/crema_d": ("CremaD", "ActorFolds", 6, {}),
    "huang2020/iemocap": ("IEMOCAP", "LeaveOneSpeakerOut", ["angry", "happy", "sad", "neutral"], {}),
    "zhou2020/iemocap": ("IEMOCAP", "RandomFolds", ["angry", "happy", "sad", "neutral"], {}),
    **{f"{paper}/ravdess": ("RAVDESS", "ActorFolds", 8, {}) for paper in ("huang2020", "mocanu2021", "zhou2020")},
    **{f"{paper}/crema_d": ("CremaD", "ActorFolds", 6, {}) for paper in ("huang2020", "mocanu2021", "zhou2020")},
    "mocanu2021/voxceleb2": ("VoxCeleb2", "HeldOutClips", 3, {"epochs": 30, "batch": 64, "step": 10}),
    "mocanu2021/crema_d_speakers": ("CremaD", "HeldOutClips", 3, {"epochs": 40, "batch": 32, "step": 20}),
}


def last_part(value: Any) -> str:
    return str(value["class_path"]).rpartition(".")[2]


@pytest.mark.parametrize("files", with_repetitions(PAIRS))
def test_a_pair_resolves_to_its_system_and_its_corpus(files: tuple[Path, Path], built: Build) -> None:
    found = built(files)
    key, corpus_key = (f"{path.parent.name}/{path.stem}" for path in files)
    system, loss, lr, epochs, batch, part = SYSTEM[key]
    corpus, protocol, classes, own = CORPUS[corpus_key]
    config, model, data = found.config, found.config["model"]["init_args"], found.config["data"]["init_args"]
    assert last_part(config["model"]) == system
    assert last_part(model.get("criterion") or model["metric_loss"]) == loss
    assert model["optimizer"]["init_args"]["lr"] == lr
    assert config["trainer"]["max_epochs"] == (epochs or own["epochs"])
    assert data["batch_size"] == (batch or own["batch"])
    assert last_part(model["pooling"] if "pooling" in model else data["targets"]) == part
    assert last_part(data["extractor"]) == EXTRACTOR[files[0].parent.name]
    assert (last_part(config["data"]), found.protocol) == (corpus, protocol)
    assert classes in (found.class_names, len(found.class_names))
    if "step" in own:
        assert model["scheduler"]["init_args"]["step_size"] == own["step"]
    if "VLAD" in part:
        assert found.clusters == (8 if system == "SpeakerIdentification" else len(found.class_names))


def unlike(written: Any, resolved: Any, key: str = "") -> list[str]:
    """Return the keys of a file that are not in a configuration with the file's value."""
    if isinstance(written, dict) and isinstance(resolved, dict):
        pairs = [(inner, resolved.get(part, "dropped"), f"{key}.{part}".strip(".")) for part, inner in written.items()]
    elif isinstance(written, list) and isinstance(resolved, list) and len(written) == len(resolved):
        pairs = [(a, b, f"{key}.{index}") for index, (a, b) in enumerate(zip(written, resolved, strict=True))]
    else:
        return [] if written == resolved else [f"{key}: {written} in the file, {resolved} resolved"]
    return [problem for pair in pairs for problem in unlike(*pair)]


@pytest.mark.parametrize("files", with_repetitions(PAIRS))
def test_merging_a_pair_drops_no_key_of_either_file(files: tuple[Path, Path], built: Build) -> None:
    problems = [problem for path in files for problem in unlike(content(path), built(files).config)]
    assert [one for one in problems if not one.startswith("data.init_args.root: ")] == []  # the test sets it
    assert len(problems) == 1


def choices_of(files: tuple[Path, Path]) -> list[Choice]:
    """Return the choices of keys that apply to a pair."""
    chosen = (*CHOICES_OF_ALL, *CHOICES[files[0].parent.name])
    return [one for one in chosen if one.made_in == "key" and one.holds_for(files[0].stem, files[1].stem)]


@pytest.mark.parametrize("files", with_repetitions(PAIRS))
def test_a_choice_has_the_value_of_every_experiment_it_covers(files: tuple[Path, Path], built: Build) -> None:
    config = built(files).config
    different = {one.key: at(config, one.key) for one in choices_of(files) if at(config, one.key) != one.value}
    assert different == {}


# What a value of these keys changes is not in a paper, or has no effect on the results of these experiments.
NO_CHOICE = {
    "data.init_args.feature_folder",
    "data.init_args.features",
    "data.init_args.on_bad_audio",
    "data.init_args.others",  # follows from the stated number of utterances
    "data.init_args.recognise",
    "data.init_args.workers",
    "data.init_args.extractor.init_args.sample_rate_hz",  # an entry of all papers
    "model.init_args.criterion.init_args.prior",  # unused if alpha is 0
    "model.init_args.scheduler.init_args.last_epoch",
}


def set_values(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys whose value does something: not None, False, 0 or empty."""
    parts = enumerate(config) if isinstance(config, list) and config and isinstance(config[0], dict) else None
    if isinstance(config, dict):
        parts = config.items()
    if parts is None:
        if config not in (None, False, 0, [], ()):
            yield key, config
    else:
        for part, inner in parts:
            yield from set_values(inner, f"{key}.{part}")


@pytest.mark.parametrize("files", with_repetitions(PAIRS))
def test_a_value_that_no_file_writes_is_a_choice(files: tuple[Path, Path], built: Build) -> None:
    config = built(files).config
    parts = {"model": config["model"], "data": config["data"], "trainer": {"callbacks": config["trainer"]["callbacks"]}}
    found = {key.removeprefix("."): value for key, value in set_values(parts)}
    chosen = {one.key for one in choices_of(files)} | NO_CHOICE
    written = (key for key in found if any(at(content(path), key) != ABSENT for path in files))
    assert {key: found[key] for key in found.keys() - chosen - set(written)} == {}


def test_there_are_experiments() -> None:
    assert {f"{path.parent.name}/{path.stem}" for path in SYSTEMS} == set(SYSTEM)
    assert {f"{path.parent.name}/{path.stem}" for _, path in PAIRS} == set(CORPUS)
    assert [path.stem for path in TRAINERS] == ["bf16", "compiled", "cpu", "ddp", "gpu", "smoke"]


@pytest.mark.parametrize("files", with_repetitions(EXPERIMENTS))
def test_an_experiment_is_built_unchanged(files: tuple[Path, ...], built: Build) -> None:
    found = built(files)
    assert found.frames_fit
    assert found.outputs == (1, len(found.class_names))


@pytest.mark.parametrize("path", sorted({path for files in PAIRS for path in files}), ids=str)
def test_every_number_of_a_papers_experiment_names_its_source(path: Path) -> None:
    for line in re.findall(r"^ *(?:monitor: .*|[a-z_]+: \[?-?[0-9].*)$", path.read_text(), re.MULTILINE):
        if not line.startswith(("seed_everything:", "  devices:")):
            assert re.search(r"# (§|table |chosen)", line), line


def rows_and_repetitions() -> Iterator[Any]:
    """Rows as test parameters; one that sets no other keys than an earlier row of its paper is slow."""
    seen = set()
    for table, row in ROWS:
        keys = (table.parent, *(override.partition("=")[0] for override in row.overrides), *row.needs)
        marks = [pytest.mark.slow] if keys in seen else []
        seen.add(keys)
        yield pytest.param(table, row, marks=marks, id=f"{table.parent.name}/{table.stem}: {row.name}")


@pytest.mark.parametrize(("table", "row"), list(rows_and_repetitions()))
def test_every_row_of_every_table_is_built(table: Path, row: Row, synthetic_corpora: dict[str, Path]) -> None:
    needs = [f"--{argument}=best.ckpt" for argument in row.needs]
    files = files_of_row(table, row)
    callers = [*(["--once"] if row.once else []), *needs, *arguments(files, synthetic_corpora)[len(files) :]]
    cli = ExperimentCLI(row_arguments(table, row, callers), run=False)
    assert cli.model.num_features == cli.datamodule.extractor.num_features


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda path: path.stem)
def test_a_trainer_file_only_sets_the_trainer(trainer: Path) -> None:
    assert {"trainer"} <= set(content(trainer)) <= {"trainer", "execution"}


@pytest.mark.slow
@pytest.mark.parametrize("files", EXPERIMENTS, ids=name)
def test_an_experiment_trains_two_batches_and_tests(files: tuple[Path, ...], trained: Train) -> None:
    folder = trained(files)
    if "SpeakerIdentification" in files[0].read_text():  # pre-training is not tested
        assert RunFacts.read(folder / "run.json").epochs == 1
        assert (folder / "checkpoints/best.ckpt").exists()
    else:
        check_trained(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "overrides"),
    [
        pytest.param(files_of_row(table, row), tuple(row.overrides), id=f"{table.stem}: {row.name}")
        for table, row in ROWS
        # Ando's table 3 has a separate test.
        if not (row.needs and "ando2019" in table.parts) and not row.once and not is_the_experiment_itself(table, row)
    ],
)
def test_a_row_with_overrides_trains_two_batches_and_tests(
    files: tuple[Path, ...], overrides: tuple[str, ...], trained: Train
) -> None:
    check_trained(trained(files, *overrides))


def check_trained(folder: Path) -> None:
    facts = RunFacts.read(folder / "run.json")
    assert facts.epochs == 1
    assert facts.synthetic
    assert (folder / "predictions.csv").exists()
