"""Every YAML under experiments/: it is built as it stands, and trains on a synthetic corpus of its kind."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from ser_lightning.cross_validation.worker import run_fold
from ser_lightning.experiment import ExperimentCLI
from ser_lightning.reports.run_facts import RunFacts

EXPERIMENTS = sorted(path for path in Path("experiments").rglob("*.yaml") if "\nmodel:\n" in path.read_text())
TRAINERS = sorted(Path("experiments/trainer").glob("*.yaml"))
EVEN = (
    "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
    "--data.init_args.protocol.init_args.blocks=even",
    "--data.init_args.protocol.init_args.num_folds=3",
)


@cache
def content(path: Path) -> dict[str, dict[str, object]]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="session")
def synthetic_corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A synthetic corpus for each data module's class path."""
    from data_modules import crema_d, iemocap, ravdess

    root = tmp_path_factory.mktemp("corpora")
    ravdess.write_synthetic(root / "RAVDESS", speakers=3, seed=0, clips_per_speaker=12)
    crema_d.write_synthetic(root / "CremaD", speakers=3, seed=0, clips_per_speaker=12)
    iemocap.write_synthetic(root / "IEMOCAP", speakers=4, seed=0, clips_per_speaker=12)
    return {
        f"{module.__name__}.{name}": root / name
        for module, name in ((ravdess, "RAVDESS"), (crema_d, "CremaD"), (iemocap, "IEMOCAP"))
    }


def arguments(path: Path, corpora: dict[str, Path]) -> list[str]:
    class_path = str(content(path)["data"]["class_path"])
    return [f"--config={path}", f"--data.init_args.root={corpora[class_path]}", "--trainer.logger=false"]


def test_there_are_experiments() -> None:
    assert len(EXPERIMENTS) >= 25
    assert [path.stem for path in TRAINERS] == ["bf16", "cpu", "ddp", "gpu", "smoke"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=str)
def test_an_experiment_is_built_as_it_stands(path: Path, synthetic_corpora: dict[str, Path]) -> None:
    cli = ExperimentCLI(arguments(path, synthetic_corpora), run=False)
    assert cli.model.standardisation.mean.shape == (cli.datamodule.extractor.num_features,)
    assert cli.model.output.out_features == len(cli.datamodule.class_names)
    assert cli.datamodule.protocol.num_folds is not None


@pytest.mark.parametrize("path", EXPERIMENTS, ids=str)
def test_every_number_of_a_papers_experiment_says_where_it_comes_from(path: Path) -> None:
    if path.parent == Path("experiments"):
        pytest.skip("the quick start reproduces no paper")  # and says so in its first lines
    body = path.read_text()
    for key in ("max_epochs", "monitor", "cells", "dropout", "input_noise", "alpha", "lr", "batch_size", "clusters"):
        for line in re.findall(rf"^ *{key}:.*$", body, re.MULTILINE):
            assert re.search(r"# (§|not stated; chosen because )", line), line


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda path: path.stem)
def test_a_trainer_file_holds_nothing_but_the_trainer(trainer: Path) -> None:
    assert set(content(trainer)) == {"trainer"}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=str)
def test_an_experiment_trains_two_batches_and_tests(
    path: Path, synthetic_corpora: dict[str, Path], feature_folder: Path, tmp_path: Path
) -> None:
    more = (
        "--config=experiments/trainer/smoke.yaml",
        f"--data.init_args.feature_folder={feature_folder}",
        f"--trainer.default_root_dir={tmp_path}",
        "--data.init_args.batch_size=4",
        *(() if "protocol:" in path.read_text() else EVEN),
    )
    folder = run_fold([*arguments(path, synthetic_corpora), *more], "default")
    facts = RunFacts.read(folder / "run.json")
    assert facts.epochs == 1
    assert facts.synthetic
    assert (folder / "predictions.csv").exists()
