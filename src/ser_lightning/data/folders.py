"""What lies below a folder, in an order that does not depend on the file system."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(root: Path) -> Iterator[Path]:
    """Return the files in and below ``root``, folder by folder, sorted within each.

    Links are followed, a folder that is reached twice is read once, and hidden folders are left out.
    """
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files))
