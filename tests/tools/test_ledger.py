"""The reproduction ledger: it is up to date, lists every row, and its commands are commands."""

import re
import shlex
from pathlib import Path

import pytest

from ser_lightning.cli.__main__ import parser
from ser_lightning.cli.training import split_keys
from ser_lightning.errors import ConfigurationError
from ser_lightning.published.lookup import table_files
from ser_lightning.published.table_file import folder_name, read_table
from tools.choices import FILE, read_choices
from tools.ledger import main, reproduction_ledger
from tools.measured import read_measured

EXPERIMENTS = Path("experiments")

MEASURED = Path("docs/measured.yaml")
LEDGER = Path("docs/reproduction.md")


def _rows(text: str) -> dict[str, list[list[str]]]:
    """Return the cells of each section's rows, by its table file."""
    found: dict[str, list[list[str]]] = {}
    file = ""
    for line in text.splitlines():
        if line.startswith("## "):
            file = ""
        elif match := re.match(r"`(experiments/\S+\.yaml)`\. Needs: ", line):
            file = match[1]
        elif file and line.startswith("| ") and not line.startswith(("| row ", "| --- ")):
            found.setdefault(file, []).append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def test_the_ledger_is_up_to_date() -> None:
    expected = reproduction_ledger(EXPERIMENTS, MEASURED)
    assert LEDGER.read_text() == expected, "docs/reproduction.md is out of date: make reproduction"


def test_every_row_is_listed_with_the_papers_scores() -> None:
    rows = _rows(LEDGER.read_text())
    assert set(rows) == {str(path) for path in table_files(EXPERIMENTS)}
    for path in table_files(EXPERIMENTS):
        table = read_table(path)
        listed = rows[str(path)]
        assert [cells[0].replace("\\", "") for cells in listed] == [row.name for row in table.rows]
        for row, cells in zip(table.rows, listed, strict=True):
            assert len(cells) == 5
            printed = {name: float(number) for name, number in re.findall(r"(UA|WA) ([\d.]+)", cells[1])}
            assert printed == row.paper


def test_every_command_parses_and_names_its_row() -> None:
    for file, rows in _rows(LEDGER.read_text()).items():
        runnable = {row.name for row in read_table(Path(file)).rows if row.experiment}
        named = set()
        for cells in rows:
            if cells[3].startswith("`"):
                program, *arguments = shlex.split(cells[3].strip("`"))
                options, rest = parser().parse_known_args(arguments)
                keys, overrides = split_keys(rest)
                assert (program, options.action, options.file, keys) == ("ser", "run", Path(file), [])
                assert "--data.init_args.root=" in " ".join(overrides)
                named |= set(options.rows)
        assert named == runnable


def test_rows_with_pre_training_get_its_corpus() -> None:
    text = LEDGER.read_text()
    lines = [line for line in text.splitlines() if "S2 pre-trained" in line and "ser table run" in line]
    assert len(lines) == 2
    assert all("--once --data.init_args.root VOXCELEB2" in line for line in lines)


def test_every_link_has_its_heading() -> None:
    text = LEDGER.read_text()
    anchors = {re.sub(r"[^\w-]", "", line[4:].lower()) for line in text.splitlines() if line.startswith("### ")}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == anchors - {"allpapers"}


def test_choices_are_listed_and_counted_in_their_rows() -> None:
    text = LEDGER.read_text()
    listed = text.partition("## What the papers leave open")[2]
    for path in EXPERIMENTS.glob(f"**/{FILE}"):
        for choice in read_choices(path):
            assert f"| `{choice.key}` |" in listed
    weighted = next(line for line in text.splitlines() if line.startswith("| weighted-pooling |"))
    choices = [one for one in read_choices(EXPERIMENTS / "huang2020" / FILE) if one.holds_for("weighted", "iemocap")]
    assert f"[{len(choices)}](#huang2020)" in weighted


def test_measured_scores_are_in_their_rows_with_their_notes() -> None:
    rows = _rows(LEDGER.read_text())
    (proposed,) = (cells for cells in rows["experiments/huang2020/table2.yaml"] if cells[0] == "proposed model")
    assert proposed[2].startswith("ravdess: UA 56.0 ± 8.0, WA 57.6 ± 8.1 (10 of 10 folds); crema\\_d: UA 61.3 ± 1.4, ")
    assert any(cells[2] == "not measured" for cells in rows["experiments/ando2019/table3.yaml"])


def test_a_system_in_another_papers_table_has_its_scores_and_choices() -> None:
    rows = {name: cells for name, *cells in _rows(LEDGER.read_text())["experiments/mocanu2021/table3_crema_d.yaml"]}
    paper, ours, _, choices = rows["Huang et al. 2020"]
    assert paper == "WA 61.53"
    assert ours.startswith("crema\\_d: UA 61.3 ± 1.4, WA 61.1 ± 1.4 (8 of 10 folds)")
    assert choices.endswith("(#huang2020)")


