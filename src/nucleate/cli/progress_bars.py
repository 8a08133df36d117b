"""The progress bars of commands that take a while: on standard error, with the time left, gone when done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nucleate.cli.errors import error_console

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


@contextmanager
def share_bar(verb: str) -> Iterator[Progress]:
    """A bar that shows a share of the work, what the task's ``note`` says, the time gone and the time left."""
    from rich.progress import TaskProgressColumn  # noqa: PLC0415  (rich.progress is slow to load)

    with _bar(verb, TaskProgressColumn()) as progress:
        yield progress


@contextmanager
def count_bar(verb: str) -> Iterator[Progress]:
    """A bar for things that are counted: also how many of how many, or how fast where nobody knows the end."""
    from rich.progress import (  # noqa: PLC0415  (rich.progress is slow to load)
        MofNCompleteColumn,
        TaskProgressColumn,
    )

    with _bar(verb, TaskProgressColumn(show_speed=True), MofNCompleteColumn()) as progress:
        yield progress


@contextmanager
def _bar(verb: str, *amounts: ProgressColumn) -> Iterator[Progress]:
    from rich.progress import (  # noqa: PLC0415  (rich.progress is slow to load)
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(verb),
        BarColumn(),
        *amounts,
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console(), transient=True) as progress:
        yield progress
