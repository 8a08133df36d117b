"""Items and results of workers as parcels: pickled at one end, opened at the other, moved as bytes in between."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nucleate.evaluation.workers import Workers


@dataclass(frozen=True)
class _Opening:
    """A function of a parcel whose result is one."""

    function: Callable[[Any], Any]

    def __call__(self, given: bytes) -> bytes:
        return parcel(self.function(pickle.loads(given)))


def map_in_parcels(workers: Workers, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """``workers.map(function, items)`` for items and results that are made of many small things.

    Dask sends every array of a message as a frame of its own, and its scheduler takes messages apart and puts them
    together again. For thousands of arrays of a few numbers that costs more than what is done with them; a parcel is
    one thing to everybody on its way.
    """
    if workers.is_local:
        return workers.map(function, items)
    return map(pickle.loads, workers.map(_Opening(function), map(parcel, items)))


def parcel(content: Any) -> bytes:
    """Anything as bytes."""
    return pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
