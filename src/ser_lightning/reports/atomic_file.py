"""Files that are either there and whole, or not there."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that no reader, and no crash, ever sees a part of it.

    The bytes go to a hidden file in the same folder (a rename across file systems is a copy), reach the disk, and only
    then take the name. An older file of that name stays until that moment. A process killed in between leaves the
    hidden ``.<name>.<pid>.tmp`` behind, which nothing reads and which the next write by that process id replaces.

    Args:
        path: Where the file shall be; its folder is made if missing.
        content: The whole file.

    Raises:
        OSError: If the folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)  # the name is part of the folder, and must reach the disk as well
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
