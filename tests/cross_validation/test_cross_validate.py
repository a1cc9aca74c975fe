"""All folds of an experiment, or of a table, in one command: resumed exactly, nothing done twice, nothing mixed.

Tests that train in jobs are in this module: its process needs one fork server, which imports the suite for ten seconds.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch
import wandb
import yaml
from rich.console import Console

from ser_lightning.cli.__main__ import main
from ser_lightning.cross_validation import cross_validate, planner
from ser_lightning.cross_validation.planner import RunOptions, plan_experiment
from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureStore
from ser_lightning.jobs.plan import Job, Resources, show_plan, write_configurations
from ser_lightning.runs.folder import read_config
from ser_lightning.training.experiment import ExperimentCLI
from tests.cross_validation.test_tables import arguments as arguments_of_a_table

pytestmark = pytest.mark.usefixtures("small_pictures")

QUIET = Console(quiet=True)

WaitUntil = Callable[[Callable[[], object]], None]


def arguments(root: Path, features: Path, runs: Path, *more: str) -> list[str]:
    return [
        "cv",
        f"--runs={runs}",
        "--config=experiments/quickstart.yaml",
        f"--data.init_args.root={root}",
        f"--data.init_args.feature_folder={features}",
        "--model.init_args.cells=8",
        "--trainer.max_epochs=6",
        *more,
    ]


def command(*parts: str) -> list[str]:
    return [sys.executable, "-m", "ser_lightning.cli", *parts]


def seed_folder(runs: Path) -> Path:
    return runs / "quickstart/ravdess-synthetic/default/seed-0"


def processes_writing_below(runs: Path) -> list[Path]:
    """Processes whose output goes to a file below a folder: forked jobs have their server's command line."""
    found = []
    for output in Path("/proc").glob("[0-9]*/fd/1"):
        with suppress(OSError):  # the process has ended
            if output.readlink().is_relative_to(runs):
                found.append(output)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for orphans in /proc")
def test_a_killed_cross_validation_resumes_to_equal_results(
    synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path, repository: Path, wait_until: WaitUntil
) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    undisturbed = arguments(synthetic_ravdess, feature_folder, calm, "--folds=1", "--trainer.max_epochs=4")
    assert main(undisturbed) == 0

    wandb.setup().ensure_service()  # it outlives killed children, which find it through WANDB_SERVICE
    disturbed = arguments(synthetic_ravdess, feature_folder, killed, "--folds=1", "--trainer.max_epochs=4")
    process = subprocess.Popen(command(*disturbed), cwd=repository, stdout=subprocess.DEVNULL)
    metrics = seed_folder(killed) / "fold-01" / "metrics.csv"
    wait_until(lambda: metrics.exists() and len(pd.read_csv(metrics)) >= 2)
    process.kill()
    process.wait()
    wait_until(lambda: not processes_writing_below(killed))  # the fold's process ends with its parent
    assert not (seed_folder(killed) / "fold-01" / "predictions.csv").exists()

    assert main(disturbed) == 0
    assert "Restoring states" in (seed_folder(killed) / "fold-01" / "log.txt").read_text()
    one, other = seed_folder(calm) / "fold-01", seed_folder(killed) / "fold-01"
    for file in ("predictions.csv", "validation_predictions.csv", "metrics.csv"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    for name in ("best", "last"):
        weights = [
            torch.load(f / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"] for f in (one, other)
        ]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0]), name
    summaries = [json.loads((seed_folder(runs) / "summary.json").read_text()) for runs in (calm, killed)]
    for summary in summaries:
        for key in ("seconds", "code_versions"):  # a developer may commit meanwhile
            summary.pop(key)
        for seed in summary["seeds"]:
            seed.pop("seconds", None)
            for fold in seed["folds"]:
                fold.pop("seconds", None)
    assert summaries[0] == summaries[1]


