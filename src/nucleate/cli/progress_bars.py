"""The progress bars of commands that take a while: on standard error, with the time left, gone when done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nucleate.cli.errors import error_console

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID


@runtime_checkable
class Stage(Protocol):
    """How far a piece of long work is."""

    @property
    def stage(self) -> str:
        """What is being done."""

    @property
    def done(self) -> int:
        """How much is done."""

    @property
    def total(self) -> int | None:
        """How much there is, None where nobody knows."""

    @property
    def note(self) -> str:
        """What the work says of itself, empty for nothing."""


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
def stage_bars(verb: str) -> Iterator[Callable[[Stage], None]]:
    """A bar for the stage that is at work, one after the other; call it with how far the stage is."""
    with count_bar(verb) as progress:
        stages: dict[str, TaskID] = {}

        def tell(state: Stage) -> None:
            if state.stage not in stages:
                for earlier in stages.values():
                    progress.update(earlier, visible=False)
                stages[state.stage] = progress.add_task(state.stage, total=state.total, note="")
            note = state.stage if not state.note else f"{state.stage}: {state.note}"
            progress.update(stages[state.stage], completed=state.done, total=state.total, note=note)

        yield tell


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
