"""The corpora that are installed: plug-ins, which the core finds by their entry points."""

from importlib.metadata import entry_points
from typing import Any

from ser_lightning.data.corpus_source import CorpusSource
from ser_lightning.errors import CorpusError

GROUP = "ser_lightning.corpora"


def find_corpus(name: str) -> Any:
    """Return the module of a corpus, such as ``data_modules.ravdess``.

    Raises:
        CorpusError: If no corpus of that name is installed; it names those that are.
    """
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in installed:
        raise CorpusError(f"'{name}' is no corpus here; there are {', '.join(sorted(installed))}")
    return installed[name].load()


def source_of(name: str) -> CorpusSource | None:
    """Return where a corpus comes from, or None if it is not installed or does not say so."""
    for entry in entry_points(group=GROUP, name=name):
        source: CorpusSource | None = getattr(entry.load(), "SOURCE", None)
        return source
    return None
