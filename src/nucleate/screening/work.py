"""A step over many crystals: cut into tasks, each a pure function of its crystals, done here or on a cluster."""

from __future__ import annotations

import atexit
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nucleate.evaluation.workers import Workers
from nucleate.screening.isolation import IsolatedProcess
from nucleate.screening.journal import Journal, TaskJournal
from nucleate.screening.step import Step
from nucleate.screening.stored_item import StoredItem

SINGLE_STEP_TASK = 4
"""Crystals in a task of a step that does them one by one: few, so that workers end together."""


@dataclass(frozen=True)
class StepTask:
    """Crystals that go to a worker together.

    Attributes:
        name: hash of the keys: the same crystals make the same task on every run.
        keys: key of each crystal's verdict.
        items: the crystals.
    """

    name: str
    keys: tuple[str, ...]
    items: tuple[StoredItem, ...]


@dataclass(frozen=True)
class TaskPlan:
    """What all tasks of a step share.

    Attributes:
        step: the step.
        folder: of the journal; workers on other machines must see it under the same path.
        timeout: seconds for one crystal.
    """

    step: Step
    folder: str
    timeout: float


_HERE = threading.local()


def isolated_process(timeout: float) -> IsolatedProcess:
    """The isolated process of this thread: started once, its loaded potential serves all tasks."""
    process: IsolatedProcess | None = getattr(_HERE, "process", None)
    if process is None:
        process = _HERE.process = IsolatedProcess(timeout)
        atexit.register(process.close)
    process.timeout = timeout
    return process


def run_task(plan: TaskPlan, task: StepTask) -> int:
    """Number of crystals of the task, each with its verdict in the task's folder when this returns.

    A crystal whose verdict is there from an earlier try is not done again.
    """
    journal = TaskJournal(Path(plan.folder), task.name)
    left = [i for i, key in enumerate(task.keys) if key not in journal]
    items = [task.items[i].item() for i in left]
    for place, result in isolated_process(plan.timeout).run(plan.step, items):
        journal.put(task.keys[left[place]], result, items[place].crystal)
    return len(task.items)


def run_step(
    step: Step,
    digest: str,
    items: Iterable[tuple[int, StoredItem]],
    journal: Journal,
    *,
    workers: Workers,
    timeout: float,
    on_key: Callable[[int, str], None],
    on_done: Callable[[int], None],
) -> None:
    """Have every item's verdict in the journal; what is there already is not done again.

    Items are read as workers become free, so that few are in memory.

    Args:
        step: the step.
        digest: its ``digest()``.
        items: (row, item), in the order in which they should go to workers.
        journal: where verdicts are kept.
        workers: where the work is done.
        timeout: seconds for one crystal.
        on_key: told the key of each row's verdict.
        on_done: told how many more rows are done.
    """
    plan = TaskPlan(step, str(journal.folder.resolve()), timeout)
    tasks = _tasks(step, digest, items, journal, on_key, on_done)
    function = partial(run_task, plan)
    for task, num in workers.completed(function, tasks, doing=partial(_doing, step.name)):
        journal.take_in(task.name)
        on_done(num)


def _doing(name: str, task: StepTask) -> str:
    return f"doing the step {name} of {task.items[0].given['id']} and {len(task.items) - 1} more"


def _tasks(
    step: Step,
    digest: str,
    items: Iterable[tuple[int, StoredItem]],
    journal: Journal,
    on_key: Callable[[int, str], None],
    on_done: Callable[[int], None],
) -> Iterator[StepTask]:
    """Tasks of what is not known yet; equal crystals are in one task once."""
    size = max(getattr(step, "batch_size", 1), SINGLE_STEP_TASK)
    waiting: dict[str, StoredItem] = {}
    under_way: set[str] = set()
    for row, item in items:
        key = item.key(step, digest)
        on_key(row, key)
        if key in journal or key in under_way:
            on_done(1)
            continue
        under_way.add(key)
        waiting[key] = item
        if len(waiting) == size:
            yield _task(waiting)
            waiting = {}
    if waiting:
        yield _task(waiting)


def _task(items: dict[str, StoredItem]) -> StepTask:
    name = hashlib.blake2b(" ".join(items).encode(), digest_size=12).hexdigest()
    return StepTask(name, tuple(items), tuple(items.values()))
