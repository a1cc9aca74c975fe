"""Damaged files of every kind, each through a command that reads it."""

import itertools
import random
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tools.damage import OF_BYTES, OF_TEXT, damaged
from tools.damaged_audio import ALWAYS_UNUSABLE, DAMAGES, write_damaged
from tools.stress.child import Conditions
from tools.stress.commands import Ended
from tools.stress.material import (
    CHECKPOINT,
    COMMANDS,
    EXPERIMENT,
    FEATURES,
    FOLD,
    PREDICTIONS,
    RECORDINGS,
    RUNS,
    SWEEP,
    TABLE,
    TRIALS,
)
from tools.stress.program import Attempt, Bench

EMOTIONS = "emotions.csv"
_BINARY = (".ckpt", ".safetensors", ".db")
# Pictures and pages are written only, and locks are empty.
_NOT_READ = (".png", ".html", ".md", ".lock", ".txt")


def _damage(rng: random.Random, path: Path) -> str:
    """Damage a file and return how."""
    content = path.read_bytes()
    name, after = damaged(OF_BYTES if path.suffix in _BINARY else OF_TEXT, rng, content)
    path.write_bytes(after)
    return f"{path.name} {name}"


def _damage_one_below(rng: random.Random, *folders: Path) -> tuple[Path, str]:
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    path = rng.choice([path for path in found if path.stat().st_size and path.suffix not in _NOT_READ])
    return path, _damage(rng, path)


def _named(ended: Ended, name: str) -> str:
    """Return the fault of a command's end; an error must name the file."""
    if fault := ended.fault():
        return fault
    return (
        f"the error does not name {name}: {ended.output.strip()[-500:]}"
        if ended.status and name not in ended.output
        else ""
    )


def _classified(bench: Bench, folder: Path, rng: random.Random, number: int) -> tuple[str, str]:
    """Classify recordings of one format with all damages: finite probabilities, or a reason."""
    bench.material.place(folder, linked=(FOLD,))
    first = number * len(DAMAGES)
    # A folder stands for the recordings in it.
    damages = {damage: first + place for place, damage in enumerate(DAMAGES) if damage != "folder"}
    names = [write_damaged(folder, bench.seed, place).name for place in damages.values()]
    ended = bench.commands.run(("classify", CHECKPOINT, *names, f"--out={EMOTIONS}"), folder)
    details = f"{names[0]} to {names[-1]}"
    if fault := ended.fault():
        return details, fault
    if not (folder / EMOTIONS).exists():
        return details, f"nothing was classified: {ended.output.strip()[-500:]}"
    import pandas as pd

    table = pd.read_csv(folder / EMOTIONS)
    table = table[table["error"].isna()]
    probabilities = table[[name for name in table.columns if name.startswith("probability_")]]
    classified = set(table["file"])
    wrong = [name for name in names if (name in classified) == bool(re.search(rf"^.*{name}: .+", ended.output, re.M))]
    wrong += [name for name, damage in zip(names, damages, strict=True) if name in classified & _unusable(damage, name)]
    if wrong or not ((probabilities.sum(axis=1) - 1).abs() < 1e-4).all():
        return details, f"neither probabilities nor a reason, or both: {wrong}"
    return details, ""


def _unusable(damage: str, name: str) -> set[str]:
    return {name} if damage in ALWAYS_UNUSABLE else set()


def _recordings(bench: Bench, folder: Path) -> Path:
    """Make a corpus whose files may be replaced."""
    recordings = folder / RECORDINGS
    for path in (bench.material.folder / RECORDINGS).rglob("*"):
        target = recordings / path.relative_to(bench.material.folder / RECORDINGS)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return recordings


def _extracted(bench: Bench, folder: Path, rng: random.Random, number: int) -> tuple[str, str]:
    """Extract a corpus with a damaged recording: frames of all, or an error that names it."""
    bench.material.place(folder, copied=(EXPERIMENT, FEATURES))
    recordings = _recordings(bench, folder)
    path = write_damaged(folder, bench.seed, number)
    replaced = rng.choice(sorted(file for file in recordings.rglob("*.wav")))
    replaced.unlink()
    path.rename(replaced)
    ended = bench.commands.run(COMMANDS["store"], folder)
    if ended.status == 0 and DAMAGES[number % len(DAMAGES)] in ALWAYS_UNUSABLE:
        return path.name, "was extracted"
    return path.name, _named(ended, replaced.name)


def _labels(bench: Bench, folder: Path, rng: random.Random, number: int) -> tuple[str, str]:
    """Audit a corpus with a damaged table of labels: a report, or an error."""
    bench.material.place(folder, copied=(EXPERIMENT, FEATURES))
    table = _recordings(bench, folder) / "labels.csv"
    content = table.read_bytes()
    table.unlink()
    table.write_bytes(content)
    details = _damage(rng, table)
    return details, bench.commands.run(("audit", f"--config={EXPERIMENT}"), folder).fault()


