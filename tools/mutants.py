"""Mutation testing with mutmut: mutate a seeded sample, print a table by module and every survivor.

The modules, and the tests that judge them, are in pyproject.toml, ``[tool.mutmut]``. mutmut works on a copy.
"""

import argparse
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import mutate_file_contents
from rich.console import Console
from rich.table import Table

LEAST_SCORE = 0.92
COPY = Path("mutants")
MUTMUT = (sys.executable, "-m", "mutmut")
CAUGHT = ("killed", "timeout", "segfault")


def all_mutants() -> dict[str, Path]:
    """Return the source file of every mutant, by the mutant's name."""
    patterns = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
    files = sorted(file for pattern in patterns for file in Path().glob(pattern))
    return {
        f"{'.'.join(file.with_suffix('').parts[1:])}.{name}": file
        for file in files
        for name in mutate_file_contents(str(file), file.read_text()).mutant_names
    }


def outcomes(names: list[str], minutes: float, processes: int) -> dict[str, str]:
    """Run the tests on the mutants and return the outcome of each that was tried.

    mutmut begins with the fastest. When the time is over, it is interrupted, and ends as by Ctrl-C.
    """
    shutil.rmtree(COPY, ignore_errors=True)  # earlier outcomes are those of earlier tests
    with subprocess.Popen([*MUTMUT, "run", f"--max-children={processes}", *names]) as run:
        try:
            status = run.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGINT)
            status = run.wait()
    if status:
        sys.exit("mutmut failed: see above")
    listed = subprocess.run([*MUTMUT, "results", "--all=true"], check=True, capture_output=True, text=True).stdout
    found = dict(re.findall(r"^ *(\S+): (.+)$", listed, re.MULTILINE))
    return {name: found[name] for name in names if found[name] not in ("not checked", "check was interrupted by user")}


def change(name: str, file: Path) -> str:
    """Return the place of a mutant, and its changed lines."""
    lines = get_diff_for_mutant(name).splitlines()
    lines = [line for line in lines if line[:1] in ("-", "+") and line[:3] not in ("---", "+++")]
    *_, owner, function, _ = ["", *re.split("ǁ|__mutmut_", name.rpartition(".")[2].removeprefix("x_"))]
    source = file.read_text().splitlines()
    # The first line that is the removed one, after those of its class and function.
    wanted = [*([f"class {owner.removeprefix('x')}"] if "ǁ" in name else []), f"def {function}", lines[0][1:].strip()]
    place = 0
    for start in wanted:
        place = next((n for n in range(place, len(source)) if source[n].strip().startswith(start)), place)
    return "\n".join([f"{file}:{place + 1}", *lines])


def main() -> None:
    """Print the table and the survivors; exit with 1 below 92%."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=600, help="number of mutants, 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--minutes", type=float, default=20.0, help="time limit; what was tried until then counts")
    parser.add_argument("--processes", type=int, default=2, help="test processes")
    options = parser.parse_args()

    began = time.monotonic()
    files = all_mutants()
    names = sorted(files)
    if 0 < options.sample < len(names):
        names = random.Random(options.seed).sample(names, options.sample)
    tried = outcomes(names, options.minutes, options.processes)

    survivors = [name for name, outcome in tried.items() if outcome not in CAUGHT]
    made, survived = (Counter(str(files[name]) for name in group) for group in (tried, survivors))
    table = Table("module", "tried", "killed", "survived", "score")
    for file in [*sorted(made), "all"]:
        total, left = (made[file], survived[file]) if file != "all" else (made.total(), survived.total())
        table.add_row(file, *map(str, (total, total - left, left)), f"{1 - left / total:.1%}")
    for name in sorted(survivors):
        print(f"\n{name} {tried[name]}\n{change(name, files[name])}")
    Console(width=120).print(table)
    score = 1 - len(survivors) / len(tried)
    minutes = (time.monotonic() - began) / 60
    print(f"{len(files)} mutants, {len(names)} chosen, {len(tried)} tried in {minutes:.0f} minutes: {score:.1%} killed")
    sys.exit(score < LEAST_SCORE)


if __name__ == "__main__":
    main()
