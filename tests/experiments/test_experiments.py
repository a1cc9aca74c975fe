"""Every YAML under experiments/: it is built as it stands, and trains on a synthetic corpus of its kind."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from ser_lightning.published.table_file import Row, read_table, row_arguments
from ser_lightning.runs.facts import RunFacts
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.training.fold import run_fold

# experiments/<name>.yaml and experiments/<paper>/<corpus>/<name>.yaml; between them lie tables and trainers.
EXPERIMENTS = sorted(path for pattern in ("*.yaml", "*/*/*.yaml") for path in Path("experiments").glob(pattern))
TRAINERS = sorted(Path("experiments/trainer").glob("*.yaml"))
TABLES = sorted(p for p in Path("experiments").glob("*/*.yaml") if p.parent.name not in ("trainer", "sweeps"))
ROWS = [(path, row) for path in TABLES for row in read_table(path).rows if row.experiment]
EVEN = (
    "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
    "--data.init_args.protocol.init_args.blocks=even",
    "--data.init_args.protocol.init_args.num_folds=3",
)
# Enough to learn nothing in little time: one step of Zhou's whole network takes some seconds on one core.
NARROW = {
    "PooledLSTM": ("cells=8",),
    "ConvBLSTMAttention": ("channels=[4,4,4,4,4,4]", "cells=4"),
    "DominantEmotionRecognition": ("channels=[2,3,4]", "cells=4", "attention_dim=4", "hidden_dim=4"),
    "MultiLabelEmotionExistence": ("channels=[2,3,4]", "cells=4", "attention_dim=4", "hidden_dim=4"),
    "ExistencePretraining": ("channels=[2,3,4]", "cells=4", "attention_dim=4", "hidden_dim=4"),
    "SEResNetVLAD": ("encoder.init_args.channels=2", "embedding_dim=8"),
    "MetricLearning": ("encoder.init_args.channels=2", "embedding_dim=8"),
    "SpeakerIdentification": ("encoder.init_args.channels=2", "embedding_dim=8"),
}
# Two of each emotion, where a batch has all of them.
BATCH_SIZE = {"MetricLearning": 16}
Train = Callable[..., Path]


@cache
def content(path: Path) -> dict[str, dict[str, object]]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def is_the_experiment_itself(table: Path, row: Row) -> bool:
    """Whether a row overrides nothing, or only with what the experiment's file says anyway."""

    def said(key: str) -> object:
        value: object = content(table.parent / str(row.experiment))
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    pairs = (override.removeprefix("--").split("=", 1) for override in row.overrides)
    return all(said(key) == yaml.safe_load(value) for key, value in pairs)


@pytest.fixture(scope="session")
def synthetic_corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A synthetic corpus for each data module's class path."""
    from data_modules import audio_files, crema_d, iemocap, ravdess, voxceleb2

    root = tmp_path_factory.mktemp("corpora")
    ravdess.write_synthetic(root / "RAVDESS", speakers=4, seed=0, clips_per_speaker=12)
    crema_d.write_synthetic(root / "CremaD", speakers=3, seed=0, clips_per_speaker=12)
    iemocap.write_synthetic(root / "IEMOCAP", speakers=4, seed=0, clips_per_speaker=12)
    audio_files.write_synthetic(root / "AudioFiles", speakers=3, seed=0, clips_per_speaker=12)
    voxceleb2.write_synthetic(root / "VoxCeleb2", speakers=3, seed=0, clips_per_speaker=4)
    modules = {
        "RAVDESS": ravdess,
        "CremaD": crema_d,
        "IEMOCAP": iemocap,
        "AudioFiles": audio_files,
        "VoxCeleb2": voxceleb2,
    }
    return {f"{module.__name__}.{name}": root / name for name, module in modules.items()}


def arguments(path: Path, corpora: dict[str, Path]) -> list[str]:
    class_path = str(content(path)["data"]["class_path"])
    return [f"--config={path}", f"--data.init_args.root={corpora[class_path]}", "--trainer.logger=false"]


def needed_by(path: Path) -> dict[str, Path]:
    """Which argument of an experiment is another one's checkpoint: a row of its paper's tables says so."""
    for table in (table for table in TABLES if table.parent == path.parent.parent):
        rows = {row.name: row for row in read_table(table, [f"corpus={path.parent.name}"]).rows}
        for row in rows.values():
            if row.needs and table.parent / str(row.experiment) == path:
                return {argument: table.parent / str(rows[name].experiment) for argument, name in row.needs.items()}
    return {}