def test_scores_of_lost_columns_are_marked_as_inferred() -> None:
    for corpus in ("ravdess", "crema_d"):
        scored = [row for row in read_table(EXPERIMENTS / f"mocanu2021/table3_{corpus}.yaml").rows if row.paper]
        inferred = [row.note for row in scored if row.note.startswith("inferred: ")]
        assert [row.name for row in scored if not row.note.startswith("inferred: ")] == ["S5 the proposed system"]
        assert all(note in LEDGER.read_text() for note in inferred)


def test_a_run_unlike_any_row_is_only_in_the_record() -> None:
    text = LEDGER.read_text()
    reduced = [run for run in read_measured(MEASURED) if run.row != "default"]
    assert [run.row for run in reduced] == ["reduced_width", "reduced_width", "quarter"]
    shown = [cells[2] for rows in _rows(text).values() for cells in rows]
    record = text.partition("## What was measured")[2]
    for run in reduced:
        assert not any(run.in_words() in cell for cell in shown)
        assert run.in_words() in record


def test_a_run_is_only_in_tables_on_its_corpus(tmp_path: Path) -> None:
    path = tmp_path / "measured.yaml"
    path.write_text(MEASURED.read_text().replace("    row: quarter\n", ""))
    rows = _rows(reproduction_ledger(EXPERIMENTS, path))
    for corpus, expected in (("ravdess", "ravdess: UA 35.8"), ("crema_d", "not measured")):
        table = rows[f"experiments/mocanu2021/table2_{corpus}.yaml"]
        assert next(cells[2] for cells in table if cells[0] == "S1 from scratch").startswith(expected)


def test_a_section_names_opensmile_where_its_experiments_need_it() -> None:
    needs = re.findall(r"^`experiments/(\w+/\w+)\.yaml`\. Needs: (.*)$", LEDGER.read_text(), re.MULTILINE)
    expected = {file for file, _ in needs if file.startswith("huang2020/")}
    expected |= {"mocanu2021/table3_ravdess", "mocanu2021/table3_crema_d"}  # one row is Huang's system
    assert {file for file, line in needs if "openSMILE" in line} == expected


def test_commands_without_scores_parse_and_name_runs_of_rows() -> None:
    other = LEDGER.read_text().partition("## Other tables and figures")[2].partition("\n## ")[0]
    runs = {
        f"runs/{path.parent.name}/{Path(row.experiment).stem}/{table.corpus}/{folder_name(row)}/seed-0"
        for path in table_files(EXPERIMENTS)
        for table in [read_table(path)]
        for row in table.rows
        if row.experiment
    }
    commands = [shlex.split(found) for found in re.findall(r"`(ser [^`]+)`", other)]
    assert {command[1] for command in commands} == {"table", "attention", "audit", "embeddings"}
    for command in commands:
        options, rest = parser().parse_known_args(command[1:])
        assert options.takes_overrides or not rest
        if command[1] == "table":
            assert set(options.rows) <= {row.name for row in read_table(options.file).rows}
        folders = [word.partition("/fold-")[0] for word in command if word.startswith("runs/")]
        assert set(folders) <= runs


def test_docs_results_match_measured_scores() -> None:
    results = Path("docs/results.md").read_text().replace("*", "")
    for run in read_measured(MEASURED):
        assert all(f"{score:.2f}" in results for score in (*run.scores.values(), *run.deviation.values()))
        assert run.commit in results
        assert run.protocol_hash in results


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            ("experiment: netvlad_unigram", "experiment: netvlda"),
            "huang2020/netvlda/ravdess/default",
        ),
        (
            ("    seeds:", "    row: other\n    seeds:"),
            "huang2020/netvlad_unigram/ravdess/other .*note",
        ),
        (("commit:", "comit:"), "comit"),
        (
            ("experiment: combined_pooling", "experiment: baseline"),
            "zhou2020/baseline/ravdess/reduced_width",
        ),
    ],
)
def test_a_run_without_a_table_is_rejected(change: tuple[str, str], named: str, tmp_path: Path) -> None:
    path = tmp_path / "measured.yaml"
    path.write_text(MEASURED.read_text().replace(*change, 1))
    with pytest.raises(ConfigurationError, match=named):
        reproduction_ledger(EXPERIMENTS, path)


def test_the_command_writes_the_ledger(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "new" / "ledger.md")])
    assert (tmp_path / "new" / "ledger.md").read_text() == LEDGER.read_text()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"- a\n", "top level"),
        (b"runs: \xe4", "UTF-8"),
        (b"runs: 3", "runs: "),
        (b"7", ""),
    ],
)
def test_a_faulty_file_of_measured_scores_is_named(content: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / "measured.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"measured\.yaml.*{fault}"):
        read_measured(tmp_path / "measured.yaml")
