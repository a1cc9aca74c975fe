"""``python -m tools.stress``: run the programs for some minutes; exit status 0 if all held."""

import argparse
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ser_lightning.jobs.process import Termination, sigterm_raises
from tools.stress.commands import Commands, kill_all
from tools.stress.damaged_files import DamagedFiles
from tools.stress.full_disk import FullDisk
from tools.stress.kills import Kills
from tools.stress.material import Material
from tools.stress.program import Attempt, Bench, Program

PROGRAMS: Mapping[str, Program] = {"full-disk": FullDisk(), "kills": Kills(), "damaged-files": DamagedFiles()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the programs and print their table. 0: all held; 1: not all; 130, 143: interrupted, terminated."""
    parser = argparse.ArgumentParser(prog="python -m tools.stress", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=15.0, help="time of all programs (default: 15)")
    parser.add_argument("--seed", type=int, default=0, help="seed of moments and damages (default: 0)")
    parser.add_argument("--only", choices=list(PROGRAMS), help="one program")
    parser.add_argument("--number", type=int, help="one attempt of that program")
    options = parser.parse_args(arguments)
    if options.number is not None and not options.only:
        parser.error("--number needs --only")
    if not Path("/proc/self/cwd").exists():
        parser.error("/proc is needed to find the processes of a command")
    names = [options.only] if options.only else list(PROGRAMS)
    try:
        with sigterm_raises():
            return run(names, options.seed, options.minutes * 60, options.number)
    except Termination:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def run(names: Sequence[str], seed: int, seconds: float, only_number: int | None = None) -> int:
    """Run programs for ``seconds`` in all, and return the exit status."""
    console = Console(stderr=True)
    folder = Path(tempfile.mkdtemp(prefix="stress-")).resolve()
    began = time.monotonic()
    temporary = folder / "temporary"
    temporary.mkdir()
    commands = Commands(temporary)
    counts: dict[tuple[str, str], Counter[bool]] = {}
    try:
        with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as progress:
            task = progress.add_task("making corpus, runs, table and sweep", total=None)
            bench = Bench(Material.make(folder / "calm", commands), commands, folder, seed)
            progress.remove_task(task)
            for place, name in enumerate(names):
                program = PROGRAMS[name]
                # What an earlier program leaves of its share goes to the later ones.
                left = seconds - (time.monotonic() - began)
                share = left * program.share / sum(PROGRAMS[later].share for later in names[place:])
                task = progress.add_task(name, total=share)
                start = time.monotonic()
                numbers = program.numbers(bench) if only_number is None else [only_number]
                for done, number in enumerate(numbers, start=1):
                    attempt = program.attempt(bench, number)
                    counts.setdefault((name, attempt.kind), Counter())[not attempt.failure] += attempt.count
                    if attempt.failure:
                        tell(console, name, seed, number, attempt)
                    clear(folder)
                    spent = time.monotonic() - start
                    progress.update(task, completed=spent, description=f"{name}: {done}")
                    if spent >= share:
                        break
    finally:
        commands.close()
        kill_all(folder / "calm")
        shutil.rmtree(folder, ignore_errors=True)
    print(markdown(counts))
    where = f"{platform.system()}, Python {platform.python_version()}"
    print(f"\nSeed {seed}, {(time.monotonic() - began) / 60:.0f} minutes, {where}")
    print(
        f"Slowest command without training: {commands.slowest_seconds:.1f} s; most memory: {commands.peak_mib:.0f} MiB"
    )
    return 0 if all(not count[False] for count in counts.values()) else 1


def clear(folder: Path) -> None:
    """Delete what an attempt has left."""
    for path in folder.iterdir():
        if path.name not in ("calm", "temporary"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def tell(console: Console, name: str, seed: int, number: int, attempt: Attempt) -> None:
    """Print a failure, and the command that repeats it."""
    for text in (
        f"FAILED {name}, {attempt.kind}\n  {attempt.details}: {attempt.failure}",
        f"  again: python -m tools.stress --seed {seed} --only {name} --number {number}",
    ):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def markdown(counts: Mapping[tuple[str, str], Counter[bool]]) -> str:
    """Return the table of all attempts."""
    lines = ["| program | disturbed, command: right outcome | attempts | failed |", "|---|---|---|---|"]
    lines += [f"| {name} | {kind} | {count.total()} | {count[False]} |" for (name, kind), count in counts.items()]
    total = sum((count for count in counts.values()), Counter())
    lines.append(f"| all | | {total.total()} | {total[False]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