@pytest.fixture(scope="session")
def trained(
    synthetic_corpora: dict[str, Path], feature_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Train:
    """Trains an experiment narrowly for two batches, behind those whose checkpoints it needs; returns the run."""

    @cache
    def train(path: Path, *overrides: str) -> Path:
        system = str(content(path)["model"]["class_path"]).rpartition(".")[2]
        checkpoints = {argument: train(other) / "checkpoints/best.ckpt" for argument, other in needed_by(path).items()}
        more = (
            "--config=experiments/trainer/smoke.yaml",
            f"--data.init_args.feature_folder={feature_folder}",
            f"--trainer.default_root_dir={tmp_path_factory.mktemp(path.stem)}",
            f"--data.init_args.batch_size={BATCH_SIZE.get(system, 4)}",
            *(f"--model.init_args.{narrow}" for narrow in NARROW[system]),
            *(f"--{argument}={checkpoint}" for argument, checkpoint in checkpoints.items()),
            *(() if "protocol:" in path.read_text() or system == "SpeakerIdentification" else EVEN),
            *overrides,
        )
        return run_fold([*arguments(path, synthetic_corpora), *more])

    return train


def test_there_are_experiments() -> None:
    assert len(EXPERIMENTS) >= 41
    assert all("\nmodel:\n" in path.read_text() for path in EXPERIMENTS)
    assert [path.stem for path in TRAINERS] == ["bf16", "compiled", "cpu", "ddp", "gpu", "smoke"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=str)
def test_an_experiment_is_built_as_it_stands(path: Path, synthetic_corpora: dict[str, Path]) -> None:
    cli = ExperimentCLI(arguments(path, synthetic_corpora), run=False)
    assert cli.model.num_features == cli.datamodule.extractor.num_features
    frames, lengths = torch.zeros(1, 80, cli.model.num_features), torch.tensor([80])
    with torch.no_grad():
        assert cli.model.eval()(frames, lengths).shape == (1, len(cli.datamodule.class_names))
    assert cli.datamodule.protocol.num_folds is not None


@pytest.mark.parametrize("path", EXPERIMENTS, ids=str)
def test_every_number_of_a_papers_experiment_says_where_it_comes_from(path: Path) -> None:
    if path.parent == Path("experiments"):
        pytest.skip("the quick start reproduces no paper")  # and says so in its first lines
    body = path.read_text()
    for line in re.findall(r"^ *(?:monitor: .*|[a-z_]+: \[?-?[0-9].*)$", body, re.MULTILINE):
        if not line.startswith(("seed_everything:", "  devices:")):
            assert re.search(r"# (§|table |not stated; chosen because )", line), line


@pytest.mark.parametrize(
    ("table", "row"), ROWS, ids=[f"{path.parent.name}/{path.stem}: {row.name}" for path, row in ROWS]
)
def test_every_row_of_every_table_is_built(table: Path, row: Row, synthetic_corpora: dict[str, Path]) -> None:
    needs = [f"--{argument}=best.ckpt" for argument in row.needs]
    own = arguments(table.parent / str(row.experiment), synthetic_corpora)
    callers = [*(["--once"] if row.once else []), *needs, *own[1:]]
    cli = ExperimentCLI(row_arguments(table, row, callers), run=False)
    assert cli.model.num_features == cli.datamodule.extractor.num_features


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda path: path.stem)
def test_a_trainer_file_holds_nothing_but_the_trainer(trainer: Path) -> None:
    assert {"trainer"} <= set(content(trainer)) <= {"trainer", "execution"}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=str)
def test_an_experiment_trains_two_batches_and_tests(path: Path, trained: Train) -> None:
    folder = trained(path)
    if "SpeakerIdentification" in path.read_text():  # for others to start from; nothing is tested
        assert RunFacts.read(folder / "run.json").epochs == 1
        assert (folder / "checkpoints/best.ckpt").exists()
    else:
        check_trained(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "overrides"),
    [
        pytest.param(table.parent / str(row.experiment), tuple(row.overrides), id=f"{table.stem}: {row.name}")
        for table, row in ROWS
        # Table 3 of Ando et al. has a test of its own.
        if not (row.needs and "ando2019" in table.parts) and not row.once and not is_the_experiment_itself(table, row)
    ],
)
def test_a_row_with_overrides_trains_two_batches_and_tests(
    path: Path, overrides: tuple[str, ...], trained: Train
) -> None:
    check_trained(trained(path, *overrides))


def check_trained(folder: Path) -> None:
    facts = RunFacts.read(folder / "run.json")
    assert facts.epochs == 1
    assert facts.synthetic
    assert (folder / "predictions.csv").exists()
