"""From a YAML to a run's files through LightningCLI, and errors."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from ser_lightning.cli.__main__ import main
from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.predictions import Predictions, tensors
from ser_lightning.systems.checkpoint import load_system, read_checkpoint
from ser_lightning.training.arguments import corpus_argument
from ser_lightning.training.callbacks import EpochSeed
from ser_lightning.training.experiment import ExperimentCLI, with_public_paths
from ser_lightning.training.fold import run_fold

pytestmark = pytest.mark.usefixtures("small_pictures")

Arguments = Callable[..., list[str]]


class Halt(Exception):  # noqa: N818  # not an error
    """Stands for a kill."""


@pytest.fixture(scope="module")
def finished(arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fold, without W&B."""
    return run_fold(arguments(tmp_path_factory.mktemp("fold"), "--trainer.logger=false"))


def test_a_fold_writes_all_its_files(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {"config.yaml", "run.json", "predictions.csv", "validation_predictions.csv", "confusion.png"}
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"best.ckpt", "best.md", "last.ckpt"}


def test_probabilities_are_scored_against_the_label_as_one_vote(finished: Path) -> None:
    stored = json.loads((finished / "scores.json").read_text())
    assert set(stored) == {"UA", "WA", "macro_F1", "ECE", "vote_cross_entropy", "vote_KL"}
    table = Predictions.read(finished / "predictions.csv").table
    of_target = [row[f"probability_{row['target']}"] for _, row in table.iterrows()]
    assert stored["vote_cross_entropy"] == pytest.approx(-sum(map(math.log, of_target)) / len(table), rel=1e-5)
    assert stored["vote_KL"] == pytest.approx(stored["vote_cross_entropy"])
    assert stored["WA"] == pytest.approx((table["target"] == table["predicted"]).mean())


def test_a_finished_fold_is_not_run_again(finished: Path, arguments: Arguments) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    run_fold(arguments(finished, "--trainer.logger=false"))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_checkpoint_predicts_what_its_fold_predicted(finished: Path, arguments: Arguments) -> None:
    cli = ExperimentCLI(arguments(finished, "--trainer.logger=false"), run=False)
    data = cli.datamodule
    data.prepare_data()
    data.setup("test")
    system = load_system(finished / "checkpoints" / "best.ckpt")
    predictions = Predictions.read(finished / "predictions.csv")
    with torch.no_grad():
        for batch in data.test_dataloader():
            probabilities = system(batch.inputs, batch.lengths).softmax(1)
            stored, _, _ = tensors(predictions.table.iloc[batch.indices.tolist()], predictions.class_names)
            torch.testing.assert_close(probabilities.double(), stored, atol=1e-6, rtol=0)


def test_a_checkpoint_records_its_origin(finished: Path) -> None:
    stored = read_checkpoint(finished / "checkpoints" / "best.ckpt")["ser_lightning"]
    assert stored["system"] == "ser_lightning.systems.PooledLSTM"
    assert stored["origin"]["corpus"] == "ravdess-synthetic"
    assert stored["origin"]["extractor"]["class_path"].endswith("LogMelFilterbank")
    assert len(stored["origin"]["training_speakers"]) == 2
    assert len(stored["origin"]["validation_speakers"]) == 2
    assert not set(stored["origin"]["validation_speakers"]) & set(stored["origin"]["training_speakers"])
    assert stored["class_names"][0] == "neutral"


def test_the_standardisation_is_fitted_on_training_speakers_only(finished: Path, arguments: Arguments) -> None:
    cli = ExperimentCLI(arguments(finished, "--trainer.logger=false"), run=False)
    data = cli.datamodule
    data.prepare_data()
    data.setup("fit")
    frames = torch.cat(data.store.load([u.path for u in data.split().train]))
    system = load_system(finished / "checkpoints" / "best.ckpt")
    torch.testing.assert_close(system.standardisation.mean, frames.double().mean(0).float())
    torch.testing.assert_close(system.standardisation.deviation, frames.double().std(0, correction=0).float())
    counts = torch.bincount(torch.tensor([data.class_names.index(u.label) for u in data.split().train]), minlength=8)
    torch.testing.assert_close(system.class_prior, counts / counts.sum())


