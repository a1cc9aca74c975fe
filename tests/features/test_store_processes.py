"""Stored features with several processes, and after kills."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from torch import Tensor

from ser_lightning.audio import read_audio
from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureExtractor, FeatureStore, LogMelFilterbank, extraction, store
from ser_lightning.features.extraction import extract_files

ORPHANS = """
import multiprocessing, sys, time
from pathlib import Path
from ser_lightning.features import LogMelFilterbank, extraction

if __name__ == "__main__":
    extraction.TRIAL_SECONDS = extraction.LEAST_SECONDS_FOR_WORKERS = 0.0
    results = extraction.extract_files(LogMelFilterbank(), sorted(Path(sys.argv[1]).glob("*")), 2)
    for _ in range(3):
        next(results)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(600)
"""


FORK = multiprocessing.get_context("fork")
WaitUntil = Callable[[Callable[[], object]], None]

# The other threads of this process, pytest-xdist's and the one that kills, only wait.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    (tmp_path / "audio").mkdir()
    paths = [tmp_path / "audio" / f"{seed:02d}.wav" for seed in range(40)]
    for seed, path in enumerate(paths):
        soundfile.write(path, np.random.default_rng(seed).normal(scale=0.1, size=4000 + 160 * seed), 16000)
    return paths


class EagerStore(FeatureStore):
    """Write each file's frames at once."""

    flush_seconds = 0.0


