"""README and docs/: commands parse and run, links work, pages build, and named files and classes exist.

A command is a line of a ``sh`` block that starts with ``ser`` or ``make``, joined over backslashes. ``# needs`` after
it says why it is not run here: real data, hours, a GPU, the network. All others are run, shortened, page by page from
top to bottom, with a synthetic twin for every corpus in /data.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from markdown.extensions.toc import slugify

from ser_lightning.cli.__main__ import main, parser
from ser_lightning.cli.training import LIGHTNING_COMMANDS, split_keys
from ser_lightning.published.table_file import ONCE, read_table, row_arguments
from ser_lightning.sweeps.file import read_sweep
from ser_lightning.training.experiment import ExperimentCLI

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
DOCS = REPOSITORY / "docs"
PAGES = [README, *sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "reference")]
NOT_RUN = {
    "docs/results.md": "commands of results that were measured on real corpora",
    "docs/reproduction.md": "commands of published rows, each on its real corpus",
}
BY_HAND = {"bench", "check", "clean", "docs", "format", "gpu", "lock", "mutants", "setup", "setup-dev", "smoke", "test"}
"""Targets of make that install, or that a person or the runner of this test starts."""


@dataclass(frozen=True)
class Command:
    """A command of a page; ``needs`` says why it is not run."""

    page: str
    line: int
    text: str
    needs: str

    @property
    def words(self) -> list[str]:
        """The command as the shell splits it."""
        return shlex.split(self.text, comments=True)


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Yield the first line's number and the text of each fenced block of a language."""
    text = page.read_text()
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text[: match.start(1)].count("\n") + 1, match[1]


def commands(page: Path) -> list[Command]:
    found = []
    for first, block in blocks(page, "sh"):
        joined = re.sub(r"\\\n\s*", "", block)
        for line in joined.splitlines():
            if not re.match(r"(ser|make) ", line):
                continue
            _, marked, needs = line.partition("# needs ")
            found.append(Command(name(page), first, line, needs if marked else NOT_RUN.get(name(page), "")))
    return found


COMMANDS = [command for page in PAGES for command in commands(page)]


