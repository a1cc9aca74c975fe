"""A table that is killed again and again ends as if it had never been."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from ser_lightning.runs.folder import file_hash, recorded_sources

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for orphans in /proc"),
]
KILLS = 5
CHECKPOINT = "model.init_args.existence_checkpoint"
RESULTS = ("predictions.csv", "validation_predictions.csv", "metrics.csv", "config.yaml")


def processes_with(text: str) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if text in (line := (entry / "cmdline").read_text()) and int(entry.name) != os.getpid():
                found[int(entry.name)] = line.replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # the process has ended
            continue
    return found


def stage(experiment: Path, system: str, criterion: str) -> str:
    """The quick start's YAML with a stage of Ando et al. 2019 in the place of its system."""
    content = yaml.safe_load(experiment.read_text())
    widths = {"channels": [2, 2, 2], "cells": 4, "attention_dim": 4, "hidden_dim": 8}
    arguments = {"criterion": {"class_path": f"ser_lightning.losses.{criterion}"}, **widths}
    content["model"] = {"class_path": f"ser_lightning.systems.{system}", "init_args": arguments}
    return str(yaml.safe_dump(content))


@pytest.fixture
def table(synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path, repository: Path) -> list[str]:
    """``ser table run`` of three rows, of which one needs another, on two folds; ``--runs`` is left to say."""
    path = tmp_path / "experiments" / "table.yaml"
    path.parent.mkdir()
    experiment = repository / "experiments" / "quickstart.yaml"
    (path.parent / "first.yaml").write_text(stage(experiment, "MultiLabelEmotionExistence", "ExistenceLoss"))
    (path.parent / "second.yaml").write_text(stage(experiment, "ExistencePretraining", "WeightedCrossEntropy"))
    path.write_text(
        "title: T\ncorpus: ravdess\nrows:\n"
        f"  - {{name: eight cells, experiment: {experiment}, corpus: '', overrides: [--model.init_args.cells=8]}}\n"
        "  - {name: existence, experiment: first.yaml, corpus: ''}\n"
        f"  - {{name: dominance, experiment: second.yaml, corpus: '', needs: {{{CHECKPOINT}: existence}}}}\n"
    )
    program = [sys.executable, "-m", "ser_lightning.cli"]
    features = f"--data.init_args.feature_folder={feature_folder}"
    few = ["--folds=0,1", "--trainer.max_epochs=10", "--trainer.logger=false"]
    return [*program, "table", "run", str(path), f"--data.init_args.root={synthetic_ravdess}", features, *few]


def results(runs: Path) -> dict[str, bytes]:
    return {str(path.relative_to(runs)): path.read_bytes() for name in RESULTS for path in runs.rglob(f"fold-*/{name}")}


def weights(runs: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = runs.rglob("fold-*/checkpoints/*.ckpt")
    return {str(path.relative_to(runs)): torch.load(path, weights_only=True)["state_dict"] for path in found}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_table_killed_five_times_ends_with_equal_results(
    jobs: int, table: list[str], tmp_path: Path, repository: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    if jobs > 1 and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    began = time.monotonic()
    subprocess.run([*table, f"--runs={calm}"], cwd=repository, check=True, stdout=subprocess.DEVNULL)
    longest = time.monotonic() - began
    expected = results(calm)
    assert len(expected) == 6 * len(RESULTS)

    disturbed = [*table, f"--runs={killed}", f"--jobs={jobs}"]
    moments = random.Random(jobs)
    hit = 0
    for _ in range(KILLS):
        process = subprocess.Popen(disturbed, cwd=repository, stdout=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.1, 0.4) * longest)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            hit += 1
        process.wait()
        wait_until(lambda: not processes_with(str(killed)))
        for name, content in results(killed).items():
            if name.endswith("predictions.csv"):
                assert content == expected[name], f"half-written, and counted: {name}"
    assert hit >= 3, "it finished before it was killed"
    subprocess.run(disturbed, cwd=repository, check=True, stdout=subprocess.DEVNULL)

    ended = results(killed)
    for name, content in expected.items():
        if name.endswith("config.yaml"):  # it names the folder
            assert ended[name] == content.replace(str(calm).encode(), str(killed).encode()), name
        else:
            assert ended[name] == content, name
    later = sorted(killed.glob("second/*/*/seed-0/fold-*"))
    assert len(later) == 2
    for folder in later:  # each started from the earlier stage's final checkpoint
        before = killed / "first" / folder.relative_to(killed / "second").parts[0] / "default"
        (named,) = recorded_sources(folder).items()
        assert named == (CHECKPOINT, file_hash(before / "seed-0" / folder.name / "checkpoints" / "best.ckpt"))
    one, other = weights(calm), weights(killed)
    assert set(one) == set(other)
    for name, state in one.items():
        assert all(torch.equal(state[key], other[name][key]) for key in state), name
