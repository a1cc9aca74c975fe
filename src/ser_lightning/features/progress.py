"""A bar for work that goes file by file."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")


class _FilesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return the mean speed of ``task`` since it began."""
        return Text(f"{task.completed / task.elapsed:.1f} files/s" if task.elapsed else "")


def show_progress(files: Iterable[Item], total: int, description: str, shown: bool) -> Iterator[Item]:
    """Yield ``files``, ``total`` of them, with a bar on standard error: done, files per second, time left.

    Args:
        files: What is worked on.
        total: How many.
        description: Stands before the bar.
        shown: Whether to show anything.
    """
    if not shown:
        yield from files
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _FilesPerSecond())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        yield from bar.track(files, total=total, description=description)
