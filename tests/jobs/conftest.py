"""Fake jobs: a program in place of ``ser`` that behaves as its configuration says."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ser_lightning.jobs import engine
from ser_lightning.jobs.plan import Job, write_configurations

FAKE_SER = """\
import json, os, pathlib, signal, sys, time

from ser_lightning.jobs.fork_server import serve


def run(arguments):
    given = dict(argument[2:].split("=", 1) for argument in arguments if "=" in argument)
    configuration = pathlib.Path(given["config"])
    folder, kind = configuration.parent, configuration.read_text().split()[1]
    tries = len(list(folder.glob("try-*")))
    (folder / f"try-{tries}").touch()
    print("this is", kind, "at try", tries, flush=True)
    if kind == "fails" or (kind == "fails-once" and tries == 0):
        sys.exit(3)
    if kind == "refuses":
        print("error: there is no such corpus\\n  choose another")
        sys.exit(78)
    if kind == "crashes":
        print("Traceback ...\\nerror: KeyError: 'x'; see", flush=True)
        sys.exit(1)
    if kind == "is-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "loses-worker" and tries == 0:
        server = pathlib.Path(f"/proc/{os.getppid()}/stat").read_text()
        os.kill(int(server.split()[3]), signal.SIGKILL)
    if kind in ("waits", "loses-worker") and (kind == "waits" or tries == 0):
        sys.stdin.read()  # ends with the parent, as `ser run-fold --end-with-parent` does
        sys.exit(9)
    began = time.time()
    # until as many jobs run
    while kind.startswith("meets") and len(list(folder.parent.glob("*/try-0"))) < int(kind[5:] or 2):
        time.sleep(0.05)
    (folder / "saw.json").write_text(json.dumps(
        {"began": began, "ended": time.time(), "environment": dict(os.environ), "arguments": arguments}
    ))
    if kind == "leaves-nothing":
        sys.exit()
    if kind == "is-seen-later" and tries == 0:
        if os.fork():
            sys.exit()
        os.setsid()
        time.sleep(2)
    (folder / "run.json").touch()
    (folder / "predictions.csv").touch()
    if kind == "aborts-at-the-end":
        sys.exit(3)
    return 0


serve(lambda: None, run)
"""


@pytest.fixture
def fake_ser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program in place of ``ser``."""
    program = tmp_path / "fake_ser.py"
    program.write_text(FAKE_SER)
    monkeypatch.setattr(engine, "PROGRAM", (sys.executable, str(program)))
    return program


@pytest.fixture
def job(tmp_path: Path, fake_ser: Path) -> Callable[..., Job]:
    """Makes a job of a kind, with dependencies."""

    def make(kind: str, name: str, *needs: Job) -> Job:
        folder = tmp_path / "runs" / "seed-0" / name
        needed = tuple(other.folder for other in needs)
        made = Job(folder, {"kind": kind}, "experiment", "default", fold=0, seed=0, needs=needed)
        write_configurations([made])
        return made

    return make
