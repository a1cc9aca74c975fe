"""Files that are there whole or not at all."""

import os
import uuid
from pathlib import Path

UNFINISHED_PREFIX = ".tmp-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` so that a reader, a crash or a power cut never meets half of it.

    After a power cut the file is the old one or the new one. A builder that dies leaves at most a file that begins with
    ``UNFINISHED_PREFIX`` in the same folder.

    Raises:
        OSError: As writing raises; the unfinished file is removed then.
    """
    unfinished = path.with_name(f"{UNFINISHED_PREFIX}{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
