"""Files that are either there and whole, or not there."""

import os
import uuid
from pathlib import Path

UNFINISHED_PREFIX = ".tmp-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that no reader, crash or power cut ever meets a part of it.

    The bytes go to a hidden file in the same folder (a rename across file systems is a copy), reach the disk, and only
    then take the name. An older file of that name stays until that moment. A process killed in between leaves at most
    a file that begins with ``UNFINISHED_PREFIX``, which nothing reads.

    Args:
        path: Where the file shall be; its folder is made if missing.
        content: The whole file.

    Raises:
        OSError: If the folder cannot be written or the disk is full, which names ``path``; the unfinished file is
            removed then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{UNFINISHED_PREFIX}{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        # Writing names no file, and opening a name that nobody knows.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)  # the name is part of the folder, and must reach the disk as well
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