@pytest.fixture(scope="module")
def done(synthetic_ravdess: Path, feature_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a cross-validation whose first fold is done."""
    runs = tmp_path_factory.mktemp("runs")
    asked = arguments(synthetic_ravdess, feature_folder, runs, "--trainer.max_epochs=1", "--trainer.logger=false")
    assert main([*asked, "--folds=0"]) == 0
    return asked


def test_the_summary_names_missing_folds(done: list[str]) -> None:
    folder = seed_folder(Path(done[1].removeprefix("--runs=")))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["synthetic"] is True
    assert summary["seeds"][0]["folds_missing"] == [1, 2, 3]
    assert "<html" in (folder / "report.html").read_text()


def test_a_damaged_summary_and_a_missing_card_are_rewritten(done: list[str]) -> None:
    folder = seed_folder(Path(done[1].removeprefix("--runs=")))
    summary, card = folder / "summary.json", folder / "fold-00" / "checkpoints" / "best.md"
    before = summary.read_bytes(), card.read_bytes()
    summary.write_bytes(b'\xff\xfe{"seeds": [')
    card.unlink()  # as a kill after the last predictions leaves it
    assert main([*done, "--folds=0"]) == 0
    assert (summary.read_bytes(), card.read_bytes()) == before


def test_a_changed_configuration_is_rejected_before_any_run(
    done: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*done, "--model.init_args.cells=9"]) == 1
    error = capsys.readouterr().err
    assert "model.init_args.cells: 8" in error
    assert "fold-00" in error
    folder = seed_folder(Path(done[1].removeprefix("--runs=")))
    assert not (folder / "fold-01").exists()


def test_a_copied_config_keeps_the_runs_names(done: list[str], tmp_path: Path) -> None:
    own = seed_folder(Path(done[1].removeprefix("--runs="))) / "fold-00" / "config.yaml"
    for place in ("experiments/another/config.yaml", "renamed.yaml"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(own, tmp_path / place)
    own_row = ["--run.paper=mine2026", "--run.row=wide"]
    for place, more, name in (
        ("experiments/another/config.yaml", [], "quickstart/ravdess-synthetic/default"),
        ("renamed.yaml", own_row, "mine2026/quickstart/ravdess-synthetic/wide"),
    ):
        options = RunOptions(folds="1", seeds="4", runs=tmp_path, dry_run="json")
        (job,) = plan_experiment([f"--config={tmp_path / place}", *more], options, Console(quiet=True))
        assert job.folder == tmp_path / name / "seed-4" / "fold-01"
        show_plan([job], Resources(), Console(quiet=True), "text")
        cli = ExperimentCLI([f"--config={job.folder}/config.yaml"], run=False, trainer_overrides={"logger": False})
        assert cli.run_name.folder(tmp_path) == job.folder
        assert Path(cli.trainer.default_root_dir) == job.folder


def test_a_fold_resumes_with_another_root(done: list[str], synthetic_ravdess: Path, tmp_path: Path) -> None:
    folder = seed_folder(Path(done[1].removeprefix("--runs="))) / "fold-00"
    (folder / "predictions.csv").unlink()
    moved = tmp_path / "moved"
    shutil.copytree(synthetic_ravdess, moved)
    plan = plan_experiment(
        [*done[2:], f"--data.init_args.root={moved}"], RunOptions("0", runs=folder.parents[4]), QUIET
    )
    write_configurations(plan)
    assert read_config(folder)["data"]["init_args"]["root"] == str(moved)
    assert main([*done, "--folds=0"]) == 0
    assert read_config(folder)["data"]["init_args"]["root"] == str(synthetic_ravdess)
    assert (folder / "predictions.csv").exists()


def test_extraction_uses_the_processes_of_the_jobs(
    synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    prepare = FeatureStore.prepare
    monkeypatch.setattr(
        FeatureStore, "prepare", lambda self, paths, *rest: used.append(rest[0]) or prepare(self, paths, *rest)
    )
    given = arguments(synthetic_ravdess, feature_folder, tmp_path)[2:]
    for jobs, workers in ((3, 1), (1, 2)):
        options = RunOptions(runs=tmp_path, resources=Resources(jobs=jobs))
        plan_experiment([*given, f"--data.init_args.workers={workers}"], options, QUIET)
    assert used == [3, 2]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("--folds=7", "--folds 7"),
        ("--folds=a", "--folds a: 'a'"),
        ("--seeds=0,x", "--seeds 0,x: 'x'"),
        ("--seeds=5000000000", "--seeds 5000000000: 5000000000 is too large; the numbers are 0 to 4294967295"),
        ("--fold=1", "--fold is not an option; give its full name, --folds"),
        ("--flods=1", "--flods is not an option; give its full name, --folds"),
        ("--row=", "--row (run.row) '' "),
        ("--row=../x", "--row (run.row) '../x' "),
        ("--data.init_args.fold=1", "use --folds"),
        ("--seed_everything=1", "use --seeds"),
    ],
)
def test_unusable_folds_and_seeds_are_rejected(
    done: list[str], more: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*done, more]) == 1
    said = capsys.readouterr()
    assert named in said.err
    assert "features" not in said.out


def test_seeds_and_folders_of_the_yaml_are_not_ignored(done: list[str], tmp_path: Path) -> None:
    given = done[2:]
    for trainer, seeds, planned in (({}, None, [7]), ({}, "1,3", [1, 3]), ({"default_root_dir": "here"}, None, [])):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"seed_everything": 7, "trainer": trainer}))
        options = RunOptions(folds="0", seeds=seeds, runs=tmp_path, dry_run="json")
        if planned:
            jobs = plan_experiment([*given, f"--config={tmp_path}/mine.yaml"], options, QUIET)
            assert [(job.seed, job.folder.parent.name) for job in jobs] == [(seed, f"seed-{seed}") for seed in planned]
            assert [job.configuration["seed_everything"] for job in jobs] == planned
        else:
            with pytest.raises(ConfigurationError, match=r"trainer.default_root_dir is here.*--runs"):
                plan_experiment([*given, f"--config={tmp_path}/mine.yaml"], options, QUIET)


def test_a_stage_of_another_seed_is_named(tmp_path: Path) -> None:
    stage = Job(tmp_path, {}, "first", "default", fold=0, seed=7)
    with pytest.raises(ConfigurationError, match=r"first is planned with seed 7.* seed 0.*--seeds"):
        planner._of_same_fold([stage], 0, 0)


def test_an_experiment_without_a_file_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(Path("experiments/quickstart.yaml").read_text())
    given = [f"--{key}={json.dumps(content[key])}" for key in ("model", "data")]
    assert main(["cv", f"--runs={tmp_path}", "--trainer.max_epochs=1", *given]) == 1
    assert "--config" in capsys.readouterr().err


def test_a_cluster_needs_gpu_shares_or_the_cpu(done: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cluster = ["--address=head:6379", "--jobs=1", "--dry-run", "--folds=1"]
    assert main([*done, *cluster, "--trainer.accelerator=auto"]) == 1
    assert "--gpus-per-job" in capsys.readouterr().err
    assert main([*done, *cluster, "--trainer.accelerator=cpu"]) == 0


def test_an_indivisible_corpus_is_rejected_before_extraction(
    synthetic_ravdess: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = arguments(synthetic_ravdess, tmp_path / "features", tmp_path / "runs")
    parts.append("--data.init_args.protocol.init_args.num_folds=9")
    fold = ["run-fold", *parts[2:], f"--trainer.default_root_dir={tmp_path / 'fold'}"]
    for refused in (parts, fold):
        assert main(refused) == 1
        assert capsys.readouterr().err.count("num_folds") == 1
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "fold"])  # the fold's folder holds its lock


def with_unusable(root: Path, to: Path, pattern: str) -> Path:
    """A copy of a corpus in which the files of a pattern are Git LFS pointers."""
    shutil.copytree(root, to)
    for path in to.rglob(pattern):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 65432\n")
    return to


@pytest.mark.parametrize(
    ("pattern", "more", "named"),
    [
        ("*.wav", [], ["96 utterances found, 96 skipped as unusable (", ", 0 used"]),
        (
            "*-06.wav",
            ['--data.init_args.protocol.init_args={"blocks": ["1-2", "3-4", "5-6"], "num_folds": 3}'],
            [
                "96 utterances found, 16 skipped as unusable (",
                "actors",
            ],
        ),
        (
            "*-06.wav",
            ["--data.init_args.protocol=ser_lightning.data.protocols.LeaveOneSpeakerOut", "--folds=5"],
            [
                "96 utterances found, 16 skipped as unusable (",
                "--folds 5",
            ],
        ),
    ],
)
def test_a_corpus_indivisible_without_unusable_audio_is_rejected(
    pattern: str,
    more: list[str],
    named: list[str],
    synthetic_ravdess: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = with_unusable(synthetic_ravdess, tmp_path / "corpus", pattern)
    parts = arguments(root, tmp_path / "features", tmp_path / "runs", "--data.init_args.on_bad_audio=skip", *more)
    assert main(parts) == 1
    error = capsys.readouterr().err
    assert all(error.count(part) == 1 for part in named), error
    assert not (tmp_path / "runs").exists()


def test_a_speaker_without_usable_audio_has_no_fold(synthetic_ravdess: Path, tmp_path: Path) -> None:
    root = with_unusable(synthetic_ravdess, tmp_path / "corpus", "*-06.wav")
    parts = arguments(root, tmp_path / "features", tmp_path / "runs", "--data.init_args.on_bad_audio=skip")
    protocol = "--data.init_args.protocol=ser_lightning.data.protocols.LeaveOneSpeakerOut"
    plan = plan_experiment([*parts[2:], protocol], RunOptions(runs=tmp_path / "none"), Console(quiet=True))
    assert [job.fold for job in plan] == [0, 1, 2, 3, 4]


def test_equal_errors_of_several_folds_are_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(tmp_path / f"fold-{fold:02d}", {}, "x", "default", fold=fold, seed=0) for fold in range(3)]
    reasons = dict(zip([job.folder for job in jobs], ["[/no] such corpus"] * 2 + ["another"], strict=True))
    monkeypatch.setattr(cross_validate, "run_jobs", lambda *_: reasons)
    cross_validate.run_planned(jobs, Console(width=400))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{jobs[0].folder}, {jobs[1].folder} are missing: [/no] such corpus"
    assert said[1] == f"{jobs[2].folder} is missing: another"


def test_a_failed_fold_is_reported_with_log_and_exit_status(
    done: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = seed_folder(Path(done[1].removeprefix("--runs="))).parents[1] / "broken" / "seed-0" / "fold-00"
    (broken / "confusion.png").mkdir(parents=True)  # a file cannot take its place
    assert main([*done, "--row=broken", "--folds=0", "--retries=0"]) == 1
    printed = capsys.readouterr().out
    assert "fold-00 is missing" in printed
    assert "exit status" in printed
    assert "confusion.png" in printed


@pytest.mark.slow
def test_a_table_runs_and_marks_a_synthetic_corpus(
    synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        one for one in arguments_of_a_table(synthetic_ravdess, feature_folder, tmp_path) if "trainer.logger" not in one
    ]
    trainer = ["--config", "experiments/trainer/cpu.yaml"]
    table = ["experiments/huang2020/table1.yaml", "--rows", "mean-pooling", *trainer, "corpus=ravdess"]
    assert main(["table", "run", *table, *given]) == 0
    report = tmp_path / "huang2020/table1/ravdess-synthetic/report.html"
    assert f"report: {report}" in capsys.readouterr().out
    page = report.read_text()
    assert "<h1>Huang et al. 2020, Table 1, pooling methods</h1>" in page
    assert page.count("not run") == 4
    assert "62.6" in page
    assert "are on iemocap" in page
    assert main(["table", "show", *table, *given]) == 0
    shown = capsys.readouterr().out
    assert "1 of 3" in shown
    assert shown.count("not run") == 4
    assert "59.6" in shown
    assert "SYNTHETIC" in shown
    assert "are on iemocap" in shown
    (line,) = [line for line in shown.splitlines() if "not as in the file" in line]
    assert line == (
        "mean-pooling: not as in the file: data.init_args.protocol, model.init_args.cells 4 (file: 64), "
        "trainer.max_epochs 1 (file: 50)"
    )
    seed = tmp_path / "huang2020/mean/ravdess-synthetic/default/seed-0"
    assert (seed / "fold-01" / "predictions.csv").is_file()
    summary = json.loads((seed / "summary.json").read_text())
    assert (summary["row"], summary["seeds"][0]["folds_missing"]) == ("default", [0, 2])
    (logged,) = (seed / "wandb").glob("offline-run-*")
    drawn = (seed / "confusion.png").stat().st_mtime_ns
    assert main(["table", "run", *table, *given]) == 0
    assert list((seed / "wandb").glob("offline-run-*")) == [logged]
    assert (seed / "confusion.png").stat().st_mtime_ns == drawn, "nothing has changed, and it was drawn again"
