"""The reproduction ledger: each row of each published table, how to run it, the paper's number, ours, and departures.

It is made of the table files, of the comments in experiments that say what a paper leaves open, and of what was
measured.
"""

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.published.lookup import EXPERIMENTS, table_files
from ser_lightning.published.table_file import Row, Table, folder_name, read_table
from ser_lightning.reports.document import Table as DocumentTable
from ser_lightning.reports.render import escape, markdown_table
from tools.measured import Measured, read_measured

# A comment that owns up to something: the paper leaves it open, has it otherwise, or contradicts itself.
_DEPARTURE = re.compile(r"\b(chosen|not stated|not legible|inferred|ours|rule out|second is)\b")
_KEY = re.compile(r"^(?:- )?([\w.]+): *(.*)$")


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


_BEST = "default/seed-0/fold-00/checkpoints/best.ckpt"
_FIGURE_6 = " --rows ".join(("", "'no smoothing'", "'uniform alpha=0.2'", "'unigram alpha=0.2'"))
_SYSTEMS = [f"runs/ando2019/{system}/iemocap/{_BEST}" for system in ("hard", "soft", "mlee")]
_FIGURE_3 = " --checkpoint ".join(("", *_SYSTEMS))


def _embeddings(corpus: str) -> str:
    rows = (
        f"s3_ghostvlad/{corpus}/S3_pre-trained_with_ghost_clusters",
        f"s4_triplet/{corpus}/S4_triplet_loss_and_SVM",
        f"s5_emotion_constraint/{corpus}/S5_the_proposed_system",
    )
    return f"`ser embeddings {' '.join(f'runs/mocanu2021/{row}/seed-0' for row in rows)}`, after Table 2's rows"


# What, and how to come by it, in Markdown.
WITHOUT_SCORES = (
    (
        "Huang et al. 2020, Figure 6: confusion matrices without smoothing, with uniform and with unigram smoothing",
        f"in the report of `ser table run experiments/huang2020/figure5.yaml{_FIGURE_6} --data.init_args.root IEMOCAP`",
    ),
    (
        "Zhou & Liu 2020, Figure 2: confusion matrices",
        "in the report of `ser table run experiments/zhou2020/table2.yaml --rows baseline --rows 'FL gamma=2 alpha=2' "
        "--data.init_args.root IEMOCAP`",
    ),
    (
        "Ando et al. 2019, Table 1: ratio of emotion existence",
        "`tests/data_modules/test_iemocap.py` holds ours against the paper's, where the corpus is on disk",
    ),
    (
        "Ando et al. 2019, Table 2: layers of the network",
        "the classes on its [page](systems/ando2019.md#code), and their tests",
    ),
    (
        "Ando et al. 2019, Figure 3: attention over time",
        f"`ser attention RECORDING.wav{_FIGURE_3}`, after Table 3's rows",
    ),
    (
        "Mocanu et al. 2021, Table 1: ten folds of actors",
        "`ser audit --config experiments/mocanu2021/crema_d/s1_scratch.yaml --data.init_args.root CREMA_D`",
    ),
    (
        "Mocanu et al. 2021, Table 3: other papers' systems",
        "not legible in the text at hand, so not quoted; its own row is Table 2's S5",
    ),
    ("Mocanu et al. 2021, Figure 6: embeddings under three losses, CREMA-D", _embeddings("crema_d")),
    ("Mocanu et al. 2021, Figure 7: the same, RAVDESS", _embeddings("ravdess")),
    ("Mocanu et al. 2021, Figure 9: confusion matrices", "in the reports of Table 2's commands"),
    (
        "Huang et al. 2020, Figures 1, 2, 4; Zhou & Liu 2020, Figure 1; Ando et al. 2019, Figures 1, 2; "
        "Mocanu et al. 2021, Figures 1, 2, 4, 5",
        "drawings of a method: nothing was measured",
    ),
    ("Mocanu et al. 2021, Figures 3, 8", "not in the text at hand"),
)


