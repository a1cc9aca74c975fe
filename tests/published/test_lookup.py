"""What papers report of runs, looked up in the table files."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from ser_lightning.published.lookup import table_files, with_published
from ser_lightning.published.table_file import read_table, row_arguments
from ser_lightning.reports.systems import PaperResult, ReportedSystem
from ser_lightning.runs.gathering import CrossValidation, finished_folds, gather
from ser_lightning.runs.predictions import Predictions
from ser_lightning.training.experiment import resolve

EXPERIMENTS = Path("experiments")


def averaged(*folders: Path) -> list[CrossValidation]:
    runs, left_out = gather([fold for folder in folders for fold in finished_folds(folder)])
    assert not left_out
    return runs


def _run(folder: Path, config: dict[str, object] | None = None, **facts: object) -> list[CrossValidation]:
    """Write a fold of a run, its predictions those of another test's file format, and find it."""
    fold = folder / "seed-0" / "fold-00"
    fold.mkdir(parents=True)
    header = "utterance,speaker,fold,target,predicted,probability_a,probability_b"
    (fold / "predictions.csv").write_text(f"{header}\nx,01,0,a,a,0.7,0.3\ny,02,0,b,b,0.3,0.7\n")
    Predictions.read(fold / "predictions.csv")
    said: dict[str, object] = dict.fromkeys(("system", "protocol", "protocol_hash", "split_hash", "code_version"), "")
    said |= {"paper": "huang2020", "experiment": "netvlad", "corpus": "iemocap", "synthetic": False, "row": "default"}
    said |= {"speakers_disjoint": True, "fold": 0, "num_folds": 1, "seed": 0, "class_names": ["a", "b"]}
    said |= {"parameters": 1, "best_epoch": 0, "epochs": 1, "seconds": 1.0, "hardware": "", "precision": ""}
    said |= {"skipped_audio": {}, "faulty_left_out": []}
    said |= {"same_audio_across_sets": 0, "untrained_classes": [], "one_speaker_classes": [], "diverged": ""}
    (fold / "run.json").write_text(json.dumps(said | facts))
    if config:
        (fold / "config.yaml").write_text(yaml.safe_dump(config))
    return averaged(folder)


def published(runs: list[CrossValidation], experiments: Path = EXPERIMENTS) -> Sequence[PaperResult]:
    (system,) = with_published([ReportedSystem.of(runs)], experiments)
    return system.published


def test_a_run_finds_its_row(tmp_path: Path) -> None:
    (found,) = published(_run(tmp_path))
    assert found.source == "Huang et al. 2020, Table 1, pooling methods: NetVLAD"
    assert (found.corpus, found.scores) == ("iemocap", {"UA": 62.6})


def test_a_run_of_a_tables_row_finds_that_row(tmp_path: Path) -> None:
    (found,) = published(_run(tmp_path, row="K=4"))
    assert found.source == "Huang et al. 2020, Figure 3, NetVLAD with K clusters: K=4"
    assert published(_run(tmp_path / "other", row="K=5")) == []  # not legible in the paper


def test_a_run_finds_its_row_in_another_papers_table(tmp_path: Path) -> None:
    (found,) = published(_run(tmp_path, experiment="netvlad_unigram", corpus="crema_d"))
    assert found.source == "Mocanu et al. 2021, Table 3, CREMA-D, other papers' systems: Huang et al. 2020"
    assert found.scores == {"WA": 61.53}
    assert found.note.startswith("inferred: ")


def test_each_system_gets_its_own_results(tmp_path: Path) -> None:
    systems = [ReportedSystem.of(_run(tmp_path / row, row=row)) for row in ("K=4", "K=5", "default")]
    assert [len(system.published) for system in with_published(systems)] == [1, 0, 1]


@pytest.mark.parametrize(("corpus", "score"), [("ravdess", 67.94), ("crema_d", 53.38)])
def test_the_table_on_the_runs_corpus_is_preferred(corpus: str, score: float, tmp_path: Path) -> None:
    (found,) = published(_run(tmp_path, paper="mocanu2021", experiment="s1_scratch", corpus=corpus))
    assert (found.corpus, found.scores) == (corpus, {"WA": score})


def test_a_run_on_another_corpus_gets_scores_and_their_corpus(tmp_path: Path) -> None:
    (found,) = published(_run(tmp_path, corpus="ravdess"))
    assert (found.corpus, found.scores) == ("iemocap", {"UA": 62.6})


def test_an_unpublished_experiment_finds_nothing(tmp_path: Path) -> None:
    assert published(_run(tmp_path, experiment="mine")) == []
    assert published(_run(tmp_path / "x"), tmp_path) == []


def _named(found: PaperResult) -> list[str]:
    return [difference.split(" ")[0] for difference in found.differences]


