"""What papers report of runs, looked up in the table files."""

import json
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from ser_lightning.published.lookup import EXPERIMENTS, publications, table_files
from ser_lightning.runs.gathering import CrossValidation, find_cross_validations
from ser_lightning.runs.predictions import Predictions


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
    said |= {"parameters": 1, "best_epoch": 0, "epochs": 1, "seconds": 1.0, "hardware": ""}
    said |= {"skipped_audio": {}, "faulty_left_out": []}
    (fold / "run.json").write_text(json.dumps(said | facts))
    if config:
        (fold / "config.yaml").write_text(yaml.safe_dump(config))
    return find_cross_validations([folder])


def test_a_run_finds_its_row(tmp_path: Path) -> None:
    (found,) = publications(EXPERIMENTS)(_run(tmp_path))
    assert found.source == "Huang et al. 2020, Table 1, pooling methods: NetVLAD"
    assert (found.corpus, found.scores) == ("iemocap", {"UA": 62.6})


def test_a_run_of_a_tables_row_finds_that_row(tmp_path: Path) -> None:
    (found,) = publications(EXPERIMENTS)(_run(tmp_path, row="K=4"))
    assert found.source == "Huang et al. 2020, Figure 3, NetVLAD with K clusters: K=4"
    assert publications(EXPERIMENTS)(_run(tmp_path / "other", row="K=5")) == []  # not legible in the paper


@pytest.mark.parametrize(("corpus", "score"), [("ravdess", 67.94), ("crema_d", 53.38)])
def test_of_tables_on_two_corpora_the_one_on_the_runs_own_counts(corpus: str, score: float, tmp_path: Path) -> None:
    (found,) = publications(EXPERIMENTS)(_run(tmp_path, paper="mocanu2021", experiment="s1_scratch", corpus=corpus))
    assert (found.corpus, found.scores) == (corpus, {"WA": score})


def test_a_run_on_another_corpus_finds_the_number_and_the_corpus_it_is_on(tmp_path: Path) -> None:
    (found,) = publications(EXPERIMENTS)(_run(tmp_path, corpus="ravdess"))
    assert (found.corpus, found.scores) == ("iemocap", {"UA": 62.6})


def test_an_experiment_of_ones_own_finds_nothing(tmp_path: Path) -> None:
    assert publications(EXPERIMENTS)(_run(tmp_path, experiment="mine")) == []
    assert publications(tmp_path)(_run(tmp_path / "x")) == []


def test_what_a_run_has_otherwise_than_the_file_is_said(tmp_path: Path) -> None:
    files = [EXPERIMENTS / "huang2020" / name for name in ("netvlad.yaml", "iemocap.yaml")]
    config = OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.load, files)))
    assert publications(EXPERIMENTS)(_run(tmp_path / "same", config))[0].unlike_file == []
    config["trainer"]["max_epochs"] = 8
    config["trainer"]["precision"] = "32-true"  # the file leaves it open
    config["model"]["init_args"]["dropout"] = 0.1
    config["data"]["init_args"]["root"] = "elsewhere"
    config["seed_everything"] = 3
    (found,) = publications(EXPERIMENTS)(_run(tmp_path / "other", config))
    assert found.unlike_file == [
        "model.init_args.dropout 0.1 (file: 0.5)",
        "trainer.max_epochs 8 (file: 50)",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["--model.init_args.pooling=NetVLAD", "--model.init_args.pooling.init_args.clusters=4"],
        ["--model.init_args.pooling", "NetVLAD", "--model.init_args.pooling.clusters", "4"],
        ["--model.init_args.pooling.class_path=ser_lightning.nn.pooling.NetVLAD", "--model.pooling.clusters=4"],
        ["--model.init_args.pooling={class_path: NetVLAD, init_args: {clusters: 4}}"],
    ],
)
@pytest.mark.parametrize("filed", ["MeanPooling", "NetVLAD", None])
def test_a_row_may_name_another_class_however_it_is_written(
    filed: str | None, overrides: list[str], tmp_path: Path
) -> None:
    netvlad = {"class_path": "ser_lightning.nn.pooling.NetVLAD", "init_args": {"clusters": 4}}
    arguments = {"dropout": 0.5, "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-4}}}
    model = {"class_path": "ser_lightning.systems.PooledLSTM", "init_args": arguments}
    own = {**arguments, "pooling": {"class_path": f"ser_lightning.nn.pooling.{filed}"}} if filed else arguments
    if filed == "NetVLAD":
        own["pooling"] |= {"init_args": {"clusters": 8}}  # type: ignore[operator]
    overrides = [*overrides, "--model.init_args.optimizer.init_args.lr=1e-4"]
    path = tmp_path / "experiments" / "paper" / "table1.yaml"
    path.parent.mkdir(parents=True)
    (path.parent / "ravdess.yaml").write_text("{}")
    (path.parent / "x.yaml").write_text(yaml.safe_dump({"model": model | {"init_args": own}}))
    row = {"name": "row", "experiment": "x.yaml", "overrides": overrides, "paper": {"UA": 60.0}}
    path.write_text(yaml.safe_dump({"title": "T", "corpus": "ravdess", "rows": [row]}))
    named = {"paper": "paper", "experiment": "x", "corpus": "ravdess", "row": "row"}

    def unlike(name: str, clusters: int, **pooling: object) -> list[str]:
        run = {**arguments, "pooling": netvlad | {"init_args": {"clusters": clusters}} | pooling}
        found = _run(tmp_path / name, {"model": model | {"init_args": run}}, **named)
        (entry,) = publications(tmp_path / "experiments")(found)
        return list(entry.unlike_file)

    assert unlike("same", 4) == []
    assert unlike("other", 6) == ["model.init_args.pooling.init_args.clusters 6 (file: 4)"]
    other = unlike("another", 4, class_path="ser_lightning.nn.pooling.GhostVLAD")
    assert [line.split(" ")[0] for line in other] == ["model.init_args.pooling.class_path"]


def test_a_row_that_names_a_class_and_nothing_else_is_that_row(tmp_path: Path) -> None:
    path = tmp_path / "experiments" / "paper" / "table1.yaml"
    path.parent.mkdir(parents=True)
    (path.parent / "ravdess.yaml").write_text("{}")
    filed = {"model": {"init_args": {"pooling": {"class_path": "a.NetVLAD", "init_args": {"clusters": 4}}}}}
    (path.parent / "x.yaml").write_text(yaml.safe_dump(filed))
    row = "{name: row, experiment: x.yaml, overrides: [--model.init_args.pooling=MeanPooling], paper: {UA: 1}}"
    path.write_text(f"title: T\ncorpus: ravdess\nrows: [{row}]")
    ran = {"model": {"init_args": {"pooling": {"class_path": "a.MeanPooling"}}}}
    runs = _run(tmp_path / "run", ran, paper="paper", experiment="x", corpus="ravdess", row="row")
    assert publications(tmp_path / "experiments")(runs)[0].unlike_file == []


def test_files_of_tables_are_told_from_experiments() -> None:
    found = [path.name for path in table_files(EXPERIMENTS)]
    assert {"table1.yaml", "figure3.yaml", "parameters.yaml", "table2_crema_d.yaml"} <= set(found)
    assert "quickstart.yaml" not in found
    assert not any(path.parent.name == "trainer" for path in table_files(EXPERIMENTS))
