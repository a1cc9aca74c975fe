"""What lies below a folder, in an order that does not depend on the file system."""

import os
from collections.abc import Iterator
from pathlib import Path

from ser_lightning.errors import CorpusError

# What file systems keep at the root of a disk, and nobody may read, or should.
_OF_FILE_SYSTEMS = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})


def files_below(root: Path, *, only_readable: bool = False) -> Iterator[Path]:
    """Return the files in and below ``root``, folder by folder, sorted within each.

    Links are followed, a folder that is reached twice is read once, and hidden folders are left out, as are those that
    a file system keeps for itself, such as lost+found.

    Args:
        root: Where to begin.
        only_readable: Pass over folders that cannot be read.

    Raises:
        CorpusError: If ``root`` or a folder below it cannot be read; what lies there would be missing in silence.
    """

    def refuse(error: OSError) -> None:
        raise CorpusError(
            f"{error.filename}: this folder cannot be read ({error.strerror}), and what lies in it would be missing. "
            f"Make it readable, such as by `chmod -R u+rX`, or move it out of {root}."
        ) from error

    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=None if only_readable else refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name not in _OF_FILE_SYSTEMS)
        yield from (Path(folder, name) for name in sorted(files))
