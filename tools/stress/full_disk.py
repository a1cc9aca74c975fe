"""A disk that is full at one write, for each write of a command, and has room again later."""

import errno
import os
import random
import re
from collections.abc import Iterable
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
    TRIALS,
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
    "table": ((EXPERIMENT, "audio_files.yaml", TABLE, FEATURES), RUNS),
    "sweep": ((EXPERIMENT, SWEEP, FEATURES), TRIALS),
    "report": ((RUNS,), "report"),
    "classify": ((FOLD,), "emotions.csv"),
}
_SHARES = {"synth": 1, "store": 1, "fold": 2, "table": 12, "sweep": 12, "report": 2, "classify": 1}


class FullDisk:
    """Attempts with one full disk each, in a random order of commands and writes."""

    share = 0.25

    def numbers(self, bench: Bench) -> Iterable[int]:
        """Return a number for each write of each command, in random order; slow commands come less often."""
        rng = random.Random(bench.seed)
        turns: dict[int, int] = {}
        for place, name in enumerate(_NEEDS):
            writes = list(range(bench.material.uses[name]))
            rng.shuffle(writes)
            turns |= {write * len(_NEEDS) + place: turn * _SHARES[name] for turn, write in enumerate(writes, start=1)}
        return sorted(turns, key=lambda number: turns[number])

    def attempt(self, bench: Bench, number: int) -> Attempt:
        """Run a command on a disk that gets full, and again with room."""
        write, place = divmod(number, len(_NEEDS))
        name, at = list(_NEEDS)[place], write + 1
        lasting = random.Random(f"{bench.seed} {number}").random() < 0.5
        copied, written = _NEEDS[name]
        folder = bench.material.place(bench.folder / f"full-{number}", copied, (RECORDINGS,))
        seconds = bench.material.seconds[name]
        kind = f"`ser {COMMANDS[name][0]}`: an error naming a file; then equal results"
        details = f"write {at} of {bench.material.uses[name]}{', and all later ones' if lasting else ''}"
        full = Conditions(full_at=at, lasting=lasting, blank_pictures=True)
        ended = bench.commands.run(COMMANDS[name], folder, full, seconds)
        if fault := _fault(ended, written):
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


def _fault(ended: Ended, written: str) -> str:
    """Return the fault of a command's end; an error must say which file or folder there was no room for."""
    if fault := ended.fault():
        return fault
    said = os.strerror(errno.ENOSPC)
    lines = [line for line in ended.output.splitlines() if said in line]
    if ended.status and not any({"/", written} & set(re.split(r"(/)|[ :]", line)) for line in lines):
        return f"no file is named: {ended.output.strip()[-500:]}"
    return ""