def test_differences_from_the_file_are_listed(tmp_path: Path) -> None:
    config = resolve([f"--config={EXPERIMENTS / 'huang2020' / name}" for name in ("netvlad.yaml", "iemocap.yaml")])
    assert published(_run(tmp_path / "same", config))[0].differences == []
    config["trainer"]["max_epochs"] = 8
    config["trainer"]["precision"] = "32-true"  # Lightning's default, which the file does not set
    config["model"]["init_args"]["dropout"] = 0.1
    config["data"]["init_args"] |= {"root": "elsewhere", "fold": 2}
    config["data"]["init_args"]["protocol"]["class_path"] = "ser_lightning.data.protocols.RandomFolds"
    config["seed_everything"] = 3
    (found,) = published(_run(tmp_path / "other", config))
    assert found.differences == [
        "data.init_args.protocol",
        "model.init_args.dropout 0.1 (file: 0.5)",
        "trainer.max_epochs 8 (file: 50)",
    ]


def _table(folder: Path, *overrides: str) -> Path:
    """Write a table of one row, on RAVDESS, whose experiment is the quick start."""
    path = folder / "experiments" / "paper" / "table1.yaml"
    path.parent.mkdir(parents=True)
    experiment = yaml.safe_load(Path("experiments/quickstart.yaml").read_text())
    corpus = {"data": {"class_path": experiment["data"].pop("class_path")}}
    (path.parent / "x.yaml").write_text(yaml.safe_dump(experiment))
    (path.parent / "ravdess.yaml").write_text(yaml.safe_dump(corpus))
    row = {"name": "row", "experiment": "x.yaml", "overrides": [*overrides], "paper": {"UA": 60.0}}
    path.write_text(yaml.safe_dump({"title": "T", "corpus": "ravdess", "rows": [row]}))
    return path


RUN = {"paper": "paper", "experiment": "x", "corpus": "ravdess", "row": "row"}


@pytest.mark.parametrize(
    "overrides",
    [
        ["--model.init_args.pooling=GhostVLAD", "--model.init_args.pooling.init_args.clusters=4"],
        pytest.param(
            ["--model.init_args.pooling", "GhostVLAD", "--model.init_args.pooling.clusters", "4"],
            marks=pytest.mark.slow,
        ),
        ["--model.init_args.pooling={class_path: GhostVLAD, init_args: {clusters: 4}}"],
    ],
)
def test_a_row_may_set_another_class_in_any_notation(overrides: list[str], tmp_path: Path) -> None:
    path = _table(tmp_path, *overrides)
    (row,) = read_table(path).rows
    run = resolve(row_arguments(path, row, []))
    tables = tmp_path / "experiments"
    assert published(_run(tmp_path / "same", run, **RUN), tables)[0].differences == []
    run["model"]["init_args"]["pooling"]["init_args"]["clusters"] = 6
    assert published(_run(tmp_path / "other", run, **RUN), tables)[0].differences == [
        "model.init_args.pooling.init_args.clusters 6 (file: 4)"
    ]
    run["model"]["init_args"]["pooling"] = {"class_path": "ser_lightning.nn.pooling.MeanPooling"}
    (found,) = published(_run(tmp_path / "another", run, **RUN), tables)
    assert "model.init_args.pooling.class_path" in _named(found)


def test_a_run_is_compared_with_the_experiment_on_its_corpus(tmp_path: Path) -> None:
    path = _table(tmp_path, "--model.init_args.cells=8")
    run = resolve(["--config=experiments/quickstart.yaml"])
    tables = tmp_path / "experiments"
    assert _named(*published(_run(tmp_path / "same", run, **RUN), tables)) == ["model.init_args.cells"]
    assert published(_run(tmp_path / "absent", run, **RUN | {"corpus": "crema_d"}), tables)[0].differences == []
    run["data"]["class_path"] = "data_modules.crema_d.CREMAD"
    (path.parent / "crema_d.yaml").write_text((path.parent / "ravdess.yaml").read_text())
    assert published(_run(tmp_path / "other", run, **RUN | {"corpus": "crema_d"}), tables)[0].differences == []


def test_a_row_with_untrusted_classes_is_not_compared(tmp_path: Path) -> None:
    _table(tmp_path, "--model.init_args.pooling=os.system")
    run = resolve(["--config=experiments/quickstart.yaml"])
    (found,) = published(_run(tmp_path / "run", run, **RUN), tmp_path / "experiments")
    (said,) = found.differences
    assert said.startswith("not compared: ")
    assert "os.system" in said


def test_table_files_are_distinguished_from_experiments() -> None:
    found = [path.name for path in table_files(EXPERIMENTS)]
    assert {"table1.yaml", "figure3.yaml", "parameters.yaml", "table2_crema_d.yaml"} <= set(found)
    assert "quickstart.yaml" not in found
    assert not any(path.parent.name == "trainer" for path in table_files(EXPERIMENTS))
