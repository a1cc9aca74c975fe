"""The YAML files of ``experiments/``: those installed with the package, and which command takes which."""

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from ser_lightning.errors import ConfigurationError

INSTALLED = Path(__file__).parents[1] / "experiments"
"""The files in the package; in a clone, a link to ``experiments/``."""
# Keys of each kind of file, and the command that takes it.
_KINDS = {
    "an experiment": ({"model", "data", "trainer"}, "ser cv --config {}"),
    "a table": ({"rows"}, "ser table run {}"),
    "a sweep": ({"parameters", "method"}, "ser sweep {}"),
    "a choices": ({"choices"}, "no command; it is part of docs/reproduction.md"),
}
_SENTENCE = re.compile(r".+?(?<!et al)[.](?= |$)|.+")


def experiments_folder() -> Path:
    """Return ``experiments/`` in the current folder, or the installed one."""
    here = Path("experiments")
    return here if here.is_dir() else INSTALLED


def describe_files(folder: Path) -> dict[str, str]:
    """Return the first sentence of each file that a command takes, by its path below ``folder``."""
    found = {}
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: (path.parent, path)):
        comment = re.match(r"(?:#.*\n)*", path.read_text())
        text = " ".join(line.removeprefix("#").strip() for line in (comment[0] if comment else "").splitlines())
        if path.name != "choices.yaml":
            found[path.relative_to(folder).as_posix()] = _SENTENCE.findall(text)[0] if text else ""
    return found


def copy_files(target: Path) -> int:
    """Copy the installed files into a folder, and return their number; existing files stay as they are.

    Raises:
        ConfigurationError: If the target is a file.
    """
    if target.exists() and not target.is_dir():
        raise ConfigurationError(f"{target} is a file; give a folder to --out")
    copied = 0
    for path in sorted(INSTALLED.rglob("*.yaml")):
        copy = target / path.relative_to(INSTALLED)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            copied += 1
    return copied


def check_kind(path: Path, keys: Collection[str], kind: str) -> None:
    """Reject a file of another kind.

    Args:
        path: The file.
        keys: Its keys.
        kind: The kind that the command takes, such as ``a sweep``.

    Raises:
        ConfigurationError: Naming the file, its kind and the command that takes it.
    """
    if _KINDS[kind][0] & set(keys):
        return
    for other, (own, command) in _KINDS.items():
        if own & set(keys):
            raise ConfigurationError(f"{path} is {other} file, not {kind} file; for it: {command.format(path)}")
