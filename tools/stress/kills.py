"""SIGKILL at random moments: of all processes of a command at once, or of one of them."""

import itertools
import random
import time
from collections.abc import Iterable
from pathlib import Path

from tools.stress.child import Conditions
from tools.stress.commands import all_end, kill_all, kill_one, most_seconds, processes_in
from tools.stress.material import (
    COMMANDS,
    EXPERIMENT,
    FEATURES,
    PREDICTIONS,
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

TARGETS = {
    "store": "two builders of a store: each file's frames once, equal to the byte",
    "fold": "`ser run-fold`: equal results, nothing finished done again",
    "table": "`ser table run`: equal results, nothing finished done again",
    "sweep": "`ser sweep`: equal results, nothing finished done again",
}
# Tables and sweeps take longer.
_TURNS = ("store", "fold", "store", "fold", "table", "store", "fold", "sweep")
_COPIED = (EXPERIMENT, "audio_files.yaml", TABLE, SWEEP)
_WRITES = {"store": FEATURES, "fold": "fold", "table": RUNS, "sweep": TRIALS}


class Kills:
    """Attempts with one to three kills each."""

    share = 0.35

    def numbers(self, bench: Bench) -> Iterable[int]:
        """Return all numbers."""
        return itertools.count()

    def attempt(self, bench: Bench, number: int) -> Attempt:
        """Kill a command up to three times, then let it run to its end."""
        target = _TURNS[number % len(_TURNS)]
        rng = random.Random(f"{bench.seed} {number}")
        folder = bench.folder / f"kills-{number}"
        bench.material.place(folder, (*_COPIED, *([] if target == "store" else [FEATURES])), (RECORDINGS,))
        moments: list[str] = []
        failure = ""
        for _ in range(rng.choice((1, 2, 3))):
            failure = failure or self._disturb(bench, target, folder, rng, moments)
        return Attempt(TARGETS[target], f"killed {', '.join(moments)}", failure or self._finish(bench, target, folder))

    def _disturb(self, bench: Bench, target: str, folder: Path, rng: random.Random, moments: list[str]) -> str:
        """Start the command, kill at a random moment, and return what was lost."""
        seconds = bench.material.seconds[target]
        before = _finished(folder / _WRITES[target])
        conditions = Conditions(flush_each=True, blank_pictures=True)
        started = [bench.commands.start(COMMANDS[target], folder, conditions) for _ in range(1 + (target == "store"))]
        moment = rng.uniform(0, seconds)
        time.sleep(moment)
        alone = rng.random() < 0.4
        if processes_in(folder):
            kill_one(folder, rng) if alone else kill_all(folder)
            moments.append(f"{'one process' if alone else 'all'} at {moment:.2f} s")
        ends = [command.wait(seconds) for command in started]
        if not all_end(folder):
            return f"processes outlived the command by {most_seconds():.0f} s"
        for ended in ends:
            if (ended.status or 0) >= 0 and (fault := ended.fault()):
                return fault
        return _lost(bench, target, folder, before)

    def _finish(self, bench: Bench, target: str, folder: Path) -> str:
        before = _finished(folder / _WRITES[target])
        conditions = Conditions(flush_each=True, blank_pictures=True)
        ended = bench.commands.run(COMMANDS[target], folder, conditions, bench.material.seconds[target])
        if ended.status != 0 or ended.fault():
            return f"does not resume: {ended.fault() or ended.output.strip()[-500:]}"
        if lost := _lost(bench, target, folder, before):
            return lost
        if target == "store":
            return differences(frames(bench.material.folder / FEATURES), frames(folder / FEATURES))
        written = _WRITES[target]
        return differences(results(bench.material.folder / written), results(folder / written))


def _finished(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the finished files below ``folder``, with what changes if they are written again."""
    found = {}
    for path in (*folder.rglob("*.safetensors"), *folder.rglob(PREDICTIONS)):
        status = path.stat()
        found[path] = (status.st_ino, status.st_mtime_ns)
    return found


def _lost(bench: Bench, target: str, folder: Path, before: dict[Path, tuple[int, int]]) -> str:
    """Return which finished file has changed or is not whole; empty if none."""
    after = _finished(folder / _WRITES[target])
    if again := [path for path in before if after.get(path) != before[path]]:
        return f"done again: {again[0].relative_to(folder)}"
    for path in after:
        if path.name == PREDICTIONS:
            expected = bench.material.folder / path.relative_to(folder)
            if not expected.exists() or path.read_bytes() != expected.read_bytes():
                return f"half-written, and counted: {path.relative_to(folder)}"
    return ""
