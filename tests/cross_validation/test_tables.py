"""Table files: read, planned, run and shown."""

import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from ser_lightning.cli.__main__ import main
from ser_lightning.cli.training import split_keys
from ser_lightning.cross_validation.planner import RunOptions
from ser_lightning.cross_validation.tables import plan_table, show_table
from ser_lightning.errors import ConfigurationError
from ser_lightning.published.lookup import table_files
from ser_lightning.published.table_file import Row, folder_name, read_table, row_arguments

pytestmark = pytest.mark.usefixtures("small_pictures")

TABLES = [*table_files(Path("experiments")), Path("experiments/emobox_ravdess.yaml")]
HUANG = Path("experiments/huang2020").resolve()


def written(folder: Path, text: str) -> Path:
    path = folder / "table.yaml"
    path.write_text(f"title: T\ncorpus: ravdess\nrows:\n{text}")
    return path


@pytest.mark.parametrize("path", TABLES, ids=str)
def test_every_row_names_an_existing_experiment_or_a_score(path: Path) -> None:
    table = read_table(path)
    assert table.rows
    assert any(row.paper for row in table.rows)
    for row in table.rows:
        assert row.experiment is None or (path.parent / row.experiment).is_file(), row.experiment
        assert not row.experiment or not row.corpus or (path.parent / f"{row.corpus}.yaml").is_file(), row.corpus
        assert row.experiment is not None or row.paper, f"{row.name} is neither run nor quoted"
        assert set(row.paper) <= {"UA", "WA"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("  - {name: a, experimnt: x.yaml}", "experimnt"),
        ("  - {name: a, paper: {UA: high}}", "UA"),
        ("  - {experiment: x.yaml}", "name"),
        ("  - {name: a", "table.yaml"),
        ("  - {name: a}\n  - {name: a}", "'a'"),
        ("  - {name: b, needs: {model.init_args.encoder: a}}", r"row 'b': needs\.model\.init_args\.encoder is 'a'"),
        ("  - {name: a, experiment: '${corpse}/x.yaml'}", "corpse"),
        ("  - {name: a}\n  - {name: b, paper: {UA: high}}", r"rows\[1\]\.paper\.UA \(row 'b'\).*'high'"),
        ("  - {name: a}\n  - {name: b, once: maybe}", r"rows\[1\]\.once \(row 'b'\).*'maybe'"),
        ("  - {name: b, needs: [a]}", r"rows\[0\]\.needs \(row 'b'\)"),
        ("  - {name: '${'}", r"rows\[0\]\.name"),
        ("  - {name: '${nothing}'}", r"rows\[0\]\.name"),
        ("  {name: a}", "rows"),
        ("  - {name: a, paper: {ua: 60}}", r"row 'a': paper\.ua .*UA or WA"),
        (
            "  - {name: a, paper: {UA: 60}}\n  - {name: b, experiment: x.yaml, needs: {model.encoder: a}}",
            r"row 'b': needs\.model\.encoder is 'a', .*quoted",
        ),
        (
            "  - {name: a, experiment: x.yaml}\n  - {name: b, experiment: x, once: true, needs: {model.encoder: a}}",
            r"row 'b': needs\.model\.encoder is 'a', .*once",
        ),
        *(
            (f"  - {{name: '{name}', experiment: x.yaml, overrides: [--a=1]}}", re.escape(f"row '{name}'"))
            for name in ("\N{GREEK SMALL LETTER BETA}", "***", "..", ".")
        ),
    ],
)
def test_an_invalid_table_file_is_named_with_its_key(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        read_table(written(tmp_path, text))
    assert "table.yaml" in str(caught.value)
    assert "object_type" not in str(caught.value), "the message names OmegaConf's classes"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"- a\n- b\n", "top level"),
        (b"3", "table.yaml"),
        (b"title: \xe4", "UTF-8"),
        (None, "folder"),
    ],
)
def test_another_file_than_a_table_is_one_line_of_error(content: bytes | None, named: str, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=named) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="below"):
        read_table(path / "below.yaml")