def _yaml(name: str, *arguments: str) -> "Target":
    def attempt(bench: Bench, folder: Path, rng: random.Random, number: int) -> tuple[str, str]:
        bench.material.place(
            folder, copied=(EXPERIMENT, "audio_files.yaml", TABLE, SWEEP, FEATURES), linked=(RECORDINGS,)
        )
        details = _damage(rng, folder / name)
        return details, bench.commands.run((*arguments, "--dry-run"), folder).fault()

    return attempt


def _checkpoint(bench: Bench, folder: Path, rng: random.Random, number: int) -> tuple[str, str]:
    """Classify with a damaged checkpoint: the probabilities of the whole one, or an error that names it."""
    bench.material.place(folder, copied=(FOLD,), linked=(RECORDINGS,))
    details = _damage(rng, folder / CHECKPOINT)
    ended = bench.commands.run(COMMANDS["classify"], folder)
    if ended.status == 0 and (folder / EMOTIONS).read_bytes() != (bench.material.folder / EMOTIONS).read_bytes():
        return details, "other probabilities without a word"
    return details, _named(ended, Path(CHECKPOINT).name)


def _report(bench: Bench, folder: Path, rng: random.Random, number: int) -> tuple[str, str]:
    """Report runs with a damaged file: a page, or an error."""
    bench.material.place(folder, copied=(RUNS,))
    _, details = _damage_one_below(rng, folder / RUNS)
    conditions = Conditions(blank_pictures=rng.random() < 0.8)
    return details, bench.commands.run(COMMANDS["report"], folder, conditions).fault()


def _resumed(bench: Bench, folder: Path, rng: random.Random, number: int) -> tuple[str, str]:
    """Test a trained fold again with a damaged file of its own or of the store: equal predictions, or an error."""
    material = bench.material
    material.place(folder, copied=(EXPERIMENT, FEATURES, FOLD), linked=(RECORDINGS,))
    (folder / FOLD / PREDICTIONS).unlink()
    path, details = _damage_one_below(rng, folder / FOLD, folder / FEATURES)
    ended = bench.commands.run(COMMANDS["fold"], folder, calm_seconds=material.seconds["fold"])
    predictions = folder / FOLD / PREDICTIONS
    expected = (material.folder / FOLD / PREDICTIONS).read_bytes()
    if ended.status == 0 and (not predictions.exists() or predictions.read_bytes() != expected):
        return details, "other predictions without a word"
    return details, _named(ended, path.name)


def _database(bench: Bench, folder: Path, rng: random.Random, number: int) -> tuple[str, str]:
    """Resume a finished sweep with a damaged database: equal predictions, or an error."""
    bench.material.place(folder, copied=(EXPERIMENT, SWEEP, FEATURES, TRIALS), linked=(RECORDINGS,))
    details = _damage(rng, next((folder / TRIALS).rglob("sweep.db")))
    conditions = Conditions(blank_pictures=True)
    seconds = bench.material.seconds["sweep"]
    return details, bench.commands.run(COMMANDS["sweep"], folder, conditions, calm_seconds=seconds).fault()


Target = Callable[[Bench, Path, random.Random, int], tuple[str, str]]
TARGETS: Mapping[str, Target] = {
    "recordings, `ser classify`: each has probabilities or a reason": _classified,
    "checkpoint, `ser classify`: equal probabilities, or an error naming it": _checkpoint,
    "labels.csv, `ser audit`: a table, or an error": _labels,
    "experiment, `ser cv --dry-run`: a plan, or an error": _yaml(EXPERIMENT, "cv", f"--config={EXPERIMENT}"),
    "recording, `ser prepare`: frames, or an error naming it": _extracted,
    "table file, `ser table --dry-run`: a plan, or an error": _yaml(TABLE, *COMMANDS["table"]),
    "file of runs, `ser report`: a page, or an error": _report,
    "sweep file, `ser sweep --dry-run`: a plan, or an error": _yaml(SWEEP, *COMMANDS["sweep"]),
    "file of fold or store, `ser run-fold`: equal predictions, or an error naming it": _resumed,
    "database, `ser sweep`: resumes, or an error": _database,
}


class DamagedFiles:
    """Attempts with a damaged file each."""

    share = 0.4

    def numbers(self, bench: Bench) -> Iterable[int]:
        """Return all numbers."""
        return itertools.count()

    def attempt(self, bench: Bench, number: int) -> Attempt:
        """Damage a file and run a command that reads it."""
        kind = list(TARGETS)[number % len(TARGETS)]
        rng = random.Random(f"{bench.seed} {number}")
        target = TARGETS[kind]
        details, failure = target(bench, bench.folder / f"damaged-{number}", rng, number // len(TARGETS))
        return Attempt(kind, details, failure, count=len(DAMAGES) - 1 if target is _classified else 1)
