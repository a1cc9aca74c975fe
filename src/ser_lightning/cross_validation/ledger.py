"""The reproduction ledger: each row of each published table, how to run it, the paper's number, ours, and departures.

It is made of the table files, of the comments in experiments that say what a paper leaves open, and of what was
measured.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ser_lightning.cross_validation.measured import Measured, read_measured
from ser_lightning.cross_validation.published import table_files
from ser_lightning.cross_validation.table_file import Row, Table, folder_name, read_table
from ser_lightning.errors import ConfigurationError
from ser_lightning.reports.document import Table as DocumentTable
from ser_lightning.reports.markdown import escape, markdown_table

NEEDED = {  # what a corpus is, and the word that stands for its folder in commands
    "iemocap": ("IEMOCAP (on request, University of Southern California)", "IEMOCAP"),
    "ravdess": ("RAVDESS, speech (CC BY-NC-SA 4.0)", "RAVDESS"),
    "crema_d": ("CREMA-D (ODbL)", "CREMA_D"),
    "voxceleb2": ("VoxCeleb2, development set, for pre-training", "VOXCELEB2"),
}
# A comment that owns up to something: the paper leaves it open, has it otherwise, or contradicts itself.
_DEPARTURE = re.compile(r"\b(chosen|not stated|not legible|inferred|ours|rule out|second is)\b")
_KEY = re.compile(r"^(?:- )?([\w.]+): *(.*)$")
_INTRODUCTION = """\
# Reproduction ledger

<!-- Written by `make reproduction` from experiments/ and docs/measured.yaml; a test compares. -->

Every row of every table and figure of the four papers that this repository can run or that it quotes. Scores are in
percent. The paper's are on the corpus that a section needs, ours on the one they name: only equal ones compare. Ours
are means over folds ± standard deviation over folds (ddof 0). Words in capitals are your folders of the corpora. Each
command trains what is missing, stages first, and ends with ours beside the paper's and a report; where a section says
"also on", `corpus=ravdess` and the like behind the file runs it on another corpus.
"""
_DEPARTURES = """\
## How our protocols depart

For all papers: the checkpoint that is tested is the best on the validation set, ties going to the earlier epoch; scores
are the mean over folds, which only Mocanu et al. state. Who validates in leave-one-speaker-out is chosen: the session's
other speaker, or the next speaker where there are no sessions. Mocanu et al. state ten folds of actors and not which:
on CREMA-D the blocks are inferred from Table 1, on RAVDESS they are chosen.

Below, for each experiment, what the paper leaves open, contradicts itself in, or has otherwise: the key of its YAML,
our value, and why. All else is as the paper states it, with the section beside the number in the file.
"""


def reproduction_ledger(experiments: Path, measured: Path) -> str:
    """Return the ledger in Markdown.

    Args:
        experiments: The folder of experiments.
        measured: The file of measured scores.

    Raises:
        ConfigurationError: If a file does not fit, or a measured run belongs to no row.
    """
    runs = read_measured(measured)
    parts = [_INTRODUCTION]
    used: set[int] = set()
    named: dict[str, None] = {}
    for path in table_files(experiments):
        table = read_table(path)
        parts.append(_section(path, experiments, table, runs, used))
        named |= dict.fromkeys(f"{path.parent.name}/{row.experiment}" for row in table.rows if row.experiment)
    if homeless := [run for index, run in enumerate(runs) if index not in used]:
        run = homeless[0]
        raise ConfigurationError(
            f"{measured}: {run.paper}/{run.experiment}/{run.corpus}/{run.row} belongs to no row of a table file"
        )
    parts.append(_record(runs))
    parts.append(_DEPARTURES)
    parts += [_departures(experiments / name, name) for name in sorted(named)]
    return "\n".join(parts)


def departures(experiment: Path) -> list[tuple[str, str, str]]:
    """Return key, value and reason of each line of an experiment's YAML whose comment owns up to a choice.

    Lines that are nothing but a comment, at the top of the file, are returned without key and value.
    """
    found = []
    for line in experiment.read_text().splitlines():
        code, mark, comment = (f" {line}").partition(" #")
        reason = comment.strip()
        if not mark or not _DEPARTURE.search(reason):
            continue
        key = _KEY.match(code.strip())
        if key:
            found.append((key[1], key[2].strip(), reason))
        elif not code.strip():
            found.append(("", "", reason))
    return found


def _section(path: Path, experiments: Path, table: Table, runs: Sequence[Measured], used: set[int]) -> str:
    paper = path.parent.name
    file = f"experiments/{path.relative_to(experiments).as_posix()}"
    pretrained = any(row.once for row in table.rows)
    corpora = [table.corpus, *([table.pretraining] if pretrained else [])]
    rows = []
    for row in table.rows:
        ours = _ours(paper, row, runs, used)
        rows.append(
            [row.name, _command(file, table, row), _papers(row), ours or "not measured", _choices(paper, path, row)]
        )
    if all(row.experiment is None or row.once for row in table.rows):
        raise ConfigurationError(f"{path}: no row can be run")
    lines = [
        f"## {escape(table.title)}",
        "",
        f"`{file}`. Needs: {'; '.join(NEEDED[corpus][0] for corpus in corpora)}.{_elsewhere(path, table)}",
        "",
        _rows(rows),
        *_notes(table),
        "",
    ]
    return "\n".join(lines)


def _rows(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of rows; the second and the last column are Markdown already."""
    lines = ["| row | command | paper | ours | departures |", "| --- | --- | --- | --- | --- |"]
    for name, command, paper, ours, choices in rows:
        lines.append(f"| {escape(name)} | {command} | {escape(paper)} | {escape(ours)} | {choices} |")
    return "\n".join(lines)


