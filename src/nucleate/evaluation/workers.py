"""The processes of an evaluation: this one, or those of a Dask cluster that starts when there is work for it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Any

from nucleate.data.execution import ProcessPool, process_pool
from nucleate.errors import ConfigError


class Workers:
    """Runs functions over items, here or on a cluster; a context manager that ends the cluster.

    Args:
        num: processes; 1 works in this process.
        scheduler: address of a running Dask scheduler to use instead.
    """

    def __init__(self, num: int = 1, scheduler: str | None = None) -> None:
        if num < 1:
            raise ConfigError(f"workers must be at least 1, got {num}")
        self.num, self.scheduler = num, scheduler
        self._stack = ExitStack()
        self._pool: ProcessPool | None = None
        self._running: list[Generator[Any, None, None]] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is still out is cancelled while there is a cluster to tell so.
        for results in self._running:
            results.close()
        self._running.clear()
        self._stack.close()
        self._pool = None

    @property
    def is_local(self) -> bool:
        """Whether the work is done in this process."""
        return self.num == 1 and self.scheduler is None

    def completed(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, doing: Callable[[Any], str]
    ) -> Iterator[tuple[Any, Any]]:
        """Each item with its result, in the order in which they are done.

        Args:
            function: what to run; picklable for several processes, as are items and results.
            items: taken as workers become free.
            doing: what is done with an item, in words, for the message when a worker dies of it.

        Raises:
            StoreError: Dask is missing, no scheduler answers, or workers died again and again.
        """
        if self.is_local:
            for item in items:
                yield item, function(item)
            return
        waiting = iter(items)
        for first in waiting:  # a run that only repeats what is done needs no cluster
            if self._pool is None:
                self._pool = self._stack.enter_context(process_pool(self.num, self.scheduler))
            results = self._pool.completed(function, chain([first], waiting), doing=doing)
            self._running.append(results)
            yield from results
            self._running.remove(results)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Results of the function for each item, in the order of the items."""
        results: dict[int, Any] = {}
        following = 0
        numbered = self.completed(
            _Numbered(function), enumerate(items), doing=lambda item: f"item {item[0]:,}"
        )
        for (number, _), result in numbered:
            results[number] = result
            while following in results:
                yield results.pop(following)
                following += 1


class _Numbered:
    """A function of (number, item) that looks at the item only."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, numbered: tuple[int, Any]) -> Any:
        return self.function(numbered[1])
