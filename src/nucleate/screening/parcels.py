"""Items and results of workers as parcels: pickled at one end, opened at the other, moved as bytes in between."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from nucleate.evaluation.workers import Workers

_WORK_SECONDS = 0.25
"""Work that a message should carry: many times what it costs, and little enough that workers end together."""

_MOST = 16
"""Most items of a message, whatever they take: results are in memory together."""


@dataclass(frozen=True)
class _Opening:
    """A function of a parcel of items, whose result is one of (seconds of work, results)."""

    function: Callable[[Any], Any]

    def __call__(self, given: bytes) -> bytes:
        # Processor time: on a machine with other work the clock would keep apart what should travel together.
        start = time.thread_time()
        results = [self.function(item) for item in pickle.loads(given)]
        return parcel((time.thread_time() - start, results))


class _Packing:
    """Puts items into parcels, as many together as make a good message by the time that those before have taken."""

    def __init__(self) -> None:
        self._together = 1
        self._seconds = 0.0  # of an item

    def parcels(self, items: Iterable[Any]) -> Iterator[bytes]:
        """The items; each parcel is packed when it is asked for."""
        waiting = iter(items)
        while some := list(islice(waiting, self._together)):
            yield parcel(some)

    def learn(self, seconds: float, num: int) -> None:
        """Take note of how long the items of a message took."""
        # Half of the old: a worker's first items wait for its imports, which says nothing of the following ones.
        self._seconds = (self._seconds + seconds / num) / 2 if self._seconds else seconds / num
        self._together = max(1, min(_MOST, int(_WORK_SECONDS / max(self._seconds, 1e-6))))


def map_in_parcels(workers: Workers, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """``workers.map(function, items)`` for items and results that are made of many small things.

    Dask sends every array of a message as a frame of its own, and its scheduler takes messages apart and puts them
    together again. For thousands of arrays of a few numbers that costs more than what is done with them; a parcel is
    one thing to everybody on its way. A message itself costs client, scheduler and worker some milliseconds and wakes
    them several times: items that take less than that many times over travel together.
    """
    if workers.is_local:
        return workers.map(function, items)
    return _map(workers, function, items)


def _map(workers: Workers, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    packing = _Packing()
    for answer in workers.map(_Opening(function), packing.parcels(items)):
        seconds, results = pickle.loads(answer)
        packing.learn(seconds, len(results))
        yield from results


def parcel(content: Any) -> bytes:
    """Anything as bytes."""
    return pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