def _command(file: str, table: Table, row: Row) -> str:
    if row.experiment is None:
        return "quoted: nothing to run"
    command = f"ser table run {file} --rows {shlex.quote(row.name)}"
    if not row.once:
        command += f" --data.init_args.root {NEEDED[table.corpus][1]}"
    if row.once or (row.needs and table.pretraining):
        command += f" --once --data.init_args.root {NEEDED[table.pretraining][1]}"
    return f"`{command}`"


def _papers(row: Row) -> str:
    if row.once:
        return "pre-training, no score"
    return ", ".join(f"{name} {_shown(value)}" for name, value in row.paper.items()) or "not legible"


def _shown(score: float) -> str:
    """Return a score with as many decimals as the papers print."""
    return f"{score:.1f}" if round(score, 1) == score else f"{score:.2f}"


def _ours(paper: str, row: Row, runs: Sequence[Measured], used: set[int]) -> str:
    if row.experiment is None:
        return "-"
    key = (paper, Path(row.experiment).stem, folder_name(row))
    found = [index for index, run in enumerate(runs) if (run.paper, run.experiment, run.row) == key]
    used.update(found)
    return "; ".join(runs[index].in_words() + (f": {runs[index].note}" if runs[index].note else "") for index in found)


def _choices(paper: str, path: Path, row: Row) -> str:
    if row.experiment is None:
        return "-"
    name = f"{paper}/{row.experiment}"
    number = len(departures(path.parent / row.experiment))
    anchor = re.sub(r"[^\w-]", "", name.lower())
    return f"[{number}](#{anchor})"


def _elsewhere(path: Path, table: Table) -> str:
    """Return on which other corpora the whole table has experiments."""
    other = []
    for corpus in sorted(set(NEEDED) - {table.corpus}):
        there = [
            row.experiment for row in read_table(path, [f"corpus={corpus}"]).rows if row.experiment and not row.once
        ]
        here = [row.experiment for row in table.rows if row.experiment and not row.once]
        if there != here and all((path.parent / experiment).is_file() for experiment in there):
            other.append(corpus)
    return f" Also on: {', '.join(f'`corpus={corpus}`' for corpus in other)}." if other else ""


def _notes(table: Table) -> list[str]:
    notes: dict[str, list[str]] = {}
    for row in table.rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.name)
    return ["", *(f"- {escape(', '.join(names))}: {escape(note)}" for note, names in notes.items())] if notes else []


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


def _departures(experiment: Path, name: str) -> str:
    found = departures(experiment)
    lines = [f"### {name}", ""]
    lines += [
        f"- `{key}: {value}`: {escape(reason)}" if value else f"- {f'`{key}`: ' if key else ''}{escape(reason)}"
        for key, value, reason in found
    ]
    return "\n".join([*lines, ""])
