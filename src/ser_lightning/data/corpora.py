"""The corpora that are installed: plug-ins, which the core finds by their entry points."""

from importlib.metadata import entry_points
from typing import Any

from ser_lightning.errors import CorpusError


def find_corpus(name: str) -> Any:
    """Return the module of a corpus, such as ``data_modules.ravdess``.

    Raises:
        CorpusError: If no corpus of that name is installed; it names those that are.
    """
    installed = {entry.name: entry for entry in entry_points(group="ser_lightning.corpora")}
    if name not in installed:
        raise CorpusError(f"'{name}' is no corpus here; there are {', '.join(sorted(installed))}")
    return installed[name].load()