def test_fit_writes_a_row_per_epoch_and_a_runnable_configuration(tmp_path: Path, arguments: Arguments) -> None:
    (tmp_path / "a").mkdir()
    earlier = [tmp_path / "a" / name for name in ("predictions.csv", "run.json", "scores.json")]
    for path in earlier:
        path.write_text("of an earlier fit")
    assert main(["fit", *arguments(tmp_path / "a")]) == 0
    assert not [path.name for path in earlier if path.exists() and path.read_text() == "of an earlier fit"]
    assert not (tmp_path / "a" / "predictions.csv").exists()
    metrics = pd.read_csv(tmp_path / "a" / "metrics.csv")
    assert metrics["epoch"].tolist() == [0, 1]
    assert set(metrics) >= {"train/loss", "validation/loss", "validation/UA", "validation/WA", "validation/macro_F1"}
    assert main(["fit", f"--config={tmp_path}/a/config.yaml", f"--trainer.default_root_dir={tmp_path}/b"]) == 0
    again = pd.read_csv(tmp_path / "b" / "metrics.csv")
    pd.testing.assert_frame_equal(metrics, again)


def test_validate_test_and_predict_read_a_checkpoint(finished: Path, tmp_path: Path, arguments: Arguments) -> None:
    best = f"--ckpt_path={finished}/checkpoints/best.ckpt"
    for command, file, count in (
        ("validate", "validation_predictions.csv", 32),
        ("test", "predictions.csv", 32),
        ("predict", "corpus_predictions.csv", 96),
    ):
        assert main([command, *arguments(tmp_path, "--trainer.logger=false", best)]) == 0
        assert len(Predictions.read(tmp_path / file).table) == count
    for file in ("validation_predictions.csv", "predictions.csv"):
        assert (tmp_path / file).read_bytes() == (finished / file).read_bytes()


