"""Write the reproduction ledger: each row of each published table with its command, the paper's scores, ours, choices.

Its sources are the table files, the files of choices, and the file of measured scores.
"""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.published.lookup import table_files
from ser_lightning.published.table_file import Row, Table, experiment_file, folder_name, read_table
from ser_lightning.reports.document import Table as DocumentTable
from ser_lightning.reports.document import escape, markdown_table
from tools.choices import FILE, Choice, read_choices
from tools.measured import Measured, read_measured

WITHOUT_SCORES = Path(__file__).with_name("without_scores.yaml")
CORPORA = {  # description of a corpus, and the placeholder of its folder in commands
    "iemocap": ("IEMOCAP (on request, University of Southern California)", "IEMOCAP"),
    "ravdess": ("RAVDESS, speech (CC BY-NC-SA 4.0)", "RAVDESS"),
    "crema_d": ("CREMA-D (ODbL)", "CREMA_D"),
    "voxceleb2": ("VoxCeleb2, development set, for pre-training", "VOXCELEB2"),
}
_OPENSMILE = "openSMILE (the extra `opensmile`, research use only)"
_INTRODUCTION = """\
# Reproduction ledger

<!-- Written by `make reproduction` from experiments/, tools/without_scores.yaml and docs/measured.yaml. -->

Every row with a score of the four papers' tables and figures, then their other tables and figures. Scores are in
percent. The paper's are on the corpus that a section needs, ours on the one they name; only scores on the same corpus
compare. Ours are means over folds ± standard deviation over folds (ddof 0). Words in capitals are your folders of the
corpora. Each command trains what is missing, earlier stages first, prints our scores next to the paper's, and writes a
report. Where a section says "also on", `corpus=...` after the file runs it on another corpus.
"""
_CHOICES = """\
## What the papers leave open

Choices of details that a paper omits or contradicts, or that differ here. They are made in a *key* of the experiments,
which a YAML file or the command line sets; in *Python*, as a constant or an argument's default; or in the *code* of a
class or function, here in words. Tests compare the values of keys with each resolved experiment, those in Python with
the code, and find a choice for each default of a system, extractor, loss or optimiser that no YAML file writes. Numbers
that a paper states have its section next to them in the YAML.
"""


def reproduction_ledger(experiments: Path, measured: Path) -> str:
    """Return the ledger in Markdown.

    Args:
        experiments: The folder of experiments.
        measured: The file of measured scores.

    Raises:
        ConfigurationError: If a file is not valid, a measured run is not of a table's experiment, or one that is not a
            table's row has no note on how it differs.
    """
    runs = read_measured(measured)
    tables = {path: read_table(path) for path in table_files(experiments)}
    shown = _rows_of_runs(tables, runs, measured)
    choices = {path.parent.name: read_choices(path) for path in sorted(experiments.glob(f"*/{FILE}"))}
    parts = [_INTRODUCTION]
    parts += [_section(path, experiments, table, shown, choices) for path, table in tables.items()]
    parts += [_without_scores(), _record(runs), _CHOICES]
    parts.append(_choices_table("all papers", read_choices(experiments / FILE)))
    parts += [_choices_table(paper, found) for paper, found in choices.items()]
    return "\n".join(parts)


def _rows_of_runs(
    tables: Mapping[Path, Table], runs: Sequence[Measured], measured: Path
) -> dict[tuple[Path, str], list[Measured]]:
    """Return the measured runs of each table's row, by the table's path and the row's name.

    A run belongs to tables on its corpus, and to its own paper's tables if none of these is on its corpus. A run that
    is not a row of a table belongs to none: it must not look like a row's result.
    """
    found: dict[tuple[Path, str], list[Measured]] = {}
    for run in runs:
        rows = [
            (path, table.corpus, row)
            for path, table in tables.items()
            for row in table.rows
            if row.experiment and _paper_and_experiment(path, row) == (run.paper, run.experiment)
        ]
        its_own = [(path, corpus, row.name) for path, corpus, row in rows if folder_name(row) == run.row]
        if not rows or not (its_own or run.note):
            problem = "is not a row of a table file and has no note" if rows else "is not in a table file"
            raise ConfigurationError(
                f"{measured}: {run.paper}/{run.experiment}/{run.corpus}/{run.row} {problem}; fix its name, or add a "
                "note on how it differs"
            )
        here = [entry for entry in its_own if entry[1] == run.corpus]
        if all(path.parent.name != run.paper for path, _, _ in here):
            here += [entry for entry in its_own if entry[0].parent.name == run.paper]
        for path, _, name in here:
            found.setdefault((path, name), []).append(run)
    return found


def _paper_and_experiment(path: Path, row: Row) -> tuple[str, str]:
    file = experiment_file(path, row)
    return file.parent.name, file.stem


