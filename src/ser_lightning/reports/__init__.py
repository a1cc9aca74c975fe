"""Predictions files in; tables, figures and one HTML page out. Nothing here needs a GPU or the corpus.

``predictions`` reads and writes a fold's product, ``runs`` finds runs on disk, ``summary`` makes numbers of them,
``figures`` pictures, and ``html`` the page. The package itself imports none of them, so that the command line can look
at it without waiting for pandas, torch or matplotlib.
"""

from collections.abc import Sequence
from pathlib import Path


def write_report(run_folders: Sequence[Path], out: Path) -> Path:
    """Write one HTML page about runs, as ``ser_lightning.reports.html.write_report`` says."""
    from ser_lightning.reports import html  # waits for matplotlib

    return html.write_report(run_folders, out)