NEEDED = {  # what a corpus is, and the word that stands for its folder in commands
    "iemocap": ("IEMOCAP (on request, University of Southern California)", "IEMOCAP"),
    "ravdess": ("RAVDESS, speech (CC BY-NC-SA 4.0)", "RAVDESS"),
    "crema_d": ("CREMA-D (ODbL)", "CREMA_D"),
    "voxceleb2": ("VoxCeleb2, development set, for pre-training", "VOXCELEB2"),
}
_OPENSMILE = "openSMILE (the extra `opensmile`, for research alone)"
_INTRODUCTION = """\
# Reproduction ledger

<!-- Written by `make reproduction` from experiments/ and docs/measured.yaml; a test compares. -->

Every row of every table and figure of the four papers that has a score, and at the end what else their tables and
figures show. Scores are in percent. The paper's are on the corpus that a section needs, ours on the one they name: only
equal ones compare. Ours are means over folds ± standard deviation over folds (ddof 0). Words in capitals are your
folders of the corpora. Each command trains what is missing, stages first, and ends with ours beside the paper's and a
report; where a section says "also on", `corpus=ravdess` and the like behind the file runs it on another corpus.
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
        ConfigurationError: If a file does not fit, a measured run is of no table's experiment, or one that is no row of
            a table has no note that says how it differs.
    """
    runs = read_measured(measured)
    tables = {path: read_table(path) for path in table_files(experiments)}
    shown = _rows_of_runs(tables, runs, measured)
    named: dict[str, None] = {}
    parts = [_INTRODUCTION]
    for path, table in tables.items():
        parts.append(_section(path, experiments, table, shown))
        named |= dict.fromkeys(f"{path.parent.name}/{row.experiment}" for row in table.rows if row.experiment)
    parts += [_without_scores(), _record(runs)]
    parts.append(_DEPARTURES)
    parts += [_departures(experiments / name, name) for name in sorted(named)]
    return "\n".join(parts)


def _rows_of_runs(
    tables: Mapping[Path, Table], runs: Sequence[Measured], measured: Path
) -> dict[tuple[Path, str], list[Measured]]:
    """Return the measured runs of each table's row, by the table's path and the row's name.

    A run goes to the tables of its own corpus; where there are none, to those of the paper's. One that was run unlike
    any row, under a name of its own, goes to none: it must not look like the row.
    """
    found: dict[tuple[Path, str], list[Measured]] = {}
    for run in runs:
        rows = [
            (path, table.corpus, row)
            for path, table in tables.items()
            for row in table.rows
            if row.experiment and (path.parent.name, Path(row.experiment).stem) == (run.paper, run.experiment)
        ]
        its_own = [(path, corpus, row.name) for path, corpus, row in rows if folder_name(row) == run.row]
        if not rows or not (its_own or run.note):
            problem = "is no row of a table file and has no note on how it differs" if rows else "is in no table file"
            raise ConfigurationError(
                f"{measured}: {run.paper}/{run.experiment}/{run.corpus}/{run.row} {problem}; mend its name or its note"
            )
        here = [entry for entry in its_own if entry[1] == run.corpus]
        for path, _, name in here or its_own:
            found.setdefault((path, name), []).append(run)
    return found


def _section(path: Path, experiments: Path, table: Table, shown: Mapping[tuple[Path, str], Sequence[Measured]]) -> str:
    paper = path.parent.name
    file = f"experiments/{path.relative_to(experiments).as_posix()}"
    pretrained = any(row.once for row in table.rows)
    needed = [NEEDED[corpus][0] for corpus in (table.corpus, *([table.pretraining] if pretrained else []))]
    if any("ComParE147" in (path.parent / row.experiment).read_text() for row in table.rows if row.experiment):
        needed.append(_OPENSMILE)
    rows = []
    for row in table.rows:
        ours = _ours(shown.get((path, row.name), ())) if row.experiment else "-"
        choices = _choices(paper, path, row)
        rows.append([row.name, _command(file, table, row), _papers(row), ours, choices])
    if all(row.experiment is None or row.once for row in table.rows):
        raise ConfigurationError(f"{path}: no row can be run")
    lines = [
        f"## {escape(table.title)}",
        "",
        f"`{file}`. Needs: {'; '.join(needed)}.{_elsewhere(path, table)}",
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


def _ours(runs: Sequence[Measured]) -> str:
    return "; ".join(run.in_words() + (f": {run.note}" if run.note else "") for run in runs) or "not measured"


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


def _without_scores() -> str:
    rows = "\n".join(f"| {escape(what)} | {how} |" for what, how in WITHOUT_SCORES)
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


def _departures(experiment: Path, name: str) -> str:
    found = departures(experiment)
    lines = [f"### {name}", ""]
    lines += [
        f"- `{key}: {value}`: {escape(reason)}" if value else f"- {f'`{key}`: ' if key else ''}{escape(reason)}"
        for key, value, reason in found
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the ledger."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--measured", type=Path, default=Path("docs/measured.yaml"), metavar="FILE", help="our scores")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/reproduction.md"), metavar="FILE", help="where to write it"
    )
    options = parser.parse_args()
    write_atomically(options.out, reproduction_ledger(EXPERIMENTS, options.measured).encode())
    print(options.out)


if __name__ == "__main__":
    main()