@pytest.mark.slow
def test_the_notebook_runs() -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(DOCS / "notebooks" / "first_steps.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300).execute()  # an error in a cell is raised
    assert not any(cell.get("outputs") for cell in nbformat.read(DOCS / "notebooks" / "first_steps.ipynb", 4).cells)


def test_pages_have_commands_and_many_of_them_are_run() -> None:
    assert len(COMMANDS) > 40
    assert sum(not command.needs for command in COMMANDS) > 20
    assert {command.page for command in COMMANDS} >= {"README.md", "docs/index.md", "docs/systems/mocanu2021.md"}


def test_a_page_that_runs_nothing_has_commands() -> None:
    assert set(NOT_RUN) <= {name(page) for page in PAGES}


# ---- commands parse ----


def parse_experiment(arguments: list[str]) -> None:
    _parse_experiment(tuple(arguments))


@cache  # pages repeat commands
def _parse_experiment(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as end:
        ExperimentCLI(["fit", *arguments, "--print_config"])
    assert end.value.code == 0


def parse(words: list[str]) -> None:
    """Parse a command as the program does, without running it or looking for a corpus."""
    if words[0] in LIGHTNING_COMMANDS:
        _, rest = parser().parse_known_args(words)
        # A checkpoint belongs to other subcommands than fit; "best" is in a run's folder.
        files = [Path(value) for flag, value in pairwise(rest) if flag == "--config"]
        if all(path.is_file() for path in files):
            parse_experiment(rest)
        else:
            assert all(str(path).startswith("runs/") for path in files), files
        return
    options, rest = parser().parse_known_args(words)
    assert options.takes_overrides or not rest, rest
    if words[0] == "table":
        keys, rest = split_keys(rest)
        rows = {row.name: row for row in read_table(options.file, keys).rows if row.experiment}
        assert set(options.rows) <= set(rows), f"{options.file} has the rows {', '.join(rows)}"
        for row in rows.values():
            parse_experiment(row_arguments(options.file, row, rest))
            if not row.once:
                break
        assert ONCE not in rest or any(row.once for row in rows.values())
    elif words[0] == "sweep":
        keys, rest = split_keys(rest)
        _, arguments = parser().parse_known_args(["cv", *read_sweep(options.file, keys).arguments, *rest])
        parse_experiment(arguments)
    elif options.takes_overrides:
        parse_experiment(rest)


def is_placeholder(command: Command) -> bool:
    """Whether it names a shell variable, or a table or module that the reader supplies."""
    return bool(re.search(r"\$|TABLE\.yaml|--allow my_", command.text))


FIRST_PAGES = ("README.md", "docs/index.md")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if name(page) in FIRST_PAGES else [pytest.mark.slow], id=name(page))
        for page in PAGES
    ],
)
def test_every_ser_command_of_a_page_parses(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    for command in commands(page):
        if command.words[0] != "ser" or is_placeholder(command):
            continue
        try:
            parse(command.words[1:])
        except (Exception, SystemExit) as error:
            said = capsys.readouterr().err
            pytest.fail(f"{command.page}:{command.line}: {command.text}\n{error}\n{said}")
        capsys.readouterr()


def test_every_make_command_names_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert targets >= BY_HAND
    for command in COMMANDS:
        if command.words[0] == "make":
            target, *variables = command.words[1:]
            assert target in targets, command
            if "<" not in command.text:  # a placeholder, of several words
                assert {variable.split("=")[0] for variable in variables} <= {"CORPUS", "ROOT", "EXPERIMENT", "ARGS"}


def test_every_subcommand_is_documented() -> None:
    text = "".join(page.read_text() for page in PAGES)
    helped = subprocess.run([sys.executable, "-m", "ser_lightning.cli", "--help"], capture_output=True, text=True)
    subcommands = re.findall(r"^    ([a-z-]+) +\S", helped.stdout, re.MULTILINE)
    assert {"fit", "cv", "table", "classify"} <= set(subcommands)
    assert [one for one in subcommands if not re.search(rf"\bser +{one}\b", text)] == []


def test_nothing_installs_the_package_from_an_index() -> None:
    files = [*PAGES, *(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "data_modules").glob("*.py")]
    assert [name(file) for file in files if re.search(r"pip install\s+'?ser-lightning", file.read_text())] == []


# ---- links and names ----


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    outside = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slugify(re.sub(r"[`*]", "", title), "-") for title in re.findall(r"^#+ (.+)$", outside, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_link_of_a_page_is_dead(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.is_file() or (anchor and anchor not in headings(path)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"(?<![\w/.])((?:src|data_modules|experiments|tests|docs)/[\w./*-]+)", page.read_text())
    assert [path for path in named if not list(REPOSITORY.glob(path.rstrip("./")))] == []


def test_classes_in_a_pages_code_table_are_in_the_named_files() -> None:
    for page in sorted((DOCS / "systems").glob("*.md")):
        rows = re.findall(r"^\|[^|]+\| (`[A-Za-z]\w+`[^|]*) \| (`[^|]+`) \|$", page.read_text(), re.MULTILINE)
        assert rows, page
        for classes, files in rows:
            paths = [REPOSITORY / file for file in re.findall(r"`([^`]+)`", files)]
            sources = [source for path in paths for source in ([path] if path.is_file() else path.glob("*.py"))]
            text = "".join(source.read_text() for source in sources)
            defined = set(re.findall(r"^(?:class|def) (\w+)", text, re.MULTILINE))
            assert set(re.findall(r"`(\w+)`", classes)) - defined == set(), (page.name, files)


def tree_of_readme() -> str:
    (tree,) = (text for _, text in blocks(README, "") if text.startswith("experiments/"))
    return tree


def test_the_readmes_tree_names_every_module_and_no_other() -> None:
    tree = tree_of_readme()
    modules = {
        path.name
        for folder in ("src", "data_modules", "tools")
        for path in (REPOSITORY / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    folders = {path.name for path in (REPOSITORY / "src/ser_lightning").rglob("*") if any(path.glob("*.py"))}
    experiments = {path.name for path in (REPOSITORY / "experiments").glob("[!._]*")}
    words = set(re.findall(r"[\w.]+", tree))
    assert (modules | folders | experiments) - words == set()
    files = {word for word in words if word.endswith((".py", ".yaml"))}
    assert files - modules - {path.name for path in (REPOSITORY / "experiments").rglob("*.yaml")} == set()


def test_the_readme_is_short_and_starts_with_two_commands() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 130
    assert text.count("![") == 1
    assert [command.words[:2] for command in commands(README)[:2]] == [["make", "train"], ["make", "test"]]


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"[\w/]+\.md", (REPOSITORY / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


# ---- pages build ----


@pytest.mark.slow
def test_the_documentation_builds_strictly_and_loads_no_urls(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe|link)[^>]+(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text())
        assert loaded == [], page.name
    data = (tmp_path / "site/reference/data.html").read_text()
    assert "data_modules.audio_files.AudioFiles" in data
    assert "alphabetical order" in data  # an argument's description


# ---- code of the pages works ----


def only_block(page: str, language: str, begins: str) -> str:
    (text,) = (text for _, text in blocks(DOCS / page, language) if text.startswith(begins))
    return text


def command_with_a_module(page: str) -> list[str]:
    """Return the words of the page's one command that names the reader's module."""
    (command,) = (command for command in commands(DOCS / page) if "--allow my_" in command.text)
    return command.words


@pytest.fixture
def run_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """Run ``ser`` in a folder of the reader's modules; return its output."""

    def run_ser(words: list[str]) -> str:
        assert words[0] == "ser"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])  # --allow adds the folder
        monkeypatch.setenv("WANDB_MODE", "disabled")
        monkeypatch.setenv("COLUMNS", "200")
        assert main(words[1:]) == 0
        return capsys.readouterr().out

    yield run_ser
    for module in ("my_corpus", "my_system"):
        sys.modules.pop(module, None)


def test_the_corpus_of_the_page_is_found_and_split(
    tmp_path: Path, synthetic_ravdess: Path, run_in: Callable[..., str]
) -> None:
    (tmp_path / "my_corpus.py").write_text(only_block("adding_a_corpus.md", "python", '"""Words'))
    clips = sorted(synthetic_ravdess.rglob("*.wav"))
    (tmp_path / "words").mkdir()
    for number, clip in enumerate(clips[:24]):
        shutil.copy(clip, tmp_path / "words" / f"s{number // 6}_{'ahn'[number % 3]}_{number % 6}.wav")
    (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")
    words = [word.replace("/data/words", "words") for word in command_with_a_module("adding_a_corpus.md")]
    said = run_in(words)
    assert "words: actor folds (even, 4)" in said
    assert [one for one in ("angry", "happy", "neutral", "No speaker is in two sets") if one not in said] == []
    assert len(re.findall(r"\btrain +. +12\b", said)) == 4


@pytest.mark.slow
def test_the_system_of_the_page_trains(tmp_path: Path, synthetic_ravdess: Path, run_in: Callable[..., str]) -> None:
    (tmp_path / "my_system.py").write_text(only_block("adding_a_system.md", "python", '"""Mean and deviation'))
    experiment = yaml.safe_load(only_block("adding_a_system.md", "yaml", "seed_everything"))
    (tmp_path / "my_system.yaml").write_text(yaml.safe_dump(experiment))
    words = [
        word.replace("/data/ravdess", str(synthetic_ravdess)) for word in command_with_a_module("adding_a_system.md")
    ]
    shorter = [
        "--folds=0",
        f"--config={REPOSITORY / 'experiments/trainer/smoke.yaml'}",
        "--data.init_args.protocol=ser_lightning.data.protocols.ActorFolds",
        "--data.init_args.protocol.init_args.blocks=even",
        "--data.init_args.protocol.init_args.num_folds=3",
    ]
    run_in([*words, *shorter])
    assert (tmp_path / "runs/my_system/ravdess-synthetic/default/seed-0/fold-00/checkpoints/best.ckpt").is_file()


# ---- commands run ----

SHORT = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu")
NARROW = {
    "zhou2020": ("--model.init_args.channels=[4,4,4,4,4,4]", "--model.init_args.cells=4"),
    "ando2019": ("--model.init_args.channels=[2,3,4]", "--model.init_args.cells=4", "--model.init_args.hidden_dim=4"),
}
LEAVES_TO_THE_READER = ("crema_d", "iemocap", "voxceleb2")
"""Corpora that ``ser download`` cannot fetch: it says how to get them, and exits with 1."""


def shortened(command: Command, data: Path) -> tuple[str, int]:
    """Return a command that takes seconds instead of hours, and its expected exit status."""
    text = re.sub(r"/data/(?=\w)", f"{data}/", command.text.partition(" #")[0])
    words = command.words
    if words[0] == "make":
        installed = "-o .venv/installed/core -o .venv/installed/dev -o .venv/installed/opensmile"
        args = shlex.quote(" ".join(("--folds 0", *SHORT))) if words[1] == "train" else "''"
        return text.replace("make ", f"make {installed} ", 1) + f" ARGS={args}", 0
    if words[1] == "download":
        return text, int(words[2] in LEAVES_TO_THE_READER)
    if words[1] in ("fit", "cv", "sweep") or words[1:3] == ["table", "run"]:
        paper = re.search(r"experiments/(\w+)/", text)
        more = [*SHORT, *NARROW.get(paper[1] if paper else "", ())]
        if words[1] != "fit" and "--folds" not in words:
            more.append("--folds=0")
        if "--dry-run" in words:  # its accelerator does not matter; the rest must match the runs of earlier pages
            more.remove("--trainer.accelerator=cpu")
        return text if "--print_config" in words else " ".join((text, *map(shlex.quote, more))), 0
    return text, 0


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working copy with separate runs and caches, the quick start done, and twins of all corpora."""
    from data_modules import audio_files, crema_d, iemocap, ravdess

    folder = tmp_path_factory.mktemp("workspace")
    for one in ("experiments", "src", "data_modules", "docs", "Makefile", "pyproject.toml", "benchmarks"):
        (folder / one).symlink_to(REPOSITORY / one)
    for lock in REPOSITORY.glob("requirements*.lock"):
        (folder / lock.name).symlink_to(lock)
    (folder / ".venv/bin").mkdir(parents=True)
    for program in ("ser", "python"):
        (folder / ".venv/bin" / program).symlink_to(Path(sys.executable).parent / program)
    ravdess.write_synthetic(folder / "data/ravdess", speakers=24, seed=0, clips_per_speaker=8)
    crema_d.write_synthetic(folder / "data/crema_d", speakers=91, seed=0, clips_per_speaker=6)
    iemocap.write_synthetic(folder / "data/iemocap", speakers=10, seed=0, clips_per_speaker=8)
    audio_files.write_synthetic(folder / "data/recordings", speakers=4, seed=0, clips_per_speaker=8)
    (folder / "data/recordings/SYNTHETIC.json").unlink()  # as real recordings
    for talk in ("TALK.wav", "talk.wav"):
        shutil.copy(next((folder / "data/recordings").rglob("*.wav")), folder / talk)
    run(folder, Command("README.md", 0, "make train", ""))
    return folder


@pytest.fixture(scope="module")
def run_before() -> set[tuple[str, ...]]:
    """Commands already run in the workspace."""
    return set()


def run(folder: Path, command: Command) -> None:
    text, status = shortened(command, folder / "data")
    path = f"{folder / '.venv/bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "WANDB_MODE": "disabled"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == status, f"{command.page}:{command.line}: {text}\n{said}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(not command.needs for command in commands(page))], ids=name
)
def test_the_commands_of_a_page_run(page: Path, workspace: Path, run_before: set[tuple[str, ...]]) -> None:
    for command in commands(page):
        if not command.needs and not (command.words[0] == "make" and command.words[1] in BY_HAND):
            # A command on several pages is run once; other tests repeat commands.
            if tuple(command.words) not in run_before:
                run(workspace, command)
            run_before.add(tuple(command.words))


@pytest.mark.slow
def test_the_python_page_runs(workspace: Path) -> None:
    code = "\n".join(text for _, text in blocks(DOCS / "python.md", "python"))
    assert code.count("max_epochs=25") == 1
    done = subprocess.run(
        [workspace / ".venv/bin/python", "-c", code.replace("max_epochs=25", "max_epochs=1")],
        cwd=workspace,
        env=os.environ | {"WANDB_MODE": "disabled", "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'neutral':" in done.stdout


@pytest.mark.slow
def test_the_quick_start_leaves_the_files_it_lists(workspace: Path) -> None:
    seed = workspace / "runs/quickstart/ravdess-synthetic/default/seed-0"
    table = only_table_of_files((DOCS / "index.md").read_text())
    assert [file for file in table if not (seed / "fold-00" / file).exists()] == []
    for file in ("summary.json", "confusion.png", "report.html", "report.md"):
        assert (seed / file).is_file(), file


def only_table_of_files(text: str) -> list[str]:
    """Return the files of a fold that the quick start lists, without W&B's, which is off here, and a later stage's."""
    rows = re.findall(r"^\| (`[^|]+) \|", text.partition("| file of a fold |")[2].partition("\n\n")[0], re.MULTILINE)
    files = [file for row in rows for file in re.findall(r"`([^`]+)`", row)]
    assert len(files) > 6
    absent = ("wandb/", "source_hashes.json")
    return ["checkpoints/best.md" if file == "best.md" else file for file in files if file not in absent]
