"""The progress bar of commands that take a while: on standard error, with the time left, gone when done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nucleate.cli.errors import error_console

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def share_bar(verb: str) -> Iterator[Progress]:
    """A bar that shows a share of the work, what the task's ``note`` says, the time gone and the time left."""
    from rich.progress import (  # noqa: PLC0415  (rich.progress is slow to load)
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(verb),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console(), transient=True) as progress:
        yield progress