class SlowFilterbank(LogMelFilterbank):
    """Slow enough that workers are started."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(0.02)
        return super().forward(waveforms, lengths)


def build(folder: Path, clips: list[Path], go: Any, prepared: Any) -> None:
    go.wait()
    done = EagerStore(folder, SlowFilterbank()).prepare(clips, progress=False)
    prepared.send((done.extracted, done.reused, len(done.problems)))


def start_builder(folder: Path, clips: list[Path], go: Any) -> tuple[BaseProcess, Connection]:
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=build, args=(folder, clips, go, theirs))
    process.start()
    return process, ours


def assert_complete(folder: Path, clips: list[Path], extractor: FeatureExtractor) -> None:
    for path, frames in zip(clips, FeatureStore(folder, extractor).load(clips), strict=True):
        waveform = read_audio(path, 16000)
        assert torch.equal(frames, extractor(waveform[None], torch.tensor([len(waveform)]))[0][0])


def test_two_concurrent_processes_extract_each_file_once(clips: list[Path], tmp_path: Path) -> None:
    go = FORK.Event()
    builders = [start_builder(tmp_path / "store", clips, go) for _ in range(2)]
    go.set()
    counts = [prepared.recv() for _, prepared in builders]
    for process, _ in builders:
        process.join()
    assert sum(extracted for extracted, _, _ in counts) == 40
    assert sum(reused for _, reused, _ in counts) == 40
    assert sum(problems for _, _, problems in counts) == 0
    assert_complete(tmp_path / "store", clips, SlowFilterbank())


def test_a_killed_builder_leaves_its_work_and_nothing_half_done(
    clips: list[Path], tmp_path: Path, wait_until: WaitUntil
) -> None:
    folder = tmp_path / "store"
    go = FORK.Event()
    go.set()
    builder, _ = start_builder(folder, clips, go)
    wait_until(lambda: len(list(folder.glob("*/*.safetensors"))) >= 3)
    builder.kill()
    builder.join()
    store = FeatureStore(folder, SlowFilterbank())
    kept = len(list(store.folder.glob("*.safetensors")))
    assert 3 <= kept < 40
    half = store.folder / ".tmp-0123"
    half.write_bytes(b"half a shard")
    prepared = store.prepare(clips, progress=False)
    assert (prepared.extracted, prepared.reused) == (40 - kept, kept)
    assert not half.exists()
    assert_complete(folder, clips, SlowFilterbank())


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked workers that start in milliseconds; this process runs one thread of torch."""
    monkeypatch.setattr(extraction, "_CONTEXT", FORK)
    monkeypatch.setattr(extraction, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(extraction, "LEAST_SECONDS_FOR_WORKERS", 0.0)


@pytest.mark.usefixtures("forked_workers")
def test_workers_give_the_frames_and_reasons_of_one_process(clips: list[Path], tmp_path: Path) -> None:
    bad = clips[20].with_name("zero.wav")
    soundfile.write(bad, np.zeros(500), 16000)
    prepared = FeatureStore(tmp_path / "store", LogMelFilterbank()).prepare([*clips, bad], workers=2, progress=False)
    assert (prepared.extracted, prepared.reused) == (40, 0)
    assert list(prepared.problems) == [bad]
    assert "all 500 samples are zero" in prepared.problems[bad]
    assert_complete(tmp_path / "store", clips, LogMelFilterbank())
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("forked_workers")
def test_a_killed_worker_is_an_error_that_says_what_to_do(clips: list[Path]) -> None:
    results = extract_files(LogMelFilterbank(), clips * 20, workers=2)
    next(results)
    next(results)
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(ConfigurationError, match=r"SIGKILL at .*\.wav: .*memory.*workers"):
        list(results)
    assert not multiprocessing.active_children()


@pytest.fixture
def many_frames() -> LogMelFilterbank:
    """Frames that exceed a pipe's buffer: a worker blocks in sending until they are read."""
    return LogMelFilterbank(hop_seconds=0.00025)


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_killed_while_it_sends_is_an_error(clips: list[Path], many_frames: LogMelFilterbank) -> None:
    worker = extraction._Worker(many_frames)
    worker.send(clips[-1])
    assert wait([worker.connection]), "it has begun to send"
    worker.process.kill()
    worker.process.join()
    with pytest.raises(ConfigurationError, match=f"SIGKILL.*{clips[-1]}"):
        worker.receive()
    worker.stop()


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_died_before_it_is_sent_a_file_is_an_error(clips: list[Path]) -> None:
    worker = extraction._Worker(LogMelFilterbank())
    worker.process.kill()
    worker.process.join()
    worker.send(clips[0])
    with pytest.raises(ConfigurationError, match=f"SIGKILL.*{clips[0]}"):
        worker.receive()
    worker.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_200_random_kills_neither_hang_nor_lose_frames(
    clips: list[Path], many_frames: LogMelFilterbank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[extraction._Worker] = []
    received: list[Path] = []

    class Recorded(extraction._Worker):
        def __init__(self, extractor: FeatureExtractor) -> None:
            super().__init__(extractor)
            started.append(self)

    def recorded(*arguments: Any) -> Iterator[tuple[Path, Tensor | str]]:
        for path, result in extract_files(*arguments):
            received.append(path)
            yield path, result

    monkeypatch.setattr(extraction, "_Worker", Recorded)
    monkeypatch.setattr(store, "extract_files", recorded)
    moments = random.Random(0)
    clips = clips[-12:]
    seconds = 0.0
    kills = stores = 0
    while kills < 200:
        stores += 1
        folder = tmp_path / f"store-{stores}"
        received.clear()
        complete = False
        while not complete:
            started.clear()
            killer = Timer(
                moments.uniform(0, seconds),
                lambda: started and moments.choice(started[:2]).process.kill(),
            )
            killer.start()
            try:
                seconds = FeatureStore(folder, many_frames).prepare(clips, workers=2, progress=False).seconds
                complete = True
            except ConfigurationError as error:
                assert "SIGKILL" in str(error)  # noqa: PT017  # most are killed, not all
                kills += 1
            killer.cancel()
            killer.join()
            kept = [name for shard in folder.glob("*/*.safetensors") for name in safe_open(shard, "pt").keys()]  # noqa: SIM118  # the file is not a mapping
            assert len(kept) == len(received), "all that was received is kept, once"
        assert sorted(received) == clips
        shutil.rmtree(folder)


@pytest.mark.slow
def test_workers_die_with_a_builder_that_is_killed(clips: list[Path], wait_until: WaitUntil) -> None:
    command = [sys.executable, "-c", ORPHANS, str(clips[0].parent)]
    builder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert builder.stdout is not None
    workers = [int(pid) for pid in builder.stdout.readline().split()]
    assert len(workers) == 2
    builder.send_signal(signal.SIGKILL)
    builder.communicate()

    wait_until(lambda: not any(_alive(pid) for pid in workers))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
