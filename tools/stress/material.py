"""What the commands under test work on: a tiny corpus, its experiments, and what undisturbed commands made of them."""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tools.stress.child import Conditions
from tools.stress.commands import REPOSITORY, Commands

RECORDINGS, FEATURES = "recordings", "features"
EXPERIMENT, TABLE, SWEEP = "experiment.yaml", "table.yaml", "sweep.yaml"
FOLD, RUNS, TRIALS = "fold", "runs", "trials"
CHECKPOINT = f"{FOLD}/checkpoints/best.ckpt"
PREDICTIONS = "predictions.csv"
_SAME = (PREDICTIONS, "validation_predictions.csv", "metrics.csv", "config.yaml", "split_hash")
_MAY_DIFFER = ("seconds", "code_version", "code_versions")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "corpus": ("synth", "audio_files", RECORDINGS, "--speakers=3", "--clips-per-speaker=8"),
    "synth": ("synth", "audio_files", "other", "--speakers=1", "--clips-per-speaker=4"),
    "store": ("prepare", f"--config={EXPERIMENT}"),
    "fold": ("run-fold", f"--config={EXPERIMENT}", f"--trainer.default_root_dir={FOLD}"),
    "table": ("table", "run", TABLE, "--folds=0"),
    "sweep": ("sweep", SWEEP, "--folds=0", f"--runs={TRIALS}"),
    "report": ("report", RUNS, "--out=report"),
    "classify": ("classify", CHECKPOINT, RECORDINGS, "--out=emotions.csv"),
}
"""Commands by name, in the order in which each finds what it needs."""


@dataclass
class Material:
    """The folder of an undisturbed run of all ``COMMANDS``.

    Attributes:
        folder: Its folder; the working folder of the commands.
        seconds: Time of each command.
        uses: How often each command needed room on the disk.
    """

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, commands: Commands) -> "Material":
        """Write the experiments and run the commands.

        Raises:
            RuntimeError: If one fails.
        """
        material = cls(folder)
        folder.mkdir()
        experiment = yaml.safe_load((REPOSITORY / "experiments" / "own_corpus.yaml").read_text())
        experiment["trainer"] |= {"accelerator": "cpu", "max_epochs": 6, "logger": False}
        experiment["trainer"]["enable_progress_bar"] = False
        experiment["model"]["init_args"]["cells"] = 4
        experiment["model"]["init_args"]["pooling"]["init_args"]["clusters"] = 2
        experiment["data"]["init_args"] |= {"root": RECORDINGS, "feature_folder": FEATURES}
        experiment["data"]["init_args"]["extractor"]["init_args"]["num_mels"] = 10
        rows: list[dict[str, object]] = [{"name": "four", "experiment": EXPERIMENT}]
        rows.append({"name": "five", "experiment": EXPERIMENT, "overrides": ["--model.init_args.cells=5"]})
        sweep = {
            "method": "grid",
            "metric": {"name": "cv/validation_UA_mean", "goal": "maximize"},
            "parameters": {"model.init_args.cells": {"values": [4, 6]}},
            "command": ["ser", "cv", "--config", EXPERIMENT, "${args}"],
        }
        table = {"title": "T", "corpus": "audio_files", "rows": rows}
        files = {EXPERIMENT: experiment, "audio_files.yaml": {"data": experiment["data"]}, TABLE: table, SWEEP: sweep}
        for name, content in files.items():
            (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
        for name, arguments in COMMANDS.items():
            ended = commands.run(arguments, folder, Conditions(blank_pictures=True), calm_seconds=60)
            if ended.status != 0 or ended.fault():
                raise RuntimeError(f"ser {' '.join(arguments)} {ended.fault()}:\n{ended.output}")
            material.seconds[name], material.uses[name] = ended.seconds, ended.uses
        return material

    def place(self, folder: Path, copied: Iterable[str] = (), linked: Iterable[str] = ()) -> Path:
        """Make a working folder with parts of this one, and return it.

        Args:
            folder: The new folder.
            copied: Names of files and folders that a command may change.
            linked: Names of those that it only reads.
        """
        folder.mkdir()
        for name in copied:
            if (source := self.folder / name).is_dir():
                shutil.copytree(source, folder / name)
            else:
                shutil.copy(source, folder / name)
        for name in linked:
            (folder / name).symlink_to(self.folder / name)
        return folder


def results(folder: Path) -> dict[str, object]:
    """Return what must be equal after any disturbance, by name: all results but times."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name in _SAME or path.suffix == ".csv":
            found[name] = path.read_bytes()
        elif path.name in ("run.json", "summary.json", "scores.json"):
            found[name] = _comparable(json.loads(path.read_bytes()))
        elif path.name == "sweep.json":
            trials = json.loads(path.read_bytes())["trials"]
            found[name] = sorted(
                json.dumps([trial[key] for key in ("parameters", "state", "objective")]) for trial in trials
            )
    return found


def _comparable(content: object) -> object:
    if isinstance(content, dict):
        return {key: _comparable(value) for key, value in content.items() if key not in _MAY_DIFFER}
    return [_comparable(value) for value in content] if isinstance(content, list) else content


def frames(folder: Path) -> dict[str, bytes]:
    """Return the frames in the feature stores below ``folder``, by the digest of their audio.

    Raises:
        ValueError: If frames are stored twice.
    """
    from safetensors.numpy import load_file

    found: dict[str, bytes] = {}
    for shard in folder.rglob("*.safetensors"):
        for digest, array in load_file(shard).items():
            if digest in found:
                raise ValueError(f"{digest} is stored twice")
            found[digest] = array.tobytes()
    return found


def differences(expected: Mapping[str, object], found: Mapping[str, object]) -> str:
    """Return which results are missing, left over or different; empty if all are equal."""
    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    return f"differ from an undisturbed run: {', '.join(names[:5])}" if names else ""
