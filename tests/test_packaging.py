"""The wheel, the lock files, and a tracked tree without paths, audio or weights of one machine."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = ("requirements.lock", "requirements-opensmile.lock", "requirements-dev.lock")
AUDIO_AND_WEIGHTS = {
    *(".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".sph", ".mp4", ".wma"),
    *(".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".onnx", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5"),
}
REGISTRY_HOST = re.compile(
    r"(?:pypi|pythonhosted|anaconda|npmjs|jsdelivr|unpkg)[.](?:org|com|net|io)\b|whl[/]cu\d|whl[/]cpu"
)
MACHINE_PATH = re.compile(r"(?<![\w.~})>])/(?:work|root|home|Users|mnt|opt)/\w")


def tracked_files(repository: Path) -> list[Path]:
    if not (repository / ".git").exists():
        pytest.skip("not a git working tree")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, check=True, capture_output=True).stdout
    paths = [repository / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def locked_versions(lock: Path) -> dict[str, str]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), flags=re.MULTILINE)
    versions = defaultdict(set)
    for name, version in pins:
        versions[canonicalize_name(name)].add(version)
    assert all(len(found) == 1 for found in versions.values()), f"{lock.name} holds two versions of one package"
    return {name: found.pop() for name, found in versions.items()}


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"  # a copy: building writes build/ and *.egg-info next to the sources
    for name in ("src", "data_modules", "benchmarks", "tests/conftest.py", "pyproject.toml", "README.md", "LICENSE"):
        origin, copy = repository / name, sources / name
        if origin.is_dir():
            shutil.copytree(origin, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif origin.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, copy)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
    ]
    built = subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(folder), str(sources)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    return target


def run_with_wheel(installed: Path, folder: Path, code: str) -> str:
    """Run ``code`` in ``folder`` with the installed wheel first on the path; return its output."""
    preamble = f"import sys; sys.path.insert(0, {str(installed)!r})\n"
    done = subprocess.run([sys.executable, "-I", "-c", preamble + code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_both_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        roots = {name.split("/")[0] for name in archive.namelist()}
    assert roots == {"ser_lightning", "data_modules", "ser_lightning-0.1.0.dist-info"}


def test_the_wheel_holds_every_module_and_package_file(wheel: Path, repository: Path) -> None:
    sources = [(repository / "src", "ser_lightning"), (repository, "data_modules")]
    wanted = {
        path.relative_to(root).as_posix()
        for root, package in sources
        for pattern in ("*.py", "py.typed", "*.conf", "*.j2", "*.css")
        for path in (root / package).rglob(pattern)
    }
    experiments = repository / "experiments"
    wanted |= {
        f"ser_lightning/experiments/{path.relative_to(experiments).as_posix()}" for path in experiments.rglob("*.yaml")
    }
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {"ser_lightning/py.typed", "data_modules/py.typed"} <= shipped
    for ending, what in ((".conf", "openSMILE's configuration"), (".j2", "the reports' templates")):
        assert any(name.endswith(ending) for name in shipped), f"{what} is not in the wheel"
    assert shipped == wanted


def test_both_packages_are_imported_from_another_folder(installed: Path, tmp_path: Path) -> None:
    code = "import ser_lightning, data_modules; print(ser_lightning.__file__, data_modules.__file__, sep='\\n')"
    for line in run_with_wheel(installed, tmp_path, code).splitlines():
        assert Path(line).is_relative_to(installed), f"{line} is not the installed wheel's"


def test_entry_points_find_the_command_and_the_corpora(installed: Path, tmp_path: Path) -> None:
    code = f"""
from importlib.metadata import Distribution
from ser_lightning.data.module import leave_out_lightning
leave_out_lightning()
entry_points = next(Distribution.discover(name="ser-lightning", path=[{str(installed)!r}])).entry_points
for entry_point in entry_points:
    loaded = entry_point.load()
    print(entry_point.group, entry_point.name, callable(getattr(loaded, "write_synthetic", loaded)))
"""
    assert set(run_with_wheel(installed, tmp_path, code).splitlines()) == {
        "console_scripts ser True",
        "ser_lightning.corpora audio_files True",
        "ser_lightning.corpora crema_d True",
        "ser_lightning.corpora iemocap True",
        "ser_lightning.corpora ravdess True",
        "ser_lightning.corpora voxceleb2 True",
    }


@pytest.mark.slow
def test_the_wheel_trains_the_quick_start_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    for command in (
        ["experiments", "--out", "experiments"],
        ["synth", "ravdess", ".cache/synthetic/ravdess", "--speakers", "4", "--clips-per-speaker", "8"],
        ["cv", "--config", "experiments/quickstart.yaml", "--folds", "0", "--trainer.max_epochs", "1"],
        ["smoke"],
    ):
        code = f"from ser_lightning.cli.__main__ import main; sys.argv[1:] = {command}; sys.exit(main())"
        run_with_wheel(installed, tmp_path, code)
    assert (tmp_path / "runs/quickstart/ravdess-synthetic/default/seed-0/fold-00/predictions.csv").exists()
    assert {path.name for path in tmp_path.iterdir()} == {".cache", "experiments", "runs"}


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_requirement_is_pinned_and_carries_hashes(repository: Path, name: str) -> None:
    text = re.sub(r"^\s*#.*\n", "", (repository / name).read_text(), flags=re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 50
    for entry in entries:
        first, *hashes = [line.strip().rstrip("\\").strip() for line in entry.splitlines()]
        assert re.match(r"[A-Za-z0-9._-]+==\S+", first), f"{name}: {first!r} is not a pinned name"
        assert hashes, f"{name}: {first} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), f"{name}: {first}"


def test_each_lock_holds_the_one_before_at_the_same_versions(repository: Path) -> None:
    for smaller, larger in pairwise(locked_versions(repository / name) for name in LOCKS):
        assert {package: larger.get(package) for package in smaller} == smaller


def test_the_locks_meet_every_requirement_of_the_project(repository: Path, project: dict[str, Any]) -> None:
    core, opensmile, developers = (locked_versions(repository / name) for name in LOCKS)
    extras = project["project"]["optional-dependencies"]
    needs = [
        *((line, core) for line in project["build-system"]["requires"]),  # installed without build isolation
        *((line, core) for line in project["project"]["dependencies"]),
        *((line, opensmile) for line in extras["opensmile"]),
        *((line, developers) for lines in extras.values() for line in lines),
    ]
    for line, versions in needs:
        requirement = Requirement(line)
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{line} is not locked: run `make lock`"
        assert requirement.specifier.contains(version, prereleases=True), f"{line}, but {version} is locked"


def test_torch_and_torchaudio_are_pinned_to_one_release(project: dict[str, Any]) -> None:
    pins = {Requirement(line).name: Requirement(line).specifier for line in project["project"]["dependencies"]}
    assert str(pins["torch"]) == str(pins["torchaudio"]) == "==2.11.0"


def test_no_tracked_file_names_a_registry_or_a_local_path(repository: Path) -> None:
    found = []
    for path in tracked_files(repository):
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), start=1):
            if REGISTRY_HOST.search(line) or MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(repository)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_no_audio_no_weights_and_nothing_large_is_tracked(repository: Path) -> None:
    tracked = tracked_files(repository)
    foreign = [path.name for path in tracked if path.suffix.lower() in AUDIO_AND_WEIGHTS]
    large = [path.name for path in tracked if path.stat().st_size > 2**20]
    assert not foreign, f"audio or weights are tracked: {foreign}"
    assert not large, f"more than 1 MiB is tracked in one file: {large}"
