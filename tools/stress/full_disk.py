"""A disk that is full at one write, for each write of a command, and has room again later."""

import errno
import os
import random
from pathlib import Path

from tools.stress.child import Conditions
from tools.stress.commands import Ended
from tools.stress.material import (
    COMMANDS,
    EXPERIMENT,
    FEATURES,
    FOLD,
    RECORDINGS,
    RUNS,
    SWEEP,
    TABLE,
    differences,
    frames,
    results,
)
from tools.stress.program import Attempt, Bench

# By command: the files that it needs, and what it writes.
_NEEDS = {
    "synth": ((), "other"),
    "store": ((EXPERIMENT,), FEATURES),
    "fold": ((EXPERIMENT, FEATURES), FOLD),
    "table": ((EXPERIMENT, "audio_files.yaml", TABLE, FEATURES), "runs/table"),
    "sweep": ((EXPERIMENT, SWEEP, FEATURES), "runs/experiment"),
    "report": ((RUNS,), "report"),
    "classify": ((FOLD,), "emotions.csv"),
}


class FullDisk:
    """Attempts with one full disk each, in a random order of commands and writes."""

    share = 0.25

    def total(self, bench: Bench) -> int | None:
        """Return the number of writes of all commands."""
        return len(self._attempts(bench))

    def _attempts(self, bench: Bench) -> list[tuple[str, int]]:
        attempts = [(name, number) for name in _NEEDS for number in range(1, bench.material.uses[name] + 1)]
        random.Random(bench.seed).shuffle(attempts)
        return attempts

    def attempt(self, bench: Bench, number: int) -> Attempt:
        """Run a command on a disk that gets full, and again with room."""
        name, at = self._attempts(bench)[number]
        lasting = random.Random(f"{bench.seed} {number}").random() < 0.5
        copied, written = _NEEDS[name]
        folder = bench.material.place(bench.folder / f"full-{number}", copied, (RECORDINGS,))
        seconds = bench.material.seconds[name]
        kind = f"`ser {COMMANDS[name][0]}`: an error naming a file; then equal results"
        details = f"write {at} of {bench.material.uses[name]}{', and all later ones' if lasting else ''}"
        full = Conditions(full_at=at, lasting=lasting, blank_pictures=True)
        ended = bench.commands.run(COMMANDS[name], folder, full, seconds)
        if fault := _fault(ended):
            return Attempt(kind, details, fault)
        if ended.status != 0:
            room = Conditions(blank_pictures=True)
            again = bench.commands.run(COMMANDS[name], folder, room, seconds)
            if again.status != 0 or again.fault():
                return Attempt(kind, details, f"does not resume: {again.fault() or again.output.strip()[-500:]}")
        expected = bench.material.folder / written
        if name == "store":
            return Attempt(kind, details, differences(frames(expected), frames(folder / written)))
        return Attempt(kind, details, differences(_results(expected), _results(folder / written)))


def _results(path: Path) -> dict[str, object]:
    if path.is_file():
        return {path.name: path.read_bytes()}
    unfinished = {file.name: b"" for file in path.rglob(".tmp-*")}
    return results(path) | {name.name: name.read_bytes() for name in path.rglob("*.wav")} | unfinished


def _fault(ended: Ended) -> str:
    """Return the fault of a command's end; an error must say which file there was no room for."""
    if fault := ended.fault():
        return fault
    said = os.strerror(errno.ENOSPC)
    lines = [line for line in ended.output.splitlines() if said in line]
    if ended.status and not any("/" in line.partition(said)[0] for line in lines):
        return f"no file is named: {ended.output.strip()[-500:]}"
    return ""
