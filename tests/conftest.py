"""What holds for every test: one thread, no display, nothing sent to Weights & Biases, no network, known markers."""

import os

# Before torch, matplotlib and wandb are imported, and inherited by the processes that tests start.
os.environ.update(
    OMP_NUM_THREADS="1",
    MPLBACKEND="Agg",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    WANDB_ERROR_REPORTING="false",
)

import ipaddress
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


class NetworkUseError(RuntimeError):
    """A test reached for another machine. Not an OSError, lest the code under test take it for a poor connection."""


def _is_this_machine(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))  # only an address of this machine can be bound; nothing is sent
        except OSError:
            return False
    return True


def _refuse_other_machines(host: object) -> None:
    if not _is_this_machine(host):
        raise NetworkUseError(f"A test reached for {host!r}: tests download nothing and send nothing.")


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Refuse names and stream connections beyond this machine.

    A datagram socket may connect: that sends nothing, and is how Ray asks for this machine's own address.
    """
    resolve, connect, connect_ex = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_other_machines(host)
        return resolve(host, *args, **kwargs)

    def check(this: socket.socket, address: Any) -> None:
        if this.type == socket.SOCK_STREAM and isinstance(address, tuple):
            _refuse_other_machines(address[0])

    def guarded_connect(this: socket.socket, address: Any) -> None:
        check(this, address)
        connect(this, address)

    def guarded_connect_ex(this: socket.socket, address: Any) -> int:
        check(this, address)
        return connect_ex(this, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", guarded_resolve)
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def ravdess_root() -> Path:
    """The corpus on disk: the folder named by SER_RAVDESS_ROOT, or one beside the repository; else a skipped test."""
    root = Path(os.environ.get("SER_RAVDESS_ROOT", REPOSITORY / "../shared/data/ravdess")).resolve()
    if not root.is_dir():
        pytest.skip(f"RAVDESS is not at {root}; name its folder in SER_RAVDESS_ROOT")
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def synthetic_ravdess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers of synthetic RAVDESS, sixteen clips each, two of each emotion."""
    from data_modules.ravdess import write_synthetic

    root = tmp_path_factory.mktemp("synthetic") / "ravdess"
    write_synthetic(root, speakers=6, seed=0, clips_per_speaker=16)
    return root


@pytest.fixture(scope="session")
def synthetic_iemocap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four speakers of synthetic IEMOCAP; each has eight improvised utterances, of Ando's four emotions and others."""
    from data_modules.iemocap import write_synthetic

    root = tmp_path_factory.mktemp("synthetic") / "iemocap"
    write_synthetic(root, speakers=4, seed=0, clips_per_speaker=16)
    return root


@pytest.fixture(scope="session")
def feature_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store that all tests of a process share."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def arguments(synthetic_ravdess: Path, feature_folder: Path) -> Callable[..., list[str]]:
    """LightningCLI's arguments for a run of seconds in a folder, with more behind them."""

    def make(folder: Path, *more: str) -> list[str]:
        return [
            "--config=experiments/quickstart.yaml",
            f"--data.init_args.root={synthetic_ravdess}",
            f"--data.init_args.feature_folder={feature_folder}",
            "--model.init_args.cells=8",
            "--trainer.max_epochs=2",
            "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={folder}",
            *more,
        ]

    return make
