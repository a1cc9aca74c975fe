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

import gc
import ipaddress
import json
import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
# Processes of distributed tests are forked from one that has imported this.
multiprocessing.set_forkserver_preload(["ser_lightning.systems", "ser_lightning.losses"])


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


@pytest.fixture(scope="session")
def crema_d_tables() -> Path:
    """CREMA-D's tables of votes and actors: the folder named by SER_CREMA_D_TABLES, or one beside the repository."""
    root = Path(os.environ.get("SER_CREMA_D_TABLES", REPOSITORY / "../shared/data/crema_d")).resolve()
    if not root.is_dir():
        pytest.skip(f"CREMA-D's tables are not at {root}; name their folder in SER_CREMA_D_TABLES")
    return root


# Files of half a minute and more: begun last, one would run alone at the end.
LONGEST_FILES = (
    "test_cross_validate.py",
    "test_distributed.py",
    "test_documentation.py",
    "test_experiment.py",
    "test_experiments.py",
    "test_packaging.py",
    "test_ray_engine.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, skip what this machine cannot run, and give slow tests more time than others."""
    items.sort(key=lambda item: item.path.name not in LONGEST_FILES)
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(3600))


def pytest_collection_finish() -> None:
    """Exempt what all tests share from garbage collection, which would look at it again and again."""
    gc.collect()
    gc.freeze()


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


Ser = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def ser(tmp_path_factory: pytest.TempPathFactory) -> Ser:
    """Run ``ser`` in a process of its own and return its exit status and output; it is forked, as jobs are."""

    def run(*arguments: str, **environment: str) -> tuple[int, str]:
        from ser_lightning.jobs import engine
        from ser_lightning.jobs.fork_server import fork_server

        output = tmp_path_factory.mktemp("ser") / "output.txt"
        whole = os.environ | environment
        server = fork_server(engine.PROGRAM, whole)
        number = server.start(arguments, REPOSITORY, whole, output)
        while (status := server.status(number)) is None:
            time.sleep(0.02)
        return status, output.read_text()

    return run


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], object]], None]:
    """Wait for what another process does, however busy the machine is; the test's own time limit ends it."""

    def wait(condition: Callable[[], object]) -> None:
        while not condition():
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="module")
def small_pictures() -> Iterator[None]:
    """Save a module's pictures as one dot: most of a report's time goes into drawing what no one looks at."""
    from matplotlib.figure import Figure
    from PIL import Image

    def save_a_dot(figure: Figure, file: Any, **_: object) -> None:
        Image.new("RGB", (1, 1)).save(file, "PNG")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_a_dot)
        yield


@pytest.fixture(scope="session", autouse=True)
def _shallow_residual_network() -> Iterator[tuple[tuple[int, int, int], ...]]:
    """Give the residual network one block a stage: storing and loading 34 layers takes longer than training them.

    Processes that tests start build all layers, and so do tests with ``all_layers``.
    """
    from ser_lightning.nn.encoders import se_resnet

    whole = se_resnet.STAGES
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(se_resnet, "STAGES", tuple((1, *widths) for _, *widths in whole))
        yield whole


@pytest.fixture
def all_layers(_shallow_residual_network: tuple[tuple[int, int, int], ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the residual network its 34 layers."""
    from ser_lightning.nn.encoders import se_resnet

    monkeypatch.setattr(se_resnet, "STAGES", _shallow_residual_network)


CLASSES = ("neutral", "happy", "sad", "angry")

# Reference classes in rows. Fold 1 has no angry utterance, yet says angry once.
MATRICES = (
    ((2, 0, 0, 0), (0, 1, 1, 0), (0, 0, 2, 0), (1, 0, 0, 1)),  # recalls 1, 1/2, 1, 1/2
    ((1, 1, 0, 0), (0, 2, 0, 0), (0, 0, 1, 1), (0, 0, 0, 0)),  # recalls 1/2, 1, 1/2
    ((2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 2, 0), (0, 0, 0, 2)),  # all right
)

WriteFold = Callable[..., Path]


def write_fold(
    seed_folder: Path,
    fold: int,
    matrix: Sequence[Sequence[int]],
    *,
    class_names: Sequence[str] = CLASSES,
    prefix: str = "",
    groups: Sequence[Mapping[str, str]] = (),
    **facts: object,
) -> Path:
    """Write a finished fold with the confusion matrix ``matrix`` and speakers of its own; ``facts`` go to run.json."""
    from ser_lightning.runs.predictions import Predictions

    folder = seed_folder / f"fold-{fold:02d}"
    pairs = [(row, column) for row, counts in enumerate(matrix) for column, n in enumerate(counts) for _ in range(n)]
    targets, predicted = torch.tensor(pairs).T
    rest = 0.3 / (len(class_names) - 1)
    probabilities = torch.full((len(pairs), len(class_names)), rest)
    probabilities[torch.arange(len(pairs)), predicted] = 0.7
    Predictions.collect(
        utterances=[f"{prefix}fold{fold}-{index:03d}" for index in range(len(pairs))],
        speakers=[f"{2 * fold + 1 + index % 2:02d}" for index in range(len(pairs))],
        fold=fold,
        targets=targets,
        predicted=predicted,
        probabilities=probabilities,
        class_names=class_names,
        groups=[groups[index % len(groups)] for index in range(len(pairs))] if groups else (),
    ).write(folder / "predictions.csv")
    said: dict[str, object] = {
        "paper": "zhou2020",
        "experiment": "transfer",
        "corpus": "ravdess",
        "synthetic": True,
        "row": "default",
        "protocol": "actor folds (even, 3)",
        "speakers_disjoint": True,
        "protocol_hash": "0123456789ab",
        "split_hash": f"{fold:012x}",
        "fold": fold,
        "num_folds": 3,
        "seed": int(seed_folder.name.removeprefix("seed-")),
        "class_names": list(class_names),
        "system": "TransferResNet",
        "parameters": 1234567,
        "best_epoch": 2 + fold,
        "epochs": 5 + fold,
        "seconds": 61.5,
        "code_version": "0.1.0+abc1234",
        "hardware": "2 cores",
        "precision": "32-true",
        "skipped_audio": {},
        "faulty_left_out": [],
        "same_audio_across_sets": 0,
        "untrained_classes": [],
        "one_speaker_classes": [],
        "diverged": "",
    }
    (folder / "run.json").write_text(json.dumps(said | facts))
    lines = ["epoch,step,train/loss,validation/loss,validation/UA"]
    for epoch in range(5 + fold):
        loss = 1.4 * 0.7**epoch
        lines.append(f"{epoch},{10 * epoch},{loss},{loss + 0.1 * fold + 0.02 * epoch},{0.9 - 0.6 * 0.6**epoch}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def seed_folder(tmp_path: Path) -> Path:
    """A finished cross-validation of three folds and four classes on synthetic speech."""
    folder = tmp_path / "zhou2020" / "transfer" / "ravdess-synthetic" / "default" / "seed-0"
    for fold, matrix in enumerate(MATRICES):
        write_fold(folder, fold, matrix)
    return folder


@pytest.fixture(name="write_fold", scope="session")
def write_fold_fixture() -> WriteFold:
    """Give tests ``write_fold``: under pytest's importlib mode a conftest cannot be imported."""
    return write_fold