def _section(
    path: Path,
    experiments: Path,
    table: Table,
    shown: Mapping[tuple[Path, str], Sequence[Measured]],
    choices: Mapping[str, Sequence[Choice]],
) -> str:
    file = f"experiments/{path.relative_to(experiments).as_posix()}"
    pretrained = any(row.once for row in table.rows)
    needed = [CORPORA[corpus][0] for corpus in (table.corpus, *([table.pretraining] if pretrained else []))]
    if any("ComParE147" in (path.parent / row.experiment).read_text() for row in table.rows if row.experiment):
        needed.append(_OPENSMILE)
    rows = []
    for row in table.rows:
        ours = _our_scores(shown.get((path, row.name), ())) if row.experiment else "-"
        link = "-"
        if row.experiment:
            paper, experiment = _paper_and_experiment(path, row)
            holding = [one for one in choices[paper] if one.holds_for(experiment, Path(row.corpus).name)]
            link = f"[{len(holding)}](#{paper})"
        rows.append([row.name, _command(file, table, row), _paper_scores(row), ours, link])
    if all(row.experiment is None or row.once for row in table.rows):
        raise ConfigurationError(f"{path}: no row can be run")
    lines = [
        f"## {escape(table.title)}",
        "",
        f"`{file}`. Needs: {'; '.join(needed)}.{_other_corpora(path, table)}",
        "",
        _rows(rows),
        *_notes(table),
        "",
    ]
    return "\n".join(lines)


def _rows(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of rows; the second and the last column are already Markdown."""
    lines = ["| row | paper | ours | command | choices |", "| --- | --- | --- | --- | --- |"]
    for name, command, paper, ours, link in rows:
        lines.append(f"| {escape(name)} | {escape(paper)} | {escape(ours)} | {command} | {link} |")
    return "\n".join(lines)


def _command(file: str, table: Table, row: Row) -> str:
    if row.experiment is None:
        return "quoted: nothing to run"
    command = f"ser table run {file} --rows {shlex.quote(row.name)}"
    if not row.once:
        command += f" --data.init_args.root {CORPORA[table.corpus][1]}"
    if row.once or (row.needs and table.pretraining):
        command += f" --once --data.init_args.root {CORPORA[table.pretraining][1]}"
    return f"`{command}`"


def _paper_scores(row: Row) -> str:
    if row.once:
        return "pre-training, no score"
    return ", ".join(f"{name} {_shown(value)}" for name, value in row.paper.items()) or "not legible"


def _shown(score: float) -> str:
    """Return a score with as many decimals as the papers print."""
    return f"{score:.1f}" if round(score, 1) == score else f"{score:.2f}"


def _our_scores(runs: Sequence[Measured]) -> str:
    return "; ".join(run.in_words() + (f": {run.note}" if run.note else "") for run in runs) or "not measured"


def _other_corpora(path: Path, table: Table) -> str:
    """Return the other corpora that the table can be run on."""
    others = sorted(set(CORPORA) - {table.corpus, table.pretraining})
    other = [f"`corpus={corpus}`" for corpus in others if (path.parent / f"{corpus}.yaml").is_file()]
    return f" Also on: {', '.join(other)}." if other else ""


def _notes(table: Table) -> list[str]:
    notes: dict[str, list[str]] = {}
    for row in table.rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.name)
    return ["", *(f"- {escape(', '.join(names))}: {escape(note)}" for note, names in notes.items())] if notes else []


def _without_scores() -> str:
    entries = yaml.safe_load(WITHOUT_SCORES.read_text())
    rows = "\n".join(f"| {escape(entry['what'])} | {entry['how']} |" for entry in entries)
    return f"## Other tables and figures\n\n| what | how |\n| --- | --- |\n{rows}\n"


def _record(runs: Sequence[Measured]) -> str:
    headings = dict.fromkeys(
        ("run", "scores", "seeds", "protocol", "protocol hash", "commit", "hardware", "note"), False
    )
    rows = [
        [
            "/".join((run.paper, run.experiment, run.corpus, run.row)),
            run.in_words(),
            ", ".join(map(str, run.seeds)),
            run.protocol,
            run.protocol_hash,
            run.commit,
            run.hardware,
            run.note,
        ]
        for run in runs
    ]
    return f"## What was measured\n\n{markdown_table(DocumentTable('', headings, rows))}\n"


def _choices_table(title: str, choices: Sequence[Choice]) -> str:
    lines = [
        f"### {title}",
        "",
        "| where | made in | choice | why | alternatives | section | for |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in choices:
        value = escape(one.choice) or f"`{json.dumps(one.value)}`"
        scope = "; ".join(", ".join(names) for names in (one.systems, one.corpora) if names)
        words = " | ".join(map(escape, (one.reason, one.alternatives, one.section, scope or "all")))
        lines.append(f"| `{one.key}` | {one.made_in} | {value} | {words} |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the ledger."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--measured", type=Path, default=Path("docs/measured.yaml"), metavar="FILE", help="file of measured scores"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/reproduction.md"), metavar="FILE", help="output file")
    options = parser.parse_args(arguments)
    write_atomically(options.out, reproduction_ledger(Path("experiments"), options.measured).encode())
    print(options.out)


if __name__ == "__main__":
    main()