def test_overrides_of_a_row_apply_and_invalid_ones_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, "  - {name: a, paper: {UA: 60}}")
    row = read_table(path, ["rows.0.name=b", "rows.0.paper.WA=61"]).rows[0]
    assert (row.name, row.paper) == ("b", {"UA": 60.0, "WA": 61.0})
    for wrong in (
        "rows.7.name=b",
        "rows.x.name=b",
        "rows=b",
        "rows.0.once=maybe",
        "corpse=x",
        "corpus=[1",
        "corpus",
        "=x",
    ):
        with pytest.raises(ConfigurationError, match=re.escape(wrong)) as caught:
            read_table(path, [wrong])
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_overrides_of_the_table_reach_its_rows(tmp_path: Path) -> None:
    path = written(tmp_path, "  - {name: a, experiment: x.yaml}\n  - {name: b, corpus: voxceleb2}")
    assert [row.corpus for row in read_table(path).rows] == ["ravdess", "voxceleb2"]
    assert [row.corpus for row in read_table(path, ["corpus=crema_d"]).rows] == ["crema_d", "voxceleb2"]


def test_rows_without_overrides_share_the_experiments_runs(tmp_path: Path) -> None:
    path = written(
        tmp_path, "  - {name: plain, experiment: x.yaml}\n  - {name: K = 2, experiment: x.yaml, overrides: [--a=2]}"
    )
    plain, other = read_table(path).rows
    assert folder_name(plain) == "default"
    assert folder_name(other) == "K_=_2"


def arguments(root: Path, features: Path, runs: Path) -> list[str]:
    return [
        f"--runs={runs}",
        "--folds=1",
        f"--data.init_args.root={root}",
        f"--data.init_args.feature_folder={features}",
        "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
        "--data.init_args.protocol.init_args.blocks=even",
        "--data.init_args.protocol.init_args.num_folds=3",
        "--trainer.max_epochs=1",
        "--trainer.logger=false",
        "--model.init_args.cells=4",
    ]


@pytest.mark.slow
def test_a_row_is_shown_for_the_chosen_seeds_and_folds(
    synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, folds, *own = arguments(synthetic_ravdess, feature_folder, tmp_path)
    overrides = [*own, "--trainer.accelerator=gpu"]
    row_of_table = {"name": "plain", "experiment": f"{HUANG}/mean.yaml", "corpus": f"{HUANG}/ravdess"}
    path = str(written(tmp_path, yaml.safe_dump([row_of_table | {"overrides": overrides}])))
    own.append("--trainer.accelerator=cpu")  # the file's accelerator may be missing here
    assert main(["table", "run", path, runs, folds, "--seeds=0,1", "--trainer.accelerator=cpu"]) == 0
    assert "not as in the file" not in capsys.readouterr().out

    def row(*choice: str) -> list[str]:
        assert main(["table", "show", path, runs, *choice, *own]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if " plain " in line)
        return [cell.strip() for cell in line.split("│")[-3:-1]]

    assert row() == ["1 of 3", "0"]
    assert row("--seeds", "1") == ["1 of 3", "1"]
    assert row("--seeds=0,1", "--folds=0-1") == ["1, 1 of 3", "0, 1"]
    assert row("--seeds=2") == row("--folds=0") == ["not run", ""]

    # A damaged fold is named, and the others are shown.
    (damaged,) = tmp_path.rglob("seed-0/fold-01/run.json")
    damaged.write_text("[")
    given = [path, runs, folds, "--seeds=0,1", *own]
    assert main(["table", "show", *given]) == 0
    captured = capsys.readouterr()
    assert f"warning: {damaged.parent} is left out: {damaged}" in captured.err
    assert main(["table", "run", *given]) == 1
    captured = capsys.readouterr()
    assert f"{damaged.parents[1]}: no summary: {damaged}" in captured.out
    (page,) = tmp_path.rglob("report.html")
    assert str(damaged) in page.read_text()
    assert row("--seeds=0,1") == ["1 of 3", "1"]


def test_keys_of_the_table_may_follow_any_argument() -> None:
    given = [
        "--config",
        "gpu.yaml",
        "corpus=ravdess",
        "--a.b=1",
        "title=x y",
        "--c",
        "-1",
        "rows.0=z",
        "--once",
        "--d",
        "2",
    ]
    keys, others = split_keys(given)
    assert keys == ["corpus=ravdess", "title=x y", "rows.0=z"]
    assert others == ["--config=gpu.yaml", "--a.b=1", "--c=-1", "--once", "--d=2"]


def test_pre_training_rows_take_trainer_and_once_arguments() -> None:
    callers = ["--config=gpu.yaml", "--data.init_args.root=a", "--trainer.max_epochs=2", "--once", "--data.x=b"]
    once, fold = Row("once", "voices.yaml", "vox", ["--model.k=1"], once=True), Row("fold", "emotions.yaml", "ravdess")
    assert row_arguments(Path("p/table.yaml"), once, callers) == [
        "--config=p/voices.yaml",
        "--config=p/vox.yaml",
        "--model.k=1",
        "--config=gpu.yaml",
        "--trainer.max_epochs=2",
        "--data.x=b",
        "--run.row=once",
    ]
    files = ["--config=p/emotions.yaml", "--config=p/ravdess.yaml"]
    assert row_arguments(Path("p/table.yaml"), fold, callers) == [*files, *callers[:3], "--run.row=default"]
    whole = Row("own", "mine.yaml", "")
    assert row_arguments(Path("p/table.yaml"), whole, []) == ["--config=p/mine.yaml", "--run.row=default"]


@pytest.mark.parametrize("stray", [["ravdess"], ["--x=1", "ravdess"], ["--x", "1", "ravdess"], ["corpus=x", "ravdess"]])
def test_a_stray_argument_is_named(stray: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "show", "experiments/huang2020/table1.yaml", "--folds", "0", *stray]) == 1
    assert "'ravdess' is neither a key=value" in capsys.readouterr().err