def test_evaluation_rejects_a_missing_or_unsuitable_checkpoint(
    finished: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    best = f"--ckpt_path={finished}/checkpoints/best.ckpt"
    given = arguments(tmp_path, "--trainer.logger=false")
    before = (finished / "predictions.csv").read_bytes()
    for more, named in (
        ([], "--ckpt_path best"),
        ([best, "--data.init_args.fold=1"], "best.ckpt was trained on"),
        ([best, "--data.init_args.extractor.init_args.hop_seconds=0.02"], "hop_seconds"),
        (["--ckpt_path=last"], "last.ckpt: no such checkpoint"),
    ):
        assert main(["test", *given, *more]) == 1
        assert named in capsys.readouterr().err
        assert not (tmp_path / "predictions.csv").exists()
    assert main(["test", *arguments(finished, "--trainer.logger=false"), "--ckpt_path=best"]) == 0
    assert (finished / "predictions.csv").read_bytes() == before


def test_a_moved_run_resumes_with_its_best_score_and_patience(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_epoch = EpochSeed.on_train_epoch_start
    more = (
        "--trainer.logger=false",
        "--trainer.max_epochs=4",
        "--trainer.callbacks=ser_lightning.callbacks.EarlyStopping",
        "--trainer.callbacks.init_args.monitor=validation/loss",
        "--trainer.callbacks.init_args.mode=max",  # the loss falls, so the first epoch stays the best
        "--trainer.callbacks.init_args.patience=2",
    )

    def halt_in_the_second(seed: EpochSeed, trainer: Trainer, system: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise Halt
        begin_epoch(seed, trainer, system)

    def last_epoch(folder: Path) -> int:
        return int(read_checkpoint(folder / "checkpoints" / "last.ckpt")["epoch"])

    whole = run_fold(arguments(tmp_path / "whole", *more))
    assert last_epoch(whole) == 2
    monkeypatch.setattr(EpochSeed, "on_train_epoch_start", halt_in_the_second)
    with pytest.raises(Halt):
        run_fold(arguments(tmp_path / "begun", *more))
    monkeypatch.undo()
    (tmp_path / "begun").rename(tmp_path / "moved")
    assert last_epoch(tmp_path / "moved") == 0
    moved = run_fold(arguments(tmp_path / "moved", *more))
    assert last_epoch(moved) == 2
    assert (moved / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_train_on_a_cpu(precision: str, tmp_path: Path, arguments: Arguments) -> None:
    more = ("--trainer.logger=false", f"--trainer.precision={precision}", "--trainer.max_epochs=1")
    assert (run_fold(arguments(tmp_path, *more)) / "predictions.csv").exists()


def test_a_few_batches_of_evaluation_write_no_predictions(finished: Path, tmp_path: Path, arguments: Arguments) -> None:
    best = f"--ckpt_path={finished}/checkpoints/best.ckpt"
    assert main(["test", *arguments(tmp_path, "--trainer.fast_dev_run=true", best)]) == 0
    assert not (tmp_path / "predictions.csv").exists()


def test_a_time_limit_is_kept(tmp_path: Path, arguments: Arguments) -> None:
    limit = ["--trainer.logger=false", "--trainer.max_time=00:00:01:00"]
    callbacks = ExperimentCLI(arguments(tmp_path, *limit), run=False).trainer.callbacks
    assert [timer.time_remaining() for timer in callbacks if isinstance(timer, Timer)] == [60]


def test_a_missing_device_is_one_error(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert main(["fit", *arguments(tmp_path, "--config=experiments/trainer/gpu.yaml")]) == 1
    assert "experiments/trainer/cpu.yaml" in capsys.readouterr().err


def test_a_folder_of_another_configuration_is_rejected_by_key(finished: Path, arguments: Arguments) -> None:
    with pytest.raises(ConfigurationError, match=r"model.init_args.dropout: 0.5 there, 0.25 now"):
        run_fold(arguments(finished, "--trainer.logger=false", "--model.init_args.dropout=0.25"))


def test_a_checkpoint_of_other_arguments_is_rejected_by_key(
    finished: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--trainer.logger=false", "--model.init_args.dropout=0.25", f"--ckpt_path={finished}/checkpoints/best.ckpt")
    assert main(["test", *arguments(tmp_path, *more)]) == 1
    error = capsys.readouterr().err
    assert "best.ckpt" in error
    assert "init_args.dropout: 0.5 there, 0.25 now" in error


def test_a_checkpoint_without_its_arguments_is_rejected(
    finished: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    for configuration in (None, {}):
        checkpoint["ser_lightning"]["configuration"] = configuration
        torch.save(checkpoint, tmp_path / "python.ckpt")
        given = arguments(tmp_path, "--trainer.logger=false", f"--ckpt_path={tmp_path}/python.ckpt")
        assert main(["test", *given]) == 1
        assert "python.ckpt was saved" in capsys.readouterr().err


def test_a_damaged_best_checkpoint_is_made_again_from_the_last(
    finished: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "fold"))
    best, last = (folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    content = torch.load(last, weights_only=True)
    state = next(state for key, state in content["callbacks"].items() if key.startswith("BestCheckpoint"))
    assert state["best_step"] == torch.load(best, weights_only=True)["global_step"]
    damaged = bytearray(best.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    for step, status in ((content["global_step"] + 1, 1), (content["global_step"], 0)):
        state["best_step"] = step
        torch.save(content, last)
        best.write_bytes(damaged)
        assert main(["run-fold", *arguments(folder, "--trainer.logger=false")]) == status
        assert (best.read_bytes() == last.read_bytes()) == (status == 0)
        if status:
            error = capsys.readouterr().err
            assert "best.ckpt is damaged" in error
            assert f"delete {folder / 'checkpoints'}" in error


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--model.init_args.cels=3"], "cels"),
        (["--data.init_args.fold=9"], "fold 9"),
        (["--trainer.use_distributed_sampler=true"], "use_distributed_sampler"),
        (["--model=os.system"], "os.system"),
        (["--model.init_args.pooling=os.system"], "os.system"),
        (["--data.init_args.root=/nowhere/at/all"], "/nowhere/at/all"),
        (["--data.init_args.batch_size=0"], "batch_size is 0"),
        (["--ckpt_path=/nowhere.ckpt"], "/nowhere.ckpt"),
        (["--trainer=1000000"], "trainer"),
        (["--best_checkpoint=3"], "best_checkpoint"),
        (["--trainer.devices=null"], "devices null"),
        (["--model.init_args.optimizer=torch.optim.Adam", "--model.init_args.optimizer.lr=null"], "optimizer"),
        (["--model.init_args.optimizer=torch.optim.Adam", "--model.init_args.optimizer.lr=-1"], "-1"),
        (["--model.init_args.cells=many"], "many"),
        (["--trainer.max_epochs=" + "9" * 5000], "max_epochs"),
        (["--trainer.max_epochs=2026-13-45"], "max_epochs"),
        (["--data.init_args.fold=!!int ''"], "not YAML"),
        (["--trainer.max_epoch=3"], "--trainer.max_epoch=3; give the full name, --trainer.max_epochs"),
        (["--seed", "3"], "--seed 3; give the full name, --seed_everything"),
        (["--ro", "x"], "--ro is not an option; give its full name, --row"),
        (["--seed_everything=-1"], "--seed_everything is -1; a seed is a number from 0 to 4294967295"),
        (["--seed_everything=true"], "--seed_everything is true"),
    ],
)
def test_a_wrong_argument_is_one_error_that_names_it(
    more: list[str], named: str, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *arguments(tmp_path, "--trainer.logger=false", *more)]) == 1
    error = capsys.readouterr().err
    assert [line[:7] for line in error.splitlines() if "files/s" not in line] == ["error: "]
    assert named in error
    assert "SER_TRACEBACK" not in error


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--best_checkpoint.monitor=val/UA"], "best_checkpoint: monitor is 'val/UA', but the system logs "),
        (
            [
                "--trainer.callbacks=ser_lightning.callbacks.EarlyStopping",
                "--trainer.callbacks.monitor=UA",
                "--trainer.callbacks.mode=max",
            ],
            "EarlyStopping of trainer.callbacks: monitor is 'UA', but the system logs ",
        ),
    ],
)
def test_epochs_are_chosen_by_scores_that_the_system_logs(
    more: list[str], named: str, tmp_path: Path, finished: Path, arguments: Arguments
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ExperimentCLI(arguments(tmp_path, "--trainer.logger=false", *more), run=False)
    before, listed = str(refused.value).removesuffix("; choose one of these").split("logs ")
    assert f"{before}logs " == named
    assert set(listed.split(", ")) == set(pd.read_csv(finished / "metrics.csv")) - {"epoch", "step"}


def test_unsuitable_targets_are_rejected_before_extraction(tmp_path: Path, arguments: Arguments) -> None:
    soft = "--data.init_args.targets=ser_lightning.data.targets.SoftTargets"
    folder = f"--data.init_args.feature_folder={tmp_path / 'features'}"
    with pytest.raises(ConfigurationError, match=r"LabelSmoothing .*data.init_args.targets .*soft"):
        ExperimentCLI(arguments(tmp_path, "--trainer.logger=false", soft, folder), run=False)
    assert not (tmp_path / "features").exists()


def test_a_run_names_classes_by_public_paths(tmp_path: Path, arguments: Arguments) -> None:
    internal = "--model=ser_lightning.systems.huang2020.PooledLSTM"
    cli = ExperimentCLI(arguments(tmp_path, "--trainer.logger=false", internal), run=False)
    assert cli.configuration["model"]["class_path"] == "ser_lightning.systems.PooledLSTM"
    assert cli.model.configuration["class_path"] == "ser_lightning.systems.PooledLSTM"


def test_every_class_path_of_a_configuration_becomes_public() -> None:
    inner = {"class_path": "ser_lightning.losses.focal.FocalLoss", "init_args": {"gamma": 1.0}}
    written = {"class_path": "ser_lightning.systems.PooledLSTM", "init_args": {"criterion": inner, "list": [inner, 3]}}
    outer = with_public_paths(written)
    public = {"class_path": "ser_lightning.losses.FocalLoss", "init_args": {"gamma": 1.0}}
    assert outer == {**written, "init_args": {"criterion": public, "list": [public, 3]}}


def test_the_system_comes_first_as_its_file_names_the_run() -> None:
    system, corpus = "experiments/huang2020/mean.yaml", "experiments/huang2020/ravdess.yaml"
    cpu = "experiments/trainer/cpu.yaml"
    for first in (corpus, cpu):
        with pytest.raises(ConfigurationError, match=rf"^{first}: model.class_path .*--config {system} first"):
            corpus_argument([f"--config={first}", "--config", system, f"--config={corpus}"])


def test_the_data_class_is_an_argument_of_its_own() -> None:
    system, corpus = "--config=experiments/huang2020/mean.yaml", "--config=experiments/huang2020/ravdess.yaml"
    first = ["--data=data_modules.ravdess.RAVDESS"]
    assert corpus_argument(["fit", system, corpus, "--a=1"]) == first
    own = ["-c", system.partition("=")[2], "--data", "data_modules.audio_files.AudioFiles"]
    assert corpus_argument(own) == ["--data=data_modules.audio_files.AudioFiles"]
    assert corpus_argument(["fit", system, "--help"]) == []
    assert corpus_argument(["fit", system, corpus, "--print_config"]) == first


def test_an_experiment_without_system_or_corpus_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = yaml.safe_load(Path("experiments/quickstart.yaml").read_text())
    for part in ("data", "model"):
        (tmp_path / f"no_{part}.yaml").write_text(yaml.safe_dump({k: v for k, v in experiment.items() if k != part}))
    smoke = "experiments/trainer/smoke.yaml"
    both = "model.class_path and data.class_path"
    way_out = "name an experiment's YAML: --config experiments/....yaml"
    root = "--data.init_args.root=corpus"
    for given, named in [
        ([], f"no experiment is given: neither a file nor an argument has {both}; {way_out}"),
        ([f"--config={smoke}"], f"{smoke}: neither a file nor an argument has {both}; {way_out}"),
        (
            ["-c", f"{tmp_path}/no_data.yaml"],
            f"{tmp_path}/no_data.yaml: neither a file nor an argument has data.class_path; add its corpus's file",
        ),
        (
            ["--config", f"{tmp_path}/no_model.yaml"],
            f"{tmp_path}/no_model.yaml: neither a file nor an argument has model.class_path; {way_out}",
        ),
    ]:
        for command in ("audit", "cv", "fit", "run-fold"):
            assert main([command, root, *given]) == 1
            said = capsys.readouterr().err
            assert said.startswith(f"error: {named}"), said
            assert "--allow" not in said
    ExperimentCLI([f"--config={tmp_path}/no_model.yaml", f"--model={json.dumps(experiment['model'])}"], run=False)
    with pytest.raises(SystemExit):
        main(["fit", "--print_config"])


@pytest.mark.parametrize(
    ("more", "place"),
    [
        (["--data.init_args.rooot=x"], "command line, --data.init_args.rooot"),
        (["--data.init_args.batch_size", "x"], "command line, --data.init_args.batch_size"),
        (["--trainer.max_epochs=x"], "command line, --trainer.max_epochs"),
        (["--data.init_args.protocol.class_path=Foo"], "command line, --data.init_args.protocol.class_path"),
        (['--data.init_args.protocol.init_args={"blok": 3}'], "command line, --data.init_args.protocol.init_args"),
        (["stray"], "command line"),
        (["--model.init_args.cells=9"], "mine.yaml"),
    ],
)
def test_a_wrong_key_is_reported_where_it_was_given(more: list[str], place: str, tmp_path: Path) -> None:
    experiment = yaml.safe_load(Path("experiments/quickstart.yaml").read_text())
    if place == "mine.yaml":
        experiment["data"]["init_args"]["cells"] = 3  # a key of the system's
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(experiment))
    with pytest.raises(ConfigurationError) as refused:
        ExperimentCLI([f"--config={path}", *more], run=False)
    assert str(refused.value).startswith(f"{path}: " if place == "mine.yaml" else f"{place}: "), refused.value


@pytest.mark.parametrize("seed", [True, False, None, -1, 2**32, 1.5, "x"])
def test_a_seed_that_is_not_a_number_in_range_is_named(seed: object, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"seed_everything": seed}))
    with pytest.raises(ConfigurationError, match=rf"mine.yaml: seed_everything is {seed};"):
        ExperimentCLI(["--config=experiments/quickstart.yaml", f"--config={tmp_path}/mine.yaml"], run=False)


@pytest.mark.parametrize("command", ["run-fold", "audit", "prepare"])
def test_an_abbreviated_option_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--config=experiments/quickstart.yaml", "--seed=3"]) == 1
    assert "--seed=3; give the full name, --seed_everything" in capsys.readouterr().err


def test_a_file_in_another_encoding_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(Path("experiments/quickstart.yaml").read_text(), encoding="utf-16")
    assert main(["audit", f"--config={path}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path} ")
    assert "UTF-8" in said


def evil_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that writes a file when it is imported."""
    trace = folder / "executed"
    (folder / "evil_module.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: ...\n")
    monkeypatch.syspath_prepend(folder)
    return trace


def test_a_foreign_class_in_a_yaml_is_not_executed(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = evil_module(tmp_path, monkeypatch)
    experiment = yaml.safe_load(Path("experiments/quickstart.yaml").read_text())
    experiment["model"]["init_args"]["criterion"]["class_path"] = "evil_module.Evil"
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(experiment))
    assert main(["fit", f"--config={tmp_path}/evil.yaml"]) == 1
    assert "evil.yaml: model.init_args.criterion.class_path is 'evil_module.Evil'" in capsys.readouterr().err
    assert main(["fit", *arguments(tmp_path, "--model.init_args.criterion=evil_module.Evil")]) == 1
    assert "evil_module" in capsys.readouterr().err
    assert not trace.exists()
    assert "evil_module" not in sys.modules


def test_a_foreign_class_in_a_checkpoint_is_not_executed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = evil_module(tmp_path, monkeypatch)
    checkpoint = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    for place in ("hyper_parameters", "ser_lightning"):
        evil = {"configuration": {"class_path": "evil_module.Evil"}}
        forged = {**checkpoint, place: checkpoint.get(place, {}) | evil}
        torch.save(forged, tmp_path / "forged.ckpt")
        with pytest.raises(ConfigurationError, match=rf"forged.ckpt: {place}: .*evil_module.Evil"):
            load_system(tmp_path / "forged.ckpt")
    assert not trace.exists()


def test_a_file_without_a_system_is_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save({"object": ExperimentCLI}, tmp_path / "pickle.ckpt")
    for name, reason in (
        ("text.ckpt", "not loaded|not a checkpoint"),
        ("foreign.ckpt", "keys are state_dict"),
        ("pickle.ckpt", "more than weights"),
        ("absent.ckpt", "no such checkpoint"),
    ):
        with pytest.raises(ConfigurationError, match=reason) as caught:
            load_system(tmp_path / name)
        assert name in str(caught.value)


def test_slurms_other_tasks_do_not_join_a_training_on_one_device(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"NTASKS": "4", "NNODES": "2", "JOB_ID": "7", "JOB_NAME": "train", "PROCID": "1", "LOCALID": "1"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    trainer = ExperimentCLI(arguments(tmp_path, "--trainer.logger=false"), run=False).trainer
    assert (trainer.world_size, trainer.global_rank) == (1, 0)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    two = ("--trainer.logger=false", "--trainer.accelerator=cpu", "--trainer.devices=2")
    with pytest.raises(ConfigurationError, match=r"trainer.devices is 2.*SLURM.*ntasks=4"):
        ExperimentCLI(arguments(tmp_path, *two), run=False)


def test_a_tilde_is_the_home_folder(tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    given = [argument for argument in arguments(tmp_path) if "root" not in argument]
    root = next(argument for argument in arguments(tmp_path) if argument.startswith("--data.init_args.root=/"))
    (home / "corpus").symlink_to(root.partition("=")[2])
    paths = ("--data.init_args.root=~/corpus", "--trainer.default_root_dir=~/run", "--trainer.logger=false")
    cli = ExperimentCLI([*given, *paths], run=False)
    assert cli.data.root == home / "corpus"  # type: ignore[attr-defined]
    assert cli.trainer.default_root_dir == str(home / "run")