def test_an_unknown_row_is_named(
    synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(synthetic_ravdess, feature_folder, tmp_path)
    assert main(["table", "run", "experiments/huang2020/table1.yaml", "--rows=median", *given]) == 1
    assert "no row 'median'" in capsys.readouterr().err


def test_two_rows_with_one_folder_are_rejected(synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path) -> None:
    mean = f"experiment: {HUANG}/mean.yaml, corpus: {HUANG}/ravdess"
    path = written(
        tmp_path,
        f"  - {{name: dropout 0.1, {mean}, overrides: [--model.init_args.dropout=0.1]}}\n"
        f"  - {{name: 'dropout, 0.1', {mean}, overrides: [--model.init_args.dropout=0.2]}}\n",
    )
    more = [one for one in arguments(synthetic_ravdess, feature_folder, tmp_path) if one.startswith("--data")]
    options = RunOptions(folds="0", runs=tmp_path)
    with pytest.raises(ConfigurationError, match=r"'dropout 0\.1' and 'dropout, 0\.1'"):
        plan_table(path, read_table(path), more, [], options, Console(quiet=True))
    plan_table(path, read_table(path), more, ["dropout 0.1"], options, Console(quiet=True))
    with pytest.raises(ConfigurationError, match=r"'dropout 0\.1' and 'dropout, 0\.1'"):
        show_table(path, [], more, options, Console(quiet=True))


def test_needed_rows_are_planned_first(synthetic_ravdess: Path, feature_folder: Path, tmp_path: Path) -> None:
    corpus = f"corpus: {HUANG}/ravdess"
    path = written(
        tmp_path,
        f"  - {{name: first, experiment: {HUANG}/mean.yaml, {corpus}}}\n"
        f"  - {{name: other, experiment: {HUANG}/max.yaml, {corpus}}}\n"
        f"  - {{name: last, experiment: {HUANG}/netvlad.yaml, {corpus}, needs: {{data.init_args.root: first}}}}\n",
    )
    more = [
        argument for argument in arguments(synthetic_ravdess, feature_folder, tmp_path) if argument.startswith("--d")
    ]
    options = RunOptions(folds="0,2", runs=tmp_path)
    jobs = plan_table(path, read_table(path), more, ["last"], options, Console(quiet=True))
    assert [job.folder.relative_to(tmp_path).parts[1] for job in jobs] == ["mean", "mean", "netvlad", "netvlad"]
    assert jobs[3].needs == (jobs[1].folder,)
    assert jobs[3].configuration["data"]["init_args"]["root"] == f"{jobs[1].folder}/checkpoints/best.ckpt"
    assert jobs[1].configuration["data"]["init_args"]["root"] == str(synthetic_ravdess)
    path.write_text(path.read_text().replace("needs: {data.init_args.root", "needs: {model.encoder"))
    with pytest.raises(ConfigurationError, match=r"model\.encoder .*netvlad"):
        plan_table(path, read_table(path), more, ["last"], options, Console(quiet=True))
